//! One pass over a run of memory: every aligned word that can point at something.
//!
//! The test of the range has no branch: candidates of 4 KiB are gathered first and looked at afterwards.

use std::hint::black_box;
use std::ops::Range;

use ground::parallel;
use ground::target::{Address, TargetMemory};

/// Which values can point at something.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    lowest: u64,
    span: u64,
    /// All of them have the same upper half.
    is_narrow: bool,
}

impl Filter {
    /// Values from `lowest` on, `span` of them.
    pub fn new((lowest, span): (u64, u64)) -> Self {
        let last = lowest.checked_add(span.saturating_sub(1));
        Self {
            lowest,
            span,
            is_narrow: span > 0 && last.is_some_and(|last| last >> 32 == lowest >> 32),
        }
    }

    /// All values but zero.
    pub fn not_zero() -> Self {
        Self::new((1, u64::MAX))
    }

    /// Whether a value passes.
    #[inline]
    pub fn admits(self, value: u64) -> bool {
        value.wrapping_sub(self.lowest) < self.span
    }

    /// Whether one of these words, lowest byte first, passes a narrow filter. Halves of words are compared, which any x86-64 does for
    /// several at a time.
    #[inline]
    fn admits_one_of(self, words: &[[u8; 8]]) -> bool {
        let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
        let (low, high) = (half(self.lowest), half(self.lowest >> 32));
        // The last value of all, so that a span of 2^32 needs no more bits.
        let last = half(self.span.saturating_sub(1));
        words.iter().fold(0u32, |any, &[a, b, c, d, e, f, g, h]| {
            let (lower, upper) = (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
            );
            any | (u32::from(upper == high) & u32::from(lower.wrapping_sub(low) <= last))
        }) != 0
    }
}

/// Words that are tested at a time.
const PIECE: usize = 512;

/// Words that are tested one by one: fewer are not worth the gathering.
const FEW: usize = 16;

/// Calls `visit` with each aligned word of `range` that passes, with its place, by rising address. What the core does not hold is passed over.
pub fn each(
    memory: &dyn TargetMemory,
    range: &Range<Address>,
    filter: Filter,
    mut visit: impl FnMut(Address, u64),
) {
    each_beside(memory, range, filter, None, |at, value, _| visit(at, value));
}

/// The same, with the word before it, where that lies in the same piece of the core; of the first word of the range it is `first`.
pub fn each_beside(
    memory: &dyn TargetMemory,
    range: &Range<Address>,
    filter: Filter,
    first: Option<u64>,
    mut visit: impl FnMut(Address, u64, Option<u64>),
) {
    let little = memory.abi().little_endian;
    let mut at = align_up(range.start);
    let mut first = first.filter(|_| at == range.start);
    while at < range.end {
        let bytes = match memory.window(at) {
            Ok(window) if window.bytes.len() >= 8 => window.bytes,
            Ok(_) => {
                at = align_up(at.saturating_add(1)); // a word across two pieces of the core
                continue;
            }
            Err(_) => {
                at = behind(memory, at, range.end);
                continue;
            }
        };
        let left = range.end.offset_from(at).unwrap_or(0) / 8;
        let (words, _) = bytes.as_chunks::<8>();
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let words = words.get(..most).unwrap_or(words);
        if words.is_empty() {
            return;
        }
        each_of_run(words, at, little, filter, first.take(), &mut visit);
        at = at.saturating_add((words.len() as u64).saturating_mul(8));
    }
}

/// The same of bytes that lie at `at`, a multiple of 8.
#[inline]
pub fn each_in(
    bytes: &[u8],
    at: Address,
    little: bool,
    filter: Filter,
    first: Option<u64>,
    mut visit: impl FnMut(Address, u64, Option<u64>),
) {
    each_of_run(bytes.as_chunks().0, at, little, filter, first, &mut visit);
}

