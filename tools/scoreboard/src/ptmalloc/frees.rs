//! Frees that should not have been, as `_int_free` and `tcache_put` of the release carry them out where none of its
//! checks sees them.

use heapcheck::checks::finding::FindingKind;

use super::ground::{Chunk, Ground, Kind, List, State};
use super::layout::{HEADER, LARGE, P};
use super::truth::Writes;
use crate::plant::{Plant, Truth};

/// Largest chunk of the caches and of the fastbins, as the tunables stand.
const CACHED: u64 = 0x410;
const FAST: u64 = 0x80;

fn word(at: u64, value: u64) -> (u64, Vec<u8>) {
    (at, value.to_le_bytes().to_vec())
}

impl Ground<'_> {
    /// Puts a block into a thread's cache. `None` if there is no room, or the list is being changed.
    fn cache(&self, cache: u64, block: u64, size: u64) -> Option<Writes> {
        let number = (size - 0x20) / 16;
        let head = cache + self.layout.entries() + 8 * number;
        let count = cache + 2 * number;
        let counted = self.half(count)?;
        let first = self.word(head)?;
        let limit = self.cache_limit();
        let (room, next) = if self.layout.counts_down() {
            (counted > 0, counted.wrapping_sub(1))
        } else {
            (counted < limit, counted + 1)
        };
        let is_empty = first == 0 && [0, limit].contains(&counted);
        if !room || size > CACHED || !is_empty && self.list_at(head).is_none() {
            return None;
        }
        Some(vec![
            word(block, self.layout.link(block, first)),
            word(block + 8, self.key(cache)?),
            word(head, block),
            (count, next.to_le_bytes().to_vec()),
        ])
    }

    /// Puts a chunk at the front of its fastbin.
    fn fast(&self, arena: u64, chunk: u64, size: u64) -> Option<Writes> {
        let head = arena + self.layout.fastbins? + 8 * (size / 16 - 2);
        let first = self.word(head)?;
        if size > FAST || first == chunk || first != 0 && self.list_at(head).is_none() {
            return None;
        }
        Some(vec![
            word(chunk + HEADER, self.layout.link(chunk + HEADER, first)),
            word(head, chunk),
            (arena + 8, vec![1, 0, 0, 0]), // have_fastchunks
        ])
    }

    /// Puts a chunk whose neighbours are both in use at the front of the unsorted bin, or of its small one.
    fn bin(&self, chunk: Chunk) -> Option<Writes> {
        let (at, size) = (chunk.at, chunk.size);
        let next = self.word(chunk.end() + 8)?;
        let (index, _) = self.holding(chunk.end())?;
        let after = self.chunks[index];
        let last = self.word(after.end() + 8)?;
        let alone = self.word(at + 8)? & P != 0 && next & P != 0 && last & P != 0;
        if !alone || after.state == State::Unknown || self.layout.fastbins.is_some() && size <= FAST
        {
            return None;
        }
        let at_once = self.layout.bins_small_at_once() && size < LARGE;
        let number = if at_once { size / 16 } else { 1 };
        let bin = self.arenas[chunk.arena] + self.layout.bin(number);
        let first = self.word(bin + 16)?;
        if first != bin && self.list_at(bin + 16).is_none() {
            return None;
        }
        let mut writes = vec![
            word(at + 16, first),
            word(at + 24, bin),
            word(bin + 16, at),
            word(first + 24, at),
            word(at + 8, size | P),
            word(chunk.end(), size),
            word(chunk.end() + 8, next & !P),
        ];
        if at_once {
            let map = self.arenas[chunk.arena] + self.layout.binmap() + number / 32 * 4;
            let byte = map + number % 32 / 8;
            let marks = self.half(byte & !1)?.to_le_bytes()[(byte & 1) as usize];
            writes.push((byte, vec![marks | 1 << (number % 8)]));
        }
        if size >= LARGE {
            writes.push(word(at + 32, 0));
            writes.push(word(at + 40, 0));
        }
        Some(writes)
    }

    fn some_cache(&self, rng: &mut fastrand::Rng) -> Option<u64> {
        let index = rng.usize(..self.caches.len().max(1));
        self.caches.get(index).copied()
    }

    /// A listed chunk: the list, its position and it.
    fn some_entry(&self, kind: Kind, rng: &mut fastrand::Rng) -> Option<(&List, usize, Chunk)> {
        let (_, list) = self.some_list(kind, rng)?;
        let position = if rng.bool() {
            0
        } else {
            rng.usize(..list.entries.len())
        };
        let index = self.index_of(list.entries[position])?;
        Some((list, position, self.chunks[index]))
    }

    /// A plant of a block that is in a list and was freed again; `counted`: the list knows how many it has lost.
    fn again(
        &self,
        (list, position, chunk): (&List, usize, Chunk),
        counted: bool,
        into: &str,
        writes: Writes,
    ) -> Plant {
        let mut truth = Truth::at(FindingKind::DoubleFree, chunk.block());
        truth.lost = counted.then(|| (list.entries.len() - 1 - position) as u64);
        Plant {
            story: format!(
                "{:#x} ({:#x}), entry {position} of {} of the {:?} {} at {:#x}, freed into {into}",
                chunk.block(),
                chunk.size,
                list.entries.len(),
                list.kind,
                list.number,
                list.head,
            ),
            writes,
            truth,
        }
    }
}

/// A block of a cache freed again by the same thread. Its key was written over in between, or `free` had seen it.
pub fn same_cache(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..100).find_map(|_| {
        let entry = ground.some_entry(Kind::Cache, rng)?;
        let (list, _, chunk) = entry;
        let cache = ground.caches.iter().find(|cache| **cache == list.holder)?;
        let writes = ground.cache(*cache, chunk.block(), chunk.size)?;
        Some(ground.again(entry, true, "the same list", writes))
    })
}

