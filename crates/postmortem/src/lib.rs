//! Reads a Linux core file as what the process was: its memory, its modules, its threads and their stacks.
//!
//! A core may be packed, cut short or damaged, and the files of its modules may be missing or wrong; what can be said without
//! them is said, and what cannot is in [`Session::limits`](session::Session::limits).
//!
//! ```no_run
//! use postmortem::ground::target::{Address, MemoryExt as _};
//! use postmortem::session::{Session, SessionOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let session = Session::open(&SessionOptions::of(["core.7958"]))?;
//! let first: u64 = session.memory().read_u64(Address::new(0x40_0000))?;
//! for (index, thread) in session.threads().list().iter().enumerate() {
//!     println!("thread {} stopped at {}", thread.tid, thread.pc);
//!     for frame in session.threads().frames(index) {
//!         println!("    {} {:?}", frame.pc, frame.trust);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! `cargo run -p postmortem --example stacks -- CORE [BINARY]` is that with functions and lines.
//!
//! The rooms, lowest first; `use` goes down only:
//!
//! 1. [`corefile`]: the file as segments, notes and an address space; [`modules`]: executable and libraries, and their files;
//! 2. [`debuginfo`]: symbols, types, lines, in whatever file of a module has them;
//! 3. [`unwind`]: stacks by call-frame information, all registers;
//! 4. [`session`]: opens everything once, owns it, and lends a [`Target`](ground::target::Target).

// No arithmetic on what comes from the core may overflow.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]
#![cfg_attr(
    not(test),
    warn(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_possible_wrap
    )
)]

pub use ground;

pub mod corefile;
pub mod debuginfo;
pub mod modules;
pub mod session;
pub mod unwind;
