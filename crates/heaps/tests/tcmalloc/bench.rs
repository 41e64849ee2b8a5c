//! A small heap of which every object is known by name, to be damaged on purpose.
//!
//! ```text
//! span S, class 4 (48 bytes), 170 objects:
//!   0..9  in use   10..14 cache A   15..17 in use   18..21 cache B   22..53 transfer slot
//!   54..59 in use  60..169 chain of S
//! span T, class 4: all in use        span U, class 14 (208 bytes): 0..2 in use, 3..4 cache A
//! L, M: large, in use; G: free, 1 page; R: returned, 2 pages
//! ```

use ground::target::Address;
use heaps::anomaly::{Anomaly, AnomalyKind, BrokenWord, Edge, Stray};

use crate::healthy::held;
use crate::model::Model;
use crate::numbers::{PAGES_8K, Release, V2_10, V2_16, cache, span};
use crate::render::{APP_CODE, LIB_CODE, Scene, name_variables, render};
use crate::with_heap;

pub const CLASS: usize = 4;
pub const OTHER: usize = 14;

/// Damages a bench of each release, and compares all that the walker says of it.
#[track_caller]
pub fn check(damage: impl Fn(&mut Bench), expected: &[&str]) {
    for release in [V2_16, V2_10] {
        let mut bench = Bench::new(release);
        damage(&mut bench);
        assert_eq!(bench.walk(), expected, "{}", release.version);
    }
}

pub struct Bench {
    pub model: Model,
    pub scene: Scene,
    /// Addresses of the `Span` objects.
    pub s: u64,
    pub t: u64,
    pub u: u64,
    /// Large blocks and free spans, by address of their memory.
    pub large: u64,
    pub sampled: u64,
    pub free_span: u64,
    pub returned: u64,
    start: u64,
    start_u: u64,
    /// Objects that the program gave back since the model was written down.
    pub given_back: i64,
}

impl Bench {
    pub fn new(release: Release) -> Self {
        let mut model = Model::new(release, PAGES_8K);
        model.add_cache(0);
        model.add_cache(1);
        // Large spans first, so that a free one is left between two that are in use.
        let large = model.malloc_large(3, None);
        let gap = model.malloc_large(1, None);
        let sampled = model.malloc_large(2, Some(9000));
        let back = model.malloc_large(2, None);
        let t = model.populate(CLASS);
        let full = model.fetch(CLASS, 1000);
        model
            .live
            .extend(full.into_iter().map(|object| (object, CLASS)));

        let s = model.populate(CLASS);
        let start = model.address(&model.spans[&s]);
        let take = |count, model: &mut Model| model.fetch(CLASS, count);
        let live = |objects: Vec<u64>, model: &mut Model| {
            model
                .live
                .extend(objects.into_iter().map(|object| (object, CLASS)));
        };
        let objects = take(10, &mut model);
        live(objects, &mut model);
        model.caches[0].lists[CLASS] = take(5, &mut model).into_iter().rev().collect();
        let objects = take(3, &mut model);
        live(objects, &mut model);
        model.caches[1].lists[CLASS] = take(4, &mut model).into_iter().rev().collect();
        // A whole batch at a time would be put into the slot and taken out of it again.
        let mut chain = take(16, &mut model);
        chain.extend(take(16, &mut model));
        let objects = take(6, &mut model);
        live(objects, &mut model);
        model.central[CLASS].slots.push(chain);
        for cache in &mut model.caches {
            cache.max_length[CLASS] = 32;
        }

        let u = model.populate(OTHER);
        let start_u = model.address(&model.spans[&u]);
        let objects = model.fetch(OTHER, 3);
        model
            .live
            .extend(objects.into_iter().map(|object| (object, OTHER)));
        model.caches[0].lists[OTHER] = model.fetch(OTHER, 2).into_iter().rev().collect();

        model.free(0, gap);
        model.free(0, back);
        let back_span = model.span_of(back);
        model.release(back_span);
        let mut scene = render(&model, 2, 1);
        name_variables(&mut scene);
        Self {
            model,
            scene,
            s,
            t,
            u,
            large,
            sampled,
            free_span: gap,
            returned: back,
            start,
            start_u,
            given_back: 0,
        }
    }

    /// Object `k` of S.
    pub fn object(&self, k: u64) -> u64 {
        self.start + 48 * k
    }

    /// Object `k` of U.
    pub fn other(&self, k: u64) -> u64 {
        self.start_u + 208 * k
    }

