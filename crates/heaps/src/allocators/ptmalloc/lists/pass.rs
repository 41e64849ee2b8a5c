//! The quick pass: follows every list once, marks what is in it, and learns only whether all is as
//! it should be.
//!
//! A list is a chain of cache misses. Many are followed in turn by one thread, so that their misses
//! overlap; a bin is cut into [`arcs`](super::arcs) first, a long fastbin into [`cuts`](super::cuts).

use super::cuts::{self, Piece};
use super::{ChunkList, Kind, Passed, arcs};
use crate::allocators::ptmalloc::PtmallocHeap;
use crate::allocators::ptmalloc::layout::{FLAGS, HEADER, IS_MMAPPED, NON_MAIN};
use crate::map::{BlockId, HeapMap};
use ground::target::{Address, Cursor};

/// Lists, or arcs, that are followed in turn.
const LANES: usize = 32;
/// Lists of single links that one worker follows: few, since each may hold millions of chunks.
const BATCH: usize = LANES;
/// Pieces of a long list that one worker follows.
const PIECES: usize = 64;
/// Entries of one list that are followed: more than a core can hold would be a circle.
pub const MAX_ENTRIES: u64 = 1 << 32;

/// Something that is followed from chunk to chunk.
pub trait Lane<'a> {
    /// The chunk to look at next; `None` if the entry cannot be one.
    fn chunk(&self) -> Option<Address>;

    /// What its memory is read with.
    fn cursor(&mut self) -> &mut Cursor<'a>;

    /// Looks at that chunk and goes on to the next one; whether there is a next one.
    fn step(&mut self, seen: Seen, out: &mut Passed) -> bool;
}

/// What is known of a lane's chunk before it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Its size word, if that is in the core.
    pub header: Option<u64>,
    /// The first word of its block: the link to the next one.
    pub link: Option<u64>,
    /// The chunk in the map, if the walk found it.
    pub id: Option<BlockId>,
    /// A list holds it already.
    pub listed: bool,
}

/// Follows all lanes to their ends, several in turn.
pub fn in_turn<'a, L: Lane<'a>>(
    map: &HeapMap,
    mut waiting: impl Iterator<Item = L>,
    out: &mut Passed,
    mut done: impl FnMut(L),
) {
    let mut lanes: Vec<L> = waiting.by_ref().take(LANES).collect();
    let (mut headers, mut links) = ([None; LANES], [None; LANES]);
    let mut spots = [None; LANES];
    let mut seen = [Seen::default(); LANES];
    let Some(first) = lanes.first_mut() else {
        return;
    };
    // Of one memory all read words alike.
    let words = Cursor::new(first.cursor().memory());
    while !lanes.is_empty() {
        // Where everything lies first, then all loads close together: none depends on another, so that the processor
        // waits for them at once.
        for (index, lane) in lanes.iter_mut().enumerate().take(LANES) {
            let chunk = lane.chunk();
            let mut word = |offset| lane.cursor().place(chunk?.checked_add(offset)?);
            let (header, link) = (word(8), word(HEADER));
            let spot = chunk.and_then(|chunk| map.spot(chunk));
            for (to, found) in [(&mut headers, header), (&mut links, link)] {
                if let Some(to) = to.get_mut(index) {
                    *to = found;
                }
            }
            if let Some(to) = spots.get_mut(index) {
                *to = spot;
            }
        }
        let count = lanes.len();
        for (seen, header) in seen.iter_mut().zip(&headers).take(count) {
            seen.header = header.map(|word| words.load(word));
        }
        for (seen, link) in seen.iter_mut().zip(&links).take(count) {
            seen.link = link.map(|word| words.load(word));
        }
        for (seen, spot) in seen.iter_mut().zip(&spots).take(count) {
            let found = spot.as_ref().and_then(|spot| spot.load());
            seen.id = found.map(|(id, _)| id);
            seen.listed = found.is_some_and(|(_, listed)| listed);
        }
        // From the last on: an ended lane's place is taken by one that has been stepped.
        for index in (0..lanes.len()).rev() {
            let goes_on = match (lanes.get_mut(index), seen.get(index)) {
                (Some(lane), Some(seen)) => lane.step(*seen, out),
                _ => false,
            };
            if !goes_on {
                done(lanes.swap_remove(index));
                lanes.extend(waiting.next());
            }
        }
    }
}

impl Seen {
    /// The chunk's size.
    pub fn size(&self) -> Option<u64> {
        self.header.map(|header| header & !FLAGS)
    }

    /// Whether the chunk has the mark of another arena than the main one, or that of a mapping: none in a bin has.
    pub fn is_marked(&self) -> bool {
        let marks = NON_MAIN | IS_MMAPPED;
        self.header.is_some_and(|header| header & marks != 0)
    }
}

