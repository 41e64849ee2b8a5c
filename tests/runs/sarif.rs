//! SARIF 2.1.0 by the rules of its schema that a code scanner goes by. The schema itself is not in the repository; `HEAPCHECK_SARIF_SCHEMA` may
//! name a copy, against which all is validated, too.

use std::collections::BTreeSet;

use serde_json::Value;

use super::common::{heapcheck, root, small};

/// What the schema demands of the parts that are written here, and what GitHub demands beyond.
fn check(log: &Value) {
    if let Ok(path) = std::env::var("HEAPCHECK_SARIF_SCHEMA") {
        let mut schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        // Its pattern for languages is no regular expression.
        for part in ["run", "toolComponent"] {
            let language = &mut schema["definitions"][part]["properties"]["language"];
            language.as_object_mut().map(|it| it.remove("pattern"));
        }
        let validator = jsonschema::validator_for(&schema).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(log)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
    only(log, &["$schema", "version", "runs"]);
    assert_eq!(log["version"], "2.1.0");
    for run in array(&log["runs"]) {
        only(
            run,
            &["tool", "columnKind", "invocations", "properties", "results"],
        );
        assert_eq!(run["columnKind"], "unicodeCodePoints");
        let driver = &run["tool"]["driver"];
        only(driver, &["name", "version", "rules"]);
        let rules = array(&driver["rules"]);
        let ids: BTreeSet<&str> = rules.iter().map(|rule| text(&rule["id"])).collect();
        assert_eq!(ids.len(), rules.len(), "rules are told apart by their ids");
        for rule in rules {
            only(
                rule,
                &[
                    "id",
                    "shortDescription",
                    "defaultConfiguration",
                    "helpUri",
                    "properties",
                ],
            );
            text(&rule["shortDescription"]["text"]);
        }
        for invocation in run["invocations"].as_array().into_iter().flatten() {
            only(
                invocation,
                &["executionSuccessful", "toolExecutionNotifications"],
            );
            assert!(invocation["executionSuccessful"].is_boolean());
            for notification in array(&invocation["toolExecutionNotifications"]) {
                text(&notification["message"]["text"]);
            }
        }
        let mut prints = BTreeSet::new();
        for result in array(&run["results"]) {
            only(
                result,
                &[
                    "ruleId",
                    "ruleIndex",
                    "level",
                    "message",
                    "occurrenceCount",
                    "partialFingerprints",
                    "properties",
                    "suppressions",
                    "locations",
                    "stacks",
                ],
            );
            let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
            assert_eq!(rules[rule]["id"], result["ruleId"]);
            assert!(["none", "note", "warning", "error"].contains(&text(&result["level"])));
            assert!(!text(&result["message"]["text"]).is_empty());
            for location in result["locations"].as_array().into_iter().flatten() {
                location_is_right(location);
            }
            for stack in result["stacks"].as_array().into_iter().flatten() {
                only(stack, &["message", "frames"]);
                for frame in array(&stack["frames"]) {
                    only(frame, &["location"]);
                    location_is_right(&frame["location"]);
                }
            }
            let print = result["partialFingerprints"].as_object().unwrap();
            assert!(print.values().all(Value::is_string) && !print.is_empty());
            assert!(
                prints.insert(serde_json::to_string(print).unwrap()),
                "a fingerprint that repeats is dropped by viewers"
            );
        }
    }
}

fn location_is_right(location: &Value) {
    only(location, &["physicalLocation", "logicalLocations"]);
    if let Some(place) = location.get("physicalLocation") {
        only(place, &["artifactLocation", "region"]);
        let uri = text(&place["artifactLocation"]["uri"]);
        assert!(
            uri.bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"<>\"{}|\\^`".contains(&byte)),
            "{uri}"
        );
        if let Some(region) = place.get("region") {
            assert!(region["startLine"].as_u64().unwrap() >= 1);
        }
    }
    for logical in location["logicalLocations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        text(&logical["fullyQualifiedName"]);
    }
}

/// The schema's objects are closed: an unknown property makes a document invalid.
fn only(value: &Value, names: &[&str]) {
    for name in value
        .as_object()
        .unwrap_or_else(|| panic!("no object: {value}"))
        .keys()
    {
        assert!(
            names.contains(&name.as_str()),
            "{name} is no property of {value}"
        );
    }
}

fn array(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no array: {value}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

#[test]
fn errors_and_leaks_of_one_core() {
    let (mut errors, mut leaks) = (0, 0);
    for fixture in small::fixtures() {
        for command in ["check", "leaks"] {
            let core = fixture.core.to_str().unwrap();
            let outcome = heapcheck([command, "--format", "sarif", core]);
            assert!(outcome.status != 2, "{core}: {}", outcome.stderr);
            let log: Value = serde_json::from_str(outcome.text()).unwrap();
            check(&log);
            let results = array(&log["runs"][0]["results"]);
            // GitHub shows no result without a place.
            let has_place = |result: &Value| result["locations"][0]["physicalLocation"].is_object();
            assert!(results.iter().all(has_place));
            let count = |name: &str, value: &str| {
                let all = results.iter();
                all.filter(|result| result[name] == value).count()
            };
            errors += count("level", "error");
            leaks += count("ruleId", "memory-leak");
        }
    }
    assert!(errors > 5 && leaks > 5, "{errors} errors, {leaks} leaks");
}

#[test]
fn groups_of_many_reports() {
    let logs = root().join("crates/reports/tests/logs");
    let log = |name: &str| logs.join(name).display().to_string();
    for verb in [&["import"][..], &["triage", "groups"]] {
        let mut arguments: Vec<String> = verb.iter().map(|word| (*word).to_owned()).collect();
        arguments.extend(["--format", "sarif"].map(str::to_owned));
        arguments.extend(
            [
                "asan-gcc-O0.log",
                "asan-clang-stripped.log",
                "valgrind-gcc-O2-xml.log",
                "lsan-gcc-O2.log",
            ]
            .map(log),
        );
        let outcome = heapcheck(&arguments);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        check(&serde_json::from_str(outcome.text()).unwrap());
    }
}

/// An error has no SARIF: status 2 and a line say it.
#[test]
fn what_cannot_be_read_is_said() {
    let outcome = heapcheck(["check", "--format", "sarif", "no-such-core"]);
    assert_eq!((outcome.status, outcome.text()), (2, ""));
}
