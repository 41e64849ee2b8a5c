//! Which number of the dynamic thread vector each module's thread-local variables have.
//!
//! ```text
//! link_map of a module ──> ... | initimage | its size | block's size | align | first byte | offset | module id | ...
//!                              bias+p_vaddr  p_filesz    p_memsz        p_align
//! ```
//!
//! Where in `link_map` these words stand differs between releases of glibc; their order does not (include/link.h, `l_tls_initimage` to
//! `l_tls_modid`), and the first four are known from the module's own `PT_TLS`.

use ground::target::{Address, MemoryExt, ModuleId, TargetMemory};
use object::elf::{PT_DYNAMIC, PT_TLS};

use super::image::Head;
use super::{ModuleSet, link_map};

/// Words of a `link_map` that are looked at; glibc's have about 150.
const MAX_WORDS: u64 = 320;
/// Numbers that are believed.
const MAX_NUMBER: u64 = 1 << 16;

impl ModuleSet {
    /// The modules with thread-local variables, each with its number in the dynamic thread vector, and the bytes of its block. Modules whose number cannot be told
    /// are left out.
    pub fn thread_local_numbers(&self, memory: &dyn TargetMemory) -> Vec<(ModuleId, u64, u64)> {
        let with_tls: Vec<(ModuleId, &Head, u64)> = self
            .modules
            .iter()
            .zip(&self.heads)
            .filter(|(_, head)| head.find(PT_TLS).is_some())
            .map(|(module, head)| (module.id, head, module.bias))
            .collect();
        let executable = self.executable();
        let head = executable.and_then(|module| self.heads.get(usize::try_from(module.id.0).ok()?));
        let maps = match (executable, head) {
            (Some(module), Some(head)) => link_map::read(memory, head, module.bias),
            _ => Vec::new(),
        };
        let mut found = Vec::new();
        for (id, head, bias) in with_tls {
            let Some(tls) = head.find(PT_TLS) else {
                continue;
            };
            let dynamic = head
                .find(PT_DYNAMIC)
                .map(|dynamic| dynamic.address.wrapping_add(bias));
            let own = maps
                .iter()
                .find(|map| map.bias == bias && Some(map.dynamic.get()) == dynamic);
            let is_executable = executable.is_some_and(|module| module.id == id);
            let known = [
                tls.address.wrapping_add(bias),
                tls.file_bytes,
                tls.memory_bytes,
                tls.align,
            ];
            let number = own.and_then(|map| number(memory, map.at, known));
            // The program's own come first, whoever wrote the list.
            let number = number.or(is_executable.then_some(1));
            found.extend(number.map(|number| (id, number, tls.memory_bytes)));
        }
        found
    }
}

/// The number behind the words that are `known`.
fn number(memory: &dyn TargetMemory, map: Address, known: [u64; 4]) -> Option<u64> {
    let word = |index: u64| {
        let at = map.checked_add(index.checked_mul(8)?)?;
        memory.read_u64(at).ok()
    };
    for first in 0..MAX_WORDS {
        if word(first)? != known[0] {
            continue;
        }
        let is_here = (1..4)
            .zip(&known[1..])
            .all(|(offset, known)| word(first + offset) == Some(*known));
        if is_here {
            return word(first + 6).filter(|number| (1..MAX_NUMBER).contains(number));
        }
    }
    None
}
