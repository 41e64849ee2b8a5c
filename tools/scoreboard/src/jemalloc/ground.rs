//! A healthy jemalloc heap, read for planting: arenas, extents by the page map, caches.
//!
//! Where the variables and the caches are is taken from heapcheck; everything that is read there is read with numbers
//! of its own.

use std::collections::{BTreeMap, BTreeSet};

use ground::target::{Address, MemoryExt, Target};
use heapcheck::analysis::HeapAnalysis;
use heaps::anomaly::HolderKind;
use heaps::map::Shape;

use super::numbers::{
    ADDRESS, BITMAP, CACHE_BIN, Classes, HEAP_LINK, HEAPS, Numbers, PAGE, PAGE_SHIFT, SIZE,
};
use super::tree::Tree;

/// `extent_state_active`, `_dirty`.
pub const ACTIVE: u64 = 0;
pub const DIRTY: u64 = 1;

/// An extent.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Its descriptor.
    pub at: u64,
    pub bits: u64,
    pub address: u64,
    pub bytes: u64,
    pub class: u64,
    pub arena: u64,
    pub shard: u64,
    pub state: u64,
    pub slab: bool,
}

impl Extent {
    pub fn start(&self) -> u64 {
        self.address & !(PAGE - 1)
    }

    pub fn end(&self) -> u64 {
        self.start() + self.bytes
    }
}

/// A bin of a cache.
#[derive(Clone, Debug)]
pub struct Bin {
    /// Its `cache_bin_t`.
    pub at: u64,
    pub class: u64,
    /// The word of the entry that malloc takes next.
    pub first: u64,
    pub capacity: u64,
    pub entries: Vec<u64>,
}

/// A thread's cache.
pub struct Cache {
    /// Its `tcache_t`.
    pub at: u64,
    /// Its thread may be inside the allocator.
    pub busy: bool,
    /// By class; those that are in order.
    pub bins: Vec<Bin>,
}

/// A bin of an arena.
#[derive(Clone, Debug, Default)]
pub struct ArenaBin {
    pub at: u64,
    pub class: u64,
    /// Its lock is held.
    pub locked: bool,
    pub current: u64,
    /// Its heap.
    pub heaped: BTreeSet<u64>,
}

/// What an address is.
#[derive(Clone, Copy, Debug)]
pub enum Spot {
    /// A region of a slab: its first byte, and whether its mark says free.
    Region(Extent, u64, bool),
    /// In a large block's extent.
    Large(Extent),
    /// In a free extent.
    Free,
    /// No heap.
    Nothing,
}

/// The heap and what is in it.
pub struct Ground<'a> {
    pub target: Target<'a>,
    pub numbers: Numbers,
    pub classes: Classes,
    pub tree: Tree,
    /// The array, and the arenas by index.
    pub slots: u64,
    pub arenas: BTreeMap<u64, u64>,
    /// Memory for metadata.
    pub own: Vec<(u64, u64)>,
    /// By address.
    pub extents: Vec<Extent>,
    pub caches: Vec<Cache>,
    /// Cache and class of every cached pointer.
    pub cached: BTreeMap<u64, (usize, u64)>,
    pub bins: BTreeMap<u64, ArenaBin>,
    /// Free extents in heaps of page caches, and the heads of those heaps that are not empty.
    pub heaped: BTreeSet<u64>,
    pub heads: Vec<u64>,
    /// Slabs with a block in use, and large blocks.
    pub used: Vec<Extent>,
    /// Some thread may be inside the allocator.
    pub busy: bool,
    /// Memory is filled when it is freed.
    pub junk: bool,
}

