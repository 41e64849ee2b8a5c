//! Following lists through memory of our own: one class of blocks, plain links.

use std::ops::Range;

use ground::target::{Address, RegionKind, TargetMemory};
use heaps::anomaly::{HolderKind, ListRef, Stray, Transient};
use heaps::list::graph::{End, Keeper, ListGraph};
use heaps::list::{FreeList, Links, ListWalk, Orphans};
use heaps::map::{Extent, HeapMap, MapBuilder, Owner, Shape};
use synth::{Absence, FakeMemory};

const BASE: u64 = 0x10_0000;
const STRIDE: u64 = 32;
const CLASS: u16 = 3;

struct Plain;

impl Links for Plain {
    fn decode(&self, _node: Address, word: u64) -> Address {
        Address::new(word)
    }
}

/// Nobody is at work on any list.
struct Nobody;

impl Keeper for Nobody {
    fn list_ref(&self, list: &FreeList) -> ListRef {
        ListRef {
            holder: list.holder,
            thread: None,
            at: list.at,
            head_word: list.at,
            class: list.class,
            class_bytes: STRIDE,
        }
    }

    fn busy(&self, _list: &FreeList) -> Option<Transient> {
        None
    }

    fn in_flight(
        &self,
        _list: &FreeList,
        _fits: &dyn Fn(Address) -> bool,
    ) -> Option<(Address, Transient)> {
        None
    }

    fn last(&self, _: &FreeList) -> Option<Address> {
        None
    }

    fn confined(&self, _list: &FreeList) -> Option<Range<Address>> {
        None
    }
}

struct Blocks {
    memory: FakeMemory,
    map: HeapMap,
    lists: Vec<FreeList>,
}

fn block(k: u64) -> u64 {
    BASE + k * STRIDE
}

fn address(k: u64) -> Address {
    Address::new(block(k))
}

impl Blocks {
    /// `count` blocks in slabs of 1000, and pages of other owners behind them.
    fn new(count: u64) -> Self {
        let end = block(count).next_multiple_of(0x1000);
        let mut memory = FakeMemory::new();
        memory.zeroes(BASE..end + 0x3000, "rw", RegionKind::Anonymous);
        let mut builder = MapBuilder::new(13);
        for first in (0..count).step_by(1000) {
            let blocks = (count - first).min(1000) as u32;
            let shape = Shape::Slab {
                stride: STRIDE as u32,
                count: blocks,
            };
            let bytes = u64::from(blocks) * STRIDE;
            builder.add(Extent::new(
                address(first),
                bytes,
                shape,
                Owner::InUse,
                CLASS,
            ));
        }
        let other = |page: u64, shape, owner, class| {
            Extent::new(
                Address::new(end + page * 0x1000),
                0x1000,
                shape,
                owner,
                class,
            )
        };
        let slab = Shape::Slab {
            stride: 48,
            count: 85,
        };
        builder.add(other(0, slab, Owner::InUse, CLASS + 1));
        builder.add(other(1, Shape::Single, Owner::Free, 0));
        let (map, ..) = builder.finish();
        Self {
            memory,
            map,
            lists: Vec::new(),
        }
    }

    /// Writes the chain and a list of it.
    fn list(&mut self, chain: &[u64]) -> &mut FreeList {
        for pair in chain.windows(2) {
            self.memory.write_u64(block(pair[0]), block(pair[1]));
        }
        if let Some(last) = chain.last() {
            self.memory.write_u64(block(*last), 0);
        }
        let index = self.lists.len();
        self.lists.push(FreeList {
            head: Address::new(chain.first().map_or(0, |first| block(*first))),
            at: Address::new(0x1000 + index as u64 * 16),
            recorded: chain.len() as u64,
            class: CLASS,
            holder: HolderKind::ThreadCache,
            owner: index as u32,
        });
        &mut self.lists[index]
    }

    fn link(&mut self, k: u64, to: u64) {
        self.memory.write_u64(block(k), to);
    }

