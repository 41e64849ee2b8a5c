//! Whether a finding of the walkers explains this death: because it is about the block that was given or the headers around it, or
//! about a list of the kind that the message names. That it is the only one there proves nothing.

use std::ops::Range;

use ground::target::{Address, MemoryExt};
use heaps::allocators::Residue;
use heaps::anomaly::{Field, HolderKind};
use heaps::map::{Block, BlockState};

use super::super::place::Place;
use super::sayings::{About, Saying};
use super::{HEADER_BYTES, Pointer, SIZE_BYTES, Scene, is_alarm};
use crate::checks::explains::run::{is_one_value, is_series, is_text};
use crate::checks::finding::{Finding, FindingKind, Location};
use crate::checks::wording;

/// Bytes of one write that are looked at.
const MAX_RUN: usize = 1 << 16;

/// The finding that explains it, and whether that is proved: the only other stories are about other blocks or lists.
pub fn by<'f>(
    scene: Scene<'_>,
    pointer: Option<&Pointer>,
    findings: &'f mut [Finding],
) -> Option<(&'f mut Finding, bool)> {
    let is_candidate = |finding: &Finding| {
        let is_foreign = finding.kind == FindingKind::AllocatorMismatch;
        is_alarm(finding) && (finding.heap == scene.death.heap || is_foreign)
    };
    let mut ranked: Vec<(u32, usize)> = findings
        .iter()
        .enumerate()
        .filter(|(_, finding)| is_candidate(finding))
        .filter_map(|(index, finding)| Some((rank(scene, pointer, finding)?, index)))
        .collect();
    ranked.sort_unstable();
    let (best, index) = *ranked.first()?;
    let is_only = ranked.get(1).is_none_or(|(second, _)| *second > best);
    let found = findings.get_mut(index)?;
    let is_proved = is_only && is_proved(scene, pointer, best, found);
    Some((found, is_proved))
}

/// The finding of a free block that was written to, if the pointer is the allocator's word that must have stood in it before: the
/// program took the word for a member of its object, set the member anew, and freed what had been in it.
pub fn by_former_word<'f>(
    scene: Scene<'_>,
    pointer: &Pointer,
    findings: &'f mut [Finding],
) -> Option<&'f mut Finding> {
    if !matches!(pointer.place, Place::NonCanonical | Place::Unmapped) {
        return None;
    }
    let was_there = |finding: &Finding| {
        let block = finding.block?.block;
        let heap = scene.analysis.heaps.get(finding.heap?)?;
        let list = heap
            .heap
            .standing(&heap.map, block)
            .map(|standing| standing.list);
        let word = |offset| {
            heap.heap
                .residue(&heap.map, block, (offset, 8), pointer.value.get(), list)
        };
        let tells = [0, 8].into_iter().filter_map(word).any(Residue::tells);
        (is_alarm(finding) && finding.kind == FindingKind::UseAfterFreeWrite && tells).then_some(())
    };
    findings
        .iter_mut()
        .find(|finding| was_there(finding).is_some())
}

/// Whether a finding of this rank cannot but be what the process died of: the pointer that was given is what it is about, or the words
/// around that block are damaged; or it is the only damage of the kind that the allocator named, in a list of the thread that died.
fn is_proved(scene: Scene<'_>, pointer: Option<&Pointer>, rank: u32, finding: &Finding) -> bool {
    let is_certain = pointer.is_some_and(|pointer| pointer.is_certain);
    let is_at = pointer.is_some_and(|pointer| finding.at == Some(pointer.value));
    let Some((saying, _)) = scene.death.said else {
        return is_certain && is_at && rank == 0;
    };
    let thread = scene.target.threads.list().get(scene.crash.thread);
    let is_own = |place: &Location| {
        let owner = place.list.thread;
        owner.is_none() || owner == thread.map(|thread| thread.tid)
    };
    match saying.about {
        About::Pointer(_) | About::Block => is_certain && rank <= 1,
        About::List(_) => {
            let mut places = finding.locations.iter();
            !finding.locations.is_empty()
                && places.all(|place| {
                    let is_met = place.list.holder == HolderKind::Bin || place.position <= 1;
                    is_met && is_own(place)
                })
        }
        About::Top => {
            (finding.evidence.iter()).any(|word| word.what == wording::field(Field::HeaderOfTop))
        }
        About::State => false,
    }
}

/// How well it explains the death; less is better. `None`: not at all.
fn rank(scene: Scene<'_>, pointer: Option<&Pointer>, finding: &Finding) -> Option<u32> {
    let saying = scene.death.said.map(|(saying, _)| saying);
    match pointer {
        Some(pointer) => of_pointer(scene, pointer, saying, finding),
        None => of_saying(saying, finding).or_else(|| of_registers(scene, saying, finding)),
    }
}

