//! Unsorted, small and large bins: circles of double links, and the links between sizes.

use super::{Cut, Inquiry};
use crate::allocators::ptmalloc::layout::{
    ALIGNMENT, BACK, BACK_SIZE, BINS, FORWARD, LARGE, NEXT_SIZE, NON_MAIN,
};
use crate::allocators::ptmalloc::lists::ChunkList;
use crate::anomaly::{
    AnomalyKind, BrokenWord, Edge, Expected, Field, Property, Reason, Repair, Value,
};
use ground::target::Address;

/// One way through a bin.
struct Way {
    chunks: Vec<Address>,
    /// The value that is no chunk of the bin, if the way did not lead back to the bin.
    stray: Option<Address>,
    /// The way came to a chunk that is in a list already.
    met: Option<Address>,
}

impl Inquiry<'_, '_> {
    fn link(&self, chunk: Address, offset: u64) -> Address {
        Address::new(self.word(chunk.saturating_add(offset)).unwrap_or(0))
    }

    /// Follows one of the links until it leads back to the bin or to something that is no chunk.
    fn way(&self, list: &ChunkList, offset: u64) -> Way {
        let mut way = Way {
            chunks: Vec::new(),
            stray: None,
            met: None,
        };
        let mut seen = std::collections::HashSet::new();
        let mut chunk = self.link(list.at, offset);
        while chunk != list.at {
            let good = chunk.is_aligned(ALIGNMENT)
                && self.map.chunk_at(chunk).is_some()
                && self
                    .heap
                    .arenas
                    .region_of(chunk)
                    .is_some_and(|region| region.arena == list.owner);
            if !good {
                way.stray = Some(chunk);
                break;
            }
            // A write over a header that went on over the link behind it may have left one to another chunk.
            let damaged = way.chunks.last().filter(|from| self.broken.contains(from));
            if damaged.is_some_and(|from| {
                self.link(chunk, (FORWARD + BACK).saturating_sub(offset)) != *from
            }) {
                way.stray = Some(chunk);
                break;
            }
            if !seen.insert(chunk) {
                way.met = Some(chunk);
                break;
            }
            way.chunks.push(chunk);
            chunk = self.link(chunk, offset);
        }
        way
    }

    /// Follows a bin in both directions.
    pub(super) fn follow_bin(&mut self, list: &ChunkList) {
        self.split_for_bin(list);
        let forward = self.way(list, FORWARD);
        let back = self.way(list, BACK);
        let ends = [forward.stray, back.stray];
        if ends
            .into_iter()
            .flatten()
            .any(|chunk| self.is_absent(chunk) || self.is_unreached(chunk))
        {
            return;
        }
        if let Some(rest) = self.behind_half_linked(list, &back) {
            self.follow_half_linked(list, &rest);
            return;
        }
        let mut before = list.at;
        for (position, chunk) in (0u64..).zip(&forward.chunks) {
            let from = (before != list.at).then(|| before.saturating_add(FORWARD));
            let edge = self.edge(list, position, from);
            if !self.enter(list, *chunk, edge) {
                // Another list holds it, too: the other way around leads to those behind it.
                self.enter_back(list, &back);
                return;
            }
            self.check_chunk(list, *chunk, before, edge);
            before = *chunk;
        }
        if let Some(chunk) = forward.met {
            let position = forward.chunks.len() as u64;
            self.report_link(list, chunk, before, position, &back);
            return;
        }
        match forward.stray {
            Some(found) => {
                self.report_link(list, found, before, forward.chunks.len() as u64, &back);
            }
            None => {
                let last = self.link(list.at, BACK);
                if last != before {
                    self.report_bin_back(list, last, before);
                }
                self.check_sizes(list, &forward.chunks);
            }
        }
        self.enter_back(list, &back);
    }

