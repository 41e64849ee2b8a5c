//! Memory that jemalloc filled, where an option made it do so: whoever changed it since did not own it.
//!
//! | option | filled with | where |
//! |---|---|---|
//! | `junk:true` | 0x5a | a block that is free |
//! | | 0xa5 | a block that is handed out: what the program did not ask for keeps it |
//! | `--enable-opt-safety-checks` | 0xbc | 32 bytes behind a sampled small block |
//!
//! Whether it does so is told by [`options`]; where nothing tells, by what most blocks show, those in use and those that are
//! free. A block that moved in `realloc` is not filled when it becomes free, and memory that was never handed out holds
//! anything: only blocks that are filled for the most part, and were handed out before, are looked at.
//!
//! A region that a slab has as free, or a cache as it was filled from a slab, was perhaps never handed out since the slab was
//! made. Where memory was given back before, it then holds parts of other blocks: filled ones, such as were never used, and, if blocks
//! moved in `realloc`, any bytes. Those parts begin and end where regions do, at multiples of 16 bytes (of 8 in slabs of the
//! smallest class), so a change that does is no evidence there.
//!
//! With `junk:free` alone, what 5.3 moved in `realloc` may hold both, the program's bytes and what an earlier free left behind
//! them. So a changed block is one there only if no free block shows that blocks were moved, and its first word is as it was
//! filled: programs write blocks from their start on.

use super::JemallocHeap;
use super::extents::{Row, State};
use super::options;
use super::sizes::SmallClass;
use crate::anomaly::{Anomaly, AnomalyKind};
use crate::map::{Block, BlockId, BlockState, HeapMap};
use ground::parallel;
use ground::target::{Address, Cursor, MemoryExt};

/// What free blocks are filled with.
pub(super) const FREED: u8 = 0x5a;
/// What blocks are filled with that are handed out.
pub(super) const HANDED_OUT: u8 = 0xa5;
const RED_ZONE: u8 = 0xbc;
/// Bytes of a red zone.
const RED_ZONE_BYTES: u64 = 32;
/// Bytes of a block that are looked at.
const MAX_BYTES: u64 = 1 << 16;
/// Cached blocks that are looked at to tell whether free ones are filled.
const SAMPLES: usize = 2048;
/// Bytes that must be left of a filling.
const MIN_LEFT: u64 = 8;
/// Filled blocks for each that is not: a program may write that value itself, and what moved in `realloc` is not filled.
const CLEARLY: usize = 4;
/// Changed fillings that are said.
const MAX_ANOMALIES: usize = 64;

/// What a piece of memory that should hold one value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// That value, or the core does not have it.
    Filled,
    /// It was never filled, or hardly anything is left of it.
    Other,
    /// Another value from here on, over so many bytes.
    Changed(Address, u64),
}

/// How many of a cache's blocks, the last ones, may still be those that it was filled with: they come from slabs in the order of
/// their addresses. What was freed since lies in front of them.
fn filled_from_slab(blocks: &[Block]) -> usize {
    let in_order = |pair: &&[Block]| {
        let [first, second] = pair else {
            return false;
        };
        first.id.extent != second.id.extent || first.address < second.address
    };
    let pairs = blocks.windows(2).rev().take_while(in_order).count();
    pairs.saturating_add(1).min(blocks.len())
}

/// Whether the first word of a block is as it was filled.
fn keeps_start(kind: &AnomalyKind) -> bool {
    match kind {
        AnomalyKind::Filling { block, at, .. } => at
            .offset_from(block.address)
            .is_some_and(|offset| offset >= 8),
        _ => true,
    }
}

