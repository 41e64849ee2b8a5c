//! Where the memory is.

use schemars::JsonSchema;
use serde::Serialize;

use super::Hex;

/// A run of memory of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Mapping {
    /// First byte.
    pub start: Hex,
    /// First byte past the end.
    pub end: Hex,
    /// What it is.
    #[schemars(extend("examples" = ["heap", "stack", "tls", "text", "read-only", "data", "bss", "file", "shared", "vdso", "jit", "anonymous", "guard", "reserved"]))]
    pub kind: String,
    /// Whose, in words: a module, an allocator and its arenas, a file, a thread.
    pub name: Option<String>,
    /// The allocator, for a heap.
    pub allocator: Option<String>,
    /// The thread that it belongs to.
    pub thread_id: Option<u32>,
    /// `rw-` and the like; `null` where no segment of the core is about it: gdb's gcore leaves such mappings out.
    pub permissions: Option<String>,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of it that the core holds.
    pub bytes_in_core: u64,
}

/// All memory of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MemoryKind {
    /// What it is, as in `mappings`.
    pub kind: String,
    /// The allocator, for heaps.
    pub name: Option<String>,
    /// Runs of it.
    pub mappings: u64,
    /// Its bytes.
    pub bytes: u64,
    /// Bytes of it that the core holds.
    pub bytes_in_core: u64,
}
