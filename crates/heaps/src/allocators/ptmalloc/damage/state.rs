//! Arenas, heaps and top chunks.

use super::Inquiry;
use crate::allocators::ptmalloc::layout::{FLAGS, HEADER, MIN_CHUNK, PREV_INUSE};
use crate::allocators::ptmalloc::lists::Kind;
use crate::anomaly::{AnomalyKind, BrokenWord, Expected, Field, Property, Reason, Value};
use crate::map::Block;
use ground::target::{Address, MemoryExt};

impl Inquiry<'_, '_> {
    /// Says what is wrong with the arenas themselves.
    pub(super) fn state(&mut self) {
        for oddity in &self.heap.arenas.oddities {
            let busy = || self.heap.arena_busy(oddity.arena);
            let transient = oddity.passing.then(busy).flatten();
            self.push(
                AnomalyKind::Metadata {
                    word: oddity.word.clone(),
                    counts_only: false,
                },
                transient,
            );
        }
        self.flags_of_arenas();
        self.books_of_arenas();
        self.maps_of_bins();
        self.tops();
        self.parameters();
        self.threads();
    }

    fn flags_of_arenas(&mut self) {
        const KNOWN: u32 = 7;
        /// 2.22 to 2.26: malloc found the arena damaged and uses it no more.
        const CORRUPT: u32 = 4;
        for (index, arena) in self.heap.arenas.rows.iter().enumerate() {
            let given_up = arena.flags & CORRUPT != 0 && self.heap.located.releases.high <= 26;
            if arena.flags & !KNOWN == 0 && !given_up {
                continue;
            }
            let at = arena.at.saturating_add(4);
            let transient = self.heap.arena_busy(index);
            self.push(
                AnomalyKind::Metadata {
                    word: BrokenWord {
                        of: arena.at,
                        at,
                        what: Field::MallocStateFlags,
                        expected: Expected::Is(Property::KnownFlags),
                        found: if given_up {
                            Value::GivenUp(arena.flags.into())
                        } else {
                            Value::Word(arena.flags.into())
                        },
                    },
                    counts_only: false,
                },
                transient,
            );
        }
    }

    /// What every arena's words beside its lists must be.
    fn books_of_arenas(&mut self) {
        /// More threads than any system has.
        const MAX_THREADS: u64 = 1 << 22;
        let heap = self.heap;
        let layout = &heap.located.arena;
        // A child of fork may count those of its parent.
        let threads = match heap.vanished() {
            Some(_) => MAX_THREADS,
            None => heap.presences.count() as u64,
        };
        let mut known: Vec<Address> = heap.arenas.rows.iter().map(|row| row.at).collect();
        known.sort_unstable();
        let rows = heap.arenas.rows.iter().enumerate();
        for (index, arena) in rows.filter(|(_, row)| row.is_whole) {
            let word = |offset| heap.word(arena.at.saturating_add(offset)).unwrap_or(0);
            let next = Address::new(word(layout.next_free()));
            // Of a list that is broken not all arenas may be known.
            let is_known = known.binary_search(&next).is_ok() || !heap.arenas.oddities.is_empty();
            if !next.is_null() && !is_known {
                let expected = Expected::Is(Property::NullOrArena);
                let what = Field::MallocStateNextFree;
                let at = layout.next_free();
                self.book(index, at, what, expected, next.into(), false);
            }
            let most = word(layout.max_system_mem);
            let bytes = heap.arenas.bytes_of(index);
            if let Some(bytes) = bytes.filter(|bytes| *bytes != arena.system_mem) {
                let expected = Expected::Exactly(Value::Number(bytes), Reason::BytesOfItsMemory);
                let what = Field::MallocStateSystemMem;
                let found = Value::Number(arena.system_mem);
                self.book(index, layout.system_mem, what, expected, found, true);
            } else if most < arena.system_mem {
                let bytes = Value::Number(arena.system_mem);
                let expected = Expected::AtLeast(bytes, Reason::BytesOfTheArena);
                let what = Field::MallocStateMaxSystemMem;
                let at = layout.max_system_mem;
                self.book(index, at, what, expected, Value::Number(most), true);
            }
            if let (Some(at), Some(attached)) = (layout.attached, arena.attached)
                && attached > threads
                && threads > 0
            {
                let expected =
                    Expected::AtMost(Value::Number(threads), Reason::ThreadsThatThereAre);
                let found = Value::Number(attached);
                let what = Field::MallocStateAttachedThreads;
                self.book(index, at, what, expected, found, true);
            }
        }
    }

