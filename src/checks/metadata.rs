//! Allocator state that contradicts itself in a way that no other check explains.

use heaps::anomaly::AnomalyKind;
use heaps::target::MemoryExt;

use super::finding::{Confidence, Evidence, Finding, FindingKind};
use super::link_damage::overwriter_of;
use super::{Check, Subject, wording};

/// See the module.
pub struct Metadata;

impl Check for Metadata {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::CorruptMetadata]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let (at, what, expected, found) = match &subject.anomaly.kind {
            AnomalyKind::Metadata {
                at,
                what,
                expected,
                found,
                counts_only: false,
            } => (*at, (*what).to_owned(), expected.clone(), found.clone()),
            // A head that names no block: nobody freed that, the list itself was written over.
            AnomalyKind::BadEntry {
                edge,
                found,
                leads_on: false,
                ..
            } if edge.from.is_none() => (
                edge.word(),
                wording::edge(edge),
                format!("null or a block of {} bytes", edge.list.class_bytes),
                found.to_string(),
            ),
            _ => return None,
        };
        let message = format!(
            "allocator state was overwritten: {what} at {at} is {found}, expected {expected}"
        );
        let mut finding =
            wording::finding(subject, FindingKind::CorruptMetadata, at, None, message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        finding.overwriter = subject
            .target
            .memory
            .read_u64(at)
            .ok()
            .and_then(|word| overwriter_of(subject.target, &word.to_le_bytes(), None));
        finding.evidence = vec![Evidence {
            at,
            bytes: 8,
            what,
            expected,
            found,
        }];
        finding.next_steps = vec![
            format!("look at the bytes around {at}: what they hold says who wrote there"),
            "set a hardware watchpoint on this address in a run that reproduces the crash"
                .to_owned(),
        ];
        Some(finding)
    }
}
