//! What is wrong with the heap, and the words that prove it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{Bytes, Frame, Hex, Reference};

/// How much a finding matters.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A state that the allocator passes through while it works.
    #[default]
    Note,
    /// Worth a look.
    Warning,
    /// The heap is damaged.
    Critical,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The evidence fits, and so does something else.
    #[default]
    Suspected,
    /// No other explanation fits as well.
    Likely,
    /// No state that this release of the allocator passes through shows this evidence.
    Certain,
}

/// One error, with its evidence.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Finding {
    /// Its number in this report, from 1.
    pub id: usize,
    /// What it says; the table of kinds in `docs/report.md`.
    #[schemars(extend("examples" = [
        "double-free", "cyclic-free-list", "misaligned-free-entry", "invalid-free-entry", "heap-overrun",
        "heap-underrun", "use-after-free-write", "dangling-reference", "corrupt-metadata", "count-mismatch",
    ]))]
    pub kind: String,
    /// CWE number of the kind.
    pub cwe: u32,
    /// How much it matters.
    pub severity: Severity,
    /// How sure it is.
    pub confidence: Confidence,
    /// The allocator.
    pub allocator: Option<String>,
    /// What the table of kinds says for this kind; `null` for a call that the allocator refused if its pointer cannot be had.
    pub address: Option<Hex>,
    /// The block that contains `address`; `null` if none does.
    pub block: Option<Block>,
    /// One sentence.
    pub message: String,
    /// The words in memory that prove it.
    pub evidence: Vec<Evidence>,
    /// Where the block stands in free lists.
    pub locations: Vec<Location>,
    /// What the damage cost.
    pub collateral: Collateral,
    /// Overruns: the block that most likely wrote past its end.
    pub culprit: Option<Culprit>,
    /// What the overwriting bytes look like.
    pub overwriter: Option<Overwriter>,
    /// Stacks that the allocator recorded for the block or the culprit.
    pub stacks: Option<Stacks>,
    /// With `--events`: who allocated the block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<Vec<Frame>>,
    /// With `--events`: who freed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<Vec<Frame>>,
    /// With `--events`: who freed it once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_again_at: Option<Vec<Frame>>,
    /// Who still points at the block, the strongest first, then words that hold nothing any more; at most 16.
    pub referenced_by: Vec<Reference>,
    /// Words that can hold the block, all of them.
    pub referenced_by_count: u64,
    /// Whether it is what the process died of: `yes` only where that is proved.
    #[schemars(extend("examples" = ["yes", "no", "unknown"]))]
    pub explains_crash: String,
    /// The way back from the crash, each step a fact: to this error, or with `no` to what it was instead; with `unknown` as far as it is known.
    pub causes: Vec<Cause>,
    /// What damaged words held before they were written over, where exactly one value fits; the core is not changed.
    pub repairs: Vec<Repair>,
    /// One to three things that a person can do now.
    pub next_steps: Vec<String>,
    /// The same bug in another core of the same program gives the same fingerprint.
    pub fingerprint: Fingerprint,
}

/// A block.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Block {
    /// The pointer that the program knows.
    pub address: Hex,
    /// Usable bytes.
    pub size: u64,
    /// `in-use`, `free` or `lost`.
    #[schemars(extend("examples" = ["in-use", "free", "lost"]))]
    pub state: String,
    /// Bytes from its start to the finding's address.
    pub offset: u64,
    /// What it holds, or held last if it is free; `null` where nothing tells.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// Its first bytes, with `--include-bytes`; else `null`.
    pub bytes: Option<Bytes>,
}

/// What a word held before it was written over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Repair {
    /// The word.
    pub address: Hex,
    /// What it holds.
    pub found: Hex,
    /// What it held.
    pub original: Hex,
    /// Why it can have been nothing else.
    pub proof: String,
}

/// A step of the way back from the crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Cause {
    /// What it is about.
    #[schemars(extend("examples" = [
        "operand", "register", "load", "overwritten", "freed", "held-by", "written-by", "message", "call", "signal",
        "other-error", "never-written",
    ]))]
    pub kind: String,
    /// Where that can be looked at: an instruction, a word, a block.
    pub address: Option<Hex>,
    /// The fact in words.
    pub text: String,
}

