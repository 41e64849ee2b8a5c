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

use crate::target::InstructionSet;

use super::{
    ArchInfo, Call, CallRules, PrPsInfoLayout, PrStatusLayout, Register, SignalFrameLayout,
    SystemCall, ThreadPointer,
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
        order: &[8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16],
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
        syscalls::x86_64::Sysno::new(number).map(|call| call.name())
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
        let wanted = 2 + usize::from(sib.is_some()) + displacement;
        (wanted == length).then_some(Call::Indirect)
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
