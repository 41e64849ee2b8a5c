//! What is planted in tcmalloc's heaps.

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
    /// All, in the order of the table.
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

    /// The names of their rows.
    pub const NAMES: [&'static str; 17] = [
        "double free, same list",
        "double free, other thread",
        "double free, central chain",
        "double free, transfer cache",
        "inner pointer freed",
        "freed with a wrong size",
        "overrun, one NUL",
        "overrun, one byte",
        "overrun, text",
        "write after free",
        "bytes before a block",
        "flipped bit in a link",
        "stray write, heap",
        "stray write, span",
        "stray write, central list",
        "stray write, thread cache",
        "stray write, page map",
    ];
}
