//! A row of the table: one extent of a heap, or a mapping.

use crate::map::{GRANULE, Shape};

/// What a row of the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An allocator's own memory: no node.
    Own,
    /// One block.
    Single,
    /// Blocks of one size. `magic` is 0 where the reciprocal would not be exact.
    Slab { stride: u32, count: u32, magic: u64 },
    /// Chunks, by this table.
    Chunks { table: u32 },
    /// A mapping of the program's own.
    Mapping,
}

/// A line of the processor's cache: words hit rows at random.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Row {
    pub start: u64,
    pub bytes: u64,
    pub first_bit: u64,
    pub kind: Kind,
    pub heap: u32,
    pub map_row: u32,
    /// Its blocks can be in use at all.
    pub may_live: bool,
    /// Something in it is silent.
    pub is_cut: bool,
}

impl Row {
    /// How many slots or granules so many bytes are.
    pub fn slots_of(&self, bytes: u64) -> u64 {
        let each = match self.kind {
            Kind::Slab { stride, .. } => stride.into(),
            Kind::Chunks { .. } => GRANULE,
            Kind::Own | Kind::Single | Kind::Mapping => self.bytes,
        };
        bytes.checked_div(each).unwrap_or(0).max(1)
    }
}

impl Kind {
    pub fn of(shape: Shape, bytes: u64) -> Self {
        match shape {
            Shape::Metadata => Kind::Own,
            Shape::Single => Kind::Single,
            Shape::Slab { stride: 0, .. } => Kind::Own,
            Shape::Slab { stride, count } => Kind::Slab {
                stride,
                count,
                // Exact while offset and stride are below 2^20.
                magic: if bytes <= 1 << 20 {
                    (1u64 << 40)
                        .checked_div(u64::from(stride))
                        .unwrap_or(0)
                        .saturating_add(1)
                } else {
                    0
                },
            },
            Shape::Chunks { .. } => Kind::Chunks { table: 0 },
        }
    }
}
