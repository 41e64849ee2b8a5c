//! Rust's trait objects: a pointer to the object, and behind it one to the table of its type.
//!
//! ```text
//! table ──> +0 drop, or 0   +8 size   +16 align   +24 methods ...
//! ```
//!
//! The layout is that of every rustc so far, and no promise. Size and alignment must be those of the block, which proves it.

use ground::target::{Address, MemoryExt, Module};

use super::{KnownBy, Place, Type, fits};
use postmortem::session::Session;

/// Greatest alignment of a type (2^29 is allowed, and never used).
const MAX_ALIGN: u64 = 1 << 16;
/// Two counts in front of what `Rc` and `Arc` hold.
const COUNTS: u64 = 16;
/// Methods whose names are looked at.
const MAX_METHODS: u64 = 8;
/// The function that drops a value of a type.
const DROP: &str = "core::ptr::drop_in_place";

/// The type of a block's object by the table that stands behind a pointer to it.
pub(super) fn read(session: &Session, module: &Module, block: Place, table: u64) -> Option<Type> {
    let memory = session.target().memory;
    let table = Address::new(table);
    let word = |offset: u64| {
        let at = table.checked_add(offset)?;
        memory.read_u64(at).ok()
    };
    let (drop, size, align) = (word(0)?, word(8)?, word(16)?);
    let has_code = |at: Address| module.has_code_at(at);
    let is_drop = drop == 0 || has_code(Address::new(drop));
    if !is_drop || size == 0 || !align.is_power_of_two() || align > MAX_ALIGN {
        return None;
    }
    let counts = COUNTS.next_multiple_of(align);
    let is_size = fits(block.bytes, size)
        || size
            .checked_add(counts)
            .is_some_and(|size| fits(block.bytes, size));
    if !is_size || !block.address.is_aligned(align) {
        return None;
    }
    let name = session
        .debug_info()
        .trait_object_at(module.id, table)
        .or_else(|| by_functions(session, module, drop, &word))
        .or_else(|| {
            // Neither debug information nor symbols: another core of the same build tells alike.
            let has_function = drop != 0 || word(24).is_some_and(|at| has_code(Address::new(at)));
            let offset = table.offset_from(module.range.start)?;
            has_function.then(|| format!("trait object of {}+{offset:#x}", module.name))
        })?;
    Some(Type {
        name,
        known_by: KnownBy::Vtable,
        module: module.name.clone(),
        size: Some(size),
        was: block.state != heaps::map::BlockState::InUse,
        is_base: false,
        conflict: None,
    })
}

/// The type that the table's functions name, if all that name one agree: linkers give one body to functions that do the same.
fn by_functions(
    session: &Session,
    module: &Module,
    drop: u64,
    word: &dyn Fn(u64) -> Option<u64>,
) -> Option<String> {
    let name = |at: u64| {
        let at = Address::new(at);
        let found = session.debug_info().function_at(module.id, at)?;
        (found.start == at).then_some(found.name)
    };
    let dropped = name(drop).and_then(|name| dropped_by(&name).map(str::to_owned));
    let methods = (0..MAX_METHODS)
        .map_while(|index| word(index.checked_mul(8)?.checked_add(24)?))
        .take_while(|method| module.has_code_at(Address::new(*method)));
    let owners = methods.filter_map(|method| {
        let name = name(method)?;
        owner_of(&name).map(str::to_owned)
    });
    let mut named = owners.chain(dropped);
    let first = named.next()?;
    named.all(|other| other == first).then_some(first)
}

/// `T` of `core::ptr::drop_in_place<T>`.
fn dropped_by(name: &str) -> Option<&str> {
    let behind = name.strip_prefix(DROP)?;
    let behind = behind.strip_prefix("::").unwrap_or(behind);
    behind.strip_prefix('<')?.strip_suffix('>')
}

/// `T` of `<T as Trait>::method`, if no brackets are in it.
fn owner_of(name: &str) -> Option<&str> {
    let (owner, _) = name.strip_prefix('<')?.split_once(" as ")?;
    (!owner.contains(['<', '(', '['])).then_some(owner)
}
