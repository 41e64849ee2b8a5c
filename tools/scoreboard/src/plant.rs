//! What is planted, and what is true of it.

use ground::target::Target;
use heapcheck::analysis::HeapAnalysis;
use heapcheck::checks::finding::FindingKind;

/// What is planted: a row of its allocator's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sort {
    /// Its place among its allocator's sorts.
    pub index: usize,
    /// The name of its row.
    pub name: &'static str,
}

impl Sort {
    /// The sort that a seed plants: its remainder.
    pub fn of_seed(sorts: &[&'static str], seed: u64) -> Self {
        let index = (seed % sorts.len() as u64) as usize;
        Self {
            index,
            name: sorts[index],
        }
    }
}

/// Whether the damage can be seen in the core at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// The bytes contradict something that the allocator keeps.
    Present,
    /// The overwritten bytes carried nothing, or hold what they held.
    Absent,
    /// The word means something at times only: silence is no miss, and what is said has to be right.
    Open,
}

/// What is true of a plant.
#[derive(Clone, Debug)]
pub struct Truth {
    /// Whether it can be seen.
    pub evidence: Evidence,
    /// Kinds that are right: the error itself, and what it cannot be told from in this plant.
    pub kinds: Vec<FindingKind>,
    /// Addresses that are right: from, and up to.
    pub addresses: Vec<(u64, u64)>,
    /// The block that wrote past its end.
    pub culprit: Option<u64>,
    /// Free blocks that no list holds any more.
    pub lost: Option<u64>,
}

impl Truth {
    /// Nothing to be seen.
    pub fn silence() -> Self {
        Self {
            evidence: Evidence::Absent,
            kinds: Vec::new(),
            addresses: Vec::new(),
            culprit: None,
            lost: None,
        }
    }

    /// An error at one address.
    pub fn at(kind: FindingKind, address: u64) -> Self {
        Self {
            evidence: Evidence::Present,
            kinds: vec![kind],
            addresses: vec![(address, address + 1)],
            culprit: None,
            lost: None,
        }
    }
}

/// One damage.
#[derive(Clone, Debug)]
pub struct Plant {
    /// What it is, for people.
    pub story: String,
    /// Bytes written, in order.
    pub writes: Vec<(u64, Vec<u8>)>,
    /// What is true of it.
    pub truth: Truth,
}

/// An allocator that damage can be planted in: one file or folder each, one line each in
/// [`ALLOCATORS`](crate::ALLOCATORS).
pub trait Allocator: Sync {
    /// The name that heapcheck gives its heaps.
    fn name(&self) -> &'static str;

    /// Folders of the fixtures whose healthy cores are planted in.
    fn releases(&self) -> &'static [&'static str];

    /// How the names of those cores begin, behind `healthy-`.
    fn cores(&self) -> &'static [&'static str];

    /// Names of what is planted, in the order of the table. A seed's sort is its remainder by their number.
    fn sorts(&self) -> &'static [&'static str];

    /// Surveys a healthy heap of this allocator. `None` if nothing can be planted in it.
    fn survey<'a>(
        &self,
        target: Target<'a>,
        heap: &'a HeapAnalysis<'a>,
    ) -> Option<Box<dyn Planter + 'a>>;
}

/// Plants damage in one heap.
pub trait Planter {
    /// A plant of the sort of this index, or `None` where the heap has no place for it.
    fn plant(&self, sort: usize, rng: &mut fastrand::Rng) -> Option<Plant>;
}
