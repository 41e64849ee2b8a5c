//! Memory that nobody meant to be read: no panic, an end, bounded memory, the same answer always.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ground::target::{Address, MemoryExt, Target};
use heaps::allocators::tcmalloc::Tcmalloc;
use heaps::allocators::{Allocator, Detection};
use heaps::anomaly::AnomalyKind;
use heaps::walk::walk;
use synth::Absence;

use crate::bench::{Bench, CLASS};
use crate::healthy::history;
use crate::model::{BRK, MMAP, Model, POOL_BYTES};
use crate::numbers::{PAGES, PAGES_8K, V2_10, V2_16, cache, central, size_map, span};
use crate::render::{Scene, render};

/// Walks whatever is found; says all of it.
fn survive(target: Target<'_>) -> String {
    let mut told = String::new();
    let (heaps, limits) = match Tcmalloc.detect(target) {
        Detection::Found { heaps, limits } => (heaps, limits),
        Detection::Absent { .. } => return "absent".into(),
        Detection::Unusable(limit) => return format!("{limit:?}"),
    };
    write!(told, "{limits:?}").unwrap();
    for heap in heaps {
        let walked = walk(heap.as_ref(), target.memory);
        for anomaly in &walked.anomalies {
            let at = match &anomaly.kind {
                AnomalyKind::Shared { block, .. } | AnomalyKind::ListedInUse { block, .. } => {
                    block.address
                }
                AnomalyKind::BadEntry { edge, .. } | AnomalyKind::FollowedLink { edge, .. } => {
                    edge.word()
                }
                AnomalyKind::Metadata { word, .. } | AnomalyKind::FreedAgain { word, .. } => {
                    word.at
                }
                AnomalyKind::Length { at, .. }
                | AnomalyKind::FatalFree { at, .. }
                | AnomalyKind::EndMark { at, .. }
                | AnomalyKind::RestSize { at, .. }
                | AnomalyKind::Filling { at, .. } => *at,
                AnomalyKind::Header { .. } | AnomalyKind::FreeWord { .. } => {
                    panic!("tcmalloc has no headers: {anomaly:?}")
                }
            };
            let mapped = target.memory.region_at(at).is_some();
            assert!(mapped, "an anomaly where nothing is: {anomaly:?}");
        }
        let statistics = &walked.statistics;
        let parts = statistics.coverage;
        assert_eq!(
            parts.total(),
            statistics.mapped_bytes,
            "every byte is accounted for"
        );
        for (_, extent) in (0..50).zip(walked.map.extents()) {
            heap.recorded_stack(extent.start);
        }
        write!(
            told,
            "{:?} {:?} {:?} {:?}",
            walked.anomalies, walked.statistics, walked.details, walked.limits
        )
        .unwrap();
    }
    told
}

/// The largest amount of memory that this process ever used.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Walks a scene that was damaged on purpose, within bounds of time and memory.
#[track_caller]
fn ends(scene: &Scene) -> String {
    let before = Instant::now();
    let told = survive(scene.process.target());
    let took = before.elapsed();
    assert!(took < Duration::from_secs(20), "took {took:?}");
    assert!(peak_bytes() < 3 << 30, "used {} bytes", peak_bytes());
    told
}

/// Words worth damaging: all that are not zero outside of objects, and the links of objects.
fn targets(model: &Model, scene: &mut Scene) -> Vec<u64> {
    let mut words = Vec::new();
    for (start, bytes) in scene.process.memory.runs() {
        let (first, end) = if start == BRK {
            (start, start + (8u64 << model.pages.leaf_bits) + POOL_BYTES)
        } else if start == MMAP {
            (model.areas()[1].end, start + bytes)
        } else {
            (start, start + bytes)
        };
        let place = scene.process.memory.place(first, (end - first) as usize);
        let chunks = (first..).step_by(8).zip(place.chunks_exact(8));
        words.extend(
            chunks
                .filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0))
                .map(|(at, _)| at),
        );
    }
    for span in model.spans.values().filter(|span| span.class > 0) {
        let bytes = model.classes[span.class].bytes;
        let objects = (0..model.capacity(span.class)).map(|k| model.address(span) + k * bytes);
        words.extend(objects.step_by(3));
    }
    words
}

