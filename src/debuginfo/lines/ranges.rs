//! Address ranges of units, functions and inlined calls, and which of them cover an address.

use std::ops::Range;

use gimli::{AttributeValue, constants as dw};

use crate::debuginfo::dies::Entry;
use crate::debuginfo::dwarf::{Bytes, Dwarf, Unit};

/// Ranges of one entry; a unit has as many as it has functions.
const MAX_RANGES: usize = 1 << 20;
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

/// The ranges of a unit's code.
pub(super) fn of_unit(dwarf: &Dwarf<'_>, unit: &Unit<'_>) -> Vec<Range<u64>> {
    let root = unit.entry(unit.header.root_offset());
    root.map_or_else(|_| Vec::new(), |root| of_entry(dwarf, unit, &root))
}

/// The ranges of an entry's code. Like gimli's `die_ranges`, but sums are checked, and what the linker dropped (start 0) is
/// left out.
pub(super) fn of_entry<'a>(
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
