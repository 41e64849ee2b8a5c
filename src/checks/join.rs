//! Text that runs over several small blocks damages several links: one write, one finding.

use heaps::target::{Address, MemoryExt, Target};

use super::finding::{Finding, FindingKind, Severity};

/// Bytes from one damaged link to the next one of the same write.
const MAX_STEP: usize = 64;

/// Joins findings of damaged links over which one text runs to the first of them, which names the block that wrote.
pub fn join(target: Target<'_>, findings: &mut Vec<Finding>) {
    let is_link = |finding: &Finding| {
        let kind = matches!(
            finding.kind,
            FindingKind::HeapOverrun | FindingKind::UseAfterFreeWrite
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
            (Some(left), Some(right)) => text_runs(target, left, right),
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
            whole.lost_blocks += part.lost_blocks;
            whole.evidence.extend(part.evidence.into_iter().take(1));
            whole.locations.extend(part.locations);
        }
    }
    let mut gone = gone.into_iter();
    findings.retain(|_| gone.next() != Some(true));
}

/// Whether everything from one link up to the next is text, which goes on or ends there.
fn text_runs(target: Target<'_>, from: Address, to: Address) -> bool {
    let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let step = to
        .offset_from(from)
        .and_then(|step| usize::try_from(step).ok())
        .filter(|step| (1..=MAX_STEP).contains(step));
    let mut bytes = [0; MAX_STEP + 1];
    let Some(bytes) = step.and_then(|step| bytes.get_mut(..=step)) else {
        return false;
    };
    target.memory.read_into(from, bytes).is_ok()
        && bytes
            .split_last()
            .is_some_and(|(last, before)| before.iter().all(text) && (text(last) || *last == 0))
}
