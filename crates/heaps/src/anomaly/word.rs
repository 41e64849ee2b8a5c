//! A word that is not as it should be: values, which the checks put into words.

use super::Field;
use ground::target::Address;

/// A word of the allocator's that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenWord {
    /// The structure that it belongs to.
    pub of: Address,
    /// Its address.
    pub at: Address,
    /// Its name in the allocator's sources (`Span.refcount`), or what it is where it has none.
    pub what: Field,
    /// What it should hold.
    pub expected: Expected,
    /// What it holds.
    pub found: Value,
}

/// What a word holds, or should hold, and how it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number that counts or names something.
    Number(u64),
    /// An address, flags or any other word whose bits matter.
    Word(u64),
    /// So many of something.
    Amount(u64, Unit),
    /// A count that is a part of its word.
    Count(u64),
    /// A low water mark that is a part of its word.
    LowWater(u64),
    /// Two counters of which the second is to be taken from the first.
    Difference(u64, u64),
    /// Memory from the first address to before the second one.
    Memory(Address, Address),
    /// A flag.
    Flag(bool),
    /// A state, as the allocator's sources call it.
    State(&'static str),
    /// A span's class and state (tcmalloc).
    ClassAndState(u64, &'static str),
    /// What a page heap's list requires of a span (tcmalloc).
    FreeSpan {
        /// Its state.
        state: &'static str,
        /// Its pages.
        pages: u64,
        /// The page map names it.
        in_page_map: bool,
    },
    /// What the bits of an extent say, in its descriptor or in the page map (jemalloc).
    Extent {
        /// Its arena; the page map does not name it.
        arena: Option<u16>,
        /// Its size class.
        class: u16,
        /// It is a slab.
        slab: bool,
        /// Its state, if it is kept there.
        state: Option<&'static str>,
        /// It begins what one system call mapped.
        head: bool,
    },
    /// An arena and one of its bins of a class (jemalloc).
    Shard {
        /// The arena's index.
        arena: u16,
        /// The bin's index.
        shard: u8,
    },
    /// A word of a bitmap, and the bits that are set in the whole.
    Marks {
        /// The word.
        word: u64,
        /// Bits that are set in all words.
        set: u64,
    },
    /// A link back to an extent that was appended although it was in the list.
    AppendedAgain(Address),
    /// The head of another bin of the arena (glibc): malloc itself wrote it.
    OtherBin(Address),
    /// Flags with which malloc itself gave the arena up (glibc 2.22 to 2.26).
    GivenUp(u64),
    /// A size class, and not the one that is expected.
    OtherClass,
    /// No list at all.
    NoList,
    /// Nothing that could be read.
    Nothing,
}

/// What an amount is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// The allocator's pages.
    Pages,
    /// Spans (tcmalloc).
    Spans,
    /// Slabs (jemalloc).
    Slabs,
    /// Extents (jemalloc).
    Extents,
    /// Entries of a list.
    Entries,
    /// Extents that overlap.
    Overlaps,
}

/// What a word should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// This value.
    Exactly(Value, Reason),
    /// One of a few numbers.
    OneOf(&'static [u64]),
    /// A number from the first to the second one, that one included.
    Between(u64, u64),
    /// A number below this one.
    Below(u64),
    /// No more.
    AtMost(Value, Reason),
    /// No less.
    AtLeast(Value, Reason),
    /// What has this property.
    Is(Property),
}

impl Expected {
    /// This number, because of itself.
    pub fn number(number: u64) -> Self {
        Expected::Exactly(Value::Number(number), Reason::Itself)
    }

    /// This word, because of itself.
    pub fn word(word: u64) -> Self {
        Expected::Exactly(Value::Word(word), Reason::Itself)
    }
}

impl From<Address> for Value {
    fn from(address: Address) -> Self {
        Value::Word(address.get())
    }
}

/// Why a word should hold a value: what else says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The value says it.
    Itself,
    /// The allocator sets it once.
    NeverChanges,
    /// The structure stands at this place of an array.
    PlaceInTheArray,
    /// The list has a counter of its own.
    LengthOfTheList,
    /// The list that the count is of holds so many blocks.
    BlocksThatItHolds,
    /// The entry that leads here.
    LeadsHere,
    /// The entry that points back here.
    PointsBack,
    /// The entry before it in the list.
    EntryBefore,
    /// The span before it in the ring names it.
    SpanBeforeIt,
    /// The first entry of the ring.
    FirstOfTheRing,

    /// The list of all thread caches.
    CachesOnTheList,
    /// The lists of the thread cache.
    BytesOfItsLists,
    /// Spans that are marked as sampled.
    SpansThatAreMarked,
    /// The lists of spans.
    SpansOnItsLists,
    /// The chains of the spans on a central list.
    FreeObjectsOfItsSpans,
    /// What the span was cut into.
    ObjectsOfTheSpan,
    /// Spans of one class are alike.
    SpansOfItsClass,
    /// The free spans that the page map names.
    BytesOfFreeSpans,
    /// The spans that the page map names.
    BytesOfSpans,
    /// The set of free spans that holds it.
    SetThatHoldsIt,
    /// No list of free spans, and no set, holds it.
    NoListHoldsIt,

    /// The arena with this index.
    ArenaOfThisIndex,
    /// A node of the page map that maps pages of the heap.
    MapsPagesOfTheHeap,
    /// Slabs of one class are alike.
    SlabOfItsClass,
    /// The page map.
    PageMapHasIt,
    /// Slabs and free extents begin with a page.
    FirstPage,
    /// The bitmap of the slab.
    FreeRegionsOfItsBitmap,
    /// The slabs of the bin.
    RegionsInUse,
    /// The slabs of the bin whose bitmaps have some bits set.
    PartlyUsedSlabs,
    /// The extents of the page cache.
    PagesOfItsExtents,
    /// The extents of the page cache, so many.
    PagesOfExtents(u64),
    /// The extents of the arena that hold blocks.
    PagesInUse,

    /// The arena whose heap it is.
    ArenaThatItBelongsTo,
    /// The chunks of the arena's newest memory.
    LastChunkOfNewestMemory,
    /// The chunks of the bin.
    LastChunkOfTheBin,
    /// The arena's top chunk.
    EndOfTop,
    /// The memory of the arena that was found.
    BytesOfItsMemory,
    /// The arena's other counter.
    BytesOfTheArena,
    /// The threads of the process.
    ThreadsThatThereAre,
    /// The arena is on the list of those without threads.
    ListOfArenasWithoutThreads,
    /// So many chunks have mappings of their own.
    ChunksThatThereAre,
    /// The chunks with mappings of their own have, together, the bytes that are counted.
    ChunksWithBytes(u64),
    /// One random number for all caches.
    KeyOfEveryBlock,
    /// The header of the chunk.
    SizeOfTheChunk,
}

