//! jemalloc's numbers, written down a second time on purpose: a wrong layout in the walker must not agree with itself.
//!
//! From `edata.h` / `extent_structs.h`, `arena_structs.h`, `bin.h`, `eset.h`, `ecache.h`, `cache_bin.h`, `base.h` and
//! `rtree.h` of 5.2.1, 5.3.0 and 5.3.1, 64-bit, pages of 4 KiB.

/// log2 of a page.
pub const PAGE_SHIFT: u64 = 12;
/// Bytes of a page.
pub const PAGE: u64 = 1 << PAGE_SHIFT;
/// Bytes of `extent_t` and `edata_t`.
pub const EXTENT: u64 = 128;
/// `e_addr`, `e_size_esn`, the heap link {previous, next, left child} and the bitmap in both.
pub const ADDRESS: u64 = 8;
pub const SIZE: u64 = 16;
pub const HEAP_LINK: u64 = 40;
pub const BITMAP: u64 = 64;
/// `cache_bin_t`.
pub const CACHE_BIN: u64 = 24;
/// Free extents are kept in so many heaps per page cache (`SC_NPSIZES` and one more).
pub const HEAPS: u64 = 200;

/// What differs between releases.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// 5.3: `edata_t`, caches as stacks.
    pub new: bool,
    /// 5.3.1: caches know their capacity.
    pub counts_capacity: bool,
    /// `e_bits`: lowest bit and width.
    pub state: (u32, u32),
    pub class: (u32, u32),
    pub free: (u32, u32),
    pub shard: (u32, u32),
    /// `is_head`, which the page map repeats from 5.3 on.
    pub head: Option<u32>,
    /// Link of the list of free extents: next, previous.
    pub list_link: u64,
    /// `arena_t`.
    pub large: u64,
    pub active: u64,
    pub page_caches: [u64; 3],
    pub index: Option<u64>,
    pub base: u64,
    pub map: Option<u64>,
    pub bins: u64,
    /// The arena points at arrays of bins.
    pub bin_arrays: bool,
    /// `extents_t` / `ecache_t`: heaps and the bytes from one to the next, list, pages, state.
    pub heaps: (u64, u64),
    /// Numbers and bytes of the extents in each heap, and the bytes from one to the next.
    pub heap_counts: (u64, u64, u64),
    pub list: u64,
    pub pages: u64,
    pub cache_state: u64,
    /// `bin_t`: its bytes, the slab in use, the heap, full slabs, the statistics.
    pub bin: u64,
    pub current: u64,
    pub heap: u64,
    pub full: u64,
    pub stats: u64,
    /// `base_t.blocks`.
    pub blocks: u64,
    /// Offset of the root in the page map's object.
    pub root: u64,
    /// Offset of the bins in `tcache_t`, and of the large ones where they are apart.
    pub cache_bins: u64,
    pub large_bins: Option<u64>,
}

const NEW: Numbers = Numbers {
    new: true,
    counts_capacity: false,
    state: (17, 3),
    class: (20, 8),
    free: (28, 10),
    shard: (38, 6),
    head: Some(44),
    list_link: 64,
    large: 0x2920,
    active: 0x29a0,
    page_caches: [0x29e8, 0x75d8, 0xc1c8],
    index: Some(0x13450),
    base: 0x13458,
    map: Some(0x13440),
    bins: 0x13468,
    bin_arrays: false,
    heaps: (0x70 + 0x20, 32),
    heap_counts: (0x70 + 0x1920, 0x70 + 0x1928, 16),
    list: 0x70 + 0x25a0,
    pages: 0x70 + 0x25a8,
    cache_state: 0x4be0,
    bin: 224,
    current: 192,
    heap: 200,
    full: 216,
    stats: 112,
    blocks: 0xa0,
    root: 0x78,
    cache_bins: 8,
    large_bins: None,
};

const OLD: Numbers = Numbers {
    new: false,
    state: (16, 2),
    class: (18, 8),
    free: (26, 10),
    shard: (36, 6),
    head: None,
    list_link: 24,
    large: 0x2870,
    active: 0x2868,
    page_caches: [0x28e8, 0x3c50, 0x4fb8],
    index: None,
    base: 0x7328,
    map: None,
    bins: 0x7208,
    bin_arrays: true,
    heaps: (0x70, 8),
    heap_counts: (0x6b0, 0xcf0, 8),
    list: 0x1350,
    pages: 0x1358,
    cache_state: 0x1360,
    bin: 280,
    current: 112,
    heap: 120,
    full: 128,
    stats: 136,
    blocks: 0x90,
    root: 0x70,
    cache_bins: 16,
    large_bins: Some(1000),
    ..NEW
};

impl Numbers {
    /// Those of a release, by its name.
    pub fn of(version: &str) -> Option<Self> {
        if version.starts_with("5.3.1") {
            Some(Self {
                counts_capacity: true,
                large: 0x2f50,
                active: 0x3008,
                page_caches: [0x3040, 0x7c30, 0xc820],
                index: Some(0x13b00),
                base: 0x13b08,
                map: Some(0x13ae8),
                bins: 0x13b40,
                ..NEW
            })
        } else if version.starts_with("5.3.0") {
            Some(NEW)
        } else if version.starts_with("5.2") {
            Some(OLD)
        } else {
            None
        }
    }

    /// A field of `e_bits`.
    pub fn field(word: u64, (shift, width): (u32, u32)) -> u64 {
        word >> shift & ((1 << width) - 1)
    }

    /// The bits of a field.
    pub fn mask((shift, width): (u32, u32)) -> u64 {
        ((1 << width) - 1) << shift
    }
}

/// Sizes of all classes, and how slabs of the small ones are cut.
pub struct Classes {
    /// Bytes of each.
    pub bytes: Vec<u64>,
    /// Small ones.
    pub small: Vec<Small>,
}

/// A row of `bin_infos`.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    pub bytes: u64,
    pub regions: u64,
    /// Bins of the classes before it.
    pub first_bin: u64,
}

impl Classes {
    /// Reads `bin_infos`; the rest follows from its second and third row.
    pub fn read(table: u64, word: impl Fn(u64) -> Option<u64>) -> Option<Self> {
        let step = word(table + 80)? - word(table + 40)?;
        let (small, step): (u64, u64) = match step {
            16 => (36, 16),
            8 => (39, 8),
            _ => return None,
        };
        let mut bytes = if step == 16 { vec![8] } else { Vec::new() };
        bytes.extend((1..=4).map(|index| index * step));
        while bytes.len() < small as usize + 196 {
            let last = bytes[bytes.len() - 1];
            bytes.extend((1..=4).map(|index| last + last / 4 * index));
        }
        let mut first_bin = 0;
        let mut rows = Vec::new();
        for class in 0..small {
            let row = table + class * 40;
            let counts = word(row + 16)?;
            rows.push(Small {
                bytes: word(row)?,
                regions: counts & 0xffff_ffff,
                first_bin,
            });
            first_bin += counts >> 32;
        }
        bytes.truncate(small as usize + 196);
        let agree = rows
            .iter()
            .zip(&bytes)
            .all(|(row, size)| row.bytes == *size);
        agree.then_some(Self { bytes, small: rows })
    }

    /// As a class it means none.
    pub fn none(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Classes that caches hold: the small ones and those up to 32 KiB.
    pub fn cached(&self) -> u64 {
        self.small.len() as u64 + 5
    }
}
