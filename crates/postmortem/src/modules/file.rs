//! The file of a module.

use std::path::PathBuf;

use crate::corefile::FileView;

/// A module's file, mapped.
#[derive(Clone, Debug)]
pub struct ModuleFile {
    /// Where it was found here; for the vDSO its name.
    pub path: PathBuf,
    /// Its build ID is the one in the core, or it is the vDSO's image in the core itself.
    pub verified: bool,
    view: FileView,
}

impl ModuleFile {
    pub(super) fn new(path: PathBuf, verified: bool, view: FileView) -> Self {
        Self {
            path,
            verified,
            view,
        }
    }

    /// Its bytes, all of them.
    pub fn data(&self) -> &[u8] {
        self.view.bytes()
    }

    pub(super) fn view(&self) -> &FileView {
        &self.view
    }
}

/// A program header, numbers as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramHeader {
    /// `p_type`.
    pub kind: u32,
    /// `p_flags`: 1 execute, 2 write, 4 read.
    pub flags: u32,
    /// `p_offset`, in bytes.
    pub offset: u64,
    /// `p_vaddr`: a link address.
    pub address: u64,
    /// `p_filesz`, in bytes.
    pub file_bytes: u64,
    /// `p_memsz`, in bytes.
    pub memory_bytes: u64,
    /// `p_align`, in bytes.
    pub align: u64,
}
