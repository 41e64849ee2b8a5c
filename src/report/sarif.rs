//! The SARIF view (2.1.0) of one core: a result for each error and each group of leaks, its fingerprint without any line or address.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde_json::{Value, json};

use super::schema::{Confidence, Document, Finding, Frame, LeakGroup, Report, Severity};
use super::{Format, Screen, json as written};

/// Frames of a stack that are shown.
const MAX_FRAMES: usize = 64;
/// The kind of a leak.
const LEAK: &str = "memory-leak";
/// CWE number of a leak.
const LEAK_CWE: u32 = 401;

/// Documents for code scanning.
pub struct Sarif;

impl Format for Sarif {
    fn name(&self) -> &'static str {
        "sarif"
    }

    fn about(&self) -> &'static str {
        "SARIF 2.1.0, for code scanning: errors and leaks"
    }

    fn writes_errors(&self) -> bool {
        false
    }

    fn render(&self, document: &Document, _: Screen) -> io::Result<Vec<u8>> {
        let value = match document {
            Document::Report(report) => log(report),
            _ => return Err(io::Error::other("this document has no SARIF form")),
        };
        let mut bytes = Vec::new();
        written::pretty(&value, &mut bytes)?;
        Ok(bytes)
    }
}

fn log(report: &Report) -> Value {
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    for finding in &report.findings {
        kinds.insert(&finding.kind, finding.cwe);
    }
    let groups = report.leaks.iter().flat_map(|leaks| &leaks.groups);
    let groups: Vec<&LeakGroup> = groups.filter(|group| group.class != "indirect").collect();
    if !groups.is_empty() {
        kinds.insert(LEAK, LEAK_CWE);
    }
    let rules: Vec<Value> = kinds.iter().map(|(kind, cwe)| rule(kind, *cwe)).collect();
    let index = |kind: &str| kinds.keys().position(|known| *known == kind);
    let mut results = Vec::new();
    // A viewer drops a fingerprint that repeats.
    let mut seen = BTreeSet::new();
    for finding in &report.findings {
        if seen.insert(&finding.fingerprint.v2) {
            results.push(of_finding(finding, report, index(&finding.kind)));
        }
    }
    for group in groups {
        if seen.insert(&group.fingerprint.v2) {
            results.push(of_group(group, report, index(LEAK)));
        }
    }
    let incomplete: Vec<Value> = report
        .limits
        .iter()
        .filter(|limit| limit.incomplete)
        .map(|limit| {
            json!({ "level": "warning", "message": { "text": format!("not checked: {}: {}", limit.what, limit.why) } })
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": report.tool.name, "version": report.tool.version, "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{ "executionSuccessful": true, "toolExecutionNotifications": incomplete }],
            "properties": { "classifiers": report.classifiers, "attributes": report.attributes },
            "results": results,
        }],
    })
}

fn rule(kind: &str, cwe: u32) -> Value {
    let words = kind.replace('-', " ");
    json!({
        "id": kind,
        "shortDescription": { "text": words },
        "helpUri": format!("https://cwe.mitre.org/data/definitions/{cwe}.html"),
        "properties": { "tags": ["security", format!("external/cwe/cwe-{cwe}")] },
    })
}

fn of_finding(finding: &Finding, report: &Report, rule: Option<usize>) -> Value {
    let level = match finding.severity {
        Severity::Critical => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let confidence = match finding.confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Suspected => "suspected",
    };
    let culprit = finding.culprit.as_ref();
    let recorded = finding.stacks.as_ref();
    let crash = crashing(report);
    let stacks: Vec<(&str, &[Frame])> = [
        ("freed again", finding.freed_again_at.as_deref()),
        ("freed", finding.freed_at.as_deref()),
        (
            "the culprit was allocated",
            culprit.and_then(|culprit| culprit.allocated_at.as_deref()),
        ),
        ("allocated", finding.allocated_at.as_deref()),
        (
            "freed",
            recorded.map(|stacks| stacks.deallocation.as_slice()),
        ),
        (
            "allocated",
            recorded.map(|stacks| stacks.allocation.as_slice()),
        ),
        ("died", crash),
    ]
    .into_iter()
    .filter_map(|(name, frames)| Some((name, frames.filter(|frames| !frames.is_empty())?)))
    .collect();
    result(
        (&finding.kind, rule, level),
        &finding.message,
        &finding.fingerprint.v2,
        &stacks,
        report,
        json!({ "confidence": confidence, "explainsCrash": finding.explains_crash }),
    )
}

