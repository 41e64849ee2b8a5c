//! Which blocks each holder holds: a variable, a frame, whatever the caller counts as one.
//!
//! ```text
//! words of holders, by class ──> labels of blocks ──> sums by label
//! label = nobody | one holder | two holders | several
//! ```
//!
//! A block that can be reached from one holder of a class alone has that holder's label: it is exactly what would be lost without it (in a
//! graph whose root leads to the holders, the holder dominates it). What two reach is theirs together. Classes come one after the other:
//! what an earlier one reaches, a later one does not get. Holders of one family (frames of one thread) come one after the other, too.
//!
//! A label only ever grows, in four steps at most, so a block's words are read four times at most. Weak words hold nothing here.
//! Cost: 4 bytes and a bit for each block, and a stack of at most 32 MiB.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;

use super::Universe;
use super::lookup::{Node, Numbering};
use super::resolve::Resolver;
use super::roots::Strength;
use super::subgraph::Found;
use super::words::{self, Filter};
use crate::allocators::Tally;
use crate::map::Bits;
use ground::parallel;
use ground::target::Address;

/// Something that holds blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Classes are treated in rising order.
    pub class: u8,
    /// Of several holders of one family the first has what all of them reach.
    pub family: u32,
}

/// A word of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// Index of the holder. Seeds are sorted by it, and holders by class.
    pub holder: u32,
    /// Where the word stands; `None` for a register.
    pub place: Option<Address>,
    /// What it holds.
    pub value: u64,
}

/// Who holds a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Share {
    /// One holder, by index.
    One(u32),
    /// Two of one class.
    Two(u32, u32),
    /// More of the class.
    Several(u8),
    /// Nobody for certain.
    Nobody,
}

/// What a holder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum {
    /// Who.
    pub share: Share,
    /// Blocks of heaps.
    pub blocks: Tally,
    /// Mappings of the program's own.
    pub mappings: Tally,
}

/// No label yet.
const NOBODY: u32 = 0;
/// Pairs that are told apart.
const MAX_PAIRS: usize = 1 << 16;
/// Entries of the stack: 32 MiB.
const MAX_STACK: usize = 1 << 22;
/// Blocks whose first words are on their way at a time.
const RING: usize = 16;

/// Labels of all blocks.
pub struct Shares<'u, 'm> {
    universe: &'u Universe<'m>,
    numbering: Numbering<'u, 'm>,
    labels: Vec<u32>,
    /// What each label means, from 1 on.
    meaning: Vec<(Share, u8)>,
}

struct Pass<'u, 'm> {
    shares: Shares<'u, 'm>,
    holders: &'u [Holder],
    pairs: BTreeMap<(u32, u32), u32>,
    several: BTreeMap<u8, u32>,
    class: u8,
    filter: Filter,
    /// Nodes whose words have to be read again.
    dirty: Bits,
    stack: Vec<Node>,
    most: usize,
    overflowed: bool,
}

/// Labels all blocks. `None` where there are more than can be numbered.
pub fn share<'u, 'm>(
    universe: &'u Universe<'m>,
    holders: &'u [Holder],
    seeds: &[Seed],
) -> Option<Shares<'u, 'm>> {
    share_with(universe, holders, seeds, MAX_STACK)
}

/// The same with a stack of at most `most` entries.
pub fn share_with<'u, 'm>(
    universe: &'u Universe<'m>,
    holders: &'u [Holder],
    seeds: &[Seed],
    most: usize,
) -> Option<Shares<'u, 'm>> {
    let numbering = Numbering::new(&universe.lookup)?;
    let labels = vec![NOBODY; numbering.count() as usize];
    let meaning = (0u32..)
        .zip(holders)
        .map(|(index, holder)| (Share::One(index), holder.class))
        .collect();
    let mut pass = Pass {
        shares: Shares {
            universe,
            numbering,
            labels,
            meaning,
        },
        holders,
        pairs: BTreeMap::new(),
        several: BTreeMap::new(),
        class: 0,
        filter: Filter::new(universe.lookup.span()),
        dirty: Bits::new(universe.lookup.bits()),
        stack: Vec::new(),
        most: most.max(1),
        overflowed: false,
    };
    let mut resolver = Resolver::new(universe);
    for own in seeds.chunk_by(|one, other| one.holder == other.holder) {
        let Some(holder) = own.first().map(|seed| seed.holder) else {
            continue;
        };
        let Some(row) = holders.get(holder as usize) else {
            continue;
        };
        pass.class = row.class;
        for seed in own {
            let edge = resolver.edge(seed.place, seed.value);
            if let Some(edge) = edge.filter(|edge| edge.strength == Strength::Strong) {
                pass.give(edge.node, holder.saturating_add(1));
            }
        }
        pass.drain(&mut resolver);
    }
    Some(pass.shares)
}

