//! From typed places along typed pointers to blocks, breadth first.
//!
//! ```text
//! place of a type ──> its pointers, its arrays, its containers ──> blocks ──> claims ──> places of types ...
//! ```
//!
//! A block takes the first claim of the best rank. Its size must be what an allocator gives for that type, and its words must be
//! able to be the type's pointers; a block that is larger takes no claim, but what stands at its start is followed.

mod claims;

use std::collections::{BTreeMap, HashMap, VecDeque};

use ground::target::{Address, Cursor, MemoryExt};
use heaps::graph::lookup::{Node, Numbers};
use heaps::graph::resolve::Resolver;

use super::Limits;
use super::disagreement::{MAX_SEEN, Seen, Watch};
use super::labels::{Label, Labels, Rank, What};
use super::table::{Form, Member, Table, TypeId, Variants};
use crate::graph::Ground;
use crate::types::Type;

/// Values that wait to be looked at.
const MAX_QUEUE: usize = 1 << 24;
/// Parts of one value that wait to be looked at.
const MAX_INSIDE: usize = 1 << 16;
/// Conflicts that are kept.
const MAX_CONFLICTS: usize = 1 << 16;
/// Types that were told in another way.
const MAX_OTHERS: usize = 1 << 15;
/// Usable bytes of the smallest block of any allocator.
const LEAST_BLOCK: u64 = 24;

/// Values of one type that follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Where the first is.
    pub at: u64,
    /// Their type.
    pub of: TypeId,
    /// How many.
    pub count: u64,
}

/// Whether an allocator that was asked for `size` bytes gives a block of `bytes`, and for the next smaller size class does not.
pub fn is_tight(bytes: u64, size: u64) -> bool {
    let Some(slack) = bytes.checked_sub(size).filter(|_| size > 0) else {
        return false;
    };
    bytes <= LEAST_BLOCK || slack < 16 || (bytes > 128 && slack <= bytes / 5)
}

/// Follows types through the memory of one process.
pub struct Walker<'g, 'a, 'c> {
    /// The graph.
    pub ground: &'g Ground<'a>,
    /// The types.
    pub table: Table<'c>,
    /// How well what is followed now is founded.
    pub rank: Rank,
    numbers: Numbers,
    column: Vec<u16>,
    labels: Labels,
    others: Vec<Type>,
    queue: VecDeque<Work>,
    near: Cursor<'g>,
    resolver: Resolver<'g, 'a>,
    /// Types of objects by the address of their virtual table.
    classes: HashMap<u64, Option<TypeId>>,
    modules: (u64, u64),
    left: u64,
    blocks_left: u64,
    conflicts: BTreeMap<u32, u16>,
    larger: BTreeMap<u32, TypeId>,
    watch: Option<Watch>,
    seen: Vec<Seen>,
}

/// What was found, without what it was found with.
pub struct Found {
    pub numbers: Numbers,
    pub column: Vec<u16>,
    pub labels: Labels,
    pub others: Vec<Type>,
    pub conflicts: BTreeMap<u32, u16>,
    /// Types of pointers to blocks that are too small for them.
    pub larger: BTreeMap<u32, TypeId>,
    pub is_cut: bool,
}

impl<'g, 'a, 'c> Walker<'g, 'a, 'c> {
    /// One that has followed nothing; `None` where there are more blocks than can be numbered.
    pub fn new(ground: &'g Ground<'a>, table: Table<'c>, limits: Limits) -> Option<Self> {
        let numbers = Numbers::new(&ground.universe.lookup)?;
        let count = usize::try_from(numbers.count()).ok()?;
        let all = ground.session.modules().modules().iter();
        let lowest = all.clone().map(|module| module.range.start.get()).min();
        let highest = all.map(|module| module.range.end.get()).max();
        Some(Self {
            table,
            rank: Rank::Variable,
            numbers,
            column: vec![0; count],
            labels: Labels::default(),
            others: Vec::new(),
            queue: VecDeque::new(),
            near: Cursor::new(ground.universe.memory),
            resolver: Resolver::new(&ground.universe),
            classes: HashMap::new(),
            modules: (lowest.unwrap_or(u64::MAX), highest.unwrap_or(0)),
            left: limits.steps,
            blocks_left: limits.blocks,
            conflicts: BTreeMap::new(),
            larger: BTreeMap::new(),
            watch: limits.watch,
            seen: Vec::new(),
            ground,
        })
    }

    /// What was found, and the types.
    pub fn finish(self) -> (Found, Table<'c>) {
        let found = Found {
            numbers: self.numbers,
            column: self.column,
            labels: self.labels,
            others: self.others,
            conflicts: self.conflicts,
            larger: self.larger,
            is_cut: self.left == 0 || self.blocks_left == 0,
        };
        (found, self.table)
    }

