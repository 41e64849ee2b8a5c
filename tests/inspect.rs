//! What `inspect` says of addresses of the cores in the repository: which place, whose block, what may be shown.

mod common;

use std::ffi::OsString;

use common::small::fixtures;
use common::way::{Way, run};
use common::{Fixture, Outcome, heapcheck, in_parallel, items, text};
use serde_json::Value;

fn inspect(fixture: &Fixture, format: &str, more: &[&str]) -> Outcome {
    let mut arguments: Vec<OsString> = ["inspect", "--format", format].map(Into::into).into();
    arguments.extend(Way::DebugInfo.or_bare(fixture).arguments(fixture));
    arguments.extend(more.iter().map(Into::into));
    heapcheck(arguments)
}

fn answers(fixture: &Fixture, more: &[&str]) -> Vec<Value> {
    let outcome = inspect(fixture, "json", more);
    let report = outcome
        .json()
        .unwrap_or_else(|error| panic!("{}: {error}", fixture.name));
    items(&report["addresses"]).to_vec()
}

/// A register of the thread that died, as it was.
fn register(report: &Value, name: &str) -> String {
    text(&report["crashing_thread"]["registers"], name).to_owned()
}

#[test]
fn every_core_tells_its_stack_code_block_text_and_what_is_no_memory() {
    let fixtures = fixtures();
    let wrong: Vec<String> = in_parallel(&fixtures, |fixture| {
        let way = Way::DebugInfo.or_bare(fixture);
        let report = run(way, fixture).json().unwrap();
        let (sp, pc) = (register(&report, "rsp"), register(&report, "rip"));
        let block = &report["findings"][0]["block"];
        let mut asked = vec![
            sp.clone(),
            pc,
            "0x4141414141414141".into(),
            "0x10".into(),
            "0x2".into(),
        ];
        asked.extend(block["address"].as_str().map(str::to_owned));
        let words: Vec<&str> = asked.iter().map(String::as_str).collect();
        let found = answers(fixture, &words);
        let mut wrong = Vec::new();
        let mut check = |what: &str, is_right: bool, found: &Value| {
            if !is_right {
                let place = format!("{}/{}", fixture.release, fixture.name);
                wrong.push(format!("{place}: {what}: {found}"));
            }
        };
        let addresses: Vec<&str> = found.iter().map(|found| text(found, "address")).collect();
        check("order", addresses == words, &Value::Null);
        // A program that died on a stack of its own making has that in a block.
        let is_stack = ["stack", "heap-block", "global"].contains(&text(&found[0], "what"));
        check("stack", is_stack, &found[0]);
        let own = found[0]["words"].as_array().unwrap();
        check(
            "words",
            own.iter().any(|word| word["address"] == *sp),
            &found[0],
        );
        let crashed_in = &report["threads"][0]["frames"][0]["module"];
        match crashed_in.is_null() {
            true => check("no code", text(&found[1], "what") != "code", &found[1]),
            false => {
                check("code", text(&found[1], "what") == "code", &found[1]);
                check("module", found[1]["module"] == *crashed_in, &found[1]);
            }
        }
        check("text", text(&found[2], "what") == "text", &found[2]);
        for small in &found[3..5] {
            check("unmapped", text(small, "what") == "unmapped", small);
            check("nobody", small["referenced_by_count"] == 0, small);
        }
        if let Some(inspected) = found.get(5) {
            check(
                "block",
                inspected["block"]["size"] == block["size"],
                inspected,
            );
            check(
                "state",
                inspected["block"]["state"] == block["state"],
                inspected,
            );
            let is_heap = ["heap-block", "allocator"].contains(&text(inspected, "what"));
            check("heap", is_heap, inspected);
        }
        wrong
    })
    .concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn named<'f>(fixtures: &'f [Fixture], release: &str, name: &str) -> &'f Fixture {
    let mut found = fixtures
        .iter()
        .filter(|fixture| fixture.release == release && fixture.name == name);
    found.next().unwrap_or_else(|| panic!("{release}/{name}"))
}

fn fact<'f>(fixture: &'f Fixture, key: &str) -> &'f str {
    let mut facts = fixture.facts("EXPECT").filter_map(|fact| fact.get(key));
    facts.next().unwrap_or_else(|| panic!("{key}"))
}

