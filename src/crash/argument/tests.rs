//! Code by hand: what comes before a call, and what must be made of it.

use std::sync::Arc;

use ground::target::{Abi, Address, Fault, Region, RegionKind, Source, TargetMemory, Window};
use iced_x86::Instruction;

use super::Entry;
use super::code::Function;
use super::expression::{Expression, Words};
use super::facts::{Fact, Facts, Origin, RDI, RSP, VOLATILE};
use super::follows;
use super::trace::{Found, Place, Surroundings, back};

const CODE: u64 = 0x40_1000;
const STACK: u64 = 0x7ffe_0000;
const DATA: u64 = 0x60_0000;
const RBX: u8 = 3;
const RBP: u8 = 5;
/// call +0
const CALL: [u8; 5] = [0xe8, 0, 0, 0, 0];

/// Code, a stack and data.
struct Memory {
    parts: [(u64, Vec<u8>); 3],
    regions: Vec<Region>,
}

impl TargetMemory for Memory {
    fn abi(&self) -> Abi {
        Abi {
            pointer_bytes: 8,
            little_endian: true,
            page_bytes: 4096,
        }
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        let found = self.parts.iter().find_map(|(start, bytes)| {
            let offset = usize::try_from(at.get().checked_sub(*start)?).ok()?;
            bytes.get(offset..).filter(|rest| !rest.is_empty())
        });
        Ok(Window {
            start: at,
            bytes: found.ok_or(Fault::Unmapped(at))?,
            source: Source::Core,
        })
    }

    fn regions(&self) -> &[Region] {
        &self.regions
    }
}

fn memory(code: &[u8]) -> Memory {
    let mut data = vec![0; 256];
    for (word, slot) in data.chunks_exact_mut(8).enumerate() {
        slot.copy_from_slice(&(0x1111_0000 + word as u64).to_le_bytes());
    }
    let parts = [(CODE, code.to_vec()), (STACK, data.clone()), (DATA, data)];
    let regions = parts
        .iter()
        .map(|(start, bytes)| Region {
            range: Address::new(*start)..Address::new(*start + bytes.len() as u64),
            readable: true,
            writable: true,
            executable: true,
            kind: RegionKind::Anonymous,
            dumped_bytes: bytes.len() as u64,
            present_bytes: bytes.len() as u64,
        })
        .collect();
    Memory { parts, regions }
}

/// Goes back from the last call in `code`, with rsp, rbx and rbp as given.
fn walk(code: &[u8], rbx: Option<u64>, rbp: Option<u64>, goal: Option<Expression>) -> Found {
    let memory = memory(code);
    let part = CODE..CODE + code.len() as u64;
    let function = Function::decode(&memory, std::slice::from_ref(&part)).unwrap();
    let last = function
        .instructions()
        .iter()
        .rposition(super::code::is_call)
        .unwrap();
    let mut facts = Facts::default();
    for (register, value) in [(RSP, Some(STACK)), (RBX, rbx), (RBP, rbp)] {
        let origin = Origin::Register { register, frame: 1 };
        facts.set(register, value.map(|value| Fact { value, origin }));
    }
    let around = Surroundings {
        words: Words {
            memory: &memory,
            live_stack: STACK,
            stack_end: STACK + 256,
            stack_only: goal.is_none(),
        },
        thread_pointer: None,
        changed: &|_: &Instruction| Some(VOLATILE),
    };
    let place = Place {
        index: last,
        facts,
        stores: Arc::default(),
        goal,
    };
    back(&function, place, &around)
}

/// The pointer, and the word that it was loaded from.
fn given(parts: &[&[u8]], rbx: Option<u64>) -> Option<(u64, Option<u64>)> {
    let found = walk(&parts.concat(), rbx, None, Some(Expression::Register(RDI)));
    let value = found.value().filter(|_| found.entries.is_empty())?;
    Some((value.value, value.loaded_from))
}

