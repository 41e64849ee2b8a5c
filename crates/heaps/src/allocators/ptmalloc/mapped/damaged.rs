//! Chunks with mappings of their own of whose header a word was written over. The other one, what `mp_` counts, and
//! the header that `memalign` leaves at the start of the mapping say what it was.

use std::ops::Range;

use super::super::arenas::Arenas;
use super::super::layout::{HEADER, IS_MMAPPED};
use super::super::locate::Located;
use super::{Mapped, Wrong, recorded};
use ground::target::{Abi, Address, MemoryExt, RegionKind, Target};

/// Where `memalign` moved the header of a chunk of which one word is wrong. `word` reads the mapping, `header_of` says
/// what the size must be.
///
/// The block is aligned then, and nobody wrote what lies before it.
pub fn moved(
    abi: Abi,
    page: Address,
    total: u64,
    word: &mut impl FnMut(u64) -> Option<u64>,
    header_of: impl Fn(u64) -> Option<u64>,
) -> Option<(u64, Wrong)> {
    /// Zeros before a number that is its own distance, for that to be no data.
    const MIN_ZEROS: u64 = 200;
    const MAX_OFFSET: u64 = super::MAX_OFFSET;
    let by_alignment = [48, 112, 240, 496, 1008, 2032];
    let by_pages = abi
        .pages(abi.page_bytes, MAX_OFFSET)
        .map(|end| end.saturating_sub(HEADER));
    let places = by_alignment.into_iter().chain(by_pages);
    for moved in places.take_while(|moved| moved.saturating_add(HEADER) < total) {
        let (offset, header) = (word(moved)?, word(moved.saturating_add(8))?);
        let expected = header_of(moved)?;
        let at = page.checked_add(moved)?;
        if header == expected {
            return Some((moved, Wrong::offset(at, moved)));
        }
        let mut untouched = || {
            (HEADER..moved)
                .step_by(8)
                .all(|before| word(before) == Some(0))
        };
        if offset & !1 == moved && moved >= MIN_ZEROS && untouched() {
            return Some((moved, Wrong::size(at.checked_add(8)?, expected)));
        }
    }
    None
}

/// The one chunk that is counted and not found, if memory that nobody claims has exactly one place for it: as many pages as are
/// missing, with one word of the header that must stand there.
pub fn missing_one(
    target: Target<'_>,
    located: &Located,
    arenas: &Arenas,
    found: &[Mapped],
) -> Option<Mapped> {
    let (count, bytes) = recorded(target, located)?;
    let known = found
        .iter()
        .fold(0u64, |sum, mapped| sum.saturating_add(mapped.total));
    let newest = located.arena.fastbins.is_none();
    let missing = bytes.checked_sub(known)?;
    // 2.43 counts some bytes too many for chunks that mremap moved.
    let abi = target.memory.abi();
    let total = match newest {
        true => abi.page_of(Address::new(missing)).get(),
        false => missing,
    };
    if count != (found.len() as u64).saturating_add(1) || !abi.is_pages(total) {
        return None;
    }
    let word = |at: Address, offset| target.memory.read_u64(at.saturating_add(offset)).ok();
    let trailer = if newest { HEADER } else { 0 };
    let size = total.saturating_sub(trailer) | IS_MMAPPED;
    let gaps: Vec<Range<Address>> = gaps(target, arenas, found)
        .into_iter()
        .filter(|gap| gap.end.offset_from(gap.start).unwrap_or(0) >= total)
        .collect();
    let by_size = gaps
        .iter()
        .flat_map(|gap| pages(abi, gap, total))
        .filter(|page| word(*page, 8) == Some(size))
        .map(|page| (page, Wrong::offset(page, 0)));
    let starts_chunk = |page: &Address| {
        word(*page, 0).is_some_and(|offset| offset == 0 || newest && offset == 1)
            && [8, 16, 24]
                .into_iter()
                .any(|offset| word(*page, offset).is_some_and(|word| word != 0))
    };
    let wrong_size = |page: Address| (page, Wrong::size(page.saturating_add(8), size));
    let exact: Vec<Address> = gaps
        .iter()
        .filter(|gap| gap.end.offset_from(gap.start) == Some(total))
        .map(|gap| gap.start)
        .collect();
    let ends = |gap: &Range<Address>| [Some(gap.start), gap.end.checked_sub(total)];
    let at_ends: Vec<Address> = gaps.iter().flat_map(ends).flatten().collect();
    let mut places: Vec<(Address, Wrong)> = by_size.collect();
    // Memory of just its length, where it may begin or end, and the former even if not a word is left.
    let some: [&mut dyn Iterator<Item = Address>; 3] = [
        &mut exact.iter().copied().filter(starts_chunk),
        &mut at_ends.iter().copied().filter(starts_chunk),
        &mut exact.iter().copied(),
    ];
    for pages in some {
        if places.is_empty() {
            places.extend(pages.map(wrong_size));
            places.dedup();
        }
    }
    let &[(base, wrong)] = places.as_slice() else {
        return None;
    };
    Some(Mapped {
        block: base.checked_add(HEADER)?,
        usable: total.saturating_sub(if newest { 24 } else { HEADER }),
        base,
        total,
        wrong: Some(wrong),
    })
}

/// The pages at which so many bytes of a gap can begin.
fn pages(abi: Abi, gap: &Range<Address>, bytes: u64) -> impl Iterator<Item = Address> + use<> {
    let first = gap.start.get();
    let last = gap.end.get().saturating_sub(bytes);
    abi.pages(first, last).map(Address::new)
}

/// Pages of writable anonymous memory that belong to no chunk, arena or stack.
fn gaps(target: Target<'_>, arenas: &Arenas, found: &[Mapped]) -> Vec<Range<Address>> {
    let abi = target.memory.abi();
    let chunks = found
        .iter()
        .map(|mapped| mapped.base..mapped.base.saturating_add(mapped.total));
    let runs = arenas
        .regions
        .iter()
        .map(|run| abi.page_of(run.start)..abi.page_from(run.end));
    let mut claimed: Vec<Range<Address>> = chunks.chain(runs).collect();
    claimed.sort_by_key(|range| range.start);
    let threads = target.threads.list();
    let mut gaps = Vec::new();
    for area in target.memory.regions() {
        let is_stack = threads.iter().any(|thread| area.range.contains(&thread.sp));
        if area.kind != RegionKind::Anonymous || !area.writable || is_stack {
            continue;
        }
        let mut start = area.range.start;
        let first = claimed.partition_point(|range| range.end <= start);
        for range in claimed.get(first..).unwrap_or_default() {
            if range.start >= area.range.end {
                break;
            }
            gaps.push(start..range.start);
            start = start.max(range.end);
        }
        gaps.push(start..area.range.end);
    }
    gaps.retain(|gap| gap.start < gap.end);
    gaps
}
