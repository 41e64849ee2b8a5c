//! Extents of one page whose only element was set to null: nothing but the descriptor knows of them.
//!
//! Descriptors that are not used keep what they last described, but that memory belongs to other extents now, or is gone. So
//! one that describes mapped memory which no extent has is believed if the arena counts just as many pages more than its
//! extents have.

use std::collections::BTreeMap;

use super::super::{Extents, Named, Row, Source, State};
use crate::allocators::jemalloc::sizes::PAGE_SHIFT;
use ground::target::{Address, Cursor, MemoryExt};

/// Extents of an arena that are found so.
const MAX_NAMELESS: u64 = 64;

impl Extents {
    /// Adds them.
    pub(super) fn mend_unnamed(&mut self, source: Source<'_>) {
        let mut lacking = source.lacking(&self.rows);
        lacking.retain(|_, pages| *pages <= MAX_NAMELESS);
        if lacking.is_empty() {
            return;
        }
        let mut found: BTreeMap<u16, Vec<(Row, Named)>> = BTreeMap::new();
        let mut cursor = Cursor::new(source.memory);
        for block in source.arenas.blocks() {
            let mut at = block.start;
            while at < block.end {
                if let Some(row) = Row::read(&mut cursor, source.layout, at)
                    && lacking.contains_key(&row.arena)
                    && let Some(named) = self.unnamed_of(source, &row)
                {
                    found.entry(row.arena).or_default().push((row, named));
                }
                at = at.saturating_add(source.layout.extent.alignment);
            }
        }
        for (arena, found) in found {
            if lacking.get(&arena) == Some(&(found.len() as u64)) {
                for (row, named) in found {
                    self.insert(row);
                    self.say_element(source, &named);
                }
            }
        }
    }

    /// The element of the only page of what a descriptor describes, if it is null and no extent has that page.
    fn unnamed_of(&self, source: Source<'_>, row: &Row) -> Option<Named> {
        let page = row.first_page();
        let sound = row.last_page() == page
            && row.state != State::Passing
            && source.makes_sense(row)
            && source.arenas.holder(row.at) == Some(row.arena)
            && self.at(Address::new(page << PAGE_SHIFT)).is_none()
            && source.memory.region_at(row.start()).is_some();
        let at = sound.then(|| source.tree.element_at(page))??;
        let mut cursor = Cursor::new(source.memory);
        let element = source.tree.element(&mut cursor, at)?;
        let named = Named { at, page, element };
        element.extent.is_null().then_some(named)
    }
}

impl Source<'_> {
    /// Pages that arenas count and that none of their extents has, by arena.
    pub fn lacking(&self, rows: &[Row]) -> BTreeMap<u16, u64> {
        let mut walked: BTreeMap<u16, u64> = BTreeMap::new();
        for row in rows {
            {
                let slot = walked.entry(row.arena).or_default();
                *slot = slot.saturating_add(row.bytes >> PAGE_SHIFT);
            };
        }
        let layout = self.layout;
        let recorded = |arena: Address| {
            let caches = layout.arena.pages.iter();
            let cached = caches.flat_map(|cache| {
                layout
                    .pages
                    .counts
                    .iter()
                    .map(move |count| cache.saturating_add(*count))
            });
            cached
                .chain([layout.arena.active])
                .filter_map(|offset| self.memory.read_u64(arena.saturating_add(offset)).ok())
                .fold(0, u64::wrapping_add)
        };
        let arenas = self.arenas.rows.iter();
        arenas
            .filter_map(|arena| {
                let walked = walked.get(&arena.index).copied().unwrap_or(0);
                let lacking = recorded(arena.at).checked_sub(walked)?;
                (lacking > 0).then_some((arena.index, lacking))
            })
            .collect()
    }
}
