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

use syscalls::x86_64::Sysno;

use super::{
    ArchInfo, Call, CallRules, InstructionSet, PrPsInfoLayout, PrStatusLayout, Register,
    SignalFrameLayout, SystemCall, ThreadPointer,
};

/// DWARF numbers of the registers.
#[allow(missing_docs)]
pub mod registers {
    pub const RAX: u16 = 0;
    pub const RDX: u16 = 1;
    pub const RCX: u16 = 2;
    pub const RBX: u16 = 3;
    pub const RSI: u16 = 4;
    pub const RDI: u16 = 5;
    pub const RBP: u16 = 6;
    pub const RSP: u16 = 7;
    pub const R8: u16 = 8;
    pub const R9: u16 = 9;
    pub const R10: u16 = 10;
    pub const R11: u16 = 11;
    pub const R12: u16 = 12;
    pub const R13: u16 = 13;
    pub const R14: u16 = 14;
    pub const R15: u16 = 15;
    pub const RIP: u16 = 16;

    /// The general registers in the order of the processor's own numbers.
    pub const BY_PROCESSOR: [u16; 16] = [
        RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15,
    ];

    /// What a called function may change.
    pub const VOLATILE: [u16; 9] = [RAX, RCX, RDX, RSI, RDI, R8, R9, R10, R11];
}

/// Numbers of the system calls that tell what a thread is at.
pub mod calls {
    use super::Sysno;

    /// Waits for, or wakes, whoever shares a word of memory.
    pub const FUTEX: u64 = Sysno::futex as u64;
    /// Sends a signal to a process.
    pub const KILL: u64 = Sysno::kill as u64;
    /// Sends a signal to a thread.
    pub const TGKILL: u64 = Sysno::tgkill as u64;
    /// Blocks signals, or lets them through.
    pub const RT_SIGPROCMASK: u64 = Sysno::rt_sigprocmask as u64;

    /// Calls that start a thread or a process.
    pub const STARTS: [u64; 4] = [
        Sysno::clone as u64,
        Sysno::fork as u64,
        Sysno::vfork as u64,
        Sysno::clone3 as u64,
    ];

    /// Calls that wait for something outside, and that no allocator makes.
    pub const WAITS: [u64; 18] = [
        Sysno::read as u64,
        Sysno::poll as u64,
        Sysno::select as u64,
        Sysno::pause as u64,
        Sysno::accept as u64,
        Sysno::recvfrom as u64,
        Sysno::recvmsg as u64,
        Sysno::wait4 as u64,
        Sysno::rt_sigtimedwait as u64,
        Sysno::rt_sigsuspend as u64,
        Sysno::epoll_wait as u64,
        Sysno::waitid as u64,
        Sysno::pselect6 as u64,
        Sysno::ppoll as u64,
        Sysno::epoll_pwait as u64,
        Sysno::accept4 as u64,
        Sysno::recvmmsg as u64,
        Sysno::epoll_pwait2 as u64,
    ];
}

use registers::{
    R8, R9, R10, R11, R12, R13, R14, R15, RAX, RBP, RBX, RCX, RDI, RDX, RIP, RSI, RSP,
};

const fn register(name: &'static str, dwarf: u16, word: u16) -> Register {
    Register { name, dwarf, word }
}

