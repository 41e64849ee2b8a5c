//! `MALLOC_CHECK_`: behind what the program asked for stands a mark, and from the end of the block a chain of lengths leads to
//! it. Both are gone where the program wrote past the end of its own bytes, even if it never left the block.
//!
//! Source: glibc, malloc/hooks.c (up to 2.33) and malloc/malloc-check.c, `mem2mem_check` and `malloc_check_get_size`.

use super::Inquiry;
use crate::allocators::ptmalloc::layout::HEADER;
use crate::anomaly::AnomalyKind;
use crate::map::BlockId;
use ground::target::{Address, MemoryExt};

/// Blocks in use that are asked whether they have marks at all.
const SAMPLES: usize = 64;
/// So many must be there to tell.
const MIN_SAMPLES: usize = 8;
/// Of blocks that have marks, one in so many may have lost it: with more, they are no marks.
const MAX_LOST: usize = 20;
/// Steps of a chain; hardly any has more than one.
const MAX_STEPS: u64 = 1 << 12;

/// Where a chain broke.
#[derive(Clone, Copy)]
struct Broken {
    at: Address,
    found: u8,
}

/// The mark of a chunk.
fn mark_of(chunk: Address) -> u8 {
    let [byte, ..] = (chunk.get() >> 3 ^ chunk.get() >> 11).to_le_bytes();
    if byte == 1 { 2 } else { byte }
}

impl Inquiry<'_, '_> {
    /// Blocks whose marks are gone, if this heap has marks.
    pub(super) fn end_marks(&mut self) {
        let (right, lost) = self.look_at_marks(SAMPLES);
        if right < MIN_SAMPLES || lost.len().saturating_mul(MAX_LOST) > right.max(MAX_LOST * 3) {
            return;
        }
        let (right, lost) = self.look_at_marks(usize::MAX);
        if lost.len().saturating_mul(MAX_LOST) > right.max(MAX_LOST) {
            return;
        }
        for (chunk, broken) in lost {
            let Some(block) = self.block_of(chunk) else {
                continue;
            };
            // The mark is written after the lock is let go, and not made whole in fork's child.
            let busy = self.heap.somebody_inside();
            let transient = busy.or_else(|| self.heap.vanished());
            self.push(
                AnomalyKind::EndMark {
                    block,
                    at: broken.at,
                    mark: mark_of(chunk),
                    found: broken.found,
                },
                transient,
            );
        }
    }

    /// How many of the first `count` blocks in use have their marks, and which do not.
    fn look_at_marks(&self, count: usize) -> (usize, Vec<(Address, Broken)>) {
        let mut right = 0usize;
        let mut lost = Vec::new();
        let is_main = |arena| arena == Some(0); // where all checked blocks are
        self.each_chunk_of(is_main, |chunk, size, id| {
            if self.is_in_use(chunk, size, id) {
                match self.broken_mark(chunk, size) {
                    Some(broken) => lost.push((chunk, broken)),
                    None => right = right.saturating_add(1),
                }
            }
            right.saturating_add(lost.len()) < count && lost.len() <= right.max(SAMPLES)
        });
        (right, lost)
    }

    /// Whether a block is handed out, and the headers around it are believed.
    fn is_in_use(&self, chunk: Address, size: u64, id: BlockId) -> bool {
        let next = chunk.saturating_add(size);
        let believed = !self.broken.contains(&chunk) && !self.broken.contains(&next);
        let free = self.map.is_listed(id)
            || self.map.is_lost(id)
            || self
                .word(next.saturating_add(8))
                .is_none_or(|header| header & 1 == 0);
        believed && !free
    }

    /// Where the chain from the end of a block to its mark breaks, if it does.
    fn broken_mark(&self, chunk: Address, size: u64) -> Option<Broken> {
        let mark = mark_of(chunk);
        let mut offset = size.checked_add(7)?;
        for _ in 0..MAX_STEPS {
            let at = chunk.checked_add(offset)?;
            let found = self.heap.target.memory.read_u8(at).ok()?;
            if found == mark {
                return None;
            }
            let step = u64::from(found);
            if step == 0 || offset < step + HEADER {
                return Some(Broken { at, found });
            }
            offset = offset.saturating_sub(step);
        }
        None
    }
}
