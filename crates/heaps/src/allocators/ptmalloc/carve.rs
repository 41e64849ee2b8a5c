//! The linear walk over a run of chunks: where each begins, and what its neighbour says of it.
//!
//! ```text
//! p   +0 prev_size   size of the chunk before, if that is free; else its last 8 bytes of data
//!     +8 size | N M P    P: the chunk before is in use (or cached, which the header cannot tell)
//!     +16 data
//! p + size = the next chunk
//! ```
//!
//! A header that cannot be one is damage: the walk goes on where chunks lead on again.

mod doubt;

use std::ops::Range;

use super::anchors::Anchor;
use super::by_size::BySize;
use super::layout::{ALIGNMENT, CHUNKS, FLAGS, IS_MMAPPED, MIN_CHUNK, NON_MAIN, PREV_INUSE};
use crate::map::Chunks;
use ground::target::{Abi, Address, Cursor, TargetMemory};

/// What one piece of a run is.
#[derive(Debug)]
pub enum Piece {
    /// Chunks side by side.
    Chunks(Address, u64, Chunks),
    /// The allocator's own: a cache's structure, fenceposts.
    Own(Address, u64),
}

/// Something that a run at rest does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Odd {
    /// `next` says that `chunk` is free, and its `prev_size` is not the chunk's size.
    Foot {
        /// The chunk.
        chunk: Address,
        /// The chunk behind it.
        next: Address,
    },
    /// Two free chunks side by side.
    Adjacent {
        /// The first.
        chunk: Address,
        /// The second.
        next: Address,
    },
    /// The chunk before the first one of a run counts as free.
    First {
        /// The first chunk.
        chunk: Address,
    },
    /// A header that cannot be one.
    Broken {
        /// The last chunk before it.
        before: Option<Address>,
        /// Where the header should be.
        at: Address,
        /// Where chunks lead on; the end of the run if nowhere.
        resync: Address,
        /// The header is a possible one, but nothing agrees with it.
        possible: bool,
    },
    /// A chunk's size leads into the middle of another one.
    Resized {
        /// The chunk.
        chunk: Address,
        /// The chunk before it.
        before: Option<Address>,
        /// What its size must have been.
        size: u64,
        /// The impossible header to which the size led.
        led_to: Address,
    },
}

/// A run, walked.
#[derive(Debug, Default)]
pub struct Walk {
    /// What it is made of, by address.
    pub pieces: Vec<Piece>,
    /// Chunks that the header behind them calls in use.
    pub used: BySize,
    /// Chunks that it calls free.
    pub free: BySize,
    /// What is out of order, the first few.
    pub odd: Vec<Odd>,
    /// How many there are.
    pub odd_count: u64,
    /// Blocks in use that may hold a thread's cache.
    pub caches: Vec<Address>,
    /// Bytes that are not in the core.
    pub missing: u64,
    /// Those, each with what follows until it is certain where chunks begin: what was data may look like chunks. The first few.
    pub doubtful: Vec<Range<Address>>,
    /// Bytes of fenceposts and caches.
    pub own_bytes: u64,
    /// Bytes of damaged ranges, and how many ranges.
    pub damaged: (u64, u64),
    /// Memory that others took from the system between chunks of the run, the first few.
    pub gaps: Vec<Range<Address>>,
    /// Some of the free chunks, at distances of a mebibyte or more, by address: places to enter bins at.
    pub entrances: Vec<Address>,
}

impl Walk {
    /// Adds what the next part of the run showed.
    fn merge(&mut self, part: Self) {
        self.pieces.extend(part.pieces);
        self.used.merge(&part.used);
        self.free.merge(&part.free);
        self.odd.extend(part.odd);
        self.odd.truncate(MAX_ODD);
        self.odd_count = self.odd_count.saturating_add(part.odd_count);
        self.caches.extend(part.caches);
        self.missing = self.missing.saturating_add(part.missing);
        self.doubtful.extend(part.doubtful);
        self.doubtful.truncate(MAX_GAPS);
        self.own_bytes = self.own_bytes.saturating_add(part.own_bytes);
        self.damaged.0 = self.damaged.0.saturating_add(part.damaged.0);
        self.damaged.1 = self.damaged.1.saturating_add(part.damaged.1);
        self.gaps.extend(part.gaps);
        self.gaps.truncate(MAX_GAPS);
        self.entrances.extend(part.entrances);
    }
}

