//! Use after free that was read: the program died of a value that it had loaded out of a free block.
//!
//! ```text
//! pointer ──> free block ──> word ──> fault
//!    │            │           └─ the value at fault, by the code that loaded it (`crash::origin`)
//!    │            └─ listed free, by the heap's own lists
//!    └─ a register, a slot of the frame, an argument
//! ```
//!
//! That a register holds the address of a free block proves nothing: registers keep what they held. What counts is that the value
//! at fault *was read* there. Where the way of the value is lost, it may still tell itself: a word that the allocator writes into
//! free blocks only ([`lost`]). A block that was handed out again is never called free, whatever was left in it.

mod lost;
mod words;

use heaps::allocators::{Residue, Standing};
use heaps::anomaly::{Anomaly, AnomalyKind};
use heaps::map::{Block, BlockState};
use heaps::target::{Address, MemoryExt, Target};

use super::finding::{Confidence, Finding, FindingKind, Location};
use super::{Subject, Verdict, wording};
use crate::analysis::{Analysis, HeapAnalysis};
use crate::crash::Crash;
use crate::crash::origin::{Load, Origin};

/// A read of a free block that led to the crash.
struct Use<'a> {
    /// Index of the heap in the analysis.
    index: usize,
    heap: &'a HeapAnalysis<'a>,
    block: Block,
    /// The list that holds it, where one does.
    standing: Option<Standing>,
    /// The word that was read.
    at: Address,
    /// Its bytes, and what they hold.
    bytes: u64,
    word: u64,
    /// What it is, where the allocator wrote it.
    residue: Option<Residue>,
    /// The load, where the code tells it.
    load: Option<&'a Load>,
    /// What the pointer was that led to the block.
    pointer: Address,
    confidence: Confidence,
}

/// What a load says.
enum Judged<'a> {
    /// It read a free block.
    Free(Box<Use<'a>>),
    /// It read a block that is in use.
    InUse,
    /// Neither is known.
    Nothing,
}

/// Adds the use of a free block that the process died of, if it died of one.
pub fn explain(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    verdict: &mut Verdict,
) {
    if crash.origins.is_empty() || is_in_allocator(target, analysis, crash) {
        return;
    }
    let found = (crash.origins.iter())
        .find_map(|origin| read(target, analysis, origin).map(|found| (origin, found)));
    let found = found.or_else(|| {
        let mut origins = crash.origins.iter();
        origins.find_map(|origin| {
            lost::find(target, analysis, crash, origin).map(|found| (origin, found))
        })
    });
    let Some((origin, found)) = found else {
        return;
    };
    verdict.findings.push(finding(target, origin, &found));
    verdict
        .findings
        .sort_by_key(|finding| std::cmp::Reverse((finding.severity(), finding.confidence)));
}

/// Whether the instruction at fault is an allocator's own, or the work of one: what it met is told by its lists.
fn is_in_allocator(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash) -> bool {
    let frames = target.threads.frames(crash.thread);
    let first = crash.origins.first().map_or(0, |origin| origin.frame);
    analysis.heaps.iter().any(|heap| {
        let module = Some(heap.identity.module);
        let mut own = (frames.iter().skip(first))
            .take_while(|frame| frame.module == module)
            .map(|frame| heap.heap.runs(frame));
        match own.next() {
            None | Some(Some(false)) => own.any(|runs| runs == Some(true)),
            Some(_) => true,
        }
    })
}

/// The first load of a free block on the way of a value, as the program came by it.
fn read<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    origin: &'a Origin,
) -> Option<Use<'a>> {
    (0..origin.loads.len()).rev().find_map(|index| {
        let load = origin.loads.get(index)?;
        match judge(target, analysis, load) {
            Judged::Free(mut found) => {
                let direct = origin.loads.get(..=index)?.iter().all(|load| load.direct);
                let tells = found.residue.is_some_and(Residue::tells);
                found.confidence = match (tells, direct) {
                    (true, _) => Confidence::Certain,
                    (false, true) => Confidence::Likely,
                    // The word may have been read before the block was freed.
                    (false, false) => return None,
                };
                Some(*found)
            }
            Judged::InUse | Judged::Nothing => None,
        }
    })
}

