//! A small tcmalloc: enough of gperftools' own steps that its states are real ones.
//!
//! It knows what the walker must find out: which objects the program holds, and what every list
//! holds. `render.rs` writes it down as memory.

use std::collections::BTreeMap;

use crate::numbers::{Class, Pages, Release, classes};

/// Where a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    InUse,
    Normal,
    Returned,
}

#[derive(Clone, Debug)]
pub struct Span {
    pub start: u64,
    pub length: u64,
    pub location: Location,
    pub class: usize,
    pub refcount: u64,
    /// Free objects; the head is last.
    pub chain: Vec<u64>,
    /// Requested bytes of a sampled allocation.
    pub sample: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub struct Central {
    /// Chains, each head first.
    pub slots: Vec<Vec<u64>>,
    /// Spans without and with free objects, by their addresses.
    pub empty: Vec<u64>,
    pub nonempty: Vec<u64>,
}

#[derive(Clone, Debug)]
pub struct Cache {
    pub at: u64,
    /// Index of its thread.
    pub thread: usize,
    /// One list per class; the head is last.
    pub lists: Vec<Vec<u64>>,
    pub max_length: Vec<u64>,
}

/// Where things lie in the process.
pub const BRK: u64 = 0x5555_0000_0000;
pub const MMAP: u64 = 0x7f00_0000_0000;
/// Metadata stands before the spans in the first area and behind them in the second.
pub const BRK_BYTES: u64 = 6 << 20;
pub const MMAP_BYTES: u64 = 24 << 20;
/// `Span` objects and thread caches, behind the leaf.
pub const POOL_BYTES: u64 = 512 << 10;

pub struct Model {
    pub release: Release,
    pub pages: Pages,
    pub classes: Vec<Class>,
    pub central: Vec<Central>,
    pub caches: Vec<Cache>,
    /// Caches of threads that exited: their memory keeps what it held, but for the pool's link.
    pub gone_caches: Vec<Cache>,
    /// Live spans by the address of their `Span`.
    pub spans: BTreeMap<u64, Span>,
    /// Deleted `Span` objects: newest last.
    pub deleted: Vec<(u64, Span)>,
    /// The page map, with the stale entries that the allocator leaves in it.
    pub page_map: BTreeMap<u64, u64>,
    /// What the program holds: address to size class, 0 for spans of their own.
    pub live: BTreeMap<u64, usize>,
    next_span: u64,
    next_cache: u64,
    /// End of what was taken from the system, in each area.
    ends: [u64; 2],
}

impl Model {
    pub fn new(release: Release, pages: Pages) -> Self {
        let classes = classes(pages.shift);
        let leaf = 8u64 << pages.leaf_bits;
        Self {
            release,
            pages,
            central: vec![Central::default(); classes.len()],
            classes,
            caches: Vec::new(),
            gone_caches: Vec::new(),
            spans: BTreeMap::new(),
            deleted: Vec::new(),
            page_map: BTreeMap::new(),
            live: BTreeMap::new(),
            next_span: BRK + leaf,
            next_cache: BRK + leaf + POOL_BYTES / 2,
            ends: [BRK + leaf + POOL_BYTES, MMAP],
        }
    }

    /// First byte and end of the spans' memory in each area.
    pub fn areas(&self) -> [std::ops::Range<u64>; 2] {
        let leaf = 8u64 << self.pages.leaf_bits;
        [BRK + leaf + POOL_BYTES..self.ends[0], MMAP..self.ends[1]]
    }

    pub fn page_bytes(&self) -> u64 {
        1 << self.pages.shift
    }

    pub fn span_of(&self, object: u64) -> u64 {
        self.page_map[&(object >> self.pages.shift)]
    }

    pub fn address(&self, span: &Span) -> u64 {
        span.start << self.pages.shift
    }

    pub fn capacity(&self, class: usize) -> u64 {
        let class = self.classes[class];
        (class.pages << self.pages.shift) / class.bytes
    }

    // --- page heap ---------------------------------------------------------------------------

