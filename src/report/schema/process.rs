//! The dead process: how it died, its modules, its threads. Names are those of minidump-stackwalk's schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Hex;

/// The dead process.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Process {
    /// File name of the executable.
    pub executable: Option<String>,
    /// Its command line, as far as the core holds it (79 bytes).
    pub arguments: Option<String>,
    /// Real user id.
    pub uid: Option<u32>,
}

/// How the process died.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CrashInfo {
    /// The signal: `SIGSEGV`.
    #[serde(rename = "type")]
    pub signal: Option<String>,
    /// Why it was sent: `SEGV_MAPERR`.
    pub code: Option<String>,
    /// The address that could not be accessed.
    pub address: Option<Hex>,
    /// Index into `threads` of the thread that crashed.
    pub crashing_thread: Option<usize>,
}

/// The thread that crashed.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CrashingThread {
    /// Index into `threads`.
    pub threads_index: usize,
    /// Its general registers by name.
    pub registers: BTreeMap<String, Hex>,
}

/// The system that the process ran on.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct SystemInfo {
    /// `Linux`.
    pub os: String,
    /// `amd64`.
    pub cpu_arch: String,
}

/// An executable or shared library.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Module {
    /// First address.
    pub base_addr: Hex,
    /// End address.
    pub end_addr: Hex,
    /// File name.
    pub filename: String,
    /// Path in the dead process.
    pub path: String,
    /// Build ID in hexadecimal, as the core holds it.
    pub code_id: Option<String>,
    /// Not used on Linux.
    pub debug_id: Option<String>,
    /// Its file was found and could be read.
    pub loaded_symbols: bool,
    /// Its file was not found, or is not the right one.
    pub missing_symbols: bool,
    /// The file that was used has the build ID that the core holds; `false` if there is none to compare, or no file.
    pub verified: bool,
}

/// A thread.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Thread {
    /// Kernel thread id.
    pub thread_id: u32,
    /// Its name, where the core has it.
    pub thread_name: Option<String>,
    /// Number of frames.
    pub frame_count: usize,
    /// Its frames, innermost first.
    pub frames: Vec<Frame>,
}

/// A frame of a call stack.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Frame {
    /// Its number; 0 is the innermost.
    pub frame: usize,
    /// File name of the module that holds `offset`; `null` if none does.
    pub module: Option<String>,
    /// The program counter.
    pub offset: Hex,
    /// `offset` from the start of the module.
    pub module_offset: Option<Hex>,
    /// The function, demangled.
    pub function: Option<String>,
    /// `offset` from the start of the function.
    pub function_offset: Option<Hex>,
    /// Source file.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
    /// How the frame was found.
    #[schemars(extend("examples" = ["context", "cfi", "frame_pointer", "scan", "prewalked"]))]
    pub trust: String,
    /// Functions inlined here, innermost first.
    pub inlines: Vec<Inline>,
}

/// A function that was inlined into a frame.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Inline {
    /// The function, demangled.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in `file`.
    pub line: Option<u32>,
}
