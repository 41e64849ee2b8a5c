//! Where blocks of any size begin in a run of memory: one bit per granule.

use crate::target::Address;

/// Bytes that one bit stands for: no chunk begins elsewhere than at a multiple from the first.
pub const GRANULE: u64 = 16;

/// How an allocator lays out chunks side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkLayout {
    /// Bytes from the start of a chunk to the pointer that the program knows.
    pub lead: u64,
    /// Bytes of the next chunk that belong to the block.
    pub spill: u64,
}

/// Starts of chunks in a run of memory. 1 bit per 16 bytes, and a summary of them: a bit per 64.
#[derive(Debug)]
pub struct Chunks {
    layout: ChunkLayout,
    granules: u64,
    starts: Vec<u64>,
    summary: Vec<u64>,
}

impl Chunks {
    /// No chunk yet in `bytes` bytes.
    pub fn new(layout: ChunkLayout, bytes: u64) -> Self {
        let granules = (bytes / GRANULE).min(u32::MAX.into());
        let words = granules.div_ceil(64);
        let length = |bits: u64| usize::try_from(bits).unwrap_or(0);
        Self {
            layout,
            granules,
            starts: vec![0; length(words)],
            summary: vec![0; length(words.div_ceil(64))],
        }
    }

    /// How the chunks lie.
    pub fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// Granules in all.
    pub fn granules(&self) -> u32 {
        u32::try_from(self.granules).unwrap_or(u32::MAX)
    }

    /// Notes that a chunk begins `offset` bytes from the start.
    #[inline]
    pub fn set(&mut self, offset: u64) {
        let granule = offset / GRANULE;
        if granule < self.granules {
            or(&mut self.starts, granule);
            or(&mut self.summary, granule / 64);
        }
    }

    /// Forgets a chunk.
    pub fn clear(&mut self, granule: u32) {
        if let Some(word) = self.starts.get_mut(granule as usize / 64) {
            *word &= !(1 << (granule % 64));
        }
    }

    /// Whether a chunk begins at the granule.
    #[inline]
    pub fn is_start(&self, granule: u32) -> bool {
        self.starts
            .get(granule as usize / 64)
            .is_some_and(|word| word >> (granule % 64) & 1 == 1)
    }

    /// The last chunk that begins at or before the granule.
    pub fn at_or_before(&self, granule: u32) -> Option<u32> {
        let granule = u64::from(granule).min(self.granules.checked_sub(1)?);
        if let Some(found) = last_in(&self.starts, granule / 64, granule % 64) {
            return narrow(found);
        }
        // Words before this one, by way of the summary.
        let before = (granule / 64).checked_sub(1)?;
        let mut group = before / 64;
        let mut upto = before % 64;
        loop {
            if let Some(word) = last_in(&self.summary, group, upto)
                && let Some(found) = last_in(&self.starts, word, 63)
            {
                return narrow(found);
            } else if let Some(word) = last_in(&self.summary, group, upto)
                && word % 64 > 0
            {
                upto = word % 64 - 1; // its chunks were cleared
            } else {
                group = group.checked_sub(1)?;
                upto = 63;
            }
        }
    }

    /// The first chunk that begins after the granule.
    pub fn after(&self, granule: u32) -> Option<u32> {
        let next = u64::from(granule) + 1;
        if let Some(found) = first_in(&self.starts, next / 64, next % 64) {
            return narrow(found);
        }
        let mut word = next / 64 + 1;
        while word < self.starts.len() as u64 {
            match first_in(&self.summary, word / 64, word % 64) {
                Some(found) => match first_in(&self.starts, found, 0) {
                    Some(found) => return narrow(found),
                    None => word = found + 1,
                },
                None => word = (word / 64 + 1) * 64,
            }
        }
        None
    }

    /// Chunks in all.
    pub fn count(&self) -> u64 {
        self.starts
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// The pointer that the program knows of the chunk at `granule` of a run at `start`.
    pub fn block_address(&self, start: Address, granule: u32) -> Address {
        start.saturating_add(u64::from(granule) * GRANULE + self.layout.lead)
    }
}

#[inline]
fn or(words: &mut [u64], bit: u64) {
    if let Some(word) = usize::try_from(bit / 64)
        .ok()
        .and_then(|index| words.get_mut(index))
    {
        *word |= 1 << (bit % 64);
    }
}

fn word_at(words: &[u64], index: u64) -> u64 {
    usize::try_from(index)
        .ok()
        .and_then(|index| words.get(index))
        .copied()
        .unwrap_or(0)
}

/// Number of the last set bit of a word at or below `upto`.
fn last_in(words: &[u64], index: u64, upto: u64) -> Option<u64> {
    let word = word_at(words, index) & (u64::MAX >> (63 - upto.min(63)));
    (word != 0).then(|| index * 64 + 63 - u64::from(word.leading_zeros()))
}

/// Number of the first set bit of a word at or above `from`.
fn first_in(words: &[u64], index: u64, from: u64) -> Option<u64> {
    let word = word_at(words, index) & (u64::MAX << from.min(63));
    (word != 0).then(|| index * 64 + u64::from(word.trailing_zeros()))
}

fn narrow(granule: u64) -> Option<u32> {
    u32::try_from(granule).ok()
}

#[cfg(test)]
mod tests {
    use super::{ChunkLayout, Chunks, GRANULE};

    const LAYOUT: ChunkLayout = ChunkLayout { lead: 16, spill: 8 };

    #[test]
    fn neighbours_are_found_across_words_and_groups() {
        let places = [0u32, 2, 63, 64, 4095, 4096, 300_000];
        let mut chunks = Chunks::new(LAYOUT, 400_000 * GRANULE);
        for place in places {
            chunks.set(u64::from(place) * GRANULE);
        }
        assert_eq!(chunks.count(), 7);
        for (index, place) in places.iter().enumerate() {
            assert!(chunks.is_start(*place));
            assert_eq!(chunks.at_or_before(*place), Some(*place));
            assert_eq!(chunks.after(*place), places.get(index + 1).copied());
            if let Some(next) = places.get(index + 1) {
                assert_eq!(chunks.at_or_before(next - 1), Some(*place));
            }
        }
        assert_eq!(chunks.at_or_before(u32::MAX), Some(300_000));
    }

    #[test]
    fn a_cleared_start_is_passed_over() {
        let mut chunks = Chunks::new(LAYOUT, 400_000 * GRANULE);
        for place in [1u32, 70, 5000, 9000] {
            chunks.set(u64::from(place) * GRANULE);
        }
        chunks.clear(70);
        chunks.clear(5000);
        assert_eq!(chunks.at_or_before(8999), Some(1));
        assert_eq!(chunks.after(1), Some(9000));
        assert_eq!(chunks.at_or_before(0), None);
        chunks.set(u64::MAX); // past the end: ignored
        assert_eq!(chunks.after(9000), None);
    }
}
