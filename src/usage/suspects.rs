//! The few owners that hold most of the heap: where it gathers, by which way one gets there, what it is made of.

use ground::target::Address;
use heaps::allocators::Tally;
use heaps::graph::lookup::Node;
use heaps::graph::references::{self, Reference};
use heaps::graph::resolve::Resolver;
use heaps::graph::retained::Retained;
use heaps::graph::roots::Strength;
use heaps::graph::shares::{Seed, Share};
use heaps::graph::subgraph::Found;
use heaps::map::BlockState;

use super::owners::{self, Owner, OwnerKind, Owners};
use crate::graph::Ground;
use crate::graph::holders::{Holder, HolderBlock};
use crate::graph::leaks::signature;
use crate::types::{self, Type};

/// An owner that has more than one part of so many of all bytes in use is a suspect.
const PART: u64 = 10;
/// Blocks of an owner of which it is told what hangs on which, without being asked for more.
pub const MAX_BLOCKS: usize = 1 << 20;
/// The same where it is asked for: memory for each is about a hundred bytes.
pub const MAX_RETAINED: usize = 1 << 25;
/// Sizes of blocks that are shown.
const MAX_SIZES: usize = 3;
/// Steps of a way that are shown.
const MAX_STEPS: usize = 16;

/// Blocks of one size that hang somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeOf {
    /// Usable bytes of each.
    pub block_bytes: u64,
    /// All of them.
    pub blocks: Tally,
    /// The lowest address.
    pub example: Address,
    /// What the first words of that one are.
    pub signature: String,
    /// What that one holds.
    pub type_of: Option<Type>,
}

/// A block, or a mapping of the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A block.
    Block(HolderBlock),
    /// A mapping: its start and bytes.
    Mapping(Address, u64),
}

/// Where the bytes of a suspect gather.
#[derive(Clone, Debug)]
pub struct Gathering {
    /// Where most of it hangs; `None`: at the owner itself.
    pub block: Option<Place>,
    /// What hangs there, the block included.
    pub held: Tally,
    /// The words that lead there, the owner's first.
    pub path: Vec<Holder>,
    /// Words of the path were left out.
    pub path_cut: bool,
    /// What hangs there, by size.
    pub made_of: Vec<MadeOf>,
}

/// An owner that holds more than a tenth of the heap.
#[derive(Clone, Debug)]
pub struct Suspect {
    /// Index in the list of owners.
    pub owner: usize,
    /// Where its bytes gather; `None` where it has too many blocks to tell without being asked.
    pub gathering: Option<Gathering>,
}

/// Finds the suspects, those with most bytes first. `most`: blocks of one of which it is told what hangs on which.
pub fn find(ground: &Ground<'_>, owners: &Owners<'_>, most: usize) -> Vec<Suspect> {
    let is_much = |owner: &Owner| {
        let holds = owner.blocks.bytes.saturating_mul(PART) > owners.all.bytes;
        holds && owner.kind != OwnerKind::Nobody
    };
    let list = owners.list.iter().enumerate();
    list.filter(|(_, owner)| is_much(owner))
        .map(|(index, owner)| Suspect {
            owner: index,
            gathering: gathering(ground, owners, owner, most),
        })
        .collect()
}

fn gathering(
    ground: &Ground<'_>,
    owners: &Owners<'_>,
    owner: &Owner,
    most: usize,
) -> Option<Gathering> {
    let numbers = match owner.share {
        Share::One(one) => vec![one],
        Share::Two(one, two) => vec![one, two],
        Share::Several(_) | Share::Nobody => return None,
    };
    if owner.blocks.blocks > most as u64 {
        return chain(ground, owners, owner);
    }
    let universe = &ground.universe;
    let members = owners.shares.members(owner.share, most.saturating_add(1));
    let index = |node| {
        members
            .binary_search_by_key(&node, |found: &Found| found.node)
            .ok()
    };
    let mut resolver = Resolver::new(universe);
    // The owner's words that lead to what it has, each with the member.
    let mut first: Vec<(Seed, usize)> = Vec::new();
    for number in numbers {
        for seed in owners::seeds_of(&owners.seeds, number) {
            let edge = resolver.edge(seed.place, seed.value);
            if let Some(to) = edge.and_then(|edge| index(edge.node)) {
                first.push((*seed, to));
            }
        }
    }
    let entries: Vec<u32> = match owner.kind {
        // What two hold together is entered from what each holds alone: any of it may be the way.
        OwnerKind::Pair if first.is_empty() => (0u32..).take(members.len()).collect(),
        _ => {
            let places = first.iter().filter_map(|(_, to)| u32::try_from(*to).ok());
            places.collect()
        }
    };
    let retained = Retained::find(universe, &members, &entries)?;
    let at = retained.gathers_at();
    let way = at.map(|at| retained.way_to(at)).unwrap_or_default();
    let mut path = Vec::new();
    if let Some(start) = way.first()
        && let Some((seed, _)) = first.iter().find(|(_, to)| to == start)
    {
        path.push(ground.holder(&owners::reference(ground, seed)));
        for (from, to) in way.iter().zip(way.iter().skip(1)).take(MAX_STEPS) {
            let (Some((at, value)), Some(block)) =
                (retained.word(universe, *from, *to), members.get(*from))
            else {
                break;
            };
            let offset = at.offset_from(block.at).unwrap_or(0);
            let target = members.get(*to).map_or(value, |member| member.at.get());
            path.push(ground.holder(&Reference {
                strength: Strength::Strong,
                place: references::Place::Node(block.node, offset),
                at,
                value,
                offset: value.saturating_sub(target),
            }));
        }
    }
    let sizes = retained.made_of(at).into_iter().take(MAX_SIZES);
    Some(Gathering {
        block: at
            .and_then(|at| members.get(at))
            .and_then(|found| place(ground, found.node)),
        held: at.map_or(owner.blocks, |at| retained.held(at)),
        path_cut: path.len() < way.len(),
        path,
        made_of: made_of(ground, sizes),
    })
}

