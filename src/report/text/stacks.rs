//! Call stacks.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::report::escape::escaped;
use crate::report::schema::{Frame, Report, Thread};

use super::number::thousands;
use super::page::{Page, Role};
use super::recursion::{self, Row};

/// Least and most columns of a module's name; in between, those of the longest name.
const MODULE: std::ops::RangeInclusive<usize> = 25..=40;

/// Frames shown of each end of a long stack in the heap report; the thread dump and JSON have all.
const ENDS: usize = 20;

/// Longest name of a function that is shown whole, in bytes.
const MAX_NAME: usize = 150;

/// However narrow a terminal is, a name has so many bytes.
const LEAST_NAME: usize = 40;

/// Thread ids named of a group of threads.
const NAMED: usize = 64;

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
    write_stack(thread, Some(ENDS), page);
}

/// All threads, those with the same stack as one group.
pub fn write_all(report: &Report, page: &mut Page) {
    page.line(&match report.pid {
        Some(pid) => format!("PID: {pid}"),
        None => "PID: unknown".into(),
    });
    for group in grouped(report) {
        let [first, rest @ ..] = group.as_slice() else {
            continue;
        };
        let Some(thread) = report.threads.get(*first) else {
            continue;
        };
        if rest.is_empty() {
            let crashed = match report.crash_info.crashing_thread == Some(*first) {
                true => " (crashed)".to_owned(),
                false => in_system_call(thread),
            };
            let line = page.paint(Role::Strong, &format!("Thread {}{crashed}", name(thread)));
            page.line(&line);
        } else {
            let threads = group.iter().filter_map(|&index| report.threads.get(index));
            let names: Vec<String> = threads.take(NAMED).map(name).collect();
            let more = match group.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {} more", thousands(more as u64)),
            };
            let count = thousands(group.len() as u64);
            page.sentence(
                0,
                Role::Strong,
                &format!("{count} threads: {}{more}", names.join(" ")),
            );
        }
        write_stack(thread, None, page);
    }
}

/// ` (in futex)`. That a thread was running is nothing to say.
pub fn in_system_call(thread: &Thread) -> String {
    let state = thread.state.as_deref().unwrap_or("");
    match state.starts_with("in ") {
        true => format!(" ({})", escaped(state)),
        false => String::new(),
    }
}

/// Indices of threads whose stacks are the same, in order of the first of each. The crashing thread stands alone.
pub fn grouped(report: &Report) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut known: HashMap<_, usize> = HashMap::new();
    for (index, thread) in report.threads.iter().enumerate() {
        let key = (report.crash_info.crashing_thread != Some(index)).then(|| {
            let frames = thread.frames.iter();
            let omitted = thread.omitted_frames.map(|omitted| omitted.count);
            let pcs: Vec<_> = frames.map(|frame| (frame.offset, &frame.trust)).collect();
            (pcs, omitted, &thread.stack_end)
        });
        match key {
            Some(key) => match known.entry(key) {
                Entry::Occupied(group) => {
                    if let Some(group) = groups.get_mut(*group.get()) {
                        group.push(index);
                    }
                }
                Entry::Vacant(place) => {
                    place.insert(groups.len());
                    groups.push(vec![index]);
                }
            },
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// A thread's frames, and why there are no more. `ends`: at most so many rows of each end.
fn write_stack(thread: &Thread, ends: Option<usize>, page: &mut Page) {
    let rows = recursion::rows(thread);
    let hidden = ends.map_or(0, |ends| rows.len().saturating_sub(2 * ends));
    let ends = ends.unwrap_or(0);
    let module = module_columns(&thread.frames);
    let note = |text: String, page: &mut Page| {
        let line = format!("        {}", page.paint(Role::Faint, &text));
        page.line(&line);
    };
    for (place, row) in rows.iter().enumerate() {
        if hidden > 0 && place == ends {
            note(
                format!("... {} more frames", thousands(hidden as u64)),
                page,
            );
        }
        if hidden > 0 && (ends..ends + hidden).contains(&place) {
            continue;
        }
        match *row {
            Row::Frame(frame) => write_frame(2, module, frame, page),
            Row::Repeat {
                period,
                times,
                last,
            } => {
                let what = match period {
                    1 => "the frame above".to_owned(),
                    period => format!("the {period} frames above"),
                };
                let times = match times {
                    1 => "once more".to_owned(),
                    times => format!("{} times more", thousands(times)),
                };
                note(format!("... {what} {times}, up to [{last}]"), page);
            }
            Row::Omitted(count) => note(
                format!("... {} frames that are not kept", thousands(count)),
                page,
            ),
        }
    }
    let Some(end) = end(thread) else { return };
    let line = format!("        {}", page.paint(Role::Warning, &format!("({end})")));
    page.line(&line);
}

/// Why the stack is not whole, if it is not.
pub fn end(thread: &Thread) -> Option<&'static str> {
    Some(match thread.stack_end.as_deref() {
        None | Some("complete") => return None,
        Some("not-in-core") => "the stack beyond is not in the core",
        Some("not-rising") => "the stack ends here: overwritten, or a circle of frames",
        Some("lost") => {
            "nothing leads further: the stack is overwritten, or this code has no call-frame information"
        }
        Some("overwritten") => {
            "the stack is overwritten: a return address is in no code, frames beyond it are a guess"
        }
        Some("no-file") => {
            "frames end here: without the file of a module above, its callers are not known"
        }
        Some("too-long") => "the stack goes on; it is too deep to be followed",
        Some(_) => "the stack goes on",
    })
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
    let room = |place: &str, page: &Page| {
        let other = indent + columns.max(frame.module.as_ref().map_or(1, String::len)) + 7;
        let width = page.terminal_width()?;
        Some(width.saturating_sub(other + place.len()))
    };
    for inline in &frame.inlines {
        let place = place(inline.file.as_deref(), inline.line);
        let name = inline.function.as_deref().unwrap_or("?");
        let function = escaped(&short_name(name, room(&place, page)));
        let line = format!("{}{function}{place} [inlined]", lead(page));
        page.line(&line);
    }
    // Only what is less than certain is worth a word.
    let trust = match frame.trust.as_str() {
        "context" | "cfi" | "prewalked" => String::new(),
        trust => page.paint(Role::Warning, &format!(" [{}]", escaped(trust))),
    };
    let place = place(frame.file.as_deref(), frame.line);
    let function = match &frame.function {
        Some(name) => escaped(&short_name(name, room(&place, page))),
        None => function(frame),
    };
    let line = format!("{}{function}{place}{trust}", lead(page));
    page.line(&line);
}

/// The function, else the offset in the module, else the address.
pub fn function(frame: &Frame) -> String {
    match (&frame.function, frame.module_offset) {
        (Some(function), _) => escaped(&short_name(function, None)),
        (None, Some(offset)) => format!("+{offset}"),
        (None, None) => frame.offset.to_string(),
    }
}

/// ` (src/linked_list.h:49)`.
pub fn place(file: Option<&str>, line: Option<u32>) -> String {
    let file = file.map(|file| escaped(short_path(file)));
    match (file, line) {
        (Some(file), Some(line)) => format!(" ({file}:{line})"),
        (Some(file), None) => format!(" ({file})"),
        (None, _) => String::new(),
    }
}

/// A name that is not too long to be read: template arguments of a longer one become `<...>`, then its parameters `(...)`.
/// JSON has all of it. `room`: columns that a terminal has for it.
pub fn short_name(name: &str, room: Option<usize>) -> Cow<'_, str> {
    let most = room.map_or(MAX_NAME, |room| room.clamp(LEAST_NAME, MAX_NAME));
    if name.len() <= most {
        return name.into();
    }
    let short = emptied(name, '<', '>').unwrap_or_else(|| name.to_owned());
    if short.len() <= most {
        return short.into();
    }
    let short = emptied(&short, '(', ')').unwrap_or(short);
    let whole = if room.is_some() { most } else { 2 * MAX_NAME };
    let cut = short.char_indices().nth(whole);
    match cut.and_then(|(at, _)| short.get(..at)) {
        Some(start) => format!("{start}...").into(),
        None => short.into(),
    }
}

