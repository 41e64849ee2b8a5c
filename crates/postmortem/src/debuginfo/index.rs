//! Every type and variable of a module by the hash of its qualified name; built once, when the first question is asked.
//!
//! Names themselves are not kept. A static member that is defined outside its class has only a reference to its declaration.
//! Where that is in another unit (dwz moves declarations), the entry is filed under its last name part, and its scopes are
//! looked up when it is asked for.
//!
//! Cost: 24 bytes for each definition; the pass reads about 200 MB of `.debug_info` a second and core.

use std::collections::HashMap;

use gimli::{AbbreviationsCacheStrategy, AttributeValue, constants as dw};
use rayon::prelude::*;

use super::dies::{Area, Dies, Place, Units, reference, unit_at};
use super::dwarf::Dwarf;
use super::names::{self, ANONYMOUS, GLOBAL};
use super::scan::{self, Item, Visitor};

/// Candidates looked at for one name: a static variable can have as many namesakes as there are files.
const MAX_CANDIDATES: usize = 4096;

/// What an entry defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A struct, class or union with its members.
    Struct,
    /// Another name for a type.
    Typedef,
    /// A variable with a location.
    Variable,
    /// A struct whose name is in its declaration; filed under the last part of its name.
    StructElsewhere,
    /// A variable whose name is in its declaration; filed under the last part of its name.
    VariableElsewhere,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    hash: u64,
    role: Role,
    place: Place,
}

/// The index of one module.
pub struct Index {
    rows: Vec<Row>,
}

impl Index {
    /// Reads all units, in parallel.
    pub fn build(dwarf: &mut Dwarf<'_>, units: &Units) -> Self {
        dwarf.populate_abbreviations_cache(AbbreviationsCacheStrategy::Duplicates);
        let dwarf = &*dwarf;
        let starts: Vec<Place> = units.starts().collect();
        let mut found: Vec<Found> = starts
            .par_iter()
            .map(|&start| Found::read(dwarf, units, start))
            .collect();
        let mut rows = Vec::with_capacity(found.iter().map(|found| found.rows.len()).sum());
        for found in &mut found {
            rows.append(&mut found.rows);
        }
        let mut elsewhere: Vec<_> = found.iter().flat_map(|found| &found.elsewhere).collect();
        // In order of the declarations, so that a unit is parsed once.
        elsewhere.sort_unstable_by_key(|(_, declaration, _)| *declaration);
        for group in elsewhere.chunk_by(|(_, one, _), (_, other, _)| {
            one.area == other.area && units.start_of(*one) == units.start_of(*other)
        }) {
            let dies = Dies::new(dwarf, units);
            for &&(role, declaration, place) in group {
                if let Some(hash) = last_name(&dies, declaration) {
                    rows.push(Row { hash, role, place });
                }
            }
        }
        rows.sort_unstable();
        rows.dedup();
        Self { rows }
    }

    /// Definitions of `name` in one of these roles, in the order of the roles, then of the file.
    pub fn find(&self, dies: &Dies<'_>, name: &str, roles: &[Role]) -> Vec<Place> {
        let parts = names::parts(name);
        let whole = names::hash_of(&parts);
        let last = parts.last().map_or(GLOBAL, |last| names::hash_of(&[last]));
        let mut found = Vec::new();
        for &role in roles {
            let elsewhere = matches!(role, Role::StructElsewhere | Role::VariableElsewhere);
            let hash = if elsewhere { last } else { whole };
            let from = self
                .rows
                .partition_point(|row| (row.hash, row.role) < (hash, role));
            let rows = self.rows.get(from..).unwrap_or(&[]);
            let rows = rows
                .iter()
                .take_while(|row| row.hash == hash && row.role == role)
                .take(MAX_CANDIDATES);
            for row in rows {
                if !elsewhere || self.is_called(dies, row.place, whole) {
                    found.push(row.place);
                }
            }
        }
        found
    }

    fn is_called(&self, dies: &Dies<'_>, place: Place, hash: u64) -> bool {
        let Some(path) = dies.path(place) else {
            return false;
        };
        let all: Vec<&str> = path.iter().map(String::as_str).collect();
        let named = |part: &&str| *part != ANONYMOUS;
        let plain: Vec<&str> = all.iter().copied().filter(named).collect();
        names::hash_of(&all) == hash || names::hash_of(&plain) == hash
    }
}

