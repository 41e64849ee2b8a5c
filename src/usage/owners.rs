//! Who holds how much: variables of modules and threads first, then frames and registers of threads.
//!
//! ```text
//! words of roots ──> holder of each: a variable, a frame ──> labels of blocks (heaps::graph::shares) ──> sums
//! ```
//!
//! What a variable reaches is the variable's, however many frames work on it at the moment; of frames of one thread the outermost has
//! what several reach. What two variables reach is theirs together. Where a module has no symbols, words of pointers side by side are
//! taken for one variable.

use std::collections::BTreeMap;
use std::ops::Range;

use ground::target::{Address, Frame};
use heaps::allocators::Tally;
use heaps::graph::references::{Place, Reference};
use heaps::graph::resolve::Resolver;
use heaps::graph::roots::{Root, RootKind, Strength};
use heaps::graph::shares::{self, Seed, Share, Shares};
use heaps::graph::words::{self, Filter};

use crate::graph::Ground;
use crate::graph::holders::{Holder, HolderKind};

/// Owners that are kept.
pub const MAX_OWNERS: usize = 1000;
/// Words of roots that are looked at.
const MAX_SEEDS: usize = 1 << 24;
/// Bytes from one pointer to the next within what is taken for one variable.
const NEAR: u64 = 24;

/// Variables, class by class.
const VARIABLES: u8 = 0;
/// Frames and registers.
const THREADS: u8 = 1;

/// What has a part of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnerKind {
    /// A variable, a frame, the registers of a thread.
    One,
    /// Two of them together.
    Pair,
    /// Several variables.
    Variables,
    /// Several threads.
    Threads,
    /// No word that is certainly a pointer leads there.
    Nobody,
}

/// A part of the heap and who has it.
#[derive(Clone, Debug)]
pub struct Owner {
    /// What has it.
    pub kind: OwnerKind,
    /// Who: none, one or two.
    pub holders: Vec<Holder>,
    /// Its blocks.
    pub blocks: Tally,
    /// The program's own mappings that hang there, too.
    pub mappings: Tally,
    /// What the engine calls it.
    pub share: Share,
}

/// All owners of a process.
pub struct Owners<'g> {
    /// Those with most bytes first. Bounded.
    pub list: Vec<Owner>,
    /// Owners that were left out.
    pub dropped: u64,
    /// Blocks in use.
    pub all: Tally,
    /// Words of roots that point at blocks, by holder.
    pub(super) seeds: Vec<Seed>,
    /// Labels of all blocks.
    pub(super) shares: Shares<'g, 'g>,
}

impl Owners<'_> {
    /// Index in the list of who has the block at `at`.
    pub fn of(&self, ground: &Ground<'_>, at: Address) -> Option<usize> {
        let hit = ground.universe.lookup.find(at.get())?;
        let share = self.shares.of(hit.node);
        self.list.iter().position(|owner| owner.share == share)
    }
}

/// What makes words one holder's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Module, and where the variable begins.
    Variable(u32, Address),
    /// Thread, and a thread-local variable's name; none where it has none.
    Local(u32, Option<String>),
    /// Thread, and the frame: outermost first.
    Frame(u32, std::cmp::Reverse<usize>),
    /// Registers of a thread, behind its frames.
    Registers(u32),
}

struct Gatherer<'g, 'a> {
    ground: &'g Ground<'a>,
    filter: Filter,
    found: BTreeMap<Key, Vec<(Option<Address>, u64)>>,
    count: usize,
}

/// The holders, kept where labels can refer to them.
pub struct Words {
    holders: Vec<shares::Holder>,
    seeds: Vec<Seed>,
}

/// Gathers the words of all strong roots, by holder.
pub fn words(ground: &Ground<'_>) -> Words {
    let mut gatherer = Gatherer {
        ground,
        filter: Filter::new(ground.universe.lookup.span()),
        found: BTreeMap::new(),
        count: 0,
    };
    let strong = ground.universe.roots.iter();
    for root in strong.filter(|root| root.strength == Strength::Strong) {
        match root.kind {
            RootKind::Global => gatherer.variables(root),
            RootKind::Tls => gatherer.locals(root),
            RootKind::Stack => gatherer.frames(root),
            RootKind::Mapping => {}
        }
    }
    gatherer.registers();
    gatherer.finish()
}

