//! One error that shows in several places is one finding: a write that runs over several blocks, a loop that does the
//! same to each of them.

mod records;

use ground::target::{Address, MemoryExt, Target};
use heaps::anomaly::{HolderKind, ListRef};
use heaps::map::BlockState;

use crate::analysis::HeapAnalysis;

use super::finding::{Finding, FindingKind, Findings, OverwriterClass, Severity};

/// Bytes from one damaged link to the next one of the same write.
const MAX_STEP: usize = 4096;
/// Pieces of evidence of a joined finding.
const MAX_EVIDENCE: usize = 8;
/// Places of a joined finding.
const MAX_PLACES: usize = 64;

/// Adds a finding to a kept one that says the same of another block; gives it back if there is none.
pub fn absorb(findings: &mut Findings, finding: Finding) -> Option<Finding> {
    let kept = findings.kept_mut().iter_mut();
    let Some(whole) = kept.into_iter().find(|kept| are_alike(kept, &finding)) else {
        return Some(finding);
    };
    whole.alike = whole.alike.saturating_add(1);
    take_in(whole, finding);
    None
}

/// Adds what another finding of the same error has to one, within the bounds of one finding.
pub fn take_in(whole: &mut Finding, part: Finding) {
    whole.lost_blocks = whole.lost_blocks.saturating_add(part.lost_blocks);
    let room = MAX_EVIDENCE.saturating_sub(whole.evidence.len()).min(1);
    whole.evidence.extend(part.evidence.into_iter().take(room));
    let room = MAX_PLACES.saturating_sub(whole.locations.len());
    whole
        .locations
        .extend(part.locations.into_iter().take(room));
}

/// Whether two findings differ in nothing but the block.
fn are_alike(one: &Finding, other: &Finding) -> bool {
    let (Some(block), Some(second)) = (one.block, other.block) else {
        return false;
    };
    let same = (one.kind, one.confidence, one.heap) == (other.kind, other.confidence, other.heap)
        && !one.transient
        && !other.transient
        && block.block.bytes == second.block.bytes
        && block.state == second.state;
    same && match one.kind {
        FindingKind::MisalignedFreeEntry => block.offset == second.offset,
        FindingKind::DoubleFree => places(one) == places(other),
        FindingKind::UseAfterFreeWrite => {
            let written = one.overwriter.as_ref();
            one.culprit.is_none()
                && other.culprit.is_none()
                && written.is_some_and(|written| written.class != OverwriterClass::BitFlip)
                && written == other.overwriter.as_ref()
        }
        _ => false,
    }
}

/// The kinds of lists in which a finding's first block stands, and whose they are.
fn places(finding: &Finding) -> Vec<(HolderKind, Option<u32>)> {
    let each = (finding.locations.len() as u64)
        .checked_div(finding.alike.saturating_add(1))
        .and_then(|each| usize::try_from(each).ok())
        .unwrap_or(0);
    let place = |list: &ListRef| (list.holder, list.thread);
    finding
        .locations
        .iter()
        .take(each)
        .map(|location| place(&location.list))
        .collect()
}

/// Joins findings of damaged links over which one write runs to the first of them, which names the block that wrote,
/// and says of how many blocks each finding is true.
pub fn join(target: Target<'_>, heaps: &[HeapAnalysis<'_>], findings: &mut Vec<Finding>) {
    records::join(target, heaps, findings);
    join_runs(target, findings);
    join_followed(findings);
    join_run_over(target, heaps, findings);
    join_inner(findings);
    for finding in findings {
        if let (Some(view), 1..) = (finding.block, finding.alike) {
            finding.message = format!(
                "{} blocks of {} bytes alike; the first: {}",
                finding.alike.saturating_add(1),
                view.block.bytes,
                finding.message
            );
        }
    }
}

