//! Bookkeeping: what jemalloc counts or says twice, checked against each other.
//!
//! Words that nobody leaves in this state are damage at any time; identities and links that somebody may be changing carry
//! the proof that somebody is; counters are compared only while nobody is inside, and only where nothing else is wrong
//! already.

mod arenas;
mod bins;

use super::JemallocHeap;
use crate::allocators::GroupReport;
pub(super) use crate::allocators::books::{Books, Word};
use crate::anomaly::{Anomaly, AnomalyKind};
use crate::map::HeapMap;

impl JemallocHeap<'_> {
    /// Checks all books once the caches and slabs are known.
    pub(super) fn check_books(&self, map: &HeapMap, groups: &[GroupReport]) -> Vec<Anomaly> {
        let mut books = Books::default();
        let said = groups.iter().flat_map(|group| &group.anomalies);
        for anomaly in said {
            if let AnomalyKind::Metadata { of, .. } = &anomaly.kind {
                books.said.insert(*of);
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
            let word = Word {
                of: broken.of,
                at: broken.at,
                what: broken.what,
                expected: broken.expected.clone(),
                found: broken.found.clone(),
            };
            let busy = self.somebody_inside().filter(|_| !broken.impossible);
            books.damage(word, busy);
        }
        for (at, found) in &located.tree.strays {
            let word = Word {
                of: *at,
                at: *at,
                what: "rtree_node_elm_t",
                expected: "a node in the allocator's own memory, or null".into(),
                found: format!("{found:#x}"),
            };
            books.damage(word, None);
        }
        for lost in &located.tree.lost {
            let word = Word {
                of: lost.at,
                at: lost.at,
                what: "rtree_node_elm_t",
                expected: format!("{}, which maps pages of the heap", lost.child),
                found: format!("{:#x}", lost.found),
            };
            books.damage(word, None);
        }
        for repair in &located.extents.repairs {
            let word = Word {
                of: repair.of,
                at: repair.at,
                what: repair.what,
                expected: repair.expected.clone(),
                found: repair.found.clone(),
            };
            let mut rows = located.extents.rows.iter();
            let row = rows.find(|row| row.at == repair.extent);
            // What a bin holds was complete before it came there.
            let busy = match row.filter(|row| self.slab_class(row).is_some()) {
                Some(slab) => self.slab_busy(slab),
                None => self.somebody_inside_or_gone(),
            };
            books.damage(word, busy.filter(|_| !repair.impossible));
        }
        for row in &located.extents.overlaps {
            let word = Word {
                of: row.at,
                at: row.at.saturating_add(located.layout.extent.address),
                what: self.name_of("extent_t.e_addr", "edata_t.e_addr"),
                expected: "memory that no other extent has".into(),
                found: format!("{} to {}", row.start(), row.end()),
            };
            books.damage(word, self.somebody_inside_or_gone());
        }
    }

    /// Marks of caches' bins.
    fn check_caches(&self, books: &mut Books) {
        for cache in &self.caches {
            for broken in &cache.broken {
                let word = Word {
                    of: broken.at,
                    at: broken.word,
                    what: broken.what,
                    expected: broken.expected.clone(),
                    found: broken.found.clone(),
                };
                let busy = self.cache_busy(cache.user);
                books.damage(word, busy.filter(|_| !broken.impossible));
            }
        }
    }
}
