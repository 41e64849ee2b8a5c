//! The graph against brute force: random heaps of all shapes, random words, small enough to look at every pair.

mod dominators;
mod holders;
mod processes;

use std::collections::{BTreeMap, BTreeSet};

use heaps::graph::Universe;
use heaps::graph::lookup::{Lookup, Node, Ranks};
use heaps::graph::mark::{self, Bounds, Reach};
use heaps::graph::paths;
use heaps::graph::references::{self, Place, Target};
use heaps::graph::roots::{Ranges, Root, RootKind, Strength};
use heaps::graph::subgraph::{self, Role};
use heaps::graph::trees;
use heaps::map::{Extent, MapBuilder, Owner, Shape};

use processes::{Memory, PAGE, START, at, heap, naive_reach, node_of, process, universe};

#[test]
fn every_address_leads_to_the_block_that_holds_it() {
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..30 {
        let pages = random.u64(1..40);
        let (map, blocks) = heap(&mut random, START, pages);
        let other = START + (1 << 33) + random.u64(0..1 << 20) * PAGE;
        let (second, more) = heap(&mut random, other, 20);
        let lookup = Lookup::new(
            &[&map, &second],
            &[at(other + (1 << 27))..at(other + (1 << 27) + PAGE)],
        );
        let ends = |base: u64, pages: u64| (base..base + pages * PAGE).step_by(4);
        for value in ends(START, pages)
            .chain(ends(other, 20))
            .chain([0, 8, u64::MAX, START - 8])
        {
            let naive = blocks
                .iter()
                .chain(&more)
                .find(|block| (block.start..block.start + block.bytes).contains(&value));
            let found = lookup.find(value);
            assert_eq!(
                found
                    .and_then(|hit| lookup.extent(hit.node))
                    .map(|(at, bytes)| (at.get(), bytes)),
                naive.map(|block| (block.start, block.bytes)),
                "{value:#x}"
            );
            if let (Some(hit), Some(block)) = (found, naive) {
                assert_eq!(hit.offset, value - block.start);
                assert_eq!(lookup.is_live(hit.node), block.live);
                let node = lookup.node(lookup.bit(hit.node)).unwrap();
                assert_eq!(node, hit.node);
            }
        }
        let mapping = lookup.find(other + (1 << 27) + 5).unwrap();
        assert_eq!((lookup.mapping(mapping.node), mapping.offset), (Some(0), 5));
    }
}

#[test]
fn what_is_reached_and_what_hangs_on_whom_equal_brute_force() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..45 {
        let process = process(&mut random);
        let universe = universe(&process);
        let stack = [1, 3, usize::MAX][round % 3]; // 1: it always overflows
        // From the core, from a stored graph, and from the core because there is too little room for one.
        let stored = [0, u64::MAX, 64][round / 3 % 3];
        let marks = mark::mark_within(&universe, Bounds { stored, stack });
        let reached = naive_reach(&process, process.from_roots.iter().copied(), None);
        let mut lost = Vec::new();
        for (index, block) in process
            .blocks
            .iter()
            .enumerate()
            .filter(|(_, block)| block.live)
        {
            let found = marks.reach(universe.lookup.bit(node_of(&universe, block)));
            let expected = if reached.contains(&index) {
                Reach::Strong
            } else {
                Reach::Lost
            };
            assert_eq!(found, expected, "round {round}: {block:x?}");
            if expected == Reach::Lost {
                lost.push(index);
            }
        }
        let survey = subgraph::survey(&universe, &marks);
        assert_eq!(survey.lost_tally.blocks, lost.len() as u64);
        let places: Vec<u64> = survey.lost.iter().map(|found| found.at.get()).collect();
        assert!(places.is_sorted());
        let roles = subgraph::roles(&universe, &survey.lost).unwrap();
        let by_place: BTreeMap<u64, usize> = lost
            .iter()
            .map(|index| (process.blocks[*index].start, *index))
            .collect();
        let heads: Vec<usize> = survey
            .lost
            .iter()
            .zip(&roles)
            .filter(|(_, role)| matches!(role, Role::Head { .. }))
            .map(|(found, _)| by_place[&found.at.get()])
            .collect();
        // Heads lead to everything that is lost, and none can be left out.
        let all = naive_reach(&process, heads.iter().copied(), None);
        assert!(
            lost.iter().all(|index| all.contains(index)),
            "round {round}"
        );
        let mut sum = 0;
        for (found, role) in survey.lost.iter().zip(&roles) {
            let index = by_place[&found.at.get()];
            match role {
                Role::Head { held } => {
                    let others = heads.iter().copied().filter(|head| *head != index);
                    let without = naive_reach(&process, others, Some(index));
                    let own: Vec<usize> = lost
                        .iter()
                        .copied()
                        .filter(|other| {
                            *other != index && !without.contains(other) && !heads.contains(other)
                        })
                        .collect();
                    let bytes: u64 = own.iter().map(|other| process.blocks[*other].bytes).sum();
                    assert_eq!(
                        (held.blocks, held.bytes),
                        (own.len() as u64, bytes),
                        "round {round}"
                    );
                    assert!(!without.contains(&index), "a head is led to by no other");
                    sum += held.bytes + found.bytes;
                }
                Role::Shared => sum += found.bytes,
                Role::Held(_) => {}
            }
        }
        assert_eq!(
            sum, survey.lost_tally.bytes,
            "groups add up to what is lost"
        );
    }
}