impl JemallocHeap<'_> {
    /// Free blocks, ends of blocks and red zones that somebody wrote to.
    pub(super) fn changed_fillings(&self, map: &HeapMap) -> Vec<Anomaly> {
        let mut found = self.changed_red_zones(map);
        let tails = self.changed_tails(map);
        let (filled, other) = self.filled_free_blocks(map);
        let told = match tails.is_empty() && filled == 0 {
            true => None,
            false => options::junk(self.target, self.module),
        };
        if told.is_none_or(|junk| junk.new) {
            found.extend(tails);
        }
        let mostly = filled > other.saturating_mul(CLEARLY);
        let fills = match told {
            Some(junk) => junk.freed && (junk.certain || mostly),
            None => mostly && self.fills_new_blocks(map),
        };
        if filled > 0 && fills {
            let reuses = self.reuses_memory();
            let is_part = |kind: &AnomalyKind| reuses && self.is_part(kind, other > 0);
            let mut freed = self.changed_cached(map, &is_part);
            freed.extend(self.changed_in_slabs(map, &is_part));
            if told.is_some_and(|junk| !junk.new) && self.located.layout.generation.is_5_3() {
                freed.retain(|kind| other == 0 && keeps_start(kind));
            }
            found.extend(freed);
        }
        found.sort_by_key(|kind| match kind {
            AnomalyKind::Filling { block, .. } => block.address,
            _ => Address::default(),
        });
        found.dedup();
        found.truncate(MAX_ANOMALIES);
        found.into_iter().map(Anomaly::new).collect()
    }

    /// Whether a free block is filled for the most part.
    pub(super) fn is_filled(&self, block: Block) -> bool {
        self.content(block.address, block.bytes, FREED, block.bytes / 2) != Content::Other
    }

    /// Of some free blocks that were handed out before: how many are filled, and how many are not.
    fn filled_free_blocks(&self, map: &HeapMap) -> (usize, usize) {
        // Blocks that were never handed out hold zeros, as the system gave them.
        let (mut filled, mut other) = (0usize, 0usize);
        let in_slabs = self.located.extents.rows.iter().flat_map(|row| {
            let slots = self.slab_class(row).map(|cut| self.freed_slots(row, cut));
            let extent = map.row_at(row.start());
            let ids = slots.into_iter().flatten().zip(std::iter::repeat(extent));
            ids.filter_map(|(slot, extent)| {
                map.block(BlockId {
                    extent: extent?,
                    slot,
                })
            })
        });
        let cached = self.cached_blocks(map).take(SAMPLES);
        for block in cached.chain(in_slabs.take(SAMPLES)) {
            match self.content(block.address, block.bytes, FREED, MIN_LEFT) {
                Content::Filled | Content::Changed(..) => filled = filled.saturating_add(1),
                Content::Other
                    if self.content(block.address, block.bytes, 0, MIN_LEFT) == Content::Filled => {
                }
                Content::Other => other = other.saturating_add(1),
            }
        }
        (filled, other)
    }

    /// Whether blocks in use end in what new ones are filled with: hardly any program writes every block to its last byte. One
    /// that fills its own memory with 0x5a, and gives it back changed here and there, has no such blocks.
    fn fills_new_blocks(&self, map: &HeapMap) -> bool {
        const LOOKED_AT: usize = 1 << 14;
        const ENOUGH: usize = 4;
        const END: u64 = 4;
        let rows = self.located.extents.rows.iter();
        let in_slabs =
            rows.filter_map(|row| Some((self.slab_class(row)?, map.row_at(row.start())?)));
        let blocks = in_slabs.flat_map(|(cut, extent)| {
            (0..cut.regions).filter_map(move |slot| map.block(BlockId { extent, slot }))
        });
        let filled = blocks.take(LOOKED_AT).filter(|block| {
            let end = block.bytes.checked_sub(END);
            let end = end.and_then(|end| block.address.checked_add(end));
            map.state(block.id) == BlockState::InUse
                && end.is_some_and(|end| {
                    self.target.memory.read_u32(end) == Ok(u32::from_ne_bytes([HANDED_OUT; 4]))
                })
        });
        filled.take(ENOUGH).count() == ENOUGH
    }

    /// Slots of a slab that are free, below the highest one that is not: regions are handed out lowest first, so these
    /// were.
    fn freed_slots(&self, row: &Row, cut: &SmallClass) -> Vec<u32> {
        let mut free = Vec::new();
        let mut highest = 0;
        for (first, word) in self.bitmap(row, cut.regions) {
            let Some(word) = word else {
                return Vec::new();
            };
            let left = cut.regions.saturating_sub(first).min(64);
            for bit in 0..left {
                if word >> bit & 1 == 1 {
                    free.push(first.saturating_add(bit));
                } else {
                    highest = first.saturating_add(bit);
                }
            }
        }
        free.retain(|slot| *slot < highest);
        free
    }

    /// Blocks that caches of threads outside the allocator hold.
    fn cached_blocks<'m>(&'m self, map: &'m HeapMap) -> impl Iterator<Item = Block> + 'm {
        let bins = self.caches.iter().flat_map(|cache| &cache.bins);
        bins.flat_map(move |bin| {
            self.entries(bin).filter_map(move |(_, entry)| {
                let id = super::follow::admit(map, bin.class, entry?)?;
                map.block(id)
            })
        })
    }

    fn changed_cached(
        &self,
        map: &HeapMap,
        is_part: &impl Fn(&AnomalyKind) -> bool,
    ) -> Vec<AnomalyKind> {
        let mut found = Vec::new();
        for cache in &self.caches {
            let mut changed = Vec::new();
            for bin in &cache.bins {
                let blocks: Vec<Block> = self
                    .entries(bin)
                    .filter_map(|(_, entry)| {
                        map.block(super::follow::admit(map, bin.class, entry?)?)
                    })
                    .collect();
                let freed = blocks.len().saturating_sub(filled_from_slab(&blocks));
                for (index, block) in blocks.into_iter().enumerate() {
                    let change = self.changed_block(block);
                    changed.extend(change.filter(|kind| index < freed || !is_part(kind)));
                }
            }
            // A block on its way in is filled before it is entered, one on its way out is not free any more.
            if !changed.is_empty() && self.cache_busy(cache.user).is_none() {
                found.extend(changed);
            }
        }
        found
    }

    fn changed_block(&self, block: Block) -> Option<AnomalyKind> {
        match self.content(block.address, block.bytes, FREED, MIN_LEFT) {
            Content::Changed(at, bytes) => Some(AnomalyKind::Filling {
                block,
                at,
                bytes,
                fill: FREED,
                freed: true,
            }),
            _ => None,
        }
    }

    /// Free blocks of slabs that were handed out before.
    fn changed_in_slabs(
        &self,
        map: &HeapMap,
        is_part: &impl Fn(&AnomalyKind) -> bool,
    ) -> Vec<AnomalyKind> {
        let rows = &self.located.extents.rows;
        let found = parallel::map(rows, |row| match self.slab_class(row) {
            Some(cut) => self.changed_in_slab(map, row, cut),
            None => Vec::new(),
        });
        let found = found.into_iter().flatten();
        let found: Vec<AnomalyKind> = found.filter(|kind| !is_part(kind)).collect();
        if found.is_empty() || self.somebody_inside().is_some() {
            return Vec::new();
        }
        found
    }

    fn changed_in_slab(&self, map: &HeapMap, row: &Row, cut: &SmallClass) -> Vec<AnomalyKind> {
        let Some(extent) = map.row_at(row.start()) else {
            return Vec::new();
        };
        self.freed_slots(row, cut)
            .into_iter()
            .filter_map(|slot| self.changed_block(map.block(BlockId { extent, slot })?))
            .collect()
    }

    /// Whether a change may be a part of what was there before the slab was made: nothing but zeros, or, where blocks have
    /// `moved`, anything; it begins and ends where regions of another slab may have.
    fn is_part(&self, kind: &AnomalyKind, moved: bool) -> bool {
        const REGION: u64 = 16;
        const SMALLEST: u64 = 8;
        let AnomalyKind::Filling { at, bytes, .. } = kind else {
            return false;
        };
        let bounded = |step| at.get().is_multiple_of(step) && bytes.is_multiple_of(step);
        bounded(REGION) && moved || bounded(SMALLEST) && self.is_zero_or_filled(*at, *bytes)
    }

    /// Whether words hold zeros, or are as they were filled.
    fn is_zero_or_filled(&self, at: Address, bytes: u64) -> bool {
        const FILLED: u64 = u64::from_ne_bytes([FREED; 8]);
        let mut cursor = Cursor::new(self.target.memory);
        (0..bytes.min(MAX_BYTES)).step_by(8).all(|offset| {
            let word = cursor.read_u64(at.saturating_add(offset));
            matches!(word, Ok(0 | FILLED))
        })
    }

    /// Whether memory of some slab may have been another one's before: a slab was given back, or there is free memory that was used.
    fn reuses_memory(&self) -> bool {
        let word = |at: Address| self.target.memory.read_u64(at).unwrap_or(0);
        let current = self.located.layout.bin.slabs;
        self.located.extents.rows.iter().any(|row| {
            if matches!(row.state, State::Dirty | State::Muzzy) {
                return true;
            }
            // Slabs ever made stand two words before those that there are.
            let bin = self.slab_class(row).and_then(|_| self.bin_of(row));
            bin.is_some_and(|bin| {
                let there = word(bin.at.saturating_add(current));
                let made = word(bin.at.saturating_add(current.saturating_sub(16)));
                made == 0 || made != there
            })
        })
    }

    /// Ends of sampled blocks behind what the program asked for.
    fn changed_tails(&self, map: &HeapMap) -> Vec<AnomalyKind> {
        let samples = self.samples().filter_map(|(row, sample)| {
            let block = self.sampled_block(map, row)?;
            let asked = sample.requested?;
            let at = block.address.checked_add(asked)?;
            /// Ends are short; what is left must be all that follows.
            const MIN_LEFT: u64 = 4;
            let length = block.bytes.checked_sub(asked)?;
            match self.content(at, length, HANDED_OUT, MIN_LEFT) {
                // A write past the end begins there.
                Content::Changed(first, bytes)
                    if first == at && length.saturating_sub(bytes) >= MIN_LEFT =>
                {
                    Some(AnomalyKind::Filling {
                        block,
                        at,
                        bytes,
                        fill: HANDED_OUT,
                        freed: false,
                    })
                }
                _ => None,
            }
        });
        samples.collect()
    }

    /// Red zones behind sampled small blocks.
    fn changed_red_zones(&self, map: &HeapMap) -> Vec<AnomalyKind> {
        let samples = self.samples().filter_map(|(row, _)| {
            self.located.sizes.small(row.class)?;
            let block = self.sampled_block(map, row)?;
            let at = block.address.checked_add(block.bytes)?;
            match self.content(at, RED_ZONE_BYTES, RED_ZONE, MIN_LEFT) {
                Content::Changed(first, bytes) => Some(AnomalyKind::Filling {
                    block,
                    at: first,
                    bytes,
                    fill: RED_ZONE,
                    freed: false,
                }),
                _ => None,
            }
        });
        samples.collect()
    }

    fn sampled_block(&self, map: &HeapMap, row: &Row) -> Option<Block> {
        let (block, offset) = map.block_at(row.address)?;
        (offset == 0 && map.state(block.id) == BlockState::InUse).then_some(block)
    }

    /// What memory holds that should hold `fill` in every byte.
    fn content(&self, at: Address, bytes: u64, fill: u8, min_left: u64) -> Content {
        let bytes = bytes.min(MAX_BYTES);
        let mut cursor = Cursor::new(self.target.memory);
        // Most memory was never filled: the last bytes tell, or those in the middle.
        let whole = u64::from_ne_bytes([fill; 8]);
        let mut is_left = |offset: u64| {
            let at = at.saturating_add(offset);
            cursor.read_u64(at).map_or(true, |word| word == whole)
        };
        if bytes >= 64
            && !is_left(bytes.saturating_sub(8))
            && !is_left(bytes / 2)
            && !is_left(bytes / 4)
            && !is_left(0)
        {
            return Content::Other;
        }
        let (mut left, mut first, mut last) = (0u64, None, 0u64);
        let mut index = 0;
        while index < bytes {
            let here = at.saturating_add(index);
            if bytes.saturating_sub(index) >= 8 && cursor.read_u64(here) == Ok(whole) {
                left = left.saturating_add(8);
                index = index.saturating_add(8);
                continue;
            }
            let Ok(byte) = self.target.memory.read_u8(here) else {
                return Content::Filled;
            };
            if byte == fill {
                left = left.saturating_add(1);
            } else {
                first.get_or_insert(index);
                last = index;
            }
            index = index.saturating_add(1);
        }
        match first {
            None => Content::Filled,
            Some(first) if left >= min_left && left >= bytes / 4 => Content::Changed(
                at.saturating_add(first),
                last.saturating_sub(first).saturating_add(1),
            ),
            Some(_) => Content::Other,
        }
    }
}
