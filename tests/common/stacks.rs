//! Stacks as rows, ours and gdb's, to be held against each other.

use std::collections::BTreeMap;

use serde_json::Value;

/// Rows compared per thread; testdata/stacks/gdb.py gives a few more.
const COMPARED: usize = 1900;

/// A frame or an inlined call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub pc: String,
    pub function: String,
    /// The file's last two parts, and the line.
    pub place: Option<(String, u64)>,
}

pub type Stacks = BTreeMap<u64, Vec<Row>>;

/// What is compared of a function's name: demanglers and debug information differ in return types, arguments and the
/// spelling of closures, but not in the last part of the path.
pub fn key(name: &str) -> String {
    if name.starts_with('<') && name.ends_with('>') && !name.contains("::") {
        return name.to_owned();
    }
    let mut name = name.split(" [clone").next().unwrap_or(name).to_owned();
    if !name.ends_with("@plt") {
        name = name.split('@').next().unwrap_or("").to_owned();
    }
    for suffix in [".cold", ".part.", ".constprop.", ".isra."] {
        name = name.split(suffix).next().unwrap_or("").to_owned();
    }
    // Two names of one function in static programs.
    if name == "__libc_start_main_impl" {
        name = "__libc_start_main".to_owned();
    }
    let mut short = String::new();
    let mut depth = 0u32;
    for letter in name.chars() {
        match letter {
            '<' | '(' => depth += 1,
            '>' | ')' => depth = depth.saturating_sub(1),
            letter if depth == 0 => short.push(letter),
            _ => {}
        }
    }
    let short = short
        .trim_end_matches(" const")
        .trim()
        .trim_end_matches("::");
    let last = short.rsplit("::").next().unwrap_or(short).trim();
    let last = last.rsplit(' ').next().unwrap_or(last);
    match last.find('{') {
        Some(0) => "{}".to_owned(),
        Some(at) => last[..at].to_owned(),
        None => last.to_owned(),
    }
}

/// The last two parts of a path.
pub fn short_file(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts[parts.len().saturating_sub(2)..].join("/")
}

/// The rows of a report.
pub fn ours(report: &Value) -> Stacks {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let place =
        |value: &Value| Some((short_file(value["file"].as_str()?), value["line"].as_u64()?));
    let threads = report["threads"].as_array().unwrap().iter();
    threads
        .map(|thread| {
            let mut rows = Vec::new();
            for frame in thread["frames"].as_array().unwrap() {
                let pc = text(&frame["resume_address"]).unwrap();
                let inlines = frame["inlines"].as_array().unwrap();
                for call in inlines.iter().chain([frame]) {
                    rows.push(Row {
                        pc: pc.clone(),
                        function: text(&call["function"]).map_or("?".into(), |name| key(&name)),
                        place: place(call),
                    });
                }
            }
            rows.truncate(COMPARED);
            (thread["thread_id"].as_u64().unwrap(), rows)
        })
        .collect()
}

/// The rows of what testdata/stacks/gdb.py prints.
pub fn stacks_of(text: &str) -> Stacks {
    let mut stacks = Stacks::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(thread) = line.strip_prefix("T ") {
            current = thread.parse().ok();
            stacks.insert(current.unwrap(), Vec::new());
        } else if let Some(frame) = line.strip_prefix("F ")
            && let [pc, kind, function, file, line] = frame.split('\t').collect::<Vec<_>>()[..]
            && kind != "tailcall"
        {
            // gdb invents frames of functions that were left by a jump, from what call sites say: they have no frame.
            let rows = stacks.get_mut(&current.unwrap()).unwrap();
            rows.push(Row {
                pc: pc.into(),
                function: match kind {
                    "signal" => "<signal handler called>".into(),
                    _ => key(function),
                },
                place: (file != "?").then(|| (short_file(file), line.parse().unwrap())),
            });
        }
    }
    for rows in stacks.values_mut() {
        rows.truncate(COMPARED);
    }
    stacks
}

/// The first frame in which gdb's stack and ours differ, with both.
pub fn first_difference<'r>(
    gdb: &'r [Row],
    ours: &'r [Row],
) -> Option<(usize, Option<&'r Row>, Option<&'r Row>)> {
    let rows = (0..gdb.len().max(ours.len())).map(|at| (at, gdb.get(at), ours.get(at)));
    rows.into_iter()
        .find(|(_, left, right)| match (left, right) {
            (Some(left), Some(right)) => {
                left.pc != right.pc
                    || left.function != right.function
                    || left.place.is_some() && left.place != right.place
            }
            _ => true,
        })
}
