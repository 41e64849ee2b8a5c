//! Headers that the walk over chunks could not believe.

use super::Inquiry;
use crate::allocators::ptmalloc::carve::Odd;
use crate::allocators::ptmalloc::layout::{FLAGS, HEADER, MIN_CHUNK, NON_MAIN, PREV_INUSE};
use crate::anomaly::{AnomalyKind, Field};
use crate::map::Block;
use ground::target::Address;

impl Inquiry<'_, '_> {
    /// Turns what the walk met into anomalies.
    pub(super) fn headers(&mut self) {
        let odd: Vec<(usize, Odd)> = self.heap.odd().collect();
        for (_, odd) in &odd {
            match odd {
                Odd::Broken { at, .. } => self.broken.insert(*at),
                Odd::Resized { chunk, .. } => self.broken.insert(*chunk),
                _ => false,
            };
        }
        for (arena, odd) in odd {
            match odd {
                Odd::Broken {
                    before,
                    at,
                    resync,
                    possible,
                } => self.broken_header(arena, before, at, resync, possible),
                Odd::Resized {
                    chunk,
                    before,
                    size,
                    ..
                } => self.resized(arena, before, chunk, size),
                Odd::Foot { chunk, next } => self.foot(arena, chunk, next),
                Odd::First { chunk } => self.first(arena, chunk),
                Odd::Adjacent { .. } => {} // the lists say which of them is not free
            }
        }
    }

    /// Headers of chunks with mappings of their own.
    pub(super) fn mapped_headers(&mut self) {
        let heap = self.heap;
        for mapped in &heap.mapped {
            let block = self.map.block_at(mapped.block).map(|(block, _)| block);
            let (Some(wrong), Some(block)) = (mapped.wrong, block) else {
                continue;
            };
            let Some(found) = self.word(wrong.at) else {
                continue;
            };
            let transient = heap.somebody_inside();
            self.push(
                AnomalyKind::Header {
                    block,
                    at: wrong.at,
                    what: wrong.what,
                    expected: Some(wrong.expected),
                    found,
                    before: None,
                },
                transient,
            );
        }
    }

    /// The flags of a chunk in use behind another.
    pub(super) fn flags_of(&self, chunk: Address) -> u64 {
        let region = self.heap.arenas.region_of(chunk);
        self.flags(region.map_or(0, |region| region.arena))
    }

    fn flags(&self, arena: usize) -> u64 {
        let is_main = self
            .heap
            .arenas
            .rows
            .get(arena)
            .is_none_or(|arena| arena.is_main);
        PREV_INUSE | if is_main { 0 } else { NON_MAIN }
    }

    fn header(
        &mut self,
        chunk: Address,
        before: Option<Address>,
        expected: Option<u64>,
        transient: Option<crate::anomaly::Transient>,
    ) {
        let at = chunk.saturating_add(8);
        let (Some(block), Some(found)) = (self.block_of(chunk), self.word(at)) else {
            return;
        };
        // A cache's structure is written by malloc alone, which does not write past its end.
        let before = before
            .and_then(|before| self.block_of(before))
            .filter(|before| !self.is_cache(before.address));
        self.push(
            AnomalyKind::Header {
                block,
                at,
                what: Field::Header,
                expected,
                found,
                before,
            },
            transient,
        );
    }

    pub(super) fn is_cache(&self, block: Address) -> bool {
        let mut caches = self.heap.all_caches().into_iter();
        caches.any(|cache| cache.at == block)
    }

    fn broken_header(
        &mut self,
        arena: usize,
        before: Option<Address>,
        at: Address,
        resync: Address,
        possible: bool,
    ) {
        if self.is_overlapped_by_top(arena, at) {
            return;
        }
        let size = resync.offset_from(at).unwrap_or(0);
        // A chunk that is being cut out of a larger one has no header yet.
        let busy = self.heap.arena_busy(arena);
        let row = self.heap.arenas.rows.get(arena);
        let remainder = row.and_then(|row| {
            self.word(
                row.at
                    .saturating_add(self.heap.located.arena.last_remainder),
            )
        }) == Some(at.get());
        let transient = match busy {
            Some(busy) if (remainder || possible) && self.is_in_hand(at) => Some(busy),
            Some(_) => self.heap.in_flight(at),
            None => None,
        };
        let flags = self.flags(arena);
        self.header(at, before, Some(size | flags), transient);
    }

