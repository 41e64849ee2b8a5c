//! Dense numbers for what is in use, by address: what an array of a word for each block needs. A block's number is how many bits are set in
//! front of its own.
//!
//! Cost: 4 bytes for each 512 bits.

use super::Lookup;

/// Bits of a step: a line of the processor's cache.
const STEP: u64 = 512;

/// Bits in front of each step.
pub struct Ranks {
    before: Vec<u32>,
    count: u32,
}

impl Ranks {
    /// Numbers everything in use of a table; `None` where that is more than `most`.
    pub fn new(lookup: &Lookup<'_>, most: u32) -> Option<Self> {
        let steps = lookup.bits.div_ceil(STEP);
        let mut before = Vec::with_capacity(usize::try_from(steps).ok()?);
        let mut count = 0u32;
        for step in 0..steps {
            before.push(count);
            let inside = lookup.live.count(step.saturating_mul(STEP), STEP);
            count = count.checked_add(u32::try_from(inside).ok()?)?;
            if count > most {
                return None;
            }
        }
        Some(Self { before, count })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of what has this bit, which is set; of another bit that of the next one that is set.
    #[inline]
    pub fn of(&self, lookup: &Lookup<'_>, bit: u64) -> u32 {
        let step = bit / STEP;
        let place = usize::try_from(step).unwrap_or(usize::MAX);
        let before = self.before.get(place).copied().unwrap_or(self.count);
        before.saturating_add(lookup.live.count_in_page(step.saturating_mul(STEP), bit))
    }
}
