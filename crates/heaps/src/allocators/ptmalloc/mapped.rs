//! Chunks with a mapping of their own: in no arena and on no list. `mp_` counts them, so they are
//! looked for at the start of every page.

mod damaged;

use super::PtmallocHeap;
use super::arenas::Arenas;
use super::layout::{FLAGS, HEADER, IS_MMAPPED};
use super::locate::Located;
use crate::allocators::{Limit, sum};
use crate::anomaly::Field;
use ground::target::{Abi, Address, Cursor, MemoryExt, RegionKind, Target};

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
    /// A word of its header that was written over.
    pub wrong: Option<Wrong>,
}

/// A word of a header that is not what everything else says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where.
    pub at: Address,
    /// What it is.
    pub what: Field,
    /// What it must have been.
    pub expected: u64,
}

impl Wrong {
    /// The word with size and flags.
    fn size(at: Address, expected: u64) -> Self {
        Self {
            at,
            what: Field::HeaderOfMappedChunk,
            expected,
        }
    }

    /// The word before it.
    fn offset(at: Address, expected: u64) -> Self {
        Self {
            at,
            what: Field::BytesBeforeMappedChunk,
            expected,
        }
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
    let abi = target.memory.abi();
    let mut cursor = Cursor::new(target.memory);
    for area in target.memory.regions() {
        if area.kind != RegionKind::Anonymous || !area.writable || area.present_bytes == 0 {
            continue;
        }
        let end = area.range.start.saturating_add(area.present_bytes);
        let mut page = area.range.start;
        while page < end {
            if let Some(region) = arenas.region_of(page) {
                page = abi.page_from(region.end.max(page.saturating_add(1)));
                continue;
            }
            page = match mapped_at(&mut cursor, abi, page, trailer, newest) {
                Some(mapped) if page.saturating_add(mapped.total) <= area.range.end => {
                    let next = page.saturating_add(mapped.total);
                    found.push(mapped);
                    next
                }
                _ => page.saturating_add(abi.page_bytes),
            };
        }
    }
    found.extend(damaged::missing_one(target, located, arenas, &found));
    found
}

fn mapped_at(
    cursor: &mut Cursor<'_>,
    abi: Abi,
    page: Address,
    trailer: u64,
    newest: bool,
) -> Option<Mapped> {
    let mut word = |offset: u64| cursor.read_u64(page.checked_add(offset)?).ok();
    let (offset, header) = (word(0)?, word(8)?);
    let total = (header & !FLAGS).checked_add(trailer)?;
    let plausible = header & FLAGS == IS_MMAPPED
        && (offset == 0 || newest && offset == 1)
        && abi.is_pages(total);
    if !plausible {
        return None;
    }
    // memalign moved the header up; the one at the base is stale then.
    let header_of =
        |moved: u64| Some(total.checked_sub(moved.saturating_add(trailer))? | IS_MMAPPED);
    let moved = (16..MAX_OFFSET.min(total)).step_by(16).find(|moved| {
        word(*moved).is_some_and(|offset| offset & !1 == *moved)
            && word((*moved).saturating_add(8))
                .is_some_and(|header| Some(header) == header_of(*moved))
    });
    let (moved, wrong) = match moved {
        Some(moved) => (moved, None),
        None => match damaged::moved(abi, page, total, &mut word, header_of) {
            Some((moved, wrong)) => (moved, Some(wrong)),
            None => (0, None),
        },
    };
    Some(Mapped {
        block: page.checked_add(moved.saturating_add(HEADER))?,
        usable: total
            .saturating_sub(moved)
            .saturating_sub(if newest { 24 } else { HEADER }),
        base: page,
        total,
        wrong,
    })
}

impl PtmallocHeap<'_> {
    /// What is said if not all that `mp_` counts were found.
    pub(super) fn mapped_limit(&self) -> Option<Limit> {
        let (count, bytes) = recorded(self.target, &self.located)?;
        // Where one must lie may be known although it is not there.
        let is_there = |mapped: &&Mapped| !self.target.memory.is_absent(mapped.base);
        let there = || self.mapped.iter().filter(is_there);
        let found = there().count() as u64;
        let total = sum(there().map(|mapped| mapped.total));
        // 2.43 counts 16 bytes too many for each chunk that mremap moved.
        let drift = bytes.wrapping_sub(total);
        let drifts = self.located.arena.fastbins.is_none() && drift % 16 == 0 && drift < 1 << 20;
        if found == count && (drift == 0 || drifts) {
            return None;
        }
        let page = self.target.memory.abi().page_bytes.max(1);
        // A header was written to each of them: the kernel left none of their mappings out.
        let missing = bytes.saturating_sub(total) & !page.wrapping_sub(1);
        let is_absent = found < count && (page..=self.absent_bytes()).contains(&missing);
        let why = match is_absent {
            true => "the others may lie in mappings that are not in the core",
            false => "only those were found whose header stands at the start of a page",
        };
        Some(Limit {
            what: format!(
                "{found} of {count} chunks with mappings of their own ({total} of {bytes} bytes)"
            ),
            why: why.into(),
            incomplete: is_absent,
        })
    }

    /// Bytes of anonymous memory that are not in the core.
    fn absent_bytes(&self) -> u64 {
        let areas = self.target.memory.regions().iter();
        let writable = areas.filter(|area| area.kind == RegionKind::Anonymous && area.writable);
        sum(writable.map(|area| area.bytes().saturating_sub(area.present_bytes)))
    }
}
