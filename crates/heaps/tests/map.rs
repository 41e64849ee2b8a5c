//! The heap map against a naive one.

use ground::target::Address;
use heaps::map::{
    Bits, BlockId, BlockState, ChunkLayout, Chunks, Extent, HeapMap, MapBuilder, Owner, Piece,
    Place, Shape,
};

const PAGE_SHIFT: u32 = 13;
const PAGE: u64 = 1 << PAGE_SHIFT;

fn at(value: u64) -> Address {
    Address::new(value)
}

fn extent(start: u64, bytes: u64, shape: Shape) -> Extent {
    Extent::new(at(start), bytes, shape, Owner::InUse, 1)
}

fn slab(start: u64, stride: u32, count: u32) -> Extent {
    extent(start, PAGE, Shape::Slab { stride, count })
}

fn map(extents: impl IntoIterator<Item = Extent>) -> HeapMap {
    let mut builder = MapBuilder::new(PAGE_SHIFT);
    builder.extend(extents);
    let (map, overlaps, count) = builder.finish();
    assert_eq!((overlaps.len(), count), (0, 0));
    map
}

/// Where an address lies, found by looking at every extent.
fn naive(map: &HeapMap, address: u64) -> Option<Place> {
    let row = map.extents().iter().position(|extent| {
        (extent.start.get()..extent.start.get() + extent.bytes).contains(&address)
    })?;
    let extent = map.extents()[row];
    let offset = address - extent.start.get();
    let slot = match extent.shape {
        Shape::Metadata => None,
        Shape::Single => Some((0, offset)),
        Shape::Slab { stride, count } => {
            let slot = offset / u64::from(stride);
            (slot < count.into()).then(|| (slot as u32, offset % u64::from(stride)))
        }
        Shape::Chunks { .. } => unreachable!("none here"),
    };
    Some(Place {
        extent: row as u32,
        slot,
    })
}

fn random_extents(random: &mut fastrand::Rng) -> Vec<Extent> {
    let mut extents = Vec::new();
    let mut start = random.u64(0..64) * PAGE;
    for _ in 0..random.usize(1..200) {
        start += match random.u8(0..10) {
            0 => PAGE * random.u64(1..5),
            1 => random.u64(1..PAGE),               // not at a page
            2 => PAGE << 17,                        // a new range of the directory
            3 => PAGE * random.u64(60_000..70_000), // about its longest gap
            _ => 0,
        };
        if random.bool() {
            start = start.next_multiple_of(PAGE);
        }
        let bytes = match random.u8(0..4) {
            0 => random.u64(1..3 * PAGE),
            _ => PAGE * random.u64(1..4),
        };
        let shape = match random.u8(0..3) {
            0 => Shape::Metadata,
            1 => Shape::Single,
            _ => {
                let stride = random.u32(1..300);
                let count = random.u32(0..=(bytes / u64::from(stride)) as u32);
                Shape::Slab { stride, count }
            }
        };
        extents.push(extent(start, bytes, shape));
        start += bytes;
    }
    random.shuffle(&mut extents);
    extents
}

#[test]
fn every_address_is_found_where_it_lies() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let map = map(random_extents(&mut random));
        let mut addresses = vec![0, u64::MAX];
        for extent in map.extents() {
            let (start, end) = (extent.start.get(), extent.end().get());
            addresses.extend([start.wrapping_sub(1), start, end - 1, end]);
            addresses.extend((0..4).map(|_| random.u64(start..end)));
        }
        for address in addresses {
            let place = naive(&map, address);
            assert_eq!(map.place(at(address)), place, "{address:#x}");
            assert_eq!(map.row_at(at(address)), place.map(|place| place.extent));
            let block = map.block_at(at(address));
            assert_eq!(
                block.is_some(),
                place.is_some_and(|place| place.slot.is_some())
            );
            if let Some((block, offset)) = block {
                assert_eq!(block.address.get() + offset, address);
                assert!(offset < block.bytes);
                assert_eq!(map.block(block.id), Some(block));
            }
        }
    }
}

