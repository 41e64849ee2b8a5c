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

use std::ops::Range;
use std::sync::OnceLock;

use ground::target::{Address, InstructionSet, MemoryExt, Region, RegionKind, Thread};
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
use postmortem::corefile::auxv::AT_EXECFN;
use postmortem::session::Session;

/// Number of the first register that is not a general one.
pub const FIRST_VECTOR: u16 = 1000;

/// Bytes below the stack pointer that leaf functions use (System V ABI for x86-64, 3.2.2).
const RED_ZONE: u64 = 128;
/// Bytes of `struct pthread` above the thread pointer on x86-64, below it on aarch64: more than any glibc has.
const PTHREAD: u64 = 0x1000;
/// Mappings above a stack pointer that overflowed into what lies below its stack.
const MAX_GUARD: u64 = 16 << 20;
/// Bytes around the first thread's thread-local storage that the dynamic linker uses.
const AROUND: u64 = 0x10000;
/// A mapping with a thread pointer in it that is no larger belongs to the thread altogether.
const MAX_TLS_MAPPING: u64 = 1 << 20;

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
                    && heap.identity.name != "ptmalloc"
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

    /// Stacks and thread-local storage.
    fn threads(&mut self) {
        let threads = self.session.threads().list();
        let mut live: Vec<(Range<Address>, Address, usize)> = Vec::new();
        let mut storage: Vec<(Range<Address>, usize)> = Vec::new();
        for (index, thread) in threads.iter().enumerate() {
            let own = self.pthread(index, thread);
            if let Some(range) = &own {
                storage.push((range.clone(), index));
                self.root(range.clone(), RootKind::Tls, Strength::Strong, index);
                self.take(range.clone(), LandKind::Tls, index);
            }
            for sp in self.stack_pointers(index, thread) {
                let is_innermost = sp == thread.sp;
                let red_zone = !is_innermost || self.innermost.of(index).red_zone;
                if let Some((piece, from)) = self.live_stack(sp, red_zone) {
                    if !self.is_own_stack(&piece, own.as_ref()) {
                        // The memory stays the program's: what is around the stack is no stack.
                        let end = self.outermost(index, from, &piece);
                        self.root(from..end, RootKind::Stack, Strength::Strong, index);
                        continue;
                    }
                    // What is beside the stack in its mapping belongs to the thread.
                    let end = match &own {
                        Some(own) if piece.contains(&own.start) && own.start > from => own.start,
                        _ => piece.end,
                    };
                    live.push((from..end, piece.start, index));
                }
            }
        }
        live.extend(self.left_stacks(&live, &storage));
        // From glibc 2.43 on no guard page parts a stack from the structure of the thread below.
        let storage = Ranges::new(storage.into_iter().map(|(range, _)| range).collect());
        live.sort_by_key(|(range, ..)| (range.start, range.end));
        let mut floor = Address::new(0);
        for (range, bottom, index) in live {
            let dead = bottom.max(floor)..range.start;
            if dead.start < dead.end {
                for dead in storage.without(dead) {
                    self.take(dead.clone(), LandKind::Stack, index);
                    self.silent.push(dead);
                }
            }
            floor = floor.max(range.end);
            self.take(range.clone(), LandKind::Stack, index);
            self.root(range, RootKind::Stack, Strength::Strong, index);
        }
    }

    /// The own stacks of threads that run on others: where they live from is not known.
    fn left_stacks(
        &self,
        live: &[(Range<Address>, Address, usize)],
        storage: &[(Range<Address>, usize)],
    ) -> Vec<(Range<Address>, Address, usize)> {
        let is_there = |piece: &Range<Address>, thread: usize| {
            let mut ranges = live.iter();
            ranges.any(|(range, _, index)| *index == thread && piece.contains(&range.start))
        };
        let of_threads = storage.iter().filter_map(|(own, index)| {
            let piece = self.piece(own.start)?;
            // Another thread's stack may lie below in the same mapping.
            let below = storage.iter().map(|(other, _)| other.end);
            let below = below.filter(|end| piece.contains(end) && *end <= own.start);
            let start = below.max().unwrap_or(piece.start);
            let is_stack = start < own.start && !self.claimed.contains(own.start);
            let is_left = !self.modules.contains(own.start) && !is_there(&piece, *index);
            (is_stack && is_left).then_some((start..own.start, start, *index))
        });
        let first = self.session.auxv(AT_EXECFN).map(Address::new);
        let of_first = first.and_then(|strings| {
            let piece = self.piece(strings)?;
            let mut ranges = live.iter();
            let is_left = !ranges.any(|(range, ..)| piece.contains(&range.start));
            is_left.then(|| (piece.clone(), piece.start, 0))
        });
        of_threads.chain(of_first).collect()
    }

    /// Whether memory around a stack pointer is nothing but that stack: it ends in the thread's own structure or the kernel's strings,
    /// or is no larger than stacks are that programs take for coroutines and signals. Goroutines live in the memory of Go's objects.
    fn is_own_stack(&self, piece: &Range<Address>, own: Option<&Range<Address>>) -> bool {
        const MAX_OTHER_STACK: u64 = 1 << 20;
        let strings = self.session.auxv(AT_EXECFN).map(Address::new);
        let is_small = piece
            .end
            .offset_from(piece.start)
            .is_some_and(|bytes| bytes <= MAX_OTHER_STACK);
        is_small
            || own.is_some_and(|own| piece.contains(&own.start))
            || strings.is_some_and(|at| piece.contains(&at))
    }

    /// Where the frames end that a thread has above `from`.
    fn outermost(&self, index: usize, from: Address, piece: &Range<Address>) -> Address {
        let frames = self.session.threads().frames(index).iter();
        let inside = frames
            .map(|frame| frame.sp)
            .filter(|sp| *sp >= from && piece.contains(sp));
        let outermost = inside.max().unwrap_or(from);
        outermost.saturating_add(self.page).min(piece.end)
    }

    /// Static thread-local storage and `struct pthread`.
    fn pthread(&self, index: usize, thread: &Thread) -> Option<Range<Address>> {
        let tp = thread.thread_pointer.filter(|tp| !tp.is_null())?;
        let piece = self.piece(tp)?;
        if self.modules.contains(tp) {
            return None;
        }
        // The first thread's has a mapping of its own, which the dynamic linker shares: nothing else tells where that ends.
        let around = if piece.contains(&thread.sp) {
            0
        } else {
            AROUND
        };
        let (below, above) = match self.session.threads().instruction_set() {
            InstructionSet::X86_64 => (self.tls + around, PTHREAD + around),
            InstructionSet::Aarch64 => (PTHREAD + around, self.tls + around),
        };
        // The outermost frame begins where the thread-local storage ends.
        let frames = self.session.threads().frames(index).iter();
        let inside = frames
            .map(|frame| frame.sp)
            .filter(|sp| piece.contains(sp) && *sp <= tp);
        let outermost = inside.max().unwrap_or(piece.start);
        let start = Address::new(tp.get().saturating_sub(below)).max(outermost);
        let end = tp.saturating_add(above).min(piece.end);
        let bytes = piece.end.offset_from(piece.start)?;
        let is_small = bytes <= MAX_TLS_MAPPING && !piece.contains(&thread.sp);
        let is_claimed = self.claimed.contains(tp);
        Some(if is_small && !is_claimed {
            piece
        } else {
            start..end
        })
    }

    /// Where the thread's stacks live from: its stack pointer, and those that signals interrupted.
    fn stack_pointers(&self, index: usize, thread: &Thread) -> Vec<Address> {
        let mut found = vec![thread.sp];
        let frames = self.session.threads().frames(index);
        found.extend(
            frames
                .iter()
                .filter(|frame| frame.interrupted)
                .map(|frame| frame.sp),
        );
        found.dedup();
        // Of those on one stack the lowest counts.
        let mut kept: Vec<(Range<Address>, Address)> = Vec::new();
        for sp in found {
            let Some(piece) = self.piece(sp).or_else(|| self.above_guard(sp)) else {
                continue;
            };
            match kept.iter_mut().find(|(known, _)| *known == piece) {
                Some((_, lowest)) => *lowest = sp.min(*lowest),
                None => kept.push((piece, sp)),
            }
        }
        kept.into_iter().map(|(_, sp)| sp).collect()
    }

    /// The stack that ran into what lies below it.
    fn above_guard(&self, sp: Address) -> Option<Range<Address>> {
        let regions = self.session.target().memory.regions();
        let after = regions.partition_point(|region| region.range.end <= sp);
        let next = regions
            .get(after..)?
            .iter()
            .find(|region| region.writable)?;
        let start = next.range.start;
        let distance = start.get().saturating_sub(sp.get());
        (distance <= MAX_GUARD).then(|| self.piece(start))?
    }

    /// The memory around a stack, and where its live part begins. `is_used`: the words below the stack pointer may be.
    fn live_stack(&self, sp: Address, is_used: bool) -> Option<(Range<Address>, Address)> {
        let red_zone = match self.session.threads().instruction_set() {
            InstructionSet::X86_64 if is_used => RED_ZONE,
            InstructionSet::X86_64 => 0,
            InstructionSet::Aarch64 => 0,
        };
        let piece = self.piece(sp).or_else(|| self.above_guard(sp))?;
        if self.modules.contains(sp) {
            return None; // a stack among variables: they are roots already
        }
        let from = Address::new(sp.get().saturating_sub(red_zone) & !7);
        Some((piece.clone(), from.max(piece.start)))
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
