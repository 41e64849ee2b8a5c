//! Arenas, and the memory that jemalloc keeps for itself.
//!
//! ```text
//! arenas[index] ──> arena_t ──> base_t ──> base block ──> base block ──> 0
//! ```
//!
//! A base and its arena lie in the first of the base's own blocks, which proves both. Everything that describes the
//! heap (extents, tree nodes, arenas, bins) lies in blocks of some base.

use std::collections::BTreeSet;
use std::ops::Range;

use super::layout::Layout;
use super::sizes::PAGE;
use crate::allocators::books::Suspect;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Value};
use ground::target::{Address, Fault, MemoryExt, TargetMemory};

/// Arenas that can exist.
pub const MAX_ARENAS: u64 = 4095;
/// Blocks of one base.
const MAX_BLOCKS: usize = 1 << 12;
/// Places that are searched for a block: those of 1 TiB.
const MAX_PLACES: usize = 1 << 19;
/// Arenas begin this near their bases at most.
const MAX_ARENA_OFFSET: u64 = 0x4000;
/// Words that lead nowhere and are remembered.
const MAX_BROKEN: usize = 16;
/// Bytes of a block's own header: the base comes first behind it.
const BLOCK_HEADER: u64 = 0xc0;
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

/// All arenas and their bases' blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arenas {
    /// By index.
    pub rows: Vec<Arena>,
    /// Words of `arenas`, and of arenas, that lead nowhere.
    pub broken: Vec<Suspect>,
    /// A part of `arenas`, or of what leads to an arena's own memory, is not in the core: there may be more of both.
    pub is_cut: bool,
    /// Blocks of all bases, by address.
    blocks: Vec<Range<Address>>,
    /// The arenas that these belong to, by index.
    owners: Vec<u16>,
}

impl Arenas {
    /// Reads the array at `slots`.
    pub fn read(memory: &dyn TargetMemory, layout: &Layout, slots: Address) -> Self {
        let mut out = Self::default();
        let mut is_absent = false;
        for index in 0..MAX_ARENAS {
            let Some(at) = slots.checked_add(index.saturating_mul(8)) else {
                break;
            };
            let found = match memory.read_pointer(at) {
                Ok(found) => found,
                Err(fault) => {
                    is_absent = !matches!(fault, Fault::Unmapped(_));
                    out.is_cut |= is_absent;
                    break;
                }
            };
            if found.is_null() {
                continue;
            }
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            let fits = |arena: &Arena| arena.index == index;
            if let Some(arena) = arena_at(memory, layout, found).filter(fits) {
                out.add(memory, layout, arena);
            } else if memory.is_absent(Address::new(found.get() & !(BLOCK_ALIGNMENT - 1))) {
                out.is_cut = true; // its base is not there
            } else if out.broken.len() < MAX_BROKEN {
                out.mend(memory, layout, (index, at, found));
            }
        }
        if !out.rows.is_empty() {
            out.add_unnamed(memory, layout, slots);
        }
        if is_absent {
            // The variables before it may have been taken for its start.
            out.broken.clear();
        }
        for arena in out.rows.clone() {
            out.check_map(memory, layout, arena);
        }
        let blocks = out.blocks.drain(..).zip(out.owners.drain(..));
        let mut blocks: Vec<(Range<Address>, u16)> = blocks.collect();
        blocks.sort_by_key(|(block, owner)| (block.start, block.end, *owner));
        blocks.dedup_by(|one, other| one.0 == other.0);
        (out.blocks, out.owners) = blocks.into_iter().unzip();
        out
    }

    fn add(&mut self, memory: &dyn TargetMemory, layout: &Layout, arena: Arena) {
        for block in blocks_of(memory, layout, arena.base).unwrap_or_default() {
            self.is_cut |= memory.is_absent(block.start);
            self.blocks.push(block);
            self.owners.push(arena.index);
        }
        self.rows.push(arena);
    }

