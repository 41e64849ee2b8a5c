//! The pointer that the allocator was given by the call that it died in, or that it refused: `free(p)`, `realloc(p, n)`, `delete p`.
//!
//! It is taken from the call, never from a word of the stack that looks right:
//!
//! ```text
//! frames ──> which call leads to the allocator        stack, functions, entry
//!   ├──> the code at the call, gone back through       trace, definition, facts, code
//!   ├──> the allocator's code, from where it died back to its entry (the same way)
//!   ├──> the allocator's own message                   message
//!   └──> the address at fault, where it follows from the pointer
//! ```
//!
//! Sources that know the same must agree. Code is what the core or a verified file holds, and the stack must have been unwound by
//! rules: else the pointer is not known. Not used: variables by debug information.

mod code;
mod definition;
mod entry;
mod expression;
mod facts;
mod functions;
mod message;
mod stack;
#[cfg(test)]
mod tests;
mod trace;

use ground::target::{Address, InstructionSet};

use self::expression::Worked;
use self::facts::Origin;
use self::stack::{Entered, Stack, Value};
use super::instruction;
use super::last_words::LastWords;
use ground::arch::X86_64;
use ground::arch::x86_64::registers::BY_PROCESSOR;
use postmortem::session::Session;

/// An access this close to the stack pointer is the stack's.
const STACK_REACH: u64 = 64 << 10;
/// glibc's heaps of arenas are aligned to this.
const HEAP_BYTES: u64 = 64 << 20;

/// Which function of the allocator was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `free`, `cfree`.
    Free,
    /// `realloc`, `reallocarray`.
    Realloc,
    /// `operator delete` of any form.
    Delete,
}

impl Entry {
    /// As a report has it.
    pub fn name(self) -> &'static str {
        match self {
            Entry::Free => "free",
            Entry::Realloc => "realloc",
            Entry::Delete => "operator delete",
        }
    }
}

/// How the pointer is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The code at the call: what was moved into the first argument.
    CallSite,
    /// A register of the allocator's own frame.
    Register {
        /// Its name.
        name: &'static str,
        /// Index of the frame.
        frame: usize,
    },
    /// A word that the allocator's own code put the pointer, or one made of it, into.
    Stored {
        /// The word.
        at: Address,
        /// Index of the frame.
        frame: usize,
    },
    /// The allocator's own message names it: the text stands at this address.
    Message(Address),
}

impl Source {
    /// As a report has it.
    pub fn name(&self) -> &'static str {
        match self {
            Source::CallSite => "call-site",
            Source::Register { .. } => "register",
            Source::Stored { .. } => "stored",
            Source::Message(_) => "message",
        }
    }
}

/// The pointer that a call of the allocator was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// The pointer.
    pub value: Address,
    /// The function that was called.
    pub entry: Entry,
    /// How the pointer is known: the best source.
    pub source: Source,
    /// Two sources agree, or the one there is allows no other value. Otherwise it is likely.
    pub certain: bool,
    /// The word in memory that the caller loaded it from, where the code tells.
    pub loaded_from: Option<Address>,
}

/// A call of the allocator's `free`, `realloc` or `delete` that a thread is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The function that was called.
    pub entry: Entry,
    /// Index of the frame that called it: the innermost outside of the allocator.
    pub caller: usize,
    /// The pointer that it was given; `None` if it cannot be had.
    pub argument: Option<Argument>,
    /// Where it cannot be had, since two ways lead to the call: those that it can have been given.
    pub candidates: Vec<Address>,
}

/// Pointers that a call can have been given, at most.
const MAX_CANDIDATES: usize = 4;

/// The call of the allocator that the thread at this index of [`Session::threads`] died in, seen from its frame `from`: by a fault
/// there, or because the allocator aborted. Who was killed while it stood there did not die of it.
pub fn read(
    session: &Session,
    thread: usize,
    from: usize,
    said: Option<&LastWords>,
) -> Option<Call> {
    let frames = session.threads().frames(thread);
    if thread != 0 || session.threads().instruction_set() != InstructionSet::X86_64 {
        return None;
    }
    let death = death(session, from)?;
    let stack = Stack::new(session, thread, death.from)?;
    let entered = stack.entered()?;
    if death.by_abort && !stack.aborts_before(entered.caller) {
        return None;
    }
    let inner = frames.get(death.from)?.sp;
    let outer = frames.get(entered.caller)?.sp;
    let told = message::on_stack(session.memory(), inner, outer);
    let told = told.map(|told| (told.pointer, told.at)).or_else(|| {
        let said = said?;
        Some((message::in_text(&said.text)?, said.address))
    });
    let argument = argument(&stack, &entered, told, death.fault);
    let mut candidates = match argument {
        Some(_) => Vec::new(),
        None => given(&stack, &entered),
    };
    candidates.truncate(MAX_CANDIDATES + 1);
    Some(Call {
        entry: entered.entry,
        caller: entered.caller,
        argument,
        candidates: match candidates.len() {
            2..=MAX_CANDIDATES => candidates
                .iter()
                .map(|value| Address::new(value.worked.value))
                .collect(),
            _ => Vec::new(),
        },
    })
}

/// How the thread died.
struct Death {
    /// The frame that it died in.
    from: usize,
    /// It sent itself the signal of `abort`.
    by_abort: bool,
    /// The address that could not be accessed.
    fault: Option<u64>,
}

