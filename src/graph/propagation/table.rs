//! Types by number: each is read once, when something of it was found in memory.
//!
//! One structure is described in every unit that uses it. Those of one module that have one name, size and members are one type here.

mod questions;

pub use questions::Leaf;

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use ground::target::ModuleId;
use postmortem::debuginfo::StaticVariable;
use postmortem::debuginfo::catalog::{self, Catalog, TypeRef};

use super::containers::{self, Container};

/// Types that are read.
const MAX_TYPES: usize = 1 << 18;
/// Members that are read, of all types together.
const MAX_MEMBERS: usize = 1 << 22;
/// Structures within structures.
pub const MAX_DEPTH: usize = 48;

/// A type's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(u32);

/// A type.
#[derive(Debug)]
pub struct Known {
    /// Its name as debug information has it; a pointer and an array have none.
    pub name: Option<String>,
    /// The module that describes it.
    pub module: ModuleId,
    /// Its bytes; 0 where they are not known.
    pub size: u64,
    /// What it is.
    pub form: Form,
}

/// What a type is.
#[derive(Debug)]
pub enum Form {
    Scalar,
    Pointer(Option<TypeId>),
    Array {
        element: TypeId,
        count: Option<u64>,
    },
    Structure(Structure),
    /// Which member holds is not told.
    Union,
    Opaque,
}

/// A structure, with its container's kind where it is one.
#[derive(Debug)]
pub struct Structure {
    pub members: Vec<Member>,
    /// The arguments of its template that are types.
    pub arguments: Vec<Option<TypeId>>,
    pub variants: Option<Variants>,
    pub has_table: bool,
    pub container: Option<Container>,
}

/// A member or a base.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: Option<String>,
    pub offset: u64,
    pub of: TypeId,
    pub is_base: bool,
}

/// Variants of an enum of Rust's: where the number is, its bytes, and the members for each number.
#[derive(Debug)]
pub struct Variants {
    pub discriminant: Option<(u64, u64)>,
    pub cases: Vec<(Option<u64>, Vec<Member>)>,
}

/// What is known of one number.
enum Slot {
    Unread,
    Same(TypeId),
    Known(Arc<Known>),
    Nothing,
}

/// What makes two descriptions one type: module, name, bytes, and a hash of the members.
type Likeness = (ModuleId, String, u64, u64);

/// What types are read from.
pub trait Source {
    /// Modules that have types.
    fn modules(&self) -> Vec<ModuleId>;
    /// Variables of a module that have one place.
    fn statics(&self, module: ModuleId) -> Vec<StaticVariable>;
    /// The name and the type of a variable.
    fn variable(&self, at: TypeRef) -> Option<(String, TypeRef)>;
    /// The definition of a structure.
    fn definition(&self, module: ModuleId, name: &str) -> Option<TypeRef>;
    /// What a type is.
    fn read(&self, of: TypeRef) -> Option<catalog::Described>;
}

impl Source for Catalog<'_> {
    fn modules(&self) -> Vec<ModuleId> {
        Catalog::modules(self).collect()
    }

    fn statics(&self, module: ModuleId) -> Vec<StaticVariable> {
        Catalog::statics(self, module)
    }

    fn variable(&self, at: TypeRef) -> Option<(String, TypeRef)> {
        Catalog::variable(self, at)
    }

    fn definition(&self, module: ModuleId, name: &str) -> Option<TypeRef> {
        Catalog::definition(self, module, name)
    }

    fn read(&self, of: TypeRef) -> Option<catalog::Described> {
        Catalog::read(self, of)
    }
}

/// The table.
pub struct Table<'c> {
    catalog: &'c dyn Source,
    ids: HashMap<TypeRef, TypeId>,
    refs: Vec<TypeRef>,
    slots: Vec<Slot>,
    inert: Vec<Option<bool>>,
    pointers: HashMap<TypeId, Arc<[u64]>>,
    alike: BTreeMap<Likeness, TypeId>,
    members: usize,
    /// Types that are being read for another one.
    nesting: usize,
}

impl<'c> Table<'c> {
    /// One that has read nothing.
    pub fn new(catalog: &'c dyn Source) -> Self {
        Self {
            catalog,
            ids: HashMap::new(),
            refs: Vec::new(),
            slots: Vec::new(),
            inert: Vec::new(),
            pointers: HashMap::new(),
            alike: BTreeMap::new(),
            members: 0,
            nesting: 0,
        }
    }

