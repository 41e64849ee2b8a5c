//! Who points where, and what nobody points at.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Block, Fingerprint, Frame, Hex, Type};

/// A word that points at a block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reference {
    /// What kind of place it stands in; `history` is a word that explains and holds nothing.
    #[schemars(extend("examples" = ["register", "stack", "tls", "global", "heap", "mapping", "history"]))]
    pub kind: String,
    /// What it is worth: `strong` or `weak`.
    #[schemars(extend("examples" = ["strong", "weak"]))]
    pub strength: String,
    /// Where it is; `null` for a register.
    pub address: Option<Hex>,
    /// The thread that it belongs to.
    pub thread_id: Option<u32>,
    /// The frame that it lies in, innermost first.
    pub frame: Option<usize>,
    /// That frame's function.
    pub function: Option<String>,
    /// Bytes from that frame's stack pointer.
    pub stack_offset: Option<i64>,
    /// The register's name.
    pub register: Option<String>,
    /// The variable that it is, in the source: of a frame, or thread-local.
    pub variable: Option<String>,
    /// Bytes from that variable's start.
    pub variable_offset: Option<u64>,
    /// The module's variable that it is or lies in.
    pub symbol: Option<String>,
    /// Bytes from that variable's start.
    pub symbol_offset: Option<u64>,
    /// The module that it lies in.
    pub module: Option<String>,
    /// Bytes from the module's start; of a thread-local variable, in the module's thread-local block.
    pub module_offset: Option<Hex>,
    /// The block that it lies in; `offset` is the word's.
    pub block: Option<Block>,
    /// What that block holds; `null` where nothing tells.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// The member that the word is, by debug information: of what its block holds (`next`, `[3].name`), or with its variable
    /// (`sessions[9].name`). Members of containers are not named.
    pub member: Option<String>,
    /// What else is known of the place, in words.
    pub note: Option<String>,
    /// Bytes from the target's start at which it points.
    pub points_at_offset: u64,
    /// The member of what the target holds at which it points; `null` at its start, and where nothing tells.
    pub points_at_member: Option<String>,
}

/// Who points at an address.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct References {
    /// The address that was asked for.
    pub to: Hex,
    /// The block that holds it; `null` if none does: then words that hold exactly this address are meant.
    pub block: Option<Block>,
    /// Words that can hold it, all of them.
    pub count: u64,
    /// Words that hold nothing any more: in free blocks, on dead stack, in an allocator's own memory.
    pub history_count: u64,
    /// The first of both: strong ones, then weak ones, then history, each by address.
    pub from: Vec<Reference>,
    /// The shortest chain from a root, root first; empty if there is none.
    pub path: Vec<Reference>,
    /// The path as the source would write it: `sessions[9]->name`; `null` where a step has no name.
    pub expression: Option<String>,
    /// The search for a chain was given up.
    pub path_cut: bool,
    /// With `--tree`: who holds the block, and who holds those, up to the roots.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
    /// With `--down`: what hangs on the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub down: Option<Tree>,
}

/// A tree of references.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Tree {
    /// Its rows: what belongs to one follows it, one step deeper.
    pub rows: Vec<TreeRow>,
    /// Words of the block that was asked for that are left out.
    pub more: u64,
    /// Downward: all blocks that are reached from it, without itself.
    pub reached: Sum,
    /// There is more than was looked at.
    pub cut: bool,
}

/// A row of a tree.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct TreeRow {
    /// Steps from the block that was asked for, from 1.
    pub depth: usize,
    /// The word.
    pub from: Reference,
    /// Downward: the block that it points at; `null` for a mapping.
    pub to: Option<Block>,
    /// Upward the holder, downward the block stands in the tree already.
    pub repeated: bool,
    /// Words of this row's block that are left out.
    pub more: u64,
    /// Upward: words that can hold the holder's block; `null` where that was not looked for.
    pub held: Option<u64>,
    /// Downward: blocks that are reached through this one first, itself included.
    pub reached: Sum,
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Sum {
    /// Blocks.
    pub blocks: u64,
    /// Their usable bytes.
    pub bytes: u64,
}

