//! Every fixture through the built binary: what its truth says is found, and nothing else is.
//!
//! Each core is read four times, because each way of finding the allocator has to give the same answers:
//!
//! | way | files | best way of finding permitted |
//! |---|---|---|
//! | `debug-info` | binary, libraries, debug files | debug info |
//! | `symbols` | binary, libraries | symbols |
//! | `structure` | binary, libraries | structure |
//! | `bare` | none | structure |

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use common::{
    Fact, Fixture, Outcome, fixture, fixtures, fixtures_dir, heapcheck, in_parallel, root,
};
use serde_json::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    DebugInfo,
    Symbols,
    Structure,
    Bare,
}

impl Way {
    const ALL: [Way; 4] = [Way::DebugInfo, Way::Symbols, Way::Structure, Way::Bare];

    fn name(self) -> &'static str {
        match self {
            Way::DebugInfo => "debug-info",
            Way::Symbols => "symbols",
            Way::Structure => "structure",
            Way::Bare => "bare",
        }
    }

    /// The arguments for a fixture, files included.
    fn arguments(self, fixture: &Fixture) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if self == Way::Bare {
            arguments.extend(["--no-default-paths", "--locate", "structure"].map(Into::into));
            arguments.push(fixture.core.clone().into());
            return arguments;
        }
        arguments.extend(["--locate", self.name()].map(Into::into));
        let debug_root = match fixture.release.as_str() {
            "2.10-debugfile" | "2.10-dwz" => Some("debugroot"),
            "2.10-debuglink" => Some("debuglinkroot"),
            _ => None,
        };
        if let Some(debug_root) = debug_root {
            arguments.push("--debug-dir".into());
            arguments.push(fixtures_dir().join(debug_root).into());
        }
        arguments.push(fixture.core.clone().into());
        arguments.push(fixture.binary.clone().into());
        arguments
    }
}

fn run(way: Way, fixture: &Fixture) -> Outcome {
    let mut arguments = vec!["--format".into(), "json".into()];
    arguments.extend(way.arguments(fixture));
    heapcheck(arguments)
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or("")
}

/// One line for a failure: what was found instead.
fn short(finding: &Value) -> String {
    format!(
        "{} {} at {} block {} size {} culprit {} overwriter {} lost {}: {}",
        text(finding, "severity"),
        text(finding, "kind"),
        text(finding, "address"),
        finding["block"]["address"],
        finding["block"]["size"],
        finding["culprit"]["address"],
        finding["overwriter"]["class"],
        finding["collateral"]["lost_blocks"],
        text(finding, "message"),
    )
}

/// Everything in which a report differs from the truth.
fn differences(fixture: &Fixture, way: Way, outcome: &Outcome) -> Vec<String> {
    let report = match outcome.json() {
        Ok(report) => report,
        Err(error) => return vec![error],
    };
    if report["status"] != "OK" {
        return vec![format!("not analysed: {}", report["error"]["message"])];
    }
    let mut errors = Vec::new();
    let mut unexplained: Vec<&Value> = items(&report["findings"])
        .iter()
        .filter(|finding| text(finding, "severity") != "note")
        .collect();
    let mut critical = false;
    for expected in fixture.facts("EXPECT") {
        let place = unexplained.iter().position(|finding| {
            let kind = Some(text(finding, "kind"));
            // A kind that is as good an answer has an address of its own: what it is, docs/report.md says.
            kind == expected.get("or")
                || kind == expected.get("kind")
                    && Some(text(finding, "address")) == expected.get("address")
        });
        match place {
            Some(place) => {
                let finding = unexplained.remove(place);
                critical |= text(finding, "severity") == "critical";
                errors.extend(finding_differences(expected, finding));
            }
            None => errors.push(format!("not found: {expected:?}")),
        }
    }
    errors.extend(
        unexplained
            .iter()
            .map(|finding| format!("not expected: {}", short(finding))),
    );
    let status = match (critical, fixture.is("OTHER")) {
        (true, _) => 1,
        (false, true) => 3,
        (false, false) => 0,
    };
    if outcome.status != status {
        let incomplete: Vec<&Value> = items(&report["limits"])
            .iter()
            .filter(|limit| limit["incomplete"] == true)
            .collect();
        errors.push(format!(
            "exit status {} instead of {status}; incomplete: {incomplete:?}",
            outcome.status
        ));
    }
    errors.extend(process_differences(fixture, way, &report));
    errors.extend(heap_differences(fixture, way, &report));
    errors
}

