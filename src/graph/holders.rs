//! Who points at a block, named as a person would: a register, a stack slot of a function's frame, a thread-local, a
//! variable of a module, another block.

mod tls;

use ground::target::{Address, Frame, SymbolTable, Thread};
use heaps::graph::Universe;
use heaps::graph::lookup::Node;
use heaps::graph::paths;
use heaps::graph::references::{self, Place, Reference, Target};
use heaps::graph::roots::{RootKind, Strength};
use heaps::map::{Block, BlockState};

use super::{Ground, roots};

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

/// A frame and a place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameSlot {
    /// Index of the frame, innermost first.
    pub frame: usize,
    /// Its function.
    pub function: Option<String>,
    /// Bytes from the frame's stack pointer.
    pub offset: i64,
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
    /// The variable that it is or belongs to, and the bytes from its start.
    pub symbol: Option<(String, u64)>,
    /// The module that it lies in, and the bytes from its start.
    pub module: Option<(String, u64)>,
    /// The block that it lies in.
    pub block: Option<HolderBlock>,
    /// What else is known of the place, in words.
    pub note: Option<String>,
    /// Bytes from the target's start at which it points.
    pub points_at: u64,
}

/// Who points at one address.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// What was asked for.
    pub to: Address,
    /// The block that holds it.
    pub block: Option<HolderBlock>,
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
}

