//! Imports go down only, and some names stay in their rooms: the floors of `docs/architecture.md`, kept by a machine. Between
//! the crates Cargo keeps them (`ground` < `heaps`, `postmortem` < `heapcheck`); here is what it cannot.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms of `heapcheck` by floor, lowest first. Rooms of one floor may use each other.
const ROOT: &[&[&str]] = &[
    &["progress", "types"],
    &["analysis", "crash"],
    &["events"],
    &["graph"],
    &["checks", "usage"],
    &["examination", "inspect"],
    &["report"],
    &[
        "main",
        "program",
        "commands",
        "cli",
        "output",
        "terminal",
        "interrupt",
        "unforeseen",
        "huge_pages",
        "view",
    ],
];

/// Rooms of `ground`.
const GROUND: &[&[&str]] = &[&["target", "arch"], &["layout", "parallel", "scan"]];

/// Rooms of `postmortem`.
const POSTMORTEM: &[&[&str]] = &[
    &["modules", "corefile"],
    &["debuginfo"],
    &["unwind"],
    &["session"],
];

/// Rooms of `heaps`.
const HEAPS: &[&[&str]] = &[
    &["list", "map", "anomaly", "presence"],
    &["allocators"],
    &["absent"],
    &["walk", "unclaimed", "graph"],
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below a directory, with their paths from it.
fn sources(directory: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(path) = open.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(directory).unwrap().to_owned(), text));
            }
        }
    }
    found.sort();
    assert!(!found.is_empty());
    found
}

/// The room that a file belongs to: `report` for `report.rs` and `report/text/page.rs`.
fn room(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The code without comments, on one line each.
fn code(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The first names after each `prefix` (`crate::`), those in braces included.
fn names_after(code: &str, prefix: &str) -> Vec<String> {
    let identifier = |text: &str| -> String {
        text.trim_start()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue; // `my_crate::`, `::crate::`
        }
        let after = &code[at + prefix.len()..];
        let Some(group) = after.strip_prefix('{') else {
            names.push(identifier(after));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (place, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                '}' => {
                    names.push(identifier(&group[start..]));
                    break;
                }
                ',' if depth == 0 => {
                    names.push(identifier(&group[start..]));
                    start = place + 1;
                }
                _ => {}
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn floor(floors: &[&[&str]], room: &str) -> Option<usize> {
    floors.iter().position(|rooms| rooms.contains(&room))
}

/// Upward imports, and rooms that are on no floor.
fn upward(directory: &str, floors: &[&[&str]], prefixes: &[&str]) -> Vec<String> {
    let mut errors = Vec::new();
    for (path, text) in sources(&root().join(directory)) {
        let from = room(&path);
        if from == "lib" {
            continue;
        }
        let shown = format!("{directory}/{}", path.display());
        let Some(here) = floor(floors, &from) else {
            errors.push(format!(
                "{shown}: the room `{from}` is on no floor; tests/floors.rs lists them"
            ));
            continue;
        };
        let code = code(&text);
        for prefix in prefixes {
            for name in names_after(&code, prefix) {
                if name != from && floor(floors, &name).is_some_and(|there| there > here) {
                    errors.push(format!(
                        "{shown}: imports {prefix}{name}, which is a floor above"
                    ));
                }
            }
        }
    }
    errors
}

fn assert_none(errors: &[String]) {
    assert!(errors.is_empty(), "\n{}", errors.join("\n"));
}

#[test]
fn the_root_crate_imports_downwards() {
    assert_none(&upward("src", ROOT, &["crate::", "heapcheck::"]));
}

#[test]
fn the_crates_below_import_downwards() {
    for (name, floors) in [
        ("ground", GROUND),
        ("postmortem", POSTMORTEM),
        ("heaps", HEAPS),
    ] {
        assert_none(&upward(&format!("crates/{name}/src"), floors, &["crate::"]));
    }
}

#[test]
fn allocators_do_not_know_each_other() {
    let mut errors = Vec::new();
    let directory = root().join("crates/heaps/src/allocators");
    for (path, text) in sources(&directory) {
        let own = room(&path);
        let code = code(&text);
        for name in names_after(&code, "crate::allocators::") {
            if name != own && directory.join(&name).is_dir() {
                errors.push(format!("{}: imports allocator {name}", path.display()));
            }
        }
    }
    assert_none(&errors);
}

#[test]
fn a_renderer_sees_the_report_and_nothing_else() {
    let mut errors = Vec::new();
    for (path, text) in sources(&root().join("src/report")) {
        let part = room(&path);
        if part == "compose" {
            continue;
        }
        for name in names_after(&code(&text), "crate::") {
            if name != "report" {
                errors.push(format!(
                    "src/report/{}: imports crate::{name}",
                    path.display()
                ));
            }
        }
    }
    assert_none(&errors);
}

#[test]
fn libraries_stay_in_their_rooms() {
    // What is named may be used in these rooms only.
    let rules: &[(&str, &str, &[&str])] = &[
        // The answers over many reports are values of the crate reports; their commands write them.
        ("src", "serde", &["report", "commands"]),
        ("src", "serde_json", &["report", "commands"]),
        ("src", "schemars", &["report"]),
        ("src", "clap", &["cli", "commands"]),
        ("src", "anstyle", &["report"]),
        ("src", "ratatui_core", &["view"]),
        ("src", "crossterm", &["view"]),
        ("crates/postmortem/src", "gimli", &["debuginfo", "unwind"]),
        ("crates/postmortem/src", "memmap2", &["corefile"]),
    ];
    let mut errors = Vec::new();
    for (directory, library, rooms) in rules {
        for (path, text) in sources(&root().join(directory)) {
            let room = room(&path);
            let code = code(&text);
            let used = code.match_indices(&format!("{library}::")).any(|(at, _)| {
                !code[..at]
                    .chars()
                    .next_back()
                    .is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
            });
            if used && !rooms.contains(&room.as_str()) {
                errors.push(format!("{directory}/{}: uses {library}", path.display()));
            }
        }
    }
    assert_none(&errors);
}

#[test]
fn nothing_below_the_command_line_reads_the_environment_or_prints() {
    let mut errors = Vec::new();
    let top = ROOT.last().unwrap();
    let below = ["ground", "heaps", "postmortem"]
        .into_iter()
        .flat_map(|name| sources(&root().join("crates").join(name).join("src")));
    let files = sources(&root().join("src"))
        .into_iter()
        .filter(|(path, _)| !top.contains(&room(path).as_str()))
        .chain(below);
    for (path, text) in files {
        // Tests may, in their own file or at a file's end.
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        let code = code(&text);
        let code = code.split("#[cfg(test)]").next().unwrap_or("");
        for forbidden in [
            "env::var",
            "env::args",
            "println!(",
            "eprintln!(",
            "print!(",
            "dbg!(",
        ] {
            if code.contains(forbidden) {
                errors.push(format!("{}: {forbidden}", path.display()));
            }
        }
    }
    assert_none(&errors);
}

#[test]
fn the_reader_of_imports_reads_them() {
    let code = code(
        "use crate::a::b; // crate::comment\nuse crate::{c, d::{e, f}, g};\nlet x = crate::h::y();\nmy_crate::no::way",
    );
    assert_eq!(names_after(&code, "crate::"), ["a", "c", "d", "g", "h"]);
}
