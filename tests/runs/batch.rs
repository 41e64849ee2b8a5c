//! Many cores, real ones: a poison core costs itself, and a run goes on where it was stopped.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::common::{heapcheck, small};
use super::{lines, path};

/// Some cores of each allocator.
fn cores() -> Vec<String> {
    let mut found: Vec<(String, String)> = Vec::new();
    for fixture in small::fixtures() {
        let of_release = found
            .iter()
            .filter(|(release, _)| *release == fixture.release);
        if of_release.count() < 3 {
            found.push((fixture.release.clone(), fixture.core.display().to_string()));
        }
    }
    found.into_iter().map(|(_, core)| core).take(24).collect()
}

fn status(line: &Value) -> &str {
    line["status"].as_str().unwrap()
}

#[test]
fn a_run_that_was_stopped_goes_on_and_says_the_same() {
    let folder = TempDir::new().unwrap();
    let out = path(folder.path(), "all.ndjson");
    let cores = cores();
    let run = |cores: &[String]| {
        let mut arguments: Vec<&str> = "batch --jobs 2 --timeout 300 --memory 2G"
            .split(' ')
            .collect();
        arguments.extend(["-o", &out, "--skip-known", &out]);
        arguments.extend(cores.iter().map(String::as_str));
        heapcheck(&arguments).stderr
    };
    let half = cores.len() / 2;
    run(&cores[..half]);
    let first = fs::read_to_string(&out).unwrap();
    assert_eq!(first.lines().count(), half);
    // The last line was being written when the run was stopped.
    fs::write(&out, &first[..first.len() - 100]).unwrap();
    let said = run(&cores);
    assert!(said.contains(&format!("{} known", half - 1)), "{said}");
    let all = fs::read_to_string(&out).unwrap();
    let whole: Vec<Value> = all
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let ids: BTreeSet<&str> = whole
        .iter()
        .map(|line| line["core_id"].as_str().unwrap())
        .collect();
    assert_eq!(
        (whole.len(), ids.len()),
        (cores.len(), cores.len()),
        "nothing lost, nothing twice"
    );
    assert!(whole.iter().all(|line| status(line) == "OK"));
    // The line is the report that the command writes, with the core's id before it.
    for line in whole.iter().take(3) {
        let core = line["core_file"].as_str().unwrap();
        let mut alone: Value =
            serde_json::from_str(heapcheck(["check", "--format", "json", core]).text()).unwrap();
        let mut line = line.clone();
        for field in ["core_id", "core_file", "exit_status", "seconds"] {
            line.as_object_mut().unwrap().remove(field).expect(field);
        }
        for report in [&mut line, &mut alone] {
            report["core"]["path"] = Value::Null;
        }
        assert_eq!(line, alone);
    }
}

#[test]
fn a_poison_core_costs_itself() {
    let folder = TempDir::new().unwrap();
    let cores = cores();
    let (good, other) = (&cores[0], &cores[1]);
    // It says that a hundred thousand segments follow, and is cut behind its headers.
    let whole = fs::read(good).unwrap();
    let cut = path(folder.path(), "core.cut");
    fs::write(&cut, &whole[..whole.len() / 3]).unwrap();
    let rubbish = path(folder.path(), "core.rubbish");
    let mut bytes = whole.clone();
    for (at, byte) in bytes.iter_mut().enumerate().skip(1) {
        *byte ^= u8::try_from(at * 31 % 251).unwrap();
    }
    fs::write(&rubbish, bytes).unwrap();
    let outcome = heapcheck([
        "batch",
        "--jobs",
        "2",
        "--timeout",
        "60",
        good,
        &cut,
        &rubbish,
        other,
    ]);
    let found = lines(outcome.text());
    assert_eq!(found.len(), 4);
    let of = |core: &str| {
        let mut all = found.iter();
        all.find(|line| line["core_file"] == core)
            .unwrap_or_else(|| panic!("{core}"))
    };
    assert_eq!((status(of(good)), status(of(other))), ("OK", "OK"));
    assert_ne!(
        of(&cut)["exit_status"],
        0,
        "a core that is cut is not healthy"
    );
    assert_eq!(status(of(&rubbish)), "ERROR");
}

#[test]
fn memory_and_time_have_an_end() {
    let cores = cores();
    let (first, second) = (&cores[0], &cores[1]);
    let starved = heapcheck(["batch", "--memory", "1M", first, second]);
    let found = lines(starved.text());
    assert_eq!(found.len(), 2);
    for line in &found {
        assert_eq!(status(line), "ERROR", "{line}");
        let message = line["error"]["message"].as_str().unwrap();
        assert!(message.contains("1048576 bytes"), "{message}");
    }
    assert_eq!(starved.status, 3);

    // A pipe that nobody writes to: opening it takes for ever. As a core it is refused; a worker that reads it is ended.
    let folder = TempDir::new().unwrap();
    let endless = path(folder.path(), "core.pipe");
    super::shell(folder.path(), "mkfifo core.pipe");
    let outcome = heapcheck(["batch", "--timeout", "60", &endless, first]);
    let found = lines(outcome.text());
    assert_eq!(found.len(), 2, "{found:?}");
    for line in &found {
        let is_core = line["core_file"] == first.as_str();
        assert_eq!(status(line), if is_core { "OK" } else { "ERROR" }, "{line}");
    }
    let outcome = heapcheck(["batch", "--timeout", "2", first, "--", "--events", &endless]);
    let found = lines(outcome.text());
    let message = found[0]["error"]["message"].as_str().unwrap();
    assert_eq!((found.len(), message), (1, "not done after 2 s"));
}
