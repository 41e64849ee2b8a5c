//! The report as pipelines see it: JSON version 1, field for field the contract in `docs/report.md`.
//!
//! Fields are only ever added; [`SCHEMA_VERSION`] changes when one is renamed, removed or changes its meaning. Every field
//! is present in every report. The crash, thread, frame and module objects use the field names of minidump-stackwalk's
//! schema, so that a consumer of those can read them.
//!
//! Sets that grow (kinds, holders, trusts, allocators) are strings with their known values as examples, because a
//! consumer must accept new ones; sets that decide what a consumer does (severity, status) are closed enums.

mod finding;
mod graph;
mod heap;
mod inspect;
mod process;
mod usage;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

pub use finding::{
    Block, Cause, Collateral, Confidence, Culprit, Dump, Evidence, Finding, Fingerprint, Location,
    Overwriter, Repair, Severity, Stacks, Type,
};
pub use graph::{
    LeakGroup, LeakedBlock, Leaks, LostMapping, Reference, References, Since, Sum, Tree, TreeRow,
};
pub use heap::{
    Allocator, Coverage, Details, HeapMap, HeapPiece, Located, Memory, SizeClass, Statistics,
    Tally, UnsupportedAllocator,
};
pub use inspect::{InspectedAddress, InspectedMapping, InspectedWord, Neighbour};
pub use process::{
    AbortMessage, AdjustedAddress, AllocatorCall, CalledFrom, CameFrom, CrashInfo, CrashingThread,
    Exception, Frame, HandledSignal, Inline, Instruction, MemoryAccess, MemoryOperand, Module,
    OmittedFrames, Process, PureVirtualCall, RegisterMeaning, SanitizerReport, Sender, SystemInfo,
    Thread,
};

pub use usage::{
    AllocatorFigures, BlockSize, Figures, LargeBlock, MadeOf, Mapping, MemoryKind, Owner,
    PythonObjects, Reclaimable, Suspect, TypeUse, Usage,
};

/// The version of this schema.
pub const SCHEMA_VERSION: u32 = 1;

/// An address: in JSON a string of lower-case hexadecimal with `0x`, unpadded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl From<ground::target::Address> for Hex {
    fn from(address: ground::target::Address) -> Self {
        Self(address.get())
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Hex {
    fn schema_name() -> Cow<'static, str> {
        "Hex".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^0x(0|[1-9a-f][0-9a-f]{0,15})$",
            "description": "An address or offset: lower-case hexadecimal with 0x, unpadded",
        })
    }
}

/// Bytes of the dead process's memory: in JSON a string of two hexadecimal digits a byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex_digits(&self.0))
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^([0-9a-f]{2})*$",
            "description": "Bytes of memory, two hexadecimal digits each",
        })
    }
}

/// Two lower-case digits a byte, as build IDs are written.
pub fn hex_digits(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// What heapcheck prints with `--format json`: one of two documents, told apart by `status`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(title = "heapcheck report")]
pub enum Document {
    /// The core was analysed, as far as `limits` says.
    Report(Box<Report>),
    /// It was not.
    Error(ErrorDocument),
    /// The JSON schema of these documents.
    #[schemars(skip)]
    Schema(serde_json::Value),
}

/// The command that a report answers; a view shows what it asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Command {
    /// Is the heap damaged?
    #[default]
    Check,
    /// Where was every thread?
    Stacks,
    /// Who points there?
    Refs,
    /// What does nobody point at?
    Leaks,
    /// What is there?
    Inspect,
    /// What is mapped?
    Maps,
    /// Where is the memory?
    Usage,
}

/// `status` of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum StatusOk {
    /// The core was analysed, as far as `limits` says.
    #[default]
    #[serde(rename = "OK")]
    Ok,
}

/// `status` of an error document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub enum StatusError {
    /// Nothing was analysed (exit status 2).
    #[default]
    #[serde(rename = "ERROR")]
    Error,
}

/// Nothing was analysed: bad usage, not a core, an unreadable file, a refused `--allocator`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorDocument {
    /// Version of the schema.
    pub schema_version: u32,
    /// `ERROR`.
    pub status: StatusError,
    /// Why.
    pub error: ErrorMessage,
}

impl ErrorDocument {
    /// The document for an error.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            status: StatusError::Error,
            error: ErrorMessage {
                message: message.into(),
            },
        }
    }
}

/// Why nothing was analysed.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ErrorMessage {
    /// One sentence.
    pub message: String,
}

