//! The core file: its segments, its notes, and the dead process's memory made of them.
//!
//! ```text
//! path, "-" or compressed ──> Mapping ──> headers ──> notes ──> CoreFile      facts of the dump
//!                                            └──────> regions ─> AddressSpace  the memory, as TargetMemory
//! ```
//!
//! A core that is cut off anywhere after its program headers is not an error: what is missing reads as
//! [`Fault::Truncated`](heaps::target::Fault::Truncated). Every note is optional. Only what leaves nothing to analyse
//! is a [`CoreError`].

mod error;
mod mapping;
mod process;
mod space;

use std::path::{Path, PathBuf};

pub use error::CoreError;
pub use mapping::{FileView, Mapping};
pub use process::{MappedFile, Process, SignalInfo};
pub use space::{AddressSpace, Backing};

use crate::arch::ArchInfo;
use heaps::target::{Abi, Thread};

/// How a core is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Most bytes that a compressed core may unpack to; what lies beyond counts as cut off. `None`: no limit.
    pub max_unpacked_bytes: Option<u64>,
    /// Where a core that is compressed or comes through a pipe is unpacked, in a file without a name.
    pub temporary_dir: PathBuf,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            max_unpacked_bytes: None,
            temporary_dir: PathBuf::from("/var/tmp"),
        }
    }
}

/// An opened core file and what its notes say.
#[derive(Debug)]
pub struct CoreFile {
    path: PathBuf,
    arch: &'static ArchInfo,
    abi: Abi,
    threads: Vec<Thread>,
    process: Process,
    signal: Option<SignalInfo>,
    auxv: Vec<(u64, u64)>,
    files: Vec<MappedFile>,
    file_bytes: u64,
    expected_bytes: u64,
    diagnostics: Vec<String>,
}

impl CoreFile {
    /// Opens the core at `path`, or on standard input if `path` is `-`, unpacking it if it is compressed.
    ///
    /// # Errors
    /// If there is nothing to analyse: no such file, not an ELF core, another machine, cut off inside its headers.
    pub fn open(path: &Path) -> Result<CoreFile, CoreError> {
        Self::open_with(path, &OpenOptions::default())
    }

    /// [`open`](Self::open) with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(path: &Path, _options: &OpenOptions) -> Result<CoreFile, CoreError> {
        Err(CoreError::Missing {
            path: path.to_owned(),
        })
    }

    /// The path it was opened by; `-` for standard input.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture of the dead process.
    pub fn arch(&self) -> &'static ArchInfo {
        self.arch
    }

    /// Byte order, pointer width, page size of the dead process.
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// Its threads, the crashing one first where the core tells.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// What `NT_PRPSINFO` says about the process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<SignalInfo> {
        self.signal
    }

    /// A value of the auxiliary vector, by its `AT_` number.
    pub fn auxv(&self, tag: u64) -> Option<u64> {
        self.auxv
            .iter()
            .find(|(found, _)| *found == tag)
            .map(|(_, value)| *value)
    }

    /// The file mappings of `NT_FILE`, sorted by address.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// Size in bytes of the core, unpacked.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Size in bytes that its program headers promise.
    pub fn expected_bytes(&self) -> u64 {
        self.expected_bytes
    }

    /// Whether the file ends before what its program headers promise.
    pub fn truncated(&self) -> bool {
        self.file_bytes < self.expected_bytes
    }

    /// What was odd while reading it, one sentence each.
    pub fn diagnostics(&self) -> &[String] {
        &self.diagnostics
    }
}
