//! From a path to the bytes of a core: mapped as it is, or unpacked into a file without a name.
//!
//! systemd keeps cores as `.zst` (also `.lz4`, `.xz`) and `coredumpctl dump | heapcheck -` pipes them, so both are
//! unpacked here, told by their magic number. Untouched heap is zeros: pages of zeros become holes, so that a core of
//! 100 GB with 5 GB of contents needs 5 GB of disk. A packed file that ends early is a core that ends early, and so is one
//! whose contents would fill the disk.

mod zstd;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, mpsc};

use super::{CoreError, FileView, Mapping, OpenOptions};

/// Bytes that are written or left out together.
const HOLE_BYTES: usize = 4096;
/// Bytes that are unpacked at a time.
const BUFFER_BYTES: usize = 256 * HOLE_BYTES;
/// Most memory that an xz decoder may ask for, in KiB: its dictionary size is a number in the file.
const XZ_MEMORY_KIB: u32 = 1 << 20;

/// Most bytes of a file system that are left free: of a smaller one, one part in [`SHARE_LEFT_FREE`].
const LEFT_FREE_BYTES: u64 = 1 << 30;
/// See [`LEFT_FREE_BYTES`].
const SHARE_LEFT_FREE: u64 = 20;

/// The bytes of a core.
pub(super) struct Input {
    pub view: FileView,
    pub diagnostics: Vec<String>,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    None,
    Zstd,
    Gzip,
    Xz,
    Lz4,
}

impl Packing {
    fn of(start: &[u8]) -> Packing {
        match start {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            // A skippable frame: pzstd and seekable archives begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [0x04, 0x22, 0x4d, 0x18, ..] => Packing::Lz4,
            _ => Packing::None,
        }
    }

    fn reader<'r>(self, packed: impl BufRead + Send + 'r) -> io::Result<Box<dyn Read + Send + 'r>> {
        Ok(match self {
            Packing::None => Box::new(packed),
            Packing::Zstd => Box::new(zstd::Frames::new(packed)?),
            Packing::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
            Packing::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
                packed,
                true,
                XZ_MEMORY_KIB,
            )),
            Packing::Lz4 => Box::new(Lz4Frames(lz4_flex::frame::FrameDecoder::new(packed))),
        })
    }
}

/// Whether the file at `path` is packed in a way that is read here (a core may be, a binary is not).
pub fn is_packed(start: &[u8]) -> bool {
    Packing::of(start) != Packing::None
}

/// Opens and, if need be, unpacks the core at `path`; `-` is standard input.
pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Input, CoreError> {
    let unreadable = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => CoreError::Missing {
            path: path.to_owned(),
        },
        _ => CoreError::Unreadable {
            path: path.to_owned(),
            source,
        },
    };
    let file = if path == Path::new("-") {
        File::from(
            io::stdin()
                .as_fd()
                .try_clone_to_owned()
                .map_err(unreadable)?,
        )
    } else {
        File::open(path).map_err(unreadable)?
    };
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(CoreError::NotAFile {
            path: path.to_owned(),
        });
    }
    if !metadata.is_file() {
        return unpack(path, BufReader::new(file), options);
    }
    let mapping = Mapping::of(&file).map_err(unreadable)?;
    if is_packed(mapping.bytes()) {
        return unpack(path, Cursor::new(mapping.bytes()), options);
    }
    Ok(Input {
        view: FileView::whole(Arc::new(mapping)),
        diagnostics: Vec::new(),
    })
}

