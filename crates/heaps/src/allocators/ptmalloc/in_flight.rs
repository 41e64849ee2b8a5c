//! What the threads that are inside malloc are working on. An arena whose lock is held may be half changed, but only
//! around the chunk that the holder of the lock has in hand.

use std::ops::Range;

use super::PtmallocHeap;
use super::layout::HEADER;
use crate::presence::Presence;
use ground::arch::x86_64::calls::FUTEX;
use ground::target::{Address, Cursor};

/// All that threads inside malloc have in hand.
#[derive(Clone, Debug, Default)]
pub struct Hands {
    /// Words of their registers and frames, sorted.
    words: Vec<u64>,
    /// Some thread's frames are not known: it may hold anything.
    unknown: bool,
}

impl PtmallocHeap<'_> {
    /// Whether a thread that is, or may be, inside malloc has, or may have, an address of this range.
    pub(super) fn may_hold(&self, range: Range<Address>) -> bool {
        let hands = self.hands.get_or_init(|| self.look_at_hands());
        let first = hands
            .words
            .partition_point(|word| *word < range.start.get());
        let held = hands.words.get(first);
        hands.unknown || held.is_some_and(|word| *word < range.end.get())
    }

    /// The same of a chunk: of its header, or of its block.
    pub(super) fn may_hold_chunk(&self, chunk: Address) -> bool {
        let block = chunk.saturating_add(HEADER);
        [chunk, block]
            .into_iter()
            .any(|at| self.may_hold(at..at.saturating_add(1)))
    }

    fn look_at_hands(&self) -> Hands {
        let mut hands = Hands::default();
        let mut anyone = false;
        for thread in 0..self.presences.count() {
            if self.excuses_nothing(thread) || self.is_outside(thread) {
                continue;
            }
            let known = !self.presences.registers(thread).is_empty();
            match self.presences.words_in_hand(thread).filter(|_| known) {
                Some(words) => hands.words.extend(words),
                None => hands.unknown = true,
            }
            let state = self.target.threads.list().get(thread);
            // Who waits for a lock has changed nothing yet.
            anyone |= state.is_some_and(|state| state.system_call != Some(FUTEX));
        }
        // A lock is held, and by none of those that are known to be inside.
        hands.unknown |= !anyone;
        hands.words.sort_unstable();
        hands
    }

    /// Whether a cache's thread may be taking it apart because it ends: nobody but libc itself calls malloc then.
    pub(super) fn may_end(&self, cache: usize) -> bool {
        let Some(thread) = self.cache(cache).and_then(|cache| cache.owner) else {
            return true;
        };
        match self.presences.of(thread) {
            Presence::Inside { .. } => self
                .presences
                .caller(thread)
                .is_none_or(|caller| caller == self.module.id),
            _ => true,
        }
    }

    /// Whether every list of a cache is empty, as when it has just been made: its counts are what its memory held until it
    /// is cleared.
    pub(super) fn holds_nothing(&self, cache: usize) -> bool {
        let (Some(layout), Some(cache)) = (&self.tcaches.layout, self.cache(cache)) else {
            return false;
        };
        let mut cursor = Cursor::new(self.target.memory);
        (0..layout.bins).all(|bin| {
            let bin = self.tcaches.bin(&mut cursor, cache.at, bin);
            bin.is_none_or(|bin| bin.head.is_null())
        })
    }
}
