//! What a broken word should hold and what it holds, and what excuses it, in words.

use heaps::anomaly::{Expected, Holding, Lock, Proof, Property, Reason, Unit, Value};
use heaps::presence::Presence;

use crate::checks::finding::Found;

/// What a word holds.
pub fn value(of: &Value) -> String {
    match of {
        Value::Number(number) => number.to_string(),
        Value::Word(word) => format!("{word:#x}"),
        Value::Amount(number, unit) => format!("{number} {}", unit_name(*unit)),
        Value::Count(number) => format!("a count of {number}"),
        Value::LowWater(number) => format!("one of {number}"),
        Value::Difference(more, less) => format!("{more} - {less}"),
        Value::Memory(start, end) => format!("{start} to {end}"),
        Value::Flag(true) => "set".to_owned(),
        Value::Flag(false) => "clear".to_owned(),
        Value::State(name) => (*name).to_owned(),
        Value::ClassAndState(class, state) => format!("class {class}, {state}"),
        Value::FreeSpan {
            state,
            pages,
            in_page_map,
        } => {
            let not = if *in_page_map { "" } else { "not " };
            format!("{state}, {pages} pages, {not}in the page map")
        }
        Value::Extent {
            arena,
            class,
            slab,
            state,
            head,
        } => {
            let arena = arena.map(|arena| format!("arena {arena}"));
            let slab = if *slab { "a slab" } else { "no slab" };
            let parts = [
                arena,
                Some(format!("class {class}")),
                Some(slab.to_owned()),
                state.map(str::to_owned),
                head.then(|| "a head".to_owned()),
            ];
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            parts.join(", ")
        }
        Value::Shard { arena, shard } => format!("arena {arena}, shard {shard}"),
        Value::Marks { word, set } => format!("{word:#x}, and {set} set in all"),
        Value::AppendedAgain(link) => format!("{link}: it was appended again"),
        Value::OtherBin(head) => format!("{head}, the head of another bin"),
        Value::GivenUp(flags) => format!("{flags:#x}: malloc itself found the arena damaged"),
        Value::OtherClass => "another class".to_owned(),
        Value::NoList => "on none".to_owned(),
        Value::Nothing => "nothing".to_owned(),
    }
}

/// The same, as a finding shows it: with the value that the words begin with.
pub fn found(of: &Value) -> Found {
    let first = match of {
        Value::Number(first)
        | Value::Word(first)
        | Value::Amount(first, _)
        | Value::Difference(first, _)
        | Value::Marks { word: first, .. }
        | Value::GivenUp(first) => Some(*first),
        Value::Memory(first, _) | Value::AppendedAgain(first) | Value::OtherBin(first) => {
            Some(first.get())
        }
        Value::Count(_)
        | Value::LowWater(_)
        | Value::Flag(_)
        | Value::State(_)
        | Value::ClassAndState(..)
        | Value::FreeSpan { .. }
        | Value::Extent { .. }
        | Value::Shard { .. }
        | Value::OtherClass
        | Value::NoList
        | Value::Nothing => None,
    };
    match first {
        Some(first) => Found::told(first, value(of)),
        None => Found::said(value(of)),
    }
}

fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Bytes => "bytes",
        Unit::Pages => "pages",
        Unit::Spans => "spans",
        Unit::Slabs => "slabs",
        Unit::Extents => "extents",
        Unit::Entries => "entries",
        Unit::Overlaps => "overlaps",
    }
}

/// What a word should hold.
pub fn expected(of: &Expected) -> String {
    match of {
        Expected::Exactly(exactly, why) => reasoned(value(exactly), *why),
        Expected::AtMost(most, why) => reasoned(format!("at most {}", value(most)), *why),
        Expected::AtLeast(least, why) => reasoned(format!("at least {}", value(least)), *why),
        Expected::OneOf(numbers) => one_of(numbers),
        Expected::Between(first, last) => format!("{first} to {last}"),
        Expected::Below(bound) => format!("below {bound}"),
        Expected::Is(property) => self::property(property),
    }
}

