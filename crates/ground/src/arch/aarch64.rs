//! aarch64: the DWARF numbers of the Arm ABI (aadwarf64, "DWARF register names") and the kernel's `struct user_pt_regs`
//! (arch/arm64/include/uapi/asm/ptrace.h), which is the register block of `NT_PRSTATUS`: x0 to x30, sp, pc, pstate.
//!
//! A call leaves its return address in x30, so that the frame of a function that calls nothing has none on its stack; what a
//! function saves is mostly a pair of x29 and x30, anywhere in its frame, and x29 points at it.

use super::{
    ArchInfo, Call, CallRules, InstructionSet, PrPsInfoLayout, PrStatusLayout, Register,
    SignalFrameLayout, SystemCall, ThreadPointer,
};

const fn register(name: &'static str, number: u16) -> Register {
    Register {
        name,
        dwarf: number,
        word: number,
    }
}

/// aarch64 under Linux.
pub const AARCH64: ArchInfo = ArchInfo {
    name: "arm64",
    elf_machine: 183, // EM_AARCH64
    instruction_set: InstructionSet::Aarch64,
    pointer_bytes: 8,
    little_endian: true,
    default_page_bytes: 4096,
    registers: &[
        register("x0", 0),
        register("x1", 1),
        register("x2", 2),
        register("x3", 3),
        register("x4", 4),
        register("x5", 5),
        register("x6", 6),
        register("x7", 7),
        register("x8", 8),
        register("x9", 9),
        register("x10", 10),
        register("x11", 11),
        register("x12", 12),
        register("x13", 13),
        register("x14", 14),
        register("x15", 15),
        register("x16", 16),
        register("x17", 17),
        register("x18", 18),
        register("x19", 19),
        register("x20", 20),
        register("x21", 21),
        register("x22", 22),
        register("x23", 23),
        register("x24", 24),
        register("x25", 25),
        register("x26", 26),
        register("x27", 27),
        register("x28", 28),
        register("x29", 29),
        register("x30", 30),
        register("sp", 31),
        register("pc", 32),
    ],
    pc: 32,
    sp: 31,
    fp: 29,
    link: Some(30),
    return_address: 30,
    callee_saved: &[19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29],
    calls: CallRules {
        bytes: 4,
        before: call_before,
        stack_align: 16,
    },
    // Addresses of programs have 48 bits, unless they ask for more (52); the kernel's note knows.
    code_mask: (1 << 48) - 1,
    code_mask_note: Some(0x406),                // NT_ARM_PAC_MASK
    thread_pointer: ThreadPointer::Note(0x401), // NT_ARM_TLS
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
    // The stack pointer is at `struct rt_sigframe` (arch/arm64/kernel/signal.c): siginfo (128 bytes), then `struct ucontext`:
    // flags, link, stack (40 bytes), mask (8, and room for 120 more), and, aligned to 16, `struct sigcontext`: the address of
    // the fault, x0 to x30, sp, pc.
    signal_frame: SignalFrameLayout {
        // mov x8, #139 (rt_sigreturn); svc #0
        trampoline: &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4],
        registers: 128 + 176 + 8,
        order: &[
            0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23,
            24, 25, 26, 27, 28, 29, 30, 31, 32,
        ],
        siginfo: 0,
        trap: None,
        fault_address: Some(128 + 176),
    },
    traps: &[],
    page_fault_trap: None,
    // svc #0
    system_call: SystemCall::Behind(8, [0x01, 0, 0, 0xd4]),
    system_call_name: |number| {
        let number = usize::try_from(number).ok()?;
        syscalls::aarch64::Sysno::new(number).map(|call| call.name())
    },
};

/// `bl`, or `blr` in any of its forms (`blraa` and its kin authenticate their target first).
fn call_before(bytes: &[u8]) -> Option<Call> {
    let word = u32::from_le_bytes(*bytes.last_chunk::<4>()?);
    if word & 0xfc00_0000 == 0x9400_0000 {
        // imm26, in words, from the call itself, which is four bytes before the return address
        let words = i64::from((word << 6).cast_signed() >> 6);
        return Some(Call::Direct(words.checked_mul(4)?.checked_sub(4)?));
    }
    let plain = word & 0xffff_fc1f == 0xd63f_0000;
    let authenticated = word & 0xfeff_f800 == 0xd63f_0800;
    (plain || authenticated).then_some(Call::Indirect)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_from_other_code() {
        // As objdump shows them.
        for (word, call) in [
            (0x9400_0002_u32, Some(Call::Direct(4))), // bl .+8
            (0x97ff_ffff, Some(Call::Direct(-8))),    // bl .-4
            (0xd63f_0020, Some(Call::Indirect)),      // blr x1
            (0xd63f_083f, Some(Call::Indirect)),      // blraaz x1
            (0xd73f_0822, Some(Call::Indirect)),      // blraa x1, x2
            (0xd61f_0020, None),                      // br x1
            (0x1400_0002, None),                      // b .+8
            (0xd65f_03c0, None),                      // ret
        ] {
            assert_eq!(call_before(&word.to_le_bytes()), call, "{word:#x}");
        }
        assert_eq!(call_before(&[0]), None);
    }
}
