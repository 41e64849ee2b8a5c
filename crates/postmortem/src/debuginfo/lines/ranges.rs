//! Address ranges of units, functions and inlined calls, and which of them cover an address.

use std::ops::Range;

use gimli::{AttributeValue, Reader, Section, constants as dw};

use crate::debuginfo::dies::{Entry, Place};
use crate::debuginfo::dwarf::{Bytes, Dwarf, Unit};

/// Ranges of one entry; a unit has as many as it has functions.
const MAX_RANGES: usize = 1 << 20;
/// Ranges that `.debug_aranges` lists; browsers have some 2 million.
const MAX_LISTED: usize = 16 << 20;
/// An address and a length.
const PAIR_BYTES: usize = 16;
/// Ranges looked at, going down from an address.
const MAX_LOOK_BACK: usize = 256;

/// Ranges with something of each, ordered so that those around an address are found quickly.
pub(super) struct Covering<T> {
    /// By start; `furthest` is the largest end of this and all earlier ones.
    rows: Vec<(Range<u64>, u64, T)>,
}

impl<T> Covering<T> {
    pub fn new(mut ranges: Vec<(Range<u64>, T)>) -> Self {
        // Of ranges with one start the shortest comes last, and so is found first.
        ranges.sort_by_key(|(range, _)| (range.start, std::cmp::Reverse(range.end)));
        let mut furthest = 0;
        let rows = ranges.into_iter().map(|(range, what)| {
            furthest = range.end.max(furthest);
            (range, furthest, what)
        });
        Self {
            rows: rows.collect(),
        }
    }

    /// The ranges that contain `at`, those that start nearest first.
    pub fn at(&self, at: u64) -> impl Iterator<Item = (&Range<u64>, &T)> {
        let after = self.rows.partition_point(|(range, _, _)| range.start <= at);
        let below = self.rows.get(..after).unwrap_or(&[]).iter().rev();
        below
            .take(MAX_LOOK_BACK)
            .take_while(move |(_, furthest, _)| *furthest > at)
            .filter(move |(range, _, _)| range.contains(&at))
            .map(|(range, _, what)| (range, what))
    }
}

/// The ranges in `.debug_aranges`, each with the index in `starts` of its unit. Behind damage nothing is read. (gimli's own
/// reader calls itself for each entry of zeros, so that a damaged file could exhaust the stack.)
pub(super) fn listed(dwarf: &Dwarf<'_>, starts: &[Place]) -> Vec<(Range<u64>, usize)> {
    let mut out = Vec::new();
    let mut rest = *dwarf.debug_aranges.reader();
    while !rest.is_empty() && out.len() < MAX_LISTED {
        if read_set(&mut rest, starts, &mut out).is_err() {
            break;
        }
    }
    out
}

/// Reads one unit's set (DWARF 5, 6.1.2): version, offset of the unit, sizes of an address and of a segment, padding to a whole
/// pair, and then pairs of address and length.
fn read_set(
    rest: &mut Bytes<'_>,
    starts: &[Place],
    out: &mut Vec<(Range<u64>, usize)>,
) -> gimli::Result<()> {
    let (length, format) = rest.read_initial_length()?;
    let initial = usize::from(format.initial_length_size());
    let mut set = rest.split(length)?;
    let whole = set.len();
    let version = set.read_u16()?;
    let start = set.read_offset(format)?;
    let (address_bytes, segment_bytes) = (set.read_u8()?, set.read_u8()?);
    let unit = starts.binary_search_by_key(&start, |start| start.offset);
    let Some(unit) = unit
        .ok()
        .filter(|_| (version, address_bytes, segment_bytes) == (2, 8, 0))
    else {
        return Ok(());
    };
    let read = initial.saturating_add(whole.saturating_sub(set.len()));
    let padded = read.checked_next_multiple_of(PAIR_BYTES).unwrap_or(read);
    set.skip(padded.saturating_sub(read))?;
    while set.len() >= PAIR_BYTES && out.len() < MAX_LISTED {
        let (start, length) = (set.read_u64()?, set.read_u64()?);
        // The last pair is of zeros; linkers leave such pairs elsewhere, too.
        let range = start.checked_add(length).map(|end| start..end);
        out.extend(range.filter(is_real).map(|range| (range, unit)));
    }
    Ok(())
}

