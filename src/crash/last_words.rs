//! What the C library or the allocator said before it ended the process.

mod glibc;
mod stack;

use ground::target::{Address, Target};

/// How a thing was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// By its symbol.
    Symbols,
    /// By its structure alone.
    Structure,
    /// In the stack frames of whoever said it.
    Stack,
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The GNU C library.
    Glibc,
    /// gperftools' tcmalloc, its debugging variant included.
    Gperftools,
    /// jemalloc.
    Jemalloc,
}

impl Speaker {
    /// Its name in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Speaker::Glibc => "glibc",
            Speaker::Gperftools => "tcmalloc",
            Speaker::Jemalloc => "jemalloc",
        }
    }
}

/// A last message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastWords {
    /// The message, without the line's end.
    pub text: String,
    /// Where it stands.
    pub address: Address,
    /// How it was found.
    pub found_by: FoundBy,
    /// Who said it.
    pub speaker: Speaker,
}

/// The message, if there is one.
pub(super) fn find(target: Target<'_>) -> Option<LastWords> {
    glibc::find(target).or_else(|| stack::find(target))
}
