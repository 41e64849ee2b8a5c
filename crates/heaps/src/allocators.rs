//! The allocators that heapcheck knows: one folder each, one line each in `ALLOCATORS`.

mod books;
pub mod jemalloc;
pub mod ptmalloc;
mod residue;
mod size_ranges;
pub mod tcmalloc;

use std::ops::Range;

use crate::anomaly::Anomaly;
use crate::anomaly::ListRef;
use crate::list::{FreeList, ListWalk};
use crate::map::{Block, HeapMap, MapBuilder};
use ground::target::{Address, Frame, LocatedBy, Module, ModuleId, Target};

pub use residue::{Residue, Standing};

/// Which allocator: what tells those apart that do not behave alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// gperftools'.
    Tcmalloc,
    /// glibc's: the only one whose blocks have headers in front.
    Ptmalloc,
    /// jemalloc.
    Jemalloc,
    /// musl's, which is not walked.
    Musl,
    /// Another one that is not walked, by name.
    Other(&'static str),
}

impl Family {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Family::Tcmalloc => "tcmalloc",
            Family::Ptmalloc => "ptmalloc",
            Family::Jemalloc => "jemalloc",
            Family::Musl => "musl",
            Family::Other(name) => name,
        }
    }
}

/// Who an allocator is and how that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeapIdentity {
    /// Which one.
    pub family: Family,
    /// `gperftools`; `None` where there is one variant only.
    pub variant: Option<&'static str>,
    /// Release, or range of releases that share the layout (`2.7-2.10`), if known.
    pub version: Option<String>,
    /// The module that holds its state.
    pub module: ModuleId,
    /// How each part was found, and where.
    pub located: Vec<LocatedPart>,
}

impl HeapIdentity {
    /// The allocator's name in a report.
    pub fn name(&self) -> &'static str {
        self.family.name()
    }

    /// The weakest way used for any part.
    pub fn located_by(&self) -> LocatedBy {
        self.located
            .iter()
            .map(|part| part.by)
            .max()
            .unwrap_or(LocatedBy::Structure)
    }
}

/// A part of an allocator's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedPart {
    /// Its name in the allocator's source (`Static::pageheap_`).
    pub part: &'static str,
    /// Where it is.
    pub at: Address,
    /// How it was found.
    pub by: LocatedBy,
}

/// A number of blocks and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Blocks.
    pub blocks: u64,
    /// Usable bytes.
    pub bytes: u64,
}

impl Tally {
    /// Counts more blocks.
    pub fn add(&mut self, blocks: u64, bytes: u64) {
        self.blocks = self.blocks.saturating_add(blocks);
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// Takes blocks back.
    fn take(&mut self, blocks: u64, bytes: u64) {
        self.blocks = self.blocks.saturating_sub(blocks);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

/// What a heap holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Handed out to the program.
    pub in_use: Tally,
    /// In any free list or cache.
    pub free: Tally,
    /// Free, but cut off from every list by damage.
    pub lost: Tally,
    /// Memory that the allocator holds from the system, its own structures included.
    pub mapped_bytes: u64,
    /// Every byte of `mapped_bytes` accounted for.
    pub coverage: Coverage,
    /// By size class, rising; classes without blocks are left out.
    pub size_classes: Vec<SizeClassRow>,
    /// What of the free blocks caches and quick lists hold that hand out without asking the heap, in bytes.
    pub cached_bytes: u64,
    /// What the allocator's own statistics would have said, under their own names and in their order.
    pub figures: Vec<Figure>,
}

/// One number of an allocator's own statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Its name there.
    pub name: &'static str,
    /// The number; `None` where a core does not tell.
    pub value: Option<u64>,
}

impl Figure {
    /// A number that the core tells.
    fn known(name: &'static str, value: u64) -> Self {
        Self {
            name,
            value: Some(value),
        }
    }
}

/// Where the bytes went. The sum is what the allocator holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Blocks handed out.
    pub in_use: u64,
    /// Free blocks (lost ones included) and free spans.
    pub free: u64,
    /// The allocator's own structures.
    pub metadata: u64,
    /// Ends of spans too short for a block.
    pub tails: u64,
    /// Held, but not understood.
    pub unknown: u64,
}

impl Coverage {
    /// All bytes.
    pub fn total(&self) -> u64 {
        let parts = [
            self.in_use,
            self.free,
            self.metadata,
            self.tails,
            self.unknown,
        ];
        sum(parts.into_iter())
    }
}

