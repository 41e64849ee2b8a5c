//! musl's allocator (mallocng), which is not walked: where its `free` keeps the pointer that it was given.
//!
//! `free` has it in rdi and, for what follows, in r9, at each of its checks: it reads the block's header three bytes in front of it,
//! the group's description behind a pointer, and stops at `hlt` if a check fails (mallocng/free.c, meta.h; musl 1.2). musl has no
//! call-frame information, so that its frames are not known.

use ground::arch::x86_64::registers::{R9, RDI};
use ground::target::{Address, Target};

use crate::crash::Crash;

/// The operands of those checks: the header in front of the block, and the group's description.
const CHECKS: [&str; 2] = ["rdi - 0x3", "rax + 0x10"];

/// The pointer, if the instruction at fault is one of those checks.
pub fn pointer(target: Target<'_>, crash: &Crash) -> Option<Address> {
    let frame = target.threads.frames(crash.thread).get(crash.frame)?;
    let instruction = crash.instruction.as_ref()?;
    let is_check = is_trap(crash)
        || instruction
            .operands
            .iter()
            .any(|operand| CHECKS.contains(&operand.expression.as_str()));
    let given = frame.registers.get(RDI)?;
    (is_check && frame.registers.get(R9) == Some(given)).then_some(Address::new(given))
}

/// Whether a check of musl's has failed.
pub fn is_trap(crash: &Crash) -> bool {
    crash
        .instruction
        .as_ref()
        .is_some_and(|instruction| instruction.text.starts_with("hlt"))
}
