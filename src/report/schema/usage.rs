//! Where the memory is.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::{Block, Hex, Reference, Sum, Type};

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

/// Where the memory is.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Usage {
    /// The few owners that hold more than a tenth of what is in use, those with most bytes first; `null` where it was not asked for.
    pub suspects: Option<Vec<Suspect>>,
    /// Every byte of the process once, by kind.
    pub memory: Vec<MemoryKind>,
    /// What the allocators' own statistics would have said.
    pub allocators: Vec<AllocatorFigures>,
    /// Blocks by size, by allocator and size: all of them, so that they add up to what is in use, free and lost.
    pub sizes: Vec<BlockSize>,
    /// Blocks in use by what they hold, those with most bytes first; `null` where it was not asked for. They add up to what is in use, and to
    /// blocks cut off by damage that are not told one by one.
    pub types: Option<Vec<TypeUse>>,
    /// Objects of CPython in pools of its own, which lie in mappings beside the heaps, by type, those with most bytes first; `null` where it was
    /// not asked for, or there are none.
    pub python: Option<Vec<PythonObjects>>,
    /// Who holds how much, those with most bytes first; `null` where it was not asked for. Bytes add up to what is in use.
    pub owners: Option<Vec<Owner>>,
    /// Owners that were left out.
    pub owners_dropped: u64,
    /// The largest blocks in use.
    pub largest: Vec<LargeBlock>,
    /// Free memory of the heaps by what keeps it.
    pub reclaimable: Reclaimable,
    /// Bytes that the process had in memory: no core tells.
    pub resident_bytes: Option<u64>,
}

/// Objects of one type in CPython's pools.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PythonObjects {
    /// The type, or what the blocks are of another object: `dict`, `keys of dict`; `null` where nothing tells.
    pub name: Option<String>,
    /// How many.
    pub blocks: u64,
    /// All their bytes.
    pub bytes: u64,
    /// The lowest of them.
    pub example: Hex,
}

/// An allocator's own figures.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct AllocatorFigures {
    /// The allocator.
    pub name: String,
    /// The module that holds it.
    pub module: Option<String>,
    /// Each under its own name: glibc's `mallinfo2` (`arena`, `ordblks`, ...), the lines of gperftools that begin with `MALLOC:`
    /// (`Bytes in use by application`, ...), jemalloc's `allocated`, `active`, `mapped`; `null` where a core does not tell.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Numbers under names, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures(pub Vec<(String, Option<u64>)>);

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl JsonSchema for Figures {
    fn schema_name() -> Cow<'static, str> {
        "Figures".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": true })
    }
}

/// Blocks of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BlockSize {
    /// Index of the allocator in `allocators`.
    pub allocator: usize,
    /// Usable bytes of a block; of the smallest, where sizes are too many to tell apart.
    pub block_bytes: u64,
    /// Usable bytes of the largest: `block_bytes`, but for such a row.
    pub largest: u64,
    /// Blocks in use.
    pub in_use: u64,
    /// Blocks in lists.
    pub free: u64,
    /// Blocks cut off by damage.
    pub lost: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Bytes in lists.
    pub free_bytes: u64,
    /// Bytes cut off by damage.
    pub lost_bytes: u64,
}

/// Blocks in use of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TypeUse {
    /// What they hold; `null` for those that show none.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// How many.
    pub blocks: u64,
    /// All their usable bytes.
    pub bytes: u64,
    /// Usable bytes of the largest.
    pub largest: u64,
    /// The lowest of them.
    pub example: Hex,
}

/// A block in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LargeBlock {
    /// Its address.
    pub address: Hex,
    /// Usable bytes.
    pub size: u64,
    /// The allocator.
    pub allocator: String,
    /// What its first words are, as in groups of leaks; `null` where it was not asked who holds what.
    pub signature: Option<String>,
    /// Index in `owners` of who has it; `null` where it was not asked for.
    pub owner: Option<usize>,
}

/// Free memory of the heaps, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reclaimable {
    /// Whole pages that hold something: what trimming would give back.
    pub trim: u64,
    /// In pages that blocks in use share.
    pub fragmented: u64,
    /// In caches.
    pub cached: u64,
    /// Given back already, or never written to: costs nothing.
    pub untouched: u64,
}

/// Who has a part of the heap.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Owner {
    /// `global`, `tls`, `stack`, `register`: one holder. `pair`: two of a kind together. `variables`, `threads`: several of a kind.
    /// `nobody`: no word that is certainly a pointer leads there, see `leaks`.
    #[schemars(extend("examples" = ["global", "tls", "stack", "register", "pair", "variables", "threads", "nobody"]))]
    pub kind: String,
    /// The holders, one or two; of several none is named. The place of each is that of the first of its words.
    pub holders: Vec<Reference>,
    /// Blocks that would be lost without it.
    pub blocks: u64,
    /// Their usable bytes.
    pub bytes: u64,
    /// The program's own mappings that would.
    pub mapping_bytes: u64,
}

/// An owner that has more than a tenth of what is in use.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Suspect {
    /// Index in `owners`.
    pub owner: usize,
    /// Its blocks.
    pub blocks: u64,
    /// Their usable bytes.
    pub bytes: u64,
    /// The block on which 7 tenths and more of it hang, from step to step, or a mapping of the program's own (`state` is `mapping`);
    /// `null` where it gathers at the owner itself.
    pub gathers_at: Option<Block>,
    /// What hangs there.
    pub gathered: Sum,
    /// The words that lead there from the owner.
    pub path: Vec<Reference>,
    /// Steps of it were left out, or it was not looked for: the owner has too many blocks, see `--retained`.
    pub path_cut: bool,
    /// What hangs there, by size, the most bytes first.
    pub made_of: Vec<MadeOf>,
}

/// Blocks of one size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct MadeOf {
    /// Usable bytes of each.
    pub block_bytes: u64,
    /// How many.
    pub blocks: u64,
    /// All their bytes.
    pub bytes: u64,
    /// One of them.
    pub example: Hex,
    /// What its first words are.
    pub signature: String,
    /// What it holds; `null` where nothing tells.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
}