    fn new_span(&mut self, span: Span) -> u64 {
        let at = self.deleted.pop().map(|(at, _)| at).unwrap_or_else(|| {
            self.next_span += 48;
            self.next_span - 48
        });
        self.record(at, &span);
        self.spans.insert(at, span);
        at
    }

    fn record(&mut self, at: u64, span: &Span) {
        self.page_map.insert(span.start, at);
        self.page_map.insert(span.start + span.length - 1, at);
    }

    fn free_span(start: u64, length: u64, location: Location) -> Span {
        Span {
            start,
            length,
            location,
            class: 0,
            refcount: 0,
            chain: Vec::new(),
            sample: None,
        }
    }

    fn grow(&mut self, pages: u64) {
        let pages = pages.max(self.pages.max_pages);
        let bytes = pages << self.pages.shift;
        let area = usize::from(self.ends[0] + bytes > BRK + BRK_BYTES);
        let start = self.ends[area] >> self.pages.shift;
        self.ends[area] += bytes;
        assert!(
            self.ends[1] <= MMAP + MMAP_BYTES,
            "the model's heap is full"
        );
        let at = self.new_span(Self::free_span(start, pages, Location::InUse));
        self.delete(at, Location::Normal);
    }

    /// `PageHeap::New`: the best fit, normal spans first.
    pub fn new_pages(&mut self, pages: u64) -> u64 {
        loop {
            let fit = self
                .spans
                .iter()
                .filter(|(_, span)| span.location != Location::InUse && span.length >= pages)
                .min_by_key(|(_, span)| (span.location, span.length, span.start));
            let Some((&at, _)) = fit else {
                self.grow(pages);
                continue;
            };
            let span = self.spans.get_mut(&at).unwrap();
            let location = std::mem::replace(&mut span.location, Location::InUse);
            let rest = span.length - pages;
            span.length = pages;
            let span = span.clone();
            self.record(at, &span);
            if rest > 0 {
                self.new_span(Self::free_span(span.start + pages, rest, location));
            }
            return at;
        }
    }

    /// `PageHeap::Delete`: merges with free neighbours of the same kind.
    pub fn delete(&mut self, at: u64, location: Location) {
        let mut span = self.spans.remove(&at).unwrap();
        span.location = location;
        span.class = 0;
        span.refcount = 0;
        span.sample = None;
        for page in [span.start - 1, span.start + span.length] {
            let Some(&other) = self.page_map.get(&page) else {
                continue;
            };
            let merges = |other: &Span| {
                other.location == location
                    && (other.start == page || other.start + other.length == page + 1)
            };
            if self.spans.get(&other).is_some_and(merges) {
                let gone = self.spans.remove(&other).unwrap();
                span.start = span.start.min(gone.start);
                span.length += gone.length;
                self.deleted.push((other, gone));
            }
        }
        self.record(at, &span);
        self.spans.insert(at, span);
    }

    /// Gives a free span's pages back to the system.
    pub fn release(&mut self, at: u64) {
        self.delete(at, Location::Returned);
    }

    // --- central lists -----------------------------------------------------------------------

    pub fn populate(&mut self, class: usize) -> u64 {
        let pages = self.classes[class].pages;
        let at = self.new_pages(pages);
        let (capacity, bytes) = (self.capacity(class), self.classes[class].bytes);
        let span = self.spans.get_mut(&at).unwrap();
        let start = span.start << self.pages.shift;
        span.class = class;
        span.chain = (0..capacity).rev().map(|k| start + k * bytes).collect();
        for page in span.start..span.start + span.length {
            self.page_map.insert(page, at);
        }
        self.central[class].nonempty.insert(0, at);
        at
    }

    fn relist(&mut self, class: usize, at: u64) {
        let central = &mut self.central[class];
        central.empty.retain(|span| *span != at);
        central.nonempty.retain(|span| *span != at);
        if self.spans[&at].chain.is_empty() {
            central.empty.insert(0, at);
        } else {
            central.nonempty.insert(0, at);
        }
    }