/// What the walk must know of a run.
pub struct Run<'a> {
    /// First chunk.
    pub start: Address,
    /// Where the last chunk ends: top, or the end of the run.
    pub limit: Address,
    /// Whether `limit` is the top chunk.
    pub has_top: bool,
    /// In `main_arena`.
    pub is_main: bool,
    /// Whether a block of this size is a cache's structure.
    pub is_cache: &'a (dyn Fn(Address, u64) -> bool + Sync),
    /// Whether the program points at a block.
    pub is_pointed_at: &'a (dyn Fn(Address) -> bool + Sync),
    /// Chunks that lists vouch for, by address; none at the first look.
    pub anchors: &'a [Anchor],
}

/// Oddities of one run that are kept.
const MAX_ODD: usize = 512;
/// Bytes of the longest block that usually lies in a run: longer ones have mappings of their own.
const LONGEST_BLOCK: u64 = 128 << 10;
/// Gaps of one run that are kept.
const MAX_GAPS: usize = 256;
/// Bytes between the free chunks that are kept as entrances.
const BETWEEN_ENTRANCES: u64 = 1 << 20;
/// Damaged places of one run after which it is given up.
const MAX_BROKEN: u64 = 20_000;
/// Chunks that must lead on from a place for it to be taken for a chunk.
const ENOUGH: u32 = 6;

struct Walker<'a, 'm> {
    run: &'a Run<'a>,
    /// Where it is.
    at: Address,
    /// Where this part of the run ends; a chunk may reach beyond.
    until: Address,
    last: Option<Passed>,
    cursor: Cursor<'m>,
    abi: Abi,
    bad: u64,
    /// Probes that looking for a footing may still cost.
    budget: u64,
    piece: Option<(Address, Chunks)>,
    /// Where the next free chunk is kept.
    next_entrance: Address,
    out: Walk,
}

/// Bytes of a run that are walked as one part.
const PART: u64 = 8 << 20;
/// Parts that one thread walks in turn.
const LANES: usize = 8;
/// Chunks that must lead on from a place for a part to begin there.
const CERTAIN: u32 = 64;

/// Walks a run: in parts, side by side. Where a part begins is a guess that the walk over the one
/// before must confirm; a part whose guess was wrong is walked again.
pub fn walk(memory: &dyn TargetMemory, run: &Run<'_>) -> Walk {
    let bytes = run.limit.offset_from(run.start).unwrap_or(0);
    let places: Vec<Address> = (1..bytes / PART)
        .map(|part| run.start.saturating_add(part.saturating_mul(PART)))
        .collect();
    let guesses = ground::parallel::map(&places, |place| {
        Walker::new(memory, run, *place, run.limit).certain_footing()
    });
    let mut starts = vec![run.start];
    starts.extend(guesses.into_iter().flatten());
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([run.limit]);
    let parts: Vec<(Address, Address)> = starts.iter().copied().zip(ends).collect();
    let groups: Vec<_> = parts.chunks(LANES).collect();
    let walked = ground::parallel::map(&groups, |group| {
        let walkers = group
            .iter()
            .map(|(from, until)| Walker::new(memory, run, *from, *until));
        go_side_by_side(walkers.collect())
    });
    let mut out = Walk::default();
    let mut at = run.start;
    for ((from, until), (walk, end)) in parts.into_iter().zip(walked.into_iter().flatten()) {
        if at == from {
            out.merge(walk);
            at = end;
        } else if at < until {
            let walker = Walker::new(memory, run, at, until);
            for (walk, end) in go_side_by_side(vec![walker]) {
                out.merge(walk);
                at = end;
            }
        }
    }
    out
}

/// Lets walkers go in turn, each to its end: a header is a cache miss, and those of several overlap.
fn go_side_by_side(mut walkers: Vec<Walker<'_, '_>>) -> Vec<(Walk, Address)> {
    let mut headers = [None; LANES];
    let mut going = true;
    while going {
        going = false;
        // All loads first: they do not depend on each other.
        for (walker, header) in walkers.iter_mut().zip(&mut headers) {
            if walker.at < walker.until {
                *header = walker.word(walker.at.saturating_add(8));
            }
        }
        for (walker, header) in walkers.iter_mut().zip(headers) {
            if walker.at < walker.until {
                walker.step(header);
                going = true;
            }
        }
    }
    walkers.into_iter().map(Walker::finish).collect()
}

/// The chunk last passed.
#[derive(Clone, Copy)]
struct Passed {
    at: Address,
    size: u64,
    /// The chunk before it is free.
    after_free: bool,
    /// The chunk before it.
    before: Option<Address>,
}

