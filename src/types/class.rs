//! A virtual table and the class that it is of (Itanium C++ ABI, 2.5.2 and 2.9.5).
//!
//! ```text
//! object ──> +0  first function
//!            -8  type_info*, or 0 (-fno-rtti)
//!           -16  offset to top: 0 in a primary table, negative in that of a further base
//! ```

use ground::target::{Address, MemoryExt, Module};

use super::shorten::shortened;
use super::{KnownBy, Type, rtti};
use postmortem::debuginfo::demangle::demangle;
use postmortem::session::Session;

/// Functions of a table that are looked at.
const MAX_FUNCTIONS: u64 = 64;
/// Functions of which one must be there: an abstract class has zeros for its destructors.
const MIN_FUNCTIONS: u64 = 4;
/// Bytes from an object's start to its furthest base.
const MAX_TO_TOP: u64 = 1 << 24;
/// What a table has where a class does not say what a function does.
const PURE: &str = "__cxa_pure_virtual";

/// A class, as one of its virtual tables tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    name: String,
    /// Its name as debug information has it; none where the core alone tells.
    pub full: Option<String>,
    known_by: KnownBy,
    module: String,
    /// From where the table's address stands in an object to the object's start: 0 or negative.
    pub to_top: i64,
    /// Bytes of an object.
    pub size: Option<u64>,
    /// The class is abstract, or the table is one that stands while a derived class is made or destroyed.
    pub is_base: bool,
    /// The module has a class that is derived from it.
    pub has_derived: bool,
    conflict: Option<String>,
}

impl Class {
    pub fn to_type(&self) -> Type {
        Type {
            name: self.name.clone(),
            known_by: self.known_by,
            module: self.module.clone(),
            size: self.size,
            was: false,
            is_base: self.is_base,
            conflict: self.conflict.clone(),
        }
    }

    pub fn to_array(&self, count: u64) -> Type {
        Type {
            name: format!("{}[{count}]", self.name),
            ..self.to_type()
        }
    }
}

/// What a table's symbol says.
enum BySymbol {
    /// The class whose table it is.
    Class(String),
    /// It stands while an object is made or destroyed.
    Construction,
}

/// The class of the table at `table`, which objects lead to.
pub(super) fn read(session: &Session, module: &Module, table: Address) -> Option<Class> {
    let memory = session.target().memory;
    let by_symbol = by_symbol(session, module, table);
    let shape = shape(session, table);
    let info = shape.as_ref().and_then(|shape| shape.info);
    let by_info = info.and_then(|info| rtti::name_of(memory, info));
    // A table that cannot be read is known by its symbol, at its one place.
    let to_top = match (&shape, &by_symbol) {
        (Some(shape), _) => shape.to_top,
        (None, Some(_)) if memory.read_u64(table).is_err() => 0,
        _ => return None,
    };
    let is_construction = matches!(by_symbol, Some(BySymbol::Construction));
    let known = match by_symbol {
        Some(BySymbol::Class(name)) => Some(name),
        _ => None,
    };
    let full = known.clone().or_else(|| by_info.clone());
    let is_proved = info.is_some_and(|info| rtti::is_type_info(session, info));
    let conflict = match (&known, &by_info) {
        (Some(known), Some(info)) if known != info => {
            Some(format!("its type_info says {}", shortened(info)))
        }
        _ => None,
    };
    let (name, known_by) = match (&known, &by_info) {
        (Some(known), _) => (shortened(known), KnownBy::Vtable),
        (None, Some(info)) if is_proved => (shortened(info), KnownBy::Rtti),
        // Neither symbol nor text: which class it is, another core of the same build tells alike.
        (None, _) if is_proved => (
            format!(
                "class of {}+{:#x}",
                module.name,
                table.offset_from(module.range.start)?
            ),
            KnownBy::Vtable,
        ),
        _ => return None,
    };
    let size = full.as_ref().and_then(|full| {
        let layout = session.target().types.layout(module.id, full)?;
        Some(layout.size)
    });
    Some(Class {
        name,
        full,
        known_by,
        module: module.name.clone(),
        to_top,
        size,
        is_base: is_construction || shape.is_some_and(|shape| shape.is_abstract),
        has_derived: info.is_some_and(|info| rtti::has_derived(session, module, info)),
        conflict,
    })
}

/// The class by the symbol that covers the table.
fn by_symbol(session: &Session, module: &Module, table: Address) -> Option<BySymbol> {
    let (stored, start) = session.debug_info().stored_object_at(module.id, table)?;
    let inside = table.offset_from(start)?;
    // Two words stand before the first function, more where there are virtual bases.
    if inside < 16 || !inside.is_multiple_of(8) {
        return None;
    }
    // While a derived class is made its base has a table of its own, whose type_info is the base's.
    if stored.starts_with("_ZTC") {
        return Some(BySymbol::Construction);
    }
    let name = demangle(&format!("_ZTI{}", stored.strip_prefix("_ZTV")?));
    let name = name.strip_prefix("typeinfo for ")?;
    Some(BySymbol::Class(name.to_owned()))
}

/// What stands in a table.
struct Shape {
    to_top: i64,
    info: Option<Address>,
    is_abstract: bool,
}

/// What stands around `table`, if it can be a virtual table.
fn shape(session: &Session, table: Address) -> Option<Shape> {
    let memory = session.target().memory;
    let to_top = memory.read_u64(table.checked_sub(16)?).ok()?.cast_signed();
    if to_top > 0 || to_top.unsigned_abs() > MAX_TO_TOP || to_top % 8 != 0 {
        return None;
    }
    let info = memory.read_u64(table.checked_sub(8)?).ok()?;
    if info != 0 && session.modules().module_at(Address::new(info)).is_none() {
        return None;
    }
    let function = |index: u64| {
        let at = table.checked_add(index.checked_mul(8)?)?;
        memory.read_u64(at).ok()
    };
    let is_code = |word: u64| {
        let at = Address::new(word);
        let module = session.modules().module_at(at);
        module.is_some_and(|module| module.has_code_at(at))
    };
    let begins = (0..MIN_FUNCTIONS)
        .map_while(function)
        .take_while(|word| *word == 0 || is_code(*word))
        .any(is_code);
    if !begins {
        return None;
    }
    let is_pure = |word: u64| {
        let at = Address::new(word);
        let module = session.modules().module_at(at);
        let found = module.and_then(|module| session.debug_info().function_at(module.id, at));
        found.is_some_and(|found| found.name.trim_end_matches("@plt") == PURE)
    };
    let is_abstract = (0..MAX_FUNCTIONS)
        .map_while(function)
        .take_while(|word| *word == 0 || is_code(*word))
        .any(is_pure);
    Some(Shape {
        to_top,
        info: (info != 0).then_some(Address::new(info)),
        is_abstract,
    })
}