    /// Adds arenas that `arenas` has null for: of one that was destroyed nothing is left, and of one that is being made
    /// somebody is making it.
    fn add_unnamed(&mut self, memory: &dyn TargetMemory, layout: &Layout, slots: Address) {
        let known: BTreeSet<u16> = self.rows.iter().map(|arena| arena.index).collect();
        for block in places(memory) {
            let Some(arena) = index_of_block(memory, block)
                .filter(|index| !known.contains(index))
                .and_then(|index| arena_of_block(memory, layout, block, index))
            else {
                continue;
            };
            let slot = slots.saturating_add(u64::from(arena.index) * 8);
            let is_new = self.rows.iter().all(|row| row.index != arena.index);
            let is_null = match memory.read_pointer(slot) {
                Ok(found) => found.is_null(),
                // `arenas` would lead to it.
                Err(_) if is_new => {
                    self.add(memory, layout, arena);
                    continue;
                }
                Err(_) => continue,
            };
            if is_null && is_new && self.broken.len() < MAX_BROKEN {
                self.broken.push(Suspect {
                    word: BrokenWord {
                        of: arena.at,
                        at: slot,
                        what: Field::WordOfArenas,
                        expected: Expected::Exactly(arena.at.into(), Reason::ArenaOfThisIndex),
                        found: Address::default().into(),
                    },
                    // Threads are counted after it stands in `arenas`.
                    impossible: memory.read_u64(arena.at).is_ok_and(|threads| threads != 0),
                });
                self.add(memory, layout, arena);
            }
        }
        self.rows.sort_by_key(|arena| arena.index);
    }

    /// All arenas of 5.3 name the page map, which begins with the base of arena 0.
    fn check_map(&mut self, memory: &dyn TargetMemory, layout: &Layout, arena: Arena) {
        let Some(offset) = layout.arena.map else {
            return;
        };
        let word = |arena: Address| memory.read_pointer(arena.saturating_add(offset));
        let (Some(first), Ok(map)) = (self.rows.first(), word(arena.at)) else {
            return;
        };
        let Ok(first) = word(first.at) else { return };
        // It begins with the base of arena 0.
        let is_map = |map| {
            memory
                .read_pointer(map)
                .is_ok_and(|base| self.is_base(base))
        };
        if self.broken.len() < MAX_BROKEN && (map != first || !is_map(map)) && !is_map(map) {
            self.broken.push(Suspect {
                word: BrokenWord {
                    of: arena.at,
                    at: arena.at.saturating_add(offset),
                    what: Field::PaShardEmap,
                    expected: Expected::Is(Property::PageMap),
                    found: map.into(),
                },
                impossible: true,
            });
        }
    }

    fn is_base(&self, at: Address) -> bool {
        self.rows.iter().any(|arena| arena.base == at)
    }