impl Pass<'_, '_> {
    /// Adds a label to a node.
    #[inline]
    fn give(&mut self, node: Node, label: u32) {
        let Some(number) = self.shares.numbering.of(node) else {
            return;
        };
        let Some(old) = self.shares.labels.get(number as usize).copied() else {
            return;
        };
        let new = match old {
            NOBODY => label,
            _ if old == label => return,
            _ => self.join(old, label),
        };
        if new == old {
            return;
        }
        if let Some(entry) = self.shares.labels.get_mut(number as usize) {
            *entry = new;
        }
        if self
            .dirty
            .test_and_set(self.shares.universe.lookup.bit(node))
        {
            return; // it waits already
        }
        if self.stack.len() < self.most {
            self.stack.push(node);
        } else {
            self.overflowed = true;
        }
    }

    /// The label of what has both.
    fn join(&mut self, old: u32, new: u32) -> u32 {
        let Some((share, class)) = self.shares.meaning_of(old) else {
            return new;
        };
        if class < self.class {
            return old;
        }
        let Some((other, _)) = self.shares.meaning_of(new) else {
            return old;
        };
        let mut list = [u32::MAX; 4];
        let mut count = 0usize;
        for holder in share.holders().chain(other.holders()) {
            let family = self.family(holder);
            let known = list
                .iter()
                .take(count)
                .position(|one| self.family(*one) == family);
            let place = known.unwrap_or(count);
            if let Some(entry) = list.get_mut(place) {
                *entry = (*entry).min(holder);
            }
            count = count.max(place.saturating_add(1));
        }
        let is_several = matches!(share, Share::Several(_)) || matches!(other, Share::Several(_));
        match list {
            [one, u32::MAX, ..] if !is_several => one.saturating_add(1),
            [one, two, u32::MAX, _] if !is_several => self.pair(one.min(two), one.max(two)),
            _ => self.of_several(),
        }
    }

    fn family(&self, holder: u32) -> Option<u32> {
        let holder = self.holders.get(holder as usize)?;
        Some(holder.family)
    }

    fn pair(&mut self, one: u32, two: u32) -> u32 {
        if let Some(label) = self.pairs.get(&(one, two)) {
            return *label;
        }
        if self.pairs.len() >= MAX_PAIRS {
            return self.of_several();
        }
        let label = self.shares.mean(Share::Two(one, two), self.class);
        self.pairs.insert((one, two), label);
        label
    }

    fn of_several(&mut self) -> u32 {
        if let Some(label) = self.several.get(&self.class) {
            return *label;
        }
        let label = self.shares.mean(Share::Several(self.class), self.class);
        self.several.insert(self.class, label);
        label
    }

    /// Reads the words of everything on the stack, and of what that leads to.
    fn drain(&mut self, resolver: &mut Resolver<'_, '_>) {
        loop {
            self.drain_stack(resolver);
            if !std::mem::take(&mut self.overflowed) {
                return;
            }
            self.refill();
        }
    }

    fn drain_stack(&mut self, resolver: &mut Resolver<'_, '_>) {
        let universe = self.shares.universe;
        let mut ring: [Option<(Node, Range<Address>)>; RING] = [const { None }; RING];
        let mut turn = 0usize;
        let mut waiting = 0usize;
        loop {
            let next = self.stack.pop().and_then(|node| {
                let (start, bytes) = universe.lookup.extent(node)?;
                // The first word is asked for now and needed later.
                if let Ok(window) = universe.memory.window(start) {
                    black_box(window.bytes.first().copied());
                }
                Some((node, start..start.saturating_add(bytes)))
            });
            waiting = waiting.saturating_add(usize::from(next.is_some()));
            let is_done = next.is_none() && self.stack.is_empty();
            let Some(slot) = ring.get_mut(turn % RING) else {
                return;
            };
            turn = turn.wrapping_add(1);
            if let Some((node, range)) = std::mem::replace(slot, next) {
                waiting = waiting.saturating_sub(1);
                self.spread(resolver, node, range);
            } else if is_done && waiting == 0 {
                return;
            }
        }
    }