/// What is true of a word that is as it should be, where no single value can be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Property {
    /// It is null.
    Null,
    /// It is not null.
    NotNull,
    /// Memory has one owner.
    OneOwner,
    /// A chunk of the bin, or its head (glibc).
    ChunkOfTheBin,

    /// A thread cache that links back, or null.
    ThreadCacheOrNull,
    /// A size class for blocks of so many bytes.
    ClassFor {
        /// The class.
        class: u16,
        /// Bytes.
        bytes: u64,
    },
    /// The stack trace of a sampled block.
    SampledStack,
    /// No more slots of a transfer cache than both its limits.
    UsedSlots {
        /// `cache_size_`.
        size: u64,
        /// `max_cache_size_`.
        most: u64,
    },
    /// The last object of a chain.
    LastOfItsChain,
    /// A page whose entry in the page map names the span.
    PageThatNamesTheSpan,
    /// A span in use of the list's class.
    InUseOfClass(u16),
    /// A list of this class's central list holds it.
    OnCentralList(u16),
    /// A span.
    Span,
    /// A span that can be read.
    ReadableSpan,
    /// The next span, which names this one.
    NextSpan,
    /// The ring closes after so many spans.
    SentinelWithin(u64),

    /// The page map, which begins with the base of arena 0.
    PageMap,
    /// A node of the page map, or null.
    NodeOrNull,
    /// Memory that no other extent has.
    MemoryOfItsOwn,
    /// An arena, in a block of its own base, or null.
    ArenaInItsBaseOrNull,
    /// An arena that exists, and a shard that its bins have.
    ArenaAndShard,
    /// A place between the entries of the neighbours.
    PlaceBetweenNeighbours,
    /// A low water mark of no more entries than there are.
    LowWaterOf(u64),
    /// This descriptor.
    Descriptor(Address),
    /// A descriptor in the allocator's own memory.
    AnyDescriptor,
    /// The same, or null.
    DescriptorOrNull,
    /// A descriptor that is not in the heap already, or null.
    NewDescriptorOrNull,
    /// What the element of the extent's first page says.
    AsFirstPage(Box<Value>),
    /// An address in this page, which the page map gives it.
    InPage(Address),
    /// A multiple of this.
    MultipleOf(u64),
    /// A slab of the bin, or null.
    SlabOrNull {
        /// Bytes of its regions.
        bytes: u64,
        /// The arena's index.
        arena: u16,
    },
    /// A slab of the bin.
    SlabOfThisBin,
    /// An extent in the allocator's own memory.
    AnyExtent,
    /// A free extent.
    FreeExtent,
    /// The extent that leads back here.
    ExtentThatLeadsBack,
    /// One of so many extents.
    OneOfItsExtents(u64),
    /// All of so many extents.
    ItsExtents(u64),
    /// Marks of regions.
    Marks {
        /// The bits that stand for regions, if others are set.
        within: Option<u64>,
        /// Bits that are set in all words.
        set: u64,
    },

    /// An arena.
    Arena,
    /// An arena, or null.
    ArenaOrNull,
    /// Null, or an arena.
    NullOrArena,
    /// The next arena of the list.
    NextArena,
    /// The last chunk of one of the arena's pieces of memory.
    LastChunkOfAPiece,
    /// A chunk in the arena's newest memory.
    ChunkOfNewestMemory(Address, Address),
    /// 0, or a size of huge pages that the places of the arenas fit.
    HugePages,
    /// The flag of memory in several pieces.
    InSeveralPieces,
    /// No flag but those of the release.
    KnownFlags,
    /// The bit of this bin, which holds chunks.
    BitOfBin(u64),
    /// A flag that is set, since the block of so many bytes is in no bin.
    SetForNoBin(u64),
    /// A flag that is not set.
    Clear,

    /// Nobody reads it while the block is free.
    Unread,
    /// The program wrote it.
    WrittenByTheProgram,
    /// Nothing that could be said of it.
    Anything,
}
