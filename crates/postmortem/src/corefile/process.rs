//! What the notes say about the process and its end.

use ground::arch::ArchInfo;
use ground::target::signals::{
    SIGABRT, SIGBUS, SIGCONT, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP, SIGTTOU,
};
use ground::target::{Address, MemoryExt, TargetMemory};

/// What `NT_PRPSINFO` says. Every part may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: Option<u32>,
    /// Process id of its parent.
    pub parent_pid: Option<u32>,
    /// Whether `fork` made it and it never became another program by `exec`, by the kernel's flags.
    pub forked: Option<bool>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Real group id.
    pub gid: Option<u32>,
    /// File name of the executable, at most 15 bytes (`pr_fname`).
    pub name: Option<String>,
    /// The command line, at most 79 bytes, arguments separated by blanks (`pr_psargs`).
    pub arguments: Option<String>,
}

/// What the flags of the process (`pr_flag`, the first thread's `task_struct.flags`; include/linux/sched.h) say of
/// [`Process::forked`]; nothing, if they do not have the one that the kernel sets before it dumps: others write no flags,
/// or not all of them.
pub fn forked(flags: u64) -> Option<bool> {
    const PF_FORKNOEXEC: u64 = 0x40;
    const PF_DUMPCORE: u64 = 0x200;
    (flags & PF_DUMPCORE != 0).then_some(flags & PF_FORKNOEXEC != 0)
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

/// The signal that ended the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo {
    /// Its number.
    pub signal: i32,
    /// `si_code`: why it was sent. `None` if the core has no `NT_SIGINFO`.
    pub code: Option<i32>,
    /// The address that could not be accessed, where the signal is of that kind. A general protection fault (an address
    /// that is not canonical) has none: the processor does not tell it.
    pub fault_address: Option<Address>,
    /// Process and user id of the sender, where the signal was sent by a process.
    pub sender: Option<(u32, u32)>,
}

/// Signals of Linux on x86-64 and arm64 (include/uapi/asm-generic/signal.h), from 1.
const SIGNALS: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// Codes of signals that the kernel sends for a fault (include/uapi/asm-generic/siginfo.h), from 1.
const fn codes(signal: i32) -> &'static [&'static str] {
    match signal {
        SIGILL => &[
            "ILL_ILLOPC",
            "ILL_ILLOPN",
            "ILL_ILLADR",
            "ILL_ILLTRP",
            "ILL_PRVOPC",
            "ILL_PRVREG",
            "ILL_COPROC",
            "ILL_BADSTK",
            "ILL_BADIADDR",
        ],
        SIGTRAP => &[
            "TRAP_BRKPT",
            "TRAP_TRACE",
            "TRAP_BRANCH",
            "TRAP_HWBKPT",
            "TRAP_UNK",
            "TRAP_PERF",
        ],
        SIGBUS => &[
            "BUS_ADRALN",
            "BUS_ADRERR",
            "BUS_OBJERR",
            "BUS_MCEERR_AR",
            "BUS_MCEERR_AO",
        ],
        SIGFPE => &[
            "FPE_INTDIV",
            "FPE_INTOVF",
            "FPE_FLTDIV",
            "FPE_FLTOVF",
            "FPE_FLTUND",
            "FPE_FLTRES",
            "FPE_FLTINV",
            "FPE_FLTSUB",
        ],
        SIGSEGV => &[
            "SEGV_MAPERR",
            "SEGV_ACCERR",
            "SEGV_BNDERR",
            "SEGV_PKUERR",
            "SEGV_ACCADI",
            "SEGV_ADIDERR",
            "SEGV_ADIPERR",
            "SEGV_MTEAERR",
            "SEGV_MTESERR",
            "SEGV_CPERR",
        ],
        SIGSYS => &["SYS_SECCOMP", "SYS_USER_DISPATCH"],
        _ => &[],
    }
}

/// `si_code` of a fault of which the kernel gives no details.
const SI_KERNEL: i32 = 0x80;

impl SignalInfo {
    /// The fault for which the kernel put this frame on a stack, by the `siginfo_t` in it, if the processor's
    /// words beside it say the same.
    ///
    /// Only handlers that ask for a `siginfo_t` are given one. In other frames old words of the stack stand
    /// in its place, and those may look like one: an alarm that interrupted `malloc` was taken for a
    /// forbidden system call there.
    pub fn of_frame(memory: &dyn TargetMemory, arch: &ArchInfo, frame: Address) -> Option<Self> {
        /// `si_call_addr`: behind the system call.
        const CALL_ADDRESS: u64 = 16;
        let layout = &arch.signal_frame;
        let info = frame.checked_add(layout.siginfo)?;
        let mut bytes = [0; 32];
        memory.read_into(info, &mut bytes).ok()?;
        let signal = Self::parse(&bytes, arch.little_endian)?;
        if !signal.is_fault() || signal.code_name().is_none() {
            return None;
        }
        let word = |offset: u64| memory.read_u64(frame.checked_add(offset)?).ok();
        let place = layout.order.iter().position(|number| *number == arch.pc)?;
        let pc = word(
            layout
                .registers
                .checked_add(u64::try_from(place).ok()?.checked_mul(8)?)?,
        )?;
        let address = signal.fault_address.map(Address::get);
        let is_access = matches!(signal.signal, SIGSEGV | SIGBUS);
        let agrees = match layout.trap {
            _ if signal.signal == SIGSYS => {
                let call = memory.read_u64(info.checked_add(CALL_ADDRESS)?).ok();
                call == Some(pc)
            }
            Some(trap) => {
                let trap = word(trap)?;
                if Some(trap) == arch.page_fault_trap {
                    is_access && address.is_some() && address == layout.fault_address.and_then(word)
                } else {
                    // Of other traps the address is that of the instruction, or none: zero for an access that
                    // is not aligned.
                    let is_none = |address| address == 0 && signal.signal == SIGBUS;
                    arch.signal_of_trap(trap) == Some(signal.signal)
                        && address.is_none_or(|address| address == pc || is_none(address))
                }
            }
            None if is_access => {
                let fault = layout.fault_address.and_then(word)?;
                // The highest byte of a pointer may be a tag, which one of the two does not have.
                let without_tag = |address: u64| address << 8;
                address.is_some_and(|address| without_tag(address) == without_tag(fault))
            }
            None => address == Some(pc),
        };
        agrees.then_some(signal)
    }