    /// A chunk whose header is whole and reaches into the top chunk: what stood behind it was freed with a made-up size of the chunk
    /// before it, which led to the middle of this one, and was merged down to there. Says so.
    fn is_overlapped_by_top(&mut self, arena: usize, chunk: Address) -> bool {
        let Some(top) = self.heap.arenas.rows.get(arena).map(|row| row.top) else {
            return false;
        };
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        let size = header & !FLAGS;
        let Some(next) = chunk
            .checked_add(size)
            .filter(|next| *next > top && chunk < top)
        else {
            return false;
        };
        let at = next.saturating_add(8);
        let (Some(before), Some(found)) = (self.word(next), self.word(at)) else {
            return false;
        };
        let whole = header & FLAGS == self.flags(arena) && size >= MIN_CHUNK;
        let merged = found & PREV_INUSE == 0 && next.checked_sub(before) == Some(top);
        let place = self.map.block_at(next.saturating_add(HEADER));
        let own = self.block_of(chunk);
        let (true, true, Some((rest, offset)), Some(own)) = (whole, merged, place, own) else {
            return false;
        };
        let block = Block {
            address: next.saturating_add(HEADER),
            bytes: rest.bytes.saturating_sub(offset),
            ..rest
        };
        let own = Block {
            bytes: size.saturating_sub(8),
            ..own
        };
        let transient = self.heap.arena_busy(arena);
        self.push(
            AnomalyKind::Header {
                block,
                at,
                what: Field::HeaderOfMergedChunk,
                expected: Some(found | PREV_INUSE),
                found,
                before: Some(own),
            },
            transient,
        );
        self.broken.insert(top);
        true
    }

    /// Whether a thread inside malloc has a chunk in hand, or one of the two on each side: what is freed is merged with both of
    /// its neighbours, and only one of the three may be named by the time that they become one.
    pub(super) fn is_in_hand(&self, chunk: Address) -> bool {
        let Some(block) = self.block_of(chunk) else {
            return true;
        };
        let chunk_of = |block: Block| block.address.checked_sub(HEADER);
        let end_of = |block: Block| block.address.saturating_add(block.bytes).checked_sub(8);
        let before = self.map.block_before(block);
        let before_that = before.and_then(|before| self.map.block_before(before));
        let next = end_of(block);
        let next_but_one = next.and_then(|next| end_of(self.block_of(next)?));
        let around = [
            before_that.and_then(chunk_of),
            before.and_then(chunk_of),
            Some(chunk),
            next,
            next_but_one,
        ];
        let mut around = around.into_iter().flatten();
        around.any(|chunk| self.heap.may_hold_chunk(chunk))
    }

    fn resized(&mut self, arena: usize, before: Option<Address>, chunk: Address, size: u64) {
        let flags = self.flags(arena);
        let transient = self
            .heap
            .arena_busy(arena)
            .and_then(|_| self.heap.in_flight(chunk));
        self.header(chunk, before, Some(size | flags), transient);
    }

    /// The header behind a chunk in use says that it is free.
    fn foot(&mut self, arena: usize, chunk: Address, next: Address) {
        if self.broken.contains(&next) || self.is_linked(chunk) {
            return; // said with that, or with its bin
        }
        let transient = self
            .heap
            .arena_busy(arena)
            .filter(|_| self.is_in_hand(chunk))
            .or_else(|| self.heap.in_flight(chunk));
        let at = next.saturating_add(8);
        let Some(found) = self.word(at) else {
            return;
        };
        if self.block_of(next).is_some() {
            self.header(next, Some(chunk), Some(found | PREV_INUSE), transient);
        } else {
            self.top_marks(chunk, next, found, transient);
        }
        self.broken.insert(next);
    }

    fn top_marks(
        &mut self,
        chunk: Address,
        top: Address,
        found: u64,
        transient: Option<crate::anomaly::Transient>,
    ) {
        let Some((block, _)) = self.map.block_at(top.saturating_add(HEADER)) else {
            return;
        };
        let before = self.block_of(chunk);
        self.push(
            AnomalyKind::Header {
                block,
                at: top.saturating_add(8),
                what: Field::HeaderOfTop,
                expected: Some(found | PREV_INUSE),
                found,
                before,
            },
            transient,
        );
    }

    /// Whether a neighbour in a bin points back at a chunk.
    pub(super) fn is_linked(&self, chunk: Address) -> bool {
        let link = |at: Address, offset| self.word(at.saturating_add(offset)).map(Address::new);
        let answered = |there: u64, back: u64| {
            link(chunk, there).and_then(|other| link(other, back)) == Some(chunk)
        };
        answered(16, 24) || answered(24, 16)
    }

    /// The first chunk of a run says that the one before it is free.
    fn first(&mut self, arena: usize, chunk: Address) {
        let transient = self.heap.arena_busy(arena);
        let found = self.word(chunk.saturating_add(8)).unwrap_or(0);
        self.header(chunk, None, Some(found | PREV_INUSE), transient);
    }
}
