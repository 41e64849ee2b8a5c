//! Which places of the heap the program points at: a third witness beside headers and lists, asked where those two allow
//! more than one explanation. A block in use that nobody points at is rare, and so is a pointer to the middle of one from
//! which chunks happen to lead on.
//!
//! A bit per granule of the heap, set in one pass over all writable memory, when first asked for.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use super::arenas::Region;
use super::layout::ALIGNMENT;
use ground::target::{Address, Target};

/// Words of memory that are read as one piece of work.
const PIECE: u64 = 32 << 20;

/// Bytes of a run above which nothing is known of it.
const MAX_RUN: u64 = 1 << 38;

/// See the module.
pub struct Pointed {
    runs: Vec<Marks>,
}

/// The bits of one run of chunks.
struct Marks {
    range: Range<u64>,
    bits: Vec<AtomicU64>,
}

impl Pointed {
    /// Reads all memory that a program can keep pointers in.
    pub fn read(target: Target<'_>, regions: &[Region]) -> Self {
        let marks = |region: &Region| {
            let range = region.start.get()..region.end.get();
            let bytes = range.end.saturating_sub(range.start);
            let words = if bytes <= MAX_RUN {
                (bytes / ALIGNMENT / 64).saturating_add(1)
            } else {
                0
            };
            Marks {
                range,
                bits: (0..words).map(|_| AtomicU64::new(0)).collect(),
            }
        };
        let pointed = Self {
            runs: regions.iter().map(marks).collect(),
        };
        let areas = target.memory.regions().iter();
        let pieces: Vec<Range<Address>> = areas
            .filter(|area| area.writable && area.present_bytes > 0)
            .flat_map(|area| {
                let start = area.range.start;
                let end = start.saturating_add(area.present_bytes).min(area.range.end);
                let bytes = end.offset_from(start).unwrap_or(0);
                (0..bytes.div_ceil(PIECE)).map(move |piece| {
                    let from = start.saturating_add(piece.saturating_mul(PIECE));
                    from..from.saturating_add(PIECE).min(end)
                })
            })
            .collect();
        ground::parallel::map(&pieces, |piece| pointed.read_piece(target, piece));
        for thread in target.threads.list() {
            thread
                .registers
                .iter()
                .for_each(|(_, value)| pointed.mark(value));
        }
        pointed
    }

    fn read_piece(&self, target: Target<'_>, piece: &Range<Address>) {
        let mut at = Address::new(piece.start.get().saturating_add(7) & !7);
        while at < piece.end {
            let Ok(window) = target.memory.window(at) else {
                at = target.memory.abi().page_from(at.saturating_add(1));
                continue;
            };
            let most =
                usize::try_from(piece.end.get().saturating_sub(at.get())).unwrap_or(usize::MAX);
            let bytes = window.bytes.get(..most).unwrap_or(window.bytes);
            let (words, _) = bytes.as_chunks::<8>();
            for word in words {
                self.mark(u64::from_le_bytes(*word));
            }
            at = at.saturating_add(words.len().max(1).saturating_mul(8) as u64);
        }
    }

    /// Marks what a word points at.
    #[inline]
    fn mark(&self, word: u64) {
        if let Some((bits, mask)) = self.bit(word) {
            bits.fetch_or(mask, Ordering::Relaxed);
        }
    }

    #[inline]
    fn bit(&self, at: u64) -> Option<(&AtomicU64, u64)> {
        let after = self.runs.partition_point(|run| run.range.start <= at);
        let run = self.runs.get(after.checked_sub(1)?)?;
        if at >= run.range.end {
            return None;
        }
        let granule = at.saturating_sub(run.range.start) / ALIGNMENT;
        let word = run.bits.get(usize::try_from(granule / 64).ok()?)?;
        Some((word, 1 << (granule % 64)))
    }

    /// Whether anything points at a granule of the heap, which a block begins with.
    pub fn at(&self, block: Address) -> bool {
        self.bit(block.get())
            .is_some_and(|(bits, mask)| bits.load(Ordering::Relaxed) & mask != 0)
    }
}
