//! Extents whose own words, or whose elements in the page map, were written over: the others tell what they held.
//!
//! An extent is known several times: by its descriptor (address, size, class, state), by the element of its first page
//! (class and state beside the name), and by that of its last page; a slab by those of all its pages. One stray write
//! reaches one of them, so the others outvote it:
//!
//! ```text
//! the descriptor and the first page agree    the element of a further page is wrong, or the size is
//! the descriptor and a further page agree    the element of the first page is wrong
//! all pages agree                            the address in the descriptor is wrong
//! ```

mod repairs;
mod unnamed_extents;

use std::collections::{BTreeMap, BTreeSet};

use super::{Extents, Named, Row, Source, State};
use crate::allocators::jemalloc::sizes::{PAGE, PAGE_SHIFT};
use crate::anomaly::{Expected, Property, Reason, Unit, Value};
use ground::target::{Address, Cursor, MemoryExt};

/// Bytes of a block of the allocator's own memory.
const TOGETHER: u64 = 2 << 20;
/// Descriptors in one of them that are each said.
const MAX_TOGETHER: usize = 4;
/// Large blocks begin at a multiple of this in their first page.
const LINE: u64 = 64;
/// Extents that begin badly and are said.
const MAX_ODD: usize = 64;
/// Pages behind an extent's first that are searched for its last.
const MAX_PAGES: u64 = 1 << 20;

impl Extents {
    /// Mends what can be mended; says all of it.
    pub(super) fn mend(
        &mut self,
        source: Source<'_>,
        strays: &[Named],
        disputed: &[(Row, Named)],
        torn: &[(Row, Named)],
    ) {
        for (row, named) in disputed {
            let row = self.settle_dispute(source, *row, named, torn);
            self.rows.push(row);
        }
        self.rows.sort_by_key(|row| (row.start(), row.at));
        let disputed: BTreeSet<Address> = disputed.iter().map(|(row, _)| row.at).collect();
        for (row, named) in torn {
            let known = self.at(row.start()).copied();
            let Some(row) = known.filter(|known| known.at == row.at) else {
                continue;
            };
            // What settled a dispute about the extent has settled this.
            if row.holds_page(named.page) && !disputed.contains(&row.at) {
                self.mend_torn(source, row, named);
            }
        }
        // By the descriptor that they name; first those that such a descriptor explains.
        let mut groups: BTreeMap<Address, Vec<&Named>> = BTreeMap::new();
        for stray in strays {
            groups.entry(stray.element.extent).or_default().push(stray);
        }
        groups.retain(|extent, named| !self.mend_first_page(source, *extent, named));
        self.mend_only_pages(source, strays);
        // Many descriptors that lie together in memory that is not the allocator's: it was, and what says so is wrong.
        let mut blocks: BTreeMap<u64, usize> = BTreeMap::new();
        for extent in groups
            .keys()
            .filter(|extent| !source.may_be_extent(**extent))
        {
            {
                let slot = blocks.entry(extent.get() / TOGETHER).or_default();
                *slot = slot.saturating_add(1);
            };
        }
        for (extent, named) in groups {
            match blocks.get_mut(&(extent.get() / TOGETHER)) {
                Some(&mut usize::MAX) => continue,
                Some(count) if *count > MAX_TOGETHER => *count = usize::MAX,
                _ => {}
            }
            self.mend_group(source, extent, &named);
        }
        self.mend_unnamed(source);
        let none = source.layout.quantum.classes();
        let odd = self.rows.iter().filter(|row| !begins_well(row, none));
        let odd: Vec<Row> = odd.take(MAX_ODD).copied().collect();
        for row in odd {
            self.say_start(source, &row);
        }
    }

    /// Adds an extent at its place.
    fn insert(&mut self, row: Row) {
        let at = self
            .rows
            .partition_point(|other| (other.start(), other.at) < (row.start(), row.at));
        self.rows.insert(at, row);
    }

