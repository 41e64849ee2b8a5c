//! Which blocks the program can still reach, the strongest way first.
//!
//! A reached block is a bit in a column and an entry on a stack. Nothing recurses. What has no room on the stack waits in a column. Edges come
//! from the core itself (`scanned`), or from a graph that one linear pass has stored (`stored`), which is faster and takes more memory.

mod edges;
mod scanned;
mod stored;

use super::Universe;
use super::batch::Batch;
use super::lookup::Node;
use super::resolve::{Edge, Resolver};
use super::roots::{Root, Strength};
use super::words::{self, Filter};
use crate::map::Bits;

use scanned::Scanned;
use stored::Stored;

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

/// Memory that marking may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of a stored graph; without that room edges are read from the core.
    pub stored: u64,
    /// Entries of the stack.
    pub stack: usize,
}

impl Default for Bounds {
    /// 2 GiB, and 4 Mi entries of 8 bytes at most.
    fn default() -> Self {
        Self {
            stored: 2 << 30,
            stack: 1 << 22,
        }
    }
}

/// Marks everything that is reached.
pub fn mark(universe: &Universe<'_>) -> Marks {
    mark_within(universe, Bounds::default())
}

/// The same within these bounds.
pub fn mark_within(universe: &Universe<'_>, bounds: Bounds) -> Marks {
    match Stored::read(universe, bounds.stored) {
        Some(stored) => {
            let reached = Marker::new(universe, &stored, bounds.stack).all();
            stored.marks(&reached)
        }
        None => Marker::new(universe, Scanned::new(universe), bounds.stack)
            .all()
            .marks(),
    }
}

/// Adds blocks that are reached weakly after all, and what they lead to.
pub fn extend(universe: &Universe<'_>, marks: Marks, nodes: &[Node]) -> Marks {
    let mut marker = Marker::new(universe, Scanned::new(universe), Bounds::default().stack);
    marker.reached.strong = marks.strong;
    marker.reached.weak = marks.weak;
    for node in nodes {
        let edge = Edge {
            node: *node,
            offset: 0,
            strength: Strength::Weak,
        };
        marker.take(Strength::Weak, edge);
        marker.drain(Strength::Weak);
    }
    marker.reached.marks()
}

/// Where edges between blocks come from.
trait Graph {
    /// A block, as the stack has it.
    type Block: Copy;

    /// Bits of a column.
    fn columns(&self) -> u64;

    /// The block that is this node, in use.
    fn block(&self, node: Node) -> Option<Self::Block>;

    /// The block's bit in a column.
    fn column(&self, block: Self::Block) -> u64;

    /// Whether a pointer just past the block's end, to a free block, is worth anything: asked of those in
    /// [`Reached::ends`].
    fn is_end(&self, block: Self::Block) -> bool;

    /// The block with this bit.
    fn at(&self, column: u64) -> Option<Self::Block>;

    /// Takes every edge of these blocks, which are reached in this way.
    fn follow(
        &mut self,
        blocks: &[Self::Block],
        strength: Strength,
        reached: &mut Reached<Self::Block>,
    );
}

/// What is reached so far: a bit per block in each column, and the blocks whose edges are still to be followed.
struct Reached<B> {
    strong: Bits,
    weak: Bits,
    /// A word points just past the end of it, to a free block.
    ends: Bits,
    /// Reached, and for want of room not on the stack.
    waiting: Bits,
    stack: Vec<B>,
    most: usize,
}

impl<B: Copy> Reached<B> {
    fn new(columns: u64, most: usize) -> Self {
        Self {
            strong: Bits::new(columns),
            weak: Bits::new(columns),
            ends: Bits::new(columns),
            waiting: Bits::new(columns),
            stack: Vec::new(),
            most: most.max(1),
        }
    }

    fn marks(self) -> Marks {
        Marks {
            strong: self.strong,
            weak: self.weak,
        }
    }

    /// Notes a block that a source which was `reached` in this way leads to by a word worth `worth`.
    #[inline]
    fn take(&mut self, column: u64, block: B, reached: Strength, worth: Strength) {
        if self.strong.get(column) {
            return;
        }
        let marks = match reached.max(worth) {
            Strength::Strong => &mut self.strong,
            Strength::Weak => &mut self.weak,
        };
        if marks.get(column) {
            return;
        }
        marks.set(column);
        // A weak word of a strong source waits until all that is strong is known.
        if reached == worth || reached == Strength::Weak {
            self.push(column, block);
        }
    }

    #[inline]
    fn push(&mut self, column: u64, block: B) {
        if self.stack.len() < self.most {
            self.stack.push(block);
        } else {
            self.waiting.set(column);
        }
    }
}

/// Blocks whose edges are followed at a time.
const GROUP: usize = 16;

struct Marker<'u, 'm, G: Graph> {
    universe: &'u Universe<'m>,
    graph: G,
    reached: Reached<G::Block>,
    filter: Filter,
    /// Words of roots.
    batch: Batch<'u, 'm>,
}

