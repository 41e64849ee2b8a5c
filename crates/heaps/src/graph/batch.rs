//! Words that are looked up together: each step is done for all of them before the next one, so that the processor waits for memory once
//! and not for each word.

use std::hint::black_box;

use super::Universe;
use super::lookup::Hit;
use super::resolve::{Edge, Resolver};
use ground::target::Address;

/// Words that are looked up at a time.
const BATCH: usize = 32;

/// A word that may point at a block, and what is found out about it, step by step.
#[derive(Clone, Copy, Default)]
struct Word {
    source: u32,
    at: Address,
    value: u64,
    /// The word before it, if that is known.
    before: Option<u64>,
    hit: Option<Hit>,
    /// The block is in use.
    is_live: bool,
    /// Whoever asks knows the block already.
    is_known: bool,
}

/// Words to look up, at most [`BATCH`].
pub(super) struct Batch<'u, 'm> {
    universe: &'u Universe<'m>,
    resolver: Resolver<'u, 'm>,
    words: Vec<Word>,
}

impl<'u, 'm> Batch<'u, 'm> {
    /// Without any words.
    pub fn new(universe: &'u Universe<'m>) -> Self {
        Self {
            universe,
            resolver: Resolver::new(universe),
            words: Vec::with_capacity(BATCH),
        }
    }

    /// Adds a word of `source`, a number of the caller's; says whether the batch is full.
    #[inline]
    pub fn add(&mut self, source: u32, at: Address, value: u64, before: Option<u64>) -> bool {
        self.words.push(Word {
            source,
            at,
            value,
            before,
            ..Word::default()
        });
        self.words.len() >= BATCH
    }

    /// Looks all words up. Those of which `is_known` says so of their block's bit are left out.
    pub fn look_up(&mut self, is_known: impl Fn(u64) -> bool) {
        let lookup = &self.universe.lookup;
        self.words.iter().for_each(|word| lookup.touch(word.value));
        for word in &self.words {
            if let Some(near) = lookup.near(word.value) {
                black_box(lookup.touch_chunk(near));
            }
        }
        for word in &mut self.words {
            word.hit = lookup.find(word.value);
        }
        for word in &mut self.words {
            let Some(hit) = word.hit else {
                continue;
            };
            let bit = lookup.bit(hit.node);
            word.is_live = lookup.is_live_bit(bit);
            word.is_known = is_known(bit);
            if !word.is_live {
                self.resolver.touch_free(word.value, hit);
            }
        }
    }

    /// Takes all words out, which were looked up, and calls `visit` with the source and the edge of each that reaches a block in use, in
    /// the order in which they were added.
    pub fn each_edge(&mut self, mut visit: impl FnMut(u32, Edge)) {
        for word in self.words.drain(..) {
            let edge = match word.hit {
                Some(_) if word.is_known => continue,
                Some(hit) if word.is_live => {
                    let (at, before) = (Some(word.at), word.before);
                    let edge = self.resolver.weighed_beside(at, before, word.value, hit);
                    Some(edge)
                }
                next => self.resolver.past_the_end(word.value, next),
            };
            if let Some(edge) = edge {
                visit(word.source, edge);
            }
        }
    }
}
