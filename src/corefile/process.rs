//! What the notes say about the process and its end.

use heaps::target::Address;

/// What `NT_PRPSINFO` says. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: Option<u32>,
    /// Process id of its parent.
    pub parent_pid: Option<u32>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Real group id.
    pub gid: Option<u32>,
    /// File name of the executable, at most 15 bytes (`pr_fname`).
    pub name: Option<String>,
    /// The command line, at most 79 bytes, arguments separated by blanks (`pr_psargs`).
    pub arguments: Option<String>,
}

/// The signal that ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// Its number.
    pub signal: i32,
    /// `si_code`: why it was sent. `None` if the core has no `NT_SIGINFO`.
    pub code: Option<i32>,
    /// The address that could not be accessed, where the signal is of that kind.
    pub fault_address: Option<Address>,
    /// Process and user id of the sender, where the signal was sent by a process.
    pub sender: Option<(u32, u32)>,
}

impl SignalInfo {
    /// Its name as in `signal.h`, e.g. `SIGSEGV`.
    pub fn name(&self) -> Option<&'static str> {
        None
    }

    /// The name of its code as in `signal.h`, e.g. `SEGV_MAPERR`.
    pub fn code_name(&self) -> Option<&'static str> {
        None
    }
}

/// One file mapping of `NT_FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappedFile {
    /// First address.
    pub start: Address,
    /// End address.
    pub end: Address,
    /// Offset in bytes in the file at which `start` lies.
    pub file_offset: u64,
    /// Path in the dead process, as the kernel writes it (` (deleted)` included).
    pub path: String,
}
