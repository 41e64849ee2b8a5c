//! Every word that points at one of a set of blocks: one pass over memory, in parallel.
//!
//! ```text
//! word ──> range of all targets ──> filter of their pages ──> which target ──> where the word lies ──> how strong
//! ```
//!
//! Of each target the strongest references are kept, by address; all are counted.

use std::ops::Range;

use super::Universe;
use super::lookup::{Hit, Node};
use super::resolve::Resolver;
use super::roots::Strength;
use super::words::{self, Filter};
use ground::parallel;
use ground::target::Address;

/// Where a word stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A register: index in the universe's list.
    Register(u32),
    /// A root: index in the universe's list.
    Root(u32),
    /// A live block, or a mapping of the program's own, and the bytes from its start.
    Node(Node, u64),
    /// Memory that is no source, in a block that is free and the bytes from its start.
    Free(Node, u64),
    /// Memory that is no source: an allocator's own, dead stack.
    Silent,
}

impl Place {
    /// Whether a word there can hold a block.
    pub fn is_source(self) -> bool {
        !matches!(self, Place::Free(..) | Place::Silent)
    }
}

/// A word that points at a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// What the word is worth: its own and its source's.
    pub strength: Strength,
    /// Where it stands.
    pub place: Place,
    /// Its address; null for a register.
    pub at: Address,
    /// What it holds.
    pub value: u64,
    /// Bytes from the target's start at which it points.
    pub offset: u64,
}

/// Who points at a target.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// Words that can hold it.
    pub count: u64,
    /// Words that cannot: history.
    pub silent_count: u64,
    /// The first of those that can, the strongest first, then by address.
    pub list: Vec<Reference>,
    /// The first of those that cannot, by address.
    pub silent: Vec<Reference>,
}

/// Memory that is looked for: a block, or any run of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// First byte.
    pub start: Address,
    /// Bytes.
    pub bytes: u64,
    /// The block that this is, if it is one: then a pointer to its start may be the end of its neighbour, and one just past its end counts.
    pub node: Option<Node>,
}

/// Bytes of a piece of work.
const PIECE: u64 = 8 << 20;
/// Pages that the filter tells apart.
const PAGES: u64 = 1 << 19;

struct Wanted<'a> {
    /// By start.
    targets: Vec<(Target, usize)>,
    /// Furthest end of all targets up to each, one past the end included.
    ends: Vec<u64>,
    pages: Vec<u64>,
    filter: Filter,
    universe: &'a Universe<'a>,
    keep: usize,
}

/// Who points at each of `targets`; at most `keep` references of each are kept.
pub fn find(universe: &Universe<'_>, targets: &[Target], keep: usize) -> Vec<Holders> {
    let mut all: Vec<Holders> = targets.iter().map(|_| Holders::default()).collect();
    let wanted = Wanted::new(universe, targets, keep);
    let mut resolver = Resolver::new(universe);
    for (index, register) in (0u32..).zip(&universe.registers) {
        if wanted.may_be(register.value) {
            let place = Place::Register(index);
            wanted.look(&mut resolver, None, register.value, &mut all, |_| place);
        }
    }
    let pieces = pieces(universe);
    // As many pieces at a time as keep what they found small.
    let most = (1usize << 20)
        .checked_div(targets.len().max(1))
        .unwrap_or(0);
    for group in pieces.chunks(most.clamp(8, 256)) {
        let found = parallel::map(group, |(range, any_byte)| wanted.scan(range, *any_byte));
        for piece in found {
            for (index, holders) in piece {
                if let Some(into) = all.get_mut(index) {
                    into.join(holders, keep);
                }
            }
        }
    }
    all
}