#[test]
fn a_block_knows_the_one_before_it() {
    let map = map([
        slab(0, 100, 80), // a tail of 192 bytes
        slab(PAGE, 64, 128),
        extent(3 * PAGE, PAGE, Shape::Single),
        extent(4 * PAGE, PAGE, Shape::Metadata),
        extent(5 * PAGE, PAGE, Shape::Single),
    ]);
    let before = |address: u64| {
        let (block, _) = map.block_at(at(address)).unwrap();
        map.block_before(block).map(|block| block.address.get())
    };
    assert_eq!(before(150), Some(0));
    assert_eq!(before(0), None, "nothing is before the first");
    assert_eq!(before(PAGE), Some(7900), "over the tail");
    assert_eq!(before(PAGE + 64), Some(PAGE));
    assert_eq!(before(3 * PAGE), None, "a gap is between them");
    assert_eq!(before(5 * PAGE), None, "metadata is no block");
}

#[test]
fn of_two_owners_the_first_is_kept() {
    let mut builder = MapBuilder::new(PAGE_SHIFT);
    builder.extend([
        extent(PAGE, PAGE, Shape::Single),
        extent(0, PAGE + 1, Shape::Single),
        extent(0, PAGE, Shape::Metadata),
        extent(2 * PAGE, PAGE, Shape::Single),
    ]);
    let (map, overlaps, count) = builder.finish();
    let starts: Vec<u64> = map.extents().iter().map(|it| it.bytes).collect();
    assert_eq!(
        starts,
        [PAGE + 1, PAGE],
        "the longer one of two that start together"
    );
    assert_eq!(count, 2);
    assert_eq!(overlaps[1].kept.bytes, PAGE + 1);
    assert_eq!(overlaps[1].dropped.start, at(PAGE));
}

#[test]
fn overlaps_are_counted_and_a_few_are_kept() {
    let mut builder = MapBuilder::new(PAGE_SHIFT);
    builder.extend((0..1000).map(|_| extent(0, PAGE, Shape::Single)));
    let (map, overlaps, count) = builder.finish();
    assert_eq!((map.extents().len(), count), (1, 999));
    assert_eq!(overlaps.len(), MapBuilder::MAX_OVERLAPS);
}

#[test]
fn extents_that_cannot_be_are_left_out() {
    let map = map([
        extent(0, 0, Shape::Single),
        extent(u64::MAX - 10, 100, Shape::Single),
        extent(PAGE, u64::MAX, Shape::Single),
    ]);
    assert_eq!(map.extents().len(), 0);
    assert_eq!(map.block_count(), 0);
    assert_eq!(map.place(at(PAGE)), None);
}

#[test]
fn an_extent_larger_than_any_directory_is_found() {
    let map = map([
        slab(0, 64, 128),
        extent(1 << 40, 1 << 62, Shape::Single),
        slab((1 << 62) + (1 << 41), 64, 128),
    ]);
    assert_eq!(map.row_at(at(1 << 61)), Some(1));
    assert_eq!(map.row_at(at((1 << 62) + (1 << 41) + 1)), Some(2));
    assert_eq!(map.row_at(at(PAGE)), None);
}

#[test]
fn a_block_is_what_its_witnesses_say() {
    let free = Extent::new(at(PAGE), PAGE, Shape::Single, Owner::Free, 0);
    let map = map([slab(0, 64, 128), free]);
    let id = |address| map.block_at(at(address)).unwrap().0.id;
    let (first, second, third) = (id(0), id(64), id(128));
    assert!(!map.mark_listed(first), "listed for the first time");
    assert!(map.mark_listed(first), "and again");
    map.mark_lost(first);
    map.mark_lost(second);
    map.mark_disputed(third);
    assert_eq!(map.state(first), BlockState::Free);
    assert_eq!(map.state(second), BlockState::Lost);
    assert_eq!(map.state(third), BlockState::InUse);
    assert!(map.is_disputed(third) && !map.is_disputed(first));
    assert_eq!(map.state(id(PAGE)), BlockState::Free);
    assert_eq!(
        (map.listed_in(0), map.lost_in(0), map.listed_in(1)),
        (1, 2, 0)
    );
    map.unlist(0);
    assert_eq!((map.listed_in(0), map.state(first)), (0, BlockState::Lost));
}

