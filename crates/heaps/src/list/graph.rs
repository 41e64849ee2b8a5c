//! The lists of an irregular group, followed in order and described.
//!
//! Every free entry has one outgoing link; heads are further edges. A healthy group is a set of
//! chains that end at null. What can be wrong has few roots:
//!
//! ```text
//! shared   head ──> p ──> a ──> p ...        a block with two edges into it
//! stray    head ──> q ──> garbage            an edge into something that is no entry
//! short    head ──> q ──> 0                  null before the recorded end
//! ```
//!
//! A damaged link does not always lead to garbage at once: it may lead to a block in use whose
//! stale link leads on. So each root is traced back over the entries before it, looking for the
//! link whose *repair* fits: an unlisted chain of exactly the length that the list's counter asks
//! for, at an address that agrees with the bytes that survived.

mod repair;

use std::collections::{HashMap, HashSet, VecDeque};

use super::{FreeList, Links, Orphans};
use crate::anomaly::{Edge, ListRef, Stray, Transient};
use crate::map::{Block, HeapMap};
use ground::parallel;
use ground::target::{Address, Cursor, TargetMemory};

pub use repair::{SmallRepair, looks_overrun};

/// What the allocator knows of its lists beyond their links.
pub trait Keeper: Sync {
    /// A list, for people.
    fn list_ref(&self, list: &FreeList) -> ListRef;

    /// Set when the list's keeper may be changing it right now: its recorded length proves nothing.
    fn busy(&self, list: &FreeList) -> Option<Transient>;

    /// An insertion that had stored the head but not yet the link of the new first entry: the
    /// entry that the missing link must name (null for an empty list), if a register holds it and
    /// `fits` accepts it.
    fn in_flight(
        &self,
        list: &FreeList,
        fits: &dyn Fn(Address) -> bool,
    ) -> Option<(Address, Transient)>;

    /// The list's entries never leave this range of addresses, if so.
    fn confined(&self, list: &FreeList) -> Option<std::ops::Range<Address>>;

    /// The list's last entry, if that is recorded.
    fn last(&self, list: &FreeList) -> Option<Address>;
}

/// How a list's walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At null.
    Null,
    /// At a value that is no entry.
    Stray(Stray),
    /// Back at an entry of the same walk, this many entries before the end.
    Cycle(u64),
    /// The work that irregular lists may cost in all was used up.
    Bounded,
}

/// One irregular list, followed to its end.
#[derive(Clone, Debug)]
pub struct Path {
    /// The list.
    pub list: FreeList,
    /// Distinct entries met, proper ones and stepped-over ones.
    pub walked: u64,
    /// How it ended.
    pub end: End,
    /// Blocks with more than one edge into them that it passes: position and address, the first few.
    pub disputed: Vec<(u64, Address)>,
    /// Its last entries, oldest first; the position of the newest is `walked - 1`.
    pub tail: VecDeque<Address>,
    /// The state is passing: what proves it, and the entry behind the first.
    pub in_flight: Option<(Address, Transient)>,
}

impl Path {
    /// Entries kept in [`Path::tail`].
    const TAIL: usize = 96;

    fn new(list: &FreeList) -> Self {
        Self {
            list: *list,
            walked: 0,
            end: End::Null,
            disputed: Vec::new(),
            tail: VecDeque::new(),
            in_flight: None,
        }
    }

    fn remember(&mut self, at: Address) {
        if self.tail.len() == Self::TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(at);
        self.walked = self.walked.saturating_add(1);
    }
}

/// A block with several edges into it.
#[derive(Clone, Debug)]
pub struct Junction {
    /// The block.
    pub block: Block,
    /// The edges, each once, in order of lists.
    pub edges: Vec<Edge>,
}

/// A value that is no entry of the list it stands in.
#[derive(Clone, Debug)]
pub struct StrayEdge {
    /// The word.
    pub edge: Edge,
    /// Index of the path that met it first.
    pub path: usize,
    /// Its value.
    pub found: Address,
    /// Why it is no entry.
    pub stray: Stray,
    /// Its own link is a proper entry, or null where the list should end.
    pub leads_on: bool,
}

/// All that is irregular in a group.
pub struct ListGraph<'m> {
    /// Lists that do not end as recorded, or that pass a disputed block.
    pub paths: Vec<Path>,
    /// Disputed blocks, in order of address.
    pub junctions: Vec<Junction>,
    /// Values that are no entries, in order of lists.
    pub strays: Vec<StrayEdge>,
    /// Blocks that no list holds.
    pub orphans: Orphans<'m>,
    map: &'m HeapMap,
    memory: &'m dyn TargetMemory,
    class: u16,
}

struct Builder<'g, 'm, L: Links, K: Keeper> {
    graph: ListGraph<'m>,
    links: &'g L,
    keeper: &'g K,
    budget: u64,
    edges: HashMap<Address, Vec<Edge>>,
    seen_strays: HashSet<Address>,
}

