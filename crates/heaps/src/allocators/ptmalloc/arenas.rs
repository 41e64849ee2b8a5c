//! Arenas, and the memory that each cuts into chunks.
//!
//! ```text
//! main_arena ── sbrk_base ............ top ── brk      contiguous
//!               or anonymous maps, each ending in two fenceposts
//! arena      ── heap (64 MiB aligned) ── prev ── prev  the newest ends in top, others in fenceposts
//! ```

mod heap_max;
mod missing;
mod newest;
mod scattered;

use std::collections::BTreeMap;

use super::layout::{ALIGNMENT, ArenaLayout, FLAGS, NONCONTIGUOUS};
use super::locate::Located;
use super::structure::{self, Shape};
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Value};
use ground::target::{Address, MemoryExt, Target};

/// One `malloc_state`, read.
#[derive(Clone, Debug)]
pub struct Arena {
    /// Its address.
    pub at: Address,
    /// `main_arena`.
    pub is_main: bool,
    /// The lock word: 0 free, 1 held, 2 held and waited for.
    pub mutex: u32,
    /// `flags`.
    pub flags: u32,
    /// The top chunk; null or the arena's own first bin before the first malloc.
    pub top: Address,
    /// Its size, if its header can be that of a top chunk.
    pub top_size: Option<u64>,
    /// Bytes taken from the system.
    pub system_mem: u64,
    /// All of the structure is in the core: else none of its words says anything by being zero.
    pub is_whole: bool,
    /// Threads that use it, where that is recorded.
    pub attached: Option<u64>,
}

impl Arena {
    /// Whether nothing was ever allocated from it.
    pub fn is_virgin(&self, layout: &ArenaLayout) -> bool {
        self.top.is_null() && self.system_mem == 0
            || self.top == self.at.saturating_add(layout.bin(1))
    }
}

/// A run of chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// The first chunk.
    pub start: Address,
    /// End of the last, or of the fenceposts.
    pub end: Address,
    /// Index of its arena.
    pub arena: usize,
    /// The arena's top chunk ends it.
    pub has_top: bool,
}

/// A word of an arena or a heap that is not as it should be.
#[derive(Clone, Debug)]
pub struct Oddity {
    /// The word.
    pub word: BrokenWord,
    /// Index of the arena.
    pub arena: usize,
    /// Malloc itself may write such a value while it works.
    pub passing: bool,
}

/// All arenas of one copy of glibc's malloc.
#[derive(Clone, Debug, Default)]
pub struct Arenas {
    /// `main_arena` first, then by their order in the list.
    pub rows: Vec<Arena>,
    /// Runs of chunks, by address, without overlap.
    pub regions: Vec<Region>,
    /// Where each arena's newest memory ends by other witnesses than its top chunk.
    pub ends: Vec<Option<Address>>,
    /// Size and alignment of a heap.
    pub heap_max: u64,
    /// Words out of order.
    pub oddities: Vec<Oddity>,
    /// `mp_.sbrk_base`.
    pub base: Option<Address>,
    /// Not all memory of the arenas was found, because a word that leads to it was written over, or leads into memory that is not
    /// in the core.
    pub is_incomplete: bool,
    /// The first place that such a word leads to which is not in the core.
    pub absent: Option<Address>,
}

/// Where the first chunk at or behind a place can begin.
fn aligned(at: Address) -> Address {
    Address::new(at.get().saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1))
}

/// Heaps of one arena that are followed.
const MAX_HEAPS: usize = 1 << 16;

struct Reader<'a, 't> {
    target: Target<'t>,
    located: &'a Located,
    /// Bytes of heaps whose own word of it was written over.
    heap_bytes: BTreeMap<Address, u64>,
    out: Arenas,
}

impl Arenas {
    /// Reads all arenas, and finds their memory.
    pub fn read(target: Target<'_>, located: &Located) -> Self {
        let (heap_max, oddity) = heap_max::read(target, located);
        let mut reader = Reader {
            target,
            located,
            heap_bytes: BTreeMap::new(),
            out: Self {
                heap_max,
                oddities: oddity.into_iter().collect(),
                ..Self::default()
            },
        };
        reader.out.base = reader.recorded_base().filter(|base| !base.is_null());
        reader.read_arenas();
        if located.shape == Shape::Live {
            reader.mend();
            reader.find_regions();
        }
        reader.out
    }

