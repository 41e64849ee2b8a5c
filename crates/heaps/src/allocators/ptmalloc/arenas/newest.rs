//! An arena's newest memory, where the word that names its top chunk or the size of its heap was written over: each
//! is told by the other, by the chunks that lead there and by the bytes that the arena took from the system.

use super::{ALIGNMENT, Address, Arena, FLAGS, Oddity, Reader, structure};
use crate::allocators::ptmalloc::layout::{HEADER, IS_MMAPPED, MIN_CHUNK};
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Value};

/// Heaps of one arena that are asked for their sizes.
const MAX_HEAPS: usize = 4096;

impl Reader<'_, '_> {
    /// Puts right what can be told of the arenas' top chunks and of the heaps that hold them, and notes what was wrong.
    pub(super) fn mend(&mut self) {
        for index in 0..self.out.rows.len() {
            let Some(arena) = self.out.rows.get(index).cloned() else {
                continue;
            };
            if arena.is_whole && !arena.is_virgin(&self.located.arena) {
                let _ = self.mend_arena(index, &arena);
            }
        }
    }

    fn mend_arena(&mut self, index: usize, arena: &Arena) -> Option<()> {
        let (start, end) = if arena.is_main {
            self.main_bounds(arena)?
        } else {
            self.newest_bounds(index, arena)?
        };
        let by_size = arena.top_size.and_then(|size| arena.top.checked_add(size));
        if by_size == Some(end) && start <= arena.top {
            return None;
        }
        let layout = self.located.arena;
        let Some((top, size)) = self.last_chunk(start, end, arena.top) else {
            if !(start..end).contains(&arena.top) {
                self.out.is_incomplete = true;
                self.out.oddities.push(Oddity {
                    word: BrokenWord {
                        of: arena.at,
                        at: arena.at.saturating_add(layout.top),
                        what: Field::MallocStateTop,
                        expected: Expected::Is(Property::ChunkOfNewestMemory(start, end)),
                        found: arena.top.into(),
                    },
                    arena: index,
                    passing: is_possible_top(arena.top),
                });
            }
            return None;
        };
        self.out.oddities.push(Oddity {
            word: BrokenWord {
                of: arena.at,
                at: arena.at.saturating_add(layout.top),
                what: Field::MallocStateTop,
                expected: Expected::Exactly(top.into(), Reason::LastChunkOfNewestMemory),
                found: arena.top.into(),
            },
            arena: index,
            passing: is_possible_top(arena.top),
        });
        let row = self.out.rows.get_mut(index)?;
        row.top = top;
        row.top_size = Some(size);
        Some(())
    }

    /// Where the main arena's chunks begin and end, if they are in one piece.
    fn main_bounds(&self, main: &Arena) -> Option<(Address, Address)> {
        let (at, layout) = self.located.parameters?;
        let base = Address::new(self.word(at.checked_add(layout.sbrk_base)?)?);
        let contiguous = self.is_contiguous(main);
        let end = base.checked_add(main.system_mem)?;
        contiguous.then_some((align(base), end))
    }

    /// Where the chunks of another arena's newest heap begin and end.
    fn newest_bounds(&mut self, index: usize, arena: &Arena) -> Option<(Address, Address)> {
        let info = structure::heap_info_bytes(arena.at.get())?;
        let own = self.heap_of(arena.at);
        let named = self.heap_of(arena.top);
        let is_named = named == own || self.word(named) == Some(arena.at.get());
        let heap = if is_named {
            named
        } else {
            self.newest_heap(arena, own)
        };
        let first = if heap == own {
            align(arena.at.saturating_add(self.located.arena.bytes))
        } else {
            heap.saturating_add(info)
        };
        let recorded = self.word(heap.saturating_add(16))?;
        let older = self.older_bytes(heap, own);
        let by_arena = arena.system_mem.checked_sub(older);
        let by_top = arena
            .top_size
            .and_then(|size| arena.top.checked_add(size)?.offset_from(heap));
        let abi = self.target.memory.abi();
        let impossible = !abi.is_pages(recorded) || recorded > self.out.heap_max;
        let known =
            by_top.or(by_arena.filter(|bytes| impossible && bytes.is_multiple_of(abi.page_bytes)));
        let bytes = known.filter(|bytes| {
            *bytes <= self.out.heap_max
                && *bytes != recorded
                && (impossible || Some(*bytes) == by_arena)
        });
        if let Some(bytes) = bytes {
            self.out.oddities.push(Oddity {
                word: BrokenWord {
                    of: heap,
                    at: heap.saturating_add(16),
                    what: Field::HeapInfoSize,
                    expected: Expected::Exactly(Value::Word(bytes), Reason::EndOfTop),
                    found: Value::Word(recorded),
                },
                arena: index,
                passing: !impossible,
            });
            self.heap_bytes.insert(heap, bytes);
        }
        Some((first, heap.checked_add(bytes.unwrap_or(recorded))?))
    }