    fn walk(&self) -> ListWalk<'_> {
        let mut walk = ListWalk::new(&self.map, &self.memory);
        walk.run(&self.lists, &Plain);
        walk
    }

    /// Walks in two passes, as [`heaps::walk`] does.
    fn graph(&self) -> ListGraph<'_> {
        assert!(self.walk().irregular);
        ListGraph::trace(&self.map, &self.memory, &self.lists, &Plain, &Nobody)
    }

    /// Blocks for which a column says yes.
    fn column(&self, says: impl Fn(&HeapMap, heaps::map::BlockId) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        for (row, extent) in (0..).zip(self.map.extents()) {
            for slot in 0..extent.blocks() {
                let block = extent.block(row, slot).unwrap();
                if says(&self.map, block.id) {
                    found.push((block.address.get() - BASE) / STRIDE);
                }
            }
        }
        found
    }

    fn listed(&self) -> Vec<u64> {
        self.column(|map, id| map.is_listed(id))
    }

    fn disputed(&self) -> Vec<u64> {
        self.column(|map, id| map.is_disputed(id))
    }
}

// --- the first pass ------------------------------------------------------------------------------

#[test]
fn long_chains_cross_windows() {
    for window in [1 << 40, 0x1000, 4096 + 4] {
        let mut blocks = Blocks::new(30_000);
        blocks.memory.cut_windows(window);
        let mut random = fastrand::Rng::with_seed(window);
        let mut order: Vec<u64> = (0..30_000).collect();
        random.shuffle(&mut order);
        // 25 lists: more than are advanced at a time, of very different lengths.
        let mut rest = &order[..29_000];
        for index in 0..25 {
            let count = (1 << (index % 13)).min(rest.len());
            let (chain, behind) = rest.split_at(count);
            blocks.list(chain);
            rest = behind;
        }
        blocks.list(rest);
        blocks.list(&[]);
        let walk = blocks.walk();
        assert_eq!((walk.entries, walk.irregular), (29_000, false));
        let mut expected = order[..29_000].to_vec();
        expected.sort_unstable();
        assert_eq!(blocks.listed(), expected);
        assert_eq!(blocks.disputed(), []);
    }
}

#[test]
fn a_length_that_is_off_is_irregular() {
    for error in [-1, 1, 1 << 31] {
        let mut blocks = Blocks::new(10);
        let list = blocks.list(&[1, 2, 3]);
        list.recorded = list.recorded.wrapping_add_signed(error);
        assert!(blocks.walk().irregular, "{error}");
    }
    let mut blocks = Blocks::new(10);
    blocks.list(&[]).recorded = 1;
    assert!(blocks.walk().irregular);
}

#[test]
fn links_that_lead_astray_are_irregular() {
    let end = block(10).next_multiple_of(0x1000);
    for to in [
        1,
        block(4) + 8,    // misaligned
        block(10),       // a tail
        end,             // another class
        end + 0x1000,    // a free span
        end + 0x2000,    // mapped, nobody's
        end + 0x10_0000, // not mapped
        u64::MAX,
    ] {
        let mut blocks = Blocks::new(10);
        blocks.list(&[1, 2, 3]);
        blocks.link(2, to);
        let walk = blocks.walk();
        assert!(walk.irregular, "{to:#x}");
        assert_eq!(blocks.listed(), [1, 2]);
    }
}

#[test]
fn an_entry_that_is_not_in_the_core_is_irregular() {
    for why in [Absence::NotDumped, Absence::Truncated] {
        let mut blocks = Blocks::new(1000);
        blocks.list(&[1, 500, 2]);
        blocks.memory.hide(block(500) + 4..block(501), why);
        assert!(blocks.walk().irregular);
        assert_eq!(blocks.listed(), [1, 500]);
    }
}

/// Random lists, some of which run into each other or into themselves.
fn tangle(seed: u64) -> Blocks {
    let mut random = fastrand::Rng::with_seed(seed);
    let count = random.u64(20..2000);
    let mut blocks = Blocks::new(count);
    let mut order: Vec<u64> = (0..count).collect();
    random.shuffle(&mut order);
    let mut rest = &order[..];
    for _ in 0..random.usize(1..40) {
        let (chain, behind) = rest.split_at(random.usize(0..=rest.len().min(100)));
        blocks.list(chain);
        rest = behind;
    }
    for _ in 0..random.usize(0..6) {
        let (from, to) = (random.u64(0..count), random.u64(0..count));
        let offset = if random.u8(0..4) == 0 { 16 } else { 0 };
        blocks.link(from, block(to) + offset);
    }
    blocks
}