/// The text with the contents of its outermost brackets replaced by dots; `None` if they are not in pairs.
fn emptied(text: &str, open: char, close: char) -> Option<String> {
    let mut short = String::new();
    let mut depth = 0u32;
    let mut before = ' ';
    for (at, letter) in text.char_indices() {
        let rest = text.get(at..)?;
        // Brackets that are none: an operator's, an arrow's, those around a whole path ("<T as Trait>::f", "(anonymous").
        let operator = short.ends_with("operator") || short.ends_with("operator<");
        let starts_path = short.is_empty() || rest.starts_with("(anonymous namespace)");
        let arrow = letter == '>' && matches!(before, '-' | '=');
        before = letter;
        if depth == 0 && (operator || starts_path) || arrow {
            if depth == 0 {
                short.push(letter);
            }
            continue;
        }
        if letter == open {
            if depth == 0 {
                short.push(open);
                short.push_str("...");
            }
            depth = depth.checked_add(1)?;
        } else if letter == close && depth > 0 {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                short.push(close);
            }
        } else if depth == 0 {
            short.push(letter);
        }
    }
    (depth == 0).then_some(short)
}

/// The last two parts of a path: `src/linked_list.h`. JSON has all of it.
fn short_path(path: &str) -> &str {
    let mut cuts = path.rmatch_indices('/').map(|(at, _)| at);
    cuts.nth(1)
        .and_then(|at| path.get(at.saturating_add(1)..))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_keeps_what_tells_it_apart() {
        let argument = "std::allocator<char>, ".repeat(10);
        let check = |name: &str, short: &str| {
            let name = name.replace("ARGUMENT", &argument);
            assert_eq!(short_name(&name, None), short);
        };
        check("f<int>(int)", "f<int>(int)");
        check(
            "int std::map<ARGUMENT>::at(Key<ARGUMENT> const&)",
            "int std::map<...>::at(Key<...> const&)",
        );
        check("<A<ARGUMENT> as B>::f", "<A<...> as B>::f");
        check(
            "std::ostream& operator<< <ARGUMENT>(int)",
            "std::ostream& operator<< <...>(int)",
        );
        check("f(ARGUMENT)", "f(...)");
        assert!(short_name(&"<".repeat(5000), None).len() < 400);
        let name = "void list<int>::insert(int, int, unsigned long)";
        assert_eq!(short_name(name, Some(100)), name);
        assert_eq!(short_name(name, Some(9)), "void list<...>::insert(...)");
    }

    #[test]
    fn a_path_keeps_its_last_two_parts() {
        for (path, short) in [
            ("/build/gperftools/src/linked_list.h", "src/linked_list.h"),
            ("src/linked_list.h", "src/linked_list.h"),
            ("/a.c", "/a.c"),
            ("a.c", "a.c"),
            ("", ""),
        ] {
            assert_eq!(short_path(path), short);
        }
    }
}
