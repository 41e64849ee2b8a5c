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
mod sources;

pub use numbering::{Numbering, Numbers};
pub use ranks::Ranks;
pub use sources::Sources;

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

/// Where a word may point, by little more than the row: the block that is likely, to be looked at beside
/// others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Near {
    /// The block; of a chunk the one that would begin right there, with an offset of `u64::MAX` where the
    /// word is in front of it.
    pub hit: Hit,
    /// Its bit.
    pub bit: u64,
    /// It is that block, in use or not.
    pub is_sure: bool,
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

    /// The row that may hold `value`, or one before it.
    #[inline]
    pub(super) fn row_hint(&self, value: u64) -> Option<u32> {
        self.first_row(value).ok().flatten()
    }

    /// A word of that row, for the processor to fetch it.
    #[inline]
    pub(super) fn touch_row(&self, hint: u32) -> u64 {
        self.rows.get(hint as usize).map_or(0, |row| row.start)
    }

    /// Has the processor fetch what [`near`](Self::near) and [`find`](Self::find) will read first.
    #[inline]
    pub(super) fn touch(&self, value: u64) {
        black_box(self.row_hint(value).map(|row| self.touch_row(row)));
    }

    /// Where `value` may point. `None`: nowhere.
    #[inline]
    pub(super) fn near(&self, value: u64) -> Option<Near> {
        let index = self.row_at(value)?;
        let row = self.rows.get(index as usize)?;
        let inside = value.saturating_sub(row.start);
        let is_sure = !matches!(row.kind, Kind::Chunks { .. });
        let slot = match row.kind {
            Kind::Chunks { table } => {
                let spill = self.tables.get(table as usize)?.chunks.layout().spill;
                u32::try_from(inside.checked_sub(spill)? / GRANULE).ok()?
            }
            _ => self.slot(row, inside)?,
        };
        let offset = inside.checked_sub(self.first_byte(row, slot));
        Some(Near {
            hit: Hit {
                node: Node { row: index, slot },
                offset: offset.unwrap_or(u64::MAX),
            },
            bit: row.first_bit.saturating_add(slot.into()),
            is_sure,
        })
    }

    /// The bit of the block of a slab that ends where this one begins, if it is one of the same slab.
    #[inline]
    pub(super) fn slot_before(&self, near: Near) -> Option<u64> {
        let row = self.rows.get(near.hit.node.row as usize)?;
        let is_inner = matches!(row.kind, Kind::Slab { .. }) && near.hit.node.slot > 0;
        is_inner.then(|| near.bit.checked_sub(1))?
    }

    /// A word of what [`find`](Self::find) will read of chunks, for the processor to fetch it.
    #[inline]
    pub(super) fn touch_chunk(&self, near: Near) -> u64 {
        match self
            .rows
            .get(near.hit.node.row as usize)
            .map(|row| row.kind)
        {
            Some(Kind::Chunks { table }) => {
                let table = self.tables.get(table as usize);
                table.map_or(0, |table| table.chunks.touch(near.hit.node.slot))
            }
            _ => 0,
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
        let slot = self.slot(row, inside)?;
        let offset = inside.checked_sub(self.first_byte(row, slot))?;
        Some(Hit {
            node: Node { row: index, slot },
            offset,
        })
    }

    /// The slot of a row, so many bytes from its start. Of chunks it is the last one that begins before,
    /// which need not reach there.
    #[inline]
    fn slot(&self, row: &Row, inside: u64) -> Option<u32> {
        match row.kind {
            Kind::Own => None,
            Kind::Single | Kind::Mapping => Some(0),
            Kind::Slab {
                stride,
                count,
                magic,
            } => {
                let slot = match magic {
                    0 => inside.checked_div(stride.into())?,
                    magic => inside.saturating_mul(magic) >> 40,
                };
                u32::try_from(slot).ok().filter(|slot| *slot < count)
            }
            Kind::Chunks { table } => {
                let table = self.tables.get(table as usize)?;
                let spill = table.chunks.layout().spill;
                let granule = u32::try_from(inside.checked_sub(spill)? / GRANULE).ok()?;
                table.at_or_before(granule)
            }
        }
    }

    /// Where the block at this slot begins, in bytes from the start of the row.
    #[inline]
    fn first_byte(&self, row: &Row, slot: u32) -> u64 {
        match row.kind {
            Kind::Own | Kind::Single | Kind::Mapping => 0,
            Kind::Slab { stride, .. } => u64::from(slot).saturating_mul(stride.into()),
            Kind::Chunks { table } => {
                let table = self.tables.get(table as usize);
                let lead = table.map_or(0, |table| table.chunks.layout().lead);
                u64::from(slot).saturating_mul(GRANULE).saturating_add(lead)
            }
        }
    }

    /// Where the block at this slot begins, and its size.
    #[inline]
    fn extent_in(&self, row: &Row, slot: u32) -> Option<(Address, u64)> {
        let first = self.first_byte(row, slot);
        let bytes = match row.kind {
            Kind::Own => return None,
            Kind::Single | Kind::Mapping => row.bytes,
            Kind::Slab { stride, .. } => stride.into(),
            Kind::Chunks { table } => {
                let chunks = self.tables.get(table as usize)?.chunks;
                let end = match chunks.after(slot) {
                    Some(next) => u64::from(next).saturating_mul(GRANULE),
                    None => row.bytes,
                };
                if !chunks.is_start(slot) {
                    return None;
                }
                end.saturating_add(chunks.layout().spill)
                    .saturating_sub(first)
            }
        };
        Some((Address::new(row.start.checked_add(first)?), bytes))
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
        self.extent_in(self.rows.get(node.row as usize)?, node.slot)
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
