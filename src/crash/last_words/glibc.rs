//! What glibc said before it aborted: `double free or corruption (!prev)`, a failed assertion, a smashed stack.
//!
//! glibc 2.13 and later keep the message for debuggers (sysdeps/posix/libc_fatal.c, assert/assert.c):
//!
//! ```text
//! __abort_msg ──> +0  unsigned int size     bytes of the mapping: whole pages
//!                 +4  char msg[]            NUL-terminated
//! ```
//!
//! The variable is in the dynamic symbol table (`GLIBC_PRIVATE`). Without the file it is found by its structure: a word in
//! the library's data that points at the start of a page whose first word is a size of whole pages, within one mapping,
//! followed by text.

use ground::target::{Address, MemoryExt, Module, Target};

use super::{FoundBy, LastWords, Speaker};

/// Longest message taken; assertions hold whole expressions.
const MAX_MESSAGE_BYTES: usize = 4096;
/// Largest mapping that is believed to be one message's.
const MAX_SIZE: u64 = 1 << 20;
/// Bytes of data searched per module.
const MAX_SEARCHED_BYTES: u64 = 16 << 20;

/// The message, if there is one.
pub(super) fn find(target: Target<'_>) -> Option<LastWords> {
    // The C library first; where it is linked into the program, the program.
    let is_libc =
        |module: &&Module| module.name.starts_with("libc.so") || module.name.starts_with("libc-2.");
    let libc = target.modules.iter().filter(is_libc);
    let others = target.modules.iter().filter(|module| !is_libc(module));
    // There is one libc: whose variable is found, the others' symbols need not be put in order.
    let variable = libc.clone().chain(others).find_map(|module| {
        let symbol = target.symbols.symbol(module.id, "__abort_msg")?;
        let at = target.memory.read_pointer(symbol.address).ok()?;
        Some((at, message(target, at)))
    });
    if let Some((at, Some(text))) = variable {
        return Some(LastWords {
            text,
            address: at.checked_add(4)?,
            found_by: FoundBy::Symbols,
            speaker: Speaker::Glibc,
        });
    }
    let program = target.modules.iter().filter(|module| module.is_executable);
    libc.chain(program)
        .find_map(|module| by_structure(target, module))
}

fn by_structure(target: Target<'_>, module: &Module) -> Option<LastWords> {
    let data = module.segments.iter().filter(|segment| segment.writable);
    for segment in data {
        let start = segment.range.start.get().next_multiple_of(8);
        let end = segment.range.end.get();
        let end = end.min(start.saturating_add(MAX_SEARCHED_BYTES));
        let mut at = start;
        while at < end {
            let here = Address::new(at);
            at = at.saturating_add(8);
            let Ok(pointer) = target.memory.read_pointer(here) else {
                // Absent memory is absent by the page.
                at = at.next_multiple_of(target.memory.abi().page_bytes.max(8));
                continue;
            };
            if !module.range.contains(&pointer)
                && let Some(text) = message(target, pointer)
            {
                return Some(LastWords {
                    text,
                    address: pointer.checked_add(4)?,
                    found_by: FoundBy::Structure,
                    speaker: Speaker::Glibc,
                });
            }
        }
    }
    None
}

/// The message of the structure at `at`, if it is one.
fn message(target: Target<'_>, at: Address) -> Option<String> {
    let page = target.memory.abi().page_bytes.max(1);
    if at.get() == 0 || !at.get().is_multiple_of(page) {
        return None;
    }
    let size = u64::from(target.memory.read_u32(at).ok()?);
    let region = target.memory.region_at(at)?;
    let fits = at
        .checked_add(size)
        .is_some_and(|end| end <= region.range.end);
    if size == 0 || !size.is_multiple_of(page) || size > MAX_SIZE || !fits || !region.writable {
        return None;
    }
    let most = usize::try_from(size).ok()?.checked_sub(4)?;
    let mut bytes = vec![0; most.min(MAX_MESSAGE_BYTES)];
    target
        .memory
        .read_into(at.checked_add(4)?, &mut bytes)
        .ok()?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    let text = std::str::from_utf8(bytes.get(..end)?).ok()?.trim_end();
    let is_text = !text.is_empty()
        && !text
            .chars()
            .any(|letter| letter.is_control() && letter != '\n' && letter != '\t');
    is_text.then(|| text.to_owned())
}
