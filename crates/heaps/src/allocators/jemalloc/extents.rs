//! All extents, from the page map.

mod mend;

use super::arenas::Arenas;
use super::layout::Layout;
use super::sizes::{PAGE, PAGE_SHIFT, Sizes};
use super::tree::{Element, Tree};
use crate::allocators::books::Suspect;
use ground::parallel;
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

/// `extent_state_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Handed out, or cut into regions.
    Active,
    /// Free, its contents still there.
    Dirty,
    /// Free, given back lazily.
    Muzzy,
    /// Free address space without memory.
    Retained,
    /// Between two states: somebody is working on it (5.3).
    Passing,
    /// A value that jemalloc never writes.
    Impossible,
}

impl State {
    fn of(value: u64) -> Self {
        match value {
            0 => State::Active,
            1 => State::Dirty,
            2 => State::Muzzy,
            3 => State::Retained,
            4 | 5 => State::Passing,
            _ => State::Impossible,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            State::Active => "active",
            State::Dirty => "dirty",
            State::Muzzy => "muzzy",
            State::Retained => "retained",
            State::Passing => "between two states",
            State::Impossible => "in no state that there is",
        }
    }

    /// Place among an arena's page caches.
    pub fn cache(self) -> Option<usize> {
        match self {
            State::Dirty => Some(0),
            State::Muzzy => Some(1),
            State::Retained => Some(2),
            _ => None,
        }
    }
}

/// An extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its descriptor.
    pub at: Address,
    /// The pointer that the program knows, of a large one; not always page-aligned.
    pub address: Address,
    /// Bytes, whole pages.
    pub bytes: u64,
    /// Size class; the number of classes for none.
    pub class: u16,
    /// Free regions, as recorded.
    pub free: u16,
    /// Place of its arena.
    pub arena: u16,
    /// Shard of its bin.
    pub shard: u8,
    /// Its state.
    pub state: State,
    /// Cut into regions.
    pub slab: bool,
    /// First of what the system mapped in one go (5.3; elsewhere false).
    pub head: bool,
    /// A part of a huge page that it does not name.
    pub homeless: bool,
}

const _: () = assert!(size_of::<Row>() <= 40, "an extent costs 40 bytes");

impl Row {
    /// First byte of its first page.
    pub fn start(&self) -> Address {
        Address::new(self.address.get() & !(PAGE - 1))
    }

    /// Number of its first page.
    pub fn first_page(&self) -> u64 {
        self.address.get() >> PAGE_SHIFT
    }

    /// Whether a page is one of its own.
    pub fn holds_page(&self, page: u64) -> bool {
        page.checked_sub(self.first_page())
            .is_some_and(|index| index < self.bytes >> PAGE_SHIFT)
    }

    /// First byte past its last page.
    pub fn end(&self) -> Address {
        self.start().saturating_add(self.bytes)
    }

    /// The descriptor at `at`, if it can be read and describes any memory.
    pub fn read(cursor: &mut Cursor<'_>, layout: &Layout, at: Address) -> Option<Self> {
        let extent = &layout.extent;
        let bits = cursor.read_u64(at).ok()?;
        let address = cursor.read_u64(at.checked_add(extent.address)?).ok()?;
        let bytes = cursor.read_u64(at.checked_add(extent.size)?).ok()? & !(PAGE - 1);
        let start = address & !(PAGE - 1);
        let end = start.checked_add(bytes)?;
        let sound = bytes != 0 && start != 0 && end < MAX_ADDRESS;
        let is_huge = extent.huge.is_some_and(|huge| huge.of(bits) == 1);
        let homeless = is_huge && cursor.read_u64(at.checked_add(extent.huge_page)?) == Ok(0);
        sound.then(|| Self {
            homeless,
            ..Self::described(layout, at, bits, Address::new(address), bytes)
        })
    }

    /// The extent of a descriptor at `at`, from its bits.
    fn described(layout: &Layout, at: Address, bits: u64, address: Address, bytes: u64) -> Self {
        let extent = &layout.extent;
        let small = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        Self {
            at,
            address,
            bytes,
            class: small(extent.class.of(bits)),
            free: small(extent.free.of(bits)),
            arena: small(extent.arena.of(bits)),
            shard: u8::try_from(extent.shard.map_or(0, |shard| shard.of(bits))).unwrap_or(0),
            state: State::of(extent.state.of(bits)),
            slab: extent.slab.of(bits) == 1,
            head: extent.head.is_some_and(|head| head.of(bits) == 1),
            homeless: false,
        }
    }

    /// Whether it is handed out or cut into regions; `none` is the class that means none.
    fn is_in_use(&self, none: u16) -> bool {
        self.state == State::Active && self.class < none
    }