impl Ground<'_> {
    /// What to look for where an address is meant: the block around it, or the word there.
    fn target(&self, at: Address) -> Target {
        let hit = self.universe.lookup.find(at.get());
        let block = hit.and_then(|hit| Target::of(&self.universe, hit.node));
        block.unwrap_or(Target {
            start: at,
            bytes: 1,
            node: None,
        })
    }

    /// Who points at each of these addresses: all in one pass.
    pub fn references(&self, addresses: &[Address], keep: usize) -> Vec<References> {
        let targets: Vec<Target> = addresses.iter().map(|at| self.target(*at)).collect();
        // Several addresses may mean one block, which is looked for once.
        let key = |target: &Target| (target.start, target.bytes);
        let mut once = targets.clone();
        once.sort_by_key(key);
        once.dedup_by_key(|target| key(target));
        let found = references::find(&self.universe, &once, keep);
        let none = references::Holders::default();
        let rows = addresses.iter().zip(&targets);
        rows.map(|(to, target)| {
            let place = once.binary_search_by_key(&key(target), key);
            let holders = place
                .ok()
                .and_then(|place| found.get(place))
                .unwrap_or(&none);
            let from = holders.list.iter().chain(&holders.silent);
            References {
                to: *to,
                block: target.node.and_then(|node| {
                    self.block_of(node, to.offset_from(target.start).unwrap_or(0))
                }),
                count: holders.count,
                history_count: holders.silent_count,
                from: from.map(|reference| self.holder(reference)).collect(),
                path: Vec::new(),
                path_cut: false,
            }
        })
        .collect()
    }

    /// The shortest chain from a root to an address.
    pub fn path(&self, at: Address) -> (Vec<Holder>, bool) {
        let path = paths::find(&self.universe, self.target(at));
        let steps = path.steps.iter();
        (
            steps.map(|reference| self.holder(reference)).collect(),
            path.cut,
        )
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

    /// Names a reference.
    pub fn holder(&self, reference: &Reference) -> Holder {
        let mut holder = Holder {
            kind: HolderKind::History,
            strength: reference.strength,
            address: Some(reference.at),
            value: reference.value,
            thread: None,
            register: None,
            slot: None,
            symbol: None,
            module: None,
            block: None,
            note: None,
            points_at: reference.offset,
        };
        match reference.place {
            Place::Register(index) => self.name_register(&mut holder, index),
            Place::Root(index) => self.name_root(&mut holder, index, reference.at),
            Place::Node(node, offset) => {
                holder.block = self.block_of(node, offset);
                holder.kind = match holder.block {
                    Some(_) => HolderKind::Heap,
                    None => HolderKind::Mapping,
                };
                let mapping = self.universe.lookup.mapping(node);
                let mapping = mapping.and_then(|index| self.mappings.get(index as usize));
                holder.note = mapping.map(|range| {
                    format!(
                        "+{offset:#x} in the program's own mapping {}-{}",
                        range.start, range.end
                    )
                });
            }
            Place::Free(node, offset) => {
                holder.block = self.block_of(node, offset);
                holder.strength = Strength::Weak;
                holder.note = Some("a free block: what it held before".into());
            }
            Place::Silent => {
                holder.strength = Strength::Weak;
                self.name_silent(&mut holder, reference.at);
            }
        }
        holder
    }

    fn thread(&self, index: usize) -> Option<&Thread> {
        self.session.threads().list().get(index)
    }

    fn name_register(&self, holder: &mut Holder, index: u32) {
        holder.kind = HolderKind::Register;
        holder.address = None;
        let Some(register) = self.universe.registers.get(index as usize) else {
            return;
        };
        let thread = self.thread(register.thread as usize);
        holder.thread = thread.map(|thread| thread.tid);
        holder.register = match register.number.checked_sub(roots::FIRST_VECTOR) {
            Some(vector) => self.vectors.get(usize::from(vector)).cloned(),
            None => Some(
                self.session
                    .threads()
                    .register_name(register.number)
                    .to_owned(),
            ),
        };
    }

    fn name_root(&self, holder: &mut Holder, index: u32, at: Address) {
        let Some(root) = self.universe.roots.get(index as usize) else {
            return;
        };
        let owner = root.owner as usize;
        match root.kind {
            RootKind::Stack => {
                holder.kind = HolderKind::Stack;
                holder.thread = self.thread(owner).map(|thread| thread.tid);
                holder.slot = self.slot(owner, at, root.range.start);
            }
            RootKind::Tls => {
                holder.kind = HolderKind::Tls;
                holder.thread = self.thread(owner).map(|thread| thread.tid);
                let found = self
                    .thread(owner)
                    .and_then(|thread| tls::variable(self.session, thread, at));
                if let Some(variable) = found {
                    holder.symbol = Some(variable.symbol);
                    holder.module = Some(variable.module);
                }
            }
            RootKind::Global => {
                holder.kind = HolderKind::Global;
                let module = self.session.target().modules.get(owner);
                if let Some(module) = module {
                    let offset = at.offset_from(module.range.start).unwrap_or(0);
                    holder.module = Some((module.name.clone(), offset));
                    holder.symbol = self.session.debug_info().variable_at(module.id, at);
                }
            }
            RootKind::Mapping => {
                holder.kind = HolderKind::Mapping;
                holder.note = Some(match root.any_byte {
                    true => "code that was made at run time".into(),
                    false => format!("the mapping at {}", root.range.start),
                });
            }
        }
    }

    /// The frame of a thread that a place of its stack lies in. `floor`: where that stack's live part begins.
    fn slot(&self, thread: usize, at: Address, floor: Address) -> Option<FrameSlot> {
        let frames = self.session.threads().frames(thread);
        // Frames of another stack lie outside of this one.
        let here = frames
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.sp >= floor);
        let below = here.clone().filter(|(_, frame)| frame.sp <= at);
        let found = below.max_by_key(|(index, frame)| (frame.sp, *index));
        let (index, frame) =
            found.or_else(|| here.min_by_key(|(index, frame)| (frame.sp, *index)))?;
        let offset = i128::from(at.get()) - i128::from(frame.sp.get());
        Some(FrameSlot {
            frame: index,
            function: self.function(frame),
            offset: i64::try_from(offset).ok()?,
        })
    }

    fn function(&self, frame: &Frame) -> Option<String> {
        let found = self
            .session
            .debug_info()
            .function_at(frame.module?, frame.lookup)?;
        Some(found.name)
    }

    /// Memory that is no source.
    fn name_silent(&self, holder: &mut Holder, at: Address) {
        let is_own = self.universe.lookup.is_own(at.get());
        let mut heaps = self.analysis.heaps.iter().zip(&self.own);
        let owner = heaps.find(|(heap, own)| {
            let inside = is_own && heap.map.place(at).is_some();
            inside || own.contains(at)
        });
        if let Some((heap, _)) = owner {
            holder.note = Some(format!("{}'s own memory", heap.identity.name));
            return;
        }
        let memory = self.session.memory();
        let region = ground::target::MemoryExt::region_at(memory, at);
        let threads = self.session.threads().list().iter();
        let mut on_it = threads.filter(|thread| {
            region.is_some_and(|region| region.range.contains(&thread.sp)) && thread.sp > at
        });
        let thread = on_it.next();
        holder.thread = thread.map(|thread| thread.tid);
        holder.note = Some(match thread {
            Some(_) => "dead stack, below the stack pointer".into(),
            None => "memory that is in use no more".into(),
        });
    }
}

impl Ground<'_> {
    /// The name of a thread-local variable of the thread at this index.
    pub fn local_at(&self, thread: usize, at: Address) -> Option<String> {
        let variable = tls::variable(self.session, self.thread(thread)?, at)?;
        Some(variable.symbol.0)
    }
}

/// Blocks that lie where addresses point, for what is asked of many.
pub fn node_at(universe: &Universe<'_>, at: Address) -> Option<Node> {
    universe.lookup.find(at.get()).map(|hit| hit.node)
}
