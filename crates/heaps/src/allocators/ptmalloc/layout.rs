//! Where glibc keeps what, release by release (`malloc/malloc.c`, `malloc/arena.c`), for 64-bit
//! targets. Checked against debug information of 2.31, 2.36, 2.41 and 2.43; the others are read from
//! the sources.

use std::fmt;

use crate::map::ChunkLayout;
use ground::target::{Address, StructLayout};

/// Bytes in front of a block: `prev_size`, which belongs to the chunk before, and `size`.
pub const HEADER: u64 = 16;
/// Offsets of a free chunk's links: `fd`, `bk`, `fd_nextsize`, `bk_nextsize`. Of the first two the same in a bin's pseudo-chunk.
pub const FORWARD: u64 = HEADER;
/// `bk`.
pub const BACK: u64 = HEADER + 8;
/// `fd_nextsize`: in a large bin, to the next smaller size; null in the unsorted one.
pub const NEXT_SIZE: u64 = HEADER + 16;
/// `bk_nextsize`: to the next larger size.
pub const BACK_SIZE: u64 = HEADER + 24;
/// Chunks of this size and more have the last two.
pub const LARGE: u64 = 0x400;
/// `MALLOC_ALIGNMENT`.
pub const ALIGNMENT: u64 = 16;
/// `MINSIZE`.
pub const MIN_CHUNK: u64 = 0x20;
/// Bits by which the address of a link is shifted before it is mixed with it (`PROTECT_PTR`, 2.32 on): the same on every system.
pub const PROTECT_SHIFT: u32 = 12;

/// What a link stands for, or how it is stored (`PROTECT_PTR`, `REVEAL_PTR`): each undoes the other.
pub fn protect(at: Address, word: u64) -> Address {
    Address::new(word ^ (at.get() >> PROTECT_SHIFT))
}

/// The flags in a size word.
pub const FLAGS: u64 = 7;
/// The chunk before is in use.
pub const PREV_INUSE: u64 = 1;
/// The chunk has a mapping of its own.
pub const IS_MMAPPED: u64 = 2;
/// The chunk belongs to another arena than `main_arena`.
pub const NON_MAIN: u64 = 4;
/// `malloc_state.flags`: the arena does not use `brk`.
pub const NONCONTIGUOUS: u64 = 2;
/// Bins with a list: 1 is unsorted, 2 to 63 small, 64 to 126 large.
pub const BINS: u64 = 127;
/// `HEAP_MAX_SIZE`, unless huge pages were asked for.
pub const HEAP_MAX: u64 = 64 << 20;

/// How chunks lie side by side.
pub const CHUNKS: ChunkLayout = ChunkLayout { lead: 16, spill: 8 };

/// Usable bytes of a chunk of this size.
pub const fn usable(size: u64) -> u64 {
    size.saturating_sub(8)
}

/// Releases 2.`low` to 2.`high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Releases {
    /// First.
    pub low: u8,
    /// Last.
    pub high: u8,
}

impl Releases {
    /// The oldest that is read.
    pub const OLDEST: u8 = 12;

    /// From the first to the last.
    pub const fn new(low: u8, high: u8) -> Self {
        Self { low, high }
    }

    /// Those in both, or all of `self` if there are none.
    pub fn narrow(self, other: Self) -> Self {
        let both = Self::new(self.low.max(other.low), self.high.min(other.high));
        if both.low <= both.high { both } else { self }
    }
}

impl fmt::Display for Releases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high {
            write!(f, "2.{}", self.low)
        } else {
            write!(f, "2.{}-2.{}", self.low, self.high)
        }
    }
}

/// `struct malloc_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaLayout {
    /// Releases that have it.
    pub releases: Releases,
    /// `fastbinsY`, up to 2.42.
    pub fastbins: Option<u64>,
    /// `top`.
    pub top: u64,
    /// `last_remainder`.
    pub last_remainder: u64,
    /// `bins`.
    pub bins: u64,
    /// `binmap`.
    pub binmap: u64,
    /// `next`.
    pub next: u64,
    /// `attached_threads`, from 2.23.
    pub attached: Option<u64>,
    /// `system_mem`.
    pub system_mem: u64,
    /// `max_system_mem`.
    pub max_system_mem: u64,
    /// Size of the structure.
    pub bytes: u64,
}

impl ArenaLayout {
    /// Slots of `fastbinsY` (of which the first ten are used).
    pub const FASTBINS: u64 = 10;
    /// `flags`; the mutex is the word before.
    pub const FLAGS: u64 = 4;

    /// All layouts: 2.27 to 2.42, 2.23 to 2.26, 2.12 to 2.22, 2.43.
    pub const ALL: [Self; 4] = [
        Self::built_in(Releases::new(27, 42), 112, Some(16), true),
        Self::built_in(Releases::new(23, 26), 104, Some(8), true),
        Self::built_in(Releases::new(Releases::OLDEST, 22), 104, Some(8), false),
        Self::built_in(Releases::new(43, 43), 24, None, true),
    ];

