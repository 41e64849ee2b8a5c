//! Memory that nobody meant to be read: no panic, an end, bounded memory, the same answer always.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use ground::target::Target;
use heaps::allocators::ptmalloc::Ptmalloc;
use heaps::allocators::{Allocator, Detection};
use heaps::walk::walk;

use crate::bench::{ARENA, Bench, DATA, HEAP, V2_31, V2_36, V2_43};
use crate::healthy::furnished;

/// Walks whatever is found; says all of it.
fn survive(target: Target<'_>) -> String {
    let mut told = String::new();
    let Detection::Found { heaps, .. } = Ptmalloc.detect(target) else {
        return "absent".into();
    };
    for heap in heaps {
        let walked = walk(heap.as_ref(), target.memory);
        write!(
            told,
            "{:?} {:?} {:?} {:?}",
            walked.anomalies, walked.statistics, walked.details, walked.limits
        )
        .unwrap();
    }
    told
}

#[track_caller]
fn ends(bench: &Bench) {
    let before = Instant::now();
    let told = survive(bench.process.target());
    assert_eq!(told, survive(bench.process.target()));
    let took = before.elapsed();
    assert!(took < Duration::from_secs(20), "took {took:?}");
}

fn some_word(random: &mut fastrand::Rng) -> u64 {
    match random.u8(0..8) {
        0 => 0,
        1 => u64::MAX,
        2 => random.u64(..),
        3 => 0x6161_6161_6161_6161,
        4 => HEAP + random.u64(0..0x2000) * 16,
        5 => ARENA + random.u64(0..0x100) * 8,
        6 => random.u64(0..0x40) * 16 + 1,
        _ => random.u64(0..0x10000),
    }
}

#[test]
fn random_damage_ends() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..400 {
        let mut bench = furnished([V2_31, V2_36, V2_43][round % 3]);
        for _ in 0..random.usize(1..20) {
            let at = match random.u8(0..4) {
                0 => DATA + random.u64(0..0x600) * 8,
                1 => ARENA + random.u64(0..0x120) * 8,
                _ => HEAP + random.u64(0..0x300) * 8,
            };
            let word = some_word(&mut random);
            bench.write(at, word);
        }
        ends(&bench);
    }
}

#[test]
fn random_bits_flip() {
    let mut random = fastrand::Rng::with_seed(8);
    for round in 0..200 {
        let mut bench = furnished([V2_31, V2_36, V2_43][round % 3]);
        for _ in 0..random.usize(1..40) {
            let at = HEAP + random.u64(0..0x300) * 8;
            let word = bench.word(at) ^ 1 << random.u32(0..64);
            bench.write(at, word);
        }
        ends(&bench);
    }
}

#[test]
fn an_absurd_size_of_the_heap_costs_nothing() {
    for word in [u64::MAX, 1 << 60, 1 << 47, 0] {
        let mut bench = furnished(V2_36);
        bench.write(ARENA + 2184, word); // system_mem
        let top = bench.word(ARENA + 96);
        bench.write(top + 8, word | 1);
        ends(&bench);
    }
}
