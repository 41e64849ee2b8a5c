//! Types one level deep: what following typed pointers through memory asks for, member by member.
//!
//! ```text
//! TypeRef ──typedefs, const──> the entry that says something ──> Described: scalar, pointer, array, structure, union
//! a declaration ──> its definition, by signature or by its qualified name: in this module, else in another one
//! ```
//!
//! Members stay references, so that a type is read when something of it was found in memory, and a type that holds itself costs nothing.

use gimli::{AttributeValue, constants as dw};
use ground::target::ModuleId;

use super::dies::{Dies, Entry, Place, PlacedUnit};
use super::index::Role;
use super::statics::{self, StaticVariable};
use super::types::{Types, each_child, member_offset, number};

/// Typedefs and qualifiers in front of a type.
const MAX_LAYERS: usize = 64;
/// Members of one structure.
const MAX_MEMBERS: usize = 4096;
/// Variants of one enum of Rust's.
const MAX_CASES: usize = 4096;
/// Arguments of a template.
const MAX_ARGUMENTS: usize = 256;
/// References from a variable's copy to the entry that has its name.
const MAX_ORIGINS: usize = 8;
/// Declarations whose definitions are looked for in other modules.
const MAX_MODULES: usize = 64;

/// A type: the module and the entry that describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeRef {
    /// The module.
    pub module: ModuleId,
    /// The entry.
    pub place: Place,
}

/// A type, one level deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The entry that describes it, behind typedefs and qualifiers.
    pub at: TypeRef,
    /// Its qualified name; of a structure without one the name of the typedef.
    pub name: Option<String>,
    /// Its bytes.
    pub size: Option<u64>,
    /// What it is.
    pub form: Form,
}

/// What a type is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A number, a character, an enum of C's.
    Scalar,
    /// A pointer or a reference; to nothing that is told (`void*`) where there is no target.
    Pointer(Option<TypeRef>),
    /// An array; the count is missing where it is open.
    Array {
        /// Its elements.
        element: TypeRef,
        /// How many.
        count: Option<u64>,
    },
    /// A structure or a class.
    Structure(Structure),
    /// A union: which of its members holds is not told.
    Union(Vec<Member>),
    /// A function, a declaration without a definition.
    Opaque,
}

/// A structure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// Its members and bases by their entries' order; no static ones, no bit fields, no virtual bases.
    pub members: Vec<Member>,
    /// The arguments of the template that it comes from.
    pub arguments: Vec<Argument>,
    /// The variants of an enum of Rust's.
    pub variants: Option<Variants>,
    /// It has a pointer to a virtual table of its own.
    pub has_table: bool,
}

/// A member or a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name; a base and an unnamed structure have none.
    pub name: Option<String>,
    /// Bytes from the structure's start.
    pub offset: u64,
    /// Its type.
    pub of: TypeRef,
    /// It is a base class.
    pub is_base: bool,
}

/// An argument of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    /// A type; `void` has no entry.
    Type(Option<TypeRef>),
    /// A number.
    Value(u64),
}

/// The variants of an enum of Rust's, and the number that tells which one holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variants {
    /// The number; where there is none, there is one variant.
    pub discriminant: Option<Member>,
    /// For each variant its number, none for the one of all other numbers, and its members.
    pub cases: Vec<(Option<u64>, Vec<Member>)>,
}

/// The types of all modules that have debug information, for the length of one question.
pub struct Catalog<'c> {
    modules: Vec<Option<Types<'c>>>,
}

impl<'c> Catalog<'c> {
    /// Of these modules, by their numbers.
    pub(super) fn new(modules: Vec<Option<Types<'c>>>) -> Self {
        Self { modules }
    }

