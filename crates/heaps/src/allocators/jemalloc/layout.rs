//! Where members lie in jemalloc's structures.
//!
//! Read in jemalloc 5.0.1, 5.1.0, 5.2.1, 5.3.0 and 5.3.1 (`include/jemalloc/internal/`: `arena_structs*.h`,
//! `extent_structs.h` / `edata.h`, `base*.h`, `bin.h`, `eset.h`, `ecache.h`, `cache_bin.h`, `tcache_structs.h`,
//! `tsd.h`, `mutex.h`, `rtree.h`, `prof_structs.h`); offsets checked against builds with debug information and against
//! cores of stripped libraries, x86-64, pages of 4 KiB.
//!
//! ```text
//! extent      +0 bits  +8 address  +16 size  +40 heap link {prev, next, left child}  +64 bitmap | list link | stack
//! base block  +0 size  +8 next block
//! cache bin   5.3: +0 top of a stack that grows down, +16 low bits of its marks; 5.0-5.2: +4 count, +16 end
//! mutex       +64 pthread mutex: +0 lock word, +8 owner
//! ```

use super::sizes::Quantum;

/// Releases that share all layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// 5.0.0 and 5.0.1.
    V5_0,
    /// 5.1.0.
    V5_1,
    /// 5.2.0 and 5.2.1.
    V5_2,
    /// 5.3.0.
    V5_3_0,
    /// 5.3.1.
    V5_3_1,
}

impl Generation {
    /// All, newest first.
    pub const ALL: [Generation; 5] = [
        Generation::V5_3_1,
        Generation::V5_3_0,
        Generation::V5_2,
        Generation::V5_1,
        Generation::V5_0,
    ];

    /// The releases, for people.
    pub fn releases(self) -> &'static str {
        match self {
            Generation::V5_0 => "5.0",
            Generation::V5_1 => "5.1",
            Generation::V5_2 => "5.2",
            Generation::V5_3_0 => "5.3.0",
            Generation::V5_3_1 => "5.3.1",
        }
    }

    /// 5.3: `edata_t`, page allocator shards, caches as stacks that grow down.
    pub fn is_5_3(self) -> bool {
        self >= Generation::V5_3_0
    }
}

/// Some bits of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BitsAt {
    /// Lowest bit.
    pub shift: u32,
    /// Number of bits.
    pub width: u32,
}

impl BitsAt {
    const fn new(shift: u32, width: u32) -> Self {
        Self { shift, width }
    }

    /// Their value in a word.
    #[inline]
    pub fn of(self, word: u64) -> u64 {
        word >> self.shift & (1u64 << self.width).saturating_sub(1)
    }
}

/// `extent_t` (5.0 to 5.2), `edata_t` (5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtentLayout {
    /// Its addresses are multiples of this.
    pub alignment: u64,
    /// Its place among the arenas.
    pub arena: BitsAt,
    /// Cut into regions.
    pub slab: BitsAt,
    /// Active, dirty, muzzy, retained; 5.3 has two more, which pass.
    pub state: BitsAt,
    /// Size class.
    pub class: BitsAt,
    /// Free regions of a slab.
    pub free: BitsAt,
    /// Shard of its bin (from 5.2 on).
    pub shard: Option<BitsAt>,
    /// First of what the system mapped in one go, as the page map repeats it (5.3).
    pub head: Option<BitsAt>,
    /// Made by the huge page allocator (5.3), which keeps the huge page's address at `huge_page`.
    pub huge: Option<BitsAt>,
    /// Offset of the pointer to the huge page that it is a part of.
    pub huge_page: u64,
    /// Offset of the address.
    pub address: u64,
    /// Offset of the size; the low 12 bits are something else.
    pub size: u64,
    /// Offset of the link of a heap: previous, next, left child.
    pub heap_link: u64,
    /// Offset of the bitmap of a slab.
    pub bitmap: u64,
    /// Offset of the link of the list of free extents: next, previous.
    pub list_link: u64,
    /// Offset of the requested size of a sampled allocation (5.3).
    pub requested: Option<u64>,
    /// Offset of the pointer to the context of a sampled allocation.
    pub context: u64,
}

