//! The allocator's own message that names the pointer: gperftools writes it in a buffer on its stack, glibc up to 2.26 in the text
//! that `__abort_msg` holds.

use ground::target::{Address, MemoryExt, TargetMemory};

/// Bytes of the allocator's stack that are searched.
const MAX_BYTES: u64 = 32 << 10;
/// Digits of an address.
const MAX_DIGITS: usize = 16;

/// What stands before the pointer (gperftools: tcmalloc.cc, debugallocation.cc).
const TEXTS: [&[u8]; 7] = [
    b"Attempt to free invalid pointer 0x",
    b"Attempt to realloc invalid pointer 0x",
    b"Attempt to get the size of invalid pointer 0x",
    b"memory allocation bug: object at 0x",
    b"memory allocation/deallocation mismatch at 0x",
    b"memory stomping bug: a word before object at 0x",
    b"memory stomping bug: a word after object at 0x",
];

/// A message on the stack.
pub(super) struct Told {
    /// The pointer.
    pub pointer: Address,
    /// First byte of the text.
    pub at: Address,
}

/// The message in the stack between two addresses; `None` if there are several that differ.
pub(super) fn on_stack(memory: &dyn TargetMemory, from: Address, to: Address) -> Option<Told> {
    let bytes = to.offset_from(from)?.min(MAX_BYTES);
    let mut stack = vec![0; usize::try_from(bytes).ok()?];
    memory.read_into(from, &mut stack).ok()?;
    let mut found: Option<Told> = None;
    for text in TEXTS {
        for at in places(&stack, text) {
            let rest = stack.get(at.checked_add(text.len())?..)?;
            let Some(pointer) = number(rest) else {
                continue;
            };
            if found
                .as_ref()
                .is_some_and(|other| other.pointer.get() != pointer)
            {
                return None;
            }
            found = Some(Told {
                pointer: Address::new(pointer),
                at: from.checked_add(u64::try_from(at).ok()?)?,
            });
        }
    }
    found
}

fn places<'a>(bytes: &'a [u8], text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    bytes
        .windows(text.len())
        .enumerate()
        .filter(move |(_, window)| *window == text)
        .map(|(at, _)| at)
}

/// The hexadecimal number that begins there.
fn number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let digits = bytes
        .get(..digits)
        .filter(|digits| digits.len() <= MAX_DIGITS)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The pointer in a text of glibc's up to 2.26: `*** Error in ...: free(): invalid pointer: 0x... ***`.
pub(super) fn in_text(text: &str) -> Option<Address> {
    let (_, after) = text.rsplit_once(": 0x")?;
    text.starts_with("*** ").then_some(())?;
    number(after.as_bytes()).map(Address::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_end_where_digits_do() {
        assert_eq!(number(b"7ffc0010 \n"), Some(0x7ffc_0010));
        assert_eq!(number(b" 7"), None);
        assert_eq!(number(b"11112222333344445"), None);
        let old = "*** Error in `a': free(): invalid pointer: 0x0000000000400640 ***";
        assert_eq!(in_text(old), Some(Address::new(0x40_0640)));
        assert_eq!(in_text("free(): invalid pointer"), None);
    }
}