#[test]
fn neither_order_nor_batches_change_what_is_marked() {
    for seed in 0..150 {
        let straight = tangle(seed);
        let irregular = straight.walk().irregular;
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..4 {
            let mut other = tangle(seed);
            random.shuffle(&mut other.lists);
            let size = random.usize(1..20);
            let mut any = false;
            for batch in other.lists.chunks(size) {
                let mut walk = ListWalk::new(&other.map, &other.memory);
                walk.run(batch, &Plain);
                any |= walk.irregular;
            }
            assert_eq!(other.listed(), straight.listed());
            assert_eq!(other.disputed(), straight.disputed());
            assert_eq!(any, irregular);
        }
    }
}

#[test]
fn neither_windows_nor_threads_change_the_graph() {
    let mut irregular = 0;
    for seed in 0..150 {
        let tell = |threads: usize, window: u64| {
            let mut blocks = tangle(seed);
            blocks.memory.cut_windows(window);
            if !blocks.walk().irregular {
                return None;
            }
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let graph = pool.install(|| {
                ListGraph::trace(&blocks.map, &blocks.memory, &blocks.lists, &Plain, &Nobody)
            });
            Some(format!(
                "{:?} {:?} {:?}",
                graph.paths, graph.junctions, graph.strays
            ))
        };
        let told = tell(1, 1 << 40);
        irregular += usize::from(told.is_some());
        for (threads, window) in [(2, 1 << 40), (8, 0x1000)] {
            assert_eq!(tell(threads, window), told);
        }
    }
    assert!((50..150).contains(&irregular), "{irregular}");
}

// --- the second pass -----------------------------------------------------------------------------

#[test]
fn a_shared_block_has_all_its_edges() {
    let mut blocks = Blocks::new(20);
    blocks.list(&[1, 2, 3]);
    blocks.list(&[4, 5]).recorded = 4;
    blocks.link(5, block(2));
    let graph = blocks.graph();
    assert_eq!(graph.strays.len(), 0);
    let [junction] = &graph.junctions[..] else {
        panic!("{:?}", graph.junctions);
    };
    assert_eq!(junction.block.address, address(2));
    let edges: Vec<_> = junction
        .edges
        .iter()
        .map(|edge| (edge.position, edge.from))
        .collect();
    assert_eq!(edges, [(1, Some(address(1))), (2, Some(address(5)))]);
}

#[test]
fn a_circle_has_a_length_and_one_junction() {
    let mut blocks = Blocks::new(20);
    blocks.list(&[1, 2, 3, 4]);
    blocks.link(4, block(2));
    let graph = blocks.graph();
    assert_eq!(graph.paths[0].end, End::Cycle(3));
    assert_eq!(graph.paths[0].walked, 4);
    assert_eq!(graph.junctions.len(), 1);
    assert_eq!(graph.junctions[0].block.address, address(2));
}

#[test]
fn a_stray_value_is_told_once_and_not_read_on() {
    let mut blocks = Blocks::new(20);
    blocks.list(&[1, 2, 3]);
    blocks.list(&[5, 6]);
    blocks.link(2, 0x4141_4141_4141_4141);
    blocks.link(6, block(7) + 8);
    blocks.memory.write_u64(block(7) + 8, 0x33);
    let graph = blocks.graph();
    let strays: Vec<_> = graph
        .strays
        .iter()
        .map(|stray| (stray.edge.from, stray.found.get(), stray.leads_on))
        .collect();
    let expected = [
        (Some(address(2)), 0x4141_4141_4141_4141, false),
        (Some(address(6)), block(7) + 8, false),
    ];
    assert_eq!(strays, expected);
    assert_eq!(graph.paths[0].end, End::Stray(Stray::Unmapped));
}

#[test]
fn a_freed_inner_pointer_is_stepped_over() {
    let mut blocks = Blocks::new(20);
    blocks.list(&[1, 2, 3]).recorded = 4;
    blocks.link(1, block(9) + 8);
    blocks.memory.write_u64(block(9) + 8, block(2));
    let graph = blocks.graph();
    assert_eq!(graph.paths[0].end, End::Null);
    assert_eq!(graph.paths[0].walked, 4);
    assert_eq!(graph.strays.len(), 1);
    assert!(graph.strays[0].leads_on);
}

#[test]
fn an_entry_that_is_not_in_the_core_ends_its_path() {
    let mut blocks = Blocks::new(1000);
    blocks.list(&[1, 500, 2]);
    blocks
        .memory
        .hide(block(500)..block(501), Absence::Truncated);
    let graph = blocks.graph();
    assert!(matches!(
        graph.paths[0].end,
        End::Stray(Stray::Unreadable(_))
    ));
    assert_eq!(graph.strays.len(), 1);
}

