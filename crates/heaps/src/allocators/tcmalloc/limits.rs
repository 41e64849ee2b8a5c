//! What could not be told of the heap, for the report.

use super::TcmallocHeap;
use crate::allocators::Limit;

impl TcmallocHeap<'_> {
    /// What was not looked at.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let mut limits = Vec::new();
        let vanished = self.vanished_caches();
        if vanished > 0 {
            limits.push(Limit {
                what: format!("{vanished} thread caches whose threads are not in the core"),
                why: "a fork's child has its parent's caches but none of its other threads; their blocks count \
                      as free, and what those threads were doing cannot be told"
                    .into(),
                incomplete: false,
            });
        }
        if self.spans.missing_leaves > 0 {
            limits.push(Limit {
                what: format!(
                    "{} leaves of the page map, and the spans behind them",
                    self.spans.missing_leaves
                ),
                why: "their memory is not in the core".into(),
                incomplete: true,
            });
        }
        limits
    }
}
