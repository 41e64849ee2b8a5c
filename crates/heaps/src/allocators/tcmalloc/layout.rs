//! Where members lie in gperftools' structures.
//!
//! Read in gperftools 2.8.1 to 2.18.1, `src/span.h`, `src/central_freelist.h`, `src/page_heap.h`,
//! `src/common.h` (`SizeMap`), `src/thread_cache.h`; offsets checked against builds of each
//! release with debug information, x86-64.
//!
//! ```text
//! Span             +0 start (page)   +8 length (pages)   +16 next  +24 prev  +32 objects
//!                  +40 refcount:16 sizeclass:8 location:2 sample:1 has_span_iter:1
//! CentralFreeList  +0 lock_  +8 size_class_  +16 empty_ (Span)  +64 nonempty_ (Span)
//!                  +112 num_spans_  +120 counter_  +128 tc_slots_[64]{head, tail}
//!                  +1152 used_slots_  +1156 cache_size_  +1160 max_cache_size_; array stride 1216
//! PageHeap         root of the page map, allocator_, two std::set (96 bytes), free_[]{normal, returned}
//! ThreadCache      list_[128]{list_, length_, lowater_, max_length_, length_overages_, size_}, size_ ...
//! ```

use ground::layout::{FieldAt, LayoutSource};
use ground::target::{LocatedBy, ModuleId, StructLayout, Target};

/// Releases that share all layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generation {
    /// 2.8 to 2.10.
    V2_8,
    /// 2.11 to 2.15: the lock moved into `PageHeap`, `SizeMap` grew a word.
    V2_11,
    /// 2.16 to 2.18.1: `ThreadCache` lost `tid_` and `in_setspecific_`.
    V2_16,
}

impl Generation {
    /// The releases, for people.
    pub fn releases(self) -> &'static str {
        match self {
            Generation::V2_8 => "2.8-2.10",
            Generation::V2_11 => "2.11-2.15",
            Generation::V2_16 => "2.16-2.18.1",
        }
    }
}

/// `tcmalloc::Span`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanLayout {
    /// Size in bytes.
    pub bytes: u32,
    /// First page number.
    pub start: FieldAt,
    /// Pages.
    pub length: FieldAt,
    /// Links of the list that it is in.
    pub next: FieldAt,
    /// Links of the list that it is in.
    pub prev: FieldAt,
    /// Chain of free objects of a small span; stack trace of a sampled one.
    pub objects: FieldAt,
    /// Objects of a small span that are not in its chain.
    pub refcount: FieldAt,
    /// 0 for a span of its own.
    pub size_class: FieldAt,
    /// In use, free, returned.
    pub location: FieldAt,
    /// A sampled allocation.
    pub sample: FieldAt,
}

impl SpanLayout {
    const BUILT_IN: Self = Self {
        bytes: 48,
        start: FieldAt::word(0),
        length: FieldAt::word(8),
        next: FieldAt::word(16),
        prev: FieldAt::word(24),
        objects: FieldAt::word(32),
        refcount: FieldAt::bits(40, 0, 16),
        size_class: FieldAt::bits(40, 16, 8),
        location: FieldAt::bits(40, 24, 2),
        sample: FieldAt::bits(40, 26, 1),
    };

    fn resolve(layout: &StructLayout) -> Option<Self> {
        let field = |name| FieldAt::resolve(layout, name);
        Some(Self {
            bytes: u32::try_from(layout.size).ok()?,
            start: field("start")?,
            length: field("length")?,
            next: field("next")?,
            prev: field("prev")?,
            objects: field("objects")?,
            refcount: field("refcount")?,
            size_class: field("sizeclass")?,
            location: field("location")?,
            sample: field("sample")?,
        })
    }
}

/// `tcmalloc::CentralFreeList`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CentralLayout {
    /// Bytes from one class's list to the next in `Static::central_cache_`.
    pub stride: u32,
    /// Spin lock: 0 free, 1 held, 2 held with sleepers.
    pub lock: FieldAt,
    /// Its own class.
    pub size_class: FieldAt,
    /// Offset of the sentinel of spans with no free object.
    pub empty: u32,
    /// Offset of the sentinel of spans with free objects.
    pub nonempty: u32,
    /// Spans on both lists.
    pub num_spans: FieldAt,
    /// Objects in the spans' chains.
    pub counter: FieldAt,
    /// Offset of the transfer cache's slots: pairs of head and tail.
    pub slots: u32,
    /// Number of slots.
    pub slot_count: u32,
    /// Slots in use.
    pub used_slots: FieldAt,
    /// Slots that may be used now.
    pub cache_size: FieldAt,
    /// Slots that may ever be used.
    pub max_cache_size: FieldAt,
}

