//! The one word that leads to everything, written over.
//!
//! A process with one arena and less than a gigabyte of heap has one word in `arenas`, one `arena_t.base` and one slot of the
//! page map that is not null. Without any of them nothing is found on the usual way, but what it led to is still there:
//!
//! ```text
//! base blocks:  base_t at +0xc0, behind it the arena_t     told by its page caches, which are dirty, muzzy and retained
//! `arenas`:     4095 words of which the first is not zero
//! leaf:         elements that lead to extents of the element's own page
//! ```
//!
//! All of this is believed only if the heap that follows agrees with itself.

use std::collections::BTreeMap;

use super::arenas::{self, Arenas, MAX_ARENAS};
use super::extents::Row;
use super::layout::Layout;
use super::tree::{Geometry, Leaf, Lost, Tree};
use crate::scan::nonzero_words;
use crate::target::{Address, Cursor, MemoryExt, Module, TargetMemory};

/// Where `arenas` is, for a layout with which there is an arena 0.
pub fn find_arenas(
    memory: &dyn TargetMemory,
    module: &Module,
    layouts: &[Layout],
    named: Option<Address>,
) -> Option<(Layout, Address)> {
    let (layout, arena) = layouts
        .iter()
        .find_map(|layout| Some((*layout, arenas::lone_arena(memory, layout)?)))?;
    let slots = named.or_else(|| {
        let runs = long_runs(memory, module);
        let mut right = runs.iter().filter(|(_, word)| *word == arena.get());
        let only = match runs.as_slice() {
            [only] => Some(only),
            _ => None,
        };
        right.next().or(only).map(|(at, _)| *at)
    })?;
    Some((layout, slots))
}

/// Words that are followed by as many zeros as `arenas` has behind its first word, or a few more.
fn long_runs(memory: &dyn TargetMemory, module: &Module) -> Vec<(Address, u64)> {
    const ENOUGH: u64 = MAX_ARENAS - 1;
    const TOO_MANY: u64 = 2 * MAX_ARENAS;
    let words = words_among_zeros(memory, module, ENOUGH);
    let runs = words.iter().filter(|word| {
        let zeros = word.next.offset_from(word.at).unwrap_or(0) / 8;
        (ENOUGH..TOO_MANY).contains(&zeros.saturating_sub(1))
    });
    runs.map(|word| (word.at, word.value)).collect()
}

/// A word of a module's variables, and where the next ones are that are not zero.
struct Alone {
    before: Address,
    at: Address,
    value: u64,
    next: Address,
}

/// Words with so many zeros around them.
fn words_among_zeros(memory: &dyn TargetMemory, module: &Module, zeros: u64) -> Vec<Alone> {
    const MAX_WORDS: usize = 256;
    let mut found = Vec::new();
    let mut before = module.range.start;
    let mut words = nonzero_words(memory, module).peekable();
    while let Some((at, value)) = words.next() {
        let next = words.peek().map_or(module.range.end, |(next, _)| *next);
        let around = next.offset_from(before).unwrap_or(0) / 8;
        if around > zeros && found.len() < MAX_WORDS {
            found.push(Alone {
                before,
                at,
                value,
                next,
            });
        }
        before = at;
    }
    found
}

/// Where the root begins whose only slot that is not null was written over: as many zeros as a root has around one word.
pub fn find_root(
    memory: &dyn TargetMemory,
    module: &Module,
    layout: &Layout,
    arenas: &Arenas,
) -> Option<Address> {
    let found = Geometry::ALL.into_iter().map(|geometry| {
        let tree = Tree::empty(layout, geometry);
        (leaves_by_contents(memory, layout, arenas, &tree), geometry)
    });
    let ((_, leaves), geometry) = found.max_by_key(|((votes, _), _)| *votes)?;
    let bits = geometry.level_bits();
    let top = bits * (geometry.inner_levels() + 1);
    let slots: Vec<u64> = leaves.iter().map(|leaf| leaf.page >> top).collect();
    let (first, last) = (*slots.first()?, *slots.last()?);
    let fits = |word: &Alone| {
        let root = word.at.checked_sub(first * 8)?;
        let end = root.checked_add(8 << bits)?;
        (first == last && word.before < root && word.next >= end).then_some(root)
    };
    let words = words_among_zeros(memory, module, 1 << bits >> 1);
    only(words.iter().filter_map(fits))
}

/// What an iterator has, if that is one.
fn only<T>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

/// A tree with the leaves that the allocator's own memory holds, wherever they are named. `None` if there are none.
pub fn find_leaves(
    memory: &dyn TargetMemory,
    layout: &Layout,
    arenas: &Arenas,
    root: Address,
    geometry: Geometry,
) -> Option<Tree> {
    let mut tree = Tree::empty(layout, geometry);
    tree.root = root;
    (_, tree.leaves) = leaves_by_contents(memory, layout, arenas, &tree);
    for leaf in tree.leaves.clone() {
        tree.lost.extend(lost_slot(memory, arenas, &tree, leaf));
    }
    (!tree.leaves.is_empty()).then_some(tree)
}