// --- what damage cut off -------------------------------------------------------------------------

#[test]
fn a_chain_is_found_by_its_length() {
    let mut blocks = Blocks::new(3000);
    blocks.list(&[1, 2]);
    blocks.list(&[10, 2010, 12, 13]);
    blocks.list(&[20, 21]);
    blocks.lists.truncate(1); // the others are orphans
    blocks.link(30, block(31)); // a circle has no length
    blocks.link(31, block(30));
    blocks.link(40, 0x4141); // and nonsense has none
    blocks.link(41, block(1)); // nor what runs into a list
    for k in [0, 14, 22]
        .into_iter()
        .chain(32..40)
        .chain(42..2010)
        .chain(2011..3000)
    {
        blocks.link(k, 1);
    }
    blocks.walk();
    let orphans = Orphans::new(&blocks.map, &blocks.memory, CLASS);
    assert_eq!(orphans.blocks(), 3000);
    let find = |length| {
        let found = orphans.anywhere(&Plain, length, &|_, _| true);
        found.map(|found| ((found.first.get() - BASE) / STRIDE, found.unique))
    };
    assert_eq!(find(4), Some((10, true)));
    assert_eq!(find(3), Some((2010, true)));
    assert_eq!(find(5), None);
    assert_eq!(find(0), None);
    assert!(matches!(find(2), Some((_, false))), "12, 13 and 20, 21");
    assert_eq!(find(u64::MAX), None);
}

#[test]
fn a_chain_is_found_near_a_damaged_link() {
    let mut blocks = Blocks::new(100);
    blocks.list(&[5, 6, 7]);
    blocks.lists.clear();
    for k in (0..100).filter(|k| !(5..8).contains(k)) {
        blocks.link(k, 1);
    }
    let orphans = Orphans::new(&blocks.map, &blocks.memory, CLASS);
    let near = |damaged: u64, bytes, length| {
        let found = orphans.near(&Plain, damaged, bytes, length, &|_| true, &|_| true);
        found.map(|found| (found.first, found.unique))
    };
    let zeroed = block(5) & !0xff;
    assert_eq!(near(zeroed, 1, 3), Some((address(5), true)));
    assert_eq!(near(zeroed, 1, 2), Some((address(6), true)));
    assert_eq!(near(zeroed, 1, 4), None);
    assert_eq!(near(zeroed + 0x100, 1, 3), None, "not within the low byte");
    assert_eq!(near(zeroed + 0x100, 2, 3), Some((address(5), true)));
    assert_eq!(near(block(5), 1, 3), None, "it is not damaged");
    assert_eq!(near(u64::MAX, 2, 3), None);
    assert!(orphans.chain_is(&Plain, address(5), 3, &|_| false));
    assert!(!orphans.chain_is(&Plain, address(5), 2, &|_| false));
    assert!(!orphans.chain_is(&Plain, address(5), u64::MAX, &|_| false));
}

#[test]
fn a_chain_that_a_list_holds_is_no_orphan() {
    let mut blocks = Blocks::new(100);
    blocks.list(&[5, 6, 7]);
    blocks.walk();
    let orphans = Orphans::new(&blocks.map, &blocks.memory, CLASS);
    assert!(!orphans.chain_is(&Plain, address(5), 3, &|_| false));
    assert!(
        orphans.chain_is(&Plain, address(5), 3, &|_| true),
        "unless it may"
    );
}

#[test]
fn depths_do_not_depend_on_where_measuring_begins() {
    for seed in 0..100 {
        let blocks = tangle(seed);
        blocks.walk();
        let orphans = Orphans::new(&blocks.map, &blocks.memory, CLASS);
        for length in 1..60 {
            let mut naive = (0..orphans.blocks())
                .filter(|k| orphans.chain_is(&Plain, address(*k), length, &|_| false));
            let expected = naive.next().map(|k| (address(k), naive.next().is_none()));
            let found = orphans.anywhere(&Plain, length, &|_, _| true);
            let found = found.map(|found| (found.first, found.unique));
            assert_eq!(found, expected, "seed {seed}, length {length}");
        }
    }
}

#[test]
fn fake_memory_is_what_the_walkers_read() {
    let blocks = Blocks::new(10);
    let window = blocks.memory.window(address(3)).unwrap();
    assert_eq!(window.start, address(3));
}
