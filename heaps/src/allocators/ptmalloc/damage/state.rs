//! Arenas, heaps and top chunks.

use super::Inquiry;
use crate::allocators::ptmalloc::layout::HEADER;
use crate::anomaly::AnomalyKind;

impl Inquiry<'_, '_> {
    /// Says what is wrong with the arenas themselves.
    pub(super) fn state(&mut self) {
        for oddity in &self.heap.arenas.oddities {
            let transient = self.heap.arena_busy(oddity.arena);
            self.push(
                AnomalyKind::Metadata {
                    of: oddity.of,
                    at: oddity.at,
                    what: oddity.what,
                    expected: oddity.expected.clone(),
                    found: oddity.found.clone(),
                    counts_only: false,
                },
                transient,
            );
        }
        self.flags_of_arenas();
        self.tops();
    }

    fn flags_of_arenas(&mut self) {
        const KNOWN: u32 = 7;
        /// 2.22 to 2.26: malloc found the arena damaged and uses it no more.
        const CORRUPT: u32 = 4;
        for (index, arena) in self.heap.arenas.rows.iter().enumerate() {
            let given_up = arena.flags & CORRUPT != 0 && self.heap.located.releases.high <= 26;
            if arena.flags & !KNOWN == 0 && !given_up {
                continue;
            }
            let at = arena.at.saturating_add(4);
            let transient = self.heap.arena_busy(index);
            self.push(
                AnomalyKind::Metadata {
                    of: arena.at,
                    at,
                    what: "malloc_state.flags",
                    expected: "no flag but those of the release".into(),
                    found: if given_up {
                        format!("{:#x}: malloc itself found the arena damaged", arena.flags)
                    } else {
                        format!("{:#x}", arena.flags)
                    },
                    counts_only: false,
                },
                transient,
            );
        }
    }

    /// Top chunks: their size must lead to the end of the arena's newest memory.
    fn tops(&mut self) {
        for region in self
            .heap
            .arenas
            .regions
            .iter()
            .filter(|region| region.has_top)
        {
            let Some(arena) = self.heap.arenas.rows.get(region.arena) else {
                continue;
            };
            let expected_end = self.heap.arenas.expected_end(region.arena);
            let wrong = match (arena.top_size, expected_end) {
                (None, _) => true,
                (Some(size), Some(end)) => arena.top.saturating_add(size) != end,
                (Some(_), None) => false,
            };
            let at = arena.top.saturating_add(8);
            let block = self.map.block_at(arena.top.saturating_add(HEADER));
            let (Some((block, 0)), Some(found), true) = (block, self.word(at), wrong) else {
                continue;
            };
            let before = arena
                .top
                .checked_sub(1)
                .and_then(|at| self.map.block_at(at))
                .map(|(block, _)| block);
            let expected = expected_end.and_then(|end| Some(end.offset_from(arena.top)? | 1));
            if self.broken.contains(&arena.top) {
                continue;
            }
            self.broken.insert(arena.top);
            let transient = self.heap.arena_busy(region.arena);
            self.push(
                AnomalyKind::Header {
                    block,
                    at,
                    what: "size and flags of the top chunk",
                    expected,
                    found,
                    before,
                },
                transient,
            );
        }
    }
}
