//! Blocks of a group that no list holds although they still link to each other: what a damaged
//! link cut off.
//!
//! A free list's tail does not vanish when the link before it is damaged: its entries go on
//! pointing at each other up to null. With the list's recorded length, the number of entries that
//! must follow the damage is known, and usually only one unlisted chain has exactly that length.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Links;
use crate::map::{BlockId, HeapMap, Owner};
use ground::target::{Address, Cursor, TargetMemory};

/// The group's blocks, and how many links each is from null (computed when first asked for).
pub struct Orphans<'m> {
    map: &'m HeapMap,
    memory: &'m dyn TargetMemory,
    class: u16,
    rows: Vec<u32>,
    blocks: u64,
    /// Through unlisted blocks only.
    depths: OnceLock<Option<Depths>>,
    /// Through any blocks; `None` inside for a group that is too large.
    all_depths: OnceLock<Option<Depths>>,
    /// Blocks that the searches near damaged links may still look at.
    budget: AtomicU64,
}

/// For each block of the rows in order: entries from it to null; 0 if its links do not end at null.
struct Depths {
    first_of_row: Vec<u64>,
    depth: Vec<u32>,
}

/// What the search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// First block of the chain.
    pub first: Address,
    /// No other chain fits.
    pub unique: bool,
}

const UNKNOWN: u32 = u32::MAX;
const PENDING: u32 = u32::MAX - 1;
const ENDLESS: u32 = 0;

impl<'m> Orphans<'m> {
    /// Groups of more blocks than this are searched near the damaged link only.
    pub const MAX_BLOCKS: u64 = 1 << 24;
    /// Blocks looked at in all searches near damaged links: half a second's work. One damaged link
    /// costs a tenth of it at most; a group with very many is past repair.
    const BUDGET: u64 = 1 << 23;

    /// Nothing is read yet.
    pub fn new(map: &'m HeapMap, memory: &'m dyn TargetMemory, class: u16) -> Self {
        let rows: Vec<u32> = (0u32..)
            .zip(map.extents())
            .filter(|(_, extent)| {
                extent.class == class && extent.owner == Owner::InUse && extent.blocks() > 0
            })
            .map(|(row, _)| row)
            .collect();
        let blocks = rows
            .iter()
            .filter_map(|&row| map.extent(row))
            .map(|extent| u64::from(extent.blocks()))
            .sum();
        Self {
            map,
            memory,
            class,
            rows,
            blocks,
            depths: OnceLock::new(),
            all_depths: OnceLock::new(),
            budget: AtomicU64::new(Self::BUDGET),
        }
    }

    /// Number of the group's blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Rows of the group's extents.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Whether the chain from `first` has exactly `length` entries, none of which a list holds
    /// unless `allowed` says so.
    pub fn chain_is<L: Links>(
        &self,
        links: &L,
        first: Address,
        length: u64,
        allowed: &dyn Fn(Address) -> bool,
    ) -> bool {
        self.leads_to(links, first, length, Address::new(0), allowed)
    }

    /// Whether the chain from `first` leads to `end` after exactly `length` entries, none of which
    /// a list holds unless `allowed` says so.
    pub fn leads_to<L: Links>(
        &self,
        links: &L,
        first: Address,
        length: u64,
        end: Address,
        allowed: &dyn Fn(Address) -> bool,
    ) -> bool {
        if length > self.blocks {
            return false;
        }
        let mut cursor = Cursor::new(self.memory);
        let mut at = first;
        for _ in 0..length {
            let Ok(block) = links.admit(self.map, self.memory, self.class, at) else {
                return false;
            };
            if self.map.is_listed(block) && !allowed(at) {
                return false;
            }
            let Ok(word) = cursor.read_u64(at) else {
                return false;
            };
            at = links.decode(at, word);
        }
        at == end
    }

    /// The last entry of the chain of `length` entries from `first`.
    pub fn last_of<L: Links>(&self, links: &L, first: Address, length: u64) -> Option<Address> {
        let mut cursor = Cursor::new(self.memory);
        let mut at = first;
        for _ in 1..length.min(self.blocks) {
            at = links.decode(at, cursor.read_u64(at).ok()?);
        }
        Some(at)
    }

