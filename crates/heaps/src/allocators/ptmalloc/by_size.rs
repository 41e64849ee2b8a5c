//! Counts of chunks by their sizes: exact for small ones, by ranges for the rest.

use super::layout::usable;
use crate::allocators::size_ranges::SizeRanges;

/// Sizes below this have a row of their own.
const SMALL: usize = 0x42;

/// Chunks by size.
#[derive(Clone, Debug)]
pub struct BySize {
    /// Numbers, by size / 16, of sizes below 0x420.
    pub small: Vec<u64>,
    /// Larger ones, by their usable bytes.
    pub large: SizeRanges,
}

impl Default for BySize {
    fn default() -> Self {
        Self {
            small: vec![0; SMALL],
            large: SizeRanges::default(),
        }
    }
}

impl BySize {
    fn small(&mut self, size: u64) -> Option<&mut u64> {
        self.small.get_mut(usize::try_from(size / 16).ok()?)
    }

    /// Counts a chunk.
    #[inline]
    pub fn add(&mut self, size: u64) {
        self.add_many(size, 1);
    }

    /// Counts chunks of one size.
    #[inline]
    pub fn add_many(&mut self, size: u64, chunks: u64) {
        match self.small(size) {
            Some(count) => *count = count.saturating_add(chunks),
            None => self.large.add(usable(size), chunks),
        }
    }

    /// Takes a chunk back.
    pub fn remove(&mut self, size: u64) {
        match self.small(size) {
            Some(count) => *count = count.saturating_sub(1),
            None => self.large.remove(usable(size)),
        }
    }

    /// Takes another count away.
    pub fn subtract(&mut self, other: &Self) {
        for (to, from) in self.small.iter_mut().zip(&other.small) {
            *to = to.saturating_sub(*from);
        }
        self.large.subtract(&other.large);
    }

    /// Adds another count.
    pub fn merge(&mut self, other: &Self) {
        for (to, from) in self.small.iter_mut().zip(&other.small) {
            *to = to.saturating_add(*from);
        }
        self.large.merge(&other.large);
    }

    /// Chunks, and their usable bytes.
    pub fn total(&self) -> (u64, u64) {
        let small: u64 = self.small.iter().sum();
        let bytes: u64 = (0u64..)
            .zip(&self.small)
            .map(|(index, count)| usable(index.saturating_mul(16)).saturating_mul(*count))
            .sum();
        let large = self.large.total();
        (
            small.saturating_add(large.blocks),
            bytes.saturating_add(large.bytes),
        )
    }
}
