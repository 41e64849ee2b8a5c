//! What `MallocExtension::GetStats` would have printed: the lines that begin with `MALLOC:`.
//!
//! ```text
//! system = page heap's stats_: system, free, unmapped bytes      (src/page_heap.h, PageHeap::Stats)
//! central = objects in spans' chains + ends of spans             (src/central_freelist.cc, length, OverheadBytes)
//! transfer = slots x objects of a slot                           (tc_length)
//! thread = sizes of all caches                                   (src/thread_cache.cc, GetThreadStats)
//! application = system - unmapped - free - central - transfer - thread
//! ```

use super::TcmallocHeap;
use crate::allocators::{Figure, sum};
use ground::scan::words_where;
use ground::target::{Address, LocatedBy, MemoryExt};

/// `kMetadataAllocChunkSize` (src/common.cc).
const METADATA_CHUNK: u64 = 8 << 20;
/// Its variables stand side by side.
const NEAR: i64 = 4;

impl TcmallocHeap<'_> {
    /// The lines, and the bytes that caches hold. `own_bytes`: memory of the allocator's own that the walk found.
    pub(super) fn figures(&self, own_bytes: u64) -> (Vec<Figure>, u64) {
        let memory = self.target.memory;
        let layout = &self.located.layout;
        let stats = self.located.page_heap.checked_add(layout.page_heap.stats);
        let stat = |index: u64| {
            let at = stats?.checked_add(index.saturating_mul(8))?;
            memory.read_u64(at).ok()
        };
        let (system, free, unmapped) = (stat(0), stat(1), stat(2));
        let (central, transfer) = self.central_bytes();
        let caches = self.caches.rows.iter();
        let sizes = caches.map(|cache| layout.cache.size.read(memory, cache.at).unwrap_or(0));
        let thread = sum(sizes);
        let metadata = self.metadata_bytes(own_bytes);
        let held = system
            .zip(unmapped)
            .map(|(system, unmapped)| system.saturating_sub(unmapped));
        let application = held.zip(free).map(|(held, free)| {
            let idle = sum([free, central, transfer, thread].into_iter());
            held.saturating_sub(idle)
        });
        let add = |bytes: Option<u64>| Some(bytes?.saturating_add(metadata?));
        let figure = |name, value| Figure { name, value };
        let figures = vec![
            figure("Bytes in use by application", application),
            figure("Bytes in page heap freelist", free),
            figure("Bytes in central cache freelist", Some(central)),
            figure("Bytes in transfer cache freelist", Some(transfer)),
            figure("Bytes in thread cache freelists", Some(thread)),
            figure("Bytes in malloc metadata", metadata),
            figure("Actual memory used (physical + swap)", add(held)),
            figure("Bytes released to OS (aka unmapped)", unmapped),
            figure("Virtual address space used", add(system)),
            figure("Thread heaps in use", Some(self.caches.rows.len() as u64)),
            figure("Tcmalloc page size", Some(self.page_bytes())),
        ];
        (figures, thread.saturating_add(transfer))
    }

    /// Bytes of free objects in central lists, ends of their spans included, and in transfer caches.
    fn central_bytes(&self) -> (u64, u64) {
        let memory = self.target.memory;
        let sizes = &self.located.sizes;
        let layout = &self.located.layout.central;
        let (mut central, mut transfer) = (0u64, 0u64);
        for class in 1..sizes.classes() {
            let Some(Some(list)) = self.central.get(usize::from(class)) else {
                continue;
            };
            let bytes = u64::from(sizes.bytes(class));
            let spans = layout.num_spans.read(memory, list.at).unwrap_or(0);
            let objects = layout.counter.read(memory, list.at).unwrap_or(0);
            let span = u64::from(sizes.pages(class)).saturating_mul(self.page_bytes());
            let tail = span.checked_rem(bytes).unwrap_or(0);
            let free = objects.saturating_mul(bytes);
            central = sum([central, free, spans.saturating_mul(tail)].into_iter());
            let batch = u64::from(sizes.batch(class)).saturating_mul(bytes);
            transfer = transfer.saturating_add(batch.saturating_mul(list.used_slots.into()));
        }
        (central, transfer)
    }

    /// `metadata_system_bytes_` (src/common.cc): by its symbol, or beside the place and the rest of the chunk that metadata is cut from,
    /// if one word alone fits. Chunks are cut one after the other; the last one ends where spans begin.
    fn metadata_bytes(&self, own_bytes: u64) -> Option<u64> {
        const NAME: &str = "_ZN8tcmallocL22metadata_system_bytes_E";
        let target = self.target;
        let memory = target.memory;
        if target.limit.permits(LocatedBy::Symbols)
            && let Some(symbol) = target.symbols.symbol(self.module.id, NAME)
        {
            return memory.read_u64(symbol.address).ok();
        }
        let chunks = self.metadata_extents();
        let is_last = |place: u64, rest: u64| {
            let place = Address::new(place);
            let Some(end) = place.checked_add(rest) else {
                return false;
            };
            // Spans begin at pages of the allocator's own.
            chunks.iter().any(|chunk| {
                let behind = chunk.end().offset_from(end);
                chunk.start <= place && behind.is_some_and(|behind| behind < self.page_bytes())
            })
        };
        let is_rest = |_, word: u64| word > 0 && word < METADATA_CHUNK;
        let mut found: Option<u64> = None;
        for (at, rest) in words_where(memory, self.module, is_rest) {
            let beside = |distance: i64| {
                let at = at.get().checked_add_signed(distance.checked_mul(8)?)?;
                memory.read_u64(Address::new(at)).ok()
            };
            let mut places = [-1, 1].into_iter();
            let Some(place) =
                places.find(|place| beside(*place).is_some_and(|at| is_last(at, rest)))
            else {
                continue;
            };
            let used = METADATA_CHUNK.saturating_sub(rest);
            let mut fits = (-NEAR..=NEAR)
                .filter(|distance| ![0, place].contains(distance))
                .filter_map(beside)
                .filter(|word| (used..=own_bytes).contains(word));
            match (fits.next(), fits.next(), found) {
                (Some(bytes), None, None) => found = Some(bytes),
                (Some(bytes), None, Some(other)) if bytes == other => {}
                (Some(_), ..) => return None,
                (None, ..) => {}
            }
        }
        found
    }
}
