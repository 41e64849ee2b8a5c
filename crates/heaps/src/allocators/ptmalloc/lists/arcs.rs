//! Bins, cut into arcs that are followed side by side.
//!
//! A bin is a circle of double links, and the longest may hold most of the heap's free chunks: from
//! its head alone that is one chain of cache misses. So it is entered at many places, its head and
//! free chunks that the walk over the heap came by:
//!
//! ```text
//! bin ──> chunk ──> entrance ──> chunk ──> entrance ──> chunk ──> bin
//! |---- arc ------->|------- arc -------->|------- arc -------->|
//! ```
//!
//! An arc ends at the next entrance. That an entrance belongs to a certain bin is only known when the arcs from
//! that bin's head on are joined; an entrance to which no arc leads is a free chunk in no bin.

use std::ops::Range;

use super::pass::{Lane, Seen, in_turn};
use super::{ChunkList, Kind, Passed};
use crate::allocators::ptmalloc::PtmallocHeap;
use crate::allocators::ptmalloc::layout::{
    BACK, BACK_SIZE, BINS, FLAGS, FORWARD, LARGE, NEXT_SIZE, bin_of,
};
use crate::map::HeapMap;
use ground::target::{Address, Cursor};

/// Arcs that one worker follows.
const BATCH: usize = 64;

/// Some arcs, by their places.
pub type Batch = Range<usize>;

/// Where an arc begins.
#[derive(Clone, Copy, Debug)]
struct Entrance {
    /// Index of the arena.
    owner: usize,
    /// The first chunk.
    chunk: Address,
    /// What its link back must say.
    before: Address,
}

/// All arcs: first of each bin the one from its head, then those from chunks, by address.
pub struct Arcs<'h, 't> {
    heap: &'h PtmallocHeap<'t>,
    entrances: Vec<Entrance>,
    heads: usize,
}

/// Where an arc ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// At a bin of the arena, by its number.
    Bin(u64),
    /// At the entrance in this place.
    Entrance(usize),
    /// At something that is not as it should be.
    Broken,
}

/// An arc, followed.
#[derive(Clone, Copy, Debug)]
pub struct Followed {
    end: End,
    /// The one bin besides the unsorted one that all its chunks belong into; `None` for several.
    bin: Option<u64>,
    /// It has chunks at all.
    is_empty: bool,
    /// The links between sizes are those of a sorted bin; of the unsorted one.
    sorted: bool,
    unsorted: bool,
}

impl<'h, 't> Arcs<'h, 't> {
    /// Cuts all bins among `lists`; the chunks in which arcs begin are marked as listed.
    pub fn cut(heap: &'h PtmallocHeap<'t>, lists: &[ChunkList], map: &HeapMap) -> Self {
        let mut entrances: Vec<Entrance> = lists
            .iter()
            .filter(|list| list.kind == Kind::Bin)
            .map(|list| Entrance {
                owner: list.owner,
                chunk: list.head,
                before: list.at,
            })
            .collect();
        let heads = entrances.len();
        for (walk, region) in heap.walks().iter().zip(&heap.arenas.regions) {
            for &chunk in &walk.entrances {
                let before = heap.word(chunk.saturating_add(BACK)).map(Address::new);
                let id = map.chunk_at(chunk);
                if let (Some(before), Some(id)) = (before, id) {
                    map.mark_listed(id);
                    entrances.push(Entrance {
                        owner: region.arena,
                        chunk,
                        before,
                    });
                }
            }
        }
        // Damage may have let the walk go back; a chunk has one arc.
        let mut inner = entrances.split_off(heads);
        inner.sort_unstable_by_key(|entrance| entrance.chunk);
        inner.dedup_by_key(|entrance| entrance.chunk);
        entrances.append(&mut inner);
        Self {
            heap,
            entrances,
            heads,
        }
    }

    /// Number of arcs.
    pub fn len(&self) -> usize {
        self.entrances.len()
    }

