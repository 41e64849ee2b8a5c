//! The caches of threads: one `tcache_perthread_struct` each, in an ordinary chunk.

use std::collections::HashMap;

use super::arenas::Arenas;
use super::layout::{ALIGNMENT, FLAGS, HEADER, IS_MMAPPED, TcacheLayout};
use super::locate::Located;
use super::structure::{self, Shape};
use ground::target::{Address, Cursor, InstructionSet, MemoryExt, Target, TargetMemory};

/// One thread's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcache {
    /// Its address: the block, not the chunk.
    pub at: Address,
    /// Index of its thread; `None` if that is not in the core.
    pub owner: Option<usize>,
}

/// A bin of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcacheBin {
    /// First entry, the block.
    pub head: Address,
    /// The word that holds it.
    pub head_word: Address,
    /// Entries, as recorded.
    pub count: u64,
    /// Where that is recorded.
    pub count_at: Address,
}

/// The caches of all threads.
#[derive(Clone, Debug, Default)]
pub struct Tcaches {
    /// The caches that thread-local words name, by thread.
    pub rows: Vec<Tcache>,
    /// Bytes between that word and the thread pointer.
    pub distance: Option<u64>,
    /// No thread's pointer is in the core: each cache is one of its threads', and which is not known.
    pub are_anybodys: bool,
    /// How they are laid out, if any was found.
    pub layout: Option<TcacheLayout>,
    /// `mp_.tcache_count`.
    pub limit: u64,
}

/// Bytes beside the thread pointer that hold libc's thread-local words, at most.
const TLS_BYTES: u64 = 0x4000;
/// Bins that damage may have changed before a cache is no longer recognised.
const MISSES: usize = 6;

impl Tcaches {
    /// Finds the caches by the thread-local word that names them: it lies at the same distance from
    /// the thread pointer in every thread.
    ///
    /// `foreign`: other copies of glibc's malloc in the process; caches in their memory are not this one's.
    pub fn find(
        target: Target<'_>,
        located: &Located,
        arenas: &Arenas,
        foreign: &[&Arenas],
    ) -> Self {
        let memory = target.memory;
        let limit = tcache_limit(memory, located);
        if located.shape == Shape::Untouched {
            return Self {
                limit,
                ..Self::default()
            };
        }
        let layouts: Vec<TcacheLayout> = TcacheLayout::ALL
            .into_iter()
            .filter(|layout| {
                layout.releases.low <= located.releases.high
                    && located.releases.low <= layout.releases.high
            })
            .collect();
        let mut known: HashMap<Address, Option<usize>> = HashMap::new();
        // (distance, layout) -> (thread, cache)
        let mut votes: HashMap<(u64, usize), Vec<(usize, Address)>> = HashMap::new();
        let mut cursor = Cursor::new(memory);
        let mut bins = Cursor::new(memory);
        for (thread, state) in target.threads.list().iter().enumerate() {
            let Some(pointer) = state.thread_pointer else {
                continue;
            };
            for distance in (8..TLS_BYTES).step_by(8) {
                let Some(at) = beside(target, pointer, distance) else {
                    break;
                };
                let Ok(word) = cursor.read_u64(at).map(Address::new) else {
                    break;
                };
                if word.is_null() || !word.is_aligned(ALIGNMENT) {
                    continue;
                }
                let has = |arenas: &Arenas| arenas.region_of(word).is_some();
                let is_foreign = located.is_second || foreign.iter().any(|other| has(other));
                if !has(arenas) && is_foreign {
                    continue;
                }
                // Most words are none of a cache's, and not worth being remembered.
                if !layouts
                    .iter()
                    .any(|layout| has_header(&mut bins, layout, word))
                {
                    continue;
                }
                let layout = *known.entry(word).or_insert_with(|| {
                    layouts
                        .iter()
                        .position(|layout| is_cache(&mut bins, arenas, layout, limit, word))
                });
                if let Some(layout) = layout {
                    votes
                        .entry((distance, layout))
                        .or_default()
                        .push((thread, word));
                }
            }
        }
        let filled = |layout: usize, found: &[(usize, Address)]| -> usize {
            let mut cursor = Cursor::new(memory);
            let Some(layout) = layouts.get(layout) else {
                return 0;
            };
            found
                .iter()
                .map(|(_, cache)| {
                    (0..layout.bins)
                        .filter_map(|bin| read_bin(&mut cursor, layout, limit, *cache, bin))
                        .filter(|bin| {
                            !bin.head.is_null() && is_plausible(memory, arenas, limit, bin)
                        })
                        .count()
                })
                .sum()
        };
        let best = votes.into_iter().max_by_key(|((distance, layout), found)| {
            let mut distinct: Vec<Address> = found.iter().map(|(_, cache)| *cache).collect();
            distinct.sort_unstable();
            distinct.dedup();
            (
                distinct.len(),
                filled(*layout, found),
                std::cmp::Reverse(*distance),
            )
        });
        let Some(((distance, layout), found)) = best else {
            return Self {
                limit,
                ..Self::by_place(target, &layouts, limit, arenas)
            };
        };
        let rows = found
            .into_iter()
            .map(|(thread, at)| Tcache {
                at,
                owner: Some(thread),
            })
            .collect();
        Self {
            rows,
            distance: Some(distance),
            are_anybodys: false,
            layout: layouts.get(layout).copied(),
            limit,
        }
    }