#[test]
fn all_references_are_found_whatever_the_number_of_threads() {
    let mut random = fastrand::Rng::with_seed(13);
    for _ in 0..40 {
        let process = process(&mut random);
        let universe = universe(&process);
        let targets: Vec<Target> = process
            .blocks
            .iter()
            .filter(|block| block.live)
            .filter_map(|block| Target::of(&universe, node_of(&universe, block)))
            .collect();
        let found = references::find(&universe, &targets, usize::MAX);
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap();
        let alone = one.install(|| references::find(&universe, &targets, usize::MAX));
        for ((target, holders), other) in targets.iter().zip(&found).zip(&alone) {
            assert_eq!(holders.list, other.list);
            let range = target.start.get()..target.start.get() + target.bytes;
            let mut naive = 0;
            let mut silent = 0;
            let (words, _) = process.memory.bytes.as_chunks::<8>();
            for (index, word) in words.iter().enumerate() {
                let place = START + index as u64 * 8;
                if !range.contains(&u64::from_le_bytes(*word)) {
                    continue;
                }
                match universe.place(at(place)) {
                    Place::Free(..) | Place::Silent => silent += 1,
                    _ => naive += 1,
                }
            }
            assert_eq!(
                (holders.count, holders.silent_count),
                (naive, silent),
                "{target:x?}"
            );
            assert_eq!(holders.list.len() as u64, naive);
        }
        let few = references::find(&universe, &targets, 2);
        for (few, all) in few.iter().zip(&found) {
            assert_eq!(few.count, all.count);
            assert_eq!(few.list, all.list[..all.list.len().min(2)]);
        }
    }
}

#[test]
fn what_is_reached_has_a_way_from_a_root_alone_and_among_others() {
    let mut random = fastrand::Rng::with_seed(17);
    let (mut with, mut without) = (0, 0);
    for _ in 0..20 {
        let process = process(&mut random);
        let universe = universe(&process);
        let reached = naive_reach(&process, process.from_roots.iter().copied(), None);
        let live: Vec<usize> = (0..process.blocks.len())
            .filter(|index| process.blocks[*index].live)
            .collect();
        let targets: Vec<Target> = live
            .iter()
            .filter_map(|index| Target::of(&universe, node_of(&universe, &process.blocks[*index])))
            .collect();
        let held = references::find(&universe, &targets, usize::MAX);
        let ways = paths::find(&universe, &targets, &held);
        for (at, (index, way)) in live.iter().zip(&ways).enumerate() {
            assert_eq!(!way.steps.is_empty(), reached.contains(index), "{way:?}");
            let (target, held) = (&targets[at..=at], &held[at..=at]);
            assert_eq!(paths::find(&universe, target, held)[0], *way);
            // Without knowing who holds it, the same.
            assert_eq!(paths::find(&universe, target, &[])[0], *way);
            match way.steps.first() {
                Some(first) => {
                    assert!(matches!(first.place, Place::Root(_) | Place::Register(_)));
                    let inner = &way.steps[1..];
                    assert!(
                        inner
                            .iter()
                            .all(|step| matches!(step.place, Place::Node(..)))
                    );
                    with += 1;
                }
                None => without += 1,
            }
        }
    }
    assert!(with > 50 && without > 50, "{with} {without}");
}

