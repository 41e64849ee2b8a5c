//! Lists that end properly, after too few or too many entries.

use super::super::PlainLinks;
use super::{Class, Cut};
use crate::anomaly::{Anomaly, AnomalyKind, Edge, HolderKind, Repair, Stray, Transient};
use crate::list::graph::{End, Keeper, looks_overrun};
use crate::list::{FreeList, Links};
use ground::target::{Address, Cursor, MemoryExt};
use std::collections::HashMap;

/// Entries of the longest list of a thread cache, and a batch more.
const MAX_LENGTH: u64 = 8192 + 1024;

/// Blocks in a row whose links one write of zeros is followed over.
const MAX_ZEROED: u64 = 4096;

impl Class<'_, '_, '_> {
    /// Lists that end at null too early or too late, when nothing else is wrong with them.
    pub(super) fn lengths(&mut self) {
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
            // Of a circle that is still one nothing more need be said.
            let is_below_zero = list.recorded >= 1 << 31 && !matches!(end, End::Cycle(_));
            let is_explained = self.explained.contains(&index) && !is_below_zero;
            if is_explained || walked == list.recorded || unknown {
                continue;
            }
            let busy = self.passing_length(&list, walked);
            let busy_now = busy.is_some();
            // A list that runs in a circle gives out more than it holds: that says more than where it ends now.
            let damage = match is_below_zero {
                true => None,
                false => self
                    .damage_by_length(index, busy_now)
                    .map(|(bad, found, repair)| (bad, found, Some(repair)))
                    .or_else(|| self.cut_off(index, busy_now)),
            };
            if let Some((bad, found, repair)) = damage {
                self.explained.insert(index);
                if let Some(from) = bad.from {
                    self.cuts.insert(from, Cut::Damaged(repair));
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
                    repair,
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

    /// The link at which the chain of a transfer cache's slot ends before its last entry, which the slot names: a slot holds
    /// chains of one length only, so that it is no count that is wrong.
    fn cut_off(&self, index: usize, busy: bool) -> Option<(Edge, Address, Option<Repair>)> {
        let path = self.graph.paths.get(index)?;
        let last = self.heap.last(&path.list).filter(|_| !busy)?;
        let from = self.node_at(index, path.walked.checked_sub(1)?)?;
        let edge = Edge {
            list: self.heap.list_ref(&path.list),
            position: path.walked,
            from: Some(from),
        };
        let short = path.walked < path.list.recorded && from != last;
        short.then_some((edge, Address::default(), None))
    }

    /// Proof that a list that ends at null is being changed.
    fn passing_length(&self, list: &FreeList, walked: u64) -> Option<Transient> {
        let memory = self.heap.target.memory;
        // A block alone may be on its way to the list, its link still the program's data.
        let is_missing = |first: Address, missing: u64| {
            let mut cursor = Cursor::new(memory);
            let mut at = first;
            (0..missing).all(|step| {
                if step > 0 {
                    match cursor.read_u64(at) {
                        Ok(word) => at = PlainLinks.decode(at, word),
                        Err(_) => return false,
                    }
                }
                let block = PlainLinks.admit(self.map, memory, list.class, at);
                block.is_ok_and(|block| !self.map.is_listed(block))
            })
        };
        self.heap.passing_length(list, walked, &is_missing)
    }

    /// The damaged link of a list that ends at null after too few or too many entries, if one
    /// explains it. While its keeper may be at work on it, only a link deep in it that skips entries
    /// counts: work is done at the first entries.
    fn damage_by_length(&mut self, index: usize, busy: bool) -> Option<(Edge, Address, Repair)> {
        let path = self.graph.paths.get(index)?;
        let (list, walked) = (path.list, path.walked);
        // Entries that are not counted yet: some link nearby is always one byte away from one that leads past them.
        if busy && walked > list.recorded {
            return None;
        }
        if let Some(found) = self.small_damage_on(index, busy) {
            return Some(found);
        }
        if let Some(found) = self.led_on(index).filter(|_| !busy) {
            return Some(found);
        }
        if walked >= list.recorded || walked == 0 || busy {
            return None;
        }
        let edge = Edge {
            list: self.heap.list_ref(&list),
            position: walked,
            from: self.node_at(index, walked.saturating_sub(1)),
        };
        let by_chain = || {
            let (bad, found, repair) = self.damaged_link(index, &edge)?;
            let (block, _) = self.map.block_at(bad.from?)?;
            let next = block.address.checked_add(block.bytes)?;
            (repair.unique || repair.value == next).then_some((bad, found, repair))
        };
        by_chain().or_else(|| self.zeroed(edge, list.recorded.saturating_sub(walked)))
    }

    /// The link of a cache's last entry, if it leads on although nothing is wrong with the count: an address was written over it.
    fn led_on(&self, index: usize) -> Option<(Edge, Address, Repair)> {
        let path = self.graph.paths.get(index)?;
        let list = &path.list;
        let is_longer = path.walked > list.recorded && path.end == End::Null;
        if list.holder != HolderKind::ThreadCache || !is_longer {
            return None;
        }
        let cache = usize::try_from(list.owner).ok()?;
        let last = list.recorded.checked_sub(1)?;
        let from = self.node_at(index, last)?;
        if !self.heap.are_lengths_proved(cache) {
            return None;
        }
        let edge = Edge {
            list: self.heap.list_ref(list),
            position: list.recorded,
            from: Some(from),
        };
        let found = self.heap.target.memory.read_pointer(from).ok()?;
        let repair = Repair {
            value: Address::default(),
            unique: false,
        };
        Some((edge, found, repair))
    }

    /// The link at which a list ends early, if zeros went on from there over the blocks behind: each of them that is on no list has no
    /// link either, up to one from which a chain of the length leads on that is still missing, or as many as are missing.
    fn zeroed(&self, edge: Edge, missing: u64) -> Option<(Edge, Address, Repair)> {
        let (block, _) = self.map.block_at(edge.from?)?;
        let next = block.address.checked_add(block.bytes)?;
        let mut cursor = Cursor::new(self.heap.target.memory);
        let mut at = next;
        let orphans = &self.graph.orphans;
        for zeroed in 0..missing.min(MAX_ZEROED) {
            let (free, offset) = self.map.block_at(at)?;
            let is_of_list =
                offset == 0 && free.class == block.class && !self.map.is_listed(free.id);
            let word = cursor.read_u64(at).ok().filter(|_| is_of_list)?;
            if word != 0 {
                let is_rest = zeroed > 0
                    && orphans
                        .chain_is(&PlainLinks, at, missing.saturating_sub(zeroed), &|_| false);
                let repair = Repair {
                    value: next,
                    unique: false,
                };
                return is_rest.then_some((edge, Address::default(), repair));
            }
            at = at.checked_add(block.bytes)?;
        }
        // All that is missing was cleared. Of one block alone, which may be the list's last, that says nothing.
        let repair = Repair {
            value: next,
            unique: false,
        };
        (2..=MAX_ZEROED)
            .contains(&missing)
            .then_some((edge, Address::default(), repair))
    }

    /// Looks at every link of a list that ends at null for one that a changed byte or bit explains.
    fn small_damage_on(&self, index: usize, busy: bool) -> Option<(Edge, Address, Repair)> {
        let path = self.graph.paths.get(index)?;
        let (list, walked) = (&path.list, path.walked);
        let mut cursor = Cursor::new(self.heap.target.memory);
        // A link that leads away may yet lead to the list's own entries.
        let mut places: HashMap<Address, u64> = HashMap::new();
        if walked > list.recorded {
            let mut at = list.head;
            for place in 0..walked.min(2 * MAX_LENGTH) {
                places.insert(at, place);
                at = PlainLinks.decode(at, cursor.read_u64(at).ok()?);
            }
        }
        let mut from = list.head;
        let mut best: Option<(u32, Edge, Address, Repair)> = None;
        // In a list that is in the order of its blocks, many a link is near the one that a lower count asks for.
        let mut around: Vec<(u32, Edge, Address, Repair)> = Vec::new();
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
                let beyond = |at: Address| places.get(&at).is_some_and(|place| *place >= position);
                let repair = self.graph.edge_repair(
                    &PlainLinks,
                    self.heap,
                    list,
                    &edge,
                    found,
                    detour,
                    &beyond,
                );
                let Some(small) = repair else {
                    continue;
                };
                // The first entry's link may still be the program's data, which an insertion under way has yet to replace.
                let behind = small.repair.unique.then_some(small.repair.value);
                if position == 1 && self.may_be_inserting(list, behind).is_some() {
                    continue;
                }
                let written = u32::try_from(small.bytes.max(1)).unwrap_or(1);
                let overrun = self.is_in_use_before(from) && looks_overrun(found.get(), written);
                let follow = detour.unwrap_or(list.recorded.saturating_sub(position));
                let unique = small.repair.unique;
                let ends_text = overrun && self.ends_text(from, found);
                // What somebody at work has taken off is a chain of the missing length, too.
                let enough = if busy || follow == 1 || small.bytes == 2 {
                    small.behind && overrun || unique && ends_text && small.bytes == 1
                } else {
                    small.behind || unique && (overrun || follow > 3)
                };
                let score = u32::from(small.behind)
                    .saturating_mul(8)
                    .saturating_add(u32::from(overrun).saturating_mul(4))
                    .saturating_add(u32::from(unique).saturating_mul(2))
                    .saturating_add(u32::from(small.bytes < 2));
                if places.contains_key(&small.repair.value) {
                    if unique && overrun {
                        around.push((score, edge, found, small.repair));
                    }
                } else if enough && best.as_ref().is_none_or(|(known, ..)| score > *known) {
                    best = Some((score, edge, found, small.repair));
                }
            }
            from = found;
        }
        if let ([only], None) = (around.as_slice(), &best) {
            best = Some(*only);
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
}
