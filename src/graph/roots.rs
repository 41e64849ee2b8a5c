//! Everything in a process that is a root, and how strong.
//!
//! ```text
//! thread's mapping   |  dead stack  | red zone | live stack ......... | static TLS | struct pthread |
//!                    silent         sp-128     strong                 strong
//! signal stack       the same; the stack that was interrupted lives from the sp that the signal frame has
//! module             writable segments: strong, but for what the allocators keep there
//! anonymous memory   what no heap, module or stack claims: a node, and a weak source if nobody points at it
//! the rest           shared and file mappings, code made at run time, stacks of threads that are gone: weak
//! ```

mod innermost;
mod registers;
mod stacks;

use std::ops::Range;
use std::sync::OnceLock;

use ground::target::{Address, MemoryExt, Region, RegionKind};
use heaps::allocators::Family;
use heaps::graph::Universe;
use heaps::graph::lookup::Lookup;
use heaps::graph::roots::{Ranges, Root, RootKind, Strength};
use heaps::map::HeapMap;

use super::holders::leftover::Leftovers;
use super::holders::tls::ThreadLocals;
use super::holders::variables::Variables;
use super::{Ground, missing};
use crate::analysis::{Analysis, HeapAnalysis};
use crate::types::Types;
use postmortem::session::Session;

/// Number of the first register that is not a general one.
pub const FIRST_VECTOR: u16 = 1000;

struct Finder<'a> {
    session: &'a Session,
    analysis: &'a Analysis<'a>,
    /// Memory that extents of heaps have.
    claimed: Ranges,
    /// Writable segments of modules, to the end of their last pages.
    modules: Ranges,
    page: u64,
    /// Bytes of static thread-local storage, at most.
    tls: u64,
    innermost: innermost::Reader<'a>,
    roots: Vec<Root>,
    silent: Vec<Range<Address>>,
    /// Memory that is accounted for, beside heaps and modules.
    taken: Vec<Land>,
}

/// What a run of memory is to a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LandKind {
    /// Thread-local storage, and what libc keeps of a thread.
    Tls,
    /// A stack, dead part and live one.
    Stack,
    /// The stack of a thread that is not in the core.
    StackOfTheGone,
}

/// A run of memory that belongs to a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Land {
    /// The memory.
    pub range: Range<Address>,
    /// What it is.
    pub kind: LandKind,
    /// Index of the thread; 0 for one that is gone.
    pub thread: usize,
}

/// The memory of all threads, in no order; parts may overlap.
pub fn lands(session: &Session, analysis: &Analysis<'_>) -> Vec<Land> {
    let mut finder = Finder::new(session, analysis);
    finder.modules();
    session.unwinder().unwind_all();
    finder.threads();
    finder.mappings();
    finder.taken
}

/// Finds all roots of the process, and puts the graph together.
pub fn ground<'a>(session: &'a Session, analysis: &'a Analysis<'a>) -> Ground<'a> {
    let target = session.target();
    let maps: Vec<&HeapMap> = analysis.heaps.iter().map(|heap| &heap.map).collect();
    let mut finder = Finder::new(session, analysis);
    let thread_locals = ThreadLocals::of(session);
    let heaps = analysis.heaps.iter();
    let own: Vec<Ranges> = heaps
        .map(|heap| {
            let mut own = heap.heap.own_memory();
            own.extend(thread_locals_of_library(session, &thread_locals, heap));
            Ranges::new(own)
        })
        .collect();
    let all_own = Ranges::new(own.iter().flat_map(Ranges::list).cloned().collect());
    finder.silent.extend(all_own.list().iter().cloned());
    finder.modules();
    session.unwinder().unwind_all();
    finder.threads();
    let mappings = finder.mappings();
    finder.others();
    let (registers, vectors) = registers::all(session, &finder.innermost);
    let silent = Ranges::new(finder.silent);
    // No root lies in a heap, but for the live part of a stack that the program made of a block.
    let mut roots = Vec::new();
    for root in finder.roots {
        if root.kind == RootKind::Stack {
            roots.push(root);
            continue;
        }
        let parts = finder.claimed.without(root.range.clone());
        roots.extend(parts.into_iter().map(|range| Root {
            range,
            ..root.clone()
        }));
    }
    Ground {
        session,
        analysis,
        universe: Universe::new(
            target.memory,
            Lookup::new(&maps, &mappings).without(&all_own),
            roots,
            registers,
            silent,
        ),
        vectors,
        mappings,
        own,
        variables: Variables::default(),
        leftovers: Leftovers::default(),
        thread_locals,
        events: None,
        missing: missing::find(session, analysis),
        types: Types::new(session),
        typed: OnceLock::new(),
        python: OnceLock::new(),
        lands: finder.taken,
    }
}

