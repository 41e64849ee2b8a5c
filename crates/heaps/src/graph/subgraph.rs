//! What is lost, as a graph of its own: edges among lost blocks, components, heads, and what hangs on each.

use std::ops::Range;

use super::Universe;
use super::dominators::{self, Edges, NONE};
use super::lookup::Node;
use super::mark::{Marks, Reach};
use super::resolve::Resolver;
use super::roots::Strength;
use super::words::{self, Filter};
use crate::allocators::Tally;
use ground::parallel;
use ground::target::Address;

/// Lost blocks that are told apart; of more than that all count as heads.
pub const MAX_NODES: usize = 1 << 24;
/// Edges among them that are kept.
pub const MAX_EDGES: usize = 1 << 26;

/// A block and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The block.
    pub node: Node,
    /// Its address.
    pub at: Address,
    /// Its usable bytes.
    pub bytes: u64,
}

/// All blocks in use, by how they are reached.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Reached by strong words alone.
    pub strong: Tally,
    /// Reached with a weak word on the way, by address. Bounded; `weak_tally` counts all.
    pub weak: Vec<Found>,
    /// All of those.
    pub weak_tally: Tally,
    /// Not reached, by address. Bounded; `lost_tally` counts all.
    pub lost: Vec<Found>,
    /// All of those.
    pub lost_tally: Tally,
    /// The program's own mappings that nobody reaches.
    pub lost_mappings: Vec<Node>,
}

/// Counts all blocks in use, and gathers those that are not reached for certain.
pub fn survey(universe: &Universe<'_>, marks: &Marks) -> Survey {
    const ROWS: u32 = 1024;
    let lookup = &universe.lookup;
    let pieces = parallel::for_each_index(lookup.rows().div_ceil(ROWS), |piece| {
        let mut part = Survey::default();
        let first = piece.saturating_mul(ROWS);
        for row in first..first.saturating_add(ROWS).min(lookup.rows()) {
            lookup.each_live(row, |node, at, bytes| {
                let reach = marks.reach(lookup.bit(node));
                if lookup.mapping(node).is_some() {
                    if reach == Reach::Lost {
                        part.lost_mappings.push(node);
                    }
                    return;
                }
                let (tally, list) = match reach {
                    Reach::Strong => return part.strong.add(1, bytes),
                    Reach::Weak => (&mut part.weak_tally, &mut part.weak),
                    Reach::Lost => (&mut part.lost_tally, &mut part.lost),
                };
                tally.add(1, bytes);
                if list.len() < MAX_NODES {
                    list.push(Found { node, at, bytes });
                }
            });
        }
        part
    });
    let mut all = Survey::default();
    for part in pieces {
        all.strong.add(part.strong.blocks, part.strong.bytes);
        for (into, from) in [
            (&mut all.weak_tally, part.weak_tally),
            (&mut all.lost_tally, part.lost_tally),
        ] {
            into.add(from.blocks, from.bytes);
        }
        for (into, from) in [(&mut all.weak, part.weak), (&mut all.lost, part.lost)] {
            let room = MAX_NODES.saturating_sub(into.len());
            into.extend(from.into_iter().take(room));
        }
        all.lost_mappings.extend(part.lost_mappings);
    }
    all
}

/// What a lost block is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// No lost block leads to it, or it stands for a circle that none leads to.
    Head {
        /// Blocks that hang on it alone, and their bytes: not its own.
        held: Tally,
    },
    /// It hangs on this head alone, by index.
    Held(u32),
    /// Several heads lead to it.
    Shared,
}

/// What each of `lost` is, in their order. `None` where there are too many edges to tell.
pub fn roles(universe: &Universe<'_>, lost: &[Found]) -> Option<Vec<Role>> {
    let edges = edges_among(universe, lost)?;
    Some(roles_of(&edges, lost))
}

