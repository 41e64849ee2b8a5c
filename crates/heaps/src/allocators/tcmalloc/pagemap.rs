//! The page map: from pages to spans.
//!
//! ```text
//! root ──> leaf ──> Span*     page number = root index, leaf index
//! ```
//!
//! A span writes the entries of its first and last page; a span of small objects writes those
//! between, too. Other entries are stale: they name former spans, or deleted `Span` objects, and
//! mean nothing. So an entry is taken only at the span's own first page, and only if its last
//! page agrees.

mod recover;

use crate::anomaly::Field;
use std::cell::Cell;

use super::locate::Located;
use crate::map::Bits;
use ground::parallel;
use ground::scan::words_in;
use ground::target::{Address, Cursor, MemoryExt, TargetMemory};

/// `Span.location`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanLocation {
    /// Cut into objects, or handed out whole.
    InUse,
    /// Free, in a page heap's list.
    Normal,
    /// Free, its pages given back to the system.
    Returned,
    /// The value 3, which gperftools never writes.
    Impossible,
}

impl SpanLocation {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            SpanLocation::InUse => "InUse",
            SpanLocation::Normal => "Normal",
            SpanLocation::Returned => "Returned",
            SpanLocation::Impossible => "Impossible",
        }
    }
}

/// A live span.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// Address of the `Span` object.
    pub at: Address,
    /// First page number.
    pub start: u64,
    /// Pages.
    pub length: u64,
    /// `objects`: first free object of a small span, stack trace of a sampled one.
    pub objects: Address,
    /// Objects that are not in the span's chain.
    pub refcount: u16,
    /// 0 for a span of its own.
    pub class: u8,
    /// Where it is.
    pub location: SpanLocation,
    /// A sampled allocation.
    pub sample: bool,
}

const _: () = assert!(size_of::<Span>() <= 40, "a span row costs 40 bytes");

impl Span {
    /// Whether it is cut into objects of a class.
    pub fn is_small(&self) -> bool {
        self.location == SpanLocation::InUse && self.class > 0
    }

