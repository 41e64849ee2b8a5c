//! glibc's malloc (ptmalloc), 2.12 to 2.43.
//!
//! ```text
//! tcache (per thread)  entries[bin] ──> block ──> block ──> 0       links may be mangled (2.32 on)
//! malloc_state         fastbinsY[bin] ──> chunk ──> chunk ──> 0
//! (arena)              bins[i] <──> chunk <──> chunk <──> bins[i]   unsorted, small, large
//!                      top: what is left of the newest memory
//! ```
//!
//! Blocks of any size lie side by side, each behind a header that holds its size and whether the one
//! before it is free; so the heap is walked from end to end, and everything is known twice: a free
//! chunk by its neighbour's header and by the list that holds it. Chunks in caches and fastbins are
//! free although their neighbours call them in use.

mod anchors;
mod arenas;
mod busy;
mod by_size;
mod carve;
mod damage;
mod in_flight;
mod layout;
mod limits;
mod lists;
mod locate;
mod mapped;
mod parameters;
mod pointed;
mod release;
mod residue;
mod statistics;
mod structure;
mod tcaches;

use std::ops::Range;
use std::sync::OnceLock;

use crate::allocators::{
    Allocator, Copy, Detection, Family, GroupReport, Heap, HeapIdentity, Miss, Residue, Settled,
    Standing,
};
use crate::anomaly::ListRef;
use crate::list::{FreeList, ListWalk};
use crate::map::{Block, Extent, HeapMap, MapBuilder, Owner, Shape};
use crate::presence::Presences;
use anchors::Anchor;
use arenas::Arenas;
use carve::{Odd, Piece, Run, Walk};
use ground::target::{Address, Frame, MemoryExt, Module, Target};
use in_flight::Hands;
use lists::ChunkList;
use locate::Located;
use mapped::Mapped;
use pointed::Pointed;
use release::Key;
use tcaches::{Tcache, Tcaches};

/// glibc's malloc.
pub struct Ptmalloc;

impl Allocator for Ptmalloc {
    fn name(&self) -> &'static str {
        "ptmalloc"
    }

    fn detect<'t>(&self, target: Target<'t>) -> Detection<'t> {
        let looked_for = "no module's writable memory holds glibc's main_arena (127 bin headers in a row that point \
                          at themselves, and a list of arenas that closes)";
        // Several copies in one process share the threads: which caches are whose is told by the memory that each copy has.
        let copies: Vec<Found<'t>> = target
            .modules
            .iter()
            .filter_map(|module| Found::look(target, module))
            .collect();
        Detection::in_modules(target, self.name(), looked_for, |module| {
            let is_here = |copy: &&Found<'t>| copy.module.id == module.id;
            let Some(found) = copies.iter().find(is_here) else {
                return Copy::Missed(Miss::NotHere);
            };
            let others = copies.iter().filter(|copy| !is_here(copy));
            let foreign: Vec<&Arenas> = others.map(|copy| &copy.arenas).collect();
            Copy::Read(Box::new(PtmallocHeap::read(target, found, &foreign)))
        })
    }
}

/// A copy of glibc's malloc in a module, and the memory that it has.
struct Found<'t> {
    module: &'t Module,
    located: Located,
    arenas: Arenas,
}

impl<'t> Found<'t> {
    fn look(target: Target<'t>, module: &'t Module) -> Option<Self> {
        let located = locate::locate(target, module)?;
        let arenas = Arenas::read(target, &located);
        Some(Self {
            module,
            located,
            arenas,
        })
    }
}

/// One copy of glibc's malloc in a process.
pub(crate) struct PtmallocHeap<'t> {
    target: Target<'t>,
    module: &'t Module,
    located: Located,
    arenas: Arenas,
    tcaches: Tcaches,
    mapped: Vec<Mapped>,
    safe_linking: bool,
    key: Key,
    presences: Presences<'t>,
    hands: OnceLock<Hands>,
    pointed: OnceLock<Pointed>,
    /// The runs of chunks, walked; the pieces themselves go into the map.
    walked: OnceLock<Walked>,
    lists: OnceLock<Vec<ChunkList>>,
}

