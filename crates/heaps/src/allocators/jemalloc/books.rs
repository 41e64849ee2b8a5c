//! Bookkeeping: what jemalloc counts or says twice, checked against each other.
//!
//! Words that nobody leaves in this state are damage at any time; identities and links that somebody may be changing carry
//! the proof that somebody is; counters are compared only while nobody is inside, and only where nothing else is wrong
//! already.

mod arenas;
mod bins;

use super::JemallocHeap;
use crate::allocators::GroupReport;
pub(super) use crate::allocators::books::Books;
use crate::anomaly::{Anomaly, AnomalyKind, BrokenWord, Expected, Field, Property, Reason, Value};
use crate::map::HeapMap;

impl JemallocHeap<'_> {
    /// Checks all books once the caches and slabs are known.
    pub(super) fn check_books(&self, map: &HeapMap, groups: &[GroupReport]) -> Vec<Anomaly> {
        let mut books = Books::default();
        let said = groups.iter().flat_map(|group| &group.anomalies);
        for anomaly in said {
            if let AnomalyKind::Metadata { word, .. } = &anomaly.kind {
                books.said.insert(word.of);
            }
            books.damaged |= anomaly.transient.is_none();
        }
        if let Some(fatal) = self.fatal_free(map) {
            books.damaged = true;
            books.out.push(fatal);
        }
        self.check_page_map(&mut books);
        self.check_caches(&mut books);
        self.check_bins(&mut books);
        self.check_arenas(&mut books);
        let mut anomalies = books.out;
        anomalies.extend(self.changed_fillings(map));
        anomalies
    }

    /// The page map against the extents (and `arenas` against the arenas).
    fn check_page_map(&self, books: &mut Books) {
        let located = &self.located;
        for broken in &located.arenas.broken {
            let busy = self.somebody_inside().filter(|_| !broken.impossible);
            books.damage(broken.word.clone(), busy);
        }
        for (at, found) in &located.tree.strays {
            let word = BrokenWord {
                of: *at,
                at: *at,
                what: Field::RtreeNode,
                expected: Expected::Is(Property::NodeOrNull),
                found: Value::Word(*found),
            };
            books.damage(word, None);
        }
        for lost in &located.tree.lost {
            let word = BrokenWord {
                of: lost.at,
                at: lost.at,
                what: Field::RtreeNode,
                expected: Expected::Exactly(lost.child.into(), Reason::MapsPagesOfTheHeap),
                found: Value::Word(lost.found),
            };
            books.damage(word, None);
        }
        for repair in &located.extents.repairs {
            let mut rows = located.extents.rows.iter();
            let row = rows.find(|row| row.at == repair.extent);
            // What a bin holds was complete before it came there.
            let busy = match row.filter(|row| self.slab_class(row).is_some()) {
                Some(slab) => self.slab_busy(slab),
                None => self.somebody_inside_or_gone(),
            };
            let word = repair.suspect.word.clone();
            books.damage(word, busy.filter(|_| !repair.suspect.impossible));
        }
        for row in &located.extents.overlaps {
            let word = BrokenWord {
                of: row.at,
                at: row.at.saturating_add(located.layout.extent.address),
                what: self.name_of(Field::ExtentEAddr, Field::EdataEAddr),
                expected: Expected::Is(Property::MemoryOfItsOwn),
                found: Value::Memory(row.start(), row.end()),
            };
            books.damage(word, self.somebody_inside_or_gone());
        }
    }

    /// Marks of caches' bins.
    fn check_caches(&self, books: &mut Books) {
        for cache in &self.caches {
            for broken in &cache.broken {
                let busy = self.cache_busy(cache.user);
                books.damage(broken.word.clone(), busy.filter(|_| !broken.impossible));
            }
        }
    }
}
