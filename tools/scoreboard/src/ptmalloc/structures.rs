//! Stray words in malloc's own structures.

use heapcheck::checks::finding::FindingKind;

use super::ground::{Ground, Kind};
use super::layout::{HEADER, HEAP_MAX};
use super::writes::word;
use crate::plant::{Evidence, Plant, Truth};

/// A stray word at `at`. `evidence` decides from the old and the new word.
fn stray(
    ground: &Ground<'_>,
    rng: &mut fastrand::Rng,
    at: u64,
    what: &str,
    addresses: &[(u64, u64)],
    evidence: impl Fn(u64, u64) -> Evidence,
) -> Option<Plant> {
    let old = ground.word(at)?;
    let (value, new) = word(ground, rng);
    let mut truth = Truth::silence();
    truth.evidence = if old == new {
        Evidence::Absent
    } else {
        evidence(old, new)
    };
    truth.kinds = vec![FindingKind::CorruptMetadata, FindingKind::CountMismatch];
    truth.addresses = addresses.to_vec();
    truth.addresses.push((at, at + 8));
    Some(Plant {
        story: format!("{value} ({new:#x}) over {old:#x}, {what} at {at:#x}"),
        writes: vec![(at, new.to_le_bytes().to_vec())],
        truth,
    })
}

/// In a thread's cache.
pub fn in_cache(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let caches = &ground.caches;
    let cache = *caches.get(rng.usize(..caches.len().max(1)))?;
    let whole = [(cache, cache + ground.layout.cache_bytes())];
    // Those that hold something every other time.
    let used: Vec<u64> = ground
        .lists
        .iter()
        .filter(|list| list.kind == Kind::Cache && list.holder == cache)
        .map(|list| list.number)
        .collect();
    let number = match used.get(rng.usize(..used.len().max(1))) {
        Some(number) if rng.bool() => *number,
        _ => rng.u64(..ground.layout.cache_bins),
    };
    let changed = |_, _| Evidence::Present;
    if rng.u8(..4) == 0 {
        let at = cache + number / 4 * 8;
        stray(ground, rng, at, "four counts of a tcache", &whole, changed)
    } else {
        let at = cache + ground.layout.entries() + 8 * number;
        let mut plant = stray(ground, rng, at, "an entry of a tcache", &whole, changed)?;
        // What stands there may as well be a damaged link that malloc followed.
        plant.truth.kinds.push(FindingKind::UseAfterFreeWrite);
        Some(plant)
    }
}

/// In an arena.
pub fn in_arena(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let arena = *ground.arenas.get(rng.usize(..ground.arenas.len()))?;
    let layout = &ground.layout;
    let top = ground.word(arena + layout.top)?;
    let mut whole = vec![(arena, arena + layout.arena_bytes())];
    match rng.u8(..16) {
        0..3 => {
            whole.push((top, top + HEADER + 1));
            stray(ground, rng, arena + layout.top, "top", &whole, |_, _| {
                Evidence::Present
            })
        }
        3..7 => in_bin(ground, rng, arena, whole),
        7..9 => in_fastbin(ground, rng, arena, whole),
        9 => stray(ground, rng, arena, "mutex and flags", &whole, |old, new| {
            if (old ^ new) >> 32 != 0 && new >> 35 != 0 {
                Evidence::Present
            } else {
                Evidence::Open
            }
        }),
        10 => {
            let at = arena + layout.top + 8;
            stray(ground, rng, at, "last_remainder", &whole, |_, _| {
                Evidence::Absent // it may name anything
            })
        }
        11 => {
            let at = arena + layout.binmap() + rng.u64(..2) * 8;
            stray(ground, rng, at, "binmap", &whole, |_, _| Evidence::Open)
        }
        12 => {
            let at = arena + layout.next();
            stray(ground, rng, at, "next", &whole, |_, _| Evidence::Present)
        }
        _ => {
            let (index, what) = [
                (1, "next_free"),
                (2, "attached_threads"),
                (3, "system_mem"),
                (4, "max_system_mem"),
            ][rng.usize(..4)];
            let at = arena + layout.next() + 8 * index;
            let threads = ground.target.threads.list().len() as u64;
            stray(ground, rng, at, what, &whole, |_, new| {
                // More threads than there are; the others are told by hints at most.
                if index == 2 && new > threads {
                    Evidence::Present
                } else {
                    Evidence::Open
                }
            })
        }
    }
}

