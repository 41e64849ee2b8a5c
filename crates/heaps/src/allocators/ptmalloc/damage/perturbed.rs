//! `M_PERTURB`: every block that goes back to an arena is filled with one byte, and what a free chunk holds beside that byte are
//! its links, and headers and links of free chunks that it has swallowed. Anything else was written after it was freed.
//!
//! Source: glibc, malloc/malloc.c, `free_perturb`.

use std::collections::BTreeMap;

use super::Inquiry;
use crate::allocators::ptmalloc::layout::{FLAGS, HEADER, MIN_CHUNK};
use crate::allocators::ptmalloc::lists::Kind;
use crate::anomaly::AnomalyKind;
use ground::target::{Address, Cursor, LocatedBy, MemoryExt};

/// Chunks of each bin that are asked what they are filled with.
const SAMPLES: usize = 32;
/// So many must be there to tell, and all but one in so many must agree.
const MIN_VOTES: usize = 16;
/// Bytes that a write after free is taken to span at most.
const MAX_SPAN: u64 = 256;
/// Changed chunks that are said, if that is few among those that are filled.
const MAX_CHANGED: usize = 64;

/// What was found changed in a chunk.
struct Change {
    chunk: Address,
    at: Address,
    bytes: u64,
}

impl Inquiry<'_, '_> {
    /// Free chunks that were written to, if free ones are filled.
    pub(super) fn perturbed(&mut self) {
        let Some(fill) = self.fill() else {
            return;
        };
        let mut looked_at = 0usize;
        let mut changes = Vec::new();
        let mut cursor = Cursor::new(self.heap.target.memory);
        self.each_chunk(|chunk, size, id| {
            let next = chunk.saturating_add(size);
            let is_free = self.map.is_listed(id)
                && !self.map.is_disputed(id)
                && self
                    .word(next.saturating_add(8))
                    .is_some_and(|header| header & 1 == 0);
            if is_free && !self.broken.contains(&chunk) && !self.broken.contains(&next) {
                looked_at = looked_at.saturating_add(1);
                let is_left = |at, word| self.is_left_over(at, word);
                changes.extend(change(&mut cursor, chunk, size, fill, &is_left));
            }
            changes.len() <= MAX_CHANGED
        });
        // Filling that began late leaves many.
        if changes.len() > MAX_CHANGED || changes.len() > 3.max(looked_at / 100) {
            return;
        }
        for found in changes {
            let known = |anomaly: &crate::anomaly::Anomaly| match &anomaly.kind {
                AnomalyKind::FreeWord { block, .. } => {
                    block.address == found.chunk.saturating_add(HEADER)
                }
                AnomalyKind::BadEntry { edge, .. } => {
                    edge.from == Some(found.chunk.saturating_add(HEADER))
                }
                _ => false,
            };
            let Some(block) = self.block_of(found.chunk) else {
                continue;
            };
            // One write over a link and what is behind it is one finding.
            if self.out.iter().any(known) {
                continue;
            }
            let arena = self.heap.arenas.region_of(found.chunk);
            let transient = arena
                .and_then(|region| self.heap.arena_busy(region.arena))
                .or_else(|| self.heap.somebody_inside());
            self.push(
                AnomalyKind::Filling {
                    block,
                    at: found.at,
                    bytes: found.bytes,
                    fill,
                    freed: true,
                },
                transient,
            );
        }
    }

    /// Whether a word can be a link or a size that malloc itself left there.
    fn is_left_over(&self, at: Address, word: u64) -> bool {
        let arenas = &self.heap.arenas;
        let bytes = self.heap.located.arena.bytes;
        let is_link = |to: Address| {
            arenas.region_of(to).is_some()
                || arenas
                    .rows
                    .iter()
                    .any(|arena| (arena.at..arena.at.saturating_add(bytes)).contains(&to))
        };
        word >> 32 == 0 && word & 8 == 0
            || is_link(Address::new(word))
            || self.heap.decode(at, word).is_null()
            || is_link(self.heap.decode(at, word))
    }

    /// The byte that free chunks are filled with, if they are: `perturb_byte`, or what nearly all chunks in bins agree on.
    fn fill(&self) -> Option<u8> {
        let target = self.heap.target;
        if target.limit.permits(LocatedBy::Symbols)
            && let Some(symbol) = target.symbols.symbol(self.heap.module.id, "perturb_byte")
        {
            let word = target.memory.read_u32(symbol.address).ok()?;
            let [byte, ..] = word.to_le_bytes();
            return (byte != 0).then_some(byte);
        }
        let mut votes: BTreeMap<u8, usize> = BTreeMap::new();
        let mut all = 0usize;
        for list in self.lists.iter().filter(|list| list.kind == Kind::Bin) {
            let mut chunk = list.head;
            for _ in 0..SAMPLES {
                let Some(size) = self.size_by_map(chunk).filter(|_| chunk != list.at) else {
                    break;
                };
                let last = chunk.saturating_add(size.saturating_sub(8));
                if size >= 2 * MIN_CHUNK
                    && let Some(word) = self.word(last)
                {
                    all = all.saturating_add(1);
                    let bytes @ [byte, ..] = word.to_le_bytes();
                    if byte != 0 && bytes == [byte; 8] {
                        {
                            let slot = votes.entry(byte).or_default();
                            *slot = slot.saturating_add(1);
                        };
                    }
                }
                chunk = Address::new(self.word(chunk.saturating_add(HEADER)).unwrap_or(0));
            }
        }
        let (byte, count) = votes.into_iter().max_by_key(|(_, count)| *count)?;
        let agree =
            count >= MIN_VOTES && all.saturating_sub(count).saturating_mul(MIN_VOTES) <= all;
        (agree && self.hands_out(!byte)).then_some(byte)
    }