    /// `RemoveRange`: head first.
    pub fn fetch(&mut self, class: usize, count: u64) -> Vec<u64> {
        if count == self.classes[class].batch
            && let Some(slot) = self.central[class].slots.pop()
        {
            return slot;
        }
        if self.central[class].nonempty.is_empty() {
            self.populate(class);
        }
        let at = self.central[class].nonempty[0];
        let span = self.spans.get_mut(&at).unwrap();
        let keep = span.chain.len().saturating_sub(count as usize);
        let taken: Vec<u64> = span.chain.drain(keep..).rev().collect();
        span.refcount += taken.len() as u64;
        self.relist(class, at);
        taken
    }

    pub fn cache_size(&self, class: usize) -> u64 {
        self.max_cache_size(class).min(16)
    }

    pub fn max_cache_size(&self, class: usize) -> u64 {
        let Class { bytes, batch, .. } = self.classes[class];
        ((1 << 20) / (bytes * batch).max(1)).clamp(1, 64)
    }

    /// `InsertRange` of a chain, head first.
    pub fn insert(&mut self, class: usize, chain: Vec<u64>) {
        let slots = self.central[class].slots.len() as u64;
        if chain.len() as u64 == self.classes[class].batch && slots < self.cache_size(class) {
            self.central[class].slots.push(chain);
            return;
        }
        for object in chain {
            let at = self.span_of(object);
            let span = self.spans.get_mut(&at).unwrap();
            span.refcount -= 1;
            if span.refcount > 0 {
                span.chain.push(object);
                self.relist(class, at);
            } else {
                self.central[class].empty.retain(|span| *span != at);
                self.central[class].nonempty.retain(|span| *span != at);
                self.delete(at, Location::Normal);
            }
        }
    }

    // --- thread caches -----------------------------------------------------------------------

    pub fn add_cache(&mut self, thread: usize) -> usize {
        let classes = self.classes.len();
        self.caches.push(Cache {
            at: self.next_cache,
            thread,
            lists: vec![Vec::new(); classes],
            max_length: vec![1; classes],
        });
        self.next_cache += 4160;
        self.caches.len() - 1
    }

    /// The cache of an exiting thread gives everything back and is gone.
    pub fn remove_cache(&mut self, cache: usize) {
        for class in 1..self.classes.len() {
            self.flush(cache, class, usize::MAX);
        }
        self.gone_caches.push(self.caches.remove(cache));
    }

    /// `ReleaseToCentralCache`.
    pub fn flush(&mut self, cache: usize, class: usize, count: usize) {
        let batch = self.classes[class].batch as usize;
        let mut left = count.min(self.caches[cache].lists[class].len());
        while left > 0 {
            let list = &mut self.caches[cache].lists[class];
            let taken = left.min(batch);
            let chain = list.drain(list.len() - taken..).rev().collect();
            self.insert(class, chain);
            left -= taken;
        }
    }

    pub fn malloc(&mut self, cache: usize, class: usize) -> u64 {
        let batch = self.classes[class].batch;
        if self.caches[cache].lists[class].is_empty() {
            let max_length = self.caches[cache].max_length[class];
            let chain = self.fetch(class, max_length.min(batch));
            let cache = &mut self.caches[cache];
            cache.lists[class] = chain.into_iter().rev().collect();
            cache.max_length[class] = if max_length < batch {
                max_length + 1
            } else {
                (max_length + batch).min(8192)
            };
        }
        let object = self.caches[cache].lists[class].pop().unwrap();
        self.live.insert(object, class);
        object
    }

    pub fn malloc_large(&mut self, pages: u64, sample: Option<u64>) -> u64 {
        let at = self.new_pages(pages);
        let span = self.spans.get_mut(&at).unwrap();
        span.sample = sample;
        let address = span.start << self.pages.shift;
        self.live.insert(address, 0);
        address
    }

    pub fn free(&mut self, cache: usize, object: u64) {
        let class = self.live.remove(&object).expect("the model frees once");
        if class == 0 {
            let at = self.span_of(object);
            self.delete(at, Location::Normal);
            return;
        }
        let batch = self.classes[class].batch;
        let owner = &mut self.caches[cache];
        owner.lists[class].push(object);
        if owner.lists[class].len() as u64 > owner.max_length[class] {
            if owner.max_length[class] < batch {
                owner.max_length[class] += 1;
            }
            self.flush(cache, class, batch as usize);
        }
    }
}
