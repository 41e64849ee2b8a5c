//! What shows that the allocator may have been passing through a state: values, which the checks put into words.

use crate::presence::Presence;
use ground::target::Address;

/// A state that the allocator passes through while it works, with its proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transient {
    /// The thread that is inside the allocator, if a thread is the proof.
    pub thread: Option<u32>,
    /// What proves it.
    pub proof: Proof,
}

/// What shows that somebody was at work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A thread is, or may be, inside the allocator.
    AtWork {
        /// Its kernel id.
        tid: u32,
        /// The allocator's module.
        module: String,
        /// Where it is.
        presence: Presence,
        /// A signal interrupted it there.
        interrupted: bool,
        /// What one of its registers holds.
        holding: Option<Holding>,
    },
    /// A lock is held.
    Held {
        /// The lock.
        lock: Lock,
        /// Its address, or that of what it is a part of.
        at: Address,
        /// The word that says so.
        word: u32,
    },
    /// The thread cache at this address has an owner, and it is not among the core's threads (tcmalloc).
    OwnerIsGone(Address),
    /// The thread of a cache is not among the core's threads (glibc).
    ThreadOfCacheIsGone,
    /// The thread of a cache is not in the core, and what it was doing cannot be told (jemalloc).
    ThreadOfCacheIsAbsent,
    /// There were other threads: a child of fork has none of them.
    OthersAreGone,
}

/// Whose lock it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    /// tcmalloc's page heap.
    PageHeap,
    /// A central list of tcmalloc's.
    CentralList,
    /// An arena of glibc's.
    Arena,
    /// A bin of jemalloc's.
    Bin,
    /// A page cache of jemalloc's.
    PageCache,
}

/// What a register of a thread at work holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holding {
    /// The block.
    Block {
        /// The register.
        register: &'static str,
    },
    /// The chunk.
    Chunk {
        /// The register.
        register: &'static str,
    },
    /// The block and the entry that is not linked behind it yet.
    BlockAndNext {
        /// The register with the block.
        register: &'static str,
        /// The register with the next entry.
        next_register: &'static str,
        /// The next entry.
        next: Address,
    },
    /// The block, which is not linked into the empty list yet.
    BlockForEmptyList {
        /// The register.
        register: &'static str,
    },
}

impl Transient {
    /// The same, with what a register of the thread holds.
    pub fn holding(mut self, held: Holding) -> Self {
        if let Proof::AtWork { holding, .. } = &mut self.proof {
            *holding = Some(held);
        }
        self
    }

    /// A held lock, by nobody that could be named.
    pub fn held(lock: Lock, at: Address, word: u32) -> Self {
        Self {
            thread: None,
            proof: Proof::Held { lock, at, word },
        }
    }

    /// Nobody that is left in the core.
    pub fn gone(proof: Proof) -> Self {
        Self {
            thread: None,
            proof,
        }
    }
}
