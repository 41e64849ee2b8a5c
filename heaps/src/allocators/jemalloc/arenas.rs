//! Arenas, and the memory that jemalloc keeps for itself.
//!
//! ```text
//! arenas[index] ──> arena_t ──> base_t ──> base block ──> base block ──> 0
//! ```
//!
//! A base and its arena lie in the first of the base's own blocks, which proves both. Everything that describes the
//! heap (extents, tree nodes, arenas, bins) lies in blocks of some base.

use std::ops::Range;

use super::layout::Layout;
use super::sizes::PAGE;
use crate::target::{Address, MemoryExt, TargetMemory};

/// Arenas that can exist.
pub const MAX_ARENAS: u64 = 4095;
/// Blocks of one base.
const MAX_BLOCKS: usize = 1 << 12;
/// Base blocks begin at multiples of this.
const BLOCK_ALIGNMENT: u64 = 2 << 20;

/// An arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arena {
    /// Its place in `arenas`.
    pub index: u16,
    /// The `arena_t`.
    pub at: Address,
    /// Its `base_t`.
    pub base: Address,
}

/// A word of `arenas` that names no arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenSlot {
    /// The word.
    pub at: Address,
    /// What it holds.
    pub found: Address,
}

/// All arenas and their bases' blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arenas {
    /// By index.
    pub rows: Vec<Arena>,
    /// Words of `arenas` that name none.
    pub broken: Vec<BrokenSlot>,
    /// Blocks of all bases, by address.
    blocks: Vec<Range<Address>>,
}

impl Arenas {
    /// Reads the array at `slots`.
    pub fn read(memory: &dyn TargetMemory, layout: &Layout, slots: Address) -> Self {
        let mut out = Self::default();
        for index in 0..MAX_ARENAS {
            let Some(at) = slots.checked_add(index * 8) else {
                break;
            };
            let Ok(found) = memory.read_pointer(at) else {
                break;
            };
            if found.is_null() {
                continue;
            }
            match arena_at(memory, layout, found).filter(|arena| u64::from(arena.index) == index) {
                Some(arena) => {
                    out.blocks
                        .extend(blocks_of(memory, layout, arena.base).unwrap_or_default());
                    out.rows.push(arena);
                }
                None if out.broken.len() < 16 => out.broken.push(BrokenSlot { at, found }),
                None => {}
            }
        }
        out.blocks.sort_by_key(|block| (block.start, block.end));
        out.blocks.dedup();
        out
    }

    /// Words of an array of arenas at `slots` that are neither null nor an arena at its own index.
    pub fn strangers(memory: &dyn TargetMemory, layout: &Layout, slots: Address) -> u64 {
        let is_stranger = |index: u64| {
            let word = slots
                .checked_add(index * 8)
                .and_then(|at| memory.read_pointer(at).ok())
                .unwrap_or_default();
            !word.is_null()
                && arena_at(memory, layout, word)
                    .is_none_or(|arena| u64::from(arena.index) != index)
        };
        (0..MAX_ARENAS).filter(|index| is_stranger(*index)).count() as u64
    }

    /// The arena with this index.
    pub fn get(&self, index: u16) -> Option<&Arena> {
        let place = self
            .rows
            .binary_search_by_key(&index, |arena| arena.index)
            .ok()?;
        self.rows.get(place)
    }

    /// Whether an arena lies at `at`.
    pub fn is_arena(&self, at: Address) -> bool {
        self.rows.iter().any(|arena| arena.at == at)
    }

    /// Whether memory is the allocator's own.
    #[inline]
    pub fn is_own(&self, at: Address) -> bool {
        let after = self.blocks.partition_point(|block| block.start <= at);
        after
            .checked_sub(1)
            .and_then(|index| self.blocks.get(index))
            .is_some_and(|block| at < block.end)
    }

    /// Blocks of all bases, by address.
    pub fn blocks(&self) -> &[Range<Address>] {
        &self.blocks
    }
}

/// The arena at `at`, if it and its base prove each other.
pub fn arena_at(memory: &dyn TargetMemory, layout: &Layout, at: Address) -> Option<Arena> {
    if !at.is_aligned(64) || at.is_null() {
        return None;
    }
    // An arena begins in the first 2 MiB of the first block of its base, as the base does.
    let block = Address::new(at.get() & !(BLOCK_ALIGNMENT - 1));
    let base = memory
        .read_pointer(at.checked_add(layout.arena.base)?)
        .ok()?;
    let near = base.get() & !(BLOCK_ALIGNMENT - 1) == block.get();
    if !near || !base.is_aligned(64) || base == at {
        return None;
    }
    let index = memory.read_u32(base).ok()?;
    if let Some(offset) = layout.arena.index
        && memory.read_u32(at.checked_add(offset)?) != Ok(index)
    {
        return None;
    }
    let blocks = blocks_of(memory, layout, base)?;
    let inside = |at| blocks.iter().any(|block| block.contains(&at));
    (u64::from(index) < MAX_ARENAS && inside(at) && inside(base)).then_some(Arena {
        index: u16::try_from(index).ok()?,
        at,
        base,
    })
}

/// Blocks of a base, newest first. `None` if the chain makes no sense.
fn blocks_of(
    memory: &dyn TargetMemory,
    layout: &Layout,
    base: Address,
) -> Option<Vec<Range<Address>>> {
    /// More than any process keeps for this.
    const MAX_BYTES: u64 = 1 << 40;
    let mut blocks: Vec<Range<Address>> = Vec::new();
    let mut at = memory
        .read_pointer(base.checked_add(layout.base.blocks)?)
        .ok()?;
    while !at.is_null() && blocks.len() < MAX_BLOCKS {
        let bytes = memory.read_u64(at).ok()?;
        let end = at.checked_add(bytes)?;
        let sound = at.is_aligned(PAGE)
            && bytes != 0
            && bytes % PAGE == 0
            && bytes < MAX_BYTES
            && memory.region_at(end.checked_sub(1)?).is_some();
        if !sound || blocks.iter().any(|known| known.contains(&at)) {
            return None;
        }
        blocks.push(at..end);
        at = memory.read_pointer(at.checked_add(8)?).ok()?;
    }
    (!blocks.is_empty()).then_some(blocks)
}

/// Whether a word of a module's variables can name an arena at all: most cannot, and cost little.
pub fn may_be_arena(memory: &dyn TargetMemory, word: u64) -> bool {
    if !word.is_multiple_of(64) || word < BLOCK_ALIGNMENT {
        return false;
    }
    let block = Address::new(word & !(BLOCK_ALIGNMENT - 1));
    memory.read_u64(block).is_ok_and(|bytes| {
        bytes != 0 && bytes % PAGE == 0 && word - block.get() < bytes && bytes < 1 << 40
    })
}
