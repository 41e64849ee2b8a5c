//! Which functions are an allocator's entries, and where calls and jumps lead.

use ground::target::{Address, MemoryExt};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

use super::Entry;
use postmortem::session::Session;

/// Stubs that lead from one to the next.
const MAX_STUBS: usize = 4;
/// Bytes of a stub.
const STUB_BYTES: usize = 16;

/// Names before which an allocator, or a library that stands in front of one, puts something of its own.
const PREFIXES: [&str; 9] = [
    "__GI_",
    "__libc_",
    "__debug_",
    "__interceptor_",
    "__rtld_",
    "_rjem_",
    "tc_",
    "je_",
    "mi_",
];

/// Functions that do not come back.
const ENDLESS: [&str; 16] = [
    "__stack_chk_fail",
    "abort",
    "exit",
    "_exit",
    "_Exit",
    "quick_exit",
    "__assert_fail",
    "__assert_perror_fail",
    "__chk_fail",
    "__fortify_fail",
    "longjmp",
    "siglongjmp",
    "pthread_exit",
    "_Unwind_Resume",
    "__cxa_rethrow",
    "__cxa_throw",
];

impl Entry {
    /// The entry with this name, mangled or not.
    pub(super) fn of_name(name: &str) -> Option<Entry> {
        let name = name.strip_suffix("@plt").unwrap_or(name);
        let name = name.split('@').next().unwrap_or(name);
        if name.starts_with("operator delete")
            || name.starts_with("_ZdlPv")
            || name.starts_with("_ZdaPv")
        {
            return Some(Entry::Delete);
        }
        let mut bare = name;
        while let Some(rest) = PREFIXES.iter().find_map(|prefix| bare.strip_prefix(prefix)) {
            bare = rest;
        }
        match bare {
            "free" | "cfree" | "free_sized" | "free_aligned_sized" | "dallocx" | "sdallocx"
            | "mp_free" => Some(Entry::Free),
            "realloc" | "reallocarray" | "rallocx" | "xallocx" | "mp_realloc" => {
                Some(Entry::Realloc)
            }
            "delete"
            | "deletearray"
            | "delete_sized"
            | "deletearray_sized"
            | "delete_nothrow"
            | "deletearray_nothrow"
            | "delete_aligned"
            | "deletearray_aligned"
                if name.starts_with("tc_") =>
            {
                Some(Entry::Delete)
            }
            _ => None,
        }
    }
}

/// Where a call leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Callee {
    /// The function, behind all stubs.
    pub address: u64,
    /// It is this entry.
    pub entry: Option<Entry>,
    /// The call can have led nowhere else.
    pub certain: bool,
}

/// Names of code in a session.
#[derive(Clone, Copy)]
pub(super) struct Names<'s> {
    pub session: &'s Session,
}

impl Names<'_> {
    /// The name of the function, or the linkage stub, that begins at an address.
    pub fn starting_at(&self, at: u64) -> Option<String> {
        let at = Address::new(at);
        let module = self.session.modules().module_at(at)?;
        let found = self.session.debug_info().function_at(module.id, at)?;
        (found.start == at).then_some(found.name)
    }

    /// Whether a function is one of those that do not come back, by its name.
    pub fn is_endless(&self, at: u64) -> bool {
        let name = self.starting_at(at);
        let name = name
            .as_deref()
            .map(|name| name.strip_suffix("@plt").unwrap_or(name));
        name.is_some_and(|name| ENDLESS.contains(&name) || name == "std::terminate()")
    }

    /// Where a call or jump to a fixed place, or through a word at a fixed place, leads.
    pub fn of_branch(&self, branch: &Instruction) -> Option<Callee> {
        match branch.flow_control() {
            FlowControl::Call | FlowControl::UnconditionalBranch
                if branch.op0_kind() == OpKind::NearBranch64 =>
            {
                self.at(branch.near_branch_target())
            }
            FlowControl::IndirectCall | FlowControl::IndirectBranch
                if branch.is_ip_rel_memory_operand() =>
            {
                self.through(branch.ip_rel_memory_address(), branch.ip())
            }
            _ => None,
        }
    }

    /// Where a call of an address leads.
    pub fn at(&self, address: u64) -> Option<Callee> {
        let mut address = address;
        for _ in 0..MAX_STUBS {
            let name = self.starting_at(address);
            let entry = name.as_deref().and_then(Entry::of_name);
            let slot = self.slot_of_stub(address);
            match (slot, entry) {
                (None, _) => {
                    return Some(Callee {
                        address,
                        entry,
                        certain: true,
                    });
                }
                (Some(slot), entry) => {
                    let behind = self.word(slot);
                    let entry = entry.or_else(|| self.entry_of_slot(slot, address));
                    if entry.is_some() {
                        return Some(Callee {
                            address: behind.unwrap_or(address),
                            entry,
                            certain: true,
                        });
                    }
                    address = behind?;
                }
            }
        }
        None
    }

    /// Where a call through the word at `slot` leads, by code at `from`.
    fn through(&self, slot: u64, from: u64) -> Option<Callee> {
        let address = self.word(slot)?;
        let callee = self.at(address);
        match self.entry_of_slot(slot, from) {
            Some(entry) => Some(Callee {
                address: callee.map_or(address, |callee| callee.address),
                entry: Some(entry),
                certain: true,
            }),
            None => callee,
        }
    }

    /// The word through which a stub jumps: `jmp *slot(%rip)`, perhaps behind `endbr64`.
    fn slot_of_stub(&self, at: u64) -> Option<u64> {
        let code: [u8; STUB_BYTES] = self.session.memory().read_bytes(Address::new(at)).ok()?;
        let decoder = Decoder::with_ip(64, &code, at, DecoderOptions::NONE);
        let mut instructions = decoder
            .into_iter()
            .skip_while(|instruction| instruction.mnemonic() == Mnemonic::Endbr64);
        let jump = instructions.next()?;
        let is_stub = jump.mnemonic() == Mnemonic::Jmp && jump.is_ip_rel_memory_operand();
        is_stub.then(|| jump.ip_rel_memory_address())
    }

    /// The entry whose slot of a module's table this is: known without the module's file.
    fn entry_of_slot(&self, slot: u64, code: u64) -> Option<Entry> {
        const KINDS: [(Entry, &[&str]); 3] = [
            (Entry::Free, &["free", "cfree"]),
            (Entry::Realloc, &["realloc", "reallocarray"]),
            (
                Entry::Delete,
                &[
                    "_ZdlPv",
                    "_ZdaPv",
                    "_ZdlPvm",
                    "_ZdaPvm",
                    "_ZdlPvSt11align_val_t",
                    "_ZdaPvSt11align_val_t",
                    "_ZdlPvmSt11align_val_t",
                    "_ZdaPvmSt11align_val_t",
                ],
            ),
        ];
        let modules = self.session.modules();
        let module = modules.module_at(Address::new(code))?;
        let is_own = module.range.contains(&Address::new(slot));
        KINDS
            .into_iter()
            .filter(|_| is_own)
            .find_map(|(entry, names)| {
                let imports = modules.imports(self.session.memory(), module.id, names)?;
                let mut slots = imports.iter().map(|import| import.slot.get());
                slots.any(|found| found == slot).then_some(entry)
            })
    }

    fn word(&self, at: u64) -> Option<u64> {
        let memory = self.session.memory();
        memory
            .read_pointer(Address::new(at))
            .ok()
            .map(Address::get)
            .filter(|word| *word != 0)
    }
}