/// Reads a stream to its end into a file without a name, unpacking it.
fn unpack(
    path: &Path,
    mut packed: impl BufRead + Send,
    options: &OpenOptions,
) -> Result<Input, CoreError> {
    let unreadable = |source| CoreError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let mut start = [0; 8];
    let count = read_full(&mut packed, &mut start).map_err(|(_, source)| unreadable(source))?;
    let start = start.get(..count).unwrap_or(&[]);
    let packing = Packing::of(start);
    if packing == Packing::None && !start.starts_with(&object::elf::ELFMAG) {
        // Do not copy an endless stream to find out that it is no core.
        return Err(super::headers::not_elf(path, start));
    }
    let temporary = |source| CoreError::Temporary {
        path: path.to_owned(),
        dir: options.temporary_dir.clone(),
        source,
    };
    let file = tempfile::tempfile_in(&options.temporary_dir).map_err(temporary)?;
    let mut reader = packing
        .reader(Cursor::new(start).chain(packed))
        .map_err(unreadable)?;
    let magic = magic_of(&mut reader, path)?;
    let bounds = Bounds {
        bytes: options.max_unpacked_bytes.unwrap_or(u64::MAX),
        written: room_in(&file).map_err(temporary)?,
    };
    let copied =
        copy_sparse(&mut Cursor::new(magic).chain(reader), &file, &bounds).map_err(temporary)?;
    let mut diagnostics = Vec::new();
    match copied.stopped {
        Some(source) => diagnostics.push(format!(
            "the packed core could be read only up to byte {}: {source}",
            copied.bytes
        )),
        None => match copied.over {
            Some(Bound::Bytes) => diagnostics.push(format!(
                "unpacking stopped at the limit of {} bytes (--max-unpacked); the rest counts as cut off",
                bounds.bytes
            )),
            Some(Bound::Written) => diagnostics.push(format!(
                "unpacking stopped after {} bytes, so that {} does not fill up; the rest counts as cut off: name another --tmpdir",
                copied.bytes,
                options.temporary_dir.display()
            )),
            None => {}
        },
    }
    let mapping = Mapping::of(&file).map_err(temporary)?;
    Ok(Input {
        view: FileView::whole(Arc::new(mapping)),
        diagnostics,
    })
}

/// The first bytes of what is packed, if it is an ELF file: nothing else is worth a file of its own.
fn magic_of(reader: &mut impl Read, path: &Path) -> Result<[u8; 4], CoreError> {
    let mut magic = [0; object::elf::ELFMAG.len()];
    let count = read_full(reader, &mut magic).map_err(|(_, source)| CoreError::Unpack {
        path: path.to_owned(),
        source,
    })?;
    if magic == object::elf::ELFMAG {
        return Ok(magic);
    }
    let mut sample = magic.get(..count).unwrap_or(&[]).to_vec();
    let mut more = [0; 512];
    let count = match read_full(reader, &mut more) {
        Ok(count) | Err((count, _)) => count,
    };
    sample.extend_from_slice(more.get(..count).unwrap_or(&[]));
    Err(super::headers::not_elf(path, &sample))
}

/// Bytes that may be written to the file's file system.
fn room_in(file: &File) -> io::Result<u64> {
    let system = rustix::fs::fstatvfs(file)?;
    let bytes = |blocks: u64| blocks.saturating_mul(system.f_frsize);
    let kept = LEFT_FREE_BYTES.min(bytes(system.f_blocks) / SHARE_LEFT_FREE);
    Ok(bytes(system.f_bavail).saturating_sub(kept))
}

/// How much a copy may be.
pub(super) struct Bounds {
    /// Bytes of the copy, holes included.
    pub bytes: u64,
    /// Bytes on the disk, up to two buffers more.
    pub written: u64,
}

impl Bounds {
    /// None at all.
    #[cfg(test)]
    pub const NONE: Bounds = Bounds {
        bytes: u64::MAX,
        written: u64::MAX,
    };
}

/// Which of [`Bounds`] ended a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bound {
    Bytes,
    Written,
}

/// How a copy ended.
pub(super) struct Copied {
    pub bytes: u64,
    pub over: Option<Bound>,
    stopped: Option<io::Error>,
}

/// A piece of a copy: its bytes, where they belong, and how many of them.
struct Piece {
    buffer: Vec<u8>,
    at: u64,
    kept: usize,
}

