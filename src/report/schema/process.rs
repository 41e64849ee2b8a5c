//! The dead process: how it died, its modules, its threads. Names are those of minidump-stackwalk's schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{Block, Bytes, Cause, Hex};

/// The dead process.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Process {
    /// File name of the executable.
    pub executable: Option<String>,
    /// The name that it had: by what it was started as (a symbolic link's name), or what it called itself; 15 bytes.
    pub name: Option<String>,
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
    /// What `address` hides: the processor does not tell an address that is not canonical; a small one is an offset from null.
    pub adjusted_address: Option<AdjustedAddress>,
    /// The process that sent the signal, if one did.
    pub sender: Option<Sender>,
    /// Index into `threads` of the thread that crashed.
    pub crashing_thread: Option<usize>,
    /// Index into its frames of the one at fault: not 0 if a handler ran for an earlier signal.
    pub crashing_frame: Option<usize>,
    /// The signal that the handler ran for: what went wrong first.
    pub handled: Option<HandledSignal>,
    /// The instruction at fault, if one was: in assembler, destination first.
    pub instruction: Option<String>,
    /// The same in detail.
    pub instruction_details: Option<Instruction>,
    /// The memory that the instruction works on, what the fault is about first, as far as addresses are known; `null` if there
    /// is no instruction at fault.
    pub memory_accesses: Option<Vec<MemoryAccess>>,
    /// What the C library said before it aborted.
    pub abort_message: Option<AbortMessage>,
    /// What a sanitizer found and said before it ended the process.
    pub sanitizer_report: Option<SanitizerReport>,
    /// The C++ exception that nobody caught.
    pub exception: Option<Exception>,
    /// The virtual function without a body that it called: the object was destroyed before, or is being made.
    pub pure_virtual_call: Option<PureVirtualCall>,
    /// Where the value came from that it died of, if the code and the core tell.
    pub came_from: Option<CameFrom>,
    /// What the registers of the frame at fault hold; empty where the heap was not checked.
    pub values: Vec<RegisterMeaning>,
    /// The innermost function of the user's own code, if the C library's, a runtime's or an allocator's is above it.
    pub called_from: Option<CalledFrom>,
    /// For grouping cores: the kind of crash and the names of the three innermost functions that are the program's own. A
    /// rebuild keeps it.
    #[schemars(extend("examples" = ["SIGSEGV | parse | load | main"]))]
    pub crash_signature: Option<String>,
    /// The call of the allocator that it died in, or that the allocator refused.
    pub call: Option<AllocatorCall>,
}

/// A call of a virtual function that has no body.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct PureVirtualCall {
    /// The number of the frame that made it.
    pub frame: usize,
    /// The function of that frame.
    pub function: Option<String>,
    /// The object, where the code tells it.
    pub object: Option<Hex>,
}

/// Where a value came from.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CameFrom {
    /// The value.
    pub value: Hex,
    /// The word that it was loaded from; `null` where the value itself tells what it is.
    pub address: Option<Hex>,
    /// What that word is, or what the value is.
    pub meaning: String,
    /// The block that the word lies in, or that the value was to lead to.
    pub block: Option<Block>,
    /// The member of the block's object that the word is, where debug information tells.
    pub member: Option<String>,
    /// The function that loaded it.
    pub function: Option<String>,
    /// The number of its frame.
    pub frame: Option<usize>,
    /// The way from the crash back to there.
    pub steps: Vec<Cause>,
}

/// What a register holds.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct RegisterMeaning {
    /// Its name: `rax`; `operand` for the address that the instruction at fault works on.
    pub register: String,
    /// Its value.
    pub value: Hex,
    /// What that is.
    #[schemars(extend("examples" = [
        "free-block", "block", "past-end", "allocator-word", "filling", "text", "stack", "code", "static", "mapped", "null", "number",
        "unmapped",
    ]))]
    pub what: String,
    /// The same in words: which block, what a link stands for.
    pub meaning: String,
    /// The block that it leads into, or just past the end of.
    pub block: Option<Block>,
}

/// A function on the stack.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CalledFrom {
    /// The number of its frame.
    pub frame: usize,
    /// The function, which may be one that is inlined into the frame.
    pub function: Option<String>,
}

/// What the address of a fault hides.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct AdjustedAddress {
    /// `non-canonical`: `address` is what could not be accessed; `null-pointer`: a null pointer and `offset`.
    #[schemars(extend("examples" = ["non-canonical", "null-pointer"]))]
    pub kind: String,
    /// The address, if it is not canonical.
    pub address: Option<Hex>,
    /// The offset from null.
    pub offset: Option<Hex>,
}

/// The process that sent a signal.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct Sender {
    /// Process id, as the dead process saw it.
    pub pid: u32,
    /// Real user id.
    pub uid: u32,
}

/// Memory that an instruction works on, in short.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct MemoryAccess {
    /// Its first byte.
    pub address: Hex,
    /// Bytes; `null` if the instruction does not say.
    pub size: Option<u64>,
    /// What is done to it; `null` for the target of a jump.
    #[schemars(extend("examples" = ["read", "write", "read-write"]))]
    pub access_type: Option<String>,
    /// It lies in a mapping that nobody may access, such as those behind stacks.
    pub is_likely_guard_page: bool,
}

