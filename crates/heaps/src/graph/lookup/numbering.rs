//! Dense numbers for everything that can be pointed at, by address: what an array of a word for each needs. Slots count whether they are
//! in use or not; granules of chunks count where one begins.
//!
//! Cost: 8 bytes for each row of the table, 4 for each 4 KiB of chunks.

use super::chunks::PIECE;
use super::{Kind, Lookup, Node};

/// The numbers, and the table that they number.
pub struct Numbering<'l, 'm> {
    lookup: &'l Lookup<'m>,
    numbers: Numbers,
}

/// The numbers of a table's nodes, without the table.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Number of each row's first node, and where its ranks begin.
    rows: Vec<(u32, u32)>,
    /// Chunks of a row that begin before each 4 KiB of it.
    ranks: Vec<u32>,
    count: u32,
}

impl<'l, 'm> Numbering<'l, 'm> {
    /// Numbers all nodes of the table; `None` where there are more than fit.
    pub fn new(lookup: &'l Lookup<'m>) -> Option<Self> {
        let numbers = Numbers::new(lookup)?;
        Some(Self { lookup, numbers })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.numbers.count
    }

    /// The number of a node.
    #[inline]
    pub fn of(&self, node: Node) -> Option<u32> {
        self.numbers.of(self.lookup, node)
    }
}

impl Numbers {
    /// Numbers all nodes of a table; `None` where there are more than fit.
    pub fn new(lookup: &Lookup<'_>) -> Option<Self> {
        let mut rows = Vec::with_capacity(lookup.rows.len());
        let mut ranks = Vec::new();
        let mut count = 0u32;
        for row in &lookup.rows {
            rows.push((count, u32::try_from(ranks.len()).ok()?));
            let nodes = match row.kind {
                Kind::Own => 0,
                Kind::Single | Kind::Mapping => 1,
                Kind::Slab { count, .. } => count,
                Kind::Chunks { table } => {
                    let chunks = lookup.tables.get(table as usize)?.chunks;
                    let mut before = 0u32;
                    for piece in 0..chunks.granules().div_ceil(PIECE) {
                        ranks.push(before);
                        let inside = chunks.count_in(piece.saturating_mul(PIECE), PIECE);
                        before = before.checked_add(u32::try_from(inside).ok()?)?;
                    }
                    before
                }
            };
            count = count.checked_add(nodes).filter(|count| *count < u32::MAX)?;
        }
        Some(Self { rows, ranks, count })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of a node of the table that they were made of.
    #[inline]
    pub fn of(&self, lookup: &Lookup<'_>, node: Node) -> Option<u32> {
        let index = node.row as usize;
        let (first, rank) = *self.rows.get(index)?;
        let Kind::Chunks { table } = lookup.rows.get(index)?.kind else {
            return first.checked_add(node.slot);
        };
        let piece = node.slot / PIECE;
        let before = *self.ranks.get(rank.checked_add(piece)? as usize)?;
        let chunks = lookup.tables.get(table as usize)?.chunks;
        let inside = chunks.count_in(piece.saturating_mul(PIECE), node.slot % PIECE);
        first
            .checked_add(before)?
            .checked_add(u32::try_from(inside).ok()?)
    }
}
