//! What `free` was given, where nothing is at hand but the core: no code that tells the instruction, no name that tells the function.
//!
//! ```text
//! free:  lea rsi, [rdi - 16]      the chunk               a register has rdi - 16
//!        mov rax, [rdi - 8]       its size: the fault     rdi - 8 is the address at fault, or no address at all
//! ```
//!
//! `free` and `realloc` of glibc 2.26 and later begin so (malloc/malloc.c, `mem2chunk`, `chunksize`). Nothing else of the library that
//! has malloc reads in front of its first argument and keeps the address of a header beside it.

use ground::arch::x86_64::registers::RDI;
use ground::target::{Address, InstructionSet, MemoryExt, Target};

use super::{HEADER_BYTES, SIZE_BYTES};
use crate::crash::Crash;

/// Addresses of a process lie below this (x86-64, four levels of page tables).
const END_OF_ADDRESSES: u64 = 1 << 47;

/// The pointer, if the thread died as `free` begins; `None` where the instruction is known, which tells more.
pub fn pointer(target: Target<'_>, crash: &Crash) -> Option<Address> {
    let is_blind = crash.instruction.is_none()
        && crash.is_by_memory
        && target.threads.instruction_set() == InstructionSet::X86_64;
    let frame = target.threads.frames(crash.thread).get(crash.frame)?;
    let given = frame.registers.get(RDI).filter(|_| is_blind)?;
    let size = Address::new(given.checked_sub(SIZE_BYTES)?);
    let faulted = match crash.fault_address {
        Some(at) if !at.is_null() => at == size && target.memory.region_at(size).is_none(),
        _ => size.get() >= END_OF_ADDRESSES,
    };
    let chunk = given.checked_sub(HEADER_BYTES)?;
    let has_chunk = frame.registers.iter().any(|(_, value)| value == chunk);
    (faulted && has_chunk).then_some(Address::new(given))
}
