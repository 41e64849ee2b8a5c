//! The heap as it was cut into blocks: extents in rows, blocks as bits.
//!
//! ```text
//! address ──> page directory ──> Extent row ──> slot ──> bit in each column
//!             (or binary search)  40 bytes       (address - start) / stride
//! ```
//!
//! There is no record per block. An extent is a run of memory that its owner cut in one way
//! ([`Shape`]); a block is a slot of an extent; what is known of it is a bit in a column. Costs:
//! 40 bytes and one directory entry per extent, 1 bit per block in each column that says anything
//! of it; a lookup is one directory load, one row and one division (about 20 ns when the tables fit
//! the cache). Blocks of any size have a slot per 16 bytes and one more column, their starts: 1.6 %
//! of their memory.

mod bits;
mod builder;
mod chunks;
mod columns;
mod extent;
mod sketch;

use std::sync::atomic::{AtomicU64, Ordering};

pub use bits::Bits;
pub use builder::{MapBuilder, Overlap};
pub use chunks::{ChunkLayout, Chunks, GRANULE};
pub use extent::{Extent, Owner, Shape};
pub use sketch::{Piece, Sketch};

use ground::target::Address;

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
    pub class: u16,
}

/// Where a chunk's bits are, not loaded yet: several spots can be found before the first is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Spot<'m> {
    /// The chunk, if one begins there.
    id: BlockId,
    start: &'m AtomicU64,
    listed: Option<&'m AtomicU64>,
    listed_bit: u64,
}

impl Spot<'_> {
    /// The chunk, if one begins there, and whether a list held it when this was asked.
    #[inline]
    pub fn load(&self) -> Option<(BlockId, bool)> {
        let bit = |word: &AtomicU64, index: u64| word.load(Ordering::Relaxed) >> (index % 64) & 1;
        let start = bit(self.start, self.id.slot.into());
        let listed = self.listed.map_or(0, |word| bit(word, self.listed_bit));
        (start == 1).then_some((self.id, listed == 1))
    }
}

/// Where an address lies in a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Row of the extent.
    pub extent: u32,
    /// Block slot and bytes past its start; `None` in a tail or in metadata.
    pub slot: Option<(u32, u64)>,
}

/// The finished map of one heap.
pub struct HeapMap {
    extents: Vec<Extent>,
    directory: Vec<DirectoryRange>,
    page_shift: u32,
    blocks: u64,
    chunks: Vec<Chunks>,
    listed: Bits,
    disputed: Bits,
    lost: Bits,
}

/// Extent rows of a run of pages; `NO_ROW` where there is none or not exactly one.
struct DirectoryRange {
    first_page: u64,
    rows: Vec<u32>,
}

const NO_ROW: u32 = u32::MAX;

impl HeapMap {
    /// All extents, sorted by address, without overlap.
    pub fn extents(&self) -> &[Extent] {
        &self.extents
    }

    /// The extent in this row.
    pub fn extent(&self, row: u32) -> Option<&Extent> {
        self.extents.get(row as usize)
    }

    /// Number of blocks in all extents.
    pub fn block_count(&self) -> u64 {
        self.blocks
    }

    /// Row of the extent that contains `at`.
    #[inline]
    pub fn row_at(&self, at: Address) -> Option<u32> {
        let page = at.get() >> self.page_shift;
        for range in &self.directory {
            if let Some(index) = page.checked_sub(range.first_page)
                && let Some(&row) = range.rows.get(usize::try_from(index).ok()?)
            {
                if row != NO_ROW {
                    return Some(row);
                }
                break;
            }
        }
        let after = self.extents.partition_point(|extent| extent.start <= at);
        let row = after.checked_sub(1)?;
        let extent = self.extents.get(row)?;
        (at < extent.end()).then(|| u32::try_from(row).ok())?
    }

    /// Where `at` lies, or `None` outside the heap.
    #[inline]
    pub fn place(&self, at: Address) -> Option<Place> {
        let extent = self.row_at(at).or_else(|| self.row_before(at))?;
        let row = self.extent(extent)?;
        Some(Place {
            extent,
            slot: match row.shape {
                Shape::Chunks { .. } => self.chunk_slot(row, at),
                _ => row.slot_at(at),
            },
        })
    }

    /// The run of chunks whose last block has its end, with `at`, in the header behind the run.
    fn row_before(&self, at: Address) -> Option<u32> {
        let after = self.extents.partition_point(|extent| extent.start <= at);
        let row = u32::try_from(after.checked_sub(1)?).ok()?;
        let extent = self.extent(row)?;
        let spill = self.chunks(extent)?.layout().spill;
        (at.offset_from(extent.end())? < spill).then_some(row)
    }

    /// The chunk whose block holds `at`: between its header and that of the next one.
    fn chunk_slot(&self, extent: &Extent, at: Address) -> Option<(u32, u64)> {
        let chunks = self.chunks(extent)?;
        let offset = at.offset_from(extent.start)?;
        let inside = offset.checked_sub(chunks.layout().spill)?;
        let granule = chunks.at_or_before(u32::try_from(inside / GRANULE).ok()?)?;
        let block = chunks.block_address(extent.start, granule);
        Some((granule, at.offset_from(block)?))
    }

