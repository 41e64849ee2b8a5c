//! What damage cut off. A cached block says by its key that it is free; the tail of a broken list
//! still links to itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Cut, Inquiry};
use crate::allocators::ptmalloc::layout::{ALIGNMENT, HEADER, usable};
use crate::allocators::ptmalloc::lists::{ChunkList, Kind, Passed};
use crate::anomaly::{
    AnomalyKind, BrokenWord, Edge, Expected, Field, HolderKind, Property, Repair, Stray, Value,
};
use crate::map::{BlockId, GRANULE};
use ground::target::Address;

/// Unlisted chunks of one size that are looked at.
const MAX_CANDIDATES: usize = 1 << 22;
/// Chunks in no bin that are named.
const MAX_UNBINNED: usize = 32;

impl Inquiry<'_, '_> {
    /// Every chunk of the map with its size, until `look` has seen enough.
    pub(super) fn each_chunk(&self, look: impl FnMut(Address, u64, BlockId) -> bool) {
        self.each_chunk_of(|_| true, look);
    }

    /// The same of the arenas that are wanted.
    pub(super) fn each_chunk_of(
        &self,
        wanted: impl Fn(Option<usize>) -> bool,
        mut look: impl FnMut(Address, u64, BlockId) -> bool,
    ) {
        for (row, extent) in (0u32..).zip(self.map.extents()) {
            let Some(chunks) = self.map.chunks(extent) else {
                continue;
            };
            let region = self.heap.arenas.region_of(extent.start);
            if !wanted(region.map(|region| region.arena)) {
                continue;
            }
            let mut next = chunks.is_start(0).then_some(0).or(chunks.after(0));
            while let Some(slot) = next {
                next = chunks.after(slot);
                let end = next.unwrap_or(chunks.granules());
                let chunk = extent.start.saturating_add(u64::from(slot) * GRANULE);
                let size = u64::from(end.saturating_sub(slot)) * GRANULE;
                if !look(chunk, size, BlockId { extent: row, slot }) {
                    return;
                }
            }
        }
    }

    /// Finds the ends of lists that damage cut off.
    pub(super) fn find_lost(&mut self) {
        let cuts = std::mem::take(&mut self.cut);
        let sizes: BTreeSet<u64> = cuts
            .iter()
            .filter(|cut| cut.missing != Some(0))
            .filter_map(|cut| cut.list.size)
            .collect();
        if sizes.is_empty() {
            return;
        }
        let mut candidates: BTreeMap<u64, Vec<Address>> = BTreeMap::new();
        self.each_chunk(|chunk, size, id| {
            if sizes.contains(&size) && !self.map.is_listed(id) {
                let found = candidates.entry(size).or_default();
                if found.len() < MAX_CANDIDATES {
                    found.push(chunk);
                }
            }
            true
        });
        for cut in cuts {
            let size = cut.list.size.unwrap_or(0);
            let known = candidates.get(&size).map_or(&[][..], Vec::as_slice);
            let tail = self.tail_of(&cut, known);
            self.settle_cut(&cut, size, &tail);
        }
        self.drop_words_of_cleared();
    }

    /// The chunks that a cut list lost, first to last, as far as they can be told.
    fn tail_of(&self, cut: &Cut, candidates: &[Address]) -> Vec<Address> {
        let list = &cut.list;
        if list.kind == Kind::Bin || cut.missing == Some(0) {
            return Vec::new();
        }
        let key = match list.kind {
            Kind::Tcache => self.heap.expected_key(list),
            _ => None,
        };
        let free = |chunk: &&Address| {
            let id = self.map.chunk_at(**chunk);
            let marked = id.is_some_and(|id| self.map.is_lost(id) || self.map.is_listed(id));
            !marked && key.is_none_or(|key| self.word(chunk.saturating_add(24)) == Some(key))
        };
        let candidates: Vec<Address> = candidates.iter().filter(free).copied().collect();
        let index: HashMap<Address, usize> = candidates
            .iter()
            .enumerate()
            .map(|(index, chunk)| (*chunk, index))
            .collect();
        let next = |chunk: Address| -> Option<Address> {
            let block = chunk.saturating_add(HEADER);
            let entry = self.heap.decode(block, self.word(block)?);
            if entry.is_null() {
                return Some(entry);
            }
            list.chunk(entry)
                .filter(|chunk| chunk.is_aligned(ALIGNMENT))
        };
        let lengths = lengths(&candidates, &index, &next);
        let wanted = cut.missing;
        let pointed: BTreeSet<Address> =
            candidates.iter().filter_map(|chunk| next(*chunk)).collect();
        let mut starts: Vec<(u64, Address)> = candidates
            .iter()
            .zip(&lengths)
            .filter_map(|(chunk, length)| Some((length.filter(|length| *length > 0)?, *chunk)))
            .filter(|(length, _)| wanted.is_none_or(|wanted| *length == wanted))
            .collect();
        let start = match wanted {
            Some(_) => {
                if starts.len() > 1 {
                    starts.retain(|(_, chunk)| !pointed.contains(chunk));
                }
                (starts.len() == 1)
                    .then(|| starts.first().map(|(_, chunk)| *chunk))
                    .flatten()
            }
            // A fastbin counts nothing: the longest chain.
            None => starts
                .iter()
                .filter(|(length, _)| *length >= 2)
                .max_by_key(|(length, chunk)| (*length, std::cmp::Reverse(*chunk)))
                .map(|(_, chunk)| *chunk),
        };
        let Some(start) = start else {
            // Without a chain, as many keys as are missing say the same.
            let enough = key.is_some() && wanted == Some(candidates.len() as u64);
            return if enough { candidates } else { Vec::new() };
        };
        let mut tail = vec![start];
        let mut at = start;
        while let Some(following) = next(at).filter(|next| index.contains_key(next)) {
            if tail.len() > candidates.len() {
                break;
            }
            tail.push(following);
            at = following;
        }
        tail
    }