    /// Gives a node's label to everything that it points at.
    fn spread(&mut self, resolver: &mut Resolver<'_, '_>, node: Node, range: Range<Address>) {
        let universe = self.shares.universe;
        self.dirty.clear(universe.lookup.bit(node));
        let Some(label) = self.shares.label(node) else {
            return;
        };
        let filter = self.filter;
        let mut scan = |range: &Range<Address>| {
            words::each(universe.memory, range, filter, |place, value| {
                let edge = resolver.edge(Some(place), value);
                let strong = edge.filter(|edge| edge.strength == Strength::Strong);
                if let Some(edge) = strong.filter(|edge| edge.node != node) {
                    self.give(edge.node, label);
                }
            });
        };
        if universe.lookup.is_cut(node) {
            universe.silent.without(range).iter().for_each(&mut scan);
        } else {
            scan(&range);
        }
    }

    /// Nodes that wait and had no room on the stack.
    fn refill(&mut self) {
        let mut at = self.dirty.get(0).then_some(0);
        at = at.or_else(|| self.dirty.first_after(0));
        while let Some(bit) = at {
            at = self.dirty.first_after(bit);
            let Some(node) = self.shares.universe.lookup.node(bit) else {
                continue;
            };
            if self.stack.len() >= self.most {
                self.overflowed = true;
                return;
            }
            self.stack.push(node);
        }
    }
}

impl Share {
    fn holders(self) -> impl Iterator<Item = u32> {
        let (one, two) = match self {
            Share::One(one) => (Some(one), None),
            Share::Two(one, two) => (Some(one), Some(two)),
            Share::Several(_) | Share::Nobody => (None, None),
        };
        one.into_iter().chain(two)
    }
}

impl Shares<'_, '_> {
    fn mean(&mut self, share: Share, class: u8) -> u32 {
        self.meaning.push((share, class));
        u32::try_from(self.meaning.len()).unwrap_or(u32::MAX)
    }

    fn meaning_of(&self, label: u32) -> Option<(Share, u8)> {
        let place = usize::try_from(label.checked_sub(1)?).ok()?;
        self.meaning.get(place).copied()
    }

    #[inline]
    fn label(&self, node: Node) -> Option<u32> {
        let number = self.numbering.of(node)?;
        self.labels.get(number as usize).copied()
    }

    /// Who holds a block.
    pub fn of(&self, node: Node) -> Share {
        let label = self.label(node).unwrap_or(NOBODY);
        self.meaning_of(label)
            .map_or(Share::Nobody, |(share, _)| share)
    }

    /// What each has, by the order of [`Share`]; those that hold nothing are left out.
    pub fn sums(&self) -> Vec<Sum> {
        const ROWS: u32 = 1024;
        let lookup = &self.universe.lookup;
        let pieces = parallel::for_each_index(lookup.rows().div_ceil(ROWS), |piece| {
            let mut part: BTreeMap<u32, (Tally, Tally)> = BTreeMap::new();
            let mut last = (NOBODY, Tally::default());
            let first = piece.saturating_mul(ROWS);
            for row in first..first.saturating_add(ROWS).min(lookup.rows()) {
                lookup.each_live(row, |node, _, bytes| {
                    let label = self.label(node).unwrap_or(NOBODY);
                    if lookup.mapping(node).is_some() {
                        part.entry(label).or_default().1.add(1, bytes);
                        return;
                    }
                    // Neighbours mostly have one holder.
                    if label != last.0 {
                        let (known, sum) = std::mem::take(&mut last);
                        part.entry(known).or_default().0.add(sum.blocks, sum.bytes);
                        last.0 = label;
                    }
                    last.1.add(1, bytes);
                });
            }
            let (label, sum) = last;
            part.entry(label).or_default().0.add(sum.blocks, sum.bytes);
            part
        });
        let mut all: BTreeMap<u32, (Tally, Tally)> = BTreeMap::new();
        for (label, (blocks, mappings)) in pieces.into_iter().flatten() {
            let entry = all.entry(label).or_default();
            entry.0.add(blocks.blocks, blocks.bytes);
            entry.1.add(mappings.blocks, mappings.bytes);
        }
        let mut sums: Vec<Sum> = all
            .into_iter()
            .filter(|(_, (blocks, mappings))| blocks.blocks.saturating_add(mappings.blocks) > 0)
            .map(|(label, (blocks, mappings))| Sum {
                share: self
                    .meaning_of(label)
                    .map_or(Share::Nobody, |(share, _)| share),
                blocks,
                mappings,
            })
            .collect();
        sums.sort_by_key(|sum| sum.share);
        sums
    }

