//! Writes a [`Model`] down as the memory of a process.

use std::collections::BTreeMap;

use ground::target::RegionKind;
use synth::{FakeMemory, Process};

use crate::model::{BRK, Cache, Location, MMAP, Model, POOL_BYTES, Span};
use crate::numbers::{cache, central, class_index, size_map, span};

const LIB: u64 = 0x7e00_0000_0000;
/// Where the library's state lies. The order is a distribution's, the addresses are anybody's.
const DATA: u64 = LIB + 0x6d08;
const PAGE_HEAP: u64 = LIB + 0x8040;
const APP: u64 = 0x40_0000;
/// Code of the library and of the program.
pub const LIB_CODE: u64 = LIB + 0x1230;
pub const APP_CODE: u64 = APP + 0x100;

/// A written process, and where to damage it.
#[derive(Clone)]
pub struct Scene {
    pub process: Process,
    pub size_map: u64,
    pub central: u64,
    pub page_heap_lock: u64,
    pub free: u64,
    pub stats: u64,
    pub thread_heaps: u64,
    pub heap_count: u64,
    pub sampled: u64,
}

impl Scene {
    pub fn poke(&mut self, at: u64, value: u64) {
        self.process.memory.write_u64(at, value);
    }

    pub fn poke_u32(&mut self, at: u64, value: u32) {
        self.process.memory.write_u32(at, value);
    }

    pub fn poke_u8(&mut self, at: u64, value: u8) {
        self.process.memory.write(at, &[value]);
    }

    pub fn peek(&mut self, at: u64) -> u64 {
        self.process.memory.word(at)
    }

    pub fn central(&self, class: usize) -> u64 {
        self.central + class as u64 * central::STRIDE
    }
}

pub fn thread_pointer(thread: usize) -> u64 {
    0x7c00_0000_8000 + thread as u64 * 0x10000
}

pub fn tid(thread: usize) -> u32 {
    100 * (thread as u32 + 1)
}

/// Noise for what the program holds.
fn noise(random: &mut fastrand::Rng, live: &[u64]) -> u64 {
    match random.u8(0..8) {
        0 => 0,
        1 => random.u64(..),
        2 => random.u64(0..1000),
        3 => 0x4141_4141_4141_4141,
        _ if live.is_empty() => 1,
        4 => live[random.usize(..live.len())] + random.u64(0..32),
        _ => live[random.usize(..live.len())],
    }
}

/// A process of `threads` threads, all in the program's own code.
pub fn render(model: &Model, threads: usize, seed: u64) -> Scene {
    let pages = model.pages;
    let older = if model.release.member_lock { 0 } else { 16 };
    let align = |at: u64| at.next_multiple_of(64);
    let sampled = align(PAGE_HEAP + pages.bytes - older);
    let central = align(sampled + 48);
    let size_map = align(central + central::STRIDE * 128);
    let small = align(size_map + 4240);
    let end = small + 0x100;

    let mut memory = FakeMemory::new();
    let anonymous = RegionKind::Anonymous;
    memory.zeroes(APP..APP + 0x1000, "rx", RegionKind::File);
    memory.zeroes(LIB..LIB + 0x4000, "rx", RegionKind::File);
    memory.zeroes(LIB + 0x4000..LIB + 0x5000, "r", RegionKind::File);
    memory.zeroes(LIB + 0x6000..LIB + 0x8000, "rw", RegionKind::File);
    let bss = LIB + 0x8000..end.next_multiple_of(0x1000);
    memory.zeroes(bss, "rw", anonymous);
    let text = format!("gperftools {}\0", model.release.version);
    memory.write(LIB + 0x4321, text.as_bytes());
    memory.write_u64(LIB + 0x6d18, LIB_CODE + 0x40);
    let [brk, mmap] = model.areas();
    memory.zeroes(BRK..brk.end, "rw", anonymous);
    let leaf_bytes = 8u64 << pages.leaf_bits;
    if !mmap.is_empty() {
        memory.zeroes(MMAP..mmap.end + leaf_bytes, "rw", anonymous);
    }

    let mut process = Process::new(memory);
    process.modules = vec![
        synth::module(0, "program", &[(APP..APP + 0x1000, "rx")]),
        synth::module(
            1,
            "libtcmalloc_minimal.so.4.5.9",
            &[
                (LIB..LIB + 0x4000, "rx"),
                (LIB + 0x4000..LIB + 0x5000, "r"),
                (DATA..end, "rw"),
            ],
        ),
    ];
    process.modules[0].is_executable = true;
    let mut out = Scene {
        process,
        size_map,
        central,
        page_heap_lock: if model.release.member_lock {
            PAGE_HEAP + 8
        } else {
            small
        },
        free: PAGE_HEAP + pages.free - older,
        stats: PAGE_HEAP + pages.stats - older,
        thread_heaps: small + 8,
        heap_count: small + 24,
        sampled,
    };
    let mut random = fastrand::Rng::with_seed(seed);
    size_map_tables(model, &mut out);
    page_map(model, &mut out, mmap.end);
    spans(model, &mut out, &mut random, sampled);
    rings(model, &mut out);
    central_lists(model, &mut out);
    caches(model, &mut out);
    for thread in 0..threads {
        let pointer = thread_pointer(thread);
        out.process
            .memory
            .zeroes(pointer - 0x8000..pointer + 0x1000, "rw", anonymous);
        if model.release.tid.is_none() {
            let own = model.caches.iter().find(|cache| cache.thread == thread);
            out.poke(pointer - 0x18, own.map_or(0, |cache| cache.at));
        }
        out.process.threads.push(
            synth::thread(tid(thread), APP_CODE, pointer),
            vec![synth::frame(APP_CODE, &[])],
        );
    }
    out
}

