//! The quick pass over slabs and caches: every entry is marked, and only whether a list is regular is learnt.

use super::JemallocHeap;
use crate::list::{FreeList, ListWalk};
use crate::map::{BlockId, HeapMap, Owner};
use ground::target::{Address, Cursor};

impl JemallocHeap<'_> {
    /// Marks the free regions of a slab; says whether it is as its count says.
    pub(super) fn follow_slab(&self, list: &FreeList, walk: &mut ListWalk<'_>) -> bool {
        let map = walk.map();
        let Some(row) = self.located.extents.rows.get(list.owner as usize) else {
            return false;
        };
        let (Some(class), Some(index)) = (self.slab_class(row), map.row_at(row.start())) else {
            return false;
        };
        let mut free = 0u64;
        let mut regular = true;
        for (first, word, mask) in self.marks(row, class.regions) {
            let Some(word) = word else {
                regular = false;
                continue;
            };
            let marked = word & mask;
            free = free.saturating_add(u64::from(marked.count_ones()));
            regular &= word == marked && map.mark_listed_run(index, first, marked) == 0;
        }
        walk.entries = walk.entries.saturating_add(free);
        regular && free == list.recorded
    }

    /// Marks what a cache holds of a class; says whether every entry is a block that nobody else has.
    pub(super) fn follow_cache(&self, list: &FreeList, walk: &mut ListWalk<'_>) -> bool {
        let map = walk.map();
        let mut cursor = Cursor::new(self.target.memory);
        let mut regular = true;
        for index in 0..list.recorded {
            let entry = cursor.read_u64(list.head.saturating_add(index.saturating_mul(8)));
            let block = entry
                .ok()
                .and_then(|entry| admit(map, list.class, Address::new(entry)));
            match block {
                Some(block) => regular &= !map.mark_listed(block),
                None => regular = false,
            }
        }
        walk.entries = walk.entries.saturating_add(list.recorded);
        regular
    }
}

/// Whether `at` is a block of this class, by the map.
pub(super) fn admit(map: &HeapMap, class: u16, at: Address) -> Option<BlockId> {
    let place = map.place(at)?;
    let extent = map.extent(place.extent)?;
    match place.slot {
        Some((slot, 0)) if extent.owner == Owner::InUse && extent.class == class => Some(BlockId {
            extent: place.extent,
            slot,
        }),
        _ => None,
    }
}