/// One size class, or a range of sizes that have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeClassRow {
    /// Bytes of a block; of the smallest that the range can hold.
    pub block_bytes: u64,
    /// Blocks handed out.
    pub in_use: u64,
    /// Blocks in lists.
    pub free: u64,
    /// Blocks cut off by damage.
    pub lost: u64,
    /// `None` for a class: its blocks are all of one size.
    pub range: Option<SizeRange>,
}

/// What a range of sizes holds, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeRange {
    /// Bytes of the largest block that it can hold.
    pub largest: u64,
    /// Bytes handed out.
    pub in_use: u64,
    /// Bytes in lists.
    pub free: u64,
    /// Bytes cut off by damage.
    pub lost: u64,
}

impl SizeClassRow {
    /// Bytes of the largest block that it can hold, bytes handed out, in lists, and cut off.
    pub fn range(&self) -> SizeRange {
        self.range.unwrap_or(SizeRange {
            largest: self.block_bytes,
            in_use: self.in_use.saturating_mul(self.block_bytes),
            free: self.free.saturating_mul(self.block_bytes),
            lost: self.lost.saturating_mul(self.block_bytes),
        })
    }
}

/// An allocator's own facts for the report, as a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Not known.
    None,
    /// A count or a number of bytes.
    Number(u64),
    /// A name.
    Text(String),
    /// An address.
    Address(Address),
    /// Addresses of code, innermost call first: the report names their functions.
    Code(Vec<Address>),
    /// Several.
    List(Vec<Detail>),
    /// Named ones, in order.
    Table(Vec<(&'static str, Detail)>),
}

/// Something that was not analysed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// What was not analysed.
    pub what: String,
    /// Why not.
    pub why: String,
    /// The heap as a whole was therefore not wholly analysed (exit status 3).
    pub incomplete: bool,
}

/// What looking for an allocator found.
pub enum Detection<'t> {
    /// It is not in this process, as far as the core shows.
    Absent {
        /// What was looked for, for a user who forced this allocator.
        looked_for: String,
    },
    /// It is there, but cannot be read.
    Unusable(Limit),
    /// Its heaps: one per module that holds a copy.
    Found {
        /// The heaps.
        heaps: Vec<Box<dyn Heap + 't>>,
        /// Copies that could not be read.
        limits: Vec<Limit>,
    },
}

/// Why a module's copy of an allocator could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is none in this module.
    NotHere,
    /// There is one, or should be one by its name, but a part was not found.
    Incomplete(String),
}

/// A module's copy of an allocator, or what stands against it.
enum Copy<'t> {
    Read(Box<dyn Heap + 't>),
    Missed(Miss),
    /// Another build than those that are known.
    Refused(Limit),
}

impl<'t> Detection<'t> {
    /// Looks at every module of the process with `look`; `allocator` and `looked_for` are for the user.
    fn in_modules(
        target: Target<'t>,
        allocator: &str,
        looked_for: &str,
        look: impl Fn(&'t Module) -> Copy<'t>,
    ) -> Self {
        let (mut heaps, mut limits) = (Vec::new(), Vec::new());
        for module in target.modules {
            match look(module) {
                Copy::Read(heap) => heaps.push(heap),
                Copy::Refused(limit) => limits.push(limit),
                Copy::Missed(Miss::NotHere) => {}
                Copy::Missed(Miss::Incomplete(why)) => limits.push(Limit {
                    what: format!("the {allocator} heap of {}", module.name),
                    why,
                    incomplete: true,
                }),
            }
        }
        if !heaps.is_empty() {
            return Detection::Found { heaps, limits };
        }
        match limits.into_iter().next() {
            Some(limit) => Detection::Unusable(limit),
            None => Detection::Absent {
                looked_for: looked_for.into(),
            },
        }
    }
}

/// The sum of numbers that a core states: a damaged one may state any.
pub(crate) fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// An allocator that heapcheck knows.
pub trait Allocator: Sync {
    /// Its name in reports and on the command line.
    fn name(&self) -> &'static str;

    /// Looks for it in a process.
    fn detect<'t>(&self, target: Target<'t>) -> Detection<'t>;
}

