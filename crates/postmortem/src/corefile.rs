//! The core file: its segments, its notes, and the dead process's memory made of them.
//!
//! ```text
//! path, "-" or compressed ──> Mapping ──> headers ──> notes ──> CoreFile      facts of the dump
//!                                            └──────> regions ─> AddressSpace  the memory, as TargetMemory
//! ```
//!
//! A core that is cut off anywhere after its program headers is not an error: what is missing reads as
//! [`Fault::Truncated`](ground::target::Fault::Truncated). Every note is optional. Only what leaves nothing to analyse
//! is a [`CoreError`].

mod error;
mod headers;
mod input;
mod mapping;
mod notes;
mod process;
mod regions;
mod space;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};

pub use error::CoreError;
pub use input::is_packed;
pub use mapping::{FileView, Mapping};
pub use process::{MappedFile, Process, SignalInfo};
pub use space::{AddressSpace, Backing};

use ground::target::{Abi, Thread};

use self::headers::Segment;
use ground::arch::ArchInfo;

/// Tags of the auxiliary vector (include/uapi/linux/auxvec.h), for [`CoreFile::auxv`].
pub mod auxv {
    /// Address of the executable's program headers.
    pub const AT_PHDR: u64 = 3;
    /// Their number.
    pub const AT_PHNUM: u64 = 5;
    /// Bytes of a page.
    pub const AT_PAGESZ: u64 = 6;
    /// Base address of the dynamic linker; 0 where there is none.
    pub const AT_BASE: u64 = 7;
    /// Entry point of the executable.
    pub const AT_ENTRY: u64 = 9;
    /// Address of 16 random bytes.
    pub const AT_RANDOM: u64 = 25;
    /// Address of the executable's path, a string.
    pub const AT_EXECFN: u64 = 31;
    /// Address of the vDSO.
    pub const AT_SYSINFO_EHDR: u64 = 33;
}

/// Page sizes that Linux has; another one is damage.
const PAGE_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 20;

/// How a core is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Most bytes that a compressed core may unpack to; what lies beyond counts as cut off. `None`: until the
    /// file system of the folder for temporary files is almost full.
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
    view: FileView,
    arch: &'static ArchInfo,
    page_bytes: u64,
    segments: Vec<Segment>,
    threads: Vec<Thread>,
    fp_registers: Vec<Option<Range<usize>>>,
    extended: Vec<Option<Range<usize>>>,
    code_mask: Option<u64>,
    process: Process,
    signal: Option<SignalInfo>,
    auxv: Vec<(u64, u64)>,
    files: Vec<MappedFile>,
    expected_bytes: u64,
    notes_are_damaged: bool,
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
    pub fn open_with(path: &Path, options: &OpenOptions) -> Result<CoreFile, CoreError> {
        let input = input::open(path, options)?;
        Self::parse(path, input.view, input.diagnostics)
    }

    /// Reads headers and notes of a core that is already mapped.
    fn parse(
        path: &Path,
        view: FileView,
        mut diagnostics: Vec<String>,
    ) -> Result<CoreFile, CoreError> {
        let mut headers = headers::parse(view.bytes(), path)?;
        let mut notes = notes::parse(view.bytes(), &headers);
        diagnostics.append(&mut headers.diagnostics);
        diagnostics.append(&mut notes.diagnostics);
        let page_size = |(tag, value): &(u64, u64)| (*tag == auxv::AT_PAGESZ).then_some(*value);
        let page_bytes = notes
            .auxv
            .iter()
            .find_map(page_size)
            .or(notes.file_page_bytes)
            .filter(|bytes| bytes.is_power_of_two() && PAGE_BYTES.contains(bytes))
            .unwrap_or(headers.arch.default_page_bytes);
        Ok(CoreFile {
            path: path.to_owned(),
            view,
            arch: headers.arch,
            page_bytes,
            segments: headers.segments,
            threads: notes.threads,
            fp_registers: notes.fp_registers,
            extended: notes.extended,
            code_mask: notes.code_mask,
            process: notes.process,
            signal: notes.signal,
            auxv: notes.auxv,
            files: notes.files,
            expected_bytes: headers.expected_bytes,
            notes_are_damaged: notes.is_damaged,
            diagnostics,
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
        Abi {
            pointer_bytes: self.arch.pointer_bytes,
            little_endian: self.arch.little_endian,
            page_bytes: self.page_bytes,
        }
    }

    /// Its threads, the crashing one first where the core tells.
    pub fn threads(&self) -> &[Thread] {
        &self.threads
    }

    /// The floating-point registers of the thread at this index, as `NT_FPREGSET` has them.
    pub fn fp_registers(&self, index: usize) -> Option<&[u8]> {
        let range = self.fp_registers.get(index)?.clone()?;
        self.view.bytes().get(range)
    }

    /// The extended state of the thread at this index, as `NT_X86_XSTATE` has it: wider vector registers behind the older ones.
    pub fn extended_state(&self, index: usize) -> Option<&[u8]> {
        let range = self.extended.get(index)?.clone()?;
        self.view.bytes().get(range)
    }

    /// The number of the system call that a thread is in, where its status says.
    pub fn system_call(&self, tid: u32) -> Option<u64> {
        let thread = self.threads.iter().find(|thread| thread.tid == tid)?;
        thread.system_call
    }

    /// The bits of an address of code; pointers that are authenticated have a signature in others.
    pub fn code_mask(&self) -> u64 {
        self.code_mask.unwrap_or(self.arch.code_mask)
    }

    /// What `NT_PRPSINFO` says about the process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The signal that killed it; `None` for the image of a living process.
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

    /// The auxiliary vector, in its order: tag and value.
    pub fn auxiliary(&self) -> &[(u64, u64)] {
        &self.auxv
    }

    /// The file mappings of `NT_FILE`, sorted by address.
    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    /// Size in bytes of the core, unpacked.
    pub fn file_bytes(&self) -> u64 {
        self.view.bytes().len() as u64
    }

    /// Size in bytes that its program headers promise.
    pub fn expected_bytes(&self) -> u64 {
        self.expected_bytes
    }

    /// Whether the file ends before what its program headers promise.
    pub fn truncated(&self) -> bool {
        self.file_bytes() < self.expected_bytes
    }

    /// Whether notes were lost: threads, files or the signal may be missing.
    pub fn notes_are_damaged(&self) -> bool {
        self.notes_are_damaged
    }

    /// What was odd while reading it, one sentence each.
    pub fn diagnostics(&self) -> &[String] {
        &self.diagnostics
    }
}
