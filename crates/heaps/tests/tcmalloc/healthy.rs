//! Healthy heaps: the walker finds exactly what the model holds, and nothing to complain about.

use std::collections::BTreeMap;

use heaps::allocators::{Coverage, Detail, SizeClassRow, Tally};
use heaps::map::{BlockState, HeapMap, Shape};

use crate::model::{Location, Model, Span};
use crate::numbers::{PAGES, PAGES_8K, Pages, Release, V2_10, V2_13, V2_16};
use crate::render::{Scene, name_variables, render};
use crate::with_heap;

/// A random life of a program: mostly small blocks of a few classes, freed by any thread.
pub fn history(release: Release, pages: Pages, threads: usize, steps: usize, seed: u64) -> Model {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut model = Model::new(release, pages);
    for thread in 0..threads {
        model.add_cache(thread);
    }
    // Few classes, so that their lists grow long and their spans come and go.
    let classes: Vec<usize> = [1, 2, 4, 14, 33, 60, 85][..random.usize(3..8)].to_vec();
    let mut held: Vec<u64> = Vec::new();
    let mut room = 12 << 20;
    for step in 0..steps {
        let cache = random.usize(..model.caches.len());
        // Phases of growth and of decline.
        let grows = if step / 2000 % 2 == 0 { 80 } else { 35 };
        match random.usize(..1000) {
            0..5 if room > 0 => {
                let pages = random.u64(1..4 + model.pages.max_pages / 2);
                room -= (pages << model.pages.shift) as i64;
                let sample = random
                    .bool()
                    .then(|| random.u64(1..pages << model.pages.shift));
                held.push(model.malloc_large(pages, sample));
            }
            5..10 => {
                let free: Vec<u64> = model
                    .spans
                    .iter()
                    .filter(|(_, span)| span.location == Location::Normal)
                    .map(|(at, _)| *at)
                    .collect();
                if !free.is_empty() {
                    model.release(free[random.usize(..free.len())]);
                }
            }
            10..14 => {
                let class = classes[random.usize(..classes.len())];
                model.flush(cache, class, random.usize(..64));
            }
            14 if model.caches.len() > 1 && step > steps / 2 => model.remove_cache(cache),
            roll if roll % 100 < grows || held.is_empty() => {
                let class = classes[random.usize(..classes.len())];
                if model.classes[class].bytes < 4096 || random.u8(..20) == 0 {
                    held.push(model.malloc(cache, class));
                }
            }
            _ => {
                let object = held.swap_remove(random.usize(..held.len()));
                model.free(cache, object);
            }
        }
    }
    model
}

/// Blocks that the map holds to be in use: address and bytes.
pub fn live(map: &HeapMap) -> BTreeMap<u64, u64> {
    let mut live = BTreeMap::new();
    for (row, extent) in (0u32..).zip(map.extents()) {
        for slot in 0..extent.blocks() {
            let block = extent.block(row, slot).unwrap();
            if map.state(block.id) == BlockState::InUse {
                live.insert(block.address.get(), block.bytes);
            }
        }
    }
    live
}

/// What the model holds: address and bytes.
pub fn held(model: &Model) -> BTreeMap<u64, u64> {
    let bytes = |(&at, &class): (&u64, &usize)| match class {
        0 => (
            at,
            model.spans[&model.span_of(at)].length << model.pages.shift,
        ),
        _ => (at, model.classes[class].bytes),
    };
    model.live.iter().map(bytes).collect()
}

fn expected_rows(model: &Model) -> Vec<SizeClassRow> {
    let mut rows: BTreeMap<usize, SizeClassRow> = BTreeMap::new();
    for span in model.spans.values().filter(|span| span.class > 0) {
        let row = rows.entry(span.class).or_default();
        row.block_bytes = model.classes[span.class].bytes;
        row.free += model.capacity(span.class);
    }
    for class in model.live.values().filter(|class| **class > 0) {
        let row = rows.get_mut(class).unwrap();
        row.free -= 1;
        row.in_use += 1;
    }
    rows.into_values().collect()
}

