//! Thread-local variables by their place: which module's block, which symbol.
//!
//! ```text
//! x86-64   tp +8 ──> dtv    module's id · 16 ──> its block       (sysdeps/x86_64/nptl/tls.h, tcbhead_t; dtv_t)
//! aarch64  tp +0 ──> dtv
//! ```

use std::ops::Range;

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

    /// Where a thread has what lies at `offset` of a module's block, `bytes` long; `None` if the thread never made the block.
    pub fn place(
        &self,
        session: &Session,
        thread: &Thread,
        module: ModuleId,
        (offset, bytes): (u64, u64),
    ) -> Option<Address> {
        let memory = session.target().memory;
        let (_, number, size) = self.modules.iter().find(|(id, ..)| *id == module)?;
        let entry = vector(session, thread)?.checked_add(number.checked_mul(16)?)?;
        let block = memory.read_u64(entry).ok()?;
        let is_inside = offset.checked_add(bytes)? <= *size;
        let is_made = block != UNALLOCATED && block != 0;
        let start = Address::new(block).checked_add(offset)?;
        (is_inside && is_made).then_some(start)
    }

    /// A thread's variables of a module; `None` if the thread never made the block.
    pub fn block(
        &self,
        session: &Session,
        thread: &Thread,
        module: ModuleId,
    ) -> Option<Range<Address>> {
        let (_, _, bytes) = self.modules.iter().find(|(id, ..)| *id == module)?;
        let start = self.place(session, thread, module, (0, *bytes))?;
        Some(start..start.checked_add(*bytes)?)
    }

    /// The thread-local variable at `at`.
    pub fn variable(&self, session: &Session, thread: &Thread, at: Address) -> Option<Variable> {
        let memory = session.target().memory;
        let dtv = vector(session, thread)?;
        let (id, offset) = self.modules.iter().find_map(|(id, number, bytes)| {
            let entry = dtv.checked_add(number.checked_mul(16)?)?;
            let block = memory.read_u64(entry).ok()?;
            let offset = at.get().checked_sub(block)?;
            let is_here = block != UNALLOCATED && block != 0 && offset < *bytes;
            is_here.then_some((*id, offset))
        })?;
        let module = session.modules().module(id)?;
        let symbol = session.debug_info().thread_local_at(id, offset);
        Some(Variable {
            symbol: symbol.map(|(name, inside)| (plain(&name).to_owned(), inside)),
            module: (module.name.clone(), offset),
        })
    }
}

/// A thread's dynamic thread vector.
fn vector(session: &Session, thread: &Thread) -> Option<Address> {
    let tp = thread.thread_pointer?;
    let head = match session.threads().instruction_set() {
        InstructionSet::X86_64 => tp.checked_add(8)?,
        InstructionSet::Aarch64 => tp,
    };
    let memory = session.target().memory;
    Some(Address::new(memory.read_u64(head).ok()?))
}

/// The name in the source. Rust's `thread_local!` puts the value into a variable of a closure's own: `server::CACHE::{{constant}}::...::VAL`.
fn plain(name: &str) -> &str {
    let end = name.find("::{{").unwrap_or(name.len());
    name.get(..end).unwrap_or(name)
}
