//! Every fixture through the built binary: what its truth says is found, and nothing else is.

mod common;

use std::ffi::OsString;
use std::path::Path;

use common::suite::{check, differences_of};
use common::table::{by_kind, by_way, keep_table};
use common::way::Way;
use common::{fixture, heapcheck, items, text};
use serde_json::Value;

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs ./build-fixtures.sh, and --features fixtures"
)]
fn every_fixture_shows_what_it_must_and_nothing_else() {
    let runs = check("tcmalloc");
    keep_table("tcmalloc", &by_way("gperftools", &runs));
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs ./build-fixtures.sh, and --features fixtures"
)]
fn every_fixture_of_jemalloc_shows_what_it_must_and_nothing_else() {
    let runs = check("jemalloc");
    keep_table("jemalloc", &by_way("jemalloc", &runs));
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs ./build-fixtures.sh, and --features fixtures"
)]
fn every_fixture_of_glibc_shows_what_it_must_and_nothing_else() {
    let runs = check("ptmalloc");
    let table = format!("{}\n{}", by_way("glibc", &runs), by_kind(&runs));
    keep_table("ptmalloc", &table);
}

#[test]
#[ignore = "reads what testdata/healthy-storm.sh has made"]
fn every_storm_shows_what_it_must_and_nothing_else() {
    let storms = common::storms();
    let (readings, differences) = differences_of(&storms);
    println!("{} cores, {readings} readings", storms.len());
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn one_thread_and_many_give_the_same_bytes() {
    for fixture in common::a_few() {
        for format in ["json", "text"] {
            let output = |threads: &str| {
                let mut arguments: Vec<OsString> = ["--threads", threads, "--format", format]
                    .map(Into::into)
                    .into();
                arguments.extend(Way::DebugInfo.or_bare(&fixture).arguments(&fixture));
                heapcheck(arguments).stdout
            };
            let one = output("1");
            assert!(!one.is_empty());
            for threads in ["2", "4", "4"] {
                assert!(one == output(threads), "{} {format}", fixture.name);
            }
        }
    }
}

#[test]
fn core_and_binary_may_be_swapped() {
    let fixture = fixture("2.10", "double-free-O0");
    let right = heapcheck([
        "--format".as_ref(),
        "json".as_ref(),
        &*fixture.core,
        &fixture.binary,
    ]);
    let swapped = heapcheck([
        "--format".as_ref(),
        "json".as_ref(),
        &*fixture.binary,
        &fixture.core,
    ]);
    assert_eq!(right.status, 1);
    assert!(right.stdout == swapped.stdout);
}

#[test]
fn a_binary_that_is_not_the_one_that_died_is_a_warning() {
    let fixture = fixture("2.10", "double-free-O0");
    let other = common::fixture("2.10", "overrun-text-O0").binary;
    let with_other = |binary: &Path| {
        heapcheck([
            "--no-default-paths".as_ref(),
            "--format".as_ref(),
            "json".as_ref(),
            &*fixture.core,
            binary,
        ])
    };
    let outcome = with_other(&other);
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    let report = outcome.json().unwrap();
    let mismatches = items(&report["core"]["build_id_mismatches"]);
    assert_eq!(mismatches.len(), 1, "{report}");
    assert_ne!(mismatches[0]["expected"], mismatches[0]["found"]);
    assert!(
        items(&report["diagnostics"])
            .iter()
            .any(|diagnostic| text(diagnostic, "level") == "warning"
                && text(diagnostic, "message").contains("build ID")),
        "{}",
        report["diagnostics"]
    );
    let right = with_other(&fixture.binary).json().unwrap();
    assert_eq!(items(&right["core"]["build_id_mismatches"]).len(), 0);
    assert_eq!(
        right["findings"][0]["address"],
        report["findings"][0]["address"]
    );
}

#[test]
fn an_allocator_that_is_not_there_is_refused_with_the_reason() {
    let fixture = fixture("other", "no-tcmalloc");
    let outcome = heapcheck([
        "--allocator".as_ref(),
        "tcmalloc".as_ref(),
        &*fixture.core,
        &fixture.binary,
    ]);
    assert_eq!(outcome.status, 2, "{}", outcome.text());
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("tcmalloc"), "{}", outcome.stderr);
}

#[test]
fn contents_of_blocks_are_shown_only_when_asked_for() {
    let fixture = fixture("2.10", "overrun-text-O0");
    let culprit = |bytes: &str| {
        let outcome = heapcheck([
            "--format".as_ref(),
            "json".as_ref(),
            "--include-bytes".as_ref(),
            bytes.as_ref(),
            &*fixture.core,
            &fixture.binary,
        ]);
        outcome.json().unwrap()["findings"][0]["culprit"]["bytes"].clone()
    };
    assert_eq!(culprit("0"), Value::Null);
    assert_eq!(culprit("4").as_str().unwrap().len(), 8);
}
