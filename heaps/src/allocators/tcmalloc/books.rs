//! Bookkeeping: everything that gperftools counts twice, checked against each other.
//!
//! Numbers in comments are the rules of the invariants' list in the design notes. A state that a
//! thread inside the allocator may be passing through carries its proof and is no damage.

use super::TcmallocHeap;
use super::pagemap::{SpanLocation, read_span};
use crate::allocators::{GroupReport, Limit};
use crate::anomaly::{Anomaly, AnomalyKind, Transient};
use crate::target::{Address, MemoryExt};

/// Anomalies of bookkeeping per heap.
const MAX_ANOMALIES: usize = 128;

struct Books<'h, 't> {
    heap: &'h TcmallocHeap<'t>,
    out: Vec<Anomaly>,
}

struct Entry {
    at: Address,
    what: &'static str,
    expected: String,
    found: String,
    counts_only: bool,
}

impl Books<'_, '_> {
    fn say(&mut self, entry: Entry, transient: Option<Transient>) {
        if self.out.len() < MAX_ANOMALIES {
            let Entry {
                at,
                what,
                expected,
                found,
                counts_only,
            } = entry;
            let mut anomaly = Anomaly::new(AnomalyKind::Metadata {
                at,
                what,
                expected,
                found,
                counts_only,
            });
            anomaly.transient = transient;
            self.out.push(anomaly);
        }
    }
}

impl TcmallocHeap<'_> {
    /// Follows every class's two lists of spans, marks the spans that they hold, and checks the
    /// spans against the page map (rules 10, 13, 14, 15, 21).
    pub(super) fn walk_central(&self) -> Vec<(u16, Anomaly)> {
        let mut out = Vec::new();
        for class in 0..self.located.sizes.classes() {
            let mut books = Books {
                heap: self,
                out: Vec::new(),
            };
            books.central(class);
            out.extend(books.out.into_iter().map(|anomaly| (class, anomaly)));
        }
        out
    }

    /// Everything else, once the lists are known. Classes whose lists are damaged are left out:
    /// their counters are out of step because of it.
    pub(super) fn check_books(&self, groups: &[GroupReport]) -> (Vec<Anomaly>, Vec<Limit>) {
        let damaged = |class: usize| {
            groups
                .get(class)
                .is_some_and(|group| !group.anomalies.is_empty())
        };
        let any_damage = groups.iter().any(|group| {
            group
                .anomalies
                .iter()
                .any(|anomaly| anomaly.transient.is_none())
        });
        let mut books = Books {
            heap: self,
            out: Vec::new(),
        };
        for (class, anomaly) in &self.central_anomalies {
            if !damaged((*class).into()) || !anomaly.is_count() {
                books.out.push(anomaly.clone());
            }
        }
        books.spans(any_damage);
        books.counters(&damaged);
        books.caches(groups);
        books.page_heap(any_damage);
        books.size_map();
        (books.out, Vec::new())
    }
}

impl Books<'_, '_> {
    fn central(&mut self, class: u16) {
        let heap = self.heap;
        let layout = &heap.located.layout.central;
        let memory = heap.target.memory;
        let Some(Some(central)) = heap.central.get(usize::from(class)) else {
            return;
        };
        let recorded = layout.size_class.read(memory, central.at);
        if recorded != Ok(class.into()) {
            self.say(
                Entry {
                    at: layout.size_class.at(central.at),
                    what: "CentralFreeList.size_class_",
                    expected: class.to_string(),
                    found: recorded
                        .map_or_else(|fault| fault.to_string(), |found| found.to_string()),
                    counts_only: false,
                },
                None,
            );
        }
        if central.lock > 2 {
            self.say(
                Entry {
                    at: layout.lock.at(central.at),
                    what: "CentralFreeList.lock_",
                    expected: "0, 1 or 2".into(),
                    found: format!("{:#x}", central.lock),
                    counts_only: false,
                },
                None,
            );
        }
        if class == 0 {
            return;
        }
        let busy = heap.central_busy(class);
        let mut on_lists = 0u64;
        for (offset, with_objects) in [(layout.empty, false), (layout.nonempty, true)] {
            let sentinel = central.at.saturating_add(offset.into());
            on_lists += self.span_ring(
                sentinel,
                |books, index| books.central_span(class, index, with_objects, &busy),
                &busy,
            );
        }
        if let Ok(recorded) = layout.num_spans.read(memory, central.at)
            && recorded != on_lists
        {
            self.say(
                Entry {
                    at: layout.num_spans.at(central.at),
                    what: "CentralFreeList.num_spans_",
                    expected: format!("{on_lists}, the spans on its lists"),
                    found: recorded.to_string(),
                    counts_only: true,
                },
                busy,
            );
        }
        let slots_wrong = {
            let size = layout.cache_size.read(memory, central.at).unwrap_or(0);
            let most = layout.max_cache_size.read(memory, central.at).unwrap_or(0);
            (u64::from(central.used_slots) > size || size > most || most > layout.slot_count.into())
                .then_some((size, most))
        };
        if let Some((size, most)) = slots_wrong {
            let busy = heap
                .central_busy(class)
                .filter(|_| u64::from(central.used_slots) <= size + 1);
            self.say(
                Entry {
                    at: layout.used_slots.at(central.at),
                    what: "CentralFreeList.used_slots_",
                    expected: format!(
                        "at most cache_size_ ({size}), at most max_cache_size_ ({most})"
                    ),
                    found: central.used_slots.to_string(),
                    counts_only: false,
                },
                busy,
            );
        }
    }

