//! Assembles the memory, modules and threads of processes that never ran.
//!
//! ```
//! let image = synth::Asm::at(0x1000)
//!     .here("a").ptr("b").u64(0)
//!     .here("b").ptr("a").u64(0)
//!     .image();
//! assert_eq!(image.label("b"), 0x1010);
//! ```
//!
//! A label may be used before it is placed. This crate knows no allocator's layout: the numbers in
//! a test are copied from the allocator's sources, so that a wrong layout in the walker cannot
//! approve itself. It is little-endian, with 64-bit pointers, like the machines that are read.

mod asm;
mod memory;
mod process;

pub use asm::{Asm, Image};
pub use memory::{Absence, FakeMemory};
pub use process::{FakeThreads, NoTypes, Process, Symbols, frame, module, thread};
