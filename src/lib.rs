//! heapcheck: reads a dead process and says what is wrong with its heap, and how it knows.
//!
//! The directory is the pipeline; imports go down only (a test keeps it):
//!
//! ```text
//! main, cli > report > checks > analysis > session > unwind > debuginfo > modules, corefile, arch > heaps
//! ```
//!
//! `docs/architecture.md` is the map and its reasons.

pub mod analysis;
pub mod arch;
pub mod checks;
pub mod corefile;
pub mod debuginfo;
pub mod modules;
pub mod unwind;