#[test]
fn random_damage_is_survived() {
    let mut random = fastrand::Rng::with_seed(2024);
    for (release, pages, rounds) in [
        (V2_16, PAGES[5], 800),
        (V2_10, PAGES[5], 400),
        (V2_16, PAGES[3], 150),
        (V2_16, PAGES_8K, 50),
    ] {
        let model = history(release, pages, 3, 6000, 9);
        let mut scene = render(&model, 3, 9);
        let words = targets(&model, &mut scene);
        let healthy = ends(&scene);
        let mut noticed = 0;
        for round in 0..rounds {
            let mut undo = Vec::new();
            for _ in 0..random.usize(1..12) {
                let at = words[random.usize(..words.len())];
                let old = scene.peek(at);
                undo.push((at, old));
                let other = words[random.usize(..words.len())];
                let new = match random.u8(0..10) {
                    0 => old ^ 1 << random.u32(0..64),
                    1 => old & !0xff << (8 * random.u32(0..8)),
                    2 => random.u64(..),
                    3 => random.u64(0..256),
                    4 => [0, u64::MAX, 1 << 31, u64::from(u32::MAX), 1 << 63][random.usize(..5)],
                    5 => other,
                    6 => other + random.u64(0..64),
                    7 => at,
                    _ => scene.peek(other),
                };
                scene.poke(at, new);
            }
            let told = ends(&scene);
            noticed += usize::from(told != healthy);
            if round % 8 == 0 {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(1 + round % 3)
                    .build()
                    .unwrap();
                let again = pool.install(|| survive(scene.process.target()));
                assert_eq!(again, told, "round {round}");
            }
            for (at, old) in undo.into_iter().rev() {
                scene.poke(at, old);
            }
        }
        assert!(noticed > rounds / 2, "the damage does something: {noticed}");
        assert_eq!(ends(&scene), healthy);
    }
}

#[test]
fn memory_that_is_missing_is_survived() {
    let mut random = fastrand::Rng::with_seed(77);
    let model = history(V2_16, PAGES[5], 3, 6000, 4);
    let whole = render(&model, 3, 4);
    let healthy = ends(&whole);
    let mut different = 0;
    for _ in 0..120 {
        let mut scene = whole.clone();
        let runs = scene.process.memory.runs();
        for _ in 0..random.usize(1..6) {
            let (start, bytes) = runs[random.usize(..runs.len())];
            let first = start + (random.u64(0..bytes) & !0xfff);
            match random.u8(0..3) {
                0 => {
                    let memory = &mut scene.process.memory;
                    memory.hide(first..start + bytes, Absence::Truncated);
                }
                1 => {
                    let memory = &mut scene.process.memory;
                    memory.hide(first..first + 0x1000, Absence::NotDumped);
                }
                _ => {
                    let end = first + random.u64(0..0x4000);
                    scene
                        .process
                        .memory
                        .hide(first + 3..end + 5, Absence::NotDumped);
                }
            }
        }
        different += usize::from(ends(&scene) != healthy);
    }
    assert!(different > 25, "{different}");
}

// --- one attack each -----------------------------------------------------------------------------

fn bench() -> Bench {
    Bench::new(V2_16)
}

/// The page map's root.
fn root(bench: &Bench) -> u64 {
    bench.scene.free - 96 - 8 - (8 << bench.model.pages.root_bits)
}

#[test]
fn all_leaves_of_the_page_map_are_one() {
    let mut bench = bench();
    for index in 0..1 << bench.model.pages.root_bits {
        let at = root(&bench) + 8 * index;
        bench.scene.poke(at, BRK);
    }
    ends(&bench.scene);
}