impl PtmallocHeap<'_> {
    /// Follows all lists once, and marks what is in them.
    pub fn pass(&self, lists: &[ChunkList], map: &HeapMap) -> Passed {
        let bins = arcs::Arcs::cut(self, lists, map);
        let singles = lists.iter().filter(|list| list.kind != Kind::Bin);
        let long = singles.clone().filter(|list| cuts::is_long(self, list));
        // Several long ones are followed beside each other anyway.
        let is_alone = (1..LANES / 2).contains(&long.count());
        let (mut long, mut whole) = (Vec::new(), Vec::new());
        for list in singles {
            let may = is_alone && cuts::is_long(self, list);
            match may.then(|| cuts::pieces(self, map, list)).flatten() {
                Some(pieces) => long.extend(pieces),
                None => whole.push(Piece::whole(list)),
            }
        }
        // Before all others: what meets one of their chunks then marks it, whichever piece holds that.
        let batches: Vec<_> = long.chunks(PIECES).collect();
        let cut = ground::parallel::map(&batches, |pieces| self.pass_singles(pieces, map));
        let singles = whole
            .chunk_by(|a, b| a.list.kind == b.list.kind)
            .flat_map(|pieces| pieces.chunks(BATCH));
        let work: Vec<Work<'_>> = singles
            .map(Work::Singles)
            .chain(bins.batches().map(Work::Arcs))
            .collect();
        let parts = ground::parallel::map(&work, |work| match work {
            Work::Singles(pieces) => (self.pass_singles(pieces, map), Vec::new()),
            Work::Arcs(batch) => bins.follow(batch, map),
        });
        let mut out = self.nothing_passed();
        for part in &cut {
            out.add(part);
        }
        let mut followed = Vec::with_capacity(bins.len());
        for (part, arcs) in parts {
            out.add(&part);
            followed.extend(arcs);
        }
        out.irregular |= !bins.join(&followed, lists, map);
        out
    }

    /// The counts of no list.
    pub fn nothing_passed(&self) -> Passed {
        Passed {
            binned: vec![0; self.arenas.rows.len()],
            ..Passed::default()
        }
    }

    fn pass_singles(&self, pieces: &[Piece<'_>], map: &HeapMap) -> Passed {
        let mut out = self.nothing_passed();
        let (empty, pieces): (Vec<&Piece<'_>>, Vec<_>) =
            pieces.iter().partition(|piece| piece.head.is_null());
        out.irregular = empty.iter().any(|piece| piece.list.is_miscounted(0));
        let singles = pieces.into_iter().map(|piece| Single {
            heap: self,
            map,
            piece,
            cursor: Cursor::new(self.target.memory),
            entry: piece.head,
            walked: 0,
        });
        in_turn(map, singles, &mut out, drop);
        out
    }
}

/// What one worker does.
enum Work<'a> {
    Singles(&'a [Piece<'a>]),
    Arcs(arcs::Batch),
}

/// A list of single links, or a piece of one, that is being followed.
struct Single<'a, 't> {
    heap: &'a PtmallocHeap<'t>,
    map: &'a HeapMap,
    piece: &'a Piece<'a>,
    cursor: Cursor<'a>,
    /// The entry to look at.
    entry: Address,
    walked: u64,
}

impl Single<'_, '_> {
    /// Goes on to the next entry; `None` if the one looked at is not as it should be.
    #[inline]
    fn go_on(&mut self, seen: Seen, out: &mut Passed) -> Option<Address> {
        let (list, heap) = (self.piece.list, self.heap);
        let chunk = list.chunk(self.entry)?;
        let size = seen.size().filter(|_| self.walked < MAX_ENTRIES)?;
        let id = seen.id.or_else(|| heap.mapped_at(self.map, chunk))?;
        let own = list.kind == Kind::Tcache || heap.is_in_arena(chunk, list.owner);
        if !own || !list.takes(size, heap.tcaches.layout.as_ref()) {
            return None;
        }
        if seen.listed || self.map.mark_listed(id) {
            self.map.mark_disputed(id);
            return None;
        }
        self.walked = self.walked.saturating_add(1);
        let block = chunk.saturating_add(HEADER);
        // A word across two pieces of the core has no place of its own.
        let word = seen.link.or_else(|| self.cursor.read_u64(block).ok())?;
        out.cached.add(size);
        if list.kind == Kind::Fastbin {
            out.in_fastbins = out.in_fastbins.saturating_add(1);
            out.fastbin_bytes = out.fastbin_bytes.saturating_add(size);
        } else {
            out.in_tcaches = out.in_tcaches.saturating_add(1);
            out.irregular |= heap.key_is_wrong(list, block, &mut self.cursor);
        }
        Some(heap.decode(block, word))
    }
}

impl<'a> Lane<'a> for Single<'a, '_> {
    fn chunk(&self) -> Option<Address> {
        self.piece.list.chunk(self.entry)
    }

    fn cursor(&mut self) -> &mut Cursor<'a> {
        &mut self.cursor
    }

    #[inline]
    fn step(&mut self, seen: Seen, out: &mut Passed) -> bool {
        let next = self.go_on(seen, out);
        match next {
            None => out.irregular = true,
            Some(next) if next == self.piece.until => {
                out.irregular |= self.piece.is_whole && self.piece.list.is_miscounted(self.walked);
            }
            Some(next) => {
                self.entry = next;
                return true;
            }
        }
        false
    }
}
