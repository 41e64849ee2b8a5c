//! Thread-local variables by their place: which module's block, which symbol.
//!
//! ```text
//! x86-64   tp +8 ──> dtv    module's id · 16 ──> its block       (sysdeps/x86_64/nptl/tls.h, tcbhead_t; dtv_t)
//! aarch64  tp +0 ──> dtv
//! ```

use ground::target::{Address, InstructionSet, MemoryExt, Thread};

use postmortem::session::Session;

/// Modules with thread-local variables that are looked at.
const MAX_MODULES: u64 = 256;
/// What the dynamic linker writes for a block that was never made (`TLS_DTV_UNALLOCATED`).
const UNALLOCATED: u64 = u64::MAX;

/// A thread-local variable.
pub struct Variable {
    /// Its name, and the bytes from its start.
    pub symbol: (String, u64),
    /// Its module's name, and the offset in the module's block.
    pub module: (String, u64),
}

/// The thread-local variable at `at`.
pub fn variable(session: &Session, thread: &Thread, at: Address) -> Option<Variable> {
    let memory = session.target().memory;
    let modules = session.modules();
    let tp = thread.thread_pointer?;
    let head = match session.threads().instruction_set() {
        InstructionSet::X86_64 => tp.checked_add(8)?,
        InstructionSet::Aarch64 => tp,
    };
    let dtv = memory.read_u64(head).ok()?;
    let with_tls: Vec<_> = modules
        .modules()
        .iter()
        .filter_map(|module| {
            let headers = modules.program_headers(module.id).iter();
            let mut tls = headers.filter(|header| header.kind == object::elf::PT_TLS.0);
            Some((module, tls.next()?.memory_bytes))
        })
        .collect();
    for id in 1..=MAX_MODULES.min(with_tls.len() as u64 + 8) {
        let entry = Address::new(dtv).checked_add(id * 16)?;
        let block = memory.read_u64(entry).ok()?;
        if block == UNALLOCATED || block == 0 {
            continue;
        }
        let Some(offset) = at.get().checked_sub(block) else {
            continue;
        };
        // The executable comes first; of the others only a lone one can be told.
        let own = match with_tls.iter().find(|(module, _)| module.is_executable) {
            Some(executable) if id == 1 => Some(executable),
            Some(_) if with_tls.len() == 2 => {
                with_tls.iter().find(|(module, _)| !module.is_executable)
            }
            None if with_tls.len() == 1 => with_tls.first(),
            _ => None,
        };
        let Some((module, _)) = own.filter(|(_, bytes)| offset < *bytes) else {
            continue;
        };
        return Some(Variable {
            symbol: session.debug_info().thread_local_at(module.id, offset)?,
            module: (module.name.clone(), offset),
        });
    }
    None
}
