//! Why a core leaves nothing to analyse.

use std::io;
use std::path::PathBuf;

/// Why a core leaves nothing to analyse. Each is one line for the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// There is no such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A directory, a device.
    #[error("{}: not a file", path.display())]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It has no bytes.
    #[error("{}: the file is empty", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// No ELF file at all.
    #[error("{}: not a core file: {what}, not ELF", path.display())]
    NotElf {
        /// The file.
        path: PathBuf,
        /// What it looks like: `a text file`, `data`.
        what: &'static str,
    },
    /// An ELF file, but no core.
    #[error("{}: not a core file but {what}", path.display())]
    NotCore {
        /// The file.
        path: PathBuf,
        /// What it is: `an executable`, `a shared object`.
        what: &'static str,
    },
    /// A 32-bit core.
    #[error("{}: a 32-bit core; only 64-bit ones are read", path.display())]
    Class32 {
        /// The file.
        path: PathBuf,
    },
    /// A core of another machine or system.
    #[error("{}: a core of {machine}; only {supported} is read", path.display())]
    ForeignMachine {
        /// The file.
        path: PathBuf,
        /// Its machine: `PowerPC64 (big-endian)`, `machine 243`.
        machine: String,
        /// What is read.
        supported: String,
    },
    /// Cut off, or damaged, before anything can be known.
    #[error("{}: the file ends inside its {part} ({bytes} bytes; {needed} needed)", path.display())]
    HeadersCut {
        /// The file.
        path: PathBuf,
        /// `ELF header`, `program headers`.
        part: &'static str,
        /// Size of the file.
        bytes: u64,
        /// The size at least needed.
        needed: u64,
    },
    /// A header contradicts itself.
    #[error("{}: damaged ELF header: {what}", path.display())]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// Compressed, but nothing could be unpacked.
    #[error("{}: cannot be unpacked: {source}", path.display())]
    Unpack {
        /// The file.
        path: PathBuf,
        /// What the decoder says.
        source: io::Error,
    },
    /// The temporary file cannot be made or written.
    #[error("{}: no room to unpack it in {}: {source}", path.display(), dir.display())]
    Temporary {
        /// The core.
        path: PathBuf,
        /// The directory of the temporary file.
        dir: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}
