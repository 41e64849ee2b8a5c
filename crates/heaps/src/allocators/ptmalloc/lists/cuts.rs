//! Long fastbins, cut into pieces that are followed side by side.
//!
//! A fastbin has single links, and nothing but being in it tells a chunk of one from a chunk in use. So chunks of its size are tried,
//! here and there in its arena, whose first word is a link to another one; from the head and from each of these the links alone are
//! followed to the next of them:
//!
//! ```text
//! head ──> chunk ──> place ──> chunk ──> place ──> chunk ──> 0         the pieces, joined from the head on
//!                                          ^
//!                    place ──> chunk ──────┘                           a chunk in use with an old link: not joined
//! ```
//!
//! Nothing is marked meanwhile. Only if the pieces from the head on lead to the end of the list is it cut there.

use super::{ChunkList, Kind};
use crate::allocators::ptmalloc::PtmallocHeap;
use crate::allocators::ptmalloc::arenas::Region;
use crate::allocators::ptmalloc::layout::{ALIGNMENT, FLAGS, HEADER};
use crate::map::HeapMap;
use ground::target::{Address, Cursor};

/// Chunks of its size that an arena must have in use or cached for a list to be worth cutting.
const LONG: u64 = 1 << 16;
/// Entries that are followed to learn whether the list is long.
const SHORT: u64 = 4096;
/// Places in the arena at which chunks are tried.
const PLACES: u64 = 2048;
/// Chunks that are tried at each.
const TRIED: u32 = 4;
/// Pieces that one thread follows in turn.
const LANES: usize = 64;
/// Links followed in all, for each chunk of the size.
const LINKS_PER_CHUNK: u64 = 8;

/// A piece of a list of single links.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The list.
    pub list: &'a ChunkList,
    /// Its first entry.
    pub head: Address,
    /// The first entry behind it; null at the end of the list.
    pub until: Address,
    /// It is the whole list.
    pub is_whole: bool,
}

impl<'a> Piece<'a> {
    /// A list in one piece.
    pub fn whole(list: &'a ChunkList) -> Self {
        Self {
            list,
            head: list.head,
            until: Address::new(0),
            is_whole: true,
        }
    }
}

/// Where following links from a place has come to.
#[derive(Clone, Copy, Debug)]
enum State {
    /// The entry to look at.
    At(Address),
    /// Another place, or null.
    Ended(Address),
    /// No link.
    Lost,
}

/// Something that is followed.
#[derive(Clone, Copy, Debug)]
struct Strand {
    from: Address,
    state: State,
}

/// Whether a list is a fastbin that may be worth cutting.
pub fn is_long(heap: &PtmallocHeap<'_>, list: &ChunkList) -> bool {
    let size = list.size.filter(|_| list.kind == Kind::Fastbin);
    size.is_some_and(|size| chunks_of(heap, list.owner, size) >= LONG) && !is_short(heap, list)
}

/// The pieces of a long fastbin, in order; `None` if its links do not lead to its end.
pub fn pieces<'a>(
    heap: &PtmallocHeap<'_>,
    map: &HeapMap,
    list: &'a ChunkList,
) -> Option<Vec<Piece<'a>>> {
    let size = list.size?;
    let chunks = chunks_of(heap, list.owner, size);
    let places = places(heap, map, list, size);
    let mut strands: Vec<Strand> = [list.head]
        .into_iter()
        .chain(places.sorted.iter().copied())
        .map(|from| Strand {
            from,
            state: State::At(from),
        })
        .collect();
    strands.dedup_by_key(|strand| strand.from);
    // Places that the list does not hold may lead through all of it: rounds, each longer than the one before.
    let mut budget = chunks.saturating_mul(LINKS_PER_CHUNK);
    let mut steps = chunks
        .saturating_mul(2)
        .checked_div(strands.len().max(1) as u64)
        .unwrap_or(0)
        .max(SHORT);
    while budget > 0 {
        budget = budget.saturating_sub(steps.saturating_mul(strands.len() as u64));
        follow(heap, &mut strands, &places, steps);
        match join(list, &strands) {
            Joined::Whole(pieces) => return Some(pieces),
            Joined::Lost => return None,
            Joined::Open => steps = steps.saturating_mul(2),
        }
    }
    None
}

/// Chunks of that size that the headers of an arena's runs call in use.
fn chunks_of(heap: &PtmallocHeap<'_>, arena: usize, size: u64) -> u64 {
    let walks = heap.walks().iter().zip(&heap.arenas.regions);
    let own = walks.filter(|(_, region)| region.arena == arena);
    let index = usize::try_from(size / ALIGNMENT).unwrap_or(usize::MAX);
    own.filter_map(|(walk, _)| walk.used.small.get(index)).sum()
}

fn link(heap: &PtmallocHeap<'_>, cursor: &mut Cursor<'_>, chunk: Address) -> Option<Address> {
    let block = chunk.checked_add(HEADER)?;
    decoded(heap, block, cursor.read_u64(block).ok()?)
}

#[inline]
fn decoded(heap: &PtmallocHeap<'_>, block: Address, word: u64) -> Option<Address> {
    let next = heap.decode(block, word);
    next.is_aligned(ALIGNMENT).then_some(next)
}

fn is_short(heap: &PtmallocHeap<'_>, list: &ChunkList) -> bool {
    let mut cursor = Cursor::new(heap.target.memory);
    let mut chunk = list.head;
    for _ in 0..SHORT {
        match link(heap, &mut cursor, chunk) {
            Some(next) if !next.is_null() => chunk = next,
            _ => return true,
        }
    }
    false
}