/// Pointers that were freed as far into blocks of one size are one error's, however sure each of them is.
fn join_inner(findings: &mut Vec<Finding>) {
    let mut index = 0;
    while index < findings.len().min(MAX_PLACES) {
        let part = findings.get(index);
        let whole = part.and_then(|part| {
            let others = findings.iter().take(MAX_PLACES).enumerate();
            let mut others = others.filter(|(at, whole)| {
                *at != index && are_as_far(whole, part) && whole.confidence >= part.confidence
            });
            others.next().map(|(at, _)| at)
        });
        let Some(whole) = whole else {
            index += 1;
            continue;
        };
        let part = findings.remove(index);
        let whole = if whole > index { whole - 1 } else { whole };
        if let Some(whole) = findings.get_mut(whole) {
            whole.alike = whole.alike.saturating_add(part.alike).saturating_add(1);
            take_in(whole, part);
        }
    }
}

/// Whether two alarms are of pointers that were freed as far into blocks of one size.
pub fn are_as_far(one: &Finding, other: &Finding) -> bool {
    let (Some(block), Some(second)) = (one.block, other.block) else {
        return false;
    };
    let is_it = |finding: &Finding| {
        finding.kind == FindingKind::MisalignedFreeEntry && finding.severity() == Severity::Critical
    };
    is_it(one)
        && is_it(other)
        && one.heap == other.heap
        && block.block.bytes == second.block.bytes
        && block.offset == second.offset
}

fn join_runs(target: Target<'_>, findings: &mut Vec<Finding>) {
    let is_link = |finding: &Finding| {
        let kind = matches!(
            finding.kind,
            FindingKind::HeapOverrun | FindingKind::HeapUnderrun | FindingKind::UseAfterFreeWrite
        );
        kind && finding.block.is_some() && finding.severity() != Severity::Note
    };
    let mut links: Vec<usize> = (0..findings.len())
        .filter(|index| findings.get(*index).is_some_and(is_link))
        .collect();
    links.sort_by_key(|index| findings.get(*index).and_then(|finding| finding.at));
    let mut gone = vec![false; findings.len()];
    let mut first = None;
    for pair in links.windows(2) {
        let &[left, right] = pair else { continue };
        let at = |index: usize| findings.get(index).and_then(|finding| finding.at);
        let goes_on = match (at(left), at(right)) {
            (Some(left), Some(right)) => runs_on(target, left, right),
            _ => false,
        };
        if !goes_on {
            first = None;
            continue;
        }
        let into = *first.get_or_insert(left);
        let Some(part) = findings.get(right).cloned() else {
            continue;
        };
        if let (Some(whole), Some(gone)) = (findings.get_mut(into), gone.get_mut(right)) {
            *gone = true;
            take_in(whole, part);
        }
    }
    let mut gone = gone.into_iter();
    findings.retain(|_| gone.next() != Some(true));
}

/// A write over the links of two blocks, of which the first has been handed out since: what went on from that block over the
/// second link began in front of it.
fn join_followed(findings: &mut Vec<Finding>) {
    let is_behind = |first: &Finding, second: &Finding| {
        let handed_out = first.block.map(|view| view.block.address);
        let wrote = second.culprit.as_ref().map(|culprit| culprit.block.address);
        let overruns = [first.kind, second.kind] == [FindingKind::HeapOverrun; 2];
        overruns
            && handed_out.is_some()
            && handed_out == wrote
            && first.overwriter.is_some()
            && first.overwriter == second.overwriter
    };
    let second = (0..findings.len()).find_map(|index| {
        let second = findings.get(index)?;
        let first = (0..findings.len()).find(|at| {
            let other = findings.get(*at).filter(|_| *at != index);
            other.is_some_and(|first| is_behind(first, second))
        })?;
        Some((first, index))
    });
    if let Some((first, index)) = second {
        let part = findings.remove(index);
        let first = if first > index { first - 1 } else { first };
        if let Some(whole) = findings.get_mut(first) {
            take_in(whole, part);
        }
    }
}

