//! Extents whose own words, or whose elements in the page map, were written over: the others tell what they held.
//!
//! An extent is known twice: by its descriptor (address, size, class, state) and by the page map (pages that name it; the
//! class and the state beside the name). One stray write reaches one of the two.

use std::collections::BTreeMap;

use super::{Extents, Named, Repair, Row, Source, State};
use crate::allocators::jemalloc::sizes::PAGE_SHIFT;
use crate::target::{Address, Cursor};

/// Words that are mended and said.
const MAX_REPAIRS: usize = 64;
/// Pages behind an extent's first that are searched for its last.
const MAX_PAGES: u64 = 1 << 20;

impl Extents {
    /// Mends what can be mended; says all of it.
    pub(super) fn mend(&mut self, source: Source<'_>, strays: &[Named], disputed: &[(Row, Named)]) {
        if strays.is_empty() && disputed.is_empty() {
            return;
        }
        for (row, named) in disputed {
            let row = self.settle_dispute(source, *row, named);
            self.rows.push(row);
        }
        self.rows.sort_by_key(|row| (row.start(), row.at));
        // By the descriptor that they name.
        let mut groups: BTreeMap<Address, Vec<&Named>> = BTreeMap::new();
        for stray in strays {
            groups.entry(stray.element.extent).or_default().push(stray);
        }
        for (extent, named) in groups {
            if source.may_be_extent(extent) {
                self.mend_range(source, extent, &named);
            } else {
                for named in named {
                    self.say_element(source, named, true);
                }
            }
        }
    }

    fn say(&mut self, repair: Repair) {
        if self.repairs.len() < MAX_REPAIRS {
            self.repairs.push(repair);
        }
    }

    /// Whom to believe: the descriptor, or the element of its first page.
    fn settle_dispute(&mut self, source: Source<'_>, mut row: Row, named: &Named) -> Row {
        let element = &named.element;
        let is_new = source.layout.generation.is_5_3();
        let same =
            row.state == State::Active && row.slab && element.slab && element.class == row.class;
        if same
            && let Some(cut) = source.sizes.small(row.class)
            && cut.slab_bytes != row.bytes
        {
            // Both say that it is a slab of this class: then its size is known.
            let found = std::mem::replace(&mut row.bytes, cut.slab_bytes);
            self.say(Repair {
                of: row.at,
                at: row.at.saturating_add(source.layout.extent.size),
                what: if is_new {
                    "edata_t.e_size"
                } else {
                    "extent_t.e_size"
                },
                expected: format!("{} bytes, those of a slab of its class", cut.slab_bytes),
                found: format!("{found} bytes"),
                impossible: false,
            });
            return row;
        }
        let told = Row {
            class: element.class,
            slab: element.slab,
            state: State::Active,
            // An arena cannot be told; the first one always exists.
            arena: if source.arenas.get(row.arena).is_some() {
                row.arena
            } else {
                0
            },
            ..row
        };
        let sense = source.makes_sense(&row);
        let element_sense = element.state.is_none_or(|state| state == 0)
            && element.class < source.layout.quantum.classes()
            && source.makes_sense(&told);
        let bits = |row: &Row| {
            let kept = kept(row.class, row.slab, Some(row.state));
            format!("arena {}, {kept}", row.arena)
        };
        let (expected, found) = (bits(&told), bits(&row));
        match (sense, element_sense) {
            (false, true) => {
                row = told;
                self.say(Repair {
                    of: row.at,
                    at: row.at,
                    what: if is_new {
                        "edata_t.e_bits"
                    } else {
                        "extent_t.e_bits"
                    },
                    expected,
                    found,
                    impossible: false,
                });
            }
            _ => self.say(Repair {
                of: row.at,
                at: named.at,
                what: "rtree_leaf_elm_t of the extent's first page",
                expected: found,
                found: kept(
                    element.class,
                    element.slab,
                    element.state.map(|state| State::of(state.into())),
                ),
                impossible: false,
            }),
        }
        row
    }

