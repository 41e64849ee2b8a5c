//! The notes of a segment, one behind the other, and where to go on behind a damaged one.
//!
//! ```text
//! +0 namesz u32   +4 descsz u32   +8 type u32   +12 name, NUL included   descriptor        (elf.h, `Elf64_Nhdr`)
//!                                                   each padded to 4 or 8 bytes
//! ```

use std::ops::Range;

/// Bytes of a note's header.
const HEADER: usize = 12;
/// Longest name that is believed: those of the kernel have five or six bytes.
const MAX_NAME: usize = 64;

/// A note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record<'d> {
    /// Its type.
    pub kind: u32,
    /// Whose it is, without the NUL.
    pub name: &'d [u8],
    /// Where its descriptor is in the segment.
    pub descriptor: Range<usize>,
}

/// Reads notes until the segment ends.
pub(super) struct Records<'d> {
    bytes: &'d [u8],
    little_endian: bool,
    align: usize,
    /// Where the next note begins.
    at: usize,
    /// Where the search goes on if the next note is none: the last one's size may be what is damaged.
    last: usize,
    /// Places where the next note was none.
    pub damaged: usize,
}

impl<'d> Records<'d> {
    pub(super) fn new(bytes: &'d [u8], little_endian: bool, align: usize) -> Self {
        Self {
            bytes,
            little_endian,
            align,
            at: 0,
            last: 0,
            damaged: 0,
        }
    }

    fn word(&self, at: usize) -> Option<usize> {
        let bytes = *self.bytes.get(at..)?.first_chunk::<4>()?;
        let word = match self.little_endian {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        };
        usize::try_from(word).ok()
    }

    /// The note at `at` and where the one behind it begins, if its sizes and its name can be a note's.
    fn record(&self, at: usize) -> Option<(Record<'d>, usize)> {
        // From the note's own start: behind damage it may stand anywhere.
        let padded = |end: usize| {
            let bytes = end.checked_sub(at)?.checked_next_multiple_of(self.align)?;
            at.checked_add(bytes)
        };
        let (name_bytes, bytes) = (self.word(at)?, self.word(at.checked_add(4)?)?);
        let kind = u32::try_from(self.word(at.checked_add(8)?)?).ok()?;
        if name_bytes == 0 || name_bytes > MAX_NAME {
            return None;
        }
        let name_at = at.checked_add(HEADER)?;
        let name_end = name_at.checked_add(name_bytes)?;
        let (nul, name) = self.bytes.get(name_at..name_end)?.split_last()?;
        if *nul != 0 || !name.iter().all(u8::is_ascii_graphic) {
            return None;
        }
        let start = padded(name_end)?;
        let end = start.checked_add(bytes)?;
        self.bytes.get(start..end)?;
        let next = padded(end)?;
        let record = Record {
            kind,
            name,
            descriptor: start..end,
        };
        Some((record, next))
    }

    /// The first place from `from` on at which a note of the kernel's begins.
    fn resynchronised(&self, from: usize) -> Option<usize> {
        (from..self.bytes.len()).find(|at| {
            let record = self.record(*at);
            record.is_some_and(|(record, _)| matches!(record.name, b"CORE" | b"LINUX"))
        })
    }
}

impl<'d> Iterator for Records<'d> {
    type Item = Record<'d>;

    fn next(&mut self) -> Option<Record<'d>> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.iter().all(|byte| *byte == 0) && self.last <= self.at && !self.is_cut_short() {
            return None; // the end, or what pads it
        }
        let (record, next) = match self.record(self.at) {
            Some(found) => found,
            None => {
                self.damaged = self.damaged.saturating_add(1);
                let at = self.resynchronised(self.last)?;
                self.record(at)?
            }
        };
        self.last = record.descriptor.start;
        self.at = next;
        Some(record)
    }
}

impl Records<'_> {
    /// Whether the last note claims more than the segment has.
    fn is_cut_short(&self) -> bool {
        self.at > self.bytes.len().next_multiple_of(self.align)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, name: &[u8], bytes: &[u8]) -> Vec<u8> {
        let mut note = Vec::new();
        for word in [name.len() as u32 + 1, bytes.len() as u32, kind] {
            note.extend(word.to_le_bytes());
        }
        note.extend(name);
        note.push(0);
        note.resize(note.len().next_multiple_of(4), 0);
        note.extend(bytes);
        note.resize(note.len().next_multiple_of(4), 0);
        note
    }

    /// Types and lengths of all notes, and how many places were damaged.
    fn read(bytes: &[u8]) -> (Vec<(u32, usize)>, usize) {
        let mut records = Records::new(bytes, true, 4);
        let found = records
            .by_ref()
            .map(|record| (record.kind, record.descriptor.len()))
            .collect();
        (found, records.damaged)
    }

    fn three() -> Vec<u8> {
        [
            note(1, b"CORE", &[7; 40]),
            note(2, b"LINUX", &[8; 10]),
            note(3, b"CORE", &[9; 20]),
        ]
        .concat()
    }

    #[test]
    fn notes_follow_each_other() {
        let mut bytes = three();
        assert_eq!(read(&bytes), (vec![(1, 40), (2, 10), (3, 20)], 0));
        bytes.resize(bytes.len() + 32, 0);
        assert_eq!(read(&bytes).1, 0, "padding is no damage");
        assert_eq!(read(&[]), (vec![], 0));
    }

    #[test]
    fn behind_a_damaged_note_the_next_one_is_found() {
        for (place, value) in [(0, 0xff), (0, 0), (4, 200), (4, 8), (14, 0x80)] {
            let mut bytes = three();
            bytes[place] = value;
            if value == 0xff {
                bytes.splice(20..23, []); // and the others are out of step
            }
            let (found, damaged) = read(&bytes);
            assert!(damaged > 0, "{place} {value}");
            assert!(
                found.ends_with(&[(2, 10), (3, 20)]),
                "{place} {value}: {found:?}"
            );
        }
    }

    #[test]
    fn a_size_that_covers_the_next_note_hides_none() {
        let mut bytes = three();
        bytes[4] += 8; // ends inside the next one's header
        let (found, damaged) = read(&bytes);
        assert_eq!((found.len(), damaged), (3, 1));
    }
}
