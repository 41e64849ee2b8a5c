//! Stacks of the dead process's threads: every frame, with all registers that the rules give.
//!
//! ```text
//! registers at death ──> frame 0 ──┬─ call-frame information (cfi, tables)       trust: cfi
//!                                  ├─ a signal's saved registers (trampoline)    trust: context
//!                                  ├─ frame pointer                              trust: frame_pointer
//!                                  └─ stack scan                                 trust: scan
//!                                        └──> frame 1 ──> ...
//! ```
//!
//! Threads are unwound when first asked for, each once. Tables are found once per module and shared by all threads.
//!
//! Bounds: the stack pointer must rise from frame to frame, except where a signal's frame may lie on another stack, which
//! is followed at most [`MAX_SIGNALS`] times; a stack of more than [`MAX_FRAMES`] frames is given up. In memory stay the
//! innermost [`KEPT_INNER`] and the outermost [`KEPT_OUTER`] frames of the thread that died; [`Unwinder::omitted`] says how many lie
//! between. Of the others fewer are kept the more of them there are ([`KEPT_OF_ALL`]).
//!
//! Not for: inlined functions, names and lines (`debuginfo`), and Windows or macOS unwind formats.

mod cfi;
mod fallback;
mod sources;
mod tables;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::{Arc, OnceLock};

use ground::target::{
    Address, Fault, Frame, FrameTrust, MemoryExt, Module, TargetMemory, Thread, Threads, is_fault,
};

use crate::corefile::{AddressSpace, SignalInfo};
use crate::debuginfo::{DebugInfo, FileBytes};
use crate::modules::ModuleSet;
use ground::arch::ArchInfo;
use tables::Tables;
pub use walk::FrameRule;

/// Frames walked before a stack is given up.
pub const MAX_FRAMES: u64 = 1_000_000;
/// Signals crossed before a stack is given up.
pub const MAX_SIGNALS: u32 = 64;
/// Innermost frames kept, about 400 bytes each.
pub const KEPT_INNER: usize = 4096;
/// Outermost frames kept of a longer stack.
pub const KEPT_OUTER: usize = 256;

/// Frames walked in all threads together, but for what each has as its least.
pub const MAX_FRAMES_OF_ALL: u64 = 16_000_000;
/// Innermost frames kept of a thread beside the first.
pub const KEPT_OF_OTHERS: usize = 512;
/// Frames kept of all threads together, but for what each has as its least.
pub const KEPT_OF_ALL: usize = 1 << 16;
/// Innermost frames kept of a thread all the same, as long as [`KEPT_AT_MOST`] has room for so many of each.
pub const KEPT_AT_LEAST: usize = 64;
/// Frames kept of all threads together, however many there are: what a report of them may hold.
pub const KEPT_AT_MOST: usize = 1 << 19;

/// Why a stack has no further frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackEnd {
    /// The outermost function: the rules say that nobody called it, or its return address is zero.
    Complete,
    /// The stack's memory is not in the core.
    Unreadable(Fault),
    /// The next frame would not lie above this one: the stack is damaged or runs in a circle.
    NotRising,
    /// No rule, frame pointer or return address leads further.
    Lost,
    /// A return address on the way is in no code: the stack is overwritten, and frames beyond that one are a guess.
    Overwritten,
    /// The way went through code of a module without call-frame information, as where its file is missing:
    /// what follows was guessed, and an end says nothing about the stack.
    NoFile,
    /// The stack is longer than [`MAX_FRAMES`] or its thread's share of [`MAX_FRAMES_OF_ALL`], or crosses more than [`MAX_SIGNALS`] signals.
    TooLong,
}

impl StackEnd {
    /// Whether the stack is known to its outermost function.
    pub fn is_complete(self) -> bool {
        self == StackEnd::Complete
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            StackEnd::Complete => "complete",
            StackEnd::Unreadable(_) => "not-in-core",
            StackEnd::NotRising => "not-rising",
            StackEnd::Lost => "lost",
            StackEnd::Overwritten => "overwritten",
            StackEnd::NoFile => "no-file",
            StackEnd::TooLong => "too-long",
        }
    }
}

/// Frames in the middle of a very deep stack, walked but not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Omitted {
    /// They lie before this index of [`Threads::frames`].
    pub before: usize,
    /// How many.
    pub count: u64,
}

