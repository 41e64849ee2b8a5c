//! The allocators that heapcheck knows: one folder each, one line each in `ALLOCATORS`.

use crate::target::{Address, LocatedBy, ModuleId};

/// Who an allocator is and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapIdentity {
    /// `tcmalloc`, `ptmalloc`, ...
    pub name: &'static str,
    /// `gperftools`; `None` where there is one variant only.
    pub variant: Option<&'static str>,
    /// Release, or range of releases that share the layout (`2.7-2.10`), if known.
    pub version: Option<String>,
    /// The module that holds its state.
    pub module: ModuleId,
    /// How each part was found, and where.
    pub located: Vec<LocatedPart>,
}

impl HeapIdentity {
    /// The weakest way used for any part.
    pub fn located_by(&self) -> LocatedBy {
        self.located
            .iter()
            .map(|part| part.by)
            .max()
            .unwrap_or(LocatedBy::Structure)
    }
}

/// A part of an allocator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedPart {
    /// Its name in the allocator's source (`Static::pageheap_`).
    pub part: &'static str,
    /// Where it is.
    pub at: Address,
    /// How it was found.
    pub by: LocatedBy,
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blocks.
    pub blocks: u64,
    /// Usable bytes.
    pub bytes: u64,
}

/// What a heap holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Handed out to the program.
    pub in_use: Tally,
    /// In any free list or cache.
    pub free: Tally,
    /// Free, but cut off from every list by damage.
    pub lost: Tally,
    /// Memory that the allocator holds from the system.
    pub mapped_bytes: u64,
    /// Every byte of `mapped_bytes`, and of the allocator's own memory, accounted for.
    pub coverage: Coverage,
    /// By size class, rising; classes without blocks are left out.
    pub size_classes: Vec<SizeClassRow>,
}

/// Where the bytes went. The sum is what the allocator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Blocks handed out.
    pub in_use: u64,
    /// Free blocks (lost ones included) and free spans.
    pub free: u64,
    /// The allocator's own structures.
    pub metadata: u64,
    /// Ends of spans too short for a block.
    pub tails: u64,
    /// Held, but not understood.
    pub unknown: u64,
}

/// One size class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeClassRow {
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks handed out.
    pub in_use: u64,
    /// Blocks in lists.
    pub free: u64,
    /// Blocks cut off by damage.
    pub lost: u64,
}

/// An allocator's own facts for the report, as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A count or a number of bytes.
    Number(u64),
    /// A name.
    Text(String),
    /// An address.
    Address(Address),
    /// Several.
    List(Vec<Detail>),
    /// Named ones, in order.
    Table(Vec<(&'static str, Detail)>),
}

/// Something that was not analysed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What was not analysed.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The heap as a whole was therefore not wholly analysed (exit status 3).
    pub incomplete: bool,
}
