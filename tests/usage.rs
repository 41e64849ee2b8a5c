//! What `maps` and `usage` say: every byte once, sums that agree with each other and with the core's own headers, and of programs that
//! stated it (`testdata/usage.c`) what their allocators' statistics say and who holds what.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use common::way::Way;
use common::{Fact, Fixture, fixtures, heapcheck, in_parallel, items, small, text};
use serde_json::Value;

/// Every core: those in the repository, and with the feature `fixtures` those that were built.
fn cores() -> Vec<Fixture> {
    let mut all = small::fixtures();
    if cfg!(feature = "fixtures") {
        all.extend(fixtures());
    }
    all
}

fn run(command: &str, way: Way, fixture: &Fixture, more: &[&str]) -> Value {
    let mut arguments: Vec<OsString> = [command, "--format", "json"].map(Into::into).into();
    arguments.extend(way.arguments(fixture));
    arguments.extend(more.iter().map(Into::into));
    let outcome = heapcheck(arguments);
    outcome
        .json()
        .unwrap_or_else(|error| panic!("{}: {error}", fixture.name))
}

fn way_of(fixture: &Fixture) -> Way {
    *Way::all_of(fixture).first().unwrap()
}

fn number(value: &Value, key: &str) -> u64 {
    value[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} of {value}"))
}

fn sum(rows: &Value, key: &str) -> u64 {
    items(rows).iter().map(|row| number(row, key)).sum()
}

