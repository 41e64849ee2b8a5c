//! The page map: a radix tree from pages to extents.
//!
//! ```text
//! address bits 48:  root[2^18] ──> leaf[2^18] of 8 bytes       extent, class and flags packed into one word
//! address bits 57:  root[2^15] ──> node[2^15] ──> leaf[2^15] of 16 bytes
//! ```
//!
//! The number of address bits is the build machine's, whatever the release (`rtree.h`, `RTREE_NSB`): both are tried,
//! and the one whose leaves lead to extents that name the leaf's own page is right. An active slab has an element on
//! every page, any other extent on its first and last page. What else the elements repeat of the extent is reliable
//! only in part: the class of an active large extent on its first page, nothing of an inactive one.

use super::layout::Layout;
use super::sizes::PAGE_SHIFT;
use ground::scan::words_in;
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

/// How the tree is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Geometry {
    /// Addresses of 48 bits: two levels, a leaf element is one word.
    Bits48,
    /// Addresses of 57 bits: three levels, a leaf element is two words.
    Bits57,
}

impl Geometry {
    /// Both.
    pub const ALL: [Geometry; 2] = [Geometry::Bits48, Geometry::Bits57];

    /// Bits of an address.
    pub fn address_bits(self) -> u32 {
        match self {
            Geometry::Bits48 => 48,
            Geometry::Bits57 => 57,
        }
    }

    /// log2 of the slots of the root, of a node and of a leaf alike.
    pub fn level_bits(self) -> u32 {
        match self {
            Geometry::Bits48 => 18,
            Geometry::Bits57 => 15,
        }
    }

    /// Bytes of a leaf element.
    pub fn element_bytes(self) -> u64 {
        match self {
            Geometry::Bits48 => 8,
            Geometry::Bits57 => 16,
        }
    }

    /// Of so many leaf elements side by side, those that name anything: number and address.
    pub fn elements(
        self,
        memory: &dyn TargetMemory,
        first: Address,
        count: u64,
    ) -> impl Iterator<Item = (u64, Address)> {
        let bytes = self.element_bytes();
        let offset = move |at: Address| at.offset_from(first).unwrap_or(0);
        let range = first..first.saturating_add(count.saturating_mul(bytes));
        words_in(memory, range, move |at, _| offset(at).is_multiple_of(bytes))
            .map(move |(at, _)| (offset(at).checked_div(bytes).unwrap_or(0), at))
    }

    /// Levels of nodes between the root and the leaves.
    pub fn inner_levels(self) -> u32 {
        match self {
            Geometry::Bits48 => 0,
            Geometry::Bits57 => 1,
        }
    }
}

/// A leaf element, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// The extent's descriptor; null where there is none.
    pub extent: Address,
    /// Size class.
    pub class: u16,
    /// Cut into regions.
    pub slab: bool,
    /// State (5.3).
    pub state: Option<u8>,
    /// First of what the system mapped in one go (5.3).
    pub head: Option<bool>,
}

impl Element {
    /// One that was never written.
    pub fn none() -> Self {
        Self {
            extent: Address::default(),
            class: 0,
            slab: false,
            state: None,
            head: None,
        }
    }
}

/// A leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The first page that it maps.
    pub page: u64,
    /// Its elements.
    pub at: Address,
}

/// A slot that led to a node or leaf, which was found without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The slot.
    pub at: Address,
    /// What it should lead to.
    pub child: Address,
    /// What it holds.
    pub found: u64,
}

/// The tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The root's slots.
    pub root: Address,
    /// How it is built.
    pub geometry: Geometry,
    /// All leaves, by page.
    pub leaves: Vec<Leaf>,
    /// Nodes and leaves that are not in the core, or not whole.
    pub missing: u64,
    /// Slots that name no memory of the allocator.
    pub strays: Vec<(Address, u64)>,
    /// Slots that lead elsewhere than they should.
    pub lost: Vec<Lost>,
    generation_5_3: bool,
}

/// More leaves than any process has: 4 TiB of heap, or 512 GiB.
const MAX_LEAVES: usize = 1 << 12;
/// Slots that lead nowhere and are remembered.
const MAX_STRAYS: usize = 16;

impl Tree {
    /// Reads the inner levels. `is_own`: whether memory is the allocator's own, as all nodes are.
    pub fn read(
        memory: &dyn TargetMemory,
        layout: &Layout,
        root: Address,
        geometry: Geometry,
        is_own: &dyn Fn(Address) -> bool,
    ) -> Self {
        let mut tree = Self {
            root,
            ..Self::empty(layout, geometry)
        };
        let bits = geometry.level_bits();
        let mut nodes = vec![Leaf { page: 0, at: root }];
        for level in (0..=geometry.inner_levels()).rev() {
            let below = bits.saturating_mul(level.saturating_add(1));
            let mut next = Vec::new();
            for node in nodes {
                tree.children(memory, node, below, is_own, &mut next);
            }
            nodes = next;
        }
        // A leaf serves one range of addresses; a slot that shares it with another is forged.
        nodes.sort_by_key(|leaf| (leaf.at, leaf.page));
        nodes.dedup_by_key(|leaf| leaf.at);
        let before = nodes.len();
        nodes.retain(|leaf| memory.window(leaf.at).is_ok());
        tree.missing = tree
            .missing
            .saturating_add(before.saturating_sub(nodes.len()) as u64);
        let bytes = geometry.element_bytes() << bits;
        let is_cut = |leaf: &&Leaf| memory.lacks(&(leaf.at..leaf.at.saturating_add(bytes)));
        tree.missing = tree
            .missing
            .saturating_add(nodes.iter().filter(is_cut).count() as u64);
        nodes.sort_by_key(|leaf| leaf.page);
        tree.leaves = nodes;
        tree
    }

