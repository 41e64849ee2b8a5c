//! The scoreboard: of a hundred real corruptions, how many does heapcheck find, name right and place right?
//!
//! One damage at a time is planted in the bytes of a healthy core, exactly as the real error would have left it; the
//! analysis runs on that, and what it says is held against what is known. Every plant is made by its seed alone.

mod jemalloc;
pub mod judge;
pub mod overlay;
pub mod plant;
mod ptmalloc;
pub mod run;
pub mod table;
mod tcmalloc;
mod words;

/// Every allocator that damage can be planted in, in the order in which a core is asked for them.
pub static ALLOCATORS: &[&dyn plant::Allocator] = &[
    &tcmalloc::Tcmalloc,
    &jemalloc::Jemalloc,
    &ptmalloc::Ptmalloc,
];