    /// Whom to believe: the descriptor, or the element of its first page.
    fn settle_dispute(
        &mut self,
        source: Source<'_>,
        mut row: Row,
        named: &Named,
        torn: &[(Row, Named)],
    ) -> Row {
        let element = &named.element;
        let same =
            row.state == State::Active && row.slab && element.slab && element.class == row.class;
        if same
            && let Some(cut) = source.sizes.small(row.class)
            && cut.slab_bytes != row.bytes
        {
            // Both say that it is a slab of this class: then its size is known.
            let found = std::mem::replace(&mut row.bytes, cut.slab_bytes);
            let bytes = Value::Amount(cut.slab_bytes, Unit::Bytes);
            let expected = Expected::Exactly(bytes, Reason::SlabOfItsClass);
            self.say_size(source, (row.at, row.start()), expected, found);
            return row;
        }
        let told = Row {
            class: element.class,
            slab: element.slab,
            state: State::of(element.state.unwrap_or(0).into()),
            head: element.head.unwrap_or(false),
            homeless: false,
            arena: source.arenas.holder(row.at).unwrap_or(row.arena),
            ..row
        };
        let shards = source.sizes.small(told.class).map_or(1, |cut| cut.shards);
        let told = Row {
            free: source.marks(&told).unwrap_or(row.free),
            // Nor can a shard.
            shard: if u32::from(row.shard) < shards {
                row.shard
            } else {
                0
            },
            ..told
        };
        let sense = source.makes_sense(&row);
        let element_sense = source.makes_sense(&told)
            && (told.state != State::Active || element.class < source.layout.quantum.classes());
        // Pages beyond the first that differ from its element are further witnesses against it.
        let outvoted = torn.iter().any(|(other, named)| {
            other.at == row.at && named.element.extent == row.at && other.last_page() == named.page
        });
        let fits = (source.class_fits(&row), source.class_fits(&told));
        match (sense, element_sense) {
            (true, true) if fits == (true, false) => {
                self.say_first(source, &row, named);
                row
            }
            (false, true) => {
                self.say_bits(source, &row, &told);
                told
            }
            (true, true) if row.last_page() != row.first_page() && !outvoted => {
                self.say_bits(source, &row, &told);
                told
            }
            _ => {
                self.say_first(source, &row, named);
                row
            }
        }
    }

    /// An extent of which one page beyond the first does not say so: its element is wrong, or the extent's size.
    fn mend_torn(&mut self, source: Source<'_>, row: Row, named: &Named) {
        let in_use = row.is_in_use(source.layout.quantum.classes());
        let is_slab = row.slab && in_use;
        if is_slab || named.element.extent == row.at {
            return self.say_element(source, named);
        }
        let start = row.first_page();
        let pages = span(source, row.at, start, false);
        let next = self
            .rows
            .partition_point(|other| other.start() <= row.start());
        let overlaps = self
            .rows
            .get(next)
            .is_some_and(|next| next.start() < row.end());
        if pages == 1 && !overlaps && !named.at.is_null() {
            return self.say_element(source, named);
        }
        let Some(known) = self.rows.iter_mut().find(|known| known.at == row.at) else {
            return;
        };
        known.bytes = pages << PAGE_SHIFT;
        let bytes = Value::Amount(known.bytes, Unit::Bytes);
        let expected = Expected::Exactly(bytes, Reason::PageMapHasIt);
        self.say_size(source, (row.at, row.start()), expected, row.bytes);
    }

    /// Elements that name an extent whose first page does not: if the extent holds their pages, and its last page is one
    /// of them, the element of its first page was written over. Says whether that is so.
    fn mend_first_page(&mut self, source: Source<'_>, extent: Address, named: &[&Named]) -> bool {
        if !source.may_be_extent(extent) || self.rows.iter().any(|row| row.at == extent) {
            return false;
        }
        let mut cursor = Cursor::new(source.memory);
        let Some(row) = Row::read(&mut cursor, source.layout, extent) else {
            return false;
        };
        let last = row.last_page();
        // Where some of them lie outside, its address is wrong.
        let inside = |named: &&Named| {
            // What a free extent's element says of slabs is old.
            let span = |is_slab| span(source, extent, named.page, is_slab);
            let pages = span(true).max(span(false));
            row.holds_page(named.page)
                && row.holds_page(named.page.saturating_add(pages).saturating_sub(1))
        };
        let ends = last != row.first_page()
            && !named.is_empty()
            && named.iter().copied().all(|named| inside(&named))
            && source.tree.extent_of_page(&mut cursor, last) == extent;
        let Some(at) = source.tree.element_at(row.first_page()) else {
            return false;
        };
        let Some(element) = source.tree.element(&mut cursor, at) else {
            return false;
        };
        if !ends || !source.makes_sense(&row) {
            return false;
        }
        self.insert(row);
        let page = row.first_page();
        self.say_element(source, &Named { at, page, element });
        true
    }

