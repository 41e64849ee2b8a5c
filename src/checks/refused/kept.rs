//! The block that glibc refused as free, where the call does not tell it: in a register of its own frames, in the form that no
//! program has, the address of its header.

use heaps::map::BlockState;
use heaps::target::{Address, FrameTrust};

use super::sayings::{About, Seen};
use super::{HEADER_BYTES, Scene};

/// Frames from abort's to that of `free`.
const MAX_FRAMES: usize = 10;

/// The block, if the innermost frame that has any such register has one alone.
pub fn block(scene: Scene<'_>) -> Option<Address> {
    let (saying, _) = scene.death.said?;
    let heap = scene.analysis.heaps.get(scene.death.heap?)?;
    if saying.about != About::Pointer(Seen::Free) || scene.death.allocator != "ptmalloc" {
        return None;
    }
    let starts_free = |header: u64| {
        let (block, offset) = heap
            .map
            .block_at(Address::new(header.checked_add(HEADER_BYTES)?))?;
        let is_free = offset == 0 && heap.map.state(block.id) != BlockState::InUse;
        is_free.then_some(block.address)
    };
    let frames = scene.target.threads.frames(scene.crash.thread).iter();
    let by_rules = frames
        .take_while(|frame| matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi))
        .take(MAX_FRAMES);
    let mut found: Vec<Address> = by_rules
        .map(|frame| {
            frame
                .registers
                .iter()
                .filter_map(|(_, value)| starts_free(value))
                .collect::<Vec<_>>()
        })
        .find(|found| !found.is_empty())?;
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}
