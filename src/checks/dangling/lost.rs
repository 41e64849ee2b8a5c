//! A value whose way is lost: a list was followed and the pointer before is gone, or the value went over other memory. It may tell
//! itself, if it is one that the allocator writes into free blocks only.

use std::collections::BTreeSet;

use ground::target::{Address, Cursor, Frame, FrameTrust, MemoryExt, Target};
use heaps::allocators::Residue;
use heaps::map::{Block, BlockId, BlockState, HeapMap, Shape};

use super::Use;
use crate::analysis::Analysis;
use crate::checks::finding::Confidence;
use crate::checks::residue::{self, Freed, LeftOver, Read};
use crate::crash::Crash;
use crate::crash::origin::{Origin, Role};

/// Frames whose registers are asked for the block.
const MAX_FRAMES: usize = 4;
/// Blocks of a heap that are gone through for one that holds the value.
const MAX_BLOCKS: u64 = 1 << 25;
/// Blocks that hold one value.
const MAX_HOLDING: usize = 64;
/// Bytes of the stack around the innermost frames.
const STACK_AROUND: u64 = 1024;
/// Values below this are no links: small numbers are everywhere.
const MIN_LINK: u64 = 1 << 16;
/// Bytes that may have been added to a word on the way.
const MAX_ADDED: u64 = 1 << 12;
/// Slots of a table of functions.
const MAX_SLOTS: u64 = 64;

/// The value at fault where the code is not to be had: the only register that can have made the address at fault.
pub fn suspects(target: Target<'_>, crash: &Crash) -> Vec<Origin> {
    let frames = target.threads.frames(crash.thread);
    let Some(frame) = frames.get(crash.frame) else {
        return Vec::new();
    };
    let is_code = target
        .modules
        .iter()
        .any(|module| module.has_code_at(frame.pc));
    if crash.instruction.is_some() || !is_code {
        return Vec::new();
    }
    let can_be_it = |value: u64| match crash.fault_address {
        Some(fault) => fault
            .get()
            .checked_sub(value)
            .is_some_and(|more| more < MAX_ADDED),
        None => !is_canonical(value),
    };
    let candidates: Vec<(u16, u64)> = (frame.registers.iter())
        .filter(|(_, value)| *value >= MIN_LINK && can_be_it(*value))
        .collect();
    let values: BTreeSet<u64> = candidates.iter().map(|(_, value)| *value).collect();
    match candidates.first() {
        Some((register, value)) if values.len() == 1 => vec![Origin {
            role: Role::Address,
            register: Some(target.threads.register_name(*register)),
            value: *value,
            loads: Vec::new(),
            given: None,
            returned: None,
            or_constant: false,
            parts: Vec::new(),
            frame: crash.frame,
            function: None,
            instruction: frame.pc,
        }],
        _ => Vec::new(),
    }
}

/// Whether a processor takes the value for an address: its upper bits are alike, in 48-bit addresses.
fn is_canonical(value: u64) -> bool {
    value >> 47 == 0 || value >> 47 == (1 << 17) - 1
}

/// The free block that holds the value at fault.
pub fn find<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &'a Crash,
    origin: &'a Origin,
) -> Option<Use<'a>> {
    let read = |at| residue::at(target, analysis, at, 8, None);
    let is_lost = match origin.loads.first().and_then(|load| load.at).map(read) {
        None | Some(Read::Nothing) => true,
        // What is in a block in use is its program's, or was left there: that is another story.
        Some(Read::InUse | Read::Free(_)) => false,
    };
    if !is_lost || origin.value < MIN_LINK {
        return None;
    }
    let found = given(target, analysis, origin)
        .or_else(|| in_registers(target, analysis, crash, origin))
        .or_else(|| holding(target, analysis, crash, origin))
        .or_else(|| followed(target, analysis, origin))?;
    Some(Use {
        freed: found,
        origin: Some(origin),
        load: None,
        pointer: found.block.address,
        confidence: Confidence::Likely,
    })
}

/// Whether a word of a free block makes a fault by itself: a plain link leads to memory that is there.
fn explains(freed: &Freed<'_>, role: Role) -> bool {
    match freed.residue {
        Some(Residue::Key | Residue::Filling(_)) => true,
        Some(Residue::Link {
            protected: true, ..
        }) => true,
        Some(residue) => role == Role::Target && residue.tells(),
        None => false,
    }
}

