//! Sizes that became other possible ones, and headers behind blocks whose data looks like a header: headers and lists
//! allow two explanations, and who the program points at decides.

use heaps::anomaly::{AnomalyKind, Stray};

use crate::bench::{ARENA, Bench, TLS, V2_31, V2_36, V2_43};
use crate::{definite, walked};

/// A word of the program's own in which it keeps a pointer.
const POINTER: u64 = TLS + 0x800;

/// Blocks in use behind which nothing is out of order.
fn fence(bench: &mut Bench) {
    for _ in 0..16 {
        bench.used(0x50);
    }
}

/// The only finding: the header in front of a block.
fn only_header(bench: &Bench) -> (u64, Option<u64>) {
    let walked = walked(bench);
    let [
        AnomalyKind::Header {
            block, expected, ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    (block.address.get(), *expected)
}

/// A block whose data holds an old header, one bit from its size away, and one behind it whose header is garbage.
fn old_header() -> (Bench, u64, u64) {
    let mut bench = Bench::new(V2_36, 1);
    bench.used(0x50);
    let a = bench.used(0x180);
    let b = bench.used(0x90);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.write(a + 0x100 - 8, (0x80 + 0x90) | 1);
    bench.write(b - 8, 0x1234_5678_9abc_def0);
    (bench, a, b)
}

#[test]
fn a_pointer_to_the_block_tells_a_damaged_header_from_an_old_one_in_front_of_it() {
    let (mut bench, a, b) = old_header();
    bench.write(POINTER, b);
    assert_eq!(only_header(&bench), (b, Some(0x91)));
    bench.write(POINTER, a + 0x100);
    assert_eq!(only_header(&bench), (a, Some(0x101)));
}

#[test]
fn a_size_that_lost_a_bit_leads_into_the_data_of_a_block_that_is_pointed_at() {
    for (size, wrong) in [(0x150u64, 0x51), (0x150, 0x111), (0x350, 0x51)] {
        let mut bench = Bench::new(V2_36, 1);
        bench.used(0x50);
        let a = bench.used(size);
        fence(&mut bench);
        let mut bench = bench.finish();
        bench.write(POINTER, a);
        bench.write(a + (wrong & !7) - 8, 0x1234_5678_9abc_def0);
        bench.write(a - 8, wrong);
        assert_eq!(only_header(&bench), (a, Some(size | 1)), "{wrong:#x}");
    }
}

#[test]
fn a_size_that_covers_several_chunks_is_one_anomaly() {
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = Bench::new(release, 1);
        bench.used(0x50);
        let a = bench.used(0x40);
        let c = bench.used(0x50);
        bench.cached(0, 0x60);
        let d = bench.used(0x30);
        bench.cached(0, 0x60);
        bench.used(0x70);
        bench.used(0x240);
        fence(&mut bench);
        let mut bench = bench.finish();
        let before = walked(&bench).statistics;
        // A bit that was set; and any other size, behind which the program points at blocks.
        for (wrong, pointers) in [(0x441, [0, 0]), (0x1f1, [c, d])] {
            bench.write(POINTER, pointers[0]);
            bench.write(POINTER + 8, pointers[1]);
            bench.write(a - 8, wrong);
            assert_eq!(only_header(&bench), (a, Some(0x41)), "{}", release.name);
            let after = walked(&bench).statistics;
            assert_eq!(after.in_use, before.in_use, "{}", release.name);
            assert_eq!(after.free, before.free);
        }
    }
}

#[test]
fn a_list_goes_on_behind_a_pointer_that_was_freed_by_mistake() {
    let mut bench = Bench::new(V2_36, 1);
    let outer = bench.used(0x90);
    bench.cached(0, 0x30);
    bench.cached(0, 0x30);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.write(outer + 8, 0x31);
    bench.cache_block(0, outer + 16, 0x30);
    let walked = walked(&bench);
    let [
        AnomalyKind::BadEntry {
            found,
            stray: Stray::Misaligned { .. },
            leads_on: true,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(found.get(), outer + 16);
    assert_eq!(walked.statistics.lost.blocks, 0);
    assert_eq!(walked.anomalies[0].lost_blocks, 0);
}

#[test]
fn an_old_cached_block_in_data_was_not_freed_again() {
    let mut bench = Bench::new(V2_36, 1);
    let outer = bench.used(0x90);
    let [_, _, last] = [0x30, 0x30, 0x30].map(|size| bench.cached(0, size));
    fence(&mut bench);
    let mut bench = bench.finish();
    // What once was a cached block of the size, its key included: the last of a shorter list.
    let old = outer + 16;
    bench.write(old - 8, 0x31);
    bench.write(old, old >> 12);
    let key = bench.word(last + 8);
    bench.write(old + 8, key);
    bench.write(last, old ^ (last >> 12));
    let walked = walked(&bench);
    let [
        AnomalyKind::BadEntry {
            edge,
            leads_on: false,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(edge.word().get(), last);
}

#[test]
fn zeros_over_the_link_and_half_of_the_key_are_one_anomaly() {
    let mut bench = Bench::new(V2_31, 1);
    bench.used(0x50);
    let blocks: Vec<u64> = (0..4).map(|_| bench.cached(0, 0x40)).collect();
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.process.memory.write(blocks[2], &[0; 12]);
    let walked = walked(&bench);
    let [AnomalyKind::BadEntry { edge, .. }] = definite(&walked)[..] else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(edge.word().get(), blocks[2]);
}

#[test]
fn a_pointer_to_a_block_in_a_fastbin_is_no_pointer_that_was_freed() {
    let mut bench = Bench::new(V2_31, 1);
    let used = bench.used(0xa0);
    let blocks: Vec<u64> = (0..3).map(|_| bench.fast(0x40)).collect();
    fence(&mut bench);
    let mut bench = bench.finish();
    // Read as a chunk, the block has a size of that bin, and null for a link.
    bench.write(used + 8, 0x41);
    bench.write(used + 16, 0);
    bench.write(blocks[2], used);
    let walked = walked(&bench);
    let [
        AnomalyKind::BadEntry {
            edge,
            leads_on: false,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!(edge.word().get(), blocks[2]);
}

#[test]
fn a_pointer_into_a_block_that_was_freed_into_an_empty_fastbin_is_one() {
    let mut bench = Bench::new(V2_31, 1);
    let used = bench.used(0xa0);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.write(used + 8, 0x41);
    bench.write(used + 16, 0);
    bench.write(ARENA + 16 + 8 * 2, used);
    let walked = walked(&bench);
    assert!(
        matches!(
            definite(&walked)[..],
            [AnomalyKind::BadEntry { leads_on: true, .. }]
        ),
        "{:?}",
        walked.anomalies
    );
}

#[test]
fn a_size_in_a_large_bin_costs_its_neighbours_nothing() {
    let mut bench = Bench::new(V2_36, 1);
    bench.used(0x30);
    let large = bench.binned(0x620);
    bench.used(0x30);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.process.memory.write(large - 8, &[0]);
    let walked = walked(&bench);
    assert!(
        matches!(definite(&walked)[..], [AnomalyKind::Header { .. }]),
        "{:?}",
        walked.anomalies
    );
}

#[test]
fn a_size_that_covers_a_binned_chunk_is_one_anomaly() {
    let mut bench = Bench::new(V2_36, 1);
    bench.used(0x50);
    let a = bench.used(0x40);
    bench.used(0x60);
    bench.binned(0x100);
    bench.used(0x40);
    bench.used(0x260);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.write(a - 8, 0x441);
    assert_eq!(only_header(&bench), (a, Some(0x41)));
}

#[test]
fn no_chunk_of_a_bin_has_the_mark_of_another_arena() {
    // A chunk of the main arena with that mark is no chunk at all: the walk says it.
    let mut bench = Bench::new(V2_36, 1);
    bench.used(0x50);
    let free = bench.binned(0x100);
    fence(&mut bench);
    let mut bench = bench.finish();
    bench.write(free - 8, 0x105);
    assert_eq!(only_header(&bench), (free, Some(0x101)));
}

#[test]
fn the_size_of_a_cached_block_that_covers_blocks_in_use_is_said() {
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = Bench::new(release, 1);
        bench.used(0x50);
        let cached = bench.cached(0, 0x60);
        bench.used(0x50);
        bench.used(0x30);
        bench.cached(0, 0x40);
        bench.cached(0, 0x40);
        fence(&mut bench);
        let mut bench = bench.finish();
        let before = walked(&bench).statistics;
        bench.write(cached - 8, 0xe1);
        assert_eq!(
            only_header(&bench),
            (cached, Some(0x61)),
            "{}",
            release.name
        );
        let after = walked(&bench).statistics;
        assert_eq!(after.in_use, before.in_use);
        assert_eq!(after.free, before.free);
    }
}

/// A size that ends in zeros may have lost its lowest byte to a NUL, but not if it leads over a chunk that a bin holds.
#[test]
fn a_made_up_size_with_a_zero_byte_covers_no_listed_chunk() {
    let mut bench = Bench::new(V2_36, 1);
    bench.used(0x30);
    let block = bench.used(0x440);
    bench.binned(0x520);
    bench.used(0x30);
    bench.used(0x580);
    let next = bench.used(0x30);
    for _ in 0..16 {
        bench.used(0x30);
    }
    let mut bench = bench.finish();
    bench.write(POINTER, next);
    // As if 0xf00 had been 0xf01 to 0xff1, of which 0x440 + 0x520 + 0x30 + 0x580 is one.
    bench.write(block - 8, 0xf00);
    let walked = walked(&bench);
    let [AnomalyKind::Header { block: found, .. }] = definite(&walked)[..] else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!((found.address.get(), found.bytes), (block, 0x438));
}

/// A size that is right leads to a header that was filled from in front: no data of its block, whose pointer the program has kept.
#[test]
fn a_fill_that_begins_with_a_header_is_no_data_of_the_block_before() {
    let mut bench = Bench::new(V2_36, 1);
    let block = bench.used(0x1010);
    let filled = bench.used(0x70);
    for _ in 0..16 {
        bench.used(0x30);
    }
    let mut bench = bench.finish();
    bench.write(POINTER, block);
    bench.process.memory.write(block + 0x1000 - 8, &[0; 8]);
    bench.process.memory.write(filled - 8, &[b'C'; 0x63]);
    let walked = walked(&bench);
    let [
        AnomalyKind::Header {
            block: found,
            expected,
            ..
        },
    ] = definite(&walked)[..]
    else {
        panic!("{:?}", walked.anomalies);
    };
    assert_eq!((found.address.get(), *expected), (filled, Some(0x71)));
}
