//! Call stacks.

use crate::report::escape::escaped;
use crate::report::schema::{Frame, Report, Thread};

use super::number::thousands;
use super::page::{Page, Role};

/// Least and most columns of a module's name; in between, those of the longest name.
const MODULE: std::ops::RangeInclusive<usize> = 25..=40;

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
    let module = module_columns(&thread.frames);
    for (place, frame) in thread.frames.iter().enumerate() {
        if hidden > 0 && place == ENDS {
            page.line(&format!("  ... {} more frames", thousands(hidden as u64)));
        }
        if hidden == 0 || place < ENDS || place >= ENDS + hidden {
            write_frame(2, module, frame, page);
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
        let module = module_columns(&thread.frames);
        for frame in &thread.frames {
            write_frame(2, module, frame, page);
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

/// Columns that the modules of a stack need.
pub fn module_columns(frames: &[Frame]) -> usize {
    let names = frames.iter().filter_map(|frame| frame.module.as_deref());
    let longest = names.map(|name| name.chars().count()).max().unwrap_or(0);
    longest.clamp(*MODULE.start(), *MODULE.end())
}

/// A frame's lines: inlined functions first, as they are innermost. `columns`: for the module's name.
pub fn write_frame(indent: usize, columns: usize, frame: &Frame, page: &mut Page) {
    let lead = |page: &Page| {
        let number = page.paint(Role::Faint, &format!("[{:>3}]", frame.frame));
        let module = escaped(frame.module.as_deref().unwrap_or("?"));
        format!("{}{number} {module:<columns$} ", " ".repeat(indent))
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
