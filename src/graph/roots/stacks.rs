//! The stacks of all threads and their thread-local storage: which part of a mapping lives, and which is dead.

use std::ops::Range;

use ground::target::{Address, InstructionSet, Thread};
use heaps::graph::roots::{Ranges, RootKind, Strength};
use postmortem::corefile::auxv::AT_EXECFN;

use super::{Finder, LandKind};

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

impl Finder<'_> {
    /// Stacks and thread-local storage.
    pub(super) fn threads(&mut self) {
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
        // The first thread's storage stands in a mapping of the dynamic linker's: no stack lies below it.
        let first = self.session.process().pid;
        let threads = self.session.threads().list();
        let is_first = |index: usize| threads.get(index).map(|thread| thread.tid) == first;
        let of_threads = storage.iter().filter(|(_, index)| !is_first(*index));
        let of_threads = of_threads.filter_map(|(own, index)| {
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
}
