//! Who keeps caches and slabs: whether somebody may be at work on them, and how findings name their places.

use super::JemallocHeap;
use super::caches::{Bin, User};
use super::extents::Row;
use super::tree::Tree;
use crate::anomaly::{Edge, Field, HolderKind, ListRef, Proof, Transient};
use crate::map::{BlockId, HeapMap};
use crate::presence::Presence;
use ground::target::{Address, Cursor, MemoryExt};

impl JemallocHeap<'_> {
    /// Whether a slab's bin counts as many regions in use as the marks of its slabs: then no region was counted as given
    /// back once more than it was. `false` where nothing is counted.
    pub(super) fn counts_agree(&self, row: &Row) -> bool {
        let Some(bin) = self.bin_of(row) else {
            return false;
        };
        let counted = bin.at.saturating_add(self.located.layout.bin.regions);
        let counted = self.target.memory.read_u64(counted).unwrap_or(0);
        let slabs = self.located.extents.rows.iter().filter_map(|row| {
            let cut = self.slab_class(row)?;
            (self.bin_of(row)?.at == bin.at).then_some((row, cut))
        });
        let in_use = slabs.map(|(row, cut)| {
            let words = self.bitmap(row, cut.regions);
            let free: u32 = words.filter_map(|(_, word)| Some(word?.count_ones())).sum();
            u64::from(cut.regions.saturating_sub(free))
        });
        counted != 0 && counted == in_use.sum::<u64>()
    }

    /// A structure's member as this release calls it.
    pub(super) fn name_of(&self, old: Field, new: Field) -> Field {
        if self.located.layout.generation.is_5_3() {
            new
        } else {
            old
        }
    }

    /// Why a cache's entries prove nothing: its user may be working on it.
    pub(super) fn cache_busy(&self, user: User) -> Option<Transient> {
        match user {
            User::Thread(thread) => (self.presences.of(thread) != Presence::Outside)
                .then(|| self.presences.at_work(thread)),
            User::Explicit => self.somebody_inside(),
            User::Vanished => Some(Transient::gone(Proof::ThreadOfCacheIsAbsent)),
        }
    }

    /// A thread that is, or may be, inside the allocator.
    pub(super) fn somebody_inside(&self) -> Option<Transient> {
        self.presences
            .anyone()
            .map(|thread| self.presences.at_work(thread))
    }

    /// The same, or one that is not in the core. A fork waits for all locks, so that what they guard is whole in the child;
    /// but an extent is nobody's while it is made, split or merged, and a bin's statistics wait while a slab is made for it.
    pub(super) fn somebody_inside_or_gone(&self) -> Option<Transient> {
        self.somebody_inside()
            .or_else(|| self.presences.others_are_gone())
    }

    /// Whether an entry says nothing because of what else is damaged or absent: a node of the page map leads nowhere, the page's
    /// element names what is no descriptor any more, or the descriptor was written over; or its arena may be one that is not known.
    pub(super) fn is_lost(&self, at: Address) -> bool {
        let located = &self.located;
        let page = at.get() >> Tree::PAGE_SHIFT;
        if let Some(row) = located.extents.at(at) {
            return located
                .extents
                .repairs
                .iter()
                .any(|repair| repair.suspect.word.of == row.at);
        }
        let mut cursor = Cursor::new(self.target.memory);
        self.is_undescribed(at)
            || match located.tree.element_at(page) {
                None => !located.tree.strays.is_empty(),
                Some(_) => !located.tree.extent_of_page(&mut cursor, page).is_null(),
            }
    }

    /// Whether the extent of an address, or the one that a descriptor there describes, is not known because a part of the page
    /// map, the descriptor or its arena is not in the core.
    pub(super) fn is_undescribed(&self, at: Address) -> bool {
        let located = &self.located;
        let memory = self.target.memory;
        let mut cursor = Cursor::new(memory);
        let mut at = at;
        if located.arenas.is_own(at) {
            let Some(row) = Row::read(&mut cursor, &located.layout, at) else {
                return false;
            };
            at = row.start();
        }
        if located.extents.at(at).is_some() {
            return false;
        }
        let page = at.get() >> Tree::PAGE_SHIFT;
        let Some(element) = located.tree.element_at(page) else {
            let is_heap = memory.region_at(at).is_some_and(|area| area.writable);
            return is_heap && (located.tree.missing > 0 || located.arenas.is_cut);
        };
        let extent = located.tree.extent_of_page(&mut cursor, page);
        memory.is_absent(element)
            || memory.is_absent(extent)
            || located.arenas.is_cut && !located.arenas.is_own(extent)
    }

    /// An entry of a cache, for people.
    pub(super) fn cache_edge(&self, bin: &Bin, user: User, position: u64, word: Address) -> Edge {
        Edge {
            list: ListRef {
                holder: HolderKind::CacheArray,
                thread: match user {
                    User::Thread(thread) => self.presences.tid(thread),
                    User::Explicit | User::Vanished => None,
                },
                at: bin.at,
                head_word: word,
                class: bin.class,
                class_bytes: self.located.sizes.bytes(bin.class),
            },
            position,
            from: None,
        }
    }

    /// The mark of a block in its slab, if it says that the block is free.
    pub(super) fn slab_edge(&self, map: &HeapMap, id: BlockId) -> Option<Edge> {
        let extent = map.extent(id.extent)?;
        let row = self.located.extents.at(extent.start)?;
        let cut = self.slab_class(row)?;
        let group = id.slot / 64;
        let (_, word) = self
            .bitmap(row, cut.regions)
            .nth(usize::try_from(group).ok()?)?;
        (word? >> (id.slot % 64) & 1 == 1).then(|| Edge {
            list: ListRef {
                holder: HolderKind::Slab,
                thread: None,
                at: row.at,
                head_word: row.at.saturating_add(
                    self.located
                        .layout
                        .extent
                        .bitmap
                        .saturating_add(u64::from(group) * 8),
                ),
                class: row.class,
                class_bytes: cut.bytes.into(),
            },
            position: id.slot.into(),
            from: None,
        })
    }
}
