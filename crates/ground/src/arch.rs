//! Architectures, one table each: registers, DWARF numbers, the layout of the kernel's thread notes.
//!
//! A new architecture is one `const` in its own file and one line in [`ARCHITECTURES`]. Registers are looked up by
//! number, never by string in a loop; names are for reports only.

mod aarch64;
pub mod x86_64;

pub use aarch64::AARCH64;
pub use x86_64::X86_64;

/// What code is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// x86-64.
    X86_64,
    /// aarch64.
    Aarch64,
}

/// Everything that differs between architectures.
#[derive(Debug)]
pub struct ArchInfo {
    /// The name in the report's `system_info.cpu_arch`, as minidump-stackwalk writes it.
    pub name: &'static str,
    /// `e_machine` of its ELF files.
    pub elf_machine: u16,
    /// What its code is written in.
    pub instruction_set: InstructionSet,
    /// Bytes of a pointer.
    pub pointer_bytes: u8,
    /// Whether the lowest byte comes first.
    pub little_endian: bool,
    /// Bytes of a page where the core does not say (`AT_PAGESZ` is missing).
    pub default_page_bytes: u64,
    /// The registers of `NT_PRSTATUS` that have a DWARF number, by rising DWARF number.
    pub registers: &'static [Register],
    /// DWARF number of the program counter (on x86-64 the return address column).
    pub pc: u16,
    /// DWARF number of the stack pointer.
    pub sp: u16,
    /// DWARF number of the frame pointer.
    pub fp: u16,
    /// DWARF number of the register that holds a return address at a function's entry, if it is not on the stack.
    pub link: Option<u16>,
    /// DWARF column in which call-frame information keeps the caller's program counter.
    pub return_address: u16,
    /// DWARF numbers that a callee must preserve: what an unwinder may assume unchanged without a rule.
    pub callee_saved: &'static [u16],
    /// How a call looks in code.
    pub calls: CallRules,
    /// The bits of an address of code; authenticated pointers have a signature in others.
    pub code_mask: u64,
    /// Type of the note whose second word says which bits of a pointer to code hold its signature.
    pub code_mask_note: Option<u32>,
    /// Where the thread pointer is.
    pub thread_pointer: ThreadPointer,
    /// Layout of `NT_PRSTATUS`.
    pub prstatus: PrStatusLayout,
    /// Layout of `NT_PRPSINFO`.
    pub prpsinfo: PrPsInfoLayout,
    /// What the kernel leaves on the stack for a signal's handler.
    pub signal_frame: SignalFrameLayout,
    /// The signals that processor traps are turned into: trap, signal. Empty where the kernel does not keep the trap.
    pub traps: &'static [(u64, i32)],
    /// Where the number of the system call is that a thread is in.
    pub system_call: SystemCall,
    /// The name of a system call by its number.
    pub system_call_name: fn(u64) -> Option<&'static str>,
    /// The trap with which the address of the access is kept.
    pub page_fault_trap: Option<u64>,
}

/// One general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register {
    /// Its name in reports and in gdb.
    pub name: &'static str,
    /// Its DWARF number.
    pub dwarf: u16,
    /// Its place in the register block of `NT_PRSTATUS`, in words of eight bytes.
    pub word: u16,
}

/// The instruction before a return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// A call of a fixed place; the target relative to the return address.
    Direct(i64),
    /// A call through a register or memory.
    Indirect,
}

/// How a call looks in code.
#[derive(Clone, Copy, Debug)]
pub struct CallRules {
    /// Most bytes of an instruction that calls.
    pub bytes: usize,
    /// Recognises a call that ends exactly at the end of these bytes.
    pub before: fn(&[u8]) -> Option<Call>,
    /// Alignment of the stack pointer at a call.
    pub stack_align: u64,
}