    /// Blocks of the group that start in `low..=high`, with at most `bound` looked at.
    fn starts_between(&self, low: u64, high: u64, bound: usize) -> Vec<Address> {
        let from = self.rows.partition_point(|&row| {
            self.map
                .extent(row)
                .is_some_and(|extent| extent.end().get() <= low)
        });
        let mut out = Vec::new();
        for &row in self.rows.iter().skip(from) {
            let Some(extent) = self
                .map
                .extent(row)
                .filter(|extent| extent.start.get() <= high)
            else {
                break;
            };
            let stride = extent.block_bytes().max(1);
            let first = low.saturating_sub(extent.start.get()).div_ceil(stride);
            for slot in first..u64::from(extent.blocks()) {
                let start = extent.start.saturating_add(slot.saturating_mul(stride));
                if start.get() > high || out.len() >= bound {
                    return out;
                }
                out.push(start);
            }
        }
        out
    }

    /// The first block that `fits` of an unlisted chain of exactly `length` entries whose address differs from
    /// `damaged` in its low `bytes` bytes only.
    pub fn near<L: Links>(
        &self,
        links: &L,
        damaged: u64,
        bytes: u32,
        length: u64,
        allowed: &dyn Fn(Address) -> bool,
        fits: &dyn Fn(Address) -> bool,
    ) -> Option<Found> {
        let goal = (length, Address::new(0));
        self.near_to(links, damaged, bytes, goal, allowed, fits)
    }

    /// The same for a chain that ends elsewhere than at null.
    pub fn near_to<L: Links>(
        &self,
        links: &L,
        damaged: u64,
        bytes: u32,
        (length, end): (u64, Address),
        allowed: &dyn Fn(Address) -> bool,
        fits: &dyn Fn(Address) -> bool,
    ) -> Option<Found> {
        let mut budget = self.budget.load(Ordering::Relaxed);
        if length > self.blocks || budget == 0 {
            return None;
        }
        // Programs have rings of their own blocks: no chain is followed that is not as long.
        let depths = self
            .all_depths
            .get_or_init(|| self.measure(links, &|_| true));
        let beyond = self.depth_at(depths, end).unwrap_or(0);
        let depth = if end.is_null() {
            Some(length)
        } else {
            (beyond > 0).then(|| length.saturating_add(beyond))
        };
        let mask = (1u64 << bytes.min(7).saturating_mul(8)).saturating_sub(1);
        let starts = self.starts_between(damaged & !mask, damaged | mask, 8192);
        budget = budget.saturating_sub(starts.len() as u64);
        let mut fitting = starts.into_iter().filter(|start| {
            let known = depth.filter(|_| depths.is_some());
            let as_long = known.is_none_or(|depth| self.depth_at(depths, *start) == Some(depth));
            if start.get() == damaged || !as_long || budget < length {
                return false;
            }
            budget = budget.saturating_sub(length);
            self.leads_to(links, *start, length, end, allowed) && fits(*start)
        });
        let first = fitting.next();
        let unique = fitting.next().is_none();
        self.budget.store(budget, Ordering::Relaxed);
        first.map(|first| Found { first, unique })
    }

    /// Whether a chain from `first` may lead to `end` after `length` entries, told without following it.
    pub fn may_lead<L: Links>(
        &self,
        links: &L,
        first: Address,
        (length, end): (u64, Address),
    ) -> bool {
        let depths = self
            .all_depths
            .get_or_init(|| self.measure(links, &|_| true));
        let beyond = self.depth_at(depths, end).unwrap_or(0);
        let wanted = (end.is_null() || beyond > 0).then(|| length.saturating_add(beyond));
        depths.is_none() || wanted.is_none_or(|wanted| self.depth_at(depths, first) == Some(wanted))
    }

    /// Entries from a block to null; 0 if its links do not end there.
    fn depth_at(&self, depths: &Option<Depths>, at: Address) -> Option<u64> {
        let depths = depths.as_ref()?;
        let place = self.map.place(at)?;
        let block = BlockId {
            extent: place.extent,
            slot: place.slot?.0,
        };
        let index = self.index(&depths.first_of_row, block)?;
        depths.depth.get(index).map(|depth| (*depth).into())
    }

