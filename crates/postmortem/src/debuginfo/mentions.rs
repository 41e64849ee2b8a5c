//! Units in which something may be called by a name, found by the bytes of the name: no unit is parsed.
//!
//! ```text
//! name ──> .debug_str, .debug_line_str ──> offsets of the name ──┐
//!   └────> itself, as DW_FORM_string ────────────────────────────┴──> where these stand in .debug_info ──> units
//! ```
//!
//! A needle may be found where it is something else: then a unit is parsed for nothing. None is missed: where a name may be
//! referred to in another way (by index, from dwz's file, by an entry in another unit), nothing is answered.

use gimli::{Section, constants as dw};
use memchr::memmem::Finder;

use super::dies::{Area, Place, Units};
use super::dwarf::{Bytes, Dwarf};

/// Places of one name among the strings: linkers store a name once, and once more as the end of each longer one.
const MAX_STRINGS: usize = 4;
/// Most units in which a name may stand, as a part of all of them: beyond that, parsing all of them costs little more.
const MAX_SHARE: usize = 8;

/// The units in which an entry may be called `name`, in order, if none [refers elsewhere](refers_elsewhere); `None` if that cannot be told in this way, or they are too many.
pub(super) fn units(dwarf: &Dwarf<'_>, units: &Units, name: &str) -> Option<Vec<Place>> {
    let plain = !name.is_empty() && !name.contains(['<', '\0']);
    if !plain || dwarf.sup().is_some() {
        return None;
    }
    let mut stored = name.as_bytes().to_vec();
    stored.push(0);
    let mut needles = vec![stored.clone()];
    let strings: [&[u8]; 2] = [
        dwarf.debug_str.reader().slice(),
        dwarf.debug_line_str.reader().slice(),
    ];
    let finder = Finder::new(&stored);
    for section in strings {
        let found = finder.find_iter(section).take(MAX_STRINGS + 1);
        let unended = section.ends_with(name.as_bytes());
        let unended = unended.then(|| section.len().saturating_sub(name.len()));
        for offset in found.chain(unended) {
            needles.push(u32::try_from(offset).ok()?.to_le_bytes().to_vec());
        }
    }
    needles.sort_unstable();
    needles.dedup();
    if needles.len() > MAX_STRINGS + 1 {
        return None;
    }
    let by_index = dwarf.debug_str_offsets.reader().slice();
    let areas: [(Area, &Bytes<'_>); 2] = [
        (Area::Info, dwarf.debug_info.reader()),
        (Area::Types, dwarf.debug_types.reader()),
    ];
    let most = (units.starts().count() / MAX_SHARE).saturating_add(MAX_SHARE);
    let mut starts = Vec::new();
    for needle in &needles {
        let finder = Finder::new(needle);
        if finder.find(by_index).is_some() {
            return None;
        }
        for (area, section) in areas {
            for offset in finder.find_iter(section.slice()) {
                let offset = units.start_of(Place { area, offset });
                let start = offset.map(|offset| Place { area, offset });
                if start.is_some() && starts.last() != start.as_ref() {
                    starts.extend(start);
                }
                if starts.len() > most {
                    return None;
                }
            }
        }
    }
    starts.sort_unstable();
    starts.dedup();
    Some(starts)
}

/// Whether an entry that names something may complete a declaration in another unit, which then has its name; or where that cannot
/// be told. Functions are not looked for by name.
pub(super) fn refers_elsewhere(dwarf: &Dwarf<'_>) -> bool {
    let mut rest = dwarf.debug_abbrev.reader().slice();
    while !rest.is_empty() {
        match declaration(&mut rest) {
            Some(false) => {}
            Some(true) | None => return true,
        }
    }
    false
}

/// Reads one declaration of an abbreviation (DWARF 5, section 7.5.3) or the end of a table; whether it refers so.
fn declaration(rest: &mut &[u8]) -> Option<bool> {
    if number(rest)? == 0 {
        return Some(false);
    }
    let tag = number(rest)?;
    let (_, behind) = rest.split_first()?;
    *rest = behind;
    let is_function = tag == u64::from(dw::DW_TAG_subprogram.0);
    let mut refers = false;
    loop {
        let (attribute, form) = (number(rest)?, number(rest)?);
        if (attribute, form) == (0, 0) {
            return Some(refers && !is_function);
        }
        if form == u64::from(dw::DW_FORM_implicit_const.0) {
            number(rest)?;
        }
        let in_unit = [
            dw::DW_FORM_ref1,
            dw::DW_FORM_ref2,
            dw::DW_FORM_ref4,
            dw::DW_FORM_ref8,
            dw::DW_FORM_ref_udata,
        ];
        let is_specification = attribute == u64::from(dw::DW_AT_specification.0);
        refers |= is_specification && !in_unit.iter().any(|known| u64::from(known.0) == form);
    }
}

/// A LEB128 number; what a signed one holds does not matter here.
fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