/// Adds the leaves that slots should lead to which lead nowhere. Says whether there are any.
pub fn add_leaves(
    memory: &dyn TargetMemory,
    layout: &Layout,
    arenas: &Arenas,
    tree: &mut Tree,
) -> bool {
    let found = find_leaves(memory, layout, arenas, tree.root, tree.geometry);
    let Some(found) = found else {
        return false;
    };
    for leaf in found.leaves {
        let slot = lost_slot(memory, arenas, tree, leaf);
        let is_stray = |lost: &Lost| tree.strays.iter().any(|(at, _)| *at == lost.at);
        let is_new = tree.leaves.iter().all(|known| known.page != leaf.page);
        if let Some(lost) = slot.filter(is_stray).filter(|_| is_new) {
            tree.leaves.push(leaf);
            tree.lost.push(lost);
        }
    }
    tree.leaves.sort_by_key(|leaf| leaf.page);
    let lost = &tree.lost;
    let is_lost = |at: Address| lost.iter().any(|lost| lost.at == at);
    tree.strays.retain(|(at, _)| !is_lost(*at));
    !tree.lost.is_empty()
}

/// Elements of first pages say where their leaf begins, and which page it maps first. With the number of those that agree
/// about the fullest one.
fn leaves_by_contents(
    memory: &dyn TargetMemory,
    layout: &Layout,
    arenas: &Arenas,
    tree: &Tree,
) -> (usize, Vec<Leaf>) {
    /// Elements that speak for a leaf: a link somewhere else may look like one.
    const ENOUGH: usize = 3;
    const MAX_VOTES: usize = 1 << 20;
    const MAX_LEAVES: usize = 256;
    /// A leaf of which so many times fewer elements speak than of the fullest one is none.
    const FEW: usize = 32;
    let mask = (1u64 << tree.geometry.level_bits()) - 1;
    let mut votes: BTreeMap<(u64, Address), usize> = BTreeMap::new();
    let mut elements = Cursor::new(memory);
    let mut descriptors = Cursor::new(memory);
    each_own_word(memory, arenas, |at, _| {
        if !at.is_aligned(tree.geometry.element_bytes()) {
            return;
        }
        let Some(element) = tree.element(&mut elements, at) else {
            return;
        };
        let extent = element.extent;
        if extent.is_null() || !extent.is_aligned(layout.extent.alignment) || !arenas.is_own(extent)
        {
            return;
        }
        let row = Row::read(&mut descriptors, layout, extent);
        let Some(row) = row.filter(|row| arenas.get(row.arena).is_some()) else {
            return;
        };
        let page = row.first_page();
        let leaf = at.checked_sub((page & mask) * tree.geometry.element_bytes());
        if let Some(leaf) = leaf.filter(|leaf| leaf.is_aligned(64) && arenas.is_own(*leaf))
            && votes.len() < MAX_VOTES
        {
            *votes.entry((page & !mask, leaf)).or_default() += 1;
        }
    });
    // Other pages of slabs lead a little beside the leaf, but fewer of them agree.
    let mut found: Vec<(usize, Leaf)> = votes
        .into_iter()
        .filter(|(_, count)| *count >= ENOUGH)
        .map(|((page, at), count)| (count, Leaf { page, at }))
        .collect();
    found.sort_by_key(|(count, leaf)| (std::cmp::Reverse(*count), leaf.page));
    // Links between descriptors that lie in a row may agree by chance, too.
    let most = found.first().map_or(0, |(count, _)| *count);
    found.retain(|(count, _)| count * FEW >= most);
    let bytes = tree.geometry.element_bytes() << tree.geometry.level_bits();
    let mut leaves: Vec<Leaf> = Vec::new();
    for (_, leaf) in found {
        let apart = |other: &Leaf| {
            other.page != leaf.page && other.at.get().abs_diff(leaf.at.get()) >= bytes
        };
        let ends = leaf.at.checked_add(bytes - 1);
        if ends.is_some_and(|end| arenas.is_own(end)) && leaves.iter().all(apart) {
            leaves.push(leaf);
        }
        if leaves.len() >= MAX_LEAVES {
            break;
        }
    }
    leaves.sort_by_key(|leaf| leaf.page);
    (most, leaves)
}

/// The slot that should lead to a leaf, or to the node that does, and does not.
fn lost_slot(memory: &dyn TargetMemory, arenas: &Arenas, tree: &Tree, leaf: Leaf) -> Option<Lost> {
    let bits = tree.geometry.level_bits();
    let index = |level: u32| leaf.page >> (bits * level) & ((1 << bits) - 1);
    let word = |at: Address| memory.read_u64(at).ok();
    let lost = |at: Address, child: Address| {
        let found = word(at)?;
        (found != child.get()).then_some(Lost { at, child, found })
    };
    if tree.geometry.inner_levels() == 0 {
        return lost(tree.root.checked_add(index(1) * 8)?, leaf.at);
    }
    let slot = tree.root.checked_add(index(2) * 8)?;
    let mut node = None;
    each_own_word(memory, arenas, |at, found| {
        let first = at.checked_sub(index(1) * 8);
        if found == leaf.at.get() && node.is_none() {
            node = first.filter(|first| first.is_aligned(64) && arenas.is_own(*first));
        }
    });
    match node {
        Some(node) => lost(slot, node),
        None => {
            let node = Address::new(word(slot)?);
            let inner = node.checked_add(index(1) * 8)?;
            arenas.is_own(node).then(|| lost(inner, leaf.at))?
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
        let words = (block.end.get() - block.start.get()) / 8;
        for index in 0..words.min(left) {
            let at = block.start.saturating_add(index * 8);
            match cursor.read_u64(at) {
                Ok(0) | Err(_) => {}
                Ok(word) => each(at, word),
            }
        }
        left = left.saturating_sub(words);
    }
}
