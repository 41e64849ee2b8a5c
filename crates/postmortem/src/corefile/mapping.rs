//! Files as borrowed bytes: the one place with `unsafe`.

#![allow(unsafe_code)] // mapping a file is unsafe by nature; see the SAFETY paragraph

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;
use rustix::fs::SeekFrom;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// A file mapped read-only, whole.
///
/// If another program shortens the file while it is mapped, touching the lost pages is a SIGBUS. Lengths are therefore
/// taken when the file is mapped and never after; copy a core first if its writer may still be at work.
///
/// Holes of the file are never read: zeros are mapped in their place.
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
        if let Ok(metadata) = file.metadata()
            && is_sparse(&metadata)
        {
            cover_holes(&map, file);
        }
        Ok(Mapping { map: Some(map) })
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

/// Bytes of a hole from which on it is covered: of a huge page, in which zeros are mapped at once.
const HOLE_BYTES: usize = 2 << 20;
/// Pieces of data between holes that are looked for. Each hole that is covered is a mapping of its own, of which a process may
/// have 65,530; on some network file systems each look is a question to the server.
const MAX_PIECES: usize = 4096;

/// Whether the file has less on the disk than its length, by a hole that is worth covering.
fn is_sparse(metadata: &Metadata) -> bool {
    let held = metadata.blocks().saturating_mul(512);
    metadata.len().saturating_sub(held) >= HOLE_BYTES as u64
}

/// Maps zeros over the holes of a file: a hole that is read through the file fills the page cache with zeros, and costs as much as
/// data does. What cannot be covered stays as it is.
fn cover_holes(map: &Mmap, file: &File) {
    let bytes = map.len() as u64;
    let mut data_end = 0;
    for _ in 0..MAX_PIECES {
        let data = match rustix::fs::seek(file, SeekFrom::Data(data_end)) {
            Ok(data) => data.min(bytes),
            // No data follows.
            Err(rustix::io::Errno::NXIO) => bytes,
            Err(_) => return,
        };
        if !cover(map, data_end, data) || data >= bytes {
            return;
        }
        match rustix::fs::seek(file, SeekFrom::Hole(data)) {
            Ok(end) if end > data && end < bytes => {
                read_alone(map, data..end);
                data_end = end;
            }
            _ => return,
        }
    }
}

/// Has a short piece of data between holes read page by page: what the system would read ahead, up to several
/// megabytes, are zeros.
fn read_alone(map: &Mmap, data: Range<u64>) {
    let place = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let (start, end) = (place(data.start), place(data.end));
    if end.saturating_sub(start) >= HOLE_BYTES {
        return;
    }
    // What is left of the holes beside it, too.
    let from = start.saturating_sub(HOLE_BYTES);
    let to = end.saturating_add(HOLE_BYTES).min(map.len());
    // Whether the advice is taken does not matter.
    let _ = map.advise_range(memmap2::Advice::Random, from, to.saturating_sub(from));
}

/// Maps zeros over the whole huge pages of one hole; whether the system allows it.
fn cover(map: &Mmap, from: u64, to: u64) -> bool {
    let base = map.as_ptr().addr();
    let whole = |offset: u64| usize::try_from(offset).ok()?.checked_add(base);
    let (Some(from), Some(to)) = (whole(from), whole(to)) else {
        return false;
    };
    let Some(start) = from.checked_next_multiple_of(HOLE_BYTES) else {
        return false;
    };
    let length = to.saturating_sub(start) / HOLE_BYTES;
    let length = length.saturating_mul(HOLE_BYTES);
    if length == 0 {
        return true;
    }
    let at = map.as_ptr().with_addr(start).cast_mut().cast();
    // SAFETY: the range lies inside `map`, which nobody has borrowed yet, and begins and ends with a page. It is replaced
    // by memory that is read-only as the map is, and goes with it when that is unmapped.
    let mapped = unsafe {
        mmap_anonymous(
            at,
            length,
            ProtFlags::READ,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
    };
    if mapped.is_err() {
        return false;
    }
    // SAFETY: the range was just mapped; the advice changes no contents. Whether it is taken does not matter.
    let _ = unsafe { madvise(at, length, Advice::LinuxHugepage) };
    true
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
