//! The graph against brute force: random heaps of all shapes, random words, small enough to look at every pair.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use ground::target::{Abi, Address, Fault, Region, RegionKind, Source, TargetMemory, Window};
use heaps::graph::Universe;
use heaps::graph::dominators::{self, Edges, NONE};
use heaps::graph::lookup::{Lookup, Node};
use heaps::graph::mark::{self, Reach};
use heaps::graph::references::{self, Place, Target};
use heaps::graph::retained::Retained;
use heaps::graph::roots::{Ranges, Root, RootKind, Strength};
use heaps::graph::shares::{self, Holder, Seed, Share};
use heaps::graph::subgraph::{self, Role};
use heaps::graph::trees;
use heaps::map::{ChunkLayout, Chunks, Extent, HeapMap, MapBuilder, Owner, Shape};

const CHUNKS: ChunkLayout = ChunkLayout { lead: 16, spill: 8 };
const PAGE: u64 = 4096;

/// One run of words at an address, and the regions that it is cut into.
struct Memory {
    start: u64,
    bytes: Vec<u8>,
    regions: Vec<Region>,
}

impl Memory {
    fn new(start: u64, pages: u64) -> Self {
        let region = Region {
            range: at(start)..at(start + pages * PAGE),
            readable: true,
            writable: true,
            executable: false,
            kind: RegionKind::Anonymous,
            dumped_bytes: pages * PAGE,
            present_bytes: pages * PAGE,
        };
        Self {
            start,
            bytes: vec![0; (pages * PAGE) as usize],
            regions: vec![region],
        }
    }

    fn put(&mut self, place: u64, value: u64) {
        let offset = (place - self.start) as usize;
        self.bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    }
}

impl TargetMemory for Memory {
    fn abi(&self) -> Abi {
        Abi {
            pointer_bytes: 8,
            little_endian: true,
            page_bytes: PAGE,
        }
    }

    fn window(&self, place: Address) -> Result<Window<'_>, Fault> {
        let offset = place
            .get()
            .checked_sub(self.start)
            .and_then(|offset| usize::try_from(offset).ok());
        match offset
            .and_then(|offset| self.bytes.get(offset..))
            .filter(|bytes| !bytes.is_empty())
        {
            Some(bytes) => Ok(Window {
                start: place,
                bytes,
                source: Source::Core,
            }),
            None => Err(Fault::Unmapped(place)),
        }
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}

fn at(value: u64) -> Address {
    Address::new(value)
}

/// A block of the naive model.
#[derive(Clone, Copy, Debug)]
struct Block {
    start: u64,
    bytes: u64,
    live: bool,
}

/// A heap with slabs, single blocks, metadata and chunks, and what is in it.
fn heap(random: &mut fastrand::Rng, start: u64, pages: u64) -> (HeapMap, Vec<Block>) {
    let mut builder = MapBuilder::new(12);
    let mut free = BTreeSet::new();
    let mut page = 0;
    let mut shapes: Vec<(u64, u64, Shape, Owner)> = Vec::new();
    while page < pages {
        let length = random.u64(1..4).min(pages - page);
        let (first, bytes) = (start + page * PAGE, length * PAGE);
        let owner = if random.u8(0..8) == 0 {
            Owner::Free
        } else {
            Owner::InUse
        };
        page += length;
        match random.u8(0..6) {
            0 => shapes.push((first, bytes, Shape::Metadata, Owner::InUse)),
            1 => shapes.push((first, bytes, Shape::Single, owner)),
            2 | 3 => {
                let stride = *random
                    .choice(&[8u32, 16, 24, 48, 64, 80, 1000, 1024])
                    .unwrap();
                let count = (bytes / u64::from(stride)) as u32;
                shapes.push((first, bytes, Shape::Slab { stride, count }, owner));
            }
            4 => {
                let mut chunks = Chunks::new(CHUNKS, bytes);
                let mut offset = 0;
                while offset + 32 < bytes {
                    chunks.set(offset);
                    offset += 16 * random.u64(2..20);
                }
                chunks.set(bytes - 16); // a fencepost, whose block lies outside
                builder.add_chunks(at(first), bytes, chunks);
            }
            _ => {} // a gap
        }
    }
    for (first, bytes, shape, owner) in shapes {
        builder.add(Extent::new(at(first), bytes, shape, owner, 1));
    }
    let (map, overlaps, _) = builder.finish();
    assert!(overlaps.is_empty());
    let mut blocks = Vec::new();
    for (row, extent) in (0u32..).zip(map.extents()) {
        for slot in 0..extent.blocks() {
            let id = heaps::map::BlockId { extent: row, slot };
            let Some(block) = map.block(id).filter(|block| block.address < extent.end()) else {
                continue;
            };
            if random.u8(0..4) == 0 {
                map.mark_listed(id);
                free.insert(block.address);
            }
            blocks.push(Block {
                start: block.address.get(),
                bytes: block.bytes,
                live: extent.owner == Owner::InUse && !free.contains(&block.address),
            });
        }
    }
    (map, blocks)
}