    /// A bin that holds chunks is marked so in its arena's map, or nothing would be taken from it.
    fn maps_of_bins(&mut self) {
        let heap = self.heap;
        let layout = &heap.located.arena;
        let mut said = None;
        for list in self.lists.iter().filter(|list| list.kind == Kind::Bin) {
            let Some(arena) = heap.arenas.rows.get(list.owner) else {
                continue;
            };
            let number = u64::from(list.index);
            let offset = layout
                .binmap
                .saturating_add((number / 32).saturating_mul(4));
            let map = heap.target.memory.read_u32(arena.at.saturating_add(offset));
            let marked = map.map_or(true, |map| map >> (number % 32) & 1 == 1);
            // A bin whose own words were written over is another matter.
            let holds_chunks = self.map.chunk_at(list.head).is_some()
                && self.word(list.head.saturating_add(24)) == Some(list.at.get());
            if number < 2 || marked || !holds_chunks {
                continue;
            }
            // One write of eight bytes spoils two words of the map, and many bins.
            let word = (list.owner, number / 64);
            if said.replace(word) == Some(word) {
                continue;
            }
            let expected = Expected::Is(Property::BitOfBin(number));
            let found = Value::Word(map.unwrap_or(0).into());
            let what = Field::MallocStateBinmap;
            self.book(list.owner, offset, what, expected, found, false);
        }
    }

    pub(super) fn book(
        &mut self,
        arena: usize,
        offset: u64,
        what: Field,
        expected: Expected,
        found: Value,
        counts_only: bool,
    ) {
        let Some(row) = self.heap.arenas.rows.get(arena) else {
            return;
        };
        let transient = self.heap.arena_busy(arena);
        let kind = AnomalyKind::Metadata {
            word: BrokenWord {
                of: row.at,
                at: row.at.saturating_add(offset),
                what,
                expected,
                found,
            },
            counts_only,
        };
        self.push(kind, transient);
    }

    /// Top chunks: their size must lead to the end of the arena's newest memory.
    fn tops(&mut self) {
        for region in self
            .heap
            .arenas
            .regions
            .iter()
            .filter(|region| region.has_top)
        {
            let arena = self.heap.arenas.rows.get(region.arena);
            let Some(arena) = arena.filter(|arena| arena.is_whole) else {
                continue;
            };
            let expected_end = self.heap.arenas.expected_end(region.arena);
            let wrong = match (arena.top_size, expected_end) {
                (None, _) => true,
                (Some(size), Some(end)) => arena.top.saturating_add(size) != end,
                (Some(_), None) => false,
            };
            let at = arena.top.saturating_add(8);
            let block = self.map.block_at(arena.top.saturating_add(HEADER));
            let (Some((block, 0)), Some(found), true) = (block, self.word(at), wrong) else {
                continue;
            };
            let before = arena
                .top
                .checked_sub(1)
                .and_then(|at| self.map.block_at(at))
                .map(|(block, _)| block);
            let expected = expected_end.and_then(|end| Some(end.offset_from(arena.top)? | 1));
            if self.broken.contains(&arena.top) {
                continue;
            }
            self.broken.insert(arena.top);
            // Whoever trims or grows it may have no address of it in hand: it is named by the arena.
            let transient = self.heap.arena_busy(region.arena);
            if let (Some(expected), Some(before)) = (expected, before)
                && may_have_been_cut(found, expected, arena.system_mem)
            {
                let candidates = self.that_reached_top(arena.top, before, found, expected);
                self.push(
                    AnomalyKind::RestSize {
                        block,
                        at,
                        what: Field::HeaderOfTop,
                        expected,
                        found,
                        before,
                        candidates,
                    },
                    transient,
                );
                continue;
            }
            self.push(
                AnomalyKind::Header {
                    block,
                    at,
                    what: Field::HeaderOfTop,
                    expected,
                    found,
                    before,
                },
                transient,
            );
        }
    }

    /// The blocks that ended where top began once and of which a write of the fewest bytes past the end leaves the difference
    /// that its size has now, the last ones first.
    fn that_reached_top(
        &self,
        top: Address,
        before: Block,
        found: u64,
        expected: u64,
    ) -> Vec<Block> {
        /// Blocks that are tried.
        const MAX_TRIED: usize = 64;
        /// Blocks that are named.
        const MAX_NAMED: usize = 3;
        let mut tried: Vec<(u32, Block)> = Vec::new();
        let (mut end, mut next) = (top, Some(before));
        for _ in 0..MAX_TRIED {
            let Some(block) = next else {
                break;
            };
            // Top's size at that time: what was cut off since is less now.
            let since = top.offset_from(end).unwrap_or(0);
            let change = found.wrapping_add(since) ^ expected.wrapping_add(since);
            // A cache's structure is written by malloc alone.
            if !self.is_cache(block.address) {
                tried.push((change.checked_ilog2().unwrap_or(0) / 8, block));
            }
            let Some(chunk) = block.address.checked_sub(HEADER) else {
                break;
            };
            end = chunk;
            next = self.map.block_before(block);
        }
        let fewest = tried.iter().map(|(bytes, _)| *bytes).min();
        let fits = tried
            .into_iter()
            .filter(|(bytes, _)| Some(*bytes) == fewest);
        fits.map(|(_, block)| block).take(MAX_NAMED).collect()
    }
}

/// Whether malloc may have cut blocks from a top chunk of such a size: it writes the flags anew when it does, and refuses sizes that
/// are more than the arena has.
fn may_have_been_cut(found: u64, expected: u64, system_mem: u64) -> bool {
    let size = found & !FLAGS;
    found != expected && found & FLAGS == PREV_INUSE && size >= MIN_CHUNK && size <= system_mem
}
