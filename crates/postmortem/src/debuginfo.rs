//! Names of the dead process: symbols, type layouts, variables. Everything is lazy, per module, and kept once found.
//!
//! ```text
//! module ──> files: its image, its separate debug file (build ID, .gnu_debuglink), dwz's supplementary file
//!              ├──> symbols   .symtab, .dynsym, .gnu_debugdata   names <-> addresses
//!              └──> dwarf ──> index ──> types           layouts, variables
//!                     └─────> lines                      inlined functions, files, lines
//! ```
//!
//! What may be used is limited twice: files only if their build ID is right (`modules` sees to that), and answers only if the
//! run permits that way of finding (`--locate`). Names for reports ([`DebugInfo::function_at`]) are not limited.
//!
//! Files here may be hostile: sections are inflated within bounds, nesting is bounded, and what is damaged is missing.
//!
//! Not for: split DWARF, DWARF in big-endian or 32-bit files.

pub mod catalog;
pub mod demangle;
mod dies;
pub mod dwarf;
mod files;
pub mod image;
mod index;
mod lines;
mod locals;
mod mentions;
mod names;
mod opened;
mod plt;
mod scan;
mod statics;
pub mod symbols;
#[cfg(test)]
mod tests;
mod trait_objects;
mod types;

use std::collections::HashMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use ground::target::{
    Address, LocateLimit, LocatedBy, ModuleId, StructLayout, Symbol, SymbolKind, SymbolTable,
    TypeCatalog, Variable,
};

use crate::modules::{ModuleSet, SearchPaths};
use catalog::Catalog;
use dies::Units;
pub use dies::{Area as EntryArea, Place as EntryPlace};
use dwarf::{DwarfFile, ModuleDwarf};
pub use files::FileBytes;
use files::Files;
use image::ElfImage;
use index::Index;
use lines::LineIndex;
pub use lines::{SourceFrame, SourceFrames};
pub use locals::{FrameFacts, Local, LocalPart, LocalPlace};
use opened::{Opened, once};
use plt::Plt;
pub use statics::{StaticPlace, StaticVariable};
use symbols::{SymbolIndex, SymbolSource};
use trait_objects::TraitObjects;
use types::Types;

/// Where a function's name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionSource {
    /// Debug information.
    Dwarf,
    /// The full symbol table.
    Symtab,
    /// The dynamic symbol table.
    Dynsym,
    /// A slot of the procedure linkage table, by the symbol it leads to.
    Plt,
}

/// A function, for a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// Its name, demangled.
    pub name: String,
    /// Run-time address of its first byte.
    pub start: Address,
    /// Where the name comes from.
    pub source: FunctionSource,
}

/// Symbols and types of all modules; see the module's documentation.
pub struct DebugInfo {
    modules: Arc<ModuleSet>,
    search: Arc<SearchPaths>,
    limit: LocateLimit,
    states: Vec<State>,
    /// dwz's files, each shared by the modules of its package.
    supplementary: Mutex<HashMap<PathBuf, Option<Arc<DwarfFile>>>>,
}

/// What is known of one module so far.
#[derive(Default)]
struct State {
    files: OnceLock<Files>,
    symbols: OnceLock<SymbolIndex>,
    dwarf: OnceLock<Option<ModuleDwarf>>,
    units: OnceLock<Units>,
    index: Index,
    lines: OnceLock<LineIndex>,
    plt: OnceLock<Plt>,
    trait_objects: OnceLock<TraitObjects>,
    notes: Mutex<Vec<String>>,
}

impl State {
    fn note(&self, what: String) {
        if let Ok(mut notes) = self.notes.lock() {
            notes.push(what);
        }
    }
}

impl DebugInfo {
    /// Knows nothing yet; reads a module's files when something is asked of it.
    pub fn new(modules: Arc<ModuleSet>, search: Arc<SearchPaths>, limit: LocateLimit) -> Self {
        let states = modules.modules().iter().map(|_| State::default()).collect();
        Self {
            modules,
            search,
            limit,
            states,
            supplementary: Mutex::default(),
        }
    }

    /// The separate debug file of a module, if one was found.
    pub fn debug_file(&self, module: ModuleId) -> Option<FileBytes> {
        let (module, state) = self.module(module)?;
        let files = self.files(module, state);
        files.debug.as_ref().map(|(file, _)| file.clone())
    }

    /// Whether a module has debug information here, in its image or beside it. Reads no more than section headers.
    pub fn has_debug_info(&self, module: ModuleId) -> bool {
        let Some((module, state)) = self.module(module) else {
            return false;
        };
        let files = self.files(module, state);
        let debug = files.debug.as_ref().map(|(file, _)| file);
        files.image.iter().chain(debug).any(|file| {
            ElfImage::parse(file.bytes()).is_ok_and(|image| image.has_section(".debug_info"))
        })
    }

    /// Whether a module has a full symbol table here, in its image or beside it.
    pub fn has_symtab(&self, module: ModuleId) -> bool {
        self.symbols(module)
            .is_some_and(|(_, symbols)| symbols.has_symtab())
    }

