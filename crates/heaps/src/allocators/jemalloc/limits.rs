//! What could not be told of the heap, for the report.

use super::JemallocHeap;
use super::caches;
use crate::allocators::Limit;

impl JemallocHeap<'_> {
    /// What was not looked at.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        let vanished = self
            .caches
            .iter()
            .filter(|cache| cache.user == caches::User::Vanished)
            .count();
        if vanished > 0 {
            limits.push(Limit {
                what: format!("{vanished} thread caches whose threads are not in the core"),
                why: "a fork's child has its parent's caches but none of its other threads; their blocks count as \
                      free, and what those threads were doing cannot be told"
                    .into(),
                incomplete: false,
            });
        }
        let absent = caches::absent_threads(self.target, &self.caches);
        if absent > 0 {
            limits.push(Limit {
                what: format!("the caches of {absent} threads"),
                why: "what these threads keep for themselves is not in the core, or not all of it"
                    .into(),
                incomplete: true,
            });
        }
        if self.located.arenas.is_cut {
            limits.push(Limit {
                what: "arenas, or memory that they keep for themselves".into(),
                why: "what leads there is not in the core".into(),
                incomplete: true,
            });
        }
        if self.located.tree.missing > 0 {
            limits.push(Limit {
                what: format!(
                    "{} nodes of the page map, and the extents behind them",
                    self.located.tree.missing
                ),
                why: "their memory is not in the core".into(),
                incomplete: true,
            });
        }
        limits
    }
}
