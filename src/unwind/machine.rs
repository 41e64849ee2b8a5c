//! What an unwinder must know about a machine beyond its registers: how a call looks, how the kernel returns from a signal.
//!
//! One table per machine; a new one is a `const` and a line in [`MACHINES`].

use crate::arch::ArchInfo;

/// The instruction before a return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// A call of a fixed place; the target relative to the return address.
    Direct(i64),
    /// A call through a register or memory.
    Indirect,
}

/// How a machine calls and takes signals.
pub(super) struct Machine {
    /// `e_machine`.
    elf_machine: u16,
    /// Most bytes of an instruction that calls.
    pub call_bytes: usize,
    /// Recognises a call that ends exactly at the end of these bytes.
    pub call_before: fn(&[u8]) -> Option<Call>,
    /// The code of the signal trampoline.
    pub trampoline: &'static [u8],
    /// From the stack pointer in the trampoline to the saved registers, in bytes.
    pub saved_registers: u64,
    /// DWARF numbers of the saved registers, in words of eight bytes from there.
    pub saved_order: &'static [u16],
    /// The return address is on the stack at a function's entry (and the stack pointer above it after the return).
    pub return_on_stack: bool,
    /// Bits of a return address that are one; code pointers have no others (pointer authentication puts a tag there).
    pub code_mask: u64,
}

const MACHINES: &[&Machine] = &[&X86_64];

/// The machine of this architecture.
pub(super) fn of(arch: &ArchInfo) -> Option<&'static Machine> {
    MACHINES
        .iter()
        .copied()
        .find(|machine| machine.elf_machine == arch.elf_machine)
}

/// x86-64 under Linux. In `__restore_rt` the stack pointer points at `struct ucontext`:
/// flags, link (8 bytes each), alternate stack (24), then `struct sigcontext` (arch/x86/include/uapi/asm/sigcontext.h).
const X86_64: Machine = Machine {
    elf_machine: 62,
    call_bytes: 8,
    call_before: x86_64_call,
    // mov $15, %rax (rt_sigreturn); syscall
    trampoline: &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05],
    saved_registers: 40,
    saved_order: &[8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7, 16],
    return_on_stack: true,
    code_mask: u64::MAX,
};

/// `e8 rel32`, or `ff /2` with any operand and an optional prefix.
fn x86_64_call(bytes: &[u8]) -> Option<Call> {
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
        let call = |bytes: &[u8]| x86_64_call(bytes);
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
