//! What other blocks of a page tell of the one whose bytes go on over the next one's link.

use ground::target::{Address, MemoryExt, TargetMemory};
use heaps::map::{Block, HeapMap};

use super::{MAX_BYTES, MAX_INNER};

/// The word of another block of that page that lies so far into it and leads as far into one of the same size, and where it leads: the link of
/// a pointer that was freed there.
pub(in crate::checks::link_damage) fn link_at(
    map: &HeapMap,
    memory: &dyn TargetMemory,
    before: Block,
    distance: u64,
) -> Option<(Address, Address)> {
    let extent = map.extent(before.id.extent)?;
    let siblings = around(before.id.slot, extent.blocks());
    let siblings = siblings.filter(|slot| *slot != before.id.slot);
    siblings
        .filter_map(|slot| extent.block(before.id.extent, slot))
        .find_map(|sibling| {
            let at = sibling.address.checked_add(distance)?;
            let to = memory.read_pointer(at).ok()?;
            let (block, offset) = map.block_at(to)?;
            let is_like = offset == distance && block.class == before.class;
            (is_like && block.id != sibling.id).then_some((at, to))
        })
}

/// Blocks of a page that are looked at, in front of one and behind it.
fn around(slot: u32, count: u32) -> std::ops::Range<u32> {
    const SIBLINGS: u32 = 64;
    let first = slot.saturating_sub(SIBLINGS / 2);
    first..first.saturating_add(SIBLINGS).min(count)
}

/// How far into the block before an object may begin that one value fills, as it fills the block before from its start: other blocks beside
/// them are filled with it so far that the run ends where such an object would.
pub(super) fn distance(
    map: &HeapMap,
    memory: &dyn TargetMemory,
    before: Block,
    block: Block,
) -> Option<u64> {
    const LEAST: u64 = 8;
    let value = memory.read_u8(before.address).ok()?;
    let run = |from: Address, most: u64| {
        let is_it = |at: &u64| {
            let at = from.checked_add(*at);
            at.is_some_and(|at| memory.read_u8(at) == Ok(value))
        };
        (0..most.min(MAX_BYTES as u64)).take_while(is_it).count() as u64
    };
    let whole = run(before.address, before.bytes.checked_mul(2)?);
    if whole <= before.bytes || value == 0 {
        return None;
    }
    let extent = map.extent(block.id.extent)?;
    around(block.id.slot, extent.blocks())
        .filter(|slot| ![before.id.slot, block.id.slot].contains(slot))
        .filter_map(|slot| extent.block(block.id.extent, slot))
        .map(|sibling| run(sibling.address, sibling.bytes))
        .filter(|filled| *filled >= LEAST)
        .filter_map(|filled| whole.checked_sub(filled))
        .find(|distance| {
            (LEAST..before.bytes.min(MAX_INNER)).contains(distance) && distance % 8 == 0
        })
}