    /// A tree without any leaf, for decoding elements.
    pub fn empty(layout: &Layout, geometry: Geometry) -> Self {
        Self {
            root: Address::default(),
            geometry,
            leaves: Vec::new(),
            missing: 0,
            strays: Vec::new(),
            lost: Vec::new(),
            generation_5_3: layout.generation.is_5_3(),
        }
    }

    fn children(
        &mut self,
        memory: &dyn TargetMemory,
        node: Leaf,
        below: u32,
        is_own: &dyn Fn(Address) -> bool,
        out: &mut Vec<Leaf>,
    ) {
        let slots = node.at.saturating_add(8 << self.geometry.level_bits());
        let last = slots.checked_sub(8);
        let is_there =
            memory.window(node.at).is_ok() && last.is_some_and(|last| memory.window(last).is_ok());
        self.missing = self.missing.saturating_add(u64::from(!is_there));
        for (at, word) in words_in(memory, node.at..slots, |_, _| true) {
            let slot = at.offset_from(node.at).unwrap_or(0) / 8;
            let child = Address::new(word);
            if out.len() < MAX_LEAVES && child.is_aligned(64) && is_own(child) {
                out.push(Leaf {
                    page: node.page.saturating_add(slot << below),
                    at: child,
                });
            } else if self.strays.len() < MAX_STRAYS {
                self.strays.push((at, word));
            }
        }
    }

    /// Address of the element of a page, if its leaf exists.
    pub fn element_at(&self, page: u64) -> Option<Address> {
        let bits = self.geometry.level_bits();
        let first = page >> bits << bits;
        let index = self
            .leaves
            .binary_search_by_key(&first, |leaf| leaf.page)
            .ok()?;
        self.leaves.get(index)?.at.checked_add(
            page.saturating_sub(first)
                .saturating_mul(self.geometry.element_bytes()),
        )
    }

    /// The descriptor that a page's element names; null where there is none.
    pub fn extent_of_page(&self, cursor: &mut Cursor<'_>, page: u64) -> Address {
        self.element_at(page)
            .and_then(|at| self.element(cursor, at))
            .map_or(Address::default(), |element| element.extent)
    }

    /// Whether an address is the first that a leaf maps: what threads keep beside the leaves that they have cached.
    pub fn is_leaf_key(&self, at: Address) -> bool {
        at.is_aligned(1 << PAGE_SHIFT.saturating_add(self.geometry.level_bits()))
    }

    /// Where the lookup of a page that has no leaf ends: the slot that leads nowhere, and the offset at which the child
    /// that is not there would be read next.
    pub fn dead_end(&self, cursor: &mut Cursor<'_>, page: u64) -> Option<(Address, u64)> {
        let bits = self.geometry.level_bits();
        let levels = self.geometry.inner_levels().saturating_add(1);
        let index =
            |level: u32| page >> bits.saturating_mul(level) & (1u64 << bits).saturating_sub(1);
        let mut node = self.root;
        for level in (1..=levels).rev() {
            let slot = node.checked_add(index(level).saturating_mul(8))?;
            let child = cursor.read_u64(slot).ok()?;
            if child == 0 {
                let bytes = if level == 1 {
                    self.geometry.element_bytes()
                } else {
                    8
                };
                return Some((slot, index(level.saturating_sub(1)).saturating_mul(bytes)));
            }
            node = Address::new(child);
        }
        None
    }

    /// Whether an element is two words: what it says beside the name stands in the second.
    pub fn is_wide(&self) -> bool {
        self.geometry.element_bytes() > 8
    }

    /// The element at an address.
    #[inline]
    pub fn element(&self, cursor: &mut Cursor<'_>, at: Address) -> Option<Element> {
        let word = cursor.read_u64(at).ok()?;
        match self.geometry {
            Geometry::Bits48 => Some(self.packed(word)),
            Geometry::Bits57 => {
                let second = cursor.read_u64(at.checked_add(8)?).ok()?;
                Some(self.wide(word, second))
            }
        }
    }

    fn packed(&self, word: u64) -> Element {
        // The pointer is sign-extended from bit 47; its low bits hold the flags.
        let mask = if self.generation_5_3 { !127 } else { !1 };
        let pointer = (word << 16).cast_signed() >> 16;
        Element {
            extent: Address::new(pointer.cast_unsigned() & mask),
            class: u16::try_from(word >> 48).unwrap_or(u16::MAX),
            slab: word & 1 == 1,
            state: self.generation_5_3.then_some((word >> 2 & 7) as u8),
            head: self.generation_5_3.then_some(word >> 1 & 1 == 1),
        }
    }

    fn wide(&self, word: u64, second: u64) -> Element {
        let low = second & u64::from(u32::MAX);
        if self.generation_5_3 {
            Element {
                extent: Address::new(word),
                class: u16::try_from(low >> 5).unwrap_or(u16::MAX),
                slab: low & 1 == 1,
                state: Some((low >> 2 & 7) as u8),
                head: Some(low >> 1 & 1 == 1),
            }
        } else {
            Element {
                extent: Address::new(word),
                class: u16::try_from(low).unwrap_or(u16::MAX),
                slab: second >> 32 & 0xff == 1,
                state: None,
                head: None,
            }
        }
    }

    /// Address bits below the page number.
    pub const PAGE_SHIFT: u32 = PAGE_SHIFT;
}
