//! The program of [`super`] under LeakSanitizer and valgrind: what they say of each case, beside what `leaks` says. Where they differ
//! stands here, with the reason; a difference that does not is a failure.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::common::{Fact, Fixture};

/// The cases of which LeakSanitizer says another thing than the program, and what.
const LSAN: &[(&str, &str, &str)] = &[
    (
        "past-the-end",
        "direct",
        "an address one past the end holds nothing",
    ),
    ("high-tag", "direct", "encodings are not known"),
    ("turned-over", "direct", "encodings are not known"),
    ("moved-up", "direct", "encodings are not known"),
    ("mixed-with-its-page", "direct", "encodings are not known"),
    (
        "own-mapping",
        "direct",
        "mappings of the program's own are no roots",
    ),
    ("lost-mapping", "direct", "the same"),
    ("below-a-stack-in-an-arena", "direct", "the same"),
    ("circle", "indirect", "a cycle has no head"),
    (
        "dead-stack",
        "direct or none",
        "its check runs on the stack that is dead in the core",
    ),
];

/// The same of valgrind, whose records are told apart by their sizes.
const VALGRIND: &[(&str, &str, &str)] = &[
    ("inner-global", "possible", "an inner pointer is a doubt"),
    ("inner-block", "possible", "the same"),
    ("low-tag", "possible", "the same"),
    (
        "past-the-end",
        "definite",
        "an address one past the end holds nothing",
    ),
    ("high-tag", "definite", "encodings are not known"),
    ("turned-over", "definite", "encodings are not known"),
    ("moved-up", "definite", "encodings are not known"),
    ("mixed-with-its-page", "definite", "encodings are not known"),
    ("lost-mapping", "reachable", "all mappings are roots"),
];

/// A case as a program stated it: its name, address, size and class.
struct Case {
    name: String,
    address: String,
    size: u64,
    class: String,
}

fn cases(output: &[u8]) -> Vec<Case> {
    let facts = Fixture::facts_of(&String::from_utf8_lossy(output));
    let stated = facts.iter().filter(|fact| fact.keyword == "LEAK");
    let case = |fact: &Fact| Case {
        name: super::fact(fact, "case").to_owned(),
        address: super::fact(fact, "address").to_owned(),
        size: fact.number("size").unwrap(),
        class: super::fact(fact, "class").to_owned(),
    };
    stated.map(case).collect()
}

/// Runs the fixture's own binary; what it stated, and what stands in its standard error.
fn run(fixture: &Fixture, program: &str, environment: &[(&str, &str)]) -> (Vec<Case>, String) {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("ulimit -c 0; exec {program}"), "sh"])
        .arg(&fixture.binary)
        .envs(environment.iter().copied())
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let cases = cases(&output.stdout);
    assert!(cases.len() > 40, "{program}: {output:?}");
    (cases, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// What a table says of a case, else what `leaks` calls it.
fn expected<'a>(table: &'a [(&str, &str, &str)], case: &'a Case) -> &'a str {
    let row = table.iter().find(|(name, ..)| *name == case.name);
    row.map_or(case.class.as_str(), |(_, says, _)| says)
}

fn programs() -> Vec<Fixture> {
    let all = super::programs().into_iter();
    all.filter(|fixture| fixture.release == "glibc-2.36")
        .collect()
}

#[test]
fn the_leak_sanitizer_differs_where_the_table_says() {
    let library = Command::new("gcc")
        .arg("-print-file-name=liblsan.so")
        .output()
        .unwrap();
    let library = String::from_utf8(library.stdout).unwrap();
    let mut wrong = Vec::new();
    for fixture in programs() {
        let options = [
            ("LSAN_OPTIONS", "report_objects=1"),
            ("LD_PRELOAD", library.trim()),
        ];
        let (cases, said) = run(&fixture, "\"$1\"", &options);
        let mut kinds = BTreeMap::new();
        let mut kind = "";
        for line in said.lines() {
            kind = match line.split_whitespace().next() {
                Some("Direct") => "direct",
                Some("Indirect") => "indirect",
                _ => kind,
            };
            if let Some((address, _)) = line.split_once(" (")
                && address.starts_with("0x")
            {
                kinds.insert(address.to_owned(), kind);
            }
        }
        for case in &cases {
            let says = match kinds.remove(&case.address) {
                Some(kind) => kind,
                None => "none",
            };
            let expected = match expected(LSAN, case) {
                "definite" => "direct",
                "reachable" => "none",
                other => other,
            };
            if !expected.split(" or ").any(|one| one == says) {
                wrong.push(format!(
                    "{}: {} is {says}, not {expected}",
                    fixture.name, case.name
                ));
            }
        }
        wrong.extend(
            kinds
                .keys()
                .map(|at| format!("{}: {at} is told", fixture.name)),
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// valgrind names no addresses: blocks of one size and one class are counted.
#[test]
fn valgrind_differs_where_the_table_says() {
    let mut wrong = Vec::new();
    for fixture in programs() {
        let program = "valgrind --leak-check=full --show-leak-kinds=all --leak-resolution=high --xml=yes --xml-fd=2 \"$1\"";
        let (cases, said) = run(&fixture, program, &[]);
        // A record's bytes are its blocks' and what hangs on them.
        let mut found: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        for record in said.split("<error>").skip(1) {
            let kind = ["Definitely", "Indirectly", "Possibly", "StillReachable"]
                .into_iter()
                .find(|kind| record.contains(&format!("<kind>Leak_{kind}")));
            let class = match kind {
                Some("Definitely") => "definite",
                Some("Indirectly") => "indirect",
                Some("Possibly") => "possible",
                Some(_) => "reachable",
                None => continue,
            };
            if !record.contains("<fn>block</fn>") {
                continue; // what the libraries made
            }
            let number = |open: &str| -> u64 {
                let (_, rest) = record.split_once(open).unwrap();
                rest.split('<').next().unwrap().parse().unwrap()
            };
            let blocks = number("<leakedblocks>");
            let bytes = direct_bytes(record).unwrap_or_else(|| number("<leakedbytes>"));
            *found.entry((bytes / blocks, class)).or_default() += blocks;
        }
        let mut stated: BTreeMap<(u64, &str), u64> = BTreeMap::new();
        for case in &cases {
            *stated
                .entry((case.size, expected(VALGRIND, case)))
                .or_default() += 1;
        }
        if found != stated {
            let of = |one: &BTreeMap<(u64, &str), u64>, other: &BTreeMap<(u64, &str), u64>| {
                let only = one
                    .iter()
                    .filter(|(key, count)| other.get(key) != Some(count));
                only.map(|(key, count)| format!("{key:?} {count}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let name = &fixture.name;
            wrong.push(format!(
                "{name}: valgrind {}; expected {}",
                of(&found, &stated),
                of(&stated, &found)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first number of `1,392 (632 direct, 760 indirect) bytes`.
fn direct_bytes(record: &str) -> Option<u64> {
    let (before, _) = record.split_once(" direct, ")?;
    let (_, number) = before.rsplit_once('(')?;
    number.replace(',', "").parse().ok()
}
