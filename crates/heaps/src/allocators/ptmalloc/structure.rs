//! Finding glibc's malloc by its shape alone, in a module's writable memory.
//!
//! `main_arena` proves itself: the list of arenas closes on it, every other arena on the list lies
//! at the start of an aligned heap, and its 127 bin headers point at themselves or at chunks that
//! point back.

use super::layout::{ALIGNMENT, ArenaLayout, BINS, FLAGS, HEADER};
use ground::scan::words_where;
use ground::target::{Address, Cursor, MemoryExt, Module, TargetMemory};

/// Arenas that are followed: more than any process has.
const MAX_ARENAS: usize = 1 << 16;
/// Bin headers of 127 that must be as they should be.
const GOOD_BINS: usize = 100;
/// Heaps of arenas are aligned to this at least (4 huge pages of 2 MiB, if those were asked for).
const HEAP_ALIGNMENT: u64 = 1 << 20;

/// What an arena looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// In use, or initialised.
    Live,
    /// As the module's file has it: nobody ever called this malloc.
    Untouched,
}

/// `main_arena` of a module, by structure.
pub fn find_main_arena(
    memory: &dyn TargetMemory,
    module: &Module,
) -> Option<(Address, ArenaLayout, Shape)> {
    let mut given_up = Vec::new();
    let may_link = |at: Address, word: u64| {
        let back = at.get().wrapping_sub(word);
        ArenaLayout::ALL.iter().any(|layout| layout.next == back) || heap_info_bytes(word).is_some()
    };
    for (at, word) in words_where(memory, module, may_link) {
        let points_at_heap = heap_info_bytes(word).is_some();
        for layout in ArenaLayout::ALL {
            let Some(arena) = at.checked_sub(layout.next) else {
                continue;
            };
            let closes = word == arena.get();
            if !closes && !points_at_heap || given_up.contains(&(arena, layout.bins)) {
                continue;
            }
            if ring(memory, arena, &layout).is_none() {
                continue;
            }
            match shape_of(memory, module, arena, &layout) {
                Some(shape) => return Some((arena, settle_tail(memory, arena, layout), shape)),
                None => given_up.push((arena, layout.bins)),
            }
        }
    }
    find_by_bins(memory, module)
}

/// What lies at `arena`, if it is one.
pub fn shape_of(
    memory: &dyn TargetMemory,
    module: &Module,
    arena: Address,
    layout: &ArenaLayout,
) -> Option<Shape> {
    if good_bins(memory, arena, layout) >= GOOD_BINS {
        Some(Shape::Live)
    } else {
        is_untouched(memory, module, arena, layout).then_some(Shape::Untouched)
    }
}

/// 2.17 to 2.22 have no count of threads between the list and `system_mem`, which is a multiple of
/// pages; its successor there counts threads.
fn settle_tail(memory: &dyn TargetMemory, arena: Address, layout: ArenaLayout) -> ArenaLayout {
    let [_, middle, old, _] = ArenaLayout::ALL;
    if layout.bins != old.bins {
        return layout;
    }
    let word = |offset| memory.read_u64(arena.saturating_add(offset)).unwrap_or(0);
    let bytes = word(old.system_mem);
    let is_old = memory.abi().is_pages(bytes) && word(old.max_system_mem) >= bytes;
    if is_old { old } else { middle }
}

/// The size of `heap_info` if `arena` can be one that lies behind it.
pub fn heap_info_bytes(arena: u64) -> Option<u64> {
    let offset = arena % HEAP_ALIGNMENT;
    (arena >= HEAP_ALIGNMENT && (offset == 0x20 || offset == 0x30)).then_some(offset)
}

/// The arenas of the closed list that begins at `main`.
pub fn ring(
    memory: &dyn TargetMemory,
    main: Address,
    layout: &ArenaLayout,
) -> Option<Vec<Address>> {
    let mut arenas = vec![main];
    let mut arena = memory.read_pointer(main.checked_add(layout.next)?).ok()?;
    while arena != main {
        let info = heap_info_bytes(arena.get())?;
        let heap = arena.checked_sub(info)?;
        // A heap whose word that names the arena was written over holds the arena all the same.
        let is_arena =
            memory.read_pointer(heap) == Ok(arena) || good_bins(memory, arena, layout) >= GOOD_BINS;
        if arenas.len() >= MAX_ARENAS || !is_arena {
            return None;
        }
        // A list that closes elsewhere than at its start would be followed for ever.
        if arenas.len().is_power_of_two() && arenas.contains(&arena) {
            return None;
        }
        arenas.push(arena);
        arena = memory.read_pointer(arena.checked_add(layout.next)?).ok()?;
    }
    Some(arenas)
}

/// Bin headers that point at themselves, or at chunks that point back or are not in the core.
pub fn good_bins(memory: &dyn TargetMemory, arena: Address, layout: &ArenaLayout) -> usize {
    let mut cursor = Cursor::new(memory);
    let mut good = |number: &u64| -> Option<bool> {
        let bin = arena.checked_add(layout.bin(*number))?;
        let forward = Address::new(cursor.read_u64(bin.checked_add(16)?).ok()?);
        let back = Address::new(cursor.read_u64(bin.checked_add(24)?).ok()?);
        if forward == bin && back == bin {
            return Some(true);
        }
        let points_back = |at: Address| memory.read_pointer(at) == Ok(bin) || memory.is_absent(at);
        Some(points_back(forward.checked_add(24)?) && points_back(back.checked_add(16)?))
    };
    (1..=BINS)
        .filter(|number| good(number) == Some(true))
        .count()
}