    /// What follows a chunk that stands in front of the unsorted bin and has no links of its own yet: malloc_consolidate and a split
    /// write those last, so that its old ones lead anywhere (to the rest of a fastbin). Whoever does that holds the arena's lock and
    /// has the chunk in hand; the other way around the bin is whole.
    fn behind_half_linked(&self, list: &ChunkList, back: &Way) -> Option<Vec<Address>> {
        const UNSORTED: u16 = 1;
        let new = self.link(list.at, FORWARD);
        let is_worked_on = list.index == UNSORTED
            && self.busy(list).is_some()
            && self.map.chunk_at(new).is_some()
            && self.heap.may_hold_chunk(new);
        if !is_worked_on {
            return None;
        }
        let chunks = back.chunks.iter().copied();
        let mut rest: Vec<Address> = chunks.take_while(|chunk| *chunk != new).collect();
        let end = self.link(rest.last().copied().unwrap_or(list.at), BACK);
        rest.reverse();
        let next = rest.first().copied().unwrap_or(list.at);
        let is_whole = end == new || end == list.at;
        (is_whole && self.link(new, FORWARD) != next).then_some(rest)
    }

    /// Follows the unsorted bin behind such a chunk.
    fn follow_half_linked(&mut self, list: &ChunkList, rest: &[Address]) {
        let new = self.link(list.at, FORWARD);
        let edge = self.edge(list, 0, None);
        self.enter(list, new, edge);
        let link = new.saturating_add(FORWARD);
        let found = self.link(new, FORWARD);
        let kind = AnomalyKind::BadEntry {
            edge: self.edge(list, 1, Some(link)),
            found,
            stray: self.stray(list, found),
            leads_on: false,
            repair: Some(Repair {
                value: rest.first().copied().unwrap_or(list.at),
                unique: true,
            }),
        };
        let transient = self.busy(list);
        self.push(kind, transient);
        let mut before = new;
        for (position, chunk) in (1u64..).zip(rest) {
            let from = Some(before.saturating_add(FORWARD));
            let edge = self.edge(list, position, from);
            if !self.enter(list, *chunk, edge) {
                return;
            }
            self.check_chunk(list, *chunk, before, edge);
            before = *chunk;
        }
    }

    /// What only the other direction reaches.
    fn enter_back(&mut self, list: &ChunkList, back: &Way) {
        for (position, chunk) in (0u64..).zip(back.chunks.iter().rev()) {
            let id = self.map.chunk_at(*chunk);
            if id.is_some_and(|id| !self.map.is_listed(id)) {
                let edge = self.edge(list, position, None);
                self.enter(list, *chunk, edge);
            }
        }
    }

    /// A chunk of a bin beside its forward link: the link back, and what its neighbour keeps of it.
    fn check_chunk(&mut self, list: &ChunkList, chunk: Address, before: Address, edge: Edge) {
        let Some(block) = self.block_of(chunk) else {
            return;
        };
        if self.broken.contains(&chunk) {
            return;
        }
        let back = self.link(chunk, BACK);
        let forward = self.link(chunk, FORWARD);
        // With the forward link gone as well it is one write, which that link says.
        let forward_is_good = forward == list.at || self.map.chunk_at(forward).is_some();
        if back != before && forward_is_good {
            // Where the one before was skipped, its forward link is the damaged one.
            let skipped = self.map.chunk_at(back).is_some() && self.link(back, FORWARD) == chunk;
            if !skipped {
                let moved = [chunk, before, back]
                    .into_iter()
                    .any(|chunk| self.heap.may_hold_chunk(chunk));
                // What is put in first is linked before it has links of its own (malloc_consolidate).
                let possible = before == list.at
                    || self.is_bin_of(list, back)
                    || self.map.chunk_at(back).is_some();
                let transient = self.busy(list).filter(|_| moved && possible);
                self.push(
                    AnomalyKind::FreeWord {
                        block,
                        at: chunk.saturating_add(BACK),
                        what: Field::Bk,
                        expected: Expected::Exactly(before.into(), Reason::EntryBefore),
                        found: back.get(),
                        edge: Some(edge),
                    },
                    transient,
                );
            }
        }
        self.check_mark(list, chunk);
        let size = block.bytes.saturating_add(8);
        let next = chunk.saturating_add(size);
        let marked = self
            .word(next.saturating_add(8))
            .is_some_and(|header| header & 1 == 0);
        let foot = self.word(next);
        if self.broken.contains(&next) {
            return;
        }
        if let Some(found) = foot.filter(|foot| *foot != size) {
            let transient = self.busy(list).filter(|_| self.is_in_hand(chunk));
            self.push(
                AnomalyKind::FreeWord {
                    block,
                    at: next,
                    what: Field::PrevSize,
                    expected: Expected::Exactly(Value::Word(size), Reason::SizeOfTheChunk),
                    found,
                    edge: Some(edge),
                },
                transient,
            );
        } else if !marked {
            let transient = self
                .busy(list)
                .filter(|_| self.is_in_hand(chunk))
                .or_else(|| self.heap.in_flight(chunk));
            self.push(
                AnomalyKind::Metadata {
                    word: BrokenWord {
                        of: block.address,
                        at: next.saturating_add(8),
                        what: Field::PrevInUseBehindBinned,
                        expected: Expected::Is(Property::Clear),
                        found: Value::Flag(true),
                    },
                    counts_only: false,
                },
                transient,
            );
        }
    }