    fn types(&self, module: ModuleId) -> Option<&Types<'c>> {
        let index = usize::try_from(module.0).ok()?;
        self.modules.get(index)?.as_ref()
    }

    /// Modules that have types.
    pub fn modules(&self) -> impl Iterator<Item = ModuleId> + '_ {
        let all = (0u32..).zip(&self.modules);
        all.filter_map(|(id, types)| types.as_ref().map(|_| ModuleId(id)))
    }

    /// Variables of a module that have one place: globals, statics of files and functions, thread-locals.
    pub fn statics(&self, module: ModuleId) -> Vec<StaticVariable> {
        let found = self.types(module).map(|types| {
            let dies = types.dies();
            statics::read(dies.dwarf, dies.units)
        });
        found.unwrap_or_default()
    }

    /// The name and the type of a variable.
    pub fn variable(&self, at: TypeRef) -> Option<(String, TypeRef)> {
        let dies = self.types(at.module)?.dies();
        let (unit, entry) = dies.entry(at.place)?;
        let (name, kind) = named(dies, &unit, &entry);
        let of = TypeRef { place: kind?, ..at };
        Some((name.unwrap_or_default(), of))
    }

    /// The definition of the structure called `name` in a module.
    pub fn definition(&self, module: ModuleId, name: &str) -> Option<TypeRef> {
        let place = self.definitions(module, name).next()?;
        Some(TypeRef { module, place })
    }

    fn definitions(&self, module: ModuleId, name: &str) -> impl Iterator<Item = Place> {
        let found = self.types(module).map(|types| {
            let roles = [Role::Struct, Role::StructElsewhere];
            types.index().find(types.dies(), name, &roles)
        });
        found.unwrap_or_default().into_iter()
    }

    /// What a type is, behind its typedefs and qualifiers.
    pub fn read(&self, of: TypeRef) -> Option<Described> {
        let mut of = of;
        let mut typedef: Option<Place> = None;
        let mut outermost: Option<TypeRef> = None;
        for _ in 0..MAX_LAYERS {
            let types = self.types(of.module)?;
            let dies = types.dies();
            let (unit, entry) = dies.entry(of.place)?;
            let target = dies.refers(&unit, &entry, dw::DW_AT_type);
            match entry.tag() {
                dw::DW_TAG_typedef => {
                    typedef = Some(of.place);
                    outermost = outermost.or(Some(of));
                }
                dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type
                | dw::DW_TAG_atomic_type
                | dw::DW_TAG_immutable_type => {}
                _ if is_declaration(&entry) => match self.defined(of, &unit, &entry) {
                    Some(definition) => {
                        of = definition;
                        continue;
                    }
                    None => return Some(opaque(of, dies)),
                },
                _ => {
                    let mut described = describe(dies, of, &unit, &entry)?;
                    // A number is what its program calls it: `wchar_t`, `uint32_t`.
                    if let (Form::Scalar, Some(outermost)) = (&described.form, outermost)
                        && let Some([name]) = dies.path(outermost.place).as_deref()
                        && outermost.module == of.module
                    {
                        (described.at, described.name) = (outermost, Some(name.clone()));
                    }
                    let unnamed = described.name.is_none();
                    if let Some(typedef) = typedef.filter(|_| unnamed) {
                        described.name = dies.path(typedef).map(|path| path.join("::"));
                    }
                    return Some(described);
                }
            }
            of.place = target?;
        }
        None
    }

    /// The definition of what an entry only declares.
    fn defined(&self, of: TypeRef, unit: &PlacedUnit<'c>, entry: &Entry<'c>) -> Option<TypeRef> {
        let dies = self.types(of.module)?.dies();
        if let Some(place) = dies.refers(unit, entry, dw::DW_AT_signature) {
            return Some(TypeRef { place, ..of });
        }
        let name = dies.path(of.place)?.join("::");
        let own = std::iter::once(of.module);
        let others = self.modules().filter(|module| *module != of.module);
        own.chain(others.take(MAX_MODULES)).find_map(|module| {
            let dies = self.types(module)?.dies();
            let mut found = self.definitions(module, &name);
            let place = found.find(|place| {
                let found = dies.entry(*place);
                found.is_some_and(|(_, entry)| !is_declaration(&entry))
            })?;
            Some(TypeRef { module, place })
        })
    }
}

fn is_declaration(entry: &Entry<'_>) -> bool {
    entry.attr(dw::DW_AT_declaration).is_some()
}

fn opaque(at: TypeRef, dies: &Dies<'_>) -> Described {
    Described {
        at,
        name: dies.path(at.place).map(|path| path.join("::")),
        size: None,
        form: Form::Opaque,
    }
}

fn describe<'c>(
    dies: &Dies<'c>,
    at: TypeRef,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
) -> Option<Described> {
    let refer = |place| TypeRef { place, ..at };
    let target = dies.refers(unit, entry, dw::DW_AT_type).map(refer);
    let mut size = number(entry, dw::DW_AT_byte_size);
    let mut is_named = true;
    let form = match entry.tag() {
        dw::DW_TAG_structure_type | dw::DW_TAG_class_type => {
            Form::Structure(structure(dies, at, unit, entry)?)
        }
        dw::DW_TAG_union_type => Form::Union(structure(dies, at, unit, entry)?.members),
        dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => {
            size = size.or(Some(unit.unit.encoding().address_size.into()));
            is_named = false;
            Form::Pointer(target)
        }
        dw::DW_TAG_array_type => {
            is_named = false;
            Form::Array {
                element: target?,
                count: super::types::dimensions(unit, entry),
            }
        }
        dw::DW_TAG_base_type | dw::DW_TAG_enumeration_type => Form::Scalar,
        _ => Form::Opaque,
    };
    let name = is_named.then(|| dies.path(at.place)).flatten();
    Some(Described {
        at,
        name: name.map(|path| path.join("::")),
        size,
        form,
    })
}

fn structure<'c>(
    dies: &Dies<'c>,
    at: TypeRef,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
) -> Option<Structure> {
    let mut found = Structure::default();
    let mut variants = None;
    let mut pack = None;
    each_child(unit, entry, |child| {
        let child = child.entry();
        match child.tag() {
            dw::DW_TAG_member | dw::DW_TAG_inheritance if found.members.len() < MAX_MEMBERS => {
                let member = member(dies, at, unit, child);
                let is_table = |name: &str| name.starts_with("_vptr");
                found.has_table |= member
                    .as_ref()
                    .is_some_and(|member| member.name.as_deref().is_some_and(is_table));
                found.members.extend(member);
            }
            dw::DW_TAG_template_type_parameter | dw::DW_TAG_template_value_parameter => {
                add_argument(dies, at, unit, child, &mut found.arguments);
            }
            dw::DW_TAG_GNU_template_parameter_pack => pack = Some(child.clone()),
            dw::DW_TAG_variant_part => variants = Some(child.clone()),
            _ => {}
        }
    })?;
    if let Some(pack) = pack {
        each_child(unit, &pack, |child| {
            add_argument(dies, at, unit, child.entry(), &mut found.arguments);
        });
    }
    found.variants = variants.and_then(|part| variants_of(dies, at, unit, &part));
    Some(found)
}

