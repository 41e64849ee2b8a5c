//! Which functions of other modules a module uses: the slots that the dynamic linker fills for it, and what stands in them.
//!
//! ```text
//! PT_DYNAMIC ──> DT_RELA, DT_JMPREL ──> relocation +0 r_offset ──> slot of the GOT, or a variable ──> function
//!                DT_SYMTAB, DT_STRTAB                +8 r_info: type, symbol ──> "malloc"
//! ```
//!
//! The tables are read from the process's memory: a core holds them, or the module's file lends them. Layout: the ELF gABI;
//! relocation types from the x86-64 and the AArch64 psABI.

use std::collections::HashSet;

use ground::target::{Address, MemoryExt, TargetMemory};
use object::elf;

use super::ProgramHeader;

/// Entries of a dynamic section that are read; real ones have 30.
const MAX_DYNAMIC_ENTRIES: u64 = 4096;
/// Bytes of one relocation table that are read: 2.8 million relocations.
const MAX_TABLE_BYTES: u64 = 64 << 20;
/// Bytes of a relocation, and of a symbol.
const RELOCATION_BYTES: usize = 24;
const SYMBOL_BYTES: usize = 24;
/// Relocations read at a time.
const CHUNK: u64 = 4096;

/// A word that the dynamic linker fills with a function's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The function's name.
    pub name: String,
    /// The word.
    pub slot: Address,
    /// What stands in it, if it was resolved: not so long as the function was never called and binding is lazy.
    pub target: Option<Address>,
    /// The module's own entry of its linkage table, if that is the function's address for the whole process: so in a program at a
    /// fixed address that takes the function's address.
    pub stands_for: Option<Address>,
}

/// The module as far as its imports need it.
#[derive(Clone, Copy)]
pub(super) struct Importer<'m> {
    /// Its program headers, at link addresses.
    pub headers: &'m [ProgramHeader],
    /// Run-time minus link address (wrapping).
    pub bias: u64,
}

/// The tables that a dynamic section names, at run time.
#[derive(Default)]
struct Tables {
    /// Relocations: start and bytes.
    relocations: [(u64, u64); 2],
    symbols: u64,
    strings: u64,
    strings_bytes: u64,
}

/// The slots for the functions called `names`. `None` if the module has no dynamic section or its tables cannot be read.
pub(super) fn read(
    memory: &dyn TargetMemory,
    module: Importer<'_>,
    names: &[&str],
) -> Option<Vec<Import>> {
    let tables = tables(memory, module)?;
    let mut imports = Vec::new();
    let mut other_names = HashSet::new();
    for (start, bytes) in tables.relocations {
        let count = bytes
            .min(MAX_TABLE_BYTES)
            .checked_div(RELOCATION_BYTES as u64)?;
        let mut done = 0;
        while done < count {
            let some = CHUNK.min(count.checked_sub(done)?);
            let mut chunk = vec![0; usize::try_from(some).ok()?.checked_mul(RELOCATION_BYTES)?];
            let at = start.checked_add(done.checked_mul(RELOCATION_BYTES as u64)?)?;
            memory.read_into(Address::new(at), &mut chunk).ok()?;
            for relocation in chunk.as_chunks::<RELOCATION_BYTES>().0 {
                let found = import(memory, module, &tables, relocation, names, &mut other_names);
                imports.extend(found);
            }
            done = done.checked_add(some)?;
        }
    }
    Some(imports)
}

fn import(
    memory: &dyn TargetMemory,
    module: Importer<'_>,
    tables: &Tables,
    relocation: &[u8; RELOCATION_BYTES],
    names: &[&str],
    other_names: &mut HashSet<u32>,
) -> Option<Import> {
    let word = |at: usize| Some(u64::from_le_bytes(*relocation.get(at..)?.first_chunk()?));
    let (offset, info, addend) = (word(0)?, word(8)?, word(16)?);
    let (kind, index) = (
        u32::try_from(info & 0xffff_ffff).ok()?,
        u32::try_from(info >> 32).ok()?,
    );
    // Of a call the addend is not added: `ld -z mark-plt` keeps the place of its entry in the linkage table there.
    let calls = [elf::R_X86_64_JUMP_SLOT, elf::R_AARCH64_JUMP_SLOT];
    let is_call = calls.iter().any(|call| call.0 == kind);
    if index == 0 || addend != 0 && !is_call || !is_address(kind) || other_names.contains(&index) {
        return None;
    }
    let symbol = tables
        .symbols
        .checked_add(u64::from(index).checked_mul(SYMBOL_BYTES as u64)?)?;
    let symbol: [u8; SYMBOL_BYTES] = memory.read_bytes(Address::new(symbol)).ok()?;
    let is_it = |name: &&&str| is_named(memory, tables, &symbol, name);
    let Some(name) = names.iter().find(is_it) else {
        other_names.insert(index);
        return None;
    };
    let slot = Address::new(offset.wrapping_add(module.bias));
    let value = memory.read_pointer(slot).ok()?;
    Some(Import {
        name: (*name).to_owned(),
        slot,
        target: Some(value).filter(|value| is_resolved(module, &symbol, *value)),
        stands_for: address_of(module, &symbol).filter(|_| !is_defined(&symbol)),
    })
}

