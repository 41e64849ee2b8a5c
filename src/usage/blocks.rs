//! Blocks by size, the largest ones, and what could be given back: of all heaps, from their maps.

use std::collections::{BTreeMap, BTreeSet};

use ground::parallel;
use ground::target::{Address, TargetMemory};
use heaps::allocators::{Family, SizeClassRow, SizeRange};
use heaps::map::{Block, BlockId, BlockState, Extent, HeapMap, Owner, Shape};

use crate::analysis::{Analysis, HeapAnalysis};

/// Blocks that are kept as the largest.
pub const MAX_LARGEST: usize = 32;
/// Sizes without a class that are told apart in one heap; where there are more, ranges of sizes stand for them.
const MAX_SIZES: usize = 1 << 16;
/// Extents that are looked at by one worker at a time.
const EXTENTS: usize = 256;

/// Blocks of one size, or of a range of sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Index of the heap.
    pub heap: usize,
    /// The blocks, as a heap counts them.
    pub row: SizeClassRow,
}

/// A block in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Large {
    /// Index of the heap.
    pub heap: usize,
    /// Its address.
    pub at: Address,
    /// Its usable bytes.
    pub bytes: u64,
}

/// Free memory of the heaps, in bytes, by what keeps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimable {
    /// Whole pages that hold something: trimming gives them back.
    pub trim: u64,
    /// Free blocks, or parts of them, in pages that are in use.
    pub fragmented: u64,
    /// Blocks that caches hold.
    pub cached: u64,
    /// Pages that the system has back already, or that nobody wrote to.
    pub untouched: u64,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Blocks {
    /// By heap, then by size, rising: blocks and bytes add up to the heaps' statistics.
    pub sizes: Vec<Size>,
    /// The largest blocks in use.
    pub largest: Vec<Large>,
    /// Of all heaps together.
    pub reclaimable: Reclaimable,
}

/// Numbers of blocks in use, free and lost.
type Counts = [u64; 3];

/// What a few extents hold.
#[derive(Default)]
struct Part {
    /// Blocks that are not of their extent's class, by size.
    loose: BTreeMap<u64, Counts>,
    /// Of those, blocks of extents that their owner has cut.
    handed: BTreeMap<u64, Counts>,
    is_full: bool,
    largest: Vec<(u64, Address)>,
    trim: u64,
    untouched: u64,
}

/// Looks at all blocks.
pub fn survey(memory: &dyn TargetMemory, analysis: &Analysis<'_>) -> Blocks {
    let mut all = Blocks::default();
    for (index, heap) in analysis.heaps.iter().enumerate() {
        let extents: Vec<(usize, &[Extent])> =
            heap.map.extents().chunks(EXTENTS).enumerate().collect();
        let parts = parallel::map(&extents, |(group, extents)| {
            let first = group.saturating_mul(EXTENTS);
            part(memory, heap, first, extents)
        });
        let mut whole = Part::default();
        for part in parts {
            whole.add(part);
        }
        sizes(index, heap, &whole, &mut all.sizes);
        let largest = whole.largest.iter();
        all.largest.extend(largest.map(|(bytes, at)| Large {
            heap: index,
            at: *at,
            bytes: *bytes,
        }));
        let free = heap.statistics.coverage.free;
        let trim = whole.trim.min(free);
        let untouched = whole.untouched.min(free.saturating_sub(trim));
        let rest = free.saturating_sub(trim).saturating_sub(untouched);
        let cached = heap.statistics.cached_bytes.min(rest);
        let sum = &mut all.reclaimable;
        sum.trim = sum.trim.saturating_add(trim);
        sum.untouched = sum.untouched.saturating_add(untouched);
        sum.cached = sum.cached.saturating_add(cached);
        sum.fragmented = sum.fragmented.saturating_add(rest.saturating_sub(cached));
    }
    all.largest
        .sort_by_key(|block| (std::cmp::Reverse(block.bytes), block.at));
    all.largest.truncate(MAX_LARGEST);
    all
}