/// Where the number of the system call is that a thread is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SystemCall {
    /// In this word of the register block of `NT_PRSTATUS`; -1 outside of any.
    Word(u16),
    /// In the register with this DWARF number, if the instruction before the program counter has these bytes.
    Behind(u16, [u8; 4]),
}

/// Parts of the kernel's `struct rt_sigframe`, in bytes from the stack pointer of the trampoline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalFrameLayout {
    /// The code of the trampoline.
    pub trampoline: &'static [u8],
    /// The registers of the frame that was interrupted, in words of eight bytes.
    pub registers: u64,
    /// Their DWARF numbers, in order.
    pub order: &'static [u16],
    /// `siginfo_t`; filled only for handlers that ask for it.
    pub siginfo: u64,
    /// The number of the trap, if it is kept.
    pub trap: Option<u64>,
    /// The address of the last fault, if it is kept.
    pub fault_address: Option<u64>,
}

/// Where a thread's thread pointer stands in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ThreadPointer {
    /// In the register block of `NT_PRSTATUS`, at this word.
    Word(u16),
    /// In a note of its own, of this type, as its first word.
    Note(u32),
}

/// The parts of the kernel's `struct elf_prstatus` (include/linux/elfcore.h), offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrStatusLayout {
    /// `pr_cursig`, 16 bits.
    pub signal: u16,
    /// `pr_sighold`, 64 bits: the signals that are blocked.
    pub blocked_signals: u16,
    /// `pr_pgrp`, 32 bits: the process group.
    pub group: u16,
    /// `pr_pid`, 32 bits: the thread id.
    pub tid: u16,
    /// `pr_reg`: the register block.
    pub registers: u16,
}

/// The parts of the kernel's `struct elf_prpsinfo` (include/linux/elfcore.h), offsets in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrPsInfoLayout {
    /// `pr_flag`, 64 bits.
    pub flags: u16,
    /// `pr_uid`, 32 bits.
    pub uid: u16,
    /// `pr_gid`, 32 bits.
    pub gid: u16,
    /// `pr_pid`, 32 bits.
    pub pid: u16,
    /// `pr_ppid`, 32 bits.
    pub ppid: u16,
    /// `pr_fname`, 16 bytes.
    pub name: u16,
    /// `pr_psargs`, 80 bytes.
    pub arguments: u16,
}

/// All architectures whose cores are read.
pub const ARCHITECTURES: &[&ArchInfo] = &[&X86_64, &AARCH64];

impl ArchInfo {
    /// The architecture with this `e_machine`, if its cores are read.
    pub fn of_elf(machine: u16) -> Option<&'static ArchInfo> {
        ARCHITECTURES
            .iter()
            .copied()
            .find(|arch| arch.elf_machine == machine)
    }

    /// The signal that the kernel sends for a trap.
    pub fn signal_of_trap(&self, trap: u64) -> Option<i32> {
        let found = self.traps.iter().find(|(number, _)| *number == trap);
        found.map(|(_, signal)| *signal)
    }

    /// The name of the register with this DWARF number.
    pub fn register_name(&self, dwarf: u16) -> Option<&'static str> {
        self.registers
            .iter()
            .find(|register| register.dwarf == dwarf)
            .map(|register| register.name)
    }
}

#[cfg(test)]
mod tests {
    use crate::target::RegisterSet;

    use super::*;

    #[test]
    fn every_table_can_be_held_in_a_register_set() {
        for arch in ARCHITECTURES {
            assert!(arch.registers.is_sorted_by_key(|register| register.dwarf));
            for register in arch.registers {
                assert!(usize::from(register.dwarf) < RegisterSet::COUNT);
            }
            for needed in [arch.pc, arch.sp, arch.fp] {
                assert!(arch.signal_frame.order.contains(&needed), "{}", arch.name);
            }
            for number in [arch.pc, arch.sp, arch.fp, arch.return_address] {
                assert!(arch.register_name(number).is_some(), "{number}");
            }
        }
    }
}
