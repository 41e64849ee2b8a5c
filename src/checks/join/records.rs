//! An array of records that was written over many blocks: each word is as far from that of the record before as that one is from its
//! own. It began in the block in which the first record stands, and all that it ran over is one error.

use ground::target::{Address, Cursor, MemoryExt, Target};

use super::take_in;
use crate::analysis::HeapAnalysis;
use crate::checks::finding::{Confidence, Culprit, Finding, FindingKind};

/// Bytes of a word, and of a record at most.
const WORD: u64 = 8;
const MAX_RECORD: u64 = 128;
/// Bytes of an array that are followed, to each side.
const MAX_BYTES: u64 = 16 << 20;
/// Findings of which it is asked.
const MAX_FINDINGS: usize = 64;

/// Joins what one array ran over, and names the block that it began in.
pub(super) fn join(target: Target<'_>, heaps: &[HeapAnalysis<'_>], findings: &mut Vec<Finding>) {
    let is_overrun =
        |finding: &Finding| finding.kind == FindingKind::HeapOverrun && finding.culprit.is_some();
    let mut index = 0;
    while index < findings.len().min(MAX_FINDINGS) {
        let run = findings
            .get(index)
            .filter(|finding| is_overrun(finding))
            .and_then(|finding| Some((run_of(target, finding)?, finding.heap?)));
        let culprit = run.as_ref().and_then(|(run, heap)| {
            let heap = heaps.get(*heap)?;
            let (block, _) = heap.map.block_at(run.start)?;
            Some((block, heap.map.state(block.id)))
        });
        if let (Some((run, _)), Some((block, state))) = (run, culprit) {
            // The first word that it ran over.
            nearest_first(findings, index, &run);
            if let Some(finding) = findings.get_mut(index)
                && let Some(said) = &finding.culprit
                && block.address < said.block.address
            {
                finding.message = format!(
                    "the block {} of {} bytes was written past its end, by {} bytes at least: the records of {} bytes in it go on up to {}",
                    block.address,
                    block.bytes,
                    run.end
                        .get()
                        .saturating_sub(block.address.get().saturating_add(block.bytes)),
                    run.record,
                    run.end
                );
                finding.confidence = finding.confidence.min(Confidence::Likely);
                finding.culprit = Some(Culprit {
                    block,
                    state,
                    contents: Some("records of one kind".to_owned()),
                });
                finding.repairs.clear();
                finding.unrestored = None;
            }
            absorb(target, findings, index, &run);
        }
        index += 1;
    }
}

/// Puts the first of the overruns that an array made in place of a later one.
fn nearest_first(findings: &mut [Finding], index: usize, run: &Run) {
    let place = |finding: &Finding| {
        let is_overrun = finding.kind == FindingKind::HeapOverrun && finding.culprit.is_some();
        finding
            .at
            .filter(|at| is_overrun && (run.start..run.end).contains(at))
    };
    let behind = findings.iter().enumerate().skip(index);
    let first = behind
        .filter_map(|(at, finding)| Some((place(finding)?, at)))
        .min();
    if let Some((_, first)) = first {
        findings.swap(index, first);
    }
}

/// Takes into a finding what the array ran over beside.
fn absorb(target: Target<'_>, findings: &mut Vec<Finding>, index: usize, run: &Run) {
    let is_within = |at: Address| (run.start..run.end).contains(&at);
    let is_part = |finding: &Finding| {
        let is_write = matches!(
            finding.kind,
            FindingKind::HeapOverrun | FindingKind::UseAfterFreeWrite | FindingKind::HeapUnderrun
        );
        // A head that leads to what was run over is whole.
        let leads_there = || {
            let word = finding.evidence.first()?;
            let found = target.memory.read_pointer(word.at).ok()?;
            (finding.kind == FindingKind::CorruptMetadata && !finding.locations.is_empty())
                .then_some(found)
        };
        is_write && finding.at.is_some_and(is_within) || leads_there().is_some_and(is_within)
    };
    let mut at = index + 1;
    while let Some(part) = findings.get(at) {
        if !is_part(part) {
            at += 1;
            continue;
        }
        let part = findings.remove(at);
        if let Some(whole) = findings.get_mut(index) {
            take_in(whole, part);
        }
    }
}

/// An array of records.
struct Run {
    start: Address,
    end: Address,
    record: u64,
}

/// The array that a finding's damaged word is part of.
fn run_of(target: Target<'_>, finding: &Finding) -> Option<Run> {
    let block = finding.block?.block;
    let stride = finding.culprit.as_ref()?.block.bytes.clamp(WORD, MAX_BYTES);
    let mut cursor = Cursor::new(target.memory);
    let at = block.address;
    // The step from a word to that of the next record, if it is the same to the one behind that; and whether it is none.
    let mut step = |at: Address, record: u64| {
        let mut word = |times: u64| cursor.read_u64(at.checked_add(record * times)?).ok();
        let (first, second, third) = (word(0)?, word(1)?, word(2)?);
        let step = second.wrapping_sub(first);
        (third.wrapping_sub(second) == step).then_some(step != 0)
    };
    let mut is_array = |record: u64| {
        let start = at.checked_sub(2 * record)?;
        let mut counts = false;
        for index in 0..2 * record / WORD {
            counts |= step(start.checked_add(index * WORD)?, record)?;
        }
        Some(counts)
    };
    // Objects of one kind that lie side by side are no array.
    let record = (2..=MAX_RECORD / WORD)
        .map(|words| words * WORD)
        .filter(|record| !record.is_multiple_of(stride) && !record.is_multiple_of(stride + WORD))
        .find(|record| is_array(*record) == Some(true))?;
    let mut start = at;
    while at.get().saturating_sub(start.get()) < MAX_BYTES
        && let Some(before) = start.checked_sub(WORD)
        && step(before, record).is_some()
    {
        start = before;
    }
    let mut last = at;
    while last.get().saturating_sub(at.get()) < MAX_BYTES && step(last, record).is_some() {
        last = last.checked_add(WORD)?;
    }
    // The last two records have none behind them to be held against.
    let end = last.checked_add(2 * record)?;
    Some(Run { start, end, record })
}