/// Everything that can hold a word, in pieces.
pub(super) fn pieces(universe: &Universe<'_>) -> Vec<(Range<Address>, bool)> {
    let regions = universe.memory.regions().iter();
    let writable = regions.filter(|region| region.writable && region.readable);
    let mut ranges: Vec<Range<Address>> = writable
        .map(|region| {
            let present = region.range.start.saturating_add(region.present_bytes);
            region.range.start..present.min(region.range.end)
        })
        .collect();
    let (code, roots): (Vec<_>, Vec<_>) = universe.roots.iter().partition(|root| root.any_byte);
    ranges.extend(roots.iter().map(|root| root.range.clone()));
    let code = super::roots::Ranges::new(code.iter().map(|root| root.range.clone()).collect());
    let ranges = super::roots::Ranges::new(ranges);
    let mut pieces = Vec::new();
    let mut cut = |range: &Range<Address>, any_byte| {
        let mut at = range.start;
        while at < range.end {
            // A damaged program header may say that a stack has 2^60 bytes.
            if universe.memory.window(at).is_err() {
                at = universe.memory.behind_absent(at).unwrap_or(range.end);
                continue;
            }
            let end = at.saturating_add(PIECE).min(range.end);
            pieces.push((at..end, any_byte));
            at = end;
        }
    };
    for range in ranges.list() {
        for part in code.without(range.clone()) {
            cut(&part, false);
        }
    }
    for range in code.list() {
        cut(range, true);
    }
    pieces.sort_by_key(|(range, _)| range.start);
    pieces
}

impl<'a> Wanted<'a> {
    fn new(universe: &'a Universe<'a>, targets: &[Target], keep: usize) -> Self {
        let mut sorted: Vec<(Target, usize)> = targets.iter().copied().zip(0..).collect();
        sorted.sort_by_key(|(target, index)| (target.start, *index));
        let mut pages = vec![0u64; usize::try_from(PAGES / 64).unwrap_or(0)];
        let (mut ends, mut furthest) = (Vec::with_capacity(sorted.len()), 0u64);
        for (target, _) in &sorted {
            let (start, end) = (target.start.get(), target.end());
            furthest = furthest.max(end);
            ends.push(furthest);
            let (first, last) = (start >> 12, end >> 12);
            for page in first..=last.min(first.saturating_add(PAGES)) {
                let bit = page % PAGES;
                if let Some(word) = usize::try_from(bit / 64)
                    .ok()
                    .and_then(|at| pages.get_mut(at))
                {
                    *word |= 1 << (bit % 64);
                }
            }
        }
        let lowest = sorted.first().map_or(0, |(target, _)| target.start.get());
        let span = furthest.saturating_sub(lowest);
        Self {
            filter: Filter::new((
                lowest,
                if sorted.is_empty() {
                    0
                } else {
                    span.saturating_add(1)
                },
            )),
            targets: sorted,
            ends,
            pages,
            universe,
            keep,
        }
    }