    /// What a word of `arenas` should lead to, or why it does not.
    fn mend(
        &mut self,
        memory: &dyn TargetMemory,
        layout: &Layout,
        (index, slot, found): (u16, Address, Address),
    ) {
        let broken = |of, at, what, expected, found, impossible| Suspect {
            word: BrokenWord {
                of,
                at,
                what,
                expected,
                found,
            },
            impossible,
        };
        // The arena is there: its base, or the index that it has itself, was written over.
        let block = Address::new(found.get() & !(BLOCK_ALIGNMENT - 1));
        let beside = arena_of_block(memory, layout, block, index);
        if beside.is_none()
            && let Some(base) = base_of_block(memory, layout, block, index)
            && found.is_aligned(64)
            && found > base
            && found.get().saturating_sub(base.get()) < MAX_ARENA_OFFSET
        {
            let word = found.saturating_add(layout.arena.base);
            let named = memory.read_pointer(word).unwrap_or_default();
            let own = layout.arena.index.map(|offset| {
                let at = found.saturating_add(offset);
                (at, memory.read_u32(at).unwrap_or(u32::MAX))
            });
            let right_index = own.is_none_or(|(_, own)| own == u32::from(index));
            match own {
                Some((at, own)) if named == base && !right_index => {
                    let expected = Expected::number(index.into());
                    let held = Value::Number(own.into());
                    // 5.3.1 publishes a new arena first and numbers it then; no thread is counted before.
                    let impossible = own != 0 || memory.read_u64(found) != Ok(0);
                    self.broken.push(broken(
                        found,
                        at,
                        Field::ArenaInd,
                        expected,
                        held,
                        impossible,
                    ));
                }
                _ => {
                    let expected = Expected::word(base.get());
                    let held = named.into();
                    self.broken
                        .push(broken(found, word, Field::ArenaBase, expected, held, true));
                }
            }
            if named == base || right_index {
                let at = found;
                self.add(memory, layout, Arena { index, at, base });
                return;
            }
            self.broken.pop();
        }
        let lost = beside.or_else(|| lost_arena(memory, layout, index));
        let expected = match lost {
            Some(arena) => Expected::Exactly(arena.at.into(), Reason::ArenaOfThisIndex),
            None => Expected::Is(Property::ArenaInItsBaseOrNull),
        };
        self.broken.push(broken(
            lost.map_or(slot, |arena| arena.at),
            slot,
            Field::WordOfArenas,
            expected,
            found.into(),
            lost.is_some(),
        ));
        if let Some(arena) = lost {
            self.add(memory, layout, arena);
        }
    }

    /// The arena whose own memory holds an address: every descriptor lies in memory of the arena that its extent is of.
    pub fn holder(&self, at: Address) -> Option<u16> {
        self.owners.get(self.block_at(at)?).copied()
    }

    /// The block of a base that holds an address.
    fn block_at(&self, at: Address) -> Option<usize> {
        let after = self.blocks.partition_point(|block| block.start <= at);
        let index = after.checked_sub(1)?;
        (at < self.blocks.get(index)?.end).then_some(index)
    }

