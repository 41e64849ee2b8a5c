//! A log of the same run, and what it adds to the first screen.

use super::answers;
use super::number::{bytes, count};
use super::page::{Page, Role};
use crate::report::schema::{Finding, Report};

/// Indentation of the answers.
const INDENT: usize = 2;

/// Who allocated and freed the block, or allocated the one that wrote past its end, by the log of the run: the innermost frames.
pub fn callers(finding: &Finding) -> Option<String> {
    let culprit = finding.culprit.as_ref();
    let culprit = culprit.and_then(|culprit| culprit.allocated_at.as_ref());
    let parts: Vec<String> = [
        ("the culprit was allocated in", culprit),
        ("allocated in", finding.allocated_at.as_ref()),
        ("freed in", finding.freed_at.as_ref()),
        ("freed again in", finding.freed_again_at.as_ref()),
    ]
    .into_iter()
    .filter_map(|(what, frames)| {
        let frame = frames?.first()?;
        let line = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!(", {file}:{line}"),
            _ => String::new(),
        };
        Some(format!("{what} {}{line}", answers::place(frame)))
    })
    .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

/// The log that was joined with the core.
pub fn log(report: &Report, page: &mut Page) {
    let Some(log) = &report.events else {
        return;
    };
    let what = match log.complete {
        true => count(log.records, "call"),
        false => count(log.records, "stack"),
    };
    let mut text = format!("{}, {} by {}", log.file, what, log.tool);
    if log.unwritten_bytes > 0 {
        let last = bytes(log.unwritten_bytes);
        text = format!("{text}, the last {last} of it from the core");
    }
    if log.contradicting > 0 {
        text = format!(
            "{text}; the core denies {} of {}",
            log.contradicting, log.compared
        );
    }
    page.field(INDENT, "events", Role::Plain, &text);
}
