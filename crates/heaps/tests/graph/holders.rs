//! Who holds which blocks, against everything that each holder reaches.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use heaps::graph::Universe;
use heaps::graph::retained::Retained;
use heaps::graph::shares::{self, Holder, Seed, Share};

use crate::processes::{Process, at, naive_reach, node_of, process, universe};

/// Words of the process's root by holder: some classes and families, and the blocks that each leads to.
fn holders(
    random: &mut fastrand::Rng,
    process: &Process,
    universe: &Universe<'_>,
) -> (Vec<Holder>, Vec<Seed>, Vec<BTreeSet<usize>>) {
    let root = process.roots[0].range.start.get();
    let words: Vec<(u64, u64)> = (0..6)
        .map(|word| root + word * 32)
        .map(|place| {
            let offset = (place - process.memory.start) as usize;
            let bytes = process.memory.bytes[offset..offset + 8].try_into().unwrap();
            (place, u64::from_le_bytes(bytes))
        })
        .filter(|(_, value)| *value != 0)
        .collect();
    let mut kinds: Vec<(u8, u32)> = words
        .iter()
        .map(|_| (random.u8(0..2), random.u32(0..2)))
        .collect();
    kinds.sort_unstable();
    let (mut holders, mut seeds, mut first) = (Vec::new(), Vec::new(), Vec::new());
    for (holder, ((place, value), (class, family))) in (0u32..).zip(words.iter().zip(&kinds)) {
        let family = if *class == 0 { 100 + holder } else { *family };
        holders.push(Holder {
            class: *class,
            family,
        });
        seeds.push(Seed {
            holder,
            place: Some(at(*place)),
            value: *value,
        });
        let node = universe.lookup.find(*value).unwrap().node;
        let blocks = process.blocks.iter();
        let of = blocks.map(|block| node_of(universe, block));
        first.push(
            of.enumerate()
                .filter(|(_, other)| *other == node)
                .map(|(index, _)| index)
                .collect(),
        );
    }
    (holders, seeds, first)
}

/// Who has a block, by looking at everything that each holder reaches.
fn naive_share(holders: &[Holder], reached: &[BTreeSet<usize>], block: usize) -> Share {
    for class in 0..2 {
        let mut firsts: BTreeMap<u32, u32> = BTreeMap::new();
        for (index, holder) in (0u32..).zip(holders) {
            if holder.class == class && reached[index as usize].contains(&block) {
                firsts.entry(holder.family).or_insert(index);
            }
        }
        let mut found: Vec<u32> = firsts.into_values().collect();
        found.sort_unstable();
        match found[..] {
            [] => {}
            [one] => return Share::One(one),
            [one, two] => return Share::Two(one, two),
            _ => return Share::Several(class),
        }
    }
    Share::Nobody
}

#[test]
fn what_each_holder_has_and_what_hangs_on_its_blocks_equal_brute_force() {
    let mut random = fastrand::Rng::with_seed(17);
    let mut kinds = HashSet::new();
    for round in 0..60 {
        let process = process(&mut random);
        let universe = universe(&process);
        let (holders, seeds, first) = holders(&mut random, &process, &universe);
        let most = [1, 3, 1 << 20][round % 3]; // a stack that always overflows
        let shares = shares::share_with(&universe, &holders, &seeds, most).unwrap();
        let reached: Vec<BTreeSet<usize>> = first
            .iter()
            .map(|first| naive_reach(&process, first.iter().copied(), None))
            .collect();
        let mut sums: BTreeMap<Share, (u64, u64)> = BTreeMap::new();
        for (index, block) in process.blocks.iter().enumerate() {
            if !block.live {
                continue;
            }
            let expected = naive_share(&holders, &reached, index);
            assert_eq!(
                shares.of(node_of(&universe, block)),
                expected,
                "round {round}: {block:x?}"
            );
            let sum = sums.entry(expected).or_default();
            sum.0 += 1;
            sum.1 += block.bytes;
            kinds.insert(std::mem::discriminant(&expected));
        }
        let found: BTreeMap<Share, (u64, u64)> = shares
            .sums()
            .iter()
            .map(|sum| (sum.share, (sum.blocks.blocks, sum.blocks.bytes)))
            .collect();
        assert_eq!(found, sums, "round {round}");
        for (holder, first) in (0u32..).zip(&first) {
            let members = shares.members(Share::One(holder), usize::MAX);
            let place = |index: &usize| {
                let node = node_of(&universe, &process.blocks[*index]);
                members
                    .binary_search_by_key(&node, |member| member.node)
                    .ok()
            };
            let entries: Vec<u32> = first
                .iter()
                .filter_map(place)
                .map(|place| place as u32)
                .collect();
            if entries.is_empty() {
                continue;
            }
            let retained = Retained::find(&universe, &members, &entries).unwrap();
            let own: BTreeSet<usize> = (0..process.blocks.len())
                .filter(|index| process.blocks[*index].live && place(index).is_some())
                .collect();
            for index in &own {
                let left = naive_reach(&process, first.iter().copied(), Some(*index));
                let lost = own.iter().filter(|other| !left.contains(other));
                let bytes: u64 = lost.map(|other| process.blocks[*other].bytes).sum();
                assert_eq!(
                    retained.held(place(index).unwrap()).bytes,
                    bytes,
                    "round {round}"
                );
            }
        }
    }
    assert_eq!(kinds.len(), 4, "all kinds of shares are met");
}