    /// Walks a ring of spans from its sentinel; says how many it holds (rule 15).
    fn span_ring(
        &mut self,
        sentinel: Address,
        mut each: impl FnMut(&mut Self, Address),
        busy: &Option<Transient>,
    ) -> u64 {
        let heap = self.heap;
        let layout = &heap.located.layout.span;
        let memory = heap.target.memory;
        let mut before = sentinel;
        let mut count = 0;
        let bound = heap.spans.rows().len() as u64 + 1;
        loop {
            let Ok(next) = layout.next.read(memory, before).map(Address::new) else {
                self.broken_ring(layout.next.at(before), "a readable span", "nothing", busy);
                return count;
            };
            match layout.prev.read(memory, next) {
                Ok(back) if back == before.get() => {}
                Ok(back) => {
                    let expected = format!("{before}, as the span before it says");
                    self.broken_ring(layout.prev.at(next), &expected, &format!("{back:#x}"), busy);
                    if next == sentinel {
                        return count;
                    }
                    // The ring may go on, but what it holds now is not trusted further.
                    return count;
                }
                Err(_) => {
                    self.broken_ring(layout.next.at(before), "a span", &next.to_string(), busy);
                    return count;
                }
            }
            if next == sentinel || count >= bound {
                return count;
            }
            each(self, next);
            count += 1;
            before = next;
        }
    }

    fn broken_ring(&mut self, at: Address, expected: &str, found: &str, busy: &Option<Transient>) {
        self.say(
            Entry {
                at,
                what: "link of a list of spans",
                expected: expected.into(),
                found: found.into(),
                counts_only: false,
            },
            busy.clone(),
        );
    }

    /// A span that a central list holds (rules 10, 14).
    fn central_span(
        &mut self,
        class: u16,
        at: Address,
        with_objects: bool,
        busy: &Option<Transient>,
    ) {
        let heap = self.heap;
        let layout = &heap.located.layout.span;
        let Some(span) = read_span(heap.target.memory, &heap.located, at) else {
            return;
        };
        let Some(index) = heap.spans.index_of(at, span.start) else {
            self.say(
                Entry {
                    at: layout.start.at(at),
                    what: "Span.start of a span on a central list",
                    expected: "a page whose page map entry names this span".into(),
                    found: format!("{:#x}", span.start),
                    counts_only: false,
                },
                busy.clone(),
            );
            return;
        };
        heap.spans.mark_central(index);
        let mut wrong = |at, what, expected: String, found: String| {
            self.say(
                Entry {
                    at,
                    what,
                    expected,
                    found,
                    counts_only: false,
                },
                busy.clone(),
            );
        };
        if u16::from(span.class) != class {
            wrong(
                layout.size_class.at(at),
                "Span.sizeclass of a span on a central list",
                format!("{class}, the class of the list"),
                span.class.to_string(),
            );
        } else if span.location != SpanLocation::InUse {
            wrong(
                layout.location.at(at),
                "Span.location of a span on a central list",
                "IN_USE".into(),
                format!("{:?}", span.location),
            );
        } else if span.length != u64::from(heap.located.sizes.pages(class)) {
            wrong(
                layout.length.at(at),
                "Span.length of a span on a central list",
                format!(
                    "{} pages, as every span of its class",
                    heap.located.sizes.pages(class)
                ),
                span.length.to_string(),
            );
        }
        if span.objects.is_null() == with_objects {
            let (what, expected) = if with_objects {
                (
                    "Span.objects of a span on the list of those with free objects",
                    "not null",
                )
            } else {
                (
                    "Span.objects of a span on the list of those without free objects",
                    "null",
                )
            };
            wrong(
                layout.objects.at(at),
                what,
                expected.into(),
                span.objects.to_string(),
            );
        }
    }

