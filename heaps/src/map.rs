//! The heap as it was cut into blocks.

use crate::target::Address;

/// State of a block by all its witnesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockState {
    /// Handed out to the program.
    InUse,
    /// In a free list, or a free span.
    Free,
    /// Free, but cut off from every list by damage.
    Lost,
}

impl BlockState {
    /// The name in the report: `in-use`, `free`, `lost`.
    pub fn name(self) -> &'static str {
        match self {
            BlockState::InUse => "in-use",
            BlockState::Free => "free",
            BlockState::Lost => "lost",
        }
    }
}

/// A block's place in a heap map: the row of its extent and its slot there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// Row of the extent.
    pub extent: u32,
    /// Index within the extent.
    pub slot: u32,
}

/// A block, resolved. Made on demand; heaps keep bits, not blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// Its place in the map.
    pub id: BlockId,
    /// The pointer that the program knows.
    pub address: Address,
    /// Usable bytes.
    pub bytes: u64,
    /// Size class index; 0 for a block with pages of its own.
    pub class: u32,
}
