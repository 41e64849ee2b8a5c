//! Dominators against brute force.

use std::collections::BTreeSet;

use heaps::graph::dominators::{self, Edges, NONE};

#[test]
fn dominators_equal_brute_force() {
    let mut random = fastrand::Rng::with_seed(17);
    for _ in 0..300 {
        let count = random.u32(1..24);
        let edges: Vec<(u32, u32)> = (0..random.usize(0..60))
            .map(|_| (random.u32(0..count), random.u32(0..count)))
            .collect();
        let found = dominators::find(&Edges::new(count, &edges), 0);
        let reach = |without: u32| {
            let mut seen = BTreeSet::new();
            let mut open = vec![0];
            while let Some(node) = open.pop() {
                if node != without && seen.insert(node) {
                    open.extend(
                        edges
                            .iter()
                            .filter(|edge| edge.0 == node)
                            .map(|edge| edge.1),
                    );
                }
            }
            seen
        };
        let all = reach(NONE);
        assert_eq!(found.order.iter().copied().collect::<BTreeSet<_>>(), all);
        for node in 0..count {
            let mut chain = BTreeSet::new();
            let mut above = found.nearest[node as usize];
            while above != NONE && chain.insert(above) {
                above = found.nearest[above as usize];
            }
            let naive: BTreeSet<u32> = (0..count)
                .filter(|other| {
                    *other != node && all.contains(&node) && !reach(*other).contains(&node)
                })
                .filter(|other| all.contains(other))
                .collect();
            assert_eq!(chain, naive, "{edges:?} node {node}");
        }
    }
}

/// The shape on which iterating takes a round for each node.
#[test]
fn no_shape_is_slow() {
    let count = 400_000u32;
    let mut edges: Vec<(u32, u32)> = (1..count).map(|node| (node - 1, node)).collect();
    edges.extend((1..count).map(|node| (node, node - 1)));
    edges.extend((0..count).step_by(3).map(|node| (0, node)));
    let begun = std::time::Instant::now();
    let found = dominators::find(&Edges::new(count, &edges), 0);
    assert_eq!(found.order.len() as u32, count);
    assert!(begun.elapsed().as_secs() < 20);
}
