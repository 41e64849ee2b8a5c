//! heapcheck's own reports: findings, groups of leaks, or the crash where there is no finding.

mod usage;

use std::collections::BTreeMap;

use serde::Deserialize;
pub(crate) use usage::OWNER;

use super::{MAX_FRAMES, Out};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};

#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    pid: Option<u64>,
    #[serde(default)]
    attributes: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    process: Option<Process>,
    #[serde(default)]
    core: Option<Core>,
    #[serde(default)]
    crash_info: Option<Crash>,
    #[serde(default)]
    crashing_thread: Option<Thread>,
    #[serde(default)]
    findings: Option<Vec<Finding>>,
    #[serde(default)]
    leaks: Option<Leaks>,
    #[serde(default)]
    usage: Option<usage::Usage>,
    #[serde(default)]
    modules: Option<Vec<Module>>,
    #[serde(default)]
    error: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Process {
    executable: Option<String>,
    #[serde(default)]
    start_time: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Core {
    #[serde(default)]
    time: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Crash {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    crash_signature: Option<String>,
    #[serde(default)]
    call: Option<Call>,
}

#[derive(Deserialize)]
struct Call {
    #[serde(default)]
    pointer: Option<String>,
}

#[derive(Deserialize)]
struct Thread {
    #[serde(default)]
    thread_name: Option<String>,
    #[serde(default)]
    frames: Vec<CoreFrame>,
}

#[derive(Deserialize)]
struct CoreFrame {
    #[serde(default)]
    module: Option<String>,
    #[serde(default)]
    offset: Option<String>,
    #[serde(default)]
    module_offset: Option<String>,
    #[serde(default)]
    function: Option<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<u64>,
    #[serde(default)]
    inlines: Option<Vec<Inline>>,
}

#[derive(Deserialize)]
struct Inline {
    #[serde(default)]
    function: Option<String>,
    #[serde(default)]
    file: Option<String>,
    #[serde(default)]
    line: Option<u64>,
}

#[derive(Deserialize)]
struct Finding {
    kind: String,
    #[serde(default)]
    cwe: Option<u32>,
    #[serde(default)]
    severity: Option<String>,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    stacks: Option<Stacks>,
    #[serde(default)]
    allocated_at: Option<Vec<CoreFrame>>,
    #[serde(default)]
    freed_at: Option<Vec<CoreFrame>>,
    #[serde(default)]
    freed_again_at: Option<Vec<CoreFrame>>,
    #[serde(default)]
    fingerprint: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Stacks {
    #[serde(default)]
    allocation: Option<Vec<CoreFrame>>,
    #[serde(default)]
    deallocation: Option<Vec<CoreFrame>>,
}

#[derive(Deserialize)]
struct Leaks {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    class: String,
    #[serde(default)]
    blocks: Option<u64>,
    #[serde(default)]
    bytes: Option<u64>,
    #[serde(default)]
    indirect_bytes: Option<u64>,
    #[serde(default)]
    stack: Option<Vec<CoreFrame>>,
    #[serde(default)]
    allocated_at: Option<Vec<CoreFrame>>,
    #[serde(default)]
    message: String,
    #[serde(default)]
    signature: Option<String>,
    #[serde(default)]
    fingerprint: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
struct Module {
    #[serde(default)]
    filename: Option<String>,
    #[serde(default)]
    code_id: Option<String>,
}

/// Reads one report.
pub(super) fn read(text: &str, line: u64, out: &mut Out<'_>) -> serde_json::Result<()> {
    let report: Report = serde_json::from_str(text)?;
    if report.error.is_some() {
        out.failure(line, "heapcheck could not read that core");
        return Ok(());
    }
    let ids: BTreeMap<&str, &str> = report
        .modules
        .iter()
        .flatten()
        .filter_map(|module| Some((module.filename.as_deref()?, module.code_id.as_deref()?)))
        .collect();
    let base = |kind: &str, cwe| {
        let mut record = Record::new("heapcheck", Kind::Other, kind);
        kind.clone_into(&mut record.kind);
        record.cwe = cwe;
        record.source = Source::at(line);
        record.pid = report.pid;
        record.process = report
            .process
            .as_ref()
            .and_then(|process| process.executable.clone());
        record.time = report.core.as_ref().and_then(|core| core.time.clone());
        for (name, value) in report.attributes.iter().take(64) {
            record.attributes.insert(name.clone(), plain(value));
        }
        if let Some(start) = report
            .process
            .as_ref()
            .and_then(|process| process.start_time.as_ref())
        {
            record
                .attributes
                .insert("process_start".to_owned(), plain(start));
        }
        record
    };
    let crash = |role| {
        report.crashing_thread.as_ref().map(|thread| Stack {
            role,
            thread: thread.thread_name.clone(),
            frames: frames(&thread.frames, &ids),
        })
    };
    let call = report
        .crash_info
        .as_ref()
        .and_then(|crash| crash.call.as_ref())
        .and_then(|call| call.pointer.as_deref());
    let mut said = false;
    for finding in report.findings.iter().flatten() {
        let mut record = base(&finding.kind, finding.cwe);
        finding.message.clone_into(&mut record.message);
        if let Some(stacks) = &finding.stacks {
            for (role, recorded) in [
                (Role::Free, &stacks.deallocation),
                (Role::Allocation, &stacks.allocation),
            ] {
                if let Some(recorded) = recorded {
                    record.stacks.push(Stack {
                        role,
                        thread: None,
                        frames: frames(recorded, &ids),
                    });
                }
            }
        }
        // A log of the run knows the callers, too.
        for (role, logged) in [
            (Role::Free, &finding.freed_again_at),
            (Role::Free, &finding.freed_at),
            (Role::Allocation, &finding.allocated_at),
        ] {
            let logged = logged.as_ref().filter(|_| finding.stacks.is_none());
            record.stacks.extend(logged.map(|logged| Stack {
                role,
                thread: None,
                frames: frames(logged, &ids),
            }));
        }
        // A call that malloc refused is the site of the wrong free.
        if finding.address.is_some()
            && finding.address.as_deref() == call
            && finding.kind.contains("free")
        {
            let mut stacks: Vec<Stack> = crash(Role::Free).into_iter().collect();
            stacks.append(&mut record.stacks);
            record.stacks = stacks;
        }
        record.subject = fingerprint(&finding.fingerprint);
        said |= finding.severity.as_deref() != Some("note");
        out.record(record);
    }
    for group in report.leaks.iter().flat_map(|leaks| &leaks.groups) {
        let kind = match group.class.as_str() {
            "definite" | "possible" => Kind::MemoryLeak,
            "indirect" => {
                out.folded(1);
                continue;
            }
            _ => Kind::LiveMemory,
        };
        let mut record = base(kind.name(), kind.cwe());
        group.class.clone_into(&mut record.tool_kind);
        group.message.clone_into(&mut record.message);
        (record.bytes, record.blocks) = (group.bytes, group.blocks);
        record.indirect_bytes = group.indirect_bytes.filter(|&bytes| bytes > 0);
        if let Some(stack) = group.stack.as_ref().or(group.allocated_at.as_ref()) {
            record.stacks.push(Stack {
                role: Role::Allocation,
                thread: None,
                frames: frames(stack, &ids),
            });
        }
        record.subject = fingerprint(&group.fingerprint).or_else(|| group.signature.clone());
        out.record(record);
    }
    if let Some(usage) = &report.usage {
        for used in usage.rows() {
            let mut record = base(Kind::LiveMemory.name(), Kind::LiveMemory.cwe());
            used.tool_kind.clone_into(&mut record.tool_kind);
            record.message = used.message();
            (record.bytes, record.blocks) = (Some(used.bytes), Some(used.blocks));
            record.subject = Some(used.name);
            out.record(record);
        }
        return Ok(());
    }
    let Some(info) = report.crash_info.as_ref().filter(|_| !said) else {
        return Ok(());
    };
    if let Some(kind) = &info.kind {
        let mut record = base(Kind::Crash.name(), None);
        kind.clone_into(&mut record.tool_kind);
        record.message = info.crash_signature.clone().unwrap_or_else(|| kind.clone());
        record.stacks.extend(crash(Role::Access));
        out.record(record);
    }
    Ok(())
}

/// The newest version's fingerprint, with its version.
fn fingerprint(versions: &BTreeMap<String, serde_json::Value>) -> Option<String> {
    let number = |name: &str| {
        name.strip_prefix('v')
            .and_then(|digits| digits.parse::<u32>().ok())
    };
    let newest = versions
        .iter()
        .filter_map(|(name, value)| Some((number(name)?, value)));
    let (version, value) = newest.max_by_key(|(version, _)| *version)?;
    Some(format!("v{version}:{}", plain(value)))
}

fn plain(value: &serde_json::Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// Frames with what was inlined into them, innermost first.
fn frames(recorded: &[CoreFrame], ids: &BTreeMap<&str, &str>) -> Vec<Frame> {
    let mut frames = Vec::new();
    for frame in recorded {
        let outer = Frame {
            function: frame.function.clone(),
            file: frame.file.clone(),
            line: frame.line,
            column: None,
            module: frame.module.clone(),
            module_offset: frame.module_offset.clone(),
            address: frame.offset.clone(),
            path: None,
            build_id: frame
                .module
                .as_deref()
                .and_then(|name| ids.get(name))
                .map(|&id| id.to_owned()),
        };
        for inline in frame.inlines.iter().flatten() {
            let Inline {
                function,
                file,
                line,
            } = inline;
            frames.push(Frame {
                function: function.clone(),
                file: file.clone(),
                line: *line,
                ..outer.clone()
            });
        }
        frames.push(outer);
        if frames.len() >= MAX_FRAMES {
            break;
        }
    }
    frames
}