    /// Where the chunks of an extent begin.
    pub fn chunks(&self, extent: &Extent) -> Option<&Chunks> {
        match extent.shape {
            Shape::Chunks { table, .. } => self.chunks.get(table as usize),
            _ => None,
        }
    }

    /// Notes a chunk that begins at `at`, inside what was taken for one.
    pub fn split_chunk(&self, at: Address) -> Option<BlockId> {
        let id = self.chunk_place(at)?;
        self.chunks(self.extent(id.extent)?)?.add(id.slot);
        Some(id)
    }

    /// Forgets a chunk at `at`, whose bytes are those of the one before.
    pub fn join_chunk(&self, at: Address) {
        let place = self.chunk_place(at);
        let chunks = place.and_then(|id| self.chunks(self.extent(id.extent)?));
        if let (Some(id), Some(chunks)) = (place, chunks) {
            chunks.remove(id.slot);
        }
    }

    /// Where a chunk that begins at `at` is, or would be, in the columns.
    fn chunk_place(&self, at: Address) -> Option<BlockId> {
        let row = self.row_at(at)?;
        let extent = self.extent(row)?;
        let offset = at.offset_from(extent.start)?;
        let slot = u32::try_from(offset / GRANULE).ok()?;
        let inside = offset % GRANULE == 0 && slot < self.chunks(extent)?.granules();
        inside.then_some(BlockId { extent: row, slot })
    }

    /// The chunk that begins exactly at `at`, its header.
    #[inline]
    pub fn chunk_at(&self, at: Address) -> Option<BlockId> {
        let row = self.row_at(at)?;
        let extent = self.extent(row)?;
        let offset = at.offset_from(extent.start)?;
        let slot = u32::try_from(offset / GRANULE).ok()?;
        let starts = offset % GRANULE == 0 && self.chunks(extent)?.is_start(slot);
        starts.then_some(BlockId { extent: row, slot })
    }

    /// Where the bits of a chunk that begins exactly at `at` would be.
    #[inline]
    pub fn spot(&self, at: Address) -> Option<Spot<'_>> {
        let row = self.row_at(at)?;
        let extent = self.extent(row)?;
        let offset = at.offset_from(extent.start)?;
        let slot = u32::try_from(offset / GRANULE).ok()?;
        let listed_bit = extent.first_bit.saturating_add(u64::from(slot));
        (offset % GRANULE == 0).then_some(Spot {
            id: BlockId { extent: row, slot },
            start: self.chunks(extent)?.word(slot)?,
            listed: self.listed.word(listed_bit),
            listed_bit,
        })
    }

    /// The block that contains `at`, and the bytes from its start.
    pub fn block_at(&self, at: Address) -> Option<(Block, u64)> {
        let place = self.place(at)?;
        let (slot, offset) = place.slot?;
        Some((
            self.block(BlockId {
                extent: place.extent,
                slot,
            })?,
            offset,
        ))
    }

    /// A block by its place.
    pub fn block(&self, id: BlockId) -> Option<Block> {
        let extent = self.extent(id.extent)?;
        let Some(chunks) = self.chunks(extent) else {
            return extent.block(id.extent, id.slot);
        };
        let layout = chunks.layout();
        let end = match chunks.after(id.slot) {
            Some(next) => u64::from(next) * GRANULE,
            None => extent.bytes,
        };
        let size = end.checked_sub(u64::from(id.slot) * GRANULE)?;
        chunks.is_start(id.slot).then(|| Block {
            id,
            address: chunks.block_address(extent.start, id.slot),
            bytes: size
                .saturating_add(layout.spill)
                .saturating_sub(layout.lead),
            class: extent.class,
        })
    }

    /// The block that ends where `block` starts: the slot before it, or the last block of the
    /// extent that ends there (a tail between them is skipped).
    pub fn block_before(&self, block: Block) -> Option<Block> {
        if let Some(chunks) = self.chunks(self.extent(block.id.extent)?) {
            return self.chunk_before(chunks, block.id);
        }
        if let Some(slot) = block.id.slot.checked_sub(1) {
            return self.block(BlockId {
                extent: block.id.extent,
                slot,
            });
        }
        let row = block.id.extent.checked_sub(1)?;
        let before = self.extent(row)?;
        let last = before.blocks().checked_sub(1)?;
        (before.end() == block.address).then(|| before.block(row, last))?
    }

    fn chunk_before(&self, chunks: &Chunks, id: BlockId) -> Option<Block> {
        let within = id
            .slot
            .checked_sub(1)
            .and_then(|slot| chunks.at_or_before(slot));
        if let Some(slot) = within {
            return self.block(BlockId { slot, ..id });
        }
        let row = id.extent.checked_sub(1)?;
        let before = self.extent(row)?;
        let slot = self.chunks(before)?.at_or_before(u32::MAX)?;
        let adjacent = before.end() == self.extent(id.extent)?.start;
        adjacent.then(|| self.block(BlockId { extent: row, slot }))?
    }
}
const _: () = assert!(size_of::<Extent>() == 40, "an extent row costs 40 bytes");
