//! Opens everything once, owns it, lends a [`Target`].

use std::path::PathBuf;
use std::sync::Arc;

use heaps::target::{
    Frame, LocateLimit, ModuleId, StructLayout, Symbol, SymbolTable, Target, Thread, Threads,
    TypeCatalog, Variable,
};

use crate::arch::ArchInfo;
use crate::corefile::{AddressSpace, CoreError, CoreFile, OpenOptions, Process, SignalInfo};
use crate::modules::{ModuleSet, SearchPaths};

/// What to open, and how.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The core and perhaps the binary, in any order: told by their ELF type.
    pub files: Vec<PathBuf>,
    /// Where to look for the files of modules and their debug files. `binary` is set from `files`.
    pub search: SearchPaths,
    /// The best way of finding allocator state that this run permits.
    pub limit: LocateLimit,
    /// Threads to work with; `None`: as many as the machine has.
    pub jobs: Option<usize>,
    /// How the core is opened.
    pub open: OpenOptions,
}

/// Why nothing can be analysed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The core is unusable.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// No file was named.
    #[error("no core file was named")]
    NoCore,
}

/// What was not checked, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What: a noun phrase.
    pub what: String,
    /// Why, and what to change so that it is there next time.
    pub why: String,
    /// The heap was not wholly analysed because of it (exit status 3).
    pub incomplete: bool,
}

/// The core file as such.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreInfo {
    /// The path it was opened by.
    pub path: PathBuf,
    /// Size in bytes, unpacked.
    pub bytes: u64,
    /// Size in bytes that its program headers promise.
    pub expected_bytes: u64,
    /// Whether it ends before that.
    pub truncated: bool,
}

/// An opened core with everything that belongs to it.
pub struct Session {
    core: CoreFile,
    memory: Arc<AddressSpace>,
    modules: Arc<ModuleSet>,
    search: Arc<SearchPaths>,
    debug: NoDebugInfo,
    threads: BareThreads,
    limit: LocateLimit,
    jobs: Option<usize>,
    diagnostics: Vec<String>,
    limits: Vec<Limit>,
}

impl Session {
    /// Opens the core, finds the modules and their files.
    ///
    /// # Errors
    /// If there is nothing to analyse.
    pub fn open(options: &SessionOptions) -> Result<Session, SessionError> {
        let core = options.files.first().ok_or(SessionError::NoCore)?;
        let core = CoreFile::open_with(core, &options.open)?;
        let search = Arc::new(options.search.clone());
        let mut memory = AddressSpace::new(&core);
        let modules = ModuleSet::discover(&core, &memory, &search);
        memory.add_backing(modules.backing());
        Ok(Session {
            threads: BareThreads::new(core.threads()),
            core,
            memory: Arc::new(memory),
            modules: Arc::new(modules),
            search,
            debug: NoDebugInfo,
            limit: options.limit,
            jobs: options.jobs,
            diagnostics: Vec::new(),
            limits: Vec::new(),
        })
    }

    /// Everything a walker may know.
    pub fn target(&self) -> Target<'_> {
        Target {
            memory: self.memory.as_ref(),
            modules: self.modules.modules(),
            symbols: &self.debug,
            types: &self.debug,
            threads: &self.threads,
            limit: self.limit,
        }
    }

    /// The core file as such.
    pub fn core_info(&self) -> CoreInfo {
        CoreInfo {
            path: self.core.path().to_owned(),
            bytes: self.core.file_bytes(),
            expected_bytes: self.core.expected_bytes(),
            truncated: self.core.truncated(),
        }
    }

    /// The architecture of the dead process.
    pub fn arch(&self) -> &'static ArchInfo {
        self.core.arch()
    }

    /// The dead process's memory.
    pub fn memory(&self) -> &AddressSpace {
        &self.memory
    }

    /// What the core says about the process.
    pub fn process(&self) -> &Process {
        self.core.process()
    }

    /// The signal that killed it.
    pub fn signal(&self) -> Option<SignalInfo> {
        self.core.signal()
    }

    /// Its threads, the crashing one first.
    pub fn threads(&self) -> &dyn Threads {
        &self.threads
    }

    /// Its modules, with the files found for them.
    pub fn modules(&self) -> &ModuleSet {
        &self.modules
    }

    /// Where files are looked for.
    pub fn search(&self) -> &SearchPaths {
        &self.search
    }

    /// Threads to work with.
    pub fn jobs(&self) -> Option<usize> {
        self.jobs
    }

    /// Warnings, one sentence each.
    pub fn diagnostics(&self) -> &[String] {
        &self.diagnostics
    }

    /// What cannot be checked in this core, and why.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

/// Stands in until `debuginfo` is there.
struct NoDebugInfo;

impl SymbolTable for NoDebugInfo {
    fn symbol(&self, _module: ModuleId, _name: &str) -> Option<Symbol> {
        None
    }
}

impl TypeCatalog for NoDebugInfo {
    fn layout(&self, _module: ModuleId, _name: &str) -> Option<StructLayout> {
        None
    }

    fn variable(&self, _module: ModuleId, _name: &str) -> Option<Variable> {
        None
    }
}

/// Stands in until `unwind` is there: one frame per thread.
struct BareThreads {
    threads: Vec<Thread>,
    frames: Vec<Frame>,
}

impl BareThreads {
    fn new(threads: &[Thread]) -> Self {
        let frames = threads.iter().map(|thread| Frame {
            pc: thread.pc,
            lookup: thread.pc,
            sp: thread.sp,
            module: None,
            trust: heaps::target::FrameTrust::Context,
            interrupted: false,
            function: None,
            registers: thread.registers,
        });
        Self {
            frames: frames.collect(),
            threads: threads.to_vec(),
        }
    }
}

impl Threads for BareThreads {
    fn list(&self) -> &[Thread] {
        &self.threads
    }

    fn frames(&self, index: usize) -> &[Frame] {
        self.frames.get(index..=index).unwrap_or(&[])
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("core", &self.core.path())
            .finish_non_exhaustive()
    }
}
