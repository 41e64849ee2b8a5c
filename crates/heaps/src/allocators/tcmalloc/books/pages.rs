//! The page heap's lists of free spans, and its sums.

use std::collections::HashSet;

use super::{Books, Ring};
use crate::allocators::tcmalloc::TcmallocHeap;
use crate::allocators::tcmalloc::pagemap::{SpanLocation, read_span};
use crate::anomaly::{
    Anomaly, AnomalyKind, BrokenWord, Edge, Expected, Field, HolderKind, ListRef, Reason,
    Transient, Value,
};
use crate::map::HeapMap;
use crate::presence::Presence;
use ground::target::{Address, MemoryExt};

impl TcmallocHeap<'_> {
    /// Lists of free spans and the sums of all spans (rules 15, 17, 18).
    pub(super) fn check_page_heap(&self, books: &mut Books, map: &HeapMap, damaged: bool) {
        let layout = &self.located.layout.page_heap;
        let busy = self.page_heap_locked();
        let ring_busy = busy
            .clone()
            .filter(|_| !self.only_the_faulting_thread_is_inside());
        // Of lists that are sound.
        let mut listed = Some(HashSet::new());
        for pages in 1..=u64::from(layout.max_pages) {
            let pair = self.located.page_heap.saturating_add(
                layout
                    .free_lists
                    .saturating_add(pages.saturating_sub(1).saturating_mul(96)),
            );
            for (offset, location) in [(0, SpanLocation::Normal), (48, SpanLocation::Returned)] {
                let sentinel = pair.saturating_add(offset);
                let members = self.free_list(books, map, sentinel, pages, location, &ring_busy);
                listed = listed.zip(members).map(|(mut listed, members)| {
                    listed.extend(members);
                    listed
                });
            }
        }
        if let Some(listed) = listed.filter(|_| {
            busy.is_none() && !books.damaged && !damaged && self.spans.missing_leaves == 0
        }) {
            self.check_free_spans(books, &listed);
        }
        let sums_explained = books
            .out
            .iter()
            .any(|anomaly| anomaly.transient.is_none() && !anomaly.is_count());
        if !damaged && !sums_explained && self.spans.missing_leaves == 0 {
            self.check_sums(books, map, busy);
        }
    }

    /// A ring is taken apart under the page heap's lock. A thread that stopped at its own fault in
    /// there did so because of what it found, unless somebody else may hold the lock.
    fn only_the_faulting_thread_is_inside(&self) -> bool {
        let mut inside = (0..self.presences.count())
            .filter(|thread| self.presences.of(*thread) != Presence::Outside)
            .peekable();
        inside.peek().is_some() && inside.all(|thread| self.presences.faulted(thread))
    }

    /// A list of free spans (rules 15, 17): its members, if it is sound.
    fn free_list(
        &self,
        books: &mut Books,
        map: &HeapMap,
        sentinel: Address,
        pages: u64,
        location: SpanLocation,
        busy: &Option<Transient>,
    ) -> Option<Vec<Address>> {
        let ring = Ring {
            of: sentinel,
            sentinel,
            bound: self.spans.rows().len() as u64,
            busy,
            is_span: &|at| self.is_span(at),
            may_pass: &|ring, beside, link| self.may_pass(ring, beside, link),
            silent: true,
        };
        let mut fine: Vec<Address> = Vec::new();
        let end = books.ring(self.target.memory, &self.located, ring, |books, at| {
            fine.push(at);
            self.free_span(books, map, (sentinel, at), pages, location, busy);
        });
        let Some(before) = end.broken_behind else {
            return Some(fine);
        };
        match self
            .listed_twice(map, sentinel, before, pages)
            .filter(|_| busy.is_none())
        {
            Some(anomaly) => {
                books.out.push(anomaly);
            }
            None => {
                // Say it after all.
                let ring = Ring {
                    of: sentinel,
                    sentinel,
                    bound: self.spans.rows().len() as u64,
                    busy,
                    is_span: &|at| self.is_span(at),
                    may_pass: &|ring, beside, link| self.may_pass(ring, beside, link),
                    silent: false,
                };
                books.ring(self.target.memory, &self.located, ring, |_, _| {});
            }
        }
        None
    }

    /// The signature of freeing a large block twice (releases up to 2.10 do not notice): the span
    /// was put on its list while it was on it, so it has itself for a neighbour; or, once malloc
    /// has taken it off again, it is handed out and has no neighbours, while the list still leads
    /// to it.
    fn listed_twice(
        &self,
        map: &HeapMap,
        sentinel: Address,
        before: Address,
        pages: u64,
    ) -> Option<Anomaly> {
        let layout = &self.located.layout.span;
        let memory = self.target.memory;
        let at = memory.read_pointer(layout.next.at(before)).ok()?;
        let span = read_span(memory, &self.located, at)?;
        let index = self.spans.index_of(at, span.start)?;
        let next = memory.read_pointer(layout.next.at(at)).ok()?;
        let prev = memory.read_pointer(layout.prev.at(at)).ok()?;
        let neighbour_of_itself = next == at && prev == at;
        let handed_out = span.location == SpanLocation::InUse && next.is_null() && prev.is_null();
        if !neighbour_of_itself && !handed_out {
            return None;
        }
        let (block, _) = map.block_at(self.span_start(self.spans.rows().get(index)?))?;
        let list = ListRef {
            holder: HolderKind::SpanList,
            thread: None,
            at: sentinel,
            head_word: layout.next.at(before),
            class: 0,
            class_bytes: pages.saturating_mul(self.page_bytes()),
        };
        let edge = Edge {
            list,
            position: 0,
            from: None,
        };
        Some(Anomaly::new(if handed_out {
            AnomalyKind::ListedInUse { block, edge }
        } else {
            let own = ListRef {
                head_word: layout.next.at(at),
                ..list
            };
            let edges = vec![
                edge,
                Edge {
                    list: own,
                    position: 1,
                    from: None,
                },
            ];
            AnomalyKind::Shared {
                block,
                edges,
                cycle: Some(1),
                taken: false,
            }
        }))
    }

    /// A span on a page heap's list (rule 17).
    fn free_span(
        &self,
        books: &mut Books,
        map: &HeapMap,
        (sentinel, at): (Address, Address),
        pages: u64,
        location: SpanLocation,
        busy: &Option<Transient>,
    ) {
        let layout = &self.located.layout.span;
        let Some(span) = read_span(self.target.memory, &self.located, at) else {
            return;
        };
        let live = self.is_span(at);
        if span.location == location && span.length == pages && live {
            return;
        }
        if busy.is_none()
            && !books.damaged
            && span.length == pages
            && let Some(again) = self.freed_again(map, sentinel, &span)
        {
            books.damaged = true;
            books.push(at, again, None);
            return;
        }
        let free_span = |location: SpanLocation, pages, in_page_map| Value::FreeSpan {
            state: location.name(),
            pages,
            in_page_map,
        };
        let word = BrokenWord {
            of: at,
            at: layout.location.at(at),
            what: Field::FreeSpanOnList,
            expected: Expected::Exactly(free_span(location, pages, true), Reason::Itself),
            found: free_span(span.location, span.length, live),
        };
        books.damage(word, busy.clone().filter(|_| self.may_handle(&[at])));
    }

    fn check_sums(&self, books: &mut Books, map: &HeapMap, busy: Option<Transient>) {
        let layout = &self.located.layout.page_heap;
        let (mut system, mut free, mut returned) = (0u64, 0u64, 0u64);
        for span in self.spans.rows() {
            let bytes = span.length.saturating_mul(self.page_bytes());
            system = system.saturating_add(bytes);
            match span.location {
                SpanLocation::Normal => free = free.saturating_add(bytes),
                SpanLocation::Returned => returned = returned.saturating_add(bytes),
                _ => {}
            }
        }
        for (offset, what, expected) in [
            (0, Field::SystemBytes, system),
            (8, Field::FreeBytes, free),
            (16, Field::UnmappedBytes, returned),
        ] {
            let at = self
                .located
                .page_heap
                .saturating_add(layout.stats.saturating_add(offset));
            let Ok(recorded) = self.target.memory.read_u64(at) else {
                continue;
            };
            let word = |reason| BrokenWord {
                of: at,
                at,
                what,
                expected: Expected::Exactly(Value::Number(expected), reason),
                found: Value::Number(recorded),
            };
            let excess = recorded.checked_sub(expected);
            let freed = excess.filter(|_| offset == 8 && busy.is_none());
            if let Some((start, block, times)) =
                freed.and_then(|excess| self.counted_twice(map, excess))
            {
                let kind = AnomalyKind::FreedAgain {
                    start,
                    block,
                    times,
                    word: word(Reason::BytesOfFreeSpans),
                };
                books.push(at, kind, None);
            } else if recorded != expected {
                books.count(word(Reason::BytesOfSpans), busy.clone());
            }
        }
    }
}
