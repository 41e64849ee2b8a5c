//! Passes over a module's memory, for what is found by its shape.

use crate::target::{Address, Fault, Module, TargetMemory};

/// Every aligned 64-bit word that is not zero in the module's writable segments.
pub fn nonzero_words<'t>(
    memory: &'t dyn TargetMemory,
    module: &Module,
) -> impl Iterator<Item = (Address, u64)> + 't {
    let ranges: Vec<_> = module
        .segments
        .iter()
        .filter(|segment| segment.writable)
        .map(|segment| segment.range.clone())
        .collect();
    ranges.into_iter().flat_map(move |range| Words {
        memory,
        at: align_up(range.start),
        end: range.end,
        window: &[],
    })
}

fn align_up(at: Address) -> Address {
    Address::new(at.get().saturating_add(7) & !7)
}

struct Words<'t> {
    memory: &'t dyn TargetMemory,
    at: Address,
    end: Address,
    window: &'t [u8],
}

impl Iterator for Words<'_> {
    type Item = (Address, u64);

    fn next(&mut self) -> Option<Self::Item> {
        while self.at < self.end {
            let Some((word, rest)) = self.window.split_first_chunk::<8>() else {
                self.refill();
                continue;
            };
            self.window = rest;
            let at = self.at;
            self.at = at.saturating_add(8);
            let word = u64::from_le_bytes(*word);
            if word != 0 {
                return Some((at, word));
            }
            self.skip_zeros();
        }
        None
    }
}

impl Words<'_> {
    /// Most of a module's variables are zero: they are stepped over in larger pieces.
    fn skip_zeros(&mut self) {
        const PIECE: usize = 128;
        let mut window = self.window;
        while let Some((piece, rest)) = window.split_first_chunk::<PIECE>()
            && piece.iter().fold(0, |all, byte| all | byte) == 0
        {
            window = rest;
            self.at = self.at.saturating_add(PIECE as u64);
        }
        self.window = window;
    }

    /// Takes the window at `at`. Skips to the next page where the core has none, to the next
    /// mapping where there is none: a damaged program header may span the whole address space.
    fn refill(&mut self) {
        self.window = &[];
        match self.memory.window(self.at) {
            Ok(window) if window.bytes.len() >= 8 => self.window = window.bytes,
            Err(Fault::Unmapped(_)) => {
                let regions = self.memory.regions();
                let after = regions.partition_point(|region| region.range.start <= self.at);
                let next = regions.get(after).map(|region| region.range.start);
                self.at = next.map_or(self.end, align_up);
            }
            _ => {
                let page = self.memory.abi().page_bytes.max(8);
                self.at = Address::new(
                    (self.at.get() / page)
                        .saturating_add(1)
                        .saturating_mul(page),
                );
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
            let length = usize::try_from(end.get() - at.get())
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

/// The release `X.Y` that follows `mark` in the module's read-only memory (usually only in its
/// file).
pub fn version_after(memory: &dyn TargetMemory, module: &Module, mark: &[u8]) -> Option<String> {
    find_in_constants(memory, module, |bytes| find_version(bytes, mark))
}

fn find_version(bytes: &[u8], mark: &[u8]) -> Option<String> {
    let mut rest = bytes;
    let finder = memchr::memmem::Finder::new(mark);
    while let Some(at) = finder.find(rest) {
        rest = rest.get(at + mark.len()..)?;
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
