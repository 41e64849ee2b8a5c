//! What blocks hold, against programs that said the address and the type of each of their objects (`testdata/types.cc`,
//! `testdata/objects.rs`).

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::way::Way;
use common::{Fact, Fixture, heapcheck, in_parallel, items, text};
use serde_json::Value;

/// The program's statements about one block.
#[derive(Clone, Debug)]
struct Truth {
    case: String,
    address: String,
    /// `None`: nothing tells.
    name: Option<String>,
    /// What is as good an answer.
    or: Option<String>,
    /// It is free: what it held. `maybe`: the allocator may have written over what tells.
    was: Option<String>,
    /// Nobody points at it.
    is_lost: bool,
}

impl Truth {
    fn of(fact: &Fact) -> Self {
        let name = |key| fact.get(key).map(|name| name.replace('_', " "));
        Self {
            case: fact.get("case").unwrap().to_owned(),
            address: fact.get("address").unwrap().to_owned(),
            name: fact.get("name").map(str::to_owned),
            or: name("or"),
            was: fact.get("was").map(str::to_owned),
            is_lost: fact.get("lost").is_some(),
        }
    }
}

/// What a report says of these addresses.
fn told(arguments: &[OsString], truths: &[Truth]) -> Vec<Value> {
    // As many as a command line takes.
    let parts = truths.chunks(20_000).map(|truths| {
        let mut all: Vec<OsString> = ["refs", "--format", "json"].map(Into::into).into();
        all.extend(arguments.iter().cloned());
        all.extend(truths.iter().map(|truth| truth.address.clone().into()));
        let outcome = heapcheck(all);
        let report = outcome.json().unwrap_or_else(|error| panic!("{error}"));
        let found = items(&report["references"]).iter();
        found
            .map(|found| found["block"]["type"].clone())
            .collect::<Vec<Value>>()
    });
    parts.flatten().collect()
}

/// Names without blanks: those of a truth have none.
fn plain(name: &str) -> String {
    name.replace([' ', '_'], "")
}

#[derive(Debug, Default)]
struct Score {
    told: usize,
    asked: usize,
    wrong: Vec<String>,
}

/// Compares what is told with the truth. `has_names`: the program's file is there; without it a class is known by its place.
fn score(truths: &[Truth], types: &[Value], has_names: bool) -> Score {
    let mut score = Score::default();
    assert_eq!(truths.len(), types.len());
    // Without names, objects of one class are of one class still.
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    for (truth, found) in truths.iter().zip(types) {
        let name = found["name"].as_str();
        let is_free = found["was"] == true;
        score.asked += usize::from(truth.name.is_some());
        score.told += usize::from(name.is_some() && truth.name.is_some());
        let mut wrong = |why: &str| {
            score
                .wrong
                .push(format!("{}: {why}: {truth:?}, but {found}", truth.case));
        };
        match (&truth.name, name) {
            (None, Some(name)) if truth.or.as_deref().map(plain) == Some(plain(name)) => {}
            (None, Some(_)) => wrong("nothing tells"),
            (None, None) => {}
            (Some(_), None) => {}
            (Some(expected), Some(name)) => {
                if is_free != truth.was.is_some() {
                    wrong("free or not");
                }
                let is_it = plain(name) == plain(expected);
                let is_as_good = found["is_base"] == true
                    && truth.or.as_ref().is_some_and(|or| plain(name) == plain(or));
                if has_names && !is_it && !is_as_good {
                    wrong("another type");
                }
                if !has_names && truth.was.is_none() {
                    let known = places.entry(name.to_owned()).or_insert(plain(expected));
                    if *known != plain(expected) {
                        wrong("two types at one place");
                    }
                    if found["known_by"] != "vtable" {
                        wrong("a name without a file");
                    }
                }
            }
        }
    }
    score
}

/// Of each hundred types that are told ninety-nine are right, and nearly all are told.
fn hold(place: &str, score: &Score) -> Vec<String> {
    println!(
        "{place}: {} of {} told, {} wrong",
        score.told,
        score.asked,
        score.wrong.len()
    );
    let mut errors: Vec<String> = Vec::new();
    if score.wrong.len() * 100 > score.told {
        errors.extend(score.wrong.iter().map(|why| format!("{place}: {why}")));
    }
    if score.told * 100 < score.asked * 94 {
        errors.push(format!(
            "{place}: only {} of {} told",
            score.told, score.asked
        ));
    }
    errors
}

fn truths(fixture: &Fixture) -> Vec<Truth> {
    fixture.facts("TYPE").map(Truth::of).collect()
}

fn programs() -> Vec<Fixture> {
    let all = common::fixtures().into_iter();
    all.filter(|fixture| fixture.is("TYPE")).collect()
}