/// `arena_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaLayout {
    /// Offset of the number of bytes that the allocator took for itself.
    pub internal: u64,
    /// Offset of the list of thread caches.
    pub caches: u64,
    /// Offset of the number of pages in use.
    pub active: u64,
    /// Offsets of the page caches: dirty, muzzy, retained.
    pub pages: [u64; 3],
    /// Offset of its own index; before 5.3 only its base has one.
    pub index: Option<u64>,
    /// Offset of the pointer to its base.
    pub base: u64,
    /// Offset of the pointer to the page map (5.3).
    pub map: Option<u64>,
    /// Offset of the bins.
    pub bins: u64,
    /// 5.2: the bins are arrays that the arena points at, one pointer per class.
    pub bin_arrays: bool,
}

/// `bin_t` with its statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BinLayout {
    /// Bytes of it.
    pub bytes: u64,
    /// Offset of the slab that regions are taken from.
    pub current: u64,
    /// Offset of the root of the heap of other slabs with free regions.
    pub nonfull: u64,
    /// Offset of the regions that are not free.
    pub regions: u64,
    /// Offset of the number of slabs.
    pub slabs: u64,
    /// Offset of the number of slabs in the heap (from 5.2 on).
    pub nonfull_slabs: Option<u64>,
}

/// `extents_t` (5.0 to 5.2), `ecache_t` (5.3): free extents of one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PagesLayout {
    /// Offsets of the heads of the lists of its extents.
    pub lists: &'static [u64],
    /// Offsets of the numbers of pages.
    pub counts: &'static [u64],
    /// Offset of the state of its extents.
    pub state: u64,
    /// Offsets of its sets of heaps: a page cache of 5.3 has one for guarded extents, too.
    pub sets: &'static [u64],
    /// Offset of the first heap in a set, and the bytes from one heap to the next.
    pub heaps: (u64, u64),
}

/// `base_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseLayout {
    /// Offset of the pointer to the newest block.
    pub blocks: u64,
    /// Offset of the bytes allocated; resident and mapped follow.
    pub allocated: u64,
}

/// `tsd_t`, as far as the thread cache needs it, and `tcache_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadLayout {
    /// Offset of the arena in `tsd_t`; the word before it is the arena for internal use. Not used
    /// from 5.3 on, where the cache's own pointers tell more.
    pub arena: u64,
    /// Offset of the cached leaves: 24 pairs of key and leaf.
    pub leaves: u64,
    /// Offset of `tcache_t` in `tsd_t`.
    pub cache: u64,
    /// Offset of the first bin in `tcache_t`.
    pub bins: u64,
    /// Offset of the first large bin in `tcache_t`, where it is apart.
    pub large_bins: Option<u64>,
    /// Number of bins.
    pub bin_count: u16,
    /// Offset in `tcache_t` of the arena (5.0 to 5.2).
    pub cache_arena: u64,
}

/// Layouts of all structures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The releases that have it.
    pub generation: Generation,
    /// Which size classes.
    pub quantum: Quantum,
    /// Extents.
    pub extent: ExtentLayout,
    /// Arenas.
    pub arena: ArenaLayout,
    /// Bins.
    pub bin: BinLayout,
    /// Page caches.
    pub pages: PagesLayout,
    /// Base memory.
    pub base: BaseLayout,
    /// Thread state.
    pub thread: ThreadLayout,
    /// Offset of the page map's root in `extents_rtree` or `arena_emap_global`.
    pub root: u64,
    /// Offset of a mutex's lock word.
    pub lock: u64,
    /// Offset in `prof_tctx_t` of the pointer to `prof_gctx_t`, and there of the stack: address, length.
    pub stack: (u64, u64),
}

