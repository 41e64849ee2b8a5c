//! Stacks of every thread, held against gdb's: functions, inlined calls, files and lines; and what is said of each crash.
//!
//! `fixtures/stacks/<build>-<mode>` holds a core for each kind of stack (testdata/stacks, testdata/lib/stacks.sh); those of
//! the builds `arm64-*` are of aarch64, written by qemu (testdata/lib/guests.sh).

mod arm64;
#[path = "../common/mod.rs"]
mod common;
mod crash;
mod debugger;
mod inside;
mod shape;

use std::path::PathBuf;

use common::stacks::key;
use common::{fixtures_dir, heapcheck};
use serde_json::Value;

/// Builds of testdata/stacks/cases.c for this machine.
const BUILDS: [&str; 4] = ["cases-O0", "cases-O2", "debuglink", "stripped"];
/// And for aarch64.
const GUESTS: [&str; 5] = [
    "arm64-O0",
    "arm64-pie-O2",
    "arm64-static-O2",
    "arm64-stripped",
    "arm64-signed",
];
/// Where the libraries of aarch64 are.
const GUEST_ROOT: &str = "/usr/aarch64-linux-gnu";

fn all_builds() -> impl Iterator<Item = &'static str> {
    BUILDS.into_iter().chain(GUESTS)
}

fn is_guest(case: &str) -> bool {
    case.starts_with("arm64-")
}

fn cases() -> Vec<String> {
    let index = fixtures_dir().join("stacks/index");
    let index = std::fs::read_to_string(&index)
        .unwrap_or_else(|error| panic!("{}: {error}; run ./build-fixtures.sh", index.display()));
    index.lines().map(str::to_owned).collect()
}

fn directory(case: &str) -> PathBuf {
    fixtures_dir().join("stacks").join(case)
}

/// Runs the program on a case.
fn run(case: &str, arguments: &[&str]) -> common::Outcome {
    let directory = directory(case);
    let mut all: Vec<std::ffi::OsString> = arguments.iter().map(Into::into).collect();
    if is_guest(case) {
        all.extend(["--sysroot", GUEST_ROOT].map(Into::into));
    }
    all.push("--minidump".into());
    all.push(directory.join("core").into());
    all.push(directory.join("binary").into());
    heapcheck(all)
}

fn report(case: &str, arguments: &[&str]) -> (i32, Value) {
    let outcome = run(case, &[&["--format", "json"], arguments].concat());
    let report = outcome
        .json()
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(report["status"], "OK", "{case}");
    (outcome.status, report)
}

/// The thread dump as text.
fn minidump(case: &str) -> String {
    run(case, &[]).text().to_owned()
}

fn frames(report: &Value) -> &[Value] {
    report["threads"][0]["frames"].as_array().unwrap()
}

fn functions(report: &Value) -> Vec<&str> {
    let frames = frames(report).iter();
    frames
        .map(|frame| frame["function"].as_str().unwrap_or("?"))
        .collect()
}

/// The function of the frame at fault.
fn at_fault(report: &Value) -> &str {
    let frame = report["crash_info"]["crashing_frame"].as_u64().unwrap();
    functions(report)[usize::try_from(frame).unwrap()]
}
