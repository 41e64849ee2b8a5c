//! The modules of the dead process: what was mapped where, and which files here are those files.
//!
//! A file is used only if its build ID is the one that the core's memory holds. Where the core holds none, a file that the
//! user named (the binary, or one under `--sysroot`) is used and marked unverified. An ID that differs is never used.

mod file;
mod search;

pub use file::{ModuleFile, ProgramHeader};
pub use search::{DebugFile, SearchPaths};

use heaps::target::{Address, Module, ModuleId};

use crate::corefile::{AddressSpace, Backing, CoreFile};

/// A file that was found for a module but not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The module.
    pub module: ModuleId,
    /// The file.
    pub path: std::path::PathBuf,
    /// Why, as the end of a sentence.
    pub why: String,
    /// Its build ID where that is why.
    pub build_id: Option<Vec<u8>>,
}

/// The modules, and the files found for them.
#[derive(Debug, Default)]
pub struct ModuleSet {
    modules: Vec<Module>,
    files: Vec<Option<ModuleFile>>,
    headers: Vec<Vec<ProgramHeader>>,
    refused: Vec<Refused>,
    diagnostics: Vec<String>,
}

impl ModuleSet {
    /// Finds the modules in the core, and their files.
    pub fn discover(_core: &CoreFile, _memory: &AddressSpace, _search: &SearchPaths) -> Self {
        Self::default()
    }

    /// The modules, sorted by address; a module's id is its index.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The module with this id.
    pub fn module(&self, id: ModuleId) -> Option<&Module> {
        self.modules.get(usize::try_from(id.0).ok()?)
    }

    /// The module that `at` lies in.
    pub fn module_at(&self, at: Address) -> Option<&Module> {
        let after = self
            .modules
            .partition_point(|module| module.range.start <= at);
        self.modules
            .get(after.checked_sub(1)?)
            .filter(|module| at < module.range.end)
    }

    /// The main executable.
    pub fn executable(&self) -> Option<&Module> {
        self.modules.iter().find(|module| module.is_executable)
    }

    /// The file of a module, if one was found. For the vDSO it is the image in the core.
    pub fn file(&self, id: ModuleId) -> Option<&ModuleFile> {
        self.files.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    /// Program headers of a module, at link addresses; from the core's memory, else from its file.
    pub fn program_headers(&self, id: ModuleId) -> &[ProgramHeader] {
        usize::try_from(id.0)
            .ok()
            .and_then(|index| self.headers.get(index))
            .map_or(&[], Vec::as_slice)
    }

    /// Files that were found but not used, in order of modules.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Modules whose file could not be checked by a build ID.
    pub fn unverified(&self) -> impl Iterator<Item = (&Module, &ModuleFile)> {
        self.modules
            .iter()
            .zip(&self.files)
            .filter_map(|(module, file)| Some((module, file.as_ref()?)))
            .filter(|(_, file)| !file.verified)
    }

    /// What was odd, one sentence each.
    pub fn diagnostics(&self) -> &[String] {
        &self.diagnostics
    }

    /// What the files hold of the process's memory, for [`AddressSpace::add_backing`].
    pub fn backing(&self) -> Vec<Backing> {
        Vec::new()
    }
}