fn of_pointer(
    scene: Scene<'_>,
    pointer: &Pointer,
    saying: Option<&Saying>,
    finding: &Finding,
) -> Option<u32> {
    use FindingKind::{
        AllocatorMismatch, CyclicFreeList, DoubleFree, InvalidFreeEntry, MisalignedFreeEntry,
    };
    let is_at = finding.at == Some(pointer.value);
    let is_entry = matches!(
        finding.kind,
        AllocatorMismatch | InvalidFreeEntry | MisalignedFreeEntry
    );
    match pointer.place {
        Place::Block {
            block,
            offset: 0,
            state,
            ..
        } => {
            let is_of_block = is_at || finding.block.is_some_and(|view| view.block.id == block.id);
            let is_twice = matches!(finding.kind, DoubleFree | CyclicFreeList);
            match state {
                BlockState::InUse => of_block(scene, block, is_of_block, finding).or_else(|| {
                    of_saying(saying.filter(|saying| !is_about_pointer(saying)), finding)
                }),
                _ if is_twice && is_of_block => Some(0),
                // Freed again while its words were written over.
                _ => (is_of_block
                    && !is_entry
                    && saying.is_some_and(|saying| !is_about_pointer(saying)))
                .then_some(1),
            }
        }
        // Behind a header that was written over blocks are not told apart.
        Place::Block { block, .. } if !is_at && is_run_over(scene, block, pointer, finding) => {
            Some(1)
        }
        _ => (is_at && is_entry).then_some(0),
    }
}

/// Whether a block's header was written over by one in front of it, which is known, in a write that went on to what stands in front of
/// the pointer: one that ends before has nothing to do with it.
fn is_run_over(scene: Scene<'_>, block: Block, pointer: &Pointer, finding: &Finding) -> bool {
    let is_it = finding.kind == FindingKind::HeapOverrun
        && finding.culprit.is_some()
        && finding.block.is_some_and(|view| view.block.id == block.id);
    let run = || {
        let from = finding.evidence.iter().map(|word| word.at);
        let from = from.filter(|at| *at < block.address).max()?;
        let length = pointer.value.checked_sub(SIZE_BYTES)?.offset_from(from)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_RUN)?;
        let mut bytes = vec![0; length];
        scene.target.memory.read_into(from, &mut bytes).ok()?;
        Some(bytes)
    };
    is_it && run().is_some_and(|run| is_text(&run) || is_one_value(&run) || is_series(&run))
}

fn is_about_pointer(saying: &Saying) -> bool {
    matches!(saying.about, About::Pointer(_))
}

/// A block in use that was given: the damage is in its header or the next one's, or in a free neighbour that it was to be joined
/// with.
fn of_block(scene: Scene<'_>, block: Block, is_of_block: bool, finding: &Finding) -> Option<u32> {
    let is_culprit = (finding.culprit.as_ref()).is_some_and(|culprit| culprit.block.id == block.id);
    if is_of_block || is_culprit {
        return Some(0);
    }
    let has_evidence =
        |range: &Range<Address>| finding.evidence.iter().any(|word| range.contains(&word.at));
    let end = block.address.saturating_add(block.bytes);
    let own = block.address.checked_sub(HEADER_BYTES)?..end.saturating_add(HEADER_BYTES);
    if has_evidence(&own) {
        return Some(1);
    }
    let heap = scene
        .death
        .heap
        .and_then(|index| scene.analysis.heaps.get(index))?;
    let before = heap
        .map
        .block_before(block)
        .map_or(own.start, |before| before.address);
    let behind = heap.map.block_at(end.saturating_add(HEADER_BYTES));
    let behind = behind.map_or(own.end, |(behind, _)| {
        behind
            .address
            .saturating_add(behind.bytes)
            .saturating_add(HEADER_BYTES)
    });
    has_evidence(&(before.checked_sub(HEADER_BYTES).unwrap_or(before)..behind)).then_some(2)
}

/// By the kind of list that the message names.
fn of_saying(saying: Option<&Saying>, finding: &Finding) -> Option<u32> {
    let saying = saying?;
    let kind = saying
        .causes
        .iter()
        .position(|kind| *kind == finding.kind)?;
    let kind = u32::try_from(kind).ok()?.saturating_add(4);
    let mut holders = finding
        .locations
        .iter()
        .map(|place| place.list.holder)
        .peekable();
    match saying.about {
        About::List(named) if holders.peek().is_some() => {
            holders.any(|holder| holder == named).then_some(kind)
        }
        _ => Some(kind),
    }
}

/// By what the allocator had in its registers when it died of a fault: the damaged word, or the block that it stands in.
fn of_registers(scene: Scene<'_>, saying: Option<&Saying>, finding: &Finding) -> Option<u32> {
    if saying.is_some() || !scene.death.is_fault {
        return None;
    }
    let frames = scene.target.threads.frames(scene.crash.thread);
    let registers = &frames.get(scene.crash.frame)?.registers;
    let is_near = |at: Address| {
        registers.iter().any(|(_, value)| {
            let distance = at.get().abs_diff(value);
            distance <= HEADER_BYTES * 2
        })
    };
    let block = finding.block.map(|view| view.block.address);
    let near = finding
        .evidence
        .iter()
        .map(|word| word.at)
        .chain(finding.at)
        .chain(block);
    near.into_iter().any(is_near).then_some(8)
}