    /// Pieces of work.
    pub fn batches(&self) -> impl Iterator<Item = Batch> {
        let len = self.len();
        (0..len)
            .step_by(BATCH)
            .map(move |first| first..first.saturating_add(BATCH).min(len))
    }

    /// The place of the arc that begins at a chunk.
    fn entrance_at(&self, chunk: Address) -> Option<usize> {
        let inner = self.entrances.get(self.heads..)?;
        let found = inner.binary_search_by_key(&chunk, |entrance| entrance.chunk);
        Some(self.heads.saturating_add(found.ok()?))
    }

    /// Follows some arcs, and marks their chunks.
    pub fn follow(&self, batch: &Batch, map: &HeapMap) -> (Passed, Vec<Followed>) {
        let mut out = self.heap.nothing_passed();
        let mut followed = vec![Followed::NOTHING; batch.len()];
        let entrances = self.entrances.get(batch.clone()).unwrap_or_default();
        let arcs = batch.clone().zip(entrances).map(|(place, entrance)| Arc {
            arcs: self,
            map,
            place,
            owner: entrance.owner,
            cursor: Cursor::new(self.heap.target.memory),
            chunk: entrance.chunk,
            before: entrance.before,
            is_first: place >= self.heads,
            so_far: Followed::NOTHING,
        });
        let mut done = |arc: Arc<'_, '_, '_>| {
            if let Some(to) = followed.get_mut(arc.place.saturating_sub(batch.start)) {
                *to = arc.so_far;
            }
        };
        let (closed, open): (Vec<_>, Vec<_>) =
            arcs.partition(|arc| arc.bin_at(arc.chunk).is_some());
        for mut arc in closed {
            arc.close(arc.chunk);
            done(arc);
        }
        in_turn(map, open.into_iter(), &mut out, done);
        (out, followed)
    }

    /// Joins the arcs from each head on; whether they make up whole bins, and nothing is left over.
    pub fn join(&self, followed: &[Followed], lists: &[ChunkList], map: &HeapMap) -> bool {
        let mut good = true;
        let mut joined = vec![false; followed.len()];
        for arc in followed {
            let End::Entrance(place) = arc.end else {
                continue;
            };
            let is_second = joined
                .get_mut(place)
                .is_none_or(|joined| std::mem::replace(joined, true));
            if is_second {
                let entrance = self.entrances.get(place);
                if let Some(id) = entrance.and_then(|entrance| map.chunk_at(entrance.chunk)) {
                    map.mark_disputed(id);
                }
                good = false;
            }
        }
        if !good {
            return false;
        }
        let bins = lists.iter().filter(|list| list.kind == Kind::Bin);
        let mut count = 0usize;
        for (head, list) in bins.enumerate() {
            let index = u64::from(list.index);
            let mut place = head;
            // No entrance has two arcs that lead to it: this ends.
            while let Some(arc) = followed.get(place) {
                count = count.saturating_add(1);
                good &= arc.is_empty
                    || if index == 1 {
                        arc.unsorted
                    } else {
                        arc.sorted && arc.bin == Some(index)
                    };
                match arc.end {
                    End::Entrance(next) => place = next,
                    end => {
                        good &= end == End::Bin(index);
                        break;
                    }
                }
            }
        }
        good && count == followed.len()
    }
}

impl Followed {
    const NOTHING: Self = Self {
        end: End::Broken,
        bin: None,
        is_empty: true,
        sorted: true,
        unsorted: true,
    };
}

/// An arc that is being followed.
struct Arc<'a, 'h, 't> {
    arcs: &'a Arcs<'h, 't>,
    map: &'a HeapMap,
    place: usize,
    owner: usize,
    cursor: Cursor<'a>,
    /// The chunk to look at, and the one before it.
    chunk: Address,
    before: Address,
    /// That chunk is the entrance, which is marked already.
    is_first: bool,
    so_far: Followed,
}

