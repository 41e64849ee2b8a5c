//! One bit per block, set by many threads at once.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Words of a page of bits.
const PAGE_WORDS: u64 = 512;
/// Bits of a page.
const PAGE_BITS: u64 = PAGE_WORDS * 64;

/// A column of bits: 1 bit per block where any bit is set: pages of 32,768 bits exist from their
/// first set bit on, so that a column of rare facts costs next to nothing. Test-and-set is one
/// atomic operation.
#[derive(Debug, Default)]
pub struct Bits {
    pages: Vec<OnceLock<Box<[AtomicU64]>>>,
}

fn new_page() -> Box<[AtomicU64]> {
    (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect()
}

impl Bits {
    /// `count` bits (rounded up to whole pages), all clear.
    pub fn new(count: u64) -> Self {
        let pages = usize::try_from(count.div_ceil(PAGE_BITS)).unwrap_or(0);
        Self {
            pages: (0..pages).map(|_| OnceLock::new()).collect(),
        }
    }

    fn page(&self, index: u64) -> Option<&OnceLock<Box<[AtomicU64]>>> {
        self.pages.get(usize::try_from(index / PAGE_BITS).ok()?)
    }

    /// The word of a bit, if its page exists; else the bit is clear.
    #[inline]
    pub(super) fn word(&self, index: u64) -> Option<&AtomicU64> {
        let page = self.page(index)?.get()?;
        page.get(usize::try_from(index % PAGE_BITS / 64).ok()?)
    }

    /// The word of a bit, whose page exists from now on. `None` past the end.
    #[inline]
    fn made_word(&self, index: u64) -> Option<&AtomicU64> {
        let words = self.page(index)?.get_or_init(new_page);
        words.get(usize::try_from(index % PAGE_BITS / 64).ok()?)
    }

    /// Sets the bits of `mask`, its lowest at `first`; says which were set before.
    #[inline]
    pub fn set_run(&self, first: u64, mask: u64) -> u64 {
        let shift = first % 64;
        let set = |index: u64, mask: u64| match mask {
            0 => 0,
            _ => self
                .made_word(index)
                .map_or(0, |word| word.fetch_or(mask, Ordering::Relaxed) & mask),
        };
        let low = set(first, mask << shift) >> shift;
        if shift == 0 {
            return low;
        }
        let rest = 64u64.saturating_sub(shift);
        low | set(first.saturating_add(rest), mask >> rest) << rest
    }

    /// The 64 bits from `first` on, the first one lowest. Bits past the end are clear.
    #[inline]
    pub fn run(&self, first: u64) -> u64 {
        let get = |index: u64| {
            self.word(index)
                .map_or(0, |word| word.load(Ordering::Relaxed))
        };
        let shift = first % 64;
        let low = get(first) >> shift;
        match shift {
            0 => low,
            _ => low | get(first.saturating_add(63)) << 64u64.saturating_sub(shift),
        }
    }

    /// Sets the bit; says whether it was set before. Bits past the end count as set.
    #[inline]
    pub fn test_and_set(&self, index: u64) -> bool {
        let mask = 1 << (index % 64);
        self.made_word(index)
            .is_none_or(|word| word.fetch_or(mask, Ordering::Relaxed) & mask != 0)
    }

    /// Sets a bit of a column that nobody else sees yet. Bits past the end are ignored.
    #[inline]
    pub fn set(&mut self, index: u64) {
        let page = usize::try_from(index / PAGE_BITS)
            .ok()
            .and_then(|page| self.pages.get_mut(page));
        let Some(page) = page else {
            return;
        };
        page.get_or_init(new_page);
        let word = usize::try_from(index % PAGE_BITS / 64).ok();
        if let Some(words) = page.get_mut()
            && let Some(word) = word.and_then(|word| words.get_mut(word))
        {
            *word.get_mut() |= 1 << (index % 64);
        }
    }

    /// Forgets all bits from `count` on.
    pub fn truncate(&mut self, count: u64) {
        let pages = usize::try_from(count.div_ceil(PAGE_BITS)).unwrap_or(usize::MAX);
        self.pages.truncate(pages);
        self.pages.shrink_to_fit();
    }

    /// The last set bit at or before `index`.
    pub fn last_at_or_before(&self, index: u64) -> Option<u64> {
        let bits = (self.pages.len() as u64).checked_mul(PAGE_BITS)?;
        let mut at = index.min(bits.checked_sub(1)?);
        loop {
            let Some(word) = self.word(at) else {
                at = (at / PAGE_BITS).saturating_mul(PAGE_BITS).checked_sub(1)?; // no bit on this page
                continue;
            };
            let below = word.load(Ordering::Relaxed) & (u64::MAX >> 63u64.saturating_sub(at % 64));
            if below != 0 {
                return Some(
                    (at / 64)
                        .saturating_mul(64)
                        .saturating_add(63)
                        .saturating_sub(u64::from(below.leading_zeros())),
                );
            }
            at = (at / 64).saturating_mul(64).checked_sub(1)?;
        }
    }

    /// The last set bit in `floor..=index`, of one page.
    #[inline]
    pub(super) fn last_within(&self, index: u64, floor: u64) -> Option<u64> {
        let mut at = index;
        while at >= floor {
            let word = self.word(at)?.load(Ordering::Relaxed);
            let below = word & (u64::MAX >> 63u64.saturating_sub(at % 64));
            if below != 0 {
                let found = (at / 64)
                    .saturating_mul(64)
                    .saturating_add(63)
                    .saturating_sub(u64::from(below.leading_zeros()));
                return (found >= floor).then_some(found);
            }
            at = (at / 64).saturating_mul(64).checked_sub(1)?;
        }
        None
    }

    /// The first set bit after `index`.
    pub fn first_after(&self, index: u64) -> Option<u64> {
        let bits = (self.pages.len() as u64).checked_mul(PAGE_BITS)?;
        let mut at = index.checked_add(1)?;
        while at < bits {
            let Some(word) = self.word(at) else {
                at = (at / PAGE_BITS).saturating_add(1).saturating_mul(PAGE_BITS);
                continue;
            };
            let above = word.load(Ordering::Relaxed) & (u64::MAX << (at % 64));
            if above != 0 {
                return Some(
                    (at / 64)
                        .saturating_mul(64)
                        .saturating_add(u64::from(above.trailing_zeros())),
                );
            }
            at = (at / 64).saturating_add(1).saturating_mul(64);
        }
        None
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

    /// Clears the bits `first..first + count`.
    pub fn clear_run(&self, first: u64, count: u64) {
        self.each_word(first, count, |word, mask| {
            word.fetch_and(!mask, Ordering::Relaxed);
        });
    }

    /// Set bits in `first..first + count`.
    pub fn count(&self, first: u64, count: u64) -> u64 {
        let mut total = 0u64;
        self.each_word(first, count, |word, mask| {
            total = total.saturating_add(u64::from(
                (word.load(Ordering::Relaxed) & mask).count_ones(),
            ));
        });
        total
    }

    /// Every word that exists with bits in `first..first + count`, and which of its bits those are.
    fn each_word(&self, first: u64, count: u64, mut visit: impl FnMut(&AtomicU64, u64)) {
        let end = first
            .saturating_add(count)
            .min((self.pages.len() as u64).saturating_mul(PAGE_BITS));
        let mut at = first;
        while at < end {
            let Some(word) = self.word(at) else {
                at = (at / PAGE_BITS).saturating_add(1).saturating_mul(PAGE_BITS);
                continue;
            };
            let upto = (at / 64).saturating_add(1).saturating_mul(64).min(end);
            let width = upto.saturating_sub(at); // 1..=64
            let mask = if width == 64 {
                u64::MAX
            } else {
                (1u64 << width).saturating_sub(1) << (at % 64)
            };
            visit(word, mask);
            at = upto;
        }
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
        assert!(bits.test_and_set(50_000), "past the end counts as set");
        bits.clear(129);
        assert!(!bits.get(129));
    }

    #[test]
    fn runs_cross_words() {
        let bits = Bits::new(300);
        bits.test_and_set(68);
        assert_eq!(bits.set_run(60, 0b111_0000_1001), 1 << 8);
        let set: Vec<u64> = (0..300).filter(|index| bits.get(*index)).collect();
        assert_eq!(set, [60, 63, 68, 69, 70]);
        assert_eq!(bits.run(60), 0b111_0000_1001);
        assert_eq!(bits.run(64), 0b111_0000);
        assert_eq!(bits.run(50_000), 0, "past the end is nothing");
        assert_eq!(bits.set_run(64, u64::MAX), 0b111_0000);
        assert_eq!(bits.count(0, 300), 66);
        assert_eq!(bits.set_run(50_000, u64::MAX), 0, "past the end is nowhere");
    }

    #[test]
    fn counts_cross_words_and_pages() {
        let bits = Bits::new(100_000);
        for index in [0, 63, 64, 65, 127, 128, 255, 256, 99_000] {
            bits.test_and_set(index);
        }
        assert_eq!(bits.count(0, 300), 8);
        assert_eq!(bits.count(0, 100_000), 9);
        assert_eq!(bits.count(63, 3), 3);
        assert_eq!(bits.count(64, 64), 3);
        assert_eq!(bits.count(65, 63), 2);
        assert_eq!(bits.count(129, 126), 0);
        assert_eq!(bits.count(50_000, u64::MAX), 1);
        bits.clear_run(63, 65);
        assert_eq!(bits.count(0, 300), 4);
        assert!(bits.get(0) && bits.get(128) && !bits.get(127));
    }
}
