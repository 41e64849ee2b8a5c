//! Layouts of structs and addresses of variables, answered from the debugging entries.
//!
//! A struct's own members, those of its bases and those of unions without a name are one flat list, at offsets from the
//! start of the struct:
//!
//! ```text
//! struct Derived : Base { union { A a; B b; }; unsigned flag : 1; struct { int x; } s; };
//!        Base's members, a, b (same offset), flag (bits), s, s.x
//! ```
//!
//! Members of virtual bases, and static members, have no fixed offset and are left out.

use std::cell::Cell;

use gimli::{AttributeValue, EntriesTreeNode, Operation, constants as dw};
use ground::target::{Field, StructLayout};

use super::dies::{Dies, Entry, Place, PlacedUnit, Units};
use super::dwarf::{Bytes, Dwarf};
use super::index::{Index, Role};

/// Types within types: typedefs of arrays of structs and so on, bases of bases.
pub(super) const MAX_TYPE_DEPTH: usize = 64;
/// Fields of one struct, inherited ones included.
const MAX_FIELDS: usize = 1 << 16;
/// Steps of one question: types followed and members placed. Without it, structs of structs of structs in a damaged file
/// double at every depth.
const MAX_STEPS: u32 = 1 << 20;
/// Pointers to pointers that are still written out.
const MAX_POINTERS: usize = 8;
/// Dimensions of an array.
const MAX_DIMENSIONS: usize = 32;

/// A type, followed to what it is made of.
#[derive(Clone, Debug, Default)]
pub struct TypeFacts {
    /// Bytes of the whole, where known.
    pub size: Option<u64>,
    /// Elements of an array, all dimensions multiplied.
    pub count: Option<u64>,
    /// Qualified name; of the element for an array. A pointer is its target's name and `*`.
    pub name: Option<String>,
    /// The struct, class or union that it is, or an array of.
    pub structure: Option<Place>,
}

/// Questions about one module's types.
pub struct Types<'a> {
    dies: Dies<'a>,
    index: &'a Index,
    steps: Cell<u32>,
}

impl<'a> Types<'a> {
    /// Ready for one question.
    pub fn new(dwarf: &'a Dwarf<'a>, units: &'a Units, index: &'a Index) -> Self {
        Self {
            dies: Dies::new(dwarf, units),
            index,
            steps: Cell::new(MAX_STEPS),
        }
    }

