//! Trees of references: who holds a block, and who holds those, up to the roots; and what hangs on a block. Each block stands in a
//! tree once. Bounded in depth, width and number; nothing recurses.

use std::collections::BTreeMap;

use super::Universe;
use super::lookup::Node;
use super::references::{self, Place, Reference, Target};
use super::resolve::Resolver;
use super::words::{self, Filter};
use crate::map::Bits;
use ground::target::Address;

/// Holders of one block that are asked for: more than are shown, since those that are in the tree already are left out.
const KEEP: usize = 64;
/// Rows of a tree.
const MAX_ROWS: usize = 1 << 14;
/// Blocks that are reached on the way down, in all.
const MAX_REACHED: usize = 1 << 22;

/// How far a tree goes.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Steps from the block.
    pub depth: usize,
    /// Rows shown of one block.
    pub width: usize,
}

/// A row of a tree, in the order in which it is printed: what belongs to a row follows it, one step deeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Steps from the block that was asked for, from 1.
    pub depth: usize,
    /// The word: it stands in the holder, and points at what the row above is about.
    pub reference: Reference,
    /// Upward: the holder stands in the tree already. Downward: the block does.
    pub repeated: bool,
    /// References of this row's block that are not shown.
    pub more: u64,
    /// Upward: words that can hold the holder; `None` where that was not looked for.
    pub held: Option<u64>,
    /// Downward: the block that the word points at.
    pub node: Option<Node>,
    /// Downward: blocks that were first reached through this row's, itself included, and their bytes.
    pub reached: (u64, u64),
}

/// A tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Its rows.
    pub rows: Vec<Branch>,
    /// References of the block that was asked for that are not shown.
    pub more: u64,
    /// Downward: blocks that hang on the block, without itself, and their bytes.
    pub reached: (u64, u64),
    /// The search was given up: there is more than was looked at.
    pub cut: bool,
}

/// A row on the way, and the row that it belongs to.
struct Open {
    branch: Branch,
    parent: Option<usize>,
}

/// Who holds the target, and who holds those.
pub fn upward(universe: &Universe<'_>, target: Target, extent: Extent) -> Tree {
    let mut tree = Tree::default();
    let mut rows: Vec<Open> = Vec::new();
    let mut known: BTreeMap<Node, ()> = target.node.map(|node| (node, ())).into_iter().collect();
    let mut front: Vec<(Target, Option<usize>)> = vec![(target, None)];
    for depth in 1..=extent.depth {
        let targets: Vec<Target> = front.iter().map(|(target, _)| *target).collect();
        let found = references::find(universe, &targets, KEEP);
        let mut next = Vec::new();
        for (holders, (_, parent)) in found.iter().zip(&front) {
            let mut shown = 0u64;
            for reference in holders.list.iter().take(extent.width) {
                if rows.len() >= MAX_ROWS {
                    tree.cut = true;
                    break;
                }
                shown = shown.saturating_add(1);
                let holder = match reference.place {
                    Place::Node(node, _) => Some(node),
                    _ => None,
                };
                let repeated = holder.is_some_and(|node| known.insert(node, ()).is_some());
                let row = rows.len();
                rows.push(Open {
                    branch: Branch::new(depth, *reference, repeated),
                    parent: *parent,
                });
                let further = holder.filter(|_| !repeated);
                if let Some(target) = further.and_then(|node| Target::of(universe, node)) {
                    next.push((target, Some(row)));
                }
            }
            let more = holders.count.saturating_sub(shown);
            match parent.and_then(|parent| rows.get_mut(parent)) {
                Some(row) => {
                    row.branch.more = more;
                    row.branch.held = Some(holders.count);
                }
                None => tree.more = more,
            }
        }
        if next.is_empty() {
            tree.rows = in_order(rows);
            return tree;
        }
        front = next;
    }
    // What stands at the edge has holders that were not looked for.
    tree.cut = true;
    tree.rows = in_order(rows);
    tree
}

