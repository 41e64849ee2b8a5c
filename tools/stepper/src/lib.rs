//! Steps a healthy program (`testdata/stepped.c`) instruction by instruction through its allocator
//! and reads its heap as heapcheck reads a core, at every boundary at which the heap's memory has
//! changed or is, for a reader who knows nothing of threads, damaged. No boundary may give a
//! critical finding: then no core of this release, wherever it was stopped, can.
//!
//! x86-64 Linux only, like the programs that it steps.

pub mod effect;
pub mod image;
pub mod judge;
pub mod pairs;
pub mod process;
pub mod run;
