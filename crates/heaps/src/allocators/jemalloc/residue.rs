//! What free leaves in a block: nothing, unless an option makes it fill it.

use super::JemallocHeap;
use super::fillings::{FREED, HANDED_OUT};
use super::options;
use crate::allocators::residue::{Residue, Standing};
use crate::anomaly::Edge;
use crate::map::{Block, HeapMap};

impl JemallocHeap<'_> {
    /// The cache or slab that has a block as free.
    pub(super) fn standing_of(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        let in_caches = self.caches.iter().find_map(|cache| {
            let mut bins = cache.bins.iter().filter(|bin| bin.class == block.class);
            bins.find_map(|bin| {
                let mut entries = (0u64..).zip(self.entries(bin));
                entries.find_map(|(position, (word, entry))| {
                    (entry == Some(block.address))
                        .then(|| self.cache_edge(bin, cache.user, position, word))
                })
            })
        });
        let Edge { list, position, .. } = in_caches.or_else(|| self.slab_edge(map, block.id))?;
        Some(Standing { list, position })
    }

    /// What `bytes` bytes of a free block are.
    pub(super) fn residue_at(&self, block: Block, word: u64, bytes: u64) -> Option<Residue> {
        let shift = 64u64.checked_sub(bytes.checked_mul(8)?)?;
        let filled = u64::from_ne_bytes([FREED; 8]).checked_shr(u32::try_from(shift).ok()?)?;
        let fills = || match options::junk(self.target, self.module) {
            Some(junk) => junk.freed,
            None => self.is_filled(block),
        };
        (bytes >= 4 && word == filled && fills()).then_some(Residue::Filling(FREED))
    }

    /// What `bytes` bytes of a region in use are that the program never wrote.
    pub(super) fn left_over_at(&self, word: u64, bytes: u64) -> Option<Residue> {
        let junk = options::junk(self.target, self.module)?;
        let filling = match (junk.new, junk.freed) {
            (true, _) => HANDED_OUT,
            (false, true) => FREED,
            (false, false) => return None,
        };
        let shift = 64u64.checked_sub(bytes.checked_mul(8)?)?;
        let filled = u64::from_ne_bytes([filling; 8]).checked_shr(u32::try_from(shift).ok()?)?;
        (bytes >= 4 && word == filled).then_some(Residue::Filling(filling))
    }
}
