//! Thread caches: where they are, whose they are, what they hold.
//!
//! A cache is a part of the thread's state (`tsd_t`), which lies at one distance below the thread pointer in every
//! thread. From 5.3 on its two halves point at each other, wherever they are:
//!
//! ```text
//! tcache_t      +0 ──> tcache_slow_t   +8 bins
//! tcache_slow_t +0 links  +40 arena  ...  block of the entries, +8 ──> tcache_t
//! ```
//!
//! Before, the thread's two arenas and its cached leaves tell (`arena`, `rtree_ctx`). Caches that threads share
//! (`tcache.create`), and those of threads that a fork left behind, stand on the arenas' lists only.

mod places;

use std::collections::{BTreeMap, HashSet};

use super::layout::Generation;
use super::locate::Located;
use crate::allocators::books::Suspect;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason};
use ground::target::{Address, Cursor, MemoryExt, Target, TargetMemory};

/// Bins' entries that are believed at most.
pub const MAX_ENTRIES: u32 = 8191;
/// Bytes of `cache_bin_t`.
const BIN: u64 = 24;
/// Offset of the arena in `tcache_slow_t` (5.3).
const SLOW_ARENA: u64 = 40;
/// Distances below the thread pointer where a thread's state may begin.
const DISTANCES: std::ops::Range<u64> = 0x100..0x8000;
/// Where in `tcache_slow_t` the pointer to `tcache_t` may be.
const BACK: std::ops::Range<u64> = 0xa0..0x140;
/// Caches of `tcache.create` have the bins of all classes between their halves.
const MAX_APART: u64 = 0x1000;
/// Caches on one arena's list.
const MAX_CACHES: usize = 1 << 20;

/// Who uses a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// The thread at this index of the target's threads.
    Thread(usize),
    /// Whoever names it in a call: made by `tcache.create`.
    Explicit,
    /// A thread that is not in the core.
    Vanished,
}

/// One bin of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Its `cache_bin_t`.
    pub at: Address,
    /// Size class.
    pub class: u16,
    /// The word of the entry that malloc takes next; the others follow.
    pub first: Address,
    /// Entries.
    pub count: u32,
    /// Entries that it can hold, where it says so.
    pub capacity: Option<u32>,
}

/// A cache.
#[derive(Clone, Debug)]
pub struct Cache {
    /// Its `tcache_t`.
    pub at: Address,
    /// Who uses it.
    pub user: User,
    /// The arena that it is filled from.
    pub arena: Address,
    /// Blocks that the allocator took for it, as it names them: any address inside.
    pub own: Vec<Address>,
    /// Bins that hold something.
    pub bins: Vec<Bin>,
    /// Words of it that contradict the others: of a `cache_bin_t`, or of the `tcache_t`.
    pub broken: Vec<Suspect>,
}

/// Finds and reads all caches: those of threads in their order, then the others by address.
pub fn read(target: Target<'_>, located: &Located) -> Vec<Cache> {
    let mut caches = if located.layout.generation.is_5_3() {
        of_threads_new(target, located)
    } else {
        of_threads_old(target, located)
    };
    let mut known: HashSet<Address> = caches.iter().map(|cache| cache.at).collect();
    for arena in &located.arenas.rows {
        on_list(target.memory, located, arena.at, &mut known, &mut caches);
    }
    caches
}

/// What a distance below the thread pointer leads to in each thread that has it.
type Votes = BTreeMap<u64, Vec<(usize, Halves)>>;

/// The two halves of a cache.
#[derive(Clone, Copy)]
struct Halves {
    cache: Address,
    slow: Address,
    /// Of the pointer to the cache in the slow half.
    back: Address,
}

fn best(votes: Votes) -> Vec<(usize, Halves)> {
    let best = votes
        .into_iter()
        .max_by_key(|(distance, found)| (found.len(), std::cmp::Reverse(*distance)));
    best.map(|(_, found)| found).unwrap_or_default()
}

