//! What free leaves in an object: the link of the list that holds it.

use super::TcmallocHeap;
use crate::allocators::Heap;
use crate::allocators::residue::{Residue, Standing};
use crate::anomaly::{HolderKind, ListRef};
use crate::list::graph::Keeper;
use crate::map::{Block, BlockState, HeapMap};
use ground::target::{Address, Cursor};

/// Entries of lists that are gone through for one object.
const MAX_ENTRIES: u64 = 1 << 22;

impl TcmallocHeap<'_> {
    /// The list that holds an object, and its place there.
    pub(super) fn standing_of(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        let mut left = MAX_ENTRIES;
        let mut cursor = Cursor::new(self.target.memory);
        let mut position_in = |head: Address| -> Option<u64> {
            let mut entry = head;
            for position in 0..map.block_count() {
                if entry == block.address {
                    return Some(position);
                }
                left = left.checked_sub(1)?;
                let inside = !entry.is_null() && map.place(entry).is_some();
                let word = inside.then(|| cursor.read_u64(entry).ok()).flatten()?;
                entry = Address::new(word);
            }
            None
        };
        self.free_lists(block.class).iter().find_map(|list| {
            let position = position_in(list.head)?;
            Some(Standing {
                list: self.list_ref(list),
                position,
            })
        })
    }

    /// What a word of a free object is.
    pub(super) fn residue_at(
        &self,
        map: &HeapMap,
        offset: u64,
        word: u64,
        list: Option<ListRef>,
    ) -> Option<Residue> {
        let chained = list.is_some_and(|list| list.holder != HolderKind::SpanList);
        if offset != 0 || !chained {
            return None;
        }
        let next = Address::new(word);
        let is_free = map
            .block_at(next)
            .is_some_and(|(block, inside)| inside == 0 && map.state(block.id) != BlockState::InUse);
        (next.is_null() || is_free).then_some(Residue::Link {
            to: is_free.then_some(next),
            protected: false,
            back: false,
        })
    }
}
