//! What `import`, `triage`, `batch` and SARIF say of programs that are built and run here.

#[path = "../common/mod.rs"]
mod common;

mod batch;
mod growth;
mod sarif;
mod schemas;
mod symbols;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Runs a shell's line in a folder; what it writes on standard output.
fn shell(folder: &Path, line: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .env("LANG", "C")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Compiles a source in a folder.
fn compile(folder: &Path, source: &str, command: &str) -> PathBuf {
    fs::write(folder.join("prog.c"), source).unwrap();
    // Libraries stand behind what needs them.
    let (compiler, options) = command.split_once(' ').unwrap();
    let status = Command::new("sh")
        .args(["-c", &format!("{compiler} prog.c {options} -w -o prog")])
        .current_dir(folder)
        .status()
        .unwrap();
    assert!(status.success(), "{command}");
    folder.join("prog")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// What a command that must succeed writes.
fn said(arguments: &[&str]) -> String {
    let outcome = common::heapcheck(arguments);
    assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.stderr);
    outcome.text().to_owned()
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).display().to_string()
}
