//! One block freed twice: it stands in the free lists more than once, or in a list although its
//! span is free.

use std::collections::BTreeSet;

use ground::target::{Address, MemoryExt};
use heaps::anomaly::{Anomaly, AnomalyKind, Edge, HolderKind, ListRef, Stray};
use heaps::map::Block;

use super::finding::{Confidence, Evidence, Finding, FindingKind, Found};
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
                let any = *taken && cycle.is_some_and(|length| length > 1);
                (!any).then(|| shared(subject, *block, edges, *cycle))
            }
            AnomalyKind::ListedInUse { block, edge } => Some(listed_in_use(subject, *block, edge)),
            AnomalyKind::FreedAgain { .. } => freed_again(subject),
            AnomalyKind::BadEntry {
                edge,
                found,
                stray: Stray::FreeSpan { block, .. },
                leads_on: true,
                ..
            } => Some(merged_before(subject, *block, edge, *found)),
            AnomalyKind::BadEntry {
                edge,
                leads_on: false,
                ..
            } => given_out_twice(subject, edge),
            AnomalyKind::Length {
                list, at, recorded, ..
            } => {
                let below = below_zero(list, *recorded)?;
                overdrawn(subject, list, *at, below)
            }
            _ => None,
        }
    }
}

/// How many blocks more than it held a thread's cache gave out: its count went on below zero.
pub fn below_zero(list: &ListRef, recorded: u64) -> Option<u64> {
    const BITS: u64 = 1 << 32;
    let is_negative = (BITS / 2..BITS).contains(&recorded);
    (list.holder == HolderKind::ThreadCache && is_negative).then(|| BITS - recorded)
}

/// Anomalies that are looked through for each other: in a heap of more of them nobody can tell what belongs together.
const MAX_ANOMALIES: usize = 4096;

/// Blocks of a class in lists, whose link is damaged.
fn damaged(subject: Subject<'_>, class: u16) -> impl Iterator<Item = &Edge> {
    subject
        .heap
        .anomalies
        .iter()
        .take(MAX_ANOMALIES)
        .filter_map(move |anomaly| match &anomaly.kind {
            AnomalyKind::BadEntry {
                edge,
                leads_on: false,
                ..
            } if edge.list.class == class && edge.from.is_some() => Some(edge),
            _ => None,
        })
}

