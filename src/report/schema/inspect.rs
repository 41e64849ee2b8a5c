//! What an address is.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Block, Frame, Hex, Location, Reference, Type};

/// An address, by every witness.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InspectedAddress {
    /// The address that was asked for.
    pub address: Hex,
    /// What it is.
    #[schemars(extend("examples" = [
        "heap-block", "allocator", "stack", "tls", "global", "code", "mapping", "not-dumped", "unmapped", "text",
    ]))]
    pub what: String,
    /// The same in a sentence.
    pub message: String,
    /// The allocator whose memory it is in.
    pub allocator: Option<String>,
    /// That allocator's structure: a variable, a header, a cache.
    pub structure: Option<String>,
    /// The block that holds it; `offset` is the address's.
    pub block: Option<Block>,
    /// What that block holds.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// The member that lies there, of what the block holds or of a variable, by debug information: `[3].name`, `config.items[2]`;
    /// `null` where nothing tells.
    pub member: Option<String>,
    /// Where that block stands in free lists.
    pub locations: Vec<Location>,
    /// Where it was allocated, by `--events`, or if the allocator recorded it.
    pub allocated_at: Option<Vec<Frame>>,
    /// With `--events`: where it was freed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<Vec<Frame>>,
    /// With `--events`: where it was freed once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_again_at: Option<Vec<Frame>>,
    /// The blocks before and behind it.
    pub neighbours: Vec<Neighbour>,
    /// The thread whose stack or storage it is in.
    pub thread_id: Option<u32>,
    /// The frame that it lies in, or whose variable it is, innermost first.
    pub frame: Option<usize>,
    /// That frame's function, or the one that was inlined into it; of code, the function that it belongs to.
    pub function: Option<String>,
    /// Bytes from that frame's stack pointer.
    pub stack_offset: Option<i64>,
    /// The variable that it is, in the source: of a frame, or thread-local.
    pub variable: Option<String>,
    /// Bytes from that variable's start.
    pub variable_offset: Option<u64>,
    /// The module's or thread's variable, or the function, by its symbol.
    pub symbol: Option<String>,
    /// Bytes from that symbol.
    pub symbol_offset: Option<u64>,
    /// The module that it lies in.
    pub module: Option<String>,
    /// Bytes from the module's start; of a thread-local variable, in the module's thread-local block.
    pub module_offset: Option<Hex>,
    /// The section of the module's file.
    pub section: Option<String>,
    /// The source file of code.
    pub file: Option<String>,
    /// The line there.
    pub line: Option<u32>,
    /// The mapping that it lies in; `null` if it is in none.
    pub mapping: Option<InspectedMapping>,
    /// The words around it; empty for code and where nothing is mapped.
    pub words: Vec<InspectedWord>,
    /// Who points there, the strongest first, then words that hold nothing any more; at most 16.
    pub referenced_by: Vec<Reference>,
    /// Words that can hold it, all of them.
    pub referenced_by_count: u64,
}

/// A block beside an address.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Neighbour {
    /// `before` or `behind`.
    #[schemars(extend("examples" = ["before", "behind"]))]
    pub side: String,
    /// The block.
    pub block: Block,
}

/// A mapping.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InspectedMapping {
    /// First byte.
    pub start: Hex,
    /// First byte past the end.
    pub end: Hex,
    /// As `rw-`.
    pub permissions: String,
    /// The file that is mapped there.
    pub file: Option<String>,
}

/// A word of memory.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct InspectedWord {
    /// Where it is.
    pub address: Hex,
    /// What it holds; `null` where the core does not hold it, and for text and numbers that are nothing else unless `--include-bytes` asks for contents.
    pub value: Option<Hex>,
    /// What the place is called: a variable, a header.
    pub name: Option<String>,
    /// What the value is.
    pub meaning: String,
}