fn add_argument<'c>(
    dies: &Dies<'c>,
    at: TypeRef,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
    arguments: &mut Vec<Argument>,
) {
    if arguments.len() >= MAX_ARGUMENTS {
        return;
    }
    arguments.push(match number(entry, dw::DW_AT_const_value) {
        Some(value) => Argument::Value(value),
        None => {
            let target = dies.refers(unit, entry, dw::DW_AT_type);
            Argument::Type(target.map(|place| TypeRef { place, ..at }))
        }
    });
}

/// A member that has a place of whole bytes.
fn member<'c>(
    dies: &Dies<'c>,
    at: TypeRef,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
) -> Option<Member> {
    let is_static = entry.attr(dw::DW_AT_external).is_some() || is_declaration(entry);
    let is_bits = entry.attr(dw::DW_AT_bit_size).is_some();
    if is_static || is_bits {
        return None;
    }
    let name = dies.name(unit, entry);
    let place = dies.refers(unit, entry, dw::DW_AT_type)?;
    Some(Member {
        name: name.map(|name| String::from_utf8_lossy(name).into_owned()),
        offset: member_offset(unit, entry)?.unwrap_or(0),
        of: TypeRef { place, ..at },
        is_base: entry.tag() == dw::DW_TAG_inheritance,
    })
}

fn variants_of<'c>(
    dies: &Dies<'c>,
    at: TypeRef,
    unit: &PlacedUnit<'c>,
    part: &Entry<'c>,
) -> Option<Variants> {
    let discriminant = dies.refers(unit, part, dw::DW_AT_discr).and_then(|place| {
        let (unit, entry) = dies.entry(place)?;
        member(dies, at, &unit, &entry)
    });
    let mut cases: Vec<(Option<u64>, Entry<'c>)> = Vec::new();
    each_child(unit, part, |child| {
        let child = child.entry();
        // A list of numbers is no number: such a variant is not told.
        let is_listed = child.attr(dw::DW_AT_discr_list).is_some();
        if child.tag() == dw::DW_TAG_variant && !is_listed && cases.len() < MAX_CASES {
            cases.push((number(child, dw::DW_AT_discr_value), child.clone()));
        }
    })?;
    let cases = cases.into_iter().map(|(value, case)| {
        let mut members = Vec::new();
        each_child(unit, &case, |child| {
            let child = child.entry();
            if child.tag() == dw::DW_TAG_member && members.len() < MAX_MEMBERS {
                members.extend(member(dies, at, unit, child));
            }
        });
        (value, members)
    });
    Some(Variants {
        discriminant,
        cases: cases.collect(),
    })
}

/// The name of a variable and its type: its own, or those of the entry that it is a copy of.
pub(super) fn named<'c>(
    dies: &Dies<'c>,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
) -> (Option<String>, Option<Place>) {
    let mut kind = dies.refers(unit, entry, dw::DW_AT_type);
    let mut name = dies.name(unit, entry);
    let origin = |unit: &PlacedUnit<'c>, entry: &Entry<'c>| {
        dies.refers(unit, entry, dw::DW_AT_abstract_origin)
            .or_else(|| dies.refers(unit, entry, dw::DW_AT_specification))
    };
    let mut next = origin(unit, entry);
    for _ in 0..MAX_ORIGINS {
        let Some(place) = next.filter(|_| name.is_none() || kind.is_none()) else {
            break;
        };
        let Some((unit, entry)) = dies.entry(place) else {
            break;
        };
        name = name.or_else(|| dies.name(&unit, &entry));
        kind = kind.or_else(|| dies.refers(&unit, &entry, dw::DW_AT_type));
        next = origin(&unit, &entry);
    }
    let name = name.filter(|name| !name.is_empty());
    let name = name.map(|name| String::from_utf8_lossy(name).into_owned());
    (name, kind)
}

/// The line of a variable's declaration, its own or that of the entry that it is a copy of.
pub(super) fn declared_at<'c>(
    dies: &Dies<'c>,
    unit: &PlacedUnit<'c>,
    entry: &Entry<'c>,
) -> Option<u64> {
    let line = |entry: &Entry<'c>| match entry.attr_value(dw::DW_AT_decl_line)? {
        AttributeValue::Sdata(value) => u64::try_from(value).ok(),
        value => value.udata_value(),
    };
    line(entry).or_else(|| {
        let place = dies.refers(unit, entry, dw::DW_AT_abstract_origin)?;
        line(&dies.entry(place)?.1)
    })
}