const START: u64 = 0x7f00_0000_0000;

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

/// A random process: blocks with words in them, some roots.
struct Process {
    memory: Memory,
    map: HeapMap,
    blocks: Vec<Block>,
    roots: Vec<Root>,
    /// Index of the block that each word of each block points into.
    edges: Vec<BTreeSet<usize>>,
    from_roots: BTreeSet<usize>,
}

fn process(random: &mut fastrand::Rng) -> Process {
    let pages = random.u64(4..30);
    let mut memory = Memory::new(START, pages + 2);
    let (map, blocks) = heap(random, START, pages);
    let live: Vec<usize> = (0..blocks.len())
        .filter(|index| blocks[*index].live)
        .collect();
    let mut edges = vec![BTreeSet::new(); blocks.len()];
    let mut from_roots = BTreeSet::new();
    let root_start = START + (pages + 1) * PAGE;
    let roots = vec![Root {
        range: at(root_start)..at(root_start + PAGE),
        kind: RootKind::Global,
        strength: Strength::Strong,
        owner: 0,
        any_byte: false,
    }];
    if live.is_empty() {
        return Process {
            memory,
            map,
            blocks,
            roots,
            edges,
            from_roots,
        };
    }
    // No two stand side by side: ends of blocks are another test's.
    let pointer = |random: &mut fastrand::Rng| {
        let to = live[random.usize(0..live.len())];
        let block = blocks[to];
        (to, block.start + random.u64(0..block.bytes) / 2)
    };
    for (index, block) in blocks.iter().enumerate() {
        let first = block.start.next_multiple_of(32);
        for place in (first..(block.start + block.bytes).saturating_sub(7)).step_by(32) {
            if random.u8(0..5) != 0 {
                continue;
            }
            let (to, value) = pointer(random);
            memory.put(place, value);
            edges[index].insert(to);
        }
    }
    for word in (0..random.u64(0..6)).map(|word| word * 4) {
        let (to, value) = pointer(random);
        memory.put(root_start + word * 8, value);
        from_roots.insert(to);
    }
    Process {
        memory,
        map,
        blocks,
        roots,
        edges,
        from_roots,
    }
}

fn naive_reach(
    process: &Process,
    start: impl IntoIterator<Item = usize>,
    without: Option<usize>,
) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open: VecDeque<usize> = start
        .into_iter()
        .filter(|index| Some(*index) != without)
        .collect();
    while let Some(index) = open.pop_front() {
        if Some(index) != without && reached.insert(index) {
            open.extend(&process.edges[index]);
        }
    }
    reached
}

fn universe(process: &Process) -> Universe<'_> {
    Universe::new(
        &process.memory,
        Lookup::new(&[&process.map], &[]),
        process.roots.clone(),
        Vec::new(),
        Ranges::default(),
    )
}

fn node_of(universe: &Universe<'_>, block: &Block) -> Node {
    universe.lookup.find(block.start).unwrap().node
}

#[test]
fn what_is_reached_and_what_hangs_on_whom_equal_brute_force() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..45 {
        let process = process(&mut random);
        let universe = universe(&process);
        let marks = match round % 3 {
            0 => mark::mark_with(&universe, 1), // a stack that always overflows
            1 => mark::mark_with(&universe, 3),
            _ => mark::mark(&universe),
        };
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
