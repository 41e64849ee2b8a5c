//! gperftools' tcmalloc, walked in processes that a small tcmalloc of our own wrote.

mod bench;
mod books;
mod damage;
mod healthy;
mod hostile;
mod model;
mod numbers;
mod passing;
mod refused;
mod render;

use ground::target::Target;
use heaps::allocators::tcmalloc::Tcmalloc;
use heaps::allocators::{Allocator, Detection, Heap};
use heaps::walk::{Walked, walk};

/// Finds the only heap, walks it, and lets `look` look at both.
pub fn with_heap<R>(target: Target<'_>, look: impl FnOnce(&dyn Heap, Walked) -> R) -> R {
    match Tcmalloc.detect(target) {
        Detection::Found { heaps, limits } => {
            assert_eq!(limits, []);
            let [heap] = &heaps[..] else {
                panic!("{} heaps", heaps.len());
            };
            let walked = walk(heap.as_ref(), target.memory);
            look(heap.as_ref(), walked)
        }
        Detection::Absent { looked_for } => panic!("absent: {looked_for}"),
        Detection::Unusable(limit) => panic!("unusable: {limit:?}"),
    }
}