/// A call of the allocator that the process died in.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct AllocatorCall {
    /// What was called: `free`, `realloc`, `operator delete`.
    #[schemars(extend("examples" = ["free", "realloc", "operator delete"]))]
    pub function: String,
    /// Index into the crashing thread's frames of the one that called it.
    pub frame: usize,
    /// The pointer that it was given; `null` if it is not known.
    pub pointer: Option<Hex>,
    /// How the pointer is known: `call-site`: by the code of the caller; `register`,
    /// `stored`: by the allocator's own code, from a register or a word that it keeps it in; `message`: it says so.
    #[schemars(extend("examples" = ["call-site", "register", "stored", "message"]))]
    pub source: Option<String>,
    /// No other pointer is possible, or two sources agree.
    pub certain: Option<bool>,
    /// The word in memory that the caller loaded it from, where the code tells.
    pub loaded_from: Option<Hex>,
}

/// A signal for which the program's own handler ran before it died.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct HandledSignal {
    /// The signal: `SIGSEGV`.
    #[serde(rename = "type")]
    pub signal: String,
    /// Why it was sent, if the handler was told.
    pub code: Option<String>,
    /// The address that could not be accessed.
    pub address: Option<Hex>,
}

/// A decoded instruction.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Instruction {
    /// Where it stands.
    pub address: Hex,
    /// Its bytes.
    pub bytes: Bytes,
    /// In assembler, destination first.
    pub text: String,
    /// The memory that it works on; what the fault is about first.
    pub memory: Vec<MemoryOperand>,
    /// Whether the first of `memory` is what could not be accessed.
    pub explains_fault: bool,
}

/// Memory that an instruction works on.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct MemoryOperand {
    /// What is done to it.
    #[schemars(extend("examples" = ["read", "write", "read-write", "execute"]))]
    pub access: String,
    /// Its first byte; `null` if a register that makes it is not known.
    pub address: Option<Hex>,
    /// Bytes; 0 if the instruction does not say.
    pub size: u64,
    /// How the address is made: `rax + rcx*8 + 0x10`.
    pub expression: String,
    /// The registers that make it, by name.
    pub registers: BTreeMap<String, Option<Hex>>,
}

/// What the C library said before it aborted.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct AbortMessage {
    /// The message.
    pub text: String,
    /// Where it stands.
    pub address: Hex,
    /// How it was found.
    #[schemars(extend("examples" = ["symbols", "structure", "stack"]))]
    pub found_by: String,
}

/// The beginning of a sanitizer's report, as it stands in memory.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct SanitizerReport {
    /// Where it stands.
    pub address: Hex,
    /// Its first lines, 24 at most.
    pub lines: Vec<String>,
}

/// A C++ exception.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Exception {
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// The object that was thrown.
    pub address: Hex,
    /// What it says (`what()`), for types whose layout is known.
    pub message: Option<String>,
}

/// The thread that crashed.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct CrashingThread {
    /// Index into `threads`.
    pub threads_index: usize,
    /// Its general registers at death, by name.
    pub registers: BTreeMap<String, Hex>,
    /// The registers of the frame at fault, as far as they are known, if that is not the innermost.
    pub frame_registers: Option<BTreeMap<String, Hex>>,
    /// As in `threads`.
    pub thread_name: Option<String>,
    /// As in `threads`.
    pub frame_count: usize,
    /// As in `threads`.
    pub frames: Vec<Frame>,
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
    /// File name, for looking up symbol files.
    pub debug_file: String,
    /// The build ID as symbol files of Breakpad are named: its first 16 bytes as a GUID, and an age of 0.
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
    /// What it was doing: `running`, or the system call it was in (`in futex`, `in system call 999`).
    #[schemars(extend("examples" = ["running", "in futex"]))]
    pub state: Option<String>,
    /// Number of `frames`.
    pub frame_count: usize,
    /// Frames in the middle of a very deep stack that were walked but are not in `frames`.
    pub omitted_frames: Option<OmittedFrames>,
    /// Why there is no frame beyond the last: `complete` if it is the outermost function; `not-in-core`: the stack's memory
    /// is missing; `not-rising`: the next frame would not lie above it; `lost`: nothing leads further; `overwritten`: a return
    /// address on the way is in no code, and frames beyond it are a guess; `no-file`: a module on the way has no file with
    /// call-frame information, so why it ends is not known; `too-long`.
    #[schemars(extend("examples" = ["complete", "not-in-core", "not-rising", "lost", "overwritten", "no-file", "too-long"]))]
    pub stack_end: Option<String>,
    /// Its frames, innermost first.
    pub frames: Vec<Frame>,
}

/// Frames of a very deep stack that are not listed.
#[derive(Clone, Copy, Debug, Default, Serialize, JsonSchema)]
pub struct OmittedFrames {
    /// They lie before this index of `frames`.
    pub before: usize,
    /// How many.
    pub count: u64,
}

/// A frame of a call stack.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Frame {
    /// Its number; 0 is the innermost. Frames that were omitted are counted.
    pub frame: usize,
    /// File name of the module that holds `offset`; `null` if none does.
    pub module: Option<String>,
    /// The instruction: the program counter of the innermost frame and of one that a signal interrupted; else the last byte of
    /// the call, one before the return address.
    pub offset: Hex,
    /// Where the frame goes on: `offset`, or the return address.
    pub resume_address: Hex,
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
