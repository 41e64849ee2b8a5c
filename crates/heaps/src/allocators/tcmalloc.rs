//! gperftools' tcmalloc, 2.8 to 2.18.1.
//!
//! ```text
//! ThreadCache.list_[class] ──> object ──> object ──> 0        one per thread and class
//! CentralFreeList[class].tc_slots_[i] ──> chains of a batch   parked between threads and spans
//!                       .nonempty_ ──> Span.objects ──> ...   what a span has left
//! PageHeap.pagemap_: page ──> Span                            which pages are cut how
//!         .free_[pages].{normal, returned}                    free spans
//! ```
//!
//! The link of a free object is its first word, a plain pointer; there is no canary, no count and
//! no mark. What proves damage is that everything is counted twice: lengths beside lists, span
//! reference counts beside chains, page heap statistics beside the page map.

mod books;
mod busy;
mod caches;
mod damage;
mod figures;
mod in_flight;
mod layout;
mod limits;
mod locate;
mod pagemap;
mod recognise;
mod residue;
mod sampled;
mod size_map;
mod statistics;
mod structure;

use std::ops::Range;

use crate::allocators::{
    Allocator, Copy, Detection, Family, GroupReport, Heap, HeapIdentity, Miss, Residue, Settled,
    Standing,
};
use crate::anomaly::{AnomalyKind, HolderKind, ListRef};
use crate::list::{FreeList, Links, ListWalk};
use crate::map::{Block, Extent, HeapMap, MapBuilder, Owner, Shape};
use crate::presence::{Code, Presences};
use books::CentralBooks;
use caches::{Caches, Central};
use ground::target::{Address, Frame, MemoryExt, Module, Target};
use locate::Located;
use pagemap::{Span, SpanLocation, Spans};
use structure::Traces;

/// gperftools' tcmalloc.
pub struct Tcmalloc;

impl Allocator for Tcmalloc {
    fn name(&self) -> &'static str {
        "tcmalloc"
    }

    fn detect<'t>(&self, target: Target<'t>) -> Detection<'t> {
        let looked_for = "no module's writable memory holds gperftools' size map (a table of class sizes 0, 8, 16, \
                          32, 48 ... with its reverse table), and no module is named libtcmalloc";
        Detection::in_modules(target, self.name(), looked_for, |module| {
            // A pass over the module's variables decides whether anything else of it is looked at.
            let traces = structure::look(target.memory, module);
            if traces == Traces::default() && !locate::is_named(module) {
                return Copy::Missed(Miss::NotHere);
            }
            if let Some(limit) = recognise::refused(target, module, traces) {
                return Copy::Refused(limit);
            }
            match locate::locate(target, module) {
                Ok(located) => {
                    let heap = TcmallocHeap::read(target, module, located);
                    match heap.has_spans() {
                        true => Copy::Read(Box::new(heap)),
                        false => Copy::Missed(Miss::Incomplete(
                            "its caches hold blocks, and its page map names no span".into(),
                        )),
                    }
                }
                Err(miss) => Copy::Missed(miss),
            }
        })
    }
}

/// One copy of tcmalloc in a process.
pub(crate) struct TcmallocHeap<'t> {
    target: Target<'t>,
    module: &'t Module,
    located: Located,
    spans: Spans,
    caches: Caches,
    central: Vec<Option<Central>>,
    presences: Presences<'t>,
    version: Option<String>,
    /// What following the central lists of spans showed.
    central_books: CentralBooks,
}

/// How gperftools chains free objects: the first word, plain.
pub(crate) struct PlainLinks;

impl Links for PlainLinks {
    #[inline]
    fn decode(&self, _node: Address, word: u64) -> Address {
        Address::new(word)
    }

    /// A delete that is told the size looks at nothing: a stack variable or a global goes into the list of that size.
    fn frees_foreign(&self) -> bool {
        true
    }
}

