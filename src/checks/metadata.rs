//! Allocator state that contradicts itself in a way that no other check explains.

use ground::target::{Address, MemoryExt};
use heaps::anomaly::{AnomalyKind, Value};

use super::finding::{Confidence, Finding, FindingKind};
use super::link_damage::overwriter_of;
use super::{Check, Subject, wording};

/// See the module.
pub struct Metadata;

impl Check for Metadata {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::CorruptMetadata]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let (of, at, what, expected, found) = match &subject.anomaly.kind {
            AnomalyKind::Metadata {
                word,
                counts_only: false,
            } => (
                word.of,
                word.at,
                wording::field(word.what).to_owned(),
                wording::expected(&word.expected),
                wording::found(&word.found),
            ),
            // A head that names no block: nobody freed that, the list itself was written over.
            AnomalyKind::BadEntry {
                edge,
                found,
                leads_on: false,
                ..
            } if edge.from.is_none() => (
                edge.list.at,
                edge.word(),
                wording::edge(edge),
                format!("null or a block of {} bytes", edge.list.class_bytes),
                wording::stored(subject, edge, *found),
            ),
            _ => return None,
        };
        let what_is = format!("{what} at {at} is {found}, expected {expected}");
        // The head of a chained list may have been put there by the allocator itself.
        let is_head = matches!(&subject.anomaly.kind, AnomalyKind::BadEntry { edge, .. } if !edge.list.holder.is_unchained());
        let in_two_bins = in_two_bins(&subject.anomaly.kind);
        let message = match subject.anomaly.transient {
            Some(_) => what_is,
            None if in_two_bins => format!(
                "the chunk {of} is in two bins, and malloc itself wrote both links: {what_is}"
            ),
            None if is_head => format!(
                "{what_is}: it was overwritten, or it is the damaged link of a block that was handed out since"
            ),
            None => format!("allocator state was overwritten: {what_is}"),
        };
        let mut finding =
            wording::finding(subject, FindingKind::CorruptMetadata, of, None, message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let aligned = Address::new(at.get() & !7);
        finding.overwriter = subject
            .target
            .memory
            .read_bytes::<8>(aligned)
            .ok()
            .and_then(|bytes| overwriter_of(subject.target, &bytes, bytes));
        finding.evidence = vec![wording::word_evidence(at, &what, expected, found)];
        if let AnomalyKind::BadEntry { edge, .. } = &subject.anomaly.kind {
            finding.locations = vec![wording::location(edge)];
        }
        if in_two_bins {
            finding.next_steps = vec![
                "look for malloc and free in signal handlers, and in children of fork or vfork: both bins were worked on at once".to_owned(),
                "or the chunk was freed twice: run the same input under AddressSanitizer".to_owned(),
            ];
            return Some(finding);
        }
        finding.next_steps = vec![
            format!("look at the bytes around {at}: what they hold says who wrote there"),
            match is_head {
                true => "run the same input under AddressSanitizer: it stops at writes to blocks that are free",
                false => "set a hardware watchpoint on this address in a run that reproduces the crash",
            }
            .to_owned(),
        ];
        Some(finding)
    }
}

/// Whether a bin leads to a chunk that malloc has linked into another one.
fn in_two_bins(kind: &AnomalyKind) -> bool {
    matches!(kind, AnomalyKind::Metadata { word, .. } if matches!(word.found, Value::OtherBin(_)))
}