impl<'u, 'm, G: Graph> Marker<'u, 'm, G> {
    fn new(universe: &'u Universe<'m>, graph: G, most: usize) -> Self {
        Self {
            reached: Reached::new(graph.columns(), most),
            universe,
            graph,
            filter: Filter::new(universe.lookup.span()),
            batch: Batch::new(universe),
        }
    }

    /// Marks everything.
    fn all(mut self) -> Reached<G::Block> {
        let universe = self.universe;
        let mut resolver = Resolver::new(universe);
        for register in &universe.registers {
            if self.filter.admits(register.value)
                && let Some(edge) = resolver.edge(None, register.value)
            {
                // A weak one waits until all that is strong is known.
                let strength = edge.strength.max(register.strength);
                self.take(Strength::Strong, Edge { strength, ..edge });
            }
        }
        for strength in [Strength::Strong, Strength::Weak] {
            if strength == Strength::Weak {
                self.enter_weak();
            }
            let roots = universe.roots.iter();
            for root in roots.filter(|root| root.strength == strength) {
                self.scan_root(root);
                self.drain(strength);
            }
            if strength == Strength::Weak {
                self.enter_mappings();
            }
            self.drain(strength);
        }
        self.reached
    }

    /// Notes an edge from a source that was reached in this way.
    fn take(&mut self, reached: Strength, edge: Edge) {
        if let Some(block) = self.graph.block(edge.node) {
            let column = self.graph.column(block);
            self.reached.take(column, block, reached, edge.strength);
        }
    }

    /// Takes what the words of a root lead to.
    fn scan_root(&mut self, root: &Root) {
        let (memory, filter) = (self.universe.memory, self.filter);
        let mut look = |at, value, before| {
            if self.batch.add(0, at, value, before) {
                self.settle(root.strength);
            }
        };
        if root.any_byte {
            words::each_at_any_byte(memory, &root.range, filter, |at, value| {
                look(at, value, None);
            });
        } else {
            words::each_beside(memory, &root.range, filter, None, look);
        }
        self.settle(root.strength);
    }

    fn settle(&mut self, strength: Strength) {
        let (graph, reached) = (&self.graph, &mut self.reached);
        self.batch.look_up(|_| false);
        self.batch.each_edge(|_, edge| {
            if let Some(block) = graph.block(edge.node) {
                reached.take(graph.column(block), block, strength, edge.strength);
            }
        });
    }

    /// Follows the edges of everything on the stack, and of what that leads to.
    fn drain(&mut self, strength: Strength) {
        let mut group = Vec::with_capacity(GROUP);
        while !self.reached.stack.is_empty() || self.refill() {
            while !self.reached.stack.is_empty() {
                let first = self.reached.stack.len().saturating_sub(GROUP);
                group.clear();
                group.extend(self.reached.stack.drain(first..));
                self.graph.follow(&group, strength, &mut self.reached);
            }
        }
    }

    /// Puts blocks on the stack for which there was no room; says whether there were any.
    fn refill(&mut self) -> bool {
        let reached = &mut self.reached;
        let mut next = first_of(&reached.waiting);
        while let Some(column) = next.filter(|_| reached.stack.len() < reached.most) {
            next = reached.waiting.first_after(column);
            reached.waiting.clear(column);
            reached.stack.extend(self.graph.at(column));
        }
        !reached.stack.is_empty()
    }

    /// Begins with what strong sources reach weakly. Those that turned out to be reached strongly as well were followed.
    fn enter_weak(&mut self) {
        let reached = &mut self.reached;
        let mut next = first_of(&reached.ends);
        while let Some(column) = next {
            next = reached.ends.first_after(column);
            if !reached.strong.get(column)
                && self
                    .graph
                    .at(column)
                    .is_some_and(|at| self.graph.is_end(at))
            {
                reached.weak.set(column);
            }
        }
        let mut next = first_of(&reached.weak);
        while let Some(column) = next {
            next = reached.weak.first_after(column);
            if !reached.strong.get(column)
                && let Some(block) = self.graph.at(column)
            {
                reached.push(column, block);
            }
        }
    }

    /// The program's own mappings that nobody strong points at are weak sources, whoever else points there.
    fn enter_mappings(&mut self) {
        let lookup = &self.universe.lookup;
        for row in 0..lookup.rows() {
            let node = Node { row, slot: 0 };
            let block = lookup.mapping(node).and_then(|_| self.graph.block(node));
            let Some(block) = block else {
                continue;
            };
            let column = self.graph.column(block);
            if self.reached.strong.get(column) || self.reached.weak.get(column) {
                continue;
            }
            // A mapping that only points at itself is held by nobody.
            self.reached.strong.set(column);
            self.graph
                .follow(&[block], Strength::Weak, &mut self.reached);
            self.reached.strong.clear(column);
            self.drain(Strength::Weak);
        }
    }
}

/// The first bit that is set.
fn first_of(bits: &Bits) -> Option<u64> {
    match bits.get(0) {
        true => Some(0),
        false => bits.first_after(0),
    }
}
