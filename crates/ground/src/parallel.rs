//! The only home of parallelism: maps over independent pieces of work, results in their order.
//!
//! One thread and many give the same answer, because nothing depends on which piece ran first.

use rayon::prelude::*;

/// Applies `work` to every item.
pub fn map<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    items.par_iter().map(work).collect()
}

/// Applies `work` to every number below `count`.
pub fn for_each_index<R: Send>(count: u32, work: impl Fn(u32) -> R + Sync + Send) -> Vec<R> {
    (0..count).into_par_iter().map(work).collect()
}
