//! A write that ran over from one block in use into the next, where nothing stands between them: no list and no header shows it.
//! The process died of it: the value at fault was loaded from a word of the second block, and the same run of bytes begins in the first.
//!
//! ```text
//! ...  /a/part/of/p | /a/part/of/p  ...      one block, the next
//!                     └── loaded as a pointer, which led nowhere
//! ```

use ground::target::{Address, MemoryExt, Target};
use heaps::map::{Block, BlockState};

use super::explains::{self, run};
use super::finding::{Cause, CauseKind, Confidence, ExplainsCrash, Finding, FindingKind, Found};
use super::link_damage::{culprit_in_front, overwriter_of};
use super::{Verdict, wording};
use crate::analysis::{Analysis, HeapAnalysis};
use crate::crash::Crash;
use crate::crash::origin::Load;

/// Bytes of the run that must stand in the first block, and most that are looked at in the second.
const BEFORE: u64 = 16;
const MAX_INSIDE: u64 = 256;
/// Values below this are no pointers that anybody wrote over.
const MIN_VALUE: u64 = 1 << 16;

/// Adds the overrun that the process died of, if no other error explains it and the bytes show one.
pub fn explain(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash, verdict: &mut Verdict) {
    let is_explained = |finding: &Finding| finding.explains_crash == ExplainsCrash::Yes;
    if !crash.is_by_memory || verdict.findings.iter().any(is_explained) {
        return;
    }
    let found = crash.origins.iter().find_map(|origin| {
        let load = origin.loads.iter().find(|load| !load.is_slot)?;
        let is_it = origin.value >= MIN_VALUE && load.bytes == 8;
        let at = load.at.filter(|_| is_it)?;
        if target.memory.read_u64(at).ok()? != origin.value {
            return None;
        }
        let (index, heap, second, first) = adjoining(analysis, at)?;
        let run = one_write(target, first, second, at)?;
        Some((origin, load, index, heap, first, second, run))
    });
    let Some((origin, load, index, heap, first, second, run)) = found else {
        return;
    };
    let is_told = verdict.findings.iter().any(|finding| {
        let block = finding.block.map(|view| view.block.address);
        block == Some(second.address) || block == Some(first.address)
    });
    if is_told {
        return;
    }
    let mut told = finding(target, heap, index, (first, second), load);
    let last = origin.loads.iter().position(|other| other == load);
    told.causes = explains::way(crash, origin, last.unwrap_or(0));
    told.causes.extend(load.at.map(|at| Cause {
        kind: CauseKind::Overwritten,
        at: Some(at),
        text: format!(
            "the word at {at} lies in one run of bytes that begins in the block {} before it",
            first.address
        ),
    }));
    told.causes.extend(explains::writer(&told));
    if run == Run::OneValue {
        told.message += "; or both were filled alike";
        told.confidence = Confidence::Suspected;
        told.explains_crash = ExplainsCrash::Unknown;
    }
    verdict.findings.push(told);
}

/// The block in use that a word lies in, and the block in use that ends where it begins.
fn adjoining<'a>(
    analysis: &'a Analysis<'a>,
    at: Address,
) -> Option<(usize, &'a HeapAnalysis<'a>, Block, Block)> {
    let mut heaps = analysis.heaps.iter().enumerate();
    let (index, heap, second) = heaps.find_map(|(index, heap)| {
        let (block, _) = heap.map.block_at(at)?;
        Some((index, heap, block))
    })?;
    let first = heap.map.block_before(second)?;
    let adjoins = first.address.checked_add(first.bytes) == Some(second.address);
    let in_use = |block: Block| heap.map.state(block.id) == BlockState::InUse;
    (adjoins && in_use(first) && in_use(second)).then_some((index, heap, second, first))
}

/// What lies over the end of the first block and the start of the second.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Text, or numbers that are counted up: they go on from the one into the other.
    GoesOn,
    /// One value, with which both may have been filled.
    OneValue,
}

/// What one write may have left from the end of the first block up to the word.
fn one_write(target: Target<'_>, first: Block, second: Block, at: Address) -> Option<Run> {
    let inside = at.offset_from(second.address)?.checked_add(8)?;
    if inside > MAX_INSIDE || first.bytes < BEFORE {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(BEFORE.checked_add(inside)?).ok()?];
    let from = second.address.checked_sub(BEFORE)?;
    target.memory.read_into(from, &mut bytes).ok()?;
    match run::is_one_value(&bytes) {
        true => Some(Run::OneValue),
        false => (run::is_text(&bytes) || run::is_series(&bytes)).then_some(Run::GoesOn),
    }
}

fn finding(
    target: Target<'_>,
    heap: &HeapAnalysis<'_>,
    index: usize,
    (first, second): (Block, Block),
    load: &Load,
) -> Finding {
    let at = load.at.unwrap_or(second.address);
    let word = target.memory.read_u64(at).unwrap_or(0);
    let message = format!(
        "the block {} of {} bytes was written past its end: one run of bytes goes on from there into the block {}, which is in use and of whose word at {at} the process died",
        first.address, first.bytes, second.address
    );
    let kind = FindingKind::HeapOverrun;
    let mut finding = wording::of_word_in_use(target, (index, heap), kind, (second, at), message);
    finding.confidence = Confidence::Likely;
    finding.explains_crash = ExplainsCrash::Yes;
    finding.culprit = Some(culprit_in_front(target, heap, first, second));
    finding.overwriter = overwriter_of(target, &word.to_le_bytes(), word.to_le_bytes());
    finding.evidence = vec![wording::word_evidence(
        at,
        "the word that was loaded",
        "what the block's own program wrote",
        Found::told(word, format!("{word:#x}, part of the run")),
    )];
    finding.next_steps = wording::overrun_steps(first.bytes);
    wording::values_first(target, &mut finding.evidence);
    finding
}
