//! The allocators: who they are, what they hold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Hex, MemoryKind};

/// An allocator of the process.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Allocator {
    /// Its name.
    #[schemars(extend("examples" = ["tcmalloc", "ptmalloc", "jemalloc", "mimalloc"]))]
    pub name: String,
    /// `gperftools`; `null` where there is one variant only.
    pub variant: Option<String>,
    /// Its release; `null` when unknown.
    pub version: Option<String>,
    /// The weakest way used for any part; `details.located` has each.
    #[schemars(extend("examples" = ["debug-info", "symbols", "structure"]))]
    pub located_by: String,
    /// Names of the modules whose `malloc`, `free` or `operator new` are its own, as their slots say; empty also where no
    /// module's slots could be read.
    pub serves: Vec<String>,
    /// It serves no module, and another allocator of the process does. `null` where no module's slots could be read.
    pub idle: Option<bool>,
    /// What it holds.
    pub statistics: Statistics,
    /// Where the bytes went: the sum is what the allocator holds. `unknown` above 0 is in `limits`.
    pub coverage: Coverage,
    /// Its own facts.
    pub details: Details,
    /// Its memory in pieces, by address, for formats with pictures; else left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub map: Option<HeapMap>,
}

/// A heap's memory in pieces of one size. Memory that was given back to the system is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HeapMap {
    /// Bytes of a piece.
    pub piece_bytes: u64,
    /// The pieces that hold any of the heap, by address; at most 1,024.
    pub pieces: Vec<HeapPiece>,
}

/// What lies in a piece of a heap's memory. The bytes add up to what of the piece is the heap's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HeapPiece {
    /// First byte.
    pub start: Hex,
    /// Bytes of blocks in use, with their headers.
    pub in_use: u64,
    /// Bytes of free blocks.
    pub free: u64,
    /// Bytes of blocks that damage cut off.
    pub lost: u64,
    /// Bytes of the allocator's own.
    pub metadata: u64,
    /// Bytes of the largest free block that begins in it.
    pub largest_free: u64,
}

/// What an allocator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Statistics {
    /// Handed out to the program.
    pub in_use: Tally,
    /// Cached or listed free blocks, wherever they are held.
    pub free: Tally,
    /// Free, but cut off from every list by the damage.
    pub lost: Tally,
    /// Memory that the allocator holds from the system.
    pub mapped_bytes: u64,
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tally {
    /// Blocks.
    pub blocks: u64,
    /// Usable bytes.
    pub bytes: u64,
}

/// Where the bytes went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Coverage {
    /// Blocks handed out.
    pub in_use: u64,
    /// Free blocks and free spans.
    pub free: u64,
    /// The allocator's own structures.
    pub metadata: u64,
    /// Ends too short for a block.
    pub tails: u64,
    /// Held, but not understood.
    pub unknown: u64,
}

/// An allocator's own facts. More fields than these, by allocator: arenas, spans, caches.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Details {
    /// Each part of its state, by its name in the allocator's source.
    pub located: BTreeMap<String, Located>,
    /// By size class, rising; classes without blocks are left out.
    pub size_classes: Vec<SizeClass>,
    /// Whatever else the allocator's walker says.
    #[serde(flatten)]
    pub more: BTreeMap<String, serde_json::Value>,
}

/// Where a part of an allocator's state is, and how it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Located {
    /// Its address.
    pub address: Hex,
    /// How it was found.
    #[schemars(extend("examples" = ["debug-info", "symbols", "structure"]))]
    pub by: String,
}

/// One size class, or a range of sizes that have none (glibc's chunks above 1,032 bytes, spans, extents). Blocks and bytes of
/// all rows add up to `statistics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SizeClass {
    /// Bytes of a block; in a range, of the smallest that it can hold.
    pub size: u64,
    /// Bytes of the largest block that the row can hold: `size` for a class.
    pub largest: u64,
    /// Blocks handed out.
    pub in_use: u64,
    /// Blocks in lists.
    pub free: u64,
    /// Blocks cut off by damage.
    pub lost: u64,
    /// Bytes handed out.
    pub in_use_bytes: u64,
    /// Bytes in lists.
    pub free_bytes: u64,
    /// Bytes cut off by damage.
    pub lost_bytes: u64,
}

/// An allocator that is in the process and that this version does not walk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct UnsupportedAllocator {
    /// Its name; `null` where only its module is known.
    #[schemars(extend("examples" = ["mimalloc", "AddressSanitizer", "musl", "the Go runtime"]))]
    pub name: Option<String>,
    /// The module that holds it.
    pub module: Option<String>,
    /// How it was told.
    #[schemars(extend("examples" = ["module-name", "symbols", "text", "structure", "slots"]))]
    pub known_by: String,
    /// Whether the program's `malloc` is its; `null` where the core does not tell.
    pub serves_program: Option<bool>,
    /// The same in words.
    pub message: String,
    /// The analysis as a whole is incomplete because of it (exit status 3).
    pub incomplete: bool,
}

/// Writable anonymous memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Memory {
    /// All of it that is in the core, stacks and variables of modules included.
    pub writable_bytes: u64,
    /// What of it the heaps are that were walked.
    pub walked_bytes: u64,
    /// What of it no such heap, no module's variables and no stack of a thread accounts for.
    pub unclaimed_bytes: u64,
    /// Every byte of the process once, by kind.
    pub by_kind: Vec<MemoryKind>,
}