#[test]
fn objects_of_classes_are_told_by_their_tables() {
    let programs = programs();
    let least = if cfg!(feature = "fixtures") { 5 } else { 1 };
    assert!(programs.len() >= least, "{}", programs.len());
    let all: Vec<(Fixture, Way)> = programs
        .into_iter()
        .flat_map(|fixture| {
            let ways = Way::all_of(&fixture).iter();
            ways.map(move |way| (fixture.clone(), *way))
                .collect::<Vec<_>>()
        })
        .collect();
    let errors = in_parallel(&all, |(fixture, way)| {
        let truths = truths(fixture);
        let types = told(&way.arguments(fixture), &truths);
        let place = format!("{}/{} {}", fixture.release, fixture.name, way.name());
        hold(&place, &score(&truths, &types, *way != Way::Bare))
    })
    .concat();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// Lost objects are in groups by their types: all of one type in one, and nothing else in it.
#[test]
fn lost_objects_are_grouped_by_their_types() {
    for fixture in programs() {
        let mut lost: BTreeMap<String, u64> = BTreeMap::new();
        for truth in truths(&fixture).into_iter().filter(|truth| truth.is_lost) {
            *lost.entry(plain(&truth.name.unwrap())).or_default() += 1;
        }
        let mut arguments: Vec<OsString> = ["leaks", "--format", "json"].map(Into::into).into();
        arguments.extend(Way::DebugInfo.arguments(&fixture));
        let report = heapcheck(arguments).json().unwrap();
        let found: BTreeMap<String, u64> = items(&report["leaks"]["groups"])
            .iter()
            .filter(|group| group["class"] == "definite" && !group["type"].is_null())
            .map(|group| {
                let name = plain(text(&group["type"], "name"));
                (name, group["blocks"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(found, lost, "{}/{}", fixture.release, fixture.name);
    }
}

/// `usage --by type` counts each object that is in use once, under its type, and all blocks together.
#[test]
fn usage_by_type_counts_each_object_once() {
    for fixture in programs() {
        let truths = truths(&fixture);
        let mut in_use: BTreeMap<String, u64> = BTreeMap::new();
        let named = |truth: &&Truth| truth.was.is_none() && truth.name.is_some();
        for truth in truths.iter().filter(named) {
            *in_use
                .entry(plain(truth.name.as_ref().unwrap()))
                .or_default() += 1;
        }
        let mut arguments: Vec<OsString> = ["usage", "--by", "type", "--format", "json"]
            .map(Into::into)
            .into();
        arguments.extend(Way::DebugInfo.arguments(&fixture));
        let report = heapcheck(arguments).json().unwrap();
        let rows = items(&report["usage"]["types"]);
        // gperftools has objects of its own in its heap.
        let typed = rows.iter().filter(|row| {
            let known = &row["type"];
            let by_itself = known["known_by"] == "vtable" || known["known_by"] == "rtti";
            by_itself && !text(known, "module").starts_with("lib")
        });
        let found: BTreeMap<String, u64> = typed
            .map(|row| {
                let name = plain(text(&row["type"], "name"));
                (name, row["blocks"].as_u64().unwrap())
            })
            .collect();
        let place = format!("{}/{}", fixture.release, fixture.name);
        assert_eq!(found, in_use, "{place}");
        let of_heaps = |key: &str| -> u64 {
            let heaps = items(&report["allocators"]).iter();
            heaps
                .map(|heap| heap["statistics"]["in_use"][key].as_u64().unwrap())
                .sum()
        };
        for key in ["blocks", "bytes"] {
            let sum: u64 = rows.iter().map(|row| row[key].as_u64().unwrap()).sum();
            assert_eq!(sum, of_heaps(key), "{place}: {key}");
        }
    }
}

/// Builds a program, lets it die, and gives its directory: the program, its core, what it said. `None` if the compiler cannot build it.
fn built(name: &str, compiler: &str, options: &[&str], source: &str) -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("types-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    let compiled = Command::new(compiler)
        .args(options)
        .arg("-o")
        .arg(directory.join("program"))
        .arg(common::root().join(source))
        .output()
        .ok()?;
    if !compiled.status.success() {
        println!("{name}: {}", String::from_utf8_lossy(&compiled.stderr));
        return None;
    }
    let said = Command::new("sh")
        .current_dir(&directory)
        .args(["-c", "ulimit -c unlimited; exec ./program"])
        .output()
        .expect("the program runs");
    std::fs::write(directory.join("truth"), said.stdout).unwrap();
    let mut files = std::fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().path());
    let core = files
        .find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with("core")
        })
        .expect("the kernel writes cores into the directory");
    std::fs::rename(core, directory.join("core")).unwrap();
    Some(directory)
}

/// Builds a Rust program and lets it die.
fn rust_program(name: &str, options: &[&str]) -> PathBuf {
    let all = [&["--edition", "2021", "--crate-name", "objects"], options].concat();
    built(name, "rustc", &all, "testdata/objects.rs").expect("rustc builds it")
}

/// The types that a program said.
fn truths_in(directory: &Path) -> Vec<Truth> {
    let said = std::fs::read_to_string(directory.join("truth")).unwrap();
    let facts = Fixture::facts_of(&said);
    let types = facts.iter().filter(|fact| fact.keyword == "TYPE");
    types.map(Truth::of).collect()
}

/// Values that no virtual table tells: by debug information alone.
#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn plain_values_and_containers_are_told_by_what_holds_them() {
    let cxx = "testdata/typed.cc";
    let rust: &[&str] = &["--edition", "2021", "--crate-name", "typed", "-g"];
    for (name, compiler, options, source, is_needed) in [
        ("gcc-O0", "g++", &["-g", "-O0", "-std=c++17"][..], cxx, true),
        ("gcc-O2", "g++", &["-g", "-O2", "-std=c++17"], cxx, true),
        (
            "clang-O2",
            "clang++",
            &["-g", "-O2", "-std=c++17"],
            cxx,
            false,
        ),
        (
            "libc++-O0",
            "clang++",
            &["-g", "-O0", "-std=c++17", "-stdlib=libc++"],
            cxx,
            false,
        ),
        ("rust-O0", "rustc", rust, "testdata/typed.rs", true),
        (
            "rust-O3",
            "rustc",
            &[rust, &["-Copt-level=3"]].concat(),
            "testdata/typed.rs",
            true,
        ),
    ] {
        let Some(directory) = built(name, compiler, options, source) else {
            assert!(!is_needed, "{name} is not built");
            continue;
        };
        let truths = truths_in(&directory);
        let files = ["core", "program"].map(|file| directory.join(file).into_os_string());
        let types = told(&files, &truths);
        let score = score(&truths, &types, true);
        let errors = hold(name, &score);
        assert!(errors.is_empty(), "{}", errors.join("\n"));
        assert!(score.asked > 1000, "{name}");
        let by_debug_info = types
            .iter()
            .filter(|found| found["known_by"] == "debug-info");
        assert!(by_debug_info.count() * 2 > score.asked, "{name}");
        // Without the file nothing of it is told.
        let alone = ["--no-default-paths", "--locate", "structure"].map(Into::into);
        let alone = [&alone[..], &files[..1]].concat();
        let types = told(&alone, &truths[..100.min(truths.len())]);
        let named = types
            .iter()
            .filter(|found| found["known_by"] == "debug-info");
        assert_eq!(named.count(), 0, "{name}");
        let _ = std::fs::remove_dir_all(&directory);
    }
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn trait_objects_are_told_by_the_pointers_to_them() {
    for (name, options, has_names) in [
        ("debug", &["-g"][..], true),
        ("release-with-lines", &["-g", "-Copt-level=3"][..], true),
        ("release", &["-Copt-level=3"][..], true),
        ("stripped", &["-Copt-level=3", "-Cstrip=symbols"][..], false),
    ] {
        let directory = rust_program(name, options);
        let truths = truths_in(&directory);
        let files = ["core", "program"].map(|file| directory.join(file).into_os_string());
        let types = told(&files, &truths);
        let score = score(&truths, &types, has_names);
        let errors: Vec<String> = score.wrong.clone();
        println!("{name}: {} of {} told", score.told, score.asked);
        assert!(errors.is_empty(), "{name}: {}", errors.join("\n"));
        // A box whose calls the compiler sees through has no pair of pointers.
        assert!(score.told + 1 >= score.asked, "{name}: {score:?}");
        let _ = std::fs::remove_dir_all(&directory);
    }
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs a kernel that writes cores, and --features fixtures"
)]
fn objects_of_the_python_of_this_machine_have_names() {
    let folder = tempfile::TempDir::new().unwrap();
    let run = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; exec python3 \"$0\""])
        .arg(common::root().join("testdata/objects.py"))
        .env("PYTHONMALLOC", "malloc")
        .current_dir(&folder)
        .output();
    let said = run.map_or(String::new(), |run| {
        String::from_utf8_lossy(&run.stdout).into_owned()
    });
    let mut versions = said
        .lines()
        .filter_map(|line| line.strip_prefix("VERSION 3 "));
    let version: Option<u32> = versions.next().and_then(|minor| minor.parse().ok());
    if !version.is_some_and(|minor| (9..=13).contains(&minor)) {
        eprintln!("skipped: this machine has no python3 of 3.9 to 3.13");
        return;
    }
    let mut files = std::fs::read_dir(&folder).unwrap();
    let core = files.next().expect("a core").unwrap().path();
    let mut truths = BTreeMap::new();
    for line in said.lines() {
        if let ["OBJECT", address, name] = line.split(' ').collect::<Vec<_>>()[..] {
            truths.insert(address.to_owned(), format!("Python {name}"));
        }
    }
    assert_eq!(truths.len(), 360);
    let mut arguments: Vec<OsString> = ["inspect", "--format", "json"].map(Into::into).into();
    arguments.push(core.into());
    arguments.extend(truths.keys().map(Into::into));
    let report = heapcheck(arguments).json().unwrap();
    let mut told = 0;
    for found in items(&report["addresses"]) {
        if let Some(name) = found["type"]["name"].as_str() {
            assert_eq!(truths[text(found, "address")], name, "{found:#}");
            told += 1;
        }
    }
    println!("{told} of {} objects are told", truths.len());
    assert!(told >= 350, "{told}");
}
