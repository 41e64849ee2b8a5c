//! What a thrown object says, where its layout is known: the standard library's errors and what derives from them, a text, a
//! number.
//!
//! ```text
//! std::runtime_error, std::logic_error  +0 vtable  +8 char* ──> text, behind length, capacity and count (8 bytes each)
//! std::string                           +0 char*   +8 length
//! class with one base                   type_info +0 vtable  +8 name  +16 type_info* of the base
//! ```
//!
//! Layouts: libstdc++'s stdexcept (both string ABIs keep the old string there) and basic_string.h, libc++'s refstring.h, which
//! is made alike; the Itanium C++ ABI's `__si_class_type_info`.

use ground::target::{Address, MemoryExt, Target};

use super::{MAX_NAME_BYTES, text};

/// Classes between a thrown one and the standard library's.
const MAX_BASES: usize = 16;
/// Longest message taken.
const MAX_MESSAGE_BYTES: u64 = 4096;
/// Of a reference-counted text, from its characters back to its length and capacity.
const LENGTH_BACK: u64 = 24;
const CAPACITY_BACK: u64 = 16;

/// What the object at `object` says, whose type is described at `info`.
pub(super) fn find(target: Target<'_>, info: Address, object: Address) -> Option<String> {
    let name = name(target, info)?;
    match name.as_str() {
        "PKc" | "Pc" => {
            let at = target.memory.read_pointer(object).ok()?;
            readable(&text(target, at, usize::try_from(MAX_MESSAGE_BYTES).ok()?)?)
        }
        "i" => Some(
            target
                .memory
                .read_u32(object)
                .ok()?
                .cast_signed()
                .to_string(),
        ),
        "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE" => {
            let at = target.memory.read_pointer(object).ok()?;
            let length = target.memory.read_u64(object.checked_add(8)?).ok()?;
            characters(target, at, length)
        }
        _ => {
            let mut class = info;
            for _ in 0..MAX_BASES {
                if is_standard(&self::name(target, class)?) {
                    return counted(target, object);
                }
                class = target.memory.read_pointer(class.checked_add(16)?).ok()?;
            }
            None
        }
    }
}

/// Whether a class is one of the two that hold a text; libc++'s names are the same.
fn is_standard(name: &str) -> bool {
    name == "St13runtime_error" || name == "St11logic_error"
}

/// The mangled name in a `std::type_info`, without the mark of one that is compared by address.
fn name(target: Target<'_>, info: Address) -> Option<String> {
    let at = target.memory.read_pointer(info.checked_add(8)?).ok()?;
    let name = String::from_utf8(text(target, at, MAX_NAME_BYTES)?).ok()?;
    Some(name.strip_prefix('*').unwrap_or(&name).to_owned())
}

/// The text of a standard error.
fn counted(target: Target<'_>, object: Address) -> Option<String> {
    let at = target.memory.read_pointer(object.checked_add(8)?).ok()?;
    let length = target.memory.read_u64(at.checked_sub(LENGTH_BACK)?).ok()?;
    let capacity = target
        .memory
        .read_u64(at.checked_sub(CAPACITY_BACK)?)
        .ok()?;
    (length <= capacity).then(|| characters(target, at, length))?
}

/// `length` characters and the zero behind them.
fn characters(target: Target<'_>, at: Address, length: u64) -> Option<String> {
    let kept = length.min(MAX_MESSAGE_BYTES);
    let mut bytes = vec![0; usize::try_from(kept).ok()?];
    target.memory.read_into(at, &mut bytes).ok()?;
    let end = target.memory.read_u8(at.checked_add(length)?).ok()?;
    (end == 0).then(|| readable(&bytes))?
}

/// Text, if it is one: an object that was overwritten says nothing.
fn readable(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let strange = text
        .chars()
        .any(|letter| letter.is_control() && !matches!(letter, '\n' | '\t' | '\r'));
    (!strange && !text.is_empty()).then(|| text.trim_end().to_owned())
}