    /// The first block of an unlisted chain of exactly `length` entries anywhere in the group,
    /// if `accept` agrees. `None` too for a group that is too large to search.
    pub fn anywhere<L: Links>(
        &self,
        links: &L,
        length: u64,
        accept: &dyn Fn(BlockId, Address) -> bool,
    ) -> Option<Found> {
        let wanted = u32::try_from(length)
            .ok()
            .filter(|length| (1..PENDING).contains(length))?;
        let depths = self
            .depths
            .get_or_init(|| self.measure(links, &|id| !self.map.is_listed(id)));
        let depths = depths.as_ref()?;
        let mut found: Option<Found> = None;
        for (&row, &first) in self.rows.iter().zip(&depths.first_of_row) {
            let extent = self.map.extent(row)?;
            for slot in 0..extent.blocks() {
                let index = usize::try_from(first.saturating_add(u64::from(slot))).ok()?;
                if depths.depth.get(index) != Some(&wanted) {
                    continue;
                }
                let Some(block) = extent
                    .block(row, slot)
                    .filter(|block| accept(block.id, block.address))
                else {
                    continue;
                };
                match &mut found {
                    None => {
                        found = Some(Found {
                            first: block.address,
                            unique: true,
                        })
                    }
                    Some(found) => {
                        found.unique = false;
                        return Some(*found);
                    }
                }
            }
        }
        found
    }

    fn index(&self, first_of_row: &[u64], block: BlockId) -> Option<usize> {
        let row = self.rows.binary_search(&block.extent).ok()?;
        usize::try_from(first_of_row.get(row)?.saturating_add(u64::from(block.slot))).ok()
    }

    /// Measures [`Depths`] through the blocks that `passes` accepts: each is visited a constant
    /// number of times. `None` for a group that is too large.
    fn measure<L: Links>(&self, links: &L, passes: &dyn Fn(BlockId) -> bool) -> Option<Depths> {
        let mut first_of_row = Vec::with_capacity(self.rows.len());
        let mut total = 0u64;
        for &row in &self.rows {
            first_of_row.push(total);
            total = total.saturating_add(
                self.map
                    .extent(row)
                    .map_or(0, |extent| extent.blocks().into()),
            );
        }
        let count = usize::try_from(total)
            .ok()
            .filter(|_| total <= Self::MAX_BLOCKS)?;
        let mut depth = vec![UNKNOWN; count];
        let mut cursor = Cursor::new(self.memory);
        let mut path: Vec<usize> = Vec::new();
        for &row in &self.rows {
            let Some(extent) = self.map.extent(row) else {
                continue;
            };
            for slot in 0..extent.blocks() {
                let Some(block) = extent.block(row, slot) else {
                    continue;
                };
                let (mut at, mut id) = (block.address, block.id);
                // Down the links until a block of known depth, null, or a dead end ...
                let mut below = loop {
                    let Some(index) = self.index(&first_of_row, id) else {
                        break ENDLESS;
                    };
                    match depth.get(index).copied() {
                        Some(UNKNOWN) if passes(id) => {}
                        Some(known) if known < PENDING => break known,
                        _ => break ENDLESS, // not to be passed, or a circle
                    }
                    if let Some(mine) = depth.get_mut(index) {
                        *mine = PENDING;
                    }
                    path.push(index);
                    let Ok(word) = cursor.read_u64(at) else {
                        break ENDLESS;
                    };
                    at = links.decode(at, word);
                    if at.is_null() {
                        if let Some(index) = path.pop()
                            && let Some(mine) = depth.get_mut(index)
                        {
                            *mine = 1;
                        }
                        break 1;
                    }
                    match links.admit(self.map, self.memory, self.class, at) {
                        Ok(next) => id = next,
                        Err(_) => break ENDLESS,
                    }
                };
                // ... and back up, counting.
                for index in path.drain(..).rev() {
                    below = if below == ENDLESS {
                        ENDLESS
                    } else {
                        below.saturating_add(1).min(PENDING - 1)
                    };
                    if let Some(mine) = depth.get_mut(index) {
                        *mine = below;
                    }
                }
            }
        }
        Some(Depths {
            first_of_row,
            depth,
        })
    }
}
