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

/// The units in which an entry may be called `name`, in order; `None` if that cannot be told in this way, or they are too many.
pub(super) fn units(dwarf: &Dwarf<'_>, units: &Units, name: &str) -> Option<Vec<Place>> {
    let plain = !name.is_empty() && !name.contains(['<', '\0']);
    if !plain || dwarf.sup().is_some() || refers_elsewhere(dwarf.debug_abbrev.reader().slice()) {
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

/// Whether an entry may complete a declaration in another unit, which then has its name: by the bytes of abbreviations, in which
/// each attribute is followed by its form.
fn refers_elsewhere(abbreviations: &[u8]) -> bool {
    let other = [
        dw::DW_FORM_ref_addr,
        dw::DW_FORM_ref_sig8,
        dw::DW_FORM_ref_sup4,
        dw::DW_FORM_ref_sup8,
        dw::DW_FORM_indirect,
        dw::DW_FORM_GNU_ref_alt,
    ];
    let first = |form: gimli::DwForm| match form.0 {
        // LEB128: seven bits a byte.
        form @ ..0x80 => form.to_le_bytes()[0],
        form => (form & 0x7f | 0x80).to_le_bytes()[0],
    };
    let attribute = dw::DW_AT_specification.0.to_le_bytes()[0];
    memchr::memchr_iter(attribute, abbreviations).any(|at| {
        let form = abbreviations.get(at.saturating_add(1));
        form.is_some_and(|form| other.iter().any(|other| first(*other) == *form))
    })
}
