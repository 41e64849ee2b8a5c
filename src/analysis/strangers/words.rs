//! What a sanitizer printed before it ended the process: it keeps its report in memory.
//!
//! ```text
//! ==PID==ERROR: AddressSanitizer: heap-use-after-free on address ...
//! ```

use ground::target::{Address, MemoryExt, RegionKind, TargetMemory};

use postmortem::corefile::AddressSpace;

/// How headings go on behind `==PID==`.
const HEADINGS: [&[u8]; 5] = [
    b"ERROR: AddressSanitizer",
    b"ERROR: HWAddressSanitizer",
    b"ERROR: LeakSanitizer",
    b"WARNING: ThreadSanitizer",
    b"WARNING: MemorySanitizer",
];
/// Bytes of a report that are read, lines of it that are kept, and bytes of a line.
const MAX_BYTES: usize = 16 << 10;
const MAX_LINES: usize = 24;
const MAX_LINE_BYTES: usize = 200;
/// Places that are looked at.
const MAX_PLACES: usize = 256;
/// Digits of a process id, and the marks around it.
const MAX_MARK: u64 = 16;

/// The beginning of a sanitizer's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SanitizerReport {
    /// Where it stands.
    pub address: Address,
    /// Its first lines, without colours.
    pub lines: Vec<String>,
}

/// The longest report in the process's writable memory.
pub fn find(memory: &AddressSpace) -> Option<SanitizerReport> {
    let mut best: Option<SanitizerReport> = None;
    let mut places = 0;
    let regions = memory.regions().iter();
    for region in regions.filter(|region| region.writable && region.kind == RegionKind::Anonymous) {
        for heading in HEADINGS {
            let mut at = region.range.start;
            while places < MAX_PLACES
                && let Some(found) = ground::scan::find_text(memory, at..region.range.end, heading)
            {
                places += 1;
                at = found.saturating_add(heading.len() as u64);
                let report = read(memory, found);
                let lines = |report: &SanitizerReport| report.lines.len();
                if let Some(report) = report
                    && best
                        .as_ref()
                        .is_none_or(|best| lines(best) < lines(&report))
                {
                    best = Some(report);
                }
            }
        }
    }
    best
}

/// The report whose heading goes on at `at`: `==PID==` must stand before.
fn read(memory: &dyn TargetMemory, at: Address) -> Option<SanitizerReport> {
    let byte = |back: u64| memory.read_u8(at.checked_sub(back)?).ok();
    let mut back = 3;
    if byte(1)? != b'=' || byte(2)? != b'=' {
        return None;
    }
    while back < MAX_MARK && byte(back)?.is_ascii_digit() {
        back += 1;
    }
    if back == 3 || byte(back)? != b'=' || byte(back + 1)? != b'=' {
        return None;
    }
    let address = at.checked_sub(back + 1)?;
    let mut bytes = Vec::new();
    while bytes.len() < MAX_BYTES {
        let at = address.saturating_add(bytes.len() as u64);
        match memory.read_u8(at) {
            Ok(0) | Err(_) => break,
            Ok(byte) => bytes.push(byte),
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines = text
        .lines()
        .map(plain)
        .filter(|line| !line.trim().is_empty());
    Some(SanitizerReport {
        address,
        lines: lines.take(MAX_LINES).collect(),
    })
}

/// The line without the sequences that colour it, cut where it is too long.
fn plain(line: &str) -> String {
    let mut out = String::new();
    let mut rest = line.chars();
    while let Some(letter) = rest.next() {
        if letter == '\u{1b}' {
            let _ = rest.find(char::is_ascii_alphabetic);
        } else if out.len() < MAX_LINE_BYTES {
            out.push(letter);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn colours_are_left_out() {
        assert_eq!(
            plain("\u{1b}[1m\u{1b}[31m==7==ERROR\u{1b}[0m: x"),
            "==7==ERROR: x"
        );
        assert_eq!(plain("\u{1b}[1"), "");
        assert!(plain(&"x".repeat(1000)).len() <= 200);
    }
}