/// Names of the variables that the library exports, or has in its full symbol table.
pub fn name_variables(scene: &mut Scene) {
    let symbols = &mut scene.process.symbols;
    let mut object = |name: &str, at: u64, size: u64| symbols.object(1, name, at, size);
    object(
        "_ZN8tcmalloc11ThreadCache13thread_heaps_E",
        scene.thread_heaps,
        8,
    );
    object(
        "_ZN8tcmalloc11ThreadCache18thread_heap_count_E",
        scene.heap_count,
        4,
    );
    object(
        "_ZN8tcmalloc6Static14pageheap_lock_E",
        scene.page_heap_lock,
        4,
    );
    object("_ZN8tcmalloc6Static16sampled_objects_E", scene.sampled, 48);
}

fn size_map_tables(model: &Model, out: &mut Scene) {
    let base = out.size_map;
    let mut next = 0;
    for (index, class) in (0u64..).zip(&model.classes) {
        out.poke_u32(
            base + size_map::CLASS_TO_SIZE + 4 * index,
            class.bytes as u32,
        );
        out.poke_u32(
            base + size_map::NUM_OBJECTS_TO_MOVE + 4 * index,
            class.batch as u32,
        );
        out.poke(base + size_map::CLASS_TO_PAGES + 8 * index, class.pages);
        while index > 0 && next <= class.bytes {
            out.poke_u8(
                base + size_map::CLASS_ARRAY + class_index(next),
                index as u8,
            );
            next += 8;
        }
    }
    if model.release.member_lock {
        out.poke(
            base + size_map::CLASS_TO_PAGES + 8 * size_map::MAX_CLASSES,
            1,
        );
    }
    out.poke(
        base + model.release.num_size_classes,
        model.classes.len() as u64,
    );
}

fn page_map(model: &Model, out: &mut Scene, mmap_end: u64) {
    let pages = model.pages;
    let older = if model.release.member_lock { 0 } else { 16 };
    let root = PAGE_HEAP + pages.free - 96 - 8 - (8 << pages.root_bits) - older;
    out.poke(PAGE_HEAP + pages.allocator - older, LIB_CODE);
    // pagemap_cache_: what free() looked up last, possibly stale.
    for page in model.page_map.keys().step_by(3) {
        let cached = page & !0xffff | 4;
        out.poke(PAGE_HEAP + 16 - older + 8 * (page & 0xffff), cached);
    }
    for (&page, &at) in &model.page_map {
        let leaf = if page << pages.shift < MMAP {
            BRK
        } else {
            mmap_end
        };
        out.poke(root + 8 * (page >> pages.leaf_bits), leaf);
        let slot = page & ((1 << pages.leaf_bits) - 1);
        out.poke(leaf + 8 * slot, at);
    }
}

fn flags(span: &Span, in_set: bool) -> u64 {
    let location = match span.location {
        Location::InUse => 0,
        Location::Normal => 1,
        Location::Returned => 2,
    };
    span.refcount
        | (span.class as u64) << 16
        | location << 24
        | u64::from(span.sample.is_some()) << 26
        | u64::from(in_set) << 27
}

