//! Synthetic cores for tests. Numbers are written out as the kernel writes them, not taken from the reader's tables, so that
//! a wrong table cannot approve itself.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use super::{CoreError, CoreFile, FileView, Mapping};

pub const R: u32 = 4;
pub const RW: u32 = 6;
pub const RX: u32 = 5;

/// A core in the making.
#[derive(Clone, Default)]
pub struct TestCore {
    /// Address, bytes in memory, flags, bytes in the core.
    pub loads: Vec<(u64, u64, u32, Vec<u8>)>,
    /// Type and descriptor.
    pub notes: Vec<(u32, Vec<u8>)>,
    /// Writes the number of program headers as cores with 65,535 and more segments do.
    pub extended_numbering: bool,
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

impl TestCore {
    /// A mapping that is dumped whole.
    pub fn load(mut self, at: u64, flags: u32, bytes: &[u8]) -> Self {
        self.loads
            .push((at, bytes.len() as u64, flags, bytes.to_vec()));
        self
    }

    /// A mapping of which the core holds only the first `bytes`.
    pub fn part(mut self, at: u64, memory_bytes: u64, flags: u32, bytes: &[u8]) -> Self {
        self.loads.push((at, memory_bytes, flags, bytes.to_vec()));
        self
    }

    pub fn note(mut self, kind: u32, bytes: Vec<u8>) -> Self {
        self.notes.push((kind, bytes));
        self
    }

    /// `NT_PRSTATUS` of x86-64: `fill` gives the 27 words of the register block.
    pub fn thread(self, tid: u32, signal: u16, registers: [u64; 27]) -> Self {
        let mut status = vec![0; 336];
        status[12..14].copy_from_slice(&signal.to_le_bytes());
        status[32..36].copy_from_slice(&tid.to_le_bytes());
        status[112..328].copy_from_slice(&words(&registers));
        self.note(1, status)
    }

    /// `NT_PRPSINFO`.
    pub fn process(self, pid: u32, name: &str, arguments: &str) -> Self {
        let mut info = vec![0; 136];
        info[16..20].copy_from_slice(&1000u32.to_le_bytes());
        info[24..28].copy_from_slice(&pid.to_le_bytes());
        info[40..40 + name.len()].copy_from_slice(name.as_bytes());
        info[56..56 + arguments.len()].copy_from_slice(arguments.as_bytes());
        self.note(3, info)
    }

    /// `NT_SIGINFO`: number, code, and the two words at +16.
    pub fn signal(self, signal: i32, code: i32, word: u64) -> Self {
        let mut info = vec![0; 128];
        info[0..4].copy_from_slice(&signal.to_le_bytes());
        info[8..12].copy_from_slice(&code.to_le_bytes());
        info[16..24].copy_from_slice(&word.to_le_bytes());
        self.note(0x5349_4749, info)
    }

    /// `NT_AUXV`.
    pub fn auxv(self, entries: &[(u64, u64)]) -> Self {
        let entries = entries.iter().flat_map(|(tag, value)| [*tag, *value]);
        let all: Vec<u64> = entries.chain([0, 0]).collect();
        self.note(6, words(&all))
    }

    /// `NT_FILE`: start, end, offset in pages, path.
    pub fn files(self, files: &[(u64, u64, u64, &str)]) -> Self {
        let mut note = words(&[files.len() as u64, 4096]);
        for (start, end, pages, _) in files {
            note.extend(words(&[*start, *end, *pages]));
        }
        for (_, _, _, path) in files {
            note.extend(path.as_bytes());
            note.push(0);
        }
        self.note(0x4649_4c45, note)
    }

    /// The file, laid out as the kernel does: header, program headers, notes, memory.
    pub fn bytes(&self) -> Vec<u8> {
        let mut notes = Vec::new();
        for (kind, bytes) in &self.notes {
            for word in [5, bytes.len() as u32, *kind] {
                notes.extend(word.to_le_bytes());
            }
            notes.extend(b"CORE\0\0\0\0");
            notes.extend(bytes);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        let count = self.loads.len() + 1;
        let notes_at = 64 + 56 * count as u64;
        let mut data_at = (notes_at + notes.len() as u64).next_multiple_of(4096);
        let mut headers = Vec::new();
        let mut header = |kind: u32, flags: u32, rest: [u64; 6]| {
            headers.extend(kind.to_le_bytes());
            headers.extend(flags.to_le_bytes());
            headers.extend(words(&rest));
        };
        header(4, 0, [notes_at, 0, 0, notes.len() as u64, 0, 4]);
        let mut data: Vec<u8> = Vec::new();
        for (at, memory_bytes, flags, bytes) in &self.loads {
            let length = bytes.len() as u64;
            header(1, *flags, [data_at, *at, 0, length, *memory_bytes, 4096]);
            data.extend(bytes);
            data_at += length;
        }
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        let sections_at = if self.extended_numbering { data_at } else { 0 };
        file.extend(words(&[0, 64, sections_at]));
        let number = match self.extended_numbering {
            true => 0xffff,
            false => count as u16,
        };
        file.extend([0, 0, 0, 0, 64, 0, 56, 0]);
        file.extend(number.to_le_bytes());
        file.extend([64, 0, u8::from(self.extended_numbering), 0, 0, 0]);
        assert_eq!(file.len(), 64);
        file.extend(headers);
        file.extend(notes);
        file.resize(file.len().next_multiple_of(4096), 0);
        file.extend(data);
        if self.extended_numbering {
            let mut section = vec![0; 64];
            section[44..48].copy_from_slice(&(count as u32).to_le_bytes());
            file.extend(section);
        }
        file
    }

    /// The core, opened.
    pub fn open(&self) -> CoreFile {
        parse(&self.bytes()).unwrap()
    }
}

/// Reads a core from bytes.
pub fn parse(bytes: &[u8]) -> Result<CoreFile, CoreError> {
    CoreFile::parse(Path::new("core"), view(bytes), Vec::new())
}

/// Bytes as a mapped file.
pub fn view(bytes: &[u8]) -> FileView {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    FileView::whole(Arc::new(Mapping::of(&file).unwrap()))
}
