//! Free spans of more pages than the page heap has lists for: two `std::set`, as libstdc++ lays them out.
//!
//! ```text
//! set   +16 root  +40 nodes       node  +16 left  +24 right  +32 Span*  +40 pages
//! ```
//!
//! A set is believed only if it has as many nodes as it counts.

use std::collections::{HashMap, HashSet};

use super::Books;
use crate::allocators::tcmalloc::TcmallocHeap;
use crate::allocators::tcmalloc::pagemap::{SpanLocation, read_span};
use crate::anomaly::{BrokenWord, Expected, Field, Reason, Value};
use ground::target::{Address, MemoryExt};

/// Bytes of a set.
const SET: u64 = 48;

impl TcmallocHeap<'_> {
    /// Whether spans are free where lists and sets hold them, and nowhere else. `listed`: members of all lists.
    pub(super) fn check_free_spans(&self, books: &mut Books, listed: &HashSet<Address>) {
        let layout = &self.located.layout.page_heap;
        let sets = self.located.page_heap.saturating_add(layout.free_lists);
        let first = sets.checked_sub(2 * SET).unwrap_or_default();
        let (Some(normal), Some(returned)) = (
            self.set_of_spans(first),
            self.set_of_spans(first.saturating_add(SET)),
        ) else {
            return;
        };
        let normal = normal.into_iter().map(|at| (at, SpanLocation::Normal));
        let returned = returned.into_iter().map(|at| (at, SpanLocation::Returned));
        let sets: HashMap<Address, SpanLocation> = normal.chain(returned).collect();
        let location = |at| self.located.layout.span.location.at(at);
        for span in self.spans.rows() {
            let is_free = matches!(span.location, SpanLocation::Normal | SpanLocation::Returned);
            let held = sets.get(&span.at);
            let expected = match held {
                Some(held) if *held != span.location => {
                    Expected::Exactly(Value::State(held.name()), Reason::SetThatHoldsIt)
                }
                None if is_free && !listed.contains(&span.at) => Expected::Exactly(
                    Value::State(SpanLocation::InUse.name()),
                    Reason::NoListHoldsIt,
                ),
                _ => continue,
            };
            let word = BrokenWord {
                of: span.at,
                at: location(span.at),
                what: Field::SpanLocation,
                expected,
                found: Value::State(span.location.name()),
            };
            books.damage(word, None);
        }
    }

    /// Spans that a set holds. `None` if it makes no sense.
    fn set_of_spans(&self, set: Address) -> Option<Vec<Address>> {
        let memory = self.target.memory;
        let most = self.spans.rows().len();
        let count = memory.read_u64(set.checked_add(40)?).ok()?;
        let count = usize::try_from(count).ok().filter(|count| *count <= most)?;
        let mut todo = vec![memory.read_pointer(set.checked_add(16)?).ok()?];
        let mut seen = HashSet::new();
        let mut spans = Vec::new();
        while let Some(node) = todo.pop() {
            if node.is_null() {
                continue;
            }
            if seen.len() == count || !seen.insert(node) {
                return None;
            }
            let word = |offset: u64| memory.read_pointer(node.checked_add(offset)?).ok();
            todo.extend([word(16)?, word(24)?]);
            let at = word(32)?;
            let span = read_span(memory, &self.located, at)?;
            if span.length != word(40)?.get() || !self.is_span(at) {
                return None;
            }
            spans.push(at);
        }
        (seen.len() == count).then_some(spans)
    }
}
