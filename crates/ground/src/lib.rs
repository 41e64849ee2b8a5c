//! The ground that readers of a dead process stand on: what may be known of it, however it was come by.
//!
//! [`target`] is the process (memory, modules, symbols, types, threads); [`arch`] is one table per architecture; [`layout`] reads
//! structures, [`scan`] looks through memory, [`parallel`] splits work. Nothing here opens a file or knows an allocator.

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

pub mod arch;
pub mod layout;
pub mod parallel;
pub mod scan;
pub mod target;
