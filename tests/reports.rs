//! `import`, `triage` and `batch` as a user meets them; what they find is tested in `crates/reports`.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use common::{heapcheck, heapcheck_with_input, root};
use serde_json::Value;
use tempfile::TempDir;

fn log(name: &str) -> String {
    root()
        .join("crates/reports/tests/logs")
        .join(name)
        .display()
        .to_string()
}

/// What a command that must succeed writes.
fn said(arguments: &[&str]) -> String {
    let outcome = heapcheck(arguments);
    assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.stderr);
    outcome.text().to_owned()
}

/// The same as JSON; answers about many reports have no schema yet.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn import_writes_a_line_an_error_and_a_summary() {
    let outcome = heapcheck([
        "import",
        &log("asan-gcc-O0.log"),
        &log("valgrind-gcc-O2-xml.log"),
        "--kv",
        "version=1.2",
    ]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let records = lines(outcome.text());
    assert_eq!(records.len(), 20);
    assert!(
        outcome.stderr.contains("created: 20\n")
            && outcome.stderr.contains("  use-after-free: 2\n")
            && outcome.stderr.contains("failures: 0\n"),
        "{}",
        outcome.stderr
    );
    for record in &records {
        assert_eq!(
            (
                &record["schema_version"],
                &record["record"],
                &record["attributes"]["version"]
            ),
            (&1.into(), &"error".into(), &"1.2".into())
        );
    }
    let missing = heapcheck(["import", "no-such-file", &log("mtrace.log")]);
    assert_eq!((missing.status, lines(missing.text()).len()), (2, 2));
}

#[test]
fn triage_reads_records_from_standard_input() {
    let records = said(&["import", &log("asan-gcc-O0.log"), &log("asan-clang-O0.log")]);
    let outcome = heapcheck_with_input(
        ["triage", "groups", "--format", "json", "-"],
        records.clone().into_bytes(),
    );
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let groups = value(outcome.text());
    assert_eq!(
        (
            &groups["errors"],
            groups["groups"].as_array().unwrap().len()
        ),
        (&20.into(), 10)
    );
    for group in groups["groups"].as_array().unwrap() {
        assert_eq!(group["errors"], 2);
    }
    let again = heapcheck_with_input(
        ["triage", "groups", "--format", "json", "-"],
        records.clone().into_bytes(),
    );
    assert_eq!(again.text(), outcome.text());
}

#[test]
fn a_group_is_shown_compared_and_ticketed() {
    let file = log("asan-gcc-O0.log");
    let groups = value(&said(&["triage", "groups", "--format", "json", &file]));
    let key = |kind: &str| {
        groups["groups"]
            .as_array()
            .unwrap()
            .iter()
            .find(|group| group["kind"] == kind)
            .unwrap()["key"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let shown = said(&["triage", "show", &key("use-after-free"), &file]);
    assert!(
        shown.contains("scrap_ship (harbour.c:")
            && shown.contains("freed")
            && shown.contains("allocated"),
        "{shown}"
    );
    let ticket = said(&["triage", "show", "--ticket", &key("double-free"), &file]);
    assert!(
        ticket.starts_with("# double-free: scuttle ← scuttle_twice ← main\n")
            && ticket.contains("~~~text\n"),
        "{ticket}"
    );
    let diff = said(&[
        "triage",
        "diff",
        &key("heap-overrun"),
        &key("heap-underrun"),
        &file,
    ]);
    assert!(
        diff.contains("- load_hold (harbour.c:") && diff.contains("+ check_keel (harbour.c:"),
        "{diff}"
    );
    let none = heapcheck(["triage", "show", "v1:0000000000000000", &file]);
    assert_eq!(none.status, 2);
}

#[test]
fn sarif_has_a_result_a_group_and_no_line_in_its_fingerprints() {
    let outcome = heapcheck([
        "import",
        "--format",
        "sarif",
        &log("asan-gcc-O0.log"),
        &log("valgrind-gcc-O0-xml.log"),
    ]);
    let sarif = value(outcome.text());
    assert_eq!(sarif["version"], "2.1.0");
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), 12);
    for result in results {
        let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(
            sarif["runs"][0]["tool"]["driver"]["rules"][rule]["id"],
            result["ruleId"]
        );
        assert!(
            result["partialFingerprints"]["heapcheckKey/v1"]
                .as_str()
                .unwrap()
                .starts_with("v1:")
        );
        assert!(
            result["locations"][0]["physicalLocation"]["region"]["startLine"].is_u64(),
            "{result}"
        );
    }
}