    /// The entries that the types are read from.
    pub fn dies(&self) -> &Dies<'a> {
        &self.dies
    }

    /// The names of the module.
    pub fn index(&self) -> &'a Index {
        self.index
    }

    fn step(&self) -> Option<()> {
        self.steps.set(self.steps.get().checked_sub(1)?);
        Some(())
    }

    /// The layout of the struct called `name`, or that a typedef of this name stands for.
    pub fn layout(&self, name: &str) -> Option<StructLayout> {
        let roles = [Role::Struct, Role::StructElsewhere, Role::Typedef];
        let candidates = self.index.find(&self.dies, name, &roles);
        candidates
            .into_iter()
            .find_map(|place| self.layout_at(place))
    }

    fn layout_at(&self, place: Place) -> Option<StructLayout> {
        let facts = self.facts(place, MAX_TYPE_DEPTH);
        if facts.count.is_some() {
            return None; // a typedef of an array
        }
        let mut fields = Vec::new();
        let structure = facts.structure?;
        self.collect(structure, 0, "", MAX_TYPE_DEPTH, &mut fields)?;
        Some(StructLayout {
            size: facts.size?,
            fields,
        })
    }

    /// The link address and the type of the variable called `name`.
    pub fn variable(&self, name: &str) -> Option<(u64, TypeFacts)> {
        let roles = [Role::Variable, Role::VariableElsewhere];
        let candidates = self.index.find(&self.dies, name, &roles);
        candidates.into_iter().find_map(|place| {
            let (unit, entry) = self.dies.entry(place)?;
            let address = self.fixed_address(&unit, &entry)?;
            Some((address, self.type_of_variable(place, MAX_TYPE_DEPTH)?))
        })
    }

    /// The type, from the definition or else its declaration: an array's length may be on either.
    fn type_of_variable(&self, place: Place, depth: usize) -> Option<TypeFacts> {
        let (unit, entry) = self.dies.entry(place)?;
        let own = self
            .dies
            .refers(&unit, &entry, dw::DW_AT_type)
            .map(|place| self.facts(place, MAX_TYPE_DEPTH));
        if own.as_ref().is_some_and(|facts| facts.size.is_some()) {
            return own;
        }
        self.dies
            .refers(&unit, &entry, dw::DW_AT_specification)
            .and_then(|place| self.type_of_variable(place, depth.checked_sub(1)?))
            .or(own)
    }

    /// A location that is one address, perhaps plus a constant.
    fn fixed_address(&self, unit: &PlacedUnit<'a>, entry: &Entry<'a>) -> Option<u64> {
        let AttributeValue::Exprloc(expression) = entry.attr_value(dw::DW_AT_location)? else {
            return None;
        };
        let mut operations = expression.operations(unit.unit.encoding());
        let mut address = match operations.next().ok()?? {
            Operation::Address { address } => address,
            Operation::AddressIndex { index } => self.dies.dwarf.address(&unit.unit, index).ok()?,
            _ => return None,
        };
        while let Some(operation) = operations.next().ok()? {
            match operation {
                Operation::PlusConstant { value } => address = address.checked_add(value)?,
                _ => return None,
            }
        }
        // A variable that the linker dropped.
        (address != 0).then_some(address)
    }

    /// What a type is made of.
    pub fn facts(&self, place: Place, depth: usize) -> TypeFacts {
        self.try_facts(place, depth).unwrap_or_default()
    }

    fn try_facts(&self, place: Place, depth: usize) -> Option<TypeFacts> {
        let depth = depth.checked_sub(1)?;
        self.step()?;
        let (unit, entry) = self.dies.entry(place)?;
        let target = || {
            self.dies
                .refers(&unit, &entry, dw::DW_AT_type)
                .map(|place| self.facts(place, depth))
        };
        let size = number(&entry, dw::DW_AT_byte_size);
        match entry.tag() {
            dw::DW_TAG_structure_type | dw::DW_TAG_class_type | dw::DW_TAG_union_type => {
                self.structure(place, &entry, size, depth)
            }
            dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
            | dw::DW_TAG_immutable_type => target(),
            dw::DW_TAG_typedef => {
                let mut facts = target().unwrap_or_default();
                let named_struct = facts.structure.is_some() && facts.name.is_some();
                if facts.count.is_none() && !named_struct {
                    facts.name = self.dies.path(place).map(|path| path.join("::"));
                }
                Some(facts)
            }
            dw::DW_TAG_array_type => {
                let element = target().unwrap_or_default();
                let own = dimensions(&unit, &entry);
                let count = own.and_then(|own| own.checked_mul(element.count.unwrap_or(1)));
                let stride = element.size.map(|size| {
                    let inner = element.count.and_then(|inner| size.checked_div(inner));
                    inner.unwrap_or(size)
                });
                Some(TypeFacts {
                    size: size.or_else(|| stride?.checked_mul(count?)),
                    count: Some(count.unwrap_or(0)),
                    ..element
                })
            }
            dw::DW_TAG_pointer_type
            | dw::DW_TAG_reference_type
            | dw::DW_TAG_rvalue_reference_type => Some(TypeFacts {
                size: size.or(Some(unit.unit.encoding().address_size.into())),
                name: self.pointer_name(place, MAX_POINTERS),
                ..TypeFacts::default()
            }),
            dw::DW_TAG_ptr_to_member_type => Some(TypeFacts {
                size: size.or(Some(unit.unit.encoding().address_size.into())),
                ..TypeFacts::default()
            }),
            dw::DW_TAG_enumeration_type => Some(TypeFacts {
                size: size.or_else(|| target()?.size),
                name: self.dies.path(place).map(|path| path.join("::")),
                ..TypeFacts::default()
            }),
            _ => Some(TypeFacts {
                size,
                name: self.dies.path(place).map(|path| path.join("::")),
                ..TypeFacts::default()
            }),
        }
    }

    /// A struct; where this entry only declares it, its definition elsewhere.
    fn structure(
        &self,
        place: Place,
        entry: &Entry<'a>,
        size: Option<u64>,
        depth: usize,
    ) -> Option<TypeFacts> {
        let name = self.dies.path(place).map(|path| path.join("::"));
        if entry.attr(dw::DW_AT_declaration).is_some() {
            let unit = self.dies.entry(place)?.0;
            let by_signature = self.dies.refers(&unit, entry, dw::DW_AT_signature);
            let definition = by_signature.or_else(|| {
                let roles = [Role::Struct, Role::StructElsewhere];
                let found = self.index.find(&self.dies, name.as_deref()?, &roles);
                found.into_iter().find(|found| *found != place)
            });
            if let Some(definition) = definition {
                let facts = self.facts(definition, depth);
                if facts.structure.is_some() {
                    return Some(facts);
                }
            }
            return Some(TypeFacts {
                name,
                ..TypeFacts::default()
            });
        }
        Some(TypeFacts {
            size,
            count: None,
            name,
            structure: Some(place),
        })
    }

    /// A pointer's target by name, without following structs.
    fn pointer_name(&self, place: Place, pointers: usize) -> Option<String> {
        let mut place = place;
        let mut stars = String::new();
        for _ in 0..MAX_TYPE_DEPTH {
            let (unit, entry) = self.dies.entry(place)?;
            match entry.tag() {
                dw::DW_TAG_pointer_type => stars.push('*'),
                dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => stars.push('&'),
                dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_restrict_type => {}
                dw::DW_TAG_subroutine_type | dw::DW_TAG_array_type => return None,
                _ => return Some(self.dies.path(place)?.join("::") + &stars),
            }
            if stars.len() > pointers {
                return None;
            }
            match self.dies.refers(&unit, &entry, dw::DW_AT_type) {
                Some(target) => place = target,
                None => return Some(format!("void{stars}")),
            }
        }
        None
    }

    /// Adds the members of the struct at `place`, which lies `base` bytes into the whole.
    fn collect(
        &self,
        place: Place,
        base: u64,
        prefix: &str,
        depth: usize,
        fields: &mut Vec<Field>,
    ) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let (unit, entry) = self.dies.entry(place)?;
        let mut members = Vec::new();
        each_child(&unit, &entry, |child| {
            let member = child.entry();
            let tag = member.tag();
            let is_static = member.attr(dw::DW_AT_external).is_some()
                || member.attr(dw::DW_AT_declaration).is_some();
            if tag == dw::DW_TAG_inheritance || (tag == dw::DW_TAG_member && !is_static) {
                members.push(member.clone());
            }
        })?;
        for member in &members {
            if fields.len() >= MAX_FIELDS {
                break;
            }
            self.step()?;
            // What cannot be understood of one member costs that member.
            let _ = self.member(&unit, member, base, prefix, depth, fields);
        }
        Some(())
    }

    fn member(
        &self,
        unit: &PlacedUnit<'a>,
        member: &Entry<'a>,
        base: u64,
        prefix: &str,
        depth: usize,
        fields: &mut Vec<Field>,
    ) -> Option<()> {
        let kind = self.dies.refers(unit, member, dw::DW_AT_type)?;
        let facts = self.facts(kind, depth);
        let own = member_offset(unit, member)?;
        let name = self.dies.name(unit, member);
        let inherited = member.tag() == dw::DW_TAG_inheritance;
        if inherited || name.is_none() {
            let offset = base.checked_add(own.unwrap_or(0))?;
            return self.collect(facts.structure?, offset, prefix, depth, fields);
        }
        let name = format!("{prefix}{}", String::from_utf8_lossy(name?));
        let placed = placement(member, own, facts.size, base)?;
        let inside = facts
            .structure
            .filter(|_| facts.name.is_none() && facts.count.is_none());
        fields.push(Field {
            name: name.clone(),
            offset: placed.offset,
            size: placed.size.or(facts.size).unwrap_or(0),
            bits: placed.bits,
            type_name: facts.name,
            count: facts.count,
        });
        if let Some(structure) = inside {
            // The type has no name to ask for, so its members are given here.
            self.collect(structure, placed.offset, &(name + "."), depth, fields)?;
        }
        Some(())
    }
}