/// Copies what the bounds allow, leaving holes for pages of zeros. An error of the reader ends the copy and stands in the
/// answer; an error of the writer is an error.
///
/// One thread reads, which is where a packed file is decoded, beside another that writes. They pass two buffers to and fro, so that
/// what is known to be written does not depend on which of them is faster.
pub(super) fn copy_sparse(
    reader: &mut impl Read,
    file: &File,
    bounds: &Bounds,
) -> io::Result<Copied> {
    let mut copied = Copied {
        bytes: 0,
        over: None,
        stopped: None,
    };
    let (full, pieces) = mpsc::channel::<Piece>();
    let (empty, buffers) = mpsc::channel::<(Vec<u8>, u64)>();
    for _ in 0..2 {
        let _ = empty.send((vec![0u8; BUFFER_BYTES], 0)); // `buffers` is here
    }
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || -> io::Result<()> {
            let mut written = 0u64;
            for piece in pieces {
                let bytes = piece.buffer.get(..piece.kept).unwrap_or(&[]);
                written = written.saturating_add(write_sparse(file, bytes, piece.at)?);
                let _ = empty.send((piece.buffer, written)); // nobody waits for the last ones
            }
            Ok(())
        });
        while copied.stopped.is_none() && copied.over.is_none() {
            let Ok((mut buffer, written)) = buffers.recv() else {
                break; // the writer has failed
            };
            let count = match read_full(reader, &mut buffer) {
                Ok(count) => count,
                Err((count, error)) => {
                    copied.stopped = Some(error);
                    count
                }
            };
            if count == 0 {
                break;
            }
            if written >= bounds.written {
                copied.over = Some(Bound::Written);
                break;
            }
            let room = bounds.bytes.saturating_sub(copied.bytes);
            let kept = usize::try_from(room).map_or(count, |room| room.min(count));
            copied.over = (kept < count).then_some(Bound::Bytes);
            let at = copied.bytes;
            if full.send(Piece { buffer, at, kept }).is_err() {
                break;
            }
            copied.bytes = copied.bytes.saturating_add(kept as u64);
        }
        drop(full);
        match writer.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })?;
    file.set_len(copied.bytes)?;
    Ok(copied)
}

/// Writes the pages of `bytes` that are not all zero, in runs, and counts their bytes.
fn write_sparse(file: &File, bytes: &[u8], mut at: u64) -> io::Result<u64> {
    let mut written = 0u64;
    let is_zero = |piece: &[u8]| piece.iter().fold(0, |all, byte| all | byte) == 0;
    let is_hole = |page: &[u8]| page.chunks(128).all(is_zero);
    let mut rest = bytes;
    while !rest.is_empty() {
        let holes = rest
            .chunks(HOLE_BYTES)
            .take_while(|page| is_hole(page))
            .map(<[u8]>::len)
            .sum();
        let (_, after) = rest.split_at_checked(holes).unwrap_or((rest, &[]));
        let filled = after
            .chunks(HOLE_BYTES)
            .take_while(|page| !is_hole(page))
            .map(<[u8]>::len)
            .sum();
        let (run, after) = after.split_at_checked(filled).unwrap_or((after, &[]));
        at = at.saturating_add(holes as u64);
        file.write_all_at(run, at)?;
        written = written.saturating_add(run.len() as u64);
        at = at.saturating_add(filled as u64);
        rest = after;
    }
    Ok(written)
}

/// Reads until `buffer` is full or the stream ends. An error comes with the bytes read before it.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest) {
            Ok(0) => break,
            Ok(count) => done = done.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(done)
}

/// An lz4 file may be several frames; the decoder ends at each.
struct Lz4Frames<R: BufRead>(lz4_flex::frame::FrameDecoder<R>);

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let count = self.0.read(out)?;
            if count > 0 || self.0.get_mut().fill_buf()?.is_empty() {
                return Ok(count);
            }
        }
    }
}