    /// No chunk of a bin has the mark of another arena than the main one: it is set when malloc hands the chunk out.
    fn check_mark(&mut self, list: &ChunkList, chunk: Address) {
        let at = chunk.saturating_add(8);
        let found = self.word(at).unwrap_or(0);
        let (true, Some(block)) = (found & NON_MAIN != 0, self.block_of(chunk)) else {
            return;
        };
        let transient = self.busy(list).filter(|_| self.is_in_hand(chunk));
        self.broken.insert(chunk);
        self.push(
            AnomalyKind::Header {
                block,
                at,
                what: Field::Header,
                expected: Some(found & !NON_MAIN),
                found,
                before: None,
            },
            transient,
        );
    }

    /// Whether `at` is the head of any bin of the list's arena.
    fn is_bin_of(&self, list: &ChunkList, at: Address) -> bool {
        let arena = self.heap.arenas.rows.get(list.owner);
        let head = |number| {
            Some(
                arena?
                    .at
                    .saturating_add(self.heap.located.arena.bin(number)),
            )
        };
        (1..=BINS).any(|number| head(number) == Some(at))
    }

    /// A forward link that leads to no chunk of the bin.
    fn report_link(
        &mut self,
        list: &ChunkList,
        found: Address,
        from: Address,
        position: u64,
        back: &Way,
    ) {
        let is_head = from == list.at;
        if self.broken.contains(&from) {
            return;
        }
        // The other direction tells what stands behind.
        let behind = match back.chunks.iter().position(|chunk| *chunk == from) {
            Some(0) => Some(list.at),
            Some(index) => back.chunks.get(index.saturating_sub(1)).copied(),
            None if back.stray.is_none() && is_head => back.chunks.last().copied(),
            None => back
                .chunks
                .last()
                .copied()
                .filter(|last| self.link(*last, BACK) == from),
        };
        let edge = self.edge(
            list,
            position,
            (!is_head).then(|| from.saturating_add(FORWARD)),
        );
        let reciprocal = self.word(found.saturating_add(BACK)) == Some(from.get());
        let busy = self.busy(list);
        let transient = self
            .heap
            .in_flight(found)
            .or_else(|| self.heap.in_flight(from))
            .filter(|_| busy.is_some());
        let kind = if !is_head && self.is_bin_of(list, found) {
            // Nobody frees a bin's head: the chunk was linked into that bin while this one still led to it.
            AnomalyKind::Metadata {
                word: BrokenWord {
                    of: from,
                    at: edge.word(),
                    what: Field::FdInBin,
                    expected: Expected::Is(Property::ChunkOfTheBin),
                    found: Value::OtherBin(found),
                },
                counts_only: false,
            }
        } else {
            AnomalyKind::BadEntry {
                edge,
                found,
                stray: self.stray(list, found),
                leads_on: reciprocal && found.is_aligned(ALIGNMENT) && !found.is_null(),
                repair: behind.map(|value| Repair {
                    value,
                    unique: true,
                }),
            }
        };
        let anomaly = self.push(kind, transient);
        self.cut.push(Cut {
            list: *list,
            anomaly: Some(anomaly),
            missing: None,
            edge,
        });
    }