fn write_span(out: &mut Scene, at: u64, span: &Span, objects: u64, in_set: bool) {
    out.poke(at + span::START, span.start);
    out.poke(at + span::LENGTH, span.length);
    out.poke(at + span::OBJECTS, objects);
    out.poke_u32(at + span::FLAGS, flags(span, in_set) as u32);
}

fn spans(model: &Model, out: &mut Scene, random: &mut fastrand::Rng, sampled: u64) {
    let pool = BRK + (8u64 << model.pages.leaf_bits);
    let mut traces = pool + POOL_BYTES * 7 / 8;
    let live: Vec<u64> = model.live.keys().copied().collect();
    let mut sampled_spans = Vec::new();
    for (&at, span) in &model.spans {
        let head = span.chain.last().copied().unwrap_or(0);
        write_span(out, at, span, head, false);
        if let Some(requested) = span.sample {
            out.poke(at + span::OBJECTS, traces);
            out.poke(traces, requested);
            out.poke(traces + 8, 2);
            out.poke(traces + 16, LIB_CODE);
            out.poke(traces + 24, APP_CODE);
            traces += 264;
            sampled_spans.push(at);
        } else if span.class == 0 && span.location == Location::InUse {
            out.poke(at + span::OBJECTS, noise(random, &live)); // stale
        }
        if span.class > 0 {
            let bytes = model.classes[span.class].bytes;
            let start = model.address(span);
            for object in 0..model.capacity(span.class) {
                for word in 0..(bytes / 8).min(4) {
                    out.poke(start + object * bytes + word * 8, noise(random, &live));
                }
            }
        }
    }
    for span in model.spans.values() {
        write_chain(out, span.chain.iter().rev());
    }
    let mut next = 0;
    for (at, span) in &model.deleted {
        write_span(out, *at, span, noise(random, &live), false);
        out.poke(*at, next);
        next = *at;
    }
    ring(out, sampled, &sampled_spans);
}

/// Links of a chain, head first, up to null.
fn write_chain<'a>(out: &mut Scene, chain: impl DoubleEndedIterator<Item = &'a u64>) {
    let mut next = 0;
    for object in chain.rev() {
        out.poke(*object, next);
        next = *object;
    }
}

/// A ring of spans around a sentinel.
fn ring(out: &mut Scene, sentinel: u64, spans: &[u64]) {
    let mut before = sentinel;
    for at in spans.iter().chain([&sentinel]) {
        out.poke(before + span::NEXT, *at);
        out.poke(*at + span::PREV, before);
        before = *at;
    }
}

fn rings(model: &Model, out: &mut Scene) {
    let mut lists: BTreeMap<(u64, Location), Vec<u64>> = BTreeMap::new();
    let mut sums = [0u64; 3];
    for (&at, span) in &model.spans {
        let bytes = span.length << model.pages.shift;
        sums[0] += bytes;
        match span.location {
            Location::InUse => continue,
            Location::Normal => sums[1] += bytes,
            Location::Returned => sums[2] += bytes,
        }
        let length = span.length.min(model.pages.max_pages + 1);
        lists.entry((length, span.location)).or_default().push(at);
    }
    let pool = BRK + (8u64 << model.pages.leaf_bits);
    let mut nodes = pool + POOL_BYTES * 3 / 4;
    for (offset, location) in [(0, Location::Normal), (1, Location::Returned)] {
        for pages in 1..=model.pages.max_pages {
            let spans = lists.remove(&(pages, location)).unwrap_or_default();
            ring(out, out.free + 96 * (pages - 1) + 48 * offset, &spans);
        }
        let mut large = lists
            .remove(&(model.pages.max_pages + 1, location))
            .unwrap_or_default();
        large.sort_by_key(|at| (model.spans[at].length, model.spans[at].start));
        set(model, out, out.free - 96 + 48 * offset, &large, &mut nodes);
    }
    for (index, sum) in (0..).zip(sums) {
        out.poke(out.stats + 8 * index, sum);
    }
    out.poke(out.stats + 24, sums[0] - sums[2]); // committed_bytes
}