    /// Where an arena's top chunk must end, as far as that is known beside its own header.
    pub fn expected_end(&self, arena: usize) -> Option<Address> {
        *self.ends.get(arena)?
    }

    /// Bytes that an arena has from the system, as its memory shows; `None` where that lies in pieces that nothing names, or
    /// anything that tells of it is out of order.
    pub fn bytes_of(&self, arena: usize) -> Option<u64> {
        let row = self.rows.get(arena)?;
        let mut own = self.regions.iter().filter(|region| region.arena == arena);
        if !self.oddities.is_empty() || row.top_size.is_none() {
            return None;
        }
        if !row.is_main {
            let in_heap = |region: &Region| region.end.get() & self.heap_max.saturating_sub(1);
            // A heap that is full ends where the next one may begin.
            let bytes = own.map(|region| match in_heap(region) {
                0 => self.heap_max,
                bytes => bytes,
            });
            return Some(bytes.fold(0, u64::saturating_add));
        }
        let (only, base) = (own.next()?, self.base?);
        let contiguous = u64::from(row.flags) & NONCONTIGUOUS == 0;
        let in_place = contiguous && own.next().is_none() && aligned(base) == only.start;
        let ends = row.top_size.and_then(|size| row.top.checked_add(size)) == Some(only.end);
        (in_place && only.has_top && ends).then(|| only.end.offset_from(base))?
    }

    /// The run of chunks that holds an address.
    pub fn region_of(&self, at: Address) -> Option<&Region> {
        let after = self.regions.partition_point(|region| region.start <= at);
        self.regions
            .get(after.checked_sub(1)?)
            .filter(|region| at < region.end)
    }
}

impl Reader<'_, '_> {
    fn word(&self, at: Address) -> Option<u64> {
        self.target.memory.read_u64(at).ok()
    }

    /// Notes that a structure which leads to memory of the arenas is not in the core.
    fn note_absent(&mut self, at: Address) {
        if self.target.memory.is_absent(at) {
            self.out.is_incomplete = true;
            self.out.absent.get_or_insert(at);
        }
    }

    fn read_arenas(&mut self) {
        let main = self.located.main;
        let layout = self.located.arena;
        let memory = self.target.memory;
        let mut found: Vec<Address> = Vec::new();
        match structure::ring(memory, main, &layout) {
            Some(ring) => found.extend(ring),
            None => {
                // As far as the list goes, then what the heaps themselves say.
                found.push(main);
                found.extend(self.broken_ring());
            }
        }
        for at in found {
            let row = self.arena(at, at == main);
            if !row.is_whole {
                let words = (0..layout.bytes).step_by(8);
                let mut words = words.map(|offset| at.saturating_add(offset));
                if let Some(absent) = words.find(|word| memory.is_absent(*word)) {
                    self.note_absent(absent);
                }
            }
            self.out.rows.push(row);
        }
    }

    /// Arenas of a list that does not close: those before the break, then those that heaps name.
    fn broken_ring(&mut self) -> Vec<Address> {
        let next = self.located.arena.next;
        let mut found: Vec<Address> = Vec::new();
        let mut from = self.located.main;
        loop {
            let link = from.saturating_add(next);
            if self.target.memory.is_absent(link) {
                self.note_absent(link);
                break;
            }
            let arena = Address::new(self.word(link).unwrap_or(0));
            self.note_absent(arena);
            let is_arena = structure::heap_info_bytes(arena.get())
                .and_then(|info| self.word(arena.checked_sub(info)?))
                == Some(arena.get());
            if !is_arena || found.contains(&arena) {
                self.out.oddities.push(Oddity {
                    word: BrokenWord {
                        of: from,
                        at: link,
                        what: Field::MallocStateNext,
                        expected: Expected::Is(Property::NextArena),
                        found: arena.into(),
                    },
                    arena: found.len(),
                    passing: false,
                });
                break;
            }
            found.push(arena);
            from = arena;
        }
        for start in self.places_of_heaps() {
            let arena = Address::new(self.word(start).unwrap_or(0));
            let first = arena
                .offset_from(start)
                .is_some_and(|offset| offset == 0x20 || offset == 0x30);
            let good =
                first && structure::good_bins(self.target.memory, arena, &self.located.arena) > 100;
            if good && !found.contains(&arena) {
                found.push(arena);
            }
        }
        found
    }

