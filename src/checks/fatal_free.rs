//! A pointer that the allocator died of: it was given to free and is no block that could be.

use heaps::anomaly::{AnomalyKind, Stray};

use super::finding::{Confidence, Finding, FindingKind};
use super::{Check, Subject, double_free, wording};

/// See the module.
pub struct FatalFree;

impl Check for FatalFree {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::InvalidFreeEntry,
            FindingKind::MisalignedFreeEntry,
            FindingKind::DoubleFree,
        ]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::FatalFree {
            thread,
            found,
            stray,
            register,
            at,
            what,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let (kind, block, is, next) = match stray {
            Stray::Misaligned { block, offset } | Stray::OtherClass { block, offset } => (
                FindingKind::MisalignedFreeEntry,
                Some(*block),
                format!(
                    "{offset} bytes into the block {} of {} bytes",
                    block.address, block.bytes
                ),
                format!(
                    "look for a pointer that was advanced by {offset} before it was passed to free"
                ),
            ),
            Stray::FreeSpan { block, .. } => (
                FindingKind::DoubleFree,
                Some(*block),
                format!(
                    "whose {} bytes had gone back to the allocator's free pages",
                    block.bytes
                ),
                double_free::next_steps(0).swap_remove(0),
            ),
            _ => (
                FindingKind::InvalidFreeEntry,
                None,
                "which is no memory of the heap".to_owned(),
                format!(
                    "find out what lies at {found} (stack, global, another allocator's block) and who frees it"
                ),
            ),
        };
        let message = format!("thread {thread} died in free of {found}, {is}");
        let mut finding = wording::finding(subject, kind, *found, block, message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let expected = format!("what the allocator knows of {found}, which {register} holds");
        finding.evidence = vec![wording::word_evidence(*at, what, expected, "nothing")];
        finding.next_steps = vec![next];
        Some(finding)
    }
}