/// Every edge from one lost block to another. Weak words count only where they point inside.
pub(super) fn edges_among(universe: &Universe<'_>, lost: &[Found]) -> Option<Edges> {
    const BLOCKS: usize = 4096;
    let filter = Filter::new(universe.lookup.span());
    let starts: Vec<usize> = (0..lost.len()).step_by(BLOCKS).collect();
    let mut all: Vec<(u32, u32)> = Vec::new();
    for group in starts.chunks(256) {
        let parts = parallel::map(group, |first| {
            let mut edges: Vec<(u32, u32)> = Vec::new();
            let mut resolver = Resolver::new(universe);
            let part = lost.iter().enumerate().skip(*first).take(BLOCKS);
            for (index, from) in part {
                let Ok(from_id) = u32::try_from(index) else {
                    continue;
                };
                let mut visit = |range: &Range<Address>| {
                    words::each(universe.memory, range, filter, |at, value| {
                        let edge = resolver.edge(Some(at), value);
                        let strong = edge.filter(|edge| edge.strength == Strength::Strong);
                        let Some(to) = strong.and_then(|edge| index_of(lost, edge.node)) else {
                            return;
                        };
                        let pair = (from_id, to);
                        if to != from_id && edges.last() != Some(&pair) && edges.len() < MAX_EDGES {
                            edges.push(pair);
                        }
                    });
                };
                let range = from.at..from.at.saturating_add(from.bytes);
                if universe.lookup.is_cut(from.node) {
                    universe.silent.without(range).iter().for_each(&mut visit);
                } else {
                    visit(&range);
                }
            }
            edges
        });
        all.extend(parts.into_iter().flatten());
        if all.len() >= MAX_EDGES {
            return None;
        }
    }
    Some(Edges::new(u32::try_from(lost.len()).ok()?, &all))
}

fn index_of(lost: &[Found], node: Node) -> Option<u32> {
    let index = lost.binary_search_by_key(&node, |found| found.node).ok()?;
    u32::try_from(index).ok()
}

fn roles_of(edges: &Edges, lost: &[Found]) -> Vec<Role> {
    let count = edges.nodes();
    let component = components(edges);
    let heads = heads(edges, &component);
    // One more node leads to all heads.
    let mut list: Vec<(u32, u32)> = heads.iter().map(|head| (count, *head)).collect();
    for from in 0..count {
        list.extend(edges.of(from).iter().map(|to| (from, *to)));
    }
    let dominators = dominators::find(&Edges::new(count.saturating_add(1), &list), count);
    drop(list);
    let mut owner = vec![NONE; lost.len()];
    let mut held = vec![Tally::default(); lost.len()];
    let mut is_head = vec![false; lost.len()];
    for head in &heads {
        if let Some(mark) = is_head.get_mut(*head as usize) {
            *mark = true;
        }
    }
    for node in &dominators.order {
        let index = *node as usize;
        let above = dominators.nearest.get(index).copied().unwrap_or(NONE);
        let own = match is_head.get(index) {
            Some(true) => *node,
            _ => owner.get(above as usize).copied().unwrap_or(NONE),
        };
        if let Some(owner) = owner.get_mut(index) {
            *owner = own;
        }
        if own != *node
            && let (Some(held), Some(block)) = (held.get_mut(own as usize), lost.get(index))
        {
            held.add(1, block.bytes);
        }
    }
    let rows = is_head.iter().zip(&owner).zip(held);
    rows.map(|((is_head, owner), held)| match (is_head, *owner) {
        (true, _) => Role::Head { held },
        (false, NONE) => Role::Shared,
        (false, owner) => Role::Held(owner),
    })
    .collect()
}

/// The lowest node of each component that no other one leads to.
fn heads(edges: &Edges, component: &[u32]) -> Vec<u32> {
    let of = |node: u32| component.get(node as usize).copied().unwrap_or(NONE);
    let mut is_entered = vec![false; component.len()];
    for from in 0..edges.nodes() {
        for to in edges.of(from) {
            if of(from) != of(*to)
                && let Some(mark) = is_entered.get_mut(of(*to) as usize)
            {
                *mark = true;
            }
        }
    }
    let mut heads = Vec::new();
    for node in 0..edges.nodes() {
        // The first node of a component is its lowest.
        if let Some(mark) = is_entered.get_mut(of(node) as usize)
            && !std::mem::replace(mark, true)
        {
            heads.push(node);
        }
    }
    heads
}