    /// Page behind the last.
    pub fn end(&self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// All live spans, by page.
pub struct Spans {
    rows: Vec<Span>,
    /// Spans seen on a central list.
    central: Bits,
    /// Leaves of the page map.
    pub leaves: Vec<Address>,
    /// Leaves whose memory is not in the core, or not all of it.
    pub missing_leaves: u64,
    /// The same leaves with their place in the root.
    index: Vec<(u64, Address)>,
    /// Words of spans and of the page map that were written over, and what they must have held.
    pub repairs: Vec<SpanRepair>,
}

/// A word of a span, or of the page map, that was written over: everything else tells what it held.
#[derive(Clone, Debug)]
pub struct SpanRepair {
    /// The span.
    pub span: Address,
    /// Its first page.
    pub start: u64,
    /// The word.
    pub at: Address,
    /// What it is.
    pub what: Field,
    /// What it must have held.
    pub expected: u64,
    /// What it holds.
    pub found: u64,
}

/// Page map entries that one worker looks at.
const CHUNK: u64 = 1 << 15;

impl Spans {
    /// Reads the whole page map. Linear in the mapped pages.
    pub fn read(memory: &dyn TargetMemory, located: &Located) -> Self {
        let heap = &located.layout.page_heap;
        let leaf_bytes = 8u64 << heap.leaf_bits;
        let mut leaves: Vec<(u64, Address)> = Vec::new();
        let root = located.page_heap.saturating_add(heap.root);
        let slots = root..root.saturating_add(8 << heap.root_bits);
        for (slot, leaf) in words_in(memory, slots.clone(), |_, leaf| leaf % 8 == 0) {
            let index = slot.offset_from(root).unwrap_or(0) / 8;
            leaves.push((index, Address::new(leaf)));
        }
        // Each leaf has memory of its own; entries that share it are damage or forged.
        leaves.sort_by_key(|(_, leaf)| *leaf);
        let mut end = Address::new(0);
        leaves.retain(|(_, leaf)| {
            let apart = *leaf >= end;
            if apart {
                end = leaf.saturating_add(leaf_bytes);
            }
            apart
        });
        let before = leaves.len();
        leaves.retain(|(_, leaf)| memory.window(*leaf).is_ok());
        let is_cut =
            |(_, leaf): &&(u64, Address)| memory.lacks(&(*leaf..leaf.saturating_add(leaf_bytes)));
        // Or the place in the root that would lead to some.
        let is_cut_root = memory.lacks(&slots);
        let missing_leaves = (before
            .saturating_sub(leaves.len())
            .saturating_add(leaves.iter().filter(is_cut).count())
            as u64)
            .saturating_add(u64::from(is_cut_root));
        leaves.sort_unstable();

        let map = PageMap {
            memory,
            located,
            leaves: &leaves,
        };
        let chunks: Vec<(u64, Address, u64)> = leaves
            .iter()
            .flat_map(|&(index, leaf)| {
                let entries = 1u64 << heap.leaf_bits;
                (0..entries.div_ceil(CHUNK)).map(move |chunk| {
                    (
                        (index << heap.leaf_bits).saturating_add(chunk.saturating_mul(CHUNK)),
                        leaf,
                        chunk.saturating_mul(CHUNK),
                    )
                })
            })
            .collect();
        let found = parallel::map(&chunks, |&(page, leaf, first)| {
            map.spans_in(page, leaf, first)
        });
        let mut rows: Vec<Span> = found.into_iter().flatten().collect();
        let repairs = map.recover(&mut rows);
        let central = Bits::new(rows.len() as u64);
        Self {
            rows,
            central,
            leaves: leaves.iter().map(|(_, leaf)| *leaf).collect(),
            missing_leaves,
            index: leaves,
            repairs,
        }
    }

    /// All spans, sorted by start.
    pub fn rows(&self) -> &[Span] {
        &self.rows
    }

    /// Index of the span that holds a page.
    pub fn index_of_page(&self, page: u64) -> Option<usize> {
        let index = self
            .rows
            .partition_point(|span| span.start <= page)
            .checked_sub(1)?;
        (page < self.rows.get(index)?.end()).then_some(index)
    }

    /// Index of the live span whose `Span` object is at `at`, which starts at page `start`.
    pub fn index_of(&self, at: Address, start: u64) -> Option<usize> {
        let index = self
            .rows
            .binary_search_by_key(&start, |span| span.start)
            .ok()?;
        (self.rows.get(index)?.at == at).then_some(index)
    }

    /// Index of the span whose `Span` object is at `at` and whose words were written over.
    pub fn index_of_repaired(&self, at: Address) -> Option<usize> {
        let repair = self.repairs.iter().find(|repair| repair.span == at)?;
        self.index_of(at, repair.start)
    }

    /// Index of the live span whose `Span` object is at `at`.
    pub fn index_at(
        &self,
        memory: &dyn TargetMemory,
        located: &Located,
        at: Address,
    ) -> Option<usize> {
        let start = located.layout.span.start.read(memory, at).ok()?;
        self.index_of(at, start)
            .or_else(|| self.index_of_repaired(at))
    }

    /// Address of the entry of a page.
    pub fn entry_of(&self, located: &Located, page: u64) -> Option<Address> {
        entry_at(located, &self.index, page)
    }

    /// Whether a page's span is not known because a word that leads to it, or the span itself, is not in the core.
    pub fn is_unknown(&self, memory: &dyn TargetMemory, located: &Located, page: u64) -> bool {
        let heap = &located.layout.page_heap;
        if self.index_of_page(page).is_some() || page >> heap.leaf_bits >> heap.root_bits != 0 {
            return false;
        }
        let root = located.page_heap.saturating_add(heap.root);
        let slot = root.saturating_add((page >> heap.leaf_bits).saturating_mul(8));
        if memory.is_absent(slot) {
            return true;
        }
        let leaf = memory.read_pointer(slot).unwrap_or_default();
        let entry = leaf
            .saturating_add((page & (1u64 << heap.leaf_bits).saturating_sub(1)).saturating_mul(8));
        if leaf.is_null() || memory.is_absent(entry) {
            return !leaf.is_null();
        }
        let span = memory.read_pointer(entry).unwrap_or_default();
        let last = span.saturating_add(u64::from(located.layout.span.bytes).saturating_sub(1));
        memory.is_absent(span) || memory.is_absent(last)
    }

    /// Corrects a span whose own words were written over by what the list that holds it says.
    pub fn believe_list(&mut self, index: usize, class: u16) {
        if let (Some(span), Ok(class)) = (self.rows.get_mut(index), u8::try_from(class)) {
            span.class = class;
            span.location = SpanLocation::InUse;
        }
    }

    /// Notes that a central list holds the span; says whether one did already.
    pub fn mark_central(&self, index: usize) -> bool {
        self.central.test_and_set(index as u64)
    }

    /// Whether a central list holds the span.
    pub fn on_central(&self, index: usize) -> bool {
        self.central.get(index as u64)
    }
}

struct PageMap<'a> {
    memory: &'a dyn TargetMemory,
    located: &'a Located,
    leaves: &'a [(u64, Address)],
}

impl PageMap<'_> {
    fn entry(&self, cursor: &mut Cursor<'_>, page: u64) -> Option<u64> {
        cursor.read_u64(self.entry_at(page)?).ok()
    }

