//! Sampled allocations: blocks with a span of their own and the stack that asked for them.
//!
//! Only the full library samples, and only if `TCMALLOC_SAMPLE_PARAMETER` says so. The span is
//! marked, linked into `Static::sampled_objects_`, and its `objects` names a `StackTrace`:
//! `size` +0 (requested bytes), `depth` +8, `stack[31]` +16 (read in 2.8.1 to 2.18.1, `src/span.h`,
//! `src/common.h`; 264 bytes in every release).

use super::TcmallocHeap;
use super::books::{Books, Ring};
use super::pagemap::{Span, SpanLocation};
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Unit, Value};
use ground::target::{Address, MemoryExt};

/// Entries of `StackTrace.stack`.
const MAX_DEPTH: u64 = 31;

/// A recorded allocation.
pub struct Sample {
    /// Bytes that the program asked for.
    pub requested_bytes: u64,
    /// Program counters, innermost first; the first lies in tcmalloc itself.
    pub stack: Vec<Address>,
}

impl TcmallocHeap<'_> {
    /// All sampled spans that are handed out.
    pub(super) fn sampled_spans(&self) -> impl Iterator<Item = &Span> {
        self.spans
            .rows()
            .iter()
            .filter(|span| span.sample && span.location == SpanLocation::InUse)
    }

    /// What was recorded for the block that `at` lies in.
    pub(super) fn sample_at(&self, at: Address) -> Option<Sample> {
        let index = self.spans.index_of_page(at.get() >> self.page_shift())?;
        let span = self.spans.rows().get(index)?;
        (span.sample && span.location == SpanLocation::InUse).then(|| self.sample(span))?
    }

    /// The recorded allocation of a sampled span; `None` if its `StackTrace` makes no sense.
    pub(super) fn sample(&self, span: &Span) -> Option<Sample> {
        let memory = self.target.memory;
        let requested_bytes = memory.read_u64(span.objects).ok()?;
        let depth = memory.read_u64(span.objects.checked_add(8)?).ok()?;
        if depth > MAX_DEPTH || requested_bytes > span.length.checked_mul(self.page_bytes())? {
            return None;
        }
        let stack = (0..depth)
            .map(|index| {
                memory
                    .read_pointer(
                        span.objects
                            .checked_add(index.saturating_mul(8).saturating_add(16))?,
                    )
                    .ok()
            })
            .collect::<Option<Vec<Address>>>()?;
        Some(Sample {
            requested_bytes,
            stack,
        })
    }

    /// Sampled spans against the list of them and their stack traces (rules 15, 20).
    pub(super) fn check_sampled(&self, books: &mut Books) {
        let busy = self.page_heap_busy();
        let layout = &self.located.layout.span;
        let mut on_list = 0;
        if let Some(sentinel) = self.located.sampled {
            let ring = Ring {
                of: sentinel,
                sentinel,
                bound: self.spans.rows().len() as u64,
                busy: &busy,
                is_span: &|at| self.is_span(at),
                may_pass: &|ring, beside, link| self.may_pass(ring, beside, link),
                silent: false,
            };
            let end = books.ring(self.target.memory, &self.located, ring, |_, _| {});
            if end.broken_behind.is_some() {
                return;
            }
            on_list = end.count;
        }
        let mut marked = 0u64;
        for span in self.sampled_spans() {
            marked = marked.saturating_add(1);
            if self.sample(span).is_none() {
                let word = BrokenWord {
                    of: span.at,
                    at: layout.objects.at(span.at),
                    what: Field::ObjectsOfSampledSpan,
                    expected: Expected::Is(Property::SampledStack),
                    found: span.objects.into(),
                };
                books.damage(word, busy.clone());
            }
        }
        if let Some(at) = self.located.sampled.filter(|_| on_list != marked) {
            let word = BrokenWord {
                of: at,
                at,
                what: Field::StaticSampledObjects,
                expected: Expected::Exactly(
                    Value::Amount(marked, Unit::Spans),
                    Reason::SpansThatAreMarked,
                ),
                found: Value::Number(on_list),
            };
            books.count(word, busy);
        }
    }
}