    /// Number of its last page.
    pub fn last_page(&self) -> u64 {
        self.first_page()
            .saturating_add(self.bytes >> PAGE_SHIFT)
            .saturating_sub(1)
    }
}

/// Addresses of a process end here (57 bits).
pub const MAX_ADDRESS: u64 = 1 << 57;

/// A word of a descriptor, or of the page map, that everything else contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// The word, of the descriptor or of the element.
    pub suspect: Suspect,
    /// The descriptor of the extent that it is about.
    pub extent: Address,
}

/// What extents are read with.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The dead process's memory.
    pub memory: &'a dyn TargetMemory,
    /// Layouts.
    pub layout: &'a Layout,
    /// Size classes.
    pub sizes: &'a Sizes,
    /// Arenas: who owns memory, and which of them exist.
    pub arenas: &'a Arenas,
    /// The page map.
    pub tree: &'a Tree,
}

/// All extents.
#[derive(Clone, Debug, Default)]
pub struct Extents {
    /// By address, without overlap.
    pub rows: Vec<Row>,
    /// Words that are wrong, by what the others say.
    pub repairs: Vec<Repair>,
    /// Elements that name nothing, or an extent that does not hold their page.
    pub strays: u64,
    /// Extents that overlap one before them, and are not among the rows.
    pub overlaps: Vec<Row>,
}

/// Elements that one worker looks at.
const CHUNK: u64 = 1 << 15;
/// Bytes of the longest slab whose every page is looked at.
const MAX_SLAB: u64 = 1 << 20;
/// Elements that are remembered of each chunk, and overlaps.
const MAX_STRAYS: usize = 64;
/// Elements that are remembered in all.
const MAX_MENDED: usize = 256;

/// A leaf element and its page.
#[derive(Clone, Copy, Debug)]
struct Named {
    at: Address,
    page: u64,
    element: Element,
}

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    /// Elements that do not agree with the extent that they name, or name none.
    strays: Vec<Named>,
    stray_count: u64,
    /// Extents that contradict the element of their first page in what it repeats of them.
    disputed: Vec<(Row, Named)>,
    /// Extents, and a page of theirs whose element should say so and does not.
    torn: Vec<(Row, Named)>,
}

impl Extents {
    /// Reads every leaf. Linear in the pages that the leaves map.
    pub fn read(source: Source<'_>) -> Self {
        let tree = source.tree;
        let elements = 1u64 << tree.geometry.level_bits();
        let chunks: Vec<(u64, Address)> = tree
            .leaves
            .iter()
            .flat_map(|leaf| {
                (0..elements.div_ceil(CHUNK)).map(move |chunk| {
                    let first = chunk.saturating_mul(CHUNK);
                    let at = leaf
                        .at
                        .saturating_add(first.saturating_mul(tree.geometry.element_bytes()));
                    (leaf.page.saturating_add(first), at)
                })
            })
            .collect();
        let count = elements.min(CHUNK);
        let found = parallel::map(&chunks, |&(page, at)| source.read_chunk(page, at, count));
        let mut out = Self::default();
        let mut strays = Vec::new();
        let mut disputed = Vec::new();
        let mut torn = Vec::new();
        for chunk in found {
            out.rows.extend(chunk.rows);
            out.strays = out.strays.saturating_add(chunk.stray_count);
            strays.extend(chunk.strays);
            disputed.extend(chunk.disputed);
            torn.extend(chunk.torn);
        }
        strays.truncate(MAX_MENDED);
        torn.truncate(MAX_MENDED);
        out.mend(source, &strays, &disputed, &torn);
        out.drop_overlaps();
        out
    }

    /// Leaves one of two extents that claim the same memory: the one that is settled, else the first.
    fn drop_overlaps(&mut self) {
        self.rows.sort_by_key(|row| (row.start(), row.at));
        let mut kept: Vec<Row> = Vec::with_capacity(self.rows.len());
        for row in self.rows.drain(..) {
            match kept.last_mut() {
                Some(before) if row.start() < before.end() => {
                    let settled = |row: &Row| row.state != State::Passing;
                    let dropped = if settled(&row) && !settled(before) {
                        std::mem::replace(before, row)
                    } else {
                        row
                    };
                    if self.overlaps.len() < MAX_STRAYS {
                        self.overlaps.push(dropped);
                    }
                }
                _ => kept.push(row),
            }
        }
        kept.shrink_to_fit();
        self.rows = kept;
    }

    /// Index of the extent that holds an address.
    pub fn index_at(&self, at: Address) -> Option<usize> {
        let index = self
            .rows
            .partition_point(|row| row.start() <= at)
            .checked_sub(1)?;
        (at < self.rows.get(index)?.end()).then_some(index)
    }

    /// The extent that holds an address.
    pub fn at(&self, at: Address) -> Option<&Row> {
        self.rows.get(self.index_at(at)?)
    }
}

