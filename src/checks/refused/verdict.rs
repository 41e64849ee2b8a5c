//! The finding of a refused call that no damage in the heap explains: from the place of the pointer, else from the text.

use heaps::anomaly::{AnomalyKind, HolderKind};
use heaps::map::{Block, BlockState};
use heaps::target::{Address, MemoryExt, ModuleId};

use super::place::{Part, Place};
use super::sayings::{About, Saying, Seen};
use super::{Pointer, Scene, followed, is_alarm, words_as_evidence};
use crate::checks::finding::{Confidence, Evidence, Finding, FindingKind};
use crate::checks::{double_free, wording};
use crate::crash::argument::Entry;

/// Largest number that is taken for the count of an array's elements.
const MAX_COUNT: u64 = 1 << 20;
/// From a chunk's header to the block, and bytes of a size in front of a block (glibc).
const HEADER_BYTES: u64 = 16;
const SIZE_BYTES: u64 = 8;

/// What the place of a pointer makes of it.
struct Told {
    kind: FindingKind,
    /// What the pointer is, after "free was called with X, ".
    is: String,
    /// Nothing else fits, if the pointer is certain.
    is_clear: bool,
    /// What to do.
    next: Vec<String>,
}

/// The finding. `others`: what is known of the heap already; a death of which nothing more is known adds nothing to it.
pub fn of(scene: Scene<'_>, pointer: Option<&Pointer>, others: &[Finding]) -> Option<Finding> {
    let is_known = others
        .iter()
        .any(|finding| is_alarm(finding) && finding.heap == scene.death.heap);
    let told = pointer.and_then(|pointer| told(scene, pointer));
    let mut finding = match (pointer, told) {
        (Some(pointer), Some(told)) => of_pointer(scene, pointer, told),
        _ if scene.death.said.is_none() && is_known => return None,
        (pointer, None) => match scene.death.said {
            Some((saying, _)) => of_saying(scene, saying, pointer),
            None => of_fault(scene, pointer),
        },
        (None, Some(_)) => return None,
    };
    if let Some((_, words)) = scene.death.said {
        finding.evidence.insert(0, words_as_evidence(words));
    }
    if finding.evidence.is_empty() {
        finding.evidence.extend(return_address(scene));
    }
    finding.next_steps.insert(0, look_at_caller(scene));
    finding.next_steps.truncate(3);
    Some(finding)
}

/// How the allocator took it: `glibc refused it, "..."`.
fn refusal(scene: Scene<'_>) -> String {
    let function = match scene.death.call.map(|call| call.entry) {
        Some(Entry::Free) => "free",
        Some(Entry::Realloc) => "realloc",
        Some(Entry::Delete) => "delete",
        None => "the allocator",
    };
    match scene.death.said {
        Some((_, words)) => format!(
            "{} refused it and ended the process, \"{}\"",
            words.speaker.name(),
            words.text
        ),
        None if scene.death.is_fault => format!("the process died of it in {function}"),
        None => format!("{} refused it and ended the process", scene.death.allocator),
    }
}