fn part(
    memory: &dyn TargetMemory,
    heap: &HeapAnalysis<'_>,
    first: usize,
    extents: &[Extent],
) -> Part {
    let map = &heap.map;
    let page = memory.abi().page_bytes.clamp(512, 1 << 16);
    let mut out = Part::default();
    for (index, extent) in extents.iter().enumerate() {
        let Ok(row) = u32::try_from(first.saturating_add(index)) else {
            continue;
        };
        let is_cut = extent.owner == Owner::InUse;
        match extent.shape {
            Shape::Metadata => {}
            Shape::Slab { stride, count } => {
                if is_cut && out.may_be_large(stride.into()) {
                    for slot in 0..count {
                        let id = BlockId { extent: row, slot };
                        if let Some(block) = extent.block(row, slot)
                            && map.state(id) == BlockState::InUse
                        {
                            out.large(block);
                        }
                    }
                }
            }
            Shape::Single => {
                let Some(block) = extent.block(row, 0) else {
                    continue;
                };
                match extent.owner {
                    Owner::InUse => out.count(block, map.state(block.id), is_cut),
                    // The chunk behind all others is nobody's block.
                    _ if heap.identity.family == Family::Ptmalloc => {}
                    _ => out.count(block, BlockState::Free, is_cut),
                }
                match extent.owner {
                    Owner::InUse => {}
                    Owner::Returned => out.untouched = out.untouched.saturating_add(block.bytes),
                    Owner::Free => out.pages(memory, page, block.address, extent.end()),
                }
            }
            Shape::Chunks { .. } => {
                chunks(map, row, extent, |block, state| {
                    out.count(block, state, is_cut);
                    // The first words of a free chunk are links.
                    const LINKS: u64 = 32;
                    if state == BlockState::Free && block.bytes >= page {
                        let end = block.address.saturating_add(block.bytes);
                        out.pages(memory, page, block.address.saturating_add(LINKS), end);
                    }
                });
            }
        }
    }
    out
}

/// Every block of an extent that its owner has cut or handed out, with its state.
pub fn each(map: &HeapMap, row: u32, extent: &Extent, mut visit: impl FnMut(Block, BlockState)) {
    match extent.shape {
        Shape::Metadata => {}
        Shape::Single | Shape::Slab { .. } if extent.owner != Owner::InUse => {}
        Shape::Single => {
            if let Some(block) = extent.block(row, 0) {
                visit(block, map.state(block.id));
            }
        }
        Shape::Slab { count, .. } => {
            for slot in 0..count {
                if let Some(block) = extent.block(row, slot) {
                    visit(block, map.state(block.id));
                }
            }
        }
        Shape::Chunks { .. } => chunks(map, row, extent, visit),
    }
}

/// Every chunk of a run.
fn chunks(map: &HeapMap, row: u32, extent: &Extent, mut visit: impl FnMut(Block, BlockState)) {
    /// What is smaller is a fencepost: it has no block.
    const MIN_BYTES: u64 = 24;
    let Some(chunks) = map.chunks(extent) else {
        return;
    };
    let mut next = chunks.is_start(0).then_some(0).or_else(|| chunks.after(0));
    while let Some(slot) = next {
        let id = BlockId { extent: row, slot };
        if let Some(block) = map.block(id).filter(|block| block.bytes >= MIN_BYTES) {
            visit(block, map.state(id));
        }
        next = chunks.after(slot);
    }
}

impl Part {
    fn count(&mut self, block: Block, state: BlockState, is_handed: bool) {
        let place = match state {
            BlockState::InUse => 0,
            BlockState::Free => 1,
            BlockState::Lost => 2,
        };
        if state == BlockState::InUse {
            self.large(block);
        }
        let mut add = |sizes: &mut BTreeMap<u64, Counts>| {
            if sizes.len() >= MAX_SIZES && !sizes.contains_key(&block.bytes) {
                self.is_full = true;
                return;
            }
            if let Some(count) = sizes.entry(block.bytes).or_default().get_mut(place) {
                *count = count.saturating_add(1);
            }
        };
        add(&mut self.loose);
        if is_handed {
            add(&mut self.handed);
        }
    }

    fn may_be_large(&self, bytes: u64) -> bool {
        self.largest.len() < MAX_LARGEST
            || self.largest.last().is_none_or(|(least, _)| bytes > *least)
    }

    fn large(&mut self, block: Block) {
        if !self.may_be_large(block.bytes) {
            return;
        }
        let place = self
            .largest
            .partition_point(|(bytes, _)| *bytes >= block.bytes);
        self.largest.insert(place, (block.bytes, block.address));
        self.largest.truncate(MAX_LARGEST);
    }

    /// Counts the whole pages of free memory: those that hold something, and those that are zero or absent.
    fn pages(&mut self, memory: &dyn TargetMemory, page: u64, start: Address, end: Address) {
        let first = start.get().checked_next_multiple_of(page);
        let Some(first) = first.map(Address::new).filter(|first| *first < end) else {
            return;
        };
        let mut at = first;
        while let Some(next) = at.checked_add(page).filter(|next| *next <= end) {
            let sum = match is_empty(memory, at, page) {
                true => &mut self.untouched,
                false => &mut self.trim,
            };
            *sum = sum.saturating_add(page);
            at = next;
        }
    }