    /// Spans by themselves (rules 11, 18, 20).
    fn spans(&mut self, any_damage: bool) {
        let heap = self.heap;
        let layout = &heap.located.layout.span;
        let busy = heap.somebody_inside();
        for (index, span) in heap.spans.rows().iter().enumerate() {
            if span.location == SpanLocation::Impossible {
                self.say(
                    Entry {
                        at: layout.location.at(span.at),
                        what: "Span.location",
                        expected: "0, 1 or 2".into(),
                        found: "3".into(),
                        counts_only: false,
                    },
                    None,
                );
            }
            if !span.is_small() {
                continue;
            }
            if u16::from(span.class) >= heap.located.sizes.classes() {
                self.say(
                    Entry {
                        at: layout.size_class.at(span.at),
                        what: "Span.sizeclass",
                        expected: format!("below {}", heap.located.sizes.classes()),
                        found: layout
                            .size_class
                            .read(heap.target.memory, span.at)
                            .map_or_else(|fault| fault.to_string(), |class| class.to_string()),
                        counts_only: false,
                    },
                    None,
                );
                continue;
            }
            if u64::from(span.refcount) > heap.capacity(span) {
                let busy = heap.central_busy(span.class.into());
                self.say(
                    Entry {
                        at: layout.refcount.at(span.at),
                        what: "Span.refcount",
                        expected: format!(
                            "at most {}, the objects of the span",
                            heap.capacity(span)
                        ),
                        found: span.refcount.to_string(),
                        counts_only: false,
                    },
                    busy,
                );
            }
            if !heap.spans.on_central(index) && !any_damage {
                let busy = heap
                    .central_busy(span.class.into())
                    .or_else(|| busy.clone());
                self.say(
                    Entry {
                        at: span.at,
                        what: "span of small objects",
                        expected: format!("on a list of CentralFreeList {}", span.class),
                        found: "on none".into(),
                        counts_only: false,
                    },
                    busy,
                );
            }
        }
    }

    /// `counter_` against the spans' chains (rule 13), for classes whose lists are sound.
    fn counters(&mut self, damaged: &dyn Fn(usize) -> bool) {
        let heap = self.heap;
        let layout = &heap.located.layout.central;
        let mut free = vec![0u64; usize::from(heap.located.sizes.classes())];
        for (index, span) in heap.spans.rows().iter().enumerate() {
            if span.is_small()
                && heap.spans.on_central(index)
                && let Some(total) = free.get_mut(usize::from(span.class))
            {
                *total += heap.capacity(span).saturating_sub(span.refcount.into());
            }
        }
        for (class, expected) in free.into_iter().enumerate().skip(1) {
            let Some(Some(central)) = heap.central.get(class) else {
                continue;
            };
            let Ok(recorded) = layout.counter.read(heap.target.memory, central.at) else {
                continue;
            };
            if recorded != expected && !damaged(class) {
                let busy = u16::try_from(class)
                    .ok()
                    .and_then(|class| heap.central_busy(class));
                self.say(
                    Entry {
                        at: layout.counter.at(central.at),
                        what: "CentralFreeList.counter_",
                        expected: format!("{expected}, the free objects of its spans"),
                        found: recorded.to_string(),
                        counts_only: true,
                    },
                    busy,
                );
            }
        }
    }

    /// Thread caches (rules 7, 8, 9, 19).
    fn caches(&mut self, groups: &[GroupReport]) {
        let heap = self.heap;
        let memory = heap.target.memory;
        let layout = &heap.located.layout.cache;
        for (at, other) in &heap.caches.broken_links {
            let busy = heap.somebody_inside();
            self.say(
                Entry {
                    at: *at,
                    what: "link of the list of thread caches",
                    expected: "a thread cache that links back".into(),
                    found: other.to_string(),
                    counts_only: false,
                },
                busy,
            );
        }
        let class_is_sound = |class: usize| {
            groups
                .get(class)
                .is_none_or(|group| group.anomalies.is_empty())
        };
        for (index, cache) in heap.caches.rows.iter().enumerate() {
            let busy = match cache.owner {
                Some(thread) if heap.presences.of(thread) == crate::presence::Presence::Outside => {
                    None
                }
                Some(thread) => Some(Transient {
                    thread: heap.presences.tid(thread),
                    proof: heap.presences.proof(thread),
                }),
                None => heap.somebody_inside(),
            };
            let mut bytes = 0u64;
            let mut sound = true;
            for class in 1..heap.located.sizes.classes() {
                let Some(list) = heap.caches.list(heap.target, &heap.located, index, class) else {
                    continue;
                };
                let object_bytes = layout.object_bytes.read(memory, list.at).unwrap_or(0);
                if object_bytes != u64::from(heap.located.sizes.bytes(class)) {
                    self.say(
                        Entry {
                            at: layout.object_bytes.at(list.at),
                            what: "FreeList.size_",
                            expected: format!(
                                "{}, which never changes",
                                heap.located.sizes.bytes(class)
                            ),
                            found: object_bytes.to_string(),
                            counts_only: false,
                        },
                        None,
                    );
                }
                sound &= class_is_sound(class.into());
                bytes = bytes.saturating_add(
                    u64::from(list.length) * u64::from(heap.located.sizes.bytes(class)),
                );
            }
            if let Ok(recorded) = layout.size.read(memory, cache.at)
                && recorded != bytes
                && sound
            {
                self.say(
                    Entry {
                        at: layout.size.at(cache.at),
                        what: "ThreadCache.size_",
                        expected: format!("{bytes}, the bytes of its lists"),
                        found: recorded.to_string(),
                        counts_only: true,
                    },
                    busy,
                );
            }
        }
        if let Some(at) = heap.located.cache_count
            && let Ok(recorded) = memory.read_u32(at)
            && u64::from(recorded) != heap.caches.rows.len() as u64
        {
            let busy = heap.somebody_inside();
            self.say(
                Entry {
                    at,
                    what: "ThreadCache::thread_heap_count_",
                    expected: format!("{}, the caches on the list", heap.caches.rows.len()),
                    found: recorded.to_string(),
                    counts_only: true,
                },
                busy,
            );
        }
    }

