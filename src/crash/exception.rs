//! The C++ exception that nobody caught: its type, where it can be told, and what it says.
//!
//! `std::terminate` is called with the exception already begun, so that its header is in registers and on the stack of the
//! runtime's frames. The header is known by its class (libstdc++'s unwind-cxx.h; libc++abi's cxa_exception.h ends alike):
//!
//! ```text
//! __cxa_exception ──> +0   type_info*      ──> +8 mangled name
//!                     ...
//! _Unwind_Exception ─> +80  "GNUCC++\0" or "CLNGC++\0"
//!                      +88  cleanup
//!                      +96  private (16 bytes)
//! the object ────────> +112
//! ```

mod message;

use ground::target::{Address, MemoryExt, Target};

use crate::types::rtti;
use postmortem::debuginfo::DebugInfo;

/// `exception_class` of an exception thrown in C++: libstdc++'s and libc++abi's, the last byte 0 (1 marks a dependent one).
const CLASSES: [u64; 2] = [
    u64::from_be_bytes(*b"GNUCC++\0"),
    u64::from_be_bytes(*b"CLNGC++\0"),
];
/// From the header's start to the class, and from the class to the object.
const CLASS_AT: u64 = 80;
const OBJECT_AT: u64 = 32;
/// Words of the runtime's stack that are looked at.
const MAX_WORDS: u64 = 4096;
/// Longest name of a type.
const MAX_NAME_BYTES: usize = 1024;
/// Frames in which the runtime's are looked for.
const MAX_FRAMES: usize = 64;

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its type, demangled.
    pub type_name: String,
    /// The object that was thrown.
    pub object: Address,
    /// What it says (`what()`), for types whose layout is known.
    pub message: Option<String>,
}

/// The exception for which the crashing thread terminates.
pub(super) fn find(target: Target<'_>, names: &DebugInfo) -> Option<Exception> {
    let frames = target.threads.frames(0);
    let is_runtime = |index: usize| {
        let name = |index: usize| {
            let frame = frames.get(index)?;
            let module = frame.module?;
            let function = names
                .function_at(module, frame.lookup)
                .map(|found| found.name);
            let module = target.modules.get(usize::try_from(module.0).ok()?)?;
            let runtime = module.name.starts_with("libstdc++") || module.name.starts_with("libc++");
            let terminates = function.is_some_and(|name| {
                ["terminate", "__cxa_", "__gxx_"]
                    .iter()
                    .any(|part| name.contains(part))
            });
            Some(runtime || terminates)
        };
        name(index).unwrap_or(false)
    };
    let runtime: Vec<usize> = (0..frames.len().min(MAX_FRAMES))
        .filter(|&index| is_runtime(index))
        .collect();
    let (first, last) = (*runtime.first()?, *runtime.last()?);
    let registers = runtime
        .iter()
        .filter_map(|&index| frames.get(index))
        .flat_map(|frame| frame.registers.iter().map(|(_, value)| value));
    let caller = frames.get(last.checked_add(1)?)?;
    let stack = frames.get(first)?.sp;
    let words = caller.sp.offset_from(stack)? / 8;
    let stack = (0..words.min(MAX_WORDS)).filter_map(|word| {
        let at = stack.checked_add(word.checked_mul(8)?)?;
        target.memory.read_u64(at).ok()
    });
    registers
        .chain(stack)
        .find_map(|value| exception_near(target, value))
}

/// The exception whose header, class or object is at `value`.
fn exception_near(target: Target<'_>, value: u64) -> Option<Exception> {
    if !value.is_multiple_of(8) || value < 4096 {
        return None;
    }
    [
        Some(value),
        value.checked_sub(OBJECT_AT),
        value.checked_add(CLASS_AT),
    ]
    .into_iter()
    .flatten()
    .find_map(|class| {
        let found = target.memory.read_u64(Address::new(class)).ok()?;
        if !CLASSES.contains(&found) {
            return None;
        }
        let header = Address::new(class.checked_sub(CLASS_AT)?);
        let info = target.memory.read_pointer(header).ok()?;
        let object = Address::new(class.checked_add(OBJECT_AT)?);
        Some(Exception {
            type_name: rtti::name_of(target.memory, info)?,
            object,
            message: message::find(target, info, object),
        })
    })
}

/// The bytes at `at` up to a zero, at most `most`.
fn text(target: Target<'_>, at: Address, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while bytes.len() < most {
        let here = at.checked_add(bytes.len() as u64)?;
        match target.memory.read_u8(here).ok()? {
            0 => break,
            byte => bytes.push(byte),
        }
    }
    Some(bytes)
}
