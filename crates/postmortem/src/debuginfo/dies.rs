//! Debugging entries by their place, and the references between them.
//!
//! A place is an offset in one of three sections: `.debug_info` and `.debug_types` of the module's own file, `.debug_info` of
//! dwz's supplementary file. Units are parsed when a place in them is asked for and kept for the length of one question.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, PoisonError, RwLock};

use gimli::{
    Abbreviations, AttributeValue, DebugInfoOffset, DebugTypes, DebuggingInformationEntry,
    EndianSlice, LittleEndian, Section, UnitHeader, UnitOffset, UnitType, constants as dw,
};

use super::dwarf::{self, Bytes, Dwarf, Unit};
use super::names::ANONYMOUS;
use super::scan::{self, Item, Visitor};

/// Units of one module; browsers have about 50,000.
const MAX_UNITS: usize = 4 << 20;
/// Units whose abbreviations are kept.
const MAX_KEPT: usize = 4096;
/// References followed from a definition to its declarations.
const MAX_SPECIFICATIONS: usize = 8;
/// Scopes in a qualified name.
const MAX_SCOPES: usize = 64;

/// A debugging entry.
pub type Entry<'a> = DebuggingInformationEntry<Bytes<'a>>;

/// Which section a place is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// `.debug_info`.
    Info,
    /// `.debug_types` of DWARF 4.
    Types,
    /// `.debug_info` of the supplementary file.
    Supplementary,
}

/// Where a debugging entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The section.
    pub area: Area,
    /// Offset in bytes in it.
    pub offset: usize,
}

/// Where the units of a module begin, and the type units' signatures.
#[derive(Debug, Default)]
pub struct Units {
    info: Vec<usize>,
    types: Vec<usize>,
    supplementary: Vec<usize>,
    signatures: HashMap<u64, Place>,
    /// Units whose contents are in a `.dwo` file, which is not read.
    pub split: usize,
    /// Abbreviations of the units that questions were asked about: most questions are about few units.
    abbreviations: RwLock<HashMap<Place, Arc<Abbreviations>>>,
}

impl Units {
    /// Reads the headers of all units; stops in a section where a header is damaged.
    pub fn read(dwarf: &Dwarf<'_>) -> Self {
        let mut units = Self::default();
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            units.add(Area::Info, &header);
        }
        let mut headers = dwarf.type_units();
        while let Ok(Some(header)) = headers.next() {
            units.add(Area::Types, &header);
        }
        if let Some(supplementary) = dwarf.sup() {
            let mut headers = supplementary.units();
            while let Ok(Some(header)) = headers.next() {
                units.add(Area::Supplementary, &header);
            }
        }
        units
    }

    fn add(&mut self, area: Area, header: &UnitHeader<Bytes<'_>>) {
        let start = header.offset().0;
        let starts = match area {
            Area::Info => &mut self.info,
            Area::Types => &mut self.types,
            Area::Supplementary => &mut self.supplementary,
        };
        if starts.len() >= MAX_UNITS {
            return;
        }
        starts.push(start);
        match header.type_() {
            UnitType::Type {
                type_signature,
                type_offset,
            } => {
                if let Some(offset) = start.checked_add(type_offset.0) {
                    let place = Place { area, offset };
                    self.signatures.entry(type_signature.0).or_insert(place);
                }
            }
            UnitType::Skeleton(_) => self.split = self.split.saturating_add(1),
            _ => {}
        }
    }

    /// The start of every unit, in order.
    pub fn starts(&self) -> impl Iterator<Item = Place> + '_ {
        [Area::Info, Area::Types, Area::Supplementary]
            .into_iter()
            .flat_map(|area| {
                self.of(area)
                    .iter()
                    .map(move |&offset| Place { area, offset })
            })
    }

    fn of(&self, area: Area) -> &[usize] {
        match area {
            Area::Info => &self.info,
            Area::Types => &self.types,
            Area::Supplementary => &self.supplementary,
        }
    }

    /// The start of the unit that a place lies in.
    pub fn start_of(&self, place: Place) -> Option<usize> {
        let starts = self.of(place.area);
        let after = starts.partition_point(|&start| start <= place.offset);
        starts.get(after.checked_sub(1)?).copied()
    }

    /// Parses the unit that starts at `start`; its abbreviations are kept.
    fn parse<'a>(&self, dwarf: &Dwarf<'a>, start: Place) -> Option<Unit<'a>> {
        let (dwarf, header) = header_at(dwarf, start)?;
        let kept = self.abbreviations.read();
        let kept = kept.unwrap_or_else(PoisonError::into_inner);
        let abbreviations = kept.get(&start).map(Arc::clone);
        drop(kept);
        if let Some(abbreviations) = abbreviations {
            return Unit::new_with_abbreviations(dwarf, header, abbreviations).ok();
        }
        let abbreviations = dwarf.abbreviations(&header).ok()?;
        let mut kept = self.abbreviations.write();
        if let Ok(kept) = &mut kept
            && kept.len() < MAX_KEPT
        {
            kept.insert(start, Arc::clone(&abbreviations));
        }
        drop(kept);
        Unit::new_with_abbreviations(dwarf, header, abbreviations).ok()
    }
}