impl<'m> ListGraph<'m> {
    /// Follows the lists of a group that a [`ListWalk`](super::ListWalk) found irregular.
    pub fn trace<L: Links, K: Keeper>(
        map: &'m HeapMap,
        memory: &'m dyn TargetMemory,
        lists: &[FreeList],
        links: &L,
        keeper: &K,
    ) -> Self {
        let class = lists.first().map_or(0, |list| list.class);
        let orphans = Orphans::new(map, memory, class);
        let blocks = orphans.blocks();
        let graph = Self {
            paths: Vec::new(),
            junctions: Vec::new(),
            strays: Vec::new(),
            orphans,
            map,
            memory,
            class,
        };
        // Lists that are as they should be are only passed over, at most once each.
        let regular = parallel::map(lists, |list| graph.is_regular(list, links));
        let suspicious = lists
            .iter()
            .zip(regular)
            .filter(|(_, regular)| !regular)
            .map(|(list, _)| list);
        let suspicious: Vec<&FreeList> = suspicious.collect();
        let mut builder = Builder {
            graph,
            links,
            keeper,
            budget: blocks.saturating_mul(4).saturating_add(1 << 20),
            edges: HashMap::new(),
            seen_strays: HashSet::new(),
        };
        for list in suspicious {
            builder.follow(list);
        }
        builder.finish()
    }

    /// Whether the list ends at null after as many entries as recorded and passes no disputed block.
    fn is_regular<L: Links>(&self, list: &FreeList, links: &L) -> bool {
        let mut cursor = Cursor::new(self.memory);
        let mut at = list.head;
        for _ in 0..list.recorded {
            let Ok(block) = links.admit(self.map, self.memory, self.class, at) else {
                return false;
            };
            if self.map.is_disputed(block) {
                return false;
            }
            let Ok(word) = cursor.read_u64(at) else {
                return false;
            };
            at = links.decode(at, word);
        }
        at.is_null()
    }

    /// The position in a path's tail of an entry.
    pub fn position_in(&self, path: usize, at: Address) -> Option<u64> {
        let path = self.paths.get(path)?;
        let index = path.tail.iter().position(|&node| node == at)? as u64;
        path.walked
            .checked_sub(path.tail.len() as u64)?
            .checked_add(index)
    }
}

