//! All fixtures of one allocator, read in every way and held against their truths.

use std::fmt::Write as _;

use super::compare::{differences, heap_of};
use super::misses::{Known, Misses};
use super::way::{Way, run};
use super::{Fixture, a_sample, fixtures, in_parallel};

/// Reads each core in every way and returns what differs from the truths, a line for each, with how many readings there were.
pub fn differences_of(fixtures: &[Fixture]) -> (usize, Vec<String>) {
    let all: Vec<(&Fixture, Way)> = fixtures
        .iter()
        .flat_map(|fixture| Way::all_of(fixture).iter().map(move |way| (fixture, *way)))
        .collect();
    let found = in_parallel(&all, |(fixture, way)| {
        let outcome = run(*way, fixture);
        let lines = differences(fixture, *way, &outcome).into_iter();
        lines
            .map(|line| format!("{}{line}", place(fixture, *way)))
            .collect::<Vec<_>>()
    });
    (all.len(), found.into_iter().flatten().collect())
}

fn place(fixture: &Fixture, way: Way) -> String {
    format!(
        "{:<32}{:<34}{:<12}",
        fixture.release,
        fixture.name,
        way.name()
    )
}

/// One core read in one way.
pub struct Run {
    pub fixture: Fixture,
    pub way: Way,
    /// Everything that differs from the truth.
    pub differences: Vec<String>,
    /// The weakest way by which the heap was found.
    pub located_by: Option<String>,
    /// Whether it is known to differ.
    pub known: Known,
}

/// Reads all of an allocator's fixtures and fails if one differs that is not known to, or agrees that is known to differ.
pub fn check(allocator: &str) -> Vec<Run> {
    let misses = Misses::of(allocator);
    let all: Vec<(Fixture, Way)> = fixtures()
        .into_iter()
        .filter(|fixture| fixture.allocator() == allocator)
        .flat_map(|fixture| Way::ALL.map(|way| (fixture.clone(), way)))
        .collect();
    let all = a_sample(all);
    assert!(!all.is_empty(), "no fixtures of {allocator}");
    let runs = in_parallel(&all, |(fixture, way)| {
        let outcome = run(*way, fixture);
        let located_by = outcome.json().ok().and_then(|report| {
            let heap = heap_of(fixture, &report)?;
            heap["located_by"].as_str().map(str::to_owned)
        });
        let known = misses.known(fixture, *way);
        let mut differences = differences(fixture, *way, &outcome);
        if known == Known::ByChance && differences.is_empty() {
            differences.push("agrees by chance".to_owned());
        }
        Run {
            differences,
            located_by,
            known,
            fixture: fixture.clone(),
            way: *way,
        }
    });
    let mut failures = String::new();
    let mut failed = 0;
    for run in &runs {
        let place = place(&run.fixture, run.way);
        if run.known == Known::Differs && run.differences.is_empty() {
            failed += 1;
            let _ = writeln!(failures, "{place}agrees now: take it out of tests/misses");
        }
        if run.known == Known::No && !run.differences.is_empty() {
            failed += 1;
            for difference in &run.differences {
                let _ = writeln!(failures, "{place}{difference}");
            }
        }
    }
    assert!(
        failed == 0,
        "{failed} of {} runs differ from the truth:\n{failures}",
        runs.len()
    );
    runs
}
