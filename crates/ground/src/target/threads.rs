//! Threads of the dead process: registers and unwound frames.

use super::signals::is_fault;
use super::{Address, ModuleId};
use crate::arch::{ArchInfo, InstructionSet, X86_64};

/// General registers by DWARF number, each known or not.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RegisterSet {
    values: [u64; Self::COUNT],
    known: u64,
}

impl RegisterSet {
    /// Registers that can be held: enough for x86-64 (17) and aarch64 (33).
    pub const COUNT: usize = 34;

    /// No register known.
    pub const fn empty() -> Self {
        Self {
            values: [0; Self::COUNT],
            known: 0,
        }
    }

    /// The value of the register with this DWARF number, if known.
    pub fn get(&self, number: u16) -> Option<u64> {
        let value = *self.values.get(usize::from(number))?;
        (self.known & bit(number) != 0).then_some(value)
    }

    /// Sets a register. Numbers that cannot be held are ignored.
    pub fn set(&mut self, number: u16, value: u64) {
        if let Some(slot) = self.values.get_mut(usize::from(number)) {
            *slot = value;
            self.known |= bit(number);
        }
    }

    /// Marks a register as unknown.
    pub fn forget(&mut self, number: u16) {
        if usize::from(number) < Self::COUNT {
            self.known &= !bit(number);
        }
    }

    /// All known registers, by rising DWARF number.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        (0..)
            .zip(self.values)
            .filter(|(number, _)| self.known & bit(*number) != 0)
    }
}

/// The bit of a register that can be held.
fn bit(number: u16) -> u64 {
    1u64.checked_shl(number.into()).unwrap_or(0)
}

impl std::fmt::Debug for RegisterSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// How a frame was found; the names are those of minidump-stackwalk's `trust`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FrameTrust {
    /// The thread's own registers.
    Context,
    /// By call-frame information.
    Cfi,
    /// By the frame pointer.
    FramePointer,
    /// By scanning the stack for return addresses.
    Scan,
}

impl FrameTrust {
    /// The name in the report: `context`, `cfi`, `frame_pointer`, `scan`.
    pub fn name(self) -> &'static str {
        match self {
            FrameTrust::Context => "context",
            FrameTrust::Cfi => "cfi",
            FrameTrust::FramePointer => "frame_pointer",
            FrameTrust::Scan => "scan",
        }
    }
}

/// One frame of a thread's stack, innermost first.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The program counter: the instruction itself for the innermost frame and for one that a
    /// signal interrupted, else the return address.
    pub pc: Address,
    /// The address to look `pc` up by: `pc`, or `pc - 1` for a return address.
    pub lookup: Address,
    /// Stack pointer in this frame.
    pub sp: Address,
    /// The module that holds `pc`.
    pub module: Option<ModuleId>,
    /// How it was found.
    pub trust: FrameTrust,
    /// This frame was interrupted by a signal: the frame inside it (the one before in the list)
    /// is the kernel's signal trampoline.
    pub interrupted: bool,
    /// The function that holds `lookup`, from the FDE that covers it (start, end); for a walker
    /// that must know a function's extent in a stripped library.
    pub function: Option<(Address, Address)>,
    /// All registers as they were in this frame, as far as the rules give them.
    pub registers: RegisterSet,
}

/// A thread of the dead process.
#[derive(Clone, Debug)]
pub struct Thread {
    /// Kernel thread id.
    pub tid: u32,
    /// Its name, where the core has it.
    pub name: Option<String>,
    /// Program counter at death.
    pub pc: Address,
    /// Stack pointer at death.
    pub sp: Address,
    /// Thread pointer (`fs_base` on x86-64).
    pub thread_pointer: Option<Address>,
    /// General registers at death.
    pub registers: RegisterSet,
    /// The signal that this thread's own status records; 0 for none.
    pub signal: i32,
    /// Number of the system call that it was in, or had just left; `None` outside of any.
    pub system_call: Option<u64>,
    /// Its blocked signals, a bit for each (signal 1 the lowest); `None` where the core does not say.
    pub blocked_signals: Option<u64>,
}

/// Threads, the crashing one first where the core tells.
pub trait Threads: Sync {
    /// All threads.
    fn list(&self) -> &[Thread];

    /// Frames of the thread at this index of [`list`](Self::list), innermost first, unwound when
    /// first asked for. Never empty for a valid index; bounded.
    fn frames(&self, index: usize) -> &[Frame];

    /// Whether the frames are all there are, each found by rules and none by guessing: a function
    /// that is not among them is not on the stack.
    fn is_unwound(&self, index: usize) -> bool {
        let by_rules = |frame: &Frame| matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi);
        self.frames(index).iter().all(by_rules)
    }

    /// Whether the thread at this index stopped at an instruction that raised a fatal signal, and nowhere else. A signal that
    /// somebody sent (`kill -SEGV`) stops a thread anywhere. What only the signal's number is known of counts as its own.
    fn faulted(&self, index: usize) -> bool {
        index == 0
            && self
                .list()
                .first()
                .is_some_and(|thread| is_fault(thread.signal))
    }

    /// Whether the process is a child that `fork` made and that never became another program: the threads of its parent
    /// are not in it. `None` where the core does not tell.
    fn forked(&self) -> Option<bool> {
        None
    }

    /// The architecture that they run on: register numbers, system calls, the layout of signal frames.
    fn arch(&self) -> &'static ArchInfo {
        &X86_64
    }

    /// What their code is written in.
    fn instruction_set(&self) -> InstructionSet {
        self.arch().instruction_set
    }

    /// Name of the register with this DWARF number, as `rax`.
    fn register_name(&self, number: u16) -> &'static str {
        self.arch().register_name(number).unwrap_or("a register")
    }
}
