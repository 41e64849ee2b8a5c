//! What a walker saw that a heap at rest does not show. Facts, not opinions: which error of the
//! program explains an anomaly is decided by the checks.
//!
//! One anomaly stands for one *root*: a walker that follows a damaged list reports the word that is
//! wrong, and counts what it cost in [`Anomaly::lost_blocks`], instead of reporting every list and
//! counter that the word put out of step.

mod field;
mod proof;
mod word;

use crate::map::Block;
use ground::target::{Address, Fault};

pub use field::Field;
pub use proof::{Holding, Lock, Proof, Transient};
pub use word::{BrokenWord, Expected, Property, Reason, Unit, Value};

/// Who keeps a free list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HolderKind {
    /// A thread's cache (tcmalloc, jemalloc).
    ThreadCache,
    /// tcmalloc's transfer cache: whole chains parked between threads and the central list.
    TransferCache,
    /// tcmalloc's central free list: the chain of one span.
    CentralList,
    /// A page heap's list of free spans.
    SpanList,
    /// A thread's cache (ptmalloc).
    Tcache,
    /// ptmalloc's fastbins: small chunks that neighbours do not know to be free.
    Fastbin,
    /// ptmalloc's unsorted, small and large bins.
    Bin,
    /// A thread's cache that is an array of pointers, not a chain (jemalloc).
    CacheArray,
    /// The marks of a slab that say which of its blocks are free (jemalloc).
    Slab,
}

impl HolderKind {
    /// Bytes from what its lists name to the block: some name the header in front of it.
    pub fn lead(self) -> u64 {
        match self {
            HolderKind::Fastbin | HolderKind::Bin => 16,
            _ => 0,
        }
    }

    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            HolderKind::ThreadCache => "thread-cache",
            HolderKind::TransferCache => "transfer-cache",
            HolderKind::CentralList => "central-list",
            HolderKind::SpanList => "span-list",
            HolderKind::Tcache => "tcache",
            HolderKind::Fastbin => "fastbin",
            HolderKind::Bin => "bin",
            HolderKind::CacheArray => "thread-cache",
            HolderKind::Slab => "slab",
        }
    }

    /// Whether its entries are not chained through the blocks: no entry leads to another.
    pub fn is_unchained(self) -> bool {
        matches!(self, HolderKind::CacheArray | HolderKind::Slab)
    }
}

/// A free list, for people and reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListRef {
    /// Who keeps it.
    pub holder: HolderKind,
    /// The thread whose cache it is, where that could be told.
    pub thread: Option<u32>,
    /// Address of the structure that holds the list: cache list, slot, span.
    pub at: Address,
    /// Address of the word that points at the first entry.
    pub head_word: Address,
    /// Size class index.
    pub class: u16,
    /// Bytes of a block of that class.
    pub class_bytes: u64,
}

/// An edge of the graph that the free lists form: a head or a link that points at an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The list in which the edge was met. An edge that several lists share is reported with the first.
    pub list: ListRef,
    /// Entries of that list before the one that the edge points at.
    pub position: u64,
    /// The entry whose link this is; `None` when it is the list's head.
    pub from: Option<Address>,
}

impl Edge {
    /// Address of the word that holds the pointer.
    pub fn word(&self) -> Address {
        self.from.unwrap_or(self.list.head_word)
    }
}

/// Why a value cannot be an entry of the list that it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stray {
    /// Inside a block of the list's size class, `offset` bytes past its start.
    Misaligned {
        /// The block.
        block: Block,
        /// Bytes past its start.
        offset: u64,
    },
    /// In a block of another size class.
    OtherClass {
        /// That block.
        block: Block,
        /// Bytes past its start.
        offset: u64,
    },
    /// In a span that is free as a whole: the block that it was is gone.
    FreeSpan {
        /// The span, as one block.
        block: Block,
        /// Bytes past its start.
        offset: u64,
    },
    /// Allocator memory that is no block: a tail, metadata.
    NotABlock,
    /// Mapped, but no memory of this allocator.
    OutsideHeap,
    /// Not mapped at all.
    Unmapped,
    /// A proper entry to look at, but not the one that belongs there.
    WrongEntry {
        /// The block.
        block: Block,
    },
    /// A block whose link is still the program's data: an insertion was interrupted.
    NotLinkedYet,
    /// Null before the list's recorded end.
    EarlyEnd,
    /// An entry whose link is not in the core.
    Unreadable(Fault),
}

/// Where a list's walk stopped or should have gone, if the right value of a damaged link can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The value the link must have had.
    pub value: Address,
    /// Only one value fits the surviving bytes, the recorded length and the unlisted blocks.
    pub unique: bool,
}

