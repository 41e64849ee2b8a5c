//! Which threads are inside the allocator, and what their registers hold.
//!
//! An allocator passes through states that look like damage. Only a thread that is inside it can
//! be the reason, so this is never assumed but told from the unwound stack: a frame whose code
//! belongs to the allocator. For a shared library that is the module. For an allocator linked into
//! the program it is a function that refers to the allocator's variables; where that cannot be
//! told, because the code is not to be had, the answer is [`Presence::Unknown`].

mod arm64;
mod code;
mod fault;
mod stacks;
mod work;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::OnceLock;

use crate::anomaly::{Proof, Transient};
use code::is_linker;
use ground::arch::x86_64::calls::{FUTEX, KILL, RT_SIGPROCMASK, TGKILL, WAITS};
use ground::arch::x86_64::registers::{RCX, RDI, RDX, RSI};
use ground::target::signals::SIGABRT;
use ground::target::{
    Address, Frame, FrameTrust, InstructionSet, MemoryExt, Module, Target, is_fault,
};

/// Where the allocator's code is.
#[derive(Clone, Debug)]
pub enum Code {
    /// All of a module.
    Module,
    /// A part of a module.
    Between(Range<Address>),
    /// Functions of a module that refer to these addresses (the allocator's variables).
    Touching(Vec<Range<Address>>),
}

/// Whether a thread is inside the allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No frame of it is.
    Outside,
    /// This frame is.
    Inside {
        /// Frame number.
        frame: usize,
        /// Its program counter.
        pc: Address,
    },
    /// It may be: its frames lie in code that could not be looked at, or could not be found.
    Unknown,
}

/// The threads of a process, as one allocator sees them.
pub struct Presences<'t> {
    target: Target<'t>,
    module: &'t Module,
    code: Code,
    own: Option<Vec<Range<Address>>>,
    /// The dynamic linker: one module, or one for each namespace.
    linkers: Vec<&'t Module>,
    known: Vec<OnceLock<Presence>>,
    stacks: Vec<OnceLock<Vec<Range<Address>>>>,
    called_out: Vec<OnceLock<bool>>,
    in_hand: Vec<OnceLock<Option<HashSet<u64>>>>,
    contexts: Vec<OnceLock<Vec<stacks::Context>>>,
    registers: Vec<OnceLock<Vec<(&'static str, u64)>>>,
    raised: OnceLock<bool>,
}

impl<'t> Presences<'t> {
    /// Frames that are looked at per thread: an allocator's own calls are not deep, a handler that
    /// re-entered it may be.
    const MAX_FRAMES: usize = 256;
    /// Bytes of a function that are searched for references.
    const MAX_FUNCTION: u64 = 1 << 16;

    /// Bytes of a stack that are searched where it could not be unwound.
    const MAX_STACK: u64 = 8 << 20;
    /// Stacks of one thread: the handler of a signal may be interrupted by another one's.
    const MAX_STACKS: usize = 4;
    /// Contexts that are looked for on them.
    const MAX_CONTEXTS: usize = 16;

    /// Nothing is unwound yet.
    pub fn new(target: Target<'t>, module: &'t Module, code: Code) -> Self {
        let threads = target.threads.list();
        Self {
            target,
            module,
            code,
            own: None,
            linkers: target
                .modules
                .iter()
                .filter(|module| is_linker(module))
                .collect(),
            known: threads.iter().map(|_| OnceLock::new()).collect(),
            stacks: threads.iter().map(|_| OnceLock::new()).collect(),
            called_out: threads.iter().map(|_| OnceLock::new()).collect(),
            in_hand: threads.iter().map(|_| OnceLock::new()).collect(),
            contexts: threads.iter().map(|_| OnceLock::new()).collect(),
            registers: threads.iter().map(|_| OnceLock::new()).collect(),
            raised: OnceLock::new(),
        }
    }

    /// Tells where the allocator keeps memory of its own, its locks among it, beside its module's variables: who waits
    /// for a lock elsewhere is not inside it.
    pub fn with_own_memory(mut self, own: Vec<Range<Address>>) -> Self {
        self.own = Some(own);
        self
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.known.len()
    }

    /// Kernel id of a thread.
    pub fn tid(&self, thread: usize) -> Option<u32> {
        self.target
            .threads
            .list()
            .get(thread)
            .map(|thread| thread.tid)
    }

    /// Index of the thread with this thread pointer.
    pub fn with_thread_pointer(&self, pointer: Address) -> Option<usize> {
        self.target
            .threads
            .list()
            .iter()
            .position(|thread| thread.thread_pointer == Some(pointer))
    }

