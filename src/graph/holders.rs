//! Who points at a block, named as a person would: a register, a stack slot of a function's frame, a thread-local, a
//! variable of a module, another block.

pub mod leftover;
mod names;
pub mod tls;
pub mod variables;

use ground::target::{Address, MemoryExt};
use heaps::graph::Universe;
use heaps::graph::lookup::Node;
use heaps::graph::paths;
use heaps::graph::references::{self, Target};
use heaps::graph::roots::Strength;
use heaps::graph::trees::{self, Branch, Extent};
use heaps::map::{Block, BlockState};

use super::Ground;
use crate::types::{self, Type};

/// References that a report shows of one block.
pub const MAX_SHOWN: usize = 16;

/// What kind of place a word stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HolderKind {
    /// A register.
    Register,
    /// The live part of a stack.
    Stack,
    /// Thread-local storage.
    Tls,
    /// A module's variable.
    Global,
    /// A block.
    Heap,
    /// A mapping of the program's own, or one that it shares.
    Mapping,
    /// A word that holds nothing any more: in a free block, on dead stack, in an allocator's own memory.
    History,
}

impl HolderKind {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            HolderKind::Register => "register",
            HolderKind::Stack => "stack",
            HolderKind::Tls => "tls",
            HolderKind::Global => "global",
            HolderKind::Heap => "heap",
            HolderKind::Mapping => "mapping",
            HolderKind::History => "history",
        }
    }
}

/// A block that holds another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HolderBlock {
    /// Its address.
    pub address: Address,
    /// Its usable bytes.
    pub bytes: u64,
    /// Its state.
    pub state: BlockState,
    /// Bytes from its start to the word.
    pub offset: u64,
}

impl HolderBlock {
    /// The block, for a question about its type.
    fn place(self) -> types::Place {
        types::Place {
            address: self.address,
            bytes: self.bytes,
            state: self.state,
        }
    }
}

/// A frame and a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSlot {
    /// Index of the frame, innermost first.
    pub frame: usize,
    /// Its function.
    pub function: Option<String>,
    /// Bytes from the frame's stack pointer; `None` for a register.
    pub offset: Option<i64>,
}

/// A word that points at a block, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What it is.
    pub kind: HolderKind,
    /// What it is worth.
    pub strength: Strength,
    /// Where it is; `None` for a register.
    pub address: Option<Address>,
    /// What it holds.
    pub value: u64,
    /// The thread that it belongs to.
    pub thread: Option<u32>,
    /// The register's name.
    pub register: Option<String>,
    /// The frame that it lies in.
    pub slot: Option<FrameSlot>,
    /// The variable of that frame that it is or belongs to, and the bytes from its start.
    pub variable: Option<(String, u64)>,
    /// The module's or thread's variable that it is or belongs to, and the bytes from its start.
    pub symbol: Option<(String, u64)>,
    /// The module that it lies in, and the bytes from its start.
    pub module: Option<(String, u64)>,
    /// The block that it lies in.
    pub block: Option<HolderBlock>,
    /// What that block holds.
    pub block_type: Option<Type>,
    /// The member that it is: of what its block holds (`next`, `[3].name`), or with its variable (`sessions[9].name`).
    pub member: Option<String>,
    /// What else is known of the place, in words.
    pub note: Option<String>,
    /// Bytes from the target's start at which it points.
    pub points_at: u64,
    /// The member of what the target holds at which it points, where that is not its start.
    pub points_at_member: Option<String>,
}

/// Who points at one address.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// What was asked for.
    pub to: Address,
    /// The block that holds it.
    pub block: Option<HolderBlock>,
    /// What that block holds.
    pub block_type: Option<Type>,
    /// Words that can hold it.
    pub count: u64,
    /// Words that cannot.
    pub history_count: u64,
    /// The first of both, the strongest first, history last.
    pub from: Vec<Holder>,
    /// The shortest chain from a root, root first.
    pub path: Vec<Holder>,
    /// The search for one was given up.
    pub path_cut: bool,
    /// Who holds the holders, if that was asked.
    pub tree: Option<HolderTree>,
    /// What hangs on the block, if that was asked.
    pub down: Option<HolderTree>,
}

/// A row of a tree, named.
#[derive(Clone, Debug)]
pub struct TreeRow {
    /// The row.
    pub branch: Branch,
    /// Its word.
    pub holder: Holder,
    /// Downward: the block that the word points at.
    pub to: Option<HolderBlock>,
    /// What that block holds.
    pub to_type: Option<Type>,
}

/// A tree of references, named.
#[derive(Clone, Debug, Default)]
pub struct HolderTree {
    /// Its rows.
    pub rows: Vec<TreeRow>,
    /// Words of the block that was asked for that are not shown.
    pub more: u64,
    /// Downward: blocks that hang on it, and their bytes.
    pub reached: (u64, u64),
    /// There is more than was looked at.
    pub cut: bool,
}