/// The product of an array's own dimensions; `None` if one is open (`x[]`) or not constant.
pub(super) fn dimensions<'a>(unit: &PlacedUnit<'a>, entry: &Entry<'a>) -> Option<u64> {
    let mut product = 1u64;
    let mut known = true;
    let mut seen = 0;
    each_child(unit, entry, |child| {
        if child.entry().tag() == dw::DW_TAG_subrange_type && seen < MAX_DIMENSIONS {
            seen = seen.saturating_add(1);
            let child = child.entry();
            let count = number(child, dw::DW_AT_count).or_else(|| {
                let upper = number(child, dw::DW_AT_upper_bound)?;
                let lower = number(child, dw::DW_AT_lower_bound).unwrap_or(0);
                // `int x[0]` of older compilers: an upper bound of -1
                upper.wrapping_sub(lower).checked_add(1).or(Some(0))
            });
            match count.and_then(|count| product.checked_mul(count)) {
                Some(next) => product = next,
                None => known = false,
            }
        }
    })?;
    (known && seen > 0).then_some(product)
}

/// Calls `visit` for each direct child.
pub(super) fn each_child<'a>(
    unit: &PlacedUnit<'a>,
    entry: &Entry<'a>,
    mut visit: impl FnMut(&EntriesTreeNode<'_, '_, Bytes<'a>>),
) -> Option<()> {
    let mut tree = unit.unit.entries_tree(Some(entry.offset())).ok()?;
    let mut children = tree.root().ok()?.children();
    while let Ok(Some(child)) = children.next() {
        visit(&child);
    }
    Some(())
}

