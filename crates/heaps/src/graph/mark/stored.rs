//! A stored graph: every edge between blocks in use, found in one linear pass over memory.
//!
//! ```text
//! block's number ─> starts ─> edges: numbers of blocks, the highest bit set where the word is weak
//! ```
//!
//! Cost: 4 bytes for each block in use, and 4 for each word of theirs that reaches another one.

use std::hint::black_box;
use std::ops::Range;

use super::super::Universe;
use super::super::batch::Batch;
use super::super::block_words::BlockWords;
use super::super::lookup::{Node, Ranks};
use super::super::roots::Strength;
use super::super::words::Filter;
use super::{GROUP, Graph, Marks, Reached};
use crate::map::Bits;
use ground::parallel;

/// The mark of an edge by a weak word.
const WEAK: u32 = 1 << 31;
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

/// What one piece has: where the edges of each of its blocks begin, and the edges.
struct Part {
    starts: Vec<u32>,
    edges: Vec<u32>,
}

impl<'u, 'm> Stored<'u, 'm> {
    /// Reads all edges; `None` where they would take more than `most` bytes.
    pub fn read(universe: &'u Universe<'m>, most: u64) -> Option<Self> {
        let lookup = &universe.lookup;
        let entries = (most / ENTRY).min(u64::from(u32::MAX));
        let ranks = Ranks::new(lookup, u32::try_from(entries).unwrap_or(WEAK).min(WEAK))?;
        let blocks = usize::try_from(ranks.count()).ok()?;
        let most_edges = entries.checked_sub(u64::from(ranks.count()).saturating_add(1))?;
        let mut starts = Vec::with_capacity(blocks.saturating_add(1));
        let mut edges: Vec<u32> = Vec::new();
        for wave in lookup.pieces(PIECE).chunks(WAVE) {
            let left = most_edges.saturating_sub(edges.len() as u64);
            let parts = parallel::map(wave, |bits| {
                part(universe, &ranks, bits.clone(), usize::try_from(left).ok()?)
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
    pub fn marks(&self, universe: &Universe<'_>, reached: &Reached<u32>) -> Marks {
        let lookup = &universe.lookup;
        let (strong, weak) = (Bits::new(lookup.bits()), Bits::new(lookup.bits()));
        parallel::map(&lookup.pieces(PIECE), |bits| {
            let mut number = u64::from(self.ranks.of(lookup, bits.start));
            lookup.each_live_bit(bits.clone(), |bit, _| {
                if reached.strong.get(number) {
                    strong.test_and_set(bit);
                }
                if reached.weak.get(number) {
                    weak.test_and_set(bit);
                }
                number = number.saturating_add(1);
            });
        });
        Marks { strong, weak }
    }

    #[inline]
    fn start(&self, block: u32) -> usize {
        self.starts
            .get(block as usize)
            .map_or(usize::MAX, |start| *start as usize)
    }
}

/// The edges of the blocks with these bits; `None` if they are more than `most`.
fn part(universe: &Universe<'_>, ranks: &Ranks, bits: Range<u64>, most: usize) -> Option<Part> {
    let lookup = &universe.lookup;
    let filter = Filter::new(lookup.span());
    let first = ranks.of(lookup, bits.start);
    let mut words = BlockWords::new(universe);
    let mut batch = Batch::new(universe);
    let (mut starts, mut edges) = (Vec::new(), Vec::new());
    let mut settle = |batch: &mut Batch<'_, '_>| {
        batch.look_up(|_| false);
        batch.each_edge(|source, edge| {
            let count = u32::try_from(edges.len()).unwrap_or(u32::MAX);
            starts.resize((source as usize).saturating_add(1).max(starts.len()), count);
            let to = ranks.of(lookup, lookup.bit(edge.node));
            let mark = match edge.strength {
                Strength::Strong => 0,
                Strength::Weak => WEAK,
            };
            if to != first.saturating_add(source) && edges.len() <= most {
                edges.push(to | mark);
            }
        });
    };
    let mut source = 0u32;
    lookup.each_live_bit(bits, |_, live| {
        if let Some((node, at, bytes)) = live {
            words.each_within(node, at, bytes, filter, |at, value, before| {
                if batch.add(source, at, value, before) {
                    settle(&mut batch);
                }
            });
        }
        source = source.saturating_add(1);
    });
    settle(&mut batch);
    let count = u32::try_from(edges.len()).ok()?;
    starts.resize(source as usize, count);
    (edges.len() <= most).then_some(Part { starts, edges })
}

impl Graph for &Stored<'_, '_> {
    type Block = u32;

    fn columns(&self) -> u64 {
        self.ranks.count().into()
    }

    fn block(&self, node: Node) -> Option<u32> {
        let lookup = &self.universe.lookup;
        let bit = lookup.bit(node);
        lookup.is_live_bit(bit).then(|| self.ranks.of(lookup, bit))
    }

    #[inline]
    fn column(&self, block: u32) -> u64 {
        block.into()
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
                let to = edge & !WEAK;
                let worth = match edge & WEAK {
                    0 => Strength::Strong,
                    _ => Strength::Weak,
                };
                reached.take(to.into(), to, strength, worth);
            }
        }
    }
}
