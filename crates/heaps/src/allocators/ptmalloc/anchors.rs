//! Places where chunks certainly begin: lists hold them, and they show it. Where headers were written over, the walk
//! over chunks must not step across one of these.

use std::ops::Range;

use super::PtmallocHeap;
use super::layout::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, MIN_CHUNK, NON_MAIN, PREV_INUSE};
use super::lists::{ChunkList, Kind};
use super::tcaches::Tcache;
use ground::target::Address;

/// A chunk that a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Anchor {
    /// Its header.
    pub chunk: Address,
    /// Its size, if its list holds chunks of one size.
    pub size: Option<u64>,
    /// Chunks lead on from it: it is no pointer into a block that was freed by mistake.
    pub leads: bool,
}

/// Entries of one list that are asked.
const MAX_ENTRIES: u64 = 1 << 20;

impl PtmallocHeap<'_> {
    /// All that lists can vouch for, by address; those of `strangers`, threads that are not in the core, included.
    pub(super) fn anchors(&self, strangers: &[Tcache]) -> Vec<Anchor> {
        let mut lists = self.chunk_lists();
        lists.extend(self.tcache_lists(strangers));
        let mut anchors: Vec<Anchor> = ground::parallel::map(&lists, |list| self.anchors_of(list))
            .into_iter()
            .flatten()
            .collect();
        anchors.sort_unstable();
        anchors.dedup_by_key(|anchor| anchor.chunk);
        anchors
    }

    fn anchors_of(&self, list: &ChunkList) -> Vec<Anchor> {
        let mut anchors = Vec::new();
        let mut entry = list.head;
        let most = list.recorded.unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES);
        // A list that is a circle comes back to an entry that was remembered on the way.
        let mut remembered = Address::default();
        for step in 0..most {
            if entry == remembered {
                break;
            }
            if step.is_power_of_two() {
                remembered = entry;
            }
            let Some(chunk) = list.chunk(entry).filter(|_| entry != list.at) else {
                break;
            };
            if !chunk.is_aligned(ALIGNMENT)
                || self.arenas.region_of(chunk).is_none()
                || !self.vouches(list, chunk)
            {
                break;
            }
            anchors.push(Anchor {
                chunk,
                size: list.size,
                leads: self.leads(list, chunk),
            });
            let block = chunk.saturating_add(HEADER);
            let Some(word) = self.word(block) else {
                break;
            };
            entry = match list.kind {
                Kind::Bin => Address::new(word),
                _ => self.decode(block, word),
            };
        }
        anchors
    }

    /// Whether some possible headers follow from a chunk, or the end of its memory.
    fn leads(&self, list: &ChunkList, chunk: Address) -> bool {
        const ENOUGH: usize = 6;
        let Some(region) = self.arenas.region_of(chunk) else {
            return false;
        };
        let arena = self.arenas.rows.get(region.arena);
        let top = arena.map(|arena| arena.top);
        let is_main = arena.is_none_or(|arena| arena.is_main);
        let at_rest = self.arena_busy(region.arena).is_none();
        if !self.has_flags(list, chunk, is_main, at_rest) {
            return false;
        }
        let mut at = chunk;
        for step in 0..ENOUGH {
            if Some(at) == top || at == region.end {
                return step > 0;
            }
            let Some(header) = self.word(at.saturating_add(8)) else {
                return false;
            };
            let size = header & !FLAGS;
            let room = region.end.get().saturating_sub(at.get());
            let post = size == HEADER && step > 0;
            if post {
                return true;
            }
            if header & (8 | IS_MMAPPED) != 0 || size < MIN_CHUNK || size > room {
                return false;
            }
            at = at.saturating_add(size);
        }
        true
    }

    /// Whether a chunk's flags are those of one that a list of single links holds: the mark of its arena, and that the
    /// chunk before it is in use or ends where it begins. Made-up sizes have none.
    fn has_flags(&self, list: &ChunkList, chunk: Address, is_main: bool, at_rest: bool) -> bool {
        let header = self.word(chunk.saturating_add(8)).unwrap_or(0);
        let marked = (header & NON_MAIN == 0) == is_main;
        let free = header & PREV_INUSE == 0;
        let follows_free = || {
            let before = self.word(chunk).unwrap_or(0);
            let start = chunk.checked_sub(before);
            let inside = start.is_some_and(|start| self.arenas.region_of(start).is_some());
            inside && before >= MIN_CHUNK && before.is_multiple_of(ALIGNMENT)
        };
        list.kind == Kind::Bin || marked && (!free || !at_rest || follows_free())
    }

    /// Whether an entry shows that its list holds it: by its key, by the link to it that is answered, or else by its size.
    fn vouches(&self, list: &ChunkList, chunk: Address) -> bool {
        let word = |offset: u64| self.word(chunk.saturating_add(offset));
        let answers = |there: u64, back: u64| {
            let other = word(there).and_then(|at| self.word(Address::new(at).checked_add(back)?));
            other == Some(chunk.get())
        };
        match list.kind {
            // The entry before it led here and is named by it. Its own link may have been written over.
            Kind::Bin => answers(24, 16),
            Kind::Tcache if self.expected_key(list).is_some() => {
                word(24) == self.expected_key(list)
            }
            _ => word(8)
                .is_some_and(|header| list.takes(header & !FLAGS, self.tcaches.layout.as_ref())),
        }
    }
}

/// The first anchor between two places from which chunks lead on.
pub fn between(anchors: &[Anchor], from: Address, to: Address) -> Option<Address> {
    let behind = anchors.partition_point(|anchor| anchor.chunk <= from);
    let mut rest = anchors.get(behind..)?.iter();
    let first = rest.find(|anchor| anchor.leads || anchor.chunk >= to)?;
    (first.chunk < to).then_some(first.chunk)
}

/// The first anchor of a range.
pub fn any(anchors: &[Anchor], range: Range<Address>) -> Option<Address> {
    let first = anchors.partition_point(|anchor| anchor.chunk < range.start);
    let found = anchors.get(first).map(|anchor| anchor.chunk);
    found.filter(|chunk| *chunk < range.end)
}

/// The anchor at a place.
pub fn at(anchors: &[Anchor], at: Address) -> Option<&Anchor> {
    let index = anchors.binary_search_by_key(&at, |anchor| anchor.chunk);
    anchors.get(index.ok()?)
}
