//! The linear pass over memory that finds every edge between blocks in use.
//!
//! Memory is gone through row by row and not block by block: which block a word belongs to is asked only of
//! words that may point at something. Those are looked up many at a time, and each step is done for all of
//! them before the next one, so that the processor waits for memory once and not for each word.

use std::ops::Range;

use super::super::Universe;
use super::super::block_words::BlockWords;
use super::super::lookup::{Near, Ranks};
use super::super::resolve::{Edge, Resolver};
use super::super::roots::Strength;
use super::super::words::{self, Filter};
use super::stored::{AT_END, WEAK};
use ground::target::Address;

/// Words that are looked up at a time.
const BATCH: usize = 64;

/// What a piece of memory has: where the edges of each of its blocks begin, and the edges.
pub(super) struct Part {
    pub starts: Vec<u32>,
    pub edges: Vec<u32>,
}

/// A word that may point at a block, and where that may be.
#[derive(Clone, Copy)]
struct Word {
    at: u64,
    value: u64,
    /// The word before it, if that is known.
    before: Option<u64>,
    /// The block whose word it is, counted from the first of the piece.
    source: u32,
    near: Option<Near>,
}

struct Pass<'u, 'm> {
    universe: &'u Universe<'m>,
    ranks: &'u Ranks,
    resolver: Resolver<'u, 'm>,
    /// Number of the first block.
    first: u32,
    words: Vec<Word>,
    part: Part,
    /// Edges that are kept at most.
    most: usize,
}

impl Part {
    /// The edges of the blocks with these bits; `None` if they are more than `most`.
    pub fn read(
        universe: &Universe<'_>,
        ranks: &Ranks,
        bits: Range<u64>,
        most: usize,
    ) -> Option<Self> {
        let first = ranks.before(bits.start);
        let count = ranks.before(bits.end).saturating_sub(first);
        let mut pass = Pass {
            universe,
            ranks,
            resolver: Resolver::new(universe),
            first,
            words: Vec::with_capacity(BATCH),
            part: Self {
                starts: Vec::with_capacity(count as usize),
                edges: Vec::with_capacity((count as usize).min(most)),
            },
            most,
        };
        pass.go(bits);
        let Pass { mut part, .. } = pass;
        let end = u32::try_from(part.edges.len()).ok()?;
        part.starts.resize(count as usize, end);
        (part.edges.len() <= most).then_some(part)
    }
}

impl Pass<'_, '_> {
    fn go(&mut self, bits: Range<u64>) {
        let universe = self.universe;
        let filter = Filter::new(universe.lookup.span());
        for mut sources in universe.lookup.sources(bits) {
            if sources.is_cut() {
                let mut words = BlockWords::new(universe);
                sources.each(|bit, node, at, bytes| {
                    words.each_within(node, at, bytes, filter, |at, value, before| {
                        self.add(bit, at, value, before);
                    });
                });
                continue;
            }
            let memory = sources.memory();
            words::each_beside(
                universe.memory,
                &memory,
                filter,
                None,
                |at, value, before| {
                    if let Some((bit, start)) = sources.at(at.get()) {
                        // What stands before a block is none of its words.
                        let is_inside = at.get().saturating_sub(8) >= start;
                        let before = if is_inside { before } else { Some(0) };
                        self.add(bit, at, value, before);
                    }
                },
            );
        }
        self.settle();
    }

    #[inline]
    fn add(&mut self, bit: u64, at: Address, value: u64, before: Option<u64>) {
        self.words.push(Word {
            at: at.get(),
            value,
            before,
            source: self.ranks.before(bit).saturating_sub(self.first),
            near: None,
        });
        if self.words.len() >= BATCH {
            self.settle();
        }
    }

    /// Looks all words up, and keeps the edges.
    fn settle(&mut self) {
        let (lookup, ranks) = (&self.universe.lookup, self.ranks);
        let count = self.words.len().min(BATCH);
        let (mut rows, mut bits) = ([u32::MAX; BATCH], [u64::MAX; BATCH]);
        for (row, word) in rows.iter_mut().zip(&self.words) {
            *row = lookup.row_hint(word.value).unwrap_or(u32::MAX);
        }
        words::fetch(rows.iter().take(count).map(|row| lookup.touch_row(*row)));
        for (bit, word) in bits.iter_mut().zip(&mut self.words) {
            word.near = lookup.near(word.value);
            *bit = word.near.map_or(u64::MAX, |near| near.bit);
        }
        words::fetch(bits.iter().take(count).map(|bit| ranks.touch(*bit)));
        let others = self.words.iter().filter_map(|word| word.near);
        let others = others.filter(|near| !near.is_sure && !ranks.is_live(near.bit));
        words::fetch(others.map(|near| lookup.touch_chunk(near)));
        for index in 0..self.words.len() {
            if let Some(word) = self.words.get(index).copied() {
                self.look(word);
            }
        }
        self.words.clear();
    }

    #[inline]
    fn look(&mut self, word: Word) {
        let lookup = &self.universe.lookup;
        let near = word.near.and_then(|near| {
            let number = self.ranks.of(near.bit);
            // A chunk in use that begins right there is the one, and no other has to be looked for.
            let is_it = near.is_sure || number.is_some() && near.hit.offset < u64::MAX;
            is_it.then_some((near.hit, number))
        });
        let found = near.or_else(|| {
            let hit = lookup.find(word.value)?;
            Some((hit, self.ranks.of(lookup.bit(hit.node))))
        });
        let edge = match found {
            Some((hit, Some(number))) => {
                let (at, before) = (Some(Address::new(word.at)), word.before);
                let edge = self.resolver.weighed_beside(at, before, word.value, hit);
                let mark = match edge.strength {
                    Strength::Strong => 0,
                    Strength::Weak => WEAK,
                };
                number | mark
            }
            Some((hit, None)) if hit.offset > 0 => return,
            next => {
                let next = next.map(|(hit, _)| hit);
                if let Some(bit) = word.near.and_then(|near| lookup.slot_before(near)) {
                    // In a slab the one before ends there.
                    if let Some(number) = self.ranks.of(bit) {
                        self.keep(word.source, number | AT_END);
                    }
                    return;
                }
                let Some((Edge { node, .. }, is_open)) = self.resolver.end_at(word.value, next)
                else {
                    return;
                };
                let Some(number) = self.ranks.of(lookup.bit(node)) else {
                    return;
                };
                number | if is_open { AT_END } else { WEAK }
            }
        };
        self.keep(word.source, edge);
    }

    /// Keeps an edge, unless it leads to where it comes from.
    #[inline]
    fn keep(&mut self, source: u32, edge: u32) {
        let Part { starts, edges } = &mut self.part;
        let to = edge & !(WEAK | AT_END);
        if to != self.first.saturating_add(source) && edges.len() <= self.most {
            let count = u32::try_from(edges.len()).unwrap_or(u32::MAX);
            let known = (source as usize).saturating_add(1);
            if known > starts.len() {
                starts.resize(known, count);
            }
            edges.push(edge);
        }
    }
}
