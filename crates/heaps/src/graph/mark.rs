//! Which blocks the program can still reach, the strongest way first.
//!
//! A reached block is a bit in a column and an entry on a stack. A few blocks are scanned at a time, and their words looked up together: every
//! step waits for memory once. Nothing recurses. What has no room on the stack waits in a column.

use std::ops::Range;

use super::Universe;
use super::lookup::{Hit, Node};
use super::resolve::{Edge, Resolver};
use super::roots::{Root, Strength};
use super::words::{self, Filter};
use crate::map::Bits;
use ground::target::{Address, Cursor};

/// How a block is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// From a strong root by strong words.
    Strong,
    /// Only with a weak one on the way.
    Weak,
    /// Not at all.
    Lost,
}

/// What marking found: a bit per slot in each column.
pub struct Marks {
    strong: Bits,
    weak: Bits,
}

impl Marks {
    /// How the block with this bit is reached.
    #[inline]
    pub fn reach(&self, bit: u64) -> Reach {
        match (self.strong.get(bit), self.weak.get(bit)) {
            (true, _) => Reach::Strong,
            (_, true) => Reach::Weak,
            _ => Reach::Lost,
        }
    }
}

/// Adds blocks that are reached weakly after all, and what they lead to.
pub fn extend(universe: &Universe<'_>, marks: Marks, nodes: &[Node]) -> Marks {
    let mut marker = Marker::new(universe, marks, MAX_STACK);
    for node in nodes {
        let edge = Edge {
            node: *node,
            offset: 0,
            strength: Strength::Weak,
        };
        marker.take(Strength::Weak, edge);
        marker.drain(Strength::Weak);
    }
    marker.marks
}

/// Entries of the stack: 32 MiB.
const MAX_STACK: usize = 1 << 22;
/// Blocks whose first words are asked for at a time.
const GROUP: usize = 16;
/// Words that are looked up at a time.
const BATCH: usize = 32;

/// A word that may point at a block, and what is found out about it, step by step.
#[derive(Clone, Copy, Default)]
struct Word {
    at: Address,
    value: u64,
    /// The word before it, if that is known.
    before: Option<u64>,
    hit: Option<Hit>,
    /// The block is in use.
    is_live: bool,
    /// The block is reached strongly.
    is_known: bool,
}

struct Marker<'u, 'm> {
    universe: &'u Universe<'m>,
    resolver: Resolver<'u, 'm>,
    filter: Filter,
    marks: Marks,
    /// Reached, and for want of room not on the stack.
    waiting: Bits,
    stack: Vec<Node>,
    most: usize,
    near: Cursor<'m>,
    /// Words to look up, at most [`BATCH`].
    batch: Vec<Word>,
    /// Blocks to scan, at most [`GROUP`].
    group: Vec<(Node, Range<Address>)>,
}

/// Marks everything that is reached.
pub fn mark(universe: &Universe<'_>) -> Marks {
    mark_with(universe, MAX_STACK)
}

/// The same with a stack of at most `most` entries.
pub fn mark_with(universe: &Universe<'_>, most: usize) -> Marks {
    let bits = universe.lookup.bits();
    let marks = Marks {
        strong: Bits::new(bits),
        weak: Bits::new(bits),
    };
    let mut marker = Marker::new(universe, marks, most);
    for register in &universe.registers {
        if marker.filter.admits(register.value)
            && let Some(edge) = marker.resolver.edge(None, register.value)
        {
            // A weak one waits until all that is strong is known.
            let strength = edge.strength.max(register.strength);
            marker.take(Strength::Strong, Edge { strength, ..edge });
        }
    }
    for strength in [Strength::Strong, Strength::Weak] {
        if strength == Strength::Weak {
            marker.enter_weak();
        }
        let roots = universe.roots.iter();
        for root in roots.filter(|root| root.strength == strength) {
            marker.scan_root(root);
            marker.drain(strength);
        }
        if strength == Strength::Weak {
            marker.enter_mappings();
        }
        marker.drain(strength);
    }
    marker.marks
}

impl<'u, 'm> Marker<'u, 'm> {
    fn new(universe: &'u Universe<'m>, marks: Marks, most: usize) -> Self {
        Self {
            universe,
            resolver: Resolver::new(universe),
            filter: Filter::new(universe.lookup.span()),
            marks,
            waiting: Bits::new(universe.lookup.bits()),
            stack: Vec::new(),
            most: most.max(1),
            near: Cursor::new(universe.memory),
            batch: Vec::with_capacity(BATCH),
            group: Vec::with_capacity(GROUP),
        }
    }

    /// Notes an edge from a source that was reached in this way.
    #[inline]
    fn take(&mut self, reached: Strength, edge: Edge) {
        let bit = self.universe.lookup.bit(edge.node);
        if self.marks.strong.get(bit) {
            return;
        }
        let column = match reached.max(edge.strength) {
            Strength::Strong => &mut self.marks.strong,
            Strength::Weak => &mut self.marks.weak,
        };
        if column.get(bit) {
            return;
        }
        column.set(bit);
        // A weak word of a strong source waits until all that is strong is known.
        if reached == edge.strength || reached == Strength::Weak {
            self.push(edge.node);
        }
    }

    #[inline]
    fn push(&mut self, node: Node) {
        if self.stack.len() < self.most {
            self.stack.push(node);
        } else {
            self.waiting.set(self.universe.lookup.bit(node));
        }
    }

    /// Scans a run of memory; the last words of it wait in the batch. `first`: what the word before it counts as, if that is not to be read.
    fn scan(&mut self, range: &Range<Address>, first: Option<u64>, strength: Strength) {
        let (memory, filter) = (self.universe.memory, self.filter);
        words::each_beside(memory, range, filter, first, |at, value, before| {
            self.look(at, value, before, strength);
        });
    }

