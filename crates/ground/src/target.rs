//! What a walker may know about the dead process: memory, modules, symbols, types, threads, environment.
//!
//! The traits here are implemented by `postmortem` over a core file and by a few lines of fake memory in tests.

mod address;
mod environment;
mod memory;
pub mod signals;
mod threads;
mod types;

pub use crate::arch::InstructionSet;
pub use address::Address;
pub use environment::{Environment, text_at};
pub use memory::{Abi, Cursor, Fault, MemoryExt, Region, RegionKind, Source, TargetMemory, Window};
pub use signals::is_fault;
pub use threads::{Frame, FrameTrust, RegisterSet, Thread, Threads};
pub use types::{
    Field, LocateLimit, LocatedBy, Module, ModuleId, ModuleSegment, StructLayout, Symbol,
    SymbolKind, SymbolTable, TypeCatalog, Variable,
};

/// Everything lent to a walker. Cheap to copy; all parts are shared and read-only.
#[derive(Clone, Copy)]
pub struct Target<'t> {
    /// The dead process's memory.
    pub memory: &'t dyn TargetMemory,
    /// The modules (executable and shared libraries), sorted by address.
    pub modules: &'t [Module],
    /// Symbols of each module, where a verified file has them.
    pub symbols: &'t dyn SymbolTable,
    /// Type layouts and variables of each module, where debug information has them.
    pub types: &'t dyn TypeCatalog,
    /// Threads with their registers and frames.
    pub threads: &'t dyn Threads,
    /// What the program was started with, where the core tells.
    pub environment: Environment,
    /// The best way of finding allocator state that this run permits.
    pub limit: LocateLimit,
}