    /// Everything behind the head lies at the same distance from `bins` in every release.
    const fn built_in(
        releases: Releases,
        bins: u64,
        fastbins: Option<u64>,
        attached: bool,
    ) -> Self {
        let next = bins.saturating_add(254 * 8).saturating_add(16);
        let system_mem = next.saturating_add(if attached { 24 } else { 16 });
        Self {
            releases,
            fastbins,
            top: bins.saturating_sub(16),
            last_remainder: bins.saturating_sub(8),
            bins,
            binmap: bins.saturating_add(254 * 8),
            next,
            attached: if attached {
                Some(next.saturating_add(16))
            } else {
                None
            },
            system_mem,
            max_system_mem: system_mem.saturating_add(8),
            bytes: system_mem.saturating_add(16),
        }
    }

    /// From debug information (`malloc_state`).
    pub fn resolve(layout: &StructLayout) -> Option<Self> {
        let offset = |name: &str| layout.field(name).map(|field| field.offset);
        let found = Self {
            releases: Releases::new(Releases::OLDEST, 43),
            fastbins: offset("fastbinsY"),
            top: offset("top")?,
            last_remainder: offset("last_remainder")?,
            bins: offset("bins")?,
            binmap: offset("binmap")?,
            next: offset("next")?,
            attached: offset("attached_threads"),
            system_mem: offset("system_mem")?,
            max_system_mem: offset("max_system_mem")?,
            bytes: layout.size,
        };
        let known = Self::ALL
            .into_iter()
            .find(|known| known.bins == found.bins && known.attached == found.attached)?;
        Some(Self {
            releases: known.releases,
            ..found
        })
    }

    /// `next_free`, right behind `next` in every release.
    pub const fn next_free(&self) -> u64 {
        self.next.saturating_add(8)
    }

    /// Offset of the pseudo-chunk of bin `number` (1 to 127).
    pub const fn bin(&self, number: u64) -> u64 {
        self.bins
            .saturating_add(number.saturating_mul(16))
            .saturating_sub(16)
            .saturating_sub(HEADER)
    }
}

/// `struct malloc_par`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParametersLayout {
    /// Releases that have it.
    pub releases: Releases,
    /// `hp_pagesize`, from 2.35.
    pub huge_page: Option<u64>,
    /// `pagesize`, up to 2.16.
    pub page_bytes: Option<u64>,
    /// `n_mmaps`; `n_mmaps_max` is the word behind.
    pub n_mmaps: u64,
    /// `mmapped_mem`.
    pub mmapped_mem: u64,
    /// `sbrk_base`.
    pub sbrk_base: u64,
    /// `tcache_bins`; `tcache_max_bytes` and `tcache_count` are the words behind.
    pub tcache: Option<u64>,
}

impl ParametersLayout {
    /// Bytes from its start to the end of the last word that is known.
    pub fn bytes(&self) -> u64 {
        /// `tcache_bins`, `tcache_max_bytes`, `tcache_count`, `tcache_unsorted_limit`.
        const TCACHE: u64 = 32;
        let behind = self
            .tcache
            .map_or(0, |tcache| tcache.saturating_add(TCACHE));
        behind.max(self.sbrk_base.saturating_add(8))
    }

    /// `top_pad`.
    pub const TOP_PAD: u64 = 8;
    /// `arena_test`; `arena_max` is the word behind.
    pub const ARENA_TEST: u64 = 24;

    /// All layouts.
    pub const ALL: [Self; 6] = [
        Self::built_in(Releases::new(35, 42), Some(48), 60, 80, 96, Some(104)),
        Self::built_in(Releases::new(26, 34), None, 40, 56, 72, Some(80)),
        Self::built_in(Releases::new(24, 25), None, 40, 56, 72, None),
        Self::built_in(Releases::new(17, 23), None, 40, 56, 80, None),
        Self::built_in(Releases::new(43, 43), Some(56), 68, 88, 104, Some(112)),
        Self {
            page_bytes: Some(56),
            ..Self::built_in(Releases::new(Releases::OLDEST, 16), None, 40, 64, 88, None)
        },
    ];

    const fn built_in(
        releases: Releases,
        huge_page: Option<u64>,
        n_mmaps: u64,
        mmapped_mem: u64,
        sbrk_base: u64,
        tcache: Option<u64>,
    ) -> Self {
        Self {
            releases,
            huge_page,
            page_bytes: None,
            n_mmaps,
            mmapped_mem,
            sbrk_base,
            tcache,
        }
    }

    /// From debug information (`malloc_par`).
    pub fn resolve(layout: &StructLayout) -> Option<Self> {
        let offset = |name: &str| layout.field(name).map(|field| field.offset);
        let found = Self {
            releases: Releases::new(Releases::OLDEST, 43),
            huge_page: offset("hp_pagesize"),
            page_bytes: offset("pagesize"),
            n_mmaps: offset("n_mmaps")?,
            mmapped_mem: offset("mmapped_mem")?,
            sbrk_base: offset("sbrk_base")?,
            tcache: offset("tcache_bins").or_else(|| offset("tcache_small_bins")),
        };
        let releases = Self::ALL
            .into_iter()
            .find(|known| {
                Self {
                    releases: found.releases,
                    ..*known
                } == found
            })?
            .releases;
        Some(Self { releases, ..found })
    }
}

