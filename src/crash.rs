//! How the process died: the instruction at fault, what the C library and the C++ runtime said last.
//!
//! ```text
//! signal ──> crashing thread ──┬─ which frame: the innermost, or the one that a fatal signal's handler interrupted
//!                              ├─ its instruction, memory operand and registers      instruction
//!                              ├─ where the values came from that it is about      origin
//!                              ├─ the last words of glibc or the allocator           last_words
//!                              └─ the type of an exception nobody caught             exception
//! ```
//!
//! Each part is absent where the core does not tell. Nothing here is a judgement on the heap.

pub mod argument;
mod exception;
pub mod exhausted;
mod instruction;
mod last_words;
pub mod origin;
pub mod own;
pub mod pure_virtual;
#[cfg(test)]
mod tests;

use ground::target::{Address, FrameTrust, MemoryExt, Thread};

pub use exception::Exception;
pub use instruction::{Access, Instruction, Operand, RegisterValue};
pub use last_words::{FoundBy, LastWords, Speaker};

use ground::target::signals::{SIGBUS, SIGSEGV};
use postmortem::corefile::SignalInfo;
use postmortem::session::Session;

/// How the process died.
#[derive(Clone, Debug)]
pub struct Crash {
    /// Index of the thread, in [`Session::threads`].
    pub thread: usize,
    /// Index of the frame at fault. Not 0 if a handler ran for a fatal signal before this one.
    pub frame: usize,
    /// The signal that a handler ran for, if one did: what went wrong first.
    pub handled: Option<SignalInfo>,
    /// The instruction at fault; `None` for a signal that no instruction raises.
    pub instruction: Option<Instruction>,
    /// It died of an access to memory, or of going where no code is: SIGSEGV or SIGBUS of its own.
    pub is_by_memory: bool,
    /// The address that could not be accessed, where the processor told it.
    pub fault_address: Option<Address>,
    /// How the program got the values that the fault is about.
    pub origins: Vec<origin::Origin>,
    /// The thread brought the signal on itself: it is a fault of its own, or it raised the signal. Nobody killed it from outside.
    pub is_own: bool,
    /// What the C library or the allocator wrote before it ended the process.
    pub last_words: Option<LastWords>,
    /// The C++ exception that nobody caught.
    pub exception: Option<Exception>,
    /// The call of `free`, `realloc` or `delete` that it died in.
    pub call: Option<argument::Call>,
    /// The virtual function without a body that it called.
    pub pure_virtual: Option<pure_virtual::PureVirtual>,
    /// The stack that the thread had used up.
    pub exhausted: Option<exhausted::Exhausted>,
}

/// Reads how the process died; `None` for the image of a living one.
pub fn read(session: &Session) -> Option<Crash> {
    let signal = session.signal().filter(|signal| signal.signal != 0)?;
    let thread = session.threads().list().first()?;
    let frames = session.threads().frames(0);
    let (frame, handled) = match first_fault(session, thread) {
        Some((frame, signal)) => (frame, Some(signal)),
        None => (0, None),
    };
    let first = handled.unwrap_or(signal);
    let target = session.target();
    let registers = frames.get(frame).map(|frame| frame.registers);
    let instruction = registers
        .filter(|_| first.is_fault())
        .and_then(|registers| {
            instruction::at_fault(
                session.arch(),
                target.memory,
                &registers,
                thread.thread_pointer,
                first.fault_address,
            )
        });
    let aborted = signal.is_abort() || first.is_abort();
    let is_own = session.threads().faulted(0) || is_own(session, signal);
    // gperftools 2.16 and later end the process by an instruction that is none.
    let last_words = (aborted || first.is_illegal_instruction())
        .then(|| last_words::find(target))
        .flatten();
    let is_by_memory = first.is_fault() && matches!(first.signal, SIGSEGV | SIGBUS);
    let origins = match is_by_memory {
        true => origin::read(session, 0, frame, instruction.as_ref()),
        false => Vec::new(),
    };
    Some(Crash {
        is_by_memory,
        fault_address: first.fault_address,
        origins,
        call: argument::read(session, 0, frame, last_words.as_ref()),
        pure_virtual: match aborted {
            true => pure_virtual::read(session, 0),
            false => None,
        },
        exhausted: first
            .fault_address
            .filter(|_| is_by_memory)
            .and_then(|fault| exhausted::read(session, 0, frame, fault)),
        thread: 0,
        frame,
        handled,
        instruction,
        is_own,
        last_words,
        exception: aborted
            .then(|| exception::find(target, session.debug_info()))
            .flatten(),
    })
}

/// Whether the process sent the signal to itself, as `abort` and `raise` do. Where the core does not tell who sent it, it may
/// have.
fn is_own(session: &Session, signal: SignalInfo) -> bool {
    match (signal.code, signal.sender) {
        (None, _) => true,
        (Some(_), Some((sender, _))) => session.process().pid == Some(sender),
        (Some(_), None) => signal.is_fault(),
    }
}

/// The outermost frame that a handler of a fatal signal interrupted, and that signal.
fn first_fault(session: &Session, thread: &Thread) -> Option<(usize, SignalInfo)> {
    let frames = session.threads().frames(0);
    let arch = session.arch();
    let layout = &arch.signal_frame;
    let target = session.target();
    frames.iter().enumerate().rev().find_map(|(index, frame)| {
        let trampoline = frames.get(index.checked_sub(1)?)?;
        if !frame.interrupted || trampoline.trust == FrameTrust::Scan {
            return None;
        }
        if let Some(signal) = SignalInfo::of_frame(target.memory, arch, trampoline.sp) {
            return Some((index, signal));
        }
        // A handler without SA_SIGINFO is given no siginfo; the processor's words about the fault are there all the same.
        let word = |at: Option<u64>| -> Option<u64> {
            target.memory.read_u64(trampoline.sp.checked_add(at?)?).ok()
        };
        let fault = word(layout.fault_address).map(Address::new);
        let trap = word(layout.trap);
        let (signal, address) = match trap {
            Some(trap) => (
                arch.signal_of_trap(trap)?,
                fault.filter(|_| Some(trap) == arch.page_fault_trap),
            ),
            None => (SIGSEGV, Some(fault?)),
        };
        let instruction = instruction::at_fault(
            arch,
            target.memory,
            &frame.registers,
            thread.thread_pointer,
            address,
        );
        // The words may be left from an earlier fault: the instruction must be one that faults like this.
        let fits = instruction
            .as_ref()
            .is_some_and(|instruction| instruction.can_raise(trap, address))
            || address == Some(frame.pc);
        fits.then_some((
            index,
            SignalInfo {
                signal,
                code: None,
                fault_address: address,
                sender: None,
            },
        ))
    })
}