    fn report_bin_back(&mut self, list: &ChunkList, found: Address, expected: Address) {
        let at = list.at.saturating_add(BACK);
        let transient = self.busy(list);
        self.push(
            AnomalyKind::Metadata {
                word: BrokenWord {
                    of: at,
                    at,
                    what: Field::BkOfBin,
                    expected: Expected::Exactly(expected.into(), Reason::LastChunkOfTheBin),
                    found: found.into(),
                },
                counts_only: false,
            },
            transient,
        );
    }

    /// The links between the first chunks of each size of a large bin.
    fn check_sizes(&mut self, list: &ChunkList, chunks: &[Address]) {
        if list.index < 64 && list.index != 1 {
            return;
        }
        // Where a size was written over, nobody knows which chunk is the first of its size.
        if chunks.iter().any(|chunk| self.broken.contains(chunk)) {
            return;
        }
        let sizes: Vec<u64> = chunks
            .iter()
            .map(|chunk| self.size_by_map(*chunk).unwrap_or(0))
            .collect();
        let firsts: Vec<Address> = chunks
            .iter()
            .zip(&sizes)
            .enumerate()
            .filter(|(index, (_, size))| {
                index.checked_sub(1).and_then(|before| sizes.get(before)) != Some(*size)
            })
            .map(|(_, (chunk, _))| *chunk)
            .collect();
        let mut passed = 0;
        for (position, (chunk, size)) in (0u64..).zip(chunks.iter().zip(&sizes)) {
            let place = (firsts.get(passed) == Some(chunk)).then_some(passed);
            passed = passed.saturating_add(usize::from(place.is_some()));
            if *size < LARGE || self.broken.contains(chunk) {
                continue;
            }
            let (smaller, larger) = match place {
                Some(place) if list.index > 1 => {
                    let around = |step: usize| {
                        firsts
                            .get(
                                place
                                    .saturating_add(step)
                                    .checked_rem(firsts.len())
                                    .unwrap_or(0),
                            )
                            .copied()
                            .unwrap_or_default()
                    };
                    (around(1), Some(around(firsts.len().saturating_sub(1))))
                }
                Some(_) => (Address::new(0), Some(Address::new(0))),
                None if list.index == 1 => (Address::new(0), Some(Address::new(0))),
                None => (Address::new(0), None),
            };
            self.check_size_link(list, *chunk, position, NEXT_SIZE, Some(smaller));
            self.check_size_link(list, *chunk, position, BACK_SIZE, larger);
        }
    }

    fn check_size_link(
        &mut self,
        list: &ChunkList,
        chunk: Address,
        position: u64,
        offset: u64,
        expected: Option<Address>,
    ) {
        let at = chunk.saturating_add(offset);
        let (Some(expected), Some(found), Some(block)) =
            (expected, self.word(at), self.block_of(chunk))
        else {
            return;
        };
        if found == expected.get() {
            return;
        }
        // One write over several words of a block is one finding.
        let said = self.out.iter().any(|anomaly| match &anomaly.kind {
            AnomalyKind::FreeWord { block: known, .. } => *known == block,
            AnomalyKind::BadEntry { edge, .. } => edge.from == Some(chunk.saturating_add(FORWARD)),
            _ => false,
        });
        if said {
            return;
        }
        let edge = self.edge(list, position, None);
        let moved = [chunk, expected, Address::new(found)]
            .into_iter()
            .any(|chunk| self.heap.may_hold_chunk(chunk));
        let transient = self.busy(list).filter(|_| moved);
        self.push(
            AnomalyKind::FreeWord {
                block,
                at,
                what: if offset == NEXT_SIZE {
                    Field::FdNextsize
                } else {
                    Field::BkNextsize
                },
                expected: if expected.is_null() {
                    Expected::Is(Property::Null)
                } else {
                    Expected::word(expected.get())
                },
                found,
                edge: Some(edge),
            },
            transient,
        );
    }
}