    /// Pages that no extent has and whose elements name nothing that is one: where the element was the only one of its
    /// extent, only the descriptor knows of it, somewhere in the allocator's own memory.
    fn mend_only_pages(&mut self, source: Source<'_>, strays: &[Named]) {
        let is_lost = |named: &&Named| {
            let nobody = self.at(Address::new(named.page << PAGE_SHIFT)).is_none();
            nobody && !source.names_itself(named)
        };
        let lost: BTreeMap<u64, Named> = strays
            .iter()
            .filter(is_lost)
            .map(|named| (named.page, *named))
            .collect();
        if lost.is_empty() {
            return;
        }
        let step = source.layout.extent.alignment;
        let mut cursor = Cursor::new(source.memory);
        let mut found: BTreeMap<u64, Vec<Row>> = BTreeMap::new();
        for block in source.arenas.blocks() {
            let mut at = block.start;
            while at < block.end {
                let address = at.saturating_add(source.layout.extent.address);
                let page = cursor.read_u64(address).unwrap_or(0) >> PAGE_SHIFT;
                if lost.contains_key(&page)
                    && let Some(row) = Row::read(&mut cursor, source.layout, at)
                    && row.first_page() == row.last_page()
                    && source.makes_sense(&row)
                {
                    found.entry(page).or_default().push(row);
                }
                at = at.saturating_add(step);
            }
        }
        for (page, rows) in found {
            // Descriptors that are not used keep what they last described.
            if let ([row], Some(named)) = (rows.as_slice(), lost.get(&page)) {
                self.insert(*row);
                self.say_element(source, named);
            }
        }
    }

    /// Elements that name a descriptor whose address and size deny them, or none at all.
    fn mend_group(&mut self, source: Source<'_>, extent: Address, named: &[&Named]) {
        let known = self.rows.iter().any(|row| row.at == extent);
        let (inside, outside): (Vec<&Named>, Vec<&Named>) = named
            .iter()
            .partition(|named| self.at(Address::new(named.page << PAGE_SHIFT)).is_some());
        // Memory that another extent has, or a descriptor that is right about itself: the elements are wrong.
        for named in &inside {
            let owner = self.at(Address::new(named.page << PAGE_SHIFT));
            if owner.is_none_or(|owner| owner.at != extent) {
                self.say_element(source, named);
            }
        }
        let first = outside.iter().min_by_key(|named| named.page);
        match first {
            Some(first) if !known && source.may_be_extent(extent) => {
                let mut cursor = Cursor::new(source.memory);
                let slab = first.element.slab;
                let pages = span(source, extent, first.page, slab);
                let alone = pages == 1 && Row::read(&mut cursor, source.layout, extent).is_none();
                if let Some(row) = source.near(first) {
                    self.insert(row);
                    self.say_element(source, first);
                } else if alone && !source.is_described(extent) {
                    self.say_element(source, first);
                } else {
                    self.recover(source, extent, first, pages);
                }
            }
            Some(first) => {
                // Its own descriptor may be one bit away.
                if let Some(row) = source.near(first) {
                    self.insert(row);
                }
                for named in &outside {
                    self.say_element(source, named);
                }
            }
            None => {}
        }
    }

    /// An extent whose address, or size, says nothing any more.
    fn recover(&mut self, source: Source<'_>, extent: Address, first: &Named, pages: u64) {
        let memory = source.memory;
        let layout = &source.layout.extent;
        let address = Address::new(first.page << PAGE_SHIFT);
        let word = |offset| memory.read_u64(extent.saturating_add(offset)).unwrap_or(0);
        let bytes = pages << PAGE_SHIFT;
        let found = word(layout.address);
        let start = match found >> PAGE_SHIFT == first.page {
            true => Address::new(found),
            false => address,
        };
        let row = Row::described(source.layout, extent, word(0), start, bytes);
        if source.agrees(&row, &first.element) {
            self.insert(row);
        }
        if found >> PAGE_SHIFT == first.page {
            let bytes = Value::Amount(bytes, Unit::Bytes);
            let expected = Expected::Exactly(bytes, Reason::PageMapHasIt);
            self.say_size(source, (extent, address), expected, word(layout.size));
        } else {
            let expected = Expected::Is(Property::InPage(address));
            self.say_address(source, extent, expected, found);
        }
    }