/// A link of a bin, every other time of one that is not empty.
fn in_bin(
    ground: &Ground<'_>,
    rng: &mut fastrand::Rng,
    arena: u64,
    mut addresses: Vec<(u64, u64)>,
) -> Option<Plant> {
    let filled: Vec<_> = ground
        .lists
        .iter()
        .filter(|list| list.kind == Kind::Bin && list.holder == arena)
        .collect();
    let number = match filled.get(rng.usize(..filled.len().max(1))) {
        Some(list) if rng.bool() => {
            for end in [list.entries.first(), list.entries.last()] {
                addresses.extend(end.map(|at| (at + HEADER, at + HEADER + 1)));
            }
            list.number
        }
        _ => rng.u64(1..=127),
    };
    let at = arena + ground.layout.bin(number) + 16 + 8 * rng.u64(..2);
    let what = format!("a link of bin {number}");
    stray(ground, rng, at, &what, &addresses, |_, _| Evidence::Present)
}

fn in_fastbin(
    ground: &Ground<'_>,
    rng: &mut fastrand::Rng,
    arena: u64,
    addresses: Vec<(u64, u64)>,
) -> Option<Plant> {
    let at = arena + ground.layout.fastbins? + 8 * rng.u64(..10);
    let mut plant = stray(ground, rng, at, "a fastbin", &addresses, |_, new| {
        // Nobody counts them: an empty one is only empty.
        if new == 0 {
            Evidence::Open
        } else {
            Evidence::Present
        }
    })?;
    // A damaged link that malloc followed leaves the same.
    plant.truth.kinds.push(FindingKind::UseAfterFreeWrite);
    Some(plant)
}

/// In the description of a heap of an arena beside the main one.
pub fn in_heap_info(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let mut heaps: Vec<(u64, u64)> = ground
        .chunks
        .iter()
        .filter(|chunk| chunk.arena > 0)
        .map(|chunk| (chunk.at & !(HEAP_MAX - 1), ground.arenas[chunk.arena]))
        .collect();
    heaps.dedup();
    let (heap, arena) = *heaps.get(rng.usize(..heaps.len().max(1)))?;
    let is_first = arena & !(HEAP_MAX - 1) == heap;
    let size = ground.word(heap + 16)?;
    let whole = [
        (heap, heap + ground.layout.info),
        (arena, arena + ground.layout.arena_bytes()),
    ];
    let present = |_, _| Evidence::Present;
    match rng.u8(..6) {
        0 | 1 => stray(ground, rng, heap, "heap_info.ar_ptr", &whole, present),
        2 => stray(ground, rng, heap + 8, "heap_info.prev", &whole, |_, _| {
            // Nobody follows the one of the first heap.
            if is_first {
                Evidence::Open
            } else {
                Evidence::Present
            }
        }),
        3 | 4 => stray(ground, rng, heap + 16, "heap_info.size", &whole, present),
        _ => {
            let at = heap + 24;
            stray(
                ground,
                rng,
                at,
                "heap_info.mprotect_size",
                &whole,
                |_, new| {
                    if (size..=HEAP_MAX).contains(&new) && new % 4096 == 0 {
                        Evidence::Absent
                    } else {
                        Evidence::Open
                    }
                },
            )
        }
    }
}

/// In front of a block with a mapping of its own.
pub fn in_mapped(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let mapped = &ground.mapped;
    let chunk = *mapped.get(rng.usize(..mapped.len().max(1)))?;
    let parameters = ground.parameters?;
    let whole = [(chunk, chunk + HEADER + 1), (parameters, parameters + 144)];
    let at = chunk + rng.u64(..2) * 8;
    let what = "the header of a mapped chunk";
    let mut plant = stray(ground, rng, at, what, &whole, |_, _| Evidence::Present)?;
    plant.truth.kinds.push(FindingKind::HeapOverrun);
    Some(plant)
}