#[inline]
fn each_of_run(
    words: &[[u8; 8]],
    at: Address,
    little: bool,
    filter: Filter,
    mut first: Option<u64>,
    visit: &mut impl FnMut(Address, u64, Option<u64>),
) {
    let mut place = at;
    let mut pieces = words.chunks(PIECE).peekable();
    while let Some(piece) = pieces.next() {
        fetch(lines(pieces.peek().copied().unwrap_or_default()));
        let bytes = (piece.len() as u64).saturating_mul(8);
        parallel::passed(bytes);
        each_of(
            piece,
            little,
            filter,
            first.take(),
            |index, value, before| {
                visit(place.saturating_add(index.saturating_mul(8)), value, before);
            },
        );
        place = place.saturating_add(bytes);
    }
}

/// Has the processor fetch words: loads none of which waits for another, since all are only added up.
#[inline]
pub(super) fn fetch(words: impl Iterator<Item = u64>) {
    black_box(words.fold(0, u64::wrapping_add));
}

/// A word of each line of memory that is tested next: by itself the processor begins anew with each page.
#[inline]
fn lines(words: &[[u8; 8]]) -> impl Iterator<Item = u64> {
    const LINE: usize = 8;
    let lines = words.iter().step_by(LINE);
    lines.map(|[first, ..]| u64::from(*first))
}

/// Words of a short run of bytes.
#[inline]
fn each_of(
    words: &[[u8; 8]],
    little: bool,
    filter: Filter,
    first: Option<u64>,
    mut visit: impl FnMut(u64, u64, Option<u64>),
) {
    let load = |bytes: &[u8; 8]| match little {
        true => u64::from_le_bytes(*bytes),
        false => u64::from_be_bytes(*bytes),
    };
    if words.len() <= FEW {
        let mut before = first;
        for (index, bytes) in (0u64..).zip(words) {
            let value = load(bytes);
            if filter.admits(value) {
                visit(index, value, before);
            }
            before = Some(value);
        }
        return;
    }
    if filter.is_narrow && little && !filter.admits_one_of(words) {
        return;
    }
    // No branch but the loop's own: the place of each is noted, and counts if the word passes.
    let mut found = [0u16; PIECE];
    let mut count = 0usize;
    for (index, bytes) in words.iter().enumerate().take(PIECE) {
        if let Some(slot) = found.get_mut(count % PIECE) {
            *slot = u16::try_from(index % PIECE).unwrap_or(0);
        }
        count = count.wrapping_add(usize::from(filter.admits(load(bytes))));
    }
    for index in found.get(..count).unwrap_or_default() {
        let index = usize::from(*index);
        if let Some(bytes) = words.get(index) {
            let before = match index.checked_sub(1) {
                Some(index) => words.get(index).map(load),
                None => first,
            };
            visit(index as u64, load(bytes), before);
        }
    }
}

/// Calls `visit` with the word at every byte of `range` that passes: for code that was made at run time.
pub fn each_at_any_byte(
    memory: &dyn TargetMemory,
    range: &Range<Address>,
    filter: Filter,
    mut visit: impl FnMut(Address, u64),
) {
    let little = memory.abi().little_endian;
    let mut at = range.start;
    while at < range.end {
        let bytes = match memory.window(at) {
            Ok(window) => window.bytes,
            Err(_) => {
                at = behind(memory, at, range.end);
                continue;
            }
        };
        let left = usize::try_from(range.end.offset_from(at).unwrap_or(0)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..left).unwrap_or(bytes);
        for (index, word) in (0u64..).zip(bytes.windows(8)) {
            let mut copy = [0; 8];
            copy.copy_from_slice(word);
            let value = if little {
                u64::from_le_bytes(copy)
            } else {
                u64::from_be_bytes(copy)
            };
            if filter.admits(value) {
                visit(at.saturating_add(index), value);
            }
        }
        at = at.saturating_add(bytes.len().max(1) as u64);
    }
}

/// Where to go on behind an absent byte.
fn behind(memory: &dyn TargetMemory, at: Address, end: Address) -> Address {
    let next = memory.behind_absent(at);
    next.map_or(end, align_up).max(at.saturating_add(8))
}

fn align_up(at: Address) -> Address {
    Address::new(at.get().saturating_add(7) & !7)
}
