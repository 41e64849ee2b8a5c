//! The short part of "silence proved by enumeration": the fast paths of each release, every boundary. The whole is run by
//! `testdata/step-all.sh`; its counts stand in `docs/accuracy.md`.

use std::path::{Path, PathBuf};

use stepper::pairs::run_pairs;
use stepper::run::{Plan, Tally, run};

/// What is stepped: the same with and without locks.
const OPERATIONS: [&str; 6] = [
    "first-use",
    "malloc-cached",
    "free-cached",
    "threaded",
    "malloc-cached",
    "free-cached",
];
/// Instructions per operation: a first use may refill a cache, which is long.
const LIMIT: u64 = 400;

fn stepped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/stepped")
}

fn plan(program: PathBuf, limit: u64) -> Plan {
    Plan {
        operations: OPERATIONS.map(str::to_owned).to_vec(),
        program,
        environment: Vec::new(),
        keep: None,
        limit,
        repeats: u64::MAX,
    }
}

fn programs() -> Vec<PathBuf> {
    let mut programs: Vec<PathBuf> = std::fs::read_dir(stepped())
        .expect("there are no fixtures: run ./build-fixtures.sh first")
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    programs.sort();
    let missing = std::fs::read_to_string(stepped().join("../missing-releases"));
    let missing = missing.unwrap_or_default().lines().count();
    assert!(programs.len() + missing >= 12, "only {programs:?}");
    programs
}

#[test]
fn no_boundary_of_the_fast_paths_gives_an_alarm() {
    let mut wrong = Vec::new();
    for program in programs() {
        let name = program.file_name().unwrap().to_string_lossy().into_owned();
        let plan = plan(program, LIMIT);
        let mut all = Tally::default();
        let mut operations = 0;
        run(&plan, |tally| {
            operations += 1;
            all.add(&tally);
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        println!(
            "{name}: {} boundaries, {} read, {} naive",
            all.boundaries, all.read, all.naive
        );
        assert_eq!(
            operations,
            OPERATIONS.len() - 1,
            "{name} did not go through all operations"
        );
        assert!(
            all.boundaries > 150 && all.read > 20,
            "{name} was hardly stepped: {all:?}"
        );
        for alarm in all.alarms {
            wrong.push(format!(
                "{name}: step {} pc {:#x}: {:?}",
                alarm.step, alarm.pc, alarm.said
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// 5.3.1 publishes a new arena before it has its number: seen at 33,000 boundaries into a thread's life.
#[test]
fn a_thread_that_makes_an_arena_gives_no_alarm() {
    let plan = Plan {
        operations: vec!["thread".to_owned()],
        repeats: 1,
        ..plan(stepped().join("jemalloc-5.3.1"), 40_000)
    };
    let mut all = Tally::default();
    run(&plan, |tally| all.add(&tally)).unwrap();
    assert!(all.alarms.is_empty(), "{:?}", all.alarms);
    assert!(
        all.noted > 0,
        "no window was open: {} boundaries",
        all.boundaries
    );
}

/// One release of each allocator, the first steps beside one parked thread for each two operations.
#[test]
fn a_thread_that_is_parked_in_a_window_gives_no_alarm() {
    for name in ["glibc-2.36", "2.10", "jemalloc-5.3.0"] {
        let mut pairs = 0;
        run_pairs(&plan(stepped().join(name), 200), 1, |tally| {
            pairs += 1;
            assert!(tally.alarms.is_empty(), "{name}: {tally:?}");
        })
        .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(pairs, 21, "{name}");
    }
}
