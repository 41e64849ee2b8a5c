//! A pointer that free died of.
//!
//! jemalloc looks a pointer up in the page map before anything else. A pointer that is no memory of the heap has no leaf:
//! the lookup reads at null plus the place of the pointer's page in a leaf, and the process dies there. Inner pages of
//! large extents have no element: the descriptor that is read then is at null. In both cases registers hold the pointer
//! and the place where it was looked up, and nothing in the heap has changed.

use super::JemallocHeap;
use super::extents::Extents;
use super::tree::Tree;
use crate::anomaly::{Anomaly, AnomalyKind, Field, Stray};
use crate::list;
use crate::map::HeapMap;
use ground::target::{Address, Cursor};

/// Words of the stack that are searched for the pointer.
const STACK_WORDS: u64 = 64;

impl JemallocHeap<'_> {
    /// What the thread that died was freeing, if that is what it died of.
    pub(super) fn fatal_free(&self, map: &HeapMap) -> Option<Anomaly> {
        let thread = self.target.threads.list().first()?;
        if !self.presences.faulted(0) || !self.module.has_code_at(thread.pc) {
            return None;
        }
        let values: Vec<(u16, u64)> = (thread.registers.iter())
            .filter(|(register, value)| {
                *register != self.target.threads.arch().sp && *value != thread.sp.get()
            })
            .collect();
        // A page alone is looked up, and other registers may lead to that page, too. free keeps its argument twice.
        let times = |value: u64| values.iter().filter(|(_, other)| *other == value).count();
        let mut ordered = values.clone();
        ordered.sort_by_key(|(_, value)| std::cmp::Reverse(times(*value)));
        let named = ordered
            .iter()
            .map(|(register, value)| (self.target.threads.register_name(*register), *value));
        let mut stack = Cursor::new(self.target.memory);
        // The pointer may have been put aside on the stack already.
        let saved = (0..STACK_WORDS)
            .filter_map(|index| {
                stack
                    .read_u64(thread.sp.checked_add(index.saturating_mul(8))?)
                    .ok()
            })
            .map(|value| ("a word of its stack", value));
        let tree = &self.located.tree;
        let mut cursor = Cursor::new(self.target.memory);
        let (register, found, at, what) = named.chain(saved).find_map(|(register, value)| {
            let found = Address::new(value);
            // Neighbours of an extent are looked up, too, and keys of cached leaves stand beside the leaves.
            if is_border(&self.located.extents, found) || tree.is_leaf_key(found) {
                return None;
            }
            let (place, at, what) = failed_lookup(tree, &mut cursor, found)?;
            let looked_up = values
                .iter()
                .any(|&(_, word)| word == place && word != value);
            looked_up.then_some((register, found, at, what))
        })?;
        let stray = match self.located.extents.at(found) {
            // Only active extents that are one block have pages without an element.
            Some(_) => list::stray(map, self.target.memory, u16::MAX, found),
            None => Stray::OutsideHeap,
        };
        Some(Anomaly::new(AnomalyKind::FatalFree {
            thread: thread.tid,
            found,
            stray,
            register,
            at,
            what,
        }))
    }
}

fn is_border(extents: &Extents, at: Address) -> bool {
    let before = at.checked_sub(1).and_then(|before| extents.at(before));
    before.is_some_and(|row| row.end() == at) || extents.at(at).is_some_and(|row| row.start() == at)
}

/// Where the lookup of a pointer read the word that stopped it, the word of the tree that made it do so, and what that
/// is. `None` if the lookup finds an extent.
fn failed_lookup(
    tree: &Tree,
    cursor: &mut Cursor<'_>,
    pointer: Address,
) -> Option<(u64, Address, Field)> {
    /// A place in a leaf that is no everyday number.
    const MIN_PLACE: u64 = 0x1000;
    let page = pointer.get() >> Tree::PAGE_SHIFT;
    if let Some(element) = tree.element_at(page) {
        let empty = tree.element(cursor, element)?.extent.is_null();
        return empty.then_some((element.get(), element, Field::RtreeLeafOfPointer));
    }
    let (slot, place) = tree.dead_end(cursor, page)?;
    (place >= MIN_PLACE).then_some((place, slot, Field::PageMapSlotOfPointer))
}