/// What kind of thing is out of order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnomalyKind {
    /// A block is entered by more than one edge: it is in the free lists more than once.
    Shared {
        /// The block.
        block: Block,
        /// All edges that point at it, in order of lists and positions.
        edges: Vec<Edge>,
        /// Entries in the circle, if following the links from the block leads back to it.
        cycle: Option<u64>,
        /// Blocks have been taken from the circle since it was closed: its list counts fewer than
        /// it has, and the block that closed it need not be this one.
        taken: bool,
    },
    /// A word of a free list holds a value that is no entry of it.
    BadEntry {
        /// The word.
        edge: Edge,
        /// Its value.
        found: Address,
        /// Why it is no entry.
        stray: Stray,
        /// The link stored at `found` leads to a proper entry of this list (or is null at its
        /// end), as after freeing an inner pointer.
        leads_on: bool,
        /// What the damaged word must have been.
        repair: Option<Repair>,
    },
    /// A list's head is no entry of it, and the words around it are whole: nobody wrote there. The allocator took off the block
    /// whose link was damaged, and that link became the head.
    FollowedLink {
        /// The head.
        edge: Edge,
        /// Its value.
        found: Address,
        /// Why it is no entry.
        stray: Stray,
        /// The word as the block held it, where all blocks that it may have been give the same one.
        word: Option<u64>,
        /// The block, if it still holds that word.
        block: Option<Block>,
        /// What the link must have been.
        repair: Option<Repair>,
    },
    /// The size of the memory that is not cut into blocks yet does not lead to its end. Whatever is cut off keeps the
    /// difference, so the block in front of it need not be the one that wrote.
    RestSize {
        /// That memory, as one block.
        block: Block,
        /// The word.
        at: Address,
        /// What it is, in the allocator's own terms.
        what: Field,
        /// What it must hold.
        expected: u64,
        /// What it holds.
        found: u64,
        /// The block that ends where the word begins.
        before: Block,
        /// Blocks of which a write past the end explains the difference best, the last one first.
        candidates: Vec<Block>,
    },
    /// A list's recorded length is not what the list holds, and nothing else is wrong with it.
    Length {
        /// The list.
        list: ListRef,
        /// Address of the recorded length.
        at: Address,
        /// As recorded.
        recorded: u64,
        /// As walked.
        walked: u64,
    },
    /// A list of free blocks leads to a block that is handed out: it was put there twice, and taken
    /// off once.
    ListedInUse {
        /// The block.
        block: Block,
        /// The edge that leads to it.
        edge: Edge,
    },
    /// More frees were counted of some memory than blocks of it are free: one was freed to its owner
    /// again, which turned its mark back to "in use".
    FreedAgain {
        /// The memory that the count is of.
        start: Address,
        /// The block, if only one can have been freed again.
        block: Option<Block>,
        /// Frees too many.
        times: u64,
        /// The counter.
        word: BrokenWord,
    },
    /// A thread died inside the allocator of the pointer that it was given to free.
    FatalFree {
        /// The thread.
        thread: u32,
        /// The pointer.
        found: Address,
        /// Why it is no block.
        stray: Stray,
        /// The register that holds it.
        register: &'static str,
        /// The word that the allocator looked the pointer up in.
        at: Address,
        /// What that word is, in the allocator's own terms.
        what: Field,
    },
    /// Bytes that the allocator had filled with one value, and that only it may change, hold another.
    Filling {
        /// The block.
        block: Block,
        /// The first byte that was changed.
        at: Address,
        /// Bytes from there to the last one that was changed, that one included.
        bytes: u64,
        /// The value.
        fill: u8,
        /// The block is free; otherwise the bytes lie behind what the program asked for.
        freed: bool,
    },
    /// The mark that the allocator put behind what the program asked for, inside the block, is gone.
    EndMark {
        /// The block.
        block: Block,
        /// Where it should be, or where a length should lead to it.
        at: Address,
        /// The mark.
        mark: u8,
        /// What stands there.
        found: u8,
    },
    /// The header in front of a block is not as the allocator left it.
    Header {
        /// The block, as far as its bounds can be told.
        block: Block,
        /// The word.
        at: Address,
        /// What it is, in the allocator's own terms.
        what: Field,
        /// What it must have held, if that can be told.
        expected: Option<u64>,
        /// What it holds.
        found: u64,
        /// The block that ends where the header begins.
        before: Option<Block>,
    },
    /// A word that the allocator wrote into a free block, beside its link, holds something else.
    FreeWord {
        /// The block.
        block: Block,
        /// The word.
        at: Address,
        /// What it is, in the allocator's own terms.
        what: Field,
        /// What it should hold.
        expected: Expected,
        /// What it holds.
        found: u64,
        /// The edge that leads to the block.
        edge: Option<Edge>,
    },
    /// Bookkeeping that contradicts itself.
    Metadata {
        /// The word.
        word: BrokenWord,
        /// Counters that disagree, rather than links or identities that are impossible.
        counts_only: bool,
    },
}

/// One thing out of order, with what it cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub kind: AnomalyKind,
    /// Set when the allocator may have been passing through this state.
    pub transient: Option<Transient>,
    /// Free blocks that the damage cut off from every list.
    pub lost_blocks: u64,
    /// Further words that are wrong because of this one, for the evidence.
    pub related: Vec<BrokenWord>,
}

impl Anomaly {
    /// An anomaly that cost nothing else and is not transient.
    pub fn new(kind: AnomalyKind) -> Self {
        Self {
            kind,
            transient: None,
            lost_blocks: 0,
            related: Vec::new(),
        }
    }

    /// Whether only counters disagree.
    pub fn is_count(&self) -> bool {
        matches!(
            self.kind,
            AnomalyKind::Length { .. }
                | AnomalyKind::Metadata {
                    counts_only: true,
                    ..
                }
        )
    }
}
