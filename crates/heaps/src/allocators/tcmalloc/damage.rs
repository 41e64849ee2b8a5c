//! What is wrong with the lists of one size class.
//!
//! Every irregularity is reduced to a word: the link (or head) that holds the wrong value, or the
//! block that is listed more than once. What else is out of step because of it is its cost.

mod followed;
mod junctions;
mod lengths;
mod lost;
mod strays;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;

use super::{PlainLinks, TcmallocHeap};
use crate::allocators::GroupReport;
use crate::anomaly::{Anomaly, AnomalyKind, Edge, Repair, Stray};
use crate::list::FreeList;
use crate::list::graph::{Keeper, ListGraph};
use crate::map::HeapMap;
use ground::target::{Address, MemoryExt};

/// How far back along a list a damaged link is looked for.
const MAX_BACK: u64 = 64;
/// Anomalies per class; more are the same damage over and over.
const MAX_ANOMALIES: usize = 256;

/// Describes an irregular class and corrects its columns in the map.
pub fn describe(heap: &TcmallocHeap<'_>, lists: &[FreeList], map: &HeapMap) -> GroupReport {
    let graph = ListGraph::trace(map, heap.target.memory, lists, &PlainLinks, heap);
    let mut class = Class {
        heap,
        map,
        graph,
        report: GroupReport::default(),
        cuts: HashMap::new(),
        explained: HashSet::new(),
        searches: AtomicUsize::new(0),
    };
    class.in_flight();
    class.strays();
    class.junctions();
    class.lengths();
    class.relist(lists);
    class.count_lost();
    class.report
}

struct Class<'h, 't, 'm> {
    heap: &'h TcmallocHeap<'t>,
    map: &'m HeapMap,
    graph: ListGraph<'m>,
    report: GroupReport,
    /// Entries whose link is not to be followed: damaged, with the repair if one was found, or not
    /// written yet, with the entry that belongs there.
    cuts: HashMap<Address, Cut>,
    /// Paths whose irregularity has a root.
    explained: HashSet<usize>,
    /// Times that all blocks were looked through for a value.
    searches: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Cut {
    Damaged(Option<Repair>),
    InFlight(Address),
}

impl Class<'_, '_, '_> {
    /// Adds an anomaly, once per word.
    fn push(&mut self, anomaly: Anomaly) {
        let known = |other: &Anomaly| match (&other.kind, &anomaly.kind) {
            (AnomalyKind::BadEntry { edge: a, .. }, AnomalyKind::BadEntry { edge: b, .. }) => {
                a.word() == b.word()
            }
            _ => false,
        };
        if self.report.anomalies.len() < MAX_ANOMALIES && !self.report.anomalies.iter().any(known) {
            self.report.anomalies.push(anomaly);
        }
    }

    /// Insertions that were interrupted between publishing a block and linking it.
    fn in_flight(&mut self) {
        for index in 0..self.graph.paths.len() {
            let Some(path) = self.graph.paths.get(index) else {
                continue;
            };
            let Some((behind, transient)) = path.in_flight.clone() else {
                continue;
            };
            let head = path.list.head;
            let edge = Edge {
                list: self.heap.list_ref(&path.list),
                position: 1,
                from: Some(head),
            };
            self.cuts.insert(head, Cut::InFlight(behind));
            self.explained.insert(index);
            let found = self
                .heap
                .target
                .memory
                .read_pointer(head)
                .unwrap_or_default();
            let mut anomaly = Anomaly::new(AnomalyKind::BadEntry {
                edge,
                found,
                stray: Stray::NotLinkedYet,
                leads_on: false,
                repair: Some(Repair {
                    value: behind,
                    unique: true,
                }),
            });
            anomaly.transient = Some(transient);
            self.push(anomaly);
        }
    }
}
