//! A word, and which block of which heap it points into: one table for the process.
//!
//! ```text
//! v >> 26 ─> root ──┬─ row                    one extent covers all 64 MiB
//!                   └─ v >> 20 ─> middle ──┬─ row
//!                                          └─ v >> 12 ─> leaf: the first row that ends behind the page's start
//! row ─> slot: by a multiplied reciprocal, or by the bits of where chunks begin
//! ```
//!
//! Cost: a row of 64 bytes for each extent, 1 KiB for each MiB that more than one extent shares, 4 bytes for each 4 KiB of chunks, and a
//! bit for each slot or granule that says what is in use.

mod build;
mod chunks;
mod live;
mod numbering;
mod ranks;
mod rows;

pub use numbering::{Numbering, Numbers};
pub use ranks::Ranks;

use std::hint::black_box;

use crate::map::{Bits, BlockId, GRANULE, HeapMap, Owner, Shape};
use ground::target::Address;

use super::roots::Ranges;
use chunks::ChunkTable;
use rows::{Kind, Row};

/// A thing that can be pointed at: a block, or a mapping of the program's own. Nodes sort by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Its row in the table.
    pub row: u32,
    /// Its slot there.
    pub slot: u32,
}

/// Where a word points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The block.
    pub node: Node,
    /// Bytes from its start.
    pub offset: u64,
}

const NOTHING: u32 = 0;
const TAG: u32 = 3 << 30;
const DIRECT: u32 = 1 << 30;
const TABLE: u32 = 2 << 30;
const SEARCH: u32 = 3 << 30;

const ROOT_SHIFT: u32 = 26;
const MIDDLE_SHIFT: u32 = 20;
const PAGE_SHIFT: u32 = 12;
const MIDDLE: usize = 1 << (ROOT_SHIFT - MIDDLE_SHIFT);
const LEAF: usize = 1 << (MIDDLE_SHIFT - PAGE_SHIFT);
/// Entries of the root: 256 TiB. What lies beyond is searched for.
const MAX_ROOT: u64 = 1 << 22;

/// The table.
pub struct Lookup<'m> {
    maps: Vec<&'m HeapMap>,
    rows: Vec<Row>,
    tables: Vec<ChunkTable<'m>>,
    root: Vec<u32>,
    first_region: u64,
    middles: Vec<[u32; MIDDLE]>,
    leaves: Vec<[u32; LEAF]>,
    bits: u64,
    /// What is in use.
    live: Bits,
    lowest: u64,
    highest: u64,
    dropped: u64,
    own: Ranges,
}

