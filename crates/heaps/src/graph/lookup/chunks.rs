//! Chunks of one run: the chunk that a granule belongs to, in at most four words and one entry.

use crate::map::Chunks;

/// Granules of 4 KiB.
pub(super) const PIECE: u32 = 256;

/// Chunks of one run, and the last chunk that begins before each 4 KiB of it.
pub(super) struct ChunkTable<'m> {
    pub chunks: &'m Chunks,
    before: Vec<u32>,
}

impl<'m> ChunkTable<'m> {
    pub fn read(chunks: &'m Chunks) -> Self {
        let pieces = chunks.granules().div_ceil(PIECE);
        let mut before = Vec::with_capacity(pieces as usize);
        let mut last = u32::MAX;
        let mut next = if chunks.is_start(0) {
            Some(0)
        } else {
            chunks.after(0)
        };
        for piece in 0..pieces {
            before.push(last);
            let end = piece.saturating_add(1).saturating_mul(PIECE);
            // Only the last chunk of a piece counts; the first behind it tells when to look again.
            if next.is_some_and(|next| next < end) {
                last = chunks.at_or_before(end.saturating_sub(1)).unwrap_or(last);
                next = chunks.after(end.saturating_sub(1));
            }
        }
        Self { chunks, before }
    }

    /// The last chunk that begins at or before the granule: at most four words and one entry.
    #[inline]
    pub fn at_or_before(&self, granule: u32) -> Option<u32> {
        let granule = granule.min(self.chunks.granules().checked_sub(1)?);
        if let Some(found) = self
            .chunks
            .last_in_piece(granule, (granule / PIECE).saturating_mul(PIECE))
        {
            return Some(found);
        }
        let before = *self.before.get((granule / PIECE) as usize)?;
        (before != u32::MAX).then_some(before)
    }
}