    /// What the types are read from.
    pub fn catalog(&self) -> &'c dyn Source {
        self.catalog
    }

    /// The number of a type.
    pub fn id(&mut self, of: TypeRef) -> TypeId {
        if let Some(id) = self.ids.get(&of) {
            return *id;
        }
        let id = TypeId(u32::try_from(self.refs.len()).unwrap_or(u32::MAX));
        self.refs.push(of);
        self.slots.push(Slot::Unread);
        self.inert.push(None);
        self.ids.insert(of, id);
        id
    }

    /// The number that all descriptions of one type have.
    pub fn canonical(&mut self, id: TypeId) -> TypeId {
        let mut id = id;
        for _ in 0..4 {
            self.read(id);
            match self.slots.get(id.0 as usize) {
                Some(Slot::Same(other)) => id = *other,
                _ => break,
            }
        }
        id
    }

    /// The type with this number.
    pub fn get(&mut self, id: TypeId) -> Option<Arc<Known>> {
        let id = self.canonical(id);
        match self.slots.get(id.0 as usize)? {
            Slot::Known(known) => Some(Arc::clone(known)),
            _ => None,
        }
    }

    fn read(&mut self, id: TypeId) {
        let index = id.0 as usize;
        if !matches!(self.slots.get(index), Some(Slot::Unread)) {
            return;
        }
        self.set(id, Slot::Nothing); // a type that is made of itself is none
        if self.nesting >= MAX_DEPTH {
            return;
        }
        self.nesting += 1;
        let slot = self.read_slot(id).unwrap_or(Slot::Nothing);
        self.nesting -= 1;
        self.set(id, slot);
    }

    fn set(&mut self, id: TypeId, slot: Slot) {
        if let Some(place) = self.slots.get_mut(id.0 as usize) {
            *place = slot;
        }
    }

    fn read_slot(&mut self, id: TypeId) -> Option<Slot> {
        if self.slots.len() > MAX_TYPES || self.members > MAX_MEMBERS {
            return None;
        }
        let of = *self.refs.get(id.0 as usize)?;
        let described = self.catalog.read(of)?;
        if described.at != of {
            let other = self.id(described.at);
            if other != id {
                self.finish(other, described);
                return Some(Slot::Same(other));
            }
        }
        Some(self.make(id, described))
    }

    fn finish(&mut self, id: TypeId, described: catalog::Described) {
        let index = id.0 as usize;
        if !matches!(self.slots.get(index), Some(Slot::Unread)) {
            return;
        }
        self.set(id, Slot::Nothing);
        let slot = self.make(id, described);
        self.set(id, slot);
    }

    fn make(&mut self, id: TypeId, described: catalog::Described) -> Slot {
        let module = described.at.module;
        let size = described.size.unwrap_or(0);
        if let (Some(name), catalog::Form::Structure(structure)) =
            (&described.name, &described.form)
        {
            let mut hasher = DefaultHasher::new();
            for member in &structure.members {
                (&member.name, member.offset, member.is_base).hash(&mut hasher);
            }
            structure.variants.is_some().hash(&mut hasher);
            let likeness = (module, name.clone(), size, hasher.finish());
            match self.alike.get(&likeness) {
                Some(other) if *other != id => return Slot::Same(*other),
                _ => {
                    self.alike.insert(likeness, id);
                }
            }
        }
        let form = match described.form {
            catalog::Form::Scalar => Form::Scalar,
            catalog::Form::Pointer(target) => Form::Pointer(target.map(|target| self.id(target))),
            catalog::Form::Array { element, count } => Form::Array {
                element: self.id(element),
                count,
            },
            catalog::Form::Union(_) => Form::Union,
            catalog::Form::Opaque => Form::Opaque,
            catalog::Form::Structure(structure) => {
                Form::Structure(self.structure(described.name.as_deref(), size, structure))
            }
        };
        let size = match &form {
            Form::Array { element, count } if size == 0 => {
                let stride = self.get(*element).map_or(0, |element| element.size);
                stride.saturating_mul(count.unwrap_or(0))
            }
            _ => size,
        };
        Slot::Known(Arc::new(Known {
            name: described.name,
            module,
            size,
            form,
        }))
    }

    fn structure(&mut self, name: Option<&str>, size: u64, from: catalog::Structure) -> Structure {
        self.members = self.members.saturating_add(from.members.len());
        let arguments = from.arguments.into_iter();
        let arguments = arguments
            .map(|argument| match argument {
                catalog::Argument::Type(of) => of.map(|of| self.id(of)),
                catalog::Argument::Value(_) => None,
            })
            .collect();
        let variants = from.variants.map(|variants| {
            let discriminant = variants.discriminant.and_then(|member| {
                let id = self.id(member.of);
                Some((member.offset, self.get(id)?.size))
            });
            let cases = variants.cases.into_iter();
            Variants {
                discriminant,
                cases: cases
                    .map(|(value, members)| {
                        self.members = self.members.saturating_add(members.len());
                        (value, self.members_of(members))
                    })
                    .collect(),
            }
        });
        Structure {
            members: self.members_of(from.members),
            arguments,
            variants,
            has_table: from.has_table,
            container: name.and_then(|name| containers::classify(name, size)),
        }
    }

    fn members_of(&mut self, members: Vec<catalog::Member>) -> Vec<Member> {
        let members = members.into_iter();
        members
            .map(|member| Member {
                name: member.name,
                offset: member.offset,
                of: self.id(member.of),
                is_base: member.is_base,
            })
            .collect()
    }

    /// What was read, by number: what names of members are looked up in afterwards.
    pub fn into_read(self) -> Vec<Option<Arc<Known>>> {
        let all: Vec<Option<Arc<Known>>> = self
            .slots
            .iter()
            .map(|slot| {
                let mut slot = slot;
                for _ in 0..4 {
                    match slot {
                        Slot::Same(other) => slot = self.slots.get(other.0 as usize)?,
                        Slot::Known(known) => return Some(Arc::clone(known)),
                        _ => return None,
                    }
                }
                None
            })
            .collect();
        all
    }
}

impl TypeId {
    /// Its place in what was read.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}
