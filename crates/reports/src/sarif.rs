//! SARIF 2.1.0: one result for each group, the key as fingerprint, no line in what identifies it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::key::responsible;
use crate::kind::Kind;
use crate::record::{Frame, Record, Strength};
use crate::text;
use crate::triage::{Group, State, role};

/// The document for groups with an example each, by the group's key.
pub fn sarif(groups: &[Group], examples: &BTreeMap<String, Record>, version: &str) -> Value {
    let kinds: BTreeSet<&str> = groups.iter().map(|group| group.kind.as_str()).collect();
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let rules: Vec<Value> = kinds
        .iter()
        .map(|kind| rule(kind, groups, examples))
        .collect();
    let results: Vec<Value> = groups
        .iter()
        .filter(|group| group.state != State::Merged)
        .map(|group| result(group, examples.get(&group.key), &kinds))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "heapcheck", "version": version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn rule(kind: &str, groups: &[Group], examples: &BTreeMap<String, Record>) -> Value {
    let cwe = groups
        .iter()
        .filter(|group| group.kind == kind)
        .find_map(|group| examples.get(&group.key)?.cwe);
    let mut rule = json!({
        "id": kind,
        "shortDescription": { "text": kind.replace('-', " ") },
        "defaultConfiguration": { "level": level(kind) },
    });
    if let Some(cwe) = cwe {
        rule["properties"] = json!({ "tags": ["security", format!("external/cwe/cwe-{cwe}")] });
        rule["helpUri"] = json!(format!("https://cwe.mitre.org/data/definitions/{cwe}.html"));
    }
    rule
}

fn level(kind: &str) -> &'static str {
    match kind {
        kind if kind == Kind::LiveMemory.name() => "note",
        kind if kind == Kind::MemoryLeak.name() || kind == Kind::Other.name() => "warning",
        _ => "error",
    }
}

fn result(group: &Group, example: Option<&Record>, kinds: &[&str]) -> Value {
    let message = example.map_or_else(String::new, |example| {
        format!(": {}", text::cut(&example.message, 1000))
    });
    let mut result = json!({
        "ruleId": group.kind,
        "ruleIndex": kinds.iter().position(|kind| *kind == group.kind),
        "level": level(&group.kind),
        "message": { "text": format!("{}{message}", group.key_text) },
        "occurrenceCount": group.errors.max(1),
        "partialFingerprints": { "heapcheckKey/v1": group.key },
        "properties": { "processes": group.processes, "keyStrength": group.key_strength, "recurrence": group.recurrence },
    });
    if group.key_strength == Strength::Weak {
        result["properties"]["weakKey"] = json!(true);
    }
    if group.state == State::Muted {
        result["suppressions"] = json!([{ "kind": "external", "status": "accepted" }]);
    }
    let Some(example) = example else {
        return result;
    };
    // The innermost frame of the program's own names the place.
    let functions: BTreeSet<&str> = group
        .key_text
        .split(crate::key::SEPARATOR)
        .skip(1)
        .collect();
    let own = |frame: &&Frame| {
        frame.file.is_some()
            && frame
                .function
                .as_deref()
                .is_some_and(|name| functions.contains(crate::key::Name::of(name).text().as_str()))
    };
    let stacks = responsible(example);
    if let Some(frame) = stacks.iter().flat_map(|stack| &stack.frames).find(own) {
        result["locations"] = json!([location(frame)]);
    }
    let stacks: Vec<Value> = example
        .stacks
        .iter()
        .map(|stack| json!({ "message": { "text": role(stack.role) }, "frames": stack.frames.iter().take(64).map(|frame| json!({ "location": location(frame) })).collect::<Vec<_>>() }))
        .collect();
    if !stacks.is_empty() {
        result["stacks"] = json!(stacks);
    }
    result
}

/// A frame as a location: a file as URI reference, the function as logical location.
fn location(frame: &Frame) -> Value {
    let mut location = json!({});
    if let Some(file) = &frame.file {
        location["physicalLocation"] = json!({ "artifactLocation": { "uri": uri(file) } });
        if let Some(line) = frame
            .line
            .filter(|&line| line > 0 && line < i32::MAX as u64)
        {
            location["physicalLocation"]["region"] = json!({ "startLine": line });
        }
    }
    let name = frame.function.clone().or_else(|| {
        Some(format!(
            "{}+{}",
            frame.module.as_ref()?,
            frame.module_offset.as_ref()?
        ))
    });
    if let Some(name) = name {
        location["logicalLocations"] = json!([{ "fullyQualifiedName": name, "kind": "function" }]);
    }
    location
}

/// A path as URI reference: what URIs give a meaning is written as %XX, an absolute path has a scheme.
fn uri(path: &str) -> String {
    let mut out = if path.starts_with('/') {
        "file://".to_owned()
    } else {
        String::new()
    };
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte))
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
