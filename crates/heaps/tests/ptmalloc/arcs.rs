//! Bins that reach over many mebibytes: they are followed from several places at once.

use heaps::anomaly::{AnomalyKind, BrokenWord, HolderKind};

use crate::bench::{Bench, V2_36, V2_43};
use crate::{definite, walked};

/// Bytes between two free chunks.
const DISTANCE: u64 = 0x5_0030;
/// Free chunks of the bin.
const CHUNKS: usize = 64;
/// Their size.
const SIZE: u64 = 0x90;

/// A bin of chunks that lie far apart, linked in an order that jumps about; its blocks in that order.
fn wide(release: crate::bench::Release) -> (Bench, Vec<u64>) {
    let heap_bytes = (CHUNKS as u64 * (DISTANCE + SIZE)).next_multiple_of(4096) + 0x10000;
    let mut bench = Bench::with_heap(release, 1, heap_bytes);
    let mut blocks = Vec::new();
    for _ in 0..CHUNKS {
        bench.used(DISTANCE);
        blocks.push(bench.binned(SIZE));
    }
    bench.used(0x30);
    let mut bench = bench.finish();
    // 27 and 64 have no divisor in common: every chunk comes once.
    let order: Vec<u64> = (0..CHUNKS)
        .map(|index| blocks[index * 27 % CHUNKS])
        .collect();
    let bin = bench.bin(SIZE >> 4);
    let mut before = bin;
    for block in &order {
        bench.write(before + 16, block - 16);
        bench.write(block + 8, before);
        before = block - 16;
    }
    bench.write(before + 16, bin);
    bench.write(bin + 24, before);
    (bench, order)
}

#[test]
fn a_wide_bin_is_whole() {
    for release in [V2_36, V2_43] {
        let (bench, _) = wide(release);
        let walked = walked(&bench);
        assert!(walked.anomalies.is_empty(), "{:?}", walked.anomalies);
        assert_eq!(walked.statistics.free.blocks, CHUNKS as u64);
    }
}

#[test]
fn a_link_anywhere_in_a_wide_bin_is_the_only_anomaly() {
    for place in [0, 1, 20, CHUNKS - 2, CHUNKS - 1] {
        let (mut bench, order) = wide(V2_36);
        bench.process.memory.write(order[place], b"overlong");
        let walked = walked(&bench);
        let [AnomalyKind::BadEntry { edge, repair, .. }] = definite(&walked)[..] else {
            panic!("{place}: {:?}", walked.anomalies);
        };
        let behind = match order.get(place + 1) {
            Some(block) => block - 16,
            None => bench.bin(SIZE >> 4),
        };
        assert_eq!(edge.word().get(), order[place]);
        assert_eq!(repair.map(|repair| repair.value.get()), Some(behind));
        assert_eq!(walked.statistics.free.blocks, CHUNKS as u64);
    }
}

#[test]
fn a_link_back_in_a_wide_bin_is_the_only_anomaly() {
    for place in [1, 20, CHUNKS - 1] {
        let (mut bench, order) = wide(V2_36);
        let back = bench.word(order[place] + 8);
        bench.write(order[place] + 8, back ^ 0x40);
        let walked = walked(&bench);
        let [AnomalyKind::FreeWord { at, .. }] = definite(&walked)[..] else {
            panic!("{place}: {:?}", walked.anomalies);
        };
        assert_eq!(at.get(), order[place] + 8);
    }
}

#[test]
fn a_circle_beside_the_bin_is_not_taken_for_a_part_of_it() {
    let (mut bench, order) = wide(V2_36);
    // The bin goes from 9 to 30; what was between them is a circle of its own.
    let link = |bench: &mut Bench, from: u64, to: u64| {
        bench.write(from, to - 16);
        bench.write(to + 8, from - 16);
    };
    link(&mut bench, order[9], order[30]);
    link(&mut bench, order[29], order[10]);
    let walked = walked(&bench);
    let anomalies = definite(&walked);
    assert_eq!(anomalies.len(), 20, "{anomalies:?}");
    let expected = &order[10..30];
    for anomaly in anomalies {
        let AnomalyKind::Metadata {
            word: BrokenWord { of, .. },
            ..
        } = anomaly
        else {
            panic!("{anomaly:?}");
        };
        assert!(expected.contains(&of.get()));
    }
}

#[test]
fn a_chunk_that_two_links_enter_is_shared() {
    for place in [8, 40] {
        let (mut bench, order) = wide(V2_36);
        // A chunk of another bin leads into this one.
        bench.write(order[place], order[place / 2] - 16);
        let walked = walked(&bench);
        let shared = definite(&walked).into_iter().any(|anomaly| match anomaly {
            AnomalyKind::Shared { block, edges, .. } => {
                block.address.get() == order[place / 2]
                    && edges.iter().all(|edge| edge.list.holder == HolderKind::Bin)
            }
            AnomalyKind::BadEntry { edge, .. } => edge.word().get() == order[place],
            _ => false,
        });
        assert!(shared, "{place}: {:?}", walked.anomalies);
    }
}
