//! Allocators of the same family that are known, named and not read.

use ground::target::RegionKind;
use heaps::allocators::tcmalloc::Tcmalloc;
use heaps::allocators::{Allocator, Detection};
use synth::{FakeMemory, Process, module};

const TEXT: std::ops::Range<u64> = 0x40_0000..0x40_1000;
const DATA: std::ops::Range<u64> = 0x60_0000..0x60_2000;

/// A program whose variables begin with these 32-bit words.
fn program(name: &str, words: &[u32]) -> Process {
    let mut memory = FakeMemory::new();
    memory.zeroes(TEXT, "r-x", RegionKind::File);
    memory.zeroes(DATA, "rw-", RegionKind::File);
    for (index, word) in (0u64..).zip(words) {
        memory.write_u32(DATA.start + 0x400 + 4 * index, *word);
    }
    let mut process = Process::new(memory);
    process.modules = vec![module(0, name, &[(TEXT, "r-x"), (DATA, "rw-")])];
    process
}

fn refusal(process: &Process) -> Option<String> {
    match Tcmalloc.detect(process.target()) {
        Detection::Unusable(limit) => {
            assert!(limit.incomplete);
            Some(limit.what)
        }
        Detection::Absent { .. } => None,
        Detection::Found { .. } => panic!("found"),
    }
}

#[test]
fn google_tcmalloc_is_told_by_its_class_sizes() {
    // google/tcmalloc, SizeMap::class_to_size_ (u32): 0, 8, 16, 32, 64, 80, 96, 112.
    let process = program("server", &[0, 8, 16, 32, 64, 80, 96, 112]);
    let what = refusal(&process).expect("refused");
    assert!(what.contains("google/tcmalloc"), "{what}");
}

#[test]
fn a_table_of_other_sizes_is_no_google_tcmalloc() {
    assert_eq!(
        refusal(&program("server", &[0, 8, 16, 32, 48, 64, 80, 96])),
        None
    );
    assert_eq!(
        refusal(&program("server", &[0, 8, 16, 32, 64, 96, 128, 160])),
        None
    );
}

#[test]
fn the_debug_allocator_is_told_by_its_name_and_by_its_queue() {
    let by_name = program("libtcmalloc_minimal_debug.so.4.5.10", &[]);
    assert!(
        refusal(&by_name)
            .expect("refused")
            .contains("debug allocator")
    );
    // Linked into a program: the size map is gperftools', the symbol says the rest.
    let mut by_symbol = program("server", &[1, 0, 8, 16, 32, 48]); // at 4 modulo 8, as there
    assert_eq!(refusal(&by_symbol), None);
    by_symbol
        .symbols
        .object(0, "_ZN11MallocBlock11free_queue_E", DATA.start, 0x28008);
    assert!(refusal(&by_symbol).is_some_and(|what| what.contains("debug allocator")));
}

#[test]
fn a_library_of_that_name_without_its_state_is_said_to_be_incomplete() {
    let what = refusal(&program("libtcmalloc.so.4", &[])).expect("refused");
    assert!(what.contains("libtcmalloc.so.4"), "{what}");
}
