//! Collects extents and makes the map of them.

use super::{Bits, Chunks, DirectoryRange, Extent, HeapMap, NO_ROW, Owner, Shape};
use ground::target::Address;

/// Two extents that claim the same memory. The one that starts first is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The one that is in the map.
    pub kept: Extent,
    /// The one that is not.
    pub dropped: Extent,
}

/// Extents on their way into a [`HeapMap`].
pub struct MapBuilder {
    page_shift: u32,
    extents: Vec<Extent>,
    chunks: Vec<Chunks>,
}

impl MapBuilder {
    /// Overlaps that are kept as examples; the rest is counted.
    pub const MAX_OVERLAPS: usize = 64;
    /// A gap of more pages than this starts a new directory range.
    const MAX_DIRECTORY_GAP: u64 = 1 << 16;

    /// A builder for a heap whose extents mostly begin at multiples of `1 << page_shift`.
    pub fn new(page_shift: u32) -> Self {
        Self {
            page_shift: page_shift.clamp(9, 40),
            extents: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Adds a run of chunks.
    pub fn add_chunks(&mut self, start: Address, bytes: u64, chunks: Chunks) {
        let Ok(table) = u32::try_from(self.chunks.len()) else {
            return;
        };
        let granules = chunks.granules();
        self.chunks.push(chunks);
        let shape = Shape::Chunks { table, granules };
        self.add(Extent::new(start, bytes, shape, Owner::InUse, 0));
    }

    /// Adds an extent. Empty ones and ones past the end of the address space are left out.
    pub fn add(&mut self, extent: Extent) {
        if extent.bytes > 0 && extent.start.checked_add(extent.bytes).is_some() {
            self.extents.push(extent);
        }
    }

    /// Adds many.
    pub fn extend(&mut self, extents: impl IntoIterator<Item = Extent>) {
        extents.into_iter().for_each(|extent| self.add(extent));
    }

    /// Sorts, drops overlaps, and builds the columns. The number of overlaps comes with examples.
    pub fn finish(mut self) -> (HeapMap, Vec<Overlap>, u64) {
        self.extents
            .sort_by_key(|extent| (extent.start, std::cmp::Reverse(extent.bytes)));
        let mut overlaps = Vec::new();
        let mut overlap_count = 0u64;
        let mut last: Option<Extent> = None;
        self.extents.retain(|&extent| {
            if let Some(kept) = last.filter(|kept| extent.start < kept.end()) {
                overlap_count = overlap_count.saturating_add(1);
                if overlaps.len() < Self::MAX_OVERLAPS {
                    overlaps.push(Overlap {
                        kept,
                        dropped: extent,
                    });
                }
                return false;
            }
            last = Some(extent);
            true
        });
        self.extents.truncate(NO_ROW as usize);
        let mut blocks = 0u64;
        for extent in &mut self.extents {
            extent.first_bit = blocks;
            blocks = blocks.saturating_add(u64::from(extent.blocks()));
        }
        self.extents.shrink_to_fit();
        let map = HeapMap {
            directory: self.directory(),
            page_shift: self.page_shift,
            blocks,
            listed: Bits::new(blocks),
            disputed: Bits::new(blocks),
            lost: Bits::new(blocks),
            extents: self.extents,
            chunks: self.chunks,
        };
        (map, overlaps, overlap_count)
    }

    /// Rows by page, for the extents that start and end at page boundaries.
    fn directory(&self) -> Vec<DirectoryRange> {
        let mut ranges: Vec<DirectoryRange> = Vec::new();
        let page = 1u64 << self.page_shift;
        // A range may not grow beyond what its extents justify: at most this many entries in all.
        let mut budget = (self.extents.len() as u64)
            .saturating_mul(16)
            .saturating_add(1 << 22);
        for (row, extent) in (0u32..).zip(&self.extents) {
            if !extent.start.is_aligned(page) || !extent.bytes.is_multiple_of(page) {
                continue;
            }
            let first = extent.start.get() >> self.page_shift;
            let pages = extent.bytes >> self.page_shift;
            let open = ranges
                .last()
                .map(|range| range.first_page.saturating_add(range.rows.len() as u64));
            let gap = open.map_or(u64::MAX, |open| first.saturating_sub(open));
            let fresh = gap > Self::MAX_DIRECTORY_GAP;
            let gap = if fresh { 0 } else { gap };
            let Some(rest) = budget.checked_sub(pages.saturating_add(gap)) else {
                continue; // found by binary search instead
            };
            budget = rest;
            if fresh {
                ranges.push(DirectoryRange {
                    first_page: first,
                    rows: Vec::new(),
                });
            }
            if let (Some(range), Ok(gap), Ok(pages)) = (
                ranges.last_mut(),
                usize::try_from(gap),
                usize::try_from(pages),
            ) {
                let length = range.rows.len();
                range.rows.resize(length.saturating_add(gap), NO_ROW);
                range
                    .rows
                    .resize(length.saturating_add(gap).saturating_add(pages), row);
            }
        }
        for range in &mut ranges {
            range.rows.shrink_to_fit();
        }
        ranges
    }
}
