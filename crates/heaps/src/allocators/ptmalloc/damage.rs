//! What is out of order, reduced to its roots.
//!
//! The walk over chunks gives damaged headers, the lists give damaged links, keys and chunks that
//! stand in more than one place. A list that breaks at a damaged header is that header's victim; a
//! list that runs into another one breaks behind the chunk that both hold.

mod bins;
mod clean;
mod counts;
mod end_marks;
mod followed;
mod headers;
mod joined_lists;
mod lost;
mod parameters;
mod perturbed;
mod singles;
mod state;
mod swallowed;
mod threads;

use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

use super::PtmallocHeap;
use super::by_size::BySize;
use super::layout::{FLAGS, HEADER};
use super::lists::{ChunkList, Kind, Passed};
use crate::anomaly::{Anomaly, AnomalyKind, Edge, Stray, Transient};
use crate::map::{Block, HeapMap, Owner};
use ground::target::{Address, Fault, MemoryExt, RegionKind};

/// What looking closely found.
#[derive(Default)]
pub struct Report {
    /// The roots.
    pub anomalies: Vec<Anomaly>,
    /// Chunks in lists, counted anew if the lists had to be followed anew.
    pub passed: Option<Passed>,
    /// Free chunks that no list holds any more.
    pub lost: BySize,
    /// Chunks by sizes that turned out wrong, and by their true ones.
    pub resized: (BySize, BySize),
    /// Lists that lead into memory of the arenas' that was not found.
    pub unreached: u64,
}

/// Lists and headers, looked at in order.
struct Inquiry<'h, 't> {
    heap: &'h PtmallocHeap<'t>,
    map: &'h HeapMap,
    lists: &'h [ChunkList],
    out: Vec<Anomaly>,
    /// Chunks whose headers are damaged.
    broken: HashSet<Address>,
    /// Edges into chunks that more than one edge enters.
    edges: BTreeMap<Address, Vec<Edge>>,
    /// The circles that were met: the chunk where they close, their length, and whether the list
    /// counts fewer than it has.
    circles: BTreeMap<Address, (u64, bool)>,
    /// Lists whose ends are missing.
    cut: Vec<Cut>,
    passed: Passed,
    lost: BySize,
    /// Sizes that the walk took for true, and those that they were.
    resized: (BySize, BySize),
    /// A list leads into memory that is not in the core.
    incomplete: bool,
    /// Lists that lead into memory of the arenas' that was not found.
    unreached: u64,
    /// What may still be tried: headers inside of chunks whose sizes are wrong, entries behind those that lists share.
    probes: Cell<u64>,
}

/// A list that is shorter than it should be.
struct Cut {
    list: ChunkList,
    /// The anomaly that cut it.
    anomaly: Option<usize>,
    /// Entries that are missing, where the list counts them.
    missing: Option<u64>,
    /// Entries before the cut, and the word that cut it.
    edge: Edge,
}

/// Looks closely at everything.
pub fn describe(
    heap: &PtmallocHeap<'_>,
    map: &HeapMap,
    lists: &[ChunkList],
    passed: &Passed,
) -> Report {
    let mut inquiry = Inquiry {
        heap,
        map,
        lists,
        out: Vec::new(),
        broken: HashSet::new(),
        edges: BTreeMap::new(),
        circles: BTreeMap::new(),
        cut: Vec::new(),
        passed: Passed::default(),
        lost: BySize::default(),
        resized: Default::default(),
        incomplete: false,
        unreached: 0,
        probes: Cell::new(swallowed::PROBES),
    };
    inquiry.headers();
    inquiry.mapped_headers();
    inquiry.state();
    // The quick pass believes the walk over chunks what it says of free ones.
    let again = passed.irregular
        || heap.odd().next().is_some()
        || !inquiry.unbinned_arenas(passed).is_empty();
    if again {
        inquiry.follow_again();
    }
    let current = if again { &inquiry.passed } else { passed };
    let unbinned = inquiry.unbinned_arenas(current);
    inquiry.unbinned(&unbinned);
    inquiry.end_marks();
    inquiry.perturbed();
    Report {
        anomalies: inquiry.out,
        passed: again.then_some(inquiry.passed),
        lost: inquiry.lost,
        resized: inquiry.resized,
        unreached: inquiry.unreached,
    }
}

impl Inquiry<'_, '_> {
    fn word(&self, at: Address) -> Option<u64> {
        self.heap.word(at)
    }