#[test]
fn leaves_of_the_page_map_overlap() {
    let mut bench = bench();
    for index in 0..1 << bench.model.pages.root_bits {
        let at = root(&bench) + 8 * index;
        bench.scene.poke(at, BRK + 8 * index);
    }
    ends(&bench.scene);
}

#[test]
fn every_page_is_the_same_span() {
    let mut bench = bench();
    for page in 0..1 << bench.model.pages.leaf_bits {
        bench.scene.poke(BRK + 8 * page, bench.s);
    }
    ends(&bench.scene);
}

/// Gives S so many pages, with a last one in the page map that agrees.
fn stretch(bench: &mut Bench, pages: u64) {
    let start = bench.scene.peek(bench.s);
    let last = start + pages - 1;
    let bits = bench.model.pages.leaf_bits;
    let (index, slot) = (last >> bits, last & ((1 << bits) - 1));
    if index != start >> bits {
        let range = 0x1_0000_0000..0x1_0000_0000 + (8 << bits);
        let memory = &mut bench.scene.process.memory;
        memory.zeroes(range, "rw", ground::target::RegionKind::Anonymous);
        let at = root(bench) + 8 * index;
        bench.scene.poke(at, 0x1_0000_0000);
        bench.scene.poke(0x1_0000_0000 + 8 * slot, bench.s);
    } else {
        bench.scene.poke(BRK + 8 * slot, bench.s);
    }
    bench.scene.poke(bench.s + span::LENGTH, pages);
}

#[test]
fn a_span_is_longer_than_any_memory() {
    for class in [0, 1, CLASS as u8] {
        for pages in [1 << 17, 1 << 20, (1 << 22) - 1, 1 << 34] {
            let mut bench = bench();
            stretch(&mut bench, pages);
            bench.scene.poke_u8(bench.s + span::FLAGS + 2, class);
            ends(&bench.scene);
        }
    }
}

#[test]
fn spans_begin_and_end_at_the_end_of_the_address_space() {
    for (start, length) in [
        (u64::MAX, 1),
        (u64::MAX, 2),
        (0, u64::MAX),
        (1 << 51, 1 << 63),
    ] {
        let mut bench = bench();
        bench.scene.poke(bench.s + span::START, start);
        bench.scene.poke(bench.s + span::LENGTH, length);
        ends(&bench.scene);
    }
}

#[test]
fn rings_never_come_back() {
    let mut bench = bench();
    // Two spans lead to each other, and every sentinel to them.
    for (one, other) in [(bench.s, bench.t), (bench.t, bench.s)] {
        bench.scene.poke(one + span::NEXT, other);
        bench.scene.poke(one + span::PREV, other);
    }
    for class in 1..86 {
        for ring in [central::EMPTY, central::NONEMPTY] {
            let at = bench.scene.central(class) + ring;
            bench.scene.poke(at + span::NEXT, bench.s);
        }
    }
    for sentinel in 0..256 {
        let at = bench.scene.free + 48 * sentinel;
        bench.scene.poke(at + span::NEXT, bench.t);
    }
    ends(&bench.scene);
}

#[test]
fn a_ring_comes_back_in_its_middle() {
    let mut bench = bench();
    let sentinel = bench.scene.central(CLASS) + central::NONEMPTY;
    bench.scene.poke(sentinel + span::NEXT, bench.s);
    bench.scene.poke(bench.s + span::PREV, sentinel);
    bench.scene.poke(bench.s + span::NEXT, bench.s);
    ends(&bench.scene);
}

#[test]
fn the_number_of_size_classes_is_insane() {
    for count in [
        0,
        1,
        7,
        8,
        87,
        128,
        129,
        255,
        256,
        1 << 16,
        1 << 31,
        u64::MAX,
    ] {
        let mut bench = bench();
        let at = bench.scene.size_map + bench.model.release.num_size_classes;
        bench.scene.poke(at, count);
        ends(&bench.scene);
    }
}