    /// The function that covers the run-time address `lookup` in a module: by the full symbol table, else by debug
    /// information, else by the dynamic symbol table; an entry of the procedure linkage table is `free@plt`.
    pub fn function_at(&self, module: ModuleId, lookup: Address) -> Option<FunctionName> {
        let (info, symbols) = self.symbols(module)?;
        let found = symbols.function_at(lookup.get().wrapping_sub(info.bias));
        if !symbols.has_symtab()
            && let Some(found) = self.function_by_dwarf(module, lookup)
        {
            return Some(found);
        }
        let Some((symbol, name)) = found else {
            return self.plt_entry(module, lookup);
        };
        Some(FunctionName {
            name: demangle::demangle(name),
            start: Address::new(symbol.start.wrapping_add(info.bias)),
            source: match symbol.source {
                SymbolSource::Symtab => FunctionSource::Symtab,
                SymbolSource::Dynsym => FunctionSource::Dynsym,
            },
        })
    }

    /// The variable, constant or virtual table that covers a run-time address in a module, demangled.
    pub fn object_at(&self, module: ModuleId, at: Address) -> Option<String> {
        let (info, symbols) = self.symbols(module)?;
        let (_, name) = symbols.object_at(at.get().wrapping_sub(info.bias))?;
        Some(demangle::demangle(name))
    }

    /// The section of a module's file that a run-time address lies in.
    pub fn section_at(&self, module: ModuleId, at: Address) -> Option<String> {
        let (module, state) = self.module(module)?;
        let files = self.files(module, state);
        let debug = files.debug.as_ref().map(|(file, _)| file);
        let mut all = files.image.iter().chain(debug);
        all.find_map(|file| {
            let image = ElfImage::parse(file.bytes()).ok()?;
            image.section_at(at.get().wrapping_sub(module.bias))
        })
    }

    /// The same as its symbol has it: the name as stored, and the run-time address of its first byte.
    pub fn stored_object_at(&self, module: ModuleId, at: Address) -> Option<(&str, Address)> {
        let (info, symbols) = self.symbols(module)?;
        let (found, name) = symbols.object_at(at.get().wrapping_sub(info.bias))?;
        Some((name, Address::new(found.start.wrapping_add(info.bias))))
    }

    /// The table of a Rust trait object that begins at a run-time address, by debug information: the name of its type.
    pub fn trait_object_at(&self, module: ModuleId, at: Address) -> Option<String> {
        if !self.limit.permits(LocatedBy::DebugInfo) {
            return None;
        }
        let opened = self.dwarf(module)?;
        let read = || TraitObjects::read(&opened.dwarf, opened.units);
        let tables = once(&opened.state.trait_objects, read);
        let name = tables.at(at.get().wrapping_sub(opened.module.bias))?;
        Some(name.to_owned())
    }

    /// The thread-local variable that covers an offset in a module's block, demangled, and the bytes from its start.
    pub fn thread_local_at(&self, module: ModuleId, offset: u64) -> Option<(String, u64)> {
        let (_, symbols) = self.symbols(module)?;
        let (start, name) = symbols.thread_local_at(offset)?;
        Some((demangle::demangle(name), offset.checked_sub(start)?))
    }

    fn plt_entry(&self, module: ModuleId, lookup: Address) -> Option<FunctionName> {
        let (info, state) = self.module(module)?;
        let image = self.files(info, state).image.as_ref()?;
        let plt = state.plt.get_or_init(|| Plt::read(image));
        let (start, name) = plt.at(lookup.get().wrapping_sub(info.bias))?;
        Some(FunctionName {
            name: format!("{}@plt", demangle::demangle(name)),
            start: Address::new(start.wrapping_add(info.bias)),
            source: FunctionSource::Plt,
        })
    }

    fn function_by_dwarf(&self, module: ModuleId, lookup: Address) -> Option<FunctionName> {
        let found = self.source_at(module, lookup);
        let (info, _) = self.module(module)?;
        Some(FunctionName {
            name: found.frames.last()?.function.clone()?,
            start: Address::new(found.start?.wrapping_add(info.bias)),
            source: FunctionSource::Dwarf,
        })
    }

    /// The functions and lines at the run-time address `lookup` (of a caller's frame: the return address less one), the
    /// innermost inlined one first; the last is the one that has a frame. Empty if nothing is known.
    pub fn source_at(&self, module: ModuleId, lookup: Address) -> Arc<SourceFrames> {
        let Some((opened, lines)) = self.line_index(module) else {
            return Arc::default();
        };
        let at = lookup.get().wrapping_sub(opened.module.bias);
        lines.at(&opened.dwarf, opened.units, at)
    }