    fn settle_cut(&mut self, cut: &Cut, size: u64, tail: &[Address]) {
        for chunk in tail {
            if let Some(id) = self.map.chunk_at(*chunk) {
                self.map.mark_lost(id);
            }
        }
        let missing = match cut.list.kind {
            Kind::Bin => 0,
            _ => cut.missing.unwrap_or(tail.len() as u64),
        };
        let bound = self.heap.tcaches.limit.max(1 << 16);
        let missing = missing.min(bound.max(tail.len() as u64));
        for _ in 0..missing {
            self.lost.add(size);
        }
        let list = self.heap.list_ref(&cut.list);
        let index = cut.anomaly.or_else(|| {
            self.out.iter().position(|anomaly| match &anomaly.kind {
                AnomalyKind::Shared { edges, .. } => edges.iter().any(|edge| edge.list == list),
                _ => false,
            })
        });
        let Some(anomaly) = index.and_then(|index| self.out.get_mut(index)) else {
            return;
        };
        anomaly.lost_blocks = anomaly.lost_blocks.saturating_add(missing);
        let value = tail.first().map(|chunk| entry_of(&cut.list, *chunk));
        match &mut anomaly.kind {
            AnomalyKind::BadEntry { repair, .. } if repair.is_none() => {
                *repair = value.map(|value| Repair {
                    value,
                    unique: cut.missing.is_some(),
                });
                if repair.is_none() && cut.missing == Some(0) {
                    *repair = Some(Repair {
                        value: Address::new(0),
                        unique: true,
                    });
                }
            }
            // What the count misses is there: the link to it was cleared.
            AnomalyKind::Length { .. } => {
                if let Some(value) = value {
                    anomaly.kind = AnomalyKind::BadEntry {
                        edge: cut.edge,
                        found: Address::new(0),
                        stray: Stray::EarlyEnd,
                        leads_on: false,
                        repair: Some(Repair {
                            value,
                            unique: true,
                        }),
                    };
                }
            }
            _ => {}
        }
    }

    /// What else was written over in a block whose link was cleared: one write over several words is one finding.
    fn drop_words_of_cleared(&mut self) {
        let cleared: BTreeSet<Address> = self
            .out
            .iter()
            .filter(|anomaly| anomaly.transient.is_none())
            .filter_map(|anomaly| match &anomaly.kind {
                AnomalyKind::BadEntry {
                    edge,
                    stray: Stray::EarlyEnd,
                    ..
                } => edge.from,
                _ => None,
            })
            .collect();
        self.out.retain(|anomaly| match &anomaly.kind {
            AnomalyKind::FreeWord { block, .. } => !cleared.contains(&block.address),
            _ => true,
        });
    }

    /// Arenas whose free chunks are more than their bins hold.
    pub(super) fn unbinned_arenas(&self, passed: &Passed) -> Vec<usize> {
        let mut free = vec![0u64; self.heap.arenas.rows.len()];
        for (walk, region) in self.heap.walks().iter().zip(&self.heap.arenas.regions) {
            if let Some(count) = free.get_mut(region.arena) {
                *count = count.saturating_add(walk.free.total().0);
            }
        }
        free.iter()
            .enumerate()
            .filter(|(index, free)| passed.binned.get(*index) != Some(free))
            .map(|(index, _)| index)
            .collect()
    }