fn of_group(group: &LeakGroup, report: &Report, rule: Option<usize>) -> Value {
    let level = if group.class == "definite" {
        "warning"
    } else {
        "note"
    };
    let text = format!(
        "{} blocks of {} bytes, {} bytes: {}",
        group.blocks, group.block_bytes, group.bytes, group.message
    );
    let stacks: Vec<(&str, &[Frame])> = [&group.allocated_at, &group.stack]
        .into_iter()
        .filter_map(|frames| Some(("allocated", frames.as_deref()?)))
        .collect();
    let properties = json!({ "class": group.class, "blocks": group.blocks, "bytes": group.bytes });
    result(
        (LEAK, rule, level),
        &text,
        &group.fingerprint.v2,
        &stacks,
        report,
        properties,
    )
}

fn result(
    (kind, rule, level): (&str, Option<usize>, &str),
    text: &str,
    fingerprint: &str,
    stacks: &[(&str, &[Frame])],
    report: &Report,
    properties: Value,
) -> Value {
    let frames = stacks.iter().flat_map(|(_, frames)| frames.iter());
    let place = place(frames, report);
    let program = report.process.executable.as_deref().unwrap_or("core");
    let location = place.map_or_else(
        || json!({ "physicalLocation": { "artifactLocation": { "uri": uri(program) } } }),
        |frame| location(frame, Some(program)),
    );
    let shown: Vec<Value> = stacks
        .iter()
        .map(|(name, frames)| {
            let frames = frames.iter().take(MAX_FRAMES);
            let frames: Vec<Value> = frames
                .map(|frame| json!({ "location": location_of(frame) }))
                .collect();
            json!({ "message": { "text": name }, "frames": frames })
        })
        .collect();
    let mut result = json!({
        "ruleId": kind,
        "level": level,
        "message": { "text": text },
        "locations": [location],
        "partialFingerprints": { "heapcheck/v2": fingerprint },
        "properties": properties,
    });
    if let Some(rule) = rule {
        put(&mut result, "ruleIndex", json!(rule));
    }
    if !shown.is_empty() {
        put(&mut result, "stacks", json!(shown));
    }
    result
}

/// Adds a property to an object.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

/// The frames of the crash from the program's own on.
fn crashing(report: &Report) -> Option<&[Frame]> {
    let thread = report.threads.get(report.crash_info.crashing_thread?)?;
    let own = report.crash_info.called_from.as_ref();
    let own = own.and_then(|own| thread.frames.iter().position(|it| it.frame == own.frame));
    thread.frames.get(own.unwrap_or(0)..)
}

/// The first frame of the program itself that has a line, else the first that has one, else the first of the program.
fn place<'f>(
    frames: impl Iterator<Item = &'f Frame> + Clone,
    report: &Report,
) -> Option<&'f Frame> {
    let program = report.process.executable.as_deref();
    let mut own = frames
        .clone()
        .filter(|frame| frame.module.as_deref() == program);
    let with_line = own.clone().find(|frame| frame.file.is_some());
    let any = frames.clone().find(|frame| frame.file.is_some());
    with_line.or(any).or_else(|| own.next())
}

fn location_of(frame: &Frame) -> Value {
    location(frame, None)
}

/// A frame as a location; a file that is not known is the module's, if that is asked for.
fn location(frame: &Frame, program: Option<&str>) -> Value {
    let mut location = json!({});
    if let Some(file) = frame.file.as_deref().or(program) {
        let mut place = json!({ "artifactLocation": { "uri": uri(file) } });
        if let Some(line) = frame.line.filter(|line| *line > 0 && frame.file.is_some()) {
            put(&mut place, "region", json!({ "startLine": line }));
        }
        put(&mut location, "physicalLocation", place);
    }
    let offset = || {
        Some(format!(
            "{}+{}",
            frame.module.as_ref()?,
            frame.module_offset?
        ))
    };
    if let Some(name) = frame.function.clone().or_else(offset) {
        let name = json!([{ "fullyQualifiedName": name, "kind": "function" }]);
        put(&mut location, "logicalLocations", name);
    }
    location
}

/// A path as URI reference: what URIs give a meaning is written as %XX, an absolute path has a scheme.
fn uri(path: &str) -> String {
    let mut out = String::from(if path.starts_with('/') { "file://" } else { "" });
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn results_name_their_rule_and_a_place() {
        let value = log(&sample::overrun());
        let run = &value["runs"][0];
        let results = run["results"].as_array().unwrap();
        assert!(!results.is_empty());
        for result in results {
            let rule = result["ruleIndex"].as_u64().unwrap() as usize;
            assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], result["ruleId"]);
            assert!(
                result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].is_string()
            );
            assert!(result["message"]["text"].is_string());
        }
        assert_eq!(uri("/a b/c.c"), "file:///a%20b/c.c");
    }
}
