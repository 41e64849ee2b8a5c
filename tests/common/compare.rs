//! Everything in which a report differs from the truth of its fixture.

use std::collections::BTreeSet;

use serde_json::Value;

use super::way::Way;
use super::{Fact, Fixture, Outcome, items, text};

/// One line for a failure: what was found instead.
pub fn short(finding: &Value) -> String {
    format!(
        "{} {} at {} block {} size {} culprit {} overwriter {} lost {}: {}",
        text(finding, "severity"),
        text(finding, "kind"),
        text(finding, "address"),
        finding["block"]["address"],
        finding["block"]["size"],
        finding["culprit"]["address"],
        finding["overwriter"]["class"],
        finding["collateral"]["lost_blocks"],
        text(finding, "message"),
    )
}

/// Everything in which a report differs from the truth.
pub fn differences(fixture: &Fixture, way: Way, outcome: &Outcome) -> Vec<String> {
    let report = match outcome.json() {
        Ok(report) => report,
        Err(error) => return vec![error],
    };
    if report["status"] != "OK" {
        return vec![format!("not analysed: {}", report["error"]["message"])];
    }
    let mut errors = Vec::new();
    let mut unexplained: Vec<&Value> = items(&report["findings"])
        .iter()
        .filter(|finding| text(finding, "severity") != "note" || is_unsure(way, finding))
        .collect();
    let (mut critical, mut untold) = (false, false);
    for expected in fixture.facts("EXPECT") {
        let place = unexplained.iter().position(|finding| {
            let kind = Some(text(finding, "kind"));
            // A kind that is as good an answer has an address of its own: what it is, docs/report.md says.
            kind == expected.get("or")
                || is_without_pointer(way, finding)
                || kind == expected.get("kind")
                    && expected
                        .get("address")
                        .is_none_or(|address| text(finding, "address") == address)
        });
        match place {
            Some(place) => {
                let finding = unexplained.remove(place);
                critical |= text(finding, "severity") == "critical";
                errors.extend(finding_differences(expected, way, finding));
            }
            // Without the code it cannot be told where a value came from.
            None if way == Way::Bare && expected.get("kind") == Some("dangling-reference") => {}
            None if way == Way::Bare && expected.get("needs") == Some("code") => untold = true,
            None => errors.push(format!("not found: {expected:?}")),
        }
    }
    errors.extend(
        unexplained
            .iter()
            .filter(|finding| text(finding, "severity") != "note")
            .map(|finding| format!("not expected: {}", short(finding))),
    );
    // Without tcmalloc the program's heap is glibc's, which is read.
    let unread = fixture
        .facts("OTHER")
        .any(|other| other.get("allocator") != Some("none"));
    let status = match (critical, unread) {
        (true, _) => 1,
        (false, true) => 3,
        (false, false) => 0,
    };
    if outcome.status != status && !(untold && outcome.status == 0) {
        let incomplete: Vec<&Value> = items(&report["limits"])
            .iter()
            .filter(|limit| limit["incomplete"] == true)
            .collect();
        errors.push(format!(
            "exit status {} instead of {status}; incomplete: {incomplete:?}",
            outcome.status
        ));
    }
    errors.extend(blame_differences(fixture, &report));
    errors.extend(process_differences(fixture, way, &report));
    errors.extend(heap_differences(fixture, way, &report));
    errors
}

/// A program that ends itself by `abort`, of its own accord and with no word of its allocator, died of no error in its heap.
fn blame_differences(fixture: &Fixture, report: &Value) -> Option<String> {
    let aborts = fixture
        .facts("DIES")
        .any(|dies| dies.get("signal") == Some("SIGABRT") && dies.get("function").is_none());
    let is_said = fixture.is("VERDICT") || !report["crash_info"]["abort_message"].is_null();
    let blamed = items(&report["findings"])
        .iter()
        .find(|finding| text(finding, "explains_crash") == "yes")
        .filter(|_| aborts && !is_said && fixture.allocator() == "ptmalloc");
    blamed.map(|finding| {
        format!(
            "it aborted of its own accord, but this explains it: {}",
            short(finding)
        )
    })
}

/// Without any file a stack can only be guessed at. Where the guess is that the allocator may have been at work, a finding is no
/// more than a note that says so, and rightly.
fn is_unsure(way: Way, finding: &Value) -> bool {
    way == Way::Bare && text(finding, "message").contains("stack could not be followed by rules")
}

/// Without any file the pointer of a refused call can be had only where a text names it: the kind is then what the text says.
fn is_without_pointer(way: Way, finding: &Value) -> bool {
    way == Way::Bare && finding["address"].is_null()
}

