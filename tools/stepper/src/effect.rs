//! What the next instruction will write.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess, Register};

use crate::process::Registers;

/// What an instruction does to the process, as far as an observer must know before it is stepped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// Memory that it may write.
    pub writes: Vec<Range<u64>>,
    /// It enters the kernel, which may change anything.
    pub system_call: bool,
    /// It is the program's mark.
    pub mark: bool,
}

/// Longest write whose size is told by the processor's state (xsave and its like).
const UNKNOWN_BYTES: u64 = 4096;

/// The effect of the instruction whose bytes begin `code`.
pub fn of(code: &[u8], registers: &Registers) -> Effect {
    let mut decoder = Decoder::with_ip(64, code, registers.rip, DecoderOptions::NONE);
    let instruction = decoder.decode();
    let mut effect = Effect {
        system_call: instruction.mnemonic() == Mnemonic::Syscall,
        mark: instruction.mnemonic() == Mnemonic::Int3,
        ..Effect::default()
    };
    let mut factory = InstructionInfoFactory::new();
    for memory in factory.info(&instruction).used_memory() {
        let written = matches!(
            memory.access(),
            OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
        );
        let at = memory.virtual_address(0, |register, _, _| value(registers, register));
        if let (true, Some(at)) = (written, at) {
            let bytes = match memory.memory_size().size() as u64 {
                0 => UNKNOWN_BYTES,
                bytes => bytes,
            };
            effect.writes.push(at..at.saturating_add(bytes));
        }
    }
    effect
}

fn value(registers: &Registers, register: Register) -> Option<u64> {
    let mask = match register.size() {
        4 => u64::from(u32::MAX),
        _ => u64::MAX,
    };
    let value = match register.full_register() {
        Register::RAX => registers.rax,
        Register::RBX => registers.rbx,
        Register::RCX => registers.rcx,
        Register::RDX => registers.rdx,
        Register::RSI => registers.rsi,
        Register::RDI => registers.rdi,
        Register::RBP => registers.rbp,
        Register::RSP => registers.rsp,
        Register::R8 => registers.r8,
        Register::R9 => registers.r9,
        Register::R10 => registers.r10,
        Register::R11 => registers.r11,
        Register::R12 => registers.r12,
        Register::R13 => registers.r13,
        Register::R14 => registers.r14,
        Register::R15 => registers.r15,
        Register::RIP => registers.rip,
        Register::FS => return Some(registers.fs_base),
        Register::GS => return Some(registers.gs_base),
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        _ => return None,
    };
    Some(value & mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registers() -> Registers {
        let mut registers = crate::process::no_registers();
        registers.rip = 0x1000;
        registers.rsp = 0x8000;
        registers.rdi = 0x5000;
        registers.rcx = 3;
        registers.fs_base = 0x9000;
        registers
    }

    /// Start and end of what is written.
    fn written(code: &[u8]) -> Vec<(u64, u64)> {
        let writes = of(code, &registers()).writes;
        writes
            .iter()
            .map(|write| (write.start, write.end))
            .collect()
    }

    #[test]
    fn stores_are_seen_with_their_address_and_size() {
        // mov [rdi+rcx*8+0x10], rax
        assert_eq!(written(&[0x48, 0x89, 0x44, 0xcf, 0x10]), [(0x5028, 0x5030)]);
        // mov fs:[0xffffffffffffffc0], rax
        let thread_local = [0x64, 0x48, 0x89, 0x04, 0x25, 0xc0, 0xff, 0xff, 0xff];
        assert_eq!(written(&thread_local), [(0x8fc0, 0x8fc8)]);
        // movups [rdi], xmm0
        assert_eq!(written(&[0x0f, 0x11, 0x07]), [(0x5000, 0x5010)]);
    }

    #[test]
    fn calls_push_and_loads_write_nothing() {
        assert_eq!(written(&[0xe8, 0, 0, 0, 0]), [(0x7ff8, 0x8000)]);
        assert_eq!(of(&[0x48, 0x8b, 0x07], &registers()), Effect::default());
    }

    #[test]
    fn marks_and_system_calls_are_told() {
        assert!(of(&[0xcc], &registers()).mark);
        assert!(of(&[0x0f, 0x05], &registers()).system_call);
    }
}