fn one_of(numbers: &[u64]) -> String {
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    match numbers.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

/// A value and what else says so.
fn reasoned(value: String, why: Reason) -> String {
    let reason = match why {
        Reason::Itself => return value,
        Reason::NoListHoldsIt => return format!("{value}: no list of free spans holds it"),
        Reason::ChunksWithBytes(bytes) => {
            return format!("{value}: that many chunks have the {bytes} bytes that are counted");
        }
        Reason::PagesOfExtents(extents) => {
            return format!("{value}, the pages of its {extents} extents");
        }
        Reason::NeverChanges => "which never changes",
        Reason::PlaceInTheArray => "its place in the array",
        Reason::LengthOfTheList => "the length",
        Reason::BlocksThatItHolds => "the blocks that it holds",
        Reason::LeadsHere => "which leads here",
        Reason::PointsBack => "which points back",
        Reason::EntryBefore => "the entry before it",
        Reason::SpanBeforeIt => "as the span before it says",
        Reason::FirstOfTheRing => "the first of the ring",
        Reason::CachesOnTheList => "the caches on the list",
        Reason::BytesOfItsLists => "the bytes of its lists",
        Reason::SpansThatAreMarked => "as many as are marked",
        Reason::SpansOnItsLists => "the spans on its lists",
        Reason::FreeObjectsOfItsSpans => "the free objects of its spans",
        Reason::ObjectsOfTheSpan => "the objects of the span",
        Reason::SpansOfItsClass => "as every span of its class",
        Reason::BytesOfFreeSpans => "the bytes of the free spans in the page map",
        Reason::BytesOfSpans => "the bytes of the spans in the page map",
        Reason::SetThatHoldsIt => "as the set of free spans that holds it",
        Reason::ArenaOfThisIndex => "the arena of this index",
        Reason::MapsPagesOfTheHeap => "which maps pages of the heap",
        Reason::SlabOfItsClass => "those of a slab of its class",
        Reason::PageMapHasIt => "as the page map has it",
        Reason::FirstPage => "its first page",
        Reason::FreeRegionsOfItsBitmap => "the regions that its bitmap has as free",
        Reason::RegionsInUse => "its regions in use",
        Reason::PartlyUsedSlabs => "those with some regions in use and some free",
        Reason::PagesOfItsExtents => "the pages of its extents",
        Reason::PagesInUse => "the pages of its extents in use",
        Reason::ArenaThatItBelongsTo => "the arena that it belongs to",
        Reason::LastChunkOfNewestMemory => "the last chunk of the arena's newest memory",
        Reason::LastChunkOfTheBin => "its last chunk",
        Reason::EndOfTop => "where the top chunk ends",
        Reason::BytesOfItsMemory => "what its memory has",
        Reason::BytesOfTheArena => "what the arena has",
        Reason::ThreadsThatThereAre => "as many threads as there are",
        Reason::ListOfArenasWithoutThreads => {
            "as the arena is on the list of those without threads"
        }
        Reason::ChunksThatThereAre => "as many as there are",
        Reason::KeyOfEveryBlock => "the key of every cached block",
        Reason::SizeOfTheChunk => "the size of the free chunk",
    };
    format!("{value}, {reason}")
}

fn property(of: &Property) -> String {
    let text = match of {
        Property::ClassFor { class, bytes } => return format!("class {class} for {bytes} bytes"),
        Property::UsedSlots { size, most } => {
            return format!("at most cache_size_ ({size}), at most max_cache_size_ ({most})");
        }
        Property::InUseOfClass(class) => return format!("class {class}, as the list, and IN_USE"),
        Property::OnCentralList(class) => return format!("on a list of CentralFreeList {class}"),
        Property::SentinelWithin(spans) => {
            return format!("the sentinel after at most {spans} spans");
        }
        Property::LowWaterOf(entries) => {
            return format!("a low water mark of at most {entries} entries");
        }
        Property::Descriptor(at) => return format!("the descriptor {at}"),
        Property::AsFirstPage(extent) => {
            return format!("what its first page says: {}", value(extent));
        }
        Property::InPage(page) => {
            return format!("an address in the page {page}, which the page map gives it");
        }
        Property::MultipleOf(bytes) => return format!("a multiple of {bytes}"),
        Property::SlabOrNull { bytes, arena } => {
            return format!("a slab of {bytes} bytes of arena {arena}, or null");
        }
        Property::OneOfItsExtents(extents) => return format!("one of its {extents} extents"),
        Property::ItsExtents(extents) => return format!("its {extents} extents"),
        Property::Marks { within: None, set } => {
            return format!("marks of which {set} in all are set");
        }
        Property::Marks {
            within: Some(mask),
            set,
        } => return format!("marks within {mask:#x}, of which {set} in all are set"),
        Property::ChunkOfNewestMemory(start, end) => {
            return format!("a chunk between {start} and {end}, the arena's newest memory");
        }
        Property::BitOfBin(bin) => return format!("with the bit of bin {bin}, which holds chunks"),
        Property::SetForNoBin(bytes) => {
            return format!("set: the block of {bytes} bytes is in no bin");
        }
        Property::Null => "null",
        Property::NotNull => "not null",
        Property::OneOwner => "one owner",
        Property::ChunkOfTheBin => "a chunk of this bin, or its head",
        Property::ThreadCacheOrNull => "a thread cache that links back, or null at the end",
        Property::SampledStack => {
            "a stack trace of at most 31 frames, for no more bytes than the span has"
        }
        Property::LastOfItsChain => "the last object of its chain, which links to nothing",
        Property::PageThatNamesTheSpan => "a page whose page map entry names this span",
        Property::Span => "a span",
        Property::ReadableSpan => "a readable span",
        Property::NextSpan => "the next span, which names this one",
        Property::PageMap => "the page map, which begins with the base of arena 0",
        Property::NodeOrNull => "a node in the allocator's own memory, or null",
        Property::MemoryOfItsOwn => "memory that no other extent has",
        Property::ArenaInItsBaseOrNull => "an arena in a block of its own base, or null",
        Property::ArenaAndShard => "an arena and a shard that exist",
        Property::PlaceBetweenNeighbours => "a place between the entries of its neighbours",
        Property::AnyDescriptor => "a descriptor in the allocator's own memory",
        Property::DescriptorOrNull => "a descriptor in the allocator's own memory, or null",
        Property::NewDescriptorOrNull => "a descriptor that is not in the heap already, or null",
        Property::SlabOfThisBin => "slabs of this bin only",
        Property::AnyExtent => "an extent in the allocator's own memory",
        Property::FreeExtent => "a free extent",
        Property::ExtentThatLeadsBack => "the extent that leads back here",
        Property::Arena => "an arena",
        Property::ArenaOrNull => "an arena or null",
        Property::NullOrArena => "null or an arena",
        Property::NextArena => "the next arena",
        Property::LastChunkOfAPiece => "the last chunk of one of the arena's pieces of memory",
        Property::HugePages => "0, or a size of huge pages that the places of the arenas fit",
        Property::InSeveralPieces => "with the mark of memory in several pieces",
        Property::KnownFlags => "no flag but those of the release",
        Property::Clear => "clear",
        Property::Unread => "that nobody reads it",
        Property::WrittenByTheProgram => "what the program wrote",
        Property::Anything => "",
    };
    text.to_owned()
}

/// What shows that the allocator was at work.
pub fn proof(of: &Proof) -> String {
    match of {
        Proof::AtWork {
            tid,
            module,
            presence,
            interrupted,
            holding,
        } => {
            let at_work = at_work(*tid, module, *presence, *interrupted);
            match holding {
                Some(holding) => format!("{at_work}; its {}", self::holding(*holding)),
                None => at_work,
            }
        }
        Proof::Held { lock, at, word } => match lock {
            Lock::PageHeap => format!("the page heap's lock at {at} is held ({word})"),
            Lock::CentralList => format!("the central list's lock at {at} is held ({word})"),
            Lock::Arena => format!("the lock of the arena {at} is held ({word})"),
            Lock::Bin => format!("the mutex of its bin at {at} is held (its lock word is {word})"),
            Lock::PageCache => {
                format!("the mutex of its page cache at {at} is held (its lock word is {word})")
            }
        },
        Proof::OwnerIsGone(cache) => {
            format!("the owner of the thread cache at {cache} is not among the core's threads")
        }
        Proof::ThreadOfCacheIsGone => {
            "the cache's thread is not among the core's threads".to_owned()
        }
        Proof::ThreadOfCacheIsAbsent => {
            "the cache's thread is not in the core: what it was doing cannot be told".to_owned()
        }
        Proof::OthersAreGone => "there were other threads, which are not in the core".to_owned(),
    }
}

fn at_work(tid: u32, module: &str, presence: Presence, interrupted: bool) -> String {
    match presence {
        Presence::Inside { frame, pc } => {
            let how = match interrupted {
                true => "; a signal interrupted it there",
                false => "",
            };
            format!("thread {tid} is inside {module}: frame {frame} at {pc}{how}")
        }
        Presence::Unknown => {
            format!("thread {tid} may be inside {module}: its stack could not be followed by rules")
        }
        Presence::Outside => format!("thread {tid} is outside {module}"),
    }
}

fn holding(of: Holding) -> String {
    match of {
        Holding::Block { register } => format!("{register} holds the block"),
        Holding::Chunk { register } => format!("{register} holds the chunk"),
        Holding::BlockAndNext {
            register,
            next_register,
            next,
        } => format!(
            "{register} holds the block, its {next_register} the next entry {next}, which is not linked yet"
        ),
        Holding::BlockForEmptyList { register } => {
            format!("{register} holds the block, which is not linked into the empty list yet")
        }
    }
}

#[cfg(test)]
mod tests {
    use ground::target::Address;

    use super::*;

    /// What a finding shows first can be compared with a dump.
    #[test]
    fn words_begin_with_the_value_that_is_told() {
        let at = Address::new(0x5000);
        let values = [
            (Value::Number(12), "12", Some(12)),
            (Value::Word(0x12), "0x12", Some(0x12)),
            (Value::Amount(3, Unit::Pages), "3 pages", Some(3)),
            (Value::Difference(7, 9), "7 - 9", Some(7)),
            (Value::Memory(at, at), "0x5000 to 0x5000", Some(0x5000)),
            (
                Value::AppendedAgain(at),
                "0x5000: it was appended again",
                Some(0x5000),
            ),
            (Value::Count(4), "a count of 4", None),
            (Value::Flag(true), "set", None),
            (Value::ClassAndState(5, "InUse"), "class 5, InUse", None),
        ];
        for (value, text, first) in values {
            let found = found(&value);
            assert_eq!((found.text(), found.value()), (text, first));
        }
    }

    #[test]
    fn what_is_expected_has_its_reason_behind_it() {
        let told = |of| expected(&of);
        let number = || Value::Number(8);
        assert_eq!(told(Expected::number(8)), "8");
        assert_eq!(
            told(Expected::Exactly(number(), Reason::NeverChanges)),
            "8, which never changes"
        );
        assert_eq!(
            told(Expected::AtMost(number(), Reason::Itself)),
            "at most 8"
        );
        assert_eq!(told(Expected::OneOf(&[0, 1, 2])), "0, 1 or 2");
        assert_eq!(told(Expected::Is(Property::Null)), "null");
    }

    #[test]
    fn a_thread_at_work_is_told_with_what_it_holds() {
        let at_work = Proof::AtWork {
            tid: 7,
            module: "libc.so.6".to_owned(),
            presence: Presence::Inside {
                frame: 2,
                pc: Address::new(0x40),
            },
            interrupted: false,
            holding: Some(Holding::Chunk { register: "rbx" }),
        };
        assert_eq!(
            proof(&at_work),
            "thread 7 is inside libc.so.6: frame 2 at 0x40; its rbx holds the chunk"
        );
    }
}
