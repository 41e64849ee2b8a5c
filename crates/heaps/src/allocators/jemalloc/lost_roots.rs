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

pub mod leaves;

use super::arenas::{self, Arenas, MAX_ARENAS};
use super::extents::Source;
use super::layout::Layout;
use super::sizes::Sizes;
use super::tree::{Geometry, Tree};
use ground::scan::nonzero_words;
use ground::target::{Address, Module, TargetMemory};

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
    (layout, sizes, arenas): (&Layout, &Sizes, &Arenas),
) -> Option<Address> {
    let found = Geometry::ALL.into_iter().map(|geometry| {
        let source = Source {
            memory,
            layout,
            sizes,
            arenas,
            tree: &Tree::empty(layout, geometry),
        };
        (leaves::by_contents(source, &[]), geometry)
    });
    let (leaves, geometry) = found.max_by_key(|(leaves, _)| leaves.len())?;
    let bits = geometry.level_bits();
    let top = bits.saturating_mul(geometry.inner_levels().saturating_add(1));
    let slots: Vec<u64> = leaves.iter().map(|leaf| leaf.page >> top).collect();
    let (first, last) = (*slots.first()?, *slots.last()?);
    let fits = |word: &Alone| {
        let root = word.at.checked_sub(first.saturating_mul(8))?;
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
