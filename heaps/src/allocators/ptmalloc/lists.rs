//! Every list of free chunks: caches, fastbins, bins; and the quick pass that only learns whether
//! all is as it should be.

use super::PtmallocHeap;
use super::arenas::Arena;
use super::by_size::BySize;
use super::layout::{ArenaLayout, BINS, FLAGS, HEADER, TcacheLayout, bin_of, fastbin_of};
use super::tcaches::Tcache;
use crate::anomaly::{HolderKind, ListRef};
use crate::map::{BlockId, HeapMap};
use crate::target::{Address, Cursor};

/// Kinds of list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A bin of a thread's cache: single links, of blocks.
    Tcache,
    /// A fastbin: single links, of chunks.
    Fastbin,
    /// Unsorted, small or large: a circle of double links through the arena.
    Bin,
}

/// A list of free chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkList {
    /// What kind.
    pub kind: Kind,
    /// The structure that holds it: a cache, an arena; for a bin its pseudo-chunk.
    pub at: Address,
    /// The word that names the first entry.
    pub head_word: Address,
    /// That entry, as the list names it.
    pub head: Address,
    /// Number of the bin.
    pub index: u16,
    /// Index of the cache or of the arena.
    pub owner: usize,
    /// Entries, where the allocator counts them.
    pub recorded: Option<u64>,
    /// Where it does.
    pub count_at: Address,
    /// Size of its chunks, if that is one.
    pub size: Option<u64>,
}

/// Entries of one list that are followed: more than a core can hold would be a circle.
pub const MAX_ENTRIES: u64 = 1 << 32;

/// What the quick pass found.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// Chunks in caches and fastbins.
    pub cached: BySize,
    /// Chunks in bins, by arena.
    pub binned: Vec<u64>,
    /// Chunks in caches.
    pub in_tcaches: u64,
    /// Chunks in fastbins.
    pub in_fastbins: u64,
    /// Lists that are not as they should be.
    pub irregular: bool,
}

impl ChunkList {
    /// The chunk of an entry.
    pub fn chunk(&self, entry: Address) -> Option<Address> {
        match self.kind {
            Kind::Tcache => entry.checked_sub(HEADER),
            Kind::Fastbin | Kind::Bin => Some(entry),
        }
    }

    /// The bytes of a block of the list; 0 if they differ.
    pub fn block_bytes(&self) -> u64 {
        self.size.map_or(0, super::layout::usable)
    }

    /// Whether a chunk of this size belongs into the list.
    pub fn takes(&self, size: u64, tcache: Option<&TcacheLayout>) -> bool {
        let index = u64::from(self.index);
        match self.kind {
            Kind::Tcache => tcache.is_some_and(|layout| layout.bin_of(size) == index),
            Kind::Fastbin => fastbin_of(size) == index,
            Kind::Bin => index == 1 || bin_of(size) == index,
        }
    }
}