/// x86-64 under Linux.
pub const X86_64: ArchInfo = ArchInfo {
    name: "amd64",
    elf_machine: 62, // EM_X86_64
    instruction_set: InstructionSet::X86_64,
    pointer_bytes: 8,
    little_endian: true,
    default_page_bytes: 4096,
    registers: &[
        register("rax", RAX, 10),
        register("rdx", RDX, 12),
        register("rcx", RCX, 11),
        register("rbx", RBX, 5),
        register("rsi", RSI, 13),
        register("rdi", RDI, 14),
        register("rbp", RBP, 4),
        register("rsp", RSP, 19),
        register("r8", R8, 9),
        register("r9", R9, 8),
        register("r10", R10, 7),
        register("r11", R11, 6),
        register("r12", R12, 3),
        register("r13", R13, 2),
        register("r14", R14, 1),
        register("r15", R15, 0),
        register("rip", RIP, 16),
    ],
    pc: RIP,
    sp: RSP,
    fp: RBP,
    link: None,
    return_address: RIP,
    callee_saved: &[RBX, RBP, R12, R13, R14, R15],
    calls: CallRules {
        bytes: 8,
        before: call_before,
        stack_align: 8,
    },
    code_mask: u64::MAX,
    code_mask_note: None,
    thread_pointer: ThreadPointer::Word(21),
    prstatus: PrStatusLayout {
        signal: 12,
        blocked_signals: 24,
        group: 40,
        tid: 32,
        registers: 112,
    },
    prpsinfo: PrPsInfoLayout {
        flags: 8,
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
        // mov $15, %rax (rt_sigreturn); syscall
        trampoline: &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
        registers: 40,
        order: &[
            R8, R9, R10, R11, R12, R13, R14, R15, RDI, RSI, RBP, RBX, RDX, RAX, RCX, RSP, RIP,
        ],
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
    system_call: SystemCall::Word(15), // orig_rax
    system_call_name: |number| {
        let number = usize::try_from(number).ok()?;
        Sysno::new(number).map(|call| call.name())
    },
    page_fault_trap: Some(14),
};

/// `e8 rel32`, or `ff /2` with any operand and an optional prefix.
fn call_before(bytes: &[u8]) -> Option<Call> {
    if let Some((&[0xe8, a, b, c, d], _)) = bytes
        .split_last_chunk::<5>()
        .map(|(rest, call)| (call, rest))
    {
        return Some(Call::Direct(i32::from_le_bytes([a, b, c, d]).into()));
    }
    (2..=7usize).find_map(|length| {
        let at = bytes.len().checked_sub(length)?;
        let (&opcode, operand) = bytes.get(at..)?.split_first()?;
        let &modrm = operand.first()?;
        let mode = modrm >> 6;
        let base = modrm & 7;
        if opcode != 0xff || modrm >> 3 & 7 != 2 {
            return None;
        }
        let sib = (mode != 3 && base == 4).then(|| operand.get(1).copied());
        let sib_base_none = matches!(sib, Some(Some(sib)) if sib & 7 == 5 && mode == 0);
        let displacement = match mode {
            0 if base == 5 || sib_base_none => 4,
            1 => 1,
            2 => 4,
            _ => 0,
        };
        let left = length.checked_sub(2)?.checked_sub(sib.is_some().into())?;
        (left == displacement).then_some(Call::Indirect)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_code() {
        let call = |bytes: &[u8]| call_before(bytes);
        assert_eq!(
            call(&[0xe8, 0xfb, 0xff, 0xff, 0xff]),
            Some(Call::Direct(-5))
        );
        for indirect in [
            &[0xff, 0xd0][..],                        // call *%rax
            &[0x41, 0xff, 0xd4],                      // call *%r12
            &[0xff, 0x10],                            // call *(%rax)
            &[0xff, 0x50, 0x18],                      // call *0x18(%rax)
            &[0xff, 0x15, 1, 2, 3, 0],                // call *x(%rip)
            &[0xff, 0x14, 0xc7],                      // call *(%rdi,%rax,8)
            &[0xff, 0x54, 0x24, 0x08],                // call *8(%rsp)
            &[0xff, 0x94, 0xc3, 0x00, 0x01, 0x00, 0], // call *0x100(%rbx,%rax,8)
            &[0xff, 0x14, 0xc5, 0x00, 0x01, 0x00, 0], // call *0x100(,%rax,8)
        ] {
            assert_eq!(call(indirect), Some(Call::Indirect), "{indirect:x?}");
        }
        for other in [
            &[0x90, 0x90, 0x90][..],
            &[0xff, 0xe0],
            &[0xff, 0x30],
            &[],
            &[0xc3],
        ] {
            assert_eq!(call(other), None, "{other:x?}");
        }
    }
}