/// A list that gave out more than it held went round in a circle. Where one block of that size is in use and in a list, it is the one.
fn given_out_twice(subject: Subject<'_>, edge: &Edge) -> Option<Finding> {
    let (list, at, below) =
        subject
            .heap
            .anomalies
            .iter()
            .take(MAX_ANOMALIES)
            .find_map(|anomaly| match &anomaly.kind {
                AnomalyKind::Length {
                    list, at, recorded, ..
                } if list.class == edge.list.class => {
                    below_zero(list, *recorded).map(|below| (list, *at, below))
                }
                _ => None,
            })?;
    if damaged(subject, list.class).nth(1).is_some() {
        return None;
    }
    let (block, _) = subject.heap.map.block_at(edge.from?)?;
    let message = format!(
        "the block {} of {} bytes was freed twice, or written to after it was freed by the address of a block in use: it is in the {} and \
         holds what no list put there, and {}",
        block.address,
        block.bytes,
        wording::list(&edge.list),
        gave_out(list, below, Some(&edge.list)),
    );
    let mut finding = about(subject, block.address, Some(block), message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    let link = subject.target.memory.read_u64(edge.word()).ok();
    finding.evidence = vec![
        wording::edge_evidence(
            edge,
            format!("null or a block of {} bytes", block.bytes),
            link.map_or_else(|| Found::said(""), Found::word),
        ),
        count_evidence(at, below),
    ];
    finding.locations = vec![super::finding::Location {
        list: edge.list,
        position: edge.position.saturating_sub(1),
    }];
    Some(finding)
}

/// The same where no block, or several, may be the one.
fn overdrawn(subject: Subject<'_>, list: &ListRef, at: Address, below: u64) -> Option<Finding> {
    let is_shared = |anomaly: &Anomaly| match &anomaly.kind {
        AnomalyKind::Shared { block, .. } => block.class == list.class,
        _ => false,
    };
    let mut damaged = damaged(subject, list.class);
    let is_one = damaged.next().is_some() && damaged.next().is_none();
    let mut known = subject.heap.anomalies.iter().take(MAX_ANOMALIES);
    if is_one || known.any(is_shared) {
        return None; // said of that block
    }
    let message = format!(
        "a block of {} bytes was freed twice, or written to after it was freed by an address of blocks in use: {}",
        list.class_bytes,
        gave_out(list, below, None),
    );
    let mut finding = about(subject, list.at, None, message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    finding.evidence = vec![count_evidence(at, below)];
    Some(finding)
}

fn gave_out(list: &ListRef, below: u64, named: Option<&ListRef>) -> String {
    format!(
        "{} gave out {below} block{} more than it held, as a list does that runs in a circle",
        match named {
            Some(named) if named == list => "that list".to_owned(),
            _ => format!("the {}", wording::list(list)),
        },
        if below == 1 { "" } else { "s" },
    )
}

fn count_evidence(at: Address, below: u64) -> Evidence {
    Evidence {
        at,
        bytes: 4,
        what: "recorded length".into(),
        expected: "0 or more".into(),
        found: Found::said(format!("-{below}")),
    }
}

/// A block that lists hold more than once.
fn shared(subject: Subject<'_>, block: Block, edges: &[Edge], cycle: Option<u64>) -> Finding {
    let threads: BTreeSet<u32> = edges.iter().filter_map(|edge| edge.list.thread).collect();
    let holders: BTreeSet<HolderKind> = edges.iter().map(|edge| edge.list.holder).collect();
    let places = match (threads.len(), holders.len(), cycle) {
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
        (_, 2.., _) => "two kinds of free lists hold it and run together behind it".to_owned(),
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
    let message = format!(
        "the block {} of {} bytes was freed more than once: {places}",
        block.address, block.bytes
    );
    let mut finding = about(subject, block.address, Some(block), message);
    finding.evidence = edge_evidence(edges, block.address);
    // Whoever follows the damaged link of a bin puts its blocks into a cache, too.
    let (binned, single): (Vec<bool>, Vec<bool>) = edges
        .iter()
        .map(|edge| edge.list.holder == HolderKind::Bin)
        .partition(|is_bin| *is_bin);
    if !binned.is_empty() && !single.is_empty() {
        finding.confidence = finding.confidence.min(Confidence::Likely);
    }
    let shown = edges.iter().take(MAX_EDGES);
    finding.locations = shown.map(wording::location).collect();
    finding
}

/// A block that a list holds although it is handed out.
fn listed_in_use(subject: Subject<'_>, block: Block, edge: &Edge) -> Finding {
    let at = block.address;
    let (list, expected, found) = match edge.list.holder {
        HolderKind::SpanList => (
            "the list of free spans".to_owned(),
            "a free span",
            Found::said(format!("the span of {at}, which is in use")),
        ),
        _ => (
            format!("the {}", wording::list(&edge.list)),
            "a free block",
            Found::from(at).and(", which malloc handed out since"),
        ),
    };
    let message = format!(
        "the block {at} of {} bytes is handed out and still on {list}: it was freed twice",
        block.bytes
    );
    let mut finding = about(subject, at, Some(block), message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    finding.evidence = vec![wording::edge_evidence(edge, expected, found)];
    finding.locations = vec![wording::location(edge)];
    finding
}

/// A list leads to what had become part of something larger that is free.
fn merged_before(subject: Subject<'_>, block: Block, edge: &Edge, found: Address) -> Finding {
    let found = wording::entry(edge, found);
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
    let mut finding = about(subject, found, Some(block), message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    let expected = "a block of a span in use";
    finding.evidence = vec![wording::edge_evidence(edge, expected, found)];
    finding.locations = vec![wording::location(edge)];
    finding.next_steps = next_steps(edge.list.class_bytes);
    finding
}

fn about(subject: Subject<'_>, at: Address, block: Option<Block>, message: String) -> Finding {
    let mut finding = wording::finding(subject, FindingKind::DoubleFree, at, block, message);
    finding.next_steps = next_steps(block.map_or(0, |block| block.bytes));
    finding
}

/// A count of frees that is higher than what is free.
fn freed_again(subject: Subject<'_>) -> Option<Finding> {
    let AnomalyKind::FreedAgain {
        start,
        block,
        times,
        word,
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
    let address = block.map_or(*start, |block| block.address);
    let mut finding = about(subject, address, *block, message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    finding.evidence = vec![wording::broken_evidence(word)];
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
            wording::edge_evidence(edge, expected, block)
        })
        .collect()
}
