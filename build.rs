//! Gives the program its version: the package's, and in a release build the commit and its date.
//!
//! `HEAPCHECK_COMMIT` (`1a2b3c4 2026-11-30`) comes before what git says; where there is neither, the package's version stands alone. The same
//! commit gives the same bytes: no clock is read. Builds for development name no commit, so that a commit compiles nothing anew.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=HEAPCHECK_COMMIT");
    let package = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = std::env::var("HEAPCHECK_COMMIT").ok();
    let commit = given.or_else(|| release.then(of_git).flatten());
    let version = match commit.filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{package} ({commit})"),
        None => package,
    };
    println!("cargo::rustc-env=HEAPCHECK_VERSION={version}");
}

/// The commit that is checked out and its date, if this folder is the top of a repository.
fn of_git() -> Option<String> {
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let here = std::env::current_dir().ok()?.canonicalize().ok()?;
    if Path::new(&top).canonicalize().ok()? != here {
        return None;
    }
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    println!("cargo::rerun-if-changed={log}");
    git(&["log", "-1", "--format=%h %cs", "--abbrev=9"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
