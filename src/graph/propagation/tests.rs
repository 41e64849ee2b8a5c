//! Types that no compiler describes: each question about them ends.

use std::collections::BTreeMap;

use ground::target::ModuleId;
use postmortem::debuginfo::catalog::{Described, Form, Member, Structure, TypeRef};
use postmortem::debuginfo::{EntryArea, EntryPlace, StaticVariable};

use super::table::{MAX_DEPTH, Source, Table};
use super::walker::is_tight;

const MODULE: ModuleId = ModuleId(0);

fn entry(offset: usize) -> TypeRef {
    let area = EntryArea::Info;
    TypeRef {
        module: MODULE,
        place: EntryPlace { area, offset },
    }
}

/// Types by the offsets of their entries.
#[derive(Default)]
struct Crafted(BTreeMap<usize, (Option<String>, u64, Form)>);

impl Crafted {
    fn structure(&mut self, at: usize, size: u64, members: &[(u64, usize)]) {
        let members = members.iter().map(|(offset, of)| Member {
            name: Some(format!("at_{offset}")),
            offset: *offset,
            of: entry(*of),
            is_base: false,
        });
        let structure = Structure {
            members: members.collect(),
            ..Structure::default()
        };
        let name = Some(format!("S{at}"));
        self.0.insert(at, (name, size, Form::Structure(structure)));
    }

    fn pointer(&mut self, at: usize, to: usize) {
        self.0.insert(at, (None, 8, Form::Pointer(Some(entry(to)))));
    }

    fn array(&mut self, at: usize, of: usize, count: u64) {
        let form = Form::Array {
            element: entry(of),
            count: Some(count),
        };
        self.0.insert(at, (None, 0, form));
    }
}

impl Source for Crafted {
    fn modules(&self) -> Vec<ModuleId> {
        vec![MODULE]
    }

    fn statics(&self, _: ModuleId) -> Vec<StaticVariable> {
        Vec::new()
    }

    fn variable(&self, _: TypeRef) -> Option<(String, TypeRef)> {
        None
    }

    fn definition(&self, _: ModuleId, _: &str) -> Option<TypeRef> {
        None
    }

    fn read(&self, of: TypeRef) -> Option<Described> {
        let (name, size, form) = self.0.get(&of.place.offset)?.clone();
        Some(Described {
            at: of,
            name,
            size: Some(size),
            form,
        })
    }
}

/// Asks everything about a type.
fn ask(crafted: &Crafted, at: usize) -> (bool, usize) {
    let mut table = Table::new(crafted);
    let id = table.id(entry(at));
    let other = table.id(entry(at + 1));
    let _ = (table.name(id), table.has_table(id), table.is_open(id));
    let _ = (table.begins_with(id, other), table.is_same(id, other));
    let _ = (table.member(id, &["at_0", "at_8"]), table.first_pointer(id));
    let pointers = table.pointers(id).len();
    (table.is_inert(id), pointers)
}

#[test]
fn a_type_that_holds_itself_ends() {
    let mut crafted = Crafted::default();
    crafted.structure(1, 16, &[(0, 1), (8, 1)]);
    crafted.array(2, 2, 7);
    crafted.structure(3, 16, &[(0, 4)]);
    crafted.array(4, 3, u64::MAX);
    crafted.pointer(5, 5);
    for at in 1..=5 {
        ask(&crafted, at);
    }
}

#[test]
fn types_within_types_end_at_a_depth() {
    let mut crafted = Crafted::default();
    const DEPTH: usize = 100_000;
    for at in 0..DEPTH {
        match at % 3 {
            0 => crafted.structure(at, 8, &[(0, at + 1), (0, at + 1), (8, at + 1)]),
            1 => crafted.array(at, at + 1, 3),
            _ => crafted.pointer(at, at + 1),
        }
    }
    for at in [0, 1, 2, DEPTH - 2 * MAX_DEPTH] {
        ask(&crafted, at);
    }
    // Arrays of arrays alone.
    let mut arrays = Crafted::default();
    for at in 0..DEPTH {
        arrays.array(at, at + 1, 2);
    }
    ask(&arrays, 0);
}

#[test]
fn members_at_the_end_of_all_addresses_end() {
    let mut crafted = Crafted::default();
    crafted.structure(1, u64::MAX, &[(u64::MAX, 2), (u64::MAX - 7, 1), (0, 3)]);
    crafted.pointer(2, 1);
    crafted.array(3, 1, u64::MAX);
    ask(&crafted, 1);
}

#[test]
fn a_structure_with_a_pointer_leads_somewhere() {
    let mut crafted = Crafted::default();
    crafted.structure(1, 24, &[(0, 2), (8, 3), (16, 2)]);
    crafted.pointer(2, 1);
    crafted.0.insert(3, (Some("int".into()), 4, Form::Scalar));
    assert_eq!(ask(&crafted, 1), (false, 2));
    assert_eq!(ask(&crafted, 3), (true, 0));
}

#[test]
fn a_block_is_tight_for_what_its_allocator_was_asked_for() {
    for (bytes, size, expected) in [
        (24, 1, true),
        (24, 24, true),
        (24, 25, false),
        (40, 24, false),
        (40, 25, true),
        (112, 97, true),
        (112, 80, false),
        (1280, 1025, true),
        (1280, 640, false),
        (24, 0, false),
        (u64::MAX, 1, false),
    ] {
        assert_eq!(is_tight(bytes, size), expected, "{bytes} {size}");
    }
}
