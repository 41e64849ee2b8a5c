//! Chunks with a mapping of their own: in no arena and on no list. `mp_` counts them, so they are
//! looked for at the start of every page.

use std::ops::Range;

use super::PtmallocHeap;
use super::arenas::Arenas;
use super::layout::{FLAGS, HEADER, IS_MMAPPED};
use super::locate::Located;
use crate::allocators::{Limit, sum};
use crate::target::{Address, Cursor, MemoryExt, RegionKind, Target};

/// A chunk with a mapping of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its block.
    pub block: Address,
    /// Usable bytes.
    pub usable: u64,
    /// First byte of the mapping.
    pub base: Address,
    /// Bytes of the mapping.
    pub total: u64,
    /// Its header was written over: only what `mp_` counts tells of it.
    pub smashed: bool,
}

impl Mapped {
    /// The word that holds its size.
    pub fn size_word(&self) -> Address {
        Address::new(self.block.get().saturating_sub(8))
    }
}

/// Bytes behind the base in which `memalign` may have put the header.
const MAX_OFFSET: u64 = 1 << 16;

/// What `mp_` counts: number, bytes.
pub fn recorded(target: Target<'_>, located: &Located) -> Option<(u64, u64)> {
    let (at, layout) = located.parameters?;
    let count = target
        .memory
        .read_u32(at.checked_add(layout.n_mmaps)?)
        .ok()?;
    let bytes = target
        .memory
        .read_u64(at.checked_add(layout.mmapped_mem)?)
        .ok()?;
    Some((count.into(), bytes))
}

/// Finds them. Nothing is looked for if none is counted.
pub fn find(target: Target<'_>, located: &Located, arenas: &Arenas) -> Vec<Mapped> {
    let mut found = Vec::new();
    if recorded(target, located).is_none_or(|(count, _)| count == 0) {
        return found;
    }
    let newest = located.arena.fastbins.is_none();
    let trailer = if newest { HEADER } else { 0 };
    let mut cursor = Cursor::new(target.memory);
    for area in target.memory.regions() {
        if area.kind != RegionKind::Anonymous || !area.writable || area.present_bytes == 0 {
            continue;
        }
        let end = area.range.start.saturating_add(area.present_bytes);
        let mut page = area.range.start;
        while page < end {
            if let Some(region) = arenas.region_of(page) {
                page = Address::new((region.end.get().max(page.get() + 1) + 4095) & !4095);
                continue;
            }
            page = match mapped_at(&mut cursor, page, trailer, newest) {
                Some(mapped) if page.saturating_add(mapped.total) <= area.range.end => {
                    let next = page.saturating_add(mapped.total);
                    found.push(mapped);
                    next
                }
                _ => page.saturating_add(4096),
            };
        }
    }
    found.extend(smashed(target, located, arenas, &found));
    found
}

/// The one chunk that is counted and not found, if memory that nobody claims has exactly one place for it: pages between others, as
/// many as are missing, that begin with an empty word and with what is no size.
fn smashed(
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
    let total = if newest { missing & !4095 } else { missing };
    if count != found.len() as u64 + 1 || total == 0 || total % 4096 != 0 {
        return None;
    }
    let starts_chunk = |page: &Address| {
        let word = |offset| target.memory.read_u64(page.saturating_add(offset)).ok();
        word(0).is_some_and(|offset| offset == 0 || newest && offset == 1)
            && word(8).is_some_and(|header| header != 0)
    };
    let mut places: Vec<Address> = gaps(target, arenas, found)
        .into_iter()
        .filter(|gap| gap.end.offset_from(gap.start).unwrap_or(0) >= total)
        .flat_map(|gap| [Some(gap.start), gap.end.checked_sub(total)])
        .flatten()
        .filter(starts_chunk)
        .collect();
    places.dedup();
    let &[base] = places.as_slice() else {
        return None;
    };
    Some(Mapped {
        block: base.checked_add(HEADER)?,
        usable: total - if newest { 24 } else { HEADER },
        base,
        total,
        smashed: true,
    })
}

/// Pages of writable anonymous memory that belong to no chunk, arena or stack.
fn gaps(target: Target<'_>, arenas: &Arenas, found: &[Mapped]) -> Vec<Range<Address>> {
    let page = |at: Address| Address::new(at.get() & !4095);
    let page_after = |at: Address| Address::new(at.get().saturating_add(4095) & !4095);
    let chunks = found
        .iter()
        .map(|mapped| mapped.base..mapped.base.saturating_add(mapped.total));
    let runs = arenas
        .regions
        .iter()
        .map(|run| page(run.start)..page_after(run.end));
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

fn mapped_at(cursor: &mut Cursor<'_>, page: Address, trailer: u64, newest: bool) -> Option<Mapped> {
    let mut word = |offset: u64| cursor.read_u64(page.checked_add(offset)?).ok();
    let (offset, header) = (word(0)?, word(8)?);
    let total = (header & !FLAGS).checked_add(trailer)?;
    let plausible = header & FLAGS == IS_MMAPPED
        && (offset == 0 || newest && offset == 1)
        && total >= 4096
        && total % 4096 == 0;
    if !plausible {
        return None;
    }
    // memalign moved the header up; the one at the base is stale then.
    let moved = (16..MAX_OFFSET.min(total)).step_by(16).find(|moved| {
        let (offset, header) = (word(*moved), word(*moved + 8));
        offset.is_some_and(|offset| offset & !1 == *moved)
            && header.is_some_and(|header| {
                header & FLAGS == IS_MMAPPED
                    && (header & !FLAGS).checked_add(moved + trailer) == Some(total)
            })
    });
    let offset = moved.unwrap_or(0);
    let lost = if newest { 24 } else { HEADER };
    Some(Mapped {
        block: page.checked_add(offset + HEADER)?,
        usable: total - offset - lost,
        base: page,
        total,
        smashed: false,
    })
}

impl PtmallocHeap<'_> {
    /// What is said if not all that `mp_` counts were found.
    pub(super) fn mapped_limit(&self) -> Option<Limit> {
        let (count, bytes) = recorded(self.target, &self.located)?;
        let found = self.mapped.len() as u64;
        let total = sum(self.mapped.iter().map(|mapped| mapped.total));
        // 2.43 counts 16 bytes too many for each chunk that mremap moved.
        let drift = bytes.wrapping_sub(total);
        let drifts = self.located.arena.fastbins.is_none() && drift % 16 == 0 && drift < 1 << 20;
        if found == count && (drift == 0 || drifts) {
            return None;
        }
        Some(Limit {
            what: format!(
                "{found} of {count} chunks with mappings of their own ({total} of {bytes} bytes)"
            ),
            why: "only those were found whose header stands at the start of a page".into(),
            incomplete: false,
        })
    }
}