    /// Finds the caches where the core tells of no thread pointer (cores of qemu's guests, or without notes): what makes a
    /// thread's cache is often the first thing that is taken from an arena. Others are found when the chunks are walked.
    fn by_place(target: Target<'_>, layouts: &[TcacheLayout], limit: u64, arenas: &Arenas) -> Self {
        let memory = target.memory;
        let mut threads = target.threads.list().iter();
        if threads.any(|thread| thread.thread_pointer.is_some()) {
            return Self::default();
        }
        let firsts = arenas.regions.iter().filter_map(|region| {
            let block = region.start.checked_add(HEADER)?;
            let mut cursor = Cursor::new(memory);
            let mut layouts = layouts.iter();
            let layout = layouts.find(|layout| is_cache(&mut cursor, arenas, layout, limit, block));
            Some((block, *layout?))
        });
        let firsts: Vec<(Address, TcacheLayout)> = firsts.collect();
        let only = || layouts.first().copied().filter(|_| layouts.len() == 1);
        let layout = firsts.first().map(|(_, layout)| *layout).or_else(only);
        let rows = firsts
            .into_iter()
            .filter(|(_, found)| Some(*found) == layout);
        Self {
            rows: rows.map(|(at, _)| Tcache { at, owner: None }).collect(),
            layout,
            are_anybodys: true,
            ..Self::default()
        }
    }

    /// A bin of a cache.
    pub fn bin(&self, cursor: &mut Cursor<'_>, cache: Address, bin: u64) -> Option<TcacheBin> {
        read_bin(cursor, self.layout.as_ref()?, self.limit, cache, bin)
    }

    /// Whether a cache lies in this chunk of the right size: every bin is plausible and one is not
    /// empty. For the caches of threads that are not in the core.
    pub fn is_orphan(&self, memory: &dyn TargetMemory, arenas: &Arenas, at: Address) -> bool {
        let Some(layout) = &self.layout else {
            return false;
        };
        let mut filled = false;
        let mut cursor = Cursor::new(memory);
        (0..layout.bins).all(|bin| {
            read_bin(&mut cursor, layout, self.limit, at, bin).is_some_and(|bin| {
                filled |= !bin.head.is_null();
                is_plausible(memory, arenas, self.limit, &bin)
            })
        }) && filled
    }

    /// Whether a chunk of this size can hold a cache.
    pub fn fits(&self, size: u64) -> bool {
        self.layout
            .is_some_and(|layout| layout.chunks.contains(&size))
    }
}

/// The word at a distance from a thread pointer on the side on which thread-local memory lies: below it on x86-64, above it on
/// aarch64.
pub fn beside(target: Target<'_>, pointer: Address, distance: u64) -> Option<Address> {
    match target.threads.instruction_set() {
        InstructionSet::X86_64 => pointer.checked_sub(distance),
        InstructionSet::Aarch64 => pointer.checked_add(distance),
    }
}

fn tcache_limit(memory: &dyn TargetMemory, located: &Located) -> u64 {
    let default = if located.releases.low >= 43 { 16 } else { 7 };
    let recorded = located.parameters.and_then(|(at, layout)| {
        memory
            .read_u64(at.checked_add(layout.tcache?)?.checked_add(16)?)
            .ok()
    });
    recorded.filter(|count| *count <= 0xffff).unwrap_or(default)
}

fn read_bin(
    cursor: &mut Cursor<'_>,
    layout: &TcacheLayout,
    limit: u64,
    cache: Address,
    bin: u64,
) -> Option<TcacheBin> {
    let count_at = cache.checked_add(bin.saturating_mul(layout.count_bytes))?;
    let recorded: u64 = if layout.count_bytes == 1 {
        u8::from_le_bytes(cursor.read_bytes(count_at).ok()?).into()
    } else {
        u16::from_le_bytes(cursor.read_bytes(count_at).ok()?).into()
    };
    let head_word = cache.checked_add(layout.entries.saturating_add(bin.saturating_mul(8)))?;
    Some(TcacheBin {
        head: Address::new(cursor.read_u64(head_word).ok()?),
        head_word,
        count: if layout.counts_down {
            limit.wrapping_sub(recorded) & 0xffff
        } else {
            recorded
        },
        count_at,
    })
}

fn is_plausible(memory: &dyn TargetMemory, arenas: &Arenas, limit: u64, bin: &TcacheBin) -> bool {
    if bin.head.is_null() {
        return bin.count == 0;
    }
    let mapped = || {
        arenas.region_of(bin.head).is_some()
            || memory.region_at(bin.head).is_some_and(|r| r.writable)
    };
    (1..=limit.max(127)).contains(&bin.count) && bin.head.is_aligned(ALIGNMENT) && mapped()
}

/// Whether a chunk that can hold a cache begins in front of `at`.
fn has_header(cursor: &mut Cursor<'_>, layout: &TcacheLayout, at: Address) -> bool {
    let Some(chunk) = at.checked_sub(16) else {
        return false;
    };
    let Some(size) = structure::chunk_size_by(cursor, chunk) else {
        return false;
    };
    let abi = cursor.memory().abi();
    layout.chunks.contains(&size)
        || chunk.is_aligned(abi.page_bytes)
            && cursor
                .read_u64(chunk.saturating_add(8))
                .is_ok_and(|header| {
                    header & FLAGS == IS_MMAPPED
                        && (abi.is_pages(size) || abi.is_pages(size.saturating_add(16)))
                })
}

fn is_cache(
    cursor: &mut Cursor<'_>,
    arenas: &Arenas,
    layout: &TcacheLayout,
    limit: u64,
    at: Address,
) -> bool {
    if !has_header(cursor, layout, at) {
        return false;
    }
    let memory = cursor.memory();
    let wrong = (0..layout.bins).filter(|bin| {
        read_bin(cursor, layout, limit, at, *bin)
            .is_none_or(|bin| !is_plausible(memory, arenas, limit, &bin))
    });
    wrong.take(MISSES + 1).count() <= MISSES
}
