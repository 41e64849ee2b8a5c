//! The finding of a refused call that no damage in the heap explains: from the place of the pointer, else from the text.

use ground::target::MemoryExt;
use heaps::allocators::Family;
use heaps::anomaly::{AnomalyKind, HolderKind};

use super::sayings::{About, Saying, Seen};
use super::told::{Told, told};
use super::{HEADER_BYTES, Pointer, SIZE_BYTES, Scene, followed, is_alarm, words_as_evidence};
use crate::checks::finding::{BlockView, Confidence, Evidence, Finding, FindingKind, Found};
use crate::checks::link_damage::overwriter_of;
use crate::checks::mismatch::Foreign;
use crate::checks::place::Place;
use crate::checks::wording;
use crate::crash::argument::Entry;

/// The finding. `others`: what is known of the heap already; a death of which nothing more is known adds nothing to it.
pub fn of(scene: Scene<'_>, pointer: Option<&Pointer>, others: &[Finding]) -> Option<Finding> {
    let is_known = others
        .iter()
        .any(|finding| is_alarm(finding) && finding.heap == scene.death.heap);
    if let Some(finding) = pointer.and_then(|pointer| of_freed_object(scene, pointer)) {
        return Some(finding);
    }
    let told = pointer
        .filter(|pointer| !is_of_damaged(pointer, others))
        .and_then(|pointer| told(scene, pointer));
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

/// Whether a pointer leads inside of a block whose own header was written over: where that block ends is not known, and the pointer may be
/// the start of another one.
fn is_of_damaged(pointer: &Pointer, others: &[Finding]) -> bool {
    let Place::Block {
        block, offset: 1.., ..
    } = pointer.place
    else {
        return false;
    };
    others.iter().any(|finding| {
        let is_overrun = matches!(
            finding.kind,
            FindingKind::HeapOverrun | FindingKind::HeapUnderrun | FindingKind::CorruptMetadata
        );
        let is_it = |view: &BlockView| view.block.id == block.id;
        is_overrun && finding.block.as_ref().is_some_and(is_it)
    })
}

/// How the process died of the allocator's word, which had stood in a free block before the program wrote over it.
pub fn died_of(scene: Scene<'_>, pointer: &Pointer) -> String {
    format!(
        "; {} with {}, the allocator's word that had stood there: {}",
        called(scene),
        pointer.value,
        refusal(scene)
    )
}

/// The pointer is a word that the allocator itself had written into a free block.
fn of_freed_object(scene: Scene<'_>, pointer: &Pointer) -> Option<Finding> {
    let deed = format!("{} with it: {}", called(scene), refusal(scene));
    let mut finding = followed::dangling(scene, pointer, &deed)?;
    if let Some((_, words)) = scene.death.said {
        finding.evidence.push(words_as_evidence(words));
    }
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
        None => format!(
            "{} refused it and ended the process",
            scene.death.allocator.name()
        ),
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
    if told.kind == FindingKind::AllocatorMismatch
        && let Some(foreign) = Foreign::at(&scene.analysis.heaps, scene.death.heap, at)
    {
        foreign.name_in(&mut finding);
    }
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
            at,
        ));
    }
    let size = at
        .checked_sub(SIZE_BYTES)
        .and_then(|word| Some((word, memory.read_u64(word).ok()?)));
    if let Some((word, found)) = size
        && scene.death.allocator == Family::Ptmalloc
    {
        let expected = "the size of a block's chunk, with its flags";
        words.push(wording::word_evidence(
            word,
            "word in front of the pointer",
            expected,
            Found::word(found),
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
            words.push(wording::word_evidence(
                *slot,
                wording::field(*what),
                expected,
                Found::said("nothing"),
            ));
        }
    }
    words
}

/// From the text alone.
fn of_saying(scene: Scene<'_>, saying: &'static Saying, pointer: Option<&Pointer>) -> Finding {
    if let Some(finding) = pointer.and_then(|pointer| of_written_header(scene, saying, pointer)) {
        return finding;
    }
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
            "a block was written to after it was freed, or past the end of the one before it{}: its link in a {} was damaged, and does \
             not show any more: {}",
            // A thread that ends gives its cache back: the blocks get the links of other lists, in other threads' caches too.
            if saying.is_of_thread_end() {
                ", or freed by two threads"
            } else {
                ""
            },
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

/// glibc refused a pointer for the size in front of it, which is no size of any block: the header was written over.
fn of_written_header(
    scene: Scene<'_>,
    saying: &'static Saying,
    pointer: &Pointer,
) -> Option<Finding> {
    let at = pointer.value;
    let Place::Block { heap, .. } = pointer.place else {
        return None;
    };
    let is_glibcs = scene.death.allocator == Family::Ptmalloc && Some(heap) == scene.death.heap;
    if !is_glibcs || !matches!(saying.about, About::Pointer(_)) || !at.is_aligned(HEADER_BYTES) {
        return None;
    }
    let header = at.checked_sub(SIZE_BYTES)?;
    let word = scene.target.memory.read_u64(header).ok()?;
    // Larger than all of the heap: whatever wrote it, it was no size.
    let extents = scene.analysis.heaps.get(heap)?.map.extents();
    let bytes = (extents.iter()).fold(0u64, |sum, extent| sum.saturating_add(extent.bytes));
    if word <= bytes {
        return None;
    }
    let message = format!(
        "{} with {at}, and the size in front of it is {word:#x}: the header was written over, past the end of the block before or in front of \
         this one's start: {}",
        called(scene),
        refusal(scene)
    );
    let place =
        Some(&pointer.place).filter(|place| matches!(place, Place::Block { offset: 0, .. }));
    let mut finding = scene.finding(FindingKind::HeapOverrun, Some(at), place, message);
    finding.overwriter = overwriter_of(scene.target, &word.to_le_bytes(), word.to_le_bytes());
    finding.evidence = evidence(scene, pointer);
    finding.next_steps = vec![checked_run(scene)];
    Some(finding)
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
        None => format!("{} ended the process", scene.death.allocator.name()),
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
    if let Some(found) = followed::damaged(scene).or_else(|| followed::head(scene)) {
        return found;
    }
    let at = pointer.map(|pointer| pointer.value);
    let allocator = scene.death.allocator.name();
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
                "{} with {at}, the start of a block: {}, of a word that was written over",
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
                "the process died inside {allocator}: a word that it followed was written over, or it held a pointer that was freed twice \
                 or is no block of its own; which of these, the core does not tell"
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
    // Some end the process where memory runs out, too; glibc never does.
    if !scene.death.is_fault && !matches!(scene.death.allocator, Family::Ptmalloc | Family::Musl) {
        finding.confidence = Confidence::Suspected;
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
    Some(wording::word_evidence(at, what, "", Found::word(found)))
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
        Family::Ptmalloc => "run it with LD_PRELOAD=libc_malloc_debug.so.0 and GLIBC_TUNABLES=glibc.malloc.check=3, both of them (up to \
                       glibc 2.33 MALLOC_CHECK_=3 alone), under valgrind or AddressSanitizer: they stop at the wrong call"
            .to_owned(),
        _ => "run it under valgrind or AddressSanitizer: they stop at the wrong call".to_owned(),
    }
}