    /// Its name as in `signal.h`, e.g. `SIGSEGV`. `None` for real-time signals.
    pub fn name(&self) -> Option<&'static str> {
        let index = usize::try_from(self.signal).ok()?.checked_sub(1)?;
        SIGNALS.get(index).copied()
    }

    /// The name of its code as in `siginfo.h`, e.g. `SEGV_MAPERR`.
    pub fn code_name(&self) -> Option<&'static str> {
        match self.code? {
            SI_KERNEL => Some("SI_KERNEL"),
            0 => Some("SI_USER"),
            -1 => Some("SI_QUEUE"),
            -2 => Some("SI_TIMER"),
            -3 => Some("SI_MESGQ"),
            -4 => Some("SI_ASYNCIO"),
            -5 => Some("SI_SIGIO"),
            -6 => Some("SI_TKILL"),
            code => {
                let index = usize::try_from(code).ok()?.checked_sub(1)?;
                codes(self.signal).get(index).copied()
            }
        }
    }

    /// Whether the signal means that the program itself did wrong, as opposed to a stop or a kill from outside.
    pub(super) fn is_crash(&self) -> bool {
        let is_fault = matches!(
            self.signal,
            SIGILL | SIGBUS | SIGFPE | SIGSEGV | SIGSYS | SIGABRT
        );
        is_fault || (self.signal == SIGTRAP && self.code == Some(SI_KERNEL))
    }

    /// Whether an instruction of the program raised it: a fault, as far as the code tells.
    pub fn is_fault(&self) -> bool {
        let kind = matches!(
            self.signal,
            SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV | SIGSYS
        );
        kind && self.code.is_none_or(|code| code > 0)
    }

    /// Whether it is the signal of `abort()`.
    pub fn is_abort(&self) -> bool {
        self.signal == SIGABRT
    }

    /// Whether it is the signal for an instruction that is none.
    pub fn is_illegal_instruction(&self) -> bool {
        self.signal == SIGILL
    }

    /// Whether the signal only stops a process: gdb's gcore stops a living one to copy it, and it goes on afterwards.
    pub(super) fn is_stop(&self) -> bool {
        matches!(self.signal, SIGCONT..=SIGTTOU)
    }

    /// Whether `siginfo_t` holds the address of a fault.
    pub(super) fn has_address(&self) -> bool {
        let kind = matches!(self.signal, SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV);
        kind && self.code.is_some_and(|code| code > 0 && code != SI_KERNEL)
    }

    /// Whether `siginfo_t` holds the process that sent the signal.
    pub(super) fn has_sender(&self) -> bool {
        matches!(self.code, Some(0 | -1 | -6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal(signal: i32, code: i32) -> SignalInfo {
        SignalInfo {
            signal,
            code: Some(code),
            fault_address: None,
            sender: None,
        }
    }

    #[test]
    fn only_the_kernels_own_flags_tell_of_fork() {
        assert_eq!(super::forked(0x40_0640), Some(true));
        assert_eq!(super::forked(0x40_0600), Some(false));
        // gcore writes the flags of a process that does not dump; others write none.
        assert_eq!(super::forked(0x40_0040), None);
        assert_eq!(super::forked(0), None);
    }

    #[test]
    fn names_are_those_of_the_headers() {
        assert_eq!(signal(11, 1).name(), Some("SIGSEGV"));
        assert_eq!(signal(11, 1).code_name(), Some("SEGV_MAPERR"));
        assert_eq!(signal(11, 128).code_name(), Some("SI_KERNEL"));
        assert_eq!(signal(6, -6).name(), Some("SIGABRT"));
        assert_eq!(signal(6, -6).code_name(), Some("SI_TKILL"));
        assert_eq!(signal(31, 1).name(), Some("SIGSYS"));
        assert_eq!(signal(0, 99).name(), None);
        assert_eq!(signal(-5, 99).code_name(), None);
        assert_eq!(signal(64, 0).name(), None);
    }

    #[test]
    fn only_a_fault_has_an_address() {
        assert!(signal(11, 1).has_address());
        assert!(!signal(11, SI_KERNEL).has_address());
        assert!(!signal(11, 0).has_address() && signal(11, 0).has_sender());
        assert!(!signal(6, 1).has_address());
    }
}