    /// Where heaps of arenas may begin. What lies in front of one may have been mapped just there, so that the kernel made one
    /// mapping of both.
    fn places_of_heaps(&self) -> impl Iterator<Item = Address> {
        let max = self.out.heap_max;
        let step = usize::try_from(max).unwrap_or(usize::MAX);
        let areas = self.target.memory.regions().iter();
        areas.filter(|area| area.writable).flat_map(move |area| {
            let end = area.range.start.saturating_add(area.present_bytes).get();
            let first = area.range.start.get().checked_next_multiple_of(max);
            (first.unwrap_or(end)..end).step_by(step).map(Address::new)
        })
    }

    fn arena(&self, at: Address, is_main: bool) -> Arena {
        let layout = &self.located.arena;
        let word = |offset: u64| self.word(at.saturating_add(offset)).unwrap_or(0);
        let int = |offset: u64| {
            let at = at.saturating_add(offset);
            self.target.memory.read_u32(at).unwrap_or(0)
        };
        let top = Address::new(word(layout.top));
        Arena {
            at,
            is_main,
            mutex: int(0),
            flags: int(ArenaLayout::FLAGS),
            top,
            top_size: self.top_size(top),
            system_mem: word(layout.system_mem),
            is_whole: self
                .target
                .memory
                .holds(&(at..at.saturating_add(layout.bytes))),
            attached: layout.attached.map(word),
        }
    }

    /// The size of a top chunk whose header is sane: it ends a page, and the chunk before is in use.
    fn top_size(&self, top: Address) -> Option<u64> {
        let header = self.word(top.checked_add(8)?)?;
        let size = header & !FLAGS;
        let end = top.checked_add(size)?;
        let last = self.target.memory.region_at(end.checked_sub(1)?);
        let sane = top.is_aligned(ALIGNMENT)
            && header & FLAGS == 1
            && size >= 16
            && end.is_aligned(self.target.memory.abi().page_bytes)
            && last.is_some();
        sane.then_some(size)
    }

    fn find_regions(&mut self) {
        self.out.ends = vec![None; self.out.rows.len()];
        for index in 0..self.out.rows.len() {
            let Some(arena) = self.out.rows.get(index).cloned() else {
                continue;
            };
            if arena.is_virgin(&self.located.arena) {
                continue;
            }
            self.note_absent(arena.top);
            if !arena.is_main {
                self.find_heaps(index, &arena);
            }
        }
        let Some(main) = self.out.rows.first().cloned() else {
            return;
        };
        if !main.is_virgin(&self.located.arena) {
            self.note_absent(self.out.base.unwrap_or_default());
            if self.is_contiguous(&main) {
                self.find_main(&main);
            } else {
                self.note_lost_flag(&main);
                self.find_scattered(&main);
                if main.is_whole {
                    self.complete_scattered(&main);
                }
            }
        }
        self.clip();
        let regions = &mut self.out.regions;
        regions.sort_by_key(|region| (region.start, std::cmp::Reverse(region.end)));
        let mut last = Address::new(0);
        regions.retain(|region| {
            let apart = region.start >= last && region.end > region.start;
            last = last.max(region.end);
            apart
        });
    }

    /// Damaged words must not make a run longer than the memory that is there.
    fn clip(&mut self) {
        let areas = self.target.memory.regions();
        for region in &mut self.out.regions {
            let mut end = region.start;
            let first = areas.partition_point(|area| area.range.end <= region.start);
            for area in areas.get(first..).unwrap_or_default() {
                if area.range.start > end || end >= region.end {
                    break;
                }
                end = area.range.end;
            }
            region.end = region.end.min(end);
        }
    }

    /// `mp_.sbrk_base`: where the main arena began to grow in place, if it ever did.
    fn recorded_base(&self) -> Option<Address> {
        let (at, layout) = self.located.parameters?;
        self.word(at.checked_add(layout.sbrk_base)?)
            .map(Address::new)
    }