/// Whether the thread died by itself; `None` if it was killed.
fn death(session: &Session, from: usize) -> Option<Death> {
    let frames = session.threads().frames(0);
    let frame = frames.get(from)?;
    let signal = session.signal()?;
    if from == 0 && signal.is_abort() {
        // A handler of that signal stands on top of the first `abort`.
        let first = frames.iter().rposition(|frame| frame.interrupted);
        return Some(Death {
            from: first.unwrap_or(0),
            by_abort: true,
            fault: None,
        });
    }
    let fault = match from {
        0 => signal.fault_address,
        _ => None,
    };
    let at_fault = instruction::at_fault(
        session.arch(),
        session.memory(),
        &frame.registers,
        session.threads().list().first()?.thread_pointer,
        fault,
    );
    let raised_again = at_fault
        .as_ref()
        .is_some_and(|instruction| instruction.explains_fault);
    if from == 0 && !signal.is_fault() && !raised_again {
        return None;
    }
    // The stack ended, whatever was called.
    let stack_ended = at_fault.is_some_and(|instruction| {
        let at = instruction.operands.first().and_then(|first| first.address);
        let distance = at.map(|at| at.get().abs_diff(frame.sp.get()));
        instruction.explains_fault && distance.is_some_and(|distance| distance < STACK_REACH)
    });
    (!stack_ended).then_some(Death {
        from,
        by_abort: false,
        fault: fault.map(Address::get),
    })
}

/// The pointers of which the call was given one. A null pointer is nobody's death, but for realloc's.
fn given(stack: &Stack<'_>, entered: &Entered) -> Vec<Value> {
    let mut values = stack.can_be_given(entered);
    values.retain(|value| value.worked.value != 0 || entered.entry == Entry::Realloc);
    let mut seen = Vec::new();
    values.retain(|value| {
        let is_new = !seen.contains(&value.worked.value);
        seen.push(value.worked.value);
        is_new
    });
    values
}

/// What is known of the pointer, all sources together.
fn argument(
    stack: &Stack<'_>,
    entered: &Entered,
    told: Option<(Address, Address)>,
    fault: Option<u64>,
) -> Option<Argument> {
    let can_be = |value: &Worked| value.value != 0 || entered.entry == Entry::Realloc;
    let only = || match given(stack, entered).as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let given = stack.given(entered).or_else(only);
    let given = given.filter(|value| can_be(&value.worked));
    let received = stack
        .received(entered)
        .filter(|(value, _)| can_be(&value.worked));
    // What the allocator's innermost known function got is the pointer only if it is the one that was called.
    let (received, is_entry) = match received {
        Some((value, is_entry)) => (Some(value), is_entry),
        None => (None, false),
    };
    let exact = received.filter(|_| is_entry);
    let told_value = told.map(|(pointer, _)| pointer.get());
    let values = [
        given.map(|value| value.worked.value),
        exact.map(|value| value.worked.value),
        told_value,
    ];
    let mut known = values.into_iter().flatten();
    let first = known.next();
    if known.any(|other| Some(other) != first) {
        return None;
    }
    let agrees = |value: u64| {
        let all = [
            given.map(|value| value.worked.value),
            received.map(|value| value.worked.value),
            told_value,
        ];
        all.into_iter()
            .flatten()
            .filter(|one| *one == value)
            .count()
            > 1
    };
    let (value, source, certain) = if let Some(given) = given {
        let Value { worked, certain } = given;
        (worked.value, Source::CallSite, certain)
    } else if let Some((pointer, at)) = told {
        (pointer.get(), Source::Message(at), true)
    } else {
        let Value { worked, certain } = received?;
        let source = source(worked.origin?, entered.caller.checked_sub(1)?)?;
        (worked.value, source, certain && is_entry)
    };
    let confirmed = fault.is_some_and(|fault| follows(value, fault));
    // A function that the entry left for by a jump need not have been given the pointer.
    if given.is_none() && told.is_none() && !is_entry && !confirmed {
        return None;
    }
    Some(Argument {
        value: Address::new(value),
        entry: entered.entry,
        source,
        certain: certain || confirmed || agrees(value),
        loaded_from: given
            .and_then(|given| given.worked.loaded_from)
            .map(Address::new),
    })
}

fn source(origin: Origin, frame: usize) -> Option<Source> {
    match origin {
        Origin::Register { register, frame } => {
            let dwarf = BY_PROCESSOR.get(usize::from(register)).copied()?;
            let name = X86_64.register_name(dwarf)?;
            Some(Source::Register { name, frame })
        }
        Origin::Word(at) => Some(Source::Stored { at, frame }),
    }
}

/// Whether the address at fault is one that an allocator makes of the pointer: the size in front of it, or the head of the heap that
/// it would lie in (glibc); the place of its page in a leaf of the page map that is not there (jemalloc).
fn follows(pointer: u64, fault: u64) -> bool {
    let size = pointer.checked_sub(8);
    let heap = pointer
        .checked_sub(16)
        .map(|chunk| chunk & !(HEAP_BYTES - 1));
    let leaf = (pointer >> 12 & 0x3_ffff) * 8;
    size == Some(fault) || heap == Some(fault) || fault >= 4096 && leaf == fault
}