/// What hangs on a block: each block at the shortest way from it.
pub fn downward(universe: &Universe<'_>, node: Node, extent: Extent) -> Tree {
    let mut tree = Tree::default();
    let mut seen = Bits::new(universe.lookup.bits());
    seen.set(universe.lookup.bit(node));
    // Blocks in the order in which they were met: each with the one that led there, and what was reached through it.
    let mut met: Vec<(Node, usize, u64, u64)> = vec![(node, 0, 0, 0)];
    let mut rows: Vec<Open> = Vec::new();
    // The rows of blocks that are shown.
    let mut row_of: BTreeMap<usize, Option<usize>> = BTreeMap::from([(0, None)]);
    let mut depths: BTreeMap<usize, usize> = BTreeMap::from([(0, 0)]);
    let mut resolver = Resolver::new(universe);
    let filter = Filter::new(universe.lookup.span());
    let mut at = 0;
    while let Some(&(from, ..)) = met.get(at) {
        let shows = row_of.get(&at).copied();
        let depth = depths.get(&at).copied().unwrap_or(0);
        let (mut shown, mut more) = (0, 0u64);
        let mut visit = |place: Address, value: u64| {
            let Some(edge) = resolver.edge(Some(place), value) else {
                return;
            };
            if edge.node == from {
                return; // a block's pointer into itself holds nothing
            }
            let bit = universe.lookup.bit(edge.node);
            let repeated = seen.get(bit);
            let mut index = None;
            if !repeated {
                if met.len() < MAX_REACHED {
                    seen.set(bit);
                    index = Some(met.len());
                    met.push((edge.node, at, 0, 0));
                } else {
                    tree.cut = true;
                }
            }
            let Some(parent) = shows else {
                return;
            };
            if depth >= extent.depth || shown >= extent.width || rows.len() >= MAX_ROWS {
                more = more.saturating_add(u64::from(depth < extent.depth));
                return;
            }
            shown = shown.saturating_add(1);
            let offset = universe.lookup.extent(from);
            let offset = offset.and_then(|(start, _)| place.offset_from(start));
            let reference = Reference {
                strength: edge.strength,
                place: Place::Node(from, offset.unwrap_or(0)),
                at: place,
                value,
                offset: edge.offset,
            };
            if let Some(index) = index {
                row_of.insert(index, Some(rows.len()));
                depths.insert(index, depth.saturating_add(1));
            }
            rows.push(Open {
                branch: Branch {
                    node: Some(edge.node),
                    ..Branch::new(depth.saturating_add(1), reference, repeated)
                },
                parent,
            });
        };
        if let Some((start, bytes)) = universe.lookup.extent(from) {
            let range = start..start.saturating_add(bytes);
            if universe.lookup.is_cut(from) {
                for part in universe.silent.without(range) {
                    words::each(universe.memory, &part, filter, &mut visit);
                }
            } else {
                words::each(universe.memory, &range, filter, &mut visit);
            }
        }
        match shows.flatten().and_then(|row| rows.get_mut(row)) {
            Some(row) => row.branch.more = more,
            None if at == 0 => tree.more = more,
            None => {}
        }
        at = at.saturating_add(1);
    }
    // From the last one back, each adds itself and what it has to the one that led there.
    for index in (1..met.len()).rev() {
        let Some(&mut (node, parent, ref mut blocks, ref mut bytes)) = met.get_mut(index) else {
            continue;
        };
        let own = universe.lookup.extent(node).map_or(0, |(_, bytes)| bytes);
        *blocks = blocks.saturating_add(1);
        *bytes = bytes.saturating_add(own);
        let (blocks, bytes) = (*blocks, *bytes);
        if let Some((_, _, all_blocks, all_bytes)) = met.get_mut(parent) {
            *all_blocks = all_blocks.saturating_add(blocks);
            *all_bytes = all_bytes.saturating_add(bytes);
        }
    }
    for (index, row) in &row_of {
        let row = row.and_then(|row| rows.get_mut(row));
        if let (Some(row), Some((_, _, blocks, bytes))) = (row, met.get(*index)) {
            row.branch.reached = (*blocks, *bytes);
        }
    }
    tree.reached = met
        .first()
        .map_or((0, 0), |(_, _, blocks, bytes)| (*blocks, *bytes));
    tree.rows = in_order(rows);
    tree
}

impl Branch {
    fn new(depth: usize, reference: Reference, repeated: bool) -> Self {
        Self {
            depth,
            reference,
            repeated,
            more: 0,
            held: None,
            node: None,
            reached: (0, 0),
        }
    }
}

/// Rows level by level, made rows one behind the other: each followed by its own.
fn in_order(rows: Vec<Open>) -> Vec<Branch> {
    let mut of: BTreeMap<Option<usize>, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        of.entry(row.parent).or_default().push(index);
    }
    let first = |of: &BTreeMap<Option<usize>, Vec<usize>>, parent| {
        let mut list = of.get(&parent).cloned().unwrap_or_default();
        list.reverse();
        list
    };
    let mut stack = first(&of, None);
    let mut out = Vec::with_capacity(rows.len());
    while let Some(index) = stack.pop() {
        if let Some(row) = rows.get(index) {
            out.push(row.branch);
        }
        stack.extend(first(&of, Some(index)));
    }
    out
}
