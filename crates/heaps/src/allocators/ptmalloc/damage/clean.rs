//! Lists in which nothing is out of order, told side by side before the rest are looked at one by one.
//!
//! Looking closely is slow: in order, since what two lists share belongs to the first. A list of which no
//! chunk is disputed, broken, or contradicted by its neighbour shares nothing and says nothing; even in a
//! damaged heap nearly all are like that.

use std::collections::HashSet;

use crate::allocators::ptmalloc::PtmallocHeap;
use crate::allocators::ptmalloc::layout::{
    BACK, BACK_SIZE, FORWARD, HEADER, LARGE, NEXT_SIZE, PREV_INUSE,
};
use crate::allocators::ptmalloc::lists::{ChunkList, Kind, Lane, Passed, Seen, in_turn};
use crate::map::{BlockId, HeapMap};
use ground::target::{Address, Cursor};

/// Lists that one worker follows.
const BATCH: usize = 16;

/// Marks the chunks of all lists in which nothing is out of order, and counts them; says of each list whether it
/// was one. No list's chunks are marked before.
pub fn mark_clean(
    heap: &PtmallocHeap<'_>,
    map: &HeapMap,
    lists: &[ChunkList],
    broken: &HashSet<Address>,
) -> (Vec<bool>, Passed) {
    let batches: Vec<&[ChunkList]> = lists.chunks(BATCH).collect();
    let parts = ground::parallel::map(&batches, |batch| {
        let mut total = heap.nothing_passed();
        let mut clean = vec![false; batch.len()];
        let walks = batch.iter().enumerate().map(|(place, list)| Walk {
            heap,
            map,
            broken,
            list,
            place,
            cursor: Cursor::new(heap.target.memory),
            entry: list.head,
            before: list.at,
            walked: 0,
            is_whole: false,
        });
        let walks = walks.filter(|walk| walk.list.is_simple());
        in_turn(map, walks, &mut Passed::default(), |mut walk| {
            if walk.is_whole {
                total.add_list(walk.list, walk.walked);
            } else {
                walk.unmark();
            }
            if let Some(clean) = clean.get_mut(walk.place) {
                *clean = walk.is_whole;
            }
        });
        (clean, total)
    });
    let mut total = heap.nothing_passed();
    let mut clean = Vec::with_capacity(lists.len());
    for (part, counts) in parts {
        clean.extend(part);
        total.add(&counts);
    }
    (clean, total)
}

/// A list that has been clean so far.
struct Walk<'a, 't> {
    heap: &'a PtmallocHeap<'t>,
    map: &'a HeapMap,
    broken: &'a HashSet<Address>,
    list: &'a ChunkList,
    /// Its place in the batch.
    place: usize,
    cursor: Cursor<'a>,
    /// The entry to look at, and in a bin the one before it.
    entry: Address,
    before: Address,
    /// Chunks that were marked.
    walked: u64,
    is_whole: bool,
}

impl Walk<'_, '_> {
    fn word(&mut self, at: Address, offset: u64) -> Option<u64> {
        self.cursor.read_u64(at.saturating_add(offset)).ok()
    }

    /// Whether nothing that a close look sees of the chunk is out of order.
    fn is_clean(&mut self, chunk: Address, size: u64, id: BlockId) -> bool {
        let (heap, list) = (self.heap, self.list);
        let next = chunk.saturating_add(size);
        let is_bin = list.kind == Kind::Bin;
        let belongs = (list.kind == Kind::Tcache || heap.is_in_arena(chunk, list.owner))
            && list.takes(size, heap.tcaches.layout.as_ref())
            && self
                .map
                .block(id)
                .is_some_and(|block| block.bytes.saturating_add(8) == size)
            && !self.map.is_disputed(id)
            && !self.broken.contains(&chunk)
            && !self.broken.contains(&next);
        let is_free = self
            .word(next, 8)
            .is_some_and(|header| header & PREV_INUSE == 0);
        if !belongs || is_free != is_bin {
            return false;
        }
        if !is_bin {
            let block = chunk.saturating_add(HEADER);
            return !heap.key_is_wrong(list, block, &mut self.cursor);
        }
        self.word(next, 0) == Some(size)
            && self.word(chunk, BACK) == Some(self.before.get())
            && (size < LARGE
                || self.word(chunk, NEXT_SIZE) == Some(0) && self.word(chunk, BACK_SIZE) == Some(0))
    }

    /// The entry behind the one of this chunk.
    fn next(&mut self, chunk: Address) -> Option<Address> {
        let word = self.word(chunk, FORWARD)?;
        Some(match self.list.kind {
            Kind::Bin => Address::new(word),
            _ => self.heap.decode(chunk.saturating_add(HEADER), word),
        })
    }

    /// Whether the list ends at `entry`, and as it should.
    fn ends_at(&mut self, entry: Address) -> Option<bool> {
        match self.list.kind {
            Kind::Bin if entry == self.list.at => {
                Some(self.word(entry, BACK) == Some(self.before.get()))
            }
            Kind::Bin => None,
            _ => entry
                .is_null()
                .then(|| !self.list.is_miscounted(self.walked)),
        }
    }

    /// Takes all marks back.
    fn unmark(&mut self) {
        self.entry = self.list.head;
        for _ in 0..self.walked {
            let Some(chunk) = self.chunk() else {
                return;
            };
            if let Some(id) = self.map.chunk_at(chunk) {
                self.map.unlist_block(id);
            }
            let Some(next) = self.next(chunk) else {
                return;
            };
            self.entry = next;
        }
    }
}

impl<'a> Lane<'a> for Walk<'a, '_> {
    fn chunk(&self) -> Option<Address> {
        self.list.chunk(self.entry)
    }

    fn cursor(&mut self) -> &mut Cursor<'a> {
        &mut self.cursor
    }

    fn step(&mut self, seen: Seen, _: &mut Passed) -> bool {
        let (Some(chunk), Some(size), Some(id)) = (self.chunk(), seen.size(), seen.id) else {
            return false;
        };
        let is_foreign = self.list.kind == Kind::Bin && seen.is_marked();
        if is_foreign || !self.is_clean(chunk, size, id) || self.map.mark_listed(id) {
            return false;
        }
        self.walked = self.walked.saturating_add(1);
        self.before = chunk;
        let Some(next) = self.next(chunk) else {
            return false;
        };
        self.entry = next;
        match self.ends_at(next) {
            Some(is_whole) => {
                self.is_whole = is_whole;
                false
            }
            None => true,
        }
    }
}
