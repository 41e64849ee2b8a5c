//! Writes of a program that went wrong to blocks. Nothing of jemalloc's lies among them: they contradict something only
//! where free memory is filled.

use std::collections::BTreeSet;

use heapcheck::checks::finding::FindingKind;

use super::FREED;
use super::ground::{Ground, Spot};
use crate::plant::{Evidence, Plant, Truth};
use crate::words::text;

/// Bytes of a filling that no other explanation has any more: a block that moved in `realloc` is not filled, and holds
/// whatever the program left.
const TELLING: usize = 8;

/// A free block whose filling was changed.
struct Changed {
    block: u64,
    /// From its first byte on.
    from_start: bool,
    /// How much of the filling is left.
    left: usize,
    busy: bool,
}

impl Ground<'_> {
    /// Free blocks whose filling a write changes.
    fn changed(&self, at: u64, bytes: &[u8]) -> Option<Vec<Changed>> {
        let before = self.bytes(at, bytes.len() as u64)?;
        let mut starts = BTreeSet::new();
        for (index, (old, new)) in (0..).zip(before.iter().zip(bytes)) {
            let here = at + index;
            if old != new
                && let Spot::Region(_, start, free) = self.spot(here)
            {
                let cached = self.cached.contains_key(&start);
                if (free || cached) && self.is_all_filled(start) {
                    starts.insert(start);
                }
            }
        }
        let blocks = starts.into_iter().map(|block| {
            let size = self
                .extent_at(block)
                .map_or(8, |extent| self.block_bytes(extent));
            let mut content = self.bytes(block, size)?;
            for (place, byte) in (at..).zip(bytes) {
                if let Some(index) = place.checked_sub(block)
                    && let Some(old) = content.get_mut(index as usize)
                {
                    *old = *byte;
                }
            }
            let cache = self
                .cached
                .get(&block)
                .map(|(cache, _)| &self.caches[*cache]);
            Some(Changed {
                block,
                from_start: content[0] != FREED,
                left: content.iter().filter(|byte| **byte == FREED).count(),
                busy: cache.map_or(self.busy || self.is_new(block), |cache| cache.busy),
            })
        });
        blocks.collect()
    }

    /// Whether a free region may never have been handed out since its slab was made: what it holds was there before.
    /// Regions are handed out lowest first.
    fn is_new(&self, block: u64) -> bool {
        let Some(extent) = self.extent_at(block) else {
            return true;
        };
        let bytes = self.block_bytes(extent);
        let region = (block - extent.address) / bytes;
        (region..self.regions(extent)).all(|region| self.is_marked_free(extent, region))
    }

    /// What is true of a write: nothing is to be seen if no filling changed. Where it changed from the first byte on and
    /// the block before is in use, it may as well come from there.
    fn written(&self, at: u64, bytes: Vec<u8>, kind: FindingKind, story: String) -> Option<Plant> {
        let changed = if self.junk {
            self.changed(at, &bytes)?
        } else {
            Vec::new()
        };
        let mut truth = Truth::silence();
        if let Some(first) = changed.first() {
            let certain = |changed: &Changed| changed.left >= TELLING && !changed.busy;
            truth.evidence = if changed.iter().any(certain) {
                Evidence::Present
            } else {
                Evidence::Open
            };
            truth.kinds = vec![kind];
            truth.addresses = changed
                .iter()
                .map(|changed| (changed.block, changed.block + 1))
                .collect();
            let behind_used = matches!(self.spot(first.block - 1), Spot::Region(_, start, false)
                if !self.cached.contains_key(&start));
            if first.from_start && behind_used {
                truth.kinds = vec![FindingKind::HeapOverrun, FindingKind::UseAfterFreeWrite];
            }
        }
        Some(Plant {
            story,
            writes: vec![(at, bytes)],
            truth,
        })
    }

    /// Past the end of a block in use: one NUL, another byte, text.
    pub(super) fn overrun(&self, what: usize, rng: &mut fastrand::Rng) -> Option<Plant> {
        let behind_free = |rng: &mut fastrand::Rng| {
            (0..100)
                .map_while(|_| self.some_used(rng))
                .find(|(at, bytes, extent)| {
                    let end = at + bytes;
                    let free = match self.spot(end) {
                        Spot::Region(_, start, free) => free || self.cached.contains_key(&start),
                        _ => false,
                    };
                    extent.slab && free
                })
        };
        let chosen = if rng.u8(..100) < 85 {
            behind_free(rng)
        } else {
            None
        };
        let (block, bytes, _) = chosen.or_else(|| self.some_used(rng))?;
        let end = block + bytes;
        let past = match what {
            0 => vec![0],
            1 => vec![rng.u8(1..)],
            _ => {
                let length = rng.usize(1..=24);
                let mut bytes = text(length, rng);
                if rng.u8(..100) < 80
                    && let Some(last) = bytes.last_mut()
                {
                    *last = 0;
                }
                bytes
            }
        };
        let story = format!(
            "{} bytes past the end of {block:#x} ({bytes} bytes): {:?}",
            past.len(),
            String::from_utf8_lossy(&past)
        );
        self.not_the_allocators(end, past.len() as u64)?;
        let mut plant = self.written(end, past, FindingKind::HeapOverrun, story)?;
        if plant.truth.evidence == Evidence::Present {
            plant.truth.culprit = Some(block);
        }
        Some(plant)
    }

    /// To a block after it was freed.
    pub(super) fn write_after_free(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let block = if !self.cached.is_empty() && rng.bool() {
            *self.cached.keys().nth(rng.usize(..self.cached.len()))?
        } else {
            self.some_marked_free(rng)?.0
        };
        let room = self.block_bytes(self.extent_at(block)?);
        let offset = rng.u64(..room / 8) * 8;
        let (what, mut bytes) = match rng.u8(..6) {
            0 => ("an int", rng.u32(..2000).to_le_bytes().to_vec()),
            1 => {
                let length = rng.usize(4..=16);
                ("text", text(length, rng))
            }
            2 => ("zeros", vec![0; rng.usize(1..=4) * 4]),
            _ => {
                let (what, word) = self.word_of_program(rng);
                (what, word.to_le_bytes().to_vec())
            }
        };
        bytes.truncate((room - offset) as usize);
        let story = format!("{what} at offset {offset} of the free {block:#x} ({room} bytes)");
        self.written(block + offset, bytes, FindingKind::UseAfterFreeWrite, story)
    }

    /// Bytes before a block: at the end of the one before it.
    pub(super) fn underrun(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let (block, _, _) = self.some_used(rng)?;
        let length = rng.u64(1..=16);
        let at = block - length;
        self.not_the_allocators(at, length)?;
        let (what, word) = self.word_of_program(rng);
        let bytes = word.to_le_bytes().into_iter().cycle().take(length as usize);
        let story = format!("{length} bytes of {what} before {block:#x}");
        self.written(at, bytes.collect(), FindingKind::UseAfterFreeWrite, story)
    }

    /// Eight bytes anywhere in heap memory.
    pub(super) fn stray_in_heap(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let extent = self.extents.get(rng.usize(..self.extents.len().max(1)))?;
        let at = extent.start() + rng.u64(..extent.bytes / 8) * 8;
        self.not_the_allocators(at, 8)?;
        let (what, word) = self.word_of_program(rng);
        let story = format!(
            "{what} ({word:#x}) at {at:#x}, extent {:#x} in state {}",
            extent.at, extent.state
        );
        self.written(
            at,
            word.to_le_bytes().to_vec(),
            FindingKind::UseAfterFreeWrite,
            story,
        )
    }

    /// `None` where the memory is a cache's array of entries, whose damage is another sort.
    fn not_the_allocators(&self, at: u64, length: u64) -> Option<()> {
        let touched = [at, at + length]
            .into_iter()
            .find_map(|at| self.extent_at(at));
        (!touched.is_some_and(|extent| self.is_array(extent))).then_some(())
    }
}
