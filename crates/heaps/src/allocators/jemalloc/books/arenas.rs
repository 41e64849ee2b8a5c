//! Arenas: pages in use, and the page caches.
//!
//! ```text
//! page cache: list ──> extent ──> extent ──> ...   a ring without a head of its own
//!             npages
//! ```
//!
//! A large block that is freed again after it went back is entered into a page cache twice: its pages are counted twice,
//! and the arena has fewer pages in use than extents.

use std::collections::HashSet;

use super::Books;
use crate::allocators::jemalloc::JemallocHeap;
use crate::allocators::jemalloc::arenas::Arena;
use crate::allocators::jemalloc::extents::{Row, State};
use crate::allocators::jemalloc::layout::Generation;
use crate::allocators::jemalloc::sizes::PAGE_SHIFT;
use crate::anomaly::{
    AnomalyKind, BrokenWord, Expected, Field, Lock, Property, Reason, Unit, Value,
};
use ground::target::{Address, Cursor, MemoryExt};

/// Heaps of a page cache (`SC_NPSIZES` and one more).
const HEAPS: u64 = 200;
/// More pages than a process has addresses.
const TOO_MANY: u64 = 1 << 35;

/// Pages of an arena by what the extents say.
#[derive(Clone, Copy, Default)]
struct Pages {
    active: u64,
    cached: [u64; 3],
    extents: [u64; 3],
}

