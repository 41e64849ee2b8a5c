//! Where the value came from that a process died of, against programs that said so (`testdata/why.cc`).

mod common;

use common::way::{Way, run};
use common::{Fixture, in_parallel, items, text};
use serde_json::Value;

/// What a program said of the value, against what a report says of it.
fn differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    let place = format!("{}/{} {}", fixture.release, fixture.name, way.name());
    let found = &report["crash_info"]["came_from"];
    let mut errors = Vec::new();
    for fact in fixture.facts("CAME") {
        // Without the code nothing tells where a value was loaded from.
        if found.is_null() && way == Way::Bare {
            continue;
        }
        let address = found["address"].as_str();
        let block = found["block"]["address"].as_str();
        if address != fact.get("at") || block != fact.get("block") {
            errors.push(format!("{place}: {fact:?}, but {found}"));
        }
    }
    // Where an error explains the crash, or the stack has ended, no value is said to have come from elsewhere.
    if !fixture.is("CAME") && fixture.is("HEALTHY") && !found.is_null() {
        errors.push(format!("{place}: nothing was said, but {found}"));
    }
    errors
}

#[test]
fn what_the_process_died_of_is_led_back_to_where_it_stood() {
    let all = common::fixtures().into_iter();
    let about_that = |fixture: &Fixture| fixture.name.contains("why-");
    let programs: Vec<(Fixture, Way)> = all
        .filter(about_that)
        .flat_map(|fixture| {
            let ways = Way::all_of(&fixture).iter();
            ways.map(move |way| (fixture.clone(), *way))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(programs.len() >= 40, "{}", programs.len());
    let errors = in_parallel(&programs, |(fixture, way)| {
        let report = run(*way, fixture).json().unwrap();
        differences(fixture, *way, &report)
    })
    .concat();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// What explains the crash comes first, and what another error explains is said to have nothing to do with it.
#[test]
fn the_error_that_explains_the_crash_comes_first() {
    let fixtures: Vec<Fixture> = common::fixtures()
        .into_iter()
        .filter(|fixture| fixture.name.starts_with("explains-"))
        .collect();
    assert!(fixtures.len() >= 14, "{}", fixtures.len());
    let errors = in_parallel(&fixtures, |fixture| {
        let report = run(Way::DebugInfo, fixture).json().unwrap();
        let explains: Vec<&str> = items(&report["findings"])
            .iter()
            .map(|finding| text(finding, "explains_crash"))
            .collect();
        let first = explains.iter().position(|it| *it == "yes");
        let is_alone = explains.iter().filter(|it| **it == "yes").count() <= 1;
        let is_first = first.is_none_or(|first| first == 0) && is_alone;
        (!is_first).then(|| format!("{}: {explains:?}", fixture.name))
    });
    let errors: Vec<String> = errors.into_iter().flatten().collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