fn of_threads_new(target: Target<'_>, located: &Located) -> Vec<Cache> {
    let mut votes = Votes::new();
    for (thread, state) in target.threads.list().iter().enumerate() {
        let Some(pointer) = state.thread_pointer else {
            continue;
        };
        let mut cursor = Cursor::new(target.memory);
        for distance in DISTANCES.step_by(8) {
            let Some(at) = pointer.checked_sub(distance) else {
                break;
            };
            if let Some(halves) = halves_at(&mut cursor, at) {
                votes.entry(distance).or_default().push((thread, halves));
            }
        }
    }
    let found = best(votes);
    let known: HashSet<usize> = found.iter().map(|(thread, _)| *thread).collect();
    // What lies below a thread pointer may be another thread's.
    let taken: HashSet<Address> = found.iter().map(|(_, halves)| halves.cache).collect();
    let mut caches: Vec<(usize, Cache)> = found
        .into_iter()
        .filter_map(|(thread, halves)| {
            let cache = new_cache(target.memory, located, halves, User::Thread(thread))?;
            Some((thread, cache))
        })
        .collect();
    for (thread, state) in target.threads.list().iter().enumerate() {
        if !known.contains(&thread)
            && let Some(pointer) = state.thread_pointer
            && !is_absent_below(target.memory, pointer)
            && let Some(cache) = of_half(target.memory, located, pointer, User::Thread(thread))
            && !taken.contains(&cache.at)
        {
            caches.push((thread, cache));
        }
    }
    caches.sort_by_key(|(thread, _)| *thread);
    caches.into_iter().map(|(_, cache)| cache).collect()
}

/// Whether a part of what a thread keeps below its pointer is not in the core.
fn is_absent_below(memory: &dyn TargetMemory, pointer: Address) -> bool {
    let page = usize::try_from(memory.abi().page_bytes).unwrap_or(usize::MAX);
    let mut places = (0..DISTANCES.end).step_by(page.max(1));
    places.any(|distance| {
        pointer
            .checked_sub(distance)
            .is_some_and(|at| memory.is_absent(at))
    })
}

/// Threads whose caches were not found because a part of what they keep below their pointers is not in the core.
pub fn absent_threads(target: Target<'_>, caches: &[Cache]) -> usize {
    let threads = target.threads.list().iter().enumerate();
    let absent = threads.filter(|(index, state)| {
        let known = |cache: &Cache| cache.user == User::Thread(*index);
        let pointer = state.thread_pointer;
        !caches.iter().any(known)
            && pointer.is_some_and(|pointer| is_absent_below(target.memory, pointer))
    });
    absent.count()
}

/// A cache whose fast half has lost its pointer to the slow one, which still points back.
fn of_half(
    memory: &dyn TargetMemory,
    located: &Located,
    thread: Address,
    user: User,
) -> Option<Cache> {
    let mut cursor = Cursor::new(memory);
    let first = thread.checked_sub(DISTANCES.end)?;
    (0..DISTANCES.end / 8).find_map(|index| {
        let back = first.checked_add(index.saturating_mul(8))?;
        let cache = Address::new(cursor.read_u64(back).ok()?);
        let near = cache.get().abs_diff(back.get()) <= MAX_APART;
        if !near || !cache.is_aligned(8) || cache == back || thread <= cache {
            return None;
        }
        // Not lost at all: another thread's, whose own distance is another one.
        if halves_at(&mut cursor, cache).is_some() {
            return None;
        }
        let entries = cursor.read_u64(back.checked_sub(8)?).ok()?;
        let bins = places::new_bins(memory, located, cache);
        if !places::in_order(&bins, entries.checked_add(8)) {
            return None;
        }
        let slow = BACK.step_by(8).find_map(|offset| {
            let slow = back.checked_sub(offset)?;
            let arena = memory.read_pointer(slow.checked_add(SLOW_ARENA)?).ok()?;
            located.arenas.is_arena(arena).then_some(slow)
        })?;
        let mut found = new_cache(memory, located, Halves { cache, slow, back }, user)?;
        found.broken.push(Suspect {
            word: BrokenWord {
                of: cache,
                at: cache,
                what: Field::TcacheTcacheSlow,
                expected: Expected::Exactly(slow.into(), Reason::PointsBack),
                found: memory.read_pointer(cache).unwrap_or_default().into(),
            },
            impossible: true,
        });
        Some(found)
    })
}

