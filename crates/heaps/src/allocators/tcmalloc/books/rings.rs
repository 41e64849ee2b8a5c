//! Rings of spans: the page heap's free spans, a central list's.

use crate::allocators::books::Books;
use crate::allocators::tcmalloc::locate::Located;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Transient, Value};
use ground::target::{Address, MemoryExt, TargetMemory};

impl Books {
    /// Walks a ring of spans from its sentinel (rule 15); says whether it closes.
    pub(in crate::allocators::tcmalloc) fn ring(
        &mut self,
        memory: &dyn TargetMemory,
        located: &Located,
        ring: Ring<'_>,
        mut each: impl FnMut(&mut Self, Address),
    ) -> RingEnd {
        let layout = &located.layout.span;
        let mut before = ring.sentinel;
        let mut behind = ring.sentinel;
        let mut count = 0;
        let (of, at, expected, found) = loop {
            let next_word = layout.next.at(before);
            let Ok(next) = memory.read_pointer(next_word) else {
                let expected = Expected::Is(Property::ReadableSpan);
                break (before, next_word, expected, Value::Nothing);
            };
            match memory.read_pointer(layout.prev.at(next)) {
                Ok(back) if back == before => {}
                // Which of the two is wrong? The one that leads to no member of a ring.
                Ok(back) => {
                    let is_member = next == ring.sentinel || (ring.is_span)(next);
                    let skipped = (ring.is_span)(back)
                        && memory.read_pointer(layout.next.at(back)) == Ok(next);
                    if !is_member || skipped {
                        let expected = Expected::Is(Property::NextSpan);
                        break (before, next_word, expected, next.into());
                    }
                    let expected = Expected::Exactly(before.into(), Reason::SpanBeforeIt);
                    break (next, layout.prev.at(next), expected, back.into());
                }
                Err(_) => {
                    let expected = Expected::Is(Property::Span);
                    break (before, next_word, expected, next.into());
                }
            }
            if next == ring.sentinel {
                return RingEnd {
                    count,
                    broken_behind: None,
                };
            }
            if count >= ring.bound {
                let expected = Expected::Is(Property::SentinelWithin(ring.bound));
                break (before, next_word, expected, next.into());
            }
            each(self, next);
            count = count.saturating_add(1);
            behind = before;
            before = next;
        };
        if !ring.silent {
            let word = BrokenWord {
                of: if of == ring.sentinel { ring.of } else { of },
                at,
                what: Field::SpanListLink,
                expected,
                found,
            };
            let next = memory
                .read_pointer(layout.next.at(before))
                .unwrap_or_default();
            let back = memory
                .read_pointer(layout.prev.at(next))
                .unwrap_or_default();
            let link = memory.read_pointer(at).unwrap_or_default();
            let passing = (ring.may_pass)(&ring, [behind, before, next, back], link);
            self.damage(word, ring.busy.clone().filter(|_| passing));
        }
        RingEnd {
            count,
            broken_behind: Some(before),
        }
    }
}

/// A ring of spans to walk.
pub(in crate::allocators::tcmalloc) struct Ring<'a> {
    /// The structure that it is reported with.
    pub of: Address,
    pub sentinel: Address,
    /// Spans that it can hold.
    pub bound: u64,
    pub busy: &'a Option<Transient>,
    /// Whether a live span's object is at an address.
    pub is_span: &'a dyn Fn(Address) -> bool,
    /// Whether somebody may be changing a link that holds a value, beside these members.
    pub may_pass: &'a dyn Fn(&Ring<'_>, [Address; 4], Address) -> bool,
    /// Leave it to the caller to say that it is broken.
    pub silent: bool,
}

/// How a ring's walk ended.
pub(in crate::allocators::tcmalloc) struct RingEnd {
    /// Spans seen.
    pub count: u64,
    /// The last sound member, if the ring does not close.
    pub broken_behind: Option<Address>,
}
