//! Where the memory is: every mapping and what it is, what the allocators have, and who holds how much of it.
//!
//! ```text
//! Session + Analysis + lands of threads ──> mappings   every byte of the process once, by kind
//! Analysis ──────────────────────────────> blocks      all sizes, the largest blocks, what could be given back
//! Analysis + Types ──────────────────────> types       blocks in use by what they hold
//! Ground ────────────────────────────────> owners      what hangs on each variable, frame and thread
//!                                            └─> suspects   the few that hold most: where it accumulates, by which way
//! ```

pub mod blocks;
pub mod mappings;
pub mod owners;
pub mod suspects;
pub mod types;
