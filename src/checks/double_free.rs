//! One block freed twice: it stands in the free lists more than once, or in a list although its
//! span is free.

use std::collections::BTreeSet;

use heaps::anomaly::{AnomalyKind, Edge, HolderKind, Stray};
use heaps::target::Address;

use super::finding::{Confidence, Evidence, Finding, FindingKind};
use super::{Check, Subject, wording};

/// See the module.
pub struct DoubleFree;

/// Edges that are shown.
pub const MAX_EDGES: usize = 8;

impl Check for DoubleFree {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::DoubleFree]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        match &subject.anomaly.kind {
            AnomalyKind::Shared {
                block,
                edges,
                cycle,
                taken,
            } => {
                // Of a circle that malloc has taken from since, any block may be the one.
                if *taken && cycle.is_some_and(|length| length > 1) {
                    return None;
                }
                let threads: BTreeSet<u32> =
                    edges.iter().filter_map(|edge| edge.list.thread).collect();
                let holders: BTreeSet<HolderKind> =
                    edges.iter().map(|edge| edge.list.holder).collect();
                let mut message = format!(
                    "the block {} of {} bytes was freed more than once: ",
                    block.address, block.bytes
                );
                message += &match (threads.len(), holders.len(), cycle) {
                    (2.., ..) => {
                        let names: Vec<String> = threads.iter().map(u32::to_string).collect();
                        format!(
                            "the caches of threads {} hold it and run together behind it",
                            names.join(" and ")
                        )
                    }
                    _ if holders.contains(&HolderKind::SpanList) => {
                        "its span is its own neighbour on the list of free spans".to_owned()
                    }
                    (_, 2.., _) => {
                        "two kinds of free lists hold it and run together behind it".to_owned()
                    }
                    (_, _, Some(1)) => {
                        "its free list points back at it, so malloc returns it for ever".to_owned()
                    }
                    (_, _, Some(length)) => {
                        format!(
                            "its free list is a circle of {length} blocks, so malloc returns them again and again"
                        )
                    }
                    _ => "two places in the free lists lead to it".to_owned(),
                };
                let view = wording::view(subject, *block, block.address);
                let mut finding = wording::finding(
                    subject,
                    FindingKind::DoubleFree,
                    block.address,
                    Some(view),
                    message,
                );
                finding.evidence = edge_evidence(edges, block.address);
                finding.locations = edges
                    .iter()
                    .take(MAX_EDGES)
                    .map(wording::location)
                    .collect();
                finding.next_steps = next_steps(block.bytes);
                Some(finding)
            }
            AnomalyKind::ListedInUse { block, edge } => {
                let message = format!(
                    "the block {} of {} bytes is handed out and still on the list of free spans: it was freed twice",
                    block.address, block.bytes
                );
                let view = wording::view(subject, *block, block.address);
                let mut finding = wording::finding(
                    subject,
                    FindingKind::DoubleFree,
                    block.address,
                    Some(view),
                    message,
                );
                finding.confidence = finding.confidence.min(Confidence::Likely);
                let found = format!(
                    "the span of {}, which is in use and has no neighbours",
                    block.address
                );
                finding.evidence = vec![wording::edge_evidence(edge, "a free span", found)];
                finding.locations = vec![wording::location(edge)];
                finding.next_steps = next_steps(block.bytes);
                Some(finding)
            }
            AnomalyKind::BadEntry {
                edge,
                found,
                stray: Stray::FreeSpan { block, .. },
                leads_on: true,
                ..
            } => {
                let message = format!(
                    "{found} was freed again after its span of {} bytes had gone back to the page heap",
                    block.bytes
                );
                let view = wording::view(subject, *block, *found);
                let mut finding = wording::finding(
                    subject,
                    FindingKind::DoubleFree,
                    *found,
                    Some(view),
                    message,
                );
                finding.confidence = finding.confidence.min(Confidence::Likely);
                finding.evidence = vec![wording::edge_evidence(
                    edge,
                    "a block of a span in use",
                    found.to_string(),
                )];
                finding.locations = vec![wording::location(edge)];
                finding.next_steps = next_steps(edge.list.class_bytes);
                Some(finding)
            }
            _ => None,
        }
    }
}

/// What to do about a block that is freed twice.
pub fn next_steps(bytes: u64) -> Vec<String> {
    vec![
        format!("look for two owners of an object of up to {bytes} bytes that both free it"),
        "run the same input under AddressSanitizer: it prints the stacks of both frees".to_owned(),
    ]
}

/// The words that lead to a shared block.
pub fn edge_evidence(edges: &[Edge], block: Address) -> Vec<Evidence> {
    edges
        .iter()
        .take(MAX_EDGES)
        .enumerate()
        .map(|(index, edge)| {
            let expected = match index {
                0 => "a free block",
                _ => "another block: this one is listed already",
            };
            wording::edge_evidence(edge, expected, block.to_string())
        })
        .collect()
}