const MOV_RDI_RBX: &[u8] = &[0x48, 0x89, 0xdf];
const MOV_RDI_RAX: &[u8] = &[0x48, 0x89, 0xc7];
const MOV_RBX_RAX: &[u8] = &[0x48, 0x89, 0xc3];
const MOV_EBX_3: &[u8] = &[0xbb, 3, 0, 0, 0];

#[test]
fn a_saved_register_counts_only_if_it_was_not_written_since() {
    assert_eq!(given(&[MOV_RDI_RBX, &CALL], Some(77)), Some((77, None)));
    // mov rdi, rbx; mov ebx, 3; call
    assert_eq!(given(&[MOV_RDI_RBX, MOV_EBX_3, &CALL], Some(3)), None);
    // A constant that is not the one which is there was never written: nobody came this way.
    assert_eq!(given(&[MOV_RDI_RBX, MOV_EBX_3, &CALL], Some(4)), None);
}

#[test]
fn steps_are_undone() {
    let load = [0x48, 0x8b, 0x3b]; // mov rdi, [rbx]
    let add = [0x48, 0x83, 0xc3, 8]; // add rbx, 8
    let again = [0xeb, 0xf2]; // jmp to the load
    let parts: [&[u8]; 3] = [&load, &add, &CALL];
    let expected = Some((0x1111_0002, Some(DATA + 16)));
    assert_eq!(given(&parts, Some(DATA + 24)), expected);
    let parts: [&[u8]; 4] = [&load, &add, &CALL, &again];
    assert_eq!(given(&parts, Some(DATA + 24)), expected);
}

#[test]
fn a_result_is_known_by_its_copy_alone() {
    assert_eq!(given(&[&CALL, MOV_RDI_RAX, &CALL], Some(5)), None);
    let kept = Some((5, None));
    assert_eq!(
        given(&[&CALL, MOV_RDI_RAX, MOV_RBX_RAX, &CALL], Some(5)),
        kept
    );
    assert_eq!(
        given(&[&CALL, MOV_RBX_RAX, MOV_RDI_RAX, &CALL], Some(5)),
        kept
    );
    // mov [rsp+8], rax
    let saved = [0x48, 0x89, 0x44, 0x24, 8];
    assert_eq!(
        given(&[&CALL, &saved, MOV_RDI_RAX, &CALL], None).map(|found| found.0),
        Some(0x1111_0001)
    );
}

#[test]
fn a_word_that_was_stored_over_is_lost() {
    let load = [0x48, 0x8b, 0x43, 8]; // mov rax, [rbx+8]
    let clear = [0x48, 0xc7, 0x43, 8, 0, 0, 0, 0]; // mov qword [rbx+8], 0
    let other = [0x48, 0xc7, 0x43, 16, 0, 0, 0, 0]; // mov qword [rbx+16], 0
    let parts = |store: &'static [u8]| [&load[..], store, MOV_RDI_RAX, &CALL].concat();
    let (clear, other) = (clear.to_vec().leak(), other.to_vec().leak());
    assert_eq!(given(&[&parts(clear)], Some(DATA)), None);
    assert_eq!(
        given(&[&parts(other)], Some(DATA)),
        Some((0x1111_0001, Some(DATA + 8)))
    );
}

#[test]
fn all_ways_must_agree() {
    let test = [0x85, 0xf6]; // test esi, esi
    let skip = [0x74, 7]; // je over the next two
    let first = [0x48, 0xc7, 0xc7, 1, 0, 0, 0]; // mov rdi, 1
    let zero = [0x48, 0xc7, 0xc7, 2, 0, 0, 0]; // mov rdi, 2
    let one = [&zero[..], &test, &skip, &first, &CALL].concat();
    assert_eq!(given(&[&one], None), None);
    let same = [&first[..], &test, &skip, &first, &CALL].concat();
    assert_eq!(given(&[&same], None), Some((1, None)));
    // One way leads to the start, with the argument that the function was given.
    let argument = [&test[..], &skip, &first, &CALL].concat();
    assert_eq!(given(&[&argument], None), None);
}