/// What the walk over all runs of chunks showed.
#[derive(Default)]
struct Walked {
    walks: Vec<Walk>,
    /// Caches of threads that are not in the core.
    orphans: Vec<Tcache>,
}

impl<'t> PtmallocHeap<'t> {
    fn read(target: Target<'t>, found: &Found<'t>, foreign: &[&Arenas]) -> Self {
        let module = found.module;
        let (located, arenas) = (found.located.clone(), found.arenas.clone());
        let tcaches = Tcaches::find(target, &located, &arenas, foreign);
        let mapped = mapped::find(target, &located, &arenas);
        let own = arenas.rows.iter();
        let own = own.map(|arena| arena.at..arena.at.saturating_add(located.arena.bytes));
        let presences = Presences::new(target, module, busy::code(target, module, &located))
            .with_own_memory(own.collect());
        let mut heap = Self {
            target,
            module,
            located,
            arenas,
            tcaches,
            mapped,
            safe_linking: false,
            key: Key::None,
            presences,
            hands: OnceLock::new(),
            pointed: OnceLock::new(),
            walked: OnceLock::new(),
            lists: OnceLock::new(),
        };
        heap.narrow_releases();
        heap.safe_linking = heap.find_linking();
        heap.key = heap.find_key();
        heap
    }

    fn word(&self, at: Address) -> Option<u64> {
        self.target.memory.read_u64(at).ok()
    }

    /// Caches of the core's threads, then those of threads that are not there.
    fn all_caches(&self) -> Vec<Tcache> {
        let orphans = self.walked.get().map(|walked| &walked.orphans);
        let mut caches = self.tcaches.rows.clone();
        caches.extend(orphans.into_iter().flatten());
        caches
    }

    /// One of [`all_caches`](Self::all_caches).
    fn cache(&self, index: usize) -> Option<Tcache> {
        let rows = &self.tcaches.rows;
        match index.checked_sub(rows.len()) {
            None => rows.get(index).copied(),
            Some(index) => self.walked.get()?.orphans.get(index).copied(),
        }
    }

    /// Walks all runs, hands their pieces to the map and keeps the rest.
    fn walk_runs(&self, out: &mut MapBuilder) -> Walked {
        let is_cache = |block: Address, size: u64| {
            self.tcaches.rows.iter().any(|cache| cache.at == block)
                || self.tcaches.fits(size)
                    && self
                        .tcaches
                        .is_orphan(self.target.memory, &self.arenas, block)
        };
        let is_pointed_at = |block: Address| self.is_pointed_at(block);
        let walk_all = |anchors: &[Anchor]| {
            ground::parallel::map(&self.arenas.regions, |region| {
                let arena = self.arenas.rows.get(region.arena);
                let limit = match arena {
                    Some(arena) if region.has_top => arena.top.min(region.end),
                    _ => region.end,
                };
                carve::walk(
                    self.target.memory,
                    &Run {
                        start: region.start,
                        limit,
                        has_top: region.has_top,
                        is_main: arena.is_some_and(|arena| arena.is_main),
                        is_cache: &is_cache,
                        is_pointed_at: &is_pointed_at,
                        anchors,
                    },
                )
            })
        };
        let mut walks = walk_all(&[]);
        // Where a header is doubtful, the lists are asked which chunks there certainly are; and where others took memory,
        // whether all of it is theirs.
        let is_odd = walks.iter().any(|walk| walk.odd_count > 0);
        let mut gaps = walks.iter().flat_map(|walk| &walk.gaps).peekable();
        if is_odd || gaps.peek().is_some() {
            let anchors = self.anchors(&self.strangers(&walks));
            let in_gap =
                |gap: &std::ops::Range<Address>| anchors::any(&anchors, gap.clone()).is_some();
            if is_odd || gaps.any(in_gap) {
                walks = walk_all(&anchors);
            }
        }
        let orphans = self.strangers(&walks);
        for piece in walks
            .iter_mut()
            .flat_map(|walk| std::mem::take(&mut walk.pieces))
        {
            match piece {
                Piece::Chunks(start, bytes, chunks) => out.add_chunks(start, bytes, chunks),
                Piece::Own(start, bytes) => {
                    out.add(whole(start, bytes, Shape::Metadata, Owner::InUse));
                }
            }
        }
        Walked { walks, orphans }
    }