/// A write over the header of a block which, by what is left of it, ends in another damaged header; or to which a head leads, or was of
/// its size: the allocator went on with what stood there.
fn join_run_over(target: Target<'_>, heaps: &[HeapAnalysis<'_>], findings: &mut Vec<Finding>) {
    /// Findings that are compared with each other.
    const MAX_FINDINGS: usize = 256;
    let has_header = |finding: &Finding| {
        let map = &heaps.get(finding.heap?)?.map;
        let extent = map.extent(finding.block?.block.id.extent)?;
        map.chunks(extent)
    };
    let is_overrun = |finding: &Finding| {
        finding.kind == FindingKind::HeapOverrun
            && has_header(finding).is_some()
            && finding.culprit.is_some()
            && finding.severity() == Severity::Critical
    };
    let is_part = |whole: &Finding, part: &Finding| {
        let Some(block) = whole.block.map(|view| view.block) else {
            return false;
        };
        let end = block.address.saturating_add(block.bytes);
        let wrote = part.culprit.as_ref().map(|culprit| culprit.block.address);
        let goes_on = is_overrun(part) && wrote == Some(block.address);
        let Some(place) = part.locations.first() else {
            return goes_on;
        };
        let word = part.evidence.first();
        let found = word.and_then(|word| target.memory.read_pointer(word.at).ok());
        let leads_there = found.is_some_and(|found| (block.address..end).contains(&found));
        // What was written over the link of a free block, too, was followed. The block is not known; or it is
        // this very one, which has been handed out since; or it is taken for the one that wrote, which is
        // filled with the same.
        let is_outside = word.is_some_and(|word| !(block.address..end).contains(&word.at));
        let is_followed = part.kind == FindingKind::UseAfterFreeWrite
            && part.block.is_none_or(|view| {
                let wrote = whole.culprit.as_ref().map(|culprit| culprit.block.address);
                let is_fill = part.overwriter.is_some() && part.overwriter == whole.overwriter;
                let address = view.block.address;
                let is_it = address == block.address || is_fill && wrote == Some(address);
                is_it && is_outside && view.state == BlockState::InUse
            });
        let is_head =
            (part.kind == FindingKind::CorruptMetadata || is_followed) && part.heap == whole.heap;
        goes_on || is_head && (leads_there || place.list.class_bytes == block.bytes)
    };
    let mut index = 0;
    while index < findings.len().min(MAX_FINDINGS) {
        let whole = findings.iter().take(MAX_FINDINGS).position(|whole| {
            let part = findings.get(index);
            is_overrun(whole) && part.is_some_and(|part| is_part(whole, part))
        });
        match whole.filter(|whole| *whole != index) {
            Some(whole) => {
                let part = findings.remove(index);
                let whole = if whole > index { whole - 1 } else { whole };
                if let Some(whole) = findings.get_mut(whole) {
                    take_in(whole, part);
                }
                // What it led to may be part of the whole by now.
                index = 0;
            }
            None => index += 1,
        }
    }
}

/// Whether everything from one link up to the next is one write: text, which goes on or ends there, or bytes that repeat.
fn runs_on(target: Target<'_>, from: Address, to: Address) -> bool {
    let step = to
        .offset_from(from)
        .and_then(|step| usize::try_from(step).ok())
        .filter(|step| (1..=MAX_STEP).contains(step));
    let mut bytes = [0; MAX_STEP + 8];
    let Some(bytes) = step.and_then(|step| bytes.get_mut(..step + 8)) else {
        return false;
    };
    if target.memory.read_into(from, bytes).is_err() {
        return false;
    }
    let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let is_text = step
        .and_then(|step| bytes.get(..=step))
        .is_some_and(|bytes| {
            bytes
                .split_last()
                .is_some_and(|(last, before)| before.iter().all(text) && (text(last) || *last == 0))
        });
    let repeats = |period: usize| {
        step.is_some_and(|step| period <= step)
            && bytes.get(period..).is_some_and(|rest| {
                rest.iter()
                    .zip(bytes.iter())
                    .all(|(one, other)| one == other)
            })
    };
    is_text
        || [1, 4, 8, 12, 16, 24, 32, 40, 48, 64]
            .into_iter()
            .any(repeats)
}