    /// Words of an array of arenas at `slots` that are neither null nor an arena at its own index. One that is not in the core may
    /// be any.
    pub fn strangers(memory: &dyn TargetMemory, layout: &Layout, slots: Address) -> u64 {
        let is_stranger = |index: u64| {
            let word = slots
                .checked_add(index.saturating_mul(8))
                .and_then(|at| memory.read_pointer(at).ok())
                .unwrap_or_default();
            !word.is_null()
                && !memory.is_absent(word)
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
        self.block_at(at).is_some()
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
    let named = at.checked_add(layout.arena.base)?;
    let base = match memory.read_pointer(named) {
        Ok(base) => base,
        // It begins its block, whoever names it.
        Err(_) if memory.is_absent(named) => block.checked_add(BLOCK_HEADER)?,
        Err(_) => return None,
    };
    let near = base.get() & !(BLOCK_ALIGNMENT - 1) == block.get();
    if !near || !base.is_aligned(64) || base == at {
        return None;
    }
    let index = memory.read_u32(base).ok()?;
    if let Some(offset) = layout.arena.index {
        let own = at.checked_add(offset)?;
        if memory.read_u32(own) != Ok(index) && !memory.is_absent(own) {
            return None;
        }
    }
    let blocks = blocks_of(memory, layout, base)?;
    let inside = |at| blocks.iter().any(|block| block.contains(&at));
    (u64::from(index) < MAX_ARENAS && inside(at) && inside(base)).then_some(Arena {
        index: u16::try_from(index).ok()?,
        at,
        base,
    })
}

/// The index of the arena whose base may be at the beginning of a block.
fn index_of_block(memory: &dyn TargetMemory, block: Address) -> Option<u16> {
    let bytes = memory.read_u64(block).ok()?;
    let index = memory.read_u32(block.checked_add(BLOCK_HEADER)?).ok()?;
    let sound = bytes != 0 && bytes % BLOCK_ALIGNMENT == 0 && u64::from(index) < MAX_ARENAS;
    sound.then(|| u16::try_from(index).ok())?
}

/// The base at the beginning of a block, if it is that of the arena with this index.
fn base_of_block(
    memory: &dyn TargetMemory,
    layout: &Layout,
    block: Address,
    index: u16,
) -> Option<Address> {
    let base = block.checked_add(BLOCK_HEADER)?;
    if memory.read_u32(base).ok()? != u32::from(index) {
        return None;
    }
    let blocks = blocks_of(memory, layout, base)?;
    let inside = blocks.iter().any(|range| range.contains(&base));
    inside.then_some(base)
}

/// The arena behind a base at the beginning of a block, if all that it says of itself is right.
fn arena_of_block(
    memory: &dyn TargetMemory,
    layout: &Layout,
    block: Address,
    index: u16,
) -> Option<Arena> {
    let base = base_of_block(memory, layout, block, index)?;
    let is_whole = |at: &Address| {
        let names_base = arena_at(memory, layout, *at).is_some_and(|arena| arena.base == base);
        let map = layout.arena.map.map(|offset| at.saturating_add(offset));
        let map = map.map(|word| memory.read_pointer(word).unwrap_or_default());
        names_base
            && map.is_none_or(|map| memory.read_pointer(map).is_ok_and(|base| !base.is_null()))
    };
    let places =
        (1..MAX_ARENA_OFFSET / 64).map(|step| base.saturating_add(step.saturating_mul(64)));
    let at = places.into_iter().find(is_whole)?;
    Some(Arena { index, at, base })
}

/// An arena that `arenas` does not lead to: the block that it lies in says whose it is.
fn lost_arena(memory: &dyn TargetMemory, layout: &Layout, index: u16) -> Option<Arena> {
    places(memory).find_map(|block| arena_of_block(memory, layout, block, index))
}

/// Where base blocks may begin.
fn places(memory: &dyn TargetMemory) -> impl Iterator<Item = Address> {
    let regions = memory.regions().iter().filter(|region| region.writable);
    let blocks = regions.flat_map(|region| {
        let first = region.range.start.get().next_multiple_of(BLOCK_ALIGNMENT);
        let step = usize::try_from(BLOCK_ALIGNMENT).unwrap_or(usize::MAX);
        (first..region.range.end.get()).step_by(step)
    });
    blocks.take(MAX_PLACES).map(Address::new)
}

/// Arena 0, whatever leads to it: by what it says of itself, or by its page caches in the first block of its base.
pub fn lone_arena(memory: &dyn TargetMemory, layout: &Layout) -> Option<Address> {
    places(memory).find_map(|block| {
        let base = base_of_block(memory, layout, block, 0)?;
        let beside =
            (1..MAX_ARENA_OFFSET / 64).map(|step| base.saturating_add(step.saturating_mul(64)));
        beside.into_iter().find(|at| {
            let states = layout
                .arena
                .pages
                .iter()
                .zip(1u32..)
                .filter(|(offset, state)| {
                    let at = at.saturating_add((**offset).saturating_add(layout.pages.state));
                    memory.read_u32(at) == Ok(*state)
                });
            states.count() == layout.arena.pages.len()
        })
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
        if memory.is_absent(at) {
            // As far as it is known: what it leads to is not, but for the first of all, in which the base lies.
            let first = Address::new(base.get() & !(BLOCK_ALIGNMENT - 1));
            let bytes = memory.read_u64(first).ok()?;
            blocks.push(at..at.checked_add(BLOCK_ALIGNMENT)?);
            if blocks.iter().all(|block| block.start != first) && (1..MAX_BYTES).contains(&bytes) {
                blocks.push(first..first.checked_add(bytes)?);
            }
            break;
        }
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
        bytes != 0
            && bytes % PAGE == 0
            && word.saturating_sub(block.get()) < bytes
            && bytes < 1 << 40
    })
}