/// Parses the unit that starts at `start`.
pub fn unit_at<'a>(dwarf: &Dwarf<'a>, start: Place) -> Option<Unit<'a>> {
    let (dwarf, header) = header_at(dwarf, start)?;
    dwarf.unit(header).ok()
}

/// The header of the unit that starts at `start`, and the DWARF that it belongs to.
pub fn header_at<'a, 'd>(
    dwarf: &'d Dwarf<'a>,
    start: Place,
) -> Option<(&'d Dwarf<'a>, UnitHeader<Bytes<'a>>)> {
    let dwarf = match start.area {
        Area::Info => dwarf,
        Area::Types => {
            let section = dwarf.debug_types.reader().slice().get(start.offset..)?;
            let section = DebugTypes::from(EndianSlice::new(section, LittleEndian));
            return Some((dwarf, section.units().next().ok()??));
        }
        Area::Supplementary => dwarf.sup()?,
    };
    let offset = DebugInfoOffset(start.offset);
    Some((dwarf, dwarf.debug_info.header_from_offset(offset).ok()?))
}

/// A unit and where it starts.
pub struct PlacedUnit<'a> {
    pub unit: Unit<'a>,
    pub start: Place,
    scopes: OnceCell<Scopes<'a>>,
}

/// The entries of one module, for the length of one question.
pub struct Dies<'a> {
    pub dwarf: &'a Dwarf<'a>,
    pub units: &'a Units,
    parsed: RefCell<HashMap<Place, Option<Rc<PlacedUnit<'a>>>>>,
}

impl<'a> Dies<'a> {
    pub fn new(dwarf: &'a Dwarf<'a>, units: &'a Units) -> Self {
        Self {
            dwarf,
            units,
            parsed: RefCell::default(),
        }
    }