/// The ranges of a unit's code.
pub(super) fn of_unit(dwarf: &Dwarf<'_>, unit: &Unit<'_>) -> Vec<Range<u64>> {
    let root = unit.entry(unit.header.root_offset());
    root.map_or_else(|_| Vec::new(), |root| of_entry(dwarf, unit, &root))
}

/// The ranges of an entry's code. Like gimli's `die_ranges`, but sums are checked, and what the linker dropped (start 0) is
/// left out.
pub(in crate::debuginfo) fn of_entry<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    entry: &Entry<'a>,
) -> Vec<Range<u64>> {
    let Some(ranges) = entry.attr_value(dw::DW_AT_ranges) else {
        let simple = simple(dwarf, unit, entry);
        return simple.filter(is_real).into_iter().collect();
    };
    let mut out = Vec::new();
    if let Ok(Some(mut list)) = dwarf.attr_ranges(unit, ranges) {
        while let Ok(Some(range)) = list.next() {
            let range = range.begin..range.end;
            if is_real(&range) {
                out.push(range);
            }
            if out.len() >= MAX_RANGES {
                break;
            }
        }
    }
    out
}

fn simple<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, entry: &Entry<'a>) -> Option<Range<u64>> {
    let address = |value: AttributeValue<Bytes<'a>>| dwarf.attr_address(unit, value).ok()?;
    let low = address(entry.attr_value(dw::DW_AT_low_pc)?)?;
    let high = entry.attr_value(dw::DW_AT_high_pc)?;
    let high = match high.udata_value() {
        Some(length) => low.checked_add(length)?,
        None => address(high)?,
    };
    Some(low..high)
}

fn is_real(range: &Range<u64>) -> bool {
    range.start != 0 && range.start < range.end
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set as GNU as writes it.
    fn set(unit: u32, pairs: &[(u64, u64)]) -> Vec<u8> {
        let mut body = vec![2, 0];
        body.extend(unit.to_le_bytes());
        body.extend([8, 0, 0, 0, 0, 0]);
        for (start, length) in pairs {
            body.extend(start.to_le_bytes());
            body.extend(length.to_le_bytes());
        }
        let mut set = (body.len() as u32).to_le_bytes().to_vec();
        set.extend(body);
        set
    }

    fn listed_in(section: &[u8]) -> Vec<(Range<u64>, usize)> {
        let dwarf = Dwarf {
            debug_aranges: gimli::DebugAranges::new(section, gimli::LittleEndian),
            ..Dwarf::default()
        };
        let start = |offset| Place {
            area: crate::debuginfo::dies::Area::Info,
            offset,
        };
        listed(&dwarf, &[start(0), start(0x40), start(0x90)])
    }

    #[test]
    fn sets_of_units_are_read_to_their_ends() {
        let mut section = set(0x40, &[(0x1000, 0x20), (0, 0), (0x3000, 0x10), (0, 0)]);
        section.extend(set(0x41, &[(0x5000, 0x20), (0, 0)])); // no unit begins there
        section.extend(set(0x90, &[(0x2000, 8), (u64::MAX, 8), (0, 0x100), (0, 0)]));
        let all = [
            (0x1000..0x1020, 1),
            (0x3000..0x3010, 1),
            (0x2000..0x2008, 2),
        ];
        assert_eq!(listed_in(&section), all);
    }

    #[test]
    fn damaged_sets_end_the_reading() {
        let mut section = set(0, &[(0x1000, 0x20), (0, 0)]);
        let whole = section.len();
        section.extend(set(0x40, &[(0x2000, 0x20), (0, 0)]));
        for cut in [whole + 1, whole + 5, whole + 20, section.len() - 1] {
            assert_eq!(listed_in(&section[..cut]), [(0x1000..0x1020, 0)], "{cut}");
        }
        section[whole + 4] = 7; // a version of the future
        assert_eq!(listed_in(&section).len(), 1);
        let zeros = set(0, &vec![(0, 0); 1 << 20]);
        assert_eq!(listed_in(&zeros), []);
    }

    #[test]
    fn the_innermost_range_is_found_first() {
        let ranges = vec![(0..100, 'a'), (10..20, 'b'), (10..15, 'c'), (50..60, 'd')];
        let covering = Covering::new(ranges);
        let at = |at| covering.at(at).map(|(_, what)| *what).collect::<String>();
        assert_eq!(at(12), "cba");
        assert_eq!(at(17), "ba");
        assert_eq!(at(55), "da");
        assert_eq!(at(99), "a");
        assert_eq!(at(100), "");
    }
}
