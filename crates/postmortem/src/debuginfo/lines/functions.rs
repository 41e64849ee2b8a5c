//! Functions of one unit, and the calls that were inlined into them.

use gimli::{AttributeValue, DwTag, EntriesRaw, UnitOffset, constants as dw};

use super::ranges::{self, Covering};
use crate::debuginfo::demangle::demangle;
use crate::debuginfo::dies::{Dies, Entry, Place};
use crate::debuginfo::dwarf::{Bytes, Dwarf, Unit};

/// Functions of one unit.
const MAX_FUNCTIONS: usize = 4 << 20;
/// Calls inlined into one another at one address.
const MAX_INLINED: usize = 256;
/// References from a call to the function's own entry.
const MAX_ORIGINS: usize = 8;

/// A function with code.
pub(super) struct Function {
    /// Its entry in the unit.
    pub die: UnitOffset,
}

/// A call that was inlined.
pub(super) struct Inlined {
    /// The entry of the inlined function's copy.
    pub die: UnitOffset,
    /// Where it was called.
    pub file: Option<u64>,
    pub line: Option<u32>,
}

/// All functions of a unit by their ranges, nested ones included.
pub(super) fn read(dwarf: &Dwarf<'_>, unit: &Unit<'_>) -> Covering<Function> {
    let mut found = Vec::new();
    // A damaged end of a unit costs the functions there.
    let _ = collect(dwarf, unit, &mut found);
    Covering::new(found)
}

fn collect(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    found: &mut Vec<(std::ops::Range<u64>, Function)>,
) -> Option<()> {
    let mut entries = unit.entries_raw(None).ok()?;
    let mut base: isize = 0;
    // Depth of the function around, if there is one.
    let mut function: Option<isize> = None;
    while !entries.is_empty() && found.len() < MAX_FUNCTIONS {
        let die = entries.next_offset();
        let depth = base.checked_add(entries.next_depth())?;
        let Some(abbreviation) = entries.read_abbreviation().ok()? else {
            continue;
        };
        function = function.filter(|around| depth > *around);
        let attributes = abbreviation.attributes();
        let has = |name| attributes.iter().any(|attribute| attribute.name() == name);
        let is_function = abbreviation.tag() == dw::DW_TAG_subprogram;
        let has_code = is_function && (has(dw::DW_AT_low_pc) || has(dw::DW_AT_ranges));
        // Types are most of a unit of C++, and have only declarations of functions in them, unless a function is around
        // them. (gcc says where they end; where nobody says, as clang, they are read.)
        let skip = function.is_none()
            && abbreviation.has_children()
            && is_type(abbreviation.tag())
            && has(dw::DW_AT_sibling);
        if has_code || skip {
            let entry = unit.entry(die).ok()?;
            if has_code {
                let ranges = ranges::of_entry(dwarf, unit, &entry);
                found.extend(ranges.into_iter().map(|range| (range, Function { die })));
            } else if let Some(next) = sibling(&entry, &entries) {
                entries = unit.entries_raw(Some(next)).ok()?;
                base = depth;
                continue;
            }
        }
        if is_function && function.is_none() {
            function = Some(depth);
        }
        entries.skip_attributes(attributes).ok()?;
    }
    Some(())
}

fn is_type(tag: DwTag) -> bool {
    matches!(
        tag,
        dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
            | dw::DW_TAG_subroutine_type
            | dw::DW_TAG_array_type
    )
}

/// The inlined calls around `at` in a function, outermost first.
pub(super) fn inlined_at(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    function: &Function,
    at: u64,
) -> Vec<Inlined> {
    let mut calls = Vec::new();
    // A damaged entry costs the calls inside it.
    let _ = descend(dwarf, unit, function, at, &mut calls);
    calls
}

fn descend<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    function: &Function,
    at: u64,
    calls: &mut Vec<Inlined>,
) -> Option<()> {
    let mut entries = unit.entries_raw(Some(function.die)).ok()?;
    let mut entry = Entry::null();
    if !entries.read_entry(&mut entry).ok()? || !entry.has_children() {
        return None;
    }
    // `inside`: the depth whose entries are looked at; it rises where one covers the address.
    let (mut base, mut inside) = (0isize, 1isize);
    while !entries.is_empty() && calls.len() < MAX_INLINED {
        let depth = base.checked_add(entries.next_depth())?;
        let is_entry = entries.read_entry(&mut entry).ok()?;
        if depth < inside {
            return Some(()); // behind the last entry inside
        }
        if !is_entry || depth > inside {
            continue;
        }
        let covers = || {
            let ranges = ranges::of_entry(dwarf, unit, &entry);
            // A block without ranges is one without code of its own.
            ranges.iter().any(|range| range.contains(&at))
        };
        let enter = match entry.tag() {
            dw::DW_TAG_inlined_subroutine | dw::DW_TAG_lexical_block => covers(),
            _ => false,
        };
        if enter {
            if entry.tag() == dw::DW_TAG_inlined_subroutine {
                calls.push(Inlined {
                    die: entry.offset(),
                    file: file_index(&entry),
                    line: entry
                        .attr_value(dw::DW_AT_call_line)
                        .and_then(|line| u32::try_from(line.udata_value()?).ok())
                        .filter(|line| *line != 0),
                });
            }
            if !entry.has_children() {
                return Some(());
            }
            inside = depth.checked_add(1)?;
        } else if entry.has_children()
            && let Some(next) = sibling(&entry, &entries)
        {
            entries = unit.entries_raw(Some(next)).ok()?;
            base = depth;
        }
    }
    Some(())
}

/// The entry behind one with all that is in it, where the compiler wrote that down.
pub(in crate::debuginfo) fn sibling(
    entry: &Entry<'_>,
    entries: &EntriesRaw<'_, Bytes<'_>>,
) -> Option<UnitOffset> {
    match entry.attr_value(dw::DW_AT_sibling)? {
        AttributeValue::UnitRef(to) if to > entries.next_offset() => Some(to),
        _ => None,
    }
}

fn file_index(entry: &Entry<'_>) -> Option<u64> {
    match entry.attr_value(dw::DW_AT_call_file)? {
        AttributeValue::FileIndex(index) => Some(index),
        value => value.udata_value(),
    }
}

/// The name of the function at an entry: its mangled name made readable, else its name with scopes. Copies of a function
/// refer to the entry that has the name.
pub(in crate::debuginfo) fn name(dies: &Dies<'_>, start: Place, die: UnitOffset) -> Option<String> {
    let mut place = Place {
        area: start.area,
        offset: start.offset.checked_add(die.0)?,
    };
    let mut plain = None;
    for _ in 0..MAX_ORIGINS {
        let (unit, entry) = dies.entry(place)?;
        let linkage = entry
            .attr_value(dw::DW_AT_linkage_name)
            .or_else(|| entry.attr_value(dw::DW_AT_MIPS_linkage_name));
        if let Some(mangled) = linkage.and_then(|value| dies.text(&unit, value)) {
            return Some(demangle(&String::from_utf8_lossy(mangled)));
        }
        if plain.is_none() && entry.has_attr(dw::DW_AT_name) {
            plain = dies.path(place).map(|path| path.join("::"));
        }
        let origin = dies
            .refers(&unit, &entry, dw::DW_AT_abstract_origin)
            .or_else(|| dies.refers(&unit, &entry, dw::DW_AT_specification));
        match origin {
            Some(origin) => place = origin,
            None => break,
        }
    }
    plain
}
