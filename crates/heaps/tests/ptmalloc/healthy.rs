//! Heaps at rest: every count right to the block, and silence.

use ground::target::{Address, LocatedBy};
use heaps::allocators::ptmalloc::Ptmalloc;
use heaps::allocators::{Allocator, Detail, Detection};
use heaps::map::BlockState;
use synth::Absence;

use crate::bench::{ARENA, Bench, HEAP, MP, Release, V2_31, V2_36, V2_43};
use crate::walked;

/// A heap with something in every kind of list.
pub fn furnished(release: Release) -> Bench {
    let mut bench = Bench::new(release, 2);
    for round in 0..5 {
        bench.used(0x30);
        bench.cached(0, 0x30);
        bench.cached(1, 0x90);
        bench.used(0x110);
        bench.binned(0x120);
        bench.used(0x20);
        if release.fastbins.is_some() {
            bench.fast(0x40);
        }
        bench.used(0x20 + 0x10 * round);
    }
    bench.binned(0x450);
    bench.used(0x500);
    bench.finish()
}

#[test]
fn counts_are_right_to_the_block() {
    for release in [V2_31, V2_36, V2_43] {
        let bench = furnished(release);
        let walked = walked(&bench);
        assert_eq!(walked.anomalies, [], "{}", release.name);
        assert_eq!(walked.limits, [], "{}", release.name);
        let statistics = &walked.statistics;
        // The caches' own chunks are not the program's.
        assert_eq!(statistics.in_use.blocks, bench.used, "{}", release.name);
        let fast = if release.fastbins.is_some() { 5 } else { 0 };
        assert_eq!(statistics.free.blocks, 5 + 5 + 6 + fast);
        assert_eq!(statistics.lost.blocks, 0);
        let detail = |wanted: &str| {
            let found = walked.details.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, detail)| detail.clone())
        };
        assert_eq!(detail("layout"), Some(Detail::Text(release.name.into())));
        assert_eq!(detail("in_tcaches"), Some(Detail::Number(10)));
        assert_eq!(detail("in_fastbins"), Some(Detail::Number(fast)));
        assert_eq!(detail("in_bins"), Some(Detail::Number(6)));
        let mangled = if release.mangled { "yes" } else { "no" };
        assert_eq!(detail("safe_linking"), Some(Detail::Text(mangled.into())));
    }
}

#[test]
fn every_block_has_its_state() {
    let mut bench = Bench::new(V2_36, 1);
    let used = bench.used(0x30);
    let cached = bench.cached(0, 0x30);
    let binned = bench.binned(0x120);
    let last = bench.used(0x30);
    let walked = walked(&bench.finish());
    let state = |block: u64| {
        let (block, offset) = walked.map.block_at(Address::new(block)).unwrap();
        assert_eq!(offset, 0);
        walked.map.state(block.id)
    };
    assert_eq!(state(used), BlockState::InUse);
    assert_eq!(state(cached), BlockState::Free);
    assert_eq!(state(binned), BlockState::Free);
    assert_eq!(state(last), BlockState::InUse);
    let (block, _) = walked.map.block_at(Address::new(binned)).unwrap();
    assert_eq!(block.bytes, 0x118);
}

#[test]
fn state_is_found_by_its_shape_alone() {
    let bench = furnished(V2_36);
    let target = bench.process.target();
    let Detection::Found { heaps, .. } = Ptmalloc.detect(target) else {
        panic!("not found");
    };
    let identity = heaps[0].identity();
    assert_eq!(identity.located_by(), LocatedBy::Structure);
    let at = |part: &str| {
        let found = identity.located.iter().find(|located| located.part == part);
        found.unwrap().at.get()
    };
    assert_eq!((at("main_arena"), at("mp_")), (ARENA, MP));
}

#[test]
fn a_malloc_that_nobody_called_is_no_damage() {
    for release in [V2_31, V2_36] {
        let mut bench = furnished(release);
        let bytes = release.bins + 254 * 8 + 16 + 48;
        bench.process.memory.place(ARENA, bytes as usize).fill(0);
        let next = ARENA + release.bins + 254 * 8 + 16;
        bench.write(next, ARENA);
        bench.write(next + 16, 1);
        let walked = walked(&bench);
        assert_eq!(walked.anomalies, []);
        assert_eq!(walked.statistics.in_use.blocks, 0);
        let used = walked.details.iter().find(|(name, _)| *name == "used");
        assert_eq!(used.unwrap().1, Detail::Text("never".into()));
    }
}

#[test]
fn memory_that_is_not_in_the_core_is_a_limit() {
    let mut bench = furnished(V2_36);
    let hidden = HEAP + 0x1000..HEAP + 0x21000;
    bench.process.memory.hide(hidden, Absence::Truncated);
    let walked = walked(&bench);
    assert_eq!(walked.anomalies, []);
    assert!(
        walked.limits.iter().any(|limit| limit.incomplete),
        "{:?}",
        walked.limits
    );
}
