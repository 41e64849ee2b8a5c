//! Which thread uses which arena, and which arenas wait for a thread.

use super::Inquiry;
use crate::anomaly::{AnomalyKind, BrokenWord, Expected, Field, Property, Reason, Value};
use ground::target::{Address, Fault, MemoryExt};

/// Threads whose words are named.
const MAX_NAMED: usize = 32;

/// A thread's word, where it lies, and the thread.
type ThreadWord = (usize, Address, Address);

impl Inquiry<'_, '_> {
    /// The words that say which thread uses which arena. Of a ring that is broken not all arenas are known.
    pub(super) fn threads(&mut self) {
        if self.heap.arenas.oddities.is_empty() {
            self.thread_arenas();
            self.free_arenas();
        }
    }

    fn is_arena(&self, at: Address) -> bool {
        self.heap.arenas.rows.iter().any(|row| row.at == at)
    }

    /// `thread_arena` of each thread is an arena, or null if it has none yet.
    fn thread_arenas(&mut self) {
        for (thread, at, found) in self.strange_thread_arenas() {
            let transient = self.heap.thread_busy(thread);
            self.push(
                AnomalyKind::Metadata {
                    word: BrokenWord {
                        of: at,
                        at,
                        what: Field::ThreadArena,
                        expected: Expected::Is(Property::ArenaOrNull),
                        found: found.into(),
                    },
                    counts_only: false,
                },
                transient,
            );
        }
    }

    /// Those that are neither. The word lies at the same distance from the thread pointer in every thread, near the one that
    /// names its cache: where at least two threads, and most of them, have arenas.
    fn strange_thread_arenas(&self) -> Vec<ThreadWord> {
        /// Bytes between libc's two thread-local words, at most (0x10 to 0x30 in the releases that were looked at).
        const NEAR: u64 = 0x40;
        let Some(cache) = self.heap.tcaches.distance else {
            return Vec::new();
        };
        let mut best: Option<(usize, Vec<ThreadWord>)> = None;
        let mut is_unique = true;
        for distance in (cache.saturating_sub(NEAR)..=cache.saturating_add(NEAR)).step_by(8) {
            let words: Vec<ThreadWord> = if distance == cache {
                Vec::new()
            } else {
                self.words_at(distance)
            };
            let (named, strange): (Vec<ThreadWord>, Vec<ThreadWord>) = words
                .into_iter()
                .filter(|(.., word)| !word.is_null())
                .partition(|(.., word)| self.is_arena(*word));
            if named.len() < 2 || named.len() <= strange.len() {
                continue;
            }
            match &best {
                Some((most, _)) if *most > named.len() => {}
                Some((most, _)) if *most == named.len() => is_unique = false,
                _ => {
                    best = Some((named.len(), strange));
                    is_unique = true;
                }
            }
        }
        let mut strange = best
            .filter(|_| is_unique)
            .map_or(Vec::new(), |(_, strange)| strange);
        // What the core has not is no proof of anything.
        strange.retain(|(.., word)| {
            let there = self.heap.target.memory.read_u64(*word);
            !matches!(there, Err(Fault::NotDumped(_) | Fault::Truncated(_)))
        });
        strange.truncate(MAX_NAMED);
        strange
    }

    /// The words at this distance of all threads that libc made: another runtime's have words of their own there. Its control
    /// block (`tcbhead_t`, x86-64) names itself twice.
    fn words_at(&self, distance: u64) -> Vec<ThreadWord> {
        let memory = self.heap.target.memory;
        let names_itself = |pointer: Address| {
            [0, 16]
                .into_iter()
                .all(|offset| memory.read_pointer(pointer.saturating_add(offset)) == Ok(pointer))
        };
        let word = |(thread, state): (usize, &ground::target::Thread)| {
            let pointer = state
                .thread_pointer
                .filter(|pointer| names_itself(*pointer))?;
            let at = pointer.checked_sub(distance)?;
            Some((thread, at, memory.read_pointer(at).ok()?))
        };
        let threads = self.heap.target.threads.list().iter();
        threads.enumerate().filter_map(word).collect()
    }

    /// Arenas on `free_list`, which only symbols tell, have no thread, unless one is taking it: the list has a lock of its own.
    fn free_arenas(&mut self) {
        let heap = self.heap;
        if heap.somebody_inside().or_else(|| heap.vanished()).is_some() {
            return;
        }
        let layout = &heap.located.arena;
        let symbol = heap.target.symbols.symbol(heap.module.id, "free_list");
        let (Some(symbol), Some(attached_at)) = (symbol, layout.attached) else {
            return;
        };
        let mut at = symbol.address;
        for _ in 0..heap.arenas.rows.len() {
            let Some(next) = self.word(at).map(Address::new) else {
                return;
            };
            let row = heap.arenas.rows.iter().position(|row| row.at == next);
            let Some((index, arena)) = row.and_then(|row| Some((row, heap.arenas.rows.get(row)?)))
            else {
                return;
            };
            if let Some(attached) = arena.attached.filter(|attached| *attached != 0) {
                let what = Field::MallocStateAttachedThreads;
                let expected =
                    Expected::Exactly(Value::Number(0), Reason::ListOfArenasWithoutThreads);
                self.book(
                    index,
                    attached_at,
                    what,
                    expected,
                    Value::Number(attached),
                    true,
                );
                return;
            }
            at = arena.at.saturating_add(layout.next_free());
        }
    }
}
