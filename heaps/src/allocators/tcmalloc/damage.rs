//! What is wrong with the lists of one size class.
//!
//! Every irregularity is reduced to a word: the link (or head) that holds the wrong value, or the
//! block that is listed more than once. What else is out of step because of it is its cost.

use std::collections::{HashMap, HashSet};

use super::{PlainLinks, TcmallocHeap};
use crate::allocators::GroupReport;
use crate::anomaly::{Anomaly, AnomalyKind, Edge, HolderKind, ListRef, Repair, Stray};
use crate::list::graph::{End, Keeper, ListGraph, Path, StrayEdge, looks_overrun};
use crate::list::{FreeList, Links};
use crate::map::{Block, BlockState, HeapMap};
use crate::parallel;
use crate::target::{Address, Cursor, MemoryExt};

/// How far back along a list a damaged link is looked for.
const MAX_BACK: u64 = 64;
/// Entries of the longest list of a thread cache, and a batch more.
const MAX_LENGTH: u64 = 8192 + 1024;
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

    fn strays(&mut self) {
        let strays = std::mem::take(&mut self.graph.strays);
        for stray in &strays {
            self.stray(stray);
        }
        self.graph.strays = strays;
    }

    fn stray(&mut self, stray: &StrayEdge) {
        let Some(path) = self.graph.paths.get(stray.path) else {
            return;
        };
        if path.in_flight.is_some() && stray.edge.position <= 1 {
            return;
        }
        let list = path.list;
        self.explained.insert(stray.path);
        if stray.leads_on
            && let Some(repair) = self.led_into_block(stray)
        {
            if let Some(from) = stray.edge.from {
                self.cuts.insert(from, Cut::Damaged(Some(repair)));
            }
            self.push(Anomaly::new(AnomalyKind::BadEntry {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                leads_on: false,
                repair: Some(repair),
            }));
            return;
        }
        if stray.leads_on {
            self.push(Anomaly::new(AnomalyKind::BadEntry {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                leads_on: true,
                repair: None,
            }));
            return;
        }
        let (edge, found, kind, repair) = match self.damaged_link(stray.path, &stray.edge) {
            Some((edge, found, repair)) if edge.from != stray.edge.from => {
                (edge, found, self.wrong_entry(found), Some(repair))
            }
            Some((edge, found, repair)) => (edge, found, stray.stray, Some(repair)),
            None => (stray.edge, stray.found, stray.stray, None),
        };
        let mut anomaly = Anomaly::new(AnomalyKind::BadEntry {
            edge,
            found,
            stray: kind,
            leads_on: false,
            repair,
        });
        // A first entry that is still the program's data may yet be an insertion under way, if some
        // thread holds that entry and the one that belongs behind it. Such data may also lead on,
        // over blocks in use, before it ends.
        let behind = repair.filter(|repair| repair.unique && edge.position == 1);
        if edge.position >= 1 {
            let behind = behind.map(|repair| repair.value);
            anomaly.transient = self.heap.may_be_inserting(&list, behind);
        }
        if let Some(from) = edge.from {
            self.cuts.insert(from, Cut::Damaged(repair));
        }
        self.push(anomaly);
    }

    /// A damaged link may lead into a block whose data looks like a link: null, mostly. It was not a
    /// pointer that was freed, if the link's repair is at hand and the list would lack entries
    /// otherwise, or if nobody frees such a pointer.
    fn led_into_block(&self, stray: &StrayEdge) -> Option<Repair> {
        let from = stray.edge.from?;
        let path = self.graph.paths.get(stray.path)?;
        let small = self.graph.edge_repair(
            &PlainLinks,
            self.heap,
            &path.list,
            &stray.edge,
            stray.found,
            None,
        )?;
        let follow = path.list.recorded.saturating_sub(stray.edge.position);
        let complete = path.end == End::Null && path.walked == path.list.recorded;
        if complete && follow > 1 || !small.repair.unique && !small.behind {
            return None;
        }
        let odd = !stray.found.is_aligned(8);
        let terminated = stray.found.get() & 0xff == 0 && self.is_in_use_before(from);
        let flipped = small.bytes == 0;
        (!complete || odd || terminated || flipped).then_some(small.repair)
    }

    fn wrong_entry(&self, at: Address) -> Stray {
        match self.map.block_at(at) {
            Some((block, _)) => Stray::WrongEntry { block },
            None => Stray::EarlyEnd,
        }
    }

    /// The nearest link at or before an edge whose repair fits, looking for damage to its low
    /// bytes; else the edge's own link, whatever was written over it.
    fn damaged_link(&mut self, path: usize, edge: &Edge) -> Option<(Edge, Address, Repair)> {
        let last = edge.position.checked_sub(1)?;
        let own = self.graph.paths.get(path)?.list;
        let value = self.heap.target.memory.read_pointer(edge.from?).ok()?;
        let small = self
            .graph
            .edge_repair(&PlainLinks, self.heap, &own, edge, value, None);
        if let Some(small) =
            small.filter(|small| small.behind || small.repair.unique && small.bytes < 2)
        {
            return Some((*edge, value, small.repair));
        }
        let nearest = (last.saturating_sub(MAX_BACK)..=last)
            .rev()
            .find_map(|position| {
                let repair = self.repair(path, position, false)?;
                (position == last || self.led_astray(path, position, repair))
                    .then_some((position, repair))
            });
        let (position, repair) = match nearest {
            Some(found) => found,
            None => (last, self.repair(path, last, true)?),
        };
        let from = self.node_at(path, position)?;
        let found = self.heap.target.memory.read_pointer(from).ok()?;
        Some((
            Edge {
                list: edge.list,
                position: position + 1,
                from: Some(from),
            },
            found,
            repair,
        ))
    }

    /// Whether a link that leads to a proper block was damaged all the same. Blocks in use hold old
    /// links, so a chain of the right length is easily found; more must speak for it: the value is
    /// not what the link held when its span was cut, the repair is, or the last byte is a
    /// terminator's.
    fn led_astray(&self, path: usize, position: u64, repair: Repair) -> bool {
        let Some(from) = self.node_at(path, position) else {
            return false;
        };
        let found = self.heap.target.memory.read_pointer(from).ok();
        let block = self.map.block_at(from);
        let next = block.and_then(|(block, _)| from.checked_add(block.bytes));
        let terminated = found.is_some_and(|found| found.get() & 0xff == 0);
        repair.unique && found != next && (terminated || Some(repair.value) == next)
    }

    fn repair(&mut self, path: usize, position: u64, whole: bool) -> Option<Repair> {
        self.graph
            .repair(&PlainLinks, self.heap, path, position, whole)
    }

    fn node_at(&self, path: usize, position: u64) -> Option<Address> {
        let path = self.graph.paths.get(path)?;
        let first = path.walked.checked_sub(path.tail.len() as u64)?;
        path.tail
            .get(usize::try_from(position.checked_sub(first)?).ok()?)
            .copied()
    }

    /// Blocks with several edges into them: a damaged link that happens to name a listed block, or
    /// a block that was freed more than once.
    fn junctions(&mut self) {
        let doubtful = self.doubtful_lists();
        let junctions = std::mem::take(&mut self.graph.junctions);
        for junction in &junctions {
            let mut edges: Vec<Edge> = junction
                .edges
                .iter()
                .filter(|edge| {
                    let cut = edge.from.is_some_and(|from| self.cuts.contains_key(&from));
                    !cut && (edge.position == 0 || !doubtful.contains(&edge.list))
                })
                .copied()
                .collect();
            while edges.len() > 1
                && let Some((index, bad, found, repair)) = self.stray_write(junction.block, &edges)
            {
                edges.remove(index);
                let stray = self.wrong_entry(found);
                if let Some(from) = bad.from {
                    self.cuts.insert(from, Cut::Damaged(Some(repair)));
                }
                self.push(Anomaly::new(AnomalyKind::BadEntry {
                    edge: bad,
                    found,
                    stray,
                    leads_on: false,
                    repair: Some(repair),
                }));
            }
            for (index, path) in self.graph.paths.iter().enumerate() {
                if !path.disputed.is_empty() {
                    self.explained.insert(index);
                }
            }
            if edges.len() > 1 {
                let cycle = self.cycle_through(junction.block.address);
                let taken = cycle.is_some() && self.is_taken_from(junction.block.address);
                self.push(Anomaly::new(AnomalyKind::Shared {
                    block: junction.block,
                    edges,
                    cycle,
                    taken,
                }));
            }
        }
        self.graph.junctions = junctions;
    }

    /// Irregular lists whose first entry may be half inserted: nothing behind it proves anything,
    /// for its link may still be the program's data, which may lead into any list.
    fn doubtful_lists(&mut self) -> HashSet<ListRef> {
        let irregular = |path: &&Path| {
            path.in_flight.is_none() && (path.end != End::Null || path.walked != path.list.recorded)
        };
        let mut doubtful = HashSet::new();
        for path in self.graph.paths.iter().filter(irregular) {
            if self.heap.may_be_inserting(&path.list, None).is_some() {
                doubtful.insert(self.heap.list_ref(&path.list));
                self.cuts
                    .entry(path.list.head)
                    .or_insert(Cut::Damaged(None));
            }
        }
        doubtful
    }

    /// The edge into a shared block that most likely comes from a damaged link: its own, or one
    /// before it.
    fn stray_write(
        &mut self,
        block: Block,
        edges: &[Edge],
    ) -> Option<(usize, Edge, Address, Repair)> {
        let own = edges.iter().enumerate().filter_map(|(index, edge)| {
            let (score, repair) = self.own_damage(edge, block.address)?;
            Some((score, std::cmp::Reverse(index), repair))
        });
        if let Some((_, index, repair)) = own.max_by_key(|(score, index, _)| (*score, *index)) {
            return Some((index.0, *edges.get(index.0)?, block.address, repair));
        }
        let before = |(index, edge)| {
            let (bad, found, repair) = self.damage_before(edge)?;
            Some((index, bad, found, repair))
        };
        edges.iter().enumerate().find_map(before)
    }

    fn path_of(&self, edge: &Edge) -> Option<usize> {
        self.graph
            .paths
            .iter()
            .position(|path| self.heap.list_ref(&path.list) == edge.list)
    }

    fn is_in_use_before(&self, at: Address) -> bool {
        let block = self.map.block_at(at).map(|(block, _)| block);
        block
            .and_then(|block| self.map.block_before(block))
            .is_some_and(|before| self.map.state(before.id) == BlockState::InUse)
    }

    /// Whether an edge's own link was changed in a byte, a bit or two bytes. An unlisted chain of
    /// the length that the list lacks must begin where the link led; a chain of one is found by
    /// chance, and so are chains near a link of which two bytes are open. How much speaks for it.
    fn own_damage(&self, edge: &Edge, found: Address) -> Option<(u32, Repair)> {
        let from = edge.from?;
        let path = self.path_of(edge)?;
        let list = self.graph.paths.get(path)?.list;
        let small = self
            .graph
            .edge_repair(&PlainLinks, self.heap, &list, edge, found, None)?;
        let follow = list.recorded.saturating_sub(edge.position);
        let written = u32::try_from(small.bytes.max(1)).unwrap_or(1);
        let overrun = self.is_in_use_before(from) && looks_overrun(found.get(), written);
        let unique = small.repair.unique;
        let enough = if self.is_double_free_length(path) {
            small.behind && unique && overrun
        } else if follow == 1 || small.bytes == 2 {
            small.behind || unique && overrun
        } else {
            small.behind || unique
        };
        let score = 4 * u32::from(small.behind)
            + 2 * u32::from(unique)
            + u32::from(overrun)
            + u32::from(small.bytes < 2);
        enough.then_some((score, small.repair))
    }

    /// Whether a link before an edge into a shared block was damaged: the repair must be the only
    /// one and what the link held before in all likelihood (the next block in memory), the block
    /// before the link in use, and the recorded length must not be what freeing twice leaves behind.
    fn damage_before(&mut self, edge: &Edge) -> Option<(Edge, Address, Repair)> {
        let path = self.path_of(edge)?;
        if self.is_double_free_length(path) {
            return None;
        }
        let last = edge.position.checked_sub(1)?;
        let (position, repair) = (last.saturating_sub(MAX_BACK)..=last)
            .rev()
            .find_map(|position| Some((position, self.repair(path, position, false)?)))?;
        let from = self.node_at(path, position)?;
        let found = self.heap.target.memory.read_pointer(from).ok()?;
        let bad = Edge {
            list: edge.list,
            position: position + 1,
            from: Some(from),
        };
        let (block, _) = self.map.block_at(from)?;
        let next = block.address.checked_add(block.bytes)?;
        (repair.unique && repair.value == next && self.is_in_use_before(from))
            .then_some((bad, found, repair))
    }

    /// A circle whose list counts one entry more than it has, and no tail was cut off: a block
    /// freed twice leaves exactly that.
    fn is_double_free_length(&self, path: usize) -> bool {
        self.graph.paths.get(path).is_some_and(|path| {
            matches!(path.end, End::Cycle(_)) && path.list.recorded == path.walked + 1
        })
    }

    /// Whether a list counts fewer entries than the circle that begins at `block` has.
    fn is_taken_from(&self, block: Address) -> bool {
        self.graph.paths.iter().any(|path| {
            matches!(path.end, End::Cycle(_))
                && path.disputed.iter().any(|(_, at)| *at == block)
                && (path.list.recorded <= path.walked || path.list.recorded >= 1 << 31)
        })
    }

    fn cycle_through(&self, block: Address) -> Option<u64> {
        let mut cursor = Cursor::new(self.heap.target.memory);
        let mut at = block;
        for steps in 1..=self.graph.orphans.blocks() {
            at = PlainLinks.decode(at, cursor.read_u64(at).ok()?);
            if at == block {
                return Some(steps);
            }
            let class = self.graph.paths.first()?.list.class;
            PlainLinks
                .admit(self.map, self.heap.target.memory, class, at)
                .ok()?;
        }
        None
    }

    /// Lists that end at null too early or too late, when nothing else is wrong with them.
    fn lengths(&mut self) {
        for index in 0..self.graph.paths.len() {
            let Some(path) = self.graph.paths.get(index) else {
                continue;
            };
            let (list, walked, end) = (path.list, path.walked, path.end);
            if end == End::Bounded {
                self.report.limits.push(crate::allocators::Limit {
                    what: format!("the list at {} behind entry {walked}", list.at),
                    why: "the lists of its size class are so damaged that following them all would not end soon"
                        .into(),
                    incomplete: false,
                });
                continue;
            }
            let unknown = list.holder == HolderKind::CentralList
                && (self.heap.is_contradicted(list.owner) || self.heap.is_blamed(list.at));
            if self.explained.contains(&index) || walked == list.recorded || unknown {
                continue;
            }
            let busy = self.heap.busy(&list);
            if let Some((bad, found, repair)) = self.damage_by_length(index, busy.is_some()) {
                self.explained.insert(index);
                if let Some(from) = bad.from {
                    self.cuts.insert(from, Cut::Damaged(Some(repair)));
                }
                let stray = if found.is_null() {
                    Stray::EarlyEnd
                } else {
                    self.wrong_entry(found)
                };
                self.push(Anomaly::new(AnomalyKind::BadEntry {
                    edge: bad,
                    found,
                    stray,
                    leads_on: false,
                    repair: Some(repair),
                }));
                continue;
            }
            let mut anomaly = Anomaly::new(AnomalyKind::Length {
                list: self.heap.list_ref(&list),
                at: self.length_word(&list),
                recorded: list.recorded,
                walked,
            });
            // No work in progress makes a list that long.
            anomaly.transient = busy.filter(|_| list.recorded <= MAX_LENGTH);
            self.push(anomaly);
        }
    }

    /// The damaged link of a list that ends at null after too few or too many entries, if one
    /// explains it. While its keeper may be at work on it, only a link deep in it that skips entries
    /// or leads to others counts: work is done at the first entries.
    fn damage_by_length(&mut self, index: usize, busy: bool) -> Option<(Edge, Address, Repair)> {
        let path = self.graph.paths.get(index)?;
        let (list, walked) = (path.list, path.walked);
        if let Some(found) = self.small_damage_on(&list, walked, busy) {
            return Some(found);
        }
        if walked >= list.recorded || walked == 0 || busy {
            return None;
        }
        let edge = Edge {
            list: self.heap.list_ref(&list),
            position: walked,
            from: self.node_at(index, walked - 1),
        };
        let (bad, found, repair) = self.damaged_link(index, &edge)?;
        let (block, _) = self.map.block_at(bad.from?)?;
        let next = block.address.checked_add(block.bytes)?;
        (repair.unique || repair.value == next).then_some((bad, found, repair))
    }

    /// Looks at every link of a list that ends at null for one that a changed byte or bit explains.
    fn small_damage_on(
        &self,
        list: &FreeList,
        walked: u64,
        busy: bool,
    ) -> Option<(Edge, Address, Repair)> {
        let mut cursor = Cursor::new(self.heap.target.memory);
        let mut from = list.head;
        let mut best: Option<(u32, Edge, Address, Repair)> = None;
        for position in 1..walked.min(list.recorded).min(MAX_LENGTH) {
            let found = PlainLinks.decode(from, cursor.read_u64(from).ok()?);
            let edge = Edge {
                list: self.heap.list_ref(list),
                position,
                from: Some(from),
            };
            let (block, _) = self.map.block_at(from)?;
            let next = from.saturating_add(block.bytes);
            let skipped = list.recorded.checked_sub(walked).filter(|lost| *lost > 0);
            for detour in [skipped, None] {
                if detour.is_none() && skipped.is_some() && busy || found == next {
                    continue;
                }
                let Some(small) =
                    self.graph
                        .edge_repair(&PlainLinks, self.heap, list, &edge, found, detour)
                else {
                    continue;
                };
                let written = u32::try_from(small.bytes.max(1)).unwrap_or(1);
                let overrun = self.is_in_use_before(from) && looks_overrun(found.get(), written);
                let follow = detour.unwrap_or(list.recorded - position);
                let unique = small.repair.unique;
                let enough = if follow == 1 || small.bytes == 2 {
                    small.behind && overrun
                } else {
                    small.behind || unique && (overrun || follow > 3)
                };
                let score = 8 * u32::from(small.behind)
                    + 4 * u32::from(overrun)
                    + 2 * u32::from(unique)
                    + u32::from(small.bytes < 2);
                if enough && best.as_ref().is_none_or(|(known, ..)| score > *known) {
                    best = Some((score, edge, found, small.repair));
                }
            }
            from = found;
        }
        best.map(|(_, edge, found, repair)| (edge, found, repair))
    }

    fn length_word(&self, list: &FreeList) -> Address {
        let layout = &self.heap.located.layout;
        match list.holder {
            HolderKind::ThreadCache => layout.cache.length.at(list.at),
            HolderKind::CentralList => layout.span.refcount.at(list.at),
            _ => list.at,
        }
    }

    /// Marks the class's entries afresh, following links only as far as they are believed.
    fn relist(&self, lists: &[FreeList]) {
        for &row in self.graph.orphans.rows() {
            self.map.unlist(row);
        }
        let memory = self.heap.target.memory;
        parallel::map(lists, |list| {
            let mut cursor = Cursor::new(memory);
            let mut at = list.head;
            // Each step marks a new block or steps over a stray, which needs a proper entry behind it.
            let mut over = 0;
            while !at.is_null() {
                match PlainLinks.admit(self.map, memory, list.class, at) {
                    Ok(block) if self.map.mark_listed(block) => break,
                    Ok(_) => {}
                    Err(_) if over < 64 => over += 1,
                    Err(_) => break,
                }
                at = match self.cuts.get(&at) {
                    Some(Cut::InFlight(behind)) => *behind,
                    Some(Cut::Damaged(_)) => break,
                    None => match cursor.read_u64(at) {
                        Ok(word) => PlainLinks.decode(at, word),
                        Err(_) => break,
                    },
                };
            }
        });
        for cut in self.cuts.values() {
            if let Cut::Damaged(Some(repair)) = cut
                && repair.unique
            {
                self.mark_lost(repair.value);
            }
        }
    }

    /// Marks the unlisted chain from `first` as lost; says how long it is.
    fn mark_lost(&self, first: Address) -> u64 {
        let memory = self.heap.target.memory;
        let class = self.graph.paths.first().map_or(0, |path| path.list.class);
        let mut cursor = Cursor::new(memory);
        let mut at = first;
        let mut length = 0;
        while !at.is_null() && length < self.graph.orphans.blocks() {
            match PlainLinks.admit(self.map, memory, class, at) {
                Ok(block) if !self.map.is_listed(block) && !self.map.is_lost(block) => {
                    self.map.mark_lost(block)
                }
                _ => break,
            }
            length += 1;
            match cursor.read_u64(at) {
                Ok(word) => at = PlainLinks.decode(at, word),
                Err(_) => break,
            }
        }
        length
    }

    /// What each damaged list lost: told one by one where a repair names the chain, else by count.
    fn count_lost(&mut self) {
        for index in 0..self.graph.paths.len() {
            let Some(path) = self.graph.paths.get(index) else {
                continue;
            };
            if path.in_flight.is_some() {
                continue;
            }
            let missing = self.missing(path);
            let list = path.list;
            let root = self.root_of(path);
            if missing == 0 {
                continue;
            }
            let told = root.is_some_and(|(_, repaired)| repaired);
            if !told {
                let confined = self.heap.confined(&list);
                let chain = self
                    .graph
                    .orphans
                    .anywhere(&PlainLinks, missing, &|block, at| {
                        !self.map.is_lost(block)
                            && confined.as_ref().is_none_or(|range| range.contains(&at))
                    });
                let marked = match chain.filter(|chain| chain.unique) {
                    Some(chain) => self.mark_lost(chain.first),
                    None => 0,
                };
                self.report.lost_blocks += missing.saturating_sub(marked);
            }
            if let Some(anomaly) = root.and_then(|(root, _)| self.report.anomalies.get_mut(root)) {
                anomaly.lost_blocks += missing;
            }
        }
    }

    /// Entries that the list should have and that damage cut off.
    fn missing(&self, path: &Path) -> u64 {
        let list = &path.list;
        if list.holder == HolderKind::CentralList && self.heap.is_contradicted(list.owner) {
            return 0;
        }
        if list.recorded >= 1 << 31 {
            return 0; // a circle was popped below zero: the count means nothing any more
        }
        let blocks = self.graph.orphans.blocks();
        let missing = match self.first_on(path) {
            Some((position, true)) => list.recorded.saturating_sub(position),
            // A double free: what the block linked to before it was freed again.
            Some((position, false)) => {
                if let End::Cycle(_) = path.end {
                    list.recorded.saturating_sub(path.walked + 1)
                } else if self.owns_tail(path) {
                    0
                } else {
                    list.recorded.saturating_sub(position + 1)
                }
            }
            None if path.end == End::Null && self.heap.busy(list).is_some() => 0,
            None => list.recorded.saturating_sub(path.walked),
        };
        missing.min(blocks)
    }

    /// Whether what follows a shared block is the list's own: its length is right with it. Of
    /// several lists that run together, only one owns the tail: the one that was inserted into last.
    /// A span counts a block that came back to it twice.
    fn owns_tail(&self, path: &Path) -> bool {
        let exact = |path: &Path| match path.list.holder {
            HolderKind::CentralList => self.walked_inside(path) == path.list.recorded,
            _ => path.walked == path.list.recorded,
        };
        let crossing = |path: &&Path| {
            let at = path
                .disputed
                .iter()
                .find(|(_, at)| self.shared(*at).is_some());
            at.map(|(_, at)| *at)
        };
        let here = crossing(&path);
        let owner = self
            .graph
            .paths
            .iter()
            .find(|other| crossing(other) == here && exact(other));
        match (owner, path.list.holder) {
            (Some(owner), _) => owner.list == path.list,
            (None, HolderKind::CentralList) => self.walked_inside(path) + 1 >= path.list.recorded,
            (None, _) => false,
        }
    }

    /// Entries of a path that lie where its list may have entries.
    fn walked_inside(&self, path: &Path) -> u64 {
        let Some(range) = self.heap.confined(&path.list) else {
            return path.walked;
        };
        let mut cursor = Cursor::new(self.heap.target.memory);
        let mut at = path.list.head;
        let mut inside = 0;
        for _ in 0..path.walked {
            inside += u64::from(range.contains(&at));
            let Ok(word) = cursor.read_u64(at) else { break };
            at = PlainLinks.decode(at, word);
        }
        inside
    }

    /// The first irregular word on a path: entries before it, and whether it is a damaged link
    /// (else a shared block).
    fn first_on(&self, path: &Path) -> Option<(u64, bool)> {
        let list = self.heap.list_ref(&path.list);
        let first = path.walked.saturating_sub(path.tail.len() as u64);
        if let Some((position, _)) = path
            .disputed
            .iter()
            .find(|(_, at)| self.shared(*at).is_some())
        {
            return Some((*position, false));
        }
        for (position, at) in (first..).zip(&path.tail) {
            if let Some(Cut::Damaged(_)) = self.cuts.get(at) {
                return Some((position + 1, true));
            }
        }
        self.report
            .anomalies
            .iter()
            .find_map(|anomaly| match &anomaly.kind {
                AnomalyKind::BadEntry {
                    edge,
                    leads_on: false,
                    ..
                } if edge.list == list => Some((edge.position, true)),
                _ => None,
            })
    }

    fn shared(&self, at: Address) -> Option<usize> {
        self.report
            .anomalies
            .iter()
            .position(|anomaly| matches!(&anomaly.kind, AnomalyKind::Shared { block, .. } if block.address == at))
    }

    /// The anomaly that explains a path, and whether a certain repair names what it lost.
    fn root_of(&self, path: &Path) -> Option<(usize, bool)> {
        let list = self.heap.list_ref(&path.list);
        if let Some(root) = path.disputed.iter().find_map(|(_, at)| self.shared(*at)) {
            return Some((root, false));
        }
        self.report
            .anomalies
            .iter()
            .enumerate()
            .find_map(|(index, anomaly)| match &anomaly.kind {
                AnomalyKind::BadEntry { edge, repair, .. } if edge.list == list => {
                    Some((index, repair.is_some_and(|repair| repair.unique)))
                }
                AnomalyKind::Length { list: other, .. } if *other == list => Some((index, false)),
                _ => None,
            })
    }
}