/// An unwound stack.
#[derive(Clone, Debug)]
struct Stack {
    frames: Vec<Frame>,
    omitted: Option<Omitted>,
    end: StackEnd,
}

/// Unwinds threads; see the module's documentation.
pub struct Unwinder {
    memory: Arc<dyn TargetMemory + Send>,
    modules: Modules,
    debug: Option<Arc<DebugInfo>>,
    threads: Vec<Thread>,
    stacks: Vec<OnceLock<Stack>>,
    tables: Vec<OnceLock<Tables>>,
    arch: &'static ArchInfo,
    /// The bits of an address of code.
    code_mask: u64,
    /// What killed the process.
    signal: Option<SignalInfo>,
    forked: Option<bool>,
}

/// The modules with their files, or bare ones in tests.
enum Modules {
    Set(Arc<ModuleSet>),
    #[cfg(test)]
    Bare(Vec<(Module, FileBytes)>),
}

impl Unwinder {
    /// An unwinder that has unwound nothing yet.
    pub fn new(
        memory: Arc<AddressSpace>,
        modules: Arc<ModuleSet>,
        threads: Vec<Thread>,
        arch: &'static ArchInfo,
    ) -> Self {
        Self::over(memory, Modules::Set(modules), threads, arch)
    }

    fn over(
        memory: Arc<dyn TargetMemory + Send>,
        modules: Modules,
        threads: Vec<Thread>,
        arch: &'static ArchInfo,
    ) -> Self {
        let slots = |count| (0..count).map(|_| OnceLock::new()).collect();
        let mut unwinder = Self {
            memory,
            modules,
            debug: None,
            stacks: (0..threads.len()).map(|_| OnceLock::new()).collect(),
            threads,
            tables: Vec::new(),
            arch,
            code_mask: arch.code_mask,
            signal: None,
            forked: None,
        };
        unwinder.tables = slots(unwinder.modules().len());
        unwinder
    }

    /// Also uses `.debug_frame` of separate debug files.
    #[must_use]
    pub fn with_debug_info(mut self, debug: Arc<DebugInfo>) -> Self {
        self.debug = Some(debug);
        self
    }

    /// The bits of an address of code in this process.
    #[must_use]
    pub fn with_code_mask(mut self, mask: u64) -> Self {
        self.code_mask = mask;
        self
    }

    /// What killed the process: the number alone, which the threads hold, does not tell who sent it.
    #[must_use]
    pub fn with_signal(mut self, signal: Option<SignalInfo>) -> Self {
        self.signal = signal;
        self
    }

    /// Whether the process is a child that `fork` made, and the same program still.
    #[must_use]
    pub fn with_forked(mut self, forked: Option<bool>) -> Self {
        self.forked = forked;
        self
    }

    /// Why the stack of the thread at this index ends where it does.
    pub fn end(&self, index: usize) -> Option<StackEnd> {
        self.stack(index).map(|stack| stack.end)
    }

    /// The frames of a very deep stack that were not kept.
    pub fn omitted(&self, index: usize) -> Option<Omitted> {
        self.stack(index)?.omitted
    }

    /// First byte and end of the function that covers an address, by call-frame information.
    pub fn function_at(&self, at: Address) -> Option<(Address, Address)> {
        let (module, tables) = self.module_at(at)?;
        let row = tables.row(at.get().wrapping_sub(module.bias))?;
        let at_run_time = |link: u64| Address::new(link.wrapping_add(module.bias));
        Some((
            at_run_time(row.function.start),
            at_run_time(row.function.end),
        ))
    }

    /// Unwinds all threads, in parallel.
    pub fn unwind_all(&self) {
        use rayon::prelude::*;
        (0..self.threads.len()).into_par_iter().for_each(|index| {
            self.stack(index);
        });
    }

    fn stack(&self, index: usize) -> Option<&Stack> {
        let thread = self.threads.get(index)?;
        let slot = self.stacks.get(index)?;
        let bounds = walk::Bounds::of(index, self.threads.len());
        Some(slot.get_or_init(|| self.walk(thread, bounds)))
    }

