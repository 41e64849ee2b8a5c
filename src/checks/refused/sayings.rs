//! What allocators say before they end the process, and what each message means.
//!
//! A message is a witness of what the allocator looked at. It does not name the mistake: `double free or corruption (out)` says
//! that the next chunk lies beyond the heap's end, which a double free never shows.
//!
//! Texts: glibc 2.12 to 2.43, malloc/malloc.c (`malloc_printerr`, assertions), malloc/mcheck.c; gperftools 2.0 to 2.18,
//! src/tcmalloc.cc, src/debugallocation.cc; jemalloc 5.2 to 5.3, src/safety_check.c, include/jemalloc/internal.

use ground::target::Address;
use heaps::anomaly::HolderKind;

use crate::checks::finding::FindingKind::{
    self, CorruptMetadata, CountMismatch, CyclicFreeList, DoubleFree, HeapOverrun, HeapUnderrun,
    InvalidFreeEntry, MisalignedFreeEntry, UseAfterFreeWrite,
};
use crate::crash::{LastWords, Speaker};

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The pointer that was given: what the allocator saw of it.
    Pointer(Seen),
    /// The block whose pointer was given: its header, or the one behind it, is damaged.
    Block,
    /// A list of free blocks.
    List(HolderKind),
    /// The unused rest of the heap, its top.
    Top,
    /// The allocator's state in general.
    State,
}

/// What the allocator saw of the pointer that it refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A block that is free.
    Free,
    /// The top chunk.
    Top,
    /// What stands in front of it is no header: it is not aligned, or there is no proper size.
    NoHeader,
    /// The place of the next chunk, by the size in front of it, lies beyond the heap's end.
    Beyond,
    /// The header in front of it says that it has a mapping of its own, which it has not.
    NotMapped,
    /// No memory of the heap.
    Foreign,
    /// Not the start of a block.
    Inside,
    /// A block of another size, or from another function.
    OtherSize,
}

impl Seen {
    /// In words, for a message.
    pub fn words(self) -> &'static str {
        match self {
            Seen::Free => "as a block that is free already",
            Seen::Top => "as the unused rest of the heap",
            Seen::NoHeader => "as what stands before it is no header of a block",
            Seen::Beyond => "as the size that stands before it leads beyond the heap's end",
            Seen::NotMapped => {
                "as what stands before it says that it has a mapping of its own, which it has not"
            }
            Seen::Foreign => "as it is no memory of the heap",
            Seen::Inside => "as it is not the start of a block",
            Seen::OtherSize => "as its block has another size than the call says",
        }
    }
}

/// One message.
#[derive(Debug)]
pub struct Saying {
    text: &'static str,
    /// What it is about.
    pub about: About,
    /// Kinds of finding that explain it; the first is the kind where nothing else tells.
    pub causes: &'static [FindingKind],
}

impl Saying {
    /// The kind where nothing but the message tells.
    pub fn kind(&self) -> FindingKind {
        self.causes.first().copied().unwrap_or(CorruptMetadata)
    }

    /// Whether it is said of the cache of a thread that ends.
    pub fn is_of_thread_end(&self) -> bool {
        self.text.starts_with("tcache_thread_shutdown")
    }
}

const fn pointer(text: &'static str, seen: Seen, causes: &'static [FindingKind]) -> Saying {
    Saying {
        text,
        about: About::Pointer(seen),
        causes,
    }
}

const fn block(text: &'static str, causes: &'static [FindingKind]) -> Saying {
    Saying {
        text,
        about: About::Block,
        causes,
    }
}

const fn list(text: &'static str, holder: HolderKind, causes: &'static [FindingKind]) -> Saying {
    Saying {
        text,
        about: About::List(holder),
        causes,
    }
}