impl<'a> Source<'a> {
    /// The same with another tree.
    pub fn with<'b>(self, tree: &'b Tree) -> Source<'b>
    where
        'a: 'b,
    {
        Source { tree, ..self }
    }
}

impl Source<'_> {
    /// Whether a descriptor may lie at `at`.
    pub fn may_be_extent(&self, at: Address) -> bool {
        at.is_aligned(self.layout.extent.alignment) && self.arenas.is_own(at)
    }

    fn read_chunk(&self, first_page: u64, at: Address, count: u64) -> Found {
        let tree = self.tree;
        let mut found = Found::default();
        let mut elements = Cursor::new(self.memory);
        let mut firsts = Cursor::new(self.memory);
        let mut descriptors = Cursor::new(self.memory);
        let mut before = Address::default();
        for (index, here) in tree.geometry.elements(self.memory, at, count) {
            let Some(element) = tree.element(&mut elements, here) else {
                continue;
            };
            // An inner page of a slab repeats the one before.
            if element.extent.is_null() || element.extent == before {
                continue;
            }
            before = element.extent;
            let page = first_page.saturating_add(index);
            let named = Named {
                at: here,
                page,
                element,
            };
            let row = self
                .may_be_extent(element.extent)
                .then(|| Row::read(&mut descriptors, self.layout, element.extent))
                .flatten();
            let agrees = match row {
                Some(row) if row.first_page() == page => {
                    if self.agrees(&row, &element) {
                        found.rows.push(row);
                    } else {
                        found.disputed.push((row, named));
                    }
                    self.check_pages(&mut firsts, &row, &element, &mut found)
                }
                // A last page: the first one must name the extent, too, or not be in the core.
                Some(row) if row.holds_page(page) => {
                    let first = tree.element_at(row.first_page()).unwrap_or_default();
                    let is_absent = self.memory.is_absent(first);
                    if is_absent && self.makes_sense(&row) && row.last_page() == page {
                        found.rows.push(row);
                    }
                    is_absent || tree.extent_of_page(&mut firsts, row.first_page()) == row.at
                }
                _ => false,
            };
            if !agrees {
                found.stray_count = found.stray_count.saturating_add(1);
                if found.strays.len() < MAX_STRAYS {
                    found.strays.push(named);
                }
            }
        }
        found
    }

    /// Compares the elements of an extent's further pages with the one of its first: of a slab on every page, else on
    /// the last one. Says whether all name the extent.
    fn check_pages(
        &self,
        cursor: &mut Cursor<'_>,
        row: &Row,
        first: &Element,
        found: &mut Found,
    ) -> bool {
        let last = row.last_page();
        let is_slab = row.slab && row.is_in_use(self.layout.quantum.classes());
        let from = match is_slab && row.bytes <= MAX_SLAB {
            true => row.first_page().saturating_add(1),
            false => last.max(row.first_page().saturating_add(1)),
        };
        let mut named = true;
        for page in from..=last {
            // Pages that no leaf maps have no element.
            let at = self.tree.element_at(page).unwrap_or_default();
            let element = match at.is_null() {
                // The leaf may be the one that is not in the core.
                true if self.tree.missing > 0 => None,
                true => Some(Element::none()),
                false => self.tree.element(cursor, at),
            };
            let Some(element) = element else {
                continue;
            };
            let same = element.state == first.state
                && (!is_slab || element.class == first.class && element.slab == first.slab)
                && (page != last || element.head == first.head);
            named &= element.extent == row.at;
            if (!same || element.extent != row.at) && found.torn.len() < MAX_STRAYS {
                found.torn.push((*row, Named { at, page, element }));
            }
        }
        named
    }

    /// Whether an extent's own words agree with what its first page's element repeats of them, and make sense.
    pub fn agrees(&self, row: &Row, element: &Element) -> bool {
        let none = self.layout.quantum.classes();
        let same_state = element
            .state
            .is_none_or(|state| State::of(state.into()) == row.state);
        let active = row.is_in_use(none);
        self.makes_sense(row)
            && same_state
            && element.head.is_none_or(|head| head == row.head)
            && (!active || element.class == row.class && element.slab == row.slab)
    }

    /// Whether an extent's own words make sense by themselves.
    fn makes_sense(&self, row: &Row) -> bool {
        let cut = self.sizes.small(row.class);
        let is_slab = row.slab && row.is_in_use(self.layout.quantum.classes());
        self.arenas.get(row.arena).is_some()
            && self
                .arenas
                .holder(row.at)
                .is_none_or(|holder| holder == row.arena)
            && !row.homeless
            && row.state != State::Impossible
            && row.class <= self.layout.quantum.classes()
            && (!is_slab || cut.is_some_and(|cut| cut.slab_bytes == row.bytes))
    }
}