    fn find_main(&mut self, main: &Arena) {
        let by_top = main
            .top_size
            .filter(|_| main.is_whole)
            .and_then(|size| main.top.checked_add(size)?.checked_sub(main.system_mem));
        let recorded = self.recorded_base();
        let starts_chunk = |at: &Address| {
            (*at <= main.top || main.top_size.is_none())
                && self
                    .word(at.saturating_add(8))
                    .is_some_and(|header| header & 1 == 1 || header == 0)
        };
        let begins_area = |at: &Address| {
            let area = self.target.memory.region_at(*at);
            area.is_some_and(|area| aligned(area.range.start) == *at)
        };
        let (by_base, by_top) = (recorded.map(aligned), by_top.map(aligned));
        // The first header may be written over where two words, or one and the memory that is there, agree.
        let start = by_base
            .filter(|base| by_top == Some(*base))
            .or(by_base.filter(starts_chunk))
            .or(by_top.filter(starts_chunk))
            .or(by_base.filter(begins_area));
        let Some(start) = start else {
            return;
        };
        let by_bytes = recorded.unwrap_or(start).checked_add(main.system_mem);
        let by_bytes = by_bytes.filter(|_| main.is_whole);
        let end = match main.top_size {
            Some(size) => main.top.checked_add(size),
            None => by_bytes,
        };
        // Two witnesses: what was counted, and the memory that is there.
        let is_end = |end: &Address| {
            let last = end
                .checked_sub(1)
                .and_then(|last| self.target.memory.region_at(last));
            last.is_some_and(|area| area.range.end == *end)
        };
        let expected = by_bytes.filter(is_end);
        if let Some(slot) = self.out.ends.first_mut() {
            *slot = expected;
        }
        if let Some(end) = end {
            self.out.regions.push(Region {
                start,
                end,
                arena: 0,
                has_top: (start..end).contains(&main.top),
            });
        }
    }

    fn find_heaps(&mut self, index: usize, arena: &Arena) {
        let max = self.out.heap_max;
        let Some(info) = structure::heap_info_bytes(arena.at.get()) else {
            return;
        };
        let heap_of = |at: Address| Address::new(at.get() & !max.saturating_sub(1));
        let mut heap = heap_of(arena.top);
        let own = heap_of(arena.at);
        let is_own = |heap: Address, word: Option<u64>| heap == own || word == Some(arena.at.get());
        if !is_own(heap, self.word(heap)) {
            heap = own; // top was written over
        }
        for count in 0..MAX_HEAPS {
            self.note_absent(heap);
            if self.word(heap) != Some(arena.at.get()) {
                self.out.oddities.push(Oddity {
                    word: BrokenWord {
                        of: heap,
                        at: heap,
                        what: Field::HeapInfoArPtr,
                        expected: Expected::Exactly(arena.at.into(), Reason::ArenaThatItBelongsTo),
                        found: Value::Word(self.word(heap).unwrap_or(0)),
                    },
                    arena: index,
                    passing: false,
                });
                if !is_own(heap, self.word(heap)) && !self.is_heap(heap, own) {
                    break;
                }
            }
            let recorded = || self.word(heap.saturating_add(16)).unwrap_or(0);
            let known = self.heap_bytes.get(&heap).copied();
            let bytes = known.unwrap_or_else(recorded).min(max);
            let first = if heap == own {
                aligned(arena.at.saturating_add(self.located.arena.bytes))
            } else {
                heap.saturating_add(info)
            };
            let end = heap.saturating_add(bytes);
            let has_top = heap_of(arena.top) == heap;
            if has_top && let Some(slot) = self.out.ends.get_mut(index) {
                *slot = Some(end);
            }
            if end > first {
                self.out.regions.push(Region {
                    start: first,
                    end,
                    arena: index,
                    has_top,
                });
            }
            let previous = Address::new(self.word(heap.saturating_add(8)).unwrap_or(0));
            if heap == own || previous.is_null() || count.saturating_add(1) == MAX_HEAPS {
                break;
            }
            heap = previous;
        }
    }

    /// Whether a heap lies here for all that can be seen beside the arena that it names: its sizes, and an older heap
    /// before it.
    fn is_heap(&self, heap: Address, own: Address) -> bool {
        let word = |offset: u64| self.word(heap.saturating_add(offset)).unwrap_or(0);
        let [previous, bytes, writable] = [8, 16, 24].map(word);
        let max = self.out.heap_max;
        let sizes = [bytes, writable].map(|bytes| self.target.memory.abi().is_pages(bytes));
        let older = previous == own.get() || self.word(Address::new(previous)) == self.word(own);
        heap.is_aligned(max) && sizes == [true; 2] && bytes <= writable && writable <= max && older
    }
}
