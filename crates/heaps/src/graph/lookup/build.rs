//! Makes the table: bits for slots, and the root, the middles and the leaves that lead to rows.

use super::chunks::ChunkTable;
use super::{
    DIRECT, Kind, LEAF, Lookup, MAX_ROOT, MIDDLE, MIDDLE_SHIFT, NOTHING, PAGE_SHIFT, ROOT_SHIFT,
    SEARCH, TABLE, TAG,
};
use crate::map::{Bits, Chunks};

impl Lookup<'_> {
    /// Gives each slot its bit, and reads where chunks begin.
    pub(super) fn number(&mut self) {
        let mut bits = 0u64;
        for row in &mut self.rows {
            row.first_bit = bits;
            let count = match &mut row.kind {
                Kind::Own => 0,
                Kind::Single | Kind::Mapping => 1,
                Kind::Slab { count, .. } => *count,
                Kind::Chunks { table } => {
                    let map = self.maps.get(row.heap as usize);
                    let chunks = map.and_then(|map| map.chunks(map.extent(row.map_row)?));
                    let granules = chunks.map_or(0, Chunks::granules);
                    *table = u32::try_from(self.tables.len()).unwrap_or(u32::MAX);
                    if let Some(chunks) = chunks {
                        self.tables.push(ChunkTable::read(chunks));
                    } else {
                        row.kind = Kind::Own;
                    }
                    granules
                }
            };
            bits = bits.saturating_add(count.into());
        }
        self.bits = bits;
    }

    /// Notes what is in use.
    pub(super) fn note_live(&mut self) {
        self.live = Bits::new(self.bits);
        for (index, row) in self.rows.iter().enumerate().filter(|(_, row)| row.may_live) {
            if row.kind == Kind::Mapping {
                self.live.set(row.first_bit);
                continue;
            }
            let after = self.rows.get(index.saturating_add(1));
            let end = after.map_or(self.bits, |after| after.first_bit);
            let Some(map) = self.maps.get(row.heap as usize) else {
                continue;
            };
            for slot in (0..end.saturating_sub(row.first_bit)).step_by(64) {
                let run = map.in_use_run(row.map_row, u32::try_from(slot).unwrap_or(u32::MAX));
                self.live.set_run(row.first_bit.saturating_add(slot), run);
            }
        }
    }

    /// Builds the root, the middles and the leaves.
    pub(super) fn fill(&mut self) {
        let most_leaves = (self.rows.len() / 8).saturating_add(65_536);
        self.first_region = self.lowest >> ROOT_SHIFT;
        let regions = (self.highest >> ROOT_SHIFT)
            .saturating_sub(self.first_region)
            .saturating_add(1);
        self.root = vec![NOTHING; usize::try_from(regions.min(MAX_ROOT)).unwrap_or(0)];
        for (index, row) in (0u32..).zip(&self.rows) {
            let (start, last) = (
                row.start,
                row.start.saturating_add(row.bytes.saturating_sub(1)),
            );
            for region in start >> ROOT_SHIFT..=last >> ROOT_SHIFT {
                let place = usize::try_from(region.saturating_sub(self.first_region)).ok();
                let Some(entry) = place.and_then(|place| self.root.get_mut(place)) else {
                    break; // searched for
                };
                if covers(start, last, region, ROOT_SHIFT) {
                    *entry = DIRECT | index;
                    continue;
                }
                let Some(middle) = table_of(entry, &mut self.middles, usize::MAX) else {
                    continue;
                };
                let first = region << ROOT_SHIFT;
                let piece =
                    start.max(first)..=last.min(first.saturating_add((1 << ROOT_SHIFT) - 1));
                for mega in piece.start() >> MIDDLE_SHIFT..=piece.end() >> MIDDLE_SHIFT {
                    let Some(entry) = at_mut(middle, mega, MIDDLE) else {
                        continue;
                    };
                    if covers(start, last, mega, MIDDLE_SHIFT) {
                        *entry = DIRECT | index;
                        continue;
                    }
                    let Some(leaf) = table_of(entry, &mut self.leaves, most_leaves) else {
                        continue;
                    };
                    let first = mega << MIDDLE_SHIFT;
                    let piece =
                        start.max(first)..=last.min(first.saturating_add((1 << MIDDLE_SHIFT) - 1));
                    for page in piece.start() >> PAGE_SHIFT..=piece.end() >> PAGE_SHIFT {
                        if let Some(entry) = at_mut(leaf, page, LEAF)
                            && *entry == NOTHING
                        {
                            *entry = DIRECT | index;
                        }
                    }
                }
            }
        }
    }
}

/// Whether start..=last covers this whole piece of `1 << shift` bytes.
fn covers(start: u64, last: u64, piece: u64, shift: u32) -> bool {
    let first = piece << shift;
    start <= first && last >= first.saturating_add((1u64 << shift).saturating_sub(1))
}

fn at_mut<const N: usize>(table: &mut [u32; N], index: u64, size: usize) -> Option<&mut u32> {
    table.get_mut(usize::try_from(index).ok()?.checked_rem(size).unwrap_or(0))
}

/// The table that an entry leads to, made if there is none yet and not too many already.
fn table_of<'a, const N: usize>(
    entry: &mut u32,
    tables: &'a mut Vec<[u32; N]>,
    most: usize,
) -> Option<&'a mut [u32; N]> {
    if *entry == NOTHING {
        if tables.len() >= most.min(1 << 24) {
            *entry = SEARCH;
            return None;
        }
        *entry = TABLE | u32::try_from(tables.len()).ok()?;
        tables.push([NOTHING; N]);
    }
    match *entry & TAG {
        TABLE => tables.get_mut((*entry & !TAG) as usize),
        _ => None,
    }
}
