//! What the heap itself shows of its release: the size of its structures, whether links are mangled, what keys are.

use std::collections::BTreeMap;

use super::layout::{Releases, protect};
use super::lists::{ChunkList, Kind};
use super::{PtmallocHeap, structure};
use ground::target::{Address, Cursor, LocatedBy};

/// What a cached block's second word holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Nothing of the allocator's (up to 2.28), or it could not be told.
    None,
    /// The address of the cache (2.29 to 2.33).
    Cache,
    /// One random number for the whole process (2.34 on).
    Random(u64),
}

impl PtmallocHeap<'_> {
    /// What the size of `heap_info` and the caches say of the release.
    pub(super) fn narrow_releases(&mut self) {
        let releases = &mut self.located.releases;
        if let Some(layout) = &self.tcaches.layout {
            *releases = releases.narrow(layout.releases);
        }
        let info = self
            .arenas
            .rows
            .iter()
            .find_map(|arena| structure::heap_info_bytes(arena.at.get()));
        match info {
            Some(0x20) => *releases = releases.narrow(Releases::new(Releases::OLDEST, 34)),
            Some(_) => *releases = releases.narrow(Releases::new(35, 43)),
            None => {}
        }
    }

    /// Whether links are mangled: known by the release, else by decoding some both ways.
    pub(super) fn find_linking(&self) -> bool {
        let releases = self.located.releases;
        if releases.low >= 32 {
            return true;
        }
        if releases.high < 32 {
            return false;
        }
        const ENOUGH: usize = 64;
        let lists = self.single_lists();
        let (mut plain, mut mangled) = (0usize, 0usize);
        for list in lists.iter().take(ENOUGH) {
            let Some(block) = list.chunk(list.head).map(|chunk| chunk.saturating_add(16)) else {
                continue;
            };
            let Some(word) = self.word(block) else {
                continue;
            };
            let fits = |next: Address| next.is_null() || self.arenas.region_of(next).is_some();
            plain = plain.saturating_add(usize::from(fits(Address::new(word))));
            mangled = mangled.saturating_add(usize::from(fits(protect(block, word))));
        }
        mangled > plain
    }

    /// What the keys of cached blocks are: most of them agree.
    pub(super) fn find_key(&self) -> Key {
        if self.located.releases.high < 29 {
            return Key::None;
        }
        /// Entries of a list that are asked.
        const ENTRIES: u64 = 8;
        let (mut own, mut all) = (0usize, 0usize);
        let mut values: BTreeMap<u64, usize> = BTreeMap::new();
        let mut cursor = Cursor::new(self.target.memory);
        for list in self.single_lists() {
            if list.kind != Kind::Tcache || list.head.is_null() {
                continue;
            }
            let mut entry = list.head;
            for _ in 0..list.recorded.unwrap_or(0).min(ENTRIES) {
                let word = entry.checked_add(8).and_then(|at| cursor.read_u64(at).ok());
                let Some(word) = word.filter(|_| self.arenas.region_of(entry).is_some()) else {
                    break;
                };
                all = all.saturating_add(1);
                own = own.saturating_add(usize::from(word == list.at.get()));
                {
                    let slot = values.entry(word).or_default();
                    *slot = slot.saturating_add(1);
                };
                let link = cursor.read_u64(entry).unwrap_or(0);
                entry = self.decode(entry, link);
            }
        }
        if own > 0 && own.saturating_mul(2) >= all {
            return Key::Cache;
        }
        let named = self
            .target
            .limit
            .permits(LocatedBy::Symbols)
            .then(|| self.target.symbols.symbol(self.module.id, "tcache_key"))
            .flatten()
            .and_then(|symbol| self.word(symbol.address));
        if let Some(word) = named.filter(|word| *word != 0) {
            return Key::Random(word);
        }
        match values.into_iter().max_by_key(|(_, count)| *count) {
            Some((word, count)) if count >= 2 && count.saturating_mul(2) > all && word != 0 => {
                Key::Random(word)
            }
            _ => Key::None,
        }
    }

    /// The key that blocks of a cache's list must hold.
    pub(super) fn expected_key(&self, list: &ChunkList) -> Option<u64> {
        match self.key {
            Key::None => None,
            Key::Cache => Some(list.at.get()),
            Key::Random(word) => Some(word),
        }
    }
}
