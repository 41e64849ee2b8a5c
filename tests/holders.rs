//! Holders by their names: programs in C, C++ and Rust that stated of each block by which variable, of which function, of which thread, it
//! is held (`testdata/holders.c`, `.cc`, `.rs`), -O0 and -O2. Each is found, and nothing else is claimed.

mod common;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use common::{Fact, fixtures, fixtures_dir, heapcheck, items, text};
use serde_json::Value;

struct Program {
    name: String,
    core: PathBuf,
    binary: PathBuf,
    truth: Vec<Fact>,
}

fn programs() -> Vec<Program> {
    let mut all: Vec<Program> = fixtures()
        .into_iter()
        .filter(|fixture| fixture.is("HOLDER"))
        .map(|fixture| Program {
            name: fixture.name.clone(),
            core: fixture.core.clone(),
            binary: fixture.binary.clone(),
            truth: fixture.facts("HOLDER").cloned().collect(),
        })
        .collect();
    for name in ["rust-O0", "rust-O2"] {
        let folder = fixtures_dir().join("holders").join(name);
        let truth = fs::read_to_string(folder.join("truth")).unwrap();
        let facts = truth.lines().filter_map(Fact::parse);
        all.push(Program {
            name: name.into(),
            core: folder.join("core"),
            binary: folder.join("binary"),
            truth: facts.filter(|fact| fact.keyword == "HOLDER").collect(),
        });
    }
    let names: Vec<&str> = all.iter().map(|program| &*program.name).collect();
    assert_eq!(
        names,
        [
            "holders-c-O0",
            "holders-cxx-O0",
            "holders-c-O2",
            "holders-cxx-O2",
            "rust-O0",
            "rust-O2"
        ]
    );
    all
}

fn report(program: &Program, command: &str, addresses: &[&str]) -> Value {
    let mut arguments: Vec<OsString> = [command, "--format", "json"].map(Into::into).into();
    arguments.extend([program.core.clone().into(), program.binary.clone().into()]);
    arguments.extend(addresses.iter().map(Into::into));
    heapcheck(arguments).json().unwrap()
}

/// What is said of a holder, as a person would read it: `mine of worker_loop`, `sessions+16`.
fn said(row: &Value) -> String {
    let offset = |key: &str| match row[key].as_u64() {
        None | Some(0) => String::new(),
        Some(offset) => format!("+{offset}"),
    };
    match row["kind"].as_str() {
        Some("tls" | "global") => {
            let symbol = row["symbol"].as_str().unwrap_or("?");
            format!("{symbol}{}", offset("symbol_offset"))
        }
        _ => {
            let name = row["variable"].as_str().unwrap_or("?");
            let function = row["function"].as_str().unwrap_or("?");
            let function = function.split('(').next().unwrap_or(function);
            format!("{name}{} of {function}", offset("variable_offset"))
        }
    }
}

fn stated(truth: &Fact) -> String {
    let offset = match truth.number("offset") {
        None | Some(0) => String::new(),
        Some(offset) => format!("+{offset}"),
    };
    match truth.get("function") {
        Some(function) => format!("{}{offset} of {function}", truth.get("variable").unwrap()),
        None => format!("{}{offset}", truth.get("symbol").unwrap()),
    }
}

#[test]
fn each_holder_is_called_by_its_name_and_no_other_is_claimed() {
    let mut wrong = Vec::new();
    for program in programs() {
        let is_rust = program.name.starts_with("rust");
        let addresses: Vec<&str> = program
            .truth
            .iter()
            .map(|truth| truth.get("address").unwrap())
            .collect();
        assert!(addresses.len() >= 4, "{}", program.name);
        let report = report(&program, "refs", &addresses);
        for (truth, found) in program.truth.iter().zip(items(&report["references"])) {
            let strong: Vec<&Value> = items(&found["from"])
                .iter()
                .filter(|row| row["strength"] == "strong")
                .collect();
            let expected = stated(truth);
            let names: Vec<String> = strong.iter().map(|row| said(row)).collect();
            // Rust puts scopes and what its macros make around names, and where the field of a struct lies is its own choice.
            let is_it = |name: &String| match is_rust {
                false => *name == expected,
                true => {
                    let plain = expected.replace(" of ", "|");
                    let mut parts = plain.split(['|', '+']);
                    parts.all(|part| name.contains(part))
                }
            };
            let place = format!("{}: {expected}", program.name);
            if !names.iter().any(is_it) {
                wrong.push(format!("{place} is not among {names:?}"));
            }
            // At -O0 rustc copies what it hands on to words of the stack that have no name.
            let is_copy = |name: &&String| is_rust && name.starts_with('?');
            let others: Vec<&String> = names
                .iter()
                .filter(|name| !is_it(name) && !is_copy(name))
                .collect();
            if !others.is_empty() {
                wrong.push(format!("{place}: and by {others:?}"));
            }
            let row = strong.iter().find(|row| is_it(&said(row)));
            let Some(row) = row else {
                continue;
            };
            let kind = text(row, "kind");
            let is_kind = kind == truth.get("kind").unwrap()
                || truth.get("kind") == Some("stack") && kind == "register";
            if !is_kind {
                wrong.push(format!("{place} is {kind}"));
            }
            if let Some(thread) = truth.get("thread")
                && row["thread_id"].to_string() != thread
            {
                wrong.push(format!("{place}: thread {}", row["thread_id"]));
            }
            if let Some(from) = truth.get("from")
                && text(row, "address") != from
            {
                wrong.push(format!("{place}: at {}", row["address"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The word itself is called the same by `inspect`, and what it holds is that block.
#[test]
fn inspect_calls_the_word_by_the_same_name() {
    for program in programs() {
        let with_word: Vec<&Fact> = program
            .truth
            .iter()
            .filter(|truth| truth.get("from").is_some())
            .collect();
        if with_word.is_empty() {
            continue; // Rust's
        }
        let words: Vec<&str> = with_word
            .iter()
            .map(|truth| truth.get("from").unwrap())
            .collect();
        let report = report(&program, "inspect", &words);
        for (truth, found) in with_word.iter().zip(items(&report["addresses"])) {
            let place = format!("{}: {truth:?}: {found}", program.name);
            assert_eq!(text(found, "what"), truth.get("kind").unwrap(), "{place}");
            let name = match truth.get("function") {
                Some(_) => said(&with_kind(found, "stack")),
                None => said(&with_kind(found, "global")),
            };
            assert_eq!(name, stated(truth), "{place}");
            let mut here = items(&found["words"])
                .iter()
                .filter(|word| word["address"] == found["address"]);
            let word = here.next().unwrap();
            let block = truth.get("address").unwrap();
            assert_eq!(text(word, "value"), block, "{place}");
            assert!(text(word, "meaning").contains(block), "{place}");
        }
    }
}

fn with_kind(found: &Value, kind: &str) -> Value {
    let mut row = found.clone();
    row["kind"] = kind.into();
    row
}