    /// The DWARF whose strings an entry of this area uses.
    fn dwarf_of(&self, area: Area) -> Option<&Dwarf<'a>> {
        match area {
            Area::Supplementary => self.dwarf.sup(),
            _ => Some(self.dwarf),
        }
    }

    /// The unit that a place lies in.
    pub fn unit(&self, place: Place) -> Option<Rc<PlacedUnit<'a>>> {
        let start = Place {
            area: place.area,
            offset: self.units.start_of(place)?,
        };
        let mut parsed = self.parsed.borrow_mut();
        parsed
            .entry(start)
            .or_insert_with(|| {
                Some(Rc::new(PlacedUnit {
                    unit: self.units.parse(self.dwarf, start)?,
                    start,
                    scopes: OnceCell::new(),
                }))
            })
            .clone()
    }

    /// The entry at a place, and its unit.
    pub fn entry(&self, place: Place) -> Option<(Rc<PlacedUnit<'a>>, Entry<'a>)> {
        let unit = self.unit(place)?;
        let offset = place.offset.checked_sub(unit.start.offset)?;
        let entry = unit.unit.entry(UnitOffset(offset)).ok()?;
        (!entry.is_null()).then_some((unit, entry))
    }

    /// What an attribute refers to.
    pub fn reference(
        &self,
        unit: &PlacedUnit<'a>,
        value: AttributeValue<Bytes<'a>>,
    ) -> Option<Place> {
        reference(self.units, unit.start, value)
    }

    /// What the attribute `name` of an entry refers to.
    pub fn refers(
        &self,
        unit: &PlacedUnit<'a>,
        entry: &Entry<'a>,
        name: gimli::DwAt,
    ) -> Option<Place> {
        self.reference(unit, entry.attr_value(name)?)
    }

    /// The name of an entry itself, without its scopes.
    pub fn name(&self, unit: &PlacedUnit<'a>, entry: &Entry<'a>) -> Option<&'a [u8]> {
        self.text(unit, entry.attr_value(dw::DW_AT_name)?)
    }

    /// The text of an attribute.
    pub fn text(
        &self,
        unit: &PlacedUnit<'a>,
        value: AttributeValue<Bytes<'a>>,
    ) -> Option<&'a [u8]> {
        dwarf::name(self.dwarf_of(unit.start.area)?, &unit.unit, value)
    }

    /// The parts of an entry's qualified name, outermost first; `None` if it, or a class around it, has no name. An entry
    /// inside a function has no scopes.
    pub fn path(&self, place: Place) -> Option<Vec<String>> {
        self.path_within(place, MAX_SPECIFICATIONS)
    }

    fn path_within(&self, place: Place, specifications: usize) -> Option<Vec<String>> {
        let unit = self.unit(place)?;
        let offset = place.offset.checked_sub(unit.start.offset)?;
        let dwarf = self.dwarf_of(unit.start.area)?;
        let scopes = unit.scopes.get_or_init(|| Scopes::read(dwarf, &unit.unit));
        let Some(mut node) = scopes.node(offset) else {
            let (unit, entry) = self.entry(place)?;
            return Some(vec![text(self.name(&unit, &entry)?)]);
        };
        let mut parts = Vec::new();
        loop {
            if let Some(specification) = node.specification {
                // The declaration has the scopes.
                let declared = self.reference(&unit, specification)?;
                let mut path = self.path_within(declared, specifications.checked_sub(1)?)?;
                parts.reverse();
                path.extend(parts);
                return Some(path);
            }
            match node.name {
                Some(name) => parts.push(text(name)),
                None if node.namespace => parts.push(ANONYMOUS.to_owned()),
                None => return None,
            }
            let Some(parent) = node.parent else { break };
            node = scopes.node(parent)?;
            if parts.len() > MAX_SCOPES {
                return None;
            }
        }
        parts.reverse();
        Some(parts)
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// What a reference in the unit at `start` refers to.
pub fn reference(units: &Units, start: Place, value: AttributeValue<Bytes<'_>>) -> Option<Place> {
    match value {
        AttributeValue::UnitRef(offset) => Some(Place {
            area: start.area,
            offset: start.offset.checked_add(offset.0)?,
        }),
        AttributeValue::DebugInfoRef(offset) => Some(Place {
            area: match start.area {
                Area::Supplementary => Area::Supplementary,
                _ => Area::Info,
            },
            offset: offset.0,
        }),
        AttributeValue::DebugInfoRefSup(offset) => Some(Place {
            area: Area::Supplementary,
            offset: offset.0,
        }),
        AttributeValue::DebugTypesRef(signature) => units.signatures.get(&signature.0).copied(),
        _ => None,
    }
}

/// The scopes of one unit: enough to name any type in it.
struct Scopes<'a> {
    /// By their offset.
    nodes: Vec<(usize, Node<'a>)>,
}

#[derive(Clone, Copy)]
struct Node<'a> {
    parent: Option<usize>,
    name: Option<&'a [u8]>,
    namespace: bool,
    specification: Option<AttributeValue<Bytes<'a>>>,
}

impl<'a> Scopes<'a> {
    fn read(dwarf: &Dwarf<'a>, unit: &Unit<'a>) -> Self {
        let mut scopes = Self { nodes: Vec::new() };
        // A damaged end of a unit costs the names there.
        let _ = scan::scan(dwarf, unit, None, &mut scopes);
        scopes
    }

    fn node(&self, offset: usize) -> Option<&Node<'a>> {
        let by_offset = |(offset, _): &(usize, Node<'_>)| *offset;
        let found = self.nodes.binary_search_by_key(&offset, by_offset).ok()?;
        self.nodes.get(found).map(|(_, node)| node)
    }
}

impl<'a> Visitor<'a, Option<usize>> for Scopes<'a> {
    const FUNCTIONS: bool = true;

    fn item(&mut self, item: &Item<'a>, scope: Option<usize>) -> Option<usize> {
        let node = Node {
            parent: scope,
            name: item.name,
            namespace: item.tag == dw::DW_TAG_namespace,
            specification: item.specification,
        };
        // Up to DWARF 4 a static member is a member that is only declared.
        if item.tag != dw::DW_TAG_member || item.declaration {
            // The pass goes forward only.
            self.nodes.push((item.offset.0, node));
        }
        Some(item.offset.0)
    }
}