    /// Whether this is the thread that died, and by a fault of its own: it stopped at the faulting
    /// instruction and nowhere else.
    pub fn faulted(&self, thread: usize) -> bool {
        let threads = self.target.threads;
        let stands_there = || {
            let first = threads.list().first();
            first.is_some_and(|first| {
                is_fault(first.signal) && fault::stands_at_fault(self.target, first)
            })
        };
        thread == 0 && (threads.faulted(thread) || stands_there())
    }

    /// Whether this is the thread that died, by a signal that it sent itself (as `abort` does), and
    /// not on top of anything that a signal had interrupted inside the module: told by the registers
    /// of the system call, `syscall` leaving the program counter in `rcx`. So it is known without the
    /// library's file, too.
    pub fn raised(&self, thread: usize) -> bool {
        thread == 0 && *self.raised.get_or_init(|| self.look_for_own_signal())
    }

    /// See [`raised`](Self::raised), of the first thread.
    fn look_for_own_signal(&self) -> bool {
        let Some(state) = self.target.threads.list().first() else {
            return false;
        };
        let register = |number| state.registers.get(number);
        self.target.threads.instruction_set() == InstructionSet::X86_64
            && register(RCX) == Some(state.pc.get())
            && register(RSI) == Some(state.tid.into())
            && register(RDX)
                == u64::try_from(state.signal)
                    .ok()
                    .filter(|signal| *signal > 0)
            && self.was_not_interrupted_inside(0)
    }

    /// Whether the thread is inside the allocator.
    pub fn of(&self, thread: usize) -> Presence {
        self.known.get(thread).map_or(Presence::Unknown, |known| {
            *known.get_or_init(|| self.look(thread))
        })
    }

    /// Whether a signal interrupted the thread in the allocator's code, so that its handler ran on top of it.
    pub fn was_interrupted(&self, thread: usize) -> bool {
        let frames = self.target.threads.frames(thread);
        let frames = frames.iter().take(Self::MAX_FRAMES);
        matches!(self.of(thread), Presence::Inside { .. })
            && frames
                .filter(|frame| frame.interrupted)
                .any(|frame| self.is_allocator_code(frame) == Some(true))
    }

    /// Whether the core has one thread of what were, or may have been, several, and may be of a child that `fork` made: nobody
    /// can tell where the others stood. Threads that ended were in nobody's way.
    pub fn is_left_of_several(&self) -> bool {
        /// `tcbhead_t.multiple_threads` (glibc, x86-64), set by the first `pthread_create`.
        const MULTIPLE_THREADS: u64 = 24;
        let [thread] = self.target.threads.list() else {
            return false;
        };
        if self.target.threads.forked() == Some(false) {
            return false;
        }
        let pointer = thread.thread_pointer;
        let at = pointer.and_then(|pointer| pointer.checked_add(MULTIPLE_THREADS));
        at.is_some_and(|at| self.target.memory.read_u32(at) != Ok(0))
    }

    /// Whether any thread is, or may be, inside the allocator.
    pub fn anyone(&self) -> Option<usize> {
        (0..self.count()).find(|&thread| self.of(thread) != Presence::Outside)
    }

