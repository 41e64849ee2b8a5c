//! The dynamic linker's own list of modules, read from the dead process's memory.
//!
//! ```text
//! executable's PT_DYNAMIC ──> DT_DEBUG ──> r_debug +0  version (32 bits)      link_map +0  l_addr (bias)
//!                                                  +8  r_map ──────────────────────>  +8  l_name
//!                                                  +40 r_next (version >= 2) ──>      +16 l_ld (its PT_DYNAMIC)
//!                                                      another namespace (dlmopen)    +24 l_next
//! ```
//!
//! Layout: glibc's elf/link.h, `struct r_debug_extended` (2.35 and later) and `struct link_map`; musl's is the same as far
//! as drawn. The list is the program's memory and may be damaged: the walk is bounded, and one entry met twice ends it.

use std::collections::HashSet;

use ground::target::{Address, MemoryExt, TargetMemory};
use object::elf::PT_DYNAMIC;

use super::image::Head;

/// Most entries that are read: many times what any process loads.
const MAX_ENTRIES: usize = 1 << 14;
/// Most namespaces; glibc has 16.
const MAX_NAMESPACES: usize = 64;
/// Most entries of a dynamic section; real ones have 30.
const MAX_DYNAMIC_ENTRIES: u64 = 4096;
/// Longest path (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4096;

const DT_NULL: u64 = 0;
const DT_DEBUG: u64 = 21;

/// One entry of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkMap {
    /// Where it is.
    pub at: Address,
    /// Run-time minus link address.
    pub bias: u64,
    /// As the dynamic linker opened it; empty for the executable.
    pub name: String,
    /// Address of its dynamic section.
    pub dynamic: Address,
}

/// All entries of all namespaces, in their order; empty where there is no dynamic linker or its list is gone.
pub(super) fn read(memory: &dyn TargetMemory, executable: &Head, bias: u64) -> Vec<LinkMap> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    let mut debug = list_address(memory, executable, bias);
    for _ in 0..MAX_NAMESPACES {
        let Some(at) = debug.filter(|at| !at.is_null() && seen.insert(*at)) else {
            break;
        };
        read_namespace(memory, at, &mut seen, &mut entries);
        let has_next = memory.read_u32(at).is_ok_and(|version| version >= 2);
        debug = has_next.then(|| pointer(memory, at, 40)).flatten();
    }
    entries
}

/// Where the list is, by the executable's dynamic section.
pub(super) fn list_address(
    memory: &dyn TargetMemory,
    executable: &Head,
    bias: u64,
) -> Option<Address> {
    let dynamic = executable.find(PT_DYNAMIC)?;
    debug_address(memory, dynamic.address.wrapping_add(bias)).filter(|at| !at.is_null())
}

fn read_namespace(
    memory: &dyn TargetMemory,
    debug: Address,
    seen: &mut HashSet<Address>,
    entries: &mut Vec<LinkMap>,
) {
    let mut next = pointer(memory, debug, 8);
    while let Some(at) = next.filter(|at| !at.is_null() && seen.insert(*at)) {
        let (Some(bias), Some(dynamic)) = (pointer(memory, at, 0), pointer(memory, at, 16)) else {
            return;
        };
        if entries.len() >= MAX_ENTRIES {
            return;
        }
        let name = pointer(memory, at, 8).and_then(|name| text(memory, name));
        entries.push(LinkMap {
            at,
            bias: bias.get(),
            name: name.unwrap_or_default(),
            dynamic,
        });
        next = pointer(memory, at, 24);
    }
}

/// The value of `DT_DEBUG` in the dynamic section at `at`.
fn debug_address(memory: &dyn TargetMemory, at: u64) -> Option<Address> {
    for index in 0..MAX_DYNAMIC_ENTRIES {
        let entry = Address::new(at).checked_add(index.checked_mul(16)?)?;
        match memory.read_u64(entry).ok()? {
            DT_NULL => return None,
            DT_DEBUG => return pointer(memory, entry, 8),
            _ => {}
        }
    }
    None
}

fn pointer(memory: &dyn TargetMemory, base: Address, offset: u64) -> Option<Address> {
    memory.read_pointer(base.checked_add(offset)?).ok()
}

/// The NUL-terminated text at `at`, at most a path's length of it.
pub(super) fn text(memory: &dyn TargetMemory, at: Address) -> Option<String> {
    let mut bytes = Vec::new();
    let mut here = at;
    loop {
        let window = memory.window(here).ok()?;
        let room = MAX_PATH_BYTES.saturating_sub(bytes.len());
        let part = window.bytes.get(..room).unwrap_or(window.bytes);
        if let Some(end) = part.iter().position(|byte| *byte == 0) {
            bytes.extend_from_slice(part.get(..end)?);
            return Some(String::from_utf8_lossy(&bytes).into_owned());
        }
        bytes.extend_from_slice(part);
        if bytes.len() >= MAX_PATH_BYTES {
            return None;
        }
        here = here.checked_add(part.len() as u64)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corefile::AddressSpace;
    use crate::corefile::testing::{RW, TestCore};
    use crate::modules::ProgramHeader;

    #[test]
    fn every_entry_of_every_namespace_comes_once_though_the_list_is_a_circle() {
        let mut bytes = vec![0u8; 0x1000];
        let mut put = |offset: usize, words: &[u64]| {
            for (index, word) in words.iter().enumerate() {
                bytes[offset + index * 8..][..8].copy_from_slice(&word.to_le_bytes());
            }
        };
        put(0x00, &[21, 0x1100, 0, 0]); // DT_DEBUG
        put(0x100, &[2, 0x1200, 0, 0, 0, 0x1180]); // r_debug, version 2, next namespace
        put(0x180, &[2, 0x1300, 0, 0, 0, 0x1100]); // whose next is the first again
        put(0x200, &[0x10, 0, 0x11, 0x1220]);
        put(0x220, &[0x20, 0x1f00, 0x21, 0x1200]); // back to the first
        put(0x300, &[0x30, 0x9999_9999, 0x31, 0x8888_8888]); // name and next are wild
        bytes[0xf00..0xf04].copy_from_slice(b"/a/b");
        let core = TestCore::default().load(0x1000, RW, &bytes).open();
        let head = Head::new(vec![ProgramHeader {
            kind: PT_DYNAMIC.0,
            flags: 6,
            offset: 0,
            address: 0,
            file_bytes: 0x40,
            memory_bytes: 0x40,
            align: 8,
        }]);
        let entries = read(&AddressSpace::new(&core), &head, 0x1000);
        let entries: Vec<_> = entries
            .iter()
            .map(|entry| (entry.bias, entry.name.as_str(), entry.dynamic.get()))
            .collect();
        assert_eq!(
            entries,
            [(0x10, "", 0x11), (0x20, "/a/b", 0x21), (0x30, "", 0x31)]
        );
    }
}