    /// The `Span` of a large block or a free span.
    pub fn span(&self, address: u64) -> u64 {
        self.model.span_of(address)
    }

    /// Address of a cache's `FreeList`: 0 is A, 1 is B.
    pub fn list(&self, cache: usize, class: usize) -> u64 {
        self.model.caches[cache].at + class as u64 * cache::LIST
    }

    pub fn set_length(&mut self, cache: usize, length: u32) {
        let at = self.list(cache, CLASS) + cache::LENGTH;
        self.scene.poke_u32(at, length);
    }

    /// What gperftools does on `free(at)` in a thread: no questions asked.
    pub fn free(&mut self, cache: usize, at: u64) {
        self.free_as(cache, CLASS, at);
    }

    pub fn free_as(&mut self, cache: usize, class: usize, at: u64) {
        let list = self.list(cache, class);
        let head = self.scene.peek(list);
        self.scene.poke(at, head);
        self.scene.poke(list, at);
        let length = self.scene.peek(list + cache::LENGTH) as u32;
        self.scene.poke_u32(list + cache::LENGTH, length + 1);
        let size = self.model.caches[cache].at + cache::SIZE;
        let bytes = self.scene.peek(size) as u32;
        let grown = bytes + self.model.classes[class].bytes as u32;
        self.scene.poke_u32(size, grown);
    }

    /// The program frees a block that it holds.
    pub fn give_back(&mut self, cache: usize, at: u64) {
        self.free(cache, at);
        self.given_back += 1;
    }

    /// A thread stopped inside the library, with these registers.
    pub fn inside(&mut self, thread: usize, registers: &[(u16, u64)]) {
        let frames = vec![
            synth::frame(LIB_CODE, registers),
            synth::frame(APP_CODE, &[]),
        ];
        self.scene.process.threads.set_frames(thread, frames);
    }

    /// A thread that the library called something outside from.
    pub fn called_out(&mut self, thread: usize, registers: &[(u16, u64)]) {
        let frames = vec![
            synth::frame(APP_CODE + 64, &[]),
            synth::frame(LIB_CODE, registers),
            synth::frame(APP_CODE, &[]),
        ];
        self.scene.process.threads.set_frames(thread, frames);
    }

    /// A thread died by its own fault.
    pub fn faulted(&mut self, thread: usize) {
        self.scene.process.threads.thread_mut(thread).signal = 11;
    }

    /// An address in terms of the picture above.
    fn name(&self, at: Address) -> String {
        let at = at.get();
        let within =
            |start: u64, bytes: u64| at.checked_sub(start).filter(|offset| *offset < bytes);
        let plus = |name: &str, offset: u64| match offset {
            0 => name.to_owned(),
            _ => format!("{name}+{offset}"),
        };
        if let Some(offset) = within(self.start, 8192) {
            return plus(&format!("s{}", offset / 48), offset % 48);
        }
        if let Some(offset) = within(self.model.address(&self.model.spans[&self.t]), 8192) {
            return plus(&format!("t{}", offset / 48), offset % 48);
        }
        if let Some(offset) = within(self.start_u, 8192) {
            return plus(&format!("u{}", offset / 208), offset % 208);
        }
        for (name, span) in [("S", self.s), ("T", self.t), ("U", self.u)] {
            if let Some(offset) = within(span, span::BYTES) {
                return plus(name, offset);
            }
        }
        for (name, address) in [
            ("L", self.large),
            ("G", self.free_span),
            ("M", self.sampled),
            ("R", self.returned),
        ] {
            if let Some(offset) = within(self.span(address), span::BYTES) {
                return plus(&format!("{name}.span"), offset);
            }
            if let Some(offset) = within(address, 8192) {
                return plus(name, offset);
            }
        }
        for (name, cache) in [("A", &self.model.caches[0]), ("B", &self.model.caches[1])] {
            if let Some(offset) = within(cache.at, cache::SIZE) {
                return plus(&format!("{name}[{}]", offset / 32), offset % 32);
            }
            let release = self.model.release;
            for (link, offset) in [("next", release.next), ("prev", release.prev)] {
                if at == cache.at + offset {
                    return format!("{name}.{link}");
                }
            }
            if let Some(offset) = within(cache.at, cache::BYTES) {
                return plus(name, offset);
            }
        }
        for class in [CLASS, OTHER] {
            if let Some(offset) = within(self.scene.central(class), 1216) {
                return plus(&format!("central[{class}]"), offset);
            }
        }
        for (name, base, bytes) in [
            ("free_", self.scene.free, 96 * 128),
            ("stats_", self.scene.stats, 88),
            ("size_map", self.scene.size_map, 4240),
            ("thread_heap_count_", self.scene.heap_count, 4),
            ("sampled_objects_", self.scene.sampled, 48),
        ] {
            if let Some(offset) = within(base, bytes) {
                return plus(name, offset);
            }
        }
        format!("{at:#x}")
    }