/// The strongly connected component of each node (Tarjan 1972), without recursion.
fn components(edges: &Edges) -> Vec<u32> {
    let count = edges.nodes() as usize;
    let mut search = Search {
        number: vec![NONE; count],
        low: vec![NONE; count],
        component: vec![NONE; count],
        open: Vec::new(),
        next: 0,
        components: 0,
    };
    let mut stack: Vec<(u32, u32)> = Vec::new();
    for root in 0..edges.nodes() {
        if search.get(&search.number, root) != NONE {
            continue;
        }
        search.enter(root);
        stack.push((root, 0));
        while let Some((node, edge)) = stack.last_mut() {
            let from = *node;
            let Some(to) = edges.of(from).get(*edge as usize).copied() else {
                stack.pop();
                search.leave(from);
                if let Some((above, _)) = stack.last() {
                    search.lower(*above, search.get(&search.low, from));
                }
                continue;
            };
            *edge = edge.saturating_add(1);
            if search.get(&search.number, to) == NONE {
                search.enter(to);
                stack.push((to, 0));
            } else if search.get(&search.component, to) == NONE {
                search.lower(from, search.get(&search.number, to));
            }
        }
    }
    search.component
}

struct Search {
    number: Vec<u32>,
    low: Vec<u32>,
    component: Vec<u32>,
    open: Vec<u32>,
    next: u32,
    components: u32,
}

impl Search {
    fn get(&self, table: &[u32], index: u32) -> u32 {
        table.get(index as usize).copied().unwrap_or(NONE)
    }

    fn enter(&mut self, node: u32) {
        let index = node as usize;
        if let (Some(number), Some(low)) = (self.number.get_mut(index), self.low.get_mut(index)) {
            *number = self.next;
            *low = self.next;
        }
        self.next = self.next.saturating_add(1);
        self.open.push(node);
    }

    fn lower(&mut self, node: u32, value: u32) {
        if let Some(low) = self.low.get_mut(node as usize) {
            *low = (*low).min(value);
        }
    }

    /// Closes the component whose first node this is, if it is one.
    fn leave(&mut self, node: u32) {
        if self.get(&self.low, node) != self.get(&self.number, node) {
            return;
        }
        while let Some(last) = self.open.pop() {
            if let Some(component) = self.component.get_mut(last as usize) {
                *component = self.components;
            }
            if last == node {
                break;
            }
        }
        self.components = self.components.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: u32, bytes: u64) -> Found {
        Found {
            node: Node {
                row: 0,
                slot: index,
            },
            at: Address::new(u64::from(index) * 0x100),
            bytes,
        }
    }

    fn roles(count: u32, edges: &[(u32, u32)]) -> Vec<Role> {
        let lost: Vec<Found> = (0..count).map(|index| found(index, 1 << index)).collect();
        roles_of(&Edges::new(count, edges), &lost)
    }

    fn head(blocks: u64, bytes: u64) -> Role {
        Role::Head {
            held: Tally { blocks, bytes },
        }
    }

    #[test]
    fn a_circle_has_one_head_and_what_two_hold_belongs_to_neither() {
        // 0 <-> 1 -> 2 <- 3 -> 4 -> 4
        let roles = roles(5, &[(0, 1), (1, 0), (1, 2), (3, 2), (3, 4), (4, 4)]);
        assert_eq!(
            roles,
            [
                head(1, 2),
                Role::Held(0),
                Role::Shared,
                head(1, 16),
                Role::Held(3)
            ]
        );
    }

    #[test]
    fn nothing_recurses_on_a_long_list() {
        let count = 300_000;
        let edges: Vec<(u32, u32)> = (1..count).map(|node| (node, node - 1)).collect();
        let lost: Vec<Found> = (0..count).map(|index| found(index, 1)).collect();
        let roles = roles_of(&Edges::new(count, &edges), &lost);
        assert_eq!(
            roles.last(),
            Some(&head(u64::from(count) - 1, u64::from(count) - 1))
        );
        assert_eq!(roles[0], Role::Held(count - 1));
    }
}
