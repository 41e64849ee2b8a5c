//! What hangs on each of a set of blocks that are reached from a few words: dominators, and where most of it gathers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use super::Universe;
use super::dominators::{self, Dominators, Edges, NONE};
use super::resolve::Resolver;
use super::roots::Strength;
use super::subgraph::{self, Found};
use super::words::{self, Filter};
use crate::allocators::Tally;
use ground::target::Address;

/// What of a holder's bytes must hang on one block for that to be where they gather: 7 of 10.
const GATHERED: (u64, u64) = (7, 10);
/// Steps from block to block on the way there: what is longer is a list.
const MAX_STEPS: usize = 64;

/// Blocks and what hangs on them.
pub struct Retained<'f> {
    members: &'f [Found],
    edges: Edges,
    dominators: Dominators,
    /// By member, and last the holder itself: what hangs on it, its own bytes included.
    held: Vec<Tally>,
    /// By member, and last the holder itself: the one right below it on which most hangs.
    heaviest: Vec<u32>,
}

impl<'f> Retained<'f> {
    /// Finds what hangs on each of `members`, which are sorted by address; `first` are those that the holder's words point at. `None`
    /// where there are too many edges to tell.
    pub fn find(universe: &Universe<'_>, members: &'f [Found], first: &[u32]) -> Option<Self> {
        let inner = subgraph::edges_among(universe, members)?;
        let count = u32::try_from(members.len())
            .ok()
            .filter(|count| *count < NONE)?;
        let mut list: Vec<(u32, u32)> = first.iter().map(|to| (count, *to)).collect();
        for from in 0..count {
            list.extend(inner.of(from).iter().map(|to| (from, *to)));
        }
        drop(inner);
        let edges = Edges::new(count.checked_add(1)?, &list);
        drop(list);
        let dominators = dominators::find(&edges, count);
        let size = members.len().checked_add(1)?;
        let mut held = vec![Tally::default(); size];
        let mut heaviest = vec![NONE; size];
        for node in dominators.order.iter().rev() {
            let index = *node as usize;
            if let (Some(sum), Some(member)) = (held.get_mut(index), members.get(index))
                && universe.lookup.mapping(member.node).is_none()
            {
                sum.add(1, member.bytes);
            }
            let own = held.get(index).copied().unwrap_or_default();
            let above = dominators.nearest.get(index).copied().unwrap_or(NONE);
            if let Some(sum) = held.get_mut(above as usize) {
                sum.add(own.blocks, own.bytes);
            }
            let best = heaviest.get(above as usize).copied().unwrap_or(NONE);
            let of_best = held.get(best as usize).map(|sum| sum.bytes);
            if let Some(entry) = heaviest.get_mut(above as usize)
                && of_best.is_none_or(|bytes| (own.bytes, best) > (bytes, *node))
            {
                *entry = *node;
            }
        }
        Some(Self {
            members,
            edges,
            dominators,
            held,
            heaviest,
        })
    }

    /// What hangs on a member, its own bytes included.
    pub fn held(&self, member: usize) -> Tally {
        self.held.get(member).copied().unwrap_or_default()
    }

    /// The member at which most of it gathers: on which 7 tenths of what hangs on the one above hang, and so from the holder on. `None`:
    /// it gathers at the holder itself. The first of a long list stands for it.
    pub fn gathers_at(&self) -> Option<usize> {
        let holder = u32::try_from(self.members.len()).ok()?;
        let mut way = vec![holder];
        while way.len() <= MAX_STEPS {
            let at = *way.last()?;
            let below = self.heaviest.get(at as usize).copied().unwrap_or(NONE);
            let bytes = |node: u32| self.held(node as usize).bytes;
            let is_most = below != NONE
                && bytes(below).saturating_mul(GATHERED.1) >= bytes(at).saturating_mul(GATHERED.0);
            if !is_most {
                return (at != holder).then_some(at as usize);
            }
            way.push(below);
        }
        // A list: where blocks of the last one's size begin.
        let size = |node: &u32| self.members.get(*node as usize).map(|member| member.bytes);
        let last = way.last().and_then(size);
        let first = way.iter().rposition(|node| size(node) != last);
        let start = first.map_or(0, |place| place.saturating_add(1));
        way.get(start).map(|node| *node as usize)
    }

    /// What hangs on a member (`None`: on the holder), by size, those with most bytes first, each with the lowest address.
    pub fn made_of(&self, at: Option<usize>) -> Vec<(u64, Tally, Address)> {
        let at = at.unwrap_or(self.members.len());
        let mut inside = vec![false; self.held.len()];
        let mut sizes: BTreeMap<u64, (Tally, Address)> = BTreeMap::new();
        for node in &self.dominators.order {
            let index = *node as usize;
            let above = self.dominators.nearest.get(index).copied().unwrap_or(NONE);
            let is_inside = index == at || inside.get(above as usize).copied().unwrap_or(false);
            if let Some(mark) = inside.get_mut(index) {
                *mark = is_inside;
            }
            if let Some(member) = self.members.get(index).filter(|_| is_inside && index != at) {
                let row = sizes
                    .entry(member.bytes)
                    .or_insert((Tally::default(), member.at));
                row.0.add(1, member.bytes);
                row.1 = row.1.min(member.at);
            }
        }
        let mut rows: Vec<_> = sizes
            .into_iter()
            .map(|(bytes, (tally, first))| (bytes, tally, first))
            .collect();
        rows.sort_by_key(|(bytes, tally, _)| (Reverse(tally.bytes), *bytes));
        rows
    }

    /// The shortest way from the holder to a member: members, the first of which one of the holder's words names. Empty if there is none.
    pub fn way_to(&self, member: usize) -> Vec<usize> {
        let (Ok(holder), Ok(target)) = (u32::try_from(self.members.len()), u32::try_from(member))
        else {
            return Vec::new();
        };
        let mut from = vec![NONE; self.held.len()];
        let mut front = VecDeque::from([holder]);
        while let Some(node) = front.pop_front() {
            if node == target {
                break;
            }
            for to in self.edges.of(node) {
                if let Some(entry) = from.get_mut(*to as usize).filter(|entry| **entry == NONE) {
                    *entry = node;
                    front.push_back(*to);
                }
            }
        }
        let mut way = Vec::new();
        let mut at = target;
        while at != holder && way.len() <= self.members.len() {
            way.push(at as usize);
            at = from.get(at as usize).copied().unwrap_or(NONE);
            if at == NONE {
                return Vec::new();
            }
        }
        way.reverse();
        way
    }

    /// The first word of one member that points at another.
    pub fn word(&self, universe: &Universe<'_>, from: usize, to: usize) -> Option<(Address, u64)> {
        let (from, to) = (self.members.get(from)?, self.members.get(to)?);
        let filter = Filter::new(universe.lookup.span());
        let mut resolver = Resolver::new(universe);
        let mut found = None;
        for part in universe
            .silent
            .without(from.at..from.at.saturating_add(from.bytes))
        {
            words::each(universe.memory, &part, filter, |at, value| {
                if found.is_none()
                    && let Some(edge) = resolver.edge(Some(at), value)
                    && edge.node == to.node
                    && edge.strength == Strength::Strong
                {
                    found = Some((at, value));
                }
            });
        }
        found
    }
}