#[test]
fn columns_of_neighbours_do_not_touch() {
    let map = map((0..50).map(|page| slab(page * PAGE, 100, 1 + page as u32 % 70)));
    map.mark_listed(map.block_at(at(7 * PAGE)).unwrap().0.id);
    let extent = map.extent(7).unwrap();
    for slot in 0..extent.blocks() {
        map.mark_listed(extent.block(7, slot).unwrap().id);
    }
    for row in 0..50 {
        let expected = if row == 7 { 8 } else { 0 };
        assert_eq!(map.listed_in(row), expected, "{row}");
    }
}

#[test]
fn bits_count_as_a_list_of_booleans_does() {
    let mut random = fastrand::Rng::with_seed(2);
    for _ in 0..300 {
        let count = random.u64(1..500);
        let bits = Bits::new(count);
        let mut naive = vec![false; count as usize];
        for _ in 0..random.usize(0..400) {
            let index = random.u64(0..count);
            if random.u8(0..4) == 0 {
                bits.clear(index);
                naive[index as usize] = false;
            } else {
                let before = std::mem::replace(&mut naive[index as usize], true);
                assert_eq!(bits.test_and_set(index), before);
            }
        }
        for _ in 0..50 {
            let first = random.u64(0..count);
            let length = random.u64(0..=count - first);
            let range = first as usize..(first + length) as usize;
            let set = naive[range].iter().filter(|bit| **bit).count() as u64;
            assert_eq!(bits.count(first, length), set, "{first} {length}");
        }
        assert_eq!(
            bits.count(0, u64::MAX),
            naive.iter().filter(|bit| **bit).count() as u64
        );
    }
}

#[test]
fn chunks_lie_between_their_headers() {
    let layout = ChunkLayout { lead: 16, spill: 8 };
    let mut first = Chunks::new(layout, 0x200);
    for offset in [0u64, 0x20, 0x60] {
        first.set(offset);
    }
    let mut second = Chunks::new(layout, 0x100);
    second.set(0);
    let mut builder = MapBuilder::new(40);
    builder.add_chunks(at(0x1200), 0x100, second);
    builder.add_chunks(at(0x1000), 0x200, first);
    let (map, _, overlaps) = builder.finish();
    assert_eq!(overlaps, 0);

    let block = |address| {
        let (block, offset) = map.block_at(at(address))?;
        assert_eq!(map.block(block.id), Some(block));
        assert_eq!(map.chunk_at(at(block.address.get() - 16)), Some(block.id));
        Some((block.address.get(), block.bytes, offset))
    };
    assert_eq!(block(0x1008), None, "a size word is nobody's");
    assert_eq!(block(0x1010), Some((0x1010, 0x18, 0)));
    assert_eq!(block(0x1027), Some((0x1010, 0x18, 0x17)), "spills over");
    assert_eq!(block(0x1028), None);
    assert_eq!(block(0x1030), Some((0x1030, 0x38, 0)));
    assert_eq!(block(0x11ff), Some((0x1070, 0x198, 0x18f)));
    assert_eq!(block(0x1210), Some((0x1210, 0xf8, 0)));
    assert_eq!(block(0x1300), Some((0x1210, 0xf8, 0xf0)), "behind the run");
    assert_eq!(block(0x1307), Some((0x1210, 0xf8, 0xf7)));
    assert_eq!(block(0x1308), None);
    assert_eq!(map.chunk_at(at(0x1010)), None);

    let before = |address| {
        let (block, _) = map.block_at(at(address)).unwrap();
        map.block_before(block).map(|block| block.address.get())
    };
    assert_eq!(before(0x1010), None);
    assert_eq!(before(0x1030), Some(0x1010));
    assert_eq!(before(0x1210), Some(0x1070), "in the extent before");
    let chunk = map.chunk_at(at(0x1020)).unwrap();
    assert!(!map.mark_listed(chunk));
    assert!(map.is_listed(chunk));
    assert_eq!(map.listed_in(0), 1);
}