/// What each thread has of the thread-local variables of a library that is nothing but an allocator.
fn thread_locals_of_library(
    session: &Session,
    thread_locals: &ThreadLocals,
    heap: &HeapAnalysis<'_>,
) -> Vec<Range<Address>> {
    const LIBRARIES: [&str; 2] = ["libjemalloc", "libtcmalloc"];
    let id = heap.identity.module;
    let is_library = session.modules().module(id).is_some_and(|module| {
        let mut names = LIBRARIES.iter();
        names.any(|name| module.name.starts_with(name))
    });
    let threads = session.threads().list().iter().filter(|_| is_library);
    threads
        .filter_map(|thread| thread_locals.block(session, thread, id))
        .collect()
}

/// Bytes of thread-local storage that all modules ask for, and what glibc keeps for more.
fn static_tls(session: &Session) -> u64 {
    /// `_dl_tls_static_surplus_init` (elf/dl-tls.c), generously.
    const SURPLUS: u64 = 0x1000;
    const MOST: u64 = 1 << 20;
    let modules = session.modules();
    let sizes = modules.modules().iter().flat_map(|module| {
        let headers = modules.program_headers(module.id).iter();
        let tls = headers.filter(|header| header.kind == object::elf::PT_TLS.0);
        tls.map(|header| header.memory_bytes.saturating_add(64))
    });
    sizes.fold(SURPLUS, u64::saturating_add).min(MOST)
}

impl<'a> Finder<'a> {
    fn new(session: &'a Session, analysis: &'a Analysis<'a>) -> Self {
        let extents = analysis.heaps.iter().flat_map(|heap| heap.map.extents());
        let claimed = Ranges::new(extents.map(|extent| extent.start..extent.end()).collect());
        let page_bytes = session.target().memory.abi().page_bytes;
        Self {
            session,
            analysis,
            claimed,
            modules: Ranges::default(),
            page: page_bytes.clamp(512, 1 << 16),
            tls: static_tls(session),
            innermost: innermost::Reader::new(session),
            roots: Vec::new(),
            silent: Vec::new(),
            taken: Vec::new(),
        }
    }

    fn take(&mut self, range: Range<Address>, kind: LandKind, thread: usize) {
        self.taken.push(Land {
            range,
            kind,
            thread,
        });
    }

    fn root(&mut self, range: Range<Address>, kind: RootKind, strength: Strength, owner: usize) {
        self.roots.push(Root {
            range,
            kind,
            strength,
            owner: u32::try_from(owner).unwrap_or(u32::MAX),
            any_byte: false,
        });
    }

    /// Variables of modules. What stands in an allocator's own module and is not known to be its own is weak.
    fn modules(&mut self) {
        let modules = self.session.target().modules;
        let is_libc = |name: &str| name.starts_with("libc.") || name.starts_with("libc-");
        let mut ranges = Vec::new();
        for (index, module) in modules.iter().enumerate() {
            let is_allocators = self.analysis.heaps.iter().any(|heap| {
                heap.identity.module == module.id
                    && !module.is_executable
                    && heap.identity.family != Family::Ptmalloc
            });
            let strength = match is_allocators && !is_libc(&module.name) {
                true => Strength::Weak,
                false => Strength::Strong,
            };
            for segment in module.segments.iter().filter(|segment| segment.writable) {
                // The dynamic linker takes the rest of its last page for its first blocks.
                let end = segment.range.end.get().checked_next_multiple_of(self.page);
                let range = segment.range.start..Address::new(end.unwrap_or(u64::MAX));
                ranges.push(range.clone());
                self.root(range, RootKind::Global, strength, index);
            }
        }
        self.modules = Ranges::new(ranges);
    }

    fn region(&self, at: Address) -> Option<&Region> {
        let memory = self.session.memory();
        memory
            .region_at(at)
            .filter(|region| region.readable && region.writable)
    }

