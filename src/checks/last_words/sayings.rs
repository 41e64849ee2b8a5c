//! What glibc's malloc says before it aborts, and what makes it say so.
//!
//! Texts: glibc, malloc/malloc.c (2.17 to 2.43; `malloc_printerr`), of each release those that it has.

use heaps::target::Address;

use crate::checks::finding::FindingKind::{
    self, CorruptMetadata, CountMismatch, CyclicFreeList, DoubleFree, HeapOverrun, HeapUnderrun,
    InvalidFreeEntry, MisalignedFreeEntry, UseAfterFreeWrite,
};

/// Why a call was refused: what the pointer that was given is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A block that is free, in a cache or a fastbin.
    Cached,
    /// A block that is free, as its neighbour knows.
    Free,
    /// The top chunk.
    Top,
    /// Not aligned as blocks are.
    Misaligned,
    /// Preceded by what is no size.
    BadSize,
    /// Preceded by a size that says "mapped", which it is not.
    NotMapped,
}

/// One message.
#[derive(Debug)]
pub struct Saying {
    text: &'static str,
    /// The call was refused because of its pointer, and the heap may be in order.
    pub refusal: Option<Refusal>,
    /// Kinds of finding that explain it.
    pub causes: &'static [FindingKind],
}

const fn refused(text: &'static str, refusal: Refusal, causes: &'static [FindingKind]) -> Saying {
    Saying {
        text,
        refusal: Some(refusal),
        causes,
    }
}

const fn met(text: &'static str, causes: &'static [FindingKind]) -> Saying {
    Saying {
        text,
        refusal: None,
        causes,
    }
}

const TWICE: &[FindingKind] = &[DoubleFree, CyclicFreeList];
const NO_BLOCK: &[FindingKind] = &[InvalidFreeEntry, MisalignedFreeEntry];
const HEADER: &[FindingKind] = &[HeapOverrun, HeapUnderrun, CorruptMetadata];
const LINK: &[FindingKind] = &[UseAfterFreeWrite, HeapOverrun, DoubleFree, CorruptMetadata];
const ENTRY: &[FindingKind] = &[
    UseAfterFreeWrite,
    MisalignedFreeEntry,
    InvalidFreeEntry,
    HeapOverrun,
    CorruptMetadata,
    CountMismatch,
];

/// All of them. A message that is another one's beginning comes after it.
static SAYINGS: &[Saying] = &[
    refused(
        "free(): double free detected in tcache 2",
        Refusal::Cached,
        TWICE,
    ),
    refused(
        "double free or corruption (fasttop)",
        Refusal::Cached,
        TWICE,
    ),
    refused(
        "double free or corruption (!prev)",
        Refusal::Free,
        &[DoubleFree, HeapOverrun],
    ),
    refused("double free or corruption (top)", Refusal::Top, TWICE),
    // Of a block in another arena than the main one, too: when it was freed, the mark of its arena went.
    refused(
        "double free or corruption (out)",
        Refusal::Free,
        &[DoubleFree, HeapOverrun, CorruptMetadata],
    ),
    refused("free(): invalid pointer", Refusal::Misaligned, NO_BLOCK),
    refused("realloc(): invalid pointer", Refusal::Misaligned, NO_BLOCK),
    refused(
        "free(): invalid size",
        Refusal::BadSize,
        &[HeapOverrun, MisalignedFreeEntry],
    ),
    refused(
        "munmap_chunk(): invalid pointer",
        Refusal::NotMapped,
        &[HeapOverrun, InvalidFreeEntry],
    ),
    refused(
        "mremap_chunk(): invalid pointer",
        Refusal::NotMapped,
        &[HeapOverrun, InvalidFreeEntry],
    ),
    met("free(): invalid next size", HEADER),
    met("realloc(): invalid old size", HEADER),
    met("realloc(): invalid next size", HEADER),
    met("invalid fastbin entry (free)", LINK),
    met("free(): too many chunks detected in tcache", ENTRY),
    met("free(): unaligned chunk detected in tcache 2", ENTRY),
    met("free(): corrupted unsorted chunks", LINK),
    met("free(): chunks in smallbin corrupted", LINK),
    met(
        "corrupted size vs. prev_size",
        &[HeapOverrun, UseAfterFreeWrite, CorruptMetadata],
    ),
    met("corrupted double-linked list", LINK),
    met("malloc(): memory corruption", HEADER),
    met("malloc(): chunk size mismatch in fastbin", HEADER),
    met("malloc(): invalid size (unsorted)", HEADER),
    met("malloc(): invalid next size (unsorted)", HEADER),
    met("malloc(): mismatching next->prev_size (unsorted)", HEADER),
    met("malloc(): invalid next->prev_inuse (unsorted)", HEADER),
    met("malloc(): unsorted double linked list corrupted", LINK),
    met("malloc(): corrupted unsorted chunks", LINK),
    met("malloc(): smallbin double linked list corrupted", LINK),
    met("malloc(): largebin double linked list corrupted", LINK),
    met("malloc(): corrupted top size", HEADER),
    met("malloc(): unaligned tcache chunk detected", ENTRY),
    met("malloc(): unaligned fastbin chunk detected", ENTRY),
    met(
        "malloc_consolidate(): unaligned fastbin chunk detected",
        ENTRY,
    ),
    met("malloc_consolidate(): invalid chunk size", HEADER),
    met(
        "tcache_thread_shutdown(): unaligned tcache chunk detected",
        ENTRY,
    ),
    met("break adjusted to free malloc space", HEADER),
];

/// The message in the text that glibc printed; `None` if it is not about the heap.
pub fn of(text: &str) -> Option<&'static Saying> {
    // Up to 2.26: *** Error in `PROG': MESSAGE: 0xPOINTER ***
    let message = match text.strip_prefix("*** Error in ") {
        Some(rest) => rest.split_once("': ")?.1,
        None => text,
    };
    SAYINGS
        .iter()
        .find(|saying| message.starts_with(saying.text))
}

/// The pointer in the text, where it has one (up to 2.26).
pub fn pointer_in(text: &str) -> Option<Address> {
    let text = text.strip_prefix("*** Error in ")?;
    let (_, digits) = text.rsplit_once(": 0x")?;
    let digits = digits.split(' ').next()?;
    u64::from_str_radix(digits, 16).ok().map(Address::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_old_and_new_releases_are_known() {
        let new = of("free(): double free detected in tcache 2").unwrap();
        assert_eq!(new.refusal, Some(Refusal::Cached));
        let old =
            "*** Error in `./chat': double free or corruption (!prev): 0x000055a0c3a2a010 ***";
        assert_eq!(of(old).unwrap().refusal, Some(Refusal::Free));
        assert_eq!(pointer_in(old), Some(Address::new(0x55a0_c3a2_a010)));
        assert_eq!(pointer_in("free(): invalid pointer"), None);
        assert!(of("chat: chat.c:12: main: Assertion `0' failed.").is_none());
        assert!(of("corrupted size vs. prev_size while consolidating").is_some());
    }
}
