//! What the documents show of commands is what they print: each block of `docs/tour.md` is run again on the cores of the repository.
//!
//! `HEAPCHECK_BLESS=1 cargo test --test tour` writes what is printed now.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::root;
use common::small::directory;

/// What a command line prints, with the program first in the path, among the unpacked cores.
fn printed(line: &str) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_heapcheck")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("sh")
        .args(["-c", line])
        .current_dir(directory())
        .env("PATH", format!("{}:{path}", program.display()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(errors, "", "{line}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_tour_shows_what_is_printed() {
    let path = root().join("docs/tour.md");
    let document = fs::read_to_string(&path).unwrap();
    let mut parts = document.split("```console\n");
    let mut anew = parts.next().unwrap().to_owned();
    let mut commands = 0;
    for part in parts {
        let (shown, after) = part.split_once("```\n").expect("a block ends");
        let line = shown.lines().next().unwrap();
        let line = line
            .strip_prefix("$ ")
            .expect("a block begins with its command");
        let output = printed(line);
        assert!(output.lines().count() > 2, "{line}: {output}");
        anew = format!("{anew}```console\n$ {line}\n{output}```\n{after}");
        commands += 1;
    }
    assert!(commands >= 8, "{commands}");
    if std::env::var_os("HEAPCHECK_BLESS").is_some() {
        fs::write(&path, anew).unwrap();
        return;
    }
    assert!(
        document == anew,
        "docs/tour.md is not what is printed: HEAPCHECK_BLESS=1 cargo test --test tour"
    );
}