pub(super) fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    match entry.attr_value(name)? {
        AttributeValue::Sdata(value) => Some(value.cast_unsigned()),
        value => value.udata_value(),
    }
}

/// `DW_AT_data_member_location`: `Some(None)` where it is left out (a union's member, or a bit field of DWARF 5).
pub(super) fn member_offset(unit: &PlacedUnit<'_>, member: &Entry<'_>) -> Option<Option<u64>> {
    match member.attr_value(dw::DW_AT_data_member_location) {
        None => Some(None),
        // DWARF 2 style: push the object's address, add this. Anything else is a virtual base.
        Some(AttributeValue::Exprloc(expression)) => {
            let mut operations = expression.operations(unit.unit.encoding());
            match (operations.next().ok()?, operations.next().ok()?) {
                (Some(Operation::PlusConstant { value }), None) => Some(Some(value)),
                _ => None,
            }
        }
        Some(AttributeValue::Sdata(value)) => Some(Some(u64::try_from(value).ok()?)),
        Some(value) => Some(Some(value.udata_value()?)),
    }
}

struct Placement {
    offset: u64,
    size: Option<u64>,
    bits: Option<(u64, u64)>,
}

/// Where a member lies, bit fields in all three ways of writing them. `own` is its offset in its struct, `base` that of
/// the struct in the whole.
fn placement(
    member: &Entry<'_>,
    own: Option<u64>,
    type_size: Option<u64>,
    base: u64,
) -> Option<Placement> {
    let offset = base.checked_add(own.unwrap_or(0))?;
    let Some(width) = number(member, dw::DW_AT_bit_size) else {
        return Some(Placement {
            offset,
            size: None,
            bits: None,
        });
    };
    let unit = number(member, dw::DW_AT_byte_size).or(type_size)?;
    // From the start of the struct (DWARF 4 and 5).
    if let Some(first) = number(member, dw::DW_AT_data_bit_offset) {
        let first = first.checked_add(own.unwrap_or(0).checked_mul(8)?)?;
        let storage = (first / 8).checked_div(unit)?.checked_mul(unit)?;
        return Some(Placement {
            offset: base.checked_add(storage)?,
            size: Some(unit),
            bits: Some((base.checked_mul(8)?.checked_add(first)?, width)),
        });
    }
    // From the highest bit of the storage unit down (DWARF 2 and 3); without an offset the field is at its start.
    let from_top = match number(member, dw::DW_AT_bit_offset) {
        Some(from_top) => from_top,
        None => unit.checked_mul(8)?.checked_sub(width)?,
    };
    // May be negative in 64 bits where a field crosses its unit; wrapping makes the sum right.
    let lowest = unit
        .checked_mul(8)?
        .wrapping_sub(from_top)
        .wrapping_sub(width);
    Some(Placement {
        offset,
        size: Some(unit),
        bits: Some((offset.checked_mul(8)?.wrapping_add(lowest), width)),
    })
}
