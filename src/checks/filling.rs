//! Bytes that the allocator filled with one value and that somebody else changed.

use ground::target::{Address, MemoryExt};
use heaps::anomaly::AnomalyKind;
use heaps::map::{Block, BlockState};

use super::finding::{Confidence, Culprit, Evidence, Finding, FindingKind, Found};
use super::link_damage::overwriter_of;
use super::{Check, Subject, wording};

/// See the module.
pub struct Filling;

impl Check for Filling {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::UseAfterFreeWrite, FindingKind::HeapOverrun]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        if let AnomalyKind::EndMark {
            block,
            at,
            mark,
            found,
        } = subject.anomaly.kind
        {
            return Some(end_mark(subject, block, at, mark, found));
        }
        let AnomalyKind::Filling {
            block,
            at,
            bytes,
            fill,
            freed,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let offset = at.offset_from(block.address).unwrap_or(0);
        // A run of foreign bytes from a free block's first one on comes from the block before it.
        let before = (*freed && offset == 0)
            .then(|| subject.heap.map.block_before(*block))
            .flatten()
            .filter(|before| subject.heap.map.state(before.id) == BlockState::InUse);
        let culprit = match before {
            Some(before) => Some(before),
            None => (!freed).then_some(*block),
        };
        let (kind, message, next) = match (before, *freed) {
            (Some(before), _) => (
                FindingKind::HeapOverrun,
                format!(
                    "the free block {} of {} bytes was written from its first byte on, most likely past the end of {} \
                     before it: the allocator had filled it with {fill:#04x}",
                    block.address, block.bytes, before.address
                ),
                "look for a write past the end of the object before it, or through a pointer to a freed one",
            ),
            (None, true) => (
                FindingKind::UseAfterFreeWrite,
                format!(
                    "the free block {} of {} bytes was written {offset} bytes past its start: the allocator had filled \
                     it with {fill:#04x}",
                    block.address, block.bytes
                ),
                "look for a pointer to this object that outlives it",
            ),
            (None, false) => (
                FindingKind::HeapOverrun,
                format!(
                    "bytes behind what the program asked for in the block {} of {} bytes were written, {offset} bytes \
                     past its start: the allocator had filled them with {fill:#04x}",
                    block.address, block.bytes
                ),
                "look for a write past the end of this object",
            ),
        };
        let mut finding = wording::finding(subject, kind, block.address, Some(*block), message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let mut whole = [0u8; 8];
        let run = usize::try_from(*bytes).unwrap_or(8).clamp(1, 8);
        let written = whole.get_mut(..run)?;
        subject.target.memory.read_into(*at, written).ok()?;
        finding.overwriter = overwriter_of(subject.target, whole.get(..run)?, whole);
        let found = u64::from_le_bytes(whole);
        finding.evidence = vec![Evidence {
            at: *at,
            bytes: u32::try_from(run).unwrap_or(8),
            what: "filling".into(),
            expected: format!("{fill:#04x} in every byte"),
            found: Found::word(found)
                .and(&format!(": what was written, the first of {bytes} bytes")),
        }];
        finding.culprit = culprit.map(|block| Culprit {
            block,
            state: subject.heap.map.state(block.id),
            contents: None,
        });
        finding.next_steps = vec![next.to_owned()];
        Some(finding)
    }
}

/// The program wrote behind what it asked for, inside the block.
fn end_mark(subject: Subject<'_>, block: Block, at: Address, mark: u8, found: u8) -> Finding {
    let offset = at.offset_from(block.address).unwrap_or(0);
    let message = format!(
        "the block {} of {} bytes was written past what the program asked for: {offset} bytes past its start stood the \
         allocator's mark {mark:#04x}, or led to it",
        block.address, block.bytes
    );
    let kind = FindingKind::HeapOverrun;
    let mut finding = wording::finding(subject, kind, block.address, Some(block), message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    finding.overwriter = overwriter_of(subject.target, &[found], u64::from(found).to_le_bytes());
    finding.evidence = vec![Evidence {
        at,
        bytes: 1,
        what: "mark behind what the program asked for (MALLOC_CHECK_)".into(),
        expected: format!("{mark:#04x}, or the distance back to it"),
        found: Found::word(found.into()),
    }];
    finding.culprit = Some(Culprit {
        block,
        state: subject.heap.map.state(block.id),
        contents: None,
    });
    finding.next_steps = vec!["look for a write past the end of this object".to_owned()];
    finding
}