/// The halves of a cache whose fast one is at `cache`, if they point at each other.
fn halves_at(cursor: &mut Cursor<'_>, cache: Address) -> Option<Halves> {
    let slow = Address::new(cursor.read_u64(cache).ok()?);
    // Both halves are members of one structure, or of one allocation.
    if slow.get().abs_diff(cache.get()) > MAX_APART || !slow.is_aligned(8) || slow.is_null() {
        return None;
    }
    BACK.step_by(8).find_map(|offset| {
        let back = slow.checked_add(offset)?;
        (cursor.read_u64(back).ok()? == cache.get()).then_some(Halves { cache, slow, back })
    })
}

fn new_cache(
    memory: &dyn TargetMemory,
    located: &Located,
    halves: Halves,
    user: User,
) -> Option<Cache> {
    let word = halves.slow.checked_add(SLOW_ARENA)?;
    let arena = memory.read_pointer(word).ok()?;
    let entries = memory.read_pointer(halves.back.checked_sub(8)?).ok()?;
    let bins = places::new_bins(memory, located, halves.cache);
    let mut cache = Cache {
        at: halves.cache,
        user,
        arena,
        own: vec![entries],
        bins: Vec::new(),
        broken: Vec::new(),
    };
    let before = entries.get().checked_add(8);
    if !located.arenas.is_arena(arena) {
        if arena.is_null() || !places::in_order(&bins, before) {
            return None; // switched off, or never used
        }
        cache.broken.push(Suspect {
            word: BrokenWord {
                of: cache.at,
                at: word,
                what: Field::TcacheSlowArena,
                expected: Expected::Is(Property::Arena),
                found: arena.into(),
            },
            impossible: true,
        });
    }
    let resizes = located.layout.generation == Generation::V5_3_1;
    cache.add_all(&bins, before, resizes);
    Some(cache)
}

impl Cache {
    /// Adds what bins hold; those that contradict themselves or their neighbours are left out.
    fn add_all(&mut self, bins: &[places::Placed], before: Option<u64>, resizes: bool) {
        let misplaced = places::misplaced(bins, before);
        let last = bins.iter().rposition(places::Placed::is_sound).unwrap_or(0);
        for (index, (bin, misplaced)) in bins.iter().zip(misplaced).enumerate() {
            // Where caches can change their size, bins behind it may be old ones.
            match bin.broken(misplaced, !resizes && index < last) {
                Some(broken) => self.broken.push(broken),
                None if bin.count > 0 => self.bins.push(Bin {
                    at: bin.at,
                    class: bin.class,
                    first: bin.first,
                    count: u32::try_from(bin.count).unwrap_or(0),
                    capacity: u32::try_from(bin.capacity).ok(),
                }),
                None => {}
            }
        }
    }
}

fn of_threads_old(target: Target<'_>, located: &Located) -> Vec<Cache> {
    let layout = &located.layout.thread;
    let mut votes: BTreeMap<u64, Vec<(usize, Address)>> = BTreeMap::new();
    for (thread, state) in target.threads.list().iter().enumerate() {
        let Some(pointer) = state.thread_pointer else {
            continue;
        };
        let mut cursor = Cursor::new(target.memory);
        for distance in DISTANCES.step_by(8) {
            let Some(at) = pointer.checked_sub(distance) else {
                break;
            };
            if is_thread_state(&mut cursor, located, at) {
                votes.entry(distance).or_default().push((thread, at));
            }
        }
    }
    let best = votes
        .into_iter()
        .max_by_key(|(distance, found)| (found.len(), std::cmp::Reverse(*distance)));
    best.map(|(_, found)| found)
        .unwrap_or_default()
        .into_iter()
        .filter_map(|(thread, state)| {
            let mut cache = old_cache(
                target.memory,
                located,
                state.checked_add(layout.cache)?,
                User::Thread(thread),
            )?;
            // The word behind the arenas: a small array, one per thread.
            let clocks = target
                .memory
                .read_pointer(state.checked_add(layout.arena.saturating_add(8))?);
            cache.own.extend(clocks.ok());
            Some(cache)
        })
        .collect()
}

