//! Tables of Rust's trait objects by their addresses. The compiler describes each as a variable:
//!
//! ```text
//! DW_TAG_variable  DW_AT_name "<shapes::Circle as shapes::Shape>::{vtable}"  DW_AT_location: the table
//! ```

use std::collections::BTreeMap;

use gimli::{AttributeValue, Operation, Section, UnitOffset, constants as dw};
use memchr::memmem::Finder;
use rayon::prelude::*;

use super::dies::{Dies, Place, Units, unit_at};
use super::dwarf::Dwarf;
use super::scan::{self, Item, Visitor};

/// What such a variable's name ends with.
const SUFFIX: &str = "::{vtable}";
/// Tables that are kept of a module.
const MAX_TABLES: usize = 1 << 20;

/// The tables of one module.
#[derive(Default)]
pub(super) struct TraitObjects {
    /// Names of types by link addresses; `None` where one address has several.
    by_address: BTreeMap<u64, Option<String>>,
}

impl TraitObjects {
    /// Reads all units, in parallel, if any table is mentioned.
    pub fn read(dwarf: &Dwarf<'_>, units: &Units) -> Self {
        let finder = Finder::new(SUFFIX);
        let mentions = [
            dwarf.debug_str.reader().slice(),
            dwarf.debug_info.reader().slice(),
        ];
        if !mentions
            .iter()
            .any(|section| finder.find(section).is_some())
        {
            return Self::default();
        }
        let starts: Vec<Place> = units.starts().collect();
        let found: Vec<Vec<(u64, String)>> = starts
            .par_iter()
            .map(|start| of_unit(dwarf, units, *start).unwrap_or_default())
            .collect();
        let mut by_address: BTreeMap<u64, Option<String>> = BTreeMap::new();
        for (at, name) in found.into_iter().flatten() {
            if by_address.len() >= MAX_TABLES {
                break;
            }
            let known = by_address.entry(at).or_insert_with(|| Some(name.clone()));
            if known.as_ref().is_some_and(|known| *known != name) {
                *known = None;
            }
        }
        Self { by_address }
    }

    /// The type of the table that begins at this link address.
    pub fn at(&self, at: u64) -> Option<&str> {
        self.by_address.get(&at)?.as_deref()
    }
}

/// The tables that one unit describes.
fn of_unit(dwarf: &Dwarf<'_>, units: &Units, start: Place) -> Option<Vec<(u64, String)>> {
    let unit = unit_at(dwarf, start)?;
    let mut tables = Tables::default();
    // A damaged end of a unit costs the names there.
    let _ = scan::scan(dwarf, &unit, (), &mut tables);
    if tables.0.is_empty() {
        return None;
    }
    let dies = Dies::new(dwarf, units);
    let placed = tables.0.into_iter().filter_map(|(offset, name)| {
        let place = Place {
            area: start.area,
            offset: start.offset.checked_add(offset.0)?,
        };
        let (unit, entry) = dies.entry(place)?;
        let AttributeValue::Exprloc(expression) = entry.attr_value(dw::DW_AT_location)? else {
            return None;
        };
        let mut operations = expression.operations(unit.unit.encoding());
        let address = match operations.next().ok()?? {
            Operation::Address { address } => address,
            Operation::AddressIndex { index } => dwarf.address(&unit.unit, index).ok()?,
            _ => return None,
        };
        // Zero is where a table was left out.
        (address != 0).then_some((address, name))
    });
    Some(placed.collect())
}

/// Variables whose names are those of tables, and the types that these name.
#[derive(Default)]
struct Tables(Vec<(UnitOffset, String)>);

impl<'a> Visitor<'a, ()> for Tables {
    fn item(&mut self, item: &Item<'a>, (): ()) {
        let name = item.name.and_then(|name| std::str::from_utf8(name).ok());
        let concrete = name.and_then(concrete_type);
        if item.tag == dw::DW_TAG_variable
            && let Some(concrete) = concrete
            && self.0.len() < MAX_TABLES
        {
            self.0.push((item.offset, concrete.to_owned()));
        }
    }
}

/// `Circle` of `<Circle as Shape>::{vtable}`: up to the ` as ` that stands in no brackets of its own.
fn concrete_type(name: &str) -> Option<&str> {
    let inner = name.strip_suffix(SUFFIX)?.strip_prefix('<')?;
    let mut depth = 0usize;
    let mut previous = ' ';
    for (at, letter) in inner.char_indices() {
        match letter {
            '<' | '(' | '[' | '{' => depth = depth.saturating_add(1),
            // Not the arrow of a function's type.
            '>' if previous != '-' => depth = depth.saturating_sub(1),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ' ' if depth == 0 && inner.get(at..).is_some_and(|rest| rest.starts_with(" as ")) => {
                return inner.get(..at);
            }
            _ => {}
        }
        previous = letter;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_is_what_stands_before_the_trait() {
        for (name, expected) in [
            (
                "<shapes::Circle as shapes::Shape>::{vtable}",
                Some("shapes::Circle"),
            ),
            (
                "<alloc::vec::Vec<<u8 as A>::B> as C<D>>::{vtable}",
                Some("alloc::vec::Vec<<u8 as A>::B>"),
            ),
            (
                "<fn(u8) -> u8 as core::ops::Fn>::{vtable}",
                Some("fn(u8) -> u8"),
            ),
            ("<a as b>::{vtable_type}", None),
            ("a as b::{vtable}", None),
            ("<a>::{vtable}", None),
        ] {
            assert_eq!(concrete_type(name), expected, "{name}");
        }
    }
}
