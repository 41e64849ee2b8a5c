//! Variables that have one place for the whole run: globals, statics of files and of functions, thread-locals.
//!
//! ```text
//! DW_AT_location  DW_OP_addr A                            the link address A
//!                 DW_OP_const8u N, DW_OP_form_tls_address  N bytes into the module's thread-local block
//! ```

use gimli::{AttributeValue, Expression, Operation, UnitOffset, constants as dw};
use rayon::prelude::*;

use super::dies::{Place, Units, unit_at};
use super::dwarf::{Bytes, Dwarf, Unit};

/// Variables of one module.
const MAX_VARIABLES: usize = 1 << 21;

/// Where such a variable is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StaticPlace {
    /// At this link address.
    Link(u64),
    /// So many bytes into the module's block of each thread.
    ThreadLocal(u64),
}

/// A variable and its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StaticVariable {
    /// Where it is.
    pub at: StaticPlace,
    /// Its entry.
    pub entry: Place,
}

/// Reads all units, in parallel; each place once, by rising place.
pub(super) fn read(dwarf: &Dwarf<'_>, units: &Units) -> Vec<StaticVariable> {
    let starts: Vec<Place> = units.starts().collect();
    let parts: Vec<Vec<StaticVariable>> = starts
        .par_iter()
        .map(|start| {
            let mut found = Vec::new();
            // A damaged end of a unit costs the variables there.
            let _ = of_unit(dwarf, *start, &mut found);
            found
        })
        .collect();
    let mut all: Vec<StaticVariable> = parts.into_iter().flatten().take(MAX_VARIABLES).collect();
    all.sort_unstable();
    all.dedup_by_key(|variable| variable.at);
    all
}

fn of_unit(dwarf: &Dwarf<'_>, start: Place, found: &mut Vec<StaticVariable>) -> Option<()> {
    let unit = unit_at(dwarf, start)?;
    let mut entries = unit.entries_raw(None).ok()?;
    while !entries.is_empty() {
        let offset: UnitOffset = entries.next_offset();
        let Some(abbreviation) = entries.read_abbreviation().ok()? else {
            continue;
        };
        if abbreviation.tag() != dw::DW_TAG_variable {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        for specification in abbreviation.attributes() {
            if specification.name() != dw::DW_AT_location {
                let one = std::slice::from_ref(specification);
                entries.skip_attributes(one).ok()?;
                continue;
            }
            let value = entries.read_attribute_inline(*specification).ok()?.value();
            if let AttributeValue::Exprloc(expression) = value
                && let Some(at) = place(dwarf, &unit, expression)
                && found.len() < MAX_VARIABLES
            {
                let entry = Place {
                    area: start.area,
                    offset: start.offset.checked_add(offset.0)?,
                };
                found.push(StaticVariable { at, entry });
            }
        }
    }
    Some(())
}

fn place<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    expression: Expression<Bytes<'a>>,
) -> Option<StaticPlace> {
    let mut operations = expression.operations(unit.encoding());
    let first = operations.next().ok()??;
    let value = match first {
        Operation::Address { address } => address,
        Operation::AddressIndex { index } => dwarf.address(unit, index).ok()?,
        Operation::UnsignedConstant { value } => value,
        _ => return None,
    };
    match operations.next().ok()? {
        // Zero is where the linker dropped it.
        None if !matches!(first, Operation::UnsignedConstant { .. }) => {
            (value != 0).then_some(StaticPlace::Link(value))
        }
        Some(Operation::TLS) => Some(StaticPlace::ThreadLocal(value)),
        _ => None,
    }
}