/// What a core's program headers say: bytes of memory, and bytes that the file holds. Read here by hand, not by the program's reader.
fn segments(core: &Path) -> (u64, u64) {
    let mut file = File::open(core).unwrap();
    let length = file.metadata().unwrap().len();
    let mut read = |at: u64, bytes: u64| {
        let mut buffer = vec![0; usize::try_from(bytes).unwrap()];
        file.seek(SeekFrom::Start(at)).unwrap();
        file.read_exact(&mut buffer).unwrap();
        buffer
    };
    let number = |bytes: &[u8], at: usize, size: usize| {
        let bytes = bytes[at..at + size].iter().rev();
        bytes.fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let head = read(0, 64);
    assert_eq!(head[..4], *b"\x7fELF", "{}", core.display());
    let size = number(&head, 54, 2);
    let count = match number(&head, 56, 2) {
        0xffff => number(&read(number(&head, 40, 8), 64), 44, 4),
        count => count,
    };
    let table = read(number(&head, 32, 8), size * count);
    let loads = table
        .chunks(usize::try_from(size).unwrap())
        .filter(|header| number(header, 0, 4) == 1);
    loads.fold((0, 0), |(memory, held), header| {
        let there = length.saturating_sub(number(header, 8, 8));
        (
            memory + number(header, 40, 8),
            held + number(header, 32, 8).min(there),
        )
    })
}

fn differences(
    cores: &[Fixture],
    differs: impl Fn(&Fixture) -> Option<String> + Sync,
) -> Vec<String> {
    let found = in_parallel(cores, |fixture| {
        differs(fixture).map(|what| format!("{}/{}: {what}", fixture.release, fixture.name))
    });
    found.into_iter().flatten().collect()
}

/// `maps` has every byte of the core's segments once, and sums of kinds are sums of rows.
#[test]
fn mappings_add_up_to_the_core() {
    let cores = cores();
    let wrong = differences(&cores, |fixture| {
        let report = run("maps", way_of(fixture), fixture, &[]);
        let rows = items(&report["mappings"]);
        let mut last = 0;
        for row in rows {
            let at = |key| u64::from_str_radix(&text(row, key)[2..], 16).unwrap();
            let (start, end) = (at("start"), at("end"));
            if start < last || end <= start || end - start != number(row, "bytes") {
                return Some(format!("{row} behind {last:#x}"));
            }
            last = end;
        }
        let of_segments = rows.iter().filter(|row| !row["permissions"].is_null());
        let memory: u64 = of_segments.map(|row| number(row, "bytes")).sum();
        let held = sum(&report["mappings"], "bytes_in_core");
        let expected = segments(&fixture.core);
        if (memory, held) != expected {
            return Some(format!("{memory} and {held} bytes, not {expected:?}"));
        }
        let kinds = &report["memory"]["by_kind"];
        let by_kind = (sum(kinds, "bytes"), sum(kinds, "bytes_in_core"));
        let by_row = (sum(&report["mappings"], "bytes"), held);
        (by_kind != by_row).then(|| format!("kinds have {by_kind:?}, rows {by_row:?}"))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Sizes, owners and free memory add up to what the allocators hold. Of built cores every sixth is read.
#[test]
fn usage_adds_up_to_the_heaps() {
    let cores: Vec<Fixture> = cores()
        .into_iter()
        .enumerate()
        .filter(|(index, _)| *index < 70 || index % 6 == 0)
        .map(|(_, fixture)| fixture)
        .collect();
    let wrong = differences(&cores, |fixture| {
        let report = run("usage", way_of(fixture), fixture, &[]);
        let usage = &report["usage"];
        let heaps = items(&report["allocators"]);
        for (index, heap) in heaps.iter().enumerate() {
            let sizes = items(&usage["sizes"]).iter();
            let own: Vec<&Value> = sizes
                .filter(|row| number(row, "allocator") == index as u64)
                .collect();
            let states = [
                ("in_use", "bytes"),
                ("free", "free_bytes"),
                ("lost", "lost_bytes"),
            ];
            for (state, bytes) in states {
                let found = |key: &str| own.iter().map(|row| number(row, key)).sum::<u64>();
                let expected = &heap["statistics"][state];
                let expected = (number(expected, "blocks"), number(expected, "bytes"));
                if (found(state), found(bytes)) != expected {
                    return Some(format!(
                        "{state}: sizes have {} blocks, {} bytes of {expected:?}",
                        found(state),
                        found(bytes)
                    ));
                }
            }
        }
        let free: u64 = heaps
            .iter()
            .map(|heap| number(&heap["coverage"], "free"))
            .sum();
        let parts = ["trim", "fragmented", "cached", "untouched"];
        let reclaimable: u64 = parts
            .iter()
            .map(|part| number(&usage["reclaimable"], part))
            .sum();
        if reclaimable != free {
            return Some(format!("{reclaimable} of {free} free bytes are told"));
        }
        if usage["memory"] != report["memory"]["by_kind"] {
            return Some("two lists of kinds".into());
        }
        let in_use: u64 = heaps
            .iter()
            .map(|heap| number(&heap["statistics"]["in_use"], "bytes"))
            .sum();
        // What is cut off by damage, or on its way, is not always told block by block.
        let lost: u64 = heaps
            .iter()
            .map(|heap| number(&heap["statistics"]["lost"], "bytes"))
            .sum();
        let owned = sum(&usage["owners"], "bytes");
        let is_told = fixture.is("HEALTHY") && number(usage, "owners_dropped") == 0;
        (is_told && !(in_use..=in_use + lost).contains(&owned))
            .then(|| format!("owners have {owned} of {in_use} bytes"))
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The text has the totals, and the few that hold most stand first.
#[test]
fn the_text_says_what_the_report_says() {
    for fixture in small::fixtures().iter().filter(|one| one.is("HEALTHY")) {
        let way = way_of(fixture);
        for command in ["maps", "usage"] {
            let mut arguments: Vec<OsString> = vec![command.into()];
            arguments.extend(way.arguments(fixture));
            let outcome = heapcheck(arguments);
            assert!(
                outcome.status == 0 || outcome.status == 3,
                "{}",
                fixture.name
            );
            let text = outcome.text();
            assert!(text.contains("MEMORY BY KIND"), "{text}");
            match command {
                "maps" => assert!(
                    text.contains("MAPPINGS") && text.contains("  total "),
                    "{text}"
                ),
                _ => assert!(
                    text.find("SUSPECTS") < text.find("MEMORY BY KIND"),
                    "{text}"
                ),
            }
        }
    }
}

/// Without the pass over pointers nothing is said of owners, and all the rest is the same.
#[test]
fn sizes_can_be_had_without_owners() {
    let fixture = small::fixtures().remove(0);
    let way = way_of(&fixture);
    let whole = run("usage", way, &fixture, &[]);
    let sizes = run("usage", way, &fixture, &["--by", "size"]);
    assert!(sizes["usage"]["owners"].is_null() && sizes["usage"]["suspects"].is_null());
    assert_eq!(sizes["usage"]["sizes"], whole["usage"]["sizes"]);
    assert_eq!(sizes["usage"]["memory"], whole["usage"]["memory"]);
    let summary = run("maps", way, &fixture, &["--summary"]);
    assert!(summary["mappings"].is_null());
    assert_eq!(summary["memory"]["by_kind"], whole["usage"]["memory"]);
}

/// Programs that stated who holds what.
fn programs() -> Vec<Fixture> {
    match cfg!(feature = "fixtures") {
        true => fixtures()
            .into_iter()
            .filter(|one| one.is("OWNER"))
            .collect(),
        false => Vec::new(),
    }
}

/// What the program's allocator said as the last act of the program, under the names of the report.
fn figures(fixture: &Fixture) -> BTreeMap<String, u64> {
    let mut said = BTreeMap::new();
    for fact in fixture.facts("FIGURES") {
        let pairs = fact.values.iter();
        said.extend(pairs.map(|(name, value)| (name.clone(), value.parse().unwrap())));
    }
    let truth = std::fs::read_to_string(fixture.core.with_file_name("truth")).unwrap();
    for line in truth
        .lines()
        .filter_map(|line| line.strip_prefix("MALLOC:"))
    {
        let line = line.trim_start_matches([' ', '+', '=']);
        let (value, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = rest.split_once(')').map_or(rest, |(_, name)| name).trim();
        if let Ok(value) = value.parse() {
            said.insert(name.to_owned(), value);
        }
    }
    said.remove("Spans in use"); // not told
    said
}

#[test]
fn allocators_figures_are_those_that_the_program_had_to_the_byte() {
    let wrong: Vec<String> = in_parallel(&programs(), |fixture| {
        let said = figures(fixture);
        assert!(said.len() >= 4, "{}: {said:?}", fixture.name);
        let mut wrong = Vec::new();
        for way in Way::ALL {
            let report = run("usage", way, fixture, &["--by", "size"]);
            let rows = items(&report["usage"]["allocators"]);
            let own = rows
                .iter()
                .find(|row| text(row, "name") == fixture.allocator());
            let own = own.unwrap_or_else(|| panic!("{}: {rows:?}", fixture.name));
            wrong.extend(said.iter().filter_map(|(name, value)| {
                let found = &own[name.as_str()];
                (found.as_u64() != Some(*value)).then(|| {
                    let place = format!("{}/{} {}", fixture.release, fixture.name, way.name());
                    format!("{place}: {name} is {found}, not {value}")
                })
            }));
        }
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_owner(row: &Value, truth: &Fact) -> bool {
    let named = |holder: &Value, name: &str| {
        let is_name = |key: &str| holder[key].as_str() == Some(name);
        is_name("symbol") || is_name("variable") || is_name("function")
    };
    let holders = items(&row["holders"]);
    let name = truth.get("name").unwrap();
    let of_thread = |holder: &Value| {
        let thread = truth.number("thread");
        thread.is_none() || holder["thread_id"].as_u64() == thread
    };
    text(row, "kind") == truth.get("kind").unwrap()
        && holders
            .iter()
            .any(|holder| named(holder, name) && of_thread(holder))
        && truth
            .get("other")
            .is_none_or(|other| holders.iter().any(|holder| named(holder, other)))
}

#[test]
fn every_owner_has_what_the_program_said() {
    let programs = programs();
    let wrong: Vec<String> = in_parallel(&programs, |fixture| {
        let mut wrong = Vec::new();
        for way in [Way::DebugInfo, Way::Symbols] {
            let report = run("usage", way, fixture, &[]);
            let usage = &report["usage"];
            let place = format!("{}/{} {}", fixture.release, fixture.name, way.name());
            for truth in fixture.facts("OWNER") {
                let mut rows = items(&usage["owners"]).iter();
                let found = rows.find(|row| is_owner(row, truth));
                let has = found.map(|row| (number(row, "blocks"), number(row, "bytes")));
                let expected = (
                    truth.number("blocks").unwrap(),
                    truth.number("bytes").unwrap(),
                );
                if has != Some(expected) {
                    wrong.push(format!("{place}: {has:?}, not {truth:?}"));
                }
            }
            for truth in fixture.facts("SUSPECT") {
                let first = &items(&usage["suspects"])[0];
                let owner = &items(&usage["owners"])[number(first, "owner") as usize];
                let name = owner["holders"][0]["symbol"].as_str();
                let at = first["gathers_at"]["address"].as_str();
                if name != truth.get("name") || at != truth.get("at") {
                    wrong.push(format!("{place}: {first}, not {truth:?}"));
                }
                if items(&first["path"]).len() != 1 {
                    wrong.push(format!("{place}: the path is {}", first["path"]));
                }
            }
        }
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let names: std::collections::BTreeSet<&str> = programs.iter().map(Fixture::allocator).collect();
    assert!(!cfg!(feature = "fixtures") || names.len() == 3, "{names:?}");
}

/// One thread and several give the same bytes.
#[test]
fn usage_is_the_same_for_any_number_of_threads() {
    for fixture in small::fixtures()
        .iter()
        .filter(|one| one.is("HEALTHY"))
        .take(6)
    {
        let way = way_of(fixture);
        let one = run("usage", way, fixture, &["--threads", "1"]);
        let many = run("usage", way, fixture, &["--threads", "5"]);
        assert_eq!(one, many, "{}", fixture.name);
    }
}
