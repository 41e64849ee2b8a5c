//! Whether a state that looks half changed can be some thread's work: whoever changes a list or a span has in hand what
//! the stores to come need.
//!
//! ```text
//! pop, range off      list_ = rest;     length_ -= n;      the first block taken off is still to be used
//! push, range on      length_ += n;     list_ = first;     the first block to be put on, too (either order)
//! spans               prev->next = ..;  next->prev = ..;   one of the spans beside the link
//! ```

use super::TcmallocHeap;
use crate::anomaly::Transient;
use crate::list::FreeList;
use crate::list::graph::Keeper;
use crate::presence::Presence;
use ground::target::Address;

/// Bytes of a `Span`, every release.
const SPAN: u64 = 48;

impl TcmallocHeap<'_> {
    /// Whether a thread stands where it may be in the middle of a change.
    pub(super) fn is_at_work(&self, thread: usize) -> bool {
        self.presences.of(thread) != Presence::Outside && !self.presences.has_called_out(thread)
    }

    /// Whether a thread that is in the middle of something has a word in hand that `fits`. What threads that are not in the
    /// core were doing cannot be told.
    fn somebody_has(&self, threads: &[usize], fits: &dyn Fn(u64) -> bool) -> bool {
        threads.iter().any(|thread| {
            let hand = || self.presences.words_in_hand(*thread);
            self.is_at_work(*thread)
                && hand().is_none_or(|hand| hand.iter().any(|word| fits(*word)))
        })
    }

    /// Proof that a list which ends at null, after another number of entries than it counts, is being changed. No work is
    /// done on more than a batch at a time. `is_missing` says whether the entries that it lacks, that many, may
    /// begin at an address.
    pub(super) fn passing_length(
        &self,
        list: &FreeList,
        walked: u64,
        is_missing: &dyn Fn(Address, u64) -> bool,
    ) -> Option<Transient> {
        let transient = self.busy(list)?;
        let threads = self.candidates(list);
        let at_work: Vec<usize> = threads
            .into_iter()
            .filter(|thread| self.is_at_work(*thread))
            .collect();
        let hidden = |thread: &usize| self.presences.words_in_hand(*thread).is_none();
        if self.is_ownerless(list) || self.vanished().is_some() || at_work.iter().any(hidden) {
            return Some(transient);
        }
        let missing = list.recorded.saturating_sub(walked);
        let batch = u64::from(self.located.sizes.batch(list.class)).max(1);
        if at_work.is_empty() || list.recorded.abs_diff(walked) > batch {
            return None;
        }
        let held = |word| is_missing(Address::new(word), missing);
        (missing == 0 || self.somebody_has(&at_work, &held)).then_some(transient)
    }

    /// Whether somebody may be changing one of these `Span` objects, or their links.
    pub(super) fn may_handle(&self, spans: &[Address]) -> bool {
        let threads: Vec<usize> = (0..self.presences.count()).collect();
        let is_one = |word: u64| {
            spans
                .iter()
                .any(|span| word.wrapping_sub(span.get()) < SPAN)
        };
        self.vanished().is_some() || self.somebody_has(&threads, &is_one)
    }

    /// Whether somebody may be cutting a span: `PageHeap::Carve` gives the rest back, for which it calls for memory and into the
    /// C++ library, before it stores the length of what is left.
    pub(super) fn may_be_carving(&self, span: Address) -> bool {
        (0..self.presences.count()).any(|thread| {
            let hand = self.presences.words_in_hand(thread);
            hand.is_some_and(|hand| hand.contains(&span.get()))
        })
    }

    /// Whether somebody may be changing spans at all.
    pub(super) fn may_handle_some(&self) -> bool {
        self.vanished().is_some()
            || (0..self.presences.count()).any(|thread| self.is_at_work(thread))
    }

    /// Whether an address lies in pages that were given to spans. No object of the allocator's own does.
    pub(super) fn is_in_pages(&self, at: Address) -> bool {
        self.spans
            .index_of_page(at.get() >> self.page_shift())
            .is_some()
    }
}
