//! Damage to bins, arenas and caches: links, identities, counts.

use heapcheck::checks::finding::FindingKind;

use super::ground::{ACTIVE, ArenaBin, Bin, Cache, Ground, Spot};
use super::numbers::{CACHE_BIN, HEAPS};
use super::{Stray, unless};
use crate::plant::{Evidence, Plant};

/// Offsets in `tcache_slow_t`: the arena.
const SLOW_ARENA: u64 = 40;

impl Ground<'_> {
    /// A word of a bin of an arena.
    pub(super) fn stray_in_bin(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let bin = self
            .bins
            .values()
            .nth(rng.usize(..self.bins.len().max(1)))?;
        let numbers = &self.numbers;
        let stats = numbers.stats;
        let (offset, what) = *[
            (numbers.current, "bin_t.slabcur"),
            (numbers.current, "bin_t.slabcur"),
            (numbers.heap, "bin_t.slabs_nonfull"),
            (numbers.heap, "bin_t.slabs_nonfull"),
            (numbers.full, "bin_t.slabs_full"),
            (stats, "bin_stats.nmalloc"),
            (stats + 8, "bin_stats.ndalloc"),
            (stats + 16, "bin_stats.nrequests"),
            (stats + 24, "bin_stats.curregs"),
            (stats + 24, "bin_stats.curregs"),
            (stats + 64, "bin_stats.curslabs"),
            (stats + 72, "bin_stats.nonfull_slabs"),
        ]
        .get(rng.usize(..12))?;
        let stray = self.stray(bin.at + offset, what, rng.u8(..3) == 0, rng)?;
        let index = offset.wrapping_sub(stats) / 8;
        let evidence = match offset {
            _ if offset == numbers.current => self.current_changed(bin, &stray),
            _ if offset == numbers.heap => {
                unless(bin.locked && self.may_be_extent(stray.new), true)
            }
            _ if offset == numbers.full => Evidence::Open,
            _ if !self.keeps_statistics(bin.at) => Evidence::Absent,
            _ if index < 2 => self.flow_changed(bin, offset, stray.new),
            _ if index == 3 => unless(bin.locked || self.busy, true),
            _ if index == 2 => Evidence::Absent,
            // Slabs that became empty are counted before they are gone.
            _ => unless(self.busy || bin.locked, true),
        };
        let mut plant = stray.plant(evidence, vec![(bin.at, bin.at + numbers.bin)]);
        plant.story += &format!(", bin of class {}", bin.class);
        Some(plant)
    }

    /// Allocations less frees are the regions in use, or more: a reset of the arena forgets some. They were never so many
    /// that they do not fit into 48 bits.
    fn flow_changed(&self, bin: &ArenaBin, offset: u64, new: u64) -> Evidence {
        let stats = bin.at + self.numbers.stats;
        let read = |at: u64| {
            let word = if at == bin.at + offset {
                Some(new)
            } else {
                self.word(at)
            };
            word.unwrap_or(0)
        };
        let out = read(stats).wrapping_sub(read(stats + 8));
        if out < read(stats + 24) || out >> 48 != 0 {
            unless(bin.locked || self.busy, true)
        } else {
            Evidence::Open
        }
    }

    fn may_be_extent(&self, at: u64) -> bool {
        at == 0 || at.is_multiple_of(64) && self.is_own(at)
    }

    /// A full slab need not be the one that regions are taken from; one with room must be somewhere.
    fn current_changed(&self, bin: &ArenaBin, stray: &Stray) -> Evidence {
        if stray.new == 0 {
            let has_room = self
                .extent(stray.old)
                .is_some_and(|slab| self.ones(&slab, |at| self.word(at).unwrap_or(0)) > 0);
            return unless(bin.locked, has_room);
        }
        unless(bin.locked && self.may_be_extent(stray.new), true)
    }

    /// A word of an arena, or of the array of arenas.
    pub(super) fn stray_in_arena(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let (index, arena) = self.arenas.iter().nth(rng.usize(..self.arenas.len()))?;
        let numbers = &self.numbers;
        let cache = arena + numbers.page_caches[rng.usize(..3)];
        let flip = rng.u8(..3) == 0;
        let (at, what) = match rng.u8(..14) {
            0..3 => (arena + numbers.active, "nactive"),
            3..5 => (cache + numbers.pages, "npages of a page cache"),
            5..7 => (cache + numbers.list, "list of a page cache"),
            7 => (cache + numbers.cache_state, "state of a page cache"),
            8 | 9 => {
                let (first, apart) = numbers.heaps;
                let some = cache + first + rng.u64(..HEAPS) * apart;
                let heads: Vec<u64> = self
                    .heads
                    .iter()
                    .copied()
                    .filter(|head| (*arena..arena + 0x20000).contains(head))
                    .collect();
                let filled = heads.get(rng.usize(..heads.len().max(1))).copied();
                (
                    filled.filter(|_| rng.u8(..10) < 7).unwrap_or(some),
                    "heap of a page cache",
                )
            }
            10 => (arena + numbers.base, "arena_t.base"),
            11 => (numbers.map.map(|map| arena + map)?, "pa_shard_t.emap"),
            12 => (
                numbers.index.map(|index| (arena + index) & !7)?,
                "the word of arena_t.ind",
            ),
            _ => (self.slots + index * 8, "a word of arenas"),
        };
        let stray = self.stray(at, what, flip, rng)?;
        let locked = self.is_locked(cache);
        let own = self.may_be_extent(stray.new);
        let evidence = match what {
            // Nothing guards it, so it lags in a fork's child: which of the counted pages are another thread's cannot be
            // told. It never falls behind.
            "nactive" if stray.new > stray.old && stray.new - stray.old <= 1 << 20 => {
                Evidence::Open
            }
            "nactive" => unless(self.busy, true),
            "npages of a page cache" => unless(self.busy || locked, true),
            // A ring has no first.
            "list of a page cache" if self.is_alike(stray.old, stray.new) => Evidence::Open,
            "list of a page cache" => unless((locked || self.busy) && own, true),
            "heap of a page cache" => {
                unless((self.is_locked_around(arena, at) || self.busy) && own, true)
            }
            "state of a page cache" if (stray.old ^ stray.new) as u32 == 0 => Evidence::Open,
            "the word of arena_t.ind" if self.index_half(arena, &stray) => Evidence::Absent,
            _ => Evidence::Present,
        };
        // A word of the arena, or of one of its page caches: both name it.
        let mut addresses = vec![
            (*arena, arena + 8),
            (cache, cache + 8),
            (self.slots + index * 8, self.slots + index * 8 + 8),
        ];
        if let Some(cache) = self.page_cache_around(arena, at) {
            addresses.push((cache, cache + 8));
        }
        let mut plant = stray.plant(evidence, addresses);
        plant.story += &format!(", arena {index} at {arena:#x}");
        Some(plant)
    }

    /// Whether two descriptors are of extents of one arena and state.
    fn is_alike(&self, one: u64, other: u64) -> bool {
        let known = |at| {
            self.extents
                .iter()
                .find(|extent: &&super::ground::Extent| extent.at == at)
        };
        known(one)
            .zip(known(other))
            .is_some_and(|(one, other)| (one.arena, one.state) == (other.arena, other.state))
    }

    /// Whether the half of the word that is the index is as it was.
    fn index_half(&self, arena: &u64, stray: &Stray) -> bool {
        let high = self
            .numbers
            .index
            .is_some_and(|index| !(arena + index).is_multiple_of(8));
        let changed = stray.old ^ stray.new;
        if high {
            changed >> 32 == 0
        } else {
            changed as u32 == 0
        }
    }

    fn page_cache_around(&self, arena: &u64, at: u64) -> Option<u64> {
        let caches = self.numbers.page_caches.map(|cache| arena + cache);
        caches.into_iter().rfind(|cache| *cache <= at)
    }

    fn is_locked_around(&self, arena: &u64, at: u64) -> bool {
        self.page_cache_around(arena, at)
            .is_none_or(|cache| self.is_locked(cache))
    }

    /// A word of a thread's cache.
    pub(super) fn stray_in_cache(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let cache = self.caches.get(rng.usize(..self.caches.len().max(1)))?;
        let bin = cache.bins.get(rng.usize(..cache.bins.len().max(1)))?;
        let flip = rng.u8(..3) == 0;
        let whole = vec![(bin.at, bin.at + CACHE_BIN), (cache.at, cache.at + 8)];
        let mut plant = match rng.u8(..8) {
            0..3 => {
                let offset = if self.numbers.new { 0 } else { 16 };
                let stray = self.stray(bin.at + offset, "where a bin's entries are", flip, rng)?;
                let evidence = self.place_changed(bin, stray.new);
                stray.plant(evidence, whole)
            }
            3..6 => {
                let offset = if self.numbers.new { 16 } else { 0 };
                let stray = self.stray(bin.at + offset, "marks of a bin", flip, rng)?;
                let evidence = self.marks_of_bin_changed(cache, bin, &stray);
                stray.plant(evidence, whole)
            }
            6 => {
                let stray = self.stray(bin.at + 8, "cache_bin_t.nrequests", flip, rng)?;
                stray.plant(Evidence::Absent, whole)
            }
            _ if !self.numbers.new => return None,
            _ => {
                let slow = self.word(cache.at)?;
                let (at, what) = if rng.bool() {
                    (cache.at, "tcache_t.tcache_slow")
                } else {
                    (slow + SLOW_ARENA, "tcache_slow_t.arena")
                };
                let stray = self.stray(at, what, flip, rng)?;
                // A cache may be given another arena; that must be one.
                let evidence = match self.arenas.values().any(|arena| *arena == stray.new) {
                    true => Evidence::Open,
                    false => Evidence::Present,
                };
                stray.plant(
                    evidence,
                    vec![(cache.at, cache.at + 8), (slow, slow + 0x140)],
                )
            }
        };
        plant.story += &format!(
            ", cache {:#x}, class {}, {} of {} entries",
            cache.at,
            bin.class,
            bin.entries.len(),
            bin.capacity
        );
        Some(plant)
    }

    /// The entries of all bins of a cache lie one behind the other: a bin cannot have its own elsewhere.
    fn place_changed(&self, bin: &Bin, new: u64) -> Evidence {
        if !self.numbers.new {
            return Evidence::Present;
        }
        let end = bin.first + bin.entries.len() as u64 * 8;
        let within = (end - bin.capacity * 8..=end).contains(&new) && new.is_multiple_of(8);
        if within {
            Evidence::Open
        } else {
            Evidence::Present
        }
    }

    fn marks_of_bin_changed(&self, cache: &Cache, bin: &Bin, stray: &Stray) -> Evidence {
        let Stray { old, new, .. } = *stray;
        let count = bin.entries.len() as u64;
        if !self.numbers.new {
            let (low, entries) = (i64::from(new as i32), new >> 32);
            return if entries > bin.capacity {
                Evidence::Present
            } else if entries == count {
                // The fewest entries since the last collection, -1 for a use while there was none.
                unless(cache.busy, !(-1..=count as i64).contains(&low))
            } else {
                Evidence::Open
            };
        }
        let part = |word: u64, place: u32| word >> (16 * place) & 0xffff;
        let changed = |place| part(old, place) != part(new, place);
        let fewest = (part(new, 2).wrapping_sub(part(new, 0)) & 0xffff) / 8;
        if changed(1) || changed(2) || self.numbers.counts_capacity && changed(3) {
            Evidence::Present
        } else if changed(0) {
            match fewest > count || part(new, 0) % 8 != part(new, 2) % 8 {
                true => unless(cache.busy, true),
                false => Evidence::Open,
            }
        } else {
            Evidence::Absent
        }
    }

    /// An entry of a cache.
    pub(super) fn stray_entry(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let cache = self.caches.get(rng.usize(..self.caches.len().max(1)))?;
        let bin = cache.bins.get(rng.usize(..cache.bins.len().max(1)))?;
        let position = rng.u64(..(bin.entries.len() as u64).max(1));
        bin.entries.get(position as usize)?;
        let at = bin.first + position * 8;
        let stray = self.stray(at, "entry of a cache", rng.u8(..3) == 0, rng)?;
        let new = stray.new;
        let (present, kind) = self.entry_is_wrong(bin.class, new);
        let mut plant = stray.plant(
            unless(cache.busy, present),
            vec![(new, new.saturating_add(1)), (bin.at, bin.at + CACHE_BIN)],
        );
        // What a free of that pointer leaves, it may be called as well.
        plant.truth.kinds.push(kind);
        plant.truth.kinds.push(FindingKind::InvalidFreeEntry);
        plant.story += &format!(
            ", position {position}, class {}, cache {:#x}",
            bin.class, cache.at
        );
        Some(plant)
    }

    /// Whether a value cannot be an entry of a class, and what a free that left it would be.
    fn entry_is_wrong(&self, class: u64, value: u64) -> (bool, FindingKind) {
        let listed = self.cached.contains_key(&value);
        match self.spot(value) {
            Spot::Region(extent, start, free) if extent.class == class => match value == start {
                true => (free || listed, FindingKind::DoubleFree),
                false => (true, FindingKind::MisalignedFreeEntry),
            },
            Spot::Large(extent) if extent.class == class && extent.state == ACTIVE => {
                match value == extent.address {
                    true => (listed, FindingKind::DoubleFree),
                    false => (true, FindingKind::MisalignedFreeEntry),
                }
            }
            Spot::Free => (true, FindingKind::DoubleFree),
            _ => (true, FindingKind::InvalidFreeEntry),
        }
    }
}