/// What [`Heap::describe`] says of an irregular group of lists.
#[derive(Clone, Debug, Default)]
pub struct GroupReport {
    /// What is out of order.
    pub anomalies: Vec<Anomaly>,
    /// Free blocks that damage cut off and that could not be told one by one; those that could are
    /// marked in the map.
    pub lost_blocks: u64,
    /// What could not be followed to its end.
    pub limits: Vec<Limit>,
}

/// What [`Heap::settle`] makes of the finished walk.
#[derive(Clone, Debug, Default)]
pub struct Settled {
    /// What is out of order in the bookkeeping.
    pub anomalies: Vec<Anomaly>,
    /// What the heap holds.
    pub statistics: Statistics,
    /// The allocator's own facts for the report.
    pub details: Vec<(&'static str, Detail)>,
    /// What was not analysed.
    pub limits: Vec<Limit>,
}

/// One heap of an allocator. Exists only once its state is found and its layout resolved.
pub trait Heap: Sync {
    /// Who it is and how it was found.
    fn identity(&self) -> HeapIdentity;

    /// log2 of the page at which its extents begin.
    fn page_shift(&self) -> u32;

    /// Extents: how the memory is cut, and what the owner says of each piece.
    fn carve(&self, out: &mut MapBuilder);

    /// Number of groups of lists. Lists of different groups share no entries.
    fn groups(&self) -> u16;

    /// The lists of a group: independent units of work.
    fn free_lists(&self, group: u16) -> Vec<FreeList>;

    /// Follows some lists of one group; the walk advances several in turn.
    fn follow(&self, lists: &[FreeList], walk: &mut ListWalk<'_>);

    /// Looks once more at a group whose lists are not all as they should be, says what is wrong,
    /// and corrects the map's `listed` and `lost` columns for the group's blocks.
    fn describe(&self, lists: &[FreeList], map: &HeapMap) -> GroupReport;

    /// Checks the bookkeeping and counts. `groups`: what each group's irregularities were.
    fn settle(&self, map: &HeapMap, groups: &[GroupReport]) -> Settled;

    /// Call stacks that the allocator recorded when the block was allocated, innermost first.
    fn recorded_stack(&self, _block: Address) -> Option<Vec<Address>> {
        None
    }

    /// The list that holds a free block one by one, and its place there.
    fn standing(&self, map: &HeapMap, block: Block) -> Option<Standing>;

    /// What the `bytes` bytes `word` at `offset` of a free block are, if the allocator wrote them. `list`: where it stands.
    fn residue(
        &self,
        map: &HeapMap,
        block: Block,
        place: (u64, u64),
        word: u64,
        list: Option<ListRef>,
    ) -> Option<Residue>;

    /// What the `bytes` bytes `word` at `offset` of a block in use are, if the allocator left them there and the program never wrote
    /// over them.
    fn left_over(
        &self,
        _map: &HeapMap,
        _block: Block,
        _place: (u64, u64),
        _word: u64,
    ) -> Option<Residue> {
        None
    }

    /// What a value is that the allocator writes into free blocks only, wherever it was met.
    fn signature(&self, _word: u64) -> Option<Residue> {
        None
    }

    /// Memory beside its extents that it keeps for itself: its variables, what lies between and around its blocks. No word there is
    /// the program's. May overlap.
    fn own_memory(&self) -> Vec<Range<Address>>;

    /// Addresses that it keeps for itself beyond its extents, given back or not used yet: no word there is anybody's.
    fn kept_memory(&self) -> Vec<Range<Address>> {
        Vec::new()
    }

    /// The number of the arena that the memory at `at` belongs to; `None` where there are none, or it cannot be told.
    fn arena(&self, _at: Address) -> Option<u32> {
        None
    }

    /// Whether it cannot be told what the memory at `at` is to the allocator, because what would say so is not in the core.
    fn is_unknown(&self, at: Address) -> bool;

    /// Whether a part of what tells of its memory is not in the core: sums need not agree.
    fn is_partial(&self) -> bool;

    /// Whether a frame runs the allocator's code; `None` if that cannot be told.
    fn runs(&self, frame: &Frame) -> Option<bool>;
}

/// Every allocator that heapcheck knows, in the order in which they are looked for.
pub static ALLOCATORS: &[&dyn Allocator] = &[
    &tcmalloc::Tcmalloc,
    &jemalloc::Jemalloc,
    &ptmalloc::Ptmalloc,
];