fn check(model: &Model, scene: &Scene) {
    with_heap(scene.process.target(), |heap, walked| {
        assert_eq!(walked.anomalies, []);
        assert_eq!(walked.limits, []);
        let identity = heap.identity();
        assert_eq!(identity.version.as_deref(), Some(model.release.version));
        let layout = Detail::Text(model.release.layout.into());
        assert!(walked.details.contains(&("layout", layout)));

        let held = held(model);
        assert_eq!(live(&walked.map), held);
        let statistics = &walked.statistics;
        let in_use = Tally {
            blocks: held.len() as u64,
            bytes: held.values().sum(),
        };
        assert_eq!(statistics.in_use, in_use);
        assert_eq!(statistics.lost, Tally::default());
        let rows = statistics.size_classes.iter().copied();
        let (ranges, classes): (Vec<_>, Vec<_>) = rows.partition(|row| row.range.is_some());
        assert_eq!(classes, expected_rows(model));
        let all = classes.iter().chain(&ranges);
        let sum: u64 = all.clone().map(|row| row.range().in_use).sum();
        assert_eq!(sum, in_use.bytes);
        let sum: u64 = all.map(|row| row.range().free).sum();
        assert_eq!(sum, statistics.free.bytes);

        let page = model.page_bytes();
        let mut free = Tally::default();
        let mut tails = 0;
        for row in &classes {
            free.add(row.free, row.free * row.block_bytes);
        }
        for span in model.spans.values() {
            match span.location {
                Location::InUse if span.class > 0 => {
                    let objects = model.capacity(span.class) * model.classes[span.class].bytes;
                    tails += span.length * page - objects;
                }
                Location::InUse => {}
                _ => free.add(1, span.length * page),
            }
        }
        assert_eq!(statistics.free, free);
        let [brk, mmap] = model.areas();
        let system = brk.end - brk.start + (mmap.end - mmap.start);
        assert_eq!(statistics.mapped_bytes, statistics.coverage.total());
        let leaf = 8u64 << model.pages.leaf_bits;
        let leaves = if mmap.is_empty() { 1 } else { 2 };
        let coverage = Coverage {
            in_use: in_use.bytes,
            free: free.bytes,
            metadata: leaf * leaves + crate::model::POOL_BYTES,
            tails,
            unknown: 0,
        };
        assert_eq!(statistics.coverage, coverage);
        assert_eq!(in_use.bytes + free.bytes + tails, system);

        // Sampled blocks come with the stack that allocated them.
        for span in model.spans.values() {
            let address = ground::target::Address::new(model.address(span));
            let stack = heap.recorded_stack(address);
            assert_eq!(stack.is_some(), span.sample.is_some());
        }
        let shapes = walked.map.extents().iter();
        assert!(
            shapes
                .filter(|extent| extent.shape != Shape::Metadata)
                .count()
                == model.spans.len()
        );
    });
}

/// How often the histories reach a state that is worth testing.
fn reached(model: &Model) -> [usize; 8] {
    let count =
        |wanted: &dyn Fn(&Span) -> bool| model.spans.values().filter(|span| wanted(span)).count();
    let long =
        |span: &Span| span.location != Location::InUse && span.length > model.pages.max_pages;
    [
        count(&|span| span.class > 0),
        count(&|span| span.class > 0 && span.chain.is_empty()),
        count(&|span| span.location == Location::Returned),
        count(&long),
        count(&|span| span.sample.is_some()),
        model.deleted.len(),
        model.central.iter().map(|list| list.slots.len()).sum(),
        usize::from(!model.areas()[1].is_empty()),
    ]
}

#[test]
fn the_walker_finds_exactly_what_the_model_holds() {
    let mut total = [0; 8];
    for seed in 0..24 {
        let release = [V2_10, V2_16, V2_13][seed as usize % 3];
        let threads = 1 + seed as usize % 5;
        let model = history(release, PAGES_8K, threads, 12_000, seed);
        let mut scene = render(&model, threads, seed);
        if seed % 2 == 0 {
            name_variables(&mut scene);
        }
        check(&model, &scene);
        for (total, count) in total.iter_mut().zip(reached(&model)) {
            *total += count;
        }
    }
    assert!(total.iter().all(|count| *count >= 10), "{total:?}");
}

#[test]
fn every_page_size_is_read() {
    for (seed, pages) in (100..).zip(PAGES) {
        for release in [V2_10, V2_13, V2_16] {
            let model = history(release, pages, 2, 800, seed);
            check(&model, &render(&model, 2, seed));
        }
    }
}

#[test]
fn windows_that_end_anywhere_change_nothing() {
    let model = history(V2_16, PAGES_8K, 3, 2000, 7);
    let mut scene = render(&model, 3, 7);
    scene.process.memory.cut_windows(0x1000);
    check(&model, &scene);
}

#[test]
fn an_allocator_that_nobody_used_yet_is_healthy() {
    let mut model = Model::new(V2_16, PAGES_8K);
    model.add_cache(0);
    model.new_pages(1);
    check_empty(&model);
}

fn check_empty(model: &Model) {
    let scene = render(model, 1, 0);
    with_heap(scene.process.target(), |_, walked| {
        assert_eq!(walked.anomalies, []);
        assert_eq!(walked.statistics.in_use.blocks, 1);
    });
}
