//! What an allocator itself leaves in a block that is free: whoever reads such a word reads freed memory.

use crate::anomaly::ListRef;
use ground::target::Address;

/// Where a free block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The list that holds it.
    pub list: ListRef,
    /// Entries before it.
    pub position: u64,
}

/// A word that the allocator wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residue {
    /// The link to a neighbour in the list.
    Link {
        /// The block that it leads to; `None` at the end of the list.
        to: Option<Address>,
        /// glibc's safe-linking: the link is mixed with its own address.
        protected: bool,
        /// To the entry before, not to the one behind.
        back: bool,
    },
    /// The random number that glibc (2.34 on) writes into cached blocks.
    Key,
    /// The address of the cache, which glibc (2.29 to 2.33) writes into cached blocks.
    Cache,
    /// The head of a bin in an arena.
    Bin,
    /// A byte that free memory is filled with.
    Filling(u8),
}

impl Residue {
    /// Whether the word can be nothing but the allocator's, whatever the program wrote before: a link that is null cannot be told.
    pub fn tells(self) -> bool {
        !matches!(
            self,
            Residue::Link {
                to: None,
                protected: false,
                ..
            }
        )
    }
}