const TWICE: &[FindingKind] = &[DoubleFree, CyclicFreeList];
const TWICE_OR_HEADER: &[FindingKind] = &[
    DoubleFree,
    CyclicFreeList,
    HeapOverrun,
    HeapUnderrun,
    CorruptMetadata,
];
const NO_BLOCK: &[FindingKind] = &[
    InvalidFreeEntry,
    MisalignedFreeEntry,
    HeapOverrun,
    HeapUnderrun,
    CorruptMetadata,
];
const FOREIGN: &[FindingKind] = &[InvalidFreeEntry];
const INNER: &[FindingKind] = &[MisalignedFreeEntry];
const HEADER: &[FindingKind] = &[HeapOverrun, HeapUnderrun, CorruptMetadata];
const LINK: &[FindingKind] = &[
    UseAfterFreeWrite,
    HeapOverrun,
    HeapUnderrun,
    DoubleFree,
    CyclicFreeList,
    CorruptMetadata,
    MisalignedFreeEntry,
    InvalidFreeEntry,
];
const COUNT: &[FindingKind] = &[
    UseAfterFreeWrite,
    CyclicFreeList,
    DoubleFree,
    HeapOverrun,
    CountMismatch,
    CorruptMetadata,
    MisalignedFreeEntry,
    InvalidFreeEntry,
];
const SIZES: &[FindingKind] = &[
    HeapOverrun,
    HeapUnderrun,
    UseAfterFreeWrite,
    CorruptMetadata,
];
const STATE: &[FindingKind] = &[
    CorruptMetadata,
    HeapOverrun,
    HeapUnderrun,
    UseAfterFreeWrite,
    DoubleFree,
    CyclicFreeList,
    MisalignedFreeEntry,
    InvalidFreeEntry,
];

const GLIBC: &[Saying] = &[
    list(
        "free(): too many chunks detected in tcache",
        HolderKind::Tcache,
        COUNT,
    ),
    list(
        "free(): unaligned chunk detected in tcache 2",
        HolderKind::Tcache,
        LINK,
    ),
    pointer(
        "free(): double free detected in tcache 2",
        Seen::Free,
        TWICE,
    ),
    pointer("double free or corruption (fasttop)", Seen::Free, TWICE),
    pointer("double free or corruption (top)", Seen::Top, TWICE),
    pointer(
        "double free or corruption (!prev)",
        Seen::Free,
        TWICE_OR_HEADER,
    ),
    pointer("double free or corruption (out)", Seen::Beyond, NO_BLOCK),
    // Of 2.3 to 2.18, where one text stood for all.
    pointer("double free or corruption", Seen::Free, TWICE_OR_HEADER),
    pointer("free(): invalid pointer", Seen::NoHeader, NO_BLOCK),
    pointer("free(): invalid size", Seen::NoHeader, NO_BLOCK),
    pointer("munmap_chunk(): invalid pointer", Seen::NotMapped, NO_BLOCK),
    pointer("mremap_chunk(): invalid pointer", Seen::NotMapped, NO_BLOCK),
    pointer("realloc(): invalid pointer", Seen::NoHeader, NO_BLOCK),
    pointer("realloc(): invalid old size", Seen::NoHeader, NO_BLOCK),
    block("free(): invalid next size", HEADER),
    block("realloc(): invalid next size", HEADER),
    list("invalid fastbin entry (free)", HolderKind::Fastbin, LINK),
    list("free(): corrupted unsorted chunks", HolderKind::Bin, LINK),
    list(
        "free(): chunks in smallbin corrupted",
        HolderKind::Bin,
        LINK,
    ),
    block("corrupted size vs. prev_size", SIZES),
    list("corrupted double-linked list", HolderKind::Bin, LINK),
    list(
        "malloc(): unsorted double linked list corrupted",
        HolderKind::Bin,
        LINK,
    ),
    list("malloc(): corrupted unsorted chunks", HolderKind::Bin, LINK),
    list(
        "malloc(): smallbin double linked list corrupted",
        HolderKind::Bin,
        LINK,
    ),
    list(
        "malloc(): largebin double linked list corrupted",
        HolderKind::Bin,
        LINK,
    ),
    list(
        "malloc(): unaligned tcache chunk detected",
        HolderKind::Tcache,
        LINK,
    ),
    list(
        "tcache_thread_shutdown(): unaligned tcache chunk detected",
        HolderKind::Tcache,
        LINK,
    ),
    list(
        "malloc(): unaligned fastbin chunk detected",
        HolderKind::Fastbin,
        LINK,
    ),
    list(
        "malloc_consolidate(): unaligned fastbin chunk detected",
        HolderKind::Fastbin,
        LINK,
    ),
    Saying {
        text: "malloc(): corrupted top size",
        about: About::Top,
        causes: HEADER,
    },
    Saying {
        text: "malloc: top chunk is corrupt",
        about: About::Top,
        causes: HEADER,
    },
    block("malloc(): memory corruption", HEADER),
    block("malloc(): chunk size mismatch in fastbin", HEADER),
    block("malloc(): invalid size (unsorted)", HEADER),
    block("malloc(): invalid next size (unsorted)", HEADER),
    block("malloc(): mismatching next->prev_size (unsorted)", HEADER),
    block("malloc(): invalid next->prev_inuse (unsorted)", HEADER),
    block("malloc_consolidate(): invalid chunk size", HEADER),
    block("malloc_check_get_size: memory corruption", HEADER),
    block("break adjusted to free malloc space", HEADER),
    // malloc_debug and mcheck.
    pointer("block freed twice", Seen::Free, TWICE),
    block("memory clobbered before allocated block", HEADER),
    block("memory clobbered past end of allocated block", HEADER),
    block("bogus mcheck_status", STATE),
];

