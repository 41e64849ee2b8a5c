//! A size that was made too large covers the chunks behind it. Where lists hold one of these, they show where chunks
//! really begin, and the map is put right.

use super::Inquiry;
use crate::allocators::ptmalloc::layout::{
    ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, NON_MAIN, PREV_INUSE,
};
use crate::allocators::ptmalloc::lists::{ChunkList, Kind};
use crate::anomaly::{AnomalyKind, Field};
use ground::target::Address;

/// Chunks inside one whose size is wrong.
pub(super) struct Inner {
    /// The chunk whose size is wrong.
    outer: Address,
    /// Where chunks begin behind it.
    starts: Vec<Address>,
    /// Where those meet the chunks that the walk found.
    end: Address,
}

/// Headers that are tried in one heap: enough for thousands of damaged sizes, and a second or two where a heap was made to
/// cost much.
pub(super) const PROBES: u64 = 1 << 26;
/// Chunks of one that are looked at.
const MAX_CHUNKS: usize = 1 << 14;
/// Chunks that no old headers in data make up.
const ENOUGH: usize = 4;
/// Bytes behind a chunk's start in which the first one inside it is looked for, whatever its size became.
const MAX_SEARCH: u64 = 1 << 18;

impl Inquiry<'_, '_> {
    /// Whether a list proves that a chunk of its size begins here, inside another that is then too large: the header is
    /// the list's, the key is there, and chunks fill the space to one that the walk found.
    pub(super) fn swallowed(&self, list: &ChunkList, chunk: Address) -> Option<Inner> {
        let is_binned = list.kind == Kind::Bin;
        let size = match list.size {
            Some(size) => size,
            None => self.size_by_header(chunk).filter(|_| is_binned)?,
        };
        let block = chunk.saturating_add(HEADER);
        let (outer, offset) = self.map.block_at(block)?;
        let start = outer.address.checked_sub(HEADER)?;
        let whole = outer.bytes.saturating_add(8);
        let end = start.checked_add(whole)?;
        let fits = self.size_by_header(chunk) == Some(size) && self.keyed_or_unkeyed(list, block);
        let shown = match is_binned {
            true => self.is_linked(chunk) && self.word(chunk.checked_add(size)?) == Some(size),
            false => self.is_marked(start, chunk),
        };
        if offset < MIN_CHUNK || !fits || !shown {
            return None;
        }
        let behind = self.chain(chunk, |at| {
            at >= end && self.map.chunk_at(at).is_some() || at == end
        })?;
        // A made-up size that leads past the end of the block is no chunk's: a few headers lead on from anywhere.
        if behind.last() != Some(&end) && behind.len() <= ENOUGH {
            return None;
        }
        let first = self.first_inside(start, whole, chunk, behind.len())?;
        let mut starts = self.chain(first, |at| at == chunk)?;
        starts.pop();
        starts.extend(behind);
        let end = starts.pop()?;
        Some(Inner {
            outer: start,
            starts,
            end,
        })
    }

    /// Whether the flags of a chunk inside one that is in use are those of a chunk that was handed out: made-up sizes have
    /// others.
    fn is_marked(&self, outer: Address, chunk: Address) -> bool {
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        let before = self.word(chunk).unwrap_or(0);
        let follows_free = chunk
            .checked_sub(before)
            .is_some_and(|free| free >= outer && free < chunk && self.is_linked(free));
        let expected = self.flags_of(chunk);
        header & FLAGS == expected || header & FLAGS == expected & !PREV_INUSE && follows_free
    }

    /// Whether a chunk in use has lost the mark of its arena: then its whole header may be somebody else's.
    fn lost_mark(&self, chunk: Address) -> bool {
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        self.flags_of(chunk) & !header & NON_MAIN != 0 && !self.is_linked(chunk)
    }

    /// Where the first chunk begins inside one whose size is wrong. One bit or the lowest byte is what writes change that
    /// leave a possible size; any other change must leave several chunks at which the program points. Else a pointer
    /// into the block was freed.
    fn first_inside(
        &self,
        start: Address,
        whole: u64,
        chunk: Address,
        behind: usize,
    ) -> Option<Address> {
        let bits = (4..24).map(|bit| whole ^ 1 << bit);
        let bytes = (0..16).map(|low| whole & !0xff | low << 4);
        let leads =
            |first: &Address| *first <= chunk && self.chain(*first, |at| at == chunk).is_some();
        let likely = bits
            .chain(bytes)
            .filter(|size| (MIN_CHUNK..whole).contains(size))
            .filter_map(|size| start.checked_add(size))
            .find(leads);
        if likely.is_some() {
            return likely;
        }
        let room = chunk.offset_from(start)?.min(MAX_SEARCH);
        let first = (MIN_CHUNK..=room)
            .step_by(16)
            .filter_map(|size| start.checked_add(size))
            .find(leads)?;
        if self.lost_mark(start) {
            return Some(first);
        }
        let before = self.chain(first, |at| at == chunk)?;
        let used: Vec<&Address> = before.iter().filter(|at| **at != chunk).collect();
        let pointed = |at: &&&Address| self.heap.is_pointed_at(at.saturating_add(HEADER));
        let known = used.iter().filter(pointed).count();
        (before.len().saturating_add(behind) > ENOUGH
            && known > 0
            && known.saturating_mul(2) >= used.len())
        .then_some(first)
    }

