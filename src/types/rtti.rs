//! `std::type_info` in memory (Itanium C++ ABI, 2.9.5).
//!
//! ```text
//! type_info ──> +0   its own virtual table: that of __class_type_info, __si_class_type_info or __vmi_class_type_info
//!               +8   name: "7Session", "N2ns7SessionE"; a star in front if it is compared by address
//!               +16  the base's type_info (si); flags, count, then {type_info*, offset and flags} (vmi)
//! ```

use std::ops::Range;

use ground::target::{Address, Cursor, MemoryExt, Module, TargetMemory};

use postmortem::debuginfo::demangle::demangle;
use postmortem::session::Session;

/// Longest name of a type.
const MAX_NAME_BYTES: u64 = 4096;
/// Bytes of a module's data in which derived classes are looked for.
const MAX_DATA_BYTES: u64 = 64 << 20;
/// Names of the classes of type_infos end so.
const INFO_CLASS: &str = "class_type_info";

/// The name in a type_info, demangled; `None` if the core does not hold it, or there is none.
pub fn name_of(memory: &dyn TargetMemory, info: Address) -> Option<String> {
    let name = memory.read_pointer(info.checked_add(8)?).ok()?;
    let mut bytes = Vec::new();
    loop {
        let here = name.checked_add(bytes.len() as u64)?;
        match memory.read_u8(here).ok()? {
            0 => break,
            byte => bytes.push(byte),
        }
        if bytes.len() as u64 > MAX_NAME_BYTES {
            return None;
        }
    }
    let name = std::str::from_utf8(&bytes).ok()?;
    // A star marks a name that is compared by address.
    let name = name.strip_prefix('*').unwrap_or(name);
    let is_mangled = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_mangled {
        return None;
    }
    let readable = demangle(&format!("_ZTI{name}"));
    let readable = readable.strip_prefix("typeinfo for ")?;
    Some(readable.to_owned())
}

/// Whether a class's type_info is at `info`: its own virtual table is that of a class of type_infos, by name where there is one,
/// else by what stands around it.
pub fn is_type_info(session: &Session, info: Address) -> bool {
    let memory = session.target().memory;
    let modules = session.modules();
    let Ok(table) = memory.read_u64(info).map(Address::new) else {
        return false;
    };
    let Some(module) = modules.module_at(table) else {
        return false;
    };
    if !info.is_aligned(8) || !table.is_aligned(8) {
        return false;
    }
    let named = session.debug_info().stored_object_at(module.id, table);
    if let Some((name, _)) = named {
        return name.starts_with("_ZTV") && name.contains(INFO_CLASS);
    }
    let word = |back: u64| {
        let at = table.checked_sub(back)?;
        memory.read_u64(at).ok()
    };
    let own = word(8).map(Address::new);
    if let Some(name) = own.and_then(|own| name_of(memory, own)) {
        return name.contains(INFO_CLASS);
    }
    // Without any file: a primary table of functions whose type_info has a table of its own again.
    let function = word(0).map(Address::new);
    let is_code = function.is_some_and(|at| {
        let module = modules.module_at(at);
        module.is_some_and(|module| module.has_code_at(at))
    });
    let meta = own.and_then(|own| memory.read_u64(own).ok());
    let has_meta = meta.is_some_and(|meta| {
        modules
            .module_at(Address::new(meta))
            .is_some_and(|found| found.id == module.id)
    });
    let name = info.checked_add(8).and_then(|at| memory.read_u64(at).ok());
    let has_name = name.is_some_and(|name| modules.module_at(Address::new(name)).is_some());
    word(16) == Some(0) && is_code && has_meta && has_name
}

/// Whether the module has the type_info of a class that is derived from that of `info`.
pub fn has_derived(session: &Session, module: &Module, info: Address) -> bool {
    let memory = session.target().memory;
    let mut left = MAX_DATA_BYTES;
    module.segments.iter().any(|segment| {
        let end = segment.range.start.saturating_add(left);
        let part = segment.range.start..segment.range.end.min(end);
        left = left.saturating_sub(part.end.offset_from(part.start).unwrap_or(0));
        !segment.executable && names_as_base(memory, part, info)
    })
}

/// Whether a word of the range names `info` where a type_info names its base. In front of the functions of a virtual table stands
/// an offset, which is 0 or negative.
fn names_as_base(memory: &dyn TargetMemory, range: Range<Address>, info: Address) -> bool {
    let mut near = Cursor::new(memory);
    let mut found = ground::scan::words_in(memory, range, |_, word| word == info.get());
    found.any(|(at, _)| {
        let before = at.checked_sub(8).and_then(|at| near.read_u64(at).ok());
        before.is_some_and(|before| before.cast_signed() > 0)
    })
}
