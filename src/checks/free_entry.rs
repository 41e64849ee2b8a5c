//! A pointer that was freed and is no block of the list: an inner pointer, a block of another
//! size class, no heap memory at all. The entry was linked in properly, so it was freed, not
//! written by accident.

use heaps::anomaly::{AnomalyKind, Stray};

use super::finding::{Confidence, Finding, FindingKind};
use super::mismatch::{self, Foreign};
use super::place::Place;
use super::{Check, Subject, inner, wording};

/// See the module.
pub struct FreeEntry;

impl Check for FreeEntry {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::MisalignedFreeEntry,
            FindingKind::InvalidFreeEntry,
            FindingKind::AllocatorMismatch,
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
        if !leads_on {
            return None;
        }
        let raw = wording::stored(subject, edge, *found);
        let found = wording::entry(edge, *found);
        let about = |kind, block, message| {
            let mut finding = wording::finding(subject, kind, found, block, message);
            let expected = format!("a block of {} bytes", edge.list.class_bytes);
            finding.evidence = vec![wording::edge_evidence(edge, expected, raw)];
            finding.locations = vec![wording::location(edge)];
            finding
        };
        match stray {
            Stray::Misaligned { block, offset } => {
                let how = inner::told(subject.target, found, *block, *offset);
                let message = format!(
                    "free was called with {found}, {offset} bytes into the block {} of {} bytes{}",
                    block.address, block.bytes, how.hint
                );
                let mut finding = about(FindingKind::MisalignedFreeEntry, Some(*block), message);
                if let Some(evidence) = finding.evidence.first_mut() {
                    evidence.expected = format!("{}, the start of the block", block.address);
                }
                finding.next_steps = vec![
                    how.next,
                    "malloc will hand out this inner pointer: later damage nearby may be a consequence".to_owned(),
                ];
                Some(finding)
            }
            Stray::OtherClass { block, offset } if *offset != 0 => {
                let how = inner::told(subject.target, found, *block, *offset);
                let message = format!(
                    "{found}, {offset} bytes into the block {} of {} bytes, was put into a list of {} bytes: an inner pointer was freed, with a wrong size{}",
                    block.address, block.bytes, edge.list.class_bytes, how.hint
                );
                let mut finding = about(FindingKind::MisalignedFreeEntry, Some(*block), message);
                finding.confidence = finding.confidence.min(Confidence::Likely);
                finding.next_steps = vec![
                    match how.hint.is_empty() {
                        true => format!("look for a delete of what new[] gave, of an object by a base without a virtual destructor, or of a pointer that was advanced by {offset}"),
                        false => how.next,
                    },
                    "malloc will hand out this inner pointer: later damage nearby may be a consequence".to_owned(),
                ];
                Some(finding)
            }
            Stray::OtherClass { block, .. } => {
                let message = format!(
                    "{found} is a block of {} bytes, but was put into a list of {} bytes: freed with a wrong size",
                    block.bytes, edge.list.class_bytes
                );
                let mut finding = about(FindingKind::InvalidFreeEntry, Some(*block), message);
                finding.next_steps = vec![
                    "look for a sized delete (or an allocator's deallocate) whose static type is not the object's".to_owned(),
                    "compile with -fno-sized-deallocation to see whether it goes away".to_owned(),
                ];
                Some(finding)
            }
            Stray::OutsideHeap
                if let Some(foreign) = Foreign::at(subject.heaps, Some(subject.index), found) =>
            {
                let taker = &subject.heap.identity;
                let message = format!(
                    "free was called with {found}, {}, and put it into a list of {}",
                    foreign.words(subject.target),
                    mismatch::owner(subject.target, taker.family, Some(taker.module)),
                );
                let mut finding = about(FindingKind::AllocatorMismatch, None, message);
                foreign.name_in(&mut finding);
                finding.next_steps = mismatch::next_steps();
                Some(finding)
            }
            Stray::OutsideHeap => {
                let place = Place::outside(subject.target, found).of_earlier_call();
                let (is, next) = place.words(subject.target).unwrap_or((
                    "which is no memory of the heap".to_owned(),
                    "find out what lies there and who frees it",
                ));
                let message = format!("free was called with {found}, {is}");
                let mut finding = about(FindingKind::InvalidFreeEntry, None, message);
                finding.confidence = finding.confidence.min(Confidence::Likely);
                finding.next_steps = vec![next.to_owned()];
                Some(finding)
            }
            _ => None,
        }
    }
}