#[test]
fn trees_equal_brute_force() {
    const FAR: trees::Extent = trees::Extent {
        depth: 1000,
        width: 64,
    };
    let mut random = fastrand::Rng::with_seed(23);
    let mut looked = 0;
    for _ in 0..40 {
        let process = process(&mut random);
        let universe = universe(&process);
        let blocks = process.blocks.iter().enumerate();
        for (index, block) in blocks.filter(|(_, block)| block.live).take(12) {
            let node = node_of(&universe, block);
            // Down: what is reached, each block once; the rows of a block add up.
            let mut reached = naive_reach(&process, [index], None);
            reached.remove(&index);
            let bytes: u64 = reached.iter().map(|to| process.blocks[*to].bytes).sum();
            let down = trees::downward(&universe, node, FAR);
            assert_eq!(down.reached, (reached.len() as u64, bytes));
            let mut once = BTreeSet::from([node]);
            for row in down.rows.iter().filter(|row| !row.repeated) {
                assert!(once.insert(row.node.unwrap()), "{row:?}");
            }
            let is_whole =
                |tree: &trees::Tree| tree.more == 0 && tree.rows.iter().all(|row| row.more == 0);
            if is_whole(&down) {
                assert_eq!(once.len(), reached.len() + 1);
                let first = down.rows.iter().filter(|row| row.depth == 1);
                let sum: u64 = first.map(|row| row.reached.0).sum();
                assert_eq!(sum, down.reached.0);
            }
            // Up: all blocks in use that lead there, each once.
            let up = trees::upward(&universe, Target::of(&universe, node).unwrap(), FAR);
            if is_whole(&up) {
                looked += 1;
                let leads = |from: &usize| {
                    let block = &process.blocks[*from];
                    *from != index
                        && block.live
                        && naive_reach(&process, [*from], None).contains(&index)
                };
                let expected: BTreeSet<Node> = (0..process.blocks.len())
                    .filter(leads)
                    .map(|from| node_of(&universe, &process.blocks[from]))
                    .collect();
                let rows = up.rows.iter().filter(|row| !row.repeated);
                let found: Vec<Node> = rows
                    .filter_map(|row| match row.reference.place {
                        Place::Node(node, _) => Some(node),
                        _ => None,
                    })
                    .collect();
                assert_eq!(found.iter().copied().collect::<BTreeSet<_>>(), expected);
                assert_eq!(found.len(), expected.len());
            }
        }
    }
    assert!(looked > 50, "{looked}");
}

/// A list of a hundred thousand blocks: nothing recurses, and what is not shown is counted.
#[test]
fn a_long_list_hangs_on_its_head() {
    const COUNT: u64 = 100_000;
    let pages = COUNT * 64 / PAGE + 1;
    let mut memory = Memory::new(START, pages);
    let mut builder = MapBuilder::new(12);
    let shape = Shape::Slab {
        stride: 64,
        count: COUNT as u32,
    };
    builder.add(Extent::new(at(START), pages * PAGE, shape, Owner::InUse, 1));
    let (map, ..) = builder.finish();
    for block in 0..COUNT - 1 {
        memory.put(START + block * 64 + 8, START + (block + 1) * 64);
    }
    memory.put(START + (COUNT - 1) * 64 + 8, START); // and back to the head
    let universe = Universe::new(
        &memory,
        Lookup::new(&[&map], &[]),
        Vec::new(),
        Vec::new(),
        Ranges::default(),
    );
    let extent = trees::Extent { depth: 5, width: 8 };
    let down = trees::downward(&universe, Node { row: 0, slot: 0 }, extent);
    assert_eq!(down.reached, (COUNT - 1, (COUNT - 1) * 64));
    assert_eq!(down.rows.len(), 5);
    assert_eq!(down.rows[4].reached.0, COUNT - 5);
}

