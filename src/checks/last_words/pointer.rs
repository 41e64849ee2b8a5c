//! The pointer that a refused call was given: in the registers of glibc's own frames, as far as its functions kept it, or in what
//! they put on the stack.

use std::ops::Range;

use heaps::allocators::Detail;
use heaps::map::BlockState;
use heaps::target::{Address, Frame, FrameTrust, MemoryExt};

use super::sayings::Refusal;
use crate::checks::Subject;

/// Bytes from a chunk to the pointer that the program knows, on 64-bit machines.
const HEADER_BYTES: u64 = 16;
/// Blocks are aligned to this.
const ALIGNMENT: u64 = 16;
/// Smallest chunk.
const MIN_CHUNK_BYTES: u64 = 32;
/// More than any chunk has.
const MAX_CHUNK_BYTES: u64 = 1 << 47;
/// Frames from the innermost one that may be glibc's.
const MAX_FRAMES: usize = 24;
/// Bytes of stack of those frames that are searched.
const MAX_STACK_BYTES: u64 = 16 << 10;
/// The same where the frames are not known: as far as malloc's own lie above those of raise and abort in any release.
const GUESSED_STACK_BYTES: u64 = 1 << 10;

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Why it was refused: what it must be.
    pub refusal: Refusal,
    /// The message itself names it (up to glibc 2.26), as block or as chunk.
    pub written: Option<Address>,
}

/// The pointer, if one value alone can be it.
pub fn find(subject: Subject<'_>, wanted: Wanted) -> Option<Address> {
    if let Some(written) = wanted.written {
        let block = written.checked_add(HEADER_BYTES);
        return [Some(written), block]
            .into_iter()
            .flatten()
            .find(|at| fits(subject, wanted.refusal, *at))
            .or(Some(written));
    }
    let frames = subject.target.threads.frames(0);
    let caller = caller(subject).and_then(|index| frames.get(index));
    let own = frames
        .iter()
        .take(MAX_FRAMES)
        .filter(|frame| frame.module == Some(subject.heap.identity.module));
    own.filter_map(|frame| in_frame(subject, wanted.refusal, frame, caller))
        .next()
        .or_else(|| on_stack(subject, wanted.refusal))
}

/// The addresses of glibc's frames on the stack.
fn stack(subject: Subject<'_>) -> Option<Range<u64>> {
    let frames = subject.target.threads.frames(0);
    let start = frames.first()?.sp.get();
    let caller = known_caller(subject);
    let end = match caller.and_then(|caller| frames.get(caller)) {
        Some(caller) => caller.sp.get().min(start.saturating_add(MAX_STACK_BYTES)),
        None => start.saturating_add(GUESSED_STACK_BYTES),
    };
    (start < end).then_some(start..end)
}

/// The one word of glibc's frames that can be the pointer. Only where the pointer is something that hardly any word can be:
/// among the words are old ones. A misaligned pointer is told by standing there as chunk, too, which realloc makes of it.
fn on_stack(subject: Subject<'_>, refusal: Refusal) -> Option<Address> {
    if refusal == Refusal::BadSize {
        return None;
    }
    let words: Vec<u64> = stack(subject)?
        .step_by(8)
        .map_while(|at| subject.target.memory.read_u64(Address::new(at)).ok())
        .collect();
    let is_twofold = |block: &Address| {
        let chunk = block.checked_sub(HEADER_BYTES);
        words.contains(&block.get()) && chunk.is_some_and(|chunk| words.contains(&chunk.get()))
    };
    let mut found: Vec<Address> = words
        .iter()
        .flat_map(|word| [Some(*word), word.checked_add(HEADER_BYTES)])
        .flatten()
        .map(Address::new)
        .filter(|block| refusal != Refusal::Misaligned || is_twofold(block))
        .filter(|block| fits(subject, refusal, *block))
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Some(*one),
        _ => None,
    }
}

/// [`caller`], if the way there is by rules and not guessed.
pub fn known_caller(subject: Subject<'_>) -> Option<usize> {
    let by_rules = |frame: &Frame| matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi);
    let frames = subject.target.threads.frames(0);
    caller(subject).filter(|caller| frames.iter().take(*caller + 1).all(by_rules))
}

