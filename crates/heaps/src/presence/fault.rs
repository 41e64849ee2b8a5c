//! Whether a thread stands at an instruction that cannot be executed: proof of a fault of its own, whoever sent the signal that
//! it died of. A handler that raises the signal once more while it is blocked leaves such a core.

use iced_x86::{Decoder, DecoderOptions, Mnemonic, OpKind, Register};

use ground::arch::x86_64::registers::BY_PROCESSOR;
use ground::target::{Address, InstructionSet, MemoryExt, RegisterSet, Target, Thread};

/// Most bytes of an instruction.
const MAX_BYTES: usize = 15;

/// Whether the instruction at the thread's program counter works on memory that is not mapped.
pub fn stands_at_fault(target: Target<'_>, thread: &Thread) -> bool {
    if target.threads.instruction_set() != InstructionSet::X86_64 {
        return false;
    }
    let mut code = [0; MAX_BYTES];
    if target.memory.read_into(thread.pc, &mut code).is_err() {
        return false;
    }
    let mut decoder = Decoder::with_ip(64, &code, thread.pc.get(), DecoderOptions::NONE);
    let instruction = decoder.decode();
    if names_memory_only(instruction.mnemonic()) {
        return false;
    }
    let value = |register, _, _| value_of(register, &thread.registers, thread.thread_pointer);
    (0..instruction.op_count())
        .filter(|operand| instruction.op_kind(*operand) == OpKind::Memory)
        .filter_map(|operand| instruction.try_virtual_address(operand, 0, value))
        .any(|at| target.memory.region_at(Address::new(at)).is_none())
}

/// Whether an instruction has an operand in memory that it never reads or writes, wherever that is.
fn names_memory_only(mnemonic: Mnemonic) -> bool {
    matches!(
        mnemonic,
        Mnemonic::Lea
            | Mnemonic::Nop
            | Mnemonic::Reservednop
            | Mnemonic::Prefetch
            | Mnemonic::Prefetchw
            | Mnemonic::Prefetchwt1
            | Mnemonic::Prefetchnta
            | Mnemonic::Prefetcht0
            | Mnemonic::Prefetcht1
            | Mnemonic::Prefetcht2
    )
}

/// A register of the dead thread, by its DWARF number.
fn value_of(
    register: Register,
    registers: &RegisterSet,
    thread_pointer: Option<Address>,
) -> Option<u64> {
    let number = match register {
        Register::FS => return thread_pointer.map(Address::get),
        Register::CS | Register::DS | Register::ES | Register::SS => return Some(0),
        _ if register.is_gpr64() => *BY_PROCESSOR.get(register.number())?,
        _ => return None,
    };
    registers.get(number)
}