    /// An extent whose address is no start of one.
    fn say_start(&mut self, source: Source<'_>, row: &Row) {
        let is_block = row.is_in_use(source.layout.quantum.classes()) && !row.slab;
        let expected = match is_block {
            true => Expected::Is(Property::MultipleOf(LINE)),
            false => Expected::Exactly(row.start().into(), Reason::FirstPage),
        };
        self.say_address(source, row.at, expected, row.address.get());
    }
}

/// Slabs and free extents begin with their first page; a large block at a multiple of a cache line in it.
fn begins_well(row: &Row, none: u16) -> bool {
    match row.state {
        State::Passing | State::Impossible => true,
        State::Active if !row.slab && row.class < none => row.address.is_aligned(LINE),
        _ => row.address == row.start(),
    }
}

impl Source<'_> {
    /// Marks of a slab that say free, as its class cuts it. `None` for anything but a slab.
    fn marks(&self, row: &Row) -> Option<u16> {
        let cut = self.sizes.small(row.class).filter(|_| row.slab)?;
        let first = row.at.checked_add(self.layout.extent.bitmap)?;
        let ones = (0..u64::from(cut.regions.div_ceil(64))).map(|group| {
            let left = u64::from(cut.regions).saturating_sub(group.saturating_mul(64));
            let mask = if left < 64 {
                (1u64 << left).saturating_sub(1)
            } else {
                u64::MAX
            };
            let word = self
                .memory
                .read_u64(first.saturating_add(group.saturating_mul(8)));
            (word.unwrap_or(0) & mask).count_ones()
        });
        u16::try_from(ones.sum::<u32>()).ok()
    }

    /// Whether a large block's size is that of its class, with a page to spare or without; where sizes are whole pages
    /// instead (5.3.1), its class is the next one.
    fn class_fits(&self, row: &Row) -> bool {
        let is_large = !row.slab && row.is_in_use(self.layout.quantum.classes());
        if !is_large || self.sizes.small(row.class).is_some() {
            return true;
        }
        let most = self.sizes.bytes(row.class).saturating_add(PAGE);
        let below = row
            .class
            .checked_sub(1)
            .map_or(0, |class| self.sizes.bytes(class));
        row.bytes <= most && row.bytes > below
    }

    /// The extent of an element's page whose descriptor differs from the one that the element names by one bit.
    fn near(&self, named: &Named) -> Option<Row> {
        let mut cursor = Cursor::new(self.memory);
        let mut bits = self.layout.extent.alignment.trailing_zeros()..48;
        bits.find_map(|bit| {
            let at = Address::new(named.element.extent.get() ^ 1 << bit);
            let row = self
                .may_be_extent(at)
                .then(|| Row::read(&mut cursor, self.layout, at))??;
            (row.first_page() == named.page && self.agrees(&row, &named.element)).then_some(row)
        })
    }

    /// Whether an element names a descriptor that was ever written.
    fn names_itself(&self, named: &Named) -> bool {
        let extent = named.element.extent;
        self.may_be_extent(extent) && self.is_described(extent)
    }

    /// Whether anything was ever written to a descriptor.
    fn is_described(&self, extent: Address) -> bool {
        let bits = self.memory.read_u64(extent).unwrap_or(0);
        let address = extent.saturating_add(self.layout.extent.address);
        bits != 0 || self.memory.read_u64(address).unwrap_or(0) != 0
    }
}

/// Pages from `first` on that the page map gives to an extent: all of a slab's, the first and last of others.
fn span(source: Source<'_>, extent: Address, first: u64, is_slab: bool) -> u64 {
    let mut cursor = Cursor::new(source.memory);
    let mut last = first;
    for page in first.saturating_add(1)..first.saturating_add(MAX_PAGES) {
        let here = source.tree.extent_of_page(&mut cursor, page);
        if here == extent {
            last = page;
            if !is_slab {
                break;
            }
        } else if !here.is_null() || is_slab {
            break;
        }
    }
    last.saturating_sub(first).saturating_add(1)
}
