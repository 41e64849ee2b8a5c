//! What was mended, in words.

use super::super::{Extents, Named, Repair, Row, Source, State};
use crate::allocators::jemalloc::sizes::PAGE_SHIFT;
use ground::target::{Address, MemoryExt, RegionKind};

/// Words that are mended and said.
const MAX_REPAIRS: usize = 64;

impl Extents {
    /// One repair per word.
    fn say(&mut self, repair: Repair) {
        let known = self.repairs.iter().any(|known| known.at == repair.at);
        if !known && self.repairs.len() < MAX_REPAIRS {
            self.repairs.push(repair);
        }
    }

    /// The size of an extent that begins at `start`.
    pub(super) fn say_size(
        &mut self,
        source: Source<'_>,
        (of, start): (Address, Address),
        expected: String,
        found: u64,
    ) {
        let end = start.checked_add(found).and_then(|end| end.checked_sub(1));
        let ends = end.is_some_and(|end| source.memory.region_at(end).is_some());
        self.say(Repair {
            of,
            extent: of,
            at: of.saturating_add(source.layout.extent.size),
            what: name(source, "extent_t.e_size", "edata_t.e_size"),
            expected,
            found: format!("{found} bytes"),
            impossible: !ends,
        });
    }

    /// The address of an extent.
    pub(super) fn say_address(
        &mut self,
        source: Source<'_>,
        of: Address,
        expected: String,
        found: u64,
    ) {
        let region = source.memory.region_at(Address::new(found));
        let may_be = region.is_some_and(|region| region.kind == RegionKind::Anonymous);
        self.say(Repair {
            of,
            extent: of,
            at: of.saturating_add(source.layout.extent.address),
            what: name(source, "extent_t.e_addr", "edata_t.e_addr"),
            expected,
            found: format!("{found:#x}"),
            impossible: !may_be,
        });
    }

    /// The bits of an extent.
    pub(super) fn say_bits(&mut self, source: Source<'_>, row: &Row, told: &Row) {
        let exists = source.arenas.get(row.arena).is_some();
        let impossible = !exists
            || row.state == State::Impossible
            || row.class > source.layout.quantum.classes();
        self.say(Repair {
            of: row.at,
            extent: row.at,
            at: row.at,
            what: name(source, "extent_t.e_bits", "edata_t.e_bits"),
            expected: bits(told),
            found: bits(row),
            impossible,
        });
    }

    /// The element of an extent's first page, which names it and says something else of it.
    pub(super) fn say_first(&mut self, source: Source<'_>, row: &Row, named: &Named) {
        let element = &named.element;
        let at = match source.tree.is_wide() {
            true => named.at.saturating_add(8),
            false => named.at,
        };
        self.say(Repair {
            of: row.at,
            extent: row.at,
            at,
            what: "rtree_leaf_elm_t of the extent's first page",
            expected: bits(row),
            found: kept(
                element.class,
                element.slab,
                element.state.map(|state| State::of(state.into())),
            ),
            impossible: element.class > source.layout.quantum.classes(),
        });
    }

    /// An element that names another descriptor than that of its page's extent, or none, or says something else of it.
    pub(super) fn say_element(&mut self, source: Source<'_>, named: &Named) {
        let owner = self.at(Address::new(named.page << PAGE_SHIFT));
        let extent = named.element.extent;
        let names_owner = owner.is_some_and(|row| row.at == extent);
        let at = match names_owner && source.tree.is_wide() {
            true => named.at.saturating_add(8),
            false => named.at,
        };
        let expected = match owner {
            Some(row) if names_owner => format!("what its first page says: {}", bits(row)),
            Some(row) => format!("the descriptor {}", row.at),
            None => "a descriptor in the allocator's own memory".to_owned(),
        };
        let found = source.memory.read_u64(at).unwrap_or(0);
        self.say(Repair {
            of: named.at,
            extent: owner.map_or(extent, |row| row.at),
            at,
            what: "rtree_leaf_elm_t",
            expected,
            found: format!("{found:#x}"),
            // Nobody ever writes such a name there.
            impossible: !extent.is_null()
                && (!source.may_be_extent(extent)
                    || named.element.class > source.layout.quantum.classes()),
        });
    }
}

/// A member as this release calls it.
fn name(source: Source<'_>, old: &'static str, new: &'static str) -> &'static str {
    match source.layout.generation.is_5_3() {
        true => new,
        false => old,
    }
}

fn bits(row: &Row) -> String {
    let kept = kept(row.class, row.slab, Some(row.state));
    let head = if row.head { ", a head" } else { "" };
    format!("arena {}, {kept}{head}", row.arena)
}

/// What an extent's descriptor and the page map both keep of it, in words.
fn kept(class: u16, slab: bool, state: Option<State>) -> String {
    let slab = if slab { "a slab" } else { "no slab" };
    match state {
        Some(state) => format!("class {class}, {slab}, {}", state.name()),
        None => format!("class {class}, {slab}"),
    }
}