    /// Elements that name a descriptor whose address and size deny them.
    fn mend_range(&mut self, source: Source<'_>, extent: Address, named: &[&Named]) {
        let Some(first) = named.iter().min_by_key(|named| named.page) else {
            return;
        };
        let mut cursor = Cursor::new(source.memory);
        let described = Row::read(&mut cursor, source.layout, extent);
        let known = self.rows.iter().position(|row| row.at == extent);
        let start = match (known.and_then(|index| self.rows.get(index)), described) {
            (Some(row), _) => row.first_page(),
            // The element of its first page was written over: the others still hold.
            (None, Some(row)) if row.holds_page(first.page) => row.first_page(),
            _ => first.page,
        };
        let is_slab = known
            .and_then(|index| self.rows.get(index))
            .map_or(first.element.slab, |row| row.slab);
        let pages = span(source, extent, start, is_slab);
        let is_new = source.layout.generation.is_5_3();
        let name = |old, new| if is_new { new } else { old };
        let layout = &source.layout.extent;
        match (known, described) {
            (Some(index), _) => {
                let Some(row) = self.rows.get_mut(index) else {
                    return;
                };
                let found = row.bytes;
                if found == pages << PAGE_SHIFT {
                    return;
                }
                row.bytes = pages << PAGE_SHIFT;
                let expected = format!("{} bytes, as the page map has it", row.bytes);
                self.say(Repair {
                    of: extent,
                    at: extent.saturating_add(layout.size),
                    what: name("extent_t.e_size", "edata_t.e_size"),
                    expected,
                    found: format!("{found} bytes"),
                    impossible: false,
                });
            }
            (None, Some(row)) if row.first_page() == start => {
                self.rows.push(row);
                self.say(Repair {
                    of: extent,
                    at: source.tree.element_at(start).unwrap_or(first.at),
                    what: "rtree_leaf_elm_t of the extent's first page",
                    expected: format!("the descriptor {extent}"),
                    found: "another".into(),
                    impossible: false,
                });
            }
            _ => self.recover(source, extent, first, pages),
        }
    }

    /// An extent whose address, or size, says nothing any more.
    fn recover(&mut self, source: Source<'_>, extent: Address, first: &Named, pages: u64) {
        let mut cursor = Cursor::new(source.memory);
        let layout = &source.layout.extent;
        let address = Address::new(first.page << PAGE_SHIFT);
        let mut word = |offset| {
            let at = extent.saturating_add(offset);
            (at, cursor.read_u64(at).unwrap_or(0))
        };
        let (_, bits) = word(0);
        let (at, found) = word(layout.address);
        let row = Row::described(source.layout, extent, bits, address, pages << PAGE_SHIFT);
        let is_wrong_address = found >> PAGE_SHIFT != first.page;
        let (at, found) = if is_wrong_address {
            (at, found)
        } else {
            word(layout.size)
        };
        if source.agrees(&row, &first.element) {
            self.rows.push(row);
        }
        let is_new = source.layout.generation.is_5_3();
        self.say(Repair {
            of: extent,
            at,
            what: match (is_wrong_address, is_new) {
                (true, true) => "edata_t.e_addr",
                (true, false) => "extent_t.e_addr",
                (false, true) => "edata_t.e_size",
                (false, false) => "extent_t.e_size",
            },
            expected: if is_wrong_address {
                format!("an address in the page {address}, which the page map gives it")
            } else {
                format!("{} bytes, as the page map has it", pages << PAGE_SHIFT)
            },
            found: format!("{found:#x}"),
            impossible: false,
        });
    }

    /// An element that names no descriptor.
    fn say_element(&mut self, source: Source<'_>, named: &Named, impossible: bool) {
        let owner = self.at(Address::new(named.page << PAGE_SHIFT));
        let expected = match owner {
            Some(row) => format!("the descriptor {}", row.at),
            None => "a descriptor in the allocator's own memory".to_owned(),
        };
        let mut cursor = Cursor::new(source.memory);
        let found = cursor.read_u64(named.at).unwrap_or(0);
        self.say(Repair {
            of: named.at,
            at: named.at,
            what: "rtree_leaf_elm_t",
            expected,
            found: format!("{found:#x}"),
            impossible,
        });
    }
}

/// What an extent's descriptor and the page map both keep of it, in words.
fn kept(class: u16, slab: bool, state: Option<State>) -> String {
    let slab = if slab { "a slab" } else { "no slab" };
    match state {
        Some(state) => format!("class {class}, {slab}, {}", state.name()),
        None => format!("class {class}, {slab}"),
    }
}

/// Pages from `first` on that the page map gives to an extent: all of a slab's, the first and last of others.
fn span(source: Source<'_>, extent: Address, first: u64, is_slab: bool) -> u64 {
    let mut cursor = Cursor::new(source.memory);
    let mut last = first;
    for page in first + 1..first.saturating_add(MAX_PAGES) {
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
    last - first + 1
}
