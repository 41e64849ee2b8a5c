//! Modules, their symbols and their type layouts, as a walker sees them.

use std::ops::Range;

use super::Address;

/// A module's place in [`Target::modules`](super::Target::modules).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModuleId(pub u32);

/// One loadable segment of a module, at run-time addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleSegment {
    /// First byte to `p_vaddr + p_memsz`, not rounded to pages.
    pub range: Range<Address>,
    /// Permissions.
    pub writable: bool,
    /// Permissions.
    pub executable: bool,
}

/// An executable or shared library of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its index.
    pub id: ModuleId,
    /// File name, as `libtcmalloc_minimal.so.4.5.9`.
    pub name: String,
    /// Path in the dead process.
    pub path: String,
    /// From the first byte of its lowest segment to the end of its highest.
    pub range: Range<Address>,
    /// Run-time address minus link address (wrapping).
    pub bias: u64,
    /// Its `PT_LOAD` segments, sorted. Empty if its program headers could not be read.
    pub segments: Vec<ModuleSegment>,
    /// Build ID as found in the core.
    pub build_id: Option<Vec<u8>>,
    /// The main executable.
    pub is_executable: bool,
}

impl Module {
    /// Whether `at` lies in an executable segment of this module.
    pub fn has_code_at(&self, at: Address) -> bool {
        self.segments
            .iter()
            .any(|segment| segment.executable && segment.range.contains(&at))
    }
}

/// What a symbol names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymbolKind {
    /// A function.
    Function,
    /// A variable.
    Object,
    /// A thread-local variable; its value is an offset in the module's TLS block.
    ThreadLocal,
    /// Anything else.
    Other,
}

/// A symbol of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Run-time address; for a thread-local symbol the offset in the TLS block.
    pub address: Address,
    /// Size in bytes as recorded; 0 when unknown.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
    /// Only in `.dynsym`: the module's full symbol table is stripped.
    pub dynamic_only: bool,
}

/// Symbols by their mangled names, loaded when first asked for.
pub trait SymbolTable: Sync {
    /// The symbol `name` of a module.
    fn symbol(&self, module: ModuleId, name: &str) -> Option<Symbol>;

    /// The same for a function whose code is to be told from other code, which locates no state: not subject to the run's
    /// limit. Every stripped library keeps the functions that it exports.
    fn function(&self, module: ModuleId, name: &str) -> Option<Symbol> {
        self.symbol(module, name)
    }

    /// The variable that covers a run-time address of a module: its name and the bytes from its start.
    fn variable_at(&self, _module: ModuleId, _at: Address) -> Option<(String, u64)> {
        None
    }
}

/// A member of a struct, inherited members and those of anonymous unions included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name in the source.
    pub name: String,
    /// Offset in bytes from the start of the struct.
    pub offset: u64,
    /// Size in bytes of the whole member (of the storage unit for a bit field).
    pub size: u64,
    /// For a bit field: lowest bit counted from the start of the struct, and width in bits.
    pub bits: Option<(u64, u64)>,
    /// Name of its type with namespaces (`tcmalloc::Span`), of the element for an array, where it has one.
    pub type_name: Option<String>,
    /// Number of elements for an array (the product of all dimensions).
    pub count: Option<u64>,
}

/// How a struct or class lies in memory, from debug information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// Size in bytes.
    pub size: u64,
    /// Its members in order.
    pub fields: Vec<Field>,
}

impl StructLayout {
    /// The member called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A global or static member variable, from debug information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Run-time address.
    pub address: Address,
    /// Size in bytes of its type.
    pub size: u64,
    /// Name of its type with namespaces (of the element for an array), where it has one.
    pub type_name: Option<String>,
}

/// Types and variables by their names in the source (`tcmalloc::Static::pageheap_`), loaded when
/// first asked for.
pub trait TypeCatalog: Sync {
    /// The layout of a struct, class or union.
    fn layout(&self, module: ModuleId, name: &str) -> Option<StructLayout>;
    /// A variable with a fixed address.
    fn variable(&self, module: ModuleId, name: &str) -> Option<Variable>;
}

/// The way in which a part of an allocator's state was found; weakest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocatedBy {
    /// Variables and layouts from DWARF.
    DebugInfo,
    /// Addresses from a symbol table, layouts built in.
    Symbols,
    /// From the shape of the memory alone.
    Structure,
}

impl LocatedBy {
    /// The name in the report: `debug-info`, `symbols`, `structure`.
    pub fn name(self) -> &'static str {
        match self {
            LocatedBy::DebugInfo => "debug-info",
            LocatedBy::Symbols => "symbols",
            LocatedBy::Structure => "structure",
        }
    }
}

/// The best way that this run permits (`--locate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocateLimit(pub LocatedBy);

impl LocateLimit {
    /// Whether `way` may be used.
    pub fn permits(self, way: LocatedBy) -> bool {
        way >= self.0
    }
}