/// What a load read.
fn judge<'a>(target: Target<'_>, analysis: &'a Analysis<'a>, load: &'a Load) -> Judged<'a> {
    let Some(at) = load.at else {
        return Judged::Nothing;
    };
    let pointer = load.base.unwrap_or(at);
    match look(target, analysis, at, load.bytes) {
        Judged::Free(found) => {
            // An index may lead from one block into another one.
            let inside = |pointer: Address| {
                let found = found.heap.map.block_at(pointer);
                found.map(|(block, _)| block.id)
            };
            let pointer = match inside(pointer) == Some(found.block.id) {
                true => pointer,
                false => at,
            };
            Judged::Free(Box::new(Use {
                load: Some(load),
                pointer,
                ..*found
            }))
        }
        other => other,
    }
}

/// What stands at an address, if it is in a block.
fn look<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    at: Address,
    bytes: u64,
) -> Judged<'a> {
    for (index, heap) in analysis.heaps.iter().enumerate() {
        let Some((block, offset)) = heap.map.block_at(at) else {
            continue;
        };
        if heap.map.state(block.id) == BlockState::InUse {
            return Judged::InUse;
        }
        let Some(word) = value_at(target, at, bytes) else {
            return Judged::Nothing;
        };
        let standing = heap.heap.standing(&heap.map, block);
        let list = standing.map(|standing| standing.list);
        let residue = heap
            .heap
            .residue(&heap.map, block, (offset, bytes), word, list);
        return Judged::Free(Box::new(Use {
            index,
            heap,
            block,
            standing,
            at,
            bytes,
            word,
            residue,
            load: None,
            pointer: at,
            confidence: Confidence::Suspected,
        }));
    }
    Judged::Nothing
}

fn value_at(target: Target<'_>, at: Address, bytes: u64) -> Option<u64> {
    match bytes {
        8 => target.memory.read_u64(at).ok(),
        4 => target.memory.read_u32(at).ok().map(u64::from),
        2 => target.memory.read_u16(at).ok().map(u64::from),
        1 => target.memory.read_u8(at).ok().map(u64::from),
        _ => None,
    }
}

/// The finding of a use.
fn finding(target: Target<'_>, origin: &Origin, found: &Use<'_>) -> Finding {
    let anomaly = Anomaly::new(AnomalyKind::Metadata {
        of: found.block.address,
        at: found.at,
        what: "a word of a free block",
        expected: "that nobody reads it".into(),
        found: "the value that the program died of".into(),
        counts_only: false,
    });
    let subject = Subject {
        target,
        index: found.index,
        heap: found.heap,
        anomaly: &anomaly,
    };
    let message = words::message(origin, found);
    // What was merged into something larger is told by the pointer that the program has.
    let is_whole = found.standing.is_some_and(|standing| {
        !matches!(
            standing.list.holder,
            heaps::anomaly::HolderKind::Bin | heaps::anomaly::HolderKind::SpanList
        )
    });
    let at = match is_whole {
        true => found.block.address,
        false => found.pointer,
    };
    let kind = FindingKind::DanglingReference;
    let mut finding = wording::finding(subject, kind, at, Some(found.block), message);
    finding.confidence = found.confidence;
    finding.evidence = vec![words::evidence(found)];
    finding.evidence.extend(words::holder(found, target));
    finding.locations = found
        .standing
        .map(|standing| Location {
            list: standing.list,
            position: standing.position,
        })
        .into_iter()
        .collect();
    finding.next_steps = words::next_steps(origin, found);
    wording::values_first(target, &mut finding.evidence);
    finding
}
