//! One bit per block, set by many threads at once.

use std::sync::atomic::{AtomicU64, Ordering};

/// A column of bits. 1 bit per block; test-and-set is one atomic operation.
#[derive(Default)]
pub struct Bits {
    words: Vec<AtomicU64>,
}

impl Bits {
    /// `count` bits, all clear.
    pub fn new(count: u64) -> Self {
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(0);
        Self {
            words: (0..words).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn word(&self, index: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(index / 64).ok()?)
    }

    /// Sets the bit; says whether it was set before. Bits past the end count as set.
    #[inline]
    pub fn test_and_set(&self, index: u64) -> bool {
        let mask = 1 << (index % 64);
        self.word(index)
            .is_none_or(|word| word.fetch_or(mask, Ordering::Relaxed) & mask != 0)
    }

    /// Whether the bit is set.
    #[inline]
    pub fn get(&self, index: u64) -> bool {
        self.word(index)
            .is_some_and(|word| word.load(Ordering::Relaxed) >> (index % 64) & 1 == 1)
    }

    /// Clears the bit.
    pub fn clear(&self, index: u64) {
        if let Some(word) = self.word(index) {
            word.fetch_and(!(1 << (index % 64)), Ordering::Relaxed);
        }
    }

    /// Set bits in `first..first + count`.
    pub fn count(&self, first: u64, count: u64) -> u64 {
        let end = first.saturating_add(count);
        let mut total = 0;
        let mut at = first;
        while at < end {
            let Some(word) = self.word(at) else { break };
            let upto = (at / 64 + 1).saturating_mul(64).min(end);
            let width = upto - at; // 1..=64
            let mask = if width == 64 {
                u64::MAX
            } else {
                ((1u64 << width) - 1) << (at % 64)
            };
            total += u64::from((word.load(Ordering::Relaxed) & mask).count_ones());
            at = upto;
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn a_bit_is_new_once() {
        let bits = Bits::new(130);
        assert!(!bits.test_and_set(129));
        assert!(bits.test_and_set(129));
        assert!(bits.test_and_set(5000), "past the end counts as set");
        bits.clear(129);
        assert!(!bits.get(129));
    }

    #[test]
    fn counts_cross_words() {
        let bits = Bits::new(300);
        for index in [0, 63, 64, 65, 127, 128, 255, 256] {
            bits.test_and_set(index);
        }
        assert_eq!(bits.count(0, 300), 8);
        assert_eq!(bits.count(63, 3), 3);
        assert_eq!(bits.count(64, 64), 3);
        assert_eq!(bits.count(65, 63), 2);
        assert_eq!(bits.count(129, 126), 0);
    }
}
