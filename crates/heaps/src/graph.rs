//! Who points where: the engine behind references, leaks and holders. No opinions, no names.
//!
//! ```text
//! word ──> range test ──> root table ──> page ──> row of an extent ──> slot, offset      lookup
//! one linear pass ──> edges between blocks; roots, strongest first ──> mark bits         mark
//! lost blocks ──> edges among them ──> components, heads ──> dominators                  subgraph, dominators
//! words of variables and frames ──> labels of blocks ──> what each holds                 shares
//! a set of addresses ──> one pass over memory ──> every word that points there           references
//! ```
//!
//! Only words of live blocks, of the program's own mappings and of roots are sources. What the allocators keep for
//! themselves, what is free, dead stack and what the core does not hold never is: such words are history, they explain
//! and hold nothing. How strong a source is, is decided by where the word lies ([`roots::Strength`]), and in three cases by what
//! stands beside it ([`resolve`]).

mod batch;
mod block_words;
pub mod dominators;
pub mod encodings;
pub mod lookup;
pub mod mark;
pub mod paths;
pub mod references;
pub mod resolve;
pub mod retained;
pub mod roots;
pub mod shares;
pub mod subgraph;
pub mod trees;
pub mod words;

use ground::target::{Address, TargetMemory};
use lookup::Lookup;
use roots::{Ranges, Register, Root};

/// Everything that a pass over the graph needs: memory, what can be pointed at, and where pointers may stand.
pub struct Universe<'m> {
    /// The dead process's memory.
    pub memory: &'m dyn TargetMemory,
    /// Blocks of all heaps, and the program's own mappings.
    pub lookup: Lookup<'m>,
    /// Memory that is a source by itself: sorted by address, without overlap, nothing of [`silent`](Self::silent) in it.
    pub roots: Vec<Root>,
    /// Registers: sources that lie nowhere.
    pub registers: Vec<Register>,
    /// Memory that never is a source, wherever it lies: dead stack, allocators' own words.
    pub silent: Ranges,
}

impl<'m> Universe<'m> {
    /// Puts the parts together: roots are sorted, and what is silent is cut out of them.
    pub fn new(
        memory: &'m dyn TargetMemory,
        mut lookup: Lookup<'m>,
        roots: Vec<Root>,
        mut registers: Vec<Register>,
        silent: Ranges,
    ) -> Self {
        registers.sort_unstable();
        let roots = roots::cut(roots, &silent);
        lookup.note_silent(&silent);
        Self {
            memory,
            lookup,
            roots,
            registers,
            silent,
        }
    }

    /// The root that holds `at`.
    pub fn root_at(&self, at: Address) -> Option<(u32, &Root)> {
        let after = self.roots.partition_point(|root| root.range.start <= at);
        let index = after.checked_sub(1)?;
        let root = self.roots.get(index)?;
        (at < root.range.end).then_some((u32::try_from(index).ok()?, root))
    }
}