/// A block of one thread's cache freed by another thread, whose own list does not have it.
pub fn other_cache(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..100).find_map(|_| {
        let entry = ground.some_entry(Kind::Cache, rng)?;
        let (list, _, chunk) = entry;
        let cache = ground.some_cache(rng)?;
        let writes = ground.cache(cache, chunk.block(), chunk.size)?;
        let apart = cache != list.holder;
        apart.then(|| ground.again(entry, true, &format!("the cache {cache:#x}"), writes))
    })
}

/// A block in a cache and in a fastbin: freed by a thread whose cache was full, or out of a fastbin into a cache.
pub fn cache_and_fastbin(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..100).find_map(|_| {
        if rng.bool() {
            let entry = ground.some_entry(Kind::Cache, rng)?;
            let (_, _, chunk) = entry;
            let writes = ground.fast(ground.arenas[chunk.arena], chunk.at, chunk.size)?;
            return Some(ground.again(entry, true, "its fastbin", writes));
        }
        let entry = ground.some_entry(Kind::Fast, rng)?;
        let (_, _, chunk) = entry;
        let cache = ground.some_cache(rng)?;
        let writes = ground.cache(cache, chunk.block(), chunk.size)?;
        Some(ground.again(entry, false, &format!("the cache {cache:#x}"), writes))
    })
}

/// A fastbin's chunk freed again while another is at the front.
pub fn fastbin(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..100).find_map(|_| {
        let entry = ground.some_entry(Kind::Fast, rng)?;
        let (list, _, chunk) = entry;
        let writes = ground.fast(list.holder, chunk.at, chunk.size)?;
        Some(ground.again(entry, false, "the same fastbin", writes))
    })
}

/// A block in a cache and in a bin.
pub fn cache_and_bin(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..100).find_map(|_| {
        if rng.bool() {
            let entry = ground.some_entry(Kind::Cache, rng)?;
            let (_, _, chunk) = entry;
            let writes = ground.bin(chunk)?;
            return Some(ground.again(entry, true, "a bin", writes));
        }
        let entry = ground.some_entry(Kind::Bin, rng)?;
        let (_, _, chunk) = entry;
        let cache = ground.some_cache(rng)?;
        let writes = ground.cache(cache, chunk.block(), chunk.size)?;
        Some(ground.again(entry, false, &format!("the cache {cache:#x}"), writes))
    })
}

/// Sizes that data in front of a freed pointer may look like.
fn some_size(rng: &mut fastrand::Rng, most: u64) -> (u64, u64) {
    let size = (rng.u64(2..=most / 16)) * 16;
    (size, rng.u64(..2))
}

/// A pointer into a block, in front of which the program's data looks like a size.
pub fn inner_pointer(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    (0..400).find_map(|_| {
        let chunk = ground.some_used(rng)?;
        let room = chunk.size.checked_sub(0x40)?;
        let block = chunk.block() + 16 + rng.u64(..=room / 16) * 16;
        // Malloc takes it if the data in front of it can be a size; a fastbin asks for the next one, too.
        let (size, flags) = some_size(rng, 0x200);
        let mut writes = vec![word(block - 8, size | flags)];
        let to_fastbin = rng.u8(..100) < 30 && size <= FAST;
        let (into, more) = if to_fastbin {
            let next = block - HEADER + size + 8;
            if next + 8 > chunk.block_end() {
                return None;
            }
            writes.push(word(next, 0x20 + rng.u64(..8) * 16));
            // Without the mark of other arenas it is taken for one of the main arena's.
            let main = *ground.arenas.first()?;
            ("a fastbin", ground.fast(main, block - HEADER, size)?)
        } else {
            let cache = ground.some_cache(rng)?;
            ("a cache", ground.cache(cache, block, size)?)
        };
        writes.extend(more);
        let mut truth = Truth::at(FindingKind::MisalignedFreeEntry, block);
        truth.lost = Some(0);
        Some(Plant {
            story: format!(
                "{:#x} + {} ({:#x}) freed as {size:#x} into {into}",
                chunk.block(),
                block - chunk.block(),
                chunk.size
            ),
            writes,
            truth,
        })
    })
}

/// The address of a variable, in front of which data looks like a size.
pub fn variable(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let program = ground
        .target
        .modules
        .iter()
        .find(|module| module.is_executable)?;
    let areas: Vec<_> = ground.target.memory.regions().iter().collect();
    (0..400).find_map(|_| {
        let area = areas.get(rng.usize(..areas.len().max(1)))?;
        let inside = program.range.contains(&area.range.start) && ground.is_shared;
        let room = area.present_bytes.checked_sub(0x100)?;
        if !inside || !area.writable {
            return None;
        }
        let block = (area.range.start.get() + rng.u64(..room) + 16) & !15;
        // Nobody else's words must be hit: variables that are still zero.
        for at in (block - 16..block + 32).step_by(8) {
            if ground.word(at)? != 0 {
                return None;
            }
        }
        let (size, flags) = some_size(rng, 0x200);
        let cache = ground.some_cache(rng)?;
        let mut writes = vec![word(block - 8, size | flags)];
        writes.extend(ground.cache(cache, block, size)?);
        let mut truth = Truth::at(FindingKind::InvalidFreeEntry, block);
        truth.lost = Some(0);
        Some(Plant {
            story: format!("the variable {block:#x} freed as {size:#x} into the cache {cache:#x}"),
            writes,
            truth,
        })
    })
}