    /// Whether blocks in use end in this byte: new ones are filled with the complement. A program that fills its own arrays with
    /// one value and frees them has no such blocks; zero tells nothing.
    fn hands_out(&self, complement: u8) -> bool {
        const LOOKED_AT: usize = 1 << 14;
        const ENOUGH: usize = 4;
        let (mut seen, mut filled) = (0usize, 0usize);
        self.each_chunk(|chunk, size, id| {
            let last = self.word(chunk.saturating_add(size.saturating_sub(8)));
            let is_filled = last.is_some_and(|word| word.to_le_bytes() == [complement; 8]);
            filled = filled.saturating_add(usize::from(is_filled && !self.map.is_listed(id)));
            seen = seen.saturating_add(1);
            seen < LOOKED_AT && filled < ENOUGH
        });
        complement != 0 && filled >= ENOUGH
    }
}

/// What was changed in a free chunk that was filled: one short piece, in a chunk that shows the filling for the most part.
fn change(
    cursor: &mut Cursor<'_>,
    chunk: Address,
    size: u64,
    fill: u8,
    is_left_over: &dyn Fn(Address, u64) -> bool,
) -> Option<Change> {
    let filled = u64::from_le_bytes([fill; 8]);
    // Links between sizes stand behind the others.
    let skip = if size >= 0x400 { 48u64 } else { 32 };
    let (mut left, mut changed) = (0u64, None);
    let mut offset = skip;
    // Where the links of a swallowed chunk end: what begins right there is its old content, which nobody filled.
    let mut behind_links = 0;
    while offset.saturating_add(16) <= size {
        let at = chunk.checked_add(offset)?;
        let words = [
            cursor.read_u64(at).ok()?,
            cursor.read_u64(at.checked_add(8)?).ok()?,
        ];
        if is_header(words[1], size.saturating_sub(offset)) {
            offset = offset.saturating_add(48);
            behind_links = offset;
            continue;
        }
        for (place, word) in [offset, offset.saturating_add(8)].into_iter().zip(words) {
            // What is handed out is filled with the complement, and a piece of that may come back without a filling.
            if word
                .to_le_bytes()
                .iter()
                .all(|byte| *byte == fill || *byte == !fill)
            {
                left = left.saturating_add(u64::from(word == filled));
            } else if word != 0 && !is_left_over(chunk.checked_add(place)?, word) {
                if place == behind_links {
                    return None;
                }
                let (first, last) = changed_bytes(word, filled);
                let (start, _) = changed.unwrap_or((place.saturating_add(first), 0));
                changed = Some((start, place.saturating_add(last).saturating_add(1)));
            }
        }
        offset = offset.saturating_add(16);
    }
    let (start, end) = changed?;
    let bytes = end.saturating_sub(start);
    (bytes <= MAX_SPAN && left.saturating_mul(8) >= bytes).then_some(Change {
        chunk,
        at: chunk.checked_add(start)?,
        bytes,
    })
}

/// Whether a word can be the size of a chunk that was swallowed here.
fn is_header(word: u64, room: u64) -> bool {
    let size = word & !FLAGS;
    size >= MIN_CHUNK && size <= room && size.is_multiple_of(16)
}

/// The first and the last byte that differ.
fn changed_bytes(word: u64, filled: u64) -> (u64, u64) {
    let differs = word ^ filled;
    let first = u64::from(differs.trailing_zeros() / 8);
    let last = 7u64.saturating_sub(u64::from(differs.leading_zeros() / 8));
    (first, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_differ() {
        assert_eq!(
            changed_bytes(0x00a5_a5a5_a5a5_a541, 0xa5a5_a5a5_a5a5_a5a5),
            (0, 7)
        );
        assert_eq!(
            changed_bytes(0xa5a5_a5a5_4141_a5a5, 0xa5a5_a5a5_a5a5_a5a5),
            (2, 3)
        );
    }

    #[test]
    fn sizes_that_fit() {
        assert!(is_header(0x31, 0x100) && is_header(0x100, 0x100));
        assert!(!is_header(0x111, 0x100) && !is_header(0x39, 0x100) && !is_header(0x11, 0x100));
    }
}
