//! Where the bins of a cache have their entries: in one block, one behind the other, in the order of the classes.
//!
//! ```text
//! block: | class 0 ........ | class 1 ..... | class 2 ...
//!        start          end = start     end = start
//!           full   first ^   ^ empty
//! ```

use super::{BIN, MAX_ENTRIES};
use crate::allocators::books::Suspect;
use crate::allocators::jemalloc::layout::Generation;
use crate::allocators::jemalloc::locate::Located;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Unit, Value};
use ground::target::{Address, MemoryExt, TargetMemory};

/// What the count of an empty bin is for a moment when it is asked, before 5.3.
const UNDERFLOW: u64 = 0xffff_ffff;
/// Limits of a bin's entries.
const CAPACITY: std::ops::RangeInclusive<u64> = 20..=200;

/// A bin as its words have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    /// Its `cache_bin_t`.
    pub at: Address,
    /// Size class.
    pub class: u16,
    /// The word of its first entry.
    pub first: Address,
    /// Entries that it claims.
    pub count: u64,
    /// Entries that it has room for.
    pub capacity: u64,
    /// The fewest that it had since somebody looked, as it claims.
    pub fewest: u64,
    /// First byte behind its entries.
    pub end: u64,
    /// Entries that it says it has room for (5.3.1).
    says: Option<u64>,
    /// Entries that bins of its class have room for, unless an option says otherwise.
    usual: u64,
    /// Its entries lie in no memory at all.
    nowhere: bool,
    /// The word that says where they are, and the one that counts them.
    words: (Address, Address),
}

impl Placed {
    /// First byte of its room.
    fn start(&self) -> u64 {
        self.end.wrapping_sub(self.capacity.saturating_mul(8))
    }

    /// Whether its own words make sense.
    pub(super) fn is_sound(&self) -> bool {
        self.count <= self.capacity
            && self.capacity <= MAX_ENTRIES.into()
            && self.first.is_aligned(8)
            && self.end.is_multiple_of(8)
            && self.says.is_none_or(|says| says == self.capacity)
    }

    /// The word that makes no sense, by itself or beside those of its neighbours.
    /// `settled`: bins are set up in the order of their classes, and one behind it is.
    pub(super) fn broken(&self, misplaced: bool, settled: bool) -> Option<Suspect> {
        let (place, marks) = self.words;
        let (at, what, expected, found) = if !self.is_sound() {
            (
                marks,
                Field::CacheBinMarks,
                Expected::AtMost(
                    Value::Amount(self.capacity.min(MAX_ENTRIES.into()), Unit::Entries),
                    Reason::Itself,
                ),
                Value::Amount(self.count, Unit::Entries),
            )
        } else if misplaced {
            (
                place,
                Field::CacheBinEntries,
                Expected::Is(Property::PlaceBetweenNeighbours),
                self.first.into(),
            )
        } else if self.fewest > self.count {
            (
                marks,
                Field::CacheBinMarks,
                Expected::Is(Property::LowWaterOf(self.count)),
                Value::LowWater(self.fewest),
            )
        } else {
            return None;
        };
        Some(Suspect {
            word: BrokenWord {
                of: self.at,
                at,
                what,
                expected,
                found,
            },
            impossible: (settled || self.nowhere)
                && (misplaced || !self.is_sound())
                && self.count != UNDERFLOW,
        })
    }
}

/// Entries of a bin: twice a slab's, within limits. Before 5.3 always, since then by default.
fn usual(located: &Located, class: u16) -> u64 {
    let regions = located.sizes.small(class).map_or(0, |cut| cut.regions);
    (u64::from(regions) * 2).clamp(*CAPACITY.start(), *CAPACITY.end())
}

/// Bins of a cache of 5.3 that are set up.
pub(super) fn new_bins(
    memory: &dyn TargetMemory,
    located: &Located,
    cache: Address,
) -> Vec<Placed> {
    let layout = &located.layout.thread;
    let counts = located.layout.generation == Generation::V5_3_1;
    let bins = (0..layout.bin_count).filter_map(|class| {
        let at = cache.checked_add(layout.bins.saturating_add(u64::from(class) * BIN))?;
        let place = memory.read_pointer(at).ok()?;
        let marks = memory.read_u64(at.checked_add(16)?).ok()?;
        // Low bits of: low water, full, empty; from 5.3.1 on also the capacity.
        let [low, full, empty, most] = [0, 16, 32, 48].map(|shift| marks >> shift & 0xffff);
        let apart = |from: u64| (empty.wrapping_sub(from) & 0xffff) / 8;
        let (count, capacity) = (apart(place.get()), apart(full));
        // Switched off: it points at a bin that is never filled.
        let off = capacity == 0 && count == 0 && (!counts || most == 0);
        let unused = place.is_null() && marks == 0;
        (!unused && !off).then(|| Placed {
            at,
            class,
            first: place,
            count,
            capacity,
            fewest: apart(low),
            end: place.get().saturating_add(count.saturating_mul(8)),
            says: counts.then_some(most),
            usual: usual(located, class),
            nowhere: memory.region_at(place).is_none(),
            words: (at, at.saturating_add(16)),
        })
    });
    bins.collect()
}

