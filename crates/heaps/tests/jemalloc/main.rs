//! jemalloc, walked in a process whose words were set one by one.

mod hostile;
mod scene;

use ground::target::{Address, Target};
use heaps::allocators::jemalloc::Jemalloc;
use heaps::allocators::{Allocator, Detection, Heap};
use heaps::anomaly::{AnomalyKind, BrokenWord, Field, Stray};
use heaps::walk::{Walked, walk};
use scene::{
    ACTIVE, CODE, DIRTY_HEAP, DIRTY_LIST, EDATA, ELEMENT, FAR_SLOT, LARGE, SLAB, SLAB_2, Scene,
};
use synth::Absence;

/// Finds the only heap, walks it, and lets `look` look at both.
fn with_heap<R>(target: Target<'_>, look: impl FnOnce(&dyn Heap, Walked) -> R) -> R {
    match Jemalloc.detect(target) {
        Detection::Found { heaps, limits } => {
            assert_eq!(limits, []);
            let [heap] = &heaps[..] else {
                panic!("{} heaps", heaps.len());
            };
            let walked = walk(heap.as_ref(), target.memory);
            look(heap.as_ref(), walked)
        }
        Detection::Absent { looked_for } => panic!("absent: {looked_for}"),
        Detection::Unusable(limit) => panic!("unusable: {limit:?}"),
    }
}

/// The only anomaly of a scene, and whether it may be passing.
fn only(scene: &Scene) -> (AnomalyKind, bool) {
    with_heap(scene.process.target(), |_, walked| {
        let [anomaly] = &walked.anomalies[..] else {
            panic!("not one anomaly: {:#?}", walked.anomalies);
        };
        (anomaly.kind.clone(), anomaly.transient.is_some())
    })
}

fn at(address: u64) -> Address {
    Address::new(address)
}

#[test]
fn a_healthy_heap_is_silent_and_counted_to_the_byte() {
    with_heap(Scene::healthy().process.target(), |heap, walked| {
        assert_eq!(walked.anomalies, []);
        let identity = heap.identity();
        assert_eq!(identity.version.as_deref(), Some("5.3.0"));
        // Of 128 regions the slabs have 4 + 60 as free, the cache 3; one large block; the cache's own is not the program's.
        assert_eq!(walked.statistics.in_use.blocks, 128 - 64 - 3 + 1);
        assert_eq!(walked.statistics.in_use.bytes, 61 * 64 + 16384);
        let free = 67 * 64 + 8 * 4096;
        assert_eq!(walked.statistics.free.bytes, free);
        let coverage = walked.statistics.coverage;
        // The cache's own block has seven pages of its extent.
        assert_eq!(
            coverage.in_use + coverage.free + coverage.tails + 7 * 4096,
            (1 + 1 + 5 + 8 + 8) * 4096
        );
        assert_eq!(walked.statistics.mapped_bytes, coverage.total());
        let (block, offset) = walked.map.block_at(at(LARGE + 100)).unwrap();
        assert_eq!(
            (block.address, block.bytes, offset),
            (at(LARGE), 16384, 100)
        );
    });
}