/// Relocations that put a symbol's address into a word: of calls, of addresses in the GOT, and of initialised pointers.
fn is_address(kind: u32) -> bool {
    [
        elf::R_X86_64_64,
        elf::R_X86_64_GLOB_DAT,
        elf::R_X86_64_JUMP_SLOT,
        elf::R_AARCH64_ABS64,
        elf::R_AARCH64_GLOB_DAT,
        elf::R_AARCH64_JUMP_SLOT,
    ]
    .iter()
    .any(|wanted| wanted.0 == kind)
}

fn is_named(
    memory: &dyn TargetMemory,
    tables: &Tables,
    symbol: &[u8; SYMBOL_BYTES],
    name: &str,
) -> bool {
    let read = || {
        let offset = u64::from(u32::from_le_bytes(*symbol.first_chunk()?));
        let length = name.len().checked_add(1)?; // the NUL included
        let end = offset.checked_add(u64::try_from(length).ok()?)?;
        if end > tables.strings_bytes {
            return None;
        }
        let mut found = vec![0; length];
        let at = Address::new(tables.strings.checked_add(offset)?);
        memory.read_into(at, &mut found).ok()?;
        Some(found.strip_suffix(&[0])? == name.as_bytes())
    };
    read().unwrap_or(false)
}

/// A slot that was not resolved yet leads back into the module's own linkage table; one that was resolved leads to another
/// module, or to what this module itself defines.
fn is_resolved(module: Importer<'_>, symbol: &[u8; SYMBOL_BYTES], value: Address) -> bool {
    let own = module.headers.iter().any(|header| {
        let link = value.get().wrapping_sub(module.bias);
        header.is_load() && link.wrapping_sub(header.address) < header.memory_bytes
    });
    let is_its = is_defined(symbol) && address_of(module, symbol) == Some(value);
    !value.is_null() && (!own || is_its)
}

fn is_defined(symbol: &[u8; SYMBOL_BYTES]) -> bool {
    symbol.get(6..8) != Some(&[0, 0])
}

/// The address that the symbol table has for a symbol, if any.
fn address_of(module: Importer<'_>, symbol: &[u8; SYMBOL_BYTES]) -> Option<Address> {
    let address = u64::from_le_bytes(*symbol.get(8..)?.first_chunk()?);
    (address != 0).then(|| Address::new(address.wrapping_add(module.bias)))
}

fn tables(memory: &dyn TargetMemory, module: Importer<'_>) -> Option<Tables> {
    let dynamic = module
        .headers
        .iter()
        .find(|header| header.kind == elf::PT_DYNAMIC.0)?;
    let start = Address::new(dynamic.address.wrapping_add(module.bias));
    let mut tables = Tables::default();
    let [rela, jump] = &mut tables.relocations;
    for index in 0..MAX_DYNAMIC_ENTRIES {
        let entry = start.checked_add(index.checked_mul(16)?)?;
        let value = memory.read_u64(entry.checked_add(8)?).ok()?;
        let at = run_time(module, value);
        match memory.read_u64(entry).ok()? {
            0 => break,
            2 => jump.1 = value,
            5 => tables.strings = at,
            6 => tables.symbols = at,
            7 => rela.0 = at,
            8 => rela.1 = value,
            10 => tables.strings_bytes = value,
            23 => jump.0 = at,
            _ => {}
        }
    }
    (tables.symbols != 0 && tables.strings != 0).then_some(tables)
}

/// The dynamic linker turns the addresses of a dynamic section into run-time ones where it can write there: not on every
/// architecture, and not in the vDSO.
fn run_time(module: Importer<'_>, value: u64) -> u64 {
    let is_link = module
        .headers
        .iter()
        .any(|header| header.is_load() && value.wrapping_sub(header.address) < header.memory_bytes);
    if is_link {
        value.wrapping_add(module.bias)
    } else {
        value
    }
}