fn finding_differences(expected: &Fact, finding: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let kind = text(finding, "kind");
    let mut compare = |key: &str, found: String| {
        if Some(kind) == expected.get("kind")
            && let Some(value) = expected.get(key)
            && value != found
        {
            errors.push(format!(
                "{key}={value}, but found {found}: {}",
                short(finding)
            ));
        }
    };
    compare("block", text(&finding["block"], "address").to_owned());
    compare("size", finding["block"]["size"].to_string());
    compare("culprit", text(&finding["culprit"], "address").to_owned());
    compare("culprit_size", finding["culprit"]["size"].to_string());
    compare(
        "overwriter",
        text(&finding["overwriter"], "class").to_owned(),
    );
    compare("lost", finding["collateral"]["lost_blocks"].to_string());
    let threads: BTreeSet<u64> = items(&finding["locations"])
        .iter()
        .filter_map(|location| location["thread_id"].as_u64())
        .collect();
    compare("threads", threads.len().to_string());
    // What is expected is known to be an error: it must come out critical, but for the one kind that never is.
    if text(finding, "severity") != "critical" && kind != "count-mismatch" {
        errors.push(format!("only a {}", short(finding)));
    }
    if items(&finding["evidence"]).is_empty() {
        errors.push(format!("no evidence: {}", short(finding)));
    }
    for evidence in items(&finding["evidence"]) {
        if evidence["dump"].is_null() {
            errors.push(format!("evidence without its bytes: {evidence}"));
        }
    }
    if items(&finding["next_steps"]).is_empty() || text(&finding["fingerprint"], "v1").is_empty() {
        errors.push(format!(
            "no next steps or no fingerprint: {}",
            short(finding)
        ));
    }
    errors
}

fn process_differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for dies in fixture.facts("DIES") {
        let signal = text(&report["crash_info"], "type");
        if Some(signal) != dies.get("signal") {
            errors.push(format!("died of {signal}, but {dies:?}"));
        }
        let frames = &report["threads"][0]["frames"];
        if let Some(function) = dies.get("function")
            && way != Way::Bare
            && !frames[0]["function"].is_null() // a stripped program has no names
            && !names(frames, function)
        {
            errors.push(format!("not in {function}: {frames}"));
        }
    }
    for thread in items(&report["threads"]) {
        if items(&thread["frames"]).is_empty() {
            errors.push(format!("thread {} has no frames", thread["thread_id"]));
        }
    }
    errors
}

/// Whether a frame is in a function of this name.
fn names(frames: &Value, function: &str) -> bool {
    items(frames)
        .iter()
        .any(|frame| text(frame, "function").contains(function))
}

fn heap_differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(other) = fixture.facts("OTHER").next() {
        let limits = report["limits"].to_string();
        let name = other.get("allocator").unwrap();
        if name != "none" && !limits.contains("debug") {
            errors.push(format!("{name} is not named in limits: {limits}"));
        }
        return errors;
    }
    let heap = &report["allocators"][0];
    if text(heap, "name") != "tcmalloc" {
        errors.push(format!("the allocator is {}", heap["name"]));
        return errors;
    }
    for stat in fixture.facts("STAT") {
        let expected = stat.number("current_allocated_bytes");
        let found = heap["statistics"]["in_use"]["bytes"].as_u64();
        if found != expected {
            errors.push(format!(
                "{expected:?} bytes are in use, but found {found:?}"
            ));
        }
    }
    for class in fixture.facts("CLASS") {
        let rows = items(&heap["details"]["size_classes"]);
        let row = rows
            .iter()
            .find(|row| row["size"].as_u64() == class.number("size"));
        for key in ["in_use", "free"] {
            let expected = class.number(key);
            let found = row.map_or(Some(0), |row| row[key].as_u64());
            if expected.is_some() && found != expected {
                errors.push(format!("{class:?}, but {key} is {found:?}"));
            }
        }
    }
    for sampled in fixture.facts("SAMPLED") {
        let samples = items(&heap["details"]["samples"]);
        let sample = samples
            .iter()
            .find(|sample| sample["address"].as_str() == sampled.get("address"));
        let known = sample.is_some_and(|sample| {
            sample["requested_bytes"].as_u64() == sampled.number("size")
                && (way == Way::Bare || names(&sample["stack"], sampled.get("function").unwrap()))
        });
        if !known {
            errors.push(format!("{sampled:?}, but {sample:?}"));
        }
    }
    let coverage = &heap["coverage"];
    if coverage["unknown"].as_u64() != Some(0) && !report["limits"].to_string().contains("byte") {
        errors.push(format!("unaccounted bytes that no limit names: {coverage}"));
    }
    errors
}

