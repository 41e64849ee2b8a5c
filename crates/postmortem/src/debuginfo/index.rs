//! Types and variables of a module by the hash of their qualified names.
//!
//! A question is about one name, and few units define it: those are found by the bytes of the name ([`mentions`]) and read.
//! Where that does not do, or many names were asked for, all units are read, once.
//!
//! Names themselves are not kept. A static member that is defined outside its class has only a reference to its declaration.
//! Where that is in another unit (dwz moves declarations), the entry is filed under its last name part, and its scopes are
//! looked up when it is asked for.
//!
//! Cost: 24 bytes for each definition; the pass reads about 200 MB of `.debug_info` a second and core.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use gimli::{Abbreviations, AttributeValue, constants as dw};
use rayon::prelude::*;

use super::dies::{Area, Dies, Place, Units, header_at, reference};
use super::dwarf::{Dwarf, Unit};
use super::mentions;
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

/// The index of one module, as far as it was asked for.
#[derive(Default)]
pub struct Index {
    /// By the last part of a name: what the units define in which that stands.
    few: RwLock<BTreeMap<String, Arc<Rows>>>,
    /// Whether a unit may define something whose name stands in another one.
    refers_elsewhere: OnceLock<bool>,
    whole: OnceLock<Arc<Rows>>,
}

/// Names that are looked for one by one, before all units are read.
const MAX_FEW: usize = 16;

impl Index {
    /// What the units define that may define something whose name ends in `last`.
    fn rows(&self, dies: &Dies<'_>, last: &str) -> Arc<Rows> {
        if let Some(whole) = self.whole.get() {
            return Arc::clone(whole);
        }
        let few = self.few.read().unwrap_or_else(PoisonError::into_inner);
        let (known, count) = (few.get(last).cloned(), few.len());
        drop(few);
        if let Some(known) = known {
            return known;
        }
        let refers_elsewhere = || mentions::refers_elsewhere(dies.dwarf);
        let may = count < MAX_FEW && !*self.refers_elsewhere.get_or_init(refers_elsewhere);
        let found = may.then(|| mentions::units(dies.dwarf, dies.units, last));
        if let Some(starts) = found.flatten() {
            let rows = Arc::new(Rows::read(dies.dwarf, dies.units, &starts));
            let mut few = self.few.write().unwrap_or_else(PoisonError::into_inner);
            few.insert(last.to_owned(), Arc::clone(&rows));
            return rows;
        }
        self.whole(dies)
    }

    /// Whether all units were read.
    #[cfg(test)]
    pub fn is_whole(&self) -> bool {
        self.whole.get().is_some()
    }

    /// What all units define.
    pub(super) fn whole(&self, dies: &Dies<'_>) -> Arc<Rows> {
        // Without a lock: reading waits for other threads of the pool, and the waiting thread may begin other work that asks here.
        let starts: Vec<Place> = dies.units.starts().collect();
        let whole = Arc::new(Rows::read(dies.dwarf, dies.units, &starts));
        Arc::clone(self.whole.get_or_init(|| whole))
    }

    /// Definitions of `name` in one of these roles, in the order of the roles, then of the file.
    pub fn find(&self, dies: &Dies<'_>, name: &str, roles: &[Role]) -> Vec<Place> {
        let parts = names::parts(name);
        let whole = names::hash_of(&parts);
        let last = parts.last().copied().unwrap_or_default();
        let rows = self.rows(dies, last);
        let last = names::hash_of(&[last]);
        let mut found = Vec::new();
        for &role in roles {
            let elsewhere = matches!(role, Role::StructElsewhere | Role::VariableElsewhere);
            let hash = if elsewhere { last } else { whole };
            for row in rows.of(hash, role) {
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

/// What some units define, by hash, role and place.
pub(super) struct Rows(Vec<Row>);

impl Rows {
    /// Reads units, in parallel.
    fn read(dwarf: &Dwarf<'_>, units: &Units, starts: &[Place]) -> Self {
        let shared = shared_abbreviations(dwarf, starts);
        let mut found: Vec<Found> = starts
            .par_iter()
            .map(|&start| Found::read(dwarf, units, start, &shared))
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
        Self(rows)
    }

    fn of(&self, hash: u64, role: Role) -> impl Iterator<Item = &Row> {
        let from = self
            .0
            .partition_point(|row| (row.hash, row.role) < (hash, role));
        let rows = self.0.get(from..).unwrap_or(&[]).iter();
        rows.take_while(move |row| row.hash == hash && row.role == role)
            .take(MAX_CANDIDATES)
    }
}

/// Abbreviations by their place in the section.
type Shared = HashMap<(Area, usize), Arc<Abbreviations>>;

/// The abbreviations that several of the units have together (those of linked-time optimisation, of dwz): parsed once.
fn shared_abbreviations(dwarf: &Dwarf<'_>, starts: &[Place]) -> Shared {
    let place = |&start: &Place| {
        let (_, header) = header_at(dwarf, start)?;
        let area = match start.area {
            Area::Supplementary => Area::Supplementary,
            _ => Area::Info,
        };
        Some(((area, header.debug_abbrev_offset().0), start))
    };
    let mut places: Vec<_> = starts.iter().filter_map(place).collect();
    places.sort_unstable_by_key(|(place, _)| *place);
    let groups: Vec<_> = places
        .chunk_by(|(one, _), (other, _)| one == other)
        .filter(|group| group.len() > 1)
        .filter_map(|group| group.first())
        .collect();
    groups
        .into_par_iter()
        .filter_map(|(place, start)| {
            let (dwarf, header) = header_at(dwarf, *start)?;
            Some((*place, dwarf.abbreviations(&header).ok()?))
        })
        .collect()
}

fn unit_at<'a>(dwarf: &Dwarf<'a>, start: Place, shared: &Shared) -> Option<Unit<'a>> {
    let (dwarf, header) = header_at(dwarf, start)?;
    let area = match start.area {
        Area::Supplementary => Area::Supplementary,
        _ => Area::Info,
    };
    match shared.get(&(area, header.debug_abbrev_offset().0)) {
        Some(shared) => Unit::new_with_abbreviations(dwarf, header, Arc::clone(shared)).ok(),
        None => dwarf.unit(header).ok(),
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
    /// Names of this unit's declarations, by their offset, for definitions that refer to them.
    declared: Vec<(usize, Scope)>,
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
    fn read(dwarf: &Dwarf<'_>, units: &'u Units, start: Place, shared: &Shared) -> Self {
        let mut found = Self {
            rows: Vec::new(),
            elsewhere: Vec::new(),
            declared: Vec::new(),
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
        if let Some((unit, strings)) = unit_at(dwarf, start, shared).zip(strings) {
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
            AttributeValue::UnitRef(declaration) => {
                let by_offset = |(offset, _): &(usize, Scope)| *offset;
                let found = self
                    .declared
                    .binary_search_by_key(&declaration.0, by_offset);
                self.declared.get(found.ok()?).map(|(_, scope)| *scope)
            }
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
            // The pass goes forward only.
            self.declared.push((item.offset.0, here));
        }
        here
    }
}