    /// Possible chunks from a place up to one that is wanted, which is the last.
    fn chain(&self, from: Address, is_end: impl Fn(Address) -> bool) -> Option<Vec<Address>> {
        let region = self.heap.arenas.region_of(from)?;
        let is_main = self
            .heap
            .arenas
            .rows
            .get(region.arena)
            .is_none_or(|arena| arena.is_main);
        let bad = 8 | IS_MMAPPED | if is_main { NON_MAIN } else { 0 };
        let mut starts = vec![from];
        let mut at = from;
        let mut before: Option<u64> = None;
        while !is_end(at) {
            self.probes.set(self.probes.get().checked_sub(1)?);
            let header = self.word(at.checked_add(8)?)?;
            let size = header & !FLAGS;
            let next = at.checked_add(size)?;
            let free = header & PREV_INUSE == 0;
            let agrees = !free || before.is_none_or(|before| self.word(at) == Some(before));
            let sane = header & bad == 0 && size >= MIN_CHUNK && size.is_multiple_of(ALIGNMENT);
            if !sane || !agrees || next > region.end || starts.len() >= MAX_CHUNKS {
                return None;
            }
            before = Some(size);
            at = next;
            starts.push(at);
        }
        Some(starts)
    }

    /// The header of a chunk that a list of one size holds says another one: it was written over since.
    pub(super) fn check_size(&mut self, list: &ChunkList, chunk: Address) {
        let tcache = self.heap.tcaches.layout.as_ref();
        let takes = |size: Option<u64>| size.is_none_or(|size| list.takes(size, tcache));
        let by_map = self.size_by_map(chunk);
        let (Some(size), Some(whole)) = (list.size, by_map) else {
            return;
        };
        let is_right = takes(by_map) || takes(self.size_by_header(chunk));
        if is_right || self.broken.contains(&chunk) {
            return;
        }
        let (next, end) = (chunk.saturating_add(size), chunk.saturating_add(whole));
        let is_end = |at: Address| at >= end && self.map.chunk_at(at).is_some() || at == end;
        let mut starts = match size < whole {
            true => self.chain(next, is_end).unwrap_or_default(),
            false => Vec::new(),
        };
        let end = starts.pop().unwrap_or(end);
        self.split(&Inner {
            outer: chunk,
            starts,
            end,
        });
        let at = chunk.saturating_add(8);
        let right = size | self.flags_of(chunk);
        for anomaly in &mut self.out {
            if let AnomalyKind::Header {
                at: word, expected, ..
            } = &mut anomaly.kind
                && *word == at
            {
                *expected = Some(right);
            }
        }
    }

    /// Corrects the map where a bin holds chunks that a wrong size covers.
    pub(super) fn split_for_bin(&mut self, list: &ChunkList) {
        let mut chunk = list.head;
        for _ in 0..MAX_CHUNKS {
            if chunk == list.at || !chunk.is_aligned(ALIGNMENT) {
                return;
            }
            if self.map.chunk_at(chunk).is_none() {
                match self.swallowed(list, chunk) {
                    Some(inner) => self.split(&inner),
                    None => return,
                }
            }
            chunk = Address::new(self.word(chunk.saturating_add(HEADER)).unwrap_or(0));
        }
    }

    /// Corrects the map where a chunk's size was made to cover others.
    pub(super) fn split(&mut self, inner: &Inner) {
        let Inner { outer, starts, end } = inner;
        let (mut at, mut wrong) = (*outer, Vec::new());
        while at < *end {
            let Some(size) = self.size_by_map(at) else {
                break;
            };
            self.resized.0.add(size);
            at = at.saturating_add(size.max(MIN_CHUNK));
            wrong.push(at);
        }
        for at in wrong.iter().filter(|at| *at < end) {
            self.map.join_chunk(*at);
        }
        for at in starts {
            self.map.split_chunk(*at);
        }
        for at in std::iter::once(outer).chain(starts) {
            self.resized.1.add(self.size_by_map(*at).unwrap_or(0));
        }
        let at = outer.saturating_add(8);
        let (Some(block), Some(found)) = (self.block_of(*outer), self.word(at)) else {
            return;
        };
        let size = block.bytes.saturating_add(8) | found & FLAGS;
        // Another list may have shown less of it before.
        let known = self
            .out
            .iter_mut()
            .find_map(|anomaly| match &mut anomaly.kind {
                AnomalyKind::Header {
                    block,
                    at: word,
                    expected,
                    ..
                } if *word == at => Some((block, expected)),
                _ => None,
            });
        if let Some((known, expected)) = known {
            *known = block;
            *expected = Some(size);
            return;
        }
        let before = self.map.block_before(block);
        self.broken.insert(*outer);
        self.push(
            AnomalyKind::Header {
                block,
                at,
                what: Field::Header,
                expected: Some(size),
                found,
                before,
            },
            None,
        );
    }
}