impl<'t> TcmallocHeap<'t> {
    fn read(target: Target<'t>, module: &'t Module, located: Located) -> Self {
        let spans = Spans::read(target.memory, &located);
        let caches = Caches::read(target, &located);
        let central = (0..located.sizes.classes())
            .map(|class| Central::read(target, &located, class))
            .collect();
        let code = if module.is_executable {
            Code::Touching(state_ranges(&located))
        } else {
            Code::Module
        };
        let presences = Presences::new(target, module, code);
        let version = recognise::version(target, module);
        let mut heap = Self {
            target,
            module,
            located,
            spans,
            caches,
            central,
            presences,
            version,
            central_books: CentralBooks::default(),
        };
        heap.central_books = heap.walk_central();
        let strangers = std::mem::take(&mut heap.central_books.strangers);
        if heap.spans.adopt(target.memory, &heap.located, strangers) {
            heap.central_books = heap.walk_central();
        }
        for (index, class) in &heap.central_books.contradicted {
            heap.spans.believe_list(*index, *class);
        }
        heap
    }

    fn page_shift(&self) -> u32 {
        self.located.layout.page_heap.page_shift
    }

    /// Whether any span is known, or none need be: what is taken for the page heap may be something else, if that is not in the core.
    fn has_spans(&self) -> bool {
        let classes = 1..self.located.sizes.classes();
        let holds = |class| {
            self.free_lists(class)
                .iter()
                .any(|list| !list.head.is_null())
        };
        !self.spans.rows().is_empty() || !classes.into_iter().any(holds)
    }

    /// Whether a span's own words were found written over: its counts mean nothing.
    fn is_contradicted(&self, index: u32) -> bool {
        self.central_books
            .contradicted
            .iter()
            .any(|(span, _)| *span == index as usize)
    }

    /// Whether the books say already that a structure was written over.
    fn is_blamed(&self, at: Address) -> bool {
        self.central_books.anomalies.iter().any(|(_, anomaly)| {
            let words = matches!(&anomaly.kind, AnomalyKind::Metadata { word, counts_only: false } if word.of == at);
            words && anomaly.transient.is_none()
        })
    }

    fn page_bytes(&self) -> u64 {
        1 << self.page_shift()
    }

    fn span_start(&self, span: &Span) -> Address {
        Address::new(span.start.saturating_mul(self.page_bytes()))
    }

    fn span_range(&self, span: &Span) -> Range<Address> {
        self.span_start(span)..Address::new(span.end().saturating_mul(self.page_bytes()))
    }

    /// Objects of a small span. All spans of a class have the same pages; a length that says more
    /// is damage, and costs columns of bits.
    fn capacity(&self, span: &Span) -> u64 {
        let class = span.class.into();
        span.length
            .min(self.located.sizes.pages(class).into())
            .saturating_mul(self.page_bytes())
            .checked_div(self.located.sizes.bytes(class).into())
            .unwrap_or(0)
    }

    /// A small span that no central list holds and of which nothing is handed out: it is being cut
    /// up, or on its way back to the page heap. Its chain may be half made.
    fn is_in_transit(&self, index: usize, span: &Span) -> bool {
        span.is_small() && span.refcount == 0 && !self.spans.on_central(index)
    }

    fn extent_of(&self, index: usize, span: &Span) -> Extent {
        let start = self.span_start(span);
        let bytes = span.length.saturating_mul(self.page_bytes());
        let whole = |owner| Extent::new(start, bytes, Shape::Single, owner, 0);
        match span.location {
            SpanLocation::Normal => whole(Owner::Free),
            SpanLocation::Returned => whole(Owner::Returned),
            SpanLocation::InUse | SpanLocation::Impossible => {
                let stride = self.located.sizes.bytes(span.class.into());
                let count = u32::try_from(self.capacity(span)).unwrap_or(0);
                if span.class == 0 || stride == 0 || count == 0 {
                    return whole(Owner::InUse);
                }
                let owner = if self.is_in_transit(index, span) {
                    Owner::Free
                } else {
                    Owner::InUse
                };
                Extent::new(
                    start,
                    bytes,
                    Shape::Slab { stride, count },
                    owner,
                    span.class.into(),
                )
            }
        }
    }
}

/// Where the allocator's variables are, for telling which functions are its own.
fn state_ranges(located: &Located) -> Vec<Range<Address>> {
    let layout = &located.layout;
    let range = |start: Address, bytes: u64| start..start.saturating_add(bytes);
    let classes = u64::from(located.sizes.classes());
    vec![
        range(located.page_heap, layout.page_heap.bytes),
        range(
            located.central,
            classes.saturating_mul(u64::from(layout.central.stride)),
        ),
        range(
            located.size_map,
            u64::from(layout.size_map.num_size_classes.offset) + 8,
        ),
    ]
}

