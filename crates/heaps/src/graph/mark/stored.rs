//! A stored graph: every edge between blocks in use, found in one linear pass over memory.
//!
//! ```text
//! block's number ─> starts ─> edges: numbers of blocks, marked where the word is weak
//! ```
//!
//! Cost: 4 bytes for each block in use, and 4 for each word of theirs that reaches another one.

use std::hint::black_box;

use super::super::Universe;
use super::super::lookup::{Node, Ranks};
use super::super::resolve::Resolver;
use super::super::roots::Strength;
use super::edges::Part;
use super::{GROUP, Graph, Marks, Reached};
use ground::parallel;

/// The mark of an edge by a weak word.
pub(super) const WEAK: u32 = 1 << 31;
/// The mark of a weak edge that is one only if nobody meant the free block behind, where the word points. Few
/// of them matter, and what is there is read for those alone.
pub(super) const AT_END: u32 = 1 << 30;
/// Memory that is gone through as one piece.
const PIECE: u64 = 16 << 20;
/// Pieces that are gone through before what was found in them is put together.
const WAVE: usize = 16;
/// Bytes of a start, and of an edge.
const ENTRY: u64 = 4;

/// See the module.
pub(super) struct Stored<'u, 'm> {
    universe: &'u Universe<'m>,
    ranks: Ranks,
    /// Where each block's edges begin, and after the last one where all end.
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl<'u, 'm> Stored<'u, 'm> {
    /// Reads all edges; `None` where they would take more than `most` bytes.
    pub fn read(universe: &'u Universe<'m>, most: u64) -> Option<Self> {
        let lookup = &universe.lookup;
        let most = most.checked_sub(Ranks::bytes(lookup))?;
        let entries = (most / ENTRY).min(u64::from(u32::MAX));
        let ranks = Ranks::new(lookup, u32::try_from(entries).unwrap_or(AT_END).min(AT_END))?;
        let blocks = usize::try_from(ranks.count()).ok()?;
        let most_edges = entries.checked_sub(u64::from(ranks.count()).saturating_add(1))?;
        let mut starts = Vec::with_capacity(blocks.saturating_add(1));
        let mut edges: Vec<u32> = Vec::new();
        for wave in lookup.pieces(PIECE).chunks(WAVE) {
            let left = most_edges.saturating_sub(edges.len() as u64);
            let parts = parallel::map(wave, |bits| {
                Part::read(universe, &ranks, bits.clone(), usize::try_from(left).ok()?)
            });
            for part in parts {
                let part = part?;
                let before = u32::try_from(edges.len()).ok()?;
                starts.extend(
                    part.starts
                        .iter()
                        .map(|start| before.saturating_add(*start)),
                );
                edges.extend_from_slice(&part.edges);
            }
            if edges.len() as u64 > most_edges {
                return None;
            }
        }
        starts.push(u32::try_from(edges.len()).ok()?);
        Some(Self {
            universe,
            ranks,
            starts,
            edges,
        })
    }

    /// What was reached, by bits of nodes.
    pub fn marks(&self, reached: &Reached<u32>) -> Marks {
        Marks {
            strong: self.ranks.spread(&reached.strong),
            weak: self.ranks.spread(&reached.weak),
        }
    }

    /// Notes a block just past whose end a word points; what that is worth is asked when nothing strong
    /// reaches the block.
    fn take_end(&self, block: u32, strength: Strength, reached: &mut Reached<u32>) {
        let column = block.into();
        let is_known = reached.strong.get(column)
            || reached.weak.get(column)
            || reached.ends.test_and_set(column);
        if strength == Strength::Weak && !is_known && self.is_end(block) {
            reached.take(column, block, strength, Strength::Weak);
        }
    }

    #[inline]
    fn start(&self, block: u32) -> usize {
        self.starts
            .get(block as usize)
            .map_or(usize::MAX, |start| *start as usize)
    }
}

impl Graph for &Stored<'_, '_> {
    type Block = u32;

    fn columns(&self) -> u64 {
        self.ranks.count().into()
    }

    fn block(&self, node: Node) -> Option<u32> {
        let lookup = &self.universe.lookup;
        self.ranks.of(lookup.bit(node))
    }

    #[inline]
    fn column(&self, block: u32) -> u64 {
        block.into()
    }

    fn is_end(&self, block: u32) -> bool {
        let lookup = &self.universe.lookup;
        let bit = self.ranks.bit(block);
        let end = bit.and_then(|bit| {
            let (start, bytes) = lookup.extent(lookup.node(bit)?)?;
            start.get().checked_add(bytes)
        });
        end.is_some_and(|end| {
            let behind = lookup.find(end);
            behind.is_none_or(|hit| Resolver::new(self.universe).is_untouched(end, hit.node))
        })
    }

    fn at(&self, column: u64) -> Option<u32> {
        u32::try_from(column).ok()
    }

    /// Where edges stand is asked for first, then the edges, and both are needed later.
    fn follow(&mut self, blocks: &[u32], strength: Strength, reached: &mut Reached<u32>) {
        for block in blocks {
            black_box(self.start(*block));
        }
        let mut spans = [(0, 0); GROUP];
        for (block, span) in blocks.iter().zip(&mut spans) {
            *span = (self.start(*block), self.start(block.saturating_add(1)));
            black_box(self.edges.get(span.0));
        }
        for (first, end) in spans.iter().take(blocks.len()) {
            for edge in self.edges.get(*first..*end).unwrap_or_default() {
                let to = edge & !(WEAK | AT_END);
                let worth = match edge & (WEAK | AT_END) {
                    0 => Strength::Strong,
                    WEAK => Strength::Weak,
                    _ => {
                        self.take_end(to, strength, reached);
                        continue;
                    }
                };
                reached.take(to.into(), to, strength, worth);
            }
        }
    }
}