    /// The only node of `share` that words lead to, of those in a run of memory; `None` where there is none, or there are several.
    pub fn only_one(
        &self,
        share: Share,
        range: Range<Address>,
        but: &[Node],
    ) -> Option<(Node, Address, u64)> {
        let universe = self.universe;
        let filter = Filter::new(universe.lookup.span());
        let mut resolver = Resolver::new(universe);
        let mut found: Option<(Node, Address, u64)> = None;
        let mut is_several = false;
        for part in universe.silent.without(range) {
            words::each(universe.memory, &part, filter, |at, value| {
                let edge = resolver.edge(Some(at), value);
                let strong = edge.filter(|edge| edge.strength == Strength::Strong);
                let Some(edge) = strong.filter(|edge| !but.contains(&edge.node)) else {
                    return;
                };
                if self.of(edge.node) == share {
                    let known = *found.get_or_insert((edge.node, at, value));
                    is_several |= known.0 != edge.node;
                }
            });
        }
        found.filter(|_| !is_several)
    }

    /// What one has by size, those with most bytes first, each with the lowest address; but for `but`. Sizes beyond a number are left out.
    pub fn sizes(&self, share: Share, but: &[Node]) -> Vec<(u64, Tally, Address)> {
        const MAX_SIZES: usize = 1 << 16;
        const ROWS: u32 = 1024;
        let Some(label) = self.label_of(share) else {
            return Vec::new();
        };
        let lookup = &self.universe.lookup;
        let mut all: BTreeMap<u64, (Tally, Address)> = BTreeMap::new();
        let pieces = parallel::for_each_index(lookup.rows().div_ceil(ROWS), |piece| {
            let mut part: BTreeMap<u64, (Tally, Address)> = BTreeMap::new();
            let first = piece.saturating_mul(ROWS);
            for row in first..first.saturating_add(ROWS).min(lookup.rows()) {
                lookup.each_live(row, |node, at, bytes| {
                    let is_own = self.label(node) == Some(label) && !but.contains(&node);
                    let has_room = part.len() < MAX_SIZES || part.contains_key(&bytes);
                    if is_own && has_room && lookup.mapping(node).is_none() {
                        part.entry(bytes)
                            .or_insert((Tally::default(), at))
                            .0
                            .add(1, bytes);
                    }
                });
            }
            part
        });
        for (bytes, (tally, at)) in pieces.into_iter().flatten() {
            let row = all.entry(bytes).or_insert((Tally::default(), at));
            row.0.add(tally.blocks, tally.bytes);
            row.1 = row.1.min(at);
        }
        let mut rows: Vec<_> = all
            .into_iter()
            .map(|(bytes, (tally, at))| (bytes, tally, at))
            .collect();
        rows.sort_by_key(|(bytes, tally, _)| (std::cmp::Reverse(tally.bytes), *bytes));
        rows
    }

    fn label_of(&self, share: Share) -> Option<u32> {
        let place = self.meaning.iter().position(|(known, _)| *known == share)?;
        u32::try_from(place.checked_add(1)?).ok()
    }

    /// What one has, by address, mappings included; at most `most` of it.
    pub fn members(&self, share: Share, most: usize) -> Vec<Found> {
        let Some(label) = self.label_of(share) else {
            return Vec::new();
        };
        let lookup = &self.universe.lookup;
        let rows = parallel::for_each_index(lookup.rows().div_ceil(256), |piece| {
            let mut found = Vec::new();
            for row in piece.saturating_mul(256)
                ..piece
                    .saturating_add(1)
                    .saturating_mul(256)
                    .min(lookup.rows())
            {
                lookup.each_live(row, |node, at, bytes| {
                    if self.label(node) == Some(label) && found.len() < most {
                        found.push(Found { node, at, bytes });
                    }
                });
            }
            found
        });
        let mut found: Vec<Found> = rows.into_iter().flatten().collect();
        found.truncate(most);
        found
    }
}
