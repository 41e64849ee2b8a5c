//! A free list that runs in a circle, when it can't be told any more which of its blocks closed it.

use heaps::anomaly::AnomalyKind;

use super::finding::{Confidence, Finding, FindingKind};
use super::{Check, Subject, double_free, wording};

/// See the module.
pub struct CyclicList;

impl Check for CyclicList {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::CyclicFreeList]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::Shared {
            block,
            edges,
            cycle: Some(length),
            taken: true,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let message = format!(
            "a free list is a circle of {length} blocks of {} bytes that malloc hands out again and again: one of them \
             was freed twice, and the list has been used since",
            block.bytes
        );
        let mut finding = wording::finding(
            subject,
            FindingKind::CyclicFreeList,
            block.address,
            Some(*block),
            message,
        );
        finding.confidence = finding.confidence.min(Confidence::Certain);
        finding.evidence = double_free::edge_evidence(edges, block.address);
        finding.locations = edges
            .iter()
            .take(double_free::MAX_EDGES)
            .map(wording::location)
            .collect();
        finding.next_steps = double_free::next_steps(block.bytes);
        Some(finding)
    }
}