/// Whether a thread's state may begin at `at` (5.0 to 5.2): its arenas exist, its cached leaves have proper keys.
fn is_thread_state(cursor: &mut Cursor<'_>, located: &Located, at: Address) -> bool {
    const LEAVES: u64 = 24;
    /// What a leaf spans at least.
    const SPAN: u64 = 1 << 27;
    let layout = &located.layout.thread;
    let mut read = |offset: u64| cursor.read_u64(at.checked_add(offset)?).ok();
    let mut arena =
        |offset| read(offset).is_some_and(|word| located.arenas.is_arena(Address::new(word)));
    arena(layout.arena)
        && arena(layout.arena.saturating_sub(8))
        && (0..LEAVES).all(|index| {
            read(layout.leaves.saturating_add(index.saturating_mul(16)))
                .is_some_and(|key| key <= 1 || key % SPAN == 0)
        })
}

fn old_cache(
    memory: &dyn TargetMemory,
    located: &Located,
    at: Address,
    user: User,
) -> Option<Cache> {
    let layout = &located.layout.thread;
    let arena = memory
        .read_pointer(at.checked_add(layout.cache_arena)?)
        .ok()?;
    if !located.arenas.is_arena(arena) {
        return None; // switched off, or never used
    }
    let mut cache = Cache {
        at,
        user,
        arena,
        own: Vec::new(),
        bins: Vec::new(),
        broken: Vec::new(),
    };
    let bins = places::old_bins(memory, located, at);
    // Entries of all bins are one block; those of the first come first.
    let first = bins.first().filter(|bin| bin.class == 0);
    cache
        .own
        .extend(first.and_then(|bin| Address::new(bin.end).checked_sub(8)));
    cache.add_all(&bins, None, false);
    Some(cache)
}

/// Adds the caches on an arena's list that are not known yet. The list exists only in builds with statistics.
fn on_list(
    memory: &dyn TargetMemory,
    located: &Located,
    arena: Address,
    known: &mut HashSet<Address>,
    out: &mut Vec<Cache>,
) {
    let new = located.layout.generation.is_5_3();
    // The list's members are slow halves, or caches whose link lies before the arena.
    let link = match new {
        true => 0,
        false => located
            .layout
            .thread
            .bins
            .saturating_add(BIN * u64::from(located.layout.quantum.bins())),
    };
    let Ok(first) = memory.read_pointer(arena.saturating_add(located.layout.arena.caches)) else {
        return;
    };
    let mut at = first;
    let mut seen = HashSet::new();
    while !at.is_null() && seen.len() < MAX_CACHES && seen.insert(at) {
        let cache = match new {
            true => of_slow_half(memory, at)
                .and_then(|halves| new_cache(memory, located, halves, User::Vanished)),
            false => old_cache(memory, located, at, User::Vanished),
        };
        if let Some(mut cache) = cache
            && (cache.arena == arena || !located.arenas.is_arena(cache.arena))
            && known.insert(cache.at)
        {
            let inside = |own: &Address| {
                let extent = located.extents.at(*own);
                extent.is_some_and(|extent| (extent.start()..extent.end()).contains(&cache.at))
            };
            if cache.own.iter().any(inside) {
                cache.user = User::Explicit;
            }
            out.push(cache);
        }
        match memory.read_pointer(at.saturating_add(link)) {
            Ok(next) if next != first => at = next,
            _ => break,
        }
    }
}

/// The halves of a cache whose slow one is at `slow`.
fn of_slow_half(memory: &dyn TargetMemory, slow: Address) -> Option<Halves> {
    let mut cursor = Cursor::new(memory);
    BACK.step_by(8).find_map(|offset| {
        let back = slow.checked_add(offset)?;
        let cache = Address::new(cursor.read_u64(back).ok()?);
        let halves = halves_at(&mut cursor, cache)?;
        (halves.slow == slow).then_some(halves)
    })
}
