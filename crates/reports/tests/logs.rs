//! Logs of two programs, made by `testdata/logs.sh` with gcc, clang and valgrind in many ways: every record is read, its kind and the
//! function to blame are right, and a bug is one group whatever tool, compiler and option saw it.
//! `HEAPCHECK_LOGS=DIRECTORY` runs the same over logs that were just made.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use reports::import::{Options, Summary, import};
use reports::triage::{Gather, Input, TriageFile, each};
use reports::{Record, Strength};

/// What a bug of the programs is, and whose fault. The last word is true if every tool that can see it must say it.
const BUGS: &[(&str, &str, &str, bool)] = &[
    ("uaf", "use-after-free", "scrap_ship", true),
    ("overrun", "heap-overrun", "load_hold", true),
    ("underrun", "heap-underrun", "check_keel", true),
    ("double", "double-free", "scuttle", true),
    ("badfree", "invalid-free", "sell_berth", true),
    // What was to be freed is lost; and leaks may still have a pointer somewhere, which no tool takes for lost.
    ("badfree", "memory-leak", "sell_half", false),
    ("leak", "memory-leak", "lose_cargo", false),
    ("list", "memory-leak", "tie_barge", false),
    ("uninit", "uninitialised-use", "read_gauge", true),
    ("race", "data-race", "clerk", true),
    ("overflow", "undefined-behaviour", "count_tides", true),
    ("shift", "undefined-behaviour", "bend_rope", true),
    ("global", "global-overrun", "call_dock", true),
    ("stack", "stack-overrun", "fill_deck", true),
    ("null", "crash", "sail_off", true),
    ("mirror", "heap-overrun", "turn", true),
    ("keeper", "use-after-free", "snuff", false), // clang takes new and delete of one function out
    ("dream", "memory-leak", "forget", false),
    ("lambda", "heap-overrun", "{lambda}", true),
    ("mismatch", "mismatched-free", "mismatch", false),
    ("crew", "data-race", "{lambda}", true),
];

/// Logs in which the program's functions have no names.
const NAMELESS: [&str; 3] = ["-stripped", "-raw", "asan-clang-symbols"];

fn directory() -> PathBuf {
    std::env::var_os("HEAPCHECK_LOGS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/logs"),
        PathBuf::from,
    )
}

fn logs() -> Vec<(String, String)> {
    let mut logs: Vec<(String, String)> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_str().unwrap().to_owned(),
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            )
        })
        .collect();
    logs.sort();
    assert!(logs.len() >= 70, "{} logs", logs.len());
    logs
}

fn read(name: &str, text: &str) -> (Vec<Record>, Summary) {
    let mut records = Vec::new();
    let mut summary = Summary::default();
    import(
        text.as_bytes(),
        name,
        &Options::default(),
        &mut summary,
        &mut |record| {
            records.push(record);
            Ok(())
        },
    )
    .unwrap();
    (records, summary)
}

/// Logs whose records have functions.
fn is_named(name: &str) -> bool {
    !NAMELESS.iter().any(|part| name.contains(part))
        && [
            "asan", "lsan", "tsan", "msan", "ubsan", "valgrind", "helgrind",
        ]
        .iter()
        .any(|tool| name.starts_with(tool))
        && !(name.starts_with("ubsan") && name.ends_with("short"))
}

/// The row of `BUGS` that a record is.
fn bug(record: &Record, asked: &BTreeSet<&str>) -> Option<usize> {
    let parts: Vec<&str> = record
        .key_text
        .split(" | ")
        .skip(1)
        .take(2)
        .map(|part| part.rsplit("::").next().unwrap())
        .collect();
    BUGS.iter().position(|(bug, kind, function, _)| {
        asked.contains(bug) && record.kind == *kind && parts.contains(function)
    })
}