/// `struct tcache_perthread_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcacheLayout {
    /// Releases that have it.
    pub releases: Releases,
    /// Sizes of the chunk that holds it.
    pub chunks: &'static [u64],
    /// Number of bins.
    pub bins: u64,
    /// Bytes of a count.
    pub count_bytes: u64,
    /// `entries`.
    pub entries: u64,
    /// Counts say how much room is left, not how much is in.
    pub counts_down: bool,
}

impl TcacheLayout {
    /// Bins for chunks of one size each; those behind hold large chunks of mixed sizes (2.42 on).
    pub const SMALL_BINS: u64 = 64;

    /// All layouts.
    pub const ALL: [Self; 3] = [
        Self {
            releases: Releases::new(26, 29),
            chunks: &[0x250, 0x260],
            bins: 64,
            count_bytes: 1,
            entries: 64,
            counts_down: false,
        },
        Self {
            releases: Releases::new(30, 41),
            chunks: &[0x290, 0x2a0],
            bins: 64,
            count_bytes: 2,
            entries: 128,
            counts_down: false,
        },
        Self {
            releases: Releases::new(42, 43),
            chunks: &[0x300, 0x310, 0x320],
            bins: 76,
            count_bytes: 2,
            entries: 152,
            counts_down: true,
        },
    ];

    /// The bin for chunks of this size.
    pub fn bin_of(&self, size: u64) -> u64 {
        let small = size.saturating_sub(MIN_CHUNK) / ALIGNMENT;
        if small < Self::SMALL_BINS {
            small
        } else {
            // 64 + floor(log2 size) - 10
            54 + u64::from(size.max(1).ilog2())
        }
    }

    /// The chunk size of a bin, if it has only one.
    pub fn chunk_of(bin: u64) -> Option<u64> {
        (bin < Self::SMALL_BINS).then_some(MIN_CHUNK.saturating_add(bin.saturating_mul(ALIGNMENT)))
    }
}

/// The fastbin for chunks of this size.
pub const fn fastbin_of(size: u64) -> u64 {
    (size >> 4).saturating_sub(2)
}

/// The small or large bin for chunks of this size.
pub const fn bin_of(size: u64) -> u64 {
    if size < 0x400 {
        size >> 4
    } else if size >> 6 <= 48 {
        (size >> 6).saturating_add(48)
    } else if size >> 9 <= 20 {
        (size >> 9).saturating_add(91)
    } else if size >> 12 <= 10 {
        (size >> 12).saturating_add(110)
    } else if size >> 15 <= 4 {
        (size >> 15).saturating_add(119)
    } else if size >> 18 <= 2 {
        (size >> 18).saturating_add(124)
    } else {
        126
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_an_arena_lies_as_in_real_builds() {
        // 2.36, 2.41 and 2.31 (debug information of Debian's builds)
        let [modern, .., newest] = ArenaLayout::ALL;
        assert_eq!((modern.top, modern.binmap, modern.next), (96, 2144, 2160));
        assert_eq!((modern.system_mem, modern.bytes), (2184, 2200));
        // 2.43
        assert_eq!((newest.top, newest.binmap, newest.next), (8, 2056, 2072));
        assert_eq!((newest.system_mem, newest.bytes), (2096, 2112));
        // 2.17 to 2.22
        assert_eq!(ArenaLayout::ALL[2].system_mem, 2168);
        assert_eq!(ArenaLayout::ALL[2].bytes, 2184);
        assert_eq!(modern.bin(1), 96);
    }

    #[test]
    fn bins_by_size() {
        assert_eq!([0x20, 0x3f0, 0x400, 0xc30].map(bin_of), [2, 63, 64, 96]);
        assert_eq!(
            [0xc40, 0x2a00, 0xb000, 0x28000, 0x80000].map(bin_of),
            [97, 112, 120, 124, 126]
        );
        let tcache = TcacheLayout::ALL[2];
        assert_eq!(
            [0x20, 0x410, 0x420, 0x7f0, 0x800].map(|size| tcache.bin_of(size)),
            [0, 63, 64, 64, 65]
        );
        assert_eq!(TcacheLayout::chunk_of(63), Some(0x410));
        assert_eq!([0x20, 0x80].map(fastbin_of), [0, 6]);
    }

    #[test]
    fn releases_narrow() {
        let modern = Releases::new(27, 42);
        assert_eq!(
            modern.narrow(Releases::new(35, 42)).to_string(),
            "2.35-2.42"
        );
        assert_eq!(modern.narrow(Releases::new(36, 36)).to_string(), "2.36");
        assert_eq!(modern.narrow(Releases::new(43, 43)), modern);
    }
}
