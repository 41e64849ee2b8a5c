//! Bookkeeping: everything that gperftools counts twice, checked against each other.
//!
//! Numbers in comments are the rules of the invariants' list in the design notes. A state that a
//! thread inside the allocator may be passing through carries its proof and is no damage; counters
//! in such a state are not worth a word at all.

mod caches;
mod central;
mod pages;
mod refreed;
mod rings;
mod sets;

use super::TcmallocHeap;
use super::pagemap::SpanRepair;
use crate::allocators::GroupReport;
use crate::anomaly::{Anomaly, AnomalyKind, BrokenWord, Expected, Field, Property, Value};
use crate::map::HeapMap;
use ground::target::{Address, MemoryExt};

pub(super) use crate::allocators::books::Books;
pub use central::CentralBooks;
pub(super) use rings::Ring;

impl TcmallocHeap<'_> {
    /// Checks all books once the lists are known. Classes whose lists are damaged keep their
    /// counters to themselves: they are out of step because of it.
    pub(super) fn check_books(&self, map: &HeapMap, groups: &[GroupReport]) -> Vec<Anomaly> {
        let irregular = |class: usize| {
            groups
                .get(class)
                .is_some_and(|group| !group.anomalies.is_empty())
        };
        let damaged = groups
            .iter()
            .flat_map(|group| &group.anomalies)
            .any(|anomaly| anomaly.transient.is_none() && !anomaly.is_count());
        let mut books = Books::default();
        // A span whose first object is no object was said with the lists.
        let said = groups.iter().flat_map(|group| &group.anomalies);
        books
            .said
            .extend(said.filter_map(|anomaly| match &anomaly.kind {
                AnomalyKind::BadEntry { edge, .. } | AnomalyKind::FollowedLink { edge, .. }
                    if edge.from.is_none() =>
                {
                    Some(edge.list.at)
                }
                _ => None,
            }));
        self.check_repairs(&mut books);
        for (class, anomaly) in &self.central_books.anomalies {
            let (AnomalyKind::Metadata {
                word: BrokenWord { of, .. },
                ..
            }
            | AnomalyKind::Shared {
                block: crate::map::Block { address: of, .. },
                ..
            }) = &anomaly.kind
            else {
                continue;
            };
            if !(anomaly.is_count() && irregular((*class).into())) && books.said.insert(*of) {
                books.out.push(anomaly.clone());
            }
        }
        self.check_spans(&mut books, damaged);
        let foreign = groups
            .iter()
            .flat_map(|group| &group.anomalies)
            .filter(|anomaly| matches!(anomaly.kind, AnomalyKind::BadEntry { leads_on: true, .. }))
            .count() as u64;
        self.check_counters(&mut books, &irregular, foreign);
        self.check_slots(&mut books, map, &irregular);
        self.check_sampled(&mut books);
        self.check_caches(&mut books, &irregular);
        self.check_page_heap(&mut books, map, damaged);
        self.check_size_map(&mut books);
        books.out
    }

    /// Words of spans and of the page map that everything else contradicts.
    fn check_repairs(&self, books: &mut Books) {
        let wrong = self.spans.wrong_entries(self.target.memory, &self.located);
        for repair in self.spans.repairs.iter().chain(&wrong) {
            let word = BrokenWord {
                of: repair.span,
                at: repair.at,
                what: repair.what,
                expected: Expected::word(repair.expected),
                found: Value::Word(repair.found),
            };
            let passing = || self.is_passing_repair(repair);
            books.damage(word, self.page_heap_locked().filter(|_| passing()));
        }
    }

    /// Whether somebody may be changing a word of a span or of the page map. What a central list holds was complete
    /// before it came there.
    fn is_passing_repair(&self, repair: &SpanRepair) -> bool {
        let row = self
            .spans
            .rows()
            .partition_point(|span| span.start < repair.start);
        let is_listed = self
            .spans
            .index_of(repair.span, repair.start)
            .is_some_and(|index| self.spans.on_central(index));
        // Spans that are joined: the one that goes is given back before the one that grows is told.
        let beside = [row.checked_sub(1), Some(row), row.checked_add(1)]
            .into_iter()
            .flatten();
        let mut hands: Vec<Address> = beside
            .filter_map(|row| Some(self.spans.rows().get(row)?.at))
            .collect();
        hands.push(repair.span);
        let found = Address::new(repair.found);
        // An object that was given back holds the pool's link there. Entries inside another span still name it.
        let at_start = repair.at == self.located.layout.span.start.at(repair.span);
        let given_back =
            at_start && (found.is_null() || self.target.memory.region_at(found).is_some());
        let is_longer = repair.at == self.located.layout.span.length.at(repair.span)
            && repair.found > repair.expected;
        let handled = || match given_back {
            true => self.may_handle_some(),
            false => self.may_handle(&hands) || is_longer && self.may_be_carving(repair.span),
        };
        !is_listed
            && !self.is_in_pages(found)
            && self
                .spans
                .may_be_passing(self.target.memory, &self.located, repair)
            && handled()
    }

    /// Whether somebody may be changing a link of a ring: it leads to a `Span` object, to a sentinel, or, of a span that is
    /// taken off, nowhere.
    pub(super) fn may_pass(&self, ring: &Ring<'_>, beside: [Address; 4], link: Address) -> bool {
        let is_object = link.is_aligned(8)
            && self.target.memory.region_at(link).is_some()
            && !self.is_in_pages(link);
        let mut modules = self.target.modules.iter();
        let foreign = link != ring.sentinel && modules.any(|module| module.range.contains(&link));
        let at_head = beside[..2].contains(&ring.sentinel);
        let handled = || {
            if at_head {
                self.may_handle_some()
            } else {
                self.may_handle(&beside)
            }
        };
        (link.is_null() || is_object && !foreign) && handled()
    }

    /// Whether a live span's object is at an address.
    pub(super) fn is_span(&self, at: Address) -> bool {
        self.spans
            .index_at(self.target.memory, &self.located, at)
            .is_some()
    }

    /// The size map against its own reverse table (rule 22).
    fn check_size_map(&self, books: &mut Books) {
        let layout = &self.located.layout.size_map;
        for (at, class) in
            self.located
                .sizes
                .contradictions(self.target.memory, self.located.size_map, layout)
        {
            let word = BrokenWord {
                of: self.located.size_map,
                at,
                what: Field::SizeMapClassArray,
                expected: Expected::Is(Property::ClassFor {
                    class,
                    bytes: self.located.sizes.bytes(class).into(),
                }),
                found: Value::OtherClass,
            };
            books.damage(word, None);
        }
    }
}