/// Everything that heapcheck says about one core.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Report {
    /// What was asked.
    #[serde(skip)]
    pub command: Command,
    /// Version of the schema.
    pub schema_version: u32,
    /// `OK`.
    pub status: StatusOk,
    /// Who wrote this report.
    pub tool: Tool,
    /// The core file.
    pub core: Core,
    /// Process id.
    pub pid: Option<u32>,
    /// `--kv name=value` from the command line, for indexing.
    pub attributes: BTreeMap<String, String>,
    /// Short tags of this crash, from findings and signal: `double-free`, `segmentation-violation`.
    pub classifiers: Vec<String>,
    /// The dead process.
    pub process: Process,
    /// How it died.
    pub crash_info: CrashInfo,
    /// The thread that crashed; `null` if the core does not tell.
    pub crashing_thread: Option<CrashingThread>,
    /// The system it ran on.
    pub system_info: SystemInfo,
    /// Executable and shared libraries, by address.
    pub modules: Vec<Module>,
    /// Threads, the crashing one first where the core tells.
    pub threads: Vec<Thread>,
    /// The allocators that were recognised.
    pub allocators: Vec<Allocator>,
    /// Allocators that are in the process and that this version does not walk.
    pub unsupported_allocators: Vec<UnsupportedAllocator>,
    /// The writable memory and what of it was looked at; `null` where no heap was asked for.
    pub memory: Option<Memory>,
    /// What is wrong, most severe first.
    pub findings: Vec<Finding>,
    /// Who points at the addresses that `refs` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub references: Option<Vec<References>>,
    /// What the addresses are that `inspect` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Vec<InspectedAddress>>,
    /// What `leaks` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leaks: Option<Leaks>,
    /// What `usage` found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// What `maps` found: every mapping, cut where one kind of memory ends and another begins, by address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mappings: Option<Vec<Mapping>>,
    /// The log of `--events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<EventsLog>,
    /// Something beside findings is at or above the threshold of exit status 1.
    #[serde(skip)]
    pub is_found: bool,
    /// Findings by severity.
    pub summary: Summary,
    /// What was not checked, and why: silence is not health.
    pub limits: Vec<Limit>,
    /// What was odd about the input.
    pub diagnostics: Vec<Diagnostic>,
}

/// The program that wrote the report.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Tool {
    /// `heapcheck`.
    pub name: String,
    /// Its version.
    pub version: String,
}

impl Default for Tool {
    fn default() -> Self {
        Self {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The core file.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Core {
    /// The path it was opened by; `-` for standard input.
    pub path: String,
    /// Its size in bytes, unpacked.
    pub size: u64,
    /// Files that were found but not used, because they are not the ones that the process had mapped.
    pub build_id_mismatches: Vec<BuildIdMismatch>,
    /// It ends before its program headers say.
    pub truncated: bool,
    /// When the file was last written to, in seconds since the epoch; `null` for standard input.
    pub time: Option<f64>,
}

/// A file that is not the one that the process had mapped.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct BuildIdMismatch {
    /// The module, as the core names it.
    pub module: String,
    /// The file that was not used.
    pub path: String,
    /// Build ID in the core.
    pub expected: Option<String>,
    /// Build ID of the file.
    pub found: Option<String>,
}

/// Findings by severity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// The heap is damaged.
    pub critical: u64,
    /// Worth a look.
    pub warning: u64,
    /// States that the allocator passes through.
    pub note: u64,
    /// Further findings, counted but left out: only a number of each kind is kept.
    pub dropped: u64,
}

/// A log of the same run that was joined with the core.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct EventsLog {
    /// The log as it was named.
    pub file: String,
    /// The tool that wrote it.
    #[schemars(extend("examples" = ["mtrace", "memleak", "tcmalloc", "jemalloc"]))]
    pub tool: String,
    /// Calls, or stacks of a profile.
    pub records: u64,
    /// Records that could be held against the core: blocks in use, or stacks.
    pub compared: u64,
    /// Of these, those that the core denies; more than 1 in 100 and the log is refused.
    pub contradicting: u64,
    /// Bytes of it that the process had not written yet: they come from the core.
    pub unwritten_bytes: u64,
    /// Every call is in it; else what it does not have proves nothing.
    pub complete: bool,
}

/// Something that was not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Limit {
    /// What was not checked.
    pub what: String,
    /// Why not, and what would change it.
    pub why: String,
    /// The analysis as a whole is incomplete because of it (exit status 3).
    pub incomplete: bool,
}

/// Something odd about the input that did not stop the analysis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Diagnostic {
    /// How odd.
    pub level: Level,
    /// One sentence.
    pub message: String,
}

/// Level of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something was not used or not believed.
    Warning,
    /// Worth knowing.
    Note,
}