/// Whether fastbins can stand where the layout has them: null, or chunks.
fn has_fastbins(memory: &dyn TargetMemory, arena: Address, layout: &ArenaLayout) -> bool {
    let Some(fastbins) = layout.fastbins else {
        return true;
    };
    (0..ArenaLayout::FASTBINS).all(|bin| {
        let head = memory
            .read_pointer(arena.saturating_add(fastbins.saturating_add(bin.saturating_mul(8))));
        head.is_ok_and(|head| {
            head.is_null() || chunk_size(memory, head).is_some() || memory.is_absent(head)
        })
    })
}

/// Before and in the first malloc everything is zero except the list, the one thread attached to it, and bins that are made
/// already.
fn is_untouched(
    memory: &dyn TargetMemory,
    module: &Module,
    arena: Address,
    layout: &ArenaLayout,
) -> bool {
    let mut before = vec![0; usize::try_from(layout.next).unwrap_or(0)];
    let is_read = memory.read_into(arena, &mut before).is_ok();
    // The first malloc makes the bins one by one.
    let (words, _) = before.as_chunks::<8>();
    let made = |offset: u64| {
        let bin = (offset.checked_sub(layout.bins)? / HEADER).saturating_mul(HEADER);
        let header = arena.checked_add(layout.bins)?.checked_add(bin)?;
        Some(header.checked_sub(HEADER)?.get())
    };
    let empty = is_read
        && (0u64..).step_by(8).zip(words).all(|(offset, word)| {
            let word = u64::from_le_bytes(*word);
            word == 0 || made(offset) == Some(word)
        });
    let word = |offset| memory.read_u64(arena.saturating_add(offset));
    let at_rest = word(layout.next) == Ok(arena.get())
        && word(layout.next.saturating_add(8)) == Ok(0)
        && word(layout.system_mem) == Ok(0)
        && word(layout.max_system_mem) == Ok(0);
    let counted = match layout.attached {
        Some(attached) => word(attached) == Ok(1),
        None => module.name.starts_with("libc"),
    };
    empty && at_rest && counted
}

/// Where the list of arenas is damaged: a run of empty bins, of which the last one is never used.
fn find_by_bins(
    memory: &dyn TargetMemory,
    module: &Module,
) -> Option<(Address, ArenaLayout, Shape)> {
    const MIN_EMPTY: usize = 24;
    let mut run: Vec<u64> = Vec::new();
    let mut best: Vec<u64> = Vec::new();
    let is_own = |at: Address, word: u64| word == at.get().wrapping_sub(16);
    for (at, word) in words_where(memory, module, is_own) {
        let at = at.get();
        if memory.read_u64(Address::new(at.saturating_add(8))) != Ok(word) {
            continue;
        }
        if run
            .first()
            .is_some_and(|first| at.saturating_sub(*first) > 16 * BINS)
        {
            run.clear();
        }
        run.push(at);
        if run.len() > best.len() {
            best.clone_from(&run);
        }
    }
    if best.len() < MIN_EMPTY {
        return None;
    }
    let first_bin = best.last()?.checked_sub(16 * (BINS - 1))?;
    // Top and bins lie the same in all releases; what stands before them does not.
    let text = ground::scan::version_after(memory, module, b"stable release version ");
    let release = text
        .as_deref()
        .and_then(|text| text.strip_prefix("2.")?.split('.').next()?.parse().ok());
    let fits = |layout: &ArenaLayout| {
        release
            .is_none_or(|number: u8| (layout.releases.low..=layout.releases.high).contains(&number))
    };
    ArenaLayout::ALL
        .into_iter()
        .filter(fits)
        .find_map(|layout| {
            let arena = Address::new(first_bin.checked_sub(layout.bins)?);
            let top = memory.read_pointer(arena.checked_add(layout.top)?).ok()?;
            let header = top.checked_add(8)?;
            let is_top = memory.read_u64(header).is_ok_and(|size| {
                let end = top.get().wrapping_add(size & !FLAGS);
                size & 7 == 1 && Address::new(end).is_aligned(memory.abi().page_bytes)
            });
            let plausible = top.is_aligned(ALIGNMENT)
                && (is_top || memory.is_absent(header))
                && good_bins(memory, arena, &layout) >= GOOD_BINS / 2
                && has_fastbins(memory, arena, &layout);
            plausible.then(|| (arena, settle_tail(memory, arena, layout), Shape::Live))
        })
}

/// A chunk header that can be one: its size, if that is possible.
pub fn chunk_size(memory: &dyn TargetMemory, chunk: Address) -> Option<u64> {
    chunk_size_by(&mut Cursor::new(memory), chunk)
}

/// The same of many chunks.
pub fn chunk_size_by(cursor: &mut Cursor<'_>, chunk: Address) -> Option<u64> {
    let size = cursor.read_u64(chunk.checked_add(8)?).ok()? & !FLAGS;
    (chunk.is_aligned(ALIGNMENT) && size >= HEADER * 2 && size.is_multiple_of(ALIGNMENT))
        .then_some(size)
}
