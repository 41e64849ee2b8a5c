//! jemalloc 5.2.1, 5.3.0 and 5.3.1: frees as its thread caches and slabs do them, and its own structures.
//!
//! What is true of a plant follows from jemalloc's rules alone:
//!
//! - nothing of its books lies between blocks: a write to a block contradicts nothing, unless free memory is filled
//!   (`junk:true`) and the write hits such memory;
//! - a pointer is freed without a look at it: what was freed wrongly stands in a cache, or in a slab's marks and count;
//! - what is kept twice (descriptor and page map, marks and counts, links that lead both ways) contradicts itself when
//!   one of the two is written over; what is kept once does not, as long as its value is a possible one;
//! - where a thread may be inside the allocator, or a lock is held, some contradictions are states that it passes
//!   through: such a plant is [`Evidence::Open`], unless no code of jemalloc ever writes that value there.

mod books;
mod descriptors;
mod frees;
mod ground;
mod numbers;
mod page_map;
mod tree;
mod writes;

use ::ground::target::Target;
use heapcheck::analysis::HeapAnalysis;
use heapcheck::checks::finding::FindingKind;

use crate::plant::{self, Evidence, Plant, Planter, Truth};
use crate::words;
use ground::Ground;

/// What `junk:true` fills memory with that is freed.
const FREED: u8 = 0x5a;

/// jemalloc.
pub struct Jemalloc;

impl plant::Allocator for Jemalloc {
    fn name(&self) -> &'static str {
        "jemalloc"
    }

    fn releases(&self) -> &'static [&'static str] {
        &[
            "jemalloc-5.2.1",
            "jemalloc-5.3.0",
            "jemalloc-5.3.0-trixie",
            "jemalloc-5.3.1",
            "jemalloc-5.3.0-nostats",
            "jemalloc-5.3.0-redis",
            "jemalloc-5.3.0-redis-stripped",
            "jemalloc-5.3.0-rust",
            "jemalloc-5.3.0-rust-stripped",
            "jemalloc-5.3.1-rust",
        ]
    }

    fn cores(&self) -> &'static [&'static str] {
        &[
            "stats",
            "large",
            "purged",
            "exited",
            "waiting",
            "tcaches",
            "aligned",
            "one-arena",
            "no-cache",
            "percpu",
            "no-decay",
            "muzzy",
            "junk",
            "threads-01",
            "threads-02",
            "threads-03",
        ]
    }

    fn sorts(&self) -> &'static [&'static str] {
        &SORTS
    }

    fn survey<'a>(
        &self,
        target: Target<'a>,
        heap: &'a HeapAnalysis<'a>,
    ) -> Option<Box<dyn Planter + 'a>> {
        Some(Box::new(Ground::survey(target, heap)?))
    }
}

const SORTS: [&str; 24] = [
    "double free, same cache",
    "double free, other thread",
    "double free, cached and in its slab",
    "double free, back to its slab",
    "double free, memory given back",
    "double free, uncached large block",
    "inner pointer freed",
    "freed with a wrong size",
    "freed, not from the heap",
    "overrun, one NUL",
    "overrun, one byte",
    "overrun, text",
    "write after free",
    "bytes before a block",
    "flipped bit, extent",
    "flipped bit, bitmap",
    "stray write, heap",
    "stray write, extent",
    "stray write, bitmap",
    "stray write, page map",
    "stray write, bin",
    "stray write, arena",
    "stray write, thread cache",
    "stray write, cached pointer",
];

impl Planter for Ground<'_> {
    fn plant(&self, sort: usize, rng: &mut fastrand::Rng) -> Option<Plant> {
        match sort {
            0 => self.cached_twice(true, rng),
            1 => self.cached_twice(false, rng),
            2 => self.cached_and_marked(rng),
            3 => self.marked_twice(rng),
            4 => self.freed_after_return(rng),
            5 => self.large_twice(rng),
            6 => self.inner_pointer(rng),
            7 => self.wrong_size(rng),
            8 => self.not_from_heap(rng),
            9..=11 => self.overrun(sort - 9, rng),
            12 => self.write_after_free(rng),
            13 => self.underrun(rng),
            14 => self.stray_in_descriptor(true, rng),
            15 => self.stray_in_bitmap(true, rng),
            16 => self.stray_in_heap(rng),
            17 => self.stray_in_descriptor(false, rng),
            18 => self.stray_in_bitmap(false, rng),
            19 => self.stray_in_page_map(rng),
            20 => self.stray_in_bin(rng),
            21 => self.stray_in_arena(rng),
            22 => self.stray_in_cache(rng),
            23 => self.stray_entry(rng),
            _ => None,
        }
    }
}

/// A word that is written over.
struct Stray {
    at: u64,
    what: &'static str,
    /// The value's name.
    value: &'static str,
    old: u64,
    new: u64,
}

impl Ground<'_> {
    /// Eight bytes as programs store them.
    fn word_of_program(&self, rng: &mut fastrand::Rng) -> (&'static str, u64) {
        words::word(self.target, rng, |rng| {
            self.some_used(rng).map_or(0, |(at, ..)| at)
        })
    }

    /// A stray write at `at`, or one flipped bit.
    fn stray(
        &self,
        at: u64,
        what: &'static str,
        flip: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<Stray> {
        let old = self.word(at)?;
        let (value, new) = if flip {
            ("one bit", old ^ 1 << rng.u32(..64))
        } else {
            self.word_of_program(rng)
        };
        Some(Stray {
            at,
            what,
            value,
            old,
            new,
        })
    }
}

impl Stray {
    /// The plant, with its truth. Nothing is to be seen where nothing was changed.
    fn plant(self, evidence: Evidence, mut addresses: Vec<(u64, u64)>) -> Plant {
        let Self {
            at,
            what,
            value,
            old,
            new,
        } = self;
        addresses.push((at, at + 8));
        let mut truth = Truth::silence();
        truth.evidence = if old == new {
            Evidence::Absent
        } else {
            evidence
        };
        truth.kinds = vec![FindingKind::CorruptMetadata, FindingKind::CountMismatch];
        truth.addresses = addresses;
        Plant {
            story: format!("{value} ({new:#x}) over {old:#x}, {what} at {at:#x}"),
            writes: vec![(at, new.to_le_bytes().to_vec())],
            truth,
        }
    }
}

/// `present`, unless the allocator may be passing through.
fn unless(busy: bool, present: bool) -> Evidence {
    match (present, busy) {
        (false, _) => Evidence::Absent,
        (true, true) => Evidence::Open,
        (true, false) => Evidence::Present,
    }
}