impl JemallocHeap<'_> {
    pub(super) fn check_arenas(&self, books: &mut Books) {
        // Of 5.0 and 5.1 these members were read in the sources only, on no core: no verdict rests on them.
        if self.located.layout.generation < Generation::V5_2 {
            return;
        }
        let last = self.located.arenas.rows.last();
        let mut pages =
            vec![Pages::default(); last.map_or(0, |arena| usize::from(arena.index) + 1)];
        for row in &self.located.extents.rows {
            let Some(pages) = pages.get_mut(usize::from(row.arena)) else {
                continue;
            };
            let count = row.bytes >> PAGE_SHIFT;
            if self.holds_blocks(row) {
                pages.active = pages.active.saturating_add(count);
            }
            if let Some(cache) = row.state.cache()
                && let (Some(cached), Some(extents)) =
                    (pages.cached.get_mut(cache), pages.extents.get_mut(cache))
            {
                *cached = cached.saturating_add(count);
                *extents = extents.saturating_add(1);
            }
        }
        for arena in &self.located.arenas.rows {
            if let Some(pages) = pages.get(usize::from(arena.index)) {
                self.check_arena(books, arena, *pages);
            }
        }
    }

    fn check_arena(&self, books: &mut Books, arena: &Arena, pages: Pages) {
        let layout = &self.located.layout;
        let states = [State::Dirty, State::Muzzy, State::Retained];
        let cached = pages.cached.into_iter().zip(pages.extents);
        for (((offset, state), (walked, extents)), index) in layout
            .arena
            .pages
            .into_iter()
            .zip(states)
            .zip(cached)
            .zip(1..)
        {
            let cache = arena.at.saturating_add(offset);
            self.check_state(books, cache, index);
            if self.check_page_counts(books, cache, walked) {
                continue;
            }
            if self.lock_held(cache, Lock::PageCache).is_some() {
                self.check_heads(books, cache);
                continue;
            }
            self.check_pages(books, arena, cache, (state, walked, extents));
        }
        let at = arena.at.saturating_add(layout.arena.active);
        let Ok(recorded) = self.target.memory.read_u64(at) else {
            return;
        };
        // A fork waits for locks, and this counter has none: a thread that did not follow into the child may have counted
        // pages that it never got, or (5.2) not yet counted some that it has.
        let lags = (pages.active..pages.active.saturating_add(1 << 20)).contains(&recorded);
        let at_rest = || !books.damaged && self.somebody_inside_or_gone().is_none();
        if is_absurd(recorded, pages.active) || !lags && at_rest() {
            books.count(
                BrokenWord {
                    of: arena.at,
                    at,
                    what: self.name_of(Field::ArenaNactive, Field::PaShardNactive),
                    expected: Expected::Exactly(Value::Number(pages.active), Reason::PagesInUse),
                    found: Value::Number(recorded),
                },
                None,
            );
        }
    }

    /// A page cache knows the state of its extents.
    fn check_state(&self, books: &mut Books, cache: Address, expected: u32) {
        let at = cache.saturating_add(self.located.layout.pages.state);
        let Ok(found) = self.target.memory.read_u32(at) else {
            return;
        };
        if found != expected {
            books.damage(
                BrokenWord {
                    of: cache,
                    at,
                    what: self.name_of(Field::ExtentsState, Field::EcacheState),
                    expected: Expected::Exactly(
                        Value::Number(expected.into()),
                        Reason::NeverChanges,
                    ),
                    found: Value::Number(found.into()),
                },
                None,
            );
        }
    }

    /// Numbers of pages that no work in progress leaves. Says whether there are any.
    fn check_page_counts(&self, books: &mut Books, cache: Address, walked: u64) -> bool {
        let counts = self.located.layout.pages.counts.iter();
        let absurd = counts
            .map(|offset| cache.saturating_add(*offset))
            .find_map(|at| {
                let recorded = self.target.memory.read_u64(at).ok();
                Some((
                    at,
                    recorded.filter(|recorded| is_absurd(*recorded, walked))?,
                ))
            });
        let Some((at, recorded)) = absurd else {
            return false;
        };
        let word = BrokenWord {
            of: cache,
            at,
            what: self.name_of(Field::ExtentsNpages, Field::EsetNpages),
            expected: Expected::Exactly(Value::Number(walked), Reason::PagesOfItsExtents),
            found: Value::Number(recorded),
        };
        books.count(word, None);
        true
    }

    /// Words of a page cache at work that lead to no descriptor: nobody writes such ones.
    fn check_heads(&self, books: &mut Books, cache: Address) {
        let layout = &self.located.layout.pages;
        let (first, apart) = layout.heaps;
        let heads = layout
            .lists
            .iter()
            .map(|list| (*list, Field::PageCacheList));
        let roots = layout.sets.iter().flat_map(|set| {
            (0..HEAPS).map(move |index| {
                (
                    set.saturating_add(first)
                        .saturating_add(index.saturating_mul(apart)),
                    Field::PageCacheHeap,
                )
            })
        });
        for (offset, what) in heads.chain(roots) {
            let at = cache.saturating_add(offset);
            let found = self.target.memory.read_pointer(at).unwrap_or_default();
            if !found.is_null() && !self.may_be_descriptor(found) {
                let word = BrokenWord {
                    of: cache,
                    at,
                    what,
                    expected: Expected::Is(Property::DescriptorOrNull),
                    found: found.into(),
                };
                return books.damage(word, None);
            }
        }
    }

    /// Whether a descriptor is that of a block or a slab.
    fn is_handed_out(&self, at: Address) -> bool {
        let mut cursor = Cursor::new(self.target.memory);
        let row = Row::read(&mut cursor, &self.located.layout, at);
        let known = row.and_then(|row| self.located.extents.at(row.start()));
        known.is_some_and(|known| known.at == at && self.holds_blocks(known))
    }

    /// Whether a descriptor may lie at `at`.
    fn may_be_descriptor(&self, at: Address) -> bool {
        at.is_aligned(self.located.layout.extent.alignment) && self.located.arenas.is_own(at)
    }

    /// Pages and list of a page cache.
    fn check_pages(
        &self,
        books: &mut Books,
        arena: &Arena,
        cache: Address,
        (state, walked, extents): (State, u64, u64),
    ) {
        let memory = self.target.memory;
        let layout = &self.located.layout.pages;
        let recorded: u64 = layout
            .counts
            .iter()
            .filter_map(|offset| memory.read_u64(cache.saturating_add(*offset)).ok())
            .fold(0, u64::wrapping_add);
        let at = cache.saturating_add(layout.counts.first().copied().unwrap_or(0));
        let what = self.name_of(Field::ExtentsNpages, Field::EsetNpages);
        let damaged = books.damaged;
        let at_rest = || !damaged && self.somebody_inside().is_none();
        if recorded > walked
            && at_rest()
            && let Some(row) = self.entered_twice(arena, state, recorded.saturating_sub(walked))
        {
            let kind = AnomalyKind::FreedAgain {
                start: row.start(),
                block: None,
                times: recorded
                    .saturating_sub(walked)
                    .checked_div((row.bytes >> PAGE_SHIFT).max(1))
                    .unwrap_or(0),
                word: BrokenWord {
                    of: cache,
                    at,
                    what,
                    expected: Expected::Exactly(Value::Number(walked), Reason::PagesOfItsExtents),
                    found: Value::Number(recorded),
                },
            };
            books.damaged = true;
            books.push(cache, kind, None);
            return;
        }
        for list in layout.lists {
            if !self.check_list(books, cache, *list) {
                return;
            }
        }
        let heads = layout.lists.iter().map(|list| cache.saturating_add(*list));
        let empty = |head| memory.read_pointer(head) == Ok(Address::default());
        if extents > 0 && heads.clone().all(empty) && at_rest() {
            for at in heads.take(1) {
                let word = BrokenWord {
                    of: cache,
                    at,
                    what: Field::PageCacheList,
                    expected: Expected::Is(Property::OneOfItsExtents(extents)),
                    found: Value::Number(0),
                };
                books.damage(word, None);
            }
            return;
        }
        self.check_heaps(books, cache, extents);
        if recorded != walked && !books.damaged && at_rest() {
            books.count(
                BrokenWord {
                    of: cache,
                    at,
                    what,
                    expected: Expected::Exactly(
                        Value::Number(walked),
                        Reason::PagesOfExtents(extents),
                    ),
                    found: Value::Number(recorded),
                },
                None,
            );
        }
    }

    /// The extent of an arena in this state whose pages are counted once too often, or several times: the only one that
    /// explains so many pages.
    fn entered_twice(&self, arena: &Arena, state: State, pages: u64) -> Option<Row> {
        let mut fitting = self.located.extents.rows.iter().filter(|row| {
            row.arena == arena.index && row.state == state && row.bytes >> PAGE_SHIFT == pages
        });
        let first = fitting.next()?;
        fitting.next().is_none().then_some(*first)
    }

    /// Follows the ring of a page cache's extents; says whether it is sound.
    fn check_list(&self, books: &mut Books, cache: Address, head: u64) -> bool {
        let memory = self.target.memory;
        let link = self.located.layout.extent.list_link;
        let head = cache.saturating_add(head);
        let Ok(first) = memory.read_pointer(head) else {
            return true;
        };
        let is_extent = |at| self.may_be_descriptor(at);
        let mut say = |at: Address, expected: Expected, found: Address| {
            let what = Field::PageCacheListLink;
            let of = self.owner_of_link(at).unwrap_or(cache);
            books.damage(
                BrokenWord {
                    of,
                    at,
                    what,
                    expected,
                    found: found.into(),
                },
                None,
            );
            false
        };
        if first.is_null() {
            return true;
        }
        let mut seen = HashSet::new();
        let (mut at, mut here) = (head, first);
        loop {
            if !is_extent(here) || at == head && !self.free_extent(here) {
                return say(at, Expected::Is(Property::AnyExtent), here);
            }
            if !seen.insert(here) {
                let expected = Expected::Exactly(first.into(), Reason::FirstOfTheRing);
                return say(at, expected, here);
            }
            at = here.saturating_add(link);
            let Ok(next) = memory.read_pointer(at) else {
                return true;
            };
            let back = next.saturating_add(link.saturating_add(8));
            if is_extent(next)
                && let Ok(before) = memory.read_pointer(back)
                && before != here
            {
                if !self.free_extent(next) {
                    return say(at, Expected::Is(Property::FreeExtent), next);
                }
                let last = memory.read_pointer(first.saturating_add(link.saturating_add(8)));
                if last == Ok(next) && self.free_extent(next) {
                    self.say_entered_again(books, next, back, (here, before));
                    return false;
                }
                // Of two words that disagree, the one is wrong that nobody else agrees with.
                let skips = is_extent(before)
                    && memory.read_pointer(before.saturating_add(link)) == Ok(next);
                return match skips {
                    true => say(at, Expected::Is(Property::ExtentThatLeadsBack), next),
                    false => {
                        let expected = Expected::Exactly(here.into(), Reason::LeadsHere);
                        say(back, expected, before)
                    }
                };
            }
            if next == first {
                return true;
            }
            here = next;
        }
    }

    /// Whether a descriptor is that of a free extent.
    fn free_extent(&self, at: Address) -> bool {
        let repairs = &self.located.extents.repairs;
        if repairs.iter().any(|repair| repair.suspect.word.of == at) {
            return true;
        }
        let mut cursor = Cursor::new(self.target.memory);
        let row = Row::read(&mut cursor, &self.located.layout, at);
        // One that the page map has lost is found by its heap.
        let known = self.owner_of_link(at) == Some(at) || self.unnamed(at).is_some();
        known && row.is_some_and(|row| row.state.cache().is_some())
    }

    /// The last of a ring, to which one in its middle leads as well: it was appended while it was in the ring already, as
    /// a free does with a large block that is free.
    fn say_entered_again(
        &self,
        books: &mut Books,
        extent: Address,
        at: Address,
        (here, before): (Address, Address),
    ) {
        let mut cursor = Cursor::new(self.target.memory);
        let Some(row) = Row::read(&mut cursor, &self.located.layout, extent) else {
            return;
        };
        let kind = AnomalyKind::FreedAgain {
            start: row.start(),
            block: None,
            times: 1,
            word: BrokenWord {
                of: extent,
                at,
                what: Field::PageCacheListLink,
                expected: Expected::Exactly(here.into(), Reason::LeadsHere),
                found: Value::AppendedAgain(before),
            },
        };
        books.damaged = true;
        books.push(extent, kind, None);
    }

    /// Heaps of a page cache: links that lead both ways, and extents that are its own.
    fn check_heaps(&self, books: &mut Books, cache: Address, extents: u64) {
        let (first, apart) = self.located.layout.pages.heaps;
        let mut members = 0;
        for index in 0..HEAPS {
            for set in self.located.layout.pages.sets {
                let root = cache.saturating_add(
                    set.saturating_add(first)
                        .saturating_add(index.saturating_mul(apart)),
                );
                let most = usize::try_from(extents.saturating_sub(members)).unwrap_or(usize::MAX);
                let heaped = self.heaped(root, most);
                members = members.saturating_add(heaped.members.len() as u64);
                if let Some(broken) = heaped.broken {
                    let word = broken.word(cache, Field::PageCacheHeapLink);
                    return books.damage(word, None);
                }
                // Links inside lead both ways; the root is named by nobody.
                let first = heaped.members.first().copied();
                if let Some(first) = first.filter(|first| self.is_handed_out(*first)) {
                    let word = BrokenWord {
                        of: cache,
                        at: root,
                        what: Field::PageCacheHeap,
                        expected: Expected::Is(Property::FreeExtent),
                        found: first.into(),
                    };
                    return books.damage(word, None);
                }
            }
        }
        if members != extents && !books.damaged && self.somebody_inside().is_none() {
            books.damage(
                BrokenWord {
                    of: cache,
                    at: cache.saturating_add(first),
                    what: Field::PageCacheHeaps,
                    expected: Expected::Is(Property::ItsExtents(extents)),
                    found: Value::Amount(members, Unit::Extents),
                },
                None,
            );
        }
    }
}

/// Whether a number of pages is wrong whatever anybody is doing. One that is a little below nothing counts frees that
/// were too many.
fn is_absurd(recorded: u64, walked: u64) -> bool {
    (TOO_MANY..u64::MAX - TOO_MANY).contains(&recorded.wrapping_sub(walked))
}