/// The block that a function was given, which returned something near the allocator's word in it.
fn given<'a>(target: Target<'_>, analysis: &'a Analysis<'a>, origin: &Origin) -> Option<Freed<'a>> {
    let pointer = origin.given?;
    [0, 8].into_iter().find_map(|offset| {
        let at = pointer.checked_add(offset)?;
        let Read::Free(freed) = residue::at(target, analysis, at, 8, None) else {
            return None;
        };
        let added = origin.value.wrapping_sub(freed.word);
        (added < MAX_ADDED && explains(&freed, origin.role)).then_some(freed)
    })
}

/// The only free block that a register of the innermost frames names and that holds the value as the allocator's own.
fn in_registers<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &Crash,
    origin: &Origin,
) -> Option<Freed<'a>> {
    let frames = target.threads.frames(crash.thread);
    let is_ruled = |frame: &&Frame| {
        matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi)
            || frame.pc.get() == origin.value
    };
    let registers: BTreeSet<u64> = (frames.iter().skip(crash.frame))
        .take(MAX_FRAMES)
        .take_while(is_ruled)
        .flat_map(|frame| frame.registers.iter().map(|(_, value)| value))
        .collect();
    let mut found: Option<Freed<'a>> = None;
    for pointer in registers.into_iter().map(Address::new) {
        for at in [Some(pointer), pointer.checked_add(8)]
            .into_iter()
            .flatten()
        {
            let read = residue::at(target, analysis, at, 8, Some(origin.value));
            let Read::Free(freed) = read else {
                continue;
            };
            if !explains(&freed, origin.role) {
                continue;
            }
            if found.is_some_and(|other| other.block.id != freed.block.id) {
                return None;
            }
            found = Some(freed);
        }
    }
    found
}

/// The only block of all whose first word is the value, if it is free and the word is its link. Where several have it, as the last blocks
/// of glibc's lists on one page do, the only one of them that the stack still names.
fn holding<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &Crash,
    origin: &Origin,
) -> Option<Freed<'a>> {
    let mut all: Vec<Freed<'a>> = Vec::new();
    for heap in &analysis.heaps {
        if heap.map.block_count() > MAX_BLOCKS {
            return None;
        }
        let mut cursor = Cursor::new(target.memory);
        for block in blocks(&heap.map) {
            if cursor.read_u64(block.address) != Ok(origin.value) {
                continue;
            }
            if all.len() >= MAX_HOLDING || heap.map.state(block.id) == BlockState::InUse {
                return None;
            }
            match residue::at(target, analysis, block.address, 8, None) {
                Read::Free(freed) if explains(&freed, origin.role) => all.push(freed),
                _ => return None,
            }
        }
    }
    if let [only] = all.as_slice() {
        return Some(*only);
    }
    let named = on_stack(target, crash);
    let mut named = all
        .iter()
        .filter(|freed| named.contains(&freed.block.address.get()));
    named.next().copied().filter(|_| named.next().is_none())
}

/// Words of the stack around the innermost frames, and of what functions have left below.
fn on_stack(target: Target<'_>, crash: &Crash) -> BTreeSet<u64> {
    let frames = target.threads.frames(crash.thread);
    let Some(first) = frames.get(crash.frame) else {
        return BTreeSet::new();
    };
    let last = frames.get(crash.frame.saturating_add(MAX_FRAMES));
    let end = last.map_or(first.sp.saturating_add(STACK_AROUND), |last| last.sp);
    let start = first.sp.checked_sub(STACK_AROUND).unwrap_or(first.sp);
    let end = end.min(start.saturating_add(4 * STACK_AROUND));
    let words = ground::scan::words_in(target.memory, start..end, |_, _| true);
    words.map(|(_, word)| word).collect()
}