/// What nobody points at.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Leaks {
    /// In use and reached from nowhere, and no lost block leads to them, or they stand for a circle.
    pub definite: Sum,
    /// Reached from lost blocks only.
    pub indirect: Sum,
    /// Reached from places only that may hold a pointer by chance, or in memory that the core does not hold.
    pub possible: Sum,
    /// The rest.
    pub reachable: Sum,
    /// Blocks that are lost in one way: definite ones first, each class by bytes.
    pub groups: Vec<LeakGroup>,
    /// Groups that were left out.
    pub groups_dropped: u64,
    /// The program's own mappings that nobody points at.
    pub mappings: Vec<LostMapping>,
    /// What is lost that was not lost there, with `--since`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// Every block that is not reached for certain, with `--blocks`; else `null`.
    pub blocks: Option<Vec<LeakedBlock>>,
}

/// What has been lost since another core of the program was written, or a report of one.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Since {
    /// The core or the report, as it was named.
    pub source: String,
    /// How blocks were compared: by `address`, for one process, or by `group` (its fingerprint) for another one.
    #[schemars(extend("examples" = ["address", "group"]))]
    pub matched_by: String,
    /// Blocks that are definitely or indirectly lost now and were not then.
    pub lost: Sum,
    /// Blocks that are possibly lost now and were not, even possibly, then.
    pub possible: Sum,
    /// Blocks that were lost then and are not any more.
    pub gone: Sum,
}

/// Blocks of one size that look alike, or were allocated in one place.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct LeakGroup {
    /// Its number, from 1.
    pub id: usize,
    /// `definite`, `possible`, or `indirect` for blocks that several lost ones share.
    #[schemars(extend("examples" = ["definite", "indirect", "possible"]))]
    pub class: String,
    /// Its blocks, without what hangs on them.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blocks that hang on these alone.
    pub indirect_blocks: u64,
    /// Their bytes.
    pub indirect_bytes: u64,
    /// With `--since`: the blocks of it that were not lost there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Sum>,
    /// Usable bytes of each block.
    pub block_bytes: u64,
    /// The allocator.
    pub allocator: String,
    /// What the blocks hold; `null` where nothing tells.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// What the first words are, of blocks with a type those of the first: `zero`, `small`, `text`, `heap`, `heap+` (inside a block), `mapping`, a module and an offset, `other`.
    pub signature: String,
    /// The form in which pointers to the blocks are stored, if it is another one: such blocks are possibly lost.
    #[schemars(extend("examples" = ["tag in the upper 16 bits"]))]
    pub encoding: Option<String>,
    /// Where the blocks were allocated, if the allocator recorded it.
    pub stack: Option<Vec<Frame>>,
    /// With `--events`: where the blocks were allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<Vec<Frame>>,
    /// With a profile for `--events`: the stacks whose blocks have this size, if there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allocation_candidates: Vec<Vec<Frame>>,
    /// A word that led to the first of them once.
    pub was_held_by: Option<Reference>,
    /// Some of the blocks, the lowest addresses.
    pub examples: Vec<Hex>,
    /// One sentence.
    pub message: String,
    /// The same leak in another core of the same program gives the same fingerprint.
    pub fingerprint: Fingerprint,
}

/// A mapping that nobody points at.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct LostMapping {
    /// First byte.
    pub start: Hex,
    /// First byte past the end.
    pub end: Hex,
    /// Its bytes.
    pub bytes: u64,
    /// `definite` or `possible`.
    pub class: String,
}

/// A block that is not reached for certain.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct LeakedBlock {
    /// The pointer that the program knew.
    pub address: Hex,
    /// Usable bytes.
    pub size: u64,
    /// `definite`, `indirect` or `possible`.
    pub class: String,
    /// The number of its group; `null` if that was left out.
    pub group: Option<usize>,
    /// With `--events`: where it was allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<Vec<Frame>>,
}