    fn edge(&self, edge: &Edge) -> String {
        self.name(edge.word())
    }

    /// An anomaly in few words.
    fn tell(&self, anomaly: &Anomaly) -> String {
        let mut text = match &anomaly.kind {
            AnomalyKind::Shared {
                block,
                edges,
                cycle,
                taken,
            } => {
                let edges: Vec<String> = edges.iter().map(|edge| self.edge(edge)).collect();
                let taken = if *taken { ", taken from" } else { "" };
                let circle =
                    cycle.map_or(String::new(), |cycle| format!(", circle of {cycle}{taken}"));
                let block = self.name(block.address);
                format!("{block} is shared by {}{circle}", edges.join(" and "))
            }
            AnomalyKind::ListedInUse { block, edge } => {
                let block = self.name(block.address);
                format!("{block} is in use, and listed by {}", self.edge(edge))
            }
            AnomalyKind::BadEntry {
                edge,
                found,
                stray,
                leads_on,
                repair,
            } => {
                let why = match stray {
                    Stray::Misaligned { .. } => "misaligned",
                    Stray::OtherClass { .. } => "other class",
                    Stray::FreeSpan { .. } => "free span",
                    Stray::NotABlock => "no block",
                    Stray::OutsideHeap => "outside",
                    Stray::Unmapped => "unmapped",
                    Stray::WrongEntry { .. } => "wrong entry",
                    Stray::NotLinkedYet => "not linked yet",
                    Stray::EarlyEnd => "early end",
                    Stray::Unreadable(_) => "unreadable",
                };
                let on = if *leads_on { ", leads on" } else { "" };
                let repair = repair.map_or(String::new(), |repair| {
                    let sure = if repair.unique { "was" } else { "may be" };
                    format!(", {sure} {}", self.name(repair.value))
                });
                let found = self.name(*found);
                format!("{} holds {found}: {why}{on}{repair}", self.edge(edge))
            }
            AnomalyKind::FollowedLink {
                edge,
                found,
                block: taken,
                ..
            } => {
                let taken = taken.map_or("one that is not known".to_owned(), |taken| {
                    self.name(taken.address)
                });
                let found = self.name(*found);
                format!("{} holds {found}, the link of {taken}", self.edge(edge))
            }
            AnomalyKind::Header { .. }
            | AnomalyKind::FreeWord { .. }
            | AnomalyKind::FreedAgain { .. }
            | AnomalyKind::FatalFree { .. }
            | AnomalyKind::EndMark { .. }
            | AnomalyKind::RestSize { .. }
            | AnomalyKind::Filling { .. } => {
                format!("{:?}, which tcmalloc never shows", anomaly.kind)
            }
            AnomalyKind::Length {
                at,
                recorded,
                walked,
                ..
            } => format!("{} counts {recorded}, has {walked}", self.name(*at)),
            AnomalyKind::Metadata {
                word: BrokenWord { at, what, .. },
                counts_only,
                ..
            } => {
                let kind = if *counts_only { "count" } else { "damage" };
                format!("{kind} at {}: {what:?}", self.name(*at))
            }
        };
        if anomaly.lost_blocks > 0 {
            text += &format!(", lost {}", anomaly.lost_blocks);
        }
        if anomaly.transient.is_some() {
            text += " (passing)";
        }
        text
    }

    /// All that the walker says, and how its count of blocks in use differs from the truth.
    pub fn walk(&self) -> Vec<String> {
        with_heap(self.scene.process.target(), |_, walked| {
            let mut told: Vec<String> = walked.anomalies.iter().map(|it| self.tell(it)).collect();
            let truth = held(&self.model).len() as i64 - self.given_back;
            let error = walked.statistics.in_use.blocks as i64 - truth;
            if error != 0 {
                told.push(format!("in use {error:+}"));
            }
            let lost = walked
                .anomalies
                .iter()
                .map(|it| it.lost_blocks)
                .sum::<u64>();
            if lost != walked.statistics.lost.blocks {
                told.push(format!("statistics lost {}", walked.statistics.lost.blocks));
            }
            told
        })
    }
}