/// The only block in use of all whose first word is the value, if the allocator left it there: a list was followed to an entry whose
/// link was never set.
pub fn never_written<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    value: u64,
) -> Option<LeftOver<'a>> {
    let mut only: Option<LeftOver<'a>> = None;
    for heap in &analysis.heaps {
        if value < MIN_LINK || heap.map.block_count() > MAX_BLOCKS {
            return None;
        }
        let mut cursor = Cursor::new(target.memory);
        for block in blocks(&heap.map) {
            if cursor.read_u64(block.address) != Ok(value) {
                continue;
            }
            let found = residue::left_over(target, analysis, block.address, 8);
            let is_link = |found: &LeftOver<'_>| {
                matches!(
                    found.residue,
                    Residue::Link {
                        protected: true,
                        to: Some(_),
                        ..
                    }
                )
            };
            if only.is_some() {
                return None;
            }
            only = Some(found.filter(is_link)?);
        }
    }
    only
}

/// The only free block that a block in use has as its successor, where the program followed a list: in the same member.
fn followed<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    origin: &Origin,
) -> Option<Freed<'a>> {
    let mut loads = origin.loads.iter();
    let load = loads.find(|load| load.at.is_none() && load.bytes == 8)?;
    let member = u64::try_from(load.displacement).ok()?;
    let mut only: Option<Freed<'a>> = None;
    for heap in &analysis.heaps {
        if heap.map.block_count() > MAX_BLOCKS {
            return None;
        }
        let mut cursor = Cursor::new(target.memory);
        let in_use = blocks(&heap.map)
            .filter(|block| block.bytes > member && heap.map.state(block.id) == BlockState::InUse);
        for block in in_use {
            let next = block.address.checked_add(member)?;
            let Ok(next) = cursor.read_u64(next) else {
                continue;
            };
            if next < MIN_LINK || heap.map.block_at(Address::new(next)).is_none() {
                continue;
            }
            let Some(at) = Address::new(next).checked_add(member) else {
                continue;
            };
            let read = residue::at(target, analysis, at, 8, Some(origin.value));
            let Read::Free(freed) = read else {
                continue;
            };
            if !explains(&freed, origin.role) {
                continue;
            }
            if only.is_some_and(|other| other.block.id != freed.block.id) {
                return None;
            }
            only = Some(freed);
        }
    }
    only
}

/// A jump through a table of functions that was no table: `jmp [table + n]`, which leaves no return address. The table is the word
/// that a register's free block begins with, and the code that is not there stands in it.
pub fn jump<'a>(target: Target<'_>, analysis: &'a Analysis<'a>, crash: &Crash) -> Option<Use<'a>> {
    let frame = target.threads.frames(crash.thread).get(crash.frame)?;
    let is_nowhere = crash.instruction.is_none() && crash.origins.is_empty();
    if !is_nowhere || frame.pc.get() < MIN_LINK {
        return None;
    }
    let values: BTreeSet<u64> = frame.registers.iter().map(|(_, value)| value).collect();
    let is_table = |table: &u64| {
        (0..MAX_SLOTS).any(|slot| {
            let at = Address::new(*table).checked_add(slot * 8);
            at.is_some_and(|at| target.memory.read_pointer(at) == Ok(frame.pc))
        })
    };
    let tables: Vec<u64> = values.iter().copied().filter(is_table).collect();
    tables.iter().find_map(|table| {
        values.iter().find_map(|pointer| {
            let pointer = Address::new(*pointer);
            let Read::Free(freed) = residue::at(target, analysis, pointer, 8, Some(*table)) else {
                return None;
            };
            (freed.residue.is_some_and(Residue::tells)).then_some(Use {
                freed,
                origin: None,
                load: None,
                pointer,
                confidence: Confidence::Likely,
            })
        })
    })
}

/// All blocks of a map.
fn blocks(map: &HeapMap) -> impl Iterator<Item = Block> + '_ {
    (0u32..).zip(map.extents()).flat_map(move |(row, extent)| {
        let every = match extent.shape {
            Shape::Chunks { .. } => 0,
            _ => extent.blocks(),
        };
        let chunks = map.chunks(extent);
        let mut next = chunks.and_then(|chunks| match chunks.is_start(0) {
            true => Some(0),
            false => chunks.after(0),
        });
        let starts = std::iter::from_fn(move || {
            let here = next?;
            next = chunks.and_then(|chunks| chunks.after(here));
            Some(here)
        });
        let slots = (0..every).chain(starts);
        slots.filter_map(move |slot| map.block(BlockId { extent: row, slot }))
    })
}
