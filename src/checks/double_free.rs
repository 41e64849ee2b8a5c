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
                    _ if edges.iter().all(|edge| edge.list.holder.is_unchained()) => {
                        unchained_places(edges, &threads)
                    }
                    (2.., ..) => format!(
                        "the caches of threads {} hold it and run together behind it",
                        names(&threads)
                    ),
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
                let is_span = edge.list.holder == HolderKind::SpanList;
                let list = if is_span {
                    "the list of free spans".to_owned()
                } else {
                    format!("the {}", wording::list(&edge.list))
                };
                let message = format!(
                    "the block {} of {} bytes is handed out and still on {list}: it was freed twice",
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
                let (expected, found) = if is_span {
                    (
                        "a free span",
                        format!(
                            "the span of {}, which is in use and has no neighbours",
                            block.address
                        ),
                    )
                } else {
                    (
                        "a free block",
                        format!("{}, which malloc handed out since", block.address),
                    )
                };
                finding.evidence = vec![wording::edge_evidence(edge, expected, found)];
                finding.locations = vec![wording::location(edge)];
                finding.next_steps = next_steps(block.bytes);
                Some(finding)
            }
            AnomalyKind::FreedAgain { .. } => freed_again(subject),
            AnomalyKind::BadEntry {
                edge,
                found,
                stray: Stray::FreeSpan { block, .. },
                leads_on: true,
                ..
            } => {
                let found = &wording::entry(edge, *found);
                let owner = match edge.list.holder {
                    HolderKind::Tcache | HolderKind::Fastbin | HolderKind::Bin => {
                        "it had become part of a free chunk"
                    }
                    HolderKind::CacheArray => "its slab or extent had gone back to the free pages",
                    _ => "its span had gone back to the page heap",
                };
                let message = format!(
                    "{found}, a block of {} bytes, was freed again after {owner}",
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

/// A count of frees that is higher than what is free.
fn freed_again(subject: Subject<'_>) -> Option<Finding> {
    let AnomalyKind::FreedAgain {
        start,
        block,
        times,
        at,
        what,
        expected,
        found,
    } = &subject.anomaly.kind
    else {
        return None;
    };
    let message = match block {
        Some(block) => format!(
            "the block {} of {} bytes was freed again after it had gone back to its owner: {times} more frees were \
             counted than blocks are free",
            block.address, block.bytes
        ),
        None => format!(
            "a block of the memory at {start} was freed again after it had gone back to its owner: {times} more frees \
             were counted than blocks are free"
        ),
    };
    let view = block.map(|block| wording::view(subject, block, block.address));
    let address = block.map_or(*start, |block| block.address);
    let mut finding = wording::finding(subject, FindingKind::DoubleFree, address, view, message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    finding.evidence = vec![Evidence {
        at: *at,
        bytes: 8,
        what: (*what).into(),
        expected: expected.clone(),
        found: found.clone(),
    }];
    finding.next_steps = next_steps(block.map_or(0, |block| block.bytes));
    Some(finding)
}

fn names(threads: &BTreeSet<u32>) -> String {
    let names: Vec<String> = threads.iter().map(u32::to_string).collect();
    names.join(" and ")
}

/// Where a block stands that arrays and marks hold, not chains.
fn unchained_places(edges: &[Edge], threads: &BTreeSet<u32>) -> String {
    let in_slab = edges
        .iter()
        .any(|edge| edge.list.holder == HolderKind::Slab);
    match (threads.len(), in_slab) {
        (2.., _) => format!("the caches of threads {} hold it", names(threads)),
        (_, true) => "a thread's cache holds it, and its slab has it as free already".to_owned(),
        _ if edges
            .windows(2)
            .any(|pair| matches!(pair, [a, b] if a.list.at != b.list.at)) =>
        {
            "two caches hold it".to_owned()
        }
        _ => format!("a thread's cache holds it {} times", edges.len()),
    }
}

/// What to do about a block that is freed twice.
pub fn next_steps(bytes: u64) -> Vec<String> {
    let object = match bytes {
        0 => "an object".to_owned(),
        _ => format!("an object of up to {bytes} bytes"),
    };
    vec![
        format!("look for two owners of {object} that both free it"),
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
            let found = block.to_string();
            wording::edge_evidence(edge, expected, found)
        })
        .collect()
}
