//! A pointer that was freed and is no block of the list: an inner pointer, a block of another
//! size class, no heap memory at all. The entry was linked in properly, so it was freed, not
//! written by accident.

use heaps::anomaly::{AnomalyKind, Edge, Stray};
use heaps::target::Address;

use super::finding::{Confidence, Finding, FindingKind};
use super::{Check, Subject, wording};

/// See the module.
pub struct FreeEntry;

impl Check for FreeEntry {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::MisalignedFreeEntry,
            FindingKind::InvalidFreeEntry,
        ]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::BadEntry {
            edge,
            found,
            stray,
            leads_on,
            ..
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let raw = wording::stored(subject, edge, *found);
        let found = &wording::entry(edge, *found);
        match stray {
            Stray::Misaligned { block, offset } if *leads_on => {
                let message = format!(
                    "free was called with {found}, {offset} bytes into the block {} of {} bytes",
                    block.address, block.bytes
                );
                let view = wording::view(subject, *block, *found);
                let mut finding = entry(
                    subject,
                    FindingKind::MisalignedFreeEntry,
                    edge,
                    *found,
                    &raw,
                    message,
                );
                finding.block = Some(view);
                finding.fingerprint = super::fingerprint::v1(subject, finding.kind, Some(*block));
                if let Some(evidence) = finding.evidence.first_mut() {
                    evidence.expected = format!("{}, the start of the block", block.address);
                }
                finding.next_steps = vec![
                    format!("look for a pointer to a member, or one that was advanced by {offset}, that is passed to free"),
                    "malloc will hand out this inner pointer: later damage nearby may be a consequence".to_owned(),
                ];
                Some(finding)
            }
            Stray::OtherClass { block, offset } if *leads_on => {
                let message = format!(
                    "{found} is a block of {} bytes, but was put into a list of {} bytes: freed with a wrong size",
                    block.bytes, edge.list.class_bytes
                );
                let view = wording::view(subject, *block, *found);
                let mut finding = entry(
                    subject,
                    FindingKind::InvalidFreeEntry,
                    edge,
                    *found,
                    &raw,
                    message,
                );
                finding.block = Some(view);
                finding.fingerprint = super::fingerprint::v1(subject, finding.kind, Some(*block));
                if *offset != 0 {
                    finding.confidence = finding.confidence.min(Confidence::Likely);
                }
                finding.next_steps = vec![
                    "look for a sized delete (or an allocator's deallocate) whose static type is not the object's".to_owned(),
                    "compile with -fno-sized-deallocation to see whether it goes away".to_owned(),
                ];
                Some(finding)
            }
            Stray::OutsideHeap if *leads_on => {
                let message =
                    format!("free was called with {found}, which is no memory of the heap");
                let mut finding = entry(
                    subject,
                    FindingKind::InvalidFreeEntry,
                    edge,
                    *found,
                    &raw,
                    message,
                );
                finding.confidence = finding.confidence.min(Confidence::Likely);
                finding.next_steps = vec![format!(
                    "find out what lies at {found} (stack, global, another allocator's block) and who frees it"
                )];
                Some(finding)
            }
            _ => None,
        }
    }
}

fn entry(
    subject: Subject<'_>,
    kind: FindingKind,
    edge: &Edge,
    found: Address,
    raw: &str,
    message: String,
) -> Finding {
    let mut finding = wording::finding(subject, kind, found, None, message);
    let expected = format!("a block of {} bytes", edge.list.class_bytes);
    finding.evidence = vec![wording::edge_evidence(edge, expected, raw)];
    finding.locations = vec![wording::location(edge)];
    finding
}
