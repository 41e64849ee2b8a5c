//! Every list of free chunks: caches, fastbins, bins; and the quick pass that only learns whether
//! all is as it should be.

mod arcs;
mod cuts;
mod pass;

pub use pass::{Lane, Seen, in_turn};

use super::PtmallocHeap;
use super::arenas::Arena;
use super::by_size::BySize;
use super::layout::{ArenaLayout, BINS, HEADER, TcacheLayout, bin_of, fastbin_of, protect};
use super::tcaches::Tcache;
use crate::anomaly::{HolderKind, ListRef};
use crate::map::{BlockId, HeapMap};
use ground::target::{Address, Cursor};

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
    /// Bytes of those, headers included.
    pub fastbin_bytes: u64,
    /// Lists that are not as they should be.
    pub irregular: bool,
}

impl Passed {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.irregular |= other.irregular;
        self.cached.merge(&other.cached);
        self.in_tcaches = self.in_tcaches.saturating_add(other.in_tcaches);
        self.in_fastbins = self.in_fastbins.saturating_add(other.in_fastbins);
        self.fastbin_bytes = self.fastbin_bytes.saturating_add(other.fastbin_bytes);
        for (to, from) in self.binned.iter_mut().zip(&other.binned) {
            *to = to.saturating_add(*from);
        }
    }

    /// Adds a list of that many chunks.
    pub fn add_list(&mut self, list: &ChunkList, chunks: u64) {
        match list.kind {
            Kind::Tcache => self.in_tcaches = self.in_tcaches.saturating_add(chunks),
            Kind::Fastbin => {
                let bytes = list.size.unwrap_or(0).saturating_mul(chunks);
                self.in_fastbins = self.in_fastbins.saturating_add(chunks);
                self.fastbin_bytes = self.fastbin_bytes.saturating_add(bytes);
            }
            Kind::Bin => {
                if let Some(count) = self.binned.get_mut(list.owner) {
                    *count = count.saturating_add(chunks);
                }
                return;
            }
        }
        self.cached.add_many(list.size.unwrap_or(0), chunks);
    }
}

impl ChunkList {
    /// The chunk of an entry.
    pub fn chunk(&self, entry: Address) -> Option<Address> {
        match self.kind {
            Kind::Tcache => entry.checked_sub(HEADER),
            Kind::Fastbin | Kind::Bin => Some(entry),
        }
    }

    /// Whether its chunks are of one size, or in no order: large bins and large caches are sorted by size.
    pub fn is_simple(&self) -> bool {
        self.size.is_some() || self.kind == Kind::Bin && self.index == 1
    }

    /// Whether the list counts another number of entries.
    pub fn is_miscounted(&self, walked: u64) -> bool {
        self.recorded.is_some_and(|recorded| recorded != walked)
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
    /// All lists that hold anything, when it is known whose caches there are: when the heap was walked.
    pub(super) fn lists(&self) -> &[ChunkList] {
        self.lists.get_or_init(|| self.chunk_lists())
    }

    /// All lists that hold anything: caches first, then fastbins, then bins.
    pub(super) fn chunk_lists(&self) -> Vec<ChunkList> {
        let mut lists = self.single_lists();
        for (index, arena) in self.used_arenas() {
            self.bins(index, arena, &mut lists);
        }
        lists
    }

    /// All lists of single links that hold anything: caches first, then fastbins.
    pub(super) fn single_lists(&self) -> Vec<ChunkList> {
        let mut lists = self.tcache_lists(&self.all_caches());
        for (index, arena) in self.used_arenas() {
            self.fastbins(index, arena, &mut lists);
        }
        lists
    }

    fn used_arenas(&self) -> impl Iterator<Item = (usize, &Arena)> {
        let arenas = self.arenas.rows.iter().enumerate();
        arenas.filter(|(_, arena)| !arena.is_virgin(&self.located.arena))
    }

    /// The lists of some caches.
    pub(super) fn tcache_lists(&self, caches: &[Tcache]) -> Vec<ChunkList> {
        let Some(layout) = &self.tcaches.layout else {
            return Vec::new();
        };
        let mut lists = Vec::new();
        let mut cursor = Cursor::new(self.target.memory);
        for (owner, cache) in caches.iter().enumerate() {
            for bin in 0..layout.bins {
                let Some(found) = self.tcaches.bin(&mut cursor, cache.at, bin) else {
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
        let mut cursor = Cursor::new(self.target.memory);
        for bin in 0..ArenaLayout::FASTBINS {
            let head_word = arena
                .at
                .saturating_add(fastbins.saturating_add(bin.saturating_mul(8)));
            let head = Address::new(cursor.read_u64(head_word).unwrap_or(0));
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
                    size: Some(bin.saturating_mul(16).saturating_add(0x20)),
                });
            }
        }
    }

    fn bins(&self, owner: usize, arena: &Arena, lists: &mut Vec<ChunkList>) {
        let mut cursor = Cursor::new(self.target.memory);
        for number in 1..=BINS {
            let at = arena.at.saturating_add(self.located.arena.bin(number));
            let mut word = |offset| {
                let word = cursor.read_u64(at.saturating_add(offset));
                Address::new(word.unwrap_or(0))
            };
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
                size: (2..64)
                    .contains(&number)
                    .then_some(number.saturating_mul(16)),
            });
        }
    }

    /// The entry after one, from the word stored in its block.
    pub(super) fn decode(&self, block: Address, word: u64) -> Address {
        if self.safe_linking {
            protect(block, word)
        } else {
            Address::new(word)
        }
    }

    /// Whether a chunk lies in memory of the arena in row `owner`.
    #[inline]
    pub(super) fn is_in_arena(&self, chunk: Address, owner: usize) -> bool {
        let region = self.arenas.region_of(chunk);
        region.is_some_and(|region| region.arena == owner)
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