impl Heap for TcmallocHeap<'_> {
    fn identity(&self) -> HeapIdentity {
        HeapIdentity {
            family: Family::Tcmalloc,
            variant: Some("gperftools"),
            version: self.version.clone(),
            module: self.module.id,
            located: self.located.parts.clone(),
        }
    }

    fn page_shift(&self) -> u32 {
        self.page_shift()
    }

    fn carve(&self, out: &mut MapBuilder) {
        out.extend(
            self.spans
                .rows()
                .iter()
                .enumerate()
                .map(|(index, span)| self.extent_of(index, span)),
        );
        out.extend(self.metadata_extents());
    }

    fn groups(&self) -> u16 {
        self.located.sizes.classes()
    }

    fn free_lists(&self, class: u16) -> Vec<FreeList> {
        if class == 0 {
            return Vec::new();
        }
        let mut lists = Vec::new();
        for cache in 0..self.caches.rows.len() {
            if let Some(list) = self.caches.list(self.target, &self.located, cache, class)
                && (!list.head.is_null() || list.length != 0)
            {
                lists.push(FreeList {
                    head: list.head,
                    at: list.at,
                    recorded: list.length.into(),
                    class,
                    holder: HolderKind::ThreadCache,
                    owner: u32::try_from(cache).unwrap_or(u32::MAX),
                });
            }
        }
        if let Some(Some(central)) = self.central.get(usize::from(class)) {
            lists.extend((0u32..).zip(&central.slots).map(|(index, slot)| FreeList {
                head: slot.head,
                at: slot.at,
                recorded: self.located.sizes.batch(class).into(),
                class,
                holder: HolderKind::TransferCache,
                owner: index,
            }));
        }
        let spans = (0u32..).zip(self.spans.rows()).filter(|(index, span)| {
            u16::from(span.class) == class
                && span.is_small()
                && !self.is_in_transit(*index as usize, span)
        });
        lists.extend(spans.filter_map(|(index, span)| {
            let recorded = self.capacity(span).saturating_sub(span.refcount.into());
            (!span.objects.is_null() || recorded > 0).then_some(FreeList {
                head: span.objects,
                at: span.at,
                recorded,
                class,
                holder: HolderKind::CentralList,
                owner: index,
            })
        }));
        lists
    }

    fn follow(&self, lists: &[FreeList], walk: &mut ListWalk<'_>) {
        walk.run(lists, &PlainLinks);
    }

    fn describe(&self, lists: &[FreeList], map: &HeapMap) -> GroupReport {
        damage::describe(self, lists, map)
    }

    fn standing(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        self.standing_of(map, block)
    }

    fn residue(
        &self,
        map: &HeapMap,
        _block: Block,
        (offset, bytes): (u64, u64),
        word: u64,
        list: Option<ListRef>,
    ) -> Option<Residue> {
        (bytes == 8).then(|| self.residue_at(map, offset, word, list))?
    }

    fn own_memory(&self) -> Vec<Range<Address>> {
        state_ranges(&self.located)
    }

    fn is_unknown(&self, at: Address) -> bool {
        let memory = self.target.memory;
        // What begins there may be a span, which reaches into the next page.
        let end = at.saturating_add(u64::from(self.located.layout.span.bytes).saturating_sub(1));
        let page = at.get() >> self.page_shift();
        self.spans.is_unknown(memory, &self.located, page) || memory.is_absent(end)
    }

    fn is_partial(&self) -> bool {
        self.spans.missing_leaves > 0
    }

    fn runs(&self, frame: &Frame) -> Option<bool> {
        self.presences.is_allocator_code(frame)
    }

    fn settle(&self, map: &HeapMap, groups: &[GroupReport]) -> Settled {
        let anomalies = self.check_books(map, groups);
        let (statistics, details) = self.count(map, groups);
        Settled {
            anomalies,
            statistics,
            details,
            limits: self.limits(),
        }
    }

    fn recorded_stack(&self, block: Address) -> Option<Vec<Address>> {
        self.sample_at(block).map(|sample| sample.stack)
    }
}