/// Finds what each holder holds. `None` where there are more blocks than can be numbered.
pub fn find<'g>(ground: &'g Ground<'g>, words: &'g Words) -> Option<Owners<'g>> {
    let shares = shares::share(&ground.universe, &words.holders, &words.seeds)?;
    let mut sums = shares.sums();
    sums.sort_by_key(|sum| {
        let bytes = sum.blocks.bytes.saturating_add(sum.mappings.bytes);
        (std::cmp::Reverse((sum.blocks.bytes, bytes)), sum.share)
    });
    let mut all = Tally::default();
    for sum in &sums {
        all.add(sum.blocks.blocks, sum.blocks.bytes);
    }
    let dropped = sums.len().saturating_sub(MAX_OWNERS) as u64;
    let list = sums.iter().take(MAX_OWNERS).map(|sum| {
        let (kind, numbers) = match sum.share {
            Share::One(one) => (OwnerKind::One, vec![one]),
            Share::Two(one, two) => (OwnerKind::Pair, vec![one, two]),
            Share::Several(VARIABLES) => (OwnerKind::Variables, Vec::new()),
            Share::Several(_) => (OwnerKind::Threads, Vec::new()),
            Share::Nobody => (OwnerKind::Nobody, Vec::new()),
        };
        Owner {
            kind,
            holders: numbers
                .into_iter()
                .filter_map(|number| name(ground, &words.seeds, number))
                .collect(),
            blocks: sum.blocks,
            mappings: sum.mappings,
            share: sum.share,
        }
    });
    Some(Owners {
        list: list.collect(),
        dropped,
        all,
        seeds: words.seeds.clone(),
        shares,
    })
}

/// The words of a holder.
pub(super) fn seeds_of(seeds: &[Seed], holder: u32) -> &[Seed] {
    let first = seeds.partition_point(|seed| seed.holder < holder);
    let after = seeds.partition_point(|seed| seed.holder <= holder);
    seeds.get(first..after).unwrap_or_default()
}

/// Names a holder by its first word: the variable or the frame, not the place in it.
fn name(ground: &Ground<'_>, seeds: &[Seed], number: u32) -> Option<Holder> {
    let seed = seeds_of(seeds, number).first()?;
    let mut holder = ground.holder(&reference(ground, seed));
    match holder.kind {
        HolderKind::Register => holder.register = None,
        HolderKind::Stack => {
            holder.address = None;
            holder.symbol = None;
        }
        _ => {}
    }
    if let Some((_, offset)) = &mut holder.symbol {
        holder.address = holder.address.and_then(|at| at.checked_sub(*offset));
        if let Some((_, in_module)) = &mut holder.module {
            *in_module = in_module.saturating_sub(*offset);
        }
        *offset = 0;
    }
    Some(holder)
}

/// A word of a root as a reference.
pub(super) fn reference(ground: &Ground<'_>, seed: &Seed) -> Reference {
    let universe = &ground.universe;
    let place = match seed.place {
        Some(at) => universe.place(at),
        None => {
            let mut registers = (0u32..).zip(&universe.registers);
            let found = registers.find(|(_, register)| register.value == seed.value);
            found.map_or(Place::Silent, |(index, _)| Place::Register(index))
        }
    };
    let edge = Resolver::new(universe).edge(seed.place, seed.value);
    Reference {
        strength: Strength::Strong,
        place,
        at: seed.place.unwrap_or_default(),
        value: seed.value,
        offset: edge.map_or(0, |edge| edge.offset),
    }
}

impl Gatherer<'_, '_> {
    fn add(&mut self, key: Key, place: Option<Address>, value: u64) {
        if self.count < MAX_SEEDS {
            self.count = self.count.saturating_add(1);
            self.found.entry(key).or_default().push((place, value));
        }
    }

