//! The head of a free list is no block, and nobody wrote there: malloc has followed a damaged link. The damage is in
//! the block that it handed out then.

use heaps::anomaly::AnomalyKind;
use heaps::map::BlockState;
use heaps::target::MemoryExt;

use super::finding::{Confidence, Culprit, Finding, FindingKind};
use super::link_damage::{describe_tail, overwriter_of};
use super::{Check, Subject, wording};

/// See the module.
pub struct FollowedLink;

impl Check for FollowedLink {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::UseAfterFreeWrite, FindingKind::HeapOverrun]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::FollowedLink {
            edge, found, taken, ..
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let bytes = edge.list.class_bytes;
        let stored = wording::stored(subject, edge, *found);
        // Text that goes on from the block before it came from there.
        let before = taken.and_then(|taken| {
            let before = subject.heap.map.block_before(taken)?;
            let adjoins = before.address.checked_add(before.bytes) == Some(taken.address);
            let at = taken.address.checked_sub(8)?;
            let tail = subject.target.memory.read_bytes::<8>(at).ok()?;
            let state = subject.heap.map.state(before.id);
            let text = describe_tail(&tail) == "text"
                && describe_tail(found.get().to_le_bytes().get(..2)?) == "text";
            (adjoins && text && state == BlockState::InUse).then_some((before, state, tail))
        });
        let followed = format!(
            "malloc followed a damaged link: the {} is {stored}, and the words beside it are whole",
            wording::edge(edge)
        );
        let (kind, message) = match (before, taken) {
            (Some((before, ..)), Some(taken)) => (
                FindingKind::HeapOverrun,
                format!(
                    "the block {} of {bytes} bytes was written past its end, over the link of {}, which was handed out \
                     since: {followed}",
                    before.address, taken.address
                ),
            ),
            (None, Some(taken)) => (
                FindingKind::UseAfterFreeWrite,
                format!(
                    "the block {} of {bytes} bytes was written to while it was free, or the block before it was written \
                     past its end; it was handed out since: {followed}",
                    taken.address
                ),
            ),
            (_, None) => (
                FindingKind::UseAfterFreeWrite,
                format!(
                    "a block of {bytes} bytes that was handed out since was written to while it was free, or the block \
                     before it was written past its end: {followed}"
                ),
            ),
        };
        let at = taken.map_or(edge.word(), |taken| taken.address);
        let mut finding = wording::finding(subject, kind, at, *taken, message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let expected = format!("null or a block of {bytes} bytes");
        finding.evidence = vec![wording::edge_evidence(edge, expected.clone(), stored)];
        if let Some(taken) = taken {
            let what = "first word of a block that was handed out";
            let found = format!("{found}, as the head");
            finding
                .evidence
                .push(wording::word_evidence(taken.address, what, expected, found));
        }
        if let Some((block, state, tail)) = before {
            finding.culprit = Some(Culprit {
                block,
                state,
                contents: Some(describe_tail(&tail)),
            });
        }
        let word = found.get().to_le_bytes();
        finding.overwriter = overwriter_of(subject.target, &word, word);
        finding.next_steps = vec![
            format!("find who keeps a pointer to an object of up to {bytes} bytes after freeing it, or writes past one"),
            "run the same input under AddressSanitizer: it stops at the write itself, which was before malloc met it"
                .to_owned(),
        ];
        Some(finding)
    }
}