/// The gate of `examples/`, and what each state of a build gives.
#[test]
fn the_gate_of_the_examples() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    let base = path("base.ndjson").display().to_string();
    assert_eq!(
        heapcheck([
            "import",
            "-o",
            &base,
            &log("asan-gcc-one-uaf.log"),
            &log("asan-gcc-one-leak.log")
        ])
        .status,
        0
    );
    let gate = |logs: &[&str]| {
        let mut command = Command::new(root().join("examples/ci-gate.sh"));
        command
            .arg(&base)
            .args(logs.iter().map(|name| log(name)))
            .current_dir(folder.path())
            .env("HEAPCHECK_BIN", env!("CARGO_BIN_EXE_heapcheck"));
        command.output().unwrap().status.code()
    };
    assert_eq!(
        gate(&["asan-gcc-one-uaf.log", "asan-gcc-one-leak.log"]),
        Some(0),
        "the baseline itself"
    );
    assert_eq!(
        gate(&["asan-clang-one-uaf.log", "asan-clang-one-leak.log"]),
        Some(0),
        "a rebuild by another compiler"
    );
    assert_eq!(
        gate(&["asan-gcc-one-uaf.log", "asan-gcc-one-double.log"]),
        Some(1),
        "a new bug"
    );
    let record = lines(&said(&["import", &log("asan-clang-one-double.log")])).remove(0);
    let key = record["key"].as_str().unwrap();
    let file = path("heapcheck.triage.toml").display().to_string();
    let mute = |until: &str| {
        heapcheck([
            "triage",
            "mute",
            key,
            "--reason",
            "the vendor is told",
            "--until",
            until,
            "--triage-file",
            &file,
            "--from",
            &log("asan-clang-one-double.log"),
        ])
        .status
    };
    assert_eq!(mute("2999-12-31"), 0);
    assert!(
        fs::read_to_string(&file)
            .unwrap()
            .contains("double-free | scuttle | scuttle_twice | main")
    );
    assert_eq!(
        gate(&["asan-gcc-one-uaf.log", "asan-gcc-one-double.log"]),
        Some(0),
        "muted"
    );
    assert_eq!(mute("2020-01-01"), 0);
    assert_eq!(
        gate(&["asan-gcc-one-uaf.log"]),
        Some(1),
        "a mute that has ended"
    );
    assert_eq!(mute("soon"), 2);
}

#[test]
fn flame_graphs_and_profiles() {
    let files = [log("lsan-gcc-O2.log"), log("valgrind-gcc-O0-xml.log")];
    let folded = said(&["triage", "flame", &files[0], &files[1]]);
    assert!(
        folded.contains("main;storm;lose_cargo;hire_ship 800\n"),
        "{folded}"
    );
    let counted = said(&["triage", "flame", "--by", "count", &files[0]]);
    assert!(
        counted.contains("main;storm;lose_cargo;hire_ship 4\n"),
        "{counted}"
    );
    let svg = said(&["triage", "flame", "--svg", &files[0]]);
    assert!(
        svg.starts_with("<svg ") && svg.contains("lose_cargo: 400 bytes (89.3 %)"),
        "{svg}"
    );
    let by_frame = said(&["triage", "flame", "--by", "frame", &files[0]]);
    assert!(by_frame.starts_with("           448  main\n"), "{by_frame}");
}

#[test]
fn batch_says_an_error_for_each_file_that_is_no_core_and_goes_on_where_it_stopped() {
    let folder = TempDir::new().unwrap();
    let out = folder.path().join("out.ndjson").display().to_string();
    let files: Vec<String> = (0..5)
        .map(|number| {
            let path = folder.path().join(format!("core.{number}"));
            fs::write(&path, format!("no core {number}")).unwrap();
            path.display().to_string()
        })
        .collect();
    let list = format!("{}\n{}\n", files[0], files[1]);
    let run = |input: &str, more: &[&str]| {
        let mut arguments = vec![
            "batch",
            "--jobs",
            "2",
            "--timeout",
            "60",
            "-o",
            &out,
            "--skip-known",
            &out,
        ];
        arguments.extend(more);
        heapcheck_with_input(&arguments, input.as_bytes().to_vec()).status
    };
    assert_eq!(run(&list, &["-"]), 3);
    let first = fs::read_to_string(&out).unwrap();
    assert_eq!(lines(&first).len(), 2);
    assert!(
        lines(&first).iter().all(|line| line["status"] == "ERROR"
            && line["core_id"].as_str().unwrap().starts_with("s1:")),
        "{first}"
    );
    // A run that was cut off in the middle of a line does that core again, the others not.
    fs::write(&out, &first[..first.len() - 5]).unwrap();
    let mut arguments: Vec<&str> = files.iter().map(String::as_str).collect();
    arguments.push("no-such-core");
    assert_eq!(run("", &arguments), 3);
    let all = fs::read_to_string(&out).unwrap();
    let whole = all
        .lines()
        .filter(|line| serde_json::from_str::<Value>(line).is_ok());
    assert_eq!(
        whole.count(),
        6,
        "five files and the one that is not there: {all}"
    );
    assert_eq!(
        all.lines().count(),
        7,
        "the line that was cut stands alone: {all}"
    );
}