impl CentralLayout {
    /// Built in.
    pub const BUILT_IN: Self = Self {
        stride: 1216,
        lock: FieldAt::int(0),
        size_class: FieldAt::word(8),
        empty: 16,
        nonempty: 64,
        num_spans: FieldAt::word(112),
        counter: FieldAt::word(120),
        slots: 128,
        slot_count: 64,
        used_slots: FieldAt::int(1152),
        cache_size: FieldAt::int(1156),
        max_cache_size: FieldAt::int(1160),
    };

    fn resolve(layout: &StructLayout, stride: u64) -> Option<Self> {
        let field = |name| FieldAt::resolve(layout, name);
        let offset = |name| u32::try_from(layout.field(name)?.offset).ok();
        Some(Self {
            stride: u32::try_from(stride).ok()?,
            // A SpinLock holds one word.
            lock: FieldAt::int(offset("lock_")?),
            size_class: field("size_class_")?,
            empty: offset("empty_")?,
            nonempty: offset("nonempty_")?,
            num_spans: field("num_spans_")?,
            counter: field("counter_")?,
            slots: offset("tc_slots_")?,
            slot_count: u32::try_from(layout.field("tc_slots_")?.count?).ok()?,
            used_slots: field("used_slots_")?,
            cache_size: field("cache_size_")?,
            max_cache_size: field("max_cache_size_")?,
        })
    }
}

/// `tcmalloc::PageHeap`, with a page map of two levels inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeapLayout {
    /// Size in bytes.
    pub bytes: u64,
    /// log2 of the allocator's page.
    pub page_shift: u32,
    /// The lock, if it is a member.
    pub lock: Option<u32>,
    /// Offset of the page map's root: an array of pointers to leaves.
    pub root: u64,
    /// log2 of the root's entries.
    pub root_bits: u32,
    /// log2 of a leaf's entries.
    pub leaf_bits: u32,
    /// Offset of the page map's allocation function: code of this module.
    pub allocator: u64,
    /// Offset of `free_`: pairs of sentinels (normal, returned), two `Span` each.
    pub free_lists: u64,
    /// Entries of `free_`: spans of 1 to this many pages.
    pub max_pages: u32,
    /// Offset of `stats_`: system_bytes, free_bytes, unmapped_bytes.
    pub stats: u64,
}

impl PageHeapLayout {
    /// Address bits that the page map covers.
    const ADDRESS_BITS: u32 = 48;

    /// Page sizes that gperftools can be built for: 4 KiB to 256 KiB.
    pub const PAGE_SHIFTS: std::ops::RangeInclusive<u32> = 12..=18;

    /// The layout for a page of `1 << page_shift` bytes.
    pub fn built_in(generation: Generation, page_shift: u32) -> Self {
        let map_bits = Self::ADDRESS_BITS.saturating_sub(page_shift);
        let leaf_bits = map_bits.div_ceil(2);
        let root_bits = map_bits.saturating_sub(leaf_bits);
        let max_pages = 1u32 << 20u32.saturating_sub(page_shift);
        let member_lock = generation != Generation::V2_8;
        // pagemap_cache_ is 2^16 words; from 2.11 on smallest_span_size_ and lock_ stand before it.
        let root = (8u64 << 16).saturating_add(if member_lock { 16 } else { 0 });
        let allocator = root.saturating_add(8 << root_bits);
        let free_lists = allocator.saturating_add(8).saturating_add(96);
        let stats = free_lists.saturating_add(96 * u64::from(max_pages));
        Self {
            bytes: stats.saturating_add(104),
            page_shift,
            lock: member_lock.then_some(8),
            root,
            root_bits,
            leaf_bits,
            allocator,
            free_lists,
            max_pages,
            stats,
        }
    }