    fn modules(&self) -> &[Module] {
        match &self.modules {
            Modules::Set(set) => set.modules(),
            #[cfg(test)]
            Modules::Bare(_) => &[],
        }
    }

    fn module_at(&self, at: Address) -> Option<(&Module, &Tables)> {
        let (module, slot) = match &self.modules {
            Modules::Set(set) => {
                let module = set.module_at(at)?;
                (module, usize::try_from(module.id.0).ok()?)
            }
            #[cfg(test)]
            Modules::Bare(modules) => {
                let slot = modules
                    .iter()
                    .position(|(module, _)| module.range.contains(&at))?;
                (&modules[slot].0, slot)
            }
        };
        let tables = self.tables.get(slot)?;
        Some((module, tables.get_or_init(|| self.tables_of(module))))
    }

    fn tables_of(&self, module: &Module) -> Tables {
        let (image, headers) = match &self.modules {
            Modules::Set(set) => (
                set.file(module.id)
                    .map(|_| FileBytes::Module(Arc::clone(set), module.id)),
                set.program_headers(module.id),
            ),
            #[cfg(test)]
            Modules::Bare(modules) => (
                modules
                    .iter()
                    .find(|(other, _)| other.id == module.id)
                    .map(|(_, file)| file.clone()),
                &[][..],
            ),
        };
        let debug = self.debug.as_ref();
        let debug = debug.and_then(|debug| debug.debug_file(module.id));
        sources::tables(
            self.memory.as_ref(),
            module,
            headers,
            image.as_ref(),
            debug.as_ref(),
            self.arch.instruction_set,
        )
    }
}

impl Unwinder {
    /// Whether the first thread died in a handler of a fault of its own: handlers that report a crash raise the signal again, or
    /// abort.
    fn handled_fault(&self) -> bool {
        let frames = self.frames(0);
        let pairs = frames.iter().zip(frames.iter().skip(1));
        pairs
            .filter(|(inner, outer)| outer.interrupted && inner.trust != FrameTrust::Scan)
            .any(|(trampoline, _)| self.is_frame_of_fault(trampoline.sp))
    }

    /// Whether the kernel put this signal frame there for a fault: its `siginfo_t` says so, or, as a handler may not have asked
    /// for that, the number of the trap.
    fn is_frame_of_fault(&self, frame: Address) -> bool {
        if SignalInfo::of_frame(&*self.memory, self.arch, frame).is_some() {
            return true;
        }
        let layout = &self.arch.signal_frame;
        let info = frame.checked_add(layout.siginfo);
        let mut bytes = [0; 32];
        let sent = info
            .filter(|info| self.memory.read_into(*info, &mut bytes).is_ok())
            .and_then(|_| SignalInfo::parse(&bytes, self.arch.little_endian))
            .is_some_and(|signal| {
                is_fault(signal.signal) && signal.code_name().is_some() && !signal.is_fault()
            });
        let at = layout.trap.and_then(|trap| frame.checked_add(trap));
        let trap = at.and_then(|at| self.memory.read_u64(at).ok());
        // Zero, a division, stands there as well if there never was a trap.
        let signal = trap
            .filter(|trap| *trap != 0)
            .and_then(|trap| self.arch.signal_of_trap(trap));
        !sent && signal.is_some_and(is_fault)
    }
}

impl Threads for Unwinder {
    fn list(&self) -> &[Thread] {
        &self.threads
    }

    fn frames(&self, index: usize) -> &[Frame] {
        self.stack(index).map_or(&[], |stack| &stack.frames)
    }

    fn is_unwound(&self, index: usize) -> bool {
        self.stack(index).is_some_and(|stack| {
            let by_rules =
                |frame: &Frame| matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi);
            stack.end.is_complete() && stack.omitted.is_none() && stack.frames.iter().all(by_rules)
        })
    }

    fn faulted(&self, index: usize) -> bool {
        let Some(thread) = self.threads.get(index).filter(|_| index == 0) else {
            return false;
        };
        let own = match self.signal {
            Some(signal) => is_fault(signal.signal) && signal.is_fault(),
            None => is_fault(thread.signal),
        };
        own || self.handled_fault()
    }

    fn forked(&self) -> Option<bool> {
        self.forked
    }

    fn arch(&self) -> &'static ArchInfo {
        self.arch
    }
}