    /// Whether the program points at a block of the heap.
    fn is_pointed_at(&self, block: Address) -> bool {
        let read = || Pointed::read(self.target, &self.arenas.regions);
        self.pointed.get_or_init(read).at(block)
    }

    /// Caches that no thread of the core has.
    fn strangers(&self, walks: &[Walk]) -> Vec<Tcache> {
        let known = |at: &Address| self.tcaches.rows.iter().any(|cache| cache.at == *at);
        let caches = walks.iter().flat_map(|walk| walk.caches.iter().copied());
        caches
            .filter(|at| !known(at))
            .map(|at| Tcache { at, owner: None })
            .collect()
    }
}

fn whole(start: Address, bytes: u64, shape: Shape, owner: Owner) -> Extent {
    Extent::new(start, bytes, shape, owner, 0)
}

impl Heap for PtmallocHeap<'_> {
    fn identity(&self) -> HeapIdentity {
        HeapIdentity {
            family: Family::Ptmalloc,
            variant: Some("glibc"),
            version: Some(
                self.located
                    .version
                    .clone()
                    .unwrap_or_else(|| self.located.releases.to_string()),
            ),
            module: self.module.id,
            located: self.located.parts.clone(),
        }
    }

    fn page_shift(&self) -> u32 {
        40 // chunks begin anywhere
    }

    fn carve(&self, out: &mut MapBuilder) {
        let walked = self.walk_runs(out);
        for region in self.arenas.regions.iter().filter(|region| region.has_top) {
            if let Some(arena) = self.arenas.rows.get(region.arena)
                && let Some(bytes) = region.end.offset_from(arena.top)
            {
                // Its header is not part of the block, here as elsewhere.
                let block = arena.top.saturating_add(layout::HEADER);
                let bytes = bytes.saturating_sub(layout::HEADER);
                out.add(whole(block, bytes, Shape::Single, Owner::Free));
            }
        }
        for mapped in &self.mapped {
            out.add(whole(
                mapped.block,
                mapped.usable,
                Shape::Single,
                Owner::InUse,
            ));
        }
        let _ = self.walked.set(walked);
    }

    fn groups(&self) -> u16 {
        0 // lists of all sizes and kinds share chunks by mistake: `settle` follows them together
    }

    fn free_lists(&self, _group: u16) -> Vec<FreeList> {
        Vec::new()
    }

    fn follow(&self, _lists: &[FreeList], _walk: &mut ListWalk<'_>) {}

    fn describe(&self, _lists: &[FreeList], _map: &HeapMap) -> GroupReport {
        GroupReport::default()
    }

    fn standing(&self, map: &HeapMap, block: Block) -> Option<Standing> {
        self.standing_of(map, block)
    }

    fn residue(
        &self,
        map: &HeapMap,
        block: Block,
        (offset, bytes): (u64, u64),
        word: u64,
        list: Option<ListRef>,
    ) -> Option<Residue> {
        (bytes == 8).then(|| self.residue_at(map, block, offset, word, list))?
    }

    fn left_over(
        &self,
        map: &HeapMap,
        block: Block,
        (offset, bytes): (u64, u64),
        word: u64,
    ) -> Option<Residue> {
        (bytes == 8).then(|| self.left_over_at(map, block, offset, word))?
    }

    fn signature(&self, word: u64) -> Option<Residue> {
        self.known(word)
    }

    fn own_memory(&self) -> Vec<Range<Address>> {
        self.memory_of_its_own()
    }

    /// A heap of a thread's arena has its addresses from the start; what it shrank by stays mapped.
    fn kept_memory(&self) -> Vec<Range<Address>> {
        let regions = self.arenas.regions.iter();
        let of_threads = regions.filter(|region| {
            let arena = self.arenas.rows.get(region.arena);
            arena.is_some_and(|arena| !arena.is_main)
        });
        let mask = self.arenas.heap_max.wrapping_sub(1);
        of_threads
            .map(|region| {
                let start = Address::new(region.start.get() & !mask);
                start..start.saturating_add(self.arenas.heap_max)
            })
            .collect()
    }

    fn arena(&self, at: Address) -> Option<u32> {
        let region = self.arenas.region_of(at)?;
        u32::try_from(region.arena).ok()
    }

    fn is_unknown(&self, at: Address) -> bool {
        let mut walks = self.walks().iter();
        walks.any(|walk| walk.doubtful.iter().any(|range| range.contains(&at)))
    }

    fn is_partial(&self) -> bool {
        self.arenas.absent.is_some() || self.walks().iter().any(|walk| walk.missing > 0)
    }

    fn runs(&self, frame: &Frame) -> Option<bool> {
        self.presences.is_allocator_code(frame)
    }

    fn settle(&self, map: &HeapMap, _groups: &[GroupReport]) -> Settled {
        let lists = self.lists();
        let passed = self.pass(lists, map);
        let report = damage::describe(self, map, lists, &passed);
        let passed = report.passed.as_ref().unwrap_or(&passed);
        let (statistics, details) = self.count(passed, &report);
        let limits = self.limits(&report);
        Settled {
            anomalies: report.anomalies,
            statistics,
            details,
            limits,
        }
    }
}

