//! The cores in the repository, which need nothing but this program: what each truth says is found, and nothing else is.

mod common;

use std::collections::BTreeSet;

use common::small::{MOST_BYTES, directory, entries, fixtures, packed_files};
use common::stacks::{first_difference, ours, stacks_of};
use common::suite::differences_of;
use common::{Files, Fixture, heapcheck, in_parallel};
use heapcheck::checks::finding::FindingKind;

#[test]
fn every_core_in_the_repository_shows_what_it_must_and_nothing_else() {
    let fixtures = fixtures();
    let (readings, differences) = differences_of(&fixtures);
    println!("{} cores, {readings} readings", fixtures.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_stack_in_the_repository_is_the_one_that_gdb_showed() {
    let entries = entries();
    let cases: Vec<&str> = entries
        .iter()
        .filter(|entry| entry.release == "stacks")
        .map(|entry| &*entry.name)
        .collect();
    let errors: Vec<String> = in_parallel(&cases, |case| {
        let folder = directory().join("stacks").join(case);
        let gdb = stacks_of(&std::fs::read_to_string(folder.join("gdb")).unwrap());
        let outcome = heapcheck([
            "--minidump".as_ref(),
            "--format".as_ref(),
            "json".as_ref(),
            "--no-default-paths".as_ref(),
            "--sysroot".as_ref(),
            directory().join("root").as_os_str(),
            folder.join("core").as_os_str(),
            folder.join("binary").as_os_str(),
        ]);
        let ours = ours(&outcome.json().unwrap());
        assert!(gdb.values().any(|rows| rows.len() > 3), "{case}: {gdb:?}");
        let mut errors = Vec::new();
        for (thread, gdb) in &gdb {
            let ours = ours.get(thread).map_or(&[][..], Vec::as_slice);
            errors.extend(first_difference(gdb, ours).map(|difference| {
                format!("{case}, thread {thread}, frame, gdb's, ours: {difference:?}")
            }));
        }
        errors
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(cases.len() >= 6, "{cases:?}");
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// What a set of some sixty cores must hold to be worth its place.
#[test]
fn the_repository_has_a_core_of_every_kind_and_no_more_than_it_may() {
    let fixtures = fixtures();
    let kinds_of = |allocator: &str| -> BTreeSet<&str> {
        let own = fixtures.iter().filter(|one| one.allocator() == allocator);
        own.flat_map(|one| one.facts("EXPECT"))
            .filter_map(|fact| fact.get("kind"))
            .collect()
    };
    let count = |allocator: &str, choose: fn(&Fixture) -> bool| {
        let own = fixtures.iter().filter(|one| one.allocator() == allocator);
        own.filter(|one| choose(one)).count()
    };
    let allocators = ["tcmalloc", "ptmalloc", "jemalloc"];
    let all: BTreeSet<&str> = allocators.into_iter().flat_map(kinds_of).collect();
    // These programs are stripped: what types alone tell is proved on programs that tests/causes.rs builds.
    let by_types = [FindingKind::AliasedBlock, FindingKind::TypeConflict];
    for kind in FindingKind::ALL {
        let is_there = all.contains(kind.code());
        assert!(
            is_there || by_types.contains(&kind),
            "no core of {}",
            kind.code()
        );
    }
    for allocator in allocators {
        let kinds = kinds_of(allocator);
        assert!(kinds.len() >= 6, "{allocator}: only {kinds:?}");
        let healthy = count(allocator, |one| one.is("HEALTHY"));
        assert!(healthy >= 3, "{allocator}: only {healthy} healthy ones");
        let named = fixtures.iter().filter(|one| one.allocator() == allocator);
        let releases: BTreeSet<&str> = named.map(|one| &*one.release).collect();
        assert!(releases.len() >= 4, "{allocator}: only {releases:?}");
        let bare = count(allocator, |one| one.files == Files::None);
        assert!(bare >= 3, "{allocator}: only {bare} without files");
    }
    assert!(fixtures.iter().any(|one| one.is("OTHER")), "no stranger");

    let sizes = packed_files()
        .into_iter()
        .map(|file| file.metadata().unwrap().len());
    let bytes: u64 = sizes.sum();
    println!("{} cores in {} KiB", fixtures.len(), bytes >> 10);
    assert!(bytes <= MOST_BYTES, "{bytes}");
}