    fn push(&mut self, kind: AnomalyKind, transient: Option<Transient>) -> usize {
        let transient = transient
            .or_else(|| self.being_cut(&kind))
            .or_else(|| self.heap.copied_lock());
        let mut anomaly = Anomaly::new(kind);
        anomaly.transient = transient;
        self.out.push(anomaly);
        self.out.len().saturating_sub(1)
    }

    /// Where a chunk is being cut in two, the second half has no header yet, and what stands in its place may be
    /// an old one: the walk then doubts headers around it. Proof that a thread works between the two blocks of such a header.
    fn being_cut(&self, kind: &AnomalyKind) -> Option<Transient> {
        let AnomalyKind::Header { block, before, .. } = kind else {
            return None;
        };
        let start = before.map_or(block.address, |before| before.address);
        let end = block.address.saturating_add(block.bytes);
        self.heap.held(start.checked_sub(HEADER)?..end)
    }

    /// Whether a chunk's header should be in the core and is not: nothing can be said of it.
    fn is_absent(&mut self, chunk: Address) -> bool {
        let at = chunk.saturating_add(8);
        let absent = self.heap.arenas.region_of(chunk).is_some()
            && matches!(
                self.heap.target.memory.read_u64(at),
                Err(Fault::NotDumped(_) | Fault::Truncated(_))
            );
        self.incomplete |= absent;
        absent
    }

    /// Whether an entry may be a chunk of memory that was not found, because what leads there was written over: that
    /// damage is said, and its victims are not.
    fn is_unreached(&mut self, entry: Address) -> bool {
        let heap = self.heap;
        let area = heap.target.memory.region_at(entry);
        let unreached = heap.arenas.is_incomplete
            && heap.arenas.region_of(entry).is_none()
            && area.is_some_and(|area| area.kind == RegionKind::Anonymous && area.writable);
        self.unreached = self.unreached.saturating_add(u64::from(unreached));
        self.incomplete |= unreached;
        unreached
    }

    /// The block of a chunk, as the map has it.
    fn block_of(&self, chunk: Address) -> Option<Block> {
        let id = self
            .map
            .chunk_at(chunk)
            .or_else(|| self.heap.mapped_at(self.map, chunk))?;
        self.map.block(id)
    }

    /// The size of a chunk by the map, which may know better than its header.
    fn size_by_map(&self, chunk: Address) -> Option<u64> {
        let id = self.map.chunk_at(chunk)?;
        Some(self.map.block(id)?.bytes.saturating_add(8))
    }

    fn size_by_header(&self, chunk: Address) -> Option<u64> {
        Some(self.word(chunk.checked_add(8)?)? & !FLAGS)
    }

    fn edge(&self, list: &ChunkList, position: u64, from: Option<Address>) -> Edge {
        Edge {
            list: self.heap.list_ref(list),
            position,
            from,
        }
    }

    /// Why an entry is none of the list.
    fn stray(&self, list: &ChunkList, entry: Address) -> Stray {
        let Some(chunk) = list.chunk(entry) else {
            return Stray::Unmapped;
        };
        let block = chunk.saturating_add(HEADER);
        let Some(place) = self.map.place(block) else {
            return match self.heap.target.memory.region_at(block) {
                Some(_) => Stray::OutsideHeap,
                None => Stray::Unmapped,
            };
        };
        let Some((inside, offset)) = self.map.block_at(block) else {
            return Stray::NotABlock;
        };
        let free = self
            .map
            .extent(place.extent)
            .is_none_or(|extent| extent.owner != Owner::InUse)
            || self.is_free_by_header(inside);
        if offset == 0 && !free {
            Stray::OtherClass {
                block: inside,
                offset,
            }
        } else if free {
            Stray::FreeSpan {
                block: inside,
                offset,
            }
        } else {
            Stray::Misaligned {
                block: inside,
                offset,
            }
        }
    }

    /// Whether the chunk behind a block calls it free, and its size stands there.
    fn is_free_by_header(&self, block: Block) -> bool {
        let size = block.bytes.saturating_add(8);
        let next = block
            .address
            .saturating_add(block.bytes.saturating_sub(block.bytes.min(8)));
        self.word(next) == Some(size)
            && self
                .word(next.saturating_add(8))
                .is_some_and(|header| header & 1 == 0)
    }

    /// Follows all lists once more, and describes in order those that are not clean.
    fn follow_again(&mut self) {
        for row in 0u32.. {
            if self.map.extent(row).is_none() {
                break;
            }
            self.map.unlist(row);
        }
        let (clean, passed) = clean::mark_clean(self.heap, self.map, self.lists, &self.broken);
        self.passed = passed;
        let rest = self.lists.iter().zip(clean);
        for (list, _) in rest.filter(|(_, clean)| !clean) {
            match list.kind {
                Kind::Bin => self.follow_bin(list),
                _ => self.follow_single(list),
            }
        }
        self.shared();
        self.find_lost();
        self.followed_links();
        self.drop_keys_of_shared();
        self.merge_counts();
    }

