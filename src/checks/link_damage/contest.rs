//! Bytes over the link of a free block that lies right behind another block: that one was written past its end, or
//! the free one after it was freed. Both leave the same word. What decides:
//!
//! - what the block before ends with goes on over the link: text, a fill, the elements of an array;
//! - the free block was never handed out, so that nobody can have kept a pointer to it: all blocks from there to the
//!   end of their memory still are in the order in which it was cut, and nothing but links was ever written to them;
//! - the first bytes of the link are whole: nobody who came from the block before left them out.

pub(super) mod siblings;

use ground::target::{Address, MemoryExt, TargetMemory};
use heaps::map::{Block, BlockState, HeapMap, Shape};

/// Which story the bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Story {
    /// The block before was written past its end: nothing else fits.
    Overrun,
    /// The same, but a write after free is not excluded.
    RatherOverrun,
    /// The same, or so many bytes into that block a pointer was freed, handed out again and filled as a block of its own.
    OverrunOrInner(u64),
    /// So many bytes into the block before a pointer was freed, as into others of that size, and filled when it was handed out. An overrun is
    /// not excluded.
    Inner(u64),
    /// The block was written to after it was freed, but an overrun is not excluded.
    RatherWrite,
    /// The block was written to after it was freed.
    Write,
}

impl Story {
    /// Whether the block before is the more probable one to have written.
    pub(super) fn is_overrun(self) -> bool {
        matches!(
            self,
            Story::Overrun | Story::RatherOverrun | Story::OverrunOrInner(_)
        )
    }

    /// Whether the other story fits, too.
    pub(super) fn is_open(self) -> bool {
        !matches!(self, Story::Overrun | Story::Write)
    }
}

/// What is known of the written word.
pub(super) struct Written {
    /// Bytes of it that were written, from its start.
    pub bytes: usize,
    /// Its first bytes hold what they held before.
    pub starts_whole: bool,
    /// Text, a text's end or a fill goes on from the block before.
    pub runs_on: bool,
    /// What it must have held, if that can be told.
    pub old: Option<Address>,
}

/// Decides between the block `before`, which ends where `block` begins, and a pointer to `block`.
pub(super) fn decide(
    map: &HeapMap,
    memory: &dyn TargetMemory,
    (before, state): (Block, BlockState),
    block: Block,
    written: &Written,
) -> Story {
    let in_use = state == BlockState::InUse;
    let goes_on = written.runs_on || array_goes_on(memory, before, written.bytes);
    if goes_on && (in_use || written.bytes > 1) {
        // An object that was filled as a whole, as the one before it was: whose fill ends with the block ran over nothing.
        if let Some(ends_here) = filled_whole(memory, block) {
            return match ends_here {
                true => Story::RatherWrite,
                false => Story::RatherOverrun,
            };
        }
        let distance = inner_distance(memory, before, block)
            .or_else(|| siblings::distance(map, memory, before, block));
        let is_witnessed = |distance| siblings::link_at(map, memory, before, distance).is_some();
        return match distance.filter(|_| in_use) {
            _ if !in_use => Story::RatherOverrun,
            Some(distance) if is_witnessed(distance) => Story::Inner(distance),
            Some(distance) => Story::OverrunOrInner(distance),
            None => Story::Overrun,
        };
    }
    let fresh = match freshness(map, memory, block, written.old) {
        // The last block that was handed out looks the same when it comes back: what stands in it tells.
        Fresh::Untouched if !is_all_but_empty(memory, block) => Fresh::No,
        fresh => fresh,
    };
    match fresh {
        // Neither the block before nor this one was ever in anybody's hands.
        Fresh::Order | Fresh::Untouched if !in_use && leads_to(memory, before, block.address) => {
            Story::Write
        }
        Fresh::Untouched if in_use && !written.starts_whole => Story::Overrun,
        Fresh::Order | Fresh::Untouched if !written.starts_whole => Story::RatherOverrun,
        _ if in_use && written.bytes <= 2 => Story::RatherOverrun,
        _ if in_use && zeros_go_on(memory, block) => Story::RatherOverrun,
        _ if written.starts_whole && text_begins(memory, block) => {
            match in_use && ends_as_text(memory, block) {
                true => Story::RatherOverrun,
                false => Story::RatherWrite,
            }
        }
        _ if written.starts_whole && written.bytes > 2 => Story::Write,
        _ => Story::RatherWrite,
    }
}