impl<'m, L: Links, K: Keeper> Builder<'_, 'm, L, K> {
    fn follow(&mut self, list: &FreeList) {
        let mut path = self.walk(list);
        let irregular = path.end != End::Null || path.walked != list.recorded;
        if irregular || !path.disputed.is_empty() {
            let links = self.links;
            let graph = &self.graph;
            let recorded = list.recorded;
            // The interrupted insertion may or may not have counted its entry yet.
            let fits = |behind: Address| {
                graph.orphans.chain_is(links, behind, recorded, &|_| true)
                    || recorded > 0
                        && graph.orphans.chain_is(
                            links,
                            behind,
                            recorded.saturating_sub(1),
                            &|_| true,
                        )
            };
            if let Some((behind, transient)) = self.keeper.in_flight(list, &fits) {
                path = self.walk_in_flight(list, behind);
                path.in_flight = Some((behind, transient));
            }
        }
        self.collect_edges(&path);
        self.graph.paths.push(path);
    }

    fn walk_in_flight(&mut self, list: &FreeList, behind: Address) -> Path {
        let mut path = Path::new(list);
        path.remember(list.head);
        self.walk_on(&mut path, behind);
        path
    }

    fn walk(&mut self, list: &FreeList) -> Path {
        let mut path = Path::new(list);
        self.walk_on(&mut path, list.head);
        path
    }

    /// Follows links from `at` until null, a dead end, a revisit, or the end of the budget.
    fn walk_on(&mut self, path: &mut Path, mut at: Address) {
        let (map, memory, class) = (self.graph.map, self.graph.memory, self.graph.class);
        let mut cursor = Cursor::new(memory);
        // Every circle holds a disputed block, so those alone need remembering.
        let mut passed: HashMap<Address, u64> = HashMap::new();
        path.end = loop {
            if at.is_null() {
                break End::Null;
            }
            if self.budget == 0 {
                break End::Bounded;
            }
            self.budget = self.budget.saturating_sub(1);
            let revisited = match self.links.admit(map, memory, class, at) {
                Ok(block) if map.is_disputed(block) => {
                    if path.disputed.len() < MAX_EDGES {
                        path.disputed.push((path.walked, at));
                    }
                    passed.insert(at, path.walked)
                }
                Ok(_) => None,
                Err(stray) if self.steps_over(path, at, stray, &mut cursor) => {
                    passed.insert(at, path.walked)
                }
                Err(stray) => break End::Stray(stray),
            };
            if let Some(first) = revisited {
                break End::Cycle(path.walked.saturating_sub(first));
            }
            path.remember(at);
            match cursor.read_u64(at) {
                Ok(word) => at = self.links.decode(at, word),
                Err(fault) => break End::Stray(Stray::Unreadable(fault)),
            }
        };
    }

    /// Whether a stray entry was itself linked in properly, as a freed inner pointer is: the word
    /// stored at it is the next proper entry, or null at the list's recorded end.
    fn steps_over(&self, path: &Path, at: Address, stray: Stray, cursor: &mut Cursor<'_>) -> bool {
        let may_be_freed = match stray {
            Stray::Misaligned { .. } | Stray::OtherClass { .. } | Stray::FreeSpan { .. } => true,
            Stray::OutsideHeap => self.links.frees_foreign(),
            _ => false,
        };
        if !may_be_freed {
            return false;
        }
        let Ok(word) = cursor.read_u64(at) else {
            return false;
        };
        let next = self.links.decode(at, word);
        if next.is_null() {
            // A zero outside the heap may be there by chance: it ends a list only if the allocator itself stored where it is.
            let is_stored = stray != Stray::OutsideHeap || path.walked == 0;
            return is_stored
                && path.walked.saturating_add(1) == path.list.recorded
                && !self.is_cut_short(at, stray, cursor);
        }
        let (map, memory) = (self.graph.map, self.graph.memory);
        match self.links.admit(map, memory, self.graph.class, next) {
            Ok(_) => true,
            // Pointers that were all freed at one distance lead to each other.
            Err(behind) => next != at && is_as_far_inside(stray, behind),
        }
    }

    /// Whether an inner pointer that ends a list is more likely a link whose lowest byte a string's end wrote over: it ends in a zero
    /// byte, a block of which no list knows and that can end the list begins within that byte's reach, and the zero that ended the
    /// list stands among zeros, as memory does that nobody used. An inner pointer ends so once in sixteen times at most.
    fn is_cut_short(&self, at: Address, stray: Stray, cursor: &mut Cursor<'_>) -> bool {
        let Stray::Misaligned { block, .. } = stray else {
            return false;
        };
        if at.get() & 0xff != 0 || block.bytes == 0 {
            return false;
        }
        let mut is_zero =
            |word: Option<Address>| word.and_then(|word| cursor.read_u64(word).ok()) == Some(0);
        let among_zeros = is_zero(at.checked_sub(8)) && is_zero(at.checked_add(8));
        let reach = at.get() | 0xff;
        let mut blocks =
            std::iter::successors(block.address.checked_add(block.bytes), |block_at| {
                block_at.checked_add(block.bytes)
            });
        among_zeros
            && blocks
                .by_ref()
                .take_while(|first| first.get() <= reach)
                .any(|first| {
                    self.graph
                        .orphans
                        .chain_is(self.links, first, 1, &|_| false)
                })
    }

    /// Walks the path once more, recording edges into disputed blocks and strays.
    fn collect_edges(&mut self, path: &Path) {
        let (map, memory, class) = (self.graph.map, self.graph.memory, self.graph.class);
        let list = self.keeper.list_ref(&path.list);
        let mut cursor = Cursor::new(memory);
        let mut from: Option<Address> = None;
        let mut at = path.list.head;
        for position in 0..=path.walked {
            if at.is_null() {
                break;
            }
            let edge = Edge {
                list,
                position,
                from,
            };
            match self.links.admit(map, memory, class, at) {
                Ok(block) if map.is_disputed(block) => {
                    let edges = self.edges.entry(at).or_default();
                    if edges.len() < MAX_EDGES
                        && edges.iter().all(|known| known.word() != edge.word())
                    {
                        edges.push(edge);
                    }
                }
                Ok(_) => {}
                Err(stray) => self.add_stray(edge, at, stray, position < path.walked),
            }
            if position == path.walked {
                break; // what the last edge points at has no place in the list
            }
            from = Some(at);
            if position == 0
                && let Some((behind, _)) = &path.in_flight
            {
                at = *behind;
                continue;
            }
            match cursor.read_u64(at) {
                Ok(word) => at = self.links.decode(at, word),
                Err(fault) => {
                    let edge = Edge {
                        list,
                        position: position.saturating_add(1),
                        from,
                    };
                    self.add_stray(edge, at, Stray::Unreadable(fault), false);
                    break;
                }
            }
        }
    }

    fn add_stray(&mut self, edge: Edge, found: Address, stray: Stray, leads_on: bool) {
        if self.graph.strays.len() < MAX_STRAYS && self.seen_strays.insert(edge.word()) {
            self.graph.strays.push(StrayEdge {
                edge,
                path: self.graph.paths.len(),
                found,
                stray,
                leads_on,
            });
        }
    }

    fn finish(self) -> ListGraph<'m> {
        let mut graph = self.graph;
        let map = graph.map;
        graph.junctions = self
            .edges
            .into_iter()
            .filter(|(_, edges)| edges.len() > 1)
            .filter_map(|(at, edges)| {
                Some(Junction {
                    block: map.block_at(at)?.0,
                    edges,
                })
            })
            .collect();
        graph
            .junctions
            .sort_by_key(|junction| junction.block.address);
        graph
    }
}

/// Whether two values lie at the same distance from the start of blocks of their own class.
fn is_as_far_inside(one: Stray, other: Stray) -> bool {
    match (one, other) {
        (Stray::Misaligned { offset, .. }, Stray::Misaligned { offset: other, .. }) => {
            offset == other
        }
        _ => false,
    }
}

/// Edges kept per disputed block.
const MAX_EDGES: usize = 64;
/// Strays kept per group: more are the same damage over and over.
const MAX_STRAYS: usize = 4096;