    /// Words of a root that are strong pointers to blocks.
    fn pointers(&self, range: &Range<Address>) -> Vec<(Address, u64)> {
        let universe = &self.ground.universe;
        let mut resolver = Resolver::new(universe);
        let mut found = Vec::new();
        words::each(universe.memory, range, self.filter, |at, value| {
            let edge = resolver.edge(Some(at), value);
            let is_strong = edge.is_some_and(|edge| edge.strength == Strength::Strong);
            if is_strong && found.len() < MAX_SEEDS {
                found.push((at, value));
            }
        });
        found
    }

    fn variables(&mut self, root: &Root) {
        let ground = self.ground;
        let Some(module) = ground.session.target().modules.get(root.owner as usize) else {
            return;
        };
        let debug = ground.session.debug_info();
        let mut known: Option<Range<Address>> = None;
        let mut nameless: Option<(Address, Address)> = None;
        for (at, value) in self.pointers(&root.range) {
            if known.as_ref().is_none_or(|known| !known.contains(&at)) {
                known = debug.variable_range(module.id, at);
            }
            let start = match (&known, nameless) {
                (Some(variable), _) => variable.start,
                (None, Some((start, last)))
                    if at.offset_from(last).is_some_and(|far| far <= NEAR) =>
                {
                    start
                }
                (None, _) => at,
            };
            nameless = known.is_none().then_some((start, at));
            self.add(Key::Variable(root.owner, start), Some(at), value);
        }
    }

    fn locals(&mut self, root: &Root) {
        for (at, value) in self.pointers(&root.range) {
            let name = self.ground.local_at(root.owner as usize, at);
            self.add(Key::Local(root.owner, name), Some(at), value);
        }
    }

    fn frames(&mut self, root: &Root) {
        let frames = self.ground.session.threads().frames(root.owner as usize);
        // Frames of another stack lie outside of this one.
        let here = frames.iter().enumerate();
        let here = here.filter(|(_, frame): &(usize, &Frame)| frame.sp >= root.range.start);
        let mut by_sp: Vec<(Address, usize)> =
            here.map(|(index, frame)| (frame.sp, index)).collect();
        by_sp.sort_unstable();
        let lowest = by_sp.first().map_or(0, |(_, index)| *index);
        for (at, value) in self.pointers(&root.range) {
            let after = by_sp.partition_point(|(sp, _)| *sp <= at);
            let found = after.checked_sub(1).and_then(|before| by_sp.get(before));
            let frame = found.map_or(lowest, |(_, index)| *index);
            self.add(
                Key::Frame(root.owner, std::cmp::Reverse(frame)),
                Some(at),
                value,
            );
        }
    }

    fn registers(&mut self) {
        let universe = &self.ground.universe;
        let mut resolver = Resolver::new(universe);
        for register in &universe.registers {
            if self.filter.admits(register.value) && resolver.edge(None, register.value).is_some() {
                self.add(Key::Registers(register.thread), None, register.value);
            }
        }
    }

    /// Numbers the holders: variables, then each thread's frames and its registers.
    fn finish(self) -> Words {
        let mut order: Vec<_> = self.found.into_iter().collect();
        order.sort_by_key(|(key, _)| match key {
            Key::Variable(..) | Key::Local(..) => (VARIABLES, 0, 0),
            Key::Frame(thread, _) => (THREADS, *thread, 0),
            Key::Registers(thread) => (THREADS, *thread, 1),
        });
        let mut words = Words {
            holders: Vec::with_capacity(order.len()),
            seeds: Vec::with_capacity(self.count),
        };
        for (holder, (key, list)) in (0u32..).zip(order) {
            let (class, family) = match key {
                Key::Variable(..) | Key::Local(..) => (VARIABLES, holder),
                // Behind all numbers of variables.
                Key::Frame(thread, _) | Key::Registers(thread) => (THREADS, u32::MAX - thread),
            };
            words.holders.push(shares::Holder { class, family });
            words
                .seeds
                .extend(list.into_iter().map(|(place, value)| Seed {
                    holder,
                    place,
                    value,
                }));
        }
        words
    }
}