impl PtmallocHeap<'_> {
    /// All lists that hold anything: caches first, then fastbins, then bins.
    pub(super) fn chunk_lists(&self) -> Vec<ChunkList> {
        let mut lists = self.tcache_lists(&self.all_caches());
        for (index, arena) in self.arenas.rows.iter().enumerate() {
            if !arena.is_virgin(&self.located.arena) {
                self.fastbins(index, arena, &mut lists);
                self.bins(index, arena, &mut lists);
            }
        }
        lists.sort_by_key(|list| list.kind);
        lists
    }

    /// The lists of some caches.
    pub(super) fn tcache_lists(&self, caches: &[Tcache]) -> Vec<ChunkList> {
        let Some(layout) = &self.tcaches.layout else {
            return Vec::new();
        };
        let mut lists = Vec::new();
        for (owner, cache) in caches.iter().enumerate() {
            for bin in 0..layout.bins {
                let Some(found) = self.tcaches.bin(self.target.memory, cache.at, bin) else {
                    continue;
                };
                if found.head.is_null() && found.count == 0 {
                    continue;
                }
                lists.push(ChunkList {
                    kind: Kind::Tcache,
                    at: cache.at,
                    head_word: found.head_word,
                    head: found.head,
                    index: u16::try_from(bin).unwrap_or(0),
                    owner,
                    recorded: Some(found.count),
                    count_at: found.count_at,
                    size: TcacheLayout::chunk_of(bin),
                });
            }
        }
        lists
    }

    fn fastbins(&self, owner: usize, arena: &Arena, lists: &mut Vec<ChunkList>) {
        let Some(fastbins) = self.located.arena.fastbins else {
            return;
        };
        for bin in 0..ArenaLayout::FASTBINS {
            let head_word = arena.at.saturating_add(fastbins + 8 * bin);
            let head = Address::new(self.word(head_word).unwrap_or(0));
            if !head.is_null() {
                lists.push(ChunkList {
                    kind: Kind::Fastbin,
                    at: arena.at,
                    head_word,
                    head,
                    index: u16::try_from(bin).unwrap_or(0),
                    owner,
                    recorded: None,
                    count_at: head_word,
                    size: Some(0x20 + 16 * bin),
                });
            }
        }
    }

    fn bins(&self, owner: usize, arena: &Arena, lists: &mut Vec<ChunkList>) {
        for number in 1..=BINS {
            let at = arena.at.saturating_add(self.located.arena.bin(number));
            let word = |offset| Address::new(self.word(at.saturating_add(offset)).unwrap_or(0));
            let (head, last) = (word(16), word(24));
            if head == at && last == at || head.is_null() && last.is_null() {
                continue;
            }
            lists.push(ChunkList {
                kind: Kind::Bin,
                at,
                head_word: at.saturating_add(16),
                head,
                index: u16::try_from(number).unwrap_or(0),
                owner,
                recorded: None,
                count_at: at,
                size: (2..64).contains(&number).then_some(number * 16),
            });
        }
    }

    /// The entry after one, from the word stored in its block.
    pub(super) fn decode(&self, block: Address, word: u64) -> Address {
        if self.safe_linking {
            Address::new(word ^ (block.get() >> 12))
        } else {
            Address::new(word)
        }
    }

    /// Follows all lists once, and marks what is in them.
    pub(super) fn pass(&self, lists: &[ChunkList], map: &HeapMap) -> Passed {
        // Kinds apart: the longest lists are fastbins and the unsorted bin.
        let batches: Vec<&[ChunkList]> = lists
            .chunk_by(|a, b| a.kind == b.kind)
            .flat_map(|kind| kind.chunks(BATCH))
            .collect();
        let parts = crate::parallel::map(&batches, |batch| self.pass_batch(batch, map));
        let mut out = Passed {
            binned: vec![0; self.arenas.rows.len()],
            ..Passed::default()
        };
        for part in parts.into_iter().flatten() {
            out.irregular |= part.irregular;
            out.cached.merge(&part.cached);
            out.in_tcaches += part.in_tcaches;
            out.in_fastbins += part.in_fastbins;
            for (to, from) in out.binned.iter_mut().zip(part.binned) {
                *to += from;
            }
        }
        out
    }

    /// Follows some lists, several in turn so that their cache misses overlap.
    fn pass_batch(&self, lists: &[ChunkList], map: &HeapMap) -> Option<Passed> {
        let mut out = Passed {
            binned: vec![0; self.arenas.rows.len()],
            ..Passed::default()
        };
        let mut waiting = lists.iter();
        let mut lanes: Vec<Lane<'_>> = Vec::with_capacity(LANES);
        let mut seen = [Seen::default(); LANES];
        loop {
            while lanes.len() < LANES
                && let Some(list) = waiting.next()
            {
                let mut lane = Lane {
                    list,
                    cursor: Cursor::new(self.target.memory),
                    entry: list.head,
                    before: list.at,
                    walked: 0,
                };
                if !lane.is_done(&mut out) {
                    lanes.push(lane);
                }
            }
            if lanes.is_empty() {
                return Some(out);
            }
            // All loads of a kind first: they do not depend on each other.
            for (lane, seen) in lanes.iter_mut().zip(&mut seen) {
                let chunk = lane.list.chunk(lane.entry);
                let word = chunk.and_then(|chunk| chunk.checked_add(8));
                seen.header = word.and_then(|word| lane.cursor.read_u64(word).ok());
            }
            for (lane, seen) in lanes.iter().zip(&mut seen) {
                let chunk = lane.list.chunk(lane.entry);
                seen.id = chunk.and_then(|chunk| map.chunk_at(chunk));
            }
            for seen in seen.iter_mut().take(lanes.len()) {
                seen.listed = seen.id.is_some_and(|id| map.is_listed(id));
            }
            let mut seen = seen.into_iter();
            lanes.retain_mut(|lane| {
                let goes_on = seen
                    .next()
                    .is_some_and(|seen| self.step(lane, seen, map, &mut out));
                if !goes_on {
                    out.irregular = true;
                }
                goes_on && !lane.is_done(&mut out)
            });
        }
    }

    /// Looks at the lane's entry and goes on to the next one; whether all was as it should be so far
    /// that there is a next one.
    #[inline]
    fn step(&self, lane: &mut Lane<'_>, seen: Seen, map: &HeapMap, out: &mut Passed) -> bool {
        let list = lane.list;
        let Some(size) = seen.header.map(|header| header & !FLAGS) else {
            return false;
        };
        if lane.walked >= MAX_ENTRIES {
            return false;
        }
        let Some((id, chunk)) = self.admit(list, lane.entry, seen.id, size, map) else {
            return false;
        };
        if seen.listed || map.mark_listed(id) {
            map.mark_disputed(id);
            return false;
        }
        lane.walked += 1;
        let block = chunk.saturating_add(HEADER);
        let Ok(word) = lane.cursor.read_u64(block) else {
            return false;
        };
        match list.kind {
            Kind::Bin => {
                if let Some(count) = out.binned.get_mut(list.owner) {
                    *count += 1;
                }
                let back = lane.cursor.read_u64(block.saturating_add(8));
                if back != Ok(lane.before.get())
                    || size >= 0x400
                        && !self.skip_links_fit(list, chunk, lane.before, &mut lane.cursor)
                {
                    out.irregular = true;
                }
                lane.before = chunk;
                lane.entry = Address::new(word);
            }
            Kind::Tcache | Kind::Fastbin => {
                out.cached.add(size);
                if list.kind == Kind::Fastbin {
                    out.in_fastbins += 1;
                } else {
                    out.in_tcaches += 1;
                    if self.key_is_wrong(list, block, &mut lane.cursor) {
                        out.irregular = true;
                    }
                }
                lane.entry = self.decode(block, word);
            }
        }
        true
    }

    /// The chunk of an entry, if it belongs into the list.
    #[inline]
    fn admit(
        &self,
        list: &ChunkList,
        entry: Address,
        id: Option<BlockId>,
        size: u64,
        map: &HeapMap,
    ) -> Option<(BlockId, Address)> {
        let chunk = list.chunk(entry)?;
        let id = id.or_else(|| self.mapped_at(map, chunk))?;
        let own = list.kind == Kind::Tcache
            || self
                .arenas
                .region_of(chunk)
                .is_some_and(|region| region.arena == list.owner);
        (own && list.takes(size, self.tcaches.layout.as_ref())).then_some((id, chunk))
    }

    /// A chunk with a mapping of its own: from 2.43 on caches hold them.
    pub(super) fn mapped_at(&self, map: &HeapMap, chunk: Address) -> Option<BlockId> {
        let (block, offset) = map.block_at(chunk.checked_add(HEADER)?)?;
        let is_mapped = offset == 0 && map.extent(block.id.extent)?.block_bytes() > 0;
        is_mapped.then_some(block.id)
    }

    /// Whether a cached block's key is not what `free` wrote.
    pub(super) fn key_is_wrong(
        &self,
        list: &ChunkList,
        block: Address,
        cursor: &mut Cursor<'_>,
    ) -> bool {
        list.kind == Kind::Tcache
            && self.expected_key(list).is_some_and(|key| {
                cursor
                    .read_u64(block.saturating_add(8))
                    .is_ok_and(|word| word != key)
            })
    }

    /// Whether a large chunk's links to the next smaller and larger size are answered.
    pub(super) fn skip_links_fit(
        &self,
        list: &ChunkList,
        chunk: Address,
        before: Address,
        cursor: &mut Cursor<'_>,
    ) -> bool {
        let mut word = |at: Address, offset| cursor.read_u64(at.saturating_add(offset)).ok();
        let Some(next) = word(chunk, 32).map(Address::new) else {
            return true;
        };
        let back = word(chunk, 40).map(Address::new).unwrap_or_default();
        if next.is_null() {
            // One of several of a size; a chunk of the unsorted bin has neither.
            let mut size = |chunk| word(chunk, 8).map(|header| header & !FLAGS);
            return if list.index > 1 {
                before != list.at && size(before) == size(chunk)
            } else {
                back.is_null()
            };
        }
        list.index > 1 && word(next, 40) == Some(chunk.get()) && word(back, 32) == Some(chunk.get())
    }

    /// A list, for people.
    pub(super) fn list_ref(&self, list: &ChunkList) -> ListRef {
        let holder = match list.kind {
            Kind::Tcache => HolderKind::Tcache,
            Kind::Fastbin => HolderKind::Fastbin,
            Kind::Bin => HolderKind::Bin,
        };
        let thread = match list.kind {
            Kind::Tcache => self
                .tcaches
                .rows
                .get(list.owner)
                .and_then(|cache| self.presences.tid(cache.owner?)),
            _ => None,
        };
        ListRef {
            holder,
            thread,
            at: match list.kind {
                Kind::Tcache | Kind::Bin => list.head_word, // one structure has many lists
                Kind::Fastbin => list.at,
            },
            head_word: list.head_word,
            class: list.index,
            class_bytes: list.block_bytes(),
        }
    }
}

/// What is known of a lane's entry before it is looked at.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// The chunk's size word.
    header: Option<u64>,
    /// The chunk, if the walk found it.
    id: Option<BlockId>,
    /// A list holds it already.
    listed: bool,
}

/// Lists that are followed in turn.
const LANES: usize = 16;
/// Lists that one worker follows.
const BATCH: usize = 128;

/// A list that is being followed.
struct Lane<'a> {
    list: &'a ChunkList,
    cursor: Cursor<'a>,
    /// The entry to look at.
    entry: Address,
    /// In a bin, the one before it.
    before: Address,
    walked: u64,
}

impl Lane<'_> {
    /// Whether the list has come to its end; says so if that is not where it should be.
    fn is_done(&mut self, out: &mut Passed) -> bool {
        let list = self.list;
        match list.kind {
            Kind::Bin if self.entry == list.at => {
                let last = self.cursor.read_u64(list.at.saturating_add(24));
                out.irregular |= last != Ok(self.before.get());
                true
            }
            Kind::Tcache | Kind::Fastbin if self.entry.is_null() => {
                out.irregular |= list
                    .recorded
                    .is_some_and(|recorded| recorded != self.walked);
                true
            }
            _ => false,
        }
    }
}
