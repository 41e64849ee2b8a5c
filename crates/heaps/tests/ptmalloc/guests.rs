//! Caches where thread-local memory lies above the thread pointer, and where no thread pointer is in the core.

use ground::arch::AARCH64;
use heaps::allocators::Detail;

use crate::bench::{Bench, TLS, TLS_DISTANCE, V2_31, V2_36, V2_43};
use crate::{healthy, walked};

/// A heap of aarch64: the words that name the caches are on the other side.
fn of_aarch64(mut bench: Bench) -> Bench {
    for (thread, cache) in (0..).zip(bench.caches.clone()) {
        let pointer = TLS + 0x10_0000 * thread;
        for offset in [0, 16] {
            bench.write(pointer + offset, 0);
        }
        bench.write(pointer - TLS_DISTANCE, 0);
        bench.write(pointer + TLS_DISTANCE, cache);
    }
    bench.process.threads.set_arch(&AARCH64);
    bench
}

fn cached(bench: &Bench) -> u64 {
    let walked = walked(bench);
    assert_eq!(walked.anomalies, []);
    assert_eq!(walked.limits, []);
    assert_eq!(walked.statistics.in_use.blocks, bench.used);
    let mut details = walked.details.into_iter();
    match details.find(|(name, _)| *name == "in_tcaches") {
        Some((_, Detail::Number(count))) => count,
        other => panic!("{other:?}"),
    }
}

#[test]
fn caches_are_found_above_the_thread_pointer() {
    for release in [V2_31, V2_36, V2_43] {
        assert_eq!(cached(&of_aarch64(healthy::furnished(release))), 10);
    }
}

#[test]
fn caches_are_found_without_any_thread_pointer() {
    for release in [V2_31, V2_36, V2_43] {
        let mut bench = of_aarch64(healthy::furnished(release));
        for thread in 0..2 {
            bench.process.threads.thread_mut(thread).thread_pointer = None;
        }
        assert_eq!(cached(&bench), 10, "{}", release.name);
    }
}
