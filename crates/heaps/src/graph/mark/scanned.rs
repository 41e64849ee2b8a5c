//! Edges as they stand in the core: a block is scanned when it is reached.

use super::super::Universe;
use super::super::batch::Batch;
use super::super::block_words::BlockWords;
use super::super::lookup::Node;
use super::super::roots::Strength;
use super::super::words::Filter;
use super::{Graph, Reached};

/// See the module.
pub(super) struct Scanned<'u, 'm> {
    universe: &'u Universe<'m>,
    filter: Filter,
    words: BlockWords<'u, 'm>,
    batch: Batch<'u, 'm>,
}

impl<'u, 'm> Scanned<'u, 'm> {
    pub fn new(universe: &'u Universe<'m>) -> Self {
        Self {
            universe,
            filter: Filter::new(universe.lookup.span()),
            words: BlockWords::new(universe),
            batch: Batch::new(universe),
        }
    }
}

impl Graph for Scanned<'_, '_> {
    type Block = Node;

    fn columns(&self) -> u64 {
        self.universe.lookup.bits()
    }

    fn block(&self, node: Node) -> Option<Node> {
        Some(node)
    }

    #[inline]
    fn column(&self, block: Node) -> u64 {
        self.universe.lookup.bit(block)
    }

    /// That is asked where the word is read.
    fn is_end(&self, _: Node) -> bool {
        false
    }

    fn at(&self, column: u64) -> Option<Node> {
        self.universe.lookup.node(column)
    }

    /// What the blocks hold is asked for first and needed later.
    fn follow(&mut self, blocks: &[Node], strength: Strength, reached: &mut Reached<Node>) {
        let lookup = &self.universe.lookup;
        let batch = &mut self.batch;
        let mut settle = |batch: &mut Batch<'_, '_>| {
            batch.look_up(|bit| reached.strong.get(bit));
            batch.each_edge(|_, edge| {
                let bit = lookup.bit(edge.node);
                reached.take(bit, edge.node, strength, edge.strength);
            });
        };
        for block in blocks {
            self.words.touch(*block);
        }
        for block in blocks {
            self.words.each(*block, self.filter, |at, value, before| {
                if batch.add(0, at, value, before) {
                    settle(batch);
                }
            });
        }
        settle(batch);
    }
}