/// A function's name with "was called".
fn called(scene: Scene<'_>) -> &'static str {
    match scene.death.call.map(|call| call.entry) {
        Some(Entry::Realloc) => "realloc was called",
        Some(Entry::Delete) => "delete was called",
        Some(Entry::Free) => "free was called",
        // The text may tell which.
        None => match scene
            .death
            .said
            .map(|(_, words)| words.text.contains("realloc"))
        {
            Some(true) => "realloc was called",
            _ => "free was called",
        },
    }
}

fn of_pointer(scene: Scene<'_>, pointer: &Pointer, told: Told) -> Finding {
    let known = pointer
        .known_by
        .as_ref()
        .map_or_else(String::new, |how| format!(" ({how})"));
    let at = pointer.value;
    let residue = followed::residue(scene, pointer);
    let residue = residue.map_or_else(String::new, |residue| format!("; {residue}"));
    let message = format!(
        "{} with {at}{known}, {}{residue}: {}",
        called(scene),
        told.is,
        refusal(scene)
    );
    let mut finding = scene.finding(told.kind, Some(at), Some(&pointer.place), message);
    if pointer.is_certain && told.is_clear {
        finding.confidence = Confidence::Certain;
    }
    finding.evidence = evidence(scene, pointer);
    finding.next_steps = told.next;
    finding
}

/// The words that show what the allocator saw: where the pointer came from, what stands in front of it, how it was looked up.
fn evidence(scene: Scene<'_>, pointer: &Pointer) -> Vec<Evidence> {
    let memory = scene.target.memory;
    let at = pointer.value;
    let mut words = Vec::new();
    if let Some(from) = pointer.loaded_from
        && memory.read_u64(from).is_ok()
    {
        let expected = "the start of a block in use";
        words.push(wording::word_evidence(
            from,
            "the word that the pointer was loaded from",
            expected,
            at.to_string(),
        ));
    }
    let size = at
        .checked_sub(SIZE_BYTES)
        .and_then(|word| Some((word, memory.read_u64(word).ok()?)));
    if let Some((word, found)) = size
        && scene.death.allocator == "ptmalloc"
    {
        let expected = "the size of a block's chunk, with its flags";
        words.push(wording::word_evidence(
            word,
            "word in front of the pointer",
            expected,
            format!("{found:#x}"),
        ));
    }
    let heap = scene
        .death
        .heap
        .and_then(|index| scene.analysis.heaps.get(index));
    for anomaly in heap.iter().flat_map(|heap| &heap.anomalies) {
        if let AnomalyKind::FatalFree {
            found,
            at: slot,
            what,
            ..
        } = &anomaly.kind
            && found.get() >> 12 == at.get() >> 12
        {
            let expected = format!("what the allocator knows of {at}");
            words.push(wording::word_evidence(*slot, what, expected, "nothing"));
        }
    }
    words
}

/// What the place of a pointer makes of it; `None` for a block in use, which is no wrong pointer.
fn told(scene: Scene<'_>, pointer: &Pointer) -> Option<Told> {
    use FindingKind::InvalidFreeEntry;
    let saying = scene.death.said.map(|(saying, _)| saying);
    let foreign = |is: String, next: &str| Told {
        kind: InvalidFreeEntry,
        is,
        is_clear: true,
        next: vec![next.to_owned()],
    };
    let at = pointer.value;
    Some(match &pointer.place {
        Place::Block { heap, block, state, offset } if Some(*heap) == scene.death.heap => {
            return in_block(scene, pointer, *block, *state, *offset, saying);
        }
        Place::Block { heap, block, .. } => {
            let other = scene.analysis.heaps.get(*heap).map_or("another allocator", |heap| heap.identity.name);
            foreign(
                format!("which is in the block {} of {} bytes of {other}", block.address, block.bytes),
                "give it back by the functions of the library that allocated it",
            )
        }
        Place::Top { .. } => Told {
            kind: FindingKind::DoubleFree,
            is: "which is part of the unused rest of the heap: what it was a block of was freed before".to_owned(),
            is_clear: saying.is_some_and(|saying| saying.about == About::Pointer(Seen::Top)),
            next: double_free::next_steps(0),
        },
        Place::Own { .. } => foreign("which is the allocator's own memory".to_owned(), "find out who made this pointer"),
        Place::Stack { thread, is_crashing, frame, is_below } => foreign(
            stack_words(*thread, *is_crashing, *frame, *is_below),
            "memory of a function's own (arrays, alloca, variable-length arrays) goes by itself: do not free it",
        ),
        Place::Arguments { number } => foreign(
            match number {
                Some(number) => format!("which is the program's argument argv[{number}]"),
                None => "which is among the strings of the program's arguments and environment".to_owned(),
            },
            "copy it (strdup) where its owner frees it",
        ),
        Place::Module { id, part, symbol } => foreign(
            module_words(scene, *id, *part, symbol.as_ref()),
            "a literal or a variable with static storage is nobody's to free: copy it (strdup) where its owner frees it",
        ),
        Place::Mapping if scene.death.heap.is_none() => return unwalked(scene, at),
        Place::Mapping => foreign(
            "which is mapped memory of no heap".to_owned(),
            "find out who mapped it: what mmap gave goes back by munmap",
        ),
        Place::Small => foreign(
            match at.get() {
                0..=0xffff => format!("which is no address but the number {}", at.get()),
                _ => "which is no address".to_owned(),
            },
            "look for a variable that was never set, or a member of an object at a null pointer",
        ),
        Place::NonCanonical => foreign(no_address(at), "find out what was written over this pointer"),
        Place::Unmapped => unmapped(scene, at),
    })
}

/// A pointer to mapped memory, where the allocator's blocks are not known. musl marks the header of a block that is freed: an
/// index of all ones, and no distance to its group (mallocng/free.c).
fn unwalked(scene: Scene<'_>, at: Address) -> Option<Told> {
    if scene.death.allocator != "musl" {
        return None;
    }
    let is_misaligned = !at.is_aligned(HEADER_BYTES);
    let header: [u8; 3] = scene.target.memory.read_bytes(at.checked_sub(3)?).ok()?;
    let (kind, is, next) = match (is_misaligned, header) {
        (true, _) => (
            FindingKind::MisalignedFreeEntry,
            "which is not aligned as blocks are".to_owned(),
            vec![
                "look for a pointer to a member, or one that was advanced, that is passed to free"
                    .to_owned(),
            ],
        ),
        (false, [0xff, 0, 0]) => (
            FindingKind::DoubleFree,
            "whose header is marked as that of a block that is free already".to_owned(),
            double_free::next_steps(0),
        ),
        _ => return None,
    };
    Some(Told {
        kind,
        is,
        is_clear: false,
        next,
    })
}

/// A pointer to where nothing is mapped. glibc gives a large block back to the system when it is freed, and its pointers
/// stand behind a page's first header.
fn unmapped(scene: Scene<'_>, at: Address) -> Told {
    let page = scene.target.memory.abi().page_bytes.max(1);
    // Among the mappings that the system placed: below the highest of the libraries, and not far from it.
    const NEAR: u64 = 1 << 36;
    let libraries = scene
        .target
        .modules
        .iter()
        .filter(|module| !module.is_executable);
    let is_near = libraries
        .map(|module| module.range.start.get())
        .max()
        .is_some_and(|top| at.get() < top && top - at.get() < NEAR);
    let was_large =
        scene.death.allocator == "ptmalloc" && at.get() % page == HEADER_BYTES && is_near;
    if was_large {
        return Told {
            kind: FindingKind::DoubleFree,
            is: "where nothing is mapped: as its place in the page shows, it was a large block with a mapping of its own, which \
                 went back to the system when it was freed"
                .to_owned(),
            is_clear: false,
            next: double_free::next_steps(0),
        };
    }
    Told {
        kind: FindingKind::InvalidFreeEntry,
        is: "where nothing is mapped".to_owned(),
        is_clear: true,
        next: vec![
            "look for a variable that was never set, or an object that was freed or written over"
                .to_owned(),
        ],
    }
}

fn no_address(at: Address) -> String {
    let bytes = at.get().to_le_bytes();
    let letters = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .count();
    match letters {
        7.. => format!(
            "which is no address but text, \"{}\"",
            bytes
                .iter()
                .map(|byte| char::from(*byte))
                .filter(|letter| !letter.is_control() && letter.is_ascii())
                .collect::<String>()
        ),
        _ if bytes.windows(2).all(|pair| pair.first() == pair.last()) => {
            "which is no address but one byte, repeated".to_owned()
        }
        _ => "which is no address".to_owned(),
    }
}

fn stack_words(
    thread: u32,
    is_crashing: bool,
    frame: Option<(usize, u64)>,
    is_below: bool,
) -> String {
    let whose = match is_crashing {
        true => String::new(),
        false => format!(" of thread {thread}"),
    };
    match frame {
        Some((number, above)) => format!(
            "which is on the stack{whose}: a variable of frame {number}, {above} bytes above its stack pointer"
        ),
        None if is_below => {
            format!("which is on the stack{whose}, where functions were that have returned")
        }
        None => format!("which is on the stack{whose}"),
    }
}

fn module_words(
    scene: Scene<'_>,
    id: ModuleId,
    part: Part,
    symbol: Option<&(String, u64)>,
) -> String {
    let module = usize::try_from(id.0)
        .ok()
        .and_then(|index| scene.target.modules.get(index));
    let name = module.map_or("a module", |module| module.name.as_str());
    match (symbol, part) {
        (Some((symbol, 0)), _) => format!("which is the variable {symbol} of {name}"),
        (Some((symbol, offset)), _) => {
            format!("which is {offset} bytes into the variable {symbol} of {name}")
        }
        (None, Part::Code) => format!("which is code of {name}"),
        (None, Part::Variables) => format!("which is among the variables of {name}"),
        (None, Part::Constants) => format!("which is among the literals and constants of {name}"),
    }
}

fn in_block(
    scene: Scene<'_>,
    pointer: &Pointer,
    block: Block,
    state: BlockState,
    offset: u64,
    saying: Option<&Saying>,
) -> Option<Told> {
    let seen = saying.and_then(|saying| match saying.about {
        About::Pointer(seen) => Some(seen),
        _ => None,
    });
    let whole = format!("the block {} of {} bytes", block.address, block.bytes);
    match (offset, state) {
        (0, BlockState::InUse) => None,
        (0, _) => Some(Told {
            kind: FindingKind::DoubleFree,
            is: format!("{whole}, which is free already"),
            is_clear: true,
            next: double_free::next_steps(block.bytes),
        }),
        // It may be what a free block has been joined with.
        (_, BlockState::Free | BlockState::Lost)
            if pointer.value.is_aligned(HEADER_BYTES)
                && matches!(seen, Some(Seen::Free | Seen::Top)) =>
        {
            Some(Told {
                kind: FindingKind::DoubleFree,
                is: format!(
                    "which is part of {whole}, free as a whole: the block that began there was freed before"
                ),
                is_clear: false,
                next: double_free::next_steps(0),
            })
        }
        _ => {
            let (hint, next) = inner(scene, pointer.value, block, offset);
            Some(Told {
                kind: FindingKind::MisalignedFreeEntry,
                is: format!("{offset} bytes into {whole}{hint}"),
                is_clear: true,
                next,
            })
        }
    }
}

/// How a pointer came to be inside of a block, where that shows.
fn inner(scene: Scene<'_>, at: Address, block: Block, offset: u64) -> (String, Vec<String>) {
    let memory = scene.target.memory;
    let before = at
        .checked_sub(SIZE_BYTES)
        .and_then(|word| memory.read_u64(word).ok());
    let first = memory.read_u64(at).ok().map(Address::new);
    let is_table = first.is_some_and(|table| {
        let modules = scene.target.modules.iter();
        let mut data = modules
            .flat_map(|module| &module.segments)
            .filter(|segment| !segment.executable);
        let code = memory.read_u64(table).ok().map(Address::new);
        let is_code = |code: Address| {
            scene
                .target
                .modules
                .iter()
                .any(|module| module.has_code_at(code))
        };
        data.any(|segment| segment.range.contains(&table)) && code.is_some_and(is_code)
    });
    let count = before.filter(|count| offset == SIZE_BYTES && (1..=MAX_COUNT).contains(count));
    let is_by_hand = at.is_aligned(64) && !block.address.is_aligned(64);
    if is_table && offset % SIZE_BYTES == 0 {
        let hint = "; an object with virtual functions is there: the part of another one that comes from a second base".to_owned();
        let next = "give that base a virtual destructor, or delete the object by the type that it was made as";
        return (hint, vec![next.to_owned()]);
    }
    if let Some(count) = count {
        let hint = format!(
            "; the word before it is {count}, as new[] keeps the number of elements there: freed by delete or free, not by delete[]"
        );
        return (hint, vec!["free what new[] gave by delete[]".to_owned()]);
    }
    let next = match is_by_hand {
        true => "look for a pointer that was aligned by hand: free what malloc gave, not what was made of it".to_owned(),
        false => format!("look for a pointer to a member, or one that was advanced by {offset}, that is passed to free"),
    };
    (String::new(), vec![next])
}

/// From the text alone.
fn of_saying(scene: Scene<'_>, saying: &'static Saying, pointer: Option<&Pointer>) -> Finding {
    let at = pointer.map(|pointer| pointer.value);
    let place = pointer.map(|pointer| &pointer.place);
    let is_unknown = "which pointer, the core does not tell";
    let message = match (saying.about, at) {
        (About::Pointer(seen), Some(at)) if scene.death.heap.is_some() => format!(
            "{} with {at}, a block in use: {}; nothing else in the core contradicts the block",
            called(scene),
            refusal_of(scene, seen),
        ),
        (About::Pointer(seen), Some(at)) => {
            format!("{} with {at}: {}", called(scene), refusal_of(scene, seen))
        }
        (About::Pointer(seen), None) => format!(
            "a pointer was given back that was refused {}; {is_unknown}: {}",
            seen.words(),
            refusal(scene)
        ),
        (About::Block, Some(at)) => format!(
            "the header of the block {at} or of one of its neighbours was written over, and does not show it any more: {}",
            refusal(scene)
        ),
        (About::Block, None) => format!(
            "the header of a block was written over; which one, the core does not tell: {}",
            ended(scene)
        ),
        (About::List(holder), _) => format!(
            "a block was written to after it was freed, or past the end of the one before it: its link in a {} was damaged, and does \
             not show any more: {}",
            list_words(holder),
            ended(scene)
        ),
        (About::Top, _) => format!(
            "malloc found the unused rest of its heap damaged or moved, which it is not in the core: {}",
            ended(scene)
        ),
        (About::State, _) => format!(
            "malloc found its own state contradictory, which does not show any more: {}",
            ended(scene)
        ),
    };
    let kind = match saying.about {
        // Nothing of it is damaged now: not by an overrun.
        About::Top => FindingKind::CorruptMetadata,
        _ => saying.kind(),
    };
    let at = at.filter(|_| !matches!(saying.about, About::List(_) | About::Top | About::State));
    let mut finding = scene.finding(kind, at, place.filter(|_| at.is_some()), message);
    if let Some(pointer) = pointer.filter(|_| at.is_some()) {
        finding.evidence = evidence(scene, pointer);
    }
    finding.next_steps = match saying.about {
        About::Top | About::State => vec![
            "look for malloc called in the handler of a signal, or a heap that two threads change without its lock".to_owned(),
            checked_run(scene),
        ],
        _ => vec![checked_run(scene)],
    };
    finding
}

fn refusal_of(scene: Scene<'_>, seen: Seen) -> String {
    match scene.death.said {
        Some((_, words)) => format!(
            "{} refused it {}, \"{}\"",
            words.speaker.name(),
            seen.words(),
            words.text
        ),
        None => refusal(scene),
    }
}

fn ended(scene: Scene<'_>) -> String {
    match scene.death.said {
        Some((_, words)) => format!(
            "{} ended the process, \"{}\"",
            words.speaker.name(),
            words.text
        ),
        None => format!("{} ended the process", scene.death.allocator),
    }
}

fn list_words(holder: HolderKind) -> &'static str {
    match holder {
        HolderKind::Tcache => "tcache",
        HolderKind::Fastbin => "fastbin",
        HolderKind::CacheArray => "thread's cache",
        _ => "bin",
    }
}

