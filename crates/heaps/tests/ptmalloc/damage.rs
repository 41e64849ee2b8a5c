//! Damage, reduced to the word that is its root.

use heaps::anomaly::{AnomalyKind, BrokenWord, Stray};

use crate::bench::{ARENA, Bench, HEAP, KEY, Release, V2_31, V2_36, V2_43};
use crate::healthy::furnished;
use crate::{definite, walked};

/// Three blocks in use, two in the cache, with a fence of blocks around them.
fn row(release: Release, size: u64) -> (Bench, [u64; 5]) {
    let mut bench = Bench::new(release, 1);
    bench.used(0x50);
    let a = bench.used(size);
    let b = bench.used(size);
    let c = bench.cached(0, size);
    let d = bench.used(size);
    let e = bench.cached(0, size);
    for _ in 0..12 {
        bench.used(0x50);
        bench.cached(0, 0x60);
    }
    (bench.finish(), [a, b, c, d, e])
}

#[test]
fn text_over_a_header_is_one_anomaly_and_costs_no_block() {
    for release in [V2_31, V2_36, V2_43] {
        let (mut bench, [a, b, ..]) = row(release, 0x30);
        let before = walked(&bench).statistics.in_use;
        bench.process.memory.write(b - 8, b"overlong");
        let walked = walked(&bench);
        let [
            AnomalyKind::Header {
                block,
                expected,
                before: Some(culprit),
                ..
            },
        ] = definite(&walked)[..]
        else {
            panic!("{:?}", walked.anomalies);
        };
        assert_eq!((block.address.get(), culprit.address.get()), (b, a));
        assert_eq!(*expected, Some(0x31));
        assert_eq!(walked.statistics.in_use, before);
    }
}

#[test]
fn a_nul_over_the_lowest_byte_is_put_right() {
    for size in [0x100, 0x130] {
        let (mut bench, [a, b, ..]) = row(V2_36, size);
        let before = walked(&bench).statistics.in_use;
        bench.process.memory.write(b - 8, &[0]);
        let walked = walked(&bench);
        let [
            AnomalyKind::Header {
                block,
                expected,
                before: Some(culprit),
                ..
            },
        ] = definite(&walked)[..]
        else {
            panic!("{size:#x} {:?}", walked.anomalies);
        };
        assert_eq!((block.address.get(), culprit.address.get()), (b, a));
        assert_eq!(*expected, Some(size | 1));
        assert_eq!(walked.statistics.in_use, before);
    }
}