pub fn finding_differences(expected: &Fact, way: Way, finding: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    let kind = text(finding, "kind");
    // An answer that is as good is about another place.
    let is_at = Some(text(finding, "address")) == expected.get("address");
    let is_it = Some(kind) == expected.get("kind") && (is_at || expected.get("or").is_none());
    let mut compare = |key: &str, found: String| {
        if is_it
            && !is_without_pointer(way, finding)
            && let Some(value) = expected.get(key)
            && value != found
        {
            errors.push(format!(
                "{key}={value}, but found {found}: {}",
                short(finding)
            ));
        }
    };
    compare("block", text(&finding["block"], "address").to_owned());
    compare("size", finding["block"]["size"].to_string());
    compare("culprit", text(&finding["culprit"], "address").to_owned());
    compare("culprit_size", finding["culprit"]["size"].to_string());
    compare(
        "overwriter",
        text(&finding["overwriter"], "class").to_owned(),
    );
    compare("lost", finding["collateral"]["lost_blocks"].to_string());
    // Without the code no way leads back from the crash: then it is not known, and never anything else.
    let explains = text(finding, "explains_crash");
    if way != Way::Bare || explains != "unknown" {
        compare("explains", explains.to_owned());
    }
    let threads: BTreeSet<u64> = items(&finding["locations"])
        .iter()
        .filter_map(|location| location["thread_id"].as_u64())
        .collect();
    compare("threads", threads.len().to_string());
    // What is expected is known to be an error: it must come out critical, but for the one kind that never is.
    let critical = text(finding, "severity") == "critical";
    if !critical && kind != "count-mismatch" && !is_unsure(way, finding) {
        errors.push(format!("only a {}", short(finding)));
    }
    if items(&finding["evidence"]).is_empty() {
        errors.push(format!("no evidence: {}", short(finding)));
    }
    for evidence in items(&finding["evidence"]) {
        if evidence["dump"].is_null() {
            errors.push(format!("evidence without its bytes: {evidence}"));
        }
    }
    if items(&finding["next_steps"]).is_empty() || text(&finding["fingerprint"], "v1").is_empty() {
        errors.push(format!(
            "no next steps or no fingerprint: {}",
            short(finding)
        ));
    }
    errors
}

pub fn process_differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for dies in fixture.facts("DIES") {
        let signal = text(&report["crash_info"], "type");
        if Some(signal) != dies.get("signal") {
            errors.push(format!("died of {signal}, but {dies:?}"));
        }
        let frames = &report["threads"][0]["frames"];
        if let Some(function) = dies.get("function")
            && way != Way::Bare
            && !frames[0]["function"].is_null() // a stripped program has no names
            && !names(frames, function)
        {
            errors.push(format!("not in {function}: {frames}"));
        }
    }
    for verdict in fixture.facts("VERDICT") {
        let message = verdict.get("message").unwrap().replace('_', " ");
        let said = &report["crash_info"]["abort_message"];
        if said["text"].as_str().map(|said| said.replace('_', " ")) != Some(message.clone()) {
            errors.push(format!("glibc's message is {said}, but {message}"));
        }
        // It belongs to the finding that explains it.
        let evidence = report["findings"][0]["evidence"].to_string();
        if !evidence.replace('_', " ").contains(&message) {
            errors.push(format!("{message} is not among the evidence: {evidence}"));
        }
    }
    for thread in items(&report["threads"]) {
        if items(&thread["frames"]).is_empty() {
            errors.push(format!("thread {} has no frames", thread["thread_id"]));
        }
    }
    errors
}

/// Who serves whom: what the truth says; and where it says nothing, all other heaps than the fixture's own are idle.
fn service_differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    if way == Way::Bare {
        return Vec::new(); // the tables of most modules are in their files
    }
    let mut errors = Vec::new();
    let heaps = items(&report["allocators"]);
    for serves in fixture.facts("SERVES") {
        let known = heaps.iter().any(|heap| {
            heap["name"].as_str() == serves.get("allocator")
                && items(&heap["serves"])
                    .iter()
                    .any(|module| module.as_str() == serves.get("module"))
        });
        if !known {
            errors.push(format!("{serves:?}, but {:?}", service(heaps)));
        }
    }
    let others_are_idle = heaps
        .iter()
        .all(|heap| text(heap, "name") == fixture.allocator() || heap["idle"] == true);
    if fixture.allocator() == "tcmalloc" && !fixture.is("SERVES") && !others_are_idle {
        errors.push(format!("another heap is in use: {:?}", service(heaps)));
    }
    errors
}

fn service(heaps: &[Value]) -> Vec<String> {
    let line = |heap: &Value| format!("{} {} {}", heap["name"], heap["serves"], heap["idle"]);
    heaps.iter().map(line).collect()
}

/// The heap that a fixture is about: the fullest of its allocator, where there are several.
pub fn heap_of<'r>(fixture: &Fixture, report: &'r Value) -> Option<&'r Value> {
    items(&report["allocators"])
        .iter()
        .filter(|heap| text(heap, "name") == fixture.allocator())
        .max_by_key(|heap| heap["statistics"]["mapped_bytes"].as_u64())
}

/// Whether a frame is in a function of this name.
pub fn names(frames: &Value, function: &str) -> bool {
    items(frames)
        .iter()
        .any(|frame| text(frame, "function").contains(function))
}