/// A type, and how it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Type {
    /// Its name, without what the standard library adds by itself: `Session`, `Session[9]`, `std::map<int, std::string>`.
    pub name: String,
    /// How it is known: by a virtual table, by the type_info that this leads to, by debug information followed from a variable, by what stands in
    /// the block.
    #[schemars(extend("examples" = ["vtable", "rtti", "debug-info", "content"]))]
    pub known_by: String,
    /// The module that has its virtual table or describes it.
    pub module: Option<String>,
    /// Bytes of one object, where they are known.
    pub size: Option<u64>,
    /// The block is free: this is what it held last.
    pub was: bool,
    /// The object may be of a class that is derived from this one.
    pub is_base: bool,
    /// Another source that says something else, in words.
    pub conflict: Option<String>,
}

/// A word in memory that proves a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Evidence {
    /// Its address.
    pub address: Hex,
    /// Its length in bytes.
    pub size: u32,
    /// What it is: `next link`.
    pub what: String,
    /// What it should hold.
    pub expected: String,
    /// What it holds.
    pub found: String,
    /// The bytes around it, at most 32; `null` if the core does not hold them.
    pub dump: Option<Dump>,
}

/// Bytes as they stand in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Dump {
    /// Address of the first.
    pub address: Hex,
    /// The bytes.
    pub bytes: Bytes,
}

/// A place in a free list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Location {
    /// Who keeps the list.
    #[schemars(extend("examples" = [
        "thread-cache", "transfer-cache", "central-list", "span-list", "tcache", "fastbin", "bin", "slab",
    ]))]
    pub holder: String,
    /// The thread whose cache it is, where that could be told.
    pub thread_id: Option<u32>,
    /// Index of its size class.
    pub size_class: u32,
    /// Bytes of a block of that class.
    pub size_class_bytes: u64,
    /// Entries before this one.
    pub position: u64,
    /// Address of the structure that holds the list.
    pub list_address: Hex,
}

/// What the damage cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Collateral {
    /// Free blocks that were cut off from every list.
    pub lost_blocks: u64,
}

/// The block that most likely wrote past its end (or before its start).
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Culprit {
    /// The pointer that the program knows.
    pub address: Hex,
    /// Usable bytes.
    pub size: u64,
    /// `in-use`, `free` or `lost`.
    #[schemars(extend("examples" = ["in-use", "free", "lost"]))]
    pub state: String,
    /// What it holds; `null` where nothing tells.
    #[serde(rename = "type")]
    pub type_of: Option<Type>,
    /// What it holds, in a few words, when that says something.
    pub contents: Option<String>,
    /// Its first bytes, with `--include-bytes`; else `null`.
    pub bytes: Option<Bytes>,
    /// With `--events`: who allocated it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocated_at: Option<Vec<Frame>>,
    /// With `--events`: who freed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_at: Option<Vec<Frame>>,
    /// Who still points at it, as the finding's `referenced_by`.
    pub referenced_by: Vec<Reference>,
    /// Words that can hold it, all of them.
    pub referenced_by_count: u64,
}

/// What the overwriting bytes look like.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Overwriter {
    /// Their class.
    #[schemars(extend("examples" = ["ascii", "utf16", "pointer", "zero", "small-integer", "float", "bit-flip"]))]
    pub class: String,
    /// The text, the pointer's target or the number, for people.
    pub text: Option<String>,
}

/// Call stacks that the allocator itself recorded (sampling, profiling).
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Stacks {
    /// Where the block was allocated.
    pub allocation: Vec<Frame>,
    /// Where it was freed.
    pub deallocation: Vec<Frame>,
}

/// Fingerprints by recipe. A new recipe stands beside the old ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Fingerprint {
    /// Recipe 1: hash over kind, allocator and the identity of culprit or block.
    pub v1: String,
    /// Recipe 2: hash over the program's name, kind, allocator and the identity of culprit or block by names; a rebuild keeps it.
    pub v2: String,
    /// What recipe 2 hashes, readable.
    #[schemars(extend("examples" = ["chat-server | heap-overrun | ptmalloc | sessions"]))]
    pub v2_text: String,
}
