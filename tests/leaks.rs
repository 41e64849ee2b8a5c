//! What `leaks` and `refs` say of programs that stated for each of their blocks whether it is held, and by what
//! (`testdata/leaks.c`): three allocators, -O0 and -O2, position-independent or not.

mod common;
#[path = "leaks/oracles.rs"]
mod oracles;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::ops::Range;

use common::way::Way;
use common::{Fact, Fixture, fixtures, heapcheck, in_parallel, items, text};
use ground::target::{
    Abi, Address, Fault, LocateLimit, LocatedBy, MemoryExt, Region, Source, TargetMemory, Window,
};
use heapcheck::analysis;
use heapcheck::graph::roots;
use heapcheck::progress::Silent;
use heaps::graph::Universe;
use heaps::graph::lookup::Lookup;
use heaps::graph::references::Place;
use heaps::graph::roots::Ranges;
use heaps::graph::subgraph::Found;
use heaps::graph::{mark, subgraph};
use heaps::map::HeapMap;
use postmortem::corefile::OpenOptions;
use postmortem::modules::SearchPaths;
use postmortem::session::{Session, SessionOptions};
use serde_json::Value;

fn programs() -> Vec<Fixture> {
    let all = fixtures().into_iter();
    let programs: Vec<Fixture> = all.filter(|fixture| fixture.is("LEAK")).collect();
    let names: BTreeSet<&str> = programs.iter().map(Fixture::allocator).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["jemalloc", "ptmalloc", "tcmalloc"]
    );
    programs
}

fn run(command: &str, way: Way, fixture: &Fixture, more: &[&str]) -> (i32, Value) {
    let mut arguments: Vec<OsString> = [command, "--format", "json"].map(Into::into).into();
    arguments.extend(way.arguments(fixture));
    arguments.extend(more.iter().map(Into::into));
    let outcome = heapcheck(arguments);
    let json = outcome
        .json()
        .unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
    (outcome.status, json)
}

fn fact<'f>(fact: &'f Fact, key: &str) -> &'f str {
    fact.get(key).unwrap_or_else(|| panic!("{key} of {fact:?}"))
}