    /// Notes who holds the block that is watched.
    fn see(&mut self, place: Option<u64>, what: What, of: TypeId) {
        let seen = Seen {
            place,
            what,
            of: self.table.canonical(of),
            rank: self.rank,
        };
        if self.seen.len() < MAX_SEEN && !self.seen.contains(&seen) {
            self.seen.push(seen);
        }
    }

    /// Whether this is the block that is watched.
    fn is_watched(&self, node: Node) -> bool {
        self.watch.is_some_and(|watch| {
            let hit = self.ground.universe.lookup.find(watch.block.get());
            hit.is_some_and(|hit| hit.node == node)
        })
    }

    /// Who was seen to hold the block that is watched.
    pub fn take_seen(&mut self) -> Vec<Seen> {
        std::mem::take(&mut self.seen)
    }

    /// Takes a step; false if there are none left.
    pub fn spend(&mut self) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// The word at an address.
    pub fn word(&mut self, at: u64) -> Option<u64> {
        self.near.read_u64(Address::new(at)).ok()
    }

    /// The word so many bytes behind an address.
    pub fn field(&mut self, at: u64, offset: u64) -> Option<u64> {
        self.word(at.checked_add(offset)?)
    }

    /// A number of 1, 2, 4 or 8 bytes.
    pub fn number(&self, at: u64, bytes: u64) -> Option<u64> {
        let memory = self.ground.universe.memory;
        let at = Address::new(at);
        match bytes {
            1 => memory.read_u8(at).ok().map(u64::from),
            2 => memory.read_u16(at).ok().map(u64::from),
            4 => memory.read_u32(at).ok().map(u64::from),
            8 => memory.read_u64(at).ok(),
            _ => None,
        }
    }

    /// The block in use that begins at an address, and its bytes.
    pub fn block_at(&self, start: u64) -> Option<(Node, u64)> {
        let lookup = &self.ground.universe.lookup;
        let hit = lookup.find(start).filter(|hit| hit.offset == 0)?;
        lookup.heap(hit.node)?;
        let (_, bytes) = lookup.extent(hit.node)?;
        lookup.is_live(hit.node).then_some((hit.node, bytes))
    }

    /// Notes a type that was told in another way.
    pub fn other(&mut self, of: Type) -> Option<What> {
        let known = self.others.iter().position(|other| *other == of);
        let index = match known {
            Some(index) => index,
            None if self.others.len() < MAX_OTHERS => {
                self.others.push(of);
                self.others.len().checked_sub(1)?
            }
            None => return None,
        };
        Some(What::Other(u32::try_from(index).ok()?))
    }

    /// Values to look at.
    pub fn later(&mut self, work: Work) {
        let is_more = work.count > 0 && !self.table.is_inert(work.of);
        if is_more && self.queue.len() < MAX_QUEUE {
            self.queue.push_back(work);
        }
    }

    /// One value that lies within a block that is claimed already.
    pub fn inside(&mut self, at: u64, of: TypeId) {
        self.later(Work { at, of, count: 1 });
    }

    /// Claims a block; `work`: what is in it. False if another claim holds, or the same one already.
    pub fn claim(&mut self, node: Node, label: Label, work: Option<Work>) -> bool {
        let held = match label.what {
            What::Buffer(_) => label.of,
            What::Characters(string) => Some(label.of.unwrap_or(string)),
            _ => None,
        };
        if let Some(of) = held
            && self.is_watched(node)
        {
            self.see(None, label.what, of);
        }
        let lookup = &self.ground.universe.lookup;
        let Some(number) = self.numbers.of(lookup, node) else {
            return false;
        };
        let Some(old) = self.column.get(number as usize).copied() else {
            return false;
        };
        if let Some(known) = self.labels.get(old).copied() {
            let is_better = label.rank > known.rank || self.is_wider(&label, &known);
            if !is_better {
                self.note_conflict(number, &known, label);
                return false;
            }
        }
        let Some(new) = self.labels.number(label).filter(|_| self.blocks_left > 0) else {
            return false;
        };
        self.blocks_left = self.blocks_left.saturating_sub(1);
        if let Some(slot) = self.column.get_mut(number as usize) {
            *slot = new;
        }
        if let Some(work) = work {
            self.later(work);
        }
        true
    }

    /// Whether a claim of the same rank is of a type that begins with the other's: the block of a derived one.
    fn is_wider(&mut self, label: &Label, known: &Label) -> bool {
        let objects = label.what == What::Object && known.what == What::Object;
        match (label.of, known.of) {
            (Some(new), Some(old)) if objects && label.rank == known.rank => {
                !self.table.is_same(new, old) && self.table.begins_with(new, old)
            }
            _ => false,
        }
    }

