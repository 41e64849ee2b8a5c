//! Blocks that several links lead to.

use std::collections::HashSet;

use super::super::PlainLinks;
use super::{Class, Cut, MAX_BACK};
use crate::anomaly::{Anomaly, AnomalyKind, Edge, HolderKind, ListRef, Repair};
use crate::list::Links;
use crate::list::graph::{End, Keeper, Path, looks_overrun};
use crate::map::{Block, BlockState};
use ground::target::{Address, Cursor, MemoryExt};

impl Class<'_, '_, '_> {
    /// Blocks with several edges into them: a damaged link that happens to name a listed block, or
    /// a block that was freed more than once.
    pub(super) fn junctions(&mut self) {
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
            if self.may_be_inserting(&path.list, None).is_some() {
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
    fn stray_write(&self, block: Block, edges: &[Edge]) -> Option<(usize, Edge, Address, Repair)> {
        let own = edges.iter().enumerate().filter_map(|(index, edge)| {
            let freed = is_freed(edge, edges);
            let (score, repair) = self.own_damage(edge, block.address, freed)?;
            Some((score, std::cmp::Reverse(index), repair))
        });
        if let Some((_, index, repair)) = own.max_by_key(|(score, index, _)| (*score, *index)) {
            return Some((index.0, *edges.get(index.0)?, block.address, repair));
        }
        let before = |(index, edge)| {
            let (bad, found, repair) = self.damage_before(edge, is_freed(edge, edges))?;
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

    /// Whether a link is what the NUL behind a text that fills the block before leaves.
    pub(super) fn ends_text(&self, from: Address, found: Address) -> bool {
        let mut last = [0];
        let before = from.checked_sub(1);
        let read =
            before.is_some_and(|at| self.heap.target.memory.read_into(at, &mut last).is_ok());
        read && last != [0] && found.get() & 0xff == 0
    }

    pub(super) fn is_in_use_before(&self, at: Address) -> bool {
        let block = self.map.block_at(at).map(|(block, _)| block);
        block
            .and_then(|block| self.map.block_before(block))
            .is_some_and(|before| self.map.state(before.id) == BlockState::InUse)
    }

    /// Whether an edge's own link was changed in a byte, a bit or two bytes. An unlisted chain of
    /// the length that the list lacks must begin where the link led; a chain of one is found by
    /// chance, and so are chains near a link of which two bytes are open. How much speaks for it.
    fn own_damage(&self, edge: &Edge, found: Address, freed: bool) -> Option<(u32, Repair)> {
        let from = edge.from?;
        let path = self.path_of(edge)?;
        let list = self.graph.paths.get(path)?.list;
        let small =
            self.graph
                .edge_repair(&PlainLinks, self.heap, &list, edge, found, None, &|_| false)?;
        let follow = list.recorded.saturating_sub(edge.position);
        let written = u32::try_from(small.bytes.max(1)).unwrap_or(1);
        let overrun = self.is_in_use_before(from) && looks_overrun(found.get(), written);
        let unique = small.repair.unique;
        let ends_text = overrun && self.ends_text(from, found) && follow > 1;
        let list_bytes = edge.list.class_bytes;
        let enough = if self.is_double_free_length(path) {
            small.behind && unique && overrun && (from != found || list_bytes <= 32)
        } else if from == found {
            // A block that is freed twice in a row is behind itself. So is, after a NUL, a small one at a round address.
            small.behind && overrun && small.bytes == 1 && list_bytes <= 32
        } else if freed {
            let low = unique && overrun && small.bytes == 1;
            small.behind || low && (ends_text || follow > 3)
        } else if follow == 1 || small.bytes == 2 {
            small.behind || unique && overrun
        } else {
            small.behind || unique || ends_text
        };
        let score = u32::from(small.behind)
            .saturating_mul(4)
            .saturating_add(u32::from(unique).saturating_mul(2))
            .saturating_add(u32::from(overrun))
            .saturating_add(u32::from(small.bytes < 2));
        enough.then_some((score, small.repair))
    }

    /// Whether a link before an edge into a shared block was damaged: the repair must be the only
    /// one and what the link held before in all likelihood (the next block in memory, or the way to the entry that a slot
    /// names as its last), or the link's low byte what the end of a text leaves, the block before the link in use, and the recorded length must not be what freeing twice
    /// leaves behind.
    fn damage_before(&self, edge: &Edge, freed: bool) -> Option<(Edge, Address, Repair)> {
        let path = self.path_of(edge)?;
        if self.is_double_free_length(path) {
            return None;
        }
        let last = edge.position.checked_sub(1)?;
        let back = (last.saturating_sub(MAX_BACK)..=last).rev();
        back.clone()
            .find_map(|position| self.damage_at(edge.list, path, position))
            .or_else(|| {
                back.filter(|_| !freed)
                    .find_map(|position| self.flip_at(edge.list, path, position))
            })
    }

    /// See [`damage_before`](Self::damage_before).
    fn damage_at(
        &self,
        list: ListRef,
        path: usize,
        position: u64,
    ) -> Option<(Edge, Address, Repair)> {
        let repair = self
            .repair(path, position, false)
            .filter(|repair| repair.unique)?;
        let (bad, from, found) = self.link_at(list, path, position)?;
        let (block, _) = self.map.block_at(from)?;
        let next = block.address.checked_add(block.bytes)?;
        let one_byte = (found.get() ^ repair.value.get()) >> 8 == 0;
        // A chain that ends in the very entry that a slot names is not found by chance.
        let ends_right = self
            .graph
            .paths
            .get(path)
            .is_some_and(|path| self.heap.last(&path.list).is_some());
        let likely =
            repair.value == next || one_byte && (ends_right || self.ends_text(from, found));
        (likely && found != from && self.is_in_use_before(from)).then_some((bad, found, repair))
    }

    /// The same for a single bit above the low byte, which leads elsewhere in the class by chance.
    fn flip_at(
        &self,
        list: ListRef,
        path: usize,
        position: u64,
    ) -> Option<(Edge, Address, Repair)> {
        let own = self.graph.paths.get(path)?.list;
        let (bad, _, found) = self.link_at(list, path, position)?;
        let graph = &self.graph;
        let small =
            graph.edge_repair(&PlainLinks, self.heap, &own, &bad, found, None, &|_| false)?;
        let follow = own.recorded.saturating_sub(bad.position);
        let enough = small.bytes == 0 && small.repair.unique && follow > 3;
        enough.then_some((bad, found, small.repair))
    }

    /// The link of the entry at a position: as an edge, where it is, what it holds.
    fn link_at(
        &self,
        list: ListRef,
        path: usize,
        position: u64,
    ) -> Option<(Edge, Address, Address)> {
        let from = self.node_at(path, position)?;
        let found = self.heap.target.memory.read_pointer(from).ok()?;
        let edge = Edge {
            list,
            position: position.saturating_add(1),
            from: Some(from),
        };
        Some((edge, from, found))
    }

    /// A circle whose list counts one entry more than it has, and no tail was cut off: a block
    /// freed twice leaves exactly that.
    fn is_double_free_length(&self, path: usize) -> bool {
        self.graph.paths.get(path).is_some_and(|path| {
            matches!(path.end, End::Cycle(_)) && path.list.recorded == path.walked.saturating_add(1)
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
}

/// Whether a thread's cache begins with the block that edges lead to, as it does after a free.
fn is_freed(edge: &Edge, edges: &[Edge]) -> bool {
    let first = |other: &Edge| other.from.is_none() && other.list.holder == HolderKind::ThreadCache;
    edge.from.is_some() && edges.iter().any(first)
}
