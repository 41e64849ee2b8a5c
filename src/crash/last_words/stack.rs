//! What an allocator said that writes its message into an array of the function that ends the process: it stands on the stack
//! of the thread that died, among the frames of that function.
//!
//! ```text
//! gperftools  Log(kCrash, ...)       "src/tcmalloc.cc:333] Attempt to free invalid pointer 0x... \n"   (internal_logging.cc)
//!             RAW_LOG(FATAL, ...)    "memory stomping bug: a word after object at 0x... has been corrupted"   (debugallocation.cc)
//! jemalloc    safety_check_fail(...) "Invalid deallocation detected: pages being freed (0x...) ..."   (safety_check.c)
//! ```

use ground::target::{MemoryExt, Target};

use super::{FoundBy, LastWords, Speaker};

/// Bytes of the stack that are searched: each buffer has at most 4 KiB, and abort stands below it.
const SEARCHED_BYTES: u64 = 24 << 10;
/// Longest message.
const MAX_MESSAGE_BYTES: usize = 512;

/// Words by which the messages are known.
const MARKS: [(&str, Speaker); 13] = [
    ("] Attempt to free invalid pointer 0x", Speaker::Gperftools),
    (
        "] Attempt to realloc invalid pointer 0x",
        Speaker::Gperftools,
    ),
    (
        "] Attempt to get the size of invalid pointer 0x",
        Speaker::Gperftools,
    ),
    ("] Object was not in-use", Speaker::Gperftools),
    (
        "] Pointer is not pointing to the start of a span",
        Speaker::Gperftools,
    ),
    ("memory allocation bug: object at 0x", Speaker::Gperftools),
    ("memory stomping bug: a word ", Speaker::Gperftools),
    (
        "memory corruption bug: offset_ field is corrupted",
        Speaker::Gperftools,
    ),
    (
        "memory allocation/deallocation mismatch at 0x",
        Speaker::Gperftools,
    ),
    ("Invalid deallocation detected: ", Speaker::Jemalloc),
    ("size mismatch detected (true size ", Speaker::Jemalloc),
    (
        "Write-after-free detected on deallocated pointer 0x",
        Speaker::Jemalloc,
    ),
    ("heap corruption detected", Speaker::Jemalloc),
];

/// The message that stands first on the crashing thread's stack.
pub fn find(target: Target<'_>) -> Option<LastWords> {
    let start = target.threads.list().first()?.sp;
    let region = target.memory.region_at(start)?;
    let bytes = region.range.end.offset_from(start)?.min(SEARCHED_BYTES);
    let mut stack = vec![0; usize::try_from(bytes).ok()?];
    // As far as it is there.
    let read = match target.memory.read_into(start, &mut stack) {
        Ok(()) => bytes,
        Err(fault) => fault.address().offset_from(start)?,
    };
    stack.truncate(usize::try_from(read).ok()?);
    let (from, text, speaker) = MARKS
        .iter()
        .filter_map(|(mark, speaker)| {
            let (from, text) = line_with(&stack, mark.as_bytes())?;
            Some((from, text, *speaker))
        })
        .min_by_key(|(from, ..)| *from)?;
    Some(LastWords {
        text,
        address: start.checked_add(u64::try_from(from).ok()?)?,
        found_by: FoundBy::Stack,
        speaker,
    })
}

/// The line that holds `mark`, and where it begins.
fn line_with(bytes: &[u8], mark: &[u8]) -> Option<(usize, String)> {
    let is_text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    let at = bytes
        .windows(mark.len())
        .position(|window| window == mark)?;
    let before = bytes.get(..at)?.iter().rev();
    let lead = match mark.first() {
        // The name of the source and the line, which stand before the bracket.
        Some(b']') => before
            .take(64)
            .take_while(|byte| is_text(byte) && **byte != b' ')
            .count(),
        _ => 0,
    };
    let from = at.checked_sub(lead)?;
    let line = bytes.get(from..)?.iter().take(MAX_MESSAGE_BYTES);
    let line: Vec<u8> = line.copied().take_while(|byte| is_text(byte)).collect();
    Some((from, String::from_utf8(line).ok()?.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::line_with;

    #[test]
    fn a_line_begins_with_its_source_and_ends_with_the_line() {
        let stack = b"\x01\x02 \0src/tcmalloc.cc:333] Attempt to free invalid pointer 0x7ffe10 \n\0left over";
        let (from, text) = line_with(stack, b"] Attempt to free invalid pointer 0x").unwrap();
        assert_eq!(from, 4);
        assert_eq!(
            text,
            "src/tcmalloc.cc:333] Attempt to free invalid pointer 0x7ffe10"
        );
        let stack = b"memory stomping bug: a word after object at 0x10 has been corrupted\0";
        let (from, text) = line_with(stack, b"memory stomping bug: a word ").unwrap();
        assert_eq!((from, text.len()), (0, stack.len() - 1));
        assert_eq!(line_with(b"nothing", b"] Object was not in-use"), None);
        assert_eq!(line_with(b"", b"] Object was not in-use"), None);
    }
}