    /// Scans a block. What stands before it is none of its words.
    #[inline]
    fn scan_block(&mut self, range: &Range<Address>, strength: Strength) {
        const BEFORE: Option<u64> = Some(0);
        let bytes = range.end.offset_from(range.start).unwrap_or(0);
        let whole = self.near.bytes(range.start, bytes);
        match whole.filter(|_| range.start.is_aligned(8)) {
            Some(bytes) => {
                let (little, filter) = (self.universe.memory.abi().little_endian, self.filter);
                words::each_in(
                    bytes,
                    range.start,
                    little,
                    filter,
                    BEFORE,
                    |at, value, before| {
                        self.look(at, value, before, strength);
                    },
                );
            }
            None => self.scan(range, BEFORE, strength),
        }
    }

    /// Scans a root.
    fn scan_root(&mut self, root: &Root) {
        if !root.any_byte {
            return self.scan(&root.range, None, root.strength);
        }
        let (memory, filter) = (self.universe.memory, self.filter);
        words::each_at_any_byte(memory, &root.range, filter, |at, value| {
            self.look(at, value, None, root.strength);
        });
    }

    /// Adds a word to the batch, and looks the batch up once it is full.
    #[inline]
    fn look(&mut self, at: Address, value: u64, before: Option<u64>, strength: Strength) {
        self.batch.push(Word {
            at,
            value,
            before,
            ..Word::default()
        });
        if self.batch.len() >= BATCH {
            self.settle(strength);
        }
    }

    /// Looks up all words of the batch. Each step is done for all of them before the next one, so that the processor waits for memory
    /// once and not for each word.
    fn settle(&mut self, strength: Strength) {
        let lookup = &self.universe.lookup;
        let mut words = std::mem::take(&mut self.batch);
        words.iter().for_each(|word| lookup.touch(word.value));
        for word in &mut words {
            word.hit = lookup.find(word.value);
        }
        for word in &mut words {
            let Some(hit) = word.hit else {
                continue;
            };
            let bit = lookup.bit(hit.node);
            word.is_live = lookup.is_live_bit(bit);
            word.is_known = self.marks.strong.get(bit);
            if !word.is_live {
                self.resolver.touch_free(word.value, hit);
            }
        }
        for word in &words {
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
                self.take(strength, edge);
            }
        }
        words.clear();
        self.batch = words;
    }

    /// Scans everything on the stack, and what that leads to.
    fn drain(&mut self, strength: Strength) {
        loop {
            self.settle(strength);
            if self.stack.is_empty() && !self.refill() {
                return;
            }
            while !self.stack.is_empty() {
                self.scan_group(strength);
            }
        }
    }

    /// Scans the last few blocks of the stack. What they hold is asked for first and needed later.
    fn scan_group(&mut self, strength: Strength) {
        let universe = self.universe;
        let first = self.stack.len().saturating_sub(GROUP);
        let mut group = std::mem::take(&mut self.group);
        for node in self.stack.drain(first..) {
            let extent = universe.lookup.extent(node);
            group.extend(extent.map(|(start, bytes)| (node, start..start.saturating_add(bytes))));
        }
        for (_, range) in &group {
            self.near.touch(range.start);
        }
        for (node, range) in group.drain(..) {
            if universe.lookup.is_cut(node) {
                for part in universe.silent.without(range) {
                    self.scan(&part, None, strength);
                }
            } else {
                self.scan_block(&range, strength);
            }
        }
        self.group = group;
    }

    /// Puts blocks on the stack for which there was no room; says whether there were any.
    fn refill(&mut self) -> bool {
        let mut next = match self.waiting.get(0) {
            true => Some(0),
            false => self.waiting.first_after(0),
        };
        while let Some(bit) = next.filter(|_| self.stack.len() < self.most) {
            next = self.waiting.first_after(bit);
            self.waiting.clear(bit);
            self.stack.extend(self.universe.lookup.node(bit));
        }
        !self.stack.is_empty()
    }

    /// Begins with what strong sources reach weakly. Those that turned out to be reached strongly as well were scanned.
    fn enter_weak(&mut self) {
        let mut next = match self.marks.weak.get(0) {
            true => Some(0),
            false => self.marks.weak.first_after(0),
        };
        while let Some(bit) = next {
            next = self.marks.weak.first_after(bit);
            if !self.marks.strong.get(bit)
                && let Some(node) = self.universe.lookup.node(bit)
            {
                self.push(node);
            }
        }
    }

    /// The program's own mappings that nobody strong points at are weak sources, whoever else points there.
    fn enter_mappings(&mut self) {
        let universe = self.universe;
        for row in 0..universe.lookup.rows() {
            let node = Node { row, slot: 0 };
            let bit = universe.lookup.bit(node);
            let is_mapping = universe.lookup.mapping(node).is_some();
            if !is_mapping || self.marks.reach(bit) != Reach::Lost {
                continue;
            }
            let Some((start, bytes)) = universe.lookup.extent(node) else {
                continue;
            };
            for part in universe.silent.without(start..start.saturating_add(bytes)) {
                let resolver = &mut Resolver::new(universe);
                words::each(universe.memory, &part, self.filter, |place, value| {
                    // A mapping that only points at itself is held by nobody.
                    let edge = resolver.edge(Some(place), value);
                    if let Some(edge) = edge.filter(|edge| edge.node != node) {
                        self.take(Strength::Weak, edge);
                    }
                });
            }
            self.drain(Strength::Weak);
        }
    }
}