/// A `std::set` of long spans: header {color, parent, left, right} at +8, count at +40; a node is
/// {color, parent, left, right, span, length}.
fn set(model: &Model, out: &mut Scene, at: u64, spans: &[u64], nodes: &mut u64) {
    let first = *nodes;
    *nodes += 48 * spans.len() as u64;
    let header = at + 8;
    let node = |index: usize| first + 48 * index as u64;
    let mut todo = vec![(0, spans.len(), header, header + 8)];
    while let Some((low, high, parent, place)) = todo.pop() {
        if low == high {
            continue;
        }
        let middle = (low + high) / 2;
        let this = node(middle);
        out.poke(place, this);
        out.poke(this, 1);
        out.poke(this + 8, parent);
        out.poke(this + 32, spans[middle]);
        out.poke(this + 40, model.spans[&spans[middle]].length);
        let span = &model.spans[&spans[middle]];
        write_span(out, spans[middle], span, this, true);
        todo.push((low, middle, this, this + 16));
        todo.push((middle + 1, high, this, this + 24));
    }
    let last = spans.len().saturating_sub(1);
    let ends = if spans.is_empty() {
        (header, header)
    } else {
        (node(0), node(last))
    };
    out.poke(header + 16, ends.0);
    out.poke(header + 24, ends.1);
    out.poke(at + 40, spans.len() as u64);
}

fn central_lists(model: &Model, out: &mut Scene) {
    for (index, list) in model.central.iter().enumerate() {
        let at = out.central(index);
        out.poke(at + central::SIZE_CLASS, index as u64);
        ring(out, at + central::EMPTY, &list.empty);
        ring(out, at + central::NONEMPTY, &list.nonempty);
        out.poke(
            at + central::NUM_SPANS,
            (list.empty.len() + list.nonempty.len()) as u64,
        );
        let chains = list.nonempty.iter().map(|at| model.spans[at].chain.len());
        out.poke(at + central::COUNTER, chains.sum::<usize>() as u64);
        for (slot, chain) in (0u64..).zip(&list.slots) {
            out.poke(at + central::SLOTS + 16 * slot, chain[0]);
            out.poke(at + central::SLOTS + 16 * slot + 8, chain[chain.len() - 1]);
            write_chain(out, chain.iter());
        }
        // What a slot held before stays in it.
        let stale = model.live.keys().next().copied().unwrap_or(0);
        let used = list.slots.len() as u64;
        out.poke(at + central::SLOTS + 16 * used, stale);
        out.poke_u32(at + central::USED_SLOTS, used as u32);
        let size = if index == 0 {
            16
        } else {
            model.cache_size(index)
        };
        let most = if index == 0 {
            64
        } else {
            model.max_cache_size(index)
        };
        out.poke_u32(at + central::CACHE_SIZE, size as u32);
        out.poke_u32(at + central::MAX_CACHE_SIZE, most as u32);
    }
}

fn caches(model: &Model, out: &mut Scene) {
    let at = |index: usize| model.caches.get(index).map_or(0, |cache| cache.at);
    // The newest cache is at the front.
    out.poke(out.thread_heaps, at(model.caches.len().wrapping_sub(1)));
    out.poke(out.thread_heaps + 8, at(0)); // next_memory_steal_
    out.poke_u32(out.heap_count, model.caches.len() as u32);
    for (index, cache) in model.caches.iter().enumerate() {
        let older = index.checked_sub(1).map_or(0, at);
        write_cache(model, out, cache, (older, at(index + 1)));
    }
    // threadcache_allocator.free_list_ leads to what exited threads left behind.
    let mut next = 0;
    for cache in &model.gone_caches {
        write_cache(model, out, cache, (at(0), 0));
        out.poke(cache.at, next);
        next = cache.at;
    }
    out.poke(out.heap_count + 8, next);
}

fn write_cache(model: &Model, out: &mut Scene, cache: &Cache, (next, prev): (u64, u64)) {
    let mut size = 0;
    for (class, list) in cache.lists.iter().enumerate() {
        let bytes = model.classes[class].bytes;
        size += list.len() as u64 * bytes;
        let place = cache.at + class as u64 * cache::LIST;
        out.poke(place, list.last().copied().unwrap_or(0));
        out.poke_u32(place + cache::LENGTH, list.len() as u32);
        out.poke_u32(place + cache::LOW_WATER, list.len() as u32 / 2);
        out.poke_u32(place + cache::MAX_LENGTH, cache.max_length[class] as u32);
        out.poke_u32(place + cache::OBJECT_BYTES, bytes as u32);
        write_chain(out, list.iter().rev());
    }
    out.poke_u32(cache.at + cache::SIZE, size as u32);
    out.poke_u32(cache.at + cache::MAX_SIZE, 1 << 20);
    if let Some(tid) = model.release.tid {
        out.poke(cache.at + tid, thread_pointer(cache.thread));
    }
    out.poke(cache.at + model.release.next, next);
    out.poke(cache.at + model.release.prev, prev);
}