/// How far into the block before a run of text or of one value begins that goes on over the link, if it goes no further beyond that
/// block than it begins behind its start: as much as a pointer to there would lead to, had it been freed and handed out.
fn inner_distance(memory: &dyn TargetMemory, before: Block, block: Block) -> Option<u64> {
    let text = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let length = usize::try_from(before.bytes.min(MAX_BYTES as u64)).ok()?;
    let mut front = [0; MAX_BYTES];
    let front = front.get_mut(..length)?;
    let start = block
        .address
        .checked_sub(before.bytes.min(MAX_BYTES as u64))?;
    memory.read_into(start, front).ok()?;
    let last = *front.last()?;
    let fills = front.iter().rev().take(8).all(|byte| *byte == last);
    let is_of_run = |byte: u8| match fills {
        true => byte == last,
        false => text(byte),
    };
    let back = front
        .iter()
        .rev()
        .take_while(|byte| is_of_run(**byte))
        .count() as u64;
    let distance = before
        .bytes
        .checked_sub(back)
        .filter(|distance| *distance > 0)?;
    let mut beyond = 0;
    while beyond <= distance
        && let Some(at) = block.address.checked_add(beyond)
        && memory.read_u8(at).is_ok_and(is_of_run)
    {
        beyond += 1;
    }
    // The NUL that ends a text belongs to it.
    let is_ended = !fills
        && block
            .address
            .checked_add(beyond)
            .is_some_and(|at| memory.read_u8(at) == Ok(0));
    let beyond = beyond + u64::from(is_ended);
    (back >= 8 && (1..=distance).contains(&beyond) && distance <= MAX_INNER).then_some(distance)
}

/// Bytes that lie in front of pointers into blocks that are freed by mistake: headers, cookies, first bases, blanks.
const MAX_INNER: u64 = 256;

/// Whether one byte that is not zero fills a block from its start on, all of it or most; and if so, whether it ends where the block does.
fn filled_whole(memory: &dyn TargetMemory, block: Block) -> Option<bool> {
    /// Smaller blocks are covered by any overrun.
    const LEAST: u64 = 32;
    let length = usize::try_from(block.bytes.min(MAX_BYTES as u64)).ok()?;
    let mut bytes = [0; MAX_BYTES];
    let bytes = bytes.get_mut(..length)?;
    memory.read_into(block.address, bytes).ok()?;
    let first = *bytes.first()?;
    let filled = bytes.iter().take_while(|byte| **byte == first).count();
    let end = block.address.checked_add(block.bytes)?;
    let is_whole = filled == length && memory.read_u8(end.checked_sub(1)?) == Ok(first);
    // What an object leaves of its block is a quarter at most.
    let is_most = filled * 4 >= length * 3;
    let is_filled = block.bytes >= LEAST && first != 0 && is_most;
    is_filled.then(|| is_whole && memory.read_u8(end) != Ok(first))
}

/// Whether a block was ever handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fresh {
    No,
    /// It and those behind it are in the order in which their memory was cut.
    Order,
    /// The same, and those behind it hold nothing but links.
    Untouched,
}

/// Blocks behind one that are followed: more than the memory of any class of small blocks is cut into.
const MAX_BEHIND: u32 = 1 << 14;
/// Blocks behind one that show that their order is no chance.
const MIN_BEHIND: u32 = 3;
/// Blocks whose bytes are looked at, and bytes of each.
const LOOKED_AT: u32 = 16;
const MAX_BYTES: usize = 512;

/// Memory is cut into a chain of blocks in order of address. Blocks that come back are put before what is left of it, in
/// another order than theirs but for the program that frees all of them from the last one to the first.
fn freshness(
    map: &HeapMap,
    memory: &dyn TargetMemory,
    block: Block,
    old: Option<Address>,
) -> Fresh {
    let Some(extent) = map.extent(block.id.extent) else {
        return Fresh::No;
    };
    let Shape::Slab { stride, count } = extent.shape else {
        return Fresh::No;
    };
    let behind = count.saturating_sub(block.id.slot.saturating_add(1));
    if !(MIN_BEHIND..=MAX_BEHIND).contains(&behind) {
        return Fresh::No;
    }
    let mut at = block.address.saturating_add(stride.into());
    if old.is_some_and(|old| old != at) {
        return Fresh::No;
    }
    let mut untouched = stride > 8;
    for left in (0..behind).rev() {
        let next = at.saturating_add(stride.into());
        let expected = if left == 0 { Address::default() } else { next };
        if memory.read_pointer(at) != Ok(expected) {
            return Fresh::No;
        }
        if behind - left <= LOOKED_AT {
            untouched &= is_empty(memory, at, stride);
        }
        at = next;
    }
    match untouched {
        true => Fresh::Untouched,
        false => Fresh::Order,
    }
}

