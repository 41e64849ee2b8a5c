//! Passes over memory, for what is found by its shape.

use std::ops::Range;

use crate::target::{Address, MemoryExt, Module, TargetMemory};

/// Every aligned 64-bit word that is not zero in the module's writable segments.
pub fn nonzero_words<'t>(
    memory: &'t dyn TargetMemory,
    module: &Module,
) -> impl Iterator<Item = (Address, u64)> + 't {
    words_where(memory, module, |_, _| true)
}

/// Those words that are `wanted`, never zero. Faster than to filter [`nonzero_words`]: what is not wanted is passed in one loop.
pub fn words_where<'t>(
    memory: &'t dyn TargetMemory,
    module: &Module,
    wanted: impl Fn(Address, u64) -> bool + Copy + 't,
) -> impl Iterator<Item = (Address, u64)> + 't {
    let ranges: Vec<_> = module
        .segments
        .iter()
        .filter(|segment| segment.writable)
        .map(|segment| segment.range.clone())
        .collect();
    ranges
        .into_iter()
        .flat_map(move |range| words_in(memory, range, wanted))
}

/// Every aligned 64-bit word in a range that is there, not zero and `wanted`: of a table that is mostly empty.
pub fn words_in<'t>(
    memory: &'t dyn TargetMemory,
    range: Range<Address>,
    wanted: impl Fn(Address, u64) -> bool + 't,
) -> impl Iterator<Item = (Address, u64)> + 't {
    Words {
        memory,
        at: align_up(range.start),
        end: range.end,
        window: &[],
        wanted,
    }
}

fn align_up(at: Address) -> Address {
    Address::new(at.get().saturating_add(7) & !7)
}

struct Words<'t, F> {
    memory: &'t dyn TargetMemory,
    at: Address,
    end: Address,
    /// Words from `at` on, none behind `end`.
    window: &'t [[u8; 8]],
    wanted: F,
}

impl<F: Fn(Address, u64) -> bool> Iterator for Words<'_, F> {
    type Item = (Address, u64);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            if self.window.is_empty() {
                self.refill();
                continue;
            }
            if let Some(found) = self.search() {
                return Some(found);
            }
        }
        None
    }
}

/// The address so many words behind another.
fn behind(at: Address, words: usize) -> Address {
    at.saturating_add((words as u64).saturating_mul(8))
}

impl<F: Fn(Address, u64) -> bool> Words<'_, F> {
    /// The next wanted word of the window.
    fn search(&mut self) -> Option<(Address, u64)> {
        let mut passed = 0;
        let mut found = None;
        while let Some(bytes) = self.window.get(passed) {
            let word = u64::from_le_bytes(*bytes);
            if word == 0 {
                passed = passed
                    .saturating_add(1)
                    .saturating_add(self.zeros_behind(passed));
                continue;
            }
            let at = behind(self.at, passed);
            if (self.wanted)(at, word) {
                found = Some((at, word));
                passed = passed.saturating_add(1);
                break;
            }
            passed = passed.saturating_add(1);
        }
        self.at = behind(self.at, passed);
        self.window = self.window.get(passed..).unwrap_or_default();
        found
    }

    /// Most of a module's variables are zero: they are stepped over in larger pieces.
    fn zeros_behind(&self, index: usize) -> usize {
        const PIECE: usize = 16;
        let (pieces, _) = self
            .window
            .get(index.saturating_add(1)..)
            .unwrap_or_default()
            .as_chunks::<PIECE>();
        let is_zero = |piece: &&[[u8; 8]; PIECE]| {
            piece[0] == [0; 8] && piece.as_flattened().iter().fold(0, |all, byte| all | byte) == 0
        };
        pieces
            .iter()
            .take_while(is_zero)
            .count()
            .saturating_mul(PIECE)
    }

    /// Takes the window at `at`, or goes to what follows where the core has none.
    fn refill(&mut self) {
        match self.memory.window(self.at) {
            Ok(window) if window.bytes.len() >= 8 => {
                let (words, _) = window.bytes.as_chunks::<8>();
                // One that begins before the end counts.
                let most = self.end.offset_from(self.at).unwrap_or(0).div_ceil(8);
                let most = usize::try_from(most).unwrap_or(usize::MAX);
                self.window = words.get(..most).unwrap_or(words);
            }
            // A word across two pieces of the core.
            Ok(_) => self.at = align_up(self.at.saturating_add(1)),
            Err(_) => {
                let next = self.memory.behind_absent(self.at);
                self.at = next
                    .map_or(self.end, align_up)
                    .max(self.at.saturating_add(8));
            }
        }
    }
}

