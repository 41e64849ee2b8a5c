//! Which blocks the program can still reach, the strongest way first.
//!
//! A reached block is a bit in a column and an entry on a stack; blocks wait in a ring while their first words come from memory. Nothing recurses. A
//! stack that grows too long is given up: what is reached and not looked at is then found by the columns.

use std::hint::black_box;
use std::ops::Range;

use super::Universe;
use super::lookup::Node;
use super::resolve::{Edge, Resolver};
use super::roots::Strength;
use super::words::{self, Filter};
use crate::map::Bits;
use ground::target::Address;

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
    let mut marker = Marker {
        universe,
        filter: Filter::new(universe.lookup.span()),
        strong: marks.strong,
        weak: marks.weak,
        scanned: Bits::new(universe.lookup.bits()),
        stack: Vec::new(),
        most: MAX_STACK,
        overflowed: false,
    };
    let mut resolver = Resolver::new(universe);
    for node in nodes {
        let edge = Edge {
            node: *node,
            offset: 0,
            strength: Strength::Weak,
        };
        marker.take(Strength::Weak, edge);
        marker.drain(&mut resolver, Strength::Weak);
    }
    Marks {
        strong: marker.strong,
        weak: marker.weak,
    }
}

/// Entries of the stack: 32 MiB.
const MAX_STACK: usize = 1 << 22;
/// Blocks whose first words are on their way at a time.
const RING: usize = 16;

struct Marker<'u, 'm> {
    universe: &'u Universe<'m>,
    filter: Filter,
    strong: Bits,
    weak: Bits,
    scanned: Bits,
    stack: Vec<Node>,
    most: usize,
    overflowed: bool,
}

/// Marks everything that is reached.
pub fn mark(universe: &Universe<'_>) -> Marks {
    mark_with(universe, MAX_STACK)
}

/// The same with a stack of at most `most` entries.
pub fn mark_with(universe: &Universe<'_>, most: usize) -> Marks {
    let bits = universe.lookup.bits();
    let mut marker = Marker {
        universe,
        filter: Filter::new(universe.lookup.span()),
        strong: Bits::new(bits),
        weak: Bits::new(bits),
        scanned: Bits::new(bits),
        stack: Vec::new(),
        most: most.max(1),
        overflowed: false,
    };
    let mut resolver = Resolver::new(universe);
    for register in &universe.registers {
        if marker.filter.admits(register.value)
            && let Some(edge) = resolver.edge(None, register.value)
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
            marker.scan(&mut resolver, &root.range, root.any_byte, strength);
            marker.drain(&mut resolver, strength);
        }
        if strength == Strength::Weak {
            marker.enter_mappings(&mut resolver);
        }
        marker.drain(&mut resolver, strength);
    }
    Marks {
        strong: marker.strong,
        weak: marker.weak,
    }
}

impl Marker<'_, '_> {
    /// Notes an edge from a source that was reached in this way.
    #[inline]
    fn take(&mut self, reached: Strength, edge: Edge) {
        let bit = self.universe.lookup.bit(edge.node);
        if self.strong.get(bit) {
            return;
        }
        let column = match reached.max(edge.strength) {
            Strength::Strong => &mut self.strong,
            Strength::Weak => &mut self.weak,
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
            self.overflowed = true;
        }
    }

    /// Scans a run of memory.
    fn scan(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        range: &Range<Address>,
        any_byte: bool,
        strength: Strength,
    ) {
        let (memory, filter) = (self.universe.memory, self.filter);
        let visit = |place, value| {
            if let Some(edge) = resolver.edge(Some(place), value) {
                self.take(strength, edge);
            }
        };
        if any_byte {
            words::each_at_any_byte(memory, range, filter, visit);
        } else {
            words::each(memory, range, filter, visit);
        }
    }

    /// Scans everything on the stack, and what that leads to.
    fn drain(&mut self, resolver: &mut Resolver<'_, '_>, strength: Strength) {
        loop {
            self.drain_stack(resolver, strength);
            if !std::mem::take(&mut self.overflowed) {
                return;
            }
            self.refill(strength);
        }
    }

    fn drain_stack(&mut self, resolver: &mut Resolver<'_, '_>, strength: Strength) {
        let universe = self.universe;
        let mut ring: [Option<(Node, Range<Address>)>; RING] = [const { None }; RING];
        let mut turn = 0usize;
        let mut waiting = 0usize;
        loop {
            let next = self.stack.pop().and_then(|node| {
                self.scanned.set(universe.lookup.bit(node));
                let (start, bytes) = universe.lookup.extent(node)?;
                // The first word is asked for now and needed later.
                if let Ok(window) = universe.memory.window(start) {
                    black_box(window.bytes.first().copied());
                }
                Some((node, start..start.saturating_add(bytes)))
            });
            waiting = waiting.saturating_add(usize::from(next.is_some()));
            let is_done = next.is_none() && self.stack.is_empty();
            let Some(slot) = ring.get_mut(turn % RING) else {
                return;
            };
            turn = turn.wrapping_add(1);
            if let Some((node, range)) = std::mem::replace(slot, next) {
                waiting = waiting.saturating_sub(1);
                self.scan_node(resolver, node, &range, strength);
            } else if is_done && waiting == 0 {
                return;
            }
        }
    }

    fn scan_node(
        &mut self,
        resolver: &mut Resolver<'_, '_>,
        node: Node,
        range: &Range<Address>,
        strength: Strength,
    ) {
        if self.universe.lookup.is_cut(node) {
            for part in self.universe.silent.without(range.clone()) {
                self.scan(resolver, &part, false, strength);
            }
        } else {
            self.scan(resolver, range, false, strength);
        }
    }

    /// Blocks that are reached and were not scanned, when the stack was too short.
    fn refill(&mut self, strength: Strength) {
        let mut at = None;
        loop {
            let column = match strength {
                Strength::Strong => &self.strong,
                Strength::Weak => &self.weak,
            };
            let next = match at {
                None if column.get(0) => Some(0),
                None => column.first_after(0),
                Some(at) => column.first_after(at),
            };
            let Some(bit) = next else {
                return;
            };
            at = Some(bit);
            if !self.scanned.get(bit)
                && let Some(node) = self.universe.lookup.node(bit)
            {
                if self.stack.len() >= self.most {
                    self.overflowed = true;
                    return;
                }
                self.stack.push(node);
            }
        }
    }

    /// Begins with what strong sources reach weakly. Those that turned out to be reached strongly as well were scanned.
    fn enter_weak(&mut self) {
        self.refill(Strength::Weak);
    }

    /// The program's own mappings that nobody strong points at are weak sources, whoever else points there.
    fn enter_mappings(&mut self, resolver: &mut Resolver<'_, '_>) {
        let universe = self.universe;
        for row in 0..universe.lookup.rows() {
            let node = Node { row, slot: 0 };
            let is_mapping = universe.lookup.mapping(node).is_some();
            if !is_mapping || self.scanned.get(universe.lookup.bit(node)) {
                continue;
            }
            let Some((start, bytes)) = universe.lookup.extent(node) else {
                continue;
            };
            self.scanned.set(universe.lookup.bit(node));
            for part in universe.silent.without(start..start.saturating_add(bytes)) {
                words::each(universe.memory, &part, self.filter, |place, value| {
                    // A mapping that only points at itself is held by nobody.
                    let edge = resolver.edge(Some(place), value);
                    if let Some(edge) = edge.filter(|edge| edge.node != node) {
                        self.take(Strength::Weak, edge);
                    }
                });
            }
            self.drain(resolver, Strength::Weak);
        }
    }
}
