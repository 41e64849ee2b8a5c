//! The page map: where the element of each page is, and what it says.

use std::collections::BTreeSet;

use ground::target::{Address, MemoryExt};

use super::ground::Ground;
use super::numbers::{ADDRESS, PAGE_SHIFT};

/// The page map of a heap.
#[derive(Default)]
pub struct Tree {
    /// Slots of the root, and how many of them there are.
    pub root: u64,
    pub slots: u64,
    /// Elements of two words.
    pub wide: bool,
    /// First page and address of each leaf.
    leaves: Vec<(u64, u64)>,
    /// Slots of the root and of nodes that lead to a node.
    pub links: Vec<u64>,
    /// Descriptors that elements name.
    pub extents: BTreeSet<u64>,
}

/// An element, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    pub extent: u64,
    pub class: u64,
    pub slab: u64,
    /// 0 before 5.3.
    pub state: u64,
    pub head: u64,
}

impl Tree {
    /// Reads it in the geometry in which more elements name extents of their pages.
    pub fn read(ground: &Ground<'_>, root: u64) -> Option<Self> {
        let trees = [false, true].map(|wide| Self::read_as(ground, root, wide));
        let [(narrow, packed), (wide, twice)] = trees;
        let best = if wide > narrow { twice } else { packed };
        (!best.extents.is_empty()).then_some(best)
    }

    fn read_as(ground: &Ground<'_>, root: u64, wide: bool) -> (usize, Self) {
        let bits = if wide { 15 } else { 18 };
        let mut tree = Self {
            root,
            slots: 1 << bits,
            wide,
            ..Self::default()
        };
        let mut nodes = vec![(0, root)];
        for level in (1..=if wide { 2 } else { 1 }).rev() {
            let mut next = Vec::new();
            for (page, node) in nodes {
                for (slot, child) in words(ground, node, 1 << bits) {
                    if ground.is_own(child) {
                        tree.links.push(node + slot * 8);
                        next.push((page + (slot << (bits * level)), child));
                    }
                }
            }
            nodes = next;
        }
        tree.leaves = nodes;
        let mut fitting = 0;
        for (page, leaf) in &tree.leaves {
            let step = if wide { 2 } else { 1 };
            for (slot, word) in words(ground, *leaf, step << bits) {
                if slot % step != 0 {
                    continue;
                }
                let extent = tree.decode(ground.numbers.new, word, 0).extent;
                if extent == 0 || !ground.is_own(extent) {
                    continue;
                }
                let address = ground.word(extent + ADDRESS).unwrap_or(0);
                if address >> PAGE_SHIFT == page + slot / step {
                    fitting += 1;
                    tree.extents.insert(extent);
                }
            }
        }
        (fitting, tree)
    }

    /// Address of a page's element.
    pub fn element_at(&self, page: u64) -> Option<u64> {
        let first = page & !(self.slots - 1);
        let (_, leaf) = self.leaves.iter().find(|(page, _)| *page == first)?;
        Some(leaf + (page - first) * if self.wide { 16 } else { 8 })
    }

    /// What an element of these words says; `second` only where there are two.
    pub fn decode(&self, new: bool, word: u64, second: u64) -> Element {
        let flags = if self.wide { second } else { word };
        let class = match (self.wide, new) {
            (false, _) => word >> 48,
            (true, true) => (second & 0xffff_ffff) >> 5,
            (true, false) => second & 0xffff_ffff,
        };
        let mask = if new { !127 } else { !1 };
        Element {
            extent: if self.wide {
                word
            } else {
                (((word << 16) as i64 >> 16) as u64) & mask
            },
            class,
            slab: flags & 1,
            state: if new { flags >> 2 & 7 } else { 0 },
            head: if new { flags >> 1 & 1 } else { 0 },
        }
    }

    /// What a page's element says.
    pub fn element(&self, ground: &Ground<'_>, page: u64) -> Option<Element> {
        let at = self.element_at(page)?;
        let second = if self.wide { ground.word(at + 8)? } else { 0 };
        Some(self.decode(ground.numbers.new, ground.word(at)?, second))
    }
}

/// Words of an array that are not 0, with their places.
fn words(ground: &Ground<'_>, at: u64, count: u64) -> Vec<(u64, u64)> {
    let mut bytes = vec![0; (count * 8) as usize];
    if ground
        .target
        .memory
        .read_into(Address::new(at), &mut bytes)
        .is_err()
    {
        return Vec::new();
    }
    let words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
    (0..).zip(words).filter(|(_, word)| *word != 0).collect()
}