/// What `find` makes of the module's read-only memory (usually only in its file): the first piece of which it makes
/// anything.
pub fn find_in_constants<T>(
    memory: &dyn TargetMemory,
    module: &Module,
    find: impl Fn(&[u8]) -> Option<T>,
) -> Option<T> {
    const MAX_SEGMENT: u64 = 64 << 20;
    for segment in module.segments.iter().filter(|segment| !segment.writable) {
        let mut at = segment.range.start;
        let end = segment
            .range
            .end
            .min(segment.range.start.saturating_add(MAX_SEGMENT));
        while at < end {
            let Ok(window) = memory.window(at) else {
                break;
            };
            let length = usize::try_from(end.get().saturating_sub(at.get()))
                .unwrap_or(usize::MAX)
                .min(window.bytes.len());
            let bytes = window.bytes.get(..length).unwrap_or_default();
            if let Some(found) = find(bytes) {
                return Some(found);
            }
            at = at.saturating_add(length.max(1) as u64);
        }
    }
    None
}

/// Whether a module's memory holds a text: its constants (usually only in its file) or its variables.
pub fn holds_text(memory: &dyn TargetMemory, module: &Module, text: &[u8]) -> bool {
    let finder = memchr::memmem::Finder::new(text);
    let constants = find_in_constants(memory, module, |bytes| finder.find(bytes));
    let variables = module.segments.iter().filter(|segment| segment.writable);
    let mut variables = variables.map(|segment| segment.range.clone());
    constants.is_some() || variables.any(|range| find_text(memory, range, text).is_some())
}

/// Where a text stands first in a range. One that lies across a hole or two pieces of the core is not found.
pub fn find_text(memory: &dyn TargetMemory, range: Range<Address>, text: &[u8]) -> Option<Address> {
    let finder = memchr::memmem::Finder::new(text);
    let mut at = range.start;
    while at < range.end {
        let Ok(window) = memory.window(at) else {
            // The rest of the mapping is absent, or there is none: a damaged program header may span the whole address space.
            at = match memory.region_at(at) {
                Some(region) => region.range.end,
                None => {
                    let regions = memory.regions();
                    let next = regions.partition_point(|region| region.range.start <= at);
                    regions.get(next)?.range.start
                }
            };
            continue;
        };
        let most = usize::try_from(range.end.offset_from(at)?).unwrap_or(usize::MAX);
        let bytes = window.bytes.get(..most).unwrap_or(window.bytes);
        if let Some(offset) = finder.find(bytes) {
            return at.checked_add(offset as u64);
        }
        at = at.checked_add(bytes.len().max(1) as u64)?;
    }
    None
}

/// The release `X.Y` that follows `mark` in the module's read-only memory (usually only in its
/// file).
pub fn version_after(memory: &dyn TargetMemory, module: &Module, mark: &[u8]) -> Option<String> {
    find_in_constants(memory, module, |bytes| find_version(bytes, mark))
}

fn find_version(bytes: &[u8], mark: &[u8]) -> Option<String> {
    let mut rest = bytes;
    let finder = memchr::memmem::Finder::new(mark);
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at.saturating_add(mark.len())..)?;
        let text: String = rest
            .iter()
            .take(16)
            .take_while(|byte| byte.is_ascii_digit() || **byte == b'.')
            .map(|byte| char::from(*byte))
            .collect();
        if text.contains('.') && text.starts_with(|first: char| first.is_ascii_digit()) {
            return Some(text.trim_end_matches('.').to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::find_version;

    #[test]
    fn a_release_is_read_from_text() {
        let mark = b"gperftools ";
        assert_eq!(
            find_version(b"xx gperftools 2.18.1\0yy", mark).as_deref(),
            Some("2.18.1")
        );
        assert_eq!(
            find_version(b"gperftools (x) gperftools 2.10\0", mark).as_deref(),
            Some("2.10")
        );
        assert_eq!(find_version(b"see gperftools docs", mark), None);
    }
}