    fn look(&self, thread: usize) -> Presence {
        let frames = self.target.threads.frames(thread);
        if frames.is_empty() {
            return Presence::Unknown;
        }
        let mut unknown = false;
        for (number, frame) in frames.iter().enumerate().take(Self::MAX_FRAMES) {
            match self.is_allocator_code(frame) {
                // A guess may be a stale word of the stack.
                Some(true) if matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi) => {
                    return Presence::Inside {
                        frame: number,
                        pc: frame.pc,
                    };
                }
                Some(false) => {}
                _ => unknown = true,
            }
        }
        let unwound = frames.len() < Self::MAX_FRAMES && self.target.threads.is_unwound(thread);
        let may_be = unknown
            || !unwound && self.stack_names_allocator(thread)
            || frames
                .iter()
                .zip(frames.iter().skip(1).map(Some).chain([None]))
                .take(Self::MAX_FRAMES)
                .any(|(frame, outer)| self.is_bound_for(frame, outer));
        if may_be && !self.rests_elsewhere(thread) {
            Presence::Unknown
        } else {
            Presence::Outside
        }
    }

    /// Whether the innermost thing that the thread does shows by itself, without its frames, that the allocator did
    /// not call it: it waits in a system call that no allocator makes, it died by a signal that it sent itself, or of
    /// an instruction of the program's.
    fn rests_elsewhere(&self, thread: usize) -> bool {
        let Some(state) = self.target.threads.list().get(thread) else {
            return false;
        };
        if self.target.threads.instruction_set() != InstructionSet::X86_64 {
            return false;
        }
        let register = |number| state.registers.get(number);
        let sent = |number| register(number).and_then(|signal| i32::try_from(signal).ok());
        // The processor leaves the return address there.
        let in_call = register(RCX) == Some(state.pc.get());
        let rests = match state.system_call.filter(|_| in_call) {
            Some(FUTEX) => register(RDI).is_some_and(|word| !self.may_be_own(Address::new(word))),
            // Up to glibc 2.33, raise blocks all signals meanwhile: SIGABRT comes when they are let through again.
            Some(RT_SIGPROCMASK) => state.signal == SIGABRT,
            Some(KILL) => state.signal != 0 && sent(RSI) == Some(state.signal),
            Some(TGKILL) => {
                register(RSI) == Some(state.tid.into())
                    && state.signal != 0
                    && sent(RDX) == Some(state.signal)
            }
            Some(call) => WAITS.contains(&call),
            None => self.faulted(thread) && self.is_program_code(state.pc),
        };
        rests && self.was_never_interrupted(thread)
    }

    /// Whether the thread is in one of these system calls, and not on top of anything that a signal had interrupted.
    pub fn rests_in(&self, thread: usize, calls: &[u64]) -> bool {
        let Some(state) = self.target.threads.list().get(thread) else {
            return false;
        };
        // The processor leaves the return address there.
        let in_call = state.registers.get(RCX) == Some(state.pc.get());
        self.target.threads.instruction_set() == InstructionSet::X86_64
            && in_call
            && state.system_call.is_some_and(|call| calls.contains(&call))
            && self.was_never_interrupted(thread)
    }

    /// Whether a word is the allocator's, as far as was told; if nothing was told, or the word is not in the core, it may be.
    fn may_be_own(&self, at: Address) -> bool {
        self.module.range.contains(&at)
            || self.target.memory.read_u32(at).is_err()
            || match &self.own {
                Some(own) => own.iter().any(|range| range.contains(&at)),
                None => true,
            }
    }

    /// Values of all registers of the thread where it is inside the allocator, with their names:
    /// of the frames from the innermost to the outermost one inside. Where the stack could not be
    /// followed by rules, of the innermost frame if it is inside, and of what signals interrupted.
    pub fn registers(&self, thread: usize) -> &[(&'static str, u64)] {
        let known = self.registers.get(thread);
        known.map_or(&[], |known| {
            known.get_or_init(|| self.collect_registers(thread))
        })
    }

    /// See [`registers`](Self::registers).
    fn collect_registers(&self, thread: usize) -> Vec<(&'static str, u64)> {
        let frames = self.target.threads.frames(thread);
        let inside = |frame: &Frame| self.is_allocator_code(frame) != Some(false);
        let mut values: Vec<(&'static str, u64)> = Vec::new();
        let mut add = |name: &'static str, value: u64| {
            if values.iter().all(|(_, known)| *known != value) {
                values.push((name, value));
            }
        };
        let by_rules = match self.of(thread) {
            Presence::Outside => 0,
            Presence::Inside { .. } => frames
                .iter()
                .take(Self::MAX_FRAMES)
                .rposition(inside)
                .map_or(1, |last| last.saturating_add(1)),
            Presence::Unknown => usize::from(frames.first().is_some_and(inside)),
        };
        for frame in frames.iter().take(by_rules) {
            for (number, value) in frame.registers.iter() {
                add(self.target.threads.register_name(number), value);
            }
        }
        if self.of(thread) == Presence::Unknown {
            for context in self.signal_contexts(thread) {
                context
                    .iter()
                    .for_each(|value| add("register at the signal", *value));
            }
        }
        values
    }

    /// A thread as the proof that somebody is, or may be, at work.
    pub fn at_work(&self, thread: usize) -> Transient {
        let tid = self.tid(thread);
        Transient {
            thread: tid,
            proof: Proof::AtWork {
                tid: tid.unwrap_or(0),
                module: self.module.name.clone(),
                presence: self.of(thread),
                interrupted: self.was_interrupted(thread),
                holding: None,
            },
        }
    }

    /// Threads that the core does not have as the proof that somebody may have been at work: one is left of several, as in
    /// fork's child.
    pub fn others_are_gone(&self) -> Option<Transient> {
        self.is_left_of_several()
            .then(|| Transient::gone(Proof::OthersAreGone))
    }
}