    /// Address of the entry of a page.
    fn entry_at(&self, page: u64) -> Option<Address> {
        entry_at(self.located, self.leaves, page)
    }

    /// Spans whose first page is among `CHUNK` pages from `page`, whose entries begin at `first` of `leaf`.
    fn spans_in(&self, page: u64, leaf: Address, first: u64) -> Vec<Span> {
        let mut out = Vec::new();
        let mut last_page = Cursor::new(self.memory);
        let entries = (1u64 << self.located.layout.page_heap.leaf_bits)
            .saturating_sub(first)
            .min(CHUNK);
        let start = leaf.saturating_add(first.saturating_mul(8));
        let range = start..start.saturating_add(entries.saturating_mul(8));
        // What repeats the entry before it is an interior page, which cannot be a first one.
        let before = Cell::new(0);
        let is_new = |_, word| before.replace(word) != word;
        for (at, word) in words_in(self.memory, range, is_new) {
            let page = page.saturating_add(at.offset_from(start).unwrap_or(0) / 8);
            if let Some(span) = read_span(self.memory, self.located, Address::new(word))
                && span.start == page
                && span.length > 0
                && let Some(end) = page.checked_add(span.length.saturating_sub(1))
                && self.entry(&mut last_page, end) == Some(word)
            {
                out.push(span);
            }
        }
        out
    }
}

fn entry_at(located: &Located, leaves: &[(u64, Address)], page: u64) -> Option<Address> {
    let leaf_bits = located.layout.page_heap.leaf_bits;
    let index = leaves
        .binary_search_by_key(&(page >> leaf_bits), |(index, _)| *index)
        .ok()?;
    let (_, leaf) = leaves.get(index)?;
    leaf.checked_add((page & (1u64 << leaf_bits).saturating_sub(1)).saturating_mul(8))
}

/// A `Span` object as it stands in memory, live or not.
pub fn read_span(memory: &dyn TargetMemory, located: &Located, at: Address) -> Option<Span> {
    let layout = &located.layout.span;
    let mut bytes = [0u8; 128];
    let bytes = bytes.get_mut(..layout.bytes as usize)?;
    memory.read_into(at, bytes).ok()?;
    let sizes = &located.sizes;
    let class = u16::try_from(layout.size_class.of_bytes(bytes)).unwrap_or(u16::MAX);
    Some(Span {
        at,
        start: layout.start.of_bytes(bytes),
        length: layout.length.of_bytes(bytes),
        objects: Address::new(layout.objects.of_bytes(bytes)),
        refcount: u16::try_from(layout.refcount.of_bytes(bytes)).unwrap_or(u16::MAX),
        // A class that does not exist is kept: the bookkeeping checks name it.
        class: u8::try_from(class.min(sizes.classes().max(1))).unwrap_or(u8::MAX),
        location: match layout.location.of_bytes(bytes) {
            0 => SpanLocation::InUse,
            1 => SpanLocation::Normal,
            2 => SpanLocation::Returned,
            _ => SpanLocation::Impossible,
        },
        sample: layout.sample.of_bytes(bytes) != 0,
    })
}
