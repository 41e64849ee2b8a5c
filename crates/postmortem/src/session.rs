//! Opens everything once, owns it, lends a [`Target`].

mod environment;
mod limits;
mod roles;
mod vectors;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ground::target::{
    Address, Environment, LocateLimit, LocatedBy, MemoryExt, Target, Thread, Threads,
};

use crate::corefile::{
    AddressSpace, CoreError, CoreFile, MappedFile, OpenOptions, Process, SignalInfo,
};
use crate::debuginfo::DebugInfo;
use crate::modules::{ModuleSet, SearchPaths};
use crate::unwind::Unwinder;
use ground::arch::{ArchInfo, SystemCall};

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

impl SessionOptions {
    /// A core, and perhaps the program that died, with the files of its modules where the core says they were.
    pub fn of<P: Into<PathBuf>>(files: impl IntoIterator<Item = P>) -> Self {
        Self {
            files: files.into_iter().map(Into::into).collect(),
            search: SearchPaths::default(),
            limit: LocateLimit(LocatedBy::DebugInfo),
            jobs: None,
            open: OpenOptions::default(),
        }
    }
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
    /// More files than a core and its binary.
    #[error("{count} files were named; a core and its binary are all that is read at once")]
    TooManyFiles {
        /// How many.
        count: usize,
    },
    /// Both files are cores.
    #[error("{} and {} are both core files; name one and its binary", first.display(), second.display())]
    TwoCores {
        /// The one.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The binary cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
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
    /// When the file was last written to, since the epoch; `None` for standard input.
    pub written: Option<Duration>,
}

/// What a thread was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadState {
    /// It was on its own code.
    Running,
    /// It was in the system call with this number.
    InSystemCall(u64),
}

/// An opened core with everything that belongs to it.
pub struct Session {
    core: CoreFile,
    memory: Arc<AddressSpace>,
    modules: Arc<ModuleSet>,
    search: Arc<SearchPaths>,
    debug: Arc<DebugInfo>,
    threads: Unwinder,
    environment: Environment,
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
        let files = roles::assign(&options.files)?;
        let core = CoreFile::open_with(&files.core, &options.open)?;
        let mut search = options.search.clone();
        let mut diagnostics = core.diagnostics().to_vec();
        match files.binary {
            Some(path) if files.binary_is_usable => search.binary = Some(path),
            Some(path) => diagnostics.push(format!(
                "{} is not used: it is no ELF executable",
                path.display()
            )),
            None => {}
        }
        let mut memory = AddressSpace::new(&core);
        let modules = ModuleSet::discover(&core, &memory, &search);
        memory.add_backing(modules.backing());
        diagnostics.extend(limits::refused(&modules));
        diagnostics.extend_from_slice(modules.diagnostics());
        let (memory, modules) = (Arc::new(memory), Arc::new(modules));
        let search = Arc::new(search);
        let debug = Arc::new(DebugInfo::new(
            Arc::clone(&modules),
            Arc::clone(&search),
            options.limit,
        ));
        Ok(Session {
            limits: limits::of_core(&core, &memory, &modules),
            environment: environment::find(&core, &memory).unwrap_or_default(),
            threads: unwinder(&core, &memory, &modules, &debug),
            core,
            memory,
            modules,
            search,
            debug,
            limit: options.limit,
            jobs: options.jobs,
            diagnostics,
        })
    }

    /// Opens the same core again, whose memory and registers have been rewritten since, but not its mappings: what is known of
    /// modules and their files is kept. For the image of a living process.
    ///
    /// # Errors
    /// If the core is unusable now.
    pub fn reopened(self) -> Result<Session, SessionError> {
        let core = CoreFile::open(self.core.path())?;
        let mut memory = AddressSpace::new(&core);
        memory.add_backing(self.modules.backing());
        let memory = Arc::new(memory);
        Ok(Session {
            threads: unwinder(&core, &memory, &self.modules, &self.debug),
            core,
            memory,
            ..self
        })
    }

    /// Everything a walker may know.
    pub fn target(&self) -> Target<'_> {
        Target {
            memory: self.memory.as_ref(),
            modules: self.modules.modules(),
            symbols: self.debug.as_ref(),
            types: self.debug.as_ref(),
            threads: &self.threads,
            environment: self.environment,
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
            written: std::fs::metadata(self.core.path())
                .and_then(|it| it.modified())
                .ok()
                .and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()),
        }
    }

    /// The architecture of the dead process.
    pub fn arch(&self) -> &'static ArchInfo {
        self.core.arch()
    }

    /// A value of the auxiliary vector (`corefile::auxv`), which the kernel gave the program.
    pub fn auxv(&self, tag: u64) -> Option<u64> {
        self.core.auxv(tag)
    }

    /// The dead process's memory.
    pub fn memory(&self) -> &AddressSpace {
        &self.memory
    }

    /// The file that the kernel names for the mapping at `at`; shared memory without a file has names, too.
    pub fn mapped_file(&self, at: Address) -> Option<&MappedFile> {
        let files = self.core.files();
        let after = files.partition_point(|file| file.start <= at);
        let file = files.get(after.checked_sub(1)?)?;
        (at < file.end).then_some(file)
    }

    /// What the core says about the process.
    pub fn process(&self) -> &Process {
        self.core.process()
    }

    /// The signal that killed it; `None` for the image of a living process.
    pub fn signal(&self) -> Option<SignalInfo> {
        self.core.signal()
    }

    /// What a thread was doing, where the core tells.
    pub fn thread_state(&self, thread: &Thread) -> Option<ThreadState> {
        let call = match self.arch().system_call {
            SystemCall::Word(_) => self.core.system_call(thread.tid),
            SystemCall::Behind(register, code) => {
                let before = thread.pc.checked_sub(code.len() as u64)?;
                let found: [u8; 4] = self.memory.read_bytes(before).ok()?;
                thread.registers.get(register).filter(|_| found == code)
            }
        };
        Some(call.map_or(ThreadState::Running, ThreadState::InSystemCall))
    }

    /// Words of the vector registers of the thread at this index that are not zero, each with the register's name and which
    /// of its words it is.
    pub fn vector_words(&self, index: usize) -> Vec<(String, u64)> {
        vectors::words(
            self.arch().instruction_set,
            self.core.fp_registers(index),
            self.core.extended_state(index),
        )
    }

    /// Its threads, the crashing one first.
    pub fn threads(&self) -> &dyn Threads {
        &self.threads
    }

    /// Its threads with what only the unwinder knows of their stacks.
    pub fn unwinder(&self) -> &Unwinder {
        &self.threads
    }

    /// Its modules, with the files found for them.
    pub fn modules(&self) -> &ModuleSet {
        &self.modules
    }

    /// Its symbols, types and lines.
    pub fn debug_info(&self) -> &DebugInfo {
        &self.debug
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

fn unwinder(
    core: &CoreFile,
    memory: &Arc<AddressSpace>,
    modules: &Arc<ModuleSet>,
    debug: &Arc<DebugInfo>,
) -> Unwinder {
    Unwinder::new(
        Arc::clone(memory),
        Arc::clone(modules),
        core.threads().to_vec(),
        core.arch(),
    )
    .with_code_mask(core.code_mask())
    .with_signal(core.signal())
    .with_forked(core.process().forked)
    .with_debug_info(Arc::clone(debug))
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("core", &self.core.path())
            .finish_non_exhaustive()
    }
}
