//! Bins: where an arena's slabs of one class with room are.
//!
//! ```text
//! bin_t: lock, slabcur ──> extent             regions are taken from it
//!              slabs_nonfull ──> pairing heap  slabs with some regions in use and some free
//!              statistics: regions in use, slabs
//! ```
//!
//! Full slabs stand in no list of an automatic arena. The heap's root has siblings: inserted since the last removal.

use std::collections::HashSet;

use super::JemallocHeap;
use super::extents::Row;
use crate::anomaly::Transient;
use crate::target::{Address, MemoryExt};

/// A bin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArenaBin {
    /// Its `bin_t`.
    pub at: Address,
    /// Place of its arena.
    pub arena: u16,
    /// Size class.
    pub class: u16,
    /// Its shard.
    pub shard: u8,
}

/// A walk through a heap of slabs.
#[derive(Clone, Debug, Default)]
pub struct Heaped {
    /// Descriptors met, in order.
    pub members: Vec<Address>,
    /// The first link that leads to no descriptor of the allocator's, or to one met before: its word and its value.
    pub broken: Option<(Address, Address)>,
}

impl JemallocHeap<'_> {
    /// The bin that a slab belongs to.
    pub(super) fn bin_of(&self, row: &Row) -> Option<ArenaBin> {
        let arena = self.located.arenas.get(row.arena)?;
        let class = self.located.sizes.small(row.class)?;
        if u32::from(row.shard) >= class.shards {
            return None;
        }
        let layout = &self.located.layout;
        let bins = arena.at.checked_add(layout.arena.bins)?;
        let at = if layout.arena.bin_arrays {
            let array = bins.checked_add(u64::from(row.class) * 8)?;
            let array = self.target.memory.read_pointer(array).ok()?;
            array.checked_add(u64::from(row.shard) * layout.bin.bytes)?
        } else {
            let index = u64::from(class.first_bin) + u64::from(row.shard);
            bins.checked_add(index * layout.bin.bytes)?
        };
        Some(ArenaBin {
            at,
            arena: row.arena,
            class: row.class,
            shard: row.shard,
        })
    }

    /// Who holds a mutex, if somebody does.
    pub(super) fn lock_held(&self, mutex: Address, what: &str) -> Option<Transient> {
        let memory = self.target.memory;
        let lock = mutex.saturating_add(self.located.layout.lock);
        let word = memory.read_u32(lock).ok().filter(|word| *word != 0)?;
        let owner = memory
            .read_u32(lock.saturating_add(8))
            .ok()
            .filter(|owner| *owner != 0);
        Some(Transient {
            thread: owner,
            proof: format!("the mutex of {what} at {mutex} is held (its lock word is {word})"),
        })
    }

    /// Slabs in a bin's heap. Bounded by the number of extents.
    pub(super) fn nonfull(&self, bin: ArenaBin) -> Heaped {
        let memory = self.target.memory;
        let layout = &self.located.layout;
        let mut heaped = Heaped::default();
        let mut seen = HashSet::new();
        let mut todo = vec![bin.at.saturating_add(layout.bin.nonfull)];
        while let Some(word) = todo.pop() {
            let Ok(member) = memory.read_pointer(word) else {
                continue;
            };
            if member.is_null() {
                continue;
            }
            let sound =
                member.is_aligned(layout.extent.alignment) && self.located.arenas.is_own(member);
            if !sound || !seen.insert(member) {
                heaped.broken.get_or_insert((word, member));
                continue;
            }
            heaped.members.push(member);
            // prev, next, left child: siblings, and the first of its children.
            let link = member.saturating_add(layout.extent.heap_link);
            todo.push(link.saturating_add(8));
            todo.push(link.saturating_add(16));
        }
        heaped
    }

    /// Why a slab's own words prove nothing: its bin is being worked on, or it may have been made just now and is in no
    /// bin yet.
    pub(super) fn slab_busy(&self, row: &Row) -> Option<Transient> {
        let Some(bin) = self.bin_of(row) else {
            return self.somebody_inside();
        };
        let held = self.lock_held(bin.at, "its bin");
        if held.is_some() {
            return held;
        }
        let current = bin.at.saturating_add(self.located.layout.bin.current);
        let linked = self.target.memory.read_pointer(current) == Ok(row.at)
            || self.nonfull(bin).members.contains(&row.at);
        if linked { None } else { self.somebody_inside() }
    }
}
