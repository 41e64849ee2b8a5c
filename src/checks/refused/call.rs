//! Where the call before a return address leads, through the linkage table: by its bytes alone, on x86-64.

use ground::target::{Address, InstructionSet, MemoryExt, Target};

/// `call rel32`, `call *slot(%rip)`, `jmp *slot(%rip)`, `endbr64`, the prefix of bound checks.
const CALL: u8 = 0xe8;
const CALL_THROUGH: [u8; 2] = [0xff, 0x15];
const JUMP_THROUGH: [u8; 2] = [0xff, 0x25];
const BRANCH_MARK: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const BOUND: u8 = 0xf2;

/// The function that was called.
pub fn callee(target: Target<'_>, return_address: Address) -> Option<Address> {
    if target.threads.instruction_set() != InstructionSet::X86_64 {
        return None;
    }
    let memory = target.memory;
    let relative = |at: Address| -> Option<Address> {
        let distance = memory.read_u32(at).ok()?.cast_signed();
        Some(Address::new(
            at.get()
                .wrapping_add(4)
                .wrapping_add_signed(distance.into()),
        ))
    };
    let operand = return_address.checked_sub(4)?;
    if memory.read_bytes::<2>(operand.checked_sub(2)?).ok()? == CALL_THROUGH {
        return memory.read_pointer(relative(operand)?).ok();
    }
    if memory.read_u8(operand.checked_sub(1)?).ok()? != CALL {
        return None;
    }
    let called = relative(operand)?;
    let mut at = called;
    if memory.read_bytes::<4>(at) == Ok(BRANCH_MARK) {
        at = at.checked_add(4)?;
    }
    if memory.read_u8(at) == Ok(BOUND) {
        at = at.checked_add(1)?;
    }
    match memory.read_bytes::<2>(at) {
        Ok(JUMP_THROUGH) => memory.read_pointer(relative(at.checked_add(2)?)?).ok(),
        _ => Some(called),
    }
}
