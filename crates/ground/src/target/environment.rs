//! What the program was started with beside its arguments.

use super::{Address, MemoryExt, TargetMemory};

/// The strings `NAME=VALUE` that the program was started with, as they stand in memory now: a program may have written over
/// them. They are not what `setenv` made of them since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    first: Address,
    count: u64,
}

/// Strings that are looked at: more than any system passes on.
const MAX_STRINGS: u64 = 1 << 16;
/// Bytes of a value that are read.
const MAX_VALUE: u64 = 1 << 12;

impl Environment {
    /// Of `count` pointers to strings, the first at `first`.
    pub fn new(first: Address, count: u64) -> Self {
        Self {
            first,
            count: count.min(MAX_STRINGS),
        }
    }

    /// Where the pointers to the strings begin: those to the program's arguments stand before it, their strings above it on the
    /// first thread's stack. `None` where the core does not tell.
    pub fn pointers(&self) -> Option<Address> {
        (!self.first.is_null()).then_some(self.first)
    }

    /// The value of the first variable with this name; where it is longer than 4 KiB, its beginning.
    pub fn value(&self, memory: &dyn TargetMemory, name: &str) -> Option<Vec<u8>> {
        (0..self.count).find_map(|index| {
            let pointer = self.first.checked_add(index.checked_mul(8)?)?;
            let at = memory.read_pointer(pointer).ok()?;
            let mut begins = name.bytes().chain([b'=']).zip(0u64..);
            let is_it = |(byte, offset)| {
                at.checked_add(offset)
                    .is_some_and(|at| memory.read_u8(at) == Ok(byte))
            };
            if !begins.all(is_it) {
                return None;
            }
            text_at(memory, at.checked_add(name.len() as u64)?.checked_add(1)?)
        })
    }
}

/// The bytes at `at` up to the first that is zero, 4 KiB at most. `None` if one is absent.
pub fn text_at(memory: &dyn TargetMemory, at: Address) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    for offset in 0..MAX_VALUE {
        match memory.read_u8(at.checked_add(offset)?).ok()? {
            0 => break,
            byte => text.push(byte),
        }
    }
    Some(text)
}
