//! The block that glibc refused as free, where the call does not tell it: in a register of its own frames, in the form that no
//! program has, the address of its header.

use ground::target::{Address, FrameTrust, MemoryExt};
use heaps::allocators::Family;
use heaps::map::BlockState;

use super::sayings::{About, Seen};
use super::{HEADER_BYTES, Pointer, Scene};
use crate::checks::finding::{Finding, FindingKind};

/// Frames from abort's to that of `free`.
const MAX_FRAMES: usize = 10;

/// glibc's heaps of arenas begin at multiples of this.
const HEAP_BYTES: u64 = 64 << 20;
/// Flags of a chunk's size: a mapping of its own, another arena.
const MAPPED: u64 = 2;
const OTHER_ARENA: u64 = 4;

/// What `free` was given, where it died in the look-up of the arena of a chunk that says that it is another one's: the address at
/// fault is that chunk's, rounded down, and one register alone has a chunk that says so.
pub fn of_other_arena(scene: Scene<'_>) -> Option<Address> {
    if scene.death.allocator != Family::Ptmalloc || !scene.death.is_fault {
        return None;
    }
    let at = scene
        .crash
        .instruction
        .as_ref()?
        .operands
        .first()?
        .address?;
    let is_chunk = |value: &u64| {
        let flags = value
            .checked_add(8)
            .and_then(|word| scene.target.memory.read_u64(Address::new(word)).ok());
        let is_marked = flags.is_some_and(|flags| flags & (MAPPED | OTHER_ARENA) == OTHER_ARENA);
        *value & !(HEAP_BYTES - 1) == at.get() && *value != at.get() && is_marked
    };
    let frames = scene.target.threads.frames(scene.crash.thread);
    let registers = &frames.get(scene.crash.frame)?.registers;
    let mut found: Vec<u64> = registers
        .iter()
        .map(|(_, value)| value)
        .filter(is_chunk)
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Some(Address::new(one.checked_add(HEADER_BYTES)?)),
        _ => None,
    }
}

/// The block, if the innermost frame that has any such register has one alone.
pub fn block(scene: Scene<'_>) -> Option<Address> {
    let (saying, _) = scene.death.said?;
    let heap = scene.analysis.heaps.get(scene.death.heap?)?;
    if saying.about != About::Pointer(Seen::Free) || scene.death.allocator != Family::Ptmalloc {
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

/// Leaves out what the refused `free` itself had done by then: the header behind its chunk says already that the chunk is free, and no list
/// holds it yet.
pub(super) fn leave_out_own_work(
    scene: Scene<'_>,
    pointer: Option<&Pointer>,
    findings: &mut Vec<Finding>,
) {
    const AFTER_THE_MARK: &str = "free(): corrupted unsorted chunks";
    const PREV_INUSE: u64 = 1;
    let said = scene.death.said.map(|(_, words)| words.text.as_str());
    if !said.is_some_and(|text| text.starts_with(AFTER_THE_MARK)) {
        return;
    }
    findings.retain(|finding| {
        let culprit = finding
            .culprit
            .as_ref()
            .map(|culprit| culprit.block.address);
        let is_given = pointer.is_none_or(|pointer| culprit == Some(pointer.value));
        let is_mark = finding.evidence.first().is_some_and(|word| {
            let found = scene.target.memory.read_u64(word.at);
            found.is_ok_and(|found| {
                found & PREV_INUSE == 0 && word.expected == format!("{:#x}", found | PREV_INUSE)
            })
        });
        !(finding.kind == FindingKind::HeapOverrun && culprit.is_some() && is_given && is_mark)
    });
}
