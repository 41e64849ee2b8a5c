//! What the documents say is so: commands, screens, kinds, the JSON example.
//!
//! `INSTA_UPDATE=always HEAPCHECK_BLESS=1 cargo test` writes snapshots, the screen and the table anew; look at the diff.

mod common;

use std::fs;

use common::{heapcheck, root};
use heapcheck::checks::finding::FindingKind;
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The blocks of code of a Markdown text in a language.
fn blocks<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let open = format!("```{language}\n");
    text.match_indices(&open)
        .map(|(at, _)| {
            let block = &text[at + open.len()..];
            &block[..block.find("```").expect("a block ends")]
        })
        .collect()
}

/// The demo's report as a machine gives it that has none of its libraries.
fn demo() -> common::Outcome {
    heapcheck([
        "--no-default-paths",
        "testdata/demo/double-free.core.zst",
        "testdata/demo/double-free",
    ])
}

#[test]
fn the_demo_shows_its_double_free() {
    let outcome = demo();
    assert_eq!(outcome.status, 1, "{}", outcome.stderr);
    insta::assert_snapshot!("demo", outcome.text());
}

#[test]
fn the_screen_in_the_readme_is_the_demos() {
    let path = "README.md";
    let readme = read(path);
    let screen = blocks(&readme, "text")[0];
    let text = demo().text().to_owned();
    let (findings, _) = text.split_once("    evidence").expect("evidence follows");
    if std::env::var_os("HEAPCHECK_BLESS").is_some() {
        fs::write(root().join(path), readme.replacen(screen, findings, 1)).unwrap();
        return;
    }
    assert_eq!(
        screen, findings,
        "HEAPCHECK_BLESS=1 cargo test --test readme"
    );
}

#[test]
fn ci_runs_the_readmes_second_command() {
    let readme = read("README.md");
    let commands = blocks(&readme, "sh");
    assert_eq!(
        commands[0],
        "cargo run --release -- testdata/demo/double-free.core.zst testdata/demo/double-free\n"
    );
    let ci = read(".ci/run");
    let last = ci.trim_end().lines().last().unwrap();
    assert_eq!(commands[1].trim_end(), last);
    for check in [
        "build-fixtures.sh",
        "cargo fmt",
        "clippy-driver",
        "cargo doc",
        "cargo test",
    ] {
        assert!(read("check.sh").contains(check), "{check}");
    }
}

#[test]
fn every_kind_of_finding_is_explained() {
    for path in ["README.md", "docs/report.md"] {
        let text = read(path);
        for kind in FindingKind::ALL {
            assert!(
                text.contains(&format!("| `{}` |", kind.code())),
                "{path}: {}",
                kind.code()
            );
        }
    }
}

/// JSON with `//` comments behind its lines; no string in the example holds two slashes.
fn without_comments(text: &str) -> String {
    text.lines()
        .map(|line| line.split("//").next().unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_examples_in_the_documents_follow_the_schema() {
    let schema: Value = serde_json::from_slice(&heapcheck(["schema"]).stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let document = read("docs/report.md");
    let mut examples = blocks(&document, "jsonc");
    examples.extend(blocks(&document, "json"));
    assert_eq!(examples.len(), 2);
    for example in examples {
        let example: Value = serde_json::from_str(&without_comments(example)).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&example)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        // The schema demands every field; this, that the example has no others.
        let mut extra = Vec::new();
        let variants = schema["anyOf"].as_array().expect("a report or an error");
        let variant = if example["status"] == "OK" { 0 } else { 1 };
        unknown_fields(&schema, &variants[variant], &example, "", &mut extra);
        assert!(extra.is_empty(), "not in the schema: {extra:?}");
    }
}

/// Fields of `value` that the part `node` of `schema` does not know.
fn unknown_fields(
    schema: &Value,
    node: &Value,
    value: &Value,
    path: &str,
    extra: &mut Vec<String>,
) {
    let reference = node["$ref"].as_str().or_else(|| {
        let variants = node["anyOf"].as_array()?;
        variants.iter().find_map(|variant| variant["$ref"].as_str())
    });
    let node = match reference {
        Some(reference) => schema
            .pointer(reference.trim_start_matches('#'))
            .unwrap_or_else(|| panic!("{reference}")),
        None => node,
    };
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = format!("{path}.{name}");
                match node["properties"].get(name) {
                    Some(node) => unknown_fields(schema, node, field, &path, extra),
                    None => match node.get("additionalProperties") {
                        Some(node) => unknown_fields(schema, node, field, &path, extra),
                        None => extra.push(path),
                    },
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                unknown_fields(schema, &node["items"], item, &format!("{path}[]"), extra);
            }
        }
        _ => {}
    }
}
