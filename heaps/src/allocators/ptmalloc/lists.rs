//! Every list of free chunks: caches, fastbins, bins; and the quick pass that only learns whether
//! all is as it should be.

use super::PtmallocHeap;
use super::arenas::Arena;
use super::carve::BySize;
use super::layout::{
    ALIGNMENT, ArenaLayout, BINS, FLAGS, HEADER, TcacheLayout, bin_of, fastbin_of,
};
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
        let mut lists = self.tcache_lists();
        for (index, arena) in self.arenas.rows.iter().enumerate() {
            if !arena.is_virgin(&self.located.arena) {
                self.fastbins(index, arena, &mut lists);
                self.bins(index, arena, &mut lists);
            }
        }
        lists.sort_by_key(|list| list.kind);
        lists
    }

    fn tcache_lists(&self) -> Vec<ChunkList> {
        let Some(layout) = &self.tcaches.layout else {
            return Vec::new();
        };
        let mut lists = Vec::new();
        for (owner, cache) in self.all_caches().into_iter().enumerate() {
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
        let parts = crate::parallel::map(lists, |list| match list.kind {
            Kind::Bin => self.pass_bin(list, map),
            _ => self.pass_single(list, map),
        });
        let mut out = Passed {
            binned: vec![0; self.arenas.rows.len()],
            ..Passed::default()
        };
        for (list, part) in lists.iter().zip(parts) {
            out.irregular |= part.irregular;
            out.cached.merge(&part.cached);
            let entries = part.entries;
            match list.kind {
                Kind::Tcache => out.in_tcaches += entries,
                Kind::Fastbin => out.in_fastbins += entries,
                Kind::Bin => {
                    if let Some(count) = out.binned.get_mut(list.owner) {
                        *count += entries;
                    }
                }
            }
        }
        out
    }

    fn pass_single(&self, list: &ChunkList, map: &HeapMap) -> Part {
        let mut cursor = Cursor::new(self.target.memory);
        let mut part = Part::default();
        let mut entry = list.head;
        while part.entries < MAX_ENTRIES {
            if entry.is_null() {
                part.irregular |= list
                    .recorded
                    .is_some_and(|recorded| recorded != part.entries);
                return part;
            }
            let Some((chunk, size)) = self.admit(list, entry, map, &mut cursor) else {
                break;
            };
            let block = chunk.1.saturating_add(HEADER);
            let Ok(word) = cursor.read_u64(block) else {
                break;
            };
            if self.key_is_wrong(list, block, &mut cursor) {
                part.irregular = true;
            }
            if map.mark_listed(chunk.0) {
                map.mark_disputed(chunk.0);
                break;
            }
            part.entries += 1;
            part.cached.add(size);
            entry = self.decode(block, word);
        }
        part.irregular = true;
        part
    }

    /// The chunk of an entry and its size, if it belongs into the list.
    fn admit(
        &self,
        list: &ChunkList,
        entry: Address,
        map: &HeapMap,
        cursor: &mut Cursor<'_>,
    ) -> Option<((BlockId, Address), u64)> {
        let chunk = list.chunk(entry)?;
        let id = match map.chunk_at(chunk) {
            Some(id) => id,
            None => self.mapped_at(map, chunk)?,
        };
        let size = cursor.read_u64(chunk.checked_add(8)?).ok()? & !FLAGS;
        let own = list.kind == Kind::Tcache
            || self
                .arenas
                .region_of(chunk)
                .is_some_and(|region| region.arena == list.owner);
        (own && list.takes(size, self.tcaches.layout.as_ref())).then_some(((id, chunk), size))
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

    fn pass_bin(&self, list: &ChunkList, map: &HeapMap) -> Part {
        let mut cursor = Cursor::new(self.target.memory);
        let mut part = Part::default();
        let mut before = list.at;
        let mut chunk = list.head;
        while part.entries < MAX_ENTRIES {
            if chunk == list.at {
                part.irregular |= cursor.read_u64(list.at.saturating_add(24)) != Ok(before.get());
                return part;
            }
            if !chunk.is_aligned(ALIGNMENT) {
                break;
            }
            let Some(((id, _), size)) = self.admit(list, chunk, map, &mut cursor) else {
                break;
            };
            let mut word = |offset| cursor.read_u64(chunk.saturating_add(offset)).ok();
            let (forward, back) = (word(16), word(24));
            let (foot, next) = (word(size), word(size.saturating_add(8)));
            if map.mark_listed(id) {
                map.mark_disputed(id);
                break;
            }
            part.entries += 1;
            let free = foot == Some(size) && next.is_some_and(|next| next & 1 == 0);
            if !free || back != Some(before.get()) {
                part.irregular = true;
            }
            if size >= 0x400 && !self.skip_links_fit(list, chunk, &mut cursor) {
                part.irregular = true;
            }
            let Some(forward) = forward else { break };
            before = chunk;
            chunk = Address::new(forward);
        }
        part.irregular = true;
        part
    }

    /// Whether a large chunk's links to the next smaller and larger size are answered.
    pub(super) fn skip_links_fit(
        &self,
        list: &ChunkList,
        chunk: Address,
        cursor: &mut Cursor<'_>,
    ) -> bool {
        let mut word = |at: Address, offset| cursor.read_u64(at.saturating_add(offset)).ok();
        let Some(next) = word(chunk, 32).map(Address::new) else {
            return true;
        };
        let back = word(chunk, 40).map(Address::new).unwrap_or_default();
        if next.is_null() {
            // One of several of a size; a chunk of the unsorted bin has neither.
            return list.index > 1 || back.is_null();
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

/// What one list gave.
#[derive(Default)]
struct Part {
    entries: u64,
    cached: BySize,
    irregular: bool,
}
