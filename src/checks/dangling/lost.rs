//! A value whose way is lost: a list was followed and the pointer before is gone, or the value went over other memory. It may tell
//! itself, if it is one that the allocator writes into free blocks only.

use std::collections::BTreeSet;

use heaps::allocators::Residue;
use heaps::map::{Block, BlockId, BlockState, HeapMap, Shape};
use heaps::target::{Address, Cursor, FrameTrust, Target};

use super::{Judged, Use, judge, look};
use crate::analysis::Analysis;
use crate::checks::finding::Confidence;
use crate::crash::Crash;
use crate::crash::origin::Origin;

/// Frames whose registers are asked for the block.
const MAX_FRAMES: usize = 4;
/// Blocks that are gone through for one that holds the value.
const MAX_BLOCKS: u64 = 1 << 26;
/// Values below this are no links: small numbers are everywhere.
const MIN_LINK: u64 = 1 << 16;

/// The free block that holds the value at fault.
pub fn find<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &'a Crash,
    origin: &'a Origin,
) -> Option<Use<'a>> {
    let lost = match origin.loads.first() {
        None => true,
        // What is in a block in use is its program's, or was left there: that is another story.
        Some(load) => match judge(target, analysis, load) {
            Judged::InUse => return None,
            Judged::Free(_) => false,
            Judged::Nothing => true,
        },
    };
    if !lost || origin.value < MIN_LINK {
        return None;
    }
    named(target, analysis, crash, origin).or_else(|| holding(target, analysis, origin))
}

/// The only free block that a register of the innermost frames names and that holds the value as the allocator's own.
fn named<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &Crash,
    origin: &Origin,
) -> Option<Use<'a>> {
    let frames = target.threads.frames(crash.thread);
    let innermost = crash.frame.min(origin.frame);
    let by_rules = |frame: &&heaps::target::Frame| {
        matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi) || frame.pc.get() == origin.value
    };
    let registers: BTreeSet<u64> = (frames.iter().skip(innermost))
        .take(MAX_FRAMES)
        .take_while(by_rules)
        .flat_map(|frame| frame.registers.iter().map(|(_, value)| value))
        .collect();
    let mut found: Option<Use<'a>> = None;
    for pointer in registers.into_iter().map(Address::new) {
        for at in [Some(pointer), pointer.checked_add(8)].into_iter().flatten() {
            let Judged::Free(held) = look(target, analysis, at, 8) else {
                continue;
            };
            let is_it = held.word == origin.value && held.residue.is_some_and(Residue::tells);
            if !is_it {
                continue;
            }
            if found
                .as_ref()
                .is_some_and(|other| other.block.id != held.block.id)
            {
                return None;
            }
            found = Some(*held);
        }
    }
    found.map(|found| settled(found))
}

/// The only block of all whose first word is the value, if it is free and the word is its link.
fn holding<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    origin: &Origin,
) -> Option<Use<'a>> {
    let mut only: Option<Use<'a>> = None;
    for heap in &analysis.heaps {
        if heap.map.block_count() > MAX_BLOCKS {
            return None;
        }
        let mut cursor = Cursor::new(target.memory);
        for block in blocks(&heap.map) {
            if cursor.read_u64(block.address) != Ok(origin.value) {
                continue;
            }
            if only.is_some() || heap.map.state(block.id) == BlockState::InUse {
                return None;
            }
            match look(target, analysis, block.address, 8) {
                Judged::Free(held) if held.residue.is_some_and(Residue::tells) => {
                    only = Some(*held);
                }
                _ => return None,
            }
        }
    }
    only.map(|found| settled(found))
}

/// The value came from there, as far as anything tells.
fn settled(found: Use<'_>) -> Use<'_> {
    Use {
        pointer: found.block.address,
        confidence: Confidence::Likely,
        ..found
    }
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
