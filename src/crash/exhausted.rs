//! A stack that was used up: the thread reached below the lowest word that it has.
//!
//! ```text
//! 0x7ffc16832f6c  the access that failed: no memory, or the page without access that guards the stack
//! 0x7ffc16833000  the stack's lowest word; the frame at fault stands at or below it
//!      ...        the frames of its callers
//! ```

use std::collections::BTreeMap;

use ground::target::{Address, Frame, MemoryExt};
use postmortem::session::Session;

/// Farthest below the stack that a frame's variables may lie.
const MAX_FRAME: u64 = 64 << 20;
/// Bytes above the stack's lowest word at which a frame still has none left: a call's return address, the red zone.
const MIN_LEFT: u64 = 256;
/// Functions that are named.
const MAX_NAMED: usize = 3;
/// A function is called again and again if so many of its frames stand there.
const MIN_REPEATS: u64 = 8;

/// A stack that is used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhausted {
    /// Its lowest word.
    pub lowest: Address,
    /// What could not be accessed.
    pub fault: Address,
    /// Bytes between the outermost frame that is known and the fault.
    pub bytes: u64,
    /// Frames that are known.
    pub frames: u64,
    /// Functions that stand there many times, and how often; the most frequent first.
    pub repeated: Vec<(String, u64)>,
    /// The innermost frame that is none of these.
    pub entered_from: Option<usize>,
    /// Bytes of the frame at fault, and its function.
    pub last: (Option<String>, u64),
}

/// Whether the fault in this frame of the thread is that of a stack without room.
pub(super) fn read(
    session: &Session,
    thread: usize,
    frame: usize,
    fault: Address,
) -> Option<Exhausted> {
    let frames = session.threads().frames(thread).get(frame..)?;
    let (innermost, callers) = frames.split_first()?;
    let memory = session.target().memory;
    let is_memory = |at: Address| memory.region_at(at).is_some_and(|region| region.writable);
    if is_memory(fault) {
        return None;
    }
    let stack = callers
        .iter()
        .find_map(|caller| memory.region_at(caller.sp))
        .filter(|region| region.writable)?;
    let lowest = stack.range.start;
    // Memory below the stack that is another's is no room that the stack had.
    let reaches = lowest.offset_from(fault)?;
    let stands = innermost.sp.get() <= lowest.get().saturating_add(MIN_LEFT)
        && lowest.get().saturating_sub(innermost.sp.get()) <= MAX_FRAME;
    // What lies under the stack pointer is the frame's that is being made.
    let is_own = fault.get().saturating_add(4096) >= innermost.sp.get();
    if !stands || !is_own || reaches > MAX_FRAME {
        return None;
    }
    let outermost = frames.last()?;
    let repeated = repeated(frames);
    let name = |start: Address| {
        let frame = frames
            .iter()
            .find(|frame| frame.function.is_some_and(|(at, _)| at == start))?;
        name_of(session, frame)
    };
    let is_repeated = |frame: &Frame| {
        frame
            .function
            .is_some_and(|(start, _)| repeated.iter().any(|(at, _)| *at == start))
    };
    let entered_from = frames.iter().position(|frame| !is_repeated(frame));
    Some(Exhausted {
        lowest,
        fault,
        bytes: outermost.sp.offset_from(fault)?,
        frames: u64::try_from(frames.len()).unwrap_or(u64::MAX),
        repeated: repeated
            .iter()
            .take(MAX_NAMED)
            .map(|(start, count)| (name(*start).unwrap_or_else(|| start.to_string()), *count))
            .collect(),
        entered_from: entered_from
            .filter(|_| !repeated.is_empty())
            .and_then(|index| index.checked_add(frame)),
        last: (
            name_of(session, innermost),
            callers
                .first()
                .and_then(|caller| caller.sp.offset_from(innermost.sp))
                .unwrap_or(0),
        ),
    })
}

/// Where functions begin that stand there many times, the most frequent first.
fn repeated(frames: &[Frame]) -> Vec<(Address, u64)> {
    let mut counts: BTreeMap<Address, u64> = BTreeMap::new();
    for (start, _) in frames.iter().filter_map(|frame| frame.function) {
        *counts.entry(start).or_default() += 1;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    // Each round of a recursion has a frame of each of its functions.
    let mut repeated: Vec<(Address, u64)> = counts
        .into_iter()
        .filter(|(_, count)| *count >= MIN_REPEATS && *count >= most / 4)
        .collect();
    repeated.sort_by_key(|(start, count)| (std::cmp::Reverse(*count), *start));
    repeated
}

fn name_of(session: &Session, frame: &Frame) -> Option<String> {
    let found = session
        .debug_info()
        .function_at(frame.module?, frame.lookup)?;
    Some(found.name)
}
