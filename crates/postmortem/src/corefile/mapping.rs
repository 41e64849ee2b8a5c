//! Files as borrowed bytes: the one place with `unsafe`.

#![allow(unsafe_code)] // mapping a file is unsafe by nature; see the SAFETY paragraph

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

/// A file mapped read-only, whole.
///
/// If another program shortens the file while it is mapped, touching the lost pages is a SIGBUS. Lengths are therefore
/// taken when the file is mapped and never after; copy a core first if its writer may still be at work.
pub struct Mapping {
    map: Option<Mmap>,
}

impl Mapping {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// If it cannot be opened or mapped, or is no regular file (a path from a hostile core may name a device or a FIFO).
    pub fn open(path: &Path) -> io::Result<Mapping> {
        if !path.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Self::of(&File::open(path)?)
    }

    /// Maps an open file.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn of(file: &File) -> io::Result<Mapping> {
        if file.metadata()?.len() == 0 {
            return Ok(Mapping { map: None });
        }
        // SAFETY: the map is private and read-only, and only ever lent as `&[u8]`. What remains is that someone else
        // writes to the file or shortens it meanwhile. All readers here treat every byte as hostile, check each value
        // once after reading it and never index by an unchecked one, so changed bytes give a wrong report at worst;
        // a shortened file is a SIGBUS, which ends the process and corrupts nothing.
        let map = unsafe { Mmap::map(file)? };
        Ok(Mapping { map: Some(map) })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl std::fmt::Debug for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mapping({} bytes)", self.bytes().len())
    }
}

/// A part of a mapped file, shared. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FileView {
    mapping: Arc<Mapping>,
    range: Range<usize>,
}

impl FileView {
    /// The whole file.
    pub fn whole(mapping: Arc<Mapping>) -> Self {
        let range = 0..mapping.bytes().len();
        Self { mapping, range }
    }

    /// A part of this view, cut to what there is.
    pub fn part(&self, range: Range<usize>) -> Self {
        let end = self
            .range
            .start
            .saturating_add(range.end)
            .min(self.range.end);
        let start = self.range.start.saturating_add(range.start).min(end);
        Self {
            mapping: Arc::clone(&self.mapping),
            range: start..end,
        }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.mapping.bytes().get(self.range.clone()).unwrap_or(&[])
    }
}
