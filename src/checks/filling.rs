//! Bytes that the allocator filled with one value and that somebody else changed.

use heaps::anomaly::AnomalyKind;
use heaps::target::MemoryExt;

use super::finding::{Confidence, Culprit, Evidence, Finding, FindingKind};
use super::link_damage::overwriter_of;
use super::{Check, Subject, wording};

/// See the module.
pub struct Filling;

impl Check for Filling {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::UseAfterFreeWrite, FindingKind::HeapOverrun]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
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
        let (kind, message, next) = if *freed {
            let message = format!(
                "the free block {} of {} bytes was written {offset} bytes past its start: the allocator had filled it \
                 with {fill:#04x}",
                block.address, block.bytes
            );
            let next = "look for a pointer to this object that outlives it";
            (FindingKind::UseAfterFreeWrite, message, next)
        } else {
            let message = format!(
                "bytes behind what the program asked for in the block {} of {} bytes were written, {offset} bytes past \
                 its start: the allocator had filled them with {fill:#04x}",
                block.address, block.bytes
            );
            let next = "look for a write past the end of this object";
            (FindingKind::HeapOverrun, message, next)
        };
        let view = wording::view(subject, *block, block.address);
        let mut finding = wording::finding(subject, kind, block.address, Some(view), message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let length = u32::try_from(*bytes).unwrap_or(u32::MAX).clamp(1, 32);
        finding.evidence = vec![Evidence {
            at: *at,
            bytes: length,
            what: "filling".into(),
            expected: format!("{fill:#04x} in every byte"),
            found: format!("something else, over {bytes} bytes"),
        }];
        finding.overwriter = subject
            .target
            .memory
            .read_bytes::<8>(*at)
            .ok()
            .and_then(|word| overwriter_of(subject.target, &word, word));
        if !freed {
            finding.culprit = Some(Culprit {
                block: *block,
                state: view.state,
                contents: None,
            });
        }
        finding.next_steps = vec![next.to_owned()];
        Some(finding)
    }
}
