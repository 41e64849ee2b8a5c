//! Counts of blocks whose sizes are no class: by ranges that double, so that the rows are few and their sums exact.

use super::{SizeClassRow, SizeRange, Tally};

/// Ranges: one for each power of two.
const RANGES: usize = 64;

/// Blocks by their size: a range holds the sizes from a power of two to below the next. No range exists
/// before the first block: there are as many counts as arenas and lists, and most of them have small blocks
/// alone.
#[derive(Clone, Debug, Default)]
pub(crate) struct SizeRanges(Vec<Tally>);

impl SizeRanges {
    fn of(&mut self, bytes: u64) -> Option<&mut Tally> {
        let range = bytes.max(1).ilog2();
        self.made().get_mut(usize::try_from(range).ok()?)
    }

    fn made(&mut self) -> &mut [Tally] {
        if self.0.is_empty() {
            self.0 = vec![Tally::default(); RANGES];
        }
        &mut self.0
    }

    fn range(&self, power: usize) -> Tally {
        self.0.get(power).copied().unwrap_or_default()
    }

    /// Counts blocks of one size.
    pub fn add(&mut self, bytes: u64, blocks: u64) {
        if let Some(tally) = self.of(bytes) {
            tally.add(blocks, bytes.saturating_mul(blocks));
        }
    }

    /// Takes a block back.
    pub fn remove(&mut self, bytes: u64) {
        if let Some(tally) = self.of(bytes) {
            tally.take(1, bytes);
        }
    }

    /// Takes another count away.
    pub fn subtract(&mut self, other: &Self) {
        for (to, from) in self.0.iter_mut().zip(&other.0) {
            to.take(from.blocks, from.bytes);
        }
    }

    /// Adds another count.
    pub fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        for (to, from) in self.made().iter_mut().zip(&other.0) {
            to.add(from.blocks, from.bytes);
        }
    }

    /// All blocks.
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        for tally in &self.0 {
            total.add(tally.blocks, tally.bytes);
        }
        total
    }
}

/// A row for each range that has blocks. `above`: the largest size that has a class of its own; the first range begins
/// behind it.
pub(crate) fn rows(
    above: u64,
    in_use: &SizeRanges,
    free: &SizeRanges,
    lost: &SizeRanges,
) -> impl Iterator<Item = SizeClassRow> {
    let all = (0u32..)
        .zip((0..RANGES).map(move |range| [in_use, free, lost].map(|all| all.range(range))));
    all.map(move |(power, [in_use, free, lost])| SizeClassRow {
        block_bytes: (1u64 << power).max(above.saturating_add(1)),
        in_use: in_use.blocks,
        free: free.blocks,
        lost: lost.blocks,
        range: Some(SizeRange {
            largest: u64::MAX >> 63u32.saturating_sub(power),
            in_use: in_use.bytes,
            free: free.bytes,
            lost: lost.bytes,
        }),
    })
    .filter(|row| row.in_use.saturating_add(row.free).saturating_add(row.lost) > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_one_range_and_the_sums_are_exact() {
        let mut counted = SizeRanges::default();
        let sizes = [1, 2, 3, 1032, 1048, 2047, 2048, u64::MAX];
        for bytes in sizes {
            counted.add(bytes, 1);
        }
        counted.remove(u64::MAX);
        counted.add(0, 3);
        counted.remove(4096);
        let none = SizeRanges::default();
        let found: Vec<_> = rows(1032, &counted, &none, &none)
            .map(|row| (row.block_bytes, row.range.unwrap().largest, row.in_use))
            .collect();
        assert_eq!(
            found,
            [(1033, 1, 4), (1033, 3, 2), (1033, 2047, 3), (2048, 4095, 1)]
        );
        let total = counted.total();
        assert_eq!(total.blocks, 10);
        assert_eq!(total.bytes, 1 + 2 + 3 + 1032 + 1048 + 2047 + 2048);
    }
}