impl<'a, 'm> Walker<'a, 'm> {
    fn new(memory: &'m dyn TargetMemory, run: &'a Run<'a>, from: Address, until: Address) -> Self {
        let foreign = if run.is_main { NON_MAIN } else { 0 };
        Self {
            run,
            at: from,
            until,
            last: None,
            cursor: Cursor::new(memory),
            abi: memory.abi(),
            bad: 8 | IS_MMAPPED | foreign,
            budget: (run.limit.offset_from(run.start).unwrap_or(0) / 4).saturating_add(1 << 20),
            piece: None,
            next_entrance: from,
            out: Walk::default(),
        }
    }

    /// A place from which so many chunks lead on that it must be one.
    fn certain_footing(&mut self) -> Option<Address> {
        const MAX_SEARCH: u64 = 4 << 20;
        // A long run of zeros is within a large block, which who comes from the front passes in one step.
        const MAX_ZEROS: u64 = (256 << 10) / ALIGNMENT;
        let from = self.at;
        let end = from.saturating_add(MAX_SEARCH).min(self.run.limit);
        let mut at = Address::new(from.get() & !(ALIGNMENT - 1));
        while at < end {
            if self.follow(at, None, CERTAIN) {
                return Some(at);
            }
            let passed =
                self.places_passed(at, end.min(at.saturating_add(2 * MAX_ZEROS * ALIGNMENT)));
            if passed > MAX_ZEROS {
                return None;
            }
            at = at.saturating_add(passed.saturating_mul(ALIGNMENT));
        }
        None
    }

    /// How many places may be passed from one that is no chunk on, none of them behind `end`: where a header would be zero is no
    /// chunk either.
    #[inline]
    fn places_passed(&mut self, at: Address, end: Address) -> u64 {
        let header = at.saturating_add(8);
        if self.word(header) != Some(0) {
            return 1;
        }
        let room = end.offset_from(header).unwrap_or(0);
        (self.cursor.zeros(header, room) / ALIGNMENT).max(1)
    }

    #[inline]
    fn word(&mut self, at: Address) -> Option<u64> {
        self.cursor.read_u64(at).ok()
    }

    fn odd(&mut self, odd: Odd) {
        self.out.odd_count = self.out.odd_count.saturating_add(1);
        if self.out.odd.len() < MAX_ODD {
            self.out.odd.push(odd);
        }
    }

    /// Goes on by one chunk, whose size word is `header` (`None`: not in the core).
    #[inline]
    fn step(&mut self, header: Option<u64>) {
        let (at, last) = (self.at, self.last);
        let Some(header) = header else {
            self.settle(last, None, at);
            self.last = None;
            self.at = self.skip_missing(at);
            return;
        };
        let size = header & !FLAGS;
        let room = self.run.limit.get().saturating_sub(at.get());
        let impossible = header & self.bad != 0 || size < MIN_CHUNK || size > room;
        if impossible || self.is_contradicted(at, header, last) {
            (self.at, self.last) = self.trouble(at, header, last, !impossible);
            return;
        }
        let free_before = self.settle(last, Some(header), at);
        self.start_chunk(at, size);
        self.last = Some(Passed {
            at,
            size,
            after_free: free_before,
            before: last.map(|last| last.at),
        });
        self.at = at.saturating_add(size);
    }

    /// The end of the run: at top, or where an older heap's memory ends; or of a part of it. What was walked, and where that
    /// ended.
    fn finish(mut self) -> (Walk, Address) {
        let (at, last) = (self.at, self.last);
        if at < self.run.limit || self.run.has_top && at == self.run.limit {
            let header = self.word(at.saturating_add(8));
            self.settle(last, header, at);
        } else {
            self.settle(last, None, at);
        }
        self.end_piece(at);
        (self.out, at)
    }

    /// Says what the header at `at` makes of the chunk before it; whether that is free.
    #[inline]
    fn settle(&mut self, last: Option<Passed>, header: Option<u64>, at: Address) -> bool {
        let Some(last) = last else {
            if header.is_some_and(|header| header & PREV_INUSE == 0) && at == self.run.start {
                self.odd(Odd::First { chunk: at });
            }
            return false;
        };
        if header.is_none_or(|header| header & PREV_INUSE != 0) {
            self.out.used.add(last.size);
            return false;
        }
        self.settle_free(last, at)
    }

