//! What free leaves in a chunk: links, keys.

use super::layout::HEADER;
use super::lists::{ChunkList, Kind};
use super::{Key, PtmallocHeap};
use crate::allocators::residue::{Residue, Standing};
use crate::anomaly::{HolderKind, ListRef};
use crate::map::{Block, BlockState, HeapMap};
use ground::target::{Address, Cursor};

/// Entries of lists that are gone through for one block.
const MAX_ENTRIES: u64 = 1 << 22;
/// Usable bytes of the largest chunk that a tcache or fastbin takes (`tcache_max_bytes` of glibc up to 2.41, as it is set).
const MAX_CACHED: u64 = 1032;

impl PtmallocHeap<'_> {
    /// The list that holds a chunk, and its place there.
    pub(super) fn standing_of(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        let lists = self.lists();
        let mut left = MAX_ENTRIES;
        let layout = self.tcaches.layout.as_ref();
        let size = block.bytes.checked_add(8)?;
        let fits = |list: &&ChunkList| list.kind == Kind::Bin || list.takes(size, layout);
        lists.iter().filter(fits).find_map(|list| {
            let position = self.position_in(list, map, block.address, &mut left)?;
            Some(Standing {
                list: self.list_ref(list),
                position,
            })
        })
    }

    fn position_in(
        &self,
        list: &ChunkList,
        map: &HeapMap,
        wanted: Address,
        left: &mut u64,
    ) -> Option<u64> {
        let mut cursor = Cursor::new(self.target.memory);
        let mut entry = list.head;
        // A circle ends with the number of blocks.
        for position in 0..map.block_count() {
            let block = list.chunk(entry)?.checked_add(HEADER)?;
            if block == wanted {
                return Some(position);
            }
            *left = left.checked_sub(1)?;
            let word = cursor.read_u64(block).ok()?;
            entry = match list.kind {
                Kind::Bin => Address::new(word),
                Kind::Tcache | Kind::Fastbin => self.decode(block, word),
            };
            if entry.is_null() || list.kind == Kind::Bin && entry == list.at {
                return None;
            }
        }
        None
    }

    /// What a word of a free chunk is.
    pub(super) fn residue_at(
        &self,
        map: &HeapMap,
        block: Block,
        offset: u64,
        word: u64,
        list: Option<ListRef>,
    ) -> Option<Residue> {
        let holder = list.map(|list| list.holder);
        let link = |to: Address, lead: u64, protected: bool, back: bool| {
            let to = to.checked_add(lead)?;
            let (found, inside) = map.block_at(to)?;
            let is_free = inside == 0 && map.state(found.id) != BlockState::InUse;
            is_free.then_some(Residue::Link {
                to: Some(to),
                protected,
                back,
            })
        };
        match (holder, offset) {
            (Some(HolderKind::Tcache | HolderKind::Fastbin), 0) => {
                let next = self.decode(block.address, word);
                let protected = self.safe_linking;
                if next.is_null() {
                    return Some(Residue::Link {
                        to: None,
                        protected,
                        back: false,
                    });
                }
                let lead = holder.map_or(0, HolderKind::lead);
                link(next, lead, protected, false)
            }
            // Every cached block has one; which, cannot be told where there are too few to compare.
            (Some(HolderKind::Tcache), 8)
                if self.key == Key::None && self.located.releases.low >= 34 && word != 0 =>
            {
                Some(Residue::Key)
            }
            (Some(HolderKind::Tcache), 8) => {
                let is_cache = list.is_some_and(|list| self.cache_of(list) == Some(word));
                self.known(word).or(is_cache.then_some(Residue::Cache))
            }
            (Some(HolderKind::Bin), 0 | 8 | 16 | 24) => {
                let back = offset % 16 == 8;
                let to_arena = || self.is_arena(word).then_some(Residue::Bin);
                link(Address::new(word), HEADER, false, back).or_else(to_arena)
            }
            // Inside of what was merged: what its parts held when they were on lists themselves.
            (None | Some(HolderKind::Bin), _) => self
                .known(word)
                .or_else(|| self.is_arena(word).then_some(Residue::Bin)),
            _ => None,
        }
    }

    /// What a word of a chunk in use is that the program never wrote: a protected link, which no program makes, or a word that leads
    /// into an arena.
    pub(super) fn left_over_at(
        &self,
        map: &HeapMap,
        block: Block,
        offset: u64,
        word: u64,
    ) -> Option<Residue> {
        if offset > 8 {
            return None;
        }
        let leads_to_block = |to: Address| {
            let leads = [HolderKind::Tcache, HolderKind::Fastbin].map(HolderKind::lead);
            leads.into_iter().find_map(|lead| {
                let to = to.checked_add(lead)?;
                let (found, inside) = map.block_at(to)?;
                (inside == 0 && found.bytes == block.bytes).then_some(to)
            })
        };
        let link = |to| Residue::Link {
            to,
            protected: true,
            back: false,
        };
        if offset == 0 && self.safe_linking && block.bytes <= MAX_CACHED {
            let next = self.decode(block.address, word);
            if next.is_null() {
                return Some(link(None));
            }
            if let Some(to) = leads_to_block(next) {
                return Some(link(Some(to)));
            }
        }
        self.known(word)
            .or_else(|| self.is_arena(word).then_some(Residue::Bin))
    }

    /// What a value can be wherever it was read.
    pub(super) fn known(&self, word: u64) -> Option<Residue> {
        match self.key {
            Key::Random(key) if key == word => Some(Residue::Key),
            Key::Cache if self.all_caches().iter().any(|cache| cache.at.get() == word) => {
                Some(Residue::Cache)
            }
            _ => None,
        }
    }

    /// The address of the cache that a list is of.
    fn cache_of(&self, list: ListRef) -> Option<u64> {
        let expected = |found: &ChunkList| match self.key {
            Key::Cache => Some(found.at.get()),
            _ => None,
        };
        self.tcache_lists(&self.all_caches())
            .iter()
            .find(|found| found.head_word == list.head_word)
            .and_then(expected)
    }

    /// Whether a word names a place among the bins of an arena.
    fn is_arena(&self, word: u64) -> bool {
        let bytes = self.located.arena.bytes;
        self.arenas.rows.iter().any(|arena| {
            let inside = Address::new(word).offset_from(arena.at);
            inside.is_some_and(|offset| offset < bytes)
        })
    }
}
