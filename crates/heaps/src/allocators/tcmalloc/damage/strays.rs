//! Links that lead to what is no entry of the list.

use super::super::PlainLinks;
use super::followed::Distances;
use super::{Class, Cut, MAX_BACK};
use crate::allocators::Heap;
use crate::anomaly::{Anomaly, AnomalyKind, Edge, Repair, Stray, Transient};
use crate::list::graph::{End, Keeper, StrayEdge};
use crate::list::{FreeList, Links};
use ground::target::{Address, MemoryExt};

impl Class<'_, '_, '_> {
    pub(super) fn strays(&mut self) {
        let strays = std::mem::take(&mut self.graph.strays);
        let distances = Distances::of(&strays);
        for stray in &strays {
            self.stray(stray, &distances);
        }
        self.graph.strays = strays;
    }

    fn stray(&mut self, stray: &StrayEdge, distances: &Distances) {
        let Some(path) = self.graph.paths.get(stray.path) else {
            return;
        };
        if path.in_flight.is_some() && stray.edge.position <= 1 {
            return;
        }
        let list = path.list;
        self.explained.insert(stray.path);
        if self.heap.is_unknown(stray.found) || self.heap.target.memory.is_absent(stray.found) {
            // The list may well be whole.
            self.push(Anomaly::new(AnomalyKind::BadEntry {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                leads_on: false,
                repair: None,
            }));
            return;
        }
        // What a first entry holds that is not linked yet may be the program's data, and may lead to any block.
        let passing = (stray.edge.position == 1).then(|| self.may_be_inserting(&list, None));
        let passing = passing.flatten().filter(|_| stray.leads_on);
        if let Some(transient) = passing {
            self.cuts.insert(list.head, Cut::Damaged(None));
            let mut anomaly = Anomaly::new(AnomalyKind::BadEntry {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                leads_on: true,
                repair: None,
            });
            anomaly.transient = Some(transient);
            self.push(anomaly);
            return;
        }
        // What is given back goes to the span that it lies in, whatever it was freed as.
        let foreign = self
            .heap
            .confined(&list)
            .is_some_and(|range| !range.contains(&stray.found));
        let one_of_many = distances.is_shared(stray.stray) || self.leads_to_its_like(stray);
        let leads_on = (stray.leads_on || one_of_many) && !foreign;
        if leads_on
            && !one_of_many
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
        if leads_on {
            self.push(Anomaly::new(AnomalyKind::BadEntry {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                leads_on: true,
                repair: None,
            }));
            return;
        }
        if let Some(followed) = self.followed(stray, &list) {
            if let Some(from) = stray.edge.from {
                self.cuts.insert(from, Cut::Damaged(None));
            }
            self.push(followed);
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
            anomaly.transient = self.may_be_inserting(&list, behind);
        }
        if let Some(from) = edge.from {
            self.cuts.insert(from, Cut::Damaged(repair));
        }
        self.push(anomaly);
    }

    /// Whether a place inside of a block holds a link to one as far into another block of that size: pointers that were freed one after the
    /// other, each of them as far into its block.
    fn leads_to_its_like(&self, stray: &StrayEdge) -> bool {
        let (Stray::Misaligned { block, offset } | Stray::OtherClass { block, offset }) =
            stray.stray
        else {
            return false;
        };
        let next = self.heap.target.memory.read_pointer(stray.found);
        let next = next.ok().and_then(|next| self.map.block_at(next));
        let is_like = next.is_some_and(|(other, distance)| {
            distance == offset && other.class == block.class && other.id != block.id
        });
        offset != 0 && stray.found.is_aligned(8) && is_like
    }

    /// Proof that a list's first entry may not be linked yet.
    pub(super) fn may_be_inserting(
        &self,
        list: &FreeList,
        behind: Option<Address>,
    ) -> Option<Transient> {
        let memory = self.heap.target.memory;
        let is_block = |at| PlainLinks.admit(self.map, memory, list.class, at).is_ok();
        self.heap.may_be_inserting(list, behind, &is_block)
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
            &|_| false,
        )?;
        let follow = path.list.recorded.saturating_sub(stray.edge.position);
        let complete = path.end == End::Null && path.walked == path.list.recorded;
        let terminated = stray.found.get() & 0xff == 0 && self.is_in_use_before(from);
        let ends_text = terminated && self.ends_text(from, stray.found);
        if complete && follow > 1 || !small.repair.unique && !small.behind && !ends_text {
            return None;
        }
        let odd = !stray.found.is_aligned(8);
        let flipped = small.bytes == 0;
        (!complete || odd || terminated || flipped).then_some(small.repair)
    }

    pub(super) fn wrong_entry(&self, at: Address) -> Stray {
        match self.map.block_at(at) {
            Some((block, _)) => Stray::WrongEntry { block },
            None => Stray::EarlyEnd,
        }
    }

    /// The nearest link at or before an edge whose repair fits, looking for damage to its low
    /// bytes; else the edge's own link, whatever was written over it.
    pub(super) fn damaged_link(&self, path: usize, edge: &Edge) -> Option<(Edge, Address, Repair)> {
        let last = edge.position.checked_sub(1)?;
        let own = self.graph.paths.get(path)?.list;
        let value = self.heap.target.memory.read_pointer(edge.from?).ok()?;
        let small = |edge: &Edge, value: Address| {
            let none = |_: Address| false;
            self.graph
                .edge_repair(&PlainLinks, self.heap, &own, edge, value, None, &none)
        };
        if let Some(small) = small(edge, value)
            .filter(|small| small.behind || small.repair.unique && small.bytes < 2)
        {
            return Some((*edge, value, small.repair));
        }
        // Half of the link is left, or the text that runs over it is.
        let upper = self
            .graph
            .upper_repair(&PlainLinks, self.heap, &own, edge, value);
        if let Some(repair) = upper.or_else(|| {
            let runs_on = self.runs_on(edge.from?, value);
            runs_on.then(|| self.repair(path, last, true)).flatten()
        }) {
            return Some((*edge, value, repair));
        }
        // A bit of the link before.
        let before = last
            .checked_sub(1)
            .and_then(|position| self.node_at(path, position));
        if let (Some(from), Some(found)) = (before, edge.from) {
            let before = Edge {
                list: edge.list,
                position: last,
                from: Some(from),
            };
            let flip =
                small(&before, found).filter(|small| small.bytes == 0 && small.repair.unique);
            if let Some(flip) = flip {
                return Some((before, found, flip.repair));
            }
        }
        let nearest = (last.saturating_sub(MAX_BACK)..=last)
            .rev()
            .find_map(|position| {
                let repair = self.repair(path, position, false)?;
                let follow = own.recorded.saturating_sub(position.saturating_add(1));
                (position == last || self.led_astray(path, position, (repair, follow)))
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
                position: position.saturating_add(1),
                from: Some(from),
            },
            found,
            repair,
        ))
    }

    /// Whether a link that leads to a proper block was damaged all the same. Blocks in use hold old
    /// links, so a chain of the right length is easily found; more must speak for it: the value is
    /// not what the link held when its span was cut, the repair is, or the last byte is a
    /// terminator's: then several chains that fit, if they are long, say no less than one.
    fn led_astray(&self, path: usize, position: u64, (repair, follow): (Repair, u64)) -> bool {
        let Some(from) = self.node_at(path, position) else {
            return false;
        };
        let found = self.heap.target.memory.read_pointer(from).ok();
        let block = self.map.block_at(from);
        let next = block.and_then(|(block, _)| from.checked_add(block.bytes));
        let terminated = found.is_some_and(|found| {
            found.get() & 0xff == 0 && (found.get() ^ repair.value.get()) >> 8 == 0
        });
        let ended = terminated && self.is_in_use_before(from);
        let fits = match repair.unique {
            true => ended || Some(repair.value) == next,
            false => ended && follow > 3,
        };
        fits && found != next
    }

    /// Whether text goes on from the block in use before a link over the link.
    fn runs_on(&self, from: Address, value: Address) -> bool {
        let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let mut tail = [0; 4];
        let start = from.checked_sub(4);
        let read = start.is_some_and(|at| self.heap.target.memory.read_into(at, &mut tail).is_ok());
        read && tail.iter().all(text)
            && value.get().to_le_bytes().iter().take(2).all(text)
            && self.is_in_use_before(from)
    }

    pub(super) fn repair(&self, path: usize, position: u64, whole: bool) -> Option<Repair> {
        self.graph
            .repair(&PlainLinks, self.heap, path, position, whole)
    }

    pub(super) fn node_at(&self, path: usize, position: u64) -> Option<Address> {
        let path = self.graph.paths.get(path)?;
        let first = path.walked.checked_sub(path.tail.len() as u64)?;
        path.tail
            .get(usize::try_from(position.checked_sub(first)?).ok()?)
            .copied()
    }
}