    fn resolve(heap: &StructLayout, map: &StructLayout, generation: Generation) -> Option<Self> {
        let page_map = heap.field("pagemap_")?.offset;
        let root = map.field("root_")?;
        let free = heap.field("free_")?;
        let max_pages = u32::try_from(free.count?)
            .ok()
            .filter(|count| count.is_power_of_two())?;
        let built_in = Self::built_in(generation, 20u32.checked_sub(max_pages.trailing_zeros())?);
        let root_bits = root
            .count
            .filter(|count| count.is_power_of_two())?
            .trailing_zeros();
        Some(Self {
            bytes: heap.size,
            lock: heap
                .field("lock_")
                .and_then(|lock| u32::try_from(lock.offset).ok()),
            root: page_map.saturating_add(root.offset),
            root_bits,
            leaf_bits: Self::ADDRESS_BITS
                .checked_sub(built_in.page_shift.saturating_add(root_bits))?,
            allocator: page_map.saturating_add(map.field("allocator_")?.offset),
            free_lists: free.offset,
            max_pages,
            stats: heap.field("stats_")?.offset,
            ..built_in
        })
    }
}

/// `tcmalloc::SizeMap`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeMapLayout {
    /// Entries of each per-class table.
    pub max_classes: u32,
    /// Offset of `num_objects_to_move_` (i32 each).
    pub num_objects_to_move: u32,
    /// Offset of `class_array_` (u8 each).
    pub class_array: u32,
    /// Offset of `class_to_size_` (i32 each).
    pub class_to_size: u32,
    /// Offset of `class_to_pages_` (u64 each).
    pub class_to_pages: u32,
    /// `num_size_classes`.
    pub num_size_classes: FieldAt,
}

impl SizeMapLayout {
    /// Built in.
    pub const fn built_in(generation: Generation) -> Self {
        Self {
            max_classes: 128,
            num_objects_to_move: 2172,
            class_array: 0,
            class_to_size: 2684,
            class_to_pages: 3200,
            num_size_classes: FieldAt::word(if matches!(generation, Generation::V2_8) {
                4224
            } else {
                4232
            }),
        }
    }

    fn resolve(layout: &StructLayout) -> Option<Self> {
        let offset = |name| u32::try_from(layout.field(name)?.offset).ok();
        Some(Self {
            max_classes: u32::try_from(layout.field("class_to_size_")?.count?).ok()?,
            num_objects_to_move: offset("num_objects_to_move_")?,
            class_array: offset("class_array_")?,
            class_to_size: offset("class_to_size_")?,
            class_to_pages: offset("class_to_pages_")?,
            num_size_classes: FieldAt::resolve(layout, "num_size_classes")?,
        })
    }
}

/// `tcmalloc::ThreadCache` and its `FreeList`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLayout {
    /// Size in bytes.
    pub bytes: u32,
    /// Offset of `list_`.
    pub lists: u32,
    /// Bytes of a `FreeList`.
    pub list_stride: u32,
    /// First entry, within a `FreeList`.
    pub head: FieldAt,
    /// Entries.
    pub length: FieldAt,
    /// Fewest entries since the last look.
    pub low_water: FieldAt,
    /// Entries allowed.
    pub max_length: FieldAt,
    /// Bytes of an object of the class, never changed.
    pub object_bytes: FieldAt,
    /// Bytes in all lists.
    pub size: FieldAt,
    /// Owner's `pthread_t`, if recorded.
    pub tid: Option<FieldAt>,
    /// Next cache.
    pub next: FieldAt,
    /// Previous cache.
    pub prev: FieldAt,
}

impl CacheLayout {
    /// Built in.
    pub const fn built_in(generation: Generation) -> Self {
        let old = !matches!(generation, Generation::V2_16);
        Self {
            bytes: 4160,
            lists: 0,
            list_stride: 32,
            head: FieldAt::word(0),
            length: FieldAt::int(8),
            low_water: FieldAt::int(12),
            max_length: FieldAt::int(16),
            object_bytes: FieldAt::int(24),
            size: FieldAt::int(4096),
            tid: if old { Some(FieldAt::word(4128)) } else { None },
            next: FieldAt::word(if old { 4144 } else { 4128 }),
            prev: FieldAt::word(if old { 4152 } else { 4136 }),
        }
    }

    fn resolve(cache: &StructLayout, list: &StructLayout) -> Option<Self> {
        let of_list = |name| FieldAt::resolve(list, name);
        let of_cache = |name| FieldAt::resolve(cache, name);
        Some(Self {
            bytes: u32::try_from(cache.size).ok()?,
            lists: u32::try_from(cache.field("list_")?.offset).ok()?,
            list_stride: u32::try_from(list.size).ok().filter(|size| *size > 0)?,
            head: of_list("list_")?,
            length: of_list("length_")?,
            low_water: of_list("lowater_")?,
            max_length: of_list("max_length_")?,
            object_bytes: of_list("size_")?,
            size: of_cache("size_")?,
            tid: of_cache("tid_"),
            next: of_cache("next_")?,
            prev: of_cache("prev_")?,
        })
    }
}

