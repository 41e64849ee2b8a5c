//! Every fixture through the built binary: what its truth says is found, and nothing else is.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use common::compare::short;
use common::suite::check;
use common::table::{by_kind, by_way, keep_readme_table};
use common::way::{Way, run};
use common::{Fixture, fixture, heapcheck, in_parallel, items, text};
use serde_json::Value;

#[test]
fn every_fixture_shows_what_it_must_and_nothing_else() {
    let runs = check("tcmalloc");
    keep_readme_table("tcmalloc", &by_way("gperftools", &runs));
}

#[test]
fn every_fixture_of_jemalloc_shows_what_it_must_and_nothing_else() {
    let runs = check("jemalloc");
    keep_readme_table("jemalloc", &by_way("jemalloc", &runs));
}

#[test]
fn every_fixture_of_glibc_shows_what_it_must_and_nothing_else() {
    let runs = check("ptmalloc");
    let table = format!("{}\n{}", by_way("glibc", &runs), by_kind(&runs));
    keep_readme_table("ptmalloc", &table);
}

/// A few cores of different kinds, for the tests that read each many times.
fn a_few() -> Vec<Fixture> {
    [
        ("2.10", "double-free-O0"),
        ("2.10", "cross-thread-O2"),
        ("2.10", "overrun-text-O0"),
        ("2.10", "healthy-threads-01"),
        ("2.18.1", "double-free-central-O2"),
    ]
    .map(|(release, name)| fixture(release, name))
    .into()
}

#[test]
fn one_thread_and_many_give_the_same_bytes() {
    for fixture in a_few() {
        for format in ["json", "text"] {
            let output = |threads: &str| {
                let mut arguments: Vec<OsString> = ["--threads", threads, "--format", format]
                    .map(Into::into)
                    .into();
                arguments.extend(Way::DebugInfo.arguments(&fixture));
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

/// A core cut anywhere after its headers is analysed as far as it reaches: nothing at all may be said only if it says so.
#[test]
fn a_core_that_is_cut_off_is_analysed_as_far_as_it_reaches() {
    let directory = tempfile::tempdir().unwrap();
    let mut cuts = Vec::new();
    for fixture in a_few() {
        let whole = fs::read(&fixture.core).unwrap();
        let headers = headers_end(&whole);
        let length = whole.len();
        let places = [headers, headers + 1, headers + 4096]
            .into_iter()
            .chain((1..8).map(|eighth| length * eighth / 8))
            .chain([length - 1]);
        for place in places {
            let path = directory.path().join(format!("{}-{place}", fixture.name));
            fs::write(&path, &whole[..place]).unwrap();
            cuts.push((fixture.clone(), place, path));
        }
    }
    let failures: Vec<String> = in_parallel(&cuts, |(fixture, place, path)| {
        let cut = Fixture {
            core: path.clone(),
            ..fixture.clone()
        };
        let outcome = run(Way::DebugInfo, &cut);
        let _ = fs::remove_file(path);
        let name = format!("{} cut at {place}", fixture.name);
        let report = match outcome.json() {
            Ok(report) => report,
            Err(error) => return vec![format!("{name}: {error}")],
        };
        let mut errors = Vec::new();
        if ![1, 3].contains(&outcome.status) {
            errors.push(format!(
                "{name}: status {}: {}",
                outcome.status, outcome.stderr
            ));
        }
        if report["core"]["truncated"] != true {
            errors.push(format!("{name}: not said to be cut off"));
        }
        for finding in items(&report["findings"]) {
            let expected = fixture
                .facts("EXPECT")
                .any(|expected| expected.get("address") == finding["address"].as_str());
            if finding["severity"] == "critical" && !expected {
                errors.push(format!("{name}: not expected: {}", short(finding)));
            }
        }
        errors
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Where the program headers and the notes end: up to there a core is needed whole.
fn headers_end(core: &[u8]) -> usize {
    let word = |at: usize| u64::from_le_bytes(core[at..at + 8].try_into().unwrap()) as usize;
    let half = |at: usize| u16::from_le_bytes(core[at..at + 2].try_into().unwrap()) as usize;
    word(32) + half(54) * half(56)
}

/// Damage anywhere in the file is input like any other: a document comes out and the program ends, whatever it says.
#[test]
fn a_core_with_random_damage_ends_in_a_document() {
    let fixture = fixture("2.10", "cross-thread-O0");
    let whole = fs::read(&fixture.core).unwrap();
    let headers = headers_end(&whole) + 16 * 1024; // and the notes
    let directory = tempfile::tempdir().unwrap();
    let seeds: Vec<u64> = (1..=48).collect();
    let failures: Vec<String> = in_parallel(&seeds, |seed| {
        let mut random = *seed;
        let mut next = || {
            // xorshift64
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut damaged = whole.clone();
        let (end, count) = match seed % 3 {
            0 => (headers, 20),
            1 => (headers, 400),
            _ => (whole.len(), 20_000),
        };
        for _ in 0..count {
            let place = next() as usize % end;
            damaged[place] = next() as u8;
        }
        damaged[..20].copy_from_slice(&whole[..20]); // still a core
        let path = directory.path().join(seed.to_string());
        fs::write(&path, &damaged).unwrap();
        let damaged = Fixture {
            core: path.clone(),
            ..fixture.clone()
        };
        let outcome = run(Way::DebugInfo, &damaged);
        let _ = fs::remove_file(path);
        match outcome.json() {
            Ok(_) if (0..=3).contains(&outcome.status) => None,
            Ok(_) => Some(format!("seed {seed}: status {}", outcome.status)),
            Err(error) => Some(format!("seed {seed}: {error}")),
        }
    })
    .into_iter()
    .flatten()
    .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn stacks_that_are_cut_off_are_incomplete() {
    let fixture = fixture("2.10", "double-free-O0");
    let directory = tempfile::tempdir().unwrap();
    let whole = fs::read(&fixture.core).unwrap();
    let path = directory.path().join("core");
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    for (core, status) in [(&fixture.core, 0), (&path, 3)] {
        let outcome = heapcheck(["--minidump".as_ref(), &**core, &fixture.binary]);
        assert_eq!(outcome.status, status, "{}", outcome.text());
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