#[test]
fn a_move_under_a_condition_leaves_two_values() {
    let one = [0xb8, 1, 0, 0, 0]; // mov eax, 1
    let two = [0xbf, 2, 0, 0, 0]; // mov edi, 2
    let test = [0x85, 0xf6]; // test esi, esi
    let moved = [0x48, 0x0f, 0x44, 0xf8]; // cmove rdi, rax
    let code = [&one[..], &two, &test, &moved, &CALL].concat();
    assert_eq!(given(&[&code], None), None);
    let found = walk(&code, None, None, Some(Expression::Register(RDI)));
    let mut values: Vec<u64> = found.values.iter().map(|value| value.value).collect();
    values.sort_unstable();
    assert!(found.entries.is_empty() && !found.lost);
    assert_eq!(values, [1, 2]);
    let same = [&one[..], &[0xbf, 1, 0, 0, 0], &test, &moved, &CALL].concat();
    assert_eq!(given(&[&same], None), Some((1, None)));
}

#[test]
fn an_argument_is_the_callers_business() {
    let found = walk(&CALL, Some(1), None, Some(Expression::Register(RDI)));
    assert!(found.values.is_empty() && !found.lost);
    let [entry] = found.entries.as_slice() else {
        panic!("{}", found.entries.len());
    };
    assert_eq!(entry.goal, Some(Expression::Register(RDI)));
    // mov rdi, [rsi+8]
    let load = [0x48, 0x8b, 0x7e, 8];
    let found = walk(
        &[&load[..], &CALL].concat(),
        None,
        None,
        Some(Expression::Register(RDI)),
    );
    let goal = found.entries[0].goal.clone().unwrap();
    assert!(goal.names(6) && !goal.names(RDI));
}

#[test]
fn an_allocator_tells_what_it_was_entered_with() {
    let push = [0x55]; // push rbp
    let chunk = [0x48, 0x8d, 0x6f, 0xf0]; // lea rbp, [rdi-16]
    let code = [&push[..], &chunk, &CALL].concat();
    let found = walk(&code, None, Some(0x5000), None);
    let (fact, sure) = found.at_entry(RDI).unwrap();
    assert_eq!((fact.value, sure), (0x5010, true));
    // Nothing is kept.
    assert!(
        walk(&[&push[..], &CALL].concat(), None, Some(0x5000), None)
            .at_entry(RDI)
            .is_none()
    );
    // test esi, esi; je past the copy: one way tells, the other does not.
    let test = [0x85, 0xf6, 0x74, 4];
    let code = [&test[..], &chunk, &CALL].concat();
    let found = walk(&code, None, Some(0x5000), None);
    assert!(found.at_entry(RDI).is_none());
}

#[test]
fn entries_are_known_by_name() {
    for (name, entry) in [
        ("free", Some(Entry::Free)),
        ("free@plt", Some(Entry::Free)),
        ("__GI___libc_free", Some(Entry::Free)),
        ("je_realloc", Some(Entry::Realloc)),
        ("_rjem_sdallocx", Some(Entry::Free)),
        ("_ZdaPvm", Some(Entry::Delete)),
        ("operator delete[](void*)", Some(Entry::Delete)),
        ("tc_deletearray_sized", Some(Entry::Delete)),
        ("delete", None),
        ("g_free", None),
        ("list_free", None),
        ("Node::operator delete(void*)", None),
        ("malloc", None),
    ] {
        assert_eq!(Entry::of_name(name), entry, "{name}");
    }
}

#[test]
fn faults_that_follow_from_the_pointer() {
    assert!(follows(0x1008, 0x1000));
    assert!(follows(0x5555_1234_5678, 0x5555_1000_0000));
    assert!(follows(0x7ffe_1234_5678, 8 * (0x7_ffe1_2345 & 0x3_ffff)));
    assert!(!follows(0x10, 0x80));
}