/// A vector's end is no pointer to its neighbour; an array of pointers to neighbours is.
#[test]
fn the_end_of_a_full_vector_does_not_hold_its_neighbour() {
    let mut memory = Memory::new(START, 4);
    let mut builder = MapBuilder::new(12);
    let shape = Shape::Slab {
        stride: 64,
        count: 64,
    };
    builder.add(Extent::new(at(START), PAGE, shape, Owner::InUse, 1));
    let (map, ..) = builder.finish();
    let root = START + 3 * PAGE;
    // begin, end, capacity of the vector in slot 0: the end is slot 1.
    for (word, value) in [START, START + 64, START + 64].into_iter().enumerate() {
        memory.put(root + word as u64 * 8, value);
    }
    // Slots 3, 4, 5 in an array.
    for (word, slot) in (8..).zip([3, 4, 5]) {
        memory.put(root + word * 8, START + slot * 64);
    }
    // A vector that is not full, in slots 7: its capacity is slot 8.
    for (word, value) in (16..).zip([7 * 64, 7 * 64 + 16, 8 * 64]) {
        memory.put(root + word * 8, START + value);
    }
    let roots = vec![Root {
        range: at(root)..at(root + PAGE),
        kind: RootKind::Global,
        strength: Strength::Strong,
        owner: 0,
        any_byte: false,
    }];
    let universe = Universe::new(
        &memory,
        Lookup::new(&[&map], &[]),
        roots,
        Vec::new(),
        Ranges::default(),
    );
    let marks = mark::mark(&universe);
    let reach = |slot| marks.reach(universe.lookup.bit(Node { row: 0, slot }));
    for (slot, expected) in [
        (0, Reach::Strong),
        (1, Reach::Weak),
        (2, Reach::Lost),
        (3, Reach::Strong),
        (4, Reach::Strong),
        (5, Reach::Strong),
        (6, Reach::Lost),
        (7, Reach::Strong),
        (8, Reach::Weak),
    ] {
        assert_eq!(reach(slot), expected, "slot {slot}");
    }
}

#[test]
fn a_stored_graph_says_what_the_core_says_of_any_words() {
    let mut random = fastrand::Rng::with_seed(29);
    let mut counts = [0; 3];
    for round in 0..60 {
        let mut process = process(&mut random);
        // Starts, ends and insides of blocks in use and free, side by side as in vectors; half of what is
        // free was never written.
        for index in 0..process.blocks.len() {
            let block = process.blocks[index];
            let words =
                block.start.next_multiple_of(8)..(block.start + block.bytes).saturating_sub(7);
            let is_clear = random.bool();
            for place in words.step_by(8).take(40) {
                let other = process.blocks[random.usize(0..process.blocks.len())];
                let value = match random.u8(0..8) {
                    0 => other.start,
                    1 | 2 => other.start + other.bytes,
                    3 => other.start + random.u64(0..other.bytes),
                    4 => random.u64(0..1 << 20),
                    _ => continue,
                };
                if block.live || !is_clear {
                    process.memory.put(place, value);
                }
            }
        }
        // Somebody's dead stack lies across blocks in half of the rounds.
        let dead = START + random.u64(0..4) * PAGE + random.u64(0..PAGE / 8) * 8;
        let dead = at(dead)..at(dead + random.u64(1..1000) * 8);
        let silent = match round % 2 {
            0 => Ranges::default(),
            _ => Ranges::new(vec![dead]),
        };
        let universe = Universe::new(
            &process.memory,
            Lookup::new(&[&process.map], &[]),
            process.roots.clone(),
            Vec::new(),
            silent,
        );
        let bounds = |stored| Bounds {
            stored,
            stack: 1 << (round % 8),
        };
        let stored = mark::mark_within(&universe, bounds(u64::MAX));
        let read = mark::mark_within(&universe, bounds(0));
        for block in process.blocks.iter().filter(|block| block.live) {
            let bit = universe.lookup.bit(node_of(&universe, block));
            assert_eq!(
                stored.reach(bit),
                read.reach(bit),
                "round {round}: {block:x?}"
            );
            counts[read.reach(bit) as usize] += 1;
        }
        let ranks = Ranks::new(&universe.lookup, u32::MAX).unwrap();
        let mut number = 0;
        for bit in 0..universe.lookup.bits() {
            assert_eq!(ranks.before(bit), number);
            if let Some(found) = ranks.of(bit) {
                assert_eq!((found, ranks.bit(found)), (number, Some(bit)));
                number += 1;
            }
        }
        assert_eq!((ranks.count(), ranks.bit(number)), (number, None));
    }
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}
