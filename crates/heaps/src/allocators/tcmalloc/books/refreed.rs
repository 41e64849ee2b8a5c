//! Large blocks that were freed again, which releases up to 2.10 do not notice, and where the lists close all the same.
//!
//! ```text
//! joined before     its Span was deleted when its pages were joined with their neighbours', and is on a list now
//! handed out since  it stood in the list twice, and was taken off once: a span in use is on the list
//! in a set          a set holds a span once, but its bytes were counted twice
//! ```

use crate::allocators::tcmalloc::TcmallocHeap;
use crate::allocators::tcmalloc::pagemap::{Span, SpanLocation};
use crate::anomaly::{AnomalyKind, Edge, HolderKind, ListRef, Stray};
use crate::map::{Block, HeapMap};
use ground::target::{Address, MemoryExt};

/// Frees too many of one block that are believed.
const MAX_TIMES: u64 = 4;

impl TcmallocHeap<'_> {
    /// What a span on a list of free spans says that is no free span: its block was freed again.
    pub(super) fn freed_again(
        &self,
        map: &HeapMap,
        sentinel: Address,
        span: &Span,
    ) -> Option<AnomalyKind> {
        let layout = &self.located.layout.span;
        let before = self
            .target
            .memory
            .read_pointer(layout.prev.at(span.at))
            .ok()?;
        let edge = Edge {
            list: ListRef {
                holder: HolderKind::SpanList,
                thread: None,
                at: sentinel,
                head_word: layout.next.at(before),
                class: 0,
                class_bytes: span.length.saturating_mul(self.page_bytes()),
            },
            position: 0,
            from: None,
        };
        if self.spans.index_of(span.at, span.start).is_some() {
            let whole = span.class == 0 && span.refcount == 0 && !span.sample;
            let (block, _) = map.block_at(self.span_start(span))?;
            let handed_out = whole && span.location == SpanLocation::InUse;
            return handed_out.then_some(AnomalyKind::ListedInUse { block, edge });
        }
        // A deleted Span: the page map still names it at the pages that were its own.
        let page = self.page_that_names(span.at)?;
        let found = Address::new(page.checked_mul(self.page_bytes())?);
        let (block, offset) = map.block_at(found)?;
        Some(AnomalyKind::BadEntry {
            edge,
            found,
            stray: Stray::FreeSpan { block, offset },
            leads_on: true,
            repair: None,
        })
    }

    /// The first page of a free span whose entry in the page map names a `Span` object that is not that span's.
    fn page_that_names(&self, at: Address) -> Option<u64> {
        let is_free = |span: &&Span| {
            span.at != at && matches!(span.location, SpanLocation::Normal | SpanLocation::Returned)
        };
        let pages = self
            .spans
            .rows()
            .iter()
            .filter(is_free)
            .flat_map(|span| span.start..span.end());
        let memory = self.target.memory;
        let names = |page: &u64| {
            let entry = self.spans.entry_of(&self.located, *page);
            entry.is_some_and(|entry| memory.read_pointer(entry) == Ok(at))
        };
        pages.into_iter().find(names)
    }

    /// The free span whose bytes an excess of free bytes is: the memory, the block if it is the only one, how often.
    pub(super) fn counted_twice(
        &self,
        map: &HeapMap,
        excess: u64,
    ) -> Option<(Address, Option<Block>, u64)> {
        let most = u64::from(self.located.layout.page_heap.max_pages);
        let fitting = |times: u64| {
            let pages = excess.checked_div(self.page_bytes().saturating_mul(times));
            let is_it = move |span: &&Span| {
                span.location == SpanLocation::Normal
                    && Some(span.length) == pages
                    && span.length > most
            };
            let exact =
                excess > 0 && excess.is_multiple_of(self.page_bytes().saturating_mul(times));
            let mut spans = self.spans.rows().iter().filter(is_it);
            let first = spans.next().filter(|_| exact)?;
            Some((first, spans.next().is_none(), times))
        };
        let (span, only, times) = (1..=MAX_TIMES).find_map(fitting)?;
        let start = self.span_start(span);
        let block = map.block_at(start).map(|(block, _)| block);
        Some((start, block.filter(|_| only), times))
    }
}
