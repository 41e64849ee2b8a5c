//! The block that glibc refused as free, where the call does not tell it: in a register of its own frames, in the form that no
//! program has, the address of its header.

use ground::target::{Address, FrameTrust, MemoryExt};
use heaps::allocators::Family;
use heaps::map::BlockState;

use super::sayings::{About, Seen};
use super::{HEADER_BYTES, Place, Pointer, SIZE_BYTES, Scene};
use crate::checks::finding::{Finding, FindingKind};
use crate::checks::join;

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

/// What was freed at some time, where tcmalloc died of a page without a span as it gave a cache back: a sized delete checks nothing, so that
/// variables get into its lists. A register has the place of that page in a leaf of the page map (`PageMap2::get`, pages of 8 KiB).
pub fn without_span(scene: Scene<'_>) -> Option<Address> {
    const FIRST_PAGE: u64 = 4096;
    const PAGE_SHIFT: u64 = 13;
    const LEAF_MASK: u64 = (1 << 18) - 1;
    let fault = scene.crash.fault_address?;
    if scene.death.allocator != Family::Tcmalloc
        || !scene.death.is_fault
        || fault.get() >= FIRST_PAGE
    {
        return None;
    }
    let heap = scene.analysis.heaps.get(scene.death.heap?)?;
    let frames = scene.target.threads.frames(scene.crash.thread);
    let frame = frames.get(scene.crash.frame)?;
    let is_foreign = |at: Address| {
        let place = Place::of(scene.target, scene.analysis, scene.death.heap, at);
        match place {
            Place::Module { id, .. } => id != heap.identity.module,
            Place::Stack { .. } | Place::Arguments { .. } | Place::Mapping => true,
            _ => false,
        }
    };
    let values: Vec<u64> = frame.registers.iter().map(|(_, value)| value).collect();
    let is_looked_up = |value: u64| {
        let place = value >> PAGE_SHIFT & LEAF_MASK;
        value > LEAF_MASK && place != 0 && values.contains(&place)
    };
    let looked_up = values.iter().copied().filter(|value| is_looked_up(*value));
    let mut found: Vec<u64> = looked_up.collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Some(Address::new(*one)).filter(|at| is_foreign(*at)),
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

/// What the allocator was given, where two ways lead to the call: one of the pointers alone is no block that is in use, so that it can be
/// refused.
pub fn of_two_ways(scene: Scene<'_>) -> Option<Address> {
    let candidates = scene.death.call.map(|call| call.candidates.as_slice())?;
    let said = scene.death.said.map(|(_, words)| words.text.as_str());
    let is_mapped = |at: Address| {
        let size = at.checked_sub(SIZE_BYTES)?;
        let size = scene.target.memory.read_u64(size).ok()?;
        Some(size & MAPPED != 0)
    };
    // glibc says so of chunks alone that claim to have a mapping of their own.
    let claims = said.is_some_and(|text| text.starts_with("munmap_chunk()"));
    let can_be = |at: &Address| {
        let place = Place::of(scene.target, scene.analysis, scene.death.heap, *at);
        let starts_used = matches!(
            place,
            Place::Block {
                offset: 0,
                state: BlockState::InUse,
                ..
            }
        );
        !starts_used && (!claims || is_mapped(*at) != Some(false))
    };
    let mut left = candidates.iter().copied().filter(can_be);
    left.next().filter(|_| left.next().is_none())
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

/// A pointer that was refused, and others as far into blocks of that size that were taken before, are one error's.
pub(super) fn take_in_alike(findings: &mut Vec<Finding>, refused: &mut Finding) {
    let mut taken = 0u64;
    let alike = findings.extract_if(.., |finding| join::are_as_far(refused, finding));
    for part in alike.collect::<Vec<_>>() {
        taken = taken.saturating_add(part.alike).saturating_add(1);
        join::take_in(refused, part);
    }
    if taken > 0 {
        let words = format!(
            "; {taken} more such pointer{} in lists of free blocks already, as far into blocks of that size",
            if taken == 1 { " is" } else { "s are" }
        );
        refused.message.push_str(&words);
        refused.alike = refused.alike.saturating_add(taken);
    }
}
