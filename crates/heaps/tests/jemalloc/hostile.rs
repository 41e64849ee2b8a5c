//! Damage at random: every walk ends, in bounded time, whatever stands in memory.

use std::time::{Duration, Instant};

use ground::target::Address;
use heaps::allocators::jemalloc::Jemalloc;
use heaps::allocators::{Allocator, Detection};
use heaps::walk::walk;

use crate::scene::Scene;

/// Walks whatever is found; says what it told, for comparing.
fn told(scene: &Scene) -> String {
    let target = scene.process.target();
    match Jemalloc.detect(target) {
        Detection::Found { heaps, .. } => heaps
            .iter()
            .map(|heap| {
                let walked = walk(heap.as_ref(), target.memory);
                for extent in walked.map.extents() {
                    heap.recorded_stack(extent.start);
                }
                format!("{:?} {:?}", walked.anomalies, walked.statistics)
            })
            .collect(),
        Detection::Absent { .. } => "absent".into(),
        Detection::Unusable(limit) => format!("{limit:?}"),
    }
}

#[test]
fn random_damage_is_survived() {
    let healthy = Scene::healthy();
    let expected = told(&healthy);
    // Words worth damaging: all that are not zero.
    let mut scene = healthy.clone();
    let mut words = Vec::new();
    for (start, bytes) in scene.process.memory.runs() {
        for at in (start..start + bytes).step_by(8) {
            let value = scene.process.memory.word(at);
            if value != 0 {
                words.push((at, value));
            }
        }
    }
    let mut random = fastrand::Rng::with_seed(5);
    let mut noticed = 0;
    for round in 0..400 {
        let mut undo = Vec::new();
        for _ in 0..random.usize(1..8) {
            let (at, old) = words[random.usize(..words.len())];
            let (other, value) = words[random.usize(..words.len())];
            let new = match random.u8(0..8) {
                0 => old ^ 1 << random.u32(0..64),
                1 => random.u64(..),
                2 => [0, u64::MAX, 1 << 31, 1 << 63, 4096][random.usize(..5)],
                3 => other,
                4 => value,
                5 => at,
                6 => old.wrapping_add(random.u64(0..256)),
                _ => old.wrapping_mul(256),
            };
            undo.push((at, scene.process.memory.word(at)));
            scene.process.memory.write_u64(at, new);
        }
        let before = Instant::now();
        let found = told(&scene);
        assert!(
            before.elapsed() < Duration::from_secs(20),
            "round {round} took {:?}",
            before.elapsed()
        );
        assert_eq!(found, told(&scene), "round {round} is not the same twice");
        noticed += u32::from(found != expected);
        for (at, old) in undo.into_iter().rev() {
            scene.process.memory.write_u64(at, old);
        }
    }
    assert_eq!(told(&scene), expected);
    assert!(noticed > 200, "only {noticed} of 400 damages were noticed");
    assert!(
        scene.process.target().modules[0]
            .range
            .contains(&Address::new(crate::CODE))
    );
}
