//! Blocks in use by what they hold.

use std::collections::BTreeMap;

use ground::parallel;
use ground::target::Address;
use heaps::graph::roots::Ranges;
use heaps::map::{Block, BlockState, Extent, Shape};

use super::blocks;
use crate::analysis::HeapAnalysis;
use crate::graph::{CountedType, Ground};
use crate::types::{Place, Type};

/// Types that a report has; what is beyond counts as one row without a type.
pub const MAX_TYPES: usize = 10_000;
/// Extents that are looked at by one worker at a time.
const EXTENTS: usize = 256;

/// Blocks in use of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeRow {
    /// The type; `None` for blocks that show none.
    pub type_of: Option<Type>,
    /// How many.
    pub blocks: u64,
    /// All their usable bytes.
    pub bytes: u64,
    /// Usable bytes of the largest.
    pub largest: u64,
    /// The lowest of them.
    pub example: Address,
}

#[derive(Clone, Copy)]
struct Sum {
    blocks: u64,
    bytes: u64,
    largest: u64,
    example: Address,
}

type Sums<Key> = BTreeMap<Key, Sum>;

/// All of them, those with most bytes first: they add up to what is in use.
pub fn find(ground: &Ground<'_>) -> Vec<TypeRow> {
    let mut all: Sums<Option<Type>> = Sums::new();
    for heap in &ground.analysis.heaps {
        let own = Ranges::new(heap.heap.own_memory());
        let extents: Vec<(usize, &[Extent])> =
            heap.map.extents().chunks(EXTENTS).enumerate().collect();
        let parts = parallel::map(&extents, |(group, extents)| {
            let first = group.saturating_mul(EXTENTS);
            part(ground, heap, &own, (first, extents))
        });
        for (key, sum) in parts.into_iter().flatten() {
            let type_of = match key {
                CountedType::Told(type_of) => type_of,
                CountedType::Numbered(number) => ground
                    .typed()
                    .and_then(|typed| typed.numbered(number).cloned()),
            };
            let is_full = all.len() >= MAX_TYPES && !all.contains_key(&type_of);
            add(&mut all, type_of.filter(|_| !is_full), sum);
        }
    }
    let mut rows: Vec<TypeRow> = all
        .into_iter()
        .map(|(type_of, sum)| TypeRow {
            type_of,
            blocks: sum.blocks,
            bytes: sum.bytes,
            largest: sum.largest,
            example: sum.example,
        })
        .collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.bytes));
    rows
}

/// Of a few extents, the first of which has this number. What the allocator has for itself (`own`) is nobody's block.
fn part(
    ground: &Ground<'_>,
    heap: &HeapAnalysis<'_>,
    own: &Ranges,
    (first, extents): (usize, &[Extent]),
) -> Sums<CountedType> {
    let mut sums = Sums::new();
    for (index, extent) in extents.iter().enumerate() {
        let Ok(row) = u32::try_from(first.saturating_add(index)) else {
            continue;
        };
        if extent.shape == Shape::Metadata {
            continue;
        }
        blocks::each(&heap.map, row, extent, |block, state| {
            if state == BlockState::InUse && !own.contains(block.address) {
                count(&mut sums, block, ground);
            }
        });
    }
    sums
}

fn count(sums: &mut Sums<CountedType>, block: Block, ground: &Ground<'_>) {
    let key = ground.counted_type(Place {
        address: block.address,
        bytes: block.bytes,
        state: BlockState::InUse,
    });
    let sum = Sum {
        blocks: 1,
        bytes: block.bytes,
        largest: block.bytes,
        example: block.address,
    };
    let is_full = sums.len() >= MAX_TYPES && !sums.contains_key(&key);
    let key = if is_full {
        CountedType::Told(None)
    } else {
        key
    };
    add(sums, key, sum);
}

fn add<Key: Ord>(sums: &mut Sums<Key>, key: Key, sum: Sum) {
    let known = sums.entry(key).or_insert(Sum {
        blocks: 0,
        bytes: 0,
        ..sum
    });
    known.blocks = known.blocks.saturating_add(sum.blocks);
    known.bytes = known.bytes.saturating_add(sum.bytes);
    known.largest = known.largest.max(sum.largest);
    known.example = known.example.min(sum.example);
}
