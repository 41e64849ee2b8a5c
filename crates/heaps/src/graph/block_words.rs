//! The words of blocks that can be sources.

use super::Universe;
use super::lookup::Node;
use super::words::{self, Filter};
use ground::target::{Address, Cursor};

/// Reads words of blocks; remembers where it last read.
pub(super) struct BlockWords<'u, 'm> {
    universe: &'u Universe<'m>,
    near: Cursor<'m>,
}

impl<'u, 'm> BlockWords<'u, 'm> {
    /// One that has read nothing yet.
    pub fn new(universe: &'u Universe<'m>) -> Self {
        Self {
            universe,
            near: Cursor::new(universe.memory),
        }
    }

    /// Has the processor fetch what [`each`](Self::each) will read first.
    #[inline]
    pub fn touch(&mut self, node: Node) {
        if let Some((start, _)) = self.universe.lookup.extent(node) {
            self.near.touch(start);
        }
    }

    /// Calls `visit` with the words of a block or mapping that pass, and with the word before each where that is one of its words, too.
    #[inline]
    pub fn each(
        &mut self,
        node: Node,
        filter: Filter,
        visit: impl FnMut(Address, u64, Option<u64>),
    ) {
        if let Some((start, bytes)) = self.universe.lookup.extent(node) {
            self.each_within(node, start, bytes, filter, visit);
        }
    }

    /// The same of a node whose first byte and size are known.
    #[inline]
    pub fn each_within(
        &mut self,
        node: Node,
        start: Address,
        bytes: u64,
        filter: Filter,
        mut visit: impl FnMut(Address, u64, Option<u64>),
    ) {
        // What stands before a block is none of its words.
        const BEFORE: Option<u64> = Some(0);
        let memory = self.universe.memory;
        let range = start..start.saturating_add(bytes);
        if self.universe.lookup.is_cut(node) {
            for part in self.universe.silent.without(range) {
                words::each_beside(memory, &part, filter, None, &mut visit);
            }
            return;
        }
        let whole = self.near.bytes(start, bytes);
        match whole.filter(|_| start.is_aligned(8)) {
            Some(bytes) => {
                let little = memory.abi().little_endian;
                words::each_in(bytes, start, little, filter, BEFORE, visit);
            }
            None => words::each_beside(memory, &range, filter, BEFORE, visit),
        }
    }
}
