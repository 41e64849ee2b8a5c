//! Finding gperftools' state by its shape alone, in a module's writable memory.
//!
//! Distributions strip the library, so this is the normal way in production. Each part proves
//! itself: the size table by its own reverse table, the central cache by its class numbers in a
//! row, the page heap by a run of list heads behind a pointer to the module's code, a thread cache
//! by repeating the size table.

use super::layout::{
    CacheLayout, CentralLayout, Generation, Layout, PageHeapLayout, SizeMapLayout,
};
use super::size_map::SizeMap;
use ground::layout::FieldAt;
use ground::scan::words_where;
use ground::target::{Address, Cursor, MemoryExt, Module, Target, TargetMemory};

/// What a module's variables look like, before anything is believed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// Sizes of classes 1 and 2 of gperftools, side by side as 32-bit words.
    pub gperftools: bool,
    /// The class sizes 0, 8, 16, 32, 64, 80 of google/tcmalloc.
    pub google: bool,
}

/// Looks for traces of the allocators of this family in one pass.
pub fn look(memory: &dyn TargetMemory, module: &Module) -> Traces {
    // u32 0, 8, 16, 32, 64, 80, 96: classes 0 and 1 share a word (gperftools: 0, 8, 16, 32, 48).
    const GOOGLE: [u64; 3] = [8 << 32, 16 | 32 << 32, 64 | 80 << 32];
    let mut traces = Traces::default();
    let mut cursor = Cursor::new(memory);
    let is_trace = |_, word| word == CLASSES_1_AND_2 || word == GOOGLE[0];
    for (at, word) in words_where(memory, module, is_trace) {
        traces.gperftools |= word == CLASSES_1_AND_2;
        traces.google |= word == GOOGLE[0]
            && (1u64..).zip(&GOOGLE[1..]).all(|(index, sizes)| {
                cursor.read_u64(at.saturating_add(index.saturating_mul(8))) == Ok(*sizes)
            });
    }
    traces
}

/// `class_to_size_[0]` stands in the upper half of a word: the structure is 8-aligned, its offset
/// is 4 modulo 8. The word after it holds the sizes of classes 1 and 2.
const CLASSES_1_AND_2: u64 = 8 | 16 << 32;

/// The size map: `class_to_size_` begins 0, 8, 16, 32, 48 or 0, 8, 16, 24, 32.
pub fn find_size_map(
    memory: &dyn TargetMemory,
    module: &Module,
) -> Option<(Address, Generation, SizeMap)> {
    words_where(memory, module, |_, word| word == CLASSES_1_AND_2).find_map(|(at, _)| {
        let layout = SizeMapLayout::built_in(Generation::V2_8);
        let base = at.checked_sub(u64::from(layout.class_to_size) + 4)?;
        [Generation::V2_8, Generation::V2_11]
            .into_iter()
            .find_map(|generation| {
                let map = SizeMap::read(memory, base, &SizeMapLayout::built_in(generation))?;
                Some((base, generation, map))
            })
    })
}

/// `Static::central_cache_`: class numbers 0, 1, 2, ... at the stride of the array.
pub fn find_central(memory: &dyn TargetMemory, module: &Module, classes: u32) -> Option<Address> {
    let layout = CentralLayout::BUILT_IN;
    // One number of several may be written over.
    [1u64, 2, 5].into_iter().find_map(|anchor| {
        words_where(memory, module, move |_, word| word == anchor).find_map(|(at, _)| {
            let before = anchor.saturating_mul(u64::from(layout.stride));
            let base =
                at.checked_sub(before.saturating_add(u64::from(layout.size_class.offset)))?;
            central_is_at(memory, base, &layout, classes).then_some(base)
        })
    })
}

/// Whether nearly all class numbers of an array of central lists at `base` are right.
pub fn central_is_at(
    memory: &dyn TargetMemory,
    base: Address,
    layout: &CentralLayout,
    classes: u32,
) -> bool {
    let wrong = (0..classes).filter(|class| {
        let list = base.saturating_add(u64::from(*class).saturating_mul(u64::from(layout.stride)));
        layout.size_class.read(memory, list) != Ok(u64::from(*class))
    });
    wrong.take(MISSES + 1).count() <= MISSES
}

/// Entries of a table that damage may have changed before it is no longer recognised.
const MISSES: usize = 3;

/// `PageHeap::free_`, and the page size: a run of span sentinels, the function pointer of the page
/// map standing before the two sets before it. A damaged sentinel does not end the run.
pub fn find_free_lists(memory: &dyn TargetMemory, module: &Module) -> Option<(Address, u32)> {
    const SENTINEL: u64 = 48;
    let mut cursor = Cursor::new(memory);
    let mut best: Option<(usize, Address, u32)> = None;
    let is_code = |_, word| module.has_code_at(Address::new(word));
    for (at, _) in words_where(memory, module, is_code) {
        // `at` would be allocator_; free_ follows behind the two sets of 48 bytes.
        let Some(first) = at.checked_add(8 + 96) else {
            continue;
        };
        if !is_sentinel(&mut cursor, first)
            && !is_sentinel(&mut cursor, first.saturating_add(SENTINEL))
        {
            continue;
        }
        for shift in PageHeapLayout::PAGE_SHIFTS {
            let sentinels = 2u64 << 20u32.saturating_sub(shift);
            let right = (0..sentinels)
                .filter(|index| {
                    is_sentinel(
                        &mut cursor,
                        first.saturating_add(index.saturating_mul(SENTINEL)),
                    )
                })
                .count();
            let enough = (right as u64).saturating_mul(10) >= sentinels.saturating_mul(9);
            if enough && best.is_none_or(|(count, ..)| right > count) {
                best = Some((right, first, shift));
            }
        }
    }
    best.map(|(_, first, shift)| (first, shift))
}