    /// The variables and parameters of a frame's function, and of those inlined into it there, that have a place at the frame's
    /// address; empty where the module has no debug information.
    pub fn locals_at(&self, module: ModuleId, frame: &FrameFacts<'_>) -> Vec<Local> {
        let Some((mut opened, lines)) = self.line_index(module) else {
            return Vec::new();
        };
        if let Some(Some(dwarf)) = opened.state.dwarf.get() {
            opened.dwarf = dwarf.borrow_with_locations();
        }
        let bias = opened.module.bias;
        let at = frame.lookup.get().wrapping_sub(bias);
        let types = Types::new(&opened.dwarf, opened.units, &opened.state.index);
        let function = lines.function_at(types.dies(), at);
        function.map_or_else(Vec::new, |function| {
            locals::of_function(&types, function, at, bias, frame)
        })
    }

    /// Asks about types of all modules that have debug information and are permitted: those for which `wanted` is true.
    pub fn with_catalog<T>(
        &self,
        wanted: impl Fn(ModuleId) -> bool,
        ask: impl FnOnce(&Catalog<'_>) -> T,
    ) -> T {
        let is_permitted = self.limit.permits(LocatedBy::DebugInfo);
        let modules = self.modules.modules().iter();
        let opened: Vec<Option<Opened<'_>>> = modules
            .map(|module| {
                let is_wanted = is_permitted && wanted(module.id);
                is_wanted.then(|| self.dwarf(module.id)).flatten()
            })
            .collect();
        let types = opened.iter().map(|opened| {
            let opened = opened.as_ref()?;
            Some(Types::new(&opened.dwarf, opened.units, &opened.state.index))
        });
        ask(&Catalog::new(types.collect()))
    }

    /// Bytes of a module's debugging entries, compressed or not; 0 without any. Reads no more than section headers.
    pub fn debug_info_bytes(&self, module: ModuleId) -> u64 {
        let Some((module, state)) = self.module(module) else {
            return 0;
        };
        let files = self.files(module, state);
        let debug = files.debug.as_ref().map(|(file, _)| file);
        let bytes = files.image.iter().chain(debug).filter_map(|file| {
            let image = ElfImage::parse(file.bytes()).ok()?;
            image.section_bytes(".debug_info")
        });
        bytes.max().unwrap_or(0)
    }

    /// Reads what [`source_at`](Self::source_at) needs of a module, with all threads; to be called before threads ask in
    /// parallel, who would each read it.
    pub fn prepare_sources(&self, module: ModuleId) {
        self.line_index(module);
    }

    fn line_index(&self, module: ModuleId) -> Option<(Opened<'_>, &LineIndex)> {
        let opened = self.dwarf(module)?;
        let build = || LineIndex::build(&opened.dwarf, opened.units);
        let lines = once(&opened.state.lines, build);
        Some((opened, lines))
    }

    /// What could not be used of the modules asked so far, one sentence each, in order of modules.
    pub fn notes(&self) -> Vec<String> {
        let states = self.states.iter();
        states
            .filter_map(|state| state.notes.lock().ok().map(|notes| notes.clone()))
            .flatten()
            .collect()
    }
}

impl DebugInfo {
    /// The addresses of the variable that covers a run-time address of a module.
    pub fn variable_range(&self, module: ModuleId, at: Address) -> Option<Range<Address>> {
        let (module, symbols) = self.symbols(module)?;
        let (found, _) = symbols.object_at(at.get().wrapping_sub(module.bias))?;
        let start = Address::new(found.start.wrapping_add(module.bias));
        Some(start..start.saturating_add(found.size))
    }
}

impl SymbolTable for DebugInfo {
    fn symbol(&self, module: ModuleId, name: &str) -> Option<Symbol> {
        if !self.limit.permits(LocatedBy::Symbols) {
            return None;
        }
        self.function(module, name)
    }

    fn function(&self, module: ModuleId, name: &str) -> Option<Symbol> {
        let (module, symbols) = self.symbols(module)?;
        let found = symbols.find(name)?;
        let bias = match found.kind {
            SymbolKind::ThreadLocal => 0,
            _ => module.bias,
        };
        Some(Symbol {
            address: Address::new(found.start.wrapping_add(bias)),
            size: found.size,
            kind: found.kind,
            dynamic_only: !symbols.has_symtab(),
        })
    }

    fn variable_at(&self, module: ModuleId, at: Address) -> Option<(String, u64)> {
        let (module, symbols) = self.symbols(module)?;
        let (found, name) = symbols.object_at(at.get().wrapping_sub(module.bias))?;
        let start = found.start.wrapping_add(module.bias);
        Some((demangle::demangle(name), at.get().checked_sub(start)?))
    }
}

impl TypeCatalog for DebugInfo {
    fn layout(&self, module: ModuleId, name: &str) -> Option<StructLayout> {
        self.with_types(module, |_, types| types.layout(name))
    }

    fn variable(&self, module: ModuleId, name: &str) -> Option<Variable> {
        self.with_types(module, |module, types| {
            let (address, facts) = types.variable(name)?;
            Some(Variable {
                address: Address::new(address.wrapping_add(module.bias)),
                size: facts.size.unwrap_or(0),
                type_name: facts.name,
            })
        })
    }
}

impl std::fmt::Debug for DebugInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugInfo")
            .field("modules", &self.states.len())
            .finish_non_exhaustive()
    }
}