impl<'a> Ground<'a> {
    /// Reads the heap. `None` for a layout that is not known here.
    pub fn survey(target: Target<'a>, heap: &'a HeapAnalysis<'a>) -> Option<Self> {
        let part = |name: &str| {
            let mut parts = heap.identity.located.iter();
            Some(parts.find(|part| part.part == name)?.at.get())
        };
        let numbers = Numbers::of(heap.identity.version.as_deref()?)?;
        let word = |at: u64| target.memory.read_u64(Address::new(at)).ok();
        let slots = part("arenas")?;
        let mut arenas = BTreeMap::new();
        let mut own = Vec::new();
        for index in 0..4095 {
            let arena = word(slots + index * 8)?;
            if arena == 0 {
                continue;
            }
            arenas.insert(index, arena);
            let mut block = word(word(arena + numbers.base)? + numbers.blocks)?;
            while block != 0 {
                own.push((block, block + word(block)?));
                block = word(block + 8)?;
            }
        }
        let map = part("arena_emap_global").or_else(|| part("extents_rtree"))?;
        let mut ground = Self {
            target,
            numbers,
            classes: Classes::read(part("bin_infos")?, word)?,
            tree: Tree::default(),
            slots,
            arenas,
            own,
            extents: Vec::new(),
            caches: Vec::new(),
            cached: BTreeMap::new(),
            bins: BTreeMap::new(),
            heaped: BTreeSet::new(),
            heads: Vec::new(),
            used: Vec::new(),
            busy: false,
            junk: false,
        };
        ground.tree = Tree::read(&ground, map + numbers.root)?;
        ground.extents = ground
            .tree
            .extents
            .iter()
            .copied()
            .collect::<Vec<u64>>()
            .into_iter()
            .filter_map(|at| ground.extent(at))
            .collect();
        ground.extents.sort_by_key(|extent| extent.address);
        let inside = ground.threads_inside(heap);
        ground.busy = inside.contains(&true);
        ground.read_caches(heap, &inside);
        ground.read_bins();
        ground.read_heaps();
        let map = &heap.map;
        let is_own = |extent: &Extent| {
            let row = map.row_at(Address::new(extent.address));
            let shape = row
                .and_then(|row| map.extent(row))
                .map(|extent| extent.shape);
            shape == Some(Shape::Metadata)
        };
        ground.used = (ground.extents.iter().copied())
            .filter(|extent| {
                extent.state == ACTIVE
                    && !ground.is_array(extent)
                    && !is_own(extent)
                    && extent.class < ground.classes.none()
                    && (!extent.slab
                        || Numbers::field(extent.bits, numbers.free) < ground.regions(extent))
            })
            .collect();
        ground.junk = ground.is_filled();
        Some(ground)
    }

    /// A word of the healthy core.
    pub fn word(&self, at: u64) -> Option<u64> {
        self.target.memory.read_u64(Address::new(at)).ok()
    }

    /// Bytes of the healthy core.
    pub fn bytes(&self, at: u64, length: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.target
            .memory
            .read_into(Address::new(at), &mut bytes)
            .ok()?;
        Some(bytes)
    }

    /// Whether memory is jemalloc's own.
    pub fn is_own(&self, at: u64) -> bool {
        self.own.iter().any(|(from, to)| (*from..*to).contains(&at))
    }

    /// The extent that a descriptor describes.
    pub fn extent(&self, at: u64) -> Option<Extent> {
        let bits = self.word(at)?;
        let numbers = &self.numbers;
        Some(Extent {
            at,
            bits,
            address: self.word(at + ADDRESS)?,
            bytes: self.word(at + SIZE)? & !(PAGE - 1),
            class: Numbers::field(bits, numbers.class),
            arena: bits & 0xfff,
            shard: Numbers::field(bits, numbers.shard),
            state: Numbers::field(bits, numbers.state),
            slab: bits >> 12 & 1 == 1,
        })
    }

    /// Regions of a slab.
    pub fn regions(&self, extent: &Extent) -> u64 {
        self.classes
            .small
            .get(extent.class as usize)
            .map_or(0, |small| small.regions)
    }

    /// Bytes of a block in an extent.
    pub fn block_bytes(&self, extent: &Extent) -> u64 {
        let class = self
            .classes
            .bytes
            .get(extent.class as usize)
            .copied()
            .unwrap_or(0);
        if extent.slab {
            class
        } else {
            class.min(extent.end() - extent.address)
        }
    }

    /// Whether a region's mark says free.
    pub fn is_marked_free(&self, extent: &Extent, region: u64) -> bool {
        let word = self.word(extent.at + BITMAP + region / 64 * 8).unwrap_or(0);
        word >> (region % 64) & 1 == 1
    }

    /// Marks of a slab that say free.
    pub fn ones(&self, extent: &Extent, word: impl Fn(u64) -> u64) -> u64 {
        let regions = self.regions(extent);
        let group = |group: u64| {
            let left = regions - group * 64;
            let mask = if left < 64 { (1 << left) - 1 } else { u64::MAX };
            u64::from((word(extent.at + BITMAP + group * 8) & mask).count_ones())
        };
        (0..regions.div_ceil(64)).map(group).sum()
    }