    #[inline]
    fn may_be(&self, value: u64) -> bool {
        let bit = (value >> 12) % PAGES;
        let word = usize::try_from(bit / 64)
            .ok()
            .and_then(|at| self.pages.get(at));
        self.filter.admits(value) && word.is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Finds what a piece of memory holds.
    fn scan(&self, range: &Range<Address>, any_byte: bool) -> Vec<(usize, Holders)> {
        let mut found: Vec<Holders> = Vec::new();
        let mut resolver = Resolver::new(self.universe);
        let memory = self.universe.memory;
        let visit = |at: Address, value| {
            if self.may_be(value) {
                if found.is_empty() {
                    found.resize_with(self.targets.len(), Holders::default);
                }
                let place = |universe: &Universe<'_>| universe.place(at);
                self.look(&mut resolver, Some(at), value, &mut found, place);
            }
        };
        if any_byte {
            words::each_at_any_byte(memory, range, self.filter, visit);
        } else {
            words::each(memory, range, self.filter, visit);
        }
        let found = found.into_iter().enumerate();
        found
            .filter(|(_, holders)| holders.count.saturating_add(holders.silent_count) > 0)
            .collect()
    }

    /// Notes a word at every target that it points at.
    fn look(
        &self,
        resolver: &mut Resolver<'_, '_>,
        at: Option<Address>,
        value: u64,
        found: &mut [Holders],
        place: impl Fn(&Universe<'_>) -> Place,
    ) {
        let after = self
            .targets
            .partition_point(|(target, _)| target.start.get() <= value);
        let mut index = after;
        while let Some(before) = index.checked_sub(1) {
            index = before;
            if self.ends.get(index).is_none_or(|end| *end < value) {
                return; // no target up to here reaches so far
            }
            let Some((target, number)) = self.targets.get(index) else {
                return;
            };
            let Some(strength) = target.strength(resolver, at, value) else {
                continue;
            };
            let Some(into) = found.get_mut(*number) else {
                continue;
            };
            let place = place(self.universe);
            // The address behind a block that an allocator keeps is that of the next one.
            if !place.is_source() && value.saturating_sub(target.start.get()) >= target.bytes.max(1)
            {
                continue;
            }
            let strength = strength.max(self.universe.strength(place));
            into.add(
                Reference {
                    strength,
                    place,
                    at: at.unwrap_or_default(),
                    value,
                    offset: value.saturating_sub(target.start.get()),
                },
                self.keep,
            );
        }
    }
}

impl Target {
    /// A live block as a target.
    pub fn of(universe: &Universe<'_>, node: Node) -> Option<Self> {
        let (start, bytes) = universe.lookup.extent(node)?;
        Some(Self {
            start,
            bytes,
            node: Some(node),
        })
    }

    /// The last value that can count.
    fn end(&self) -> u64 {
        let extra = u64::from(self.node.is_some());
        self.start
            .get()
            .saturating_add(self.bytes.max(1).saturating_sub(1))
            .saturating_add(extra)
    }

    fn strength(
        &self,
        resolver: &mut Resolver<'_, '_>,
        at: Option<Address>,
        value: u64,
    ) -> Option<Strength> {
        let offset = value.checked_sub(self.start.get())?;
        let Some(node) = self.node else {
            return (offset < self.bytes.max(1)).then_some(Strength::Strong);
        };
        if offset < self.bytes {
            return Some(resolver.weighed(at, value, Hit { node, offset }).strength);
        }
        let is_end = offset == self.bytes
            && resolver
                .edge(at, value)
                .is_some_and(|edge| edge.node == node);
        is_end.then_some(Strength::Weak)
    }
}

impl Holders {
    fn add(&mut self, reference: Reference, keep: usize) {
        let (list, count) = match reference.place.is_source() {
            true => (&mut self.list, &mut self.count),
            false => (&mut self.silent, &mut self.silent_count),
        };
        *count = count.saturating_add(1);
        // Words come by address: one that is no stronger than the last goes behind it.
        let key = |reference: &Reference| (reference.strength, reference.at);
        let place = list.partition_point(|other| key(other) <= key(&reference));
        if place < keep {
            list.truncate(keep.saturating_sub(1));
            list.insert(place.min(list.len()), reference);
        }
    }

    fn join(&mut self, other: Holders, keep: usize) {
        let (count, silent) = (self.count, self.silent_count);
        for reference in other.list.into_iter().chain(other.silent) {
            self.add(reference, keep);
        }
        self.count = count.saturating_add(other.count);
        self.silent_count = silent.saturating_add(other.silent_count);
    }
}

impl Universe<'_> {
    /// What the word at `at` belongs to.
    pub fn place(&self, at: Address) -> Place {
        let hit = self.lookup.find(at.get());
        let is_live = hit.is_some_and(|hit| self.lookup.is_live(hit.node));
        if let Some((index, _)) = self.root_at(at) {
            return Place::Root(index);
        }
        match hit {
            Some(hit) if is_live && !self.silent.contains(at) => Place::Node(hit.node, hit.offset),
            Some(hit) if !is_live && !self.silent.contains(at) => Place::Free(hit.node, hit.offset),
            _ => Place::Silent,
        }
    }

    /// What words there are worth by themselves.
    pub fn strength(&self, place: Place) -> Strength {
        match place {
            Place::Register(index) => {
                let register = self.registers.get(index as usize);
                register.map_or(Strength::Weak, |register| register.strength)
            }
            Place::Root(index) => {
                let root = self.roots.get(index as usize);
                root.map_or(Strength::Weak, |root| root.strength)
            }
            _ => Strength::Strong,
        }
    }
}
