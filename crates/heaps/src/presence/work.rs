//! How far a thread is with what it does inside the allocator, and what it does it with.
//!
//! Between two of an allocator's stores lies a state that looks like damage, but only a thread that stands there can
//! be the reason. One that has called out, to wait for a lock or for memory, stands at the call: what comes before it is
//! written. One that stands between two stores has at hand what the second one needs: in a register, or in a slot of
//! its frames.

use std::collections::HashSet;

use super::{Presence, Presences};
use ground::arch::x86_64::registers::RCX;
use ground::target::{Address, Cursor, Frame, FrameTrust, InstructionSet, ModuleId};

/// Bytes below the stack pointer that a function may use without moving it (System V, x86-64).
const RED_ZONE: u64 = 128;
/// Bytes of one frame that are searched: more than a frame of an allocator's has.
const MAX_FRAME: u64 = 16 << 10;

impl Presences<'_> {
    /// Whether a thread that is inside the allocator stands in code that it called, or in a system call, and no signal
    /// interrupted it elsewhere.
    pub fn has_called_out(&self, thread: usize) -> bool {
        let known = self.called_out.get(thread);
        known.is_some_and(|known| *known.get_or_init(|| self.looks_called_out(thread)))
    }

    fn looks_called_out(&self, thread: usize) -> bool {
        let Presence::Inside { frame: inside, .. } = self.of(thread) else {
            return false;
        };
        let frames = self.target.threads.frames(thread);
        let innermost = frames.get(..=inside).unwrap_or_default();
        let interrupted = |frame: &Frame| frame.interrupted && !self.is_called_code(frame.pc);
        innermost.iter().all(is_by_rules)
            && (self.waits(thread)
                || innermost
                    .first()
                    .is_some_and(|frame| self.is_called_code(frame.pc)))
            && !frames.iter().take(Self::MAX_FRAMES).any(interrupted)
            && self.was_not_interrupted_inside(thread)
    }

    /// Whether the thread is in a system call: the processor leaves the return address in `rcx`.
    fn waits(&self, thread: usize) -> bool {
        self.target.threads.instruction_set() == InstructionSet::X86_64
            && self.target.threads.list().get(thread).is_some_and(|state| {
                state.system_call.is_some() && state.registers.get(RCX) == Some(state.pc.get())
            })
    }

    /// Whether code is another module's than the allocator's. The dynamic linker's runs in the middle of any code that
    /// calls for the first time.
    fn is_called_code(&self, at: Address) -> bool {
        let mut others = self.target.modules.iter();
        !self.module.has_code_at(at)
            && !self.is_linker_code(at)
            && others.any(|module| module.has_code_at(at))
    }

    /// The words that a thread inside the allocator works with: the registers of its frames there, and what those frames
    /// hold. `None` if its stack could not be followed by rules.
    pub fn words_in_hand(&self, thread: usize) -> Option<&HashSet<u64>> {
        let known = self.in_hand.get(thread)?;
        known.get_or_init(|| self.collect(thread)).as_ref()
    }

    fn collect(&self, thread: usize) -> Option<HashSet<u64>> {
        let Presence::Inside { .. } = self.of(thread) else {
            return None;
        };
        let last = self.last_inside(thread)?;
        let frames = self.target.threads.frames(thread);
        let frames = frames.get(..last.saturating_add(2).min(frames.len()))?;
        if !frames.iter().take(last.saturating_add(1)).all(is_by_rules) {
            return None;
        }
        let registers = self.registers(thread).iter().map(|(_, value)| *value);
        let mut words: HashSet<u64> = registers.collect();
        let mut cursor = Cursor::new(self.target.memory);
        for (index, frame) in frames.iter().enumerate().take(last.saturating_add(1)) {
            let leaf = index == 0 || frame.interrupted;
            let start = frame
                .sp
                .get()
                .saturating_sub(if leaf { RED_ZONE } else { 0 })
                & !7;
            let end = frames
                .get(index.saturating_add(1))
                .map(|outer| outer.sp.get())
                .filter(|end| *end > start)
                .unwrap_or(u64::MAX)
                .min(start.saturating_add(MAX_FRAME));
            for at in (start..end).step_by(8) {
                words.extend(cursor.read_u64(Address::new(at)).ok());
            }
        }
        Some(words)
    }

    /// The module that called the allocator, where the thread is inside it.
    pub fn caller(&self, thread: usize) -> Option<ModuleId> {
        let frames = self.target.threads.frames(thread);
        frames
            .get(self.last_inside(thread)?.saturating_add(1))?
            .module
    }

    /// The outermost frame that is, or may be, the allocator's.
    fn last_inside(&self, thread: usize) -> Option<usize> {
        let frames = self.target.threads.frames(thread);
        frames
            .iter()
            .take(Self::MAX_FRAMES)
            .rposition(|frame| self.is_allocator_code(frame) != Some(false))
    }
}

fn is_by_rules(frame: &Frame) -> bool {
    matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi)
}
