//! What was mended: the words that were wrong.

use super::super::{Extents, Named, Repair, Row, Source, State};
use crate::allocators::books::Suspect;
use crate::allocators::jemalloc::sizes::PAGE_SHIFT;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason, Unit, Value};
use ground::target::{Address, MemoryExt, RegionKind};

/// Words that are mended and said.
const MAX_REPAIRS: usize = 64;

impl Extents {
    /// One repair per word, of the descriptor `extent`.
    fn say(&mut self, extent: Address, word: BrokenWord, impossible: bool) {
        let mut known = self.repairs.iter();
        let is_known = known.any(|known| known.suspect.word.at == word.at);
        if !is_known && self.repairs.len() < MAX_REPAIRS {
            self.repairs.push(Repair {
                suspect: Suspect { word, impossible },
                extent,
            });
        }
    }

    /// The size of an extent that begins at `start`.
    pub(super) fn say_size(
        &mut self,
        source: Source<'_>,
        (of, start): (Address, Address),
        expected: Expected,
        found: u64,
    ) {
        let end = start.checked_add(found).and_then(|end| end.checked_sub(1));
        let ends = end.is_some_and(|end| source.memory.region_at(end).is_some());
        let word = BrokenWord {
            of,
            at: of.saturating_add(source.layout.extent.size),
            what: name(source, Field::ExtentESize, Field::EdataESize),
            expected,
            found: Value::Amount(found, Unit::Bytes),
        };
        self.say(of, word, !ends);
    }

    /// The address of an extent.
    pub(super) fn say_address(
        &mut self,
        source: Source<'_>,
        of: Address,
        expected: Expected,
        found: u64,
    ) {
        let region = source.memory.region_at(Address::new(found));
        let may_be = region.is_some_and(|region| region.kind == RegionKind::Anonymous);
        let word = BrokenWord {
            of,
            at: of.saturating_add(source.layout.extent.address),
            what: name(source, Field::ExtentEAddr, Field::EdataEAddr),
            expected,
            found: Value::Word(found),
        };
        self.say(of, word, !may_be);
    }

    /// The bits of an extent.
    pub(super) fn say_bits(&mut self, source: Source<'_>, row: &Row, told: &Row) {
        let exists = source.arenas.get(row.arena).is_some();
        let impossible = !exists
            || row.state == State::Impossible
            || row.class > source.layout.quantum.classes();
        let word = BrokenWord {
            of: row.at,
            at: row.at,
            what: name(source, Field::ExtentEBits, Field::EdataEBits),
            expected: Expected::Exactly(bits(told), Reason::Itself),
            found: bits(row),
        };
        self.say(row.at, word, impossible);
    }

    /// The element of an extent's first page, which names it and says something else of it.
    pub(super) fn say_first(&mut self, source: Source<'_>, row: &Row, named: &Named) {
        let element = &named.element;
        let at = match source.tree.is_wide() {
            true => named.at.saturating_add(8),
            false => named.at,
        };
        let state = element.state.map(|state| State::of(state.into()));
        let word = BrokenWord {
            of: row.at,
            at,
            what: Field::RtreeLeafOfFirstPage,
            expected: Expected::Exactly(bits(row), Reason::Itself),
            found: Value::Extent {
                arena: None,
                class: element.class,
                slab: element.slab,
                state: state.map(State::name),
                head: false,
            },
        };
        let impossible = element.class > source.layout.quantum.classes();
        self.say(row.at, word, impossible);
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
            Some(row) if names_owner => Property::AsFirstPage(Box::new(bits(row))),
            Some(row) => Property::Descriptor(row.at),
            None => Property::AnyDescriptor,
        };
        let about = owner.map_or(extent, |row| row.at);
        let word = BrokenWord {
            of: named.at,
            at,
            what: Field::RtreeLeaf,
            expected: Expected::Is(expected),
            found: Value::Word(source.memory.read_u64(at).unwrap_or(0)),
        };
        // Nobody ever writes such a name there.
        let impossible = !extent.is_null()
            && (!source.may_be_extent(extent)
                || named.element.class > source.layout.quantum.classes());
        self.say(about, word, impossible);
    }
}

/// A member as this release calls it.
fn name(source: Source<'_>, old: Field, new: Field) -> Field {
    match source.layout.generation.is_5_3() {
        true => new,
        false => old,
    }
}

/// What a descriptor's bits say.
fn bits(row: &Row) -> Value {
    Value::Extent {
        arena: Some(row.arena),
        class: row.class,
        slab: row.slab,
        state: Some(row.state.name()),
        head: row.head,
    }
}