    /// The extent around an address.
    pub fn extent_at(&self, at: u64) -> Option<&Extent> {
        let after = self.extents.partition_point(|extent| extent.start() <= at);
        let extent = self.extents.get(after.checked_sub(1)?)?;
        (at < extent.end()).then_some(extent)
    }

    /// What is at an address.
    pub fn spot(&self, at: u64) -> Spot {
        match self.extent_at(at) {
            None => Spot::Nothing,
            Some(extent) if extent.state != ACTIVE || extent.class >= self.classes.none() => {
                Spot::Free
            }
            Some(extent) if extent.slab => {
                let region = (at - extent.address) / self.block_bytes(extent);
                let start = extent.address + region * self.block_bytes(extent);
                Spot::Region(*extent, start, self.is_marked_free(extent, region))
            }
            Some(extent) => Spot::Large(*extent),
        }
    }

    /// Start and bytes of a block in use.
    pub fn some_used(&self, rng: &mut fastrand::Rng) -> Option<(u64, u64, Extent)> {
        (0..200).find_map(|_| {
            let extent = self.used.get(rng.usize(..self.used.len().max(1)))?;
            let bytes = self.block_bytes(extent);
            let region = if extent.slab {
                rng.u64(..self.regions(extent))
            } else {
                0
            };
            let at = extent.address + region * bytes;
            let free = extent.slab && self.is_marked_free(extent, region);
            (!free && !self.cached.contains_key(&at)).then_some((at, bytes, *extent))
        })
    }

    /// Whether an extent is a cache's own: the array of its entries, or itself.
    pub fn is_array(&self, extent: &Extent) -> bool {
        let inside = |at: u64| (extent.start()..extent.end()).contains(&at);
        self.caches
            .iter()
            .any(|cache| inside(cache.at) || cache.bins.iter().any(|bin| inside(bin.first - 8)))
    }

    /// Some region of a slab whose mark says free.
    pub fn some_marked_free(&self, rng: &mut fastrand::Rng) -> Option<(u64, u64, Extent)> {
        (0..400).find_map(|_| {
            let extent = self.used.get(rng.usize(..self.used.len().max(1)))?;
            let region = rng.u64(..self.regions(extent).max(1));
            let free = extent.slab && self.is_marked_free(extent, region);
            free.then_some((
                extent.address + region * self.block_bytes(extent),
                region,
                *extent,
            ))
        })
    }

    /// The bin of a slab.
    pub fn bin_of(&self, extent: &Extent) -> Option<&ArenaBin> {
        self.bins.get(&self.bin_at(extent)?)
    }

    fn bin_at(&self, extent: &Extent) -> Option<u64> {
        let arena = self.arenas.get(&extent.arena)?;
        let small = self.classes.small.get(extent.class as usize)?;
        let numbers = &self.numbers;
        Some(if numbers.bin_arrays {
            self.word(arena + numbers.bins + extent.class * 8)? + extent.shard * numbers.bin
        } else {
            arena + numbers.bins + (small.first_bin + extent.shard) * numbers.bin
        })
    }

    /// Whether a mutex's lock word is not zero.
    pub fn is_locked(&self, mutex: u64) -> bool {
        self.word(mutex + 64).is_none_or(|word| word as u32 != 0)
    }

    /// Of each thread: whether it may be inside the allocator. In a shared library the frames tell; in a program of
    /// one piece, only what waits in `pause` or aborted by itself is known to be outside.
    fn threads_inside(&self, heap: &HeapAnalysis<'_>) -> Vec<bool> {
        const PAUSE: u64 = 34;
        let threads = self.target.threads;
        let module = self
            .target
            .modules
            .iter()
            .find(|module| module.id == heap.identity.module);
        let list = threads.list().iter().enumerate();
        list.map(|(index, thread)| match module {
            Some(module) if !module.is_executable => {
                let frames = threads.frames(index);
                frames.iter().any(|frame| module.range.contains(&frame.pc))
                    || !threads.is_unwound(index)
            }
            _ => index != 0 && thread.system_call != Some(PAUSE),
        })
        .collect()
    }

