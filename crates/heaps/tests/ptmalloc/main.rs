//! glibc's malloc, walked in processes that were written chunk by chunk.

mod arcs;
mod bench;
mod cuts;
mod damage;
mod guests;
mod healthy;
mod hostile;
mod old;
mod passing;
mod pieces;
mod sizes;
mod threads;

use heaps::allocators::ptmalloc::Ptmalloc;
use heaps::allocators::{Allocator, Detection};
use heaps::walk::{Walked, walk};

use bench::Bench;

/// Finds the only heap and walks it.
pub fn walked(bench: &Bench) -> Walked {
    let target = bench.process.target();
    match Ptmalloc.detect(target) {
        Detection::Found { heaps, limits } => {
            assert_eq!(limits, []);
            let [heap] = &heaps[..] else {
                panic!("{} heaps", heaps.len());
            };
            walk(heap.as_ref(), target.memory)
        }
        Detection::Absent { looked_for } => panic!("absent: {looked_for}"),
        Detection::Unusable(limit) => panic!("unusable: {limit:?}"),
    }
}

/// What is out of order and excused by nobody.
pub fn definite(walked: &Walked) -> Vec<&heaps::anomaly::AnomalyKind> {
    let definite = walked
        .anomalies
        .iter()
        .filter(|anomaly| anomaly.transient.is_none());
    definite.map(|anomaly| &anomaly.kind).collect()
}