const GPERFTOOLS: &[Saying] = &[
    pointer("Attempt to free invalid pointer", Seen::Foreign, FOREIGN),
    pointer("Attempt to realloc invalid pointer", Seen::Foreign, FOREIGN),
    pointer(
        "Attempt to get the size of invalid pointer",
        Seen::Foreign,
        FOREIGN,
    ),
    pointer("Object was not in-use", Seen::Free, TWICE),
    pointer(
        "Pointer is not pointing to the start of a span",
        Seen::Inside,
        INNER,
    ),
    pointer("has never been allocated", Seen::Foreign, FOREIGN),
    pointer("has been already deallocated", Seen::Free, TWICE_OR_HEADER),
    pointer("offset_ field is corrupted", Seen::Inside, INNER),
    pointer(
        "memory allocation/deallocation mismatch",
        Seen::OtherSize,
        FOREIGN,
    ),
    block("memory stomping bug: a word ", HEADER),
];

const JEMALLOC: &[Saying] = &[
    pointer("Invalid deallocation detected", Seen::Free, TWICE),
    pointer(
        "size mismatch detected",
        Seen::OtherSize,
        &[MisalignedFreeEntry, InvalidFreeEntry],
    ),
    list("Write-after-free detected", HolderKind::CacheArray, LINK),
    block("heap corruption detected", HEADER),
];

/// An assertion of malloc's own that did not hold, in releases that say no more than that.
const ASSERTION: Saying = Saying {
    text: "assertion in malloc.c",
    about: About::State,
    causes: STATE,
};
const TOP_ASSERTION: Saying = Saying {
    text: "assertion about the top chunk",
    about: About::Top,
    causes: STATE,
};

/// What a message means; `None` if it is not about the heap.
pub fn of(said: &LastWords) -> Option<&'static Saying> {
    match said.speaker {
        Speaker::Glibc => of_glibc(&said.text),
        Speaker::Gperftools => GPERFTOOLS
            .iter()
            .find(|saying| said.text.contains(saying.text)),
        Speaker::Jemalloc => JEMALLOC
            .iter()
            .find(|saying| said.text.contains(saying.text)),
    }
}

fn of_glibc(text: &str) -> Option<&'static Saying> {
    // Up to 2.26: *** Error in `PROG': MESSAGE: 0xPOINTER ***; before 2.14: *** glibc detected *** PROG: MESSAGE: 0xPOINTER ***
    let message = match (
        text.strip_prefix("*** Error in "),
        text.strip_prefix("*** glibc detected *** "),
    ) {
        (Some(rest), _) => rest.split_once("': ")?.1,
        (None, Some(rest)) => rest.split_once(": ").map_or(rest, |(_, message)| message),
        (None, None) => text,
    };
    let message = message.trim_start();
    let known = GLIBC.iter().find(|saying| message.starts_with(saying.text));
    known.or_else(|| {
        is_mallocs_assertion(message).then_some(match message.contains("old_top") {
            true => &TOP_ASSERTION,
            false => &ASSERTION,
        })
    })
}

/// `malloc.c:2401: sysmalloc: Assertion ...` (up to 2.35), `malloc assertion failure in sysmalloc: ...` (2.36),
/// `malloc.c:2545 (sysmalloc): assertion failed: ...` (from 2.37). A program may have a malloc.c, too, but not these functions.
fn is_mallocs_assertion(text: &str) -> bool {
    const FUNCTIONS: [&str; 16] = [
        "sysmalloc",
        "sYSMALLOc",
        "_int_malloc",
        "_int_free",
        "_int_realloc",
        "_int_memalign",
        "__libc_malloc",
        "__libc_calloc",
        "__libc_realloc",
        "_mid_memalign",
        "mremap_chunk",
        "munmap_chunk",
        "systrim",
        "heap_trim",
        "detach_arena",
        "tcache_",
    ];
    let (text, is_old) = match text.strip_prefix("Fatal glibc error: ") {
        Some(text) => (text, false),
        None => (text, true),
    };
    let named = || FUNCTIONS.iter().any(|function| text.contains(function));
    let in_source = ["malloc.c:", "arena.c:", "hooks.c:"]
        .iter()
        .any(|source| text.starts_with(source) || is_old && text.contains(&format!(": {source}")));
    text.starts_with("malloc assertion failure in ")
        || in_source && (named() || !is_old) && text.to_ascii_lowercase().contains("assertion")
}