/// The hash of the last name part of a declaration.
fn last_name(dies: &Dies<'_>, declaration: Place) -> Option<u64> {
    let mut place = declaration;
    for _ in 0..4 {
        let (unit, entry) = dies.entry(place)?;
        if let Some(name) = dies.name(&unit, &entry) {
            return Some(names::extend(GLOBAL, name));
        }
        place = dies.refers(&unit, &entry, dw::DW_AT_specification)?;
    }
    None
}

/// What one unit defines.
struct Found<'u> {
    rows: Vec<Row>,
    /// Definitions named elsewhere: role, declaration, definition.
    elsewhere: Vec<(Role, Place, Place)>,
    /// Names of this unit's declarations, for definitions that refer to them.
    declared: HashMap<usize, Scope>,
    units: &'u Units,
    start: Place,
}

/// The hash of a scope's name, with and without the parts that have no name.
#[derive(Clone, Copy)]
struct Scope {
    full: u64,
    plain: u64,
}

impl<'u> Found<'u> {
    fn read(dwarf: &Dwarf<'_>, units: &'u Units, start: Place) -> Self {
        let mut found = Self {
            rows: Vec::new(),
            elsewhere: Vec::new(),
            declared: HashMap::new(),
            units,
            start,
        };
        let root = Scope {
            full: GLOBAL,
            plain: GLOBAL,
        };
        let strings = match start.area {
            Area::Supplementary => dwarf.sup(),
            _ => Some(dwarf),
        };
        if let Some((unit, strings)) = unit_at(dwarf, start).zip(strings) {
            // A damaged end of a unit costs the names there.
            let _ = scan::scan(strings, &unit, root, &mut found);
        }
        found
    }

    fn place(&self, item: &Item<'_>) -> Option<Place> {
        Some(Place {
            area: self.start.area,
            offset: self.start.offset.checked_add(item.offset.0)?,
        })
    }

    fn note(&mut self, item: &Item<'_>, here: Scope) -> Option<()> {
        let (role, elsewhere) = match item.tag {
            dw::DW_TAG_structure_type | dw::DW_TAG_class_type | dw::DW_TAG_union_type => {
                if item.declaration {
                    return None;
                }
                (Role::Struct, Role::StructElsewhere)
            }
            dw::DW_TAG_typedef => (Role::Typedef, Role::Typedef),
            dw::DW_TAG_variable if item.defined => (Role::Variable, Role::VariableElsewhere),
            _ => return None,
        };
        let place = self.place(item)?;
        match (self.declared_as(item), item.specification) {
            (None, Some(specification)) => {
                let declaration = reference(self.units, self.start, specification)?;
                self.elsewhere.push((elsewhere, declaration, place));
            }
            (None, None) if item.name.is_none() => {}
            _ => {
                for hash in [here.full, here.plain] {
                    self.rows.push(Row { hash, role, place });
                }
            }
        }
        Some(())
    }

    /// The name of the declaration that this item completes, if it is in this unit.
    fn declared_as(&self, item: &Item<'_>) -> Option<Scope> {
        match item.specification? {
            AttributeValue::UnitRef(declaration) => self.declared.get(&declaration.0).copied(),
            _ => None,
        }
    }
}

impl<'a> Visitor<'a, Scope> for Found<'_> {
    fn item(&mut self, item: &Item<'a>, scope: Scope) -> Scope {
        let here = match (self.declared_as(item), item.name) {
            (Some(declared), _) => declared,
            (None, Some(name)) => Scope {
                full: names::extend(scope.full, name),
                plain: names::extend(scope.plain, name),
            },
            (None, None) if item.tag == dw::DW_TAG_namespace => Scope {
                full: names::extend(scope.full, ANONYMOUS.as_bytes()),
                plain: scope.plain,
            },
            // Members of a class without a name are not reached by a name.
            (None, None) => Scope {
                full: names::extend(scope.full, b"\0"),
                plain: names::extend(scope.plain, b"\0"),
            },
        };
        self.note(item, here);
        if item.declaration {
            self.declared.insert(item.offset.0, here);
        }
        here
    }
}