    /// Notes an entry; whether its list goes on behind it.
    fn enter(&mut self, list: &ChunkList, chunk: Address, edge: Edge) -> bool {
        let id = self
            .map
            .chunk_at(chunk)
            .or_else(|| self.heap.mapped_at(self.map, chunk));
        let Some(id) = id else {
            return false;
        };
        let again = self.map.mark_listed(id);
        if self.map.is_disputed(id) {
            self.edges.entry(chunk).or_default().push(edge);
        }
        if again {
            return false;
        }
        let size = self.size_by_map(chunk).unwrap_or(0);
        match list.kind {
            Kind::Tcache => self.passed.in_tcaches = self.passed.in_tcaches.saturating_add(1),
            Kind::Fastbin => {
                let bytes = self.passed.fastbin_bytes.saturating_add(size);
                self.passed.in_fastbins = self.passed.in_fastbins.saturating_add(1);
                self.passed.fastbin_bytes = bytes;
            }
            Kind::Bin => {
                if let Some(count) = self.passed.binned.get_mut(list.owner) {
                    *count = count.saturating_add(1);
                }
            }
        }
        let by_neighbour = self
            .map
            .block(id)
            .is_some_and(|block| self.is_free_by_header(block));
        if !by_neighbour {
            self.passed.cached.add(size);
        }
        true
    }

    /// Chunks that more than one edge enters.
    fn shared(&mut self) {
        let shared = std::mem::take(&mut self.edges);
        if shared.is_empty() {
            return;
        }
        let mut lists = self.lists_by_ref();
        for (chunk, edges) in shared {
            let Some(block) = self.block_of(chunk) else {
                continue;
            };
            if edges.len() < 2 {
                continue;
            }
            let circle = self.circles.get(&chunk).copied();
            if circle.is_none() && self.was_taken(&edges) {
                continue;
            }
            // Of two arenas or caches that are being worked on, one may be giving to the other.
            let transient = edges.iter().find_map(|_| self.heap.in_flight(chunk));
            if circle.is_none() {
                self.cut_where_lists_meet(chunk, &edges, &mut lists);
            }
            self.push(
                AnomalyKind::Shared {
                    block,
                    edges,
                    cycle: circle.map(|(length, _)| length),
                    taken: circle.is_some_and(|(_, taken)| taken),
                },
                transient,
            );
        }
    }

    /// Whether the chunk is only the next of a block that stands in a cache and was handed out from
    /// another one since (malloc cleared its key): that block was freed twice.
    fn was_taken(&mut self, edges: &[Edge]) -> bool {
        for anomaly in &mut self.out {
            let AnomalyKind::FreeWord {
                block,
                found: 0,
                edge: Some(edge),
                ..
            } = anomaly.kind
            else {
                continue;
            };
            if edges.iter().any(|other| other.from == Some(block.address)) {
                anomaly.kind = AnomalyKind::ListedInUse { block, edge };
                return true;
            }
        }
        false
    }

    /// Keys that follow from a block that was freed twice: those of a circle are cleared again and
    /// again, and a tail that two caches share has the keys of one.
    fn drop_keys_of_shared(&mut self) {
        let mut shared: Vec<crate::anomaly::ListRef> = Vec::new();
        for anomaly in &self.out {
            match &anomaly.kind {
                AnomalyKind::Shared { edges, .. } => {
                    shared.extend(edges.iter().map(|edge| edge.list));
                }
                AnomalyKind::ListedInUse { edge, .. } => shared.push(edge.list),
                _ => {}
            }
        }
        let caches = self.heap.all_caches();
        let is_cache = |word: u64| word == 0 || caches.iter().any(|cache| cache.at.get() == word);
        self.out.retain(|anomaly| match &anomaly.kind {
            AnomalyKind::FreeWord {
                found,
                edge: Some(edge),
                ..
            } => !is_cache(*found) || !shared.contains(&edge.list),
            _ => true,
        });
    }

    /// Proof that the list's keeper may be at work.
    fn busy(&self, list: &ChunkList) -> Option<Transient> {
        match list.kind {
            Kind::Tcache => self.heap.cache_busy(list.owner),
            Kind::Fastbin => self
                .heap
                .arena_busy(list.owner)
                .or_else(|| self.heap.somebody_inside()),
            Kind::Bin => self.heap.arena_busy(list.owner),
        }
    }
}