impl Ground<'_> {
    /// What to look for where an address is meant: the block around it, or the word there.
    pub fn target(&self, at: Address) -> Target {
        let hit = self.universe.lookup.find(at.get());
        let block = hit.and_then(|hit| Target::of(&self.universe, hit.node));
        block.unwrap_or(Target {
            start: at,
            bytes: 1,
            node: None,
        })
    }

    /// Who points at each of these addresses, all in one pass; of the first `paths` of them the way from a root, too.
    pub fn references(&self, addresses: &[Address], keep: usize, paths: usize) -> Vec<References> {
        let targets: Vec<Target> = addresses.iter().map(|at| self.target(*at)).collect();
        // Several addresses may mean one block, which is looked for once.
        let key = |target: &Target| (target.start, target.bytes);
        let mut once = targets.clone();
        once.sort_by_key(key);
        once.dedup_by_key(|target| key(target));
        let found = references::find(&self.universe, &once, keep);
        let none = references::Holders::default();
        let place_of = |target: &Target| once.binary_search_by_key(&key(target), key).ok();
        let mut wanted: Vec<usize> = targets
            .iter()
            .take(paths)
            .filter_map(place_of)
            .filter(|place| found.get(*place).is_some_and(|held| held.count > 0))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        let of_wanted = |place: &usize| once.get(*place).copied().zip(found.get(*place).cloned());
        let (ends, held): (Vec<_>, Vec<_>) = wanted.iter().filter_map(of_wanted).unzip();
        let ways = paths::find(&self.universe, &ends, &held);
        let rows = addresses.iter().zip(&targets).enumerate();
        rows.map(|(number, (to, target))| {
            let place = place_of(target);
            let holders = place.and_then(|place| found.get(place)).unwrap_or(&none);
            let way = place.filter(|_| number < paths);
            let way = way.and_then(|place| ways.get(wanted.binary_search(&place).ok()?));
            let steps = way.map_or(&[][..], |way| &way.steps);
            let from = holders.list.iter().chain(&holders.silent);
            let from: Vec<Holder> = from.map(|reference| self.holder(reference)).collect();
            let block = target
                .node
                .and_then(|node| self.block_of(node, to.offset_from(target.start).unwrap_or(0)));
            References {
                to: *to,
                block,
                block_type: block.and_then(|block| self.type_of(block, &from)),
                path: steps.iter().map(|step| self.holder(step)).collect(),
                path_cut: way.is_some_and(|way| way.cut),
                count: holders.count,
                history_count: holders.silent_count,
                from: {
                    let mut from = from;
                    // What turned out to be left over goes behind what holds.
                    from.sort_by_key(|holder| {
                        (holder.kind == HolderKind::History, holder.strength)
                    });
                    from
                },
                ..References::default()
            }
        })
        .collect()
    }

    /// Who holds an address, and who holds those.
    pub fn holders_of_holders(&self, at: Address, extent: Extent) -> HolderTree {
        self.named(trees::upward(&self.universe, self.target(at), extent))
    }

    /// What hangs on the block at an address; `None` if there is none in use.
    pub fn what_hangs_on(&self, at: Address, extent: Extent) -> Option<HolderTree> {
        let node = self.target(at).node?;
        let is_live = self.universe.lookup.is_live(node);
        is_live.then(|| self.named(trees::downward(&self.universe, node, extent)))
    }

    fn named(&self, tree: trees::Tree) -> HolderTree {
        let rows = tree.rows.into_iter();
        HolderTree {
            rows: rows
                .map(|branch| {
                    let to = branch
                        .node
                        .and_then(|node| self.block_of(node, branch.reference.offset));
                    TreeRow {
                        holder: self.holder(&branch.reference),
                        to,
                        to_type: to.and_then(|block| self.type_of_block(block.place())),
                        branch,
                    }
                })
                .collect(),
            more: tree.more,
            reached: tree.reached,
            cut: tree.cut,
        }
    }

    /// What a block holds: by its own words, else by those beside the pointers to it.
    fn type_of(&self, block: HolderBlock, from: &[Holder]) -> Option<Type> {
        let place = block.place();
        self.type_of_block(place).or_else(|| {
            let pointers = from.iter().filter(|holder| {
                holder.points_at == 0
                    && holder.kind != HolderKind::History
                    && holder.value == block.address.get()
            });
            let memory = self.session.target().memory;
            let mut tables = pointers.filter_map(|holder| {
                let behind = holder.address?.checked_add(8)?;
                memory.read_u64(behind).ok()
            });
            tables.find_map(|table| self.types.of_trait_object(place, table))
        })
    }

    /// A block as a holder shows it.
    pub fn block_of(&self, node: Node, offset: u64) -> Option<HolderBlock> {
        let lookup = &self.universe.lookup;
        let heap = self.analysis.heaps.get(lookup.heap(node)? as usize)?;
        let id = lookup.block_id(node)?;
        let Block { address, bytes, .. } = heap.map.block(id)?;
        Some(HolderBlock {
            address,
            bytes,
            state: heap.map.state(id),
            offset,
        })
    }
}

impl Ground<'_> {
    /// The name of a thread-local variable of the thread at this index.
    pub fn local_at(&self, thread: usize, at: Address) -> Option<String> {
        let thread = self.thread(thread)?;
        let variable = self.thread_locals.variable(self.session, thread, at)?;
        variable.symbol.map(|(name, _)| name)
    }
}

/// Blocks that lie where addresses point, for what is asked of many.
pub fn node_at(universe: &Universe<'_>, at: Address) -> Option<Node> {
    universe.lookup.find(at.get()).map(|hit| hit.node)
}
