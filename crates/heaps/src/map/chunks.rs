//! Where blocks of any size begin in a run of memory: one bit per granule.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Bits;
use ground::target::Address;

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

/// Starts of chunks in a run of memory: 1 bit per 16 bytes.
#[derive(Debug)]
pub struct Chunks {
    layout: ChunkLayout,
    granules: u32,
    starts: Bits,
}

impl Chunks {
    /// No chunk yet in `bytes` bytes (of which 64 GiB count).
    pub fn new(layout: ChunkLayout, bytes: u64) -> Self {
        let granules = u32::try_from(bytes / GRANULE).unwrap_or(u32::MAX);
        Self {
            layout,
            granules,
            starts: Bits::new(granules.into()),
        }
    }

    /// Ends the run after `bytes`.
    pub fn truncate(&mut self, bytes: u64) {
        let granules = u32::try_from(bytes / GRANULE).unwrap_or(u32::MAX);
        self.granules = self.granules.min(granules);
        self.starts.truncate(self.granules.into());
    }

    /// How the chunks lie.
    pub fn layout(&self) -> ChunkLayout {
        self.layout
    }

    /// Granules in all.
    pub fn granules(&self) -> u32 {
        self.granules
    }

    /// Notes that a chunk begins `offset` bytes from the start.
    #[inline]
    pub fn set(&mut self, offset: u64) {
        self.starts.set(offset / GRANULE);
    }

    /// Forgets a chunk.
    pub fn clear(&mut self, offset: u64) {
        self.starts.clear(offset / GRANULE);
    }

    /// Notes a chunk that was found when the map was finished already.
    pub fn add(&self, granule: u32) {
        self.starts.test_and_set(granule.into());
    }

    /// Forgets a chunk that turned out to be none when the map was finished already.
    pub fn remove(&self, granule: u32) {
        self.starts.clear(granule.into());
    }

    /// Whether a chunk begins at the granule.
    #[inline]
    pub fn is_start(&self, granule: u32) -> bool {
        granule < self.granules && self.starts.get(granule.into())
    }

    /// At which of the 64 granules from `granule` on a chunk begins, a bit each.
    #[inline]
    pub fn starts_run(&self, granule: u32) -> u64 {
        let inside = match self.granules.saturating_sub(granule) {
            left @ 0..64 => (1u64 << left).saturating_sub(1),
            _ => u64::MAX,
        };
        self.starts.run(granule.into()) & inside
    }

    /// The word with the bit that says whether a chunk begins at the granule, if one is set near it.
    #[inline]
    pub(super) fn word(&self, granule: u32) -> Option<&AtomicU64> {
        (granule < self.granules).then(|| self.starts.word(granule.into()))?
    }

    /// The word of a granule, for the processor to fetch it.
    #[inline]
    pub fn touch(&self, granule: u32) -> u64 {
        let word = self.word(granule);
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// The last chunk that begins at or before the granule.
    pub fn at_or_before(&self, granule: u32) -> Option<u32> {
        let last = self.granules.checked_sub(1)?;
        let found = self.starts.last_at_or_before(granule.min(last).into())?;
        u32::try_from(found).ok()
    }

    /// The last chunk that begins in `floor..=granule`, where no more than a few words of bits lie between them.
    #[inline]
    pub(crate) fn last_in_piece(&self, granule: u32, floor: u32) -> Option<u32> {
        let found = self.starts.last_within(granule.into(), floor.into())?;
        u32::try_from(found).ok()
    }

    /// The first chunk that begins after the granule.
    pub fn after(&self, granule: u32) -> Option<u32> {
        let found = self.starts.first_after(granule.into())?;
        u32::try_from(found)
            .ok()
            .filter(|found| *found < self.granules)
    }

    /// Chunks that begin in so many granules from `first` on, as far as the run goes.
    #[inline]
    pub fn count_in(&self, first: u32, granules: u32) -> u64 {
        let granules = granules.min(self.granules.saturating_sub(first));
        self.starts.count(first.into(), granules.into())
    }

    /// Chunks in all.
    pub fn count(&self) -> u64 {
        self.starts.count(0, self.granules.into())
    }

    /// The pointer that the program knows of the chunk at `granule` of a run at `start`.
    pub fn block_address(&self, start: Address, granule: u32) -> Address {
        start.saturating_add((u64::from(granule) * GRANULE).saturating_add(self.layout.lead))
    }
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
        chunks.clear(70 * GRANULE);
        chunks.clear(5000 * GRANULE);
        assert_eq!(chunks.at_or_before(8999), Some(1));
        assert_eq!(chunks.after(1), Some(9000));
        assert_eq!(chunks.at_or_before(0), None);
        chunks.set(u64::MAX); // past the end: ignored
        assert_eq!(chunks.after(9000), None);
    }
}
