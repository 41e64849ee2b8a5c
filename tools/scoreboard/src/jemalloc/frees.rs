//! Frees that are errors, as `free`, `sdallocx` and the flush of a cache do them without noticing. Counters that are
//! never compared with anything (`thread_deallocated`) are left as they were.

use std::collections::BTreeMap;

use heapcheck::checks::finding::FindingKind;

use super::ground::{DIRTY, Extent, Ground};
use super::numbers::{BITMAP, EXTENT, HEAP_LINK, HEAPS, Numbers, PAGE};
use super::{FREED, unless};
use crate::plant::{Plant, Truth};

type Writes = Vec<(u64, Vec<u8>)>;

fn word(at: u64, value: u64) -> (u64, Vec<u8>) {
    (at, value.to_le_bytes().to_vec())
}

impl Ground<'_> {
    /// A cache.
    fn some_cache(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        (!self.caches.is_empty()).then(|| rng.usize(..self.caches.len()))
    }

    /// What freeing `pointer` into a cache does, with the size of `class`. `None` where the cache would be flushed, or
    /// has no such bin.
    fn push(&self, cache: usize, class: u64, pointer: u64) -> Option<Writes> {
        let mut bins = self.caches[cache].bins.iter();
        let bin = bins.find(|bin| bin.class == class)?;
        let count = bin.entries.len() as u64;
        if count >= bin.capacity {
            return None;
        }
        let at = bin.first - 8;
        let mut writes = vec![word(at, pointer)];
        writes.push(if self.numbers.new {
            word(bin.at, at)
        } else {
            (bin.at + 4, ((count + 1) as u32).to_le_bytes().to_vec())
        });
        if self.junk {
            let bytes = self.classes.bytes[class as usize];
            self.bytes(pointer, bytes)?;
            writes.push((pointer, vec![FREED; bytes as usize]));
        }
        Some(writes)
    }

    fn truth(&self, kind: FindingKind, address: u64, busy: bool) -> Truth {
        let mut truth = Truth::at(kind, address);
        truth.evidence = unless(busy, true);
        truth
    }

    /// A cached block is freed again: by its own thread, or by another.
    pub(super) fn cached_twice(&self, same: bool, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..200).find_map(|_| {
            let from = self.some_cache(rng)?;
            let bins = &self.caches[from].bins;
            let bin = bins.get(rng.usize(..bins.len().max(1)))?;
            let block = *bin.entries.get(rng.usize(..bin.entries.len().max(1)))?;
            let into = if same { from } else { self.some_cache(rng)? };
            if !same && into == from {
                return None;
            }
            let busy = self.caches[from].busy || self.caches[into].busy;
            Some(Plant {
                story: format!(
                    "{block:#x}, class {}, of the cache {:#x}, freed into the cache {:#x}",
                    bin.class, self.caches[from].at, self.caches[into].at
                ),
                writes: self.push(into, bin.class, block)?,
                truth: self.truth(FindingKind::DoubleFree, block, busy),
            })
        })
    }

    /// A block that went back to its slab is freed again.
    pub(super) fn cached_and_marked(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..50).find_map(|_| {
            let (block, _, extent) = self.some_marked_free(rng)?;
            let into = self.some_cache(rng)?;
            let busy = self.caches[into].busy || self.bin_of(&extent)?.locked;
            Some(Plant {
                story: format!(
                    "{block:#x}, free in the slab {:#x} of class {}, freed into the cache {:#x}",
                    extent.address, extent.class, self.caches[into].at
                ),
                writes: self.push(into, extent.class, block)?,
                truth: self.truth(FindingKind::DoubleFree, block, busy),
            })
        })
    }

    /// A block goes back to its slab a second time: its mark is turned round, the slab's count and the bin's move on.
    pub(super) fn marked_twice(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let numbers = &self.numbers;
        (0..50).find_map(|_| {
            let (block, region, extent) = self.some_marked_free(rng)?;
            let free = Numbers::field(extent.bits, numbers.free);
            let bin = self.bin_of(&extent)?;
            // A slab that seems to be empty goes back to the page caches.
            if free + 1 >= self.regions(&extent) {
                return None;
            }
            let marks = extent.at + BITMAP + region / 64 * 8;
            let mut writes = vec![
                word(marks, self.word(marks)? ^ 1 << (region % 64)),
                word(extent.at, extent.bits + (1 << numbers.free.0)),
            ];
            let stats = bin.at + numbers.stats;
            let (frees, in_use) = (self.word(stats + 8)?, self.word(stats + 24)?);
            if self.keeps_statistics(bin.at) {
                writes.push(word(stats + 8, frees + 1));
                writes.push(word(stats + 24, in_use.wrapping_sub(1)));
            }
            let mut truth = self.truth(FindingKind::DoubleFree, block, bin.locked);
            // Which block of the slab it was is not kept.
            truth.addresses.push((extent.start(), extent.end()));
            Some(Plant {
                story: format!(
                    "{block:#x} given back to the slab {:#x} again, {free} free",
                    extent.address
                ),
                writes,
                truth,
            })
        })
    }

    /// A block whose memory went back to the page caches is freed again: the page map still has its class.
    pub(super) fn freed_after_return(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let free: Vec<&Extent> = self
            .extents
            .iter()
            .filter(|extent| extent.state == DIRTY)
            .collect();
        (0..100).find_map(|_| {
            let extent = free.get(rng.usize(..free.len().max(1)))?;
            let class = self.tree.element(self, Ground::page(extent.address))?.class;
            let bytes = *self.classes.bytes.get(class as usize)?;
            if class >= self.classes.cached() {
                return None;
            }
            let into = self.some_cache(rng)?;
            let step = if class < self.classes.small.len() as u64 { bytes } else { 64 };
            let block = extent.start() + rng.u64(..PAGE.div_ceil(step)) * step;
            // A large block keeps the place in its page that it had been given.
            (block < extent.end()).then_some(())?;
            Some(Plant {
                story: format!(
                    "{block:#x}, in the free extent {:#x}, freed into the cache {:#x} as class {class}",
                    extent.at, self.caches[into].at
                ),
                writes: self.push(into, class, block)?,
                truth: self.truth(FindingKind::DoubleFree, block, self.caches[into].busy),
            })
        })
    }

    /// A pointer into a block: any of a slab's, of a large one those into its first page.
    pub(super) fn inner_pointer(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..200).find_map(|_| {
            let (block, bytes, extent) = self.some_used(rng)?;
            let room = if extent.slab {
                bytes
            } else {
                PAGE - block % PAGE
            };
            let offset = match rng.u8(..3) {
                0 => rng.u64(1..room),
                1 => *[1, 2, 4, 8, 16].get(rng.usize(..5))?,
                _ => rng.u64(..room.div_ceil(8)) * 8,
            };
            let into = self.some_cache(rng)?;
            if offset == 0 || offset >= room {
                return None;
            }
            Some(Plant {
                story: format!(
                    "{block:#x} + {offset} ({bytes} bytes) freed into the cache {:#x}",
                    self.caches[into].at
                ),
                writes: self.push(into, extent.class, block + offset)?,
                truth: self.truth(
                    FindingKind::MisalignedFreeEntry,
                    block + offset,
                    self.caches[into].busy,
                ),
            })
        })
    }

    /// `sdallocx` with the size of another class. 5.2.1 looks small blocks' class up whatever it is told.
    pub(super) fn wrong_size(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        (0..200).find_map(|_| {
            let (block, bytes, extent) = self.some_used(rng)?;
            let into = self.some_cache(rng)?;
            let class = rng.u64(..self.classes.cached());
            if class == extent.class || !self.numbers.new && extent.slab {
                return None;
            }
            // Filled memory past the block's end would be a second damage.
            if self.junk && self.classes.bytes[class as usize] > bytes {
                return None;
            }
            Some(Plant {
                story: format!(
                    "{block:#x} ({bytes} bytes) freed as class {class} into the cache {:#x}",
                    self.caches[into].at
                ),
                writes: self.push(into, class, block)?,
                truth: self.truth(FindingKind::InvalidFreeEntry, block, self.caches[into].busy),
            })
        })
    }

    /// `sdallocx` of a pointer to the stack or to a static object: where the size is told, the pointer is not looked at,
    /// unless it is a page's first byte (5.3).
    pub(super) fn not_from_heap(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        const LARGEST: u64 = 4096;
        let into = self.some_cache(rng)?;
        let small = self
            .classes
            .small
            .iter()
            .filter(|small| small.bytes <= LARGEST)
            .count();
        let class = rng.u64(..small as u64);
        let (what, pointer) = if rng.bool() {
            let threads = self.target.threads.list();
            let thread = &threads[rng.usize(..threads.len())];
            ("stack", (thread.sp.get() & !15) + 16 * rng.u64(1..64))
        } else {
            let modules = self.target.modules;
            let module = &modules[rng.usize(..modules.len())];
            let data = module.segments.iter().find(|segment| segment.writable)?;
            (
                "static object",
                (data.range.start.get() & !15) + 16 * rng.u64(1..8),
            )
        };
        let possible =
            self.numbers.new && !self.junk && pointer % PAGE != 0 && self.word(pointer).is_some();
        possible.then_some(())?;
        Some(Plant {
            story: format!(
                "{pointer:#x}, a {what}, freed as class {class} into the cache {:#x}",
                self.caches[into].at
            ),
            writes: self.push(into, class, pointer)?,
            truth: self.truth(
                FindingKind::InvalidFreeEntry,
                pointer,
                self.caches[into].busy,
            ),
        })
    }

    /// A large block that no cache takes is freed a second time: `pa_dalloc` once more. Pages of the arena are counted
    /// off again; the extent enters the dirty ones again: pages, list, heap. 5.3.1 does not survive it.
    pub(super) fn large_twice(&self, rng: &mut fastrand::Rng) -> Option<Plant> {
        let numbers = &self.numbers;
        let heads: Vec<u64> = self
            .heads
            .iter()
            .copied()
            .filter(|head| self.may_enter_again(*head))
            .collect();
        let head = *heads.get(rng.usize(..heads.len().max(1)))?;
        let extent = self.extent(self.word(head)?)?;
        let arena = *self.arenas.get(&extent.arena)?;
        let cache = arena + numbers.page_caches[0];
        let pages = extent.bytes / PAGE;
        let mut writes = self.append_again(cache + numbers.list, extent.at)?;
        let mut add = |at: u64, more: u64| {
            writes.push(word(at, self.word(at)?.wrapping_add(more)));
            Some(())
        };
        add(arena + numbers.active, pages.wrapping_neg())?;
        add(cache + numbers.pages, pages)?;
        let (first, apart) = numbers.heaps;
        let index = (head - cache - first) / apart;
        let (count, bytes, step) = numbers.heap_counts;
        add(cache + count + index * step, 1)?;
        add(cache + bytes + index * step, extent.bytes)?;
        if numbers.new {
            add(head + 8, 1)?;
        }
        let busy = self.busy || self.is_locked(cache);
        let mut truth = self.truth(FindingKind::DoubleFree, extent.start(), busy);
        truth.addresses = vec![
            (extent.start(), extent.end()),
            (extent.at, extent.at + EXTENT),
        ];
        Some(Plant {
            story: format!(
                "the large block {:#x} of {} bytes, whose extent {:#x} is dirty, freed again",
                extent.address, extent.bytes, extent.at
            ),
            writes,
            truth,
        })
    }

    /// The root of a heap of dirty extents that was a large block no cache takes, that nothing beside it would be merged
    /// with, and that is alone in its heap: entering it again leaves it the root, with itself as its neighbour.
    fn may_enter_again(&self, head: u64) -> bool {
        /// From this size on a free may give everything back at once (`oversize_threshold`).
        const OVERSIZE: u64 = 8 << 20;
        let none = self.classes.none();
        let Some(extent) = self.word(head).and_then(|at| self.extent(at)) else {
            return false;
        };
        let page = Ground::page(extent.address);
        let class = self
            .tree
            .element(self, page)
            .map_or(none, |element| element.class);
        let mergeable = |at: u64| self.extent_at(at).is_some_and(|other| other.state == DIRTY);
        let alone = [8, 16]
            .iter()
            .all(|link| self.word(extent.at + HEAP_LINK + link) == Some(0));
        let dirty = self.arenas.values().any(|arena| {
            let heaps = arena + self.numbers.page_caches[0] + self.numbers.heaps.0;
            (heaps..heaps + HEAPS * self.numbers.heaps.1).contains(&head)
        });
        !self.numbers.counts_capacity
            && dirty
            && extent.state == DIRTY
            && extent.bytes < OVERSIZE
            && (self.classes.cached()..none).contains(&class)
            && !mergeable(extent.start() - 1)
            && !mergeable(extent.end())
            && alone
            && (!self.numbers.new || self.word(head + 8) == Some(0))
    }

    /// What appending a list's member once more leaves (`ql_elm_new`, `ql_tail_insert`; its macros, word by word), and
    /// entering the root of a heap again (`ph_insert`).
    fn append_again(&self, head: u64, extent: u64) -> Option<Writes> {
        let mut words: BTreeMap<u64, u64> = BTreeMap::new();
        let read =
            |words: &BTreeMap<u64, u64>, at: u64| words.get(&at).copied().or_else(|| self.word(at));
        let next = self.numbers.list_link;
        let before = next + 8;
        let (a, b) = (self.word(head)?, extent);
        words.insert(b + next, b);
        words.insert(b + before, b);
        if self.numbers.new {
            // qr_meld
            let (at, value) = (read(&words, b + before)?, read(&words, a + before)?);
            words.insert(at + next, value);
            let value = read(&words, b + before)?;
            words.insert(a + before, value);
            let value = read(&words, read(&words, b + before)? + next)?;
            words.insert(b + before, value);
            let at = read(&words, a + before)?;
            words.insert(at + next, a);
            let at = read(&words, b + before)?;
            words.insert(at + next, b);
        } else {
            // qr_before_insert
            let value = read(&words, a + before)?;
            words.insert(b + before, value);
            words.insert(b + next, a);
            let at = read(&words, b + before)?;
            words.insert(at + next, b);
            words.insert(a + before, b);
        }
        let first = read(&words, b + next)?;
        words.insert(head, first);
        for (link, value) in [(0, extent), (8, extent), (16, 0)] {
            words.insert(extent + HEAP_LINK + link, value);
        }
        Some(
            words
                .into_iter()
                .map(|(at, value)| word(at, value))
                .collect(),
        )
    }

    /// Whether a bin counts: builds without statistics leave zeros.
    pub(super) fn keeps_statistics(&self, bin: u64) -> bool {
        let stats = bin + self.numbers.stats;
        self.word(stats).is_some_and(|allocations| allocations != 0)
    }
}
