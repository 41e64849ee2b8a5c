//! What the damage cost: free blocks that no list leads to any more.

use super::super::PlainLinks;
use super::{Class, Cut};
use crate::anomaly::{Anomaly, AnomalyKind, HolderKind};
use crate::list::graph::{End, Keeper, Path};
use crate::list::{FreeList, Links};
use ground::parallel;
use ground::target::{Address, Cursor};

/// Pointers into blocks that a list is followed over.
const MAX_OVER: u32 = 1024;

impl Class<'_, '_, '_> {
    /// Marks the class's entries afresh, following links only as far as they are believed.
    pub(super) fn relist(&self, lists: &[FreeList]) {
        for &row in self.graph.orphans.rows() {
            self.map.unlist(row);
        }
        let memory = self.heap.target.memory;
        parallel::map(lists, |list| {
            let mut cursor = Cursor::new(memory);
            let mut at = list.head;
            // Each step marks a new block or steps over a stray.
            let mut over = 0;
            while !at.is_null() {
                match PlainLinks.admit(self.map, memory, list.class, at) {
                    Ok(block) if self.map.mark_listed(block) => break,
                    Ok(_) => {}
                    Err(_) if over < MAX_OVER => over = over.saturating_add(1),
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
            length = length.saturating_add(1);
            match cursor.read_u64(at) {
                Ok(word) => at = PlainLinks.decode(at, word),
                Err(_) => break,
            }
        }
        length
    }

    /// What each damaged list lost: told one by one where a repair names the chain, else by count.
    pub(super) fn count_lost(&mut self) {
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
                self.report.lost_blocks = self
                    .report
                    .lost_blocks
                    .saturating_add(missing.saturating_sub(marked));
            }
            if let Some(anomaly) = root.and_then(|(root, _)| self.report.anomalies.get_mut(root)) {
                anomaly.lost_blocks = anomaly.lost_blocks.saturating_add(missing);
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
            Some((position, true)) => self
                .skipped(path)
                .unwrap_or(list.recorded.saturating_sub(position)),
            // A double free: what the block linked to before it was freed again.
            Some((position, false)) => {
                if let End::Cycle(_) = path.end {
                    list.recorded.saturating_sub(path.walked.saturating_add(1))
                } else if self.owns_tail(path) {
                    0
                } else {
                    list.recorded.saturating_sub(position.saturating_add(1))
                }
            }
            None if self.is_passing(path) => 0,
            None => list.recorded.saturating_sub(path.walked),
        };
        missing.min(blocks)
    }

    /// Entries that a damaged link skips, if it leads to a later entry of its own list.
    fn skipped(&self, path: &Path) -> Option<u64> {
        let lost = path.list.recorded.checked_sub(path.walked)?;
        let list = self.heap.list_ref(&path.list);
        let skips = |anomaly: &Anomaly| match &anomaly.kind {
            AnomalyKind::BadEntry {
                edge,
                found,
                leads_on: false,
                repair: Some(repair),
                ..
            } if edge.list == list => {
                let orphans = &self.graph.orphans;
                orphans.leads_to(&PlainLinks, repair.value, lost, *found, &|_| false)
            }
            _ => false,
        };
        (path.end == End::Null && self.report.anomalies.iter().any(skips)).then_some(lost)
    }

    /// Whether somebody is changing the list's length.
    fn is_passing(&self, path: &Path) -> bool {
        let list = self.heap.list_ref(&path.list);
        self.report.anomalies.iter().any(|anomaly| {
            let here =
                matches!(&anomaly.kind, AnomalyKind::Length { list: other, .. } if *other == list);
            here && anomaly.transient.is_some()
        })
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
            (None, HolderKind::CentralList) => {
                self.walked_inside(path).saturating_add(1) >= path.list.recorded
            }
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
        let mut inside = 0u64;
        for _ in 0..path.walked {
            inside = inside.saturating_add(u64::from(range.contains(&at)));
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
                return Some((position.saturating_add(1), true));
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
                AnomalyKind::FollowedLink { edge, .. } if edge.list == list => {
                    Some((edge.position, true))
                }
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
                AnomalyKind::FollowedLink { edge, .. } if edge.list == list => Some((index, false)),
                AnomalyKind::Length { list: other, .. } if *other == list => Some((index, false)),
                _ => None,
            })
    }
}