impl Layout {
    /// The layout of a release with its usual options.
    pub fn built_in(generation: Generation, quantum: Quantum) -> Self {
        Self {
            generation,
            quantum,
            extent: extent(generation),
            arena: arena(generation, quantum),
            bin: bin(generation),
            pages: pages(generation),
            base: base(generation, quantum),
            thread: thread(generation, quantum),
            root: match generation {
                Generation::V5_0 | Generation::V5_1 => 0x68,
                Generation::V5_2 => 0x70,
                Generation::V5_3_0 | Generation::V5_3_1 => 0x78,
            },
            lock: 64,
            stack: if generation.is_5_3() {
                (96, 0x68)
            } else {
                (56, 0x48)
            },
        }
    }
}

fn extent(generation: Generation) -> ExtentLayout {
    let one = |shift| BitsAt::new(shift, 1);
    let old = |shift: u32| ExtentLayout {
        alignment: 64,
        arena: BitsAt::new(0, 12),
        slab: one(12),
        state: BitsAt::new(shift, 2),
        class: BitsAt::new(shift.saturating_add(2), 8),
        free: BitsAt::new(shift.saturating_add(10), 10),
        shard: None,
        head: None,
        huge: None,
        huge_page: 24,
        address: 8,
        size: 16,
        heap_link: 40,
        bitmap: 64,
        list_link: 24,
        requested: None,
        context: 72,
    };
    match generation {
        Generation::V5_0 => old(15),
        Generation::V5_1 => old(16),
        Generation::V5_2 => ExtentLayout {
            shard: Some(BitsAt::new(36, 6)),
            ..old(16)
        },
        Generation::V5_3_0 | Generation::V5_3_1 => ExtentLayout {
            alignment: 128,
            state: BitsAt::new(17, 3),
            class: BitsAt::new(20, 8),
            free: BitsAt::new(28, 10),
            shard: Some(BitsAt::new(38, 6)),
            head: Some(one(44)),
            huge: Some(one(14)),
            list_link: 64,
            requested: Some(72),
            context: 80,
            ..old(16)
        },
    }
}

fn arena(generation: Generation, quantum: Quantum) -> ArenaLayout {
    // Bins inside the arena, or pointers to them, lie before what follows: more classes move it.
    let more = u64::from(quantum.bins().saturating_sub(Quantum::Sixteen.bins()));
    let old = ArenaLayout {
        internal: 0,
        caches: 0x1b58,
        active: 0x1bf0,
        pages: [0x1c68, 0x2348, 0x2a28],
        index: None,
        base: (more * 264).saturating_add(0x64e8),
        map: None,
        bins: 0x3fc8,
        bin_arrays: false,
    };
    match generation {
        Generation::V5_0 => old,
        Generation::V5_1 => ArenaLayout {
            caches: 0x1b60,
            active: 0x1c00,
            pages: [0x1c78, 0x2358, 0x2a38],
            base: (more * 264).saturating_add(0x64f8),
            bins: 0x3fd8,
            ..old
        },
        Generation::V5_2 => ArenaLayout {
            internal: 0x18 + 80,
            caches: 0x27c8,
            active: 0x2868,
            pages: [0x28e8, 0x3c50, 0x4fb8],
            base: (more * 8).saturating_add(0x7328),
            bins: 0x7208,
            bin_arrays: true,
            ..old
        },
        Generation::V5_3_0 => ArenaLayout {
            internal: 0x18 + 0x20,
            caches: 0x2898,
            active: 0x29a0,
            pages: [0x29e8, 0x75d8, 0xc1c8],
            index: Some(0x13450),
            base: 0x13458,
            map: Some(0x13440),
            bins: 0x13468,
            ..old
        },
        Generation::V5_3_1 => ArenaLayout {
            internal: 0x18 + 0x30,
            caches: 0x2ec8,
            active: 0x3008,
            pages: [0x3040, 0x7c30, 0xc820],
            index: Some(0x13b00),
            base: 0x13b08,
            map: Some(0x13ae8),
            bins: 0x13b40,
            ..old
        },
    }
}

