//! What is planted, and what is true of it.

use heapcheck::checks::finding::FindingKind;

/// What is planted. One row of the table each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sort {
    /// A block in a thread's cache is freed again into the same list.
    DoubleFreeSameList,
    /// A block in one thread's cache is freed again by another thread.
    DoubleFreeOtherThread,
    /// A block in its span's chain is freed again.
    DoubleFreeCentral,
    /// A block in a transfer cache is freed again.
    DoubleFreeTransfer,
    /// A pointer into a block is freed.
    InnerPointerFreed,
    /// A block is freed with the size of another class.
    WrongClassFreed,
    /// One NUL past the end of a block.
    OverrunNul,
    /// One other byte past the end of a block.
    OverrunByte,
    /// Text past the end of a block.
    OverrunText,
    /// A write to a block after it was freed.
    WriteAfterFree,
    /// Bytes before a block.
    Underrun,
    /// One bit of a link flipped.
    FlippedBit,
    /// Eight bytes anywhere in blocks and spans.
    StrayInHeap,
    /// Eight bytes in the description of a span.
    StrayInSpan,
    /// Eight bytes in a central list.
    StrayInCentral,
    /// Eight bytes in a thread's cache.
    StrayInCache,
    /// Eight bytes in the page map.
    StrayInPageMap,
}

impl Sort {
    /// All, in the order of the table. A seed's sort is its remainder.
    pub const ALL: [Sort; 17] = [
        Sort::DoubleFreeSameList,
        Sort::DoubleFreeOtherThread,
        Sort::DoubleFreeCentral,
        Sort::DoubleFreeTransfer,
        Sort::InnerPointerFreed,
        Sort::WrongClassFreed,
        Sort::OverrunNul,
        Sort::OverrunByte,
        Sort::OverrunText,
        Sort::WriteAfterFree,
        Sort::Underrun,
        Sort::FlippedBit,
        Sort::StrayInHeap,
        Sort::StrayInSpan,
        Sort::StrayInCentral,
        Sort::StrayInCache,
        Sort::StrayInPageMap,
    ];

    /// The sort that a seed plants.
    pub fn of_seed(seed: u64) -> Self {
        Self::ALL[(seed % Self::ALL.len() as u64) as usize]
    }

    /// The name of its row.
    pub fn name(self) -> &'static str {
        match self {
            Sort::DoubleFreeSameList => "double free, same list",
            Sort::DoubleFreeOtherThread => "double free, other thread",
            Sort::DoubleFreeCentral => "double free, central chain",
            Sort::DoubleFreeTransfer => "double free, transfer cache",
            Sort::InnerPointerFreed => "inner pointer freed",
            Sort::WrongClassFreed => "freed with a wrong size",
            Sort::OverrunNul => "overrun, one NUL",
            Sort::OverrunByte => "overrun, one byte",
            Sort::OverrunText => "overrun, text",
            Sort::WriteAfterFree => "write after free",
            Sort::Underrun => "bytes before a block",
            Sort::FlippedBit => "flipped bit in a link",
            Sort::StrayInHeap => "stray write, heap",
            Sort::StrayInSpan => "stray write, span",
            Sort::StrayInCentral => "stray write, central list",
            Sort::StrayInCache => "stray write, thread cache",
            Sort::StrayInPageMap => "stray write, page map",
        }
    }
}

/// Whether the damage can be seen in the core at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The bytes contradict something that the allocator keeps.
    Present,
    /// The overwritten bytes carried nothing, or hold what they held.
    Absent,
    /// The word means something at times only: finding it is right, silence is no miss.
    Open,
}

/// What is true of a plant.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Whether it can be seen.
    pub evidence: Evidence,
    /// Kinds that are right: the error itself, and what it cannot be told from in this plant.
    pub kinds: Vec<FindingKind>,
    /// Addresses that are right: from, and up to.
    pub addresses: Vec<(u64, u64)>,
    /// The block that wrote past its end.
    pub culprit: Option<u64>,
    /// Free blocks that no list holds any more.
    pub lost: Option<u64>,
}

impl Truth {
    /// Nothing to be seen.
    pub fn silence() -> Self {
        Self {
            evidence: Evidence::Absent,
            kinds: Vec::new(),
            addresses: Vec::new(),
            culprit: None,
            lost: None,
        }
    }

    /// An error at one address.
    pub fn at(kind: FindingKind, address: u64) -> Self {
        Self {
            evidence: Evidence::Present,
            kinds: vec![kind],
            addresses: vec![(address, address + 1)],
            culprit: None,
            lost: None,
        }
    }
}

/// One damage.
#[derive(Clone, Debug)]
pub struct Plant {
    /// What it is, for people.
    pub story: String,
    /// Bytes written, in order.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// What is true of it.
    pub truth: Truth,
}

/// Plants damage in one heap: the seam at which further allocators come in.
pub trait Planter {
    /// A plant of this sort, or `None` where the heap has no place for it.
    fn plant(&self, sort: Sort, rng: &mut fastrand::Rng) -> Option<Plant>;
}
