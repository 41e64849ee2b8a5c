//! x86-64: the System V ABI's DWARF numbers (figure 3.36) and the kernel's `struct user_regs_struct`
//! (arch/x86/include/asm/user_64.h), which is the register block of `NT_PRSTATUS`:
//!
//! ```text
//! word  0 r15   5 rbx  10 rax  15 orig_rax  20 ss       25 fs
//!       1 r14   6 r11  11 rcx  16 rip       21 fs_base  26 gs
//!       2 r13   7 r10  12 rdx  17 cs        22 gs_base
//!       3 r12   8 r9   13 rsi  18 eflags    23 ds
//!       4 rbp   9 r8   14 rdi  19 rsp       24 es
//! ```

use super::{ArchInfo, PrPsInfoLayout, PrStatusLayout, Register, SignalFrameLayout, ThreadPointer};

const fn register(name: &'static str, dwarf: u16, word: u16) -> Register {
    Register { name, dwarf, word }
}

/// x86-64 under Linux.
pub const X86_64: ArchInfo = ArchInfo {
    name: "amd64",
    elf_machine: 62, // EM_X86_64
    pointer_bytes: 8,
    little_endian: true,
    default_page_bytes: 4096,
    registers: &[
        register("rax", 0, 10),
        register("rdx", 1, 12),
        register("rcx", 2, 11),
        register("rbx", 3, 5),
        register("rsi", 4, 13),
        register("rdi", 5, 14),
        register("rbp", 6, 4),
        register("rsp", 7, 19),
        register("r8", 8, 9),
        register("r9", 9, 8),
        register("r10", 10, 7),
        register("r11", 11, 6),
        register("r12", 12, 3),
        register("r13", 13, 2),
        register("r14", 14, 1),
        register("r15", 15, 0),
        register("rip", 16, 16),
    ],
    pc: 16,
    sp: 7,
    fp: 6,
    link: None,
    return_address: 16,
    callee_saved: &[3, 6, 12, 13, 14, 15],
    thread_pointer: ThreadPointer::Word(21),
    prstatus: PrStatusLayout {
        signal: 12,
        tid: 32,
        registers: 112,
        system_call: Some(15), // orig_rax
    },
    prpsinfo: PrPsInfoLayout {
        uid: 16,
        gid: 20,
        pid: 24,
        ppid: 28,
        name: 40,
        arguments: 56,
    },
    // The stack pointer is at `struct ucontext`: flags, link, stack (40 bytes), `struct sigcontext` (256; trapno is its word 20,
    // cr2 its word 22), mask (8); then siginfo (arch/x86/include/asm/sigframe.h).
    signal_frame: SignalFrameLayout {
        siginfo: 304,
        trap: Some(40 + 20 * 8),
        fault_address: Some(40 + 22 * 8),
    },
    // arch/x86/include/asm/trapnr.h: divide, debug, breakpoint, overflow, invalid opcode, segment, stack, general protection,
    // page fault, x87, alignment, SIMD.
    traps: &[
        (0, 8),
        (1, 5),
        (3, 5),
        (4, 11),
        (6, 4),
        (11, 7),
        (12, 7),
        (13, 11),
        (14, 11),
        (16, 8),
        (17, 7),
        (19, 8),
    ],
    // arch/x86/entry/syscalls/syscall_64.tbl
    system_calls: &[
        (0, "read"),
        (1, "write"),
        (7, "poll"),
        (17, "pread64"),
        (18, "pwrite64"),
        (19, "readv"),
        (20, "writev"),
        (23, "select"),
        (24, "sched_yield"),
        (34, "pause"),
        (35, "nanosleep"),
        (42, "connect"),
        (43, "accept"),
        (44, "sendto"),
        (45, "recvfrom"),
        (46, "sendmsg"),
        (47, "recvmsg"),
        (61, "wait4"),
        (62, "kill"),
        (72, "fcntl"),
        (73, "flock"),
        (74, "fsync"),
        (75, "fdatasync"),
        (128, "rt_sigtimedwait"),
        (130, "rt_sigsuspend"),
        (200, "tkill"),
        (202, "futex"),
        (208, "io_getevents"),
        (230, "clock_nanosleep"),
        (232, "epoll_wait"),
        (234, "tgkill"),
        (247, "waitid"),
        (270, "pselect6"),
        (271, "ppoll"),
        (281, "epoll_pwait"),
        (288, "accept4"),
        (299, "recvmmsg"),
        (307, "sendmmsg"),
        (426, "io_uring_enter"),
        (441, "epoll_pwait2"),
        (449, "futex_waitv"),
    ],
    page_fault_trap: Some(14),
};