impl PtmallocHeap<'_> {
    /// Arenas, `mp_`, what stands in front of an arena's chunks, headers of chunks with a mapping of their own, and threads' caches.
    fn memory_of_its_own(&self) -> Vec<Range<Address>> {
        /// Most bytes in front of the first chunk of an arena's heap: `heap_info` and `malloc_state`.
        const MAX_HEAD: u64 = 0x1000;
        let range = |start: Address, bytes: u64| start..start.saturating_add(bytes);
        let arenas = self.arenas.rows.iter();
        let mut own: Vec<Range<Address>> = arenas
            .map(|arena| range(arena.at, self.located.arena.bytes))
            .collect();
        let parameters = self.located.parameters.as_ref();
        own.extend(parameters.map(|(at, layout)| range(*at, layout.bytes())));
        let heads = self.arenas.regions.iter().filter_map(|region| {
            let mask = self.arenas.heap_max.wrapping_sub(1);
            let start = Address::new(region.start.get() & !mask);
            let is_main = self.arenas.rows.get(region.arena)?.is_main;
            let bytes = region.start.offset_from(start)?;
            (!is_main && bytes <= MAX_HEAD).then(|| range(start, bytes))
        });
        own.extend(heads);
        own.extend(self.mapped.iter().map(|mapped| mapped.base..mapped.block));
        let word = |at: Address| self.target.memory.read_u64(at).ok();
        own.extend(self.all_caches().iter().map(|cache| {
            // Its chunk's header says how long it is; the least is what every release has.
            let header = cache.at.checked_sub(8).and_then(word);
            let size = header.map_or(0, |header| header & !layout::FLAGS);
            range(cache.at, layout::usable(size.clamp(0x250, 0x320)))
        }));
        own
    }
}

impl PtmallocHeap<'_> {
    fn walks(&self) -> &[Walk] {
        self.walked.get().map_or(&[], |walked| &walked.walks)
    }

    /// Everything odd that the walk over chunks met, with the index of its arena.
    fn odd(&self) -> impl Iterator<Item = (usize, Odd)> + '_ {
        self.walks()
            .iter()
            .zip(&self.arenas.regions)
            .flat_map(|(walk, region)| walk.odd.iter().map(|odd| (region.arena, *odd)))
    }
}