#[test]
fn every_fixture_shows_what_it_must_and_nothing_else() {
    let fixtures = fixtures();
    let runs: Vec<(&Fixture, Way)> = fixtures
        .iter()
        .flat_map(|fixture| Way::ALL.map(|way| (fixture, way)))
        .collect();
    let results = in_parallel(&runs, |(fixture, way)| {
        let outcome = run(*way, fixture);
        let located_by = outcome.json().ok().and_then(|report| {
            report["allocators"][0]["located_by"]
                .as_str()
                .map(str::to_owned)
        });
        (differences(fixture, *way, &outcome), located_by)
    });

    let mut failures = String::new();
    let mut failed = 0;
    for ((fixture, way), (differences, _)) in runs.iter().zip(&results) {
        failed += usize::from(!differences.is_empty());
        for difference in differences {
            let _ = writeln!(
                failures,
                "{:<16}{:<34}{:<12}{difference}",
                fixture.release,
                fixture.name,
                way.name()
            );
        }
    }
    assert!(
        failed == 0,
        "{failed} of {} runs differ from the truth:\n{failures}",
        runs.len()
    );

    let table = table(
        runs.iter()
            .zip(&results)
            .map(|((fixture, way), (_, located_by))| (*fixture, *way, located_by.as_deref())),
    );
    keep_readme_table(&table);
}

/// Releases by ways of finding: how many fixtures were found that way, of how many. `n/a`: there is nothing to find them
/// by in that way.
fn table<'f>(runs: impl Iterator<Item = (&'f Fixture, Way, Option<&'f str>)>) -> String {
    /// Fixtures found, of how many, by way.
    type Row = BTreeMap<Way, (usize, usize)>;
    let mut rows: BTreeMap<(Vec<u32>, &str), Row> = BTreeMap::new();
    for (fixture, way, located_by) in runs {
        if fixture.is("OTHER") {
            continue;
        }
        let release = fixture.release.as_str();
        let version = release.split('-').next().unwrap_or(release);
        let order = version.split('.').map(|part| part.parse().unwrap_or(0));
        let row = rows.entry((order.collect(), release)).or_default();
        let cell = row.entry(way).or_default();
        let expected = match way {
            Way::Bare => Way::Structure,
            way => way,
        };
        cell.1 += 1;
        cell.0 += usize::from(located_by == Some(expected.name()));
    }
    let mut text = String::from(
        "| gperftools | debug info | symbols | structure | structure, and no files but the core |\n|---|---|---|---|---|\n",
    );
    for ((_, release), ways) in rows {
        let _ = write!(text, "| {release} |");
        for way in Way::ALL {
            let _ = match ways.get(&way) {
                None | Some((0, _)) => write!(text, " n/a |"),
                Some((found, all)) => write!(text, " {found} of {all} |"),
            };
        }
        text.push('\n');
    }
    text
}

/// The table in the README is the one that this run gave. `HEAPCHECK_BLESS=1` writes it.
fn keep_readme_table(table: &str) {
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme
        .split_once("<!-- table: tests/fixtures.rs -->\n")
        .expect("the README has the table's begin");
    let (found, after) = rest
        .split_once("<!-- end of table -->")
        .expect("the README has the table's end");
    if std::env::var_os("HEAPCHECK_BLESS").is_some() {
        let blessed = format!(
            "{before}<!-- table: tests/fixtures.rs -->\n{table}<!-- end of table -->{after}"
        );
        fs::write(&path, blessed).unwrap();
        return;
    }
    assert_eq!(
        found, table,
        "the README's table is not what the tests give: HEAPCHECK_BLESS=1 cargo test --test fixtures"
    );
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
