//! Leaves that no slot leads to, by what stands in them.
//!
//! ```text
//! element ──> descriptor ──> first page     says which element of its leaf this is, and so where the leaf begins
//! ```
//!
//! An element repeats something of its extent beside the name. That tells it from a link between descriptors, which is a
//! pointer and nothing else, so that one extent is enough: a new leaf has no more. What gives a lost leaf away are pages that
//! an arena counts and that no extent has.

use std::collections::{BTreeMap, BTreeSet};

use super::super::arenas::Arenas;
use super::super::extents::{Extents, Row, Source};
use super::super::tree::{Element, Leaf, Lost, Tree};
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

/// Places where elements say that a leaf begins.
const MAX_VOTES: usize = 1 << 16;
/// Leaves that are found without their slots.
const MAX_LEAVES: usize = 256;

/// A tree with the leaves that the allocator's own memory holds, wherever they are named. `None` if there are none.
pub fn find(source: Source<'_>, root: Address) -> Option<Tree> {
    let mut tree = source.tree.clone();
    tree.root = root;
    tree.leaves = by_contents(source, &[]);
    let mut slots = Slots::of(source);
    tree.lost = tree
        .leaves
        .iter()
        .filter_map(|leaf| slots.lost(&tree, *leaf))
        .collect();
    (!tree.leaves.is_empty()).then_some(tree)
}

/// The tree with the leaves that slots should lead to which do not. `None` if there are none.
pub fn add(source: Source<'_>, extents: &Extents) -> Option<Tree> {
    let mut tree = source.tree.clone();
    if tree.strays.is_empty() && source.lacking(&extents.rows).is_empty() {
        return None;
    }
    let span = 1u64 << tree.geometry.level_bits();
    // Where a slot leads beside its leaf, what stands there describes other pages.
    let serves = |leaf: &&Leaf| {
        let first = extents
            .rows
            .partition_point(|row| row.first_page() < leaf.page);
        let row = extents.rows.get(first);
        row.is_some_and(|row| row.first_page().saturating_sub(leaf.page) < span)
    };
    let known: Vec<Leaf> = tree.leaves.iter().filter(serves).copied().collect();
    let mut slots = Slots::of(source);
    for leaf in by_contents(source, &known) {
        if let Some(lost) = slots.lost(&tree, leaf) {
            tree.leaves.retain(|other| other.page != leaf.page);
            tree.leaves.push(leaf);
            tree.lost.push(lost);
        }
    }
    tree.leaves.sort_by_key(|leaf| leaf.page);
    let lost = &tree.lost;
    let is_lost = |at: Address| lost.iter().any(|lost| lost.at == at);
    tree.strays.retain(|(at, _)| !is_lost(*at));
    (!tree.lost.is_empty()).then_some(tree)
}

/// Pages and memory that leaves take.
struct Places {
    pages: BTreeSet<u64>,
    starts: BTreeSet<Address>,
    /// Bytes of a leaf.
    bytes: u64,
}

impl Places {
    fn of(leaves: &[Leaf], bytes: u64) -> Self {
        let mut places = Self {
            pages: BTreeSet::new(),
            starts: BTreeSet::new(),
            bytes,
        };
        leaves.iter().for_each(|leaf| places.take(*leaf));
        places
    }

    fn take(&mut self, leaf: Leaf) {
        self.pages.insert(leaf.page);
        self.starts.insert(leaf.at);
    }

    /// Whether no leaf maps the pages from `page` on, and none lies in the `bytes` from `at` on.
    fn are_free(&self, page: u64, at: Address, bytes: u64) -> bool {
        let before = self.starts.range(..=at).next_back();
        let is_behind = before.is_none_or(|leaf| at.get().saturating_sub(leaf.get()) >= self.bytes);
        let behind = self.starts.range(at..).next();
        let is_before = behind.is_none_or(|leaf| leaf.get().saturating_sub(at.get()) >= bytes);
        is_behind && is_before && !self.pages.contains(&page)
    }
}

/// Leaves that elements speak for and that are not among the known ones, by page.
pub fn by_contents(source: Source<'_>, known: &[Leaf]) -> Vec<Leaf> {
    let geometry = source.tree.geometry;
    let step = geometry.element_bytes();
    let bytes = step << geometry.level_bits();
    let mask = (1u64 << geometry.level_bits()).saturating_sub(1);
    let known = Places::of(known, bytes);
    let mut votes: BTreeMap<(u64, Address), usize> = BTreeMap::new();
    let mut cursor = Cursor::new(source.memory);
    let mut descriptors = Cursor::new(source.memory);
    each_own_word(source.memory, source.arenas, |at, _| {
        let Some(row) = first_named(source, &mut cursor, &mut descriptors, at) else {
            return;
        };
        let page = row.first_page();
        let leaf = at.checked_sub((page & mask).saturating_mul(step));
        let Some(leaf) = leaf.filter(|leaf| leaf.is_aligned(64) && source.arenas.is_own(*leaf))
        else {
            return;
        };
        // The element of the last page, if it is another one, and in this leaf.
        let last = row.last_page().saturating_sub(page & !mask);
        let element = leaf.checked_add(last.saturating_mul(step));
        let ends = last > mask
            || element.is_some_and(|at| {
                let element = source.tree.element(&mut cursor, at);
                element.is_some_and(|element| element.extent == row.at)
            });
        if ends && votes.len() < MAX_VOTES && known.are_free(page & !mask, at, step) {
            {
                let slot = votes.entry((page & !mask, leaf)).or_default();
                *slot = slot.saturating_add(1);
            };
        }
    });
    let mut found: Vec<(usize, Leaf)> = votes
        .into_iter()
        .map(|((page, at), count)| (count, Leaf { page, at }))
        .collect();
    found.sort_by_key(|(count, leaf)| (std::cmp::Reverse(*count), leaf.page, leaf.at));
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut taken = known;
    for (_, leaf) in found {
        if leaves.len() < MAX_LEAVES
            && taken.are_free(leaf.page, leaf.at, bytes)
            && is_leaf(source, leaf)
        {
            taken.take(leaf);
            leaves.push(leaf);
        }
    }
    leaves.sort_by_key(|leaf| leaf.page);
    leaves
}