fn place(ground: &Ground<'_>, node: Node) -> Option<Place> {
    if let Some(block) = ground.block_of(node, 0) {
        return Some(Place::Block(block));
    }
    let (start, bytes) = ground.universe.lookup.extent(node)?;
    Some(Place::Mapping(start, bytes))
}

/// The same without dominators, for owners with many blocks: what the only way leads through holds everything behind it.
fn chain(ground: &Ground<'_>, owners: &Owners<'_>, owner: &Owner) -> Option<Gathering> {
    let Share::One(number) = owner.share else {
        return None;
    };
    let lookup = &ground.universe.lookup;
    let mut resolver = Resolver::new(&ground.universe);
    let seeds = owners::seeds_of(&owners.seeds, number).iter();
    let mut own = seeds.filter_map(|seed| {
        let edge = resolver.edge(seed.place, seed.value)?;
        (owners.shares.of(edge.node) == owner.share).then_some((seed, edge.node))
    });
    let (seed, first) = own.next()?;
    if own.any(|(_, node)| node != first) {
        return None;
    }
    let mut way = vec![first];
    let mut path = vec![ground.holder(&owners::reference(ground, seed))];
    while way.len() <= MAX_STEPS {
        let from = *way.last()?;
        let (start, bytes) = lookup.extent(from)?;
        let range = start..start.saturating_add(bytes);
        let Some((next, at, value)) = owners.shares.only_one(owner.share, range, &way) else {
            break;
        };
        let target = lookup.extent(next).map_or(value, |(start, _)| start.get());
        path.push(ground.holder(&Reference {
            strength: Strength::Strong,
            place: references::Place::Node(from, at.offset_from(start).unwrap_or(0)),
            at,
            value,
            offset: value.saturating_sub(target),
        }));
        way.push(next);
    }
    // What is longer is a list: its first block stands for it.
    if way.len() > MAX_STEPS {
        let size = |node: &Node| lookup.extent(*node).map(|(_, bytes)| bytes);
        let last = way.last().and_then(size);
        let start = way.iter().rposition(|node| size(node) != last);
        let kept = start.map_or(1, |place| place.saturating_add(2));
        way.truncate(kept);
        path.truncate(kept);
    }
    let at = *way.last()?;
    let mut held = owner.blocks;
    for (_, bytes) in way.iter().rev().skip(1).filter_map(|node| {
        let is_block = lookup.mapping(*node).is_none();
        lookup.extent(*node).filter(|_| is_block)
    }) {
        held.blocks = held.blocks.saturating_sub(1);
        held.bytes = held.bytes.saturating_sub(bytes);
    }
    let sizes = owners.shares.sizes(owner.share, &way).into_iter();
    Some(Gathering {
        block: place(ground, at),
        held,
        path,
        path_cut: false,
        made_of: made_of(ground, sizes.take(MAX_SIZES)),
    })
}

fn made_of(ground: &Ground<'_>, sizes: impl Iterator<Item = (u64, Tally, Address)>) -> Vec<MadeOf> {
    let rows = sizes.map(|(block_bytes, blocks, example)| MadeOf {
        block_bytes,
        blocks,
        example,
        signature: signature::of(ground, example, block_bytes),
        type_of: ground.type_of_block(types::Place {
            address: example,
            bytes: block_bytes,
            state: BlockState::InUse,
        }),
    });
    rows.collect()
}
