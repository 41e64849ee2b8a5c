//! Call stacks.

use crate::report::escape::escaped;
use crate::report::schema::{Frame, Report, Thread};

use super::number::thousands;
use super::page::{Page, Role};

/// Columns of a module's name.
const MODULE: usize = 25;

/// Frames shown of each end of a long stack in the heap report; the thread dump and JSON have all.
const ENDS: usize = 20;

/// The crashing thread; if the core does not tell which, the first.
pub fn write_crashing(report: &Report, page: &mut Page) {
    let (heading, thread) = match report.crash_info.crashing_thread {
        Some(index) => ("CRASHING THREAD", report.threads.get(index)),
        None => ("FIRST THREAD", report.threads.first()),
    };
    let Some(thread) = thread else { return };
    let others = report.threads.len().saturating_sub(1);
    page.heading(&format!(
        "{heading} {}{}",
        name(thread),
        match others {
            0 => String::new(),
            1 => " (1 other thread: --minidump)".into(),
            others => format!(" ({} other threads: --minidump)", thousands(others as u64)),
        }
    ));
    let hidden = thread.frames.len().saturating_sub(2 * ENDS);
    for (place, frame) in thread.frames.iter().enumerate() {
        if hidden > 0 && place == ENDS {
            page.line(&format!("  ... {} more frames", thousands(hidden as u64)));
        }
        if hidden == 0 || place < ENDS || place >= ENDS + hidden {
            write_frame(2, frame, page);
        }
    }
}

/// All threads.
pub fn write_all(report: &Report, page: &mut Page) {
    page.line(&match report.pid {
        Some(pid) => format!("PID: {pid}"),
        None => "PID: unknown".into(),
    });
    for (index, thread) in report.threads.iter().enumerate() {
        let crashed = if report.crash_info.crashing_thread == Some(index) {
            " (crashed)"
        } else {
            ""
        };
        let line = page.paint(Role::Strong, &format!("Thread {}{crashed}", name(thread)));
        page.line(&line);
        for frame in &thread.frames {
            write_frame(2, frame, page);
        }
    }
}

/// `7958 "worker"`.
pub fn name(thread: &Thread) -> String {
    match &thread.thread_name {
        Some(name) => format!("{} \"{}\"", thread.thread_id, escaped(name)),
        None => thread.thread_id.to_string(),
    }
}

/// A frame's lines: inlined functions first, as they are innermost.
pub fn write_frame(indent: usize, frame: &Frame, page: &mut Page) {
    let lead = |page: &Page| {
        let number = page.paint(Role::Faint, &format!("[{:>3}]", frame.frame));
        let module = escaped(frame.module.as_deref().unwrap_or("?"));
        format!("{}{number} {module:<MODULE$} ", " ".repeat(indent))
    };
    for inline in &frame.inlines {
        let function = escaped(inline.function.as_deref().unwrap_or("?"));
        let place = place(inline.file.as_deref(), inline.line);
        let line = format!("{}{function}{place} [inlined]", lead(page));
        page.line(&line);
    }
    // Only what is less than certain is worth a word.
    let trust = match frame.trust.as_str() {
        "context" | "cfi" | "prewalked" => String::new(),
        trust => page.paint(Role::Warning, &format!(" [{}]", escaped(trust))),
    };
    let line = format!(
        "{}{}{}{trust}",
        lead(page),
        function(frame),
        place(frame.file.as_deref(), frame.line)
    );
    page.line(&line);
}

/// The function, else the offset in the module, else the address.
pub fn function(frame: &Frame) -> String {
    match (&frame.function, frame.module_offset) {
        (Some(function), _) => escaped(function),
        (None, Some(offset)) => format!("+{offset}"),
        (None, None) => frame.offset.to_string(),
    }
}

fn place(file: Option<&str>, line: Option<u32>) -> String {
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({}:{line})", escaped(file)),
        (Some(file), None) => format!(" ({})", escaped(file)),
        (None, _) => String::new(),
    }
}
