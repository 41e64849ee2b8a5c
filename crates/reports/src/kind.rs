//! What went wrong, in one vocabulary for all tools.

/// A kind of error: the programmer's mistake, whatever a tool calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A block was read or written after it was freed.
    UseAfterFree,
    /// Bytes behind the end of a heap block were read or written.
    HeapOverrun,
    /// Bytes before the start of a heap block were read or written.
    HeapUnderrun,
    /// A block was freed twice.
    DoubleFree,
    /// Something was freed that is no start of a heap block.
    InvalidFree,
    /// A block was freed by another family of functions than it came from.
    MismatchedFree,
    /// Memory was never freed.
    MemoryLeak,
    /// A value that was never set was used.
    UninitialisedUse,
    /// Two threads used one place without order.
    DataRace,
    /// The language gives the operation no meaning.
    UndefinedBehaviour,
    /// Bytes outside a variable on the stack were used.
    StackOverrun,
    /// Bytes outside a global variable were used.
    GlobalOverrun,
    /// The process died of the access, and no tool knows more of the address.
    Crash,
    /// The thread's stack was used up.
    StackOverflow,
    /// Memory that is in use and can be reached: a profile's site, no error.
    LiveMemory,
    /// Everything else.
    Other,
}

impl Kind {
    /// The word of the contract.
    pub fn name(self) -> &'static str {
        match self {
            Self::UseAfterFree => "use-after-free",
            Self::HeapOverrun => "heap-overrun",
            Self::HeapUnderrun => "heap-underrun",
            Self::DoubleFree => "double-free",
            Self::InvalidFree => "invalid-free",
            Self::MismatchedFree => "mismatched-free",
            Self::MemoryLeak => "memory-leak",
            Self::UninitialisedUse => "uninitialised-use",
            Self::DataRace => "data-race",
            Self::UndefinedBehaviour => "undefined-behaviour",
            Self::StackOverrun => "stack-overrun",
            Self::GlobalOverrun => "global-overrun",
            Self::Crash => "crash",
            Self::StackOverflow => "stack-overflow",
            Self::LiveMemory => "live-memory",
            Self::Other => "other",
        }
    }

    /// The number in the Common Weakness Enumeration, where one fits.
    pub fn cwe(self) -> Option<u32> {
        Some(match self {
            Self::UseAfterFree => 416,
            Self::HeapOverrun => 122,
            Self::HeapUnderrun => 124,
            Self::DoubleFree => 415,
            Self::InvalidFree => 590,
            Self::MismatchedFree => 762,
            Self::MemoryLeak => 401,
            Self::UninitialisedUse => 457,
            Self::DataRace => 362,
            Self::UndefinedBehaviour => 758,
            Self::StackOverrun => 121,
            Self::GlobalOverrun => 787,
            Self::StackOverflow => 674,
            Self::Crash | Self::LiveMemory | Self::Other => return None,
        })
    }
}

/// True of the kinds whose records are memory that was not given back.
pub(crate) fn is_memory(kind: &str) -> bool {
    kind == Kind::MemoryLeak.name() || kind == Kind::LiveMemory.name()
}