/// Bins of a cache of 5.0 to 5.2 that are set up.
pub(super) fn old_bins(
    memory: &dyn TargetMemory,
    located: &Located,
    cache: Address,
) -> Vec<Placed> {
    let layout = &located.layout.thread;
    let small = located.layout.quantum.bins();
    let bins = (0..layout.bin_count).filter_map(|class| {
        let offset = match (class.checked_sub(small), layout.large_bins) {
            (Some(large), Some(bins)) => bins.saturating_add(u64::from(large) * BIN),
            _ => layout.bins.saturating_add(u64::from(class) * BIN),
        };
        let at = cache.checked_add(offset)?;
        let counts = memory.read_u64(at).ok()?;
        let place = at.checked_add(16)?;
        let end = memory.read_pointer(place).ok()?;
        let count = counts >> 32;
        // -1: it was empty and was asked.
        let fewest = (counts & 0xffff_ffff).wrapping_add(1) & 0xffff_ffff;
        Some(Placed {
            at,
            class,
            first: Address::new(end.get().wrapping_sub(count.saturating_mul(8))),
            count,
            capacity: usual(located, class),
            fewest: fewest.saturating_sub(1),
            end: end.get(),
            says: None,
            usual: usual(located, class),
            nowhere: memory.region_at(end).is_none(),
            words: (place, at),
        })
    });
    let mut bins: Vec<Placed> = bins.collect();
    // Classes that are not cached come last.
    let used = bins.iter().rposition(|bin| bin.end != 0);
    bins.truncate(used.map_or(0, |last| last.saturating_add(1)));
    bins
}

/// Of each bin: whether its entries lie neither behind those of the bin before nor in front of those of the next; or not
/// where one of them has its own, while it has an unusual number of them and the other has not. `before`: where the first
/// one's begin, if that is known.
pub(super) fn misplaced(bins: &[Placed], before: Option<u64>) -> Vec<bool> {
    let count = bins.len();
    let meets = |index: usize| {
        // Between the bin at index - 1 and the one at index.
        let end = match index.checked_sub(1) {
            Some(left) => bins.get(left).map(|left| left.end),
            None => before,
        };
        let start = bins.get(index).map(Placed::start);
        end.zip(start).map(|(end, start)| end == start)
    };
    let unusual = |index: usize| {
        let bin = bins.get(index);
        bin.is_some_and(|bin| bin.capacity != bin.usual)
    };
    (0..count)
        .map(
            |index| match (meets(index), meets(index.saturating_add(1))) {
                (Some(false), Some(false)) => true,
                (Some(false), Some(true)) if index > 0 => {
                    unusual(index) && !unusual(index.saturating_sub(1))
                }
                (Some(true), Some(false)) => unusual(index) && !unusual(index.saturating_add(1)),
                (Some(false), None) => index > 0 && meets(index.saturating_sub(1)) == Some(true),
                (None, Some(false)) => meets(index.saturating_add(2)) == Some(true),
                _ => false,
            },
        )
        .collect()
}

/// Whether these are the bins of a cache at all: many, and nearly all in order.
pub(super) fn in_order(bins: &[Placed], before: Option<u64>) -> bool {
    const MIN_BINS: usize = 8;
    let wrong = misplaced(bins, before)
        .into_iter()
        .zip(bins)
        .filter(|(misplaced, bin)| *misplaced || !bin.is_sound())
        .count();
    bins.len() >= MIN_BINS && wrong <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bins with so many entries each, one behind the other from `start` on.
    fn bins(start: u64, capacities: &[u64]) -> Vec<Placed> {
        let mut end = start;
        (0u16..)
            .zip(capacities)
            .map(|(class, &capacity)| {
                end += capacity * 8;
                Placed {
                    at: Address::new(0x1000 + u64::from(class) * BIN),
                    class,
                    first: Address::new(end - 8),
                    count: 1,
                    capacity,
                    fewest: 0,
                    end,
                    says: None,
                    usual: capacity,
                    nowhere: false,
                    words: (Address::new(0x1000), Address::new(0x1010)),
                }
            })
            .collect()
    }

    const START: u64 = 0x7000;
    const CAPACITIES: [u64; 10] = [200, 200, 128, 64, 64, 32, 20, 20, 20, 20];

    fn wrong(bins: &[Placed]) -> Vec<usize> {
        let misplaced = misplaced(bins, Some(START));
        (0..)
            .zip(misplaced)
            .filter_map(|(index, is)| is.then_some(index))
            .collect()
    }

    #[test]
    fn bins_lie_one_behind_the_other() {
        let sound = bins(START, &CAPACITIES);
        assert!(wrong(&sound).is_empty());
        assert!(in_order(&sound, Some(START)));
        assert!(sound.iter().all(|bin| bin.broken(false, true).is_none()));
    }

    #[test]
    fn a_bin_elsewhere_is_told_from_its_neighbours() {
        for index in 0..CAPACITIES.len() {
            let mut bins = bins(START, &CAPACITIES);
            bins[index].first = Address::new(0x9_0000);
            bins[index].end = 0x9_0008;
            assert_eq!(wrong(&bins), [index]);
            let broken = bins[index].broken(true, true).unwrap();
            assert!(broken.impossible);
        }
    }

    #[test]
    fn of_two_bins_that_do_not_meet_the_unusual_one_is_wrong() {
        let mut bins = bins(START, &CAPACITIES);
        bins[4].capacity += 8;
        assert_eq!(wrong(&bins), [4]);
    }

    #[test]
    fn a_bin_has_no_more_entries_than_room() {
        let mut bins = bins(START, &CAPACITIES);
        bins[2].count = bins[2].capacity + 1;
        assert!(bins[2].broken(false, true).is_some());
        bins[3].fewest = bins[3].count + 1;
        let broken = bins[3].broken(false, true).unwrap();
        assert!(
            !broken.impossible,
            "a thread at work leaves that for a moment"
        );
    }
}
