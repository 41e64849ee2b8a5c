//! What the process had not written of its log when it died. mtrace writes through a stream of libc with a buffer of 512 bytes: the last
//! calls, the second free of a double free among them, are in the core only. And a process that lived on wrote more than the core knows of.

use std::io::{self, BufRead, Read as _, Seek, SeekFrom};

use ground::target::{Address, MemoryExt, SymbolTable};
use reports::events::{goes_on, is_trace_text};

use postmortem::session::Session;

/// Streams that are looked at.
const MAX_STREAMS: usize = 1024;
/// Bytes of a buffer that are taken.
const MAX_BYTES: u64 = 1 << 20;
/// The upper half of a stream's first word (`_IO_MAGIC`, libio/libio.h).
const MAGIC: u64 = 0xfbad;

/// Fields of `struct _IO_FILE` on 64-bit machines (libio/bits/types/struct_FILE.h), the same since glibc 2.1.
const WRITE_BASE: u64 = 0x20;
const WRITE_END: u64 = 0x28;
const CHAIN: u64 = 0x68;

/// How much of the log the core knows of, where the log goes on behind that; and what is missing at its end.
pub fn find(
    session: &Session,
    log: &mut (impl BufRead + Seek),
) -> io::Result<(Option<u64>, Vec<u8>)> {
    let Some(rest) = buffers(session)
        .into_iter()
        .find(|text| is_trace_text(text))
    else {
        return Ok((None, Vec::new()));
    };
    match last_place(log, &rest)? {
        Some(end) => Ok((Some(end), Vec::new())),
        None => {
            // Of another log, or of none, it is no end.
            let end = end_of(log)?;
            let rest = Some(rest).filter(|rest| goes_on(&end, rest));
            Ok((None, rest.unwrap_or_default()))
        }
    }
}

/// What stands behind the last line end of a file.
fn end_of(log: &mut (impl BufRead + Seek)) -> io::Result<Vec<u8>> {
    const MOST: u64 = 1 << 16;
    let bytes = log.seek(SeekFrom::End(0))?;
    log.seek(SeekFrom::Start(bytes.saturating_sub(MOST)))?;
    let mut end = Vec::new();
    log.take(MOST).read_to_end(&mut end)?;
    let after = end.iter().rposition(|byte| *byte == b'\n');
    Ok(end.split_off(after.map_or(0, |at| at + 1)))
}

/// What is in the buffers of all streams that are written to.
fn buffers(session: &Session) -> Vec<Vec<u8>> {
    let memory = session.target().memory;
    let modules = session.modules().modules();
    let heads = modules
        .iter()
        .filter_map(|module| session.debug_info().function(module.id, "_IO_list_all"));
    let Some(head) = heads.map(|symbol| symbol.address).next() else {
        return Vec::new();
    };
    let word = |at: Address, offset: u64| memory.read_u64(at.checked_add(offset)?).ok();
    let mut found = Vec::new();
    let mut stream = word(head, 0);
    for _ in 0..MAX_STREAMS {
        let Some(at) = stream.filter(|at| *at != 0).map(Address::new) else {
            break;
        };
        if word(at, 0).is_none_or(|flags| (flags & 0xffff_ffff) >> 16 != MAGIC) {
            break;
        }
        if let (Some(start), Some(end)) = (word(at, WRITE_BASE), word(at, WRITE_END)) {
            let count = end.checked_sub(start).filter(|count| *count <= MAX_BYTES);
            let count = count.and_then(|count| usize::try_from(count).ok());
            let mut bytes = vec![0; count.unwrap_or(0)];
            if !bytes.is_empty() && memory.read_into(Address::new(start), &mut bytes).is_ok() {
                found.push(bytes);
            }
        }
        stream = word(at, CHAIN);
    }
    found
}

/// The end of the last place in a stream where these bytes stand.
fn last_place(log: &mut impl BufRead, wanted: &[u8]) -> io::Result<Option<u64>> {
    let mut window: Vec<u8> = Vec::new();
    let (mut before, mut found) = (0u64, None);
    loop {
        let available = match log.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() {
            return Ok(found);
        }
        let count = available.len();
        window.extend_from_slice(available);
        log.consume(count);
        let finder = memchr::memmem::Finder::new(wanted);
        let mut from = 0;
        while let Some(at) = window.get(from..).and_then(|part| finder.find(part)) {
            from += at + 1;
            found = Some(before + (from - 1 + wanted.len()) as u64);
        }
        let kept = window.len().min(wanted.len().saturating_sub(1));
        let gone = window.len() - kept;
        window.drain(..gone);
        before += gone as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_found_across_pieces() {
        let text = b"abcabcxabc";
        for size in 1..12 {
            let mut reader = io::BufReader::with_capacity(size, &text[..]);
            assert_eq!(last_place(&mut reader, b"abc").unwrap(), Some(10));
            let mut reader = io::BufReader::with_capacity(size, &text[..]);
            assert_eq!(last_place(&mut reader, b"bca").unwrap(), Some(4));
            let mut reader = io::BufReader::with_capacity(size, &text[..]);
            assert_eq!(last_place(&mut reader, b"bcb").unwrap(), None);
        }
    }
}
