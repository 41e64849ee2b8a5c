//! Random heaps of all shapes, and random processes with words in their blocks.

use std::collections::{BTreeSet, VecDeque};

use ground::target::{Abi, Address, Fault, Region, RegionKind, Source, TargetMemory, Window};
use heaps::graph::Universe;
use heaps::graph::lookup::{Lookup, Node};
use heaps::graph::roots::{Ranges, Root, RootKind, Strength};
use heaps::map::{ChunkLayout, Chunks, Extent, HeapMap, MapBuilder, Owner, Shape};

pub const CHUNKS: ChunkLayout = ChunkLayout { lead: 16, spill: 8 };
pub const PAGE: u64 = 4096;

/// One run of words at an address, and the regions that it is cut into.
pub struct Memory {
    pub start: u64,
    pub bytes: Vec<u8>,
    pub regions: Vec<Region>,
}

impl Memory {
    pub fn new(start: u64, pages: u64) -> Self {
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

    pub fn put(&mut self, place: u64, value: u64) {
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

pub fn at(value: u64) -> Address {
    Address::new(value)
}

/// A block of the naive model.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    pub start: u64,
    pub bytes: u64,
    pub live: bool,
}

/// A heap with slabs, single blocks, metadata and chunks, and what is in it.
pub fn heap(random: &mut fastrand::Rng, start: u64, pages: u64) -> (HeapMap, Vec<Block>) {
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

pub const START: u64 = 0x7f00_0000_0000;

/// A random process: blocks with words in them, some roots.
pub struct Process {
    pub memory: Memory,
    pub map: HeapMap,
    pub blocks: Vec<Block>,
    pub roots: Vec<Root>,
    /// Index of the block that each word of each block points into.
    pub edges: Vec<BTreeSet<usize>>,
    pub from_roots: BTreeSet<usize>,
}

pub fn process(random: &mut fastrand::Rng) -> Process {
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

pub fn naive_reach(
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

pub fn universe(process: &Process) -> Universe<'_> {
    Universe::new(
        &process.memory,
        Lookup::new(&[&process.map], &[]),
        process.roots.clone(),
        Vec::new(),
        Ranges::default(),
    )
}

pub fn node_of(universe: &Universe<'_>, block: &Block) -> Node {
    universe.lookup.find(block.start).unwrap().node
}
