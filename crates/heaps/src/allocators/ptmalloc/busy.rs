//! Whether an arena or a cache is at rest: whoever is inside malloc leaves states that look like
//! damage and are none.

use std::ops::Range;

use super::PtmallocHeap;
use super::locate::Located;
use crate::anomaly::{Holding, Lock, Proof, Transient};
use crate::presence::{Code, Presence};
use ground::arch::x86_64::calls::STARTS;
use ground::target::signals::SIGABRT;
use ground::target::{Address, Frame, FrameTrust, Module, Target};

/// Where the allocator's code is: glibc keeps all of it between its static helpers, which stand
/// before `malloc`, and `malloc_info`. Without symbols, in functions that refer to its variables.
pub fn code(target: Target<'_>, module: &Module, located: &Located) -> Code {
    const HELPERS: u64 = 0x5000;
    let range = || -> Option<Range<Address>> {
        let first = target.symbols.function(module.id, "malloc")?;
        let last = target.symbols.function(module.id, "malloc_info")?;
        let start = first.address.checked_sub(HELPERS)?;
        let end = last.address.checked_add(last.size.max(1))?;
        (start < end && end.offset_from(start)? < 1 << 20).then_some(start..end)
    };
    match range() {
        Some(range) => Code::Between(range),
        None => {
            let mut state = vec![located.main..located.main.saturating_add(located.arena.bytes)];
            if let Some((at, _)) = located.parameters {
                state.push(at..at.saturating_add(144));
            }
            Code::Touching(state)
        }
    }
}

impl PtmallocHeap<'_> {
    /// Proof that an arena's chunks and bins may be half changed: its lock is held, or, in a process
    /// of one thread (which takes no locks from 2.27 on), that thread is inside.
    pub(super) fn arena_busy(&self, arena: usize) -> Option<Transient> {
        let row = self.arenas.rows.get(arena)?;
        if (1..=2).contains(&row.mutex) {
            if self.is_held_by_the_dead(row.at, row.mutex) {
                return None;
            }
            return Some(Transient::held(Lock::Arena, row.at, row.mutex));
        }
        if self.presences.count() == 1 {
            return self.thread_busy(0);
        }
        None
    }

    /// Whether the lock is the crashing thread's: whoever gives up in malloc_printerr holds that of an arena that is at rest. A lock
    /// that nobody can hold is one that fork copied, with the arena as it was then.
    fn is_held_by_the_dead(&self, arena: Address, mutex: u32) -> bool {
        const WAITED_FOR: u32 = 2;
        /// rt_sigprocmask (x86-64): up to glibc 2.33 the signal of raise comes when signals are let through again.
        const RAISE: [u64; 1] = [14];
        let threads = self.presences.count();
        let others_outside = (1..threads).all(|thread| self.is_outside(thread));
        let is_elsewhere =
            self.presences.of(0) == Presence::Outside && self.target.threads.is_unwound(0);
        // Who gives up has the arena at hand.
        let has_arena =
            || !self.presences.is_left_of_several() || self.presences.has_on_stack(0, arena);
        let is_copied = is_elsewhere || threads == 1 && (mutex == WAITED_FOR || !has_arena());
        let gave_up =
            self.excuses_nothing(0) || self.aborts() && self.presences.rests_in(0, &RAISE);
        gave_up && others_outside && !is_copied
    }

    /// Proof that a cache may be half changed: only its own thread works on it.
    pub(super) fn cache_busy(&self, cache: usize) -> Option<Transient> {
        match self.cache(cache)?.owner {
            Some(thread) => self.thread_busy(thread),
            // Whose it is cannot be told, but there is nobody else.
            None if self.tcaches.are_anybodys => self.somebody_inside(),
            None => Some(Transient::gone(Proof::ThreadOfCacheIsGone)),
        }
    }

    /// Proof that any thread may be inside: fastbins are filled without a lock.
    pub(super) fn somebody_inside(&self) -> Option<Transient> {
        (0..self.presences.count()).find_map(|thread| self.thread_busy(thread))
    }

    /// Proof that threads which the core does not have may have been inside: one is left of several, as in fork's child.
    pub(super) fn vanished(&self) -> Option<Transient> {
        self.presences.others_are_gone()
    }

    /// Proof that some arena is half changed by a thread that the core does not have: its lock is held, and not by the
    /// one that is left. (A fork waits for the arenas of libc's malloc, and for none of the debugging library's.)
    pub(super) fn copied_lock(&self) -> Option<Transient> {
        self.vanished()?;
        if !self.excuses_nothing(0) && !self.is_outside(0) {
            return None;
        }
        (0..self.arenas.rows.len()).find_map(|arena| self.arena_busy(arena))
    }

    pub(super) fn thread_busy(&self, thread: usize) -> Option<Transient> {
        if self.excuses_nothing(thread) || self.is_outside(thread) {
            return None;
        }
        Some(self.presences.at_work(thread))
    }

    /// Whether a thread is certainly not inside malloc. One that starts another one cannot be unwound by rules, and malloc
    /// starts none.
    pub(super) fn is_outside(&self, thread: usize) -> bool {
        match self.presences.of(thread) {
            Presence::Outside => true,
            Presence::Inside { .. } => false,
            Presence::Unknown => self.presences.rests_in(thread, &STARTS),
        }
    }

    /// A thread that died of its own fault, by malloc's own verdict or by any other call of `abort`,
    /// stopped there and nowhere else.
    pub(super) fn excuses_nothing(&self, thread: usize) -> bool {
        self.gave_up(thread) || self.presences.faulted(thread) || self.presences.raised(thread)
    }

    /// Whether malloc itself ended the process here: it checks before it changes anything, so what
    /// it was working on is at rest. A handler that ran on top of malloc and aborted is another case.
    fn gave_up(&self, thread: usize) -> bool {
        let threads = &self.target.threads;
        let aborted = thread == 0 && self.aborts();
        let Presence::Inside { frame, .. } = self.presences.of(thread) else {
            return false;
        };
        let frames = threads.frames(thread);
        // Behind a frame that was guessed nothing is certain.
        let by_rules = |frame: &Frame| {
            !frame.interrupted && matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi)
        };
        aborted && frame > 0 && frames.iter().take(frame.saturating_add(1)).all(by_rules)
    }

    /// Whether the crashing thread died of `abort`'s signal.
    fn aborts(&self) -> bool {
        let first = self.target.threads.list().first();
        first.is_some_and(|thread| thread.signal == SIGABRT)
    }

    /// Proof that a thread inside the allocator is working on a chunk right now: one of its
    /// registers holds it.
    pub(super) fn in_flight(&self, chunk: Address) -> Option<Transient> {
        self.held(chunk..chunk.saturating_add(1))
            .or_else(|| self.held(chunk.saturating_add(16)..chunk.saturating_add(17)))
    }

    /// Proof that a thread inside the allocator is working on a piece of memory right now: one of
    /// its registers holds an address in it, or may, because the core does not have its stack.
    pub(super) fn held(&self, range: Range<Address>) -> Option<Transient> {
        (0..self.presences.count()).find_map(|thread| {
            if self.excuses_nothing(thread) || self.is_outside(thread) {
                return None;
            }
            let registers = self.presences.registers(thread);
            if registers.is_empty() && self.presences.has_lost_stack(thread) {
                return Some(self.presences.at_work(thread));
            }
            let (register, _) = registers
                .iter()
                .find(|(_, value)| range.contains(&Address::new(*value)))?;
            let at_work = self.presences.at_work(thread);
            Some(at_work.holding(Holding::Chunk { register }))
        })
    }
}
