//! Fastbins that are so long that they are followed from many places.

use heaps::allocators::Detail;
use heaps::anomaly::AnomalyKind;
use heaps::walk::Walked;

use crate::bench::{Bench, V2_31, V2_36};
use crate::walked;

/// Chunks of the fastbin: more than it takes for a list to be cut.
const FAST: u64 = 70_000;
const SIZE: u64 = 0x20;

/// A heap with one long fastbin in random order, and its blocks; every seventh block is in use and holds what `old` makes of the
/// address of a block of the fastbin before it.
fn long(release: crate::bench::Release, old: impl Fn(u64, u64) -> u64) -> (Bench, Vec<u64>) {
    let chunks = FAST + FAST / 7 + 1000;
    let mut bench = Bench::with_heap(
        release,
        1,
        (chunks * SIZE).next_multiple_of(0x1000) + 0x2000,
    );
    let mut blocks = Vec::new();
    for count in 0..FAST {
        blocks.push(bench.fast(SIZE));
        if count % 7 == 0 {
            let used = bench.used(SIZE);
            let word = old(used, blocks[blocks.len() / 2]);
            bench.write(used, word);
        }
    }
    bench.shuffle_fast(7);
    (bench.finish(), blocks)
}

fn in_fastbins(walked: &Walked) -> Option<Detail> {
    let found = walked
        .details
        .iter()
        .find(|(name, _)| *name == "in_fastbins");
    found.map(|(_, detail)| detail.clone())
}

#[test]
fn all_of_it_is_counted_once() {
    for release in [V2_31, V2_36] {
        let (bench, _) = long(release, |_, _| 0);
        let walked = walked(&bench);
        assert_eq!(walked.anomalies, [], "{}", release.name);
        assert_eq!(in_fastbins(&walked), Some(Detail::Number(FAST)));
        assert_eq!(walked.statistics.in_use.blocks, bench.used);
    }
}

#[test]
fn old_links_in_blocks_in_use_lead_nowhere() {
    for release in [V2_31, V2_36] {
        let (bench, _) = long(release, |used, block| match release.mangled {
            true => (block - 16) ^ (used >> 12),
            false => block - 16,
        });
        let walked = walked(&bench);
        assert_eq!(walked.anomalies, [], "{}", release.name);
        assert_eq!(in_fastbins(&walked), Some(Detail::Number(FAST)));
        assert_eq!(walked.statistics.in_use.blocks, bench.used);
    }
}

#[test]
fn a_broken_link_is_found_in_the_middle() {
    let (mut bench, blocks) = long(V2_36, |_, _| 0);
    let broken = blocks[blocks.len() / 2];
    bench.write(broken, 0x4141_4141_4141_4141);
    let walked = walked(&bench);
    let [anomaly] = &walked.anomalies[..] else {
        panic!("{:?}", walked.anomalies);
    };
    let AnomalyKind::BadEntry { edge, .. } = &anomaly.kind else {
        panic!("{anomaly:?}");
    };
    assert_eq!(edge.from.map(ground::target::Address::get), Some(broken));
}

#[test]
fn a_circle_ends() {
    let (mut bench, blocks) = long(V2_36, |_, _| 0);
    // The last block of the list leads back into it.
    let last = blocks
        .iter()
        .copied()
        .find(|block| bench.word(*block) ^ (block >> 12) == 0);
    let last = last.unwrap();
    let back = blocks[blocks.len() / 3];
    bench.write(last, (back - 16) ^ (last >> 12));
    let walked = walked(&bench);
    assert!(
        walked
            .anomalies
            .iter()
            .any(|anomaly| matches!(anomaly.kind, AnomalyKind::Shared { cycle: Some(_), .. })),
        "{:?}",
        walked.anomalies
    );
}