    /// Lists of free spans and the sums of all spans (rules 15, 17, 18).
    fn page_heap(&mut self, any_damage: bool) {
        let heap = self.heap;
        let layout = &heap.located.layout.page_heap;
        let memory = heap.target.memory;
        let busy = heap.page_heap_busy();
        for pages in 1..=u64::from(layout.max_pages) {
            let pair = heap
                .located
                .page_heap
                .saturating_add(layout.free_lists + 96 * (pages - 1));
            for (offset, location) in [(0, SpanLocation::Normal), (48, SpanLocation::Returned)] {
                let sentinel = pair.saturating_add(offset);
                // The last list of old releases holds longer spans, too.
                self.span_ring(
                    sentinel,
                    |books, at| books.free_span(at, pages, location, &busy),
                    &busy,
                );
            }
        }
        let read = |offset: u64| {
            memory.read_u64(heap.located.page_heap.saturating_add(layout.stats + offset))
        };
        let (mut system, mut free, mut returned) = (0u64, 0u64, 0u64);
        for span in heap.spans.rows() {
            let bytes = span.length.saturating_mul(heap.page_bytes());
            system = system.saturating_add(bytes);
            match span.location {
                SpanLocation::Normal => free = free.saturating_add(bytes),
                SpanLocation::Returned => returned = returned.saturating_add(bytes),
                _ => {}
            }
        }
        if any_damage || heap.spans.missing_leaves > 0 || !self.out.is_empty() {
            return; // the sums differ because of what was said already
        }
        for (offset, what, expected) in [
            (0, "PageHeap.stats_.system_bytes", system),
            (8, "PageHeap.stats_.free_bytes", free),
            (16, "PageHeap.stats_.unmapped_bytes", returned),
        ] {
            if let Ok(recorded) = read(offset)
                && recorded != expected
            {
                self.say(
                    Entry {
                        at: heap.located.page_heap.saturating_add(layout.stats + offset),
                        what,
                        expected: format!("{expected}, the bytes of the spans in the page map"),
                        found: recorded.to_string(),
                        counts_only: true,
                    },
                    busy.clone(),
                );
            }
        }
    }

    /// A span on a page heap's list (rule 17).
    fn free_span(
        &mut self,
        at: Address,
        pages: u64,
        location: SpanLocation,
        busy: &Option<Transient>,
    ) {
        let heap = self.heap;
        let layout = &heap.located.layout.span;
        let Some(span) = read_span(heap.target.memory, &heap.located, at) else {
            return;
        };
        let live = heap.spans.index_of(at, span.start).is_some();
        if span.location != location || span.length != pages || !live {
            let entry = Entry {
                at: layout.location.at(at),
                what: "span on a list of free spans",
                expected: format!("{location:?}, {pages} pages, in the page map"),
                found: format!(
                    "{:?}, {} pages, {}",
                    span.location,
                    span.length,
                    if live {
                        "in the page map"
                    } else {
                        "not in the page map"
                    }
                ),
                counts_only: false,
            };
            self.say(entry, busy.clone());
        }
    }

    /// The size map against its own reverse table (rule 22).
    fn size_map(&mut self) {
        let heap = self.heap;
        let layout = &heap.located.layout.size_map;
        for (at, class) in
            heap.located
                .sizes
                .contradictions(heap.target.memory, heap.located.size_map, layout)
        {
            self.say(
                Entry {
                    at,
                    what: "SizeMap.class_array_",
                    expected: format!(
                        "class {class} for {} bytes",
                        heap.located.sizes.bytes(class)
                    ),
                    found: "another class".into(),
                    counts_only: false,
                },
                None,
            );
        }
    }
}