/// The extent that a word names as the element of its first page would, and says something else of.
fn first_named(
    source: Source<'_>,
    cursor: &mut Cursor<'_>,
    descriptors: &mut Cursor<'_>,
    at: Address,
) -> Option<Row> {
    let tree = source.tree;
    let step = tree.geometry.element_bytes();
    let element = at.is_aligned(step).then(|| tree.element(cursor, at))??;
    let extent = element.extent;
    let pointer = Element {
        extent,
        head: element.head.map(|_| false),
        state: element.state.map(|_| 0),
        ..Element::none()
    };
    if element == pointer || !source.may_be_extent(extent) {
        return None;
    }
    let before = tree.element(cursor, at.checked_sub(step)?);
    // Inner pages of slabs repeat it.
    if before.is_some_and(|before| before.extent == extent) {
        return None;
    }
    Row::read(descriptors, source.layout, extent).filter(|row| source.agrees(row, &element))
}

/// Whether more elements of a leaf lead to extents of their own pages than elsewhere.
fn is_leaf(source: Source<'_>, leaf: Leaf) -> bool {
    let geometry = source.tree.geometry;
    let count = 1u64 << geometry.level_bits();
    let last = leaf.at.checked_add(
        geometry
            .element_bytes()
            .saturating_mul(count)
            .saturating_sub(1),
    );
    if last.is_none_or(|last| !source.arenas.is_own(last)) {
        return false;
    }
    let mut elements = Cursor::new(source.memory);
    let mut descriptors = Cursor::new(source.memory);
    let (mut right, mut wrong) = (0u64, 0u64);
    for index in 0..count {
        let at = leaf
            .at
            .saturating_add(index.saturating_mul(geometry.element_bytes()));
        let element = source.tree.element(&mut elements, at);
        let Some(element) = element.filter(|element| !element.extent.is_null()) else {
            continue;
        };
        let row = source
            .may_be_extent(element.extent)
            .then(|| Row::read(&mut descriptors, source.layout, element.extent))
            .flatten();
        match row.is_some_and(|row| row.holds_page(leaf.page.saturating_add(index))) {
            true => right = right.saturating_add(1),
            false => wrong = wrong.saturating_add(1),
        }
    }
    right > wrong
}

/// Slots by the leaves that they should lead to.
struct Slots<'a> {
    source: Source<'a>,
    /// Nodes between the root and the leaves, by place in the root, where they were searched for.
    nodes: BTreeMap<u64, Option<Address>>,
}

impl<'a> Slots<'a> {
    fn of(source: Source<'a>) -> Self {
        Self {
            source,
            nodes: BTreeMap::new(),
        }
    }

    /// The slot that should lead to a leaf, or to the node that does, and does not.
    fn lost(&mut self, tree: &Tree, leaf: Leaf) -> Option<Lost> {
        let Source { memory, arenas, .. } = self.source;
        let bits = tree.geometry.level_bits();
        let index =
            |level: u32| leaf.page >> bits.saturating_mul(level) & (1u64 << bits).saturating_sub(1);
        let word = |at: Address| memory.read_u64(at).ok();
        let lost = |at: Address, child: Address| {
            let found = word(at)?;
            (found != child.get()).then_some(Lost { at, child, found })
        };
        if tree.geometry.inner_levels() == 0 {
            return lost(tree.root.checked_add(index(1).saturating_mul(8))?, leaf.at);
        }
        let slot = tree.root.checked_add(index(2).saturating_mul(8))?;
        let node = Address::new(word(slot)?);
        let inner = node.checked_add(index(1).saturating_mul(8));
        if inner.is_some_and(|inner| word(inner) == Some(leaf.at.get())) {
            return None;
        }
        let search = || {
            let mut found = None;
            each_own_word(memory, arenas, |at, word| {
                let first = at.checked_sub(index(1).saturating_mul(8));
                if word == leaf.at.get() && found.is_none() {
                    found = first.filter(|first| first.is_aligned(64) && arenas.is_own(*first));
                }
            });
            found
        };
        match *self.nodes.entry(index(2)).or_insert_with(search) {
            Some(node) => lost(slot, node),
            None => arenas.is_own(node).then(|| lost(inner?, leaf.at))?,
        }
    }
}

/// Every word of the allocator's own memory that is not zero.
fn each_own_word(memory: &dyn TargetMemory, arenas: &Arenas, mut each: impl FnMut(Address, u64)) {
    /// 2 GiB of bookkeeping describe more than a terabyte.
    const MAX_WORDS: u64 = 1 << 28;
    let mut cursor = Cursor::new(memory);
    let mut left = MAX_WORDS;
    for block in arenas.blocks() {
        let words = block.end.get().saturating_sub(block.start.get()) / 8;
        for index in 0..words.min(left) {
            let at = block.start.saturating_add(index.saturating_mul(8));
            match cursor.read_u64(at) {
                Ok(0) | Err(_) => {}
                Ok(word) => each(at, word),
            }
        }
        left = left.saturating_sub(words);
    }
}