#[test]
fn every_record_is_read_and_blames_the_right_function() {
    for (name, text) in logs() {
        let (records, summary) = read(&name, &text);
        assert_eq!(summary.failures, 0, "{name}: {summary:?}");
        assert_eq!(summary.created as usize, records.len());
        assert!(!records.is_empty(), "{name}");
        let asked: BTreeSet<&str> = text
            .lines()
            .next()
            .unwrap()
            .trim_start_matches("asked: ")
            .split(' ')
            .collect();
        if !is_named(&name) {
            assert!(
                records
                    .iter()
                    .all(|record| record.key_strength == Strength::Weak),
                "{name}: {:?}",
                records
                    .iter()
                    .map(|record| &record.key_text)
                    .collect::<Vec<_>>()
            );
            continue;
        }
        let mut seen = BTreeSet::new();
        for record in &records {
            let row = bug(record, &asked);
            assert!(
                row.is_some(),
                "{name}: {} {} was not asked for: {}",
                record.tool,
                record.tool_kind,
                record.key_text
            );
            assert_eq!(
                record.key_strength,
                Strength::Full,
                "{name}: {}",
                record.key_text
            );
            assert!(!record.id.is_empty() && record.source.line > 1);
            seen.extend(row);
        }
        for (row, (asked_for, kind, ..)) in BUGS
            .iter()
            .enumerate()
            .filter(|(_, bug)| bug.3 && asked.contains(bug.0))
        {
            assert!(seen.contains(&row), "{name}: {asked_for} {kind} is missing");
        }
    }
}

#[test]
fn one_group_a_bug_across_tools_compilers_and_options() {
    let mut keys: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
    let mut groups: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    let input = Input {
        files: logs()
            .iter()
            .filter(|(name, _)| is_named(name) || name.starts_with("ubsan"))
            .map(|(name, _)| {
                directory()
                    .join(format!("{name}.log"))
                    .display()
                    .to_string()
            })
            .collect(),
        ..Input::default()
    };
    let file = TriageFile::parse("", "2026-01-01").unwrap();
    let mut gather = Gather::new(&file);
    let mut by_id = BTreeMap::new();
    let mut summary = Summary::default();
    each(&input, &mut summary, &mut |item| {
        gather.add(item);
        by_id.insert(item.key.to_string(), item.key_text.to_string());
        Ok(())
    })
    .unwrap();
    let all: BTreeSet<&str> = BUGS.iter().map(|bug| bug.0).collect();
    let found = gather.finish(0, &file);
    for group in &found.groups {
        let mut record = Record::new("", reports::Kind::Other, "");
        (record.kind, record.key_text) = (group.kind.clone(), group.key_text.clone());
        let row = bug(&record, &all).unwrap_or_else(|| panic!("{}", group.key_text));
        // `lambda` has two bugs in two functions without names.
        keys.entry(row).or_default().insert(group.key.clone());
        groups.entry(group.key.clone()).or_default().insert(row);
    }
    for (row, keys) in &keys {
        assert_eq!(
            keys.len(),
            if BUGS[*row].0 == "lambda" { 2 } else { 1 },
            "{} {}",
            BUGS[*row].0,
            BUGS[*row].1
        );
    }
    assert!(groups.values().all(|rows| rows.len() == 1));
    assert_eq!(found.groups.len(), BUGS.len() + 1);
    assert!(found.errors > 250, "{}", found.errors);
}

#[test]
fn leaks_count_direct_bytes_once() {
    for (name, text) in logs()
        .into_iter()
        .filter(|(name, _)| name.contains("one-list") || name.starts_with("valgrind-gcc-O0"))
    {
        let (records, summary) = read(&name, &text);
        for record in records
            .iter()
            .filter(|record| record.key_text.contains("tie_barge"))
        {
            assert_eq!(
                (record.bytes, record.indirect_bytes, record.blocks),
                (Some(48), Some(96), Some(1)),
                "{name}"
            );
        }
        if name.contains("one-list") {
            assert_eq!(
                summary.folded,
                2 - u64::from(text.matches("Indirect leak").count() == 1),
                "{name}"
            );
        }
    }
}

#[test]
fn the_same_log_gives_the_same_ids_wherever_it_lies() {
    let (name, text) = logs()
        .into_iter()
        .find(|(name, _)| name == "asan-gcc-O0")
        .unwrap();
    let ids = |file: &str| {
        read(file, &text)
            .0
            .into_iter()
            .map(|record| record.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&name), ids("elsewhere/x"));
    assert_eq!(
        ids(&name).into_iter().collect::<BTreeSet<_>>().len(),
        ids(&name).len()
    );
}
