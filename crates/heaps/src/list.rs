//! Following free lists: bounded, revisit-safe, many chains at a time.
//!
//! Lists come in *groups*: lists of one group may share entries (by mistake), lists of different
//! groups never do, because an entry of the wrong group is no entry at all. A size class is a group.
//! Two passes:
//!
//! 1. [`ListWalk`] marks every entry of every list of a group, advancing several chains in turn so
//!    that their cache misses overlap. It keeps nothing per entry or per list. It only learns
//!    whether the group is *regular*: every list ends at null after exactly the recorded number of
//!    entries, and no entry was met twice. Which list met an entry second is a race and is not
//!    recorded; that it was met twice is not, and goes into the map's `disputed` column.
//! 2. Only for an irregular group, [`graph::ListGraph`] follows the lists once more, in order, and
//!    describes what it finds.

pub mod graph;
mod orphans;

use crate::anomaly::{HolderKind, Stray};
use crate::map::{BlockId, HeapMap, Owner};
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

pub use orphans::Orphans;

/// A free list, compactly: one exists per span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FreeList {
    /// First entry; null for an empty list.
    pub head: Address,
    /// The structure that holds the list.
    pub at: Address,
    /// Entries that the allocator believes in it.
    pub recorded: u64,
    /// Size class (the group).
    pub class: u16,
    /// Who keeps it.
    pub holder: HolderKind,
    /// The allocator's own index of the keeper (a cache, a span, a slot).
    pub owner: u32,
}

/// How the allocator chains free blocks.
pub trait Links: Sync {
    /// The entry after `node`, from the word stored in it.
    fn decode(&self, node: Address, word: u64) -> Address;

    /// Whether the allocator takes pointers that are no memory of it, so that a stray entry outside
    /// the heap may be one that the program freed.
    fn frees_foreign(&self) -> bool {
        false
    }

    /// Whether `at` can be an entry of a list of this class.
    ///
    /// # Errors
    /// Why it cannot.
    #[inline]
    fn admit(
        &self,
        map: &HeapMap,
        memory: &dyn TargetMemory,
        class: u16,
        at: Address,
    ) -> Result<BlockId, Stray> {
        let place = map.place(at);
        if let Some(place) = place
            && let Some(extent) = map.extent(place.extent)
            && extent.owner == Owner::InUse
            && extent.class == class
            && let Some((slot, 0)) = place.slot
        {
            return Ok(BlockId {
                extent: place.extent,
                slot,
            });
        }
        Err(stray(map, memory, class, at))
    }
}

/// Why `at`, which was not admitted, is no entry of a list of `class`.
#[cold]
pub fn stray(map: &HeapMap, memory: &dyn TargetMemory, class: u16, at: Address) -> Stray {
    let Some(place) = map.place(at) else {
        return match memory.region_at(at) {
            Some(_) => Stray::OutsideHeap,
            None => Stray::Unmapped,
        };
    };
    let Some((block, offset)) = map.block_at(at) else {
        return Stray::NotABlock;
    };
    match map.extent(place.extent) {
        Some(extent) if extent.owner != Owner::InUse => Stray::FreeSpan { block, offset },
        Some(extent) if extent.class != class => Stray::OtherClass { block, offset },
        _ => Stray::Misaligned { block, offset },
    }
}

/// Chains that are advanced in turn.
const LANES: usize = 12;

/// Follows the lists of a group and marks their entries.
pub struct ListWalk<'m> {
    map: &'m HeapMap,
    memory: &'m dyn TargetMemory,
    /// Entries marked so far.
    pub entries: u64,
    /// A list of this group did not end where it should, or an entry was met twice.
    pub irregular: bool,
}

#[derive(Clone, Copy)]
struct Lane {
    node: Address,
    walked: u64,
    recorded: u64,
}

impl<'m> ListWalk<'m> {
    /// A walk that has seen nothing yet.
    pub fn new(map: &'m HeapMap, memory: &'m dyn TargetMemory) -> Self {
        Self {
            map,
            memory,
            entries: 0,
            irregular: false,
        }
    }

    /// The map whose blocks are marked.
    pub fn map(&self) -> &'m HeapMap {
        self.map
    }

    /// Follows all `lists`, which are of one group. Ends because each step marks a new block, and
    /// there are only so many.
    pub fn run<L: Links>(&mut self, lists: &[FreeList], links: &L) {
        let mut waiting = lists.iter();
        let mut lanes: Vec<Lane> = Vec::with_capacity(LANES);
        let mut words = [None; LANES];
        let mut cursors: Vec<Cursor<'m>> = (0..LANES).map(|_| Cursor::new(self.memory)).collect();
        loop {
            while lanes.len() < LANES
                && let Some(list) = waiting.next()
            {
                let class = list.class;
                if self.enter(links, class, list.head, 0, list.recorded) {
                    lanes.push(Lane {
                        node: list.head,
                        walked: 1,
                        recorded: list.recorded,
                    });
                }
            }
            if lanes.is_empty() {
                return;
            }
            // All loads first: they do not depend on each other, so their misses overlap.
            for ((lane, cursor), word) in lanes.iter().zip(&mut cursors).zip(&mut words) {
                *word = cursor.read_u64(lane.node).ok();
            }
            let class = lists.first().map_or(0, |list| list.class);
            let mut words = words.into_iter();
            lanes.retain_mut(|lane| {
                let Some(Some(word)) = words.next() else {
                    self.irregular = true;
                    return false;
                };
                let next = links.decode(lane.node, word);
                let goes_on = self.enter(links, class, next, lane.walked, lane.recorded);
                lane.node = next;
                lane.walked = lane.walked.saturating_add(1);
                goes_on
            });
        }
    }

    /// Marks the entry `at`, `walked` entries into its list; says whether its link is to be followed.
    #[inline]
    fn enter<L: Links>(
        &mut self,
        links: &L,
        class: u16,
        at: Address,
        walked: u64,
        recorded: u64,
    ) -> bool {
        if at.is_null() {
            self.irregular |= walked != recorded;
            return false;
        }
        match links.admit(self.map, self.memory, class, at) {
            Ok(block) if !self.map.mark_listed(block) => {
                self.entries = self.entries.saturating_add(1);
                true
            }
            Ok(block) => {
                self.map.mark_disputed(block);
                self.irregular = true;
                false
            }
            Err(_) => {
                self.irregular = true;
                false
            }
        }
    }
}