    /// The run of memory around `at` that no heap and no module claims; in a heap, the block.
    fn piece(&self, at: Address) -> Option<Range<Address>> {
        let region = self.region(at)?.range.clone();
        if self.claimed.contains(at) {
            let mut heaps = self.analysis.heaps.iter();
            let (block, _) = heaps.find_map(|heap| heap.map.block_at(at))?;
            return Some(block.address..block.address.saturating_add(block.bytes));
        }
        let mut floor = None;
        let mut ceiling = None;
        for claims in [&self.claimed, &self.modules] {
            for claim in claims.within(&region) {
                if claim.end <= at {
                    floor = floor.max(Some(claim.end));
                } else if claim.start > at {
                    ceiling = Some(ceiling.unwrap_or(claim.start).min(claim.start));
                    break;
                }
            }
        }
        Some(
            floor.map_or(region.start, |floor| floor.max(region.start))
                ..ceiling.map_or(region.end, |ceiling| ceiling.min(region.end)),
        )
    }

    /// Anonymous memory that nobody claims: whole pages of it are nodes.
    fn mappings(&mut self) -> Vec<Range<Address>> {
        let taken = self.taken.iter().map(|land| land.range.clone());
        let mut known: Vec<Range<Address>> = taken.collect();
        known.extend(self.claimed.list().iter().cloned());
        known.extend(self.modules.list().iter().cloned());
        known.extend(self.silent.iter().cloned());
        let heaps = self.analysis.heaps.iter();
        known.extend(heaps.flat_map(|heap| heap.heap.kept_memory()));
        let known = Ranges::new(known);
        let pointers: Vec<Address> = {
            let threads = self.session.threads().list().iter();
            threads.filter_map(|thread| thread.thread_pointer).collect()
        };
        let mut mappings = Vec::new();
        let regions: Vec<Region> = self.session.target().memory.regions().to_vec();
        for region in regions {
            let is_wanted =
                region.kind == RegionKind::Anonymous && region.writable && region.readable;
            if !is_wanted || region.present_bytes == 0 {
                continue;
            }
            for part in known.without(region.range.clone()) {
                let Range { start, end } = part;
                // What is less than a page beside a heap belongs to that heap.
                let bytes = end.offset_from(start).unwrap_or(0);
                let before = start
                    .checked_sub(1)
                    .is_some_and(|at| self.claimed.contains(at));
                if bytes < self.page && (before || self.claimed.contains(end)) {
                    continue;
                }
                if region.executable {
                    continue; // code made at run time: `others`
                }
                if self.is_stack_of_the_gone(start..end, &pointers) {
                    self.root(start..end, RootKind::Mapping, Strength::Weak, 0);
                    self.take(start..end, LandKind::StackOfTheGone, 0);
                } else {
                    mappings.push(start..end);
                }
            }
        }
        mappings
    }

    /// Whether a thread that is not in the core has its `struct pthread` at the upper end: `tcb` and `self` name itself
    /// (sysdeps/x86_64/nptl/tls.h, `tcbhead_t`).
    fn is_stack_of_the_gone(&self, range: Range<Address>, living: &[Address]) -> bool {
        const REACH: u64 = 0x2000;
        let memory = self.session.target().memory;
        let from = Address::new(range.end.get().saturating_sub(REACH)).max(range.start);
        let mut words =
            ground::scan::words_in(memory, from..range.end, |at, word| word == at.get());
        words.any(|(at, word)| {
            let own = at.checked_add(16).and_then(|at| memory.read_u64(at).ok());
            own == Some(word) && !living.contains(&at)
        })
    }

    /// Shared and file mappings, and code that was made at run time.
    fn others(&mut self) {
        let regions: Vec<Region> = self.session.target().memory.regions().to_vec();
        let known: Vec<Range<Address>> = {
            let all = self.modules.list().iter().chain(self.claimed.list());
            let taken = self.taken.iter().map(|land| land.range.clone());
            all.cloned().chain(taken).collect()
        };
        let known = Ranges::new(known);
        for region in regions {
            let is_code = region.kind == RegionKind::Anonymous && region.executable;
            let is_shared = region.kind == RegionKind::File && region.writable;
            if !(is_code || is_shared) || region.present_bytes == 0 {
                continue;
            }
            for range in known.without(region.range.clone()) {
                self.roots.push(Root {
                    range,
                    kind: RootKind::Mapping,
                    strength: Strength::Weak,
                    owner: 0,
                    any_byte: is_code,
                });
            }
        }
    }
}
