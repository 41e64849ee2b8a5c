//! gperftools' numbers, copied by hand from builds of its releases (x86-64, debug information read
//! with a debugger) and from its sources. Nothing here may come from the walker's own tables.

/// Releases that share all layouts.
#[derive(Clone, Copy, Debug)]
pub struct Release {
    /// What `tc_version` says.
    pub version: &'static str,
    /// As the report names the layout.
    pub layout: &'static str,
    /// `SizeMap::num_size_classes`.
    pub num_size_classes: u64,
    /// `lock_` is a member of `PageHeap`, which is 16 bytes longer for it.
    pub member_lock: bool,
    /// `ThreadCache::tid_`.
    pub tid: Option<u64>,
    /// `ThreadCache::next_` and `prev_`.
    pub next: u64,
    pub prev: u64,
}

pub const V2_10: Release = Release {
    version: "2.10",
    layout: "2.8-2.10",
    num_size_classes: 4224,
    member_lock: false,
    tid: Some(4128),
    next: 4144,
    prev: 4152,
};
pub const V2_13: Release = Release {
    version: "2.13",
    layout: "2.11-2.15",
    num_size_classes: 4232,
    member_lock: true,
    tid: Some(4128),
    next: 4144,
    prev: 4152,
};
pub const V2_16: Release = Release {
    version: "2.16",
    layout: "2.16-2.18.1",
    num_size_classes: 4232,
    member_lock: true,
    tid: None,
    next: 4128,
    prev: 4136,
};

/// `PageHeap` for one page size, as in 2.11 and later; 16 bytes less before.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    pub shift: u32,
    pub max_pages: u64,
    pub root_bits: u32,
    pub leaf_bits: u32,
    pub allocator: u64,
    pub free: u64,
    pub stats: u64,
    pub bytes: u64,
}

const fn pages(
    shift: u32,
    max_pages: u64,
    bits: (u32, u32),
    (allocator, free, stats, bytes): (u64, u64, u64, u64),
) -> Pages {
    Pages {
        shift,
        max_pages,
        root_bits: bits.0,
        leaf_bits: bits.1,
        allocator,
        free,
        stats,
        bytes,
    }
}

pub const PAGES: [Pages; 7] = [
    pages(12, 256, (18, 18), (2621456, 2621560, 2646136, 2646240)),
    pages(13, 128, (17, 18), (1572880, 1572984, 1585272, 1585376)),
    pages(14, 64, (17, 17), (1572880, 1572984, 1579128, 1579232)),
    pages(15, 32, (16, 17), (1048592, 1048696, 1051768, 1051872)),
    pages(16, 16, (16, 16), (1048592, 1048696, 1050232, 1050336)),
    pages(17, 8, (15, 16), (786448, 786552, 787320, 787424)),
    pages(18, 4, (15, 15), (786448, 786552, 786936, 787040)),
];

/// The default build's pages.
pub const PAGES_8K: Pages = PAGES[1];

/// Offsets that no release since 2.8 changed.
pub mod span {
    pub const BYTES: u64 = 48;
    pub const START: u64 = 0;
    pub const LENGTH: u64 = 8;
    pub const NEXT: u64 = 16;
    pub const PREV: u64 = 24;
    pub const OBJECTS: u64 = 32;
    /// refcount 0-15, sizeclass 16-23, location 24-25, sample 26, has_span_iter 27
    pub const FLAGS: u64 = 40;
}

pub mod central {
    pub const STRIDE: u64 = 1216;
    pub const LOCK: u64 = 0;
    pub const SIZE_CLASS: u64 = 8;
    pub const EMPTY: u64 = 16;
    pub const NONEMPTY: u64 = 64;
    pub const NUM_SPANS: u64 = 112;
    pub const COUNTER: u64 = 120;
    pub const SLOTS: u64 = 128;
    pub const USED_SLOTS: u64 = 1152;
    pub const CACHE_SIZE: u64 = 1156;
    pub const MAX_CACHE_SIZE: u64 = 1160;
}

pub mod cache {
    pub const BYTES: u64 = 4160;
    /// Of a `FreeList`: list_ 0, length_ 8, lowater_ 12, max_length_ 16, overages 20, size_ 24.
    pub const LIST: u64 = 32;
    pub const LENGTH: u64 = 8;
    pub const LOW_WATER: u64 = 12;
    pub const MAX_LENGTH: u64 = 16;
    pub const OBJECT_BYTES: u64 = 24;
    pub const SIZE: u64 = 4096;
    pub const MAX_SIZE: u64 = 4100;
}

pub mod size_map {
    pub const CLASS_ARRAY: u64 = 0;
    pub const NUM_OBJECTS_TO_MOVE: u64 = 2172;
    pub const CLASS_TO_SIZE: u64 = 2684;
    pub const CLASS_TO_PAGES: u64 = 3200;
    pub const MAX_CLASSES: u64 = 128;
}

/// Sizes of the default build's classes up to 32 KiB; then every 8 KiB up to 256 KiB.
const SIZES: [u64; 58] = [
    0, 8, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352,
    384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048,
    2304, 2560, 2816, 3072, 3328, 4096, 4608, 5120, 6144, 6656, 8192, 9216, 10240, 12288, 13312,
    16384, 20480, 24576, 26624, 32768,
];

/// A size class.
#[derive(Clone, Copy, Debug)]
pub struct Class {
    pub bytes: u64,
    pub pages: u64,
    /// `num_objects_to_move_`.
    pub batch: u64,
}

/// The classes, as `SizeMap::Init` computes them.
pub fn classes(shift: u32) -> Vec<Class> {
    let sizes = SIZES
        .into_iter()
        .chain((1..=28).map(|step| 32768 + step * 8192));
    let classes: Vec<Class> = sizes
        .map(|bytes| {
            if bytes == 0 {
                let (pages, batch) = (0, 0);
                return Class {
                    bytes,
                    pages,
                    batch,
                };
            }
            let batch = (65536 / bytes).clamp(2, 32);
            let page = 1u64 << shift;
            let mut span = 0;
            loop {
                span += page;
                while span % bytes > span >> 3 {
                    span += page;
                }
                if span / bytes >= batch / 4 {
                    break;
                }
            }
            let pages = span >> shift;
            Class {
                bytes,
                pages,
                batch,
            }
        })
        .collect();
    assert_eq!(classes.len(), 86);
    classes
}

/// `SizeMap::ClassIndex`.
pub fn class_index(bytes: u64) -> u64 {
    if bytes <= 1024 {
        bytes.div_ceil(8)
    } else {
        (bytes + 127 + 15360) / 128
    }
}
