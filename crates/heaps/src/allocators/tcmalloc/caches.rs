//! Thread caches, their owners, and the central lists' transfer slots.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::locate::Located;
use super::structure;
use ground::target::{Address, MemoryExt, Target};

/// A `ThreadCache`.
#[derive(Clone, Copy, Debug)]
pub struct Cache {
    /// Address.
    pub at: Address,
    /// Index of the owning thread in the target's threads, if it could be told.
    pub owner: Option<usize>,
}

/// One `FreeList` of a cache.
#[derive(Clone, Copy, Debug)]
pub struct CacheList {
    /// Address of the `FreeList`.
    pub at: Address,
    /// First entry.
    pub head: Address,
    /// Entries that the cache believes in.
    pub length: u32,
}

/// A link of the list of caches that is not as it should be.
#[derive(Clone, Copy, Debug)]
pub struct BrokenLink {
    /// The cache that it belongs to.
    pub of: Address,
    /// The word.
    pub at: Address,
    /// What it holds.
    pub found: Address,
    /// The cache that the link leads away from.
    by: Address,
    /// No work on the list leaves that: it names no cache at all, or it is null although a thread that uses its cache, and
    /// so is on the list, is behind it.
    pub impossible: bool,
}

/// All thread caches, by address.
pub struct Caches {
    /// The caches.
    pub rows: Vec<Cache>,
    /// Links of the list of caches that do not lead to a cache, or do not lead back.
    pub broken_links: Vec<BrokenLink>,
    /// Entries reached from `thread_heaps_` and the other pointers.
    located: LocatedCaches,
}

#[derive(Clone, Copy)]
struct LocatedCaches {
    lists: u32,
    stride: u32,
}

/// More caches than any process has threads.
const MAX_CACHES: usize = 1 << 20;
/// Bytes below the thread pointer that hold the module's thread-local words, at most.
const TLS_BYTES: u64 = 0x4000;

impl Caches {
    /// Follows the list of caches in both directions from every known one, and finds the owners.
    pub fn read(target: Target<'_>, located: &Located) -> Self {
        let layout = &located.layout.cache;
        let memory = target.memory;
        let mut found: BTreeSet<Address> = BTreeSet::new();
        let mut broken_links = Vec::new();
        let mut todo = located.caches.clone();
        let mut named: HashSet<Address> = HashSet::new();
        loop {
            let Some(at) = todo.pop() else {
                // Threads name their caches, too: those that a damaged link cut off.
                if !named.is_empty() {
                    break;
                }
                named = named_by_threads(target, &found, |at| {
                    structure::is_cache(memory, at, layout, &located.sizes)
                });
                if named.is_empty() {
                    break;
                }
                todo.extend(&named);
                continue;
            };
            if found.len() >= MAX_CACHES || !found.insert(at) {
                continue;
            }
            for (link, back) in [(layout.next, layout.prev), (layout.prev, layout.next)] {
                let Ok(word) = link.read(memory, at) else {
                    continue;
                };
                let other = Address::new(word);
                if other.is_null() {
                    continue;
                }
                if !structure::is_cache(memory, other, layout, &located.sizes) {
                    broken_links.push(BrokenLink {
                        of: at,
                        at: link.at(at),
                        found: other,
                        by: other,
                        impossible: memory.read_u64(other).is_ok()
                            || memory.region_at(other).is_none(),
                    });
                    continue;
                }
                // A value that is no cache is said with the cache that holds it.
                if let Ok(word) = back.read(memory, other)
                    && word != at.get()
                    && (word == 0
                        || structure::is_cache(memory, Address::new(word), layout, &located.sizes))
                {
                    broken_links.push(BrokenLink {
                        of: other,
                        at: back.at(other),
                        found: Address::new(word),
                        by: at,
                        impossible: false,
                    });
                }
                todo.push(other);
            }
        }
        // A thread names its cache once that is on the list, and until it is taken off. (What is put on is first.)
        for link in broken_links.iter_mut().filter(|link| link.found.is_null()) {
            let linked = named.contains(&link.of) || link.at == layout.prev.at(link.of);
            link.impossible |= linked && named.contains(&link.by);
        }
        let mut rows: Vec<Cache> = found
            .into_iter()
            .map(|at| Cache { at, owner: None })
            .collect();
        assign_owners(target, located, &mut rows);
        let located = LocatedCaches {
            lists: layout.lists,
            stride: layout.list_stride,
        };
        Self {
            rows,
            broken_links,
            located,
        }
    }

    /// The list of a class in a cache.
    pub fn list(
        &self,
        target: Target<'_>,
        located: &Located,
        cache: usize,
        class: u16,
    ) -> Option<CacheList> {
        let at = self.list_at(cache, class)?;
        let layout = &located.layout.cache;
        Some(CacheList {
            at,
            head: Address::new(layout.head.read(target.memory, at).ok()?),
            length: u32::try_from(layout.length.read(target.memory, at).ok()?).ok()?,
        })
    }