/// Whether a block holds nothing behind its link.
fn is_empty(memory: &dyn TargetMemory, at: Address, stride: u32) -> bool {
    let mut bytes = [0; MAX_BYTES];
    let length = usize::try_from(stride)
        .unwrap_or(0)
        .saturating_sub(8)
        .min(MAX_BYTES);
    let Some(bytes) = bytes.get_mut(..length) else {
        return false;
    };
    memory.read_into(at.saturating_add(8), bytes).is_ok() && bytes.iter().all(|byte| *byte == 0)
}

/// Whether hardly more than a link's length of a block was ever written: an element or two behind the end of the one before it.
fn is_all_but_empty(memory: &dyn TargetMemory, block: Block) -> bool {
    const MAX_WRITTEN: usize = 16;
    let mut bytes = [0; MAX_BYTES];
    let length = usize::try_from(block.bytes.min(MAX_BYTES as u64)).unwrap_or(0);
    let Some(bytes) = bytes.get_mut(..length) else {
        return false;
    };
    let rest = |bytes: &[u8]| bytes.iter().skip(MAX_WRITTEN).all(|byte| *byte == 0);
    memory.read_into(block.address, bytes).is_ok() && rest(bytes)
}

/// Whether a free block's link leads to the one behind it.
fn leads_to(memory: &dyn TargetMemory, block: Block, next: Address) -> bool {
    memory.read_pointer(block.address) == Ok(next)
}

/// Whether zeros lie over the end of the block before and over more of this one than a member, and end in it: memory
/// that was cleared too far.
fn zeros_go_on(memory: &dyn TargetMemory, block: Block) -> bool {
    let words = (block.bytes / 8).min(MAX_BYTES as u64 / 8);
    let is_zero = |at: Option<Address>| at.is_some_and(|at| memory.read_u64(at) == Ok(0));
    let word = |index: u64| block.address.checked_add(8 * index);
    let cleared = (0..words).take_while(|index| is_zero(word(*index))).count() as u64;
    let in_front = [8, 16].map(|back| is_zero(block.address.checked_sub(back)));
    // Where they do not end in it, the link behind it is gone, too.
    let goes_further = || cleared == words && is_zero(block.address.checked_add(block.bytes));
    in_front == [true; 2] && ((3..words).contains(&cleared) || goes_further())
}

/// Whether text begins within a link and goes on behind it: a string that was put together piece by piece, as with `snprintf`,
/// whose result is what it would have written.
fn text_begins(memory: &dyn TargetMemory, block: Block) -> bool {
    let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let bytes = memory.read_bytes::<16>(block.address);
    bytes.is_ok_and(|bytes| bytes.iter().skip(7).all(text))
}

/// Whether a block ends, in front of `behind`, with text and the NUL that was put where the room was at its end.
fn ends_as_text(memory: &dyn TargetMemory, behind: Block) -> bool {
    let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let at = behind.address.checked_sub(8);
    let bytes = at.and_then(|at| memory.read_bytes::<8>(at).ok());
    bytes.is_some_and(|bytes| {
        bytes
            .split_last()
            .is_some_and(|(last, text_bytes)| *last == 0 && text_bytes.iter().all(text))
    })
}

/// Bytes in front of a link that are looked at.
const REACH: usize = 512;
/// Bytes of an element of an array, at most.
const MAX_ELEMENT: usize = 128;

/// Whether the block before is an array whose elements go on over the link: each word of an element is that of the
/// element before, or as far from it as that one is from its own.
fn array_goes_on(memory: &dyn TargetMemory, before: Block, written: usize) -> bool {
    let Some(end) = before.address.checked_add(before.bytes) else {
        return false;
    };
    let reach = usize::try_from(before.bytes).map_or(REACH, |bytes| bytes.min(REACH)) & !7;
    let mut bytes = [0u8; REACH + MAX_ELEMENT];
    let start = u64::try_from(reach)
        .ok()
        .and_then(|reach| end.checked_sub(reach));
    let (Some(start), Some(front)) = (start, bytes.get_mut(..reach)) else {
        return false;
    };
    if memory.read_into(start, front).is_err() {
        return false;
    }
    // What lies behind the link may end before an element does.
    let mut behind = 0;
    for word in 0..MAX_ELEMENT / 8 {
        let at = end.saturating_add(8 * word as u64);
        let to = bytes.get_mut(reach + 8 * word..reach + 8 * word + 8);
        match to.map(|to| memory.read_into(at, to)) {
            Some(Ok(())) => behind += 8,
            _ => break,
        }
    }
    let array = Array {
        bytes: &bytes,
        end: reach,
        behind,
    };
    match written {
        0..3 => false,
        3 | 4 => array.of_units(4),
        _ => array.of_units(8) || array.of_units(4),
    }
}