pub fn heap_differences(fixture: &Fixture, way: Way, report: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    if let Some(other) = fixture.facts("OTHER").next() {
        let limits = report["limits"].to_string();
        let name = other.get("allocator").unwrap();
        let because = other.get("because").unwrap_or("debug");
        if name != "none" && !limits.contains(because) {
            errors.push(format!("{name} is not named in limits: {limits}"));
        }
        return errors;
    }
    errors.extend(sums_differences(report));
    errors.extend(service_differences(fixture, way, report));
    let Some(heap) = heap_of(fixture, report) else {
        errors.push(format!("no heap of {} is found", fixture.allocator()));
        return errors;
    };
    for stat in fixture.facts("STAT") {
        for (key, what) in [
            ("current_allocated_bytes", "bytes"),
            ("in_use_bytes", "bytes"),
            ("in_use_blocks", "blocks"),
        ] {
            let expected = stat.number(key);
            let found = heap["statistics"]["in_use"][what].as_u64();
            if expected.is_some() && found != expected {
                errors.push(format!(
                    "{expected:?} {what} are in use, but found {found:?}"
                ));
            }
        }
    }
    errors.extend(totals_differences(fixture, heap));
    for class in fixture.facts("CLASS") {
        let rows = items(&heap["details"]["size_classes"]);
        let row = rows
            .iter()
            .find(|row| row["size"].as_u64() == class.number("size"));
        for key in ["in_use", "free"] {
            let expected = class.number(key);
            let found = row.map_or(Some(0), |row| row[key].as_u64());
            if expected.is_some() && found != expected {
                errors.push(format!("{class:?}, but {key} is {found:?}"));
            }
        }
    }
    for sampled in fixture.facts("SAMPLED") {
        let samples = items(&heap["details"]["samples"]);
        let sample = samples
            .iter()
            .find(|sample| sample["address"].as_str() == sampled.get("address"));
        let known = sample.is_some_and(|sample| {
            sample["requested_bytes"].as_u64() == sampled.number("size")
                && (way == Way::Bare || names(&sample["stack"], sampled.get("function").unwrap()))
        });
        if !known {
            errors.push(format!("{sampled:?}, but {sample:?}"));
        }
    }
    let coverage = &heap["coverage"];
    if coverage["unknown"].as_u64() != Some(0) && !report["limits"].to_string().contains("byte") {
        errors.push(format!("unaccounted bytes that no limit names: {coverage}"));
    }
    errors
}

/// Everything adds up: the rows of sizes to what is in use, free and lost, and the parts to what is mapped.
pub fn sums_differences(report: &Value) -> Vec<String> {
    let mut errors = Vec::new();
    for heap in items(&report["allocators"]) {
        let mut compare = |what: &str, found: Option<u64>, expected: &Value| {
            if found.is_none() || found != expected.as_u64() {
                let name = text(heap, "name");
                errors.push(format!(
                    "{name}: {what} add up to {found:?}, not {expected}"
                ));
            }
        };
        let statistics = &heap["statistics"];
        for state in ["in_use", "free", "lost"] {
            let sum = |key: &str| -> Option<u64> {
                let rows = items(&heap["details"]["size_classes"]).iter();
                rows.map(|row| row[key].as_u64()).sum()
            };
            compare(state, sum(state), &statistics[state]["blocks"]);
            let bytes = format!("{state}_bytes");
            compare(&bytes, sum(&bytes), &statistics[state]["bytes"]);
        }
        let parts = ["in_use", "free", "metadata", "tails", "unknown"];
        let parts = parts.map(|part| heap["coverage"][part].as_u64());
        let sum = parts.into_iter().sum();
        compare("the parts", sum, &statistics["mapped_bytes"]);
    }
    errors
}

/// Against jemalloc's own totals, of the process (`STAT`) and of each arena (`ARENA`). What it calls allocated is what the program
/// holds, what threads have cached, and jemalloc's own blocks.
fn totals_differences(fixture: &Fixture, heap: &Value) -> Vec<String> {
    let details = &heap["details"];
    let in_use = heap["statistics"]["in_use"]["bytes"].as_u64();
    let mut errors = Vec::new();
    let mut compare = |fact: &Fact, totals: &Value, allocated: Option<u64>| {
        for key in ["cached", "dirty", "muzzy", "retained"] {
            let found = totals[format!("{key}_bytes")].as_u64();
            let expected = fact.number(key);
            if expected.is_some() && found != expected {
                errors.push(format!("{fact:?}, but {key} is {found:?}"));
            }
        }
        let expected = fact.number("allocated");
        if expected.is_some() && allocated != expected {
            errors.push(format!("{fact:?}, but allocated is {allocated:?}"));
        }
    };
    for stat in fixture.facts("STAT") {
        let parts = [
            in_use,
            details["cached_bytes"].as_u64(),
            details["own_bytes"].as_u64(),
        ];
        compare(stat, details, parts.iter().copied().sum());
    }
    let none = Value::Null;
    for arena in fixture.facts("ARENA") {
        let arenas = items(&details["arenas"]);
        let found = arenas
            .iter()
            .find(|found| found["index"].as_u64() == arena.number("index"))
            .unwrap_or(&none);
        compare(arena, found, found["allocated_bytes"].as_u64());
    }
    errors
}