    /// Of an arena's heaps the one that no other follows.
    fn newest_heap(&self, arena: &Arena, own: Address) -> Address {
        let heaps: Vec<Address> = self
            .places_of_heaps()
            .filter(|start| self.word(*start) == Some(arena.at.get()))
            .collect();
        let followed = |heap: &Address| {
            heaps
                .iter()
                .any(|other| self.word(other.saturating_add(8)) == Some(heap.get()))
        };
        let newest = heaps.iter().find(|heap| !followed(heap));
        newest.copied().unwrap_or(own)
    }

    /// Bytes of the heaps before one.
    fn older_bytes(&self, heap: Address, own: Address) -> u64 {
        let (mut bytes, mut at) = (0u64, heap);
        for _ in 0..MAX_HEAPS {
            let previous = Address::new(self.word(at.saturating_add(8)).unwrap_or(0));
            if at == own || previous.is_null() || !previous.is_aligned(self.out.heap_max) {
                break;
            }
            at = previous;
            bytes = bytes.saturating_add(self.word(at.saturating_add(16)).unwrap_or(0));
        }
        bytes
    }

    fn heap_of(&self, at: Address) -> Address {
        Address::new(at.get() & !self.out.heap_max.saturating_sub(1))
    }

    /// Where chunks go on behind two fenceposts: somebody else took memory from the system there.
    fn behind_gap(&self, posts: Address, end: Address) -> Option<Address> {
        const MAX_SEARCH: u64 = 1 << 20;
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut header = |at: Address| cursor.read_u64(at.saturating_add(8)).ok();
        let second = header(posts.checked_add(HEADER)?)? & !FLAGS;
        if second != HEADER && second != 0 {
            return None;
        }
        let first = posts.checked_add(2 * HEADER)?;
        let last = first.saturating_add(MAX_SEARCH).min(end);
        let leads_on = |place: &Address| self.leads(*place, end);
        (first.get()..last.get())
            .step_by(16)
            .map(Address::new)
            .find(leads_on)
    }

    /// Whether many chunks follow each other from a place, or some up to `end` or to a fencepost.
    fn leads(&self, place: Address, end: Address) -> bool {
        const ENOUGH: usize = 64;
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut at = place;
        for step in 0..ENOUGH {
            let Ok(header) = cursor.read_u64(at.saturating_add(8)) else {
                return false;
            };
            let size = header & !FLAGS;
            let Some(room) = end.offset_from(at) else {
                return false;
            };
            if size == HEADER || size == room {
                return step > 0 || size == room && header & FLAGS == 1;
            }
            // The chunk before the first one counts as used.
            let first = step == 0 && header & 1 == 0;
            let sane = size >= MIN_CHUNK && size.is_multiple_of(ALIGNMENT) && size <= room;
            if !sane || first || header & IS_MMAPPED != 0 {
                return false;
            }
            at = at.saturating_add(size);
        }
        true
    }

    /// The last of the chunks that fill a range from end to end (but for what others took), and its size; `None` if they do not, or if one of
    /// them begins at `not`.
    fn last_chunk(&self, start: Address, end: Address, not: Address) -> Option<(Address, u64)> {
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut at = start;
        while at < end && at != not {
            let header = cursor.read_u64(at.checked_add(8)?).ok()?;
            let size = header & !FLAGS;
            let room = end.offset_from(at)?;
            let sane = size >= MIN_CHUNK && size.is_multiple_of(ALIGNMENT) && size <= room;
            if size == HEADER && at > start {
                at = self.behind_gap(at, end)?;
                continue;
            }
            if !sane || header & IS_MMAPPED != 0 {
                return None;
            }
            if size == room {
                return (header & FLAGS == 1).then_some((at, size));
            }
            at = at.saturating_add(size);
        }
        None
    }
}

/// Whether malloc itself may name such a place a top chunk while it works: of a heap that it just gave back, say.
fn is_possible_top(top: Address) -> bool {
    const END_OF_MEMORY: u64 = 1 << 56;
    !top.is_null() && top.is_aligned(ALIGNMENT) && top.get() < END_OF_MEMORY
}

fn align(at: Address) -> Address {
    Address::new(at.get().saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1))
}