/// A fault in the allocator, and no text.
fn of_fault(scene: Scene<'_>, pointer: Option<&Pointer>) -> Finding {
    if let Some(found) = followed::damaged(scene) {
        return found;
    }
    let at = pointer.map(|pointer| pointer.value);
    let allocator = scene.death.allocator;
    let (kind, message) = match (scene.death.call, at) {
        (Some(_), Some(at)) if scene.death.heap.is_none() => (
            FindingKind::InvalidFreeEntry,
            format!(
                "{} with {at}, which the allocator did not take for a block in use: it was freed before, is inside of a block, or what \
                 stands before it was written over: {}",
                called(scene),
                refusal(scene)
            ),
        ),
        (Some(_), Some(at)) => (
            FindingKind::CorruptMetadata,
            format!(
                "{} with {at}, a block in use: {}, of a word that was written over",
                called(scene),
                refusal(scene)
            ),
        ),
        (Some(_), None) => (
            FindingKind::InvalidFreeEntry,
            format!(
                "{}: {}; which pointer it was given, the core does not tell",
                called(scene),
                refusal(scene)
            ),
        ),
        (None, _) if scene.death.is_fault => (
            FindingKind::CorruptMetadata,
            format!(
                "the process died inside {allocator}: a word that it followed was written over; which one, the core does not tell"
            ),
        ),
        (None, _) if scene.death.heap.is_none() => (
            FindingKind::InvalidFreeEntry,
            format!(
                "{allocator} refused a pointer and ended the process; which pointer, and whether it was freed before, is inside of a \
                 block or has a damaged header, the core does not tell"
            ),
        ),
        (None, _) => (
            FindingKind::CorruptMetadata,
            format!("{allocator} ended the process itself; what it said is not in the core"),
        ),
    };
    let mut finding = scene.finding(kind, at, pointer.map(|pointer| &pointer.place), message);
    if let Some(pointer) = pointer {
        finding.evidence = evidence(scene, pointer);
    }
    finding.next_steps = vec![checked_run(scene)];
    finding
}