fn bin(generation: Generation) -> BinLayout {
    let stats = |bytes, current, stats: u64| BinLayout {
        bytes,
        current,
        nonfull: current.saturating_add(8),
        regions: stats.saturating_add(24),
        slabs: stats.saturating_add(64),
        nonfull_slabs: None,
    };
    let with_heap = |layout: BinLayout| BinLayout {
        nonfull_slabs: Some(layout.slabs.saturating_add(8)),
        ..layout
    };
    match generation {
        Generation::V5_0 | Generation::V5_1 => stats(264, 104, 128),
        Generation::V5_2 => with_heap(stats(280, 112, 136)),
        Generation::V5_3_0 | Generation::V5_3_1 => with_heap(stats(224, 192, 112)),
    }
}

fn pages(generation: Generation) -> PagesLayout {
    match generation {
        Generation::V5_0 | Generation::V5_1 => PagesLayout {
            lists: &[1736],
            counts: &[1744],
            state: 1752,
            sets: &[],
            heaps: (0, 0),
        },
        Generation::V5_2 => PagesLayout {
            lists: &[0x1350],
            counts: &[0x1358],
            state: 0x1360,
            sets: &[0],
            heaps: (0x70, 8),
        },
        Generation::V5_3_0 | Generation::V5_3_1 => PagesLayout {
            lists: &[0x2610, 0x4bc8],
            counts: &[0x2618, 0x4bd0],
            state: 0x4be0,
            sets: &[0x70, 0x2628],
            heaps: (0x20, 32),
        },
    }
}

fn base(generation: Generation, quantum: Quantum) -> BaseLayout {
    let (blocks, heap): (u64, u64) = match generation {
        Generation::V5_0 | Generation::V5_1 => (0x88, 8),
        Generation::V5_2 => (0x90, 8),
        Generation::V5_3_0 | Generation::V5_3_1 => (0xa0, 16),
    };
    BaseLayout {
        blocks,
        // One heap of unused pieces per size class lies between.
        allocated: blocks
            .saturating_add(8)
            .saturating_add(heap.saturating_mul(u64::from(quantum.classes()))),
    }
}

fn thread(generation: Generation, quantum: Quantum) -> ThreadLayout {
    let bins = u64::from(quantum.bins());
    let more = bins.saturating_sub(u64::from(Quantum::Sixteen.bins()));
    // tcache_t: link, small bins, links, arena, next bin, a divider per small class, large bins.
    let after = (24 * bins).saturating_add(16);
    let old = |arena, leaves, cache, links: u64, dividers: u64| ThreadLayout {
        arena,
        leaves,
        cache,
        bins: 16,
        large_bins: Some(
            after
                .saturating_add(links)
                .saturating_add(dividers)
                .saturating_add(more)
                .next_multiple_of(8),
        ),
        bin_count: quantum.bins().saturating_add(5),
        cache_arena: after.saturating_add(links),
    };
    let new = |arena, leaves, cache, large: u16| ThreadLayout {
        arena,
        leaves,
        cache,
        bins: 8,
        large_bins: None,
        bin_count: quantum.bins().saturating_add(large),
        cache_arena: 0,
    };
    match generation {
        Generation::V5_0 => old(0x1a8, 0x20, 0x1b8, 16, 48),
        Generation::V5_1 => old(0x1b0, 0x28, 0x1c0, 48, 48),
        Generation::V5_2 => old(0x1b8, 0x30, 0x1f0, 72, 48),
        Generation::V5_3_0 => new(0x90, 0x1b0, 0x358, 37),
        Generation::V5_3_1 => new(0xc8, 0x218, 0x3c0, 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_caches_lie_where_builds_have_them() {
        let large = |generation| {
            let layout = Layout::built_in(generation, Quantum::Sixteen).thread;
            (layout.cache_arena, layout.large_bins)
        };
        assert_eq!(large(Generation::V5_0), (896, Some(944)));
        assert_eq!(large(Generation::V5_1), (928, Some(976)));
        assert_eq!(large(Generation::V5_2), (952, Some(1000)));
    }

    #[test]
    fn a_base_of_a_small_quantum_has_the_size_that_a_build_has() {
        let base = Layout::built_in(Generation::V5_3_0, Quantum::Eight).base;
        assert_eq!(base.allocated + 4 * 8, 3960, "and three counters behind it");
    }
}
