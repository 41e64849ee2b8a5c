//! Heads that nobody wrote over: malloc took the block off whose link was damaged, and stored that link as the head.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use super::super::PlainLinks;
use super::Class;
use crate::anomaly::{Anomaly, AnomalyKind, HolderKind, Stray};
use crate::list::graph::{Keeper, StrayEdge};
use crate::list::{FreeList, Links};
use crate::map::{Block, BlockState};
use ground::target::{Address, Cursor};

/// Entries of the longest list of a thread cache, and a batch more.
const MAX_LENGTH: u64 = 8192 + 1024;

/// Values of a class for which the block is looked for that was taken off.
const MAX_SEARCHES: usize = 8;
/// Classes of more blocks than this are not searched.
const MAX_BLOCKS: u64 = 1 << 24;

/// Pointers that were freed so many bytes past the start of a block.
#[derive(Default)]
pub(super) struct Distances(HashMap<u64, HashSet<Address>>);

impl Distances {
    /// Notes all values that lead into blocks of their own class.
    pub(super) fn of(strays: &[StrayEdge]) -> Self {
        let mut distances = Self::default();
        for stray in strays {
            if let Stray::Misaligned { offset, .. } = stray.stray
                && stray.found.is_aligned(8)
            {
                let places = distances.0.entry(offset).or_default();
                places.insert(stray.found);
            }
        }
        distances
    }

    /// Whether several values lie as far into their blocks as this one: a second base, a header, a cookie. What is
    /// written by accident does not.
    pub(super) fn is_shared(&self, stray: Stray) -> bool {
        let Stray::Misaligned { offset, .. } = stray else {
            return false;
        };
        self.0.get(&offset).is_some_and(|places| places.len() > 1)
    }
}

impl Class<'_, '_, '_> {
    /// A head that is no entry while the words beside it are whole; or the link of a block that was put before such a
    /// head, if the block that was taken off still tells of it.
    pub(super) fn followed(&self, stray: &StrayEdge, list: &FreeList) -> Option<Anomaly> {
        if stray.leads_on || !self.is_whole_beside(list) {
            return None;
        }
        let is_head = stray.edge.from.is_none();
        let is_unusual = is_unusual(stray);
        if !is_head && (list.holder != HolderKind::ThreadCache || !is_unusual) {
            return None;
        }
        let taken = is_unusual.then(|| self.taken_with(stray.found)).flatten();
        (is_head || taken.is_some()).then(|| {
            Anomaly::new(AnomalyKind::FollowedLink {
                edge: stray.edge,
                found: stray.found,
                stray: stray.stray,
                word: Some(stray.found.get()),
                block: taken,
                repair: None,
            })
        })
    }

    /// Whether the words beside a list's head are such as belong there.
    fn is_whole_beside(&self, list: &FreeList) -> bool {
        let (heap, memory) = (self.heap, self.heap.target.memory);
        match list.holder {
            HolderKind::ThreadCache => {
                let layout = &heap.located.layout.cache;
                let read = |field: ground::layout::FieldAt| field.read(memory, list.at).ok();
                let length = read(layout.length);
                let bytes = heap.located.sizes.bytes(list.class);
                length.is_some_and(|length| length <= MAX_LENGTH)
                    && read(layout.low_water) <= length
                    && read(layout.max_length).is_some_and(|most| (1..=MAX_LENGTH).contains(&most))
                    && read(layout.object_bytes) == Some(bytes.into())
            }
            HolderKind::TransferCache => heap
                .last(list)
                .is_some_and(|last| PlainLinks.admit(self.map, memory, list.class, last).is_ok()),
            HolderKind::CentralList => {
                !heap.is_contradicted(list.owner) && !heap.is_blamed(list.at)
            }
            _ => false,
        }
    }

    /// The block in use that still holds a value as its first word, if one alone does.
    fn taken_with(&self, value: Address) -> Option<Block> {
        let searches = self.searches.fetch_add(1, Ordering::Relaxed);
        if searches >= MAX_SEARCHES || self.graph.orphans.blocks() > MAX_BLOCKS {
            return None;
        }
        let mut cursor = Cursor::new(self.heap.target.memory);
        let mut taken = None;
        for &row in self.graph.orphans.rows() {
            let extent = self.map.extent(row)?;
            for slot in 0..extent.blocks() {
                let Some(block) = extent.block(row, slot) else {
                    continue;
                };
                if cursor.read_u64(block.address) == Ok(value.get())
                    && self.map.state(block.id) == BlockState::InUse
                    && taken.replace(block).is_some()
                {
                    return None;
                }
            }
        }
        taken
    }
}

/// Whether a value is no word that programs have in many places: a link that was counted up or down, half of a link, text.
fn is_unusual(stray: &StrayEdge) -> bool {
    match stray.stray {
        Stray::Misaligned { .. } => !stray.found.is_aligned(8),
        Stray::Unmapped => stray.found.get() > u32::MAX.into(),
        _ => false,
    }
}
