//! Dense numbers for what is in use, by address: what an array of a word for each block needs. A block's number is how many bits are set in
//! front of its own.
//!
//! Cost: 16 bytes for each 64 slots or granules. Whether something is in use and its number lie side by side,
//! so that asking for both waits for memory once.

use super::Lookup;
use crate::map::Bits;

/// Bits of a cell.
const BITS: u64 = 64;

/// What is in use of 64 slots or granules, and how many are in front of them.
#[derive(Clone, Copy, Debug)]
#[repr(align(16))]
struct Cell {
    live: u64,
    before: u32,
}

/// The numbers of everything in use of a table.
pub struct Ranks {
    cells: Vec<Cell>,
    count: u32,
}

impl Ranks {
    /// Bytes that the numbers of a table take: by its slots and granules, however few of them are in use.
    pub fn bytes(lookup: &Lookup<'_>) -> u64 {
        let cells = lookup.bits.div_ceil(BITS);
        cells.saturating_mul(size_of::<Cell>() as u64)
    }

    /// Numbers everything in use of a table; `None` where that is more than `most`.
    pub fn new(lookup: &Lookup<'_>, most: u32) -> Option<Self> {
        let places = lookup.bits.div_ceil(BITS);
        let mut cells = Vec::with_capacity(usize::try_from(places).ok()?);
        let mut count = 0u32;
        for place in 0..places {
            let live = lookup.live.run(place.saturating_mul(BITS));
            cells.push(Cell {
                live,
                before: count,
            });
            count = count.checked_add(live.count_ones())?;
            if count > most {
                return None;
            }
        }
        Some(Self { cells, count })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    #[inline]
    fn cell(&self, bit: u64) -> Option<&Cell> {
        self.cells.get(usize::try_from(bit / BITS).ok()?)
    }

    /// A word of what [`of`](Self::of) will read, for the processor to fetch it.
    #[inline]
    pub(in crate::graph) fn touch(&self, bit: u64) -> u64 {
        self.cell(bit).map_or(0, |cell| cell.live)
    }

    /// Whether what has this bit is in use.
    #[inline]
    pub(in crate::graph) fn is_live(&self, bit: u64) -> bool {
        self.touch(bit) >> (bit % BITS) & 1 == 1
    }

    /// The number of what has this bit; `None` if it is not in use.
    #[inline]
    pub fn of(&self, bit: u64) -> Option<u32> {
        let cell = self.cell(bit)?;
        let below = (1u64 << (bit % BITS)).saturating_sub(1);
        (cell.live >> (bit % BITS) & 1 == 1)
            .then(|| cell.before.saturating_add((cell.live & below).count_ones()))
    }

    /// How many in use have a lower bit.
    pub fn before(&self, bit: u64) -> u32 {
        let below = (1u64 << (bit % BITS)).saturating_sub(1);
        self.cell(bit).map_or(self.count, |cell| {
            cell.before.saturating_add((cell.live & below).count_ones())
        })
    }

    /// The bit of what has this number.
    pub fn bit(&self, number: u32) -> Option<u64> {
        let after = self.cells.partition_point(|cell| cell.before <= number);
        let place = after.checked_sub(1)?;
        let cell = self.cells.get(place)?;
        let mut live = cell.live;
        for _ in cell.before..number {
            live &= live.wrapping_sub(1);
        }
        let first = (place as u64).saturating_mul(BITS);
        (live != 0).then(|| first.saturating_add(u64::from(live.trailing_zeros())))
    }

    /// A column by number as one by bit.
    pub fn spread(&self, numbers: &Bits) -> Bits {
        let spread = Bits::new((self.cells.len() as u64).saturating_mul(BITS));
        for (place, cell) in (0u64..).zip(&self.cells) {
            let mut left = numbers.run(cell.before.into());
            let mut live = cell.live;
            let all = u64::MAX.checked_shr(live.count_zeros()).unwrap_or_default();
            if left & all == all {
                spread.set_run(place.saturating_mul(BITS), live);
                continue;
            }
            let mut set = 0u64;
            while live != 0 && left != 0 {
                if left & 1 == 1 {
                    set |= live & live.wrapping_neg();
                }
                left >>= 1;
                live &= live.wrapping_sub(1);
            }
            spread.set_run(place.saturating_mul(BITS), set);
        }
        spread
    }
}
