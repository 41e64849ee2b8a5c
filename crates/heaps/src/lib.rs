//! Allocator walkers: from the raw memory of a dead process to a map of its heap.
//!
//! This crate is pure. It opens no files, knows no paths, prints nothing and reads no environment;
//! everything it may know comes in through [`ground::target::Target`], everything it learns goes out as a
//! [`map::HeapMap`] and a list of [`anomaly::Anomaly`]. It states facts and holds no opinions: which
//! programmer's error explains an anomaly is decided by the checks of `heapcheck`.
//!
//! Floors, lowest first; `use` goes down only:
//!
//! 1. [`map`], [`list`], [`anomaly`], [`presence`]: what it learns;
//! 2. [`allocators`]: one folder per allocator; they never import each other;
//! 3. [`walk`]: runs a heap's passes; [`unclaimed`]: what no heap accounts for; [`graph`]: who points where.

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

pub mod absent;
pub mod allocators;
pub mod anomaly;
pub mod graph;
pub mod list;
pub mod map;
pub mod presence;
pub mod unclaimed;
pub mod walk;