#[test]
fn a_pointer_that_a_cache_holds_twice() {
    let mut scene = Scene::healthy();
    scene.cache(&[SLAB, SLAB + 64, SLAB]);
    let (AnomalyKind::Shared { block, edges, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!(block.address, at(SLAB));
    let positions: Vec<u64> = edges.iter().map(|edge| edge.position).collect();
    assert_eq!(positions, [0, 2]);
    assert!(edges.iter().all(|edge| edge.list.thread == Some(7)));
}

#[test]
fn entries_of_a_thread_inside_prove_nothing() {
    let mut scene = Scene::healthy();
    scene.cache(&[SLAB, SLAB + 64, SLAB]);
    scene.stop_at(CODE + 0x10);
    assert!(matches!(only(&scene), (AnomalyKind::Shared { .. }, true)));
}

/// Linked into a program, the shortest ways of malloc and free touch nothing but the table of sizes and the thread's cache: free
/// counts a block before it enters it, and what stands in its place is an old one.
#[test]
fn the_shortest_way_of_free_is_told_by_the_table_of_sizes() {
    let mut scene = Scene::healthy();
    scene.cache(&[SLAB + 63 * 64, SLAB, SLAB + 64]);
    scene.link_into_program();
    for (looks_up, passing) in [(true, true), (false, false)] {
        scene.stop_in_function(looks_up);
        let (AnomalyKind::Shared { .. }, transient) = only(&scene) else {
            panic!("{:?}", only(&scene));
        };
        assert_eq!(transient, passing);
    }
}

/// With `junk:true` what is free holds 0x5a. What was never handed out since its slab was made holds parts of what was there.
#[test]
fn a_filling_proves_nothing_where_a_block_was_never_handed_out() {
    // What a cache was filled with comes last, in order; what was freed since comes first.
    let (freed, filled) = (SLAB + 128, SLAB);
    for (block, first, bytes, byte, said) in [
        (filled, 32, 32, 0, false),
        (filled, 0, 48, 0, false),
        (filled, 32, 9, 0, true),
        (filled, 33, 16, 0, true),
        (filled, 32, 32, b'n', true),
        (freed, 32, 32, 0, true),
    ] {
        let mut scene = Scene::healthy();
        scene.fill_with_junk();
        scene.cache(&[freed, filled, SLAB + 64]);
        with_heap(scene.process.target(), |_, walked| {
            assert_eq!(walked.anomalies, []);
        });
        scene
            .process
            .memory
            .write(block + first, &vec![byte; bytes]);
        with_heap(scene.process.target(), |_, walked| {
            let fillings = walked.anomalies.iter();
            let fillings = fillings.filter(|anomaly| {
                matches!(anomaly.kind, AnomalyKind::Filling { .. }) && anomaly.transient.is_none()
            });
            assert_eq!(fillings.count() > 0, said, "{block:#x} {first} {bytes}");
        });
    }
}

#[test]
fn a_cached_pointer_that_its_slab_has_as_free() {
    let mut scene = Scene::healthy();
    // The last regions of the first slab are free.
    scene.cache(&[SLAB + 63 * 64, SLAB, SLAB + 64]);
    let (AnomalyKind::Shared { block, edges, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!(block.address, at(SLAB + 63 * 64));
    assert_eq!(edges.len(), 2);
}

#[test]
fn an_inner_pointer_and_one_of_another_class() {
    let mut scene = Scene::healthy();
    scene.cache(&[SLAB + 8, SLAB + 64, SLAB + 128]);
    let (AnomalyKind::BadEntry { found, stray, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!(found, at(SLAB + 8));
    assert!(matches!(stray, Stray::Misaligned { offset: 8, .. }));

    scene.cache(&[LARGE, SLAB + 64, SLAB + 128]);
    let (AnomalyKind::BadEntry { stray, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert!(matches!(stray, Stray::OtherClass { offset: 0, .. }));
    // What the block held says nothing of it.
    let absent = LARGE..LARGE + 0x4000;
    scene.process.memory.hide(absent, Absence::NotDumped);
    assert!(matches!(only(&scene).0, AnomalyKind::BadEntry { found, .. } if found == at(LARGE)));
}

#[test]
fn a_slab_that_counts_a_free_too_many() {
    let mut scene = Scene::healthy();
    scene.set_free_count(0, 4 + 2);
    // The bin counted it as well: two less in use than the marks say.
    scene.set_regions(64 - 2);
    let (AnomalyKind::FreedAgain { start, times, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!((start, times), (at(SLAB), 1));
    // A thread that holds the bin's lock may have changed one of the two only.
    scene.hold_bin_lock();
    assert!(matches!(
        only(&scene),
        (AnomalyKind::FreedAgain { .. }, true)
    ));
}

/// Had a block been freed again, the bin would count less in use than the marks say.
#[test]
fn a_count_of_free_regions_that_nobody_freed() {
    let mut scene = Scene::healthy();
    scene.set_free_count(0, 4 + 2);
    let (
        AnomalyKind::Metadata {
            word: BrokenWord { of, what, .. },
            ..
        },
        false,
    ) = only(&scene)
    else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!((of, what), (at(EDATA), Field::EdataNfree));
}

#[test]
fn a_smashed_size_or_address_hides_nothing() {
    for (offset, what) in [(8, Field::EdataEAddr), (16, Field::EdataESize)] {
        let mut scene = Scene::healthy();
        scene.process.memory.write(EDATA + offset, b"surname\0");
        let (
            AnomalyKind::Metadata {
                word: BrokenWord { of, what: said, .. },
                ..
            },
            false,
        ) = only(&scene)
        else {
            panic!("{:?}", only(&scene));
        };
        assert_eq!((of, said), (at(EDATA), what));
        with_heap(scene.process.target(), |_, walked| {
            assert_eq!(walked.statistics.in_use.blocks, 128 - 64 - 3 + 1);
        });
    }
}

#[test]
fn marks_that_were_written_over_are_one_anomaly() {
    let mut scene = Scene::healthy();
    scene.process.memory.write(EDATA + 64, b"surname\0");
    let (
        AnomalyKind::Metadata {
            word: BrokenWord { of, at: word, .. },
            ..
        },
        false,
    ) = only(&scene)
    else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!((of, word), (at(EDATA), at(EDATA + 64)));
}

/// One lost word is one anomaly: what the lost leaf maps is read all the same.
#[test]
fn a_slot_that_does_not_lead_to_its_leaf_any_more() {
    let mut scene = Scene::healthy();
    scene.go_far();
    with_heap(scene.process.target(), |_, walked| {
        assert_eq!(walked.anomalies, []);
    });
    let leaf = scene.process.memory.word(FAR_SLOT);
    for found in [0, leaf ^ 1 << 6, leaf ^ 1 << 3, leaf ^ 1 << 40, 0x41] {
        scene.process.memory.write_u64(FAR_SLOT, found);
        let (
            AnomalyKind::Metadata {
                word: BrokenWord { at: word, what, .. },
                ..
            },
            false,
        ) = only(&scene)
        else {
            panic!("{:?}", only(&scene));
        };
        assert_eq!((word, what), (at(FAR_SLOT), Field::RtreeNode));
    }
}

/// Blocks of the slab that caches hold are blocks all the same.
#[test]
fn the_only_element_of_a_slab_is_null() {
    let mut scene = Scene::healthy();
    scene.process.memory.write_u64(ELEMENT, 0);
    // One that its bin has is complete, whoever is inside.
    for pc in [0x1000, CODE + 0x10] {
        scene.stop_at(pc);
        let (
            AnomalyKind::Metadata {
                word: BrokenWord { of, what, .. },
                ..
            },
            false,
        ) = only(&scene)
        else {
            panic!("{:?}", only(&scene));
        };
        assert_eq!((of, what), (at(ELEMENT), Field::RtreeLeaf));
    }
    // One that is in no bin may be on its way out.
    scene.set_current(0);
    assert!(only(&scene).1);
}

#[test]
fn words_of_a_page_cache_at_work() {
    let told = |word, value| {
        let mut scene = Scene::healthy();
        scene.stop_at(CODE + 0x10);
        scene.hold_dirty_lock();
        scene.process.memory.write_u64(word, value);
        with_heap(scene.process.target(), |_, walked| walked.anomalies.len())
    };
    for word in [DIRTY_LIST, DIRTY_HEAP] {
        assert_eq!(told(word, 0), 0);
        assert_eq!(told(word, EDATA), 0);
        assert_eq!(told(word, EDATA + 8), 1);
        assert_eq!(told(word, SLAB), 1);
    }
    assert_eq!(told(ACTIVE, 16), 0);
    assert_eq!(told(ACTIVE, u64::MAX), 0);
    assert_eq!(told(ACTIVE, SLAB), 1);
}

#[test]
fn a_heap_of_free_extents_that_begins_with_a_slab() {
    let mut scene = Scene::healthy();
    scene.process.memory.write_u64(DIRTY_HEAP, EDATA);
    let (
        AnomalyKind::Metadata {
            word: BrokenWord { at: word, .. },
            ..
        },
        false,
    ) = only(&scene)
    else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!(word, at(DIRTY_HEAP));
}

#[test]
fn a_bin_that_names_no_slab() {
    let mut scene = Scene::healthy();
    scene.set_current(0x4141_4141_4141);
    let (
        AnomalyKind::Metadata {
            word: BrokenWord { what, .. },
            ..
        },
        false,
    ) = only(&scene)
    else {
        panic!("{:?}", only(&scene));
    };
    assert_eq!(what, Field::BinSlabcur);
}

#[test]
fn a_count_of_regions_that_lags_is_a_count() {
    let mut scene = Scene::healthy();
    scene.set_regions(60);
    let (AnomalyKind::Metadata { counts_only, .. }, false) = only(&scene) else {
        panic!("{:?}", only(&scene));
    };
    assert!(counts_only);
    scene.stop_at(CODE + 0x10);
    with_heap(scene.process.target(), |_, walked| {
        assert_eq!(
            walked.anomalies,
            [],
            "counters lag while somebody is inside"
        );
    });
}

#[test]
fn a_build_for_other_pages_is_refused() {
    let mut scene = Scene::healthy();
    scene.say_pages_of_64k();
    match Jemalloc.detect(scene.process.target()) {
        Detection::Unusable(limit) => assert!(limit.why.contains("65536"), "{limit:?}"),
        _ => panic!("not refused"),
    }
    assert_eq!(SLAB_2, SLAB + 0x1000);
}