/// Index of the frame that called glibc: the first beyond its own.
pub fn caller(subject: Subject<'_>) -> Option<usize> {
    let module = Some(subject.heap.identity.module);
    let frames = subject.target.threads.frames(0);
    let first = frames.iter().position(|frame| frame.module == module)?;
    frames
        .iter()
        .enumerate()
        .skip(first)
        .take(MAX_FRAMES)
        .find(|(_, frame)| frame.module != module)
        .map(|(index, _)| index)
}

/// The one value in a frame's registers that can be the pointer, as chunk or as block. What its caller had in the same
/// register is the caller's own.
fn in_frame(
    subject: Subject<'_>,
    refusal: Refusal,
    frame: &Frame,
    caller: Option<&Frame>,
) -> Option<Address> {
    let is_callers = |number: u16, value: u64| {
        caller.is_some_and(|caller| caller.registers.get(number) == Some(value))
    };
    let values: Vec<u64> = frame
        .registers
        .iter()
        .filter(|(number, value)| !is_callers(*number, *value))
        .map(|(_, value)| value)
        .collect();
    let mut found: Vec<Address> = values
        .iter()
        .filter_map(|chunk| Address::new(*chunk).checked_add(HEADER_BYTES))
        .filter(|block| fits(subject, refusal, *block))
        .collect();
    found.sort_unstable();
    found.dedup();
    match found.as_slice() {
        [one] => Some(*one),
        // realloc keeps both forms.
        _ => {
            let mut both = found.iter().filter(|block| values.contains(&block.get()));
            let one = both.next()?;
            both.next().is_none().then_some(*one)
        }
    }
}

/// Whether a pointer is what glibc said of it.
fn fits(subject: Subject<'_>, refusal: Refusal, block: Address) -> bool {
    let map = &subject.heap.map;
    let place = map.block_at(block);
    let size = || -> Option<u64> {
        let word = block.get().checked_sub(8)?;
        subject.target.memory.read_u64(Address::new(word)).ok()
    };
    let is_in_heap = place.is_some();
    match refusal {
        Refusal::Cached | Refusal::Free => {
            let is_free = place.is_some_and(|(found, offset)| {
                offset == 0 && map.state(found.id) != BlockState::InUse
            });
            // Neighbours know of chunks in bins that they are free, of those in caches they do not.
            let next = size().and_then(|size| block.checked_add(size & !7)?.checked_sub(8));
            let known = next.and_then(|next| subject.target.memory.read_u64(next).ok());
            let is_cached = known.is_none_or(|header| header & 1 == 1);
            is_free && is_cached == (refusal == Refusal::Cached)
        }
        Refusal::Top => tops(subject).any(|top| top.checked_add(HEADER_BYTES) == Some(block)),
        Refusal::Misaligned => is_in_heap && !block.get().is_multiple_of(ALIGNMENT),
        Refusal::BadSize => {
            let is_bad = |size: u64| size & !7 < MIN_CHUNK_BYTES || size & 8 != 0;
            is_in_heap && block.get().is_multiple_of(ALIGNMENT) && size().is_some_and(is_bad)
        }
        Refusal::NotMapped => {
            let is_marked = |size: u64| size & 7 == 2 && size < MAX_CHUNK_BYTES;
            let is_own = stack(subject).is_some_and(|stack| stack.contains(&block.get()));
            block.get().is_multiple_of(ALIGNMENT) && !is_own && size().is_some_and(is_marked)
        }
    }
}

/// The top chunk of each arena, as the walker's own facts name them.
fn tops(subject: Subject<'_>) -> impl Iterator<Item = Address> {
    let arenas = subject
        .heap
        .details
        .iter()
        .find(|(name, _)| *name == "arenas");
    let arenas = match arenas {
        Some((_, Detail::List(arenas))) => arenas.as_slice(),
        _ => &[],
    };
    arenas.iter().filter_map(|arena| match arena {
        Detail::Table(rows) => rows.iter().find_map(|(name, value)| match (*name, value) {
            ("top", Detail::Address(top)) => Some(*top),
            _ => None,
        }),
        _ => None,
    })
}