/// Whether the block before is an array whose next element `word`, or its lower half, would begin or go on with: both halves are as in
/// the elements before it, or as far from these as they are from each other.
pub(super) fn numbers_go_on(memory: &dyn TargetMemory, before: Block, word: u64) -> bool {
    const FRONT: usize = 256;
    /// Elements in front that must agree.
    const ALIKE: usize = 4;
    let mut bytes = [0; FRONT + 8];
    let front = usize::try_from(before.bytes.min(FRONT as u64)).unwrap_or(0) & !7;
    let start = before
        .address
        .checked_add(before.bytes)
        .and_then(|end| end.checked_sub(front as u64));
    let (Some(start), Some((data, last))) = (
        start,
        bytes
            .get_mut(..front + 8)
            .and_then(|bytes| bytes.split_last_chunk_mut::<8>()),
    ) else {
        return false;
    };
    if memory.read_into(start, data).is_err() {
        return false;
    }
    *last = word.to_le_bytes();
    let array = Array {
        bytes: &bytes,
        end: front,
        behind: 8,
    };
    // The upper half of an address is what the link had there.
    let is_half = word >> 32 == start.get() >> 32;
    let end = front;
    let strides = (4..=64usize).step_by(4);
    strides
        .take_while(|stride| stride * ALIKE <= front)
        .any(|stride| {
            let [low, high] = [end, end + 4].map(|at| array.steps(at, 4, stride, ALIKE - 1));
            let [low_same, high_same] =
                [end, end + 4].map(|at| array.same(at, 4, stride, ALIKE, 0));
            let is_large = word >> 32 != 0;
            match (low, high) {
                (true, _) if is_half => true,
                (true, true) => true,
                (true, false) => high_same && stride > 4,
                (false, true) => low_same && stride > 4,
                // One pointer in every element.
                (false, false) => low_same && high_same && is_large && stride > 8,
            }
        })
}

struct Array<'b> {
    bytes: &'b [u8],
    /// Where the block before ends.
    end: usize,
    /// Bytes behind it that could be read.
    behind: usize,
}

impl Array<'_> {
    /// Elements made of words of so many bytes.
    fn of_units(&self, unit: usize) -> bool {
        // The elements are the words themselves.
        if self.same(self.end, unit, unit, 3, 2) || self.steps(self.end, unit, unit, 3) {
            return true;
        }
        (2..=MAX_ELEMENT / unit)
            .map(|words| words * unit)
            .any(|stride| {
                // The first word of the next element alone, or more of it.
                self.same(self.end, unit, stride, 4, 2) || self.element_goes_on(unit, stride)
            })
    }

    /// Whether what lies behind is one more element: all words of it after two, or most after three.
    fn element_goes_on(&self, unit: usize, stride: usize) -> bool {
        if stride > self.behind {
            return false;
        }
        let goes_on = |at: usize, times: usize| {
            self.steps(at, unit, stride, times) || self.same(at, unit, stride, times, 0)
        };
        // Small elements are alike by chance more often.
        let few = if stride <= 16 { 3 } else { 2 };
        let (mut all, mut most, mut telling) = (true, 0, 0);
        for at in (self.end..self.end + stride).step_by(unit) {
            all &= goes_on(at, few);
            let here = goes_on(at, 3);
            let is_zero = self.word(at, unit) == Some(0);
            most += usize::from(here);
            telling += usize::from((here || all) && !is_zero);
        }
        let most = most * 2 * unit >= stride && telling > 1 && goes_on(self.end, 3);
        all && telling > 0 || most
    }

    /// A word that is repeated: `times` elements in front have it. Small numbers are everywhere.
    fn same(&self, at: usize, unit: usize, stride: usize, times: usize, least: u64) -> bool {
        let word = self.word(at, unit);
        let all = (1..=times).all(|back| {
            let place = stride
                .checked_mul(back)
                .and_then(|bytes| at.checked_sub(bytes));
            place.is_some_and(|place| self.word(place, unit) == word)
        });
        let least = if stride == unit { 1 } else { least };
        all && word.is_some_and(|word| word >= least)
    }

    /// A word that grows by the same from element to element.
    fn steps(&self, at: usize, unit: usize, stride: usize, times: usize) -> bool {
        let difference = |back: usize| {
            let low = at.checked_sub(stride.checked_mul(back + 1)?)?;
            let high = at.checked_sub(stride.checked_mul(back)?)?;
            Some(self.word(high, unit)?.wrapping_sub(self.word(low, unit)?))
        };
        let first = difference(0);
        first.is_some_and(|first| first != 0) && (1..times).all(|back| difference(back) == first)
    }

    fn word(&self, at: usize, unit: usize) -> Option<u64> {
        let mut word = [0; 8];
        let from = self.bytes.get(at..at.checked_add(unit)?)?;
        word.get_mut(..unit)?.copy_from_slice(from);
        Some(u64::from_le_bytes(word))
    }
}
