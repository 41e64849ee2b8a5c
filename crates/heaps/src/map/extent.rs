//! Runs of heap memory that were cut into blocks in one way.

use std::ops::Range;

use super::{Block, BlockId};
use ground::target::Address;

/// How an extent is cut into blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The allocator's own: no blocks, never a root.
    Metadata,
    /// One large block.
    Single,
    /// Blocks of one size, side by side from the start. What is left behind the last is a tail.
    Slab {
        /// Bytes of a block; never 0.
        stride: u32,
        /// Number of blocks.
        count: u32,
    },
    /// Blocks of any size, each behind a header of its own ([`Chunks`](super::Chunks)). A slot is a granule.
    Chunks {
        /// Which of the map's tables says where they begin.
        table: u32,
        /// Number of granules.
        granules: u32,
    },
}

/// What the owner's metadata says of an extent as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Cut into blocks, or handed out whole.
    InUse,
    /// Free, its pages held.
    Free,
    /// Free, its pages given back to the system: contents mean nothing.
    Returned,
}

/// A run of heap memory that was cut in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: Address,
    /// Length in bytes.
    pub bytes: u64,
    /// How it is cut.
    pub shape: Shape,
    /// What its owner says.
    pub owner: Owner,
    /// Size class index; 0 for none.
    pub class: u16,
    /// First bit of its blocks in the columns. Set by the builder.
    pub(super) first_bit: u64,
}

impl Extent {
    /// An extent that is not in a map yet.
    pub fn new(start: Address, bytes: u64, shape: Shape, owner: Owner, class: u16) -> Self {
        Self {
            start,
            bytes,
            shape,
            owner,
            class,
            first_bit: 0,
        }
    }

    /// Number of slots: of blocks, where they are of one size.
    pub fn blocks(&self) -> u32 {
        match self.shape {
            Shape::Metadata => 0,
            Shape::Single => 1,
            Shape::Slab { count, .. } => count,
            Shape::Chunks { granules, .. } => granules,
        }
    }

    /// Usable bytes of each block; 0 where they differ.
    pub fn block_bytes(&self) -> u64 {
        match self.shape {
            Shape::Metadata | Shape::Chunks { .. } => 0,
            Shape::Single => self.bytes,
            Shape::Slab { stride, .. } => stride.into(),
        }
    }

    /// First byte past the end.
    pub fn end(&self) -> Address {
        self.start.saturating_add(self.bytes)
    }

    /// Bits of its blocks in the columns.
    pub fn bits(&self) -> Range<u64> {
        self.first_bit..self.first_bit.saturating_add(u64::from(self.blocks()))
    }

    /// The block at this slot of row `extent`, where all are of one size.
    pub fn block(&self, extent: u32, slot: u32) -> Option<Block> {
        let is_chunks = matches!(self.shape, Shape::Chunks { .. });
        (slot < self.blocks() && !is_chunks).then(|| Block {
            id: BlockId { extent, slot },
            address: self
                .start
                .saturating_add(u64::from(slot).saturating_mul(self.block_bytes())),
            bytes: self.block_bytes(),
            class: self.class,
        })
    }

    /// The slot that `at` lies in, and the bytes past its start; `None` in a tail or metadata, and
    /// where blocks differ in size.
    #[inline]
    pub fn slot_at(&self, at: Address) -> Option<(u32, u64)> {
        let offset = at
            .offset_from(self.start)
            .filter(|offset| *offset < self.bytes)?;
        match self.shape {
            Shape::Metadata | Shape::Chunks { .. } => None,
            Shape::Single => Some((0, offset)),
            Shape::Slab { stride, count } => {
                let slot = offset.checked_div(stride.into())?;
                let slot32 = u32::try_from(slot).ok().filter(|slot| *slot < count)?;
                Some((
                    slot32,
                    offset.saturating_sub(slot.saturating_mul(u64::from(stride))),
                ))
            }
        }
    }
}
