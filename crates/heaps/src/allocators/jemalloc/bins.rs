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
use crate::anomaly::{Expected, Lock, Proof, Property, Reason, Transient};
use ground::target::{Address, Cursor, MemoryExt};

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
    /// The first link that leads to no descriptor of the allocator's, or to one met before, or to one that does not lead
    /// back.
    pub broken: Option<BrokenLink>,
}

/// A word on the way through a heap.
#[derive(Clone, Debug)]
pub struct BrokenLink {
    /// The descriptor that it belongs to, or that should stand there.
    pub of: Option<Address>,
    /// The word.
    pub at: Address,
    /// It is the page map's.
    pub in_page_map: bool,
    /// What it should hold.
    pub expected: Expected,
    /// What it holds.
    pub found: Address,
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
            array.checked_add(u64::from(row.shard).saturating_mul(layout.bin.bytes))?
        } else {
            let index = u64::from(class.first_bin).saturating_add(u64::from(row.shard));
            bins.checked_add(index.saturating_mul(layout.bin.bytes))?
        };
        Some(ArenaBin {
            at,
            arena: row.arena,
            class: row.class,
            shard: row.shard,
        })
    }

    /// Who holds a mutex, if somebody does.
    pub(super) fn lock_held(&self, mutex: Address, of: Lock) -> Option<Transient> {
        let memory = self.target.memory;
        let lock = mutex.saturating_add(self.located.layout.lock);
        let word = memory.read_u32(lock).ok().filter(|word| *word != 0)?;
        let owner = memory
            .read_u32(lock.saturating_add(8))
            .ok()
            .filter(|owner| *owner != 0);
        Some(Transient {
            thread: owner,
            proof: Proof::Held {
                lock: of,
                at: mutex,
                word,
            },
        })
    }

    /// The descriptor that a word is in, if it is in one.
    pub(super) fn owner_of_link(&self, word: Address) -> Option<Address> {
        let located = &self.located;
        let at = Address::new(word.get() & !located.layout.extent.alignment.saturating_sub(1));
        if !located.arenas.is_own(at) {
            return None;
        }
        if located
            .extents
            .repairs
            .iter()
            .any(|repair| repair.suspect.word.of == at)
        {
            return Some(at);
        }
        // Arenas and bins lie in the same memory, and descriptors that are not used.
        let mut cursor = Cursor::new(self.target.memory);
        let row = Row::read(&mut cursor, &located.layout, at)?;
        let mut named = |page| located.tree.extent_of_page(&mut cursor, page) == at;
        let known = located
            .extents
            .at(row.start())
            .is_some_and(|known| known.at == at);
        let described = known || named(row.first_page()) || named(row.last_page());
        described.then_some(at)
    }

    /// The element of the page that a descriptor describes, if it is its only one and names nothing: the descriptor itself
    /// makes sense. With what it holds.
    pub(super) fn unnamed(&self, at: Address) -> Option<(Address, Address)> {
        let located = &self.located;
        let sound = at.is_aligned(located.layout.extent.alignment) && located.arenas.is_own(at);
        let mut cursor = Cursor::new(self.target.memory);
        let row = sound.then(|| Row::read(&mut cursor, &located.layout, at))??;
        let single = row.first_page() == row.last_page();
        let exists = located.arenas.get(row.arena).is_some();
        let nobody = located.extents.at(row.start()).is_none();
        let element = located.tree.element_at(row.first_page())?;
        let named = located.tree.element(&mut cursor, element)?.extent;
        (single && exists && nobody && named.is_null()).then_some((element, named))
    }

    /// Slabs in a bin's heap.
    pub(super) fn nonfull(&self, bin: ArenaBin) -> Heaped {
        let most = self.located.extents.rows.len();
        self.heaped(bin.at.saturating_add(self.located.layout.bin.nonfull), most)
    }

    /// Extents in the heap whose root the word `root` names: `most` of them, and a few more.
    pub(super) fn heaped(&self, root: Address, most: usize) -> Heaped {
        const MORE: usize = 16;
        let memory = self.target.memory;
        let layout = &self.located.layout;
        let mut heaped = Heaped::default();
        let mut seen = HashSet::new();
        // The word of a link, and the extent that it belongs to.
        let mut todo = vec![(root, Address::default())];
        while let Some((word, owner)) = todo.pop()
            && heaped.members.len() <= most.saturating_add(MORE)
        {
            let Ok(member) = memory.read_pointer(word) else {
                continue;
            };
            if member.is_null() {
                continue;
            }
            let named = member.is_aligned(layout.extent.alignment)
                && self.owner_of_link(member) == Some(member);
            let missing = if named { None } else { self.unnamed(member) };
            if !(named || missing.is_some()) || !seen.insert(member) {
                heaped.broken.get_or_insert(BrokenLink {
                    of: self.owner_of_link(word),
                    at: word,
                    in_page_map: false,
                    expected: Expected::Is(Property::NewDescriptorOrNull),
                    found: member,
                });
                continue;
            }
            if let Some((at, found)) = missing {
                heaped.broken.get_or_insert(BrokenLink {
                    of: Some(at),
                    at,
                    in_page_map: true,
                    expected: Expected::Is(Property::Descriptor(member)),
                    found,
                });
            }
            heaped.members.push(member);
            // prev, next, left child: siblings, and the first of its children.
            let link = member.saturating_add(layout.extent.heap_link);
            if let Ok(back) = memory.read_pointer(link)
                && !owner.is_null()
                && back != owner
            {
                heaped.broken.get_or_insert(BrokenLink {
                    of: Some(member),
                    at: link,
                    in_page_map: false,
                    expected: Expected::Exactly(owner.into(), Reason::LeadsHere),
                    found: back,
                });
            }
            todo.push((link.saturating_add(8), member));
            todo.push((link.saturating_add(16), member));
        }
        heaped
    }

    /// Why a slab's own words prove nothing: its bin is being worked on, or it may have been made just now and is in no
    /// bin yet.
    pub(super) fn slab_busy(&self, row: &Row) -> Option<Transient> {
        let Some(bin) = self.bin_of(row) else {
            return self.somebody_inside_or_gone();
        };
        let held = self.lock_held(bin.at, Lock::Bin);
        if held.is_some() {
            return held;
        }
        let current = bin.at.saturating_add(self.located.layout.bin.current);
        let linked = self.target.memory.read_pointer(current) == Ok(row.at)
            || self.nonfull(bin).members.contains(&row.at);
        if linked {
            None
        } else {
            self.somebody_inside_or_gone()
        }
    }
}
