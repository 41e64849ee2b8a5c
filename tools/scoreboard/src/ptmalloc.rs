//! glibc's malloc: frees as `_int_free` does them, writes over headers and links, and its own structures.

mod frees;
mod ground;
mod layout;
mod structures;
mod truth;
mod writes;

use ::ground::target::Target;
use heapcheck::analysis::HeapAnalysis;

use self::ground::Ground;
use self::writes::Past;
use crate::plant::{Allocator, Plant, Planter};

/// glibc's malloc.
pub struct Ptmalloc;

/// What is planted, by name.
const SORTS: [&str; 18] = [
    "double free, same cache",
    "double free, other thread's cache",
    "double free, cache and fastbin",
    "double free, fastbin",
    "double free, cache and bin",
    "inner pointer freed",
    "variable freed",
    "overrun, one NUL",
    "overrun, one byte",
    "overrun, text",
    "write after free",
    "bytes before a block",
    "flipped bit in a size or link",
    "stray write, heap",
    "stray write, cache",
    "stray write, arena",
    "stray write, heap_info",
    "stray write, mapped chunk",
];

impl Allocator for Ptmalloc {
    fn name(&self) -> &'static str {
        "ptmalloc"
    }

    fn releases(&self) -> &'static [&'static str] {
        &[
            "glibc-2.31",
            "glibc-2.31-static",
            "glibc-2.31-static-pie",
            "glibc-2.31-static-stripped",
            "glibc-2.36",
            "glibc-2.36-static",
            "glibc-2.36-static-pie",
            "glibc-2.36-static-stripped",
            "glibc-2.41",
            "glibc-2.41-static",
            "glibc-2.41-static-pie",
            "glibc-2.41-static-stripped",
            "glibc-2.43",
            "glibc-2.43-static",
            "glibc-2.43-static-pie",
            "glibc-2.43-static-stripped",
        ]
    }

    fn cores(&self) -> &'static [&'static str] {
        // Cores whose free blocks are filled, and those of handlers on top of malloc, are other tests' business.
        &[
            "aligned",
            "arena-max",
            "arenas",
            "big-cache",
            "cached-lists",
            "cxx",
            "exited",
            "fork",
            "large",
            "no-brk",
            "sbrk",
            "stats",
            "threads-",
            "trimmed",
            "without-cache",
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
        let ground = Ground::survey(target, heap)?;
        (!ground.chunks.is_empty()).then(|| Box::new(Plants(ground)) as Box<dyn Planter + 'a>)
    }
}

/// Plants in one heap.
struct Plants<'a>(Ground<'a>);

impl Planter for Plants<'_> {
    fn plant(&self, sort: usize, rng: &mut fastrand::Rng) -> Option<Plant> {
        let ground = &self.0;
        match sort {
            0 => frees::same_cache(ground, rng),
            1 => frees::other_cache(ground, rng),
            2 => frees::cache_and_fastbin(ground, rng),
            3 => frees::fastbin(ground, rng),
            4 => frees::cache_and_bin(ground, rng),
            5 => frees::inner_pointer(ground, rng),
            6 => frees::variable(ground, rng),
            7 => writes::overrun(ground, Past::Nul, rng),
            8 => writes::overrun(ground, Past::Byte, rng),
            9 => writes::overrun(ground, Past::Text, rng),
            10 => writes::after_free(ground, rng),
            11 => writes::before(ground, rng),
            12 => writes::flipped_bit(ground, rng),
            13 => writes::stray(ground, rng),
            14 => structures::in_cache(ground, rng),
            15 => structures::in_arena(ground, rng),
            16 => structures::in_heap_info(ground, rng),
            17 => structures::in_mapped(ground, rng),
            _ => None,
        }
    }
}