    fn note_conflict(&mut self, number: u32, known: &Label, label: Label) {
        if known.rank == Rank::Vtable || label.rank == Rank::Prefix || label.what == known.what {
            let is_same = match (label.of, known.of) {
                (Some(new), Some(old)) => {
                    self.table.is_same(new, old) || self.table.begins_with(old, new)
                }
                _ => true,
            };
            if is_same || known.rank == Rank::Vtable || label.rank == Rank::Prefix {
                return;
            }
        }
        if self.conflicts.len() < MAX_CONFLICTS
            && let Some(label) = self.labels.number(label)
        {
            self.conflicts.entry(number).or_insert(label);
        }
    }

    /// Notes a pointer to a block that is too small for its type.
    fn note_larger(&mut self, node: Node, of: TypeId) {
        if self.larger.len() < MAX_CONFLICTS
            && let Some(number) = self.numbers.of(&self.ground.universe.lookup, node)
        {
            self.larger.entry(number).or_insert(of);
        }
    }

    fn known(&self, node: Node) -> Option<&Label> {
        let number = self.numbers.of(&self.ground.universe.lookup, node)?;
        self.labels.get(*self.column.get(number as usize)?)
    }

    /// Looks at everything that waits, and at what is found there.
    pub fn run(&mut self) {
        let mut inside: Vec<(u64, TypeId, u64)> = Vec::new();
        while let Some(work) = self.queue.pop_front() {
            inside.push((work.at, work.of, work.count));
            while let Some((at, of, count)) = inside.pop() {
                if !self.spend() {
                    self.queue.clear();
                    return;
                }
                if count > 1
                    && let Some(next) = self
                        .table
                        .get(of)
                        .and_then(|known| at.checked_add(known.size).filter(|next| *next > at))
                {
                    inside.push((next, of, count.saturating_sub(1)));
                }
                self.value(at, of, &mut inside);
            }
        }
    }

    /// Looks at one value; its parts go on the list.
    fn value(&mut self, at: u64, of: TypeId, inside: &mut Vec<(u64, TypeId, u64)>) -> Option<()> {
        let known = self.table.get(of)?;
        match &known.form {
            Form::Pointer(Some(target)) => {
                let value = self.word(at)?;
                self.point(Some(at), value, *target);
            }
            Form::Array { element, count } => {
                let count = count.unwrap_or(0);
                if count > 0 && !self.table.is_inert(*element) {
                    inside.push((at, *element, count));
                }
            }
            Form::Structure(structure) => {
                if let Some(kind) = structure.container {
                    return self.container(kind, at, of);
                }
                self.members(at, &structure.members, inside);
                if let Some(variants) = &structure.variants {
                    self.variant(at, variants, inside);
                }
            }
            _ => {}
        }
        Some(())
    }

    fn members(&mut self, at: u64, members: &[Member], inside: &mut Vec<(u64, TypeId, u64)>) {
        for member in members.iter().rev() {
            if !self.table.is_inert(member.of)
                && inside.len() < MAX_INSIDE
                && let Some(at) = at.checked_add(member.offset)
            {
                inside.push((at, member.of, 1));
            }
        }
    }

    /// The members of the variant that holds.
    fn variant(
        &mut self,
        at: u64,
        variants: &Variants,
        inside: &mut Vec<(u64, TypeId, u64)>,
    ) -> Option<()> {
        let value = match variants.discriminant {
            Some((offset, bytes)) => Some((self.number(at.checked_add(offset)?, bytes)?, bytes)),
            None => None,
        };
        let is_it = |case: &&(Option<u64>, Vec<Member>)| match (value, case.0) {
            (Some((value, bytes)), Some(expected)) => {
                let mask = u64::MAX >> 64u64.saturating_sub(bytes.saturating_mul(8)).min(63);
                value == expected & mask
            }
            _ => false,
        };
        let others = || variants.cases.iter().find(|(number, _)| number.is_none());
        let case = variants.cases.iter().find(is_it).or_else(others)?;
        let is_certain = value.is_some() || variants.cases.len() == 1;
        if is_certain {
            self.members(at, &case.1, inside);
        }
        Some(())
    }

    /// The target of the pointer so many bytes into a value of the type.
    pub fn target_at(&mut self, of: TypeId, offset: u64) -> Option<TypeId> {
        let (mut id, mut offset) = (of, offset);
        for _ in 0..super::table::MAX_DEPTH {
            let known = self.table.get(id)?;
            match &known.form {
                Form::Pointer(target) => return target.filter(|_| offset == 0),
                Form::Array { element, .. } => {
                    offset = offset.checked_rem(self.table.get(*element)?.size)?;
                    id = *element;
                }
                Form::Structure(structure) => {
                    let mut members = structure.members.iter();
                    let (inside, of) = members.find_map(|member| {
                        let inside = offset.checked_sub(member.offset)?;
                        let size = self.table.get(member.of)?.size;
                        (inside < size).then_some((inside, member.of))
                    })?;
                    (offset, id) = (inside, of);
                }
                _ => return None,
            }
        }
        None
    }
}