#[test]
fn a_free_block_tells_its_list_and_what_the_allocator_wrote_there() {
    let all = fixtures();
    let fixture = named(&all, "glibc-2.36", "double-free-cycle-O2");
    let block = fact(fixture, "address");
    let found = &answers(fixture, &[block])[0];
    assert_eq!(text(&found["block"], "state"), "free", "{found}");
    assert_eq!(found["allocator"], "ptmalloc");
    let word = items(&found["words"])
        .iter()
        .find(|word| text(word, "address") == block)
        .unwrap();
    assert!(text(word, "meaning").contains("link"), "{word}");
    let header = items(&found["words"])
        .iter()
        .find(|word| text(word, "name").starts_with("header"))
        .unwrap();
    assert!(text(header, "meaning").contains("bytes"), "{header}");
    let sides: Vec<&str> = items(&found["neighbours"])
        .iter()
        .map(|neighbour| text(neighbour, "side"))
        .collect();
    assert!(sides.contains(&"behind"), "{found}");
}

#[test]
fn text_is_shown_only_if_contents_are_asked_for_and_never_in_a_redacted_report() {
    let all = fixtures();
    let fixture = named(&all, "glibc-2.36", "overrun-text-binned-O2");
    let culprit = fact(fixture, "culprit");
    let texts = |more: &[&str]| -> Vec<Value> {
        let found = answers(fixture, &[&[culprit], more].concat());
        let words = items(&found[0]["words"]).iter();
        words
            .filter(|word| text(word, "meaning").starts_with("text"))
            .cloned()
            .collect()
    };
    let hidden = texts(&[]);
    assert!(!hidden.is_empty());
    assert!(hidden.iter().all(|word| word["value"].is_null()));
    let shown = texts(&["--include-bytes", "64"]);
    assert!(shown.iter().all(|word| word["value"].is_string()));
    let redacted = inspect(fixture, "json", &[culprit, "--redact"]);
    let report = redacted.json().unwrap();
    for word in items(&report["addresses"][0]["words"]) {
        let is_pointer = text(word, "meaning").contains("block") || word["value"].is_null();
        assert!(is_pointer || text(word, "value").len() > 8, "{word}");
    }
    assert!(
        !redacted.text().contains("\"text of"),
        "{}",
        redacted.text()
    );
}

#[test]
fn text_and_json_are_the_same_for_one_thread_and_many() {
    let all = fixtures();
    for (release, name) in [
        ("2.10", "double-free-O2"),
        ("jemalloc-5.3.0", "double-free-O2"),
    ] {
        let fixture = named(&all, release, name);
        let block = fact(fixture, "address");
        for format in ["text", "json", "ndjson"] {
            let one = inspect(fixture, format, &[block, "--threads", "1"]);
            let many = inspect(fixture, format, &[block, "--threads", "4"]);
            assert_eq!(one.status, 0);
            assert!(one.stdout == many.stdout, "{release} {format}");
            let lines = one.stdout.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(lines == 1, format == "ndjson");
        }
    }
}

#[test]
fn trees_lead_to_roots_and_down_and_say_each_block_once() {
    let all = fixtures();
    let fixture = named(&all, "glibc-2.36", "dangling-member-O2");
    let report = run(Way::DebugInfo, fixture).json().unwrap();
    let block = text(&report["findings"][0]["block"], "address").to_owned();
    let mut arguments: Vec<OsString> = ["refs", "--format", "json"].map(Into::into).into();
    arguments.extend(Way::DebugInfo.arguments(fixture));
    arguments.extend([&block, "--tree", "--down", "--depth", "3"].map(Into::into));
    let report = heapcheck(&arguments).json().unwrap();
    let found = &report["references"][0];
    let rows = items(&found["tree"]["rows"]);
    assert_eq!(rows.is_empty(), found["count"] == 0, "{found}");
    // A step is one deeper than the row before at most.
    let mut last = 0;
    for row in rows {
        let depth = row["depth"].as_u64().unwrap();
        assert!(depth >= 1 && depth <= last + 1 && depth <= 3, "{row}");
        last = depth;
    }
    assert!(heapcheck(["inspect", "--format", "json"]).status == 2);
}
