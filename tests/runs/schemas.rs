//! Every answer follows the schema that `heapcheck schema` prints for it.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use super::common::{heapcheck, root, small};
use super::{path, said};

fn schema(of: &[&str]) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(&said(&[&["schema"], of].concat())).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn check(validator: &jsonschema::Validator, value: &Value, what: &str) {
    let errors: Vec<String> = validator
        .iter_errors(value)
        .take(5)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?}");
}

fn logs() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(root().join("crates/reports/tests/logs"))
        .unwrap()
        .map(|entry| entry.unwrap().path().display().to_string())
        .collect();
    found.sort();
    found
}

#[test]
fn records_follow_their_schema() {
    let validator = schema(&["import"]);
    let logs = logs();
    let mut arguments = vec!["import"];
    arguments.extend(logs.iter().map(String::as_str));
    let text = heapcheck(&arguments);
    let mut count = 0;
    for line in text.text().lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        check(&validator, &record, line);
        count += 1;
        let mut without = record.clone();
        without.as_object_mut().unwrap().remove("key");
        assert!(!validator.is_valid(&without));
    }
    assert!(count > 300, "{count}");
}

#[test]
fn answers_follow_their_schemas() {
    let folder = TempDir::new().unwrap();
    let run = path(folder.path(), "run.ndjson");
    let logs = logs();
    let mut arguments = vec!["import", "--kv", "version=2", "-o", &run];
    arguments.extend(logs.iter().map(String::as_str));
    heapcheck(&arguments);
    let one = "crates/reports/tests/logs/asan-gcc-O0.log";
    let base = path(folder.path(), "base.ndjson");
    said(&[
        "import",
        "-o",
        &base,
        &root().join(one).display().to_string(),
    ]);
    let order = path(folder.path(), "order");
    fs::write(&order, "1\n2\n").unwrap();
    let any = schema(&["triage"]);
    let ask = |verb: &str, more: &[&str]| {
        let mut arguments = vec!["triage", verb, "--format", "json"];
        arguments.extend(more);
        arguments.push(&run);
        let outcome = heapcheck(&arguments);
        assert!(outcome.status <= 1, "{verb}: {}", outcome.stderr);
        let value: Value = serde_json::from_str(outcome.text()).unwrap();
        check(&schema(&["triage", verb]), &value, verb);
        check(&any, &value, verb);
        value
    };
    let groups = ask("groups", &[]);
    let key = |number: usize| groups["groups"][number]["key"].as_str().unwrap().to_owned();
    ask("show", &[&key(0)]);
    ask("diff", &[&key(0), &key(1)]);
    ask("new", &["--baseline", &base]);
    ask("introduced", &["--order", &order]);
    ask("flame", &["--by", "frame"]);
    ask("bytes", &[]);
    let growth = ask("growth", &["--all"]);
    // A schema that takes all is none.
    assert!(!schema(&["triage", "groups"]).is_valid(&growth));
    assert!(!schema(&["triage", "growth"]).is_valid(&groups));
    assert!(!any.is_valid(&serde_json::json!({})));
    assert_eq!(heapcheck(["schema", "check", "groups"]).status, 2);
}

#[test]
fn lines_of_batch_follow_their_schema() {
    let validator = schema(&["batch"]);
    let core = small::fixtures().remove(0).core.display().to_string();
    let text = heapcheck(["batch", &core, "no-such-core"]);
    for line in text.text().lines() {
        check(&validator, &serde_json::from_str(line).unwrap(), line);
    }
}