    /// One NUL past the end of a block clears every flag behind it; that the block's last bytes repeat its size
    /// is chance, or left from when it was free.
    fn cut_by_nul(&mut self, chunk: Address, size: u64) -> bool {
        let next = chunk.saturating_add(size);
        let at = next.saturating_add(8);
        let (Some(block), Some(found)) = (self.block_of(next), self.word(at)) else {
            return false;
        };
        let expected = found | self.flags_of(next);
        if found & 0xff != 0 || found == 0 {
            return false;
        }
        self.push(
            AnomalyKind::Header {
                block,
                at,
                what: Field::Header,
                expected: Some(expected),
                found,
                before: self.block_of(chunk),
            },
            self.heap.in_flight(chunk),
        );
        true
    }

    /// Chunks that are free by their neighbour's header, and in no bin.
    pub(super) fn unbinned(&mut self, arenas: &[usize]) {
        if arenas.is_empty() {
            return;
        }
        let mut found = Vec::new();
        self.each_chunk(|chunk, size, id| {
            let arena = self.heap.arenas.region_of(chunk).map(|region| region.arena);
            // What a cache or a fastbin holds is in use for its neighbour; it must not be in a bin as well.
            let elsewhere =
                self.map.is_listed(id) && (self.is_linked(chunk) || self.map.is_disputed(id));
            if arena.is_some_and(|arena| arenas.contains(&arena)) && !elsewhere {
                let next = chunk.saturating_add(size);
                let free = self.word(next) == Some(size)
                    && self
                        .word(next.saturating_add(8))
                        .is_some_and(|header| header & 1 == 0)
                    && !self.broken.contains(&next);
                if free {
                    if !self.map.is_listed(id) {
                        self.map.mark_listed(id);
                    }
                    found.push((chunk, size, arena.unwrap_or(0)));
                }
            }
            found.len() < MAX_CANDIDATES
        });
        // In a damaged arena they were cut off with their bin; in one at work they are on their way.
        let is_bin = |edge: &Edge| edge.list.holder == HolderKind::Bin;
        let cut = self.out.iter().any(|anomaly| match &anomaly.kind {
            AnomalyKind::BadEntry { edge, .. } => is_bin(edge),
            AnomalyKind::Shared { edges, .. } => edges.iter().any(is_bin),
            _ => false,
        });
        if cut || self.incomplete {
            return;
        }
        found.retain(|(chunk, _, arena)| {
            self.heap.arena_busy(*arena).is_none() || !self.is_in_hand(*chunk)
        });
        for (chunk, size, _) in found.into_iter().take(MAX_UNBINNED) {
            let transient = self.heap.in_flight(chunk);
            if self.cut_by_nul(chunk, size) {
                continue;
            }
            self.push(
                AnomalyKind::Metadata {
                    word: BrokenWord {
                        of: chunk.saturating_add(HEADER),
                        at: chunk.saturating_add(size.saturating_add(8)),
                        what: Field::PrevInUseBehindUnbinned,
                        expected: Expected::Is(Property::SetForNoBin(usable(size))),
                        found: Value::Flag(false),
                    },
                    counts_only: false,
                },
                transient,
            );
        }
    }
}

/// A chunk as its list names it.
fn entry_of(list: &ChunkList, chunk: Address) -> Address {
    match list.kind {
        Kind::Tcache => chunk.saturating_add(HEADER),
        _ => chunk,
    }
}

/// How many chunks follow from each up to null, itself included; `None` where it does not end there.
fn lengths(
    chunks: &[Address],
    index: &HashMap<Address, usize>,
    next: &dyn Fn(Address) -> Option<Address>,
) -> Vec<Option<u64>> {
    let mut known: Vec<Option<Option<u64>>> = vec![None; chunks.len()];
    for first in 0..chunks.len() {
        let mut path = Vec::new();
        let mut at = Some(first);
        let mut end = None;
        while let Some(here) = at {
            match known.get(here) {
                Some(Some(length)) => {
                    end = *length;
                    break;
                }
                Some(None) if path.len() <= chunks.len() => path.push(here),
                _ => break,
            }
            // Being on the path already counts as not ending.
            if let Some(slot) = known.get_mut(here) {
                *slot = Some(None);
            }
            let following = chunks.get(here).and_then(|chunk| next(*chunk));
            if following.is_some_and(Address::is_null) {
                end = Some(0);
                break;
            }
            at = following.and_then(|chunk| index.get(&chunk).copied());
        }
        for here in path.into_iter().rev() {
            end = end.map(|length| length.saturating_add(1));
            if let Some(slot) = known.get_mut(here) {
                *slot = Some(end);
            }
        }
    }
    known.into_iter().map(Option::flatten).collect()
}