impl Arc<'_, '_, '_> {
    /// The number of a bin of the arena, by its pseudo-chunk.
    #[inline]
    fn bin_at(&self, at: Address) -> Option<u64> {
        let heap = self.arcs.heap;
        let arena = heap.arenas.rows.get(self.owner)?.at;
        let offset = at.offset_from(arena.checked_add(heap.located.arena.bin(1))?)?;
        (offset % 16 == 0 && offset / 16 < BINS).then_some((offset / 16).saturating_add(1))
    }

    /// Ends the arc at a bin, which has to know its last chunk; whether it is one.
    #[inline]
    fn close(&mut self, at: Address) -> bool {
        let Some(bin) = self.bin_at(at) else {
            return false;
        };
        let last = self.cursor.read_u64(at.saturating_add(BACK));
        if last == Ok(self.before.get()) {
            self.so_far.end = End::Bin(bin);
        }
        true
    }

    /// Looks at the chunk; the next one, if it is as it should be.
    #[inline]
    fn go_on(&mut self, seen: Seen, out: &mut Passed) -> Option<Address> {
        let (heap, chunk) = (self.arcs.heap, self.chunk);
        let (size, id) = (seen.size()?, seen.id?);
        if !heap.is_in_arena(chunk, self.owner) {
            return None;
        }
        let back = self.cursor.read_u64(chunk.saturating_add(BACK)).ok()?;
        if !std::mem::take(&mut self.is_first) && (seen.listed || self.map.mark_listed(id)) {
            match self.arcs.entrance_at(chunk) {
                Some(place) if back == self.before.get() => {
                    self.so_far.end = End::Entrance(place);
                }
                Some(_) => {}
                None => self.map.mark_disputed(id),
            }
            return None;
        }
        if let Some(count) = out.binned.get_mut(self.owner) {
            *count = count.saturating_add(1);
        }
        out.irregular |= back != self.before.get() || seen.is_marked();
        let so_far = &mut self.so_far;
        let bin = Some(bin_of(size));
        if so_far.is_empty {
            so_far.bin = bin;
        } else if so_far.bin != bin {
            so_far.bin = None;
        }
        so_far.is_empty = false;
        if size >= LARGE {
            self.check_sizes(size);
        }
        let forward = chunk.saturating_add(FORWARD);
        let next = seen.link.or_else(|| self.cursor.read_u64(forward).ok())?;
        self.before = chunk;
        Some(Address::new(next))
    }

    /// The links to the next smaller and larger size: in a large bin each is answered, and only the first chunk
    /// of several of a size has any; in the unsorted bin there are none.
    fn check_sizes(&mut self, size: u64) {
        let (chunk, before) = (self.chunk, self.before);
        let mut word = |at: Address, offset| self.cursor.read_u64(at.saturating_add(offset)).ok();
        let Some(next) = word(chunk, NEXT_SIZE).map(Address::new) else {
            return;
        };
        let back = word(chunk, BACK_SIZE).map(Address::new).unwrap_or_default();
        let is_sorted = if next.is_null() {
            word(before, 8).map(|header| header & !FLAGS) == Some(size)
        } else {
            word(next, BACK_SIZE) == Some(chunk.get()) && word(back, NEXT_SIZE) == Some(chunk.get())
        };
        self.so_far.unsorted &= next.is_null() && back.is_null();
        self.so_far.sorted &= is_sorted && !(next.is_null() && self.bin_at(before).is_some());
    }
}

impl<'a> Lane<'a> for Arc<'a, '_, '_> {
    fn chunk(&self) -> Option<Address> {
        Some(self.chunk)
    }

    fn cursor(&mut self) -> &mut Cursor<'a> {
        &mut self.cursor
    }

    #[inline]
    fn step(&mut self, seen: Seen, out: &mut Passed) -> bool {
        match self.go_on(seen, out) {
            Some(next) if !self.close(next) => {
                self.chunk = next;
                true
            }
            _ => false,
        }
    }
}