    fn settle_free(&mut self, last: Passed, at: Address) -> bool {
        if self.word(at) != Some(last.size) {
            self.odd(Odd::Foot {
                chunk: last.at,
                next: at,
            });
            self.out.used.add(last.size);
            return false;
        }
        if last.after_free {
            self.odd(Odd::Adjacent {
                chunk: last.before.unwrap_or(last.at),
                next: last.at,
            });
        }
        self.out.free.add(last.size);
        if last.at >= self.next_entrance {
            self.out.entrances.push(last.at);
            self.next_entrance = last.at.saturating_add(BETWEEN_ENTRANCES);
        }
        true
    }

    #[inline]
    fn start_chunk(&mut self, at: Address, size: u64) {
        if let Some((start, chunks)) = &mut self.piece
            && let Some(offset) = at.offset_from(*start)
            && offset < Self::MAX_PIECE
        {
            chunks.set(offset);
        } else {
            self.end_piece(at);
            // The last chunk of a part reaches beyond it.
            let bytes = self.until.offset_from(at).unwrap_or(0);
            let bytes = bytes.min(Self::MAX_PIECE).saturating_add(Self::MAX_TAIL);
            let mut chunks = Chunks::new(CHUNKS, bytes);
            chunks.set(0);
            self.piece = Some((at, chunks));
        }
        if (0x250..=0x320).contains(&size) && (self.run.is_cache)(at.saturating_add(16), size) {
            self.out.caches.push(at.saturating_add(16));
        }
    }

    /// Bytes of a piece after which another is begun.
    const MAX_PIECE: u64 = 16 << 30;
    /// Bytes behind a piece's last start in which chunks can still be noted.
    const MAX_TAIL: u64 = 64 << 20;

    /// Ends the open piece at `end`.
    fn end_piece(&mut self, end: Address) {
        if let Some((start, mut chunks)) = self.piece.take() {
            let bytes = end.offset_from(start).unwrap_or(0);
            chunks.truncate(bytes);
            if bytes > 0 {
                self.out.pieces.push(Piece::Chunks(start, bytes, chunks));
            }
        }
    }

    /// Steps over memory that is not in the core.
    fn skip_missing(&mut self, at: Address) -> Address {
        self.end_piece(at);
        let mut next = self.abi.page_from(at.saturating_add(1));
        while next < self.run.limit && self.word(next).is_none() {
            next = next.saturating_add(self.abi.page_bytes);
        }
        let next = self.footing(next).unwrap_or(self.run.limit);
        self.out.missing = self
            .out
            .missing
            .saturating_add(next.offset_from(at).unwrap_or(0));
        if self.out.doubtful.len() < MAX_GAPS {
            let certain = next.saturating_add(LONGEST_BLOCK);
            self.out.doubtful.push(at..certain);
        }
        next
    }

    /// The two headers that close a region of memory; where chunks go on behind them.
    fn fencepost(&mut self, at: Address, header: u64, last: Option<Passed>) -> Option<Address> {
        const POST: u64 = 16;
        let limit = self.run.limit;
        let behind = at.checked_add(POST)?;
        // What was left over was too small for a chunk: it was merged with the first post.
        if header == PREV_INUSE && behind >= limit && !self.run.has_top {
            let first = last.map_or(at, |last| last.at);
            if let (Some((start, chunks)), Some(last)) = (&mut self.piece, last)
                && let Some(offset) = last.at.offset_from(*start)
            {
                chunks.clear(offset);
            }
            self.end_piece(first);
            self.own(first, limit);
            return Some(limit);
        }
        if header & !FLAGS != POST || header & self.bad & !NON_MAIN != 0 {
            return None;
        }
        let second = self.word(at.checked_add(POST + 8)?)?;
        if second & !FLAGS != POST && second & !FLAGS != 0 {
            return None;
        }
        self.settle(last, Some(header), at);
        self.end_piece(at);
        let end = at.saturating_add(2 * POST).min(limit);
        self.own(at, end);
        if end >= limit {
            return Some(limit);
        }
        if self.leads_on(end) {
            return Some(end);
        }
        // Memory that somebody else took from the system, then ours again.
        let found = self.footing(end).unwrap_or(limit);
        let found = self.first_before(end, found).unwrap_or(found);
        if self.out.gaps.len() < MAX_GAPS {
            self.out.gaps.push(end..found);
        }
        Some(found)
    }

    fn own(&mut self, at: Address, end: Address) {
        let bytes = end.offset_from(at).unwrap_or(0);
        self.out.own_bytes = self.out.own_bytes.saturating_add(bytes);
        self.out.pieces.push(Piece::Own(at, bytes));
    }
}
