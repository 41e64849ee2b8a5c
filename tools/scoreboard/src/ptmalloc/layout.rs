//! Where glibc keeps what, written down a second time on purpose (`malloc/malloc.c`, `malloc/arena.c` of 2.30 to
//! 2.43, 64-bit): a wrong layout in the walker must not agree with itself.

/// Bytes in front of a block.
pub const HEADER: u64 = 16;
/// Size and alignment of the heaps of arenas beside the main one.
pub const HEAP_MAX: u64 = 64 << 20;
/// Flags of a size word: the chunk before is in use, own mapping, not the main arena's.
pub const P: u64 = 1;
pub const M: u64 = 2;
pub const N: u64 = 4;
/// Sizes from which chunks carry links between sizes.
pub const LARGE: u64 = 0x400;

/// Offsets and habits of one release.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// 2.`minor`.
    pub minor: u32,
    /// `malloc_state.fastbinsY`, of ten words; gone in 2.43.
    pub fastbins: Option<u64>,
    /// `malloc_state.top`; `last_remainder` is the word behind, and `bins` begin behind that.
    pub top: u64,
    /// `mp_`: `n_mmaps`, `mmapped_mem`, `tcache_count`.
    pub parameters: [u64; 3],
    /// Bins of a cache, whose counts (of two bytes) stand before the entries.
    pub cache_bins: u64,
    /// `heap_info`.
    pub info: u64,
}

impl Layout {
    /// Of glibc 2.`minor`. `None` before 2.30, whose caches count in bytes.
    pub fn of(minor: u32) -> Option<Self> {
        let fastbins = (minor <= 42).then_some(16);
        (30..=43).contains(&minor).then_some(Self {
            minor,
            fastbins,
            top: if fastbins.is_some() { 96 } else { 8 },
            parameters: match minor {
                ..=34 => [40, 56, 96],
                35..=42 => [60, 80, 120],
                _ => [68, 88, 128],
            },
            cache_bins: if minor <= 41 { 64 } else { 76 },
            info: if minor <= 34 { 0x20 } else { 0x30 },
        })
    }

    /// `malloc_state.bins`.
    pub fn bins(&self) -> u64 {
        self.top + 16
    }

    /// The pseudo-chunk of a bin.
    pub fn bin(&self, number: u64) -> u64 {
        self.bins() + 16 * (number - 1) - HEADER
    }

    /// `malloc_state.binmap`; `next`, `next_free`, `attached_threads`, `system_mem`, `max_system_mem` follow.
    pub fn binmap(&self) -> u64 {
        self.bins() + 254 * 8
    }

    /// `malloc_state.next`.
    pub fn next(&self) -> u64 {
        self.binmap() + 16
    }

    /// Bytes of `malloc_state`.
    pub fn arena_bytes(&self) -> u64 {
        self.next() + 40
    }

    /// `tcache_perthread_struct.entries`.
    pub fn entries(&self) -> u64 {
        self.cache_bins * 2
    }

    /// Bytes of `tcache_perthread_struct`.
    pub fn cache_bytes(&self) -> u64 {
        self.cache_bins * 10
    }

    /// Whether caches count the room that is left (2.42 on).
    pub fn counts_down(&self) -> bool {
        self.minor >= 42
    }

    /// What is stored at `field` for a link to `to` (links are mangled from 2.32 on), and the other way round.
    pub fn link(&self, field: u64, to: u64) -> u64 {
        if self.minor >= 32 {
            field >> 12 ^ to
        } else {
            to
        }
    }

    /// Whether a chunk freed into a bin goes to its small bin at once (2.41 on).
    pub fn bins_small_at_once(&self) -> bool {
        self.minor >= 41
    }
}