/// Each cell of the table: the class of every block that the program made, and no other block.
#[test]
fn every_case_is_what_the_program_said_it_is() {
    let all: Vec<(Fixture, Way)> = programs()
        .into_iter()
        .flat_map(|fixture| Way::ALL.map(|way| (fixture.clone(), way)))
        .collect();
    let wrong: Vec<String> = in_parallel(&all, |(fixture, way)| {
        let (status, report) = run("leaks", *way, fixture, &["--blocks"]);
        let place = format!("{}/{} {}", fixture.release, fixture.name, way.name());
        let mut wrong = Vec::new();
        if status != 1 {
            wrong.push(format!("{place}: status {status}"));
        }
        let leaks = &report["leaks"];
        let mut blocks: BTreeMap<&str, &str> = items(&leaks["blocks"])
            .iter()
            .map(|block| (text(block, "address"), text(block, "class")))
            .collect();
        for truth in fixture.facts("LEAK") {
            let found = blocks.remove(fact(truth, "address")).unwrap_or("reachable");
            if found != fact(truth, "class") {
                wrong.push(format!("{place}: {} is {found}", fact(truth, "case")));
            }
        }
        wrong.extend(
            blocks
                .iter()
                .map(|(address, class)| format!("{place}: {address} is {class}")),
        );
        let mappings: Vec<(&str, &str)> = items(&leaks["mappings"])
            .iter()
            .map(|mapping| (text(mapping, "start"), text(mapping, "end")))
            .collect();
        let expected: Vec<(&str, &str)> = fixture
            .facts("LOST-MAPPING")
            .map(|truth| (fact(truth, "start"), fact(truth, "end")))
            .collect();
        if mappings != expected {
            wrong.push(format!("{place}: lost mappings {mappings:?}"));
        }
        wrong.extend(sums_differ(&report).map(|what| format!("{place}: {what}")));
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The classes add up to what is in use, and the groups to what is lost.
fn sums_differ(report: &Value) -> Option<String> {
    let leaks = &report["leaks"];
    let number = |value: &Value, key: &str| value[key].as_u64().unwrap();
    let classes = ["definite", "indirect", "possible", "reachable"];
    for unit in ["blocks", "bytes"] {
        let sum: u64 = classes
            .iter()
            .map(|class| number(&leaks[class], unit))
            .sum();
        let heaps = items(&report["allocators"]).iter();
        let in_use: u64 = heaps
            .map(|heap| number(&heap["statistics"]["in_use"], unit))
            .sum();
        if sum != in_use {
            return Some(format!("{sum} {unit} are told of {in_use} in use"));
        }
        let groups = items(&leaks["groups"]).iter();
        let lost: u64 = groups
            .filter(|group| group["class"] != "possible")
            .map(|group| number(group, unit) + number(group, &format!("indirect_{unit}")))
            .sum();
        let expected = number(&leaks["definite"], unit) + number(&leaks["indirect"], unit);
        if lost != expected {
            return Some(format!("groups have {lost} {unit} of {expected}"));
        }
    }
    None
}

/// The holder of each case, by name: and nobody else.
#[test]
fn every_holder_is_named() {
    let wrong: Vec<String> = in_parallel(&programs(), |fixture| {
        let held: Vec<&Fact> = fixture
            .facts("LEAK")
            .filter(|truth| truth.get("holder").is_some())
            .collect();
        let addresses: Vec<&str> = held.iter().map(|truth| fact(truth, "address")).collect();
        let (status, report) = run("refs", Way::DebugInfo, fixture, &addresses);
        assert_eq!(status, 0);
        let found = items(&report["references"]);
        assert_eq!(found.len(), held.len());
        let mut wrong = Vec::new();
        for (truth, found) in held.iter().zip(found) {
            let mut check = |what: &str, expected: &str, got: &str| {
                if expected != got {
                    let case = fact(truth, "case");
                    wrong.push(format!(
                        "{}/{} {case}: {what} {got}, not {expected}",
                        fixture.release, fixture.name
                    ));
                }
            };
            check("count", "1", &found["count"].to_string());
            let holder = &found["from"][0];
            check("kind", fact(truth, "holder"), text(holder, "kind"));
            check(
                "offset",
                fact(truth, "offset"),
                &holder["points_at_offset"].to_string(),
            );
            check("address", fact(truth, "from"), text(holder, "address"));
            if let Some(symbol) = truth.get("symbol") {
                check("symbol", symbol, text(holder, "symbol"));
            }
            if let Some(thread) = truth.get("thread") {
                check("thread", thread, &holder["thread_id"].to_string());
            }
            match fact(truth, "case") {
                "thread-stack" => {
                    let function = text(holder, "function");
                    assert!(["main", "work"].contains(&function), "{holder}");
                }
                "chain-second" | "inner-block" | "own-mapping" => {
                    let path = items(&found["path"]);
                    check("path", "2", &path.len().to_string());
                    check(
                        "path begins",
                        "global",
                        path.first().map_or("", |step| text(step, "kind")),
                    );
                }
                _ => {}
            }
        }
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What held a lost block before is told: here a block that was freed.
#[test]
fn who_held_a_lost_block_is_told() {
    for fixture in programs() {
        let truth = fixture
            .facts("LEAK")
            .find(|truth| truth.get("was").is_some())
            .unwrap();
        let (_, report) = run("leaks", Way::DebugInfo, &fixture, &[]);
        let groups = items(&report["leaks"]["groups"]);
        let group = groups
            .iter()
            .find(|group| {
                items(&group["examples"])
                    .iter()
                    .any(|at| at == fact(truth, "address"))
            })
            .unwrap_or_else(|| panic!("{}: no group has {truth:?}", fixture.name));
        let held = &group["was_held_by"];
        assert_eq!(
            text(held, "address"),
            fact(truth, "was"),
            "{}: {group}",
            fixture.name
        );
        assert_eq!(text(&held["block"], "state"), "free");
    }
}

#[test]
fn one_thread_and_many_say_the_same_and_the_threshold_moves_the_status() {
    for fixture in programs()
        .iter()
        .filter(|fixture| fixture.name == "leaks-O2")
    {
        for format in ["json", "text"] {
            let output = |command: &str, more: &[&str]| {
                let mut arguments: Vec<OsString> =
                    [command, "--format", format].map(Into::into).into();
                arguments.extend(Way::DebugInfo.arguments(fixture));
                arguments.extend(more.iter().map(Into::into));
                heapcheck(arguments)
            };
            let address = fact(fixture.facts("LEAK").next().unwrap(), "address");
            let one = output("leaks", &["--threads", "1", "--blocks"]);
            assert!(one.stdout == output("leaks", &["--threads", "5", "--blocks"]).stdout);
            let refs = output("refs", &["--threads", "1", address]);
            assert!(refs.stdout == output("refs", &["--threads", "5", address]).stdout);
            assert_eq!(one.status, 1);
            assert_eq!(output("leaks", &["--fail-on", "never"]).status, 0);
            assert_eq!(output("leaks", &["--at-least", "1M"]).status, 0);
            assert_eq!(output("leaks", &["--at-least", "10K"]).status, 1);
        }
    }
}

/// The memory of a core, with the address of a lost block in every word that can hold nothing: of allocators' own memory, of
/// free blocks, of dead stack, between blocks.
struct Planted<'m> {
    inner: &'m dyn TargetMemory,
    regions: Vec<(Range<Address>, Vec<u8>)>,
    planted: u64,
}

impl<'m> Planted<'m> {
    fn new(universe: &'m Universe<'m>, value: Address) -> Self {
        let inner = universe.memory;
        let mut planted = 0;
        let mut regions = Vec::new();
        for region in inner.regions().iter().filter(|region| region.writable) {
            let bytes = usize::try_from(region.present_bytes).unwrap();
            let mut copy = vec![0; bytes];
            if inner.read_into(region.range.start, &mut copy).is_err() {
                continue;
            }
            for (index, word) in (0u64..).zip(copy.as_chunks_mut::<8>().0) {
                let at = region.range.start.saturating_add(index * 8);
                let place = universe.place(at);
                // The word in front of the header of glibc's top is the last one of the block before it.
                let ends_a_block = place == Place::Silent
                    && at
                        .checked_sub(8)
                        .is_some_and(|before| matches!(universe.place(before), Place::Node(..)));
                if !place.is_source() && !ends_a_block {
                    *word = value.get().to_le_bytes();
                    planted += 1;
                }
            }
            let end = region.range.start.saturating_add(region.present_bytes);
            regions.push((region.range.start..end, copy));
        }
        Self {
            inner,
            regions,
            planted,
        }
    }
}

impl TargetMemory for Planted<'_> {
    fn abi(&self) -> Abi {
        self.inner.abi()
    }

    fn window(&self, at: Address) -> Result<Window<'_>, Fault> {
        match self.regions.iter().find(|(range, _)| range.contains(&at)) {
            Some((range, bytes)) => Ok(Window {
                start: at,
                bytes: &bytes[usize::try_from(at.get() - range.start.get()).unwrap()..],
                source: Source::Core,
            }),
            None => self.inner.window(at),
        }
    }

    fn regions(&self) -> &[Region] {
        self.inner.regions()
    }
}

#[test]
fn a_lost_block_stays_lost_wherever_an_allocator_names_it() {
    for fixture in programs()
        .iter()
        .filter(|fixture| fixture.name == "leaks-O2")
    {
        let session = Session::open(&SessionOptions {
            files: vec![fixture.core.clone(), fixture.binary.clone()],
            search: SearchPaths {
                defaults: true,
                ..SearchPaths::default()
            },
            limit: LocateLimit(LocatedBy::Symbols),
            jobs: None,
            open: OpenOptions {
                temporary_dir: std::env::temp_dir(),
                max_unpacked_bytes: None,
            },
        })
        .unwrap();
        let analysis = analysis::analyse(session.target(), None, &Silent).unwrap();
        let ground = roots::ground(&session, &analysis);
        let marks = mark::mark(&ground.universe);
        let lost = subgraph::survey(&ground.universe, &marks);
        let maps: Vec<&HeapMap> = analysis.heaps.iter().map(|heap| &heap.map).collect();
        let victim = lost.lost[lost.lost.len() / 2];
        let memory = Planted::new(&ground.universe, victim.at);
        assert!(memory.planted > 1000, "{} words", memory.planted);
        let all = ground.own.iter().flat_map(Ranges::list).cloned();
        let own = Ranges::new(all.collect());
        let planted = Universe::new(
            &memory,
            Lookup::new(&maps, &ground.mappings).without(&own),
            ground.universe.roots.clone(),
            ground.universe.registers.clone(),
            ground.universe.silent.clone(),
        );
        let again = subgraph::survey(&planted, &mark::mark(&planted));
        // A free block that is filled is rather what a pointer to its start means: then the block that ends there is lost, too.
        let is_lost = |found: &Found| again.lost.contains(found);
        let found: Vec<_> = lost.lost.iter().filter(|found| !is_lost(found)).collect();
        assert!(found.is_empty(), "{}: {found:?}", fixture.release);
        let was_doubtful = |found: &Found| lost.weak.contains(found);
        assert!(again.weak.iter().all(was_doubtful), "{}", fixture.release);
    }
}

/// What is lost more than in another core of the program, or in a report of one.
#[test]
fn what_was_lost_before_is_not_counted_again() {
    let all = programs();
    let of = |name: &str| {
        let mut found = all
            .iter()
            .filter(|fixture| fixture.release == "glibc-2.36" && fixture.name == name);
        found.next().unwrap()
    };
    let (fixture, other) = (of("leaks-O2"), of("leaks-O0"));
    let path = |fixture: &Fixture| fixture.core.to_str().unwrap().to_owned();
    let (status, whole) = run("leaks", Way::DebugInfo, fixture, &["--blocks"]);
    assert_eq!(status, 1);
    let sum = |value: &Value| {
        let number = |key: &str| value[key].as_u64().unwrap();
        (number("blocks"), number("bytes"))
    };
    // The same core: the same process, and nothing more.
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("report.json");
    std::fs::write(&json, whole.to_string()).unwrap();
    let lines = folder.path().join("report.ndjson");
    let mut arguments: Vec<OsString> = ["leaks", "--blocks", "--format", "ndjson"]
        .map(Into::into)
        .into();
    arguments.extend(Way::DebugInfo.arguments(fixture));
    let written = heapcheck(arguments);
    let blocks = items(&whole["leaks"]["blocks"]).len();
    assert_eq!(written.text().lines().count(), 1 + blocks);
    std::fs::write(&lines, &written.stdout).unwrap();
    let reports = [json, lines].map(|path| path.to_str().unwrap().to_owned());
    for since in [&path(fixture), &reports[0], &reports[1]] {
        let (status, report) = run("leaks", Way::DebugInfo, fixture, &["--since", since]);
        let found = &report["leaks"]["since"];
        assert_eq!(status, 0, "{since}: {found}");
        assert_eq!(text(found, "matched_by"), "address");
        for key in ["lost", "possible", "gone"] {
            assert_eq!(sum(&found[key]), (0, 0), "{since}: {key}");
        }
        assert!(report["leaks"]["blocks"].is_null());
        let groups = items(&report["leaks"]["groups"]);
        assert!(groups.iter().all(|group| sum(&group["new"]) == (0, 0)));
    }
    // Another program: its groups are others, and everything is new.
    let (status, report) = run("leaks", Way::DebugInfo, fixture, &["--since", &path(other)]);
    let leaks = &report["leaks"];
    assert_eq!(status, 1);
    assert_eq!(text(&leaks["since"], "matched_by"), "group");
    let (definite, indirect) = (sum(&leaks["definite"]), sum(&leaks["indirect"]));
    let all = (definite.0 + indirect.0, definite.1 + indirect.1);
    assert_eq!(sum(&leaks["since"]["lost"]), all);
    // Neither a core nor a report.
    let source = fixture.binary.to_str().unwrap();
    let mut arguments: Vec<OsString> = ["leaks", "--since", source].map(Into::into).into();
    arguments.extend(Way::DebugInfo.arguments(fixture));
    assert_eq!(heapcheck(arguments).status, 2);
}

/// Holders of holders lead to a root, and what hangs on a block is counted.
#[test]
fn trees_have_every_step_of_a_chain() {
    for fixture in programs() {
        let address = |case: &str| {
            let mut found = fixture
                .facts("LEAK")
                .filter(|truth| truth.get("case") == Some(case));
            fact(found.next().unwrap(), "address").to_owned()
        };
        let (first, second) = (address("chain-first"), address("chain-second"));
        let (_, report) = run(
            "refs",
            Way::DebugInfo,
            &fixture,
            &["--tree", "--down", &second, &first],
        );
        let found = items(&report["references"]);
        let rows: Vec<(u64, &str)> = items(&found[0]["tree"]["rows"])
            .iter()
            .map(|row| (row["depth"].as_u64().unwrap(), text(&row["from"], "kind")))
            .collect();
        assert_eq!(rows, [(1, "heap"), (2, "global")], "{}", fixture.name);
        assert_eq!(found[0]["down"]["reached"]["blocks"], 0);
        let down = &found[1]["down"];
        assert_eq!(down["reached"]["blocks"], 1, "{}", fixture.name);
        assert_eq!(text(&down["rows"][0]["to"], "address"), second);
        // A circle is said once.
        let (circle, other) = (address("circle"), address("circle-other"));
        let (_, report) = run(
            "refs",
            Way::DebugInfo,
            &fixture,
            &["--tree", "--down", &circle],
        );
        let found = &report["references"][0];
        let rows = items(&found["tree"]["rows"]);
        assert_eq!(rows.len(), 2, "{found}");
        assert_eq!(text(&rows[0]["from"]["block"], "address"), other);
        assert_eq!(rows[1]["repeated"], true);
        assert_eq!(items(&found["down"]["rows"]).len(), 2);
        assert_eq!(found["down"]["reached"]["blocks"], 1);
    }
}
