//! Thread-local variables by their place: which module's block, which symbol.
//!
//! ```text
//! x86-64   tp +8 ──> dtv    module's id · 16 ──> its block       (sysdeps/x86_64/nptl/tls.h, tcbhead_t; dtv_t)
//! aarch64  tp +0 ──> dtv
//! ```

use ground::target::{Address, InstructionSet, MemoryExt, ModuleId, Thread};

use postmortem::session::Session;

/// What the dynamic linker writes for a block that was never made (`TLS_DTV_UNALLOCATED`).
const UNALLOCATED: u64 = u64::MAX;

/// The modules with thread-local variables: number in the dynamic thread vector, and bytes of the block.
#[derive(Debug, Default)]
pub struct ThreadLocals {
    modules: Vec<(ModuleId, u64, u64)>,
}

/// A thread-local variable.
pub struct Variable {
    /// Its name, and the bytes from its start.
    pub symbol: Option<(String, u64)>,
    /// Its module's name, and the offset in the module's block.
    pub module: (String, u64),
}

impl ThreadLocals {
    /// Those of a process.
    pub fn of(session: &Session) -> Self {
        let memory = session.target().memory;
        Self {
            modules: session.modules().thread_local_numbers(memory),
        }
    }

    /// The thread-local variable at `at`.
    pub fn variable(&self, session: &Session, thread: &Thread, at: Address) -> Option<Variable> {
        let memory = session.target().memory;
        let tp = thread.thread_pointer?;
        let head = match session.threads().instruction_set() {
            InstructionSet::X86_64 => tp.checked_add(8)?,
            InstructionSet::Aarch64 => tp,
        };
        let dtv = Address::new(memory.read_u64(head).ok()?);
        let (id, offset) = self.modules.iter().find_map(|(id, number, bytes)| {
            let entry = dtv.checked_add(number.checked_mul(16)?)?;
            let block = memory.read_u64(entry).ok()?;
            let offset = at.get().checked_sub(block)?;
            let is_here = block != UNALLOCATED && block != 0 && offset < *bytes;
            is_here.then_some((*id, offset))
        })?;
        let module = session.modules().module(id)?;
        Some(Variable {
            symbol: session.debug_info().thread_local_at(id, offset),
            module: (module.name.clone(), offset),
        })
    }
}