#[test]
fn size_classes_are_insane() {
    for (table, value) in [
        (size_map::CLASS_TO_SIZE, 0),
        (size_map::CLASS_TO_SIZE, u32::MAX),
        (size_map::CLASS_TO_SIZE, 1),
        (size_map::NUM_OBJECTS_TO_MOVE, 0),
        (size_map::NUM_OBJECTS_TO_MOVE, u32::MAX),
    ] {
        let mut bench = bench();
        let at = bench.scene.size_map + table + 4 * CLASS as u64;
        bench.scene.poke_u32(at, value);
        ends(&bench.scene);
    }
    for value in [0, 2, 1 << 31, u64::MAX] {
        let mut bench = bench();
        let at = bench.scene.size_map + size_map::CLASS_TO_PAGES + 8 * CLASS as u64;
        bench.scene.poke(at, value);
        ends(&bench.scene);
    }
}

#[test]
fn the_list_of_caches_is_a_circle() {
    for release in [V2_10, V2_16] {
        let mut bench = Bench::new(release);
        let [a, b] = [0, 1].map(|cache| bench.model.caches[cache].at);
        for (from, to) in [(a, b), (b, a)] {
            bench.scene.poke(from + release.next, to);
            bench.scene.poke(from + release.prev, to);
        }
        ends(&bench.scene);
        bench.scene.poke(a + release.next, a);
        ends(&bench.scene);
    }
}

#[test]
fn lists_count_billions() {
    for length in [1 << 31, u32::MAX, 100_000] {
        for lead_to in [0, 10, 12] {
            let mut bench = bench();
            bench.set_length(0, length);
            if lead_to > 0 {
                bench.scene.poke(bench.object(14), bench.object(lead_to));
            }
            ends(&bench.scene);
        }
    }
    let mut bench = bench();
    let at = bench.scene.central(CLASS);
    bench.scene.poke_u32(at + central::USED_SLOTS, u32::MAX);
    bench.scene.poke(at + central::NUM_SPANS, u64::MAX);
    bench.scene.poke(at + central::COUNTER, u64::MAX);
    for cache in 0..2 {
        let at = bench.model.caches[cache].at + cache::SIZE;
        bench.scene.poke_u32(at, u32::MAX);
    }
    ends(&bench.scene);
}

/// The program keeps rings of its own, whose links lie where a free block has its link.
#[test]
fn rings_of_the_program_do_not_hold_up_the_search_for_a_lost_chain() {
    let mut model = Model::new(V2_16, PAGES_8K);
    model.add_cache(0);
    let class = 2;
    let objects: Vec<u64> = (0..200_000).map(|_| model.malloc(0, class)).collect();
    let (listed, ring) = objects.split_at(8000);
    for object in listed {
        model.live.remove(object);
    }
    model.flush(0, class, usize::MAX);
    model.caches[0].lists[class] = listed.to_vec();
    let mut scene = render(&model, 1, 1);
    for (index, object) in ring.iter().enumerate() {
        scene.poke(*object, ring[(index + 1) % ring.len()]);
    }
    // Damage in the middle of the list, with and without a chain that fits.
    for error in [0, 3] {
        let mut scene = scene.clone();
        let at = listed[4000];
        let link = scene.peek(at);
        scene.poke(at, link & !0xffff | 0x2020);
        let length = model.caches[0].at + class as u64 * cache::LIST + cache::LENGTH;
        scene.poke_u32(length, 8000 + error);
        ends(&scene);
    }
}

#[test]
fn threads_and_modules_that_make_no_sense_are_survived() {
    let mut bench = bench();
    bench.scene.process.threads.set_frames(0, Vec::new());
    let thread = bench.scene.process.threads.thread_mut(1);
    thread.thread_pointer = Some(Address::new(u64::MAX));
    thread.sp = Address::new(u64::MAX);
    ends(&bench.scene);
    let module = &mut bench.scene.process.modules[1];
    module.segments.truncate(2);
    ends(&bench.scene);
    bench.scene.process.modules[1].segments[1].range = Address::new(0)..Address::new(u64::MAX);
    bench.scene.process.modules[1].segments[1].writable = true;
    ends(&bench.scene);
}