    fn add(&mut self, other: Self) {
        self.is_full |= other.is_full;
        self.trim = self.trim.saturating_add(other.trim);
        self.untouched = self.untouched.saturating_add(other.untouched);
        for (into, from) in [
            (&mut self.loose, other.loose),
            (&mut self.handed, other.handed),
        ] {
            for (size, counts) in from {
                for (sum, count) in into.entry(size).or_default().iter_mut().zip(counts) {
                    *sum = sum.saturating_add(count);
                }
            }
            self.is_full |= into.len() > MAX_SIZES;
        }
        self.largest.extend(other.largest);
        self.largest
            .sort_by_key(|(bytes, at)| (std::cmp::Reverse(*bytes), *at));
        self.largest.truncate(MAX_LARGEST);
    }
}

/// Whether a page holds nothing, or is not in the core.
fn is_empty(memory: &dyn TargetMemory, at: Address, page: u64) -> bool {
    let Ok(window) = memory.window(at) else {
        return true;
    };
    let bytes = usize::try_from(page)
        .ok()
        .and_then(|page| window.bytes.get(..page));
    bytes.is_some_and(|bytes| {
        let (pieces, _) = bytes.as_chunks::<64>();
        pieces
            .iter()
            .all(|piece| piece.iter().fold(0, |all, byte| all | byte) == 0)
    })
}

/// Appends a heap's rows: ranges of sizes are told apart where what was counted is what the heap counts.
fn sizes(index: usize, heap: &HeapAnalysis<'_>, whole: &Part, out: &mut Vec<Size>) {
    let classes = &heap.statistics.size_classes;
    let exact: BTreeSet<u64> = classes
        .iter()
        .filter(|row| row.range.is_none())
        .map(|row| row.block_bytes)
        .collect();
    let mut rows: BTreeMap<(u64, Option<u64>), SizeClassRow> = BTreeMap::new();
    let mut add = |row: SizeClassRow| {
        let largest = row.range.map(|range| range.largest);
        let known = rows
            .entry((row.block_bytes, largest))
            .or_insert(SizeClassRow {
                block_bytes: row.block_bytes,
                range: row.range.map(|range| SizeRange {
                    largest: range.largest,
                    ..SizeRange::default()
                }),
                ..SizeClassRow::default()
            });
        known.in_use = known.in_use.saturating_add(row.in_use);
        known.free = known.free.saturating_add(row.free);
        known.lost = known.lost.saturating_add(row.lost);
        if let (Some(sum), Some(range)) = (&mut known.range, row.range) {
            sum.in_use = sum.in_use.saturating_add(range.in_use);
            sum.free = sum.free.saturating_add(range.free);
            sum.lost = sum.lost.saturating_add(range.lost);
        }
    };
    for row in classes {
        let Some(range) = row.range else {
            add(*row);
            continue;
        };
        let inside = row.block_bytes.min(range.largest)..=range.largest;
        let counted = |with_classes: bool| -> Vec<SizeClassRow> {
            let sizes = whole.loose.range(inside.clone());
            let rows = sizes.map(|(size, counts)| {
                // Blocks of a class's size are counted by the class.
                let of_class = whole
                    .handed
                    .get(size)
                    .filter(|_| !with_classes && exact.contains(size));
                let [in_use, free, lost] = [0usize, 1, 2].map(|place| {
                    let all = counts.get(place).copied().unwrap_or(0);
                    let own = of_class.and_then(|counts| counts.get(place)).copied();
                    all.saturating_sub(own.unwrap_or(0))
                });
                SizeClassRow {
                    block_bytes: *size,
                    in_use,
                    free,
                    lost,
                    range: None,
                }
            });
            rows.filter(|row| row.in_use + row.free + row.lost > 0)
                .collect()
        };
        let fits = |rows: &Vec<SizeClassRow>| {
            let sum = |of: &dyn Fn(&SizeClassRow) -> u64| {
                rows.iter().map(of).fold(0u64, u64::saturating_add)
            };
            sum(&|row| row.in_use) == row.in_use
                && sum(&|row| row.free) == row.free
                && sum(&|row| row.lost) == row.lost
                && sum(&|row| row.range().in_use) == range.in_use
                && sum(&|row| row.range().free) == range.free
                && sum(&|row| row.range().lost) == range.lost
        };
        let found = [true, false].into_iter().map(counted).find(fits);
        match found.filter(|_| !whole.is_full) {
            Some(rows) => rows.into_iter().for_each(&mut add),
            None => add(*row),
        }
    }
    out.extend(rows.into_values().map(|row| Size { heap: index, row }));
}