/// The pointer that the message names.
pub fn pointer_in(said: &LastWords) -> Option<Address> {
    let digits = match said.speaker {
        Speaker::Glibc => {
            let text = said.text.strip_prefix("*** ")?;
            text.rsplit_once(": 0x")?.1.split(' ').next()?
        }
        // The first number with 0x: sizes are decimal.
        Speaker::Gperftools | Speaker::Jemalloc => {
            let (_, rest) = said.text.split_once("0x")?;
            rest.split(|letter: char| !letter.is_ascii_hexdigit())
                .next()?
        }
    };
    u64::from_str_radix(digits, 16).ok().map(Address::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::FoundBy;

    fn said(speaker: Speaker, text: &str) -> LastWords {
        LastWords {
            text: text.into(),
            address: Address::new(0x1000),
            found_by: FoundBy::Symbols,
            speaker,
        }
    }

    #[test]
    fn messages_of_old_and_new_releases_are_known() {
        let about = |text| of(&said(Speaker::Glibc, text)).map(|saying| saying.about);
        let free = Some(About::Pointer(Seen::Free));
        assert_eq!(about("free(): double free detected in tcache 2"), free);
        let old =
            "*** Error in `./chat': double free or corruption (!prev): 0x000055a0c3a2a010 ***";
        assert_eq!(about(old), free);
        assert_eq!(
            pointer_in(&said(Speaker::Glibc, old)),
            Some(Address::new(0x55a0_c3a2_a010))
        );
        let older = "*** glibc detected *** ./chat: double free or corruption (out): 0x0a2a010 ***";
        assert_eq!(about(older), Some(About::Pointer(Seen::Beyond)));
        assert_eq!(
            pointer_in(&said(Speaker::Glibc, older)),
            Some(Address::new(0xa2_a010))
        );
        assert_eq!(
            pointer_in(&said(Speaker::Glibc, "free(): invalid pointer")),
            None
        );
        assert_eq!(
            about("corrupted size vs. prev_size while consolidating"),
            Some(About::Block)
        );
    }

    #[test]
    fn a_double_free_is_never_what_out_says() {
        let out = of(&said(Speaker::Glibc, "double free or corruption (out)")).unwrap();
        assert!(!out.causes.contains(&DoubleFree));
    }

    #[test]
    fn assertions_of_malloc_are_not_those_of_the_program() {
        let about = |text| of(&said(Speaker::Glibc, text)).map(|saying| saying.about);
        let top = "malloc.c:2379: sysmalloc: Assertion `(old_top == initial_top (av) && old_size == 0)' failed.";
        assert_eq!(about(top), Some(About::Top));
        let newer = "Fatal glibc error: malloc.c:2599 (sysmalloc): assertion failed: (old_top == initial_top (av))";
        assert_eq!(about(newer), Some(About::Top));
        let other = "Fatal glibc error: malloc assertion failure in _int_malloc: chunk_main_arena (bck->bk)";
        assert_eq!(about(other), Some(About::State));
        assert_eq!(about("chat: chat.c:12: main: Assertion `0' failed."), None);
        assert_eq!(about("malloc.c:12: my_malloc: Assertion `0' failed."), None);
        assert_eq!(about("*** stack smashing detected ***: terminated"), None);
    }

    #[test]
    fn other_allocators_name_the_pointer() {
        let words = said(
            Speaker::Gperftools,
            "src/tcmalloc.cc:333] Attempt to free invalid pointer 0x7ffe10",
        );
        assert_eq!(of(&words).unwrap().about, About::Pointer(Seen::Foreign));
        assert_eq!(pointer_in(&words), Some(Address::new(0x7f_fe10)));
        let words = said(
            Speaker::Gperftools,
            "src/tcmalloc.cc:1534] Object was not in-use",
        );
        assert_eq!(of(&words).unwrap().kind(), DoubleFree);
        assert_eq!(pointer_in(&words), None);
        let words = said(
            Speaker::Jemalloc,
            "Invalid deallocation detected: pages being freed (0x7f10) not currently active, possibly caused by double free bugs.",
        );
        assert_eq!(of(&words).unwrap().kind(), DoubleFree);
        assert_eq!(pointer_in(&words), Some(Address::new(0x7f10)));
    }
}
