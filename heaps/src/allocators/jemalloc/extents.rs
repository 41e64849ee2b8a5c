//! All extents, from the page map.

use super::layout::Layout;
use super::sizes::{PAGE, PAGE_SHIFT};
use super::tree::Tree;
use crate::parallel;
use crate::target::{Address, Cursor, TargetMemory};

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
    /// It comes from the huge page allocator.
    pub huge_page: bool,
}

const _: () = assert!(size_of::<Row>() <= 40, "an extent costs 40 bytes");

impl Row {
    /// First byte of its first page.
    pub fn start(&self) -> Address {
        Address::new(self.address.get() & !(PAGE - 1))
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
        if bytes == 0 || start == 0 || start.checked_add(bytes).is_none() {
            return None;
        }
        let small = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        let flag = |bit: Option<super::layout::BitsAt>| bit.is_some_and(|bit| bit.of(bits) == 1);
        Some(Self {
            at,
            address: Address::new(address),
            bytes,
            class: small(extent.class.of(bits)),
            free: small(extent.free.of(bits)),
            arena: small(extent.arena.of(bits)),
            shard: u8::try_from(extent.shard.map_or(0, |shard| shard.of(bits))).unwrap_or(0),
            state: State::of(extent.state.of(bits)),
            slab: extent.slab.of(bits) == 1,
            huge_page: flag(extent.huge_page),
        })
    }
}

/// A leaf element that does not agree with the extent that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The element.
    pub at: Address,
    /// The page that it is of.
    pub page: u64,
    /// The descriptor that it names.
    pub extent: Address,
}

/// All extents.
#[derive(Clone, Debug, Default)]
pub struct Extents {
    /// By address, without overlap.
    pub rows: Vec<Row>,
    /// Elements that name no extent, or one that does not hold their page.
    pub strays: Vec<Stray>,
    /// Their number.
    pub stray_count: u64,
    /// Extents that overlap one before them, and are not among the rows.
    pub overlaps: Vec<Row>,
}

/// Elements that one worker looks at.
const CHUNK: u64 = 1 << 15;
/// Elements and overlaps that are remembered of each chunk.
const MAX_STRAYS: usize = 64;

#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    strays: Vec<Stray>,
    stray_count: u64,
}

impl Extents {
    /// Reads every leaf. Linear in the pages that the leaves map. `is_own`: whether memory is the
    /// allocator's own, as all descriptors are.
    pub fn read(
        memory: &dyn TargetMemory,
        layout: &Layout,
        tree: &Tree,
        is_own: &(dyn Fn(Address) -> bool + Sync),
    ) -> Self {
        let elements = 1u64 << tree.geometry.level_bits();
        let chunks: Vec<(u64, Address)> = tree
            .leaves
            .iter()
            .flat_map(|leaf| {
                (0..elements.div_ceil(CHUNK)).map(move |chunk| {
                    let first = chunk * CHUNK;
                    let at = leaf
                        .at
                        .saturating_add(first * tree.geometry.element_bytes());
                    (leaf.page + first, at)
                })
            })
            .collect();
        let count = elements.min(CHUNK);
        let found = parallel::map(&chunks, |&(page, at)| {
            read_chunk(memory, layout, tree, is_own, page, at, count)
        });
        let mut out = Self::default();
        for chunk in found {
            out.rows.extend(chunk.rows);
            out.stray_count += chunk.stray_count;
            out.strays.extend(chunk.strays);
        }
        out.strays.truncate(MAX_STRAYS);
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

fn read_chunk(
    memory: &dyn TargetMemory,
    layout: &Layout,
    tree: &Tree,
    is_own: &(dyn Fn(Address) -> bool + Sync),
    first_page: u64,
    at: Address,
    count: u64,
) -> Found {
    let mut found = Found::default();
    let mut elements = Cursor::new(memory);
    let mut descriptors = Cursor::new(memory);
    let mut before = Address::default();
    for index in 0..count {
        let here = at.saturating_add(index * tree.geometry.element_bytes());
        let Some(element) = tree.element(&mut elements, here) else {
            continue;
        };
        // An inner page of a slab repeats the one before.
        if element.extent.is_null() || element.extent == before {
            continue;
        }
        before = element.extent;
        let page = first_page + index;
        let row = (element.extent.is_aligned(layout.extent.alignment) && is_own(element.extent))
            .then(|| Row::read(&mut descriptors, layout, element.extent))
            .flatten();
        match row {
            Some(row) if row.start().get() >> PAGE_SHIFT == page => found.rows.push(row),
            Some(row) if (row.start().get()..row.end().get()).contains(&(page << PAGE_SHIFT)) => {}
            _ => {
                found.stray_count += 1;
                if found.strays.len() < MAX_STRAYS {
                    found.strays.push(Stray {
                        at: here,
                        page,
                        extent: element.extent,
                    });
                }
            }
        }
    }
    found
}