/// A span sentinel as `DLL_Init` leaves it: no pages, no objects, no flags, links set.
fn is_sentinel(cursor: &mut Cursor<'_>, at: Address) -> bool {
    let mut word = |offset| cursor.read_u64(at.saturating_add(offset)).ok();
    let link = |word: Option<u64>| word.is_some_and(|word| word >= 4096 && word % 8 == 0);
    link(word(16))
        && link(word(24))
        && word(0) == Some(0)
        && word(8) == Some(0)
        && word(32) == Some(0)
        && word(40).is_some_and(|flags| flags & 0xffff_ffff == 0)
}

/// Whether a thread cache lies at `at`: nearly every list repeats its class's size.
pub fn is_cache(
    memory: &dyn TargetMemory,
    at: Address,
    layout: &CacheLayout,
    sizes: &SizeMap,
) -> bool {
    if !at.is_aligned(64) || at.is_null() {
        return false;
    }
    let Ok(window) = memory.window(at) else {
        return false;
    };
    let wrong = (1..sizes.classes()).filter(|class| {
        let list = u64::from(layout.lists)
            .saturating_add(u64::from(*class).saturating_mul(u64::from(layout.list_stride)));
        let end = list.saturating_add(u64::from(layout.list_stride));
        let there = usize::try_from(list)
            .ok()
            .filter(|_| end <= window.bytes.len() as u64);
        let bytes = match there.and_then(|list| window.bytes.get(list..)) {
            Some(list) => Ok(layout.object_bytes.of_bytes(list)),
            None => layout.object_bytes.read(memory, at.saturating_add(list)),
        };
        bytes != Ok(sizes.bytes(*class).into())
    });
    wrong.take(MISSES + 1).count() <= MISSES
}

/// Whether the caches beside it know of it, as far as they can be asked. A deleted cache, whose
/// words are stale, still looks like one; a pool's free list leads to it, the caches it names do
/// not. A neighbour whose own link was written over proves nothing.
fn is_linked(
    memory: &dyn TargetMemory,
    at: Address,
    layout: &CacheLayout,
    sizes: &SizeMap,
) -> bool {
    let follow = |link: FieldAt, from: Address| {
        let other = link.read(memory, from).ok().map(Address::new);
        other.filter(|other| is_cache(memory, *other, layout, sizes))
    };
    let agrees = |link: FieldAt, back: FieldAt| {
        let other = follow(link, at)?;
        let null = back.read(memory, other) == Ok(0);
        let there = follow(back, other).or(null.then_some(Address::new(0)))?;
        Some(there == at)
    };
    match (
        agrees(layout.next, layout.prev),
        agrees(layout.prev, layout.next),
    ) {
        (None, None) => true,
        (next, prev) => next == Some(true) || prev == Some(true),
    }
}

/// A thread cache that a word of the module points at, and the words that point at it. Usually
/// two words do: `thread_heaps_` and `next_memory_steal_`.
pub fn find_caches(
    target: Target<'_>,
    module: &Module,
    layout: &CacheLayout,
    sizes: &SizeMap,
) -> Vec<(Address, Address)> {
    const MAX_HITS: usize = 16;
    /// No pointer of a process reaches this, other than the kernel's.
    const ABOVE: u64 = 1 << 57;
    let lowest = target.memory.regions().first();
    let lowest = lowest.map_or(ABOVE, |region| region.range.start.get());
    let may_be_pointer =
        move |_, word: u64| word.is_multiple_of(64) && (lowest..ABOVE).contains(&word);
    words_where(target.memory, module, may_be_pointer)
        .map(|(at, word)| (at, Address::new(word)))
        .filter(|(_, cache)| {
            target.memory.region_at(*cache).is_some()
                && is_cache(target.memory, *cache, layout, sizes)
                && is_linked(target.memory, *cache, layout, sizes)
        })
        .take(MAX_HITS)
        .collect()
}

/// From 2.11 on, the layouts differ between 2.15 and 2.16 only in the thread cache: 2.15's names its thread, and the
/// right links lead to other caches, or are null.
pub fn settle_generation(
    target: Target<'_>,
    module: &Module,
    found: Generation,
    sizes: &SizeMap,
    shift: u32,
) -> Layout {
    if found == Generation::V2_8 {
        return Layout::built_in(found, shift);
    }
    // Links that lead to caches speak for a layout, words that lead nowhere against it; one link
    // that was written over must not outvote the others.
    let votes = |generation| {
        let layout = CacheLayout::built_in(generation);
        let caches = find_caches(target, module, &layout, sizes);
        let (mut good, mut bad) = (0u32, 0u32);
        for (_, cache) in &caches {
            let thread = layout
                .tid
                .and_then(|tid| tid.read(target.memory, *cache).ok())
                .map(Address::new);
            let mut threads = target.threads.list().iter();
            good = good.saturating_add(u32::from(
                thread.is_some() && threads.any(|known| known.thread_pointer == thread),
            ));
            for link in [layout.next, layout.prev] {
                match link.read(target.memory, *cache).map(Address::new) {
                    Ok(other) if other.is_null() => {}
                    Ok(other) if is_cache(target.memory, other, &layout, sizes) => {
                        good = good.saturating_add(1)
                    }
                    _ => bad = bad.saturating_add(1),
                }
            }
        }
        (good, std::cmp::Reverse(bad))
    };
    let (older, newer) = (votes(Generation::V2_11), votes(Generation::V2_16));
    let generation = if older.0 > 0 && older > newer {
        Generation::V2_11
    } else {
        Generation::V2_16
    };
    Layout::built_in(generation, shift)
}