/// All layouts of one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Releases that it fits.
    pub generation: Generation,
    /// Where it comes from.
    pub source: LayoutSource,
    /// `tcmalloc::Span`.
    pub span: SpanLayout,
    /// `tcmalloc::CentralFreeList`.
    pub central: CentralLayout,
    /// `tcmalloc::PageHeap`.
    pub page_heap: PageHeapLayout,
    /// `tcmalloc::SizeMap`.
    pub size_map: SizeMapLayout,
    /// `tcmalloc::ThreadCache`.
    pub cache: CacheLayout,
}

impl Layout {
    /// From this crate's tables.
    pub fn built_in(generation: Generation, page_shift: u32) -> Self {
        Self {
            generation,
            source: LayoutSource::BuiltIn {
                releases: generation.releases(),
            },
            span: SpanLayout::BUILT_IN,
            central: CentralLayout::BUILT_IN,
            page_heap: PageHeapLayout::built_in(generation, page_shift),
            size_map: SizeMapLayout::built_in(generation),
            cache: CacheLayout::built_in(generation),
        }
    }

    /// From the module's debug information. `None` unless every structure is described there.
    pub fn resolve(target: Target<'_>, module: ModuleId) -> Option<Self> {
        if !target.limit.permits(LocatedBy::DebugInfo) {
            return None;
        }
        let layout = |name: &str| target.types.layout(module, name);
        let heap = layout("tcmalloc::PageHeap")?;
        let cache = layout("tcmalloc::ThreadCache")?;
        let generation = match (heap.field("lock_"), cache.field("tid_")) {
            (None, _) => Generation::V2_8,
            (Some(_), Some(_)) => Generation::V2_11,
            (Some(_), None) => Generation::V2_16,
        };
        let page_map = layout(heap.field("pagemap_")?.type_name.as_deref()?)?;
        let central = layout("tcmalloc::CentralFreeList")?;
        let stride =
            layout("tcmalloc::CentralFreeListPadded").map_or(central.size, |padded| padded.size);
        Some(Self {
            generation,
            source: LayoutSource::DebugInfo,
            span: SpanLayout::resolve(&layout("tcmalloc::Span")?)?,
            central: CentralLayout::resolve(&central, stride)?,
            page_heap: PageHeapLayout::resolve(&heap, &page_map, generation)?,
            size_map: SizeMapLayout::resolve(&layout("tcmalloc::SizeMap")?)?,
            cache: CacheLayout::resolve(&cache, &layout("tcmalloc::ThreadCache::FreeList")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from compiled builds of each page size (2.11+ layout), not from the formula above.
    #[test]
    fn page_heap_offsets_match_compiled_builds() {
        let rows = [
            (
                12u32, 18u32, 18u32, 2621456u64, 2621560u64, 2646136u64, 2646240u64,
            ),
            (13, 17, 18, 1572880, 1572984, 1585272, 1585376),
            (14, 17, 17, 1572880, 1572984, 1579128, 1579232),
            (15, 16, 17, 1048592, 1048696, 1051768, 1051872),
            (16, 16, 16, 1048592, 1048696, 1050232, 1050336),
            (17, 15, 16, 786448, 786552, 787320, 787424),
            (18, 15, 15, 786448, 786552, 786936, 787040),
        ];
        for (shift, root_bits, leaf_bits, allocator, free_lists, stats, bytes) in rows {
            let newer = PageHeapLayout::built_in(Generation::V2_16, shift);
            assert_eq!(
                (newer.root_bits, newer.leaf_bits),
                (root_bits, leaf_bits),
                "{shift}"
            );
            assert_eq!(
                (newer.allocator, newer.free_lists, newer.stats, newer.bytes),
                (allocator, free_lists, stats, bytes)
            );
            let older = PageHeapLayout::built_in(Generation::V2_8, shift);
            assert_eq!(
                (older.allocator, older.free_lists, older.bytes),
                (allocator - 16, free_lists - 16, bytes - 16)
            );
        }
    }
}
