//! Modules, threads and names beside the memory.

use std::collections::BTreeMap;
use std::ops::Range;

use ground::arch::{ArchInfo, X86_64};
use ground::target::{
    Address, Environment, Frame, FrameTrust, LocateLimit, LocatedBy, Module, ModuleId,
    ModuleSegment, RegisterSet, StructLayout, Symbol, SymbolKind, SymbolTable, Target, Thread,
    Threads, TypeCatalog, Variable, is_fault,
};

use crate::FakeMemory;

/// A whole process.
#[derive(Clone)]
pub struct Process {
    /// Its memory.
    pub memory: FakeMemory,
    /// Its modules, sorted by address.
    pub modules: Vec<Module>,
    /// Its threads.
    pub threads: FakeThreads,
    /// Symbols of its modules.
    pub symbols: Symbols,
    /// What it was started with.
    pub environment: Environment,
    /// Which ways of finding state a walker may use.
    pub limit: LocateLimit,
}

impl Process {
    /// A process of memory only.
    pub fn new(memory: FakeMemory) -> Self {
        Self {
            memory,
            modules: Vec::new(),
            threads: FakeThreads::default(),
            symbols: Symbols::default(),
            environment: Environment::default(),
            limit: LocateLimit(LocatedBy::DebugInfo),
        }
    }

    /// What a walker is lent.
    pub fn target(&self) -> Target<'_> {
        Target {
            memory: &self.memory,
            modules: &self.modules,
            symbols: &self.symbols,
            types: &NoTypes,
            threads: &self.threads,
            environment: self.environment,
            limit: self.limit,
        }
    }
}

/// A module of segments, each with its permissions (any of `r`, `w`, `x`).
///
/// # Panics
/// Without segments.
pub fn module(id: u32, name: &str, segments: &[(Range<u64>, &str)]) -> Module {
    let segments: Vec<ModuleSegment> = segments
        .iter()
        .map(|(range, permissions)| ModuleSegment {
            range: Address::new(range.start)..Address::new(range.end),
            writable: permissions.contains('w'),
            executable: permissions.contains('x'),
        })
        .collect();
    let first = segments.first().expect("a segment").range.start;
    let end = segments.last().expect("a segment").range.end;
    Module {
        id: ModuleId(id),
        name: name.to_owned(),
        path: format!("/usr/lib/{name}"),
        range: first..end,
        bias: first.get(),
        segments,
        build_id: None,
        is_executable: false,
    }
}

/// A thread that stopped at `pc`, for reasons of its own.
pub fn thread(tid: u32, pc: u64, thread_pointer: u64) -> Thread {
    Thread {
        tid,
        name: None,
        pc: Address::new(pc),
        sp: Address::new(0),
        thread_pointer: Some(Address::new(thread_pointer)),
        registers: RegisterSet::empty(),
        signal: 0,
        system_call: None,
        blocked_signals: None,
    }
}

/// A frame at `pc`, with these registers by their DWARF numbers.
pub fn frame(pc: u64, registers: &[(u16, u64)]) -> Frame {
    let mut set = RegisterSet::empty();
    for (number, value) in registers {
        set.set(*number, *value);
    }
    Frame {
        pc: Address::new(pc),
        lookup: Address::new(pc),
        sp: Address::new(0),
        module: None,
        trust: FrameTrust::Context,
        interrupted: false,
        function: None,
        registers: set,
    }
}

/// Threads with frames that a test wrote.
#[derive(Clone, Default)]
pub struct FakeThreads {
    threads: Vec<Thread>,
    frames: Vec<Vec<Frame>>,
    sent: bool,
    forked: Option<bool>,
    arch: Option<&'static ArchInfo>,
}

impl FakeThreads {
    /// The processor, where it is not an x86-64.
    pub fn set_arch(&mut self, arch: &'static ArchInfo) {
        self.arch = Some(arch);
    }

    /// Adds a thread; its frames, innermost first.
    pub fn push(&mut self, thread: Thread, frames: Vec<Frame>) {
        self.threads.push(thread);
        self.frames.push(frames);
    }

    /// Sets the frames of a thread, innermost first.
    pub fn set_frames(&mut self, index: usize, frames: Vec<Frame>) {
        self.frames[index] = frames;
    }

    /// The fatal signal was sent by another process.
    pub fn killed_from_outside(&mut self) {
        self.sent = true;
    }

    /// Whether fork made the process.
    pub fn set_forked(&mut self, forked: Option<bool>) {
        self.forked = forked;
    }

    /// The thread at an index.
    pub fn thread_mut(&mut self, index: usize) -> &mut Thread {
        &mut self.threads[index]
    }
}

impl Threads for FakeThreads {
    fn list(&self) -> &[Thread] {
        &self.threads
    }

    fn frames(&self, index: usize) -> &[Frame] {
        self.frames.get(index).map_or(&[], Vec::as_slice)
    }

    fn forked(&self) -> Option<bool> {
        self.forked
    }

    fn arch(&self) -> &'static ArchInfo {
        self.arch.unwrap_or(&X86_64)
    }

    fn faulted(&self, index: usize) -> bool {
        let thread = self.threads.get(index);
        index == 0 && !self.sent && thread.is_some_and(|thread| is_fault(thread.signal))
    }
}

/// Symbols that a test named; none by default.
#[derive(Clone, Default)]
pub struct Symbols(BTreeMap<(ModuleId, String), Symbol>);

impl Symbols {
    /// Names a variable.
    pub fn object(&mut self, module: u32, name: &str, address: u64, size: u64) {
        let symbol = Symbol {
            address: Address::new(address),
            size,
            kind: SymbolKind::Object,
            dynamic_only: false,
        };
        self.0.insert((ModuleId(module), name.to_owned()), symbol);
    }
}

impl SymbolTable for Symbols {
    fn symbol(&self, module: ModuleId, name: &str) -> Option<Symbol> {
        self.0.get(&(module, name.to_owned())).cloned()
    }
}

/// No debug information.
pub struct NoTypes;

impl TypeCatalog for NoTypes {
    fn layout(&self, _module: ModuleId, _name: &str) -> Option<StructLayout> {
        None
    }

    fn variable(&self, _module: ModuleId, _name: &str) -> Option<Variable> {
        None
    }
}