/// Chunks that may be in the list, by address.
fn places(heap: &PtmallocHeap<'_>, map: &HeapMap, list: &ChunkList, size: u64) -> Places {
    let own = |region: &&Region| region.arena == list.owner;
    let regions: Vec<&Region> = heap.arenas.regions.iter().filter(own).collect();
    let bytes = |region: &Region| region.end.offset_from(region.start).unwrap_or(0);
    let all: u64 = regions.iter().map(|region| bytes(region)).sum();
    let step = (all / PLACES).max(size.saturating_mul(u64::from(TRIED)));
    let mut found: Vec<Address> = regions
        .iter()
        .flat_map(|region| {
            let steps = bytes(region).checked_div(step).unwrap_or(0);
            (0..=steps).map(|count| region.start.saturating_add(count.saturating_mul(step)))
        })
        .filter_map(|at| place(heap, map, list, (at, size)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found.retain(|place| *place != list.head);
    Places::new(found)
}

/// Chunks at which following ends, by address; and a bit for each, by the low part of its address, so that
/// most others are told by that.
struct Places {
    sorted: Vec<Address>,
    marks: Vec<u64>,
}

impl Places {
    /// Bits that tell most chunks from places.
    const MARKS: u64 = 1 << 16;

    fn new(sorted: Vec<Address>) -> Self {
        let mut marks = vec![0u64; usize::try_from(Self::MARKS / 64).unwrap_or(0)];
        for place in &sorted {
            let (index, bit) = Self::mark(*place);
            if let Some(word) = marks.get_mut(index) {
                *word |= bit;
            }
        }
        Self { sorted, marks }
    }

    #[inline]
    fn mark(place: Address) -> (usize, u64) {
        let mark = place.get() / ALIGNMENT % Self::MARKS;
        let index = usize::try_from(mark / 64).unwrap_or(usize::MAX);
        (index, 1 << (mark % 64))
    }

    #[inline]
    fn has(&self, chunk: Address) -> bool {
        let (index, bit) = Self::mark(chunk);
        let may = self.marks.get(index).is_some_and(|word| word & bit != 0);
        may && self.sorted.binary_search(&chunk).is_ok()
    }
}

fn place(
    heap: &PtmallocHeap<'_>,
    map: &HeapMap,
    list: &ChunkList,
    (from, size): (Address, u64),
) -> Option<Address> {
    let mut cursor = Cursor::new(heap.target.memory);
    let mut is_one = |chunk: Address| {
        let header = chunk.checked_add(8).and_then(|at| cursor.read_u64(at).ok());
        header.is_some_and(|header| header & !FLAGS == size)
            && heap.is_in_arena(chunk, list.owner)
            && map.chunk_at(chunk).is_some()
    };
    let mut links = Cursor::new(heap.target.memory);
    let mut at = from;
    for _ in 0..TRIED {
        let (block, _) = map.block_at(at.checked_add(HEADER)?)?;
        let chunk = block.address.checked_sub(HEADER)?;
        let next = link(heap, &mut links, chunk).filter(|next| !next.is_null());
        if is_one(chunk) && next.is_some_and(&mut is_one) {
            return Some(chunk);
        }
        at = chunk.checked_add(block.bytes.saturating_add(8))?;
    }
    None
}

/// Follows all that have not ended by that many links, side by side.
fn follow(heap: &PtmallocHeap<'_>, strands: &mut [Strand], ends: &Places, steps: u64) {
    let groups: Vec<&[Strand]> = strands.chunks(LANES).collect();
    let followed = ground::parallel::map(&groups, |group| {
        let mut cursor = Cursor::new(heap.target.memory);
        let mut group = group.to_vec();
        for _ in 0..steps {
            // Where all lie first, then all loads: none depends on another, so that the processor waits for
            // them at once.
            let mut places = [None; LANES];
            for (strand, place) in group.iter().zip(&mut places) {
                if let State::At(at) = strand.state {
                    *place = at.checked_add(HEADER).and_then(|at| cursor.place(at));
                }
            }
            let words = places.map(|place| place.map(|place| cursor.load(place)));
            let mut going = false;
            for (strand, word) in group.iter_mut().zip(words) {
                if let State::At(at) = strand.state {
                    let next = match word {
                        Some(word) => decoded(heap, at.saturating_add(HEADER), word),
                        None => link(heap, &mut cursor, at),
                    };
                    strand.state = match next {
                        None => State::Lost,
                        Some(next) if next.is_null() => State::Ended(next),
                        Some(next) if ends.has(next) => State::Ended(next),
                        Some(next) => State::At(next),
                    };
                    going |= matches!(strand.state, State::At(_));
                }
            }
            if !going {
                break;
            }
        }
        group
    });
    for (to, from) in strands.iter_mut().zip(followed.into_iter().flatten()) {
        *to = from;
    }
}

enum Joined<'a> {
    Whole(Vec<Piece<'a>>),
    /// A piece has not been followed to its end.
    Open,
    /// The list goes in a circle, or into what is no link.
    Lost,
}

/// Joins what was followed, from the head on.
fn join<'a>(list: &'a ChunkList, strands: &[Strand]) -> Joined<'a> {
    let Some((first, others)) = strands.split_first() else {
        return Joined::Lost;
    };
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut strand = first;
    // As many pieces as there are strands, or it goes in a circle.
    for _ in 0..strands.len() {
        let until = match strand.state {
            State::Ended(until) => until,
            State::At(_) => return Joined::Open,
            State::Lost => return Joined::Lost,
        };
        pieces.push(Piece {
            list,
            head: strand.from,
            until,
            is_whole: false,
        });
        if until.is_null() {
            return Joined::Whole(pieces);
        }
        match others.binary_search_by_key(&until, |other| other.from) {
            Ok(index) => match others.get(index) {
                Some(next) => strand = next,
                None => return Joined::Lost,
            },
            Err(_) => return Joined::Lost,
        }
    }
    Joined::Lost
}
