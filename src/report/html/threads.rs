//! Stacks of all threads, and the modules that they are in.

use super::markup::Markup;
use super::table::{self, Cell, Column, Kind, Rows};
use crate::report::escape::escaped;
use crate::report::schema::{Frame, Report, Thread};
use crate::report::text::number::{count, thousands};
use crate::report::text::recursion::{self, Row};
use crate::report::text::stacks;

/// Frames shown of a stack; JSON has all.
const MAX_FRAMES: usize = 200;
/// Thread names in the line of a group.
const MAX_NAMES: usize = 32;
/// Groups of threads with one stack.
const MAX_GROUPS: usize = 500;

const FRAME: &[Column] = &[
    ("frame", Kind::Number),
    ("module", Kind::Word),
    ("function", Kind::Name),
    ("source", Kind::Word),
];

/// All threads: the crashing one is open, the others open when they are asked for.
pub fn write(report: &Report, page: &mut Markup) {
    let groups = stacks::grouped(report);
    for group in groups.iter().take(MAX_GROUPS) {
        let mut threads = group.iter().filter_map(|&index| report.threads.get(index));
        let Some(first) = threads.next() else {
            continue;
        };
        if page.is_full() {
            return;
        }
        let crashed = report.crash_info.crashing_thread;
        if group.iter().any(|&index| crashed == Some(index)) || report.threads.len() == 1 {
            let suffix = if crashed.is_some() { " (crashed)" } else { "" };
            page.leaf(
                "h3",
                &[],
                &format!("Thread {}{suffix}", stacks::name(first)),
            );
            stack(first, page);
            continue;
        }
        page.element("details", &[], |page| {
            page.leaf("summary", &[], &group_line(group, first, report));
            stack(first, page);
        });
    }
    if let Some(more) = groups.len().checked_sub(MAX_GROUPS + 1) {
        let more = count(more as u64 + 1, "more stack");
        page.leaf("p", &[], &format!("and {more}: --format json has them"));
    }
}

fn group_line(group: &[usize], first: &Thread, report: &Report) -> String {
    let threads = group.iter().filter_map(|&index| report.threads.get(index));
    let names: Vec<String> = threads.take(MAX_NAMES).map(stacks::name).collect();
    let more = match group.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(" and {} more", thousands(more as u64)),
    };
    let what = match group.len() {
        1 => "Thread".to_owned(),
        threads => format!("{} threads:", thousands(threads as u64)),
    };
    format!(
        "{what} {}{more}{}",
        names.join(", "),
        stacks::in_system_call(first)
    )
}

/// The stack of a thread, repeated frames as one row.
fn stack(thread: &Thread, page: &mut Markup) {
    let caption = format!("Stack of thread {}", thread.thread_id);
    table::write(&caption, false, FRAME, page, |rows| {
        let all = recursion::rows(thread);
        for (number, row) in all.iter().enumerate() {
            if number >= MAX_FRAMES || rows.is_full() {
                let more = count((all.len() - number) as u64, "more frame");
                rows.remark(&format!("{more}: --format json has them"));
                break;
            }
            match *row {
                Row::Frame(found) => frame(found, rows),
                Row::Repeat {
                    period,
                    times,
                    last,
                } => rows.remark(&format!(
                    "the {} above, {}, up to {last}",
                    count(period as u64, "frame"),
                    count(times, "more time")
                )),
                Row::Omitted(frames) => {
                    rows.remark(&format!("{} that are not kept", count(frames, "frame")));
                }
            }
        }
        if let Some(end) = stacks::end(thread) {
            rows.remark(end);
        }
    });
}

/// A recorded stack.
pub fn frames<'f>(caption: &str, frames: impl Iterator<Item = &'f Frame>, page: &mut Markup) {
    table::write(caption, false, FRAME, page, |rows| {
        for found in frames.take(MAX_FRAMES) {
            frame(found, rows);
        }
    });
}

fn frame(frame: &Frame, rows: &mut Rows<'_>) {
    let module = frame.module.as_deref().unwrap_or("?");
    let number = frame.frame as u64;
    for inline in &frame.inlines {
        let name = stacks::short_name(inline.function.as_deref().unwrap_or("?"), None);
        let place = stacks::place(inline.file.as_deref(), inline.line);
        rows.row(&[
            Cell::Number(number),
            Cell::Text(module),
            Cell::Text(&format!("{name} [inlined]")),
            Cell::Text(bare(&place)),
        ]);
    }
    let trust = match frame.trust.as_str() {
        "context" | "cfi" | "prewalked" => String::new(),
        trust => format!(" [{}]", escaped(trust)),
    };
    let place = stacks::place(frame.file.as_deref(), frame.line);
    rows.row(&[
        Cell::Number(number),
        Cell::Text(module),
        Cell::Text(&format!("{}{trust}", stacks::function(frame))),
        Cell::Text(bare(&place)),
    ]);
}

/// A place without its brackets.
fn bare(place: &str) -> &str {
    place.trim_start_matches(" (").trim_end_matches(')')
}

/// The executable and its libraries.
pub fn modules(report: &Report, page: &mut Markup) {
    let columns = [
        ("start", Kind::Word),
        ("end", Kind::Word),
        ("file", Kind::Name),
        ("build ID", Kind::Word),
        ("symbols", Kind::Word),
    ];
    page.element("details", &[], |page| {
        let modules = count(report.modules.len() as u64, "module");
        page.leaf("summary", &[], &modules);
        table::write("Modules, by address", true, &columns, page, |rows| {
            for module in &report.modules {
                if rows.is_full() {
                    return;
                }
                let (start, end) = (module.base_addr, module.end_addr);
                rows.row(&[
                    Cell::Shown(start.0, start.to_string()),
                    Cell::Shown(end.0, end.to_string()),
                    Cell::Text(&module.path),
                    Cell::Text(module.code_id.as_deref().unwrap_or("")),
                    Cell::Text(match (module.loaded_symbols, module.verified) {
                        (true, true) => "file found",
                        (true, false) => "file found, unverified",
                        (false, _) => "no file",
                    }),
                ]);
            }
        });
    });
}