    fn read_caches(&mut self, heap: &HeapAnalysis<'_>, inside: &[bool]) {
        let numbers = self.numbers;
        let small = self.classes.small.len() as u64;
        let offset = |class: u64| match numbers.large_bins {
            Some(large) if class >= small => large + (class - small) * CACHE_BIN,
            _ => numbers.cache_bins + class * CACHE_BIN,
        };
        let lists = (0..heap.heap.groups()).flat_map(|group| heap.heap.free_lists(group));
        let caches: BTreeSet<u64> = lists
            .filter(|list| list.holder == HolderKind::CacheArray)
            .map(|list| list.at.get() - offset(list.class.into()))
            .collect();
        for at in caches {
            let threads = self.target.threads.list().iter().zip(inside);
            let owner = threads
                .filter_map(|(thread, inside)| {
                    let pointer = thread.thread_pointer?.get();
                    Some((pointer.checked_sub(at)?, *inside))
                })
                .filter(|(distance, _)| *distance < 0x8000)
                .min();
            // Nobody's own: whoever names it may be at work on it.
            let busy = owner.map_or(self.busy, |(_, inside)| inside);
            let bins = (0..self.classes.cached())
                .filter_map(|class| self.read_bin(at + offset(class), class));
            let cache = Cache {
                at,
                busy,
                bins: bins.collect(),
            };
            for bin in &cache.bins {
                for entry in &bin.entries {
                    self.cached.insert(*entry, (self.caches.len(), bin.class));
                }
            }
            self.caches.push(cache);
        }
    }

    fn read_bin(&self, at: u64, class: u64) -> Option<Bin> {
        let low = |word: u64, place: u32| word >> (16 * place) & 0xffff;
        let (first, count, capacity) = if self.numbers.new {
            let (head, marks) = (self.word(at)?, self.word(at + 16)?);
            let apart = |from: u64| (low(marks, 2).wrapping_sub(from) & 0xffff) / 8;
            (head, apart(head), apart(low(marks, 1)))
        } else {
            let (count, end) = (self.word(at)? >> 32, self.word(at + 16)?);
            let most = match self.classes.small.get(class as usize) {
                Some(small) => (2 * small.regions).clamp(20, 200),
                None => 20,
            };
            (end.checked_sub(count * 8)?, count, most)
        };
        (count <= capacity && first > PAGE).then_some(())?;
        let entries: Option<Vec<u64>> = (0..count)
            .map(|index| self.word(first + index * 8))
            .collect();
        Some(Bin {
            at,
            class,
            first,
            capacity,
            entries: entries?,
        })
    }

    fn read_bins(&mut self) {
        let mut bins = BTreeMap::new();
        for extent in self
            .extents
            .iter()
            .filter(|extent| extent.slab && extent.state == ACTIVE)
        {
            let Some(at) = self.bin_at(extent) else {
                continue;
            };
            bins.entry(at).or_insert_with(|| ArenaBin {
                at,
                class: extent.class,
                locked: self.is_locked(at),
                current: self.word(at + self.numbers.current).unwrap_or(0),
                heaped: self.heap(at + self.numbers.heap),
            });
        }
        self.bins = bins;
    }

    /// Members of a pairing heap.
    fn heap(&self, root: u64) -> BTreeSet<u64> {
        let mut members = BTreeSet::new();
        let mut todo = vec![root];
        while let Some(at) = todo.pop() {
            let member = self.word(at).unwrap_or(0);
            if member != 0 && members.insert(member) {
                todo.extend([member + HEAP_LINK + 8, member + HEAP_LINK + 16]);
            }
        }
        members
    }

    fn read_heaps(&mut self) {
        let (first, apart) = self.numbers.heaps;
        let caches = self.numbers.page_caches;
        let starts = self
            .arenas
            .values()
            .flat_map(|arena| caches.map(|cache| arena + cache + first));
        let heads = starts.flat_map(|start| (0..HEAPS).map(move |index| start + index * apart));
        let heads: Vec<u64> = heads
            .filter(|head| self.word(*head).is_some_and(|root| root != 0))
            .collect();
        self.heaped = heads.iter().flat_map(|head| self.heap(*head)).collect();
        self.heads = heads;
    }

    fn is_filled(&self) -> bool {
        let filled = |at: &&u64| self.is_all_filled(**at);
        let sample = || self.cached.keys().take(200);
        sample().count() >= 20 && sample().filter(filled).count() * 2 > sample().count()
    }

    /// Whether the first bytes of a free block, 256 of them at most, are what a free fills it with.
    pub fn is_all_filled(&self, at: u64) -> bool {
        let bytes = self
            .extent_at(at)
            .map_or(8, |extent| self.block_bytes(extent));
        let read = self.bytes(at, bytes.min(256));
        read.is_some_and(|bytes| bytes.iter().all(|byte| *byte == super::FREED))
    }

    /// Number of an address's page.
    pub fn page(at: u64) -> u64 {
        at >> PAGE_SHIFT
    }
}
