//! casr's reports: frames are lines of a debugger or sanitizer. Environment and memory maps hold secrets and are not read;
//! its classes of exploitability are no facts and are not kept.

use serde::Deserialize;

use super::sanitizer::Sanitizer;
use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::import::lines::Piece;
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

#[derive(Deserialize)]
struct Casrep {
    #[serde(rename = "ExecutablePath", default)]
    executable: Option<String>,
    #[serde(rename = "CrashSeverity", default)]
    severity: Option<Severity>,
    #[serde(rename = "Stacktrace", default)]
    stack: Option<Vec<String>>,
    #[serde(rename = "AsanReport", default)]
    asan: Option<Vec<String>>,
    #[serde(rename = "MsanReport", default)]
    msan: Option<Vec<String>>,
    #[serde(rename = "UbsanReport", default)]
    ubsan: Option<Vec<String>>,
    #[serde(rename = "CrashLine", default)]
    line: Option<String>,
    #[serde(rename = "Date", default)]
    date: Option<String>,
}

#[derive(Deserialize)]
struct Severity {
    #[serde(rename = "ShortDescription", default)]
    short: Option<String>,
    #[serde(rename = "Description", default)]
    long: Option<String>,
}

/// Reads one report: the sanitizer's log in it if there is one, else the stack.
pub(super) fn read(text: &str, line: u64, out: &mut Out<'_>) -> serde_json::Result<()> {
    let report: Casrep = serde_json::from_str(text)?;
    let process = report
        .executable
        .as_deref()
        .map(|path| text::base_name(path).to_owned());
    let before = out.ready.len();
    for log in [&report.asan, &report.msan, &report.ubsan]
        .into_iter()
        .flatten()
    {
        let mut sanitizer = Sanitizer::default();
        for text in log.iter().take(100_000) {
            let piece = Piece {
                number: line,
                first: true,
                last: true,
            };
            sanitizer.line(
                &Line {
                    text,
                    bytes: text.as_bytes(),
                    piece,
                },
                out,
            );
        }
        sanitizer.end(out);
    }
    let severity = report.severity.as_ref();
    let short = severity
        .and_then(|severity| severity.short.as_deref())
        .unwrap_or("");
    if out.ready.len() == before {
        let mut record = Record::new("casr", kind(short), short);
        record.message = severity
            .and_then(|severity| severity.long.clone())
            .unwrap_or_default();
        record.source = Source::at(line);
        let mut found: Vec<Frame> = report
            .stack
            .iter()
            .flatten()
            .take(MAX_FRAMES)
            .filter_map(|text| frame(text))
            .collect();
        if found.is_empty()
            && let Some(place) = &report.line
        {
            let mut frame = Frame::default();
            frames::set_location(&mut frame, place);
            found.push(frame);
        }
        record.stacks.push(Stack {
            role: Role::Access,
            thread: None,
            frames: found,
        });
        out.ready.reserve(1);
        record.process.clone_from(&process);
        record.time = report.date.map(serde_json::Value::String);
        out.record(record);
        return Ok(());
    }
    for record in &mut out.ready[before..] {
        if record.process.is_none() {
            record.process.clone_from(&process);
        }
        if record.time.is_none() {
            record.time = report.date.clone().map(serde_json::Value::String);
        }
    }
    Ok(())
}

/// A line of gdb (`#0  0x55 in f (a=1) at /src/a.c:3`), or of a sanitizer.
fn frame(line: &str) -> Option<Frame> {
    if let Some((before, place)) = line.rsplit_once(" at ")
        && line.trim_start().starts_with('#')
    {
        let mut frame = Frame::default();
        let rest = before.trim_start().trim_start_matches('#');
        let (_, rest) = text::leading_number(rest)?;
        let rest = rest.trim_start();
        let function = match rest.split_once(" in ") {
            Some((address, function)) if address.starts_with("0x") => {
                frame.address = text::address(address);
                function
            }
            _ => rest,
        };
        frames::set_function(&mut frame, function.split(" (").next().unwrap_or(function));
        frames::set_location(&mut frame, place);
        return Some(frame);
    }
    let (head, tail) = line.trim_start().split_once(' ')?;
    // gdb pads the number: `#0  0x…`.
    let (_, mut frame) = frames::sanitizer(&format!("{head} {}", tail.trim_start()))?;
    if let Some(function) = &mut frame.function {
        function.truncate(function.split(" (").next().unwrap_or(function).len());
    }
    Some(frame)
}

/// The kind behind casr's short description.
fn kind(short: &str) -> Kind {
    match short {
        s if s.contains("heap-use-after-free") => Kind::UseAfterFree,
        s if s.contains("heap-buffer-overflow") => Kind::HeapOverrun,
        s if s.contains("double-free") => Kind::DoubleFree,
        s if s.contains("bad-free") => Kind::InvalidFree,
        s if s.contains("stack-buffer-overflow") || s.contains("StackGuard") => Kind::StackOverrun,
        s if s.contains("global-buffer-overflow") => Kind::GlobalOverrun,
        s if s.contains("StackOverflow") || s.contains("stack-overflow") => Kind::StackOverflow,
        s if s.contains("memory-leaks") => Kind::MemoryLeak,
        _ => Kind::Crash,
    }
}
