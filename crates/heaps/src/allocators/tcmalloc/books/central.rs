//! Central lists and the spans on them.

use super::{Books, Ring};
use crate::allocators::tcmalloc::TcmallocHeap;
use crate::allocators::tcmalloc::pagemap::{Span, SpanLocation, read_span};
use crate::anomaly::{
    Anomaly, BrokenWord, Expected, Field, Property, Reason, Transient, Unit, Value,
};
use crate::map::HeapMap;
use ground::target::{Address, MemoryExt};

/// What following the central lists of spans showed.
#[derive(Default)]
pub struct CentralBooks {
    /// What is out of order, by class.
    pub anomalies: Vec<(u16, Anomaly)>,
    /// Spans whose own words deny what the list that holds them says: index and class by the list.
    pub contradicted: Vec<(usize, u16)>,
    /// Classes whose lists of spans do not close: what they hold is not known.
    pub open_rings: Vec<u16>,
    /// Spans on these lists, sound by themselves, that the page map does not name.
    pub strangers: Vec<Span>,
}

impl TcmallocHeap<'_> {
    /// Follows every class's two lists of spans, marks the spans that they hold, and checks the
    /// spans against the page map (rules 10, 13, 14, 15, 16, 21).
    pub(in crate::allocators::tcmalloc) fn walk_central(&self) -> CentralBooks {
        let mut out = CentralBooks::default();
        for class in 0..self.located.sizes.classes() {
            let mut books = Books::default();
            self.central_list(&mut books, class, &mut out);
            out.anomalies
                .extend(books.out.into_iter().map(|anomaly| (class, anomaly)));
        }
        out
    }

    fn central_list(&self, books: &mut Books, class: u16, out: &mut CentralBooks) {
        let layout = &self.located.layout.central;
        let memory = self.target.memory;
        let Some(Some(central)) = self.central.get(usize::from(class)) else {
            out.open_rings.push(class);
            return;
        };
        let word = |at, what, expected: Expected, found: Value| BrokenWord {
            of: central.at,
            at,
            what,
            expected,
            found,
        };
        let number = layout
            .size_class
            .read(memory, central.at)
            .unwrap_or(u64::MAX);
        if number != u64::from(class) {
            let at = layout.size_class.at(central.at);
            let what = Field::CentralFreeListSizeClass;
            books.damage(
                word(
                    at,
                    what,
                    Expected::Exactly(Value::Number(class.into()), Reason::PlaceInTheArray),
                    Value::Word(number),
                ),
                None,
            );
        }
        if central.lock > 2 {
            let at = layout.lock.at(central.at);
            let found = Value::Word(central.lock.into());
            books.damage(
                word(
                    at,
                    Field::CentralFreeListLock,
                    Expected::OneOf(&[0, 1, 2]),
                    found,
                ),
                None,
            );
        }
        if class == 0 {
            return;
        }
        let busy = self.central_busy(class);
        let mut on_lists = 0u64;
        let mut open = false;
        for (offset, with_objects) in [(layout.empty, false), (layout.nonempty, true)] {
            let ring = Ring {
                of: central.at,
                sentinel: central.at.saturating_add(offset.into()),
                bound: self.spans.rows().len() as u64,
                busy: &busy,
                is_span: &|at| self.is_span(at),
                may_pass: &|ring, beside, link| self.may_pass(ring, beside, link),
                silent: false,
            };
            let end = books.ring(memory, &self.located, ring, |books, span| {
                self.central_span(books, class, span, with_objects, &busy, out);
            });
            on_lists = on_lists.saturating_add(end.count);
            open |= end.broken_behind.is_some();
        }
        if open {
            out.open_rings.push(class);
            return;
        }
        let recorded = layout
            .num_spans
            .read(memory, central.at)
            .unwrap_or(on_lists);
        if recorded != on_lists {
            let at = layout.num_spans.at(central.at);
            let expected = Expected::Exactly(Value::Number(on_lists), Reason::SpansOnItsLists);
            books.count(
                word(
                    at,
                    Field::CentralFreeListNumSpans,
                    expected,
                    Value::Number(recorded),
                ),
                busy.clone(),
            );
        }
        let size = layout.cache_size.read(memory, central.at).unwrap_or(0);
        let most = layout.max_cache_size.read(memory, central.at).unwrap_or(0);
        let used = u64::from(central.used_slots);
        if used > size || size > most || most > layout.slot_count.into() {
            let at = layout.used_slots.at(central.at);
            let expected = Expected::Is(Property::UsedSlots { size, most });
            let busy = busy.filter(|_| used <= size.saturating_add(1));
            books.damage(
                word(
                    at,
                    Field::CentralFreeListUsedSlots,
                    expected,
                    Value::Number(used),
                ),
                busy,
            );
        }
    }

    /// Ends of the transfer cache's chains (rule 16): the recorded tail is an object of the class
    /// and links to nothing.
    pub(super) fn check_slots(
        &self,
        books: &mut Books,
        map: &HeapMap,
        irregular: &dyn Fn(usize) -> bool,
    ) {
        for (class, central) in (0u16..).zip(&self.central) {
            let Some(central) = central.as_ref().filter(|_| !irregular(class.into())) else {
                continue;
            };
            for slot in &central.slots {
                let link = self.target.memory.read_pointer(slot.tail);
                let of_class = map
                    .block_at(slot.tail)
                    .is_some_and(|(block, offset)| block.class == class && offset == 0);
                if !of_class || link.is_ok_and(|link| !link.is_null()) {
                    let word = BrokenWord {
                        of: slot.at,
                        at: slot.at.saturating_add(8),
                        what: Field::TransferSlotTail,
                        expected: Expected::Is(Property::LastOfItsChain),
                        found: slot.tail.into(),
                    };
                    books.damage(word, self.central_busy(class));
                }
            }
        }
    }

    /// A span that a central list holds (rules 10, 14).
    fn central_span(
        &self,
        books: &mut Books,
        class: u16,
        at: Address,
        with_objects: bool,
        busy: &Option<Transient>,
        out: &mut CentralBooks,
    ) {
        let layout = &self.located.layout.span;
        let word = |at_word, what, expected: Expected, found: Value| BrokenWord {
            of: at,
            at: at_word,
            what,
            expected,
            found,
        };
        let Some(span) = read_span(self.target.memory, &self.located, at) else {
            return;
        };
        let index = self
            .spans
            .index_of(at, span.start)
            .or_else(|| self.spans.index_of_repaired(at));
        let is_unknown = |page| {
            self.spans
                .is_unknown(self.target.memory, &self.located, page)
        };
        if index.is_none() && is_unknown(span.start) {
            out.open_rings.push(class);
            return;
        }
        let Some(index) = index else {
            let pages = u64::from(self.located.sizes.pages(class));
            if u16::from(span.class) == class && span.is_small() && span.length == pages {
                out.strangers.push(span);
            }
            let expected = Expected::Is(Property::PageThatNamesTheSpan);
            let what = Field::StartOfListedSpan;
            books.damage(
                word(layout.start.at(at), what, expected, Value::Word(span.start)),
                busy.clone(),
            );
            return;
        };
        self.spans.mark_central(index);
        if u16::from(span.class) != class || span.location != SpanLocation::InUse {
            out.contradicted.push((index, class));
            let what = Field::ClassOfListedSpan;
            let expected = Expected::Is(Property::InUseOfClass(class));
            let number = layout.size_class.read(self.target.memory, at).unwrap_or(0);
            let found = Value::ClassAndState(number, span.location.name());
            books.damage(
                word(layout.size_class.at(at), what, expected, found),
                None, // set before a span comes here, cleared after it leaves
            );
            return;
        }
        if u64::from(span.refcount) > self.capacity(&span) && busy.is_none() {
            out.contradicted.push((index, class)); // said with the spans
        }
        let pages = self.located.sizes.pages(class);
        if span.length != u64::from(pages) {
            let pages = Value::Amount(pages.into(), Unit::Pages);
            let expected = Expected::Exactly(pages, Reason::SpansOfItsClass);
            let what = Field::LengthOfListedSpan;
            books.damage(
                word(
                    layout.length.at(at),
                    what,
                    expected,
                    Value::Number(span.length),
                ),
                busy.clone(),
            );
        }
        if span.objects.is_null() == with_objects {
            let (what, expected) = if with_objects {
                (Field::ObjectsOfNonemptySpan, Property::NotNull)
            } else {
                (Field::ObjectsOfEmptySpan, Property::Null)
            };
            books.damage(
                word(
                    layout.objects.at(at),
                    what,
                    Expected::Is(expected),
                    span.objects.into(),
                ),
                busy.clone(),
            );
        }
    }

    /// Spans by themselves (rules 11, 18).
    pub(super) fn check_spans(&self, books: &mut Books, damaged: bool) {
        let layout = &self.located.layout.span;
        let classes = self.located.sizes.classes();
        let busy = self.somebody_inside();
        for (index, span) in self.spans.rows().iter().enumerate() {
            let word = |at, what, expected: Expected, found: Value| BrokenWord {
                of: span.at,
                at,
                what,
                expected,
                found,
            };
            if span.location == SpanLocation::Impossible {
                let at = layout.location.at(span.at);
                books.damage(
                    word(
                        at,
                        Field::SpanLocation,
                        Expected::OneOf(&[0, 1, 2]),
                        Value::Number(3),
                    ),
                    None,
                );
            }
            if !span.is_small() {
                continue;
            }
            let class = u16::from(span.class);
            if class >= classes {
                let at = layout.size_class.at(span.at);
                let found = layout.size_class.read(self.target.memory, span.at);
                let found = Value::Number(found.unwrap_or(0));
                books.damage(
                    word(
                        at,
                        Field::SpanSizeclass,
                        Expected::Below(classes.into()),
                        found,
                    ),
                    None,
                );
                continue;
            }
            let capacity = self.capacity(span);
            if u64::from(span.refcount) > capacity {
                let at = layout.refcount.at(span.at);
                let expected = Expected::AtMost(Value::Number(capacity), Reason::ObjectsOfTheSpan);
                let found = Value::Number(span.refcount.into());
                books.damage(
                    word(at, Field::SpanRefcount, expected, found),
                    self.central_busy(class),
                );
            }
            let unknown = self.central_books.open_rings.contains(&class) || busy.is_some();
            if !self.spans.on_central(index) && !damaged && !unknown {
                let expected = Expected::Is(Property::OnCentralList(class));
                books.damage(
                    word(span.at, Field::SpanOfSmallObjects, expected, Value::NoList),
                    None,
                );
            }
        }
    }

    /// `counter_` against the spans' chains (rule 13), for classes whose lists are sound. Each of the `foreign` entries, pointers into blocks and blocks of other classes, was counted by the class that it was
    /// freed as, and belongs to another.
    pub(super) fn check_counters(
        &self,
        books: &mut Books,
        irregular: &dyn Fn(usize) -> bool,
        foreign: u64,
    ) {
        let layout = &self.located.layout.central;
        let mut free = vec![0u64; usize::from(self.located.sizes.classes())];
        for (index, span) in self.spans.rows().iter().enumerate() {
            if span.is_small()
                && self.spans.on_central(index)
                && let Some(total) = free.get_mut(usize::from(span.class))
            {
                *total =
                    total.saturating_add(self.capacity(span).saturating_sub(span.refcount.into()));
            }
        }
        for (class, expected) in (0u16..).zip(free).skip(1) {
            let Some(Some(central)) = self.central.get(usize::from(class)) else {
                continue;
            };
            let Ok(recorded) = layout.counter.read(self.target.memory, central.at) else {
                continue;
            };
            let contradicted = self
                .central_books
                .contradicted
                .iter()
                .any(|(_, other)| *other == class);
            if recorded.wrapping_sub(expected).cast_signed().unsigned_abs() > foreign
                && !irregular(class.into())
                && !contradicted
                && !self.central_books.open_rings.contains(&class)
            {
                let word = BrokenWord {
                    of: central.at,
                    at: layout.counter.at(central.at),
                    what: Field::CentralFreeListCounter,
                    expected: Expected::Exactly(
                        Value::Number(expected),
                        Reason::FreeObjectsOfItsSpans,
                    ),
                    found: Value::Number(recorded),
                };
                books.count(word, self.central_busy(class));
            }
        }
    }
}
