//! A healthy heap of tcmalloc, as heapcheck reads it: where damage is planted.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, Target, TargetMemory};
use heapcheck::analysis::HeapAnalysis;
use heaps::list::FreeList;
use heaps::map::{Block, BlockState, Extent, Owner, Shape};

use crate::overlay::Overlay;

/// A list that is as it should be.
pub struct Chain {
    /// The list.
    pub list: FreeList,
    /// Its entries in order.
    pub entries: Vec<u64>,
}

/// A free block's link that a write changed.
#[derive(Clone, Copy, Debug)]
pub struct ChangedLink {
    /// The block.
    pub block: u64,
    /// Index of its chain.
    pub chain: usize,
    /// Its position there.
    pub position: usize,
    /// The link before.
    pub old: u64,
    /// The link now.
    pub new: u64,
}

/// The heap and what is in it.
pub struct Ground<'a> {
    /// The process.
    pub target: Target<'a>,
    /// The heap.
    pub heap: &'a HeapAnalysis<'a>,
    /// Sound lists.
    pub chains: Vec<Chain>,
    /// Chain and position of every listed block.
    pub entries: BTreeMap<u64, (usize, usize)>,
    /// Blocks in use of small classes, by address.
    pub used: Vec<Block>,
    /// Extents that are no metadata.
    pub extents: Vec<Extent>,
    listed: Vec<u64>,
}

/// Entries of a chain that are remembered.
const MAX_CHAIN: u64 = 1 << 20;

impl<'a> Ground<'a> {
    /// Looks at a heap. Links are plain pointers in the first word of a free block.
    pub fn survey(target: Target<'a>, heap: &'a HeapAnalysis<'a>) -> Self {
        let mut chains = Vec::new();
        let mut entries = BTreeMap::new();
        for group in 0..heap.heap.groups() {
            for list in heap.heap.free_lists(group) {
                let Some(chain) = follow(target.memory, &list) else {
                    continue;
                };
                for (position, &entry) in chain.iter().enumerate() {
                    entries.insert(entry, (chains.len(), position));
                }
                chains.push(Chain {
                    list,
                    entries: chain,
                });
            }
        }
        let mut used = Vec::new();
        for (row, extent) in (0..).zip(heap.map.extents()) {
            if extent.owner != Owner::InUse || !matches!(extent.shape, Shape::Slab { .. }) {
                continue;
            }
            let blocks = (0..extent.blocks()).filter_map(|slot| extent.block(row, slot));
            used.extend(blocks.filter(|block| heap.map.state(block.id) == BlockState::InUse));
        }
        let extents = heap.map.extents().iter().copied();
        Self {
            target,
            heap,
            listed: entries.keys().copied().collect(),
            chains,
            entries,
            used,
            extents: extents
                .filter(|extent| extent.shape != Shape::Metadata)
                .collect(),
        }
    }

    /// A word of the healthy core.
    pub fn word(&self, at: u64) -> Option<u64> {
        self.target.memory.read_u64(Address::new(at)).ok()
    }

    /// A listed block.
    pub fn some_entry(&self, rng: &mut fastrand::Rng) -> Option<u64> {
        let index = rng.usize(..self.listed.len().max(1));
        self.listed.get(index).copied()
    }

    /// A block in use.
    pub fn some_used(&self, rng: &mut fastrand::Rng) -> Option<Block> {
        let index = rng.usize(..self.used.len().max(1));
        self.used.get(index).copied()
    }

    /// The block that contains an address.
    pub fn block_at(&self, at: u64) -> Option<Block> {
        Some(self.heap.map.block_at(Address::new(at))?.0)
    }

    /// The block in use that ends where `at` begins.
    pub fn user_before(&self, at: u64) -> Option<Block> {
        let before = self.heap.map.block_before(self.block_at(at)?)?;
        let touches = before.address.get() + before.bytes == at;
        (touches && self.heap.map.state(before.id) == BlockState::InUse).then_some(before)
    }

    /// Links that writes change, by address.
    pub fn changed_links(&self, writes: &[(u64, Vec<u8>)]) -> Option<Vec<ChangedLink>> {
        let mut overlay = Overlay::new(self.target.memory);
        let mut touched = BTreeMap::new();
        for (at, bytes) in writes {
            if !overlay.write(*at, bytes) {
                return None;
            }
            let end = at + bytes.len() as u64;
            touched.extend(self.entries.range(at.saturating_sub(7)..end));
        }
        let mut changed = Vec::new();
        for (&block, &(chain, position)) in touched {
            let old = self.word(block)?;
            let new = overlay.read_u64(Address::new(block)).ok()?;
            if old != new {
                changed.push(ChangedLink {
                    block,
                    chain,
                    position,
                    old,
                    new,
                });
            }
        }
        Some(changed)
    }

    /// Whether a block and those behind it, to the end of its chain, are as a span is cut: in order of address.
    pub fn is_fresh(&self, link: &ChangedLink) -> bool {
        let behind = self.chains[link.chain].entries.get(link.position..);
        let bytes = self.block_at(link.block).map_or(0, |block| block.bytes);
        behind.is_some_and(|behind| {
            behind.len() > 3 && behind.windows(2).all(|pair| pair[1] == pair[0] + bytes)
        })
    }

    /// Blocks that a list loses when a link of it is changed: what followed it, unless the new link
    /// leads to a later entry of the same list.
    pub fn lost_behind(&self, link: &ChangedLink) -> u64 {
        let behind = self.chains[link.chain].entries.len() - 1 - link.position;
        match self.entries.get(&link.new) {
            Some(&(chain, position)) if chain == link.chain && position > link.position => {
                (position - link.position - 1) as u64
            }
            _ => behind as u64,
        }
    }
}

fn follow(memory: &dyn TargetMemory, list: &FreeList) -> Option<Vec<u64>> {
    let mut entries = Vec::new();
    let mut at = list.head.get();
    while at != 0 {
        if entries.len() as u64 >= list.recorded.min(MAX_CHAIN) {
            return None;
        }
        entries.push(at);
        at = memory.read_u64(Address::new(at)).ok()?;
    }
    (entries.len() as u64 == list.recorded).then_some(entries)
}