/// The word of the stack that leads back to the caller.
fn return_address(scene: Scene<'_>) -> Option<Evidence> {
    let frames = scene.target.threads.frames(scene.crash.thread);
    let caller = scene.death.caller.and_then(|caller| frames.get(caller));
    let (at, what) = match caller {
        Some(caller) => (caller.sp.checked_sub(8)?, "return address of the call"),
        None => (
            frames.get(scene.crash.frame)?.sp,
            "stack of the allocator's function",
        ),
    };
    let found = scene.target.memory.read_u64(at).ok()?;
    Some(wording::word_evidence(at, what, "", format!("{found:#x}")))
}

fn look_at_caller(scene: Scene<'_>) -> String {
    match scene.death.caller {
        Some(frame) => format!(
            "look at frame {frame} of the crashing thread: that call is at fault, or one before it with the same pointer"
        ),
        None => "look at the crashing thread: what called the allocator is at fault, or an earlier write".to_owned(),
    }
}

/// How to see more in the next run.
fn checked_run(scene: Scene<'_>) -> String {
    match scene.death.allocator {
        "ptmalloc" => "run it with LD_PRELOAD=libc_malloc_debug.so.0 and GLIBC_TUNABLES=glibc.malloc.check=3, both of them (up to \
                       glibc 2.33 MALLOC_CHECK_=3 alone), under valgrind or AddressSanitizer: they stop at the wrong call"
            .to_owned(),
        _ => "run it under valgrind or AddressSanitizer: they stop at the wrong call".to_owned(),
    }
}