impl<'m> Lookup<'m> {
    /// A table of all heaps' extents and of `mappings`, the program's own. Where two claim the same memory, the one that begins first has it.
    pub fn new(maps: &[&'m HeapMap], mappings: &[std::ops::Range<Address>]) -> Self {
        let mut rows = Vec::new();
        for (heap, map) in (0u32..).zip(maps) {
            rows.extend((0u32..).zip(map.extents()).map(|(map_row, extent)| Row {
                start: extent.start.get(),
                bytes: extent.bytes,
                first_bit: 0,
                kind: Kind::of(extent.shape, extent.bytes),
                heap,
                map_row,
                may_live: extent.owner == Owner::InUse && extent.shape != Shape::Metadata,
                is_cut: false,
            }));
        }
        rows.extend((0u32..).zip(mappings).map(|(index, range)| Row {
            start: range.start.get(),
            bytes: range.end.get().saturating_sub(range.start.get()),
            first_bit: 0,
            kind: Kind::Mapping,
            heap: u32::MAX,
            map_row: index,
            may_live: true,
            is_cut: false,
        }));
        rows.retain(|row| row.bytes > 0 && row.start.checked_add(row.bytes).is_some());
        rows.sort_by_key(|row| {
            (
                row.start,
                std::cmp::Reverse(row.bytes),
                row.heap,
                row.map_row,
            )
        });
        let all = rows.len();
        let mut end = 0;
        rows.retain(|row| {
            let is_free = row.start >= end;
            end = end.max(row.start.saturating_add(row.bytes));
            is_free
        });
        rows.truncate((DIRECT - 1) as usize);
        let mut lookup = Self {
            dropped: all.saturating_sub(rows.len()) as u64,
            maps: maps.to_vec(),
            lowest: rows.first().map_or(0, |row| row.start),
            highest: rows
                .last()
                .map_or(0, |row| row.start.saturating_add(row.bytes)),
            rows,
            tables: Vec::new(),
            root: Vec::new(),
            first_region: 0,
            middles: Vec::new(),
            leaves: Vec::new(),
            bits: 0,
            live: Bits::default(),
            own: Ranges::default(),
        };
        lookup.number();
        lookup.note_live();
        lookup.fill();
        lookup
    }

    /// Notes which rows have something silent in them.
    pub(super) fn note_silent(&mut self, silent: &Ranges) {
        for row in &mut self.rows {
            let range = Address::new(row.start)..Address::new(row.start.saturating_add(row.bytes));
            row.is_cut = silent.overlap(&range);
        }
    }

    /// Lowest address that can be pointed at, and bytes from there to the highest, the one past the end included.
    pub fn span(&self) -> (u64, u64) {
        (
            self.lowest,
            self.highest.saturating_sub(self.lowest).saturating_add(1),
        )
    }

    /// Bits of a column.
    pub fn bits(&self) -> u64 {
        self.bits
    }

    /// Extents that were left out because another one has their memory.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Number of rows.
    pub fn rows(&self) -> u32 {
        u32::try_from(self.rows.len()).unwrap_or(u32::MAX)
    }

    /// The row that the tables name for `value`: the first that may hold it. `Err`: they do not know.
    #[inline]
    fn first_row(&self, value: u64) -> Result<Option<u32>, ()> {
        let region = (value >> ROOT_SHIFT).checked_sub(self.first_region);
        let Some(place) = region.and_then(|region| usize::try_from(region).ok()) else {
            return Ok(None);
        };
        let mut entry = *self.root.get(place).ok_or(())?;
        if entry & TAG == TABLE {
            let middle = self.middles.get((entry & !TAG) as usize);
            let inside = middle.and_then(|middle| at(middle, value >> MIDDLE_SHIFT, MIDDLE));
            entry = inside.copied().unwrap_or(NOTHING);
            if entry & TAG == TABLE {
                let leaf = self.leaves.get((entry & !TAG) as usize);
                let inside = leaf.and_then(|leaf| at(leaf, value >> PAGE_SHIFT, LEAF));
                entry = inside.copied().unwrap_or(NOTHING);
            }
        }
        match entry & TAG {
            SEARCH => Err(()),
            _ => Ok((entry != NOTHING).then_some(entry & !TAG)),
        }
    }

    #[inline]
    fn row_at(&self, value: u64) -> Option<u32> {
        let Ok(first) = self.first_row(value) else {
            return self.search(value);
        };
        let mut index = first?;
        loop {
            let row = self.rows.get(index as usize)?;
            let offset = value.checked_sub(row.start)?;
            if offset < row.bytes {
                return Some(index);
            }
            index = index.saturating_add(1);
        }
    }

    /// Has the processor fetch what [`find`](Self::find) will read first.
    #[inline]
    pub(super) fn touch(&self, value: u64) {
        if let Ok(Some(index)) = self.first_row(value)
            && let Some(row) = self.rows.get(index as usize)
        {
            black_box(row.start);
            if let Kind::Chunks { table } = row.kind
                && let Some(table) = self.tables.get(table as usize)
            {
                let granule = value.saturating_sub(row.start) / GRANULE;
                table
                    .chunks
                    .touch(u32::try_from(granule).unwrap_or(u32::MAX));
            }
        }
    }

    #[inline]
    fn inside(&self, index: u32, value: u64) -> Option<u32> {
        let row = self.rows.get(index as usize)?;
        (value.checked_sub(row.start)? < row.bytes).then_some(index)
    }

    fn search(&self, value: u64) -> Option<u32> {
        let after = self.rows.partition_point(|row| row.start <= value);
        let index = u32::try_from(after.checked_sub(1)?).ok()?;
        self.inside(index, value)
    }

    /// The block that `value` points into, in use or not. `None` in an allocator's own memory and outside of everything.
    #[inline]
    pub fn find(&self, value: u64) -> Option<Hit> {
        let index = self.row_at(value)?;
        let row = self.rows.get(index as usize)?;
        let inside = value.saturating_sub(row.start);
        let (slot, offset) = match row.kind {
            Kind::Own => return None,
            Kind::Single | Kind::Mapping => (0, inside),
            Kind::Slab {
                stride,
                count,
                magic,
            } => {
                let slot = match magic {
                    0 => inside.checked_div(stride.into())?,
                    magic => inside.saturating_mul(magic) >> 40,
                };
                let slot32 = u32::try_from(slot).ok().filter(|slot| *slot < count)?;
                (
                    slot32,
                    inside.saturating_sub(slot.saturating_mul(u64::from(stride))),
                )
            }
            Kind::Chunks { table } => {
                let table = self.tables.get(table as usize)?;
                let layout = table.chunks.layout();
                let granule = u32::try_from(inside.checked_sub(layout.spill)? / GRANULE).ok()?;
                let slot = table.at_or_before(granule)?;
                let block = (u64::from(slot) * GRANULE).saturating_add(layout.lead);
                (slot, inside.checked_sub(block)?)
            }
        };
        Some(Hit {
            node: Node { row: index, slot },
            offset,
        })
    }

    /// Whether the allocator itself has the memory at `value`.
    pub fn is_own(&self, value: u64) -> bool {
        let row = self
            .row_at(value)
            .and_then(|index| self.rows.get(index as usize));
        row.is_some_and(|row| row.kind == Kind::Own) || self.own.contains(Address::new(value))
    }

    /// Takes blocks out that allocators have for themselves: those that begin in one of these ranges are never in use.
    #[must_use]
    pub fn without(mut self, own: &Ranges) -> Self {
        for (index, row) in (0u32..).zip(&self.rows) {
            let range = Address::new(row.start)..Address::new(row.start.saturating_add(row.bytes));
            if row.may_live && own.overlap(&range) {
                self.each_live(index, |node, start, _| {
                    if own.contains(start) {
                        self.live.clear(self.bit(node));
                    }
                });
            }
        }
        self.own = own.clone();
        self
    }

    /// Whether the node is in use.
    #[inline]
    pub fn is_live(&self, node: Node) -> bool {
        self.is_live_bit(self.bit(node))
    }

    /// Whether the node with this bit is in use.
    #[inline]
    pub(super) fn is_live_bit(&self, bit: u64) -> bool {
        self.live.get(bit)
    }

    /// The node's bit in a column.
    #[inline]
    pub fn bit(&self, node: Node) -> u64 {
        let first = self
            .rows
            .get(node.row as usize)
            .map_or(u64::MAX, |row| row.first_bit);
        first.saturating_add(node.slot.into())
    }

    /// The node with this bit; one that does not exist if no chunk begins there.
    pub fn node(&self, bit: u64) -> Option<Node> {
        let after = self.rows.partition_point(|row| row.first_bit <= bit);
        let index = after.checked_sub(1)?;
        let slot = bit.saturating_sub(self.rows.get(index)?.first_bit);
        Some(Node {
            row: u32::try_from(index).ok()?,
            slot: u32::try_from(slot).ok()?,
        })
    }

    /// First byte and size of a node.
    #[inline]
    pub fn extent(&self, node: Node) -> Option<(Address, u64)> {
        let row = self.rows.get(node.row as usize)?;
        match row.kind {
            Kind::Own => None,
            Kind::Single | Kind::Mapping => Some((Address::new(row.start), row.bytes)),
            Kind::Slab { stride, .. } => {
                let offset = u64::from(node.slot).saturating_mul(u64::from(stride));
                Some((Address::new(row.start.checked_add(offset)?), stride.into()))
            }
            Kind::Chunks { .. } => {
                let map = self.maps.get(row.heap as usize)?;
                let block = map.block(self.block_id(node)?)?;
                Some((block.address, block.bytes))
            }
        }
    }

    /// The block's place in its heap's map; `None` for a mapping.
    pub fn block_id(&self, node: Node) -> Option<BlockId> {
        let row = self.rows.get(node.row as usize)?;
        (row.kind != Kind::Mapping).then_some(BlockId {
            extent: row.map_row,
            slot: node.slot,
        })
    }

    /// Index of the heap that the block belongs to; `None` for a mapping.
    pub fn heap(&self, node: Node) -> Option<u32> {
        let row = self.rows.get(node.row as usize)?;
        (row.kind != Kind::Mapping).then_some(row.heap)
    }

    /// Index of a mapping, as they were given.
    pub fn mapping(&self, node: Node) -> Option<u32> {
        let row = self.rows.get(node.row as usize)?;
        (row.kind == Kind::Mapping).then_some(row.map_row)
    }

    /// Whether something in the node's row is silent: then a scan has to look.
    #[inline]
    pub fn is_cut(&self, node: Node) -> bool {
        self.rows
            .get(node.row as usize)
            .is_some_and(|row| row.is_cut)
    }

    /// Start of the block of one size that ends exactly at `value`, the start of `node`. `None` where blocks have headers between them.
    #[inline]
    pub fn neighbour_before(&self, node: Node, value: u64) -> Option<u64> {
        let row = self.rows.get(node.row as usize)?;
        let before = match (row.kind, node.slot.checked_sub(1)) {
            (Kind::Slab { stride, .. }, Some(_)) => return value.checked_sub(stride.into()),
            (Kind::Slab { .. } | Kind::Single, None) => {
                self.rows.get((node.row as usize).checked_sub(1)?)?
            }
            _ => return None,
        };
        let ends_here = before.start.checked_add(before.bytes)? == value;
        match before.kind {
            Kind::Single if ends_here => Some(before.start),
            Kind::Slab { stride, count, .. } if ends_here => {
                let is_full = u64::from(stride).checked_mul(count.into())? == before.bytes;
                is_full.then(|| value.checked_sub(stride.into()))?
            }
            _ => None,
        }
    }
}

#[inline]
fn at<const N: usize>(table: &[u32; N], index: u64, size: usize) -> Option<&u32> {
    table.get(usize::try_from(index).ok()?.checked_rem(size).unwrap_or(0))
}