/// What each byte of a heap is, block by block: in use, free, lost, the allocator's own.
fn sums_of(map: &HeapMap) -> [u64; 4] {
    let mut sums = [0; 4];
    for (row, extent) in (0u32..).zip(map.extents()) {
        let mut blocks = 0;
        for slot in 0..extent.blocks() {
            let block = extent.block(row, slot).unwrap();
            let place = match map.state(block.id) {
                BlockState::InUse => 0,
                BlockState::Free => 1,
                BlockState::Lost => 2,
            };
            sums[place] += block.bytes;
            blocks += block.bytes;
        }
        sums[3] += extent.bytes - blocks;
    }
    sums
}

#[test]
fn a_sketch_has_every_byte_once_and_no_more_pieces_than_asked_for() {
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..200 {
        let map = map(random_extents(&mut random));
        for (row, extent) in (0u32..).zip(map.extents()) {
            for slot in 0..extent.blocks() {
                let id = BlockId { extent: row, slot };
                match random.u8(0..4) {
                    0 => drop(map.mark_listed(id)),
                    1 => map.mark_lost(id),
                    _ => {}
                }
            }
        }
        let most = [1, 7, 64, 1024][round % 4];
        let sketch = map.sketch(most);
        let pieces = &sketch.pieces;
        assert!(pieces.len() <= most, "{} of {most}", pieces.len());
        assert!(pieces.is_sorted_by(|a, b| a.start < b.start));
        let sum = |of: fn(&Piece) -> u64| pieces.iter().map(of).sum::<u64>();
        let sums = [
            sum(|it| it.in_use),
            sum(|it| it.free),
            sum(|it| it.lost),
            sum(|it| it.metadata),
        ];
        assert_eq!(sums, sums_of(&map));
        for piece in pieces {
            let all = piece.in_use + piece.free + piece.lost + piece.metadata;
            assert!(piece.start % sketch.piece_bytes == 0);
            assert!((1..=sketch.piece_bytes).contains(&all), "{piece:?}");
        }
    }
}

#[test]
fn what_was_given_back_is_in_no_sketch_and_chunks_are_with_their_headers() {
    let layout = ChunkLayout { lead: 16, spill: 8 };
    let mut chunks = Chunks::new(layout, 0x3000);
    for offset in [0, 0x40, 0x1000] {
        chunks.set(offset);
    }
    let mut builder = MapBuilder::new(12);
    builder.add_chunks(at(0x10000), 0x3000, chunks);
    let mut returned = extent(0x20000, 0x1000, Shape::Single);
    returned.owner = Owner::Returned;
    builder.extend([returned]);
    let (map, ..) = builder.finish();
    let id = map.chunk_at(at(0x11000)).unwrap();
    map.mark_listed(id);
    let sketch = map.sketch(64);
    assert_eq!(sketch.piece_bytes, 0x1000);
    let found: Vec<_> = sketch
        .pieces
        .iter()
        .map(|it| (it.start, it.in_use, it.free, it.largest_free))
        .collect();
    assert_eq!(
        found,
        [
            (0x10000, 0x1000, 0, 0),
            (0x11000, 0, 0x1000, 0x2000),
            (0x12000, 0, 0x1000, 0),
        ]
    );
}