    /// Address of the `FreeList` of a class in a cache.
    pub fn list_at(&self, cache: usize, class: u16) -> Option<Address> {
        let offset = u64::from(self.located.lists)
            .saturating_add(u64::from(class).saturating_mul(u64::from(self.located.stride)));
        self.rows.get(cache)?.at.checked_add(offset)
    }
}

/// Finds each cache's thread: by the `pthread_t` that older releases record (glibc's is the thread
/// pointer), else by the thread-local word that holds the cache, which lies at the same distance
/// from the thread pointer in every thread.
fn assign_owners(target: Target<'_>, located: &Located, caches: &mut [Cache]) {
    let threads = target.threads.list();
    if let Some(tid) = located.layout.cache.tid {
        for cache in caches.iter_mut() {
            let recorded = tid
                .read(target.memory, cache.at)
                .ok()
                .filter(|tid| *tid != 0)
                .map(Address::new);
            cache.owner = threads
                .iter()
                .position(|thread| recorded.is_some() && thread.thread_pointer == recorded);
        }
        return;
    }
    let known: HashMap<Address, usize> = caches
        .iter()
        .enumerate()
        .map(|(index, cache)| (cache.at, index))
        .collect();
    let Some((distance, _)) = distance_in_threads(target, |at| known.contains_key(&at)) else {
        return;
    };
    for (thread, named) in words_at(target, distance) {
        if let Some(cache) = known.get(&named).and_then(|index| caches.get_mut(*index)) {
            cache.owner.get_or_insert(thread);
        }
    }
}

/// The distance from the thread pointer at which most threads have a word that `is_known`, and how many.
fn distance_in_threads(
    target: Target<'_>,
    is_known: impl Fn(Address) -> bool,
) -> Option<(u64, usize)> {
    let mut votes: HashMap<u64, usize> = HashMap::new();
    for state in target.threads.list() {
        let Some(pointer) = state.thread_pointer else {
            continue;
        };
        for distance in (8..TLS_BYTES).step_by(8) {
            let word = pointer
                .checked_sub(distance)
                .map(|at| target.memory.read_pointer(at));
            let Some(Ok(word)) = word else {
                break;
            };
            if is_known(word) {
                {
                    let slot = votes.entry(distance).or_default();
                    *slot = slot.saturating_add(1);
                };
            }
        }
    }
    votes
        .into_iter()
        .max_by_key(|(distance, threads)| (*threads, std::cmp::Reverse(*distance)))
}

/// Each thread's word at a distance from its thread pointer.
fn words_at(target: Target<'_>, distance: u64) -> impl Iterator<Item = (usize, Address)> {
    target
        .threads
        .list()
        .iter()
        .enumerate()
        .filter_map(move |(thread, state)| {
            let at = state.thread_pointer?.checked_sub(distance)?;
            Some((thread, target.memory.read_pointer(at).ok()?))
        })
}

/// The caches that threads name as theirs, if at least two of them name known ones at the same place.
fn named_by_threads(
    target: Target<'_>,
    found: &BTreeSet<Address>,
    is_cache: impl Fn(Address) -> bool,
) -> HashSet<Address> {
    match distance_in_threads(target, |at| found.contains(&at)) {
        Some((distance, 2..)) => words_at(target, distance)
            .map(|(_, named)| named)
            .filter(|named| found.contains(named) || is_cache(*named))
            .collect(),
        _ => HashSet::new(),
    }
}

/// A class's central list, without its spans.
#[derive(Clone, Debug)]
pub struct Central {
    /// Address of the `CentralFreeList`.
    pub at: Address,
    /// Its lock word; 0 when free.
    pub lock: u32,
    /// Slots in use, as recorded.
    pub used_slots: u32,
    /// Heads and tails of the slots that hold a chain.
    pub slots: Vec<Slot>,
}

/// A transfer cache slot.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    /// Address of the slot.
    pub at: Address,
    /// First entry of its chain.
    pub head: Address,
    /// Last entry.
    pub tail: Address,
}

impl Central {
    /// Reads the list of `class`. The newest slot is left out while the lock is held: the count is
    /// raised before the slot is written.
    pub fn read(target: Target<'_>, located: &Located, class: u16) -> Option<Self> {
        let layout = &located.layout.central;
        let memory = target.memory;
        let at = located
            .central
            .checked_add(u64::from(class).saturating_mul(u64::from(layout.stride)))?;
        let lock = u32::try_from(layout.lock.read(memory, at).ok()?).ok()?;
        let used_slots = u32::try_from(layout.used_slots.read(memory, at).ok()?).ok()?;
        let held = (1..=2).contains(&lock);
        let trusted = if !held {
            used_slots
        } else {
            used_slots.saturating_sub(1)
        };
        let trusted = if used_slots <= layout.slot_count {
            trusted
        } else {
            0
        };
        let slots = (0..trusted)
            .filter_map(|slot| {
                let at =
                    at.checked_add(u64::from(layout.slots).saturating_add(u64::from(slot) * 16))?;
                Some(Slot {
                    at,
                    head: memory.read_pointer(at).ok()?,
                    tail: memory.read_pointer(at.checked_add(8)?).ok()?,
                })
            })
            .collect();
        Some(Self {
            at,
            lock,
            used_slots,
            slots,
        })
    }
}