#[test]
fn a_size_that_swallows_a_cached_neighbour_is_found_by_it() {
    let (mut bench, [a, b, ..]) = row(V2_36, 0x30);
    let before = walked(&bench).statistics;
    bench.process.memory.write(b - 8, &[0x61]);
    let walked = walked(&bench);
    let [
        AnomalyKind::Header {
            block,
            expected,
            before: Some(culprit),
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(
        (block.address.get(), block.bytes, culprit.address.get()),
        (b, 0x28, a)
    );
    assert_eq!(*expected, Some(0x31));
    assert_eq!(walked.statistics.in_use, before.in_use);
    assert_eq!(walked.statistics.free, before.free);
}

#[test]
fn a_link_that_was_written_over_is_repaired_by_the_keys() {
    for release in [V2_31, V2_36, V2_43] {
        let (mut bench, [.., c, _, e]) = row(release, 0x30);
        bench.process.memory.write(e, b"overlong");
        let walked = walked(&bench);
        let [
            AnomalyKind::BadEntry {
                edge,
                leads_on: false,
                repair: Some(repair),
                ..
            },
        ] = definite(&walked)[..]
        else {
            panic!("{} {:?}", release.name, walked.anomalies);
        };
        assert_eq!(edge.word().get(), e);
        assert_eq!((repair.value.get(), repair.unique), (c, true));
        assert_eq!(walked.statistics.lost.blocks, 1);
    }
}

#[test]
fn a_key_that_was_written_over_is_said() {
    let (mut bench, [.., e]) = row(V2_36, 0x30);
    bench.write(e + 8, 0x6f20_7478_6574);
    let walked = walked(&bench);
    let [AnomalyKind::FreeWord { block, found, .. }] = definite(&walked)[..] else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!((block.address.get(), *found), (e, 0x6f20_7478_6574));
}

#[test]
fn a_block_in_two_caches_was_freed_twice() {
    let mut bench = Bench::new(V2_36, 2);
    bench.used(0x30);
    let shared = bench.cached(0, 0x30);
    bench.cached(0, 0x30);
    bench.cached(1, 0x30);
    bench.used(0x30);
    let mut bench = bench.finish();
    // Its link becomes the second cache's.
    bench.cache_block(1, shared, 0x30);
    let walked = walked(&bench);
    let [
        AnomalyKind::Shared {
            block,
            edges,
            cycle: None,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(block.address.get(), shared);
    let threads: Vec<_> = edges.iter().map(|edge| edge.list.thread).collect();
    assert_eq!(threads, [Some(100), Some(101)]);
}

/// The very first header of the heap: what it says of the chunk before it (there is none) does not say where the heap begins.
#[test]
fn the_first_header_of_all_is_text() {
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = Bench::new(release, 1);
        bench.used(0x30);
        bench.binned(0x120);
        bench.used(0x30);
        let mut bench = bench.finish();
        bench.write(HEAP + 8, 0x2e31_2f50_5454_4820);
        let walked = walked(&bench);
        let [AnomalyKind::Header { at, .. }] = definite(&walked)[..] else {
            panic!("{:?}", walked.anomalies);
        };
        assert_eq!(at.get(), HEAP + 8);
    }
}

/// What stood behind a block in one cache is lost when the block is freed into another, however long that one's list is.
#[test]
fn the_tail_of_one_of_two_caches_is_lost() {
    for others in [0, 1, 3] {
        let mut bench = Bench::new(V2_36, 2);
        bench.used(0x30);
        let [_, shared, _] = [(); 3].map(|()| bench.cached(0, 0x30));
        for _ in 0..others {
            bench.cached(1, 0x30);
        }
        bench.used(0x30);
        let mut bench = bench.finish();
        bench.cache_block(1, shared, 0x30);
        let walked = walked(&bench);
        let [AnomalyKind::Shared { block, .. }] = definite(&walked)[..] else {
            panic!("{others}: {:?}", walked.anomalies);
        };
        assert_eq!(block.address.get(), shared, "{others}");
        assert_eq!(walked.anomalies[0].lost_blocks, 1, "{others}");
    }
}

#[test]
fn a_circle_in_a_fastbin_ends() {
    let mut bench = Bench::new(V2_36, 1);
    let blocks: Vec<u64> = (0..3).map(|_| bench.fast(0x40)).collect();
    bench.used(0x30);
    let mut bench = bench.finish();
    let first = blocks[0];
    bench.write(first, (blocks[2] - 16) ^ (first >> 12));
    let walked = walked(&bench);
    let [
        AnomalyKind::Shared {
            block,
            cycle: Some(3),
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(block.address.get(), blocks[2]);
}

#[test]
fn an_inner_pointer_that_was_freed_is_told_by_its_key() {
    let mut bench = Bench::new(V2_36, 1);
    let outer = bench.used(0x50);
    bench.cached(0, 0x30);
    bench.cached(0, 0x40);
    bench.used(0x30);
    let mut bench = bench.finish();
    bench.write(outer + 8, 0x31);
    bench.cache_block(0, outer + 16, 0x30);
    assert_eq!(bench.word(outer + 24), KEY);
    let walked = walked(&bench);
    let [
        AnomalyKind::BadEntry {
            found,
            stray: Stray::Misaligned { block, offset: 16 },
            leads_on: true,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!((found.get(), block.address.get()), (outer + 16, outer));
}

#[test]
fn a_bin_is_followed_from_both_ends() {
    let mut bench = furnished(V2_36);
    let bin = bench.bin(0x12);
    let first = bench.word(bin + 16);
    let second = bench.word(first + 16);
    bench.process.memory.write(first + 16, b"overlong");
    let walked = walked(&bench);
    let [
        AnomalyKind::BadEntry {
            edge,
            repair: Some(repair),
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(
        (edge.word().get(), repair.value.get()),
        (first + 16, second)
    );
    assert_eq!(walked.statistics.lost.blocks, 0);
}

#[test]
fn an_arenas_own_words_are_held_against_each_other() {
    // binmap, next_free, max_system_mem
    for (offset, word) in [(2144, 0), (2168, 0x6161_6161), (2192, 4096)] {
        let mut bench = furnished(V2_36);
        bench.write(ARENA + offset, word);
        let walked = walked(&bench);
        let [
            AnomalyKind::Metadata {
                word: BrokenWord { at, .. },
                ..
            },
        ] = definite(&walked)[..]
        else {
            panic!("{offset}: {:?}", walked.anomalies);
        };
        assert_eq!(at.get(), ARENA + offset);
    }
}

#[test]
fn a_broken_list_of_arenas_does_not_hide_the_heap() {
    let mut bench = furnished(V2_36);
    let in_use = walked(&bench).statistics.in_use;
    bench.write(ARENA + 2160, 0x6161_6161_6161_6161);
    let walked = walked(&bench);
    assert_eq!(walked.statistics.in_use, in_use);
    assert!(matches!(
        definite(&walked)[..],
        [AnomalyKind::Metadata { .. }]
    ));
}

#[test]
fn a_top_chunk_of_absurd_size_is_its_neighbours_work() {
    let mut bench = furnished(V2_36);
    let top = bench.word(ARENA + 96);
    bench.write(top + 8, u64::MAX);
    let walked = walked(&bench);
    let [
        AnomalyKind::Header {
            block,
            before: Some(before),
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(block.address.get(), top + 16);
    assert!(before.address.get() > HEAP);
}
