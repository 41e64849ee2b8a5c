//! heapcheck: reads a dead process and says what is wrong with its heap, and how it knows.
//!
//! The directory is the pipeline; imports go down only (a test keeps it):
//!
//! ```text
//! main, program, commands, cli, view > report > examination, inspect > checks > graph > analysis, crash > types
//! ──────────────────────────────────────────────────────────────────────────────── crates
//! heaps (allocator walkers)        postmortem (a core as memory, modules, threads)
//!                        ground
//! ```
//!
//! `docs/architecture.md` is the map and its reasons.

// Target bytes are hostile: nothing that reads them may panic or cut a number short. Tests may.
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

pub mod analysis;
pub mod checks;
pub mod cli;
pub mod commands;
pub mod crash;
pub mod events;
pub mod examination;
pub mod graph;
pub mod inspect;
pub mod interrupt;
pub mod output;
pub mod program;
pub mod progress;
pub mod report;
pub mod terminal;
pub mod types;
pub mod unforeseen;
pub mod usage;
pub mod view;
