//! Reports of the sanitizers (address, leak, memory, thread, undefined behaviour), of gcc and clang.

mod asan;
mod lsan;
mod tsan;
mod ubsan;

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Record, Role, Source, Stack};
use crate::text;

/// What a line inside a report means.
enum Section {
    /// A stack begins.
    Stack(Role, Option<String>),
    /// The line says something of the record, which is noted.
    Noted,
}

/// A report that is being read.
struct Open {
    record: Record,
    /// Number of the last frame, while a stack takes frames.
    frame: Option<u64>,
    /// True while a stack takes frames.
    taking: bool,
    /// What stands before the report's first line: a logger's or a container's name.
    prefix: String,
}

impl Open {
    fn new(record: Record, line: u64, prefix: &str) -> Self {
        let mut record = record;
        record.source = Source::at(line);
        Self {
            record,
            frame: None,
            taking: false,
            prefix: prefix.to_owned(),
        }
    }

    fn begin(&mut self, role: Role, thread: Option<String>) {
        // A section without frames of its own gives way to the next.
        self.record.stacks.retain(|stack| !stack.frames.is_empty());
        self.record.stacks.push(Stack {
            role,
            thread,
            frames: Vec::new(),
        });
        self.frame = None;
        self.taking = true;
    }

    fn push(&mut self, number: u64, frame: crate::record::Frame) {
        if self.frame.is_some_and(|last| number <= last) {
            self.taking = false; // a stack of a section that is not known
        }
        if !self.taking {
            return;
        }
        self.frame = Some(number);
        if let Some(stack) = self.record.stacks.last_mut()
            && stack.frames.len() < MAX_FRAMES
        {
            stack.frames.push(frame);
        }
    }

    fn finish(mut self) -> Record {
        self.record.stacks.retain(|stack| !stack.frames.is_empty());
        self.record
    }
}

/// Reads the sanitizers' reports.
#[derive(Default)]
pub(super) struct Sanitizer {
    open: Option<Open>,
    leaks: lsan::Leaks,
}

impl Format for Sanitizer {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text;
        if let Some(heading) = Heading::of(text) {
            self.close(out);
            self.begin(&heading, line.piece.number, out);
            return true;
        }
        if text.contains(": runtime error: ")
            && let Some(record) = ubsan::heading(text)
        {
            self.close(out);
            let mut open = Open::new(record, line.piece.number, "");
            open.begin(Role::Access, None);
            self.open = Some(open);
            return true;
        }
        let text = match &self.open {
            Some(open) => text.strip_prefix(open.prefix.as_str()).unwrap_or(text),
            None => text.strip_prefix(self.leaks.prefix()).unwrap_or(text),
        };
        if self.leaks.is_open()
            && let Some(record) = lsan::leak(text, out, line.piece.number)
        {
            self.next_leak(out);
            let mut open = self.leaks.leak(record, line.piece.number);
            open.begin(Role::Allocation, None);
            self.open = Some(open);
            return true;
        }
        if text.starts_with("SUMMARY: ") {
            return self.summary(text, out);
        }
        let Some(open) = &mut self.open else {
            return self.leaks.is_open() && self.leaks.line(text, out);
        };
        if let Some((number, frame)) = frames::sanitizer(text) {
            open.push(number, frame);
            return true;
        }
        if text.trim().is_empty() {
            open.taking = false;
            if self.leaks.is_open() {
                self.next_leak(out);
            }
            return true;
        }
        let section = match open.record.tool.as_str() {
            "tsan" => tsan::section(text, &mut open.record),
            "lsan" | "ubsan" => None,
            _ => asan::section(text, &mut open.record),
        };
        match section {
            Some(Section::Stack(role, thread)) => open.begin(role, thread),
            Some(Section::Noted) => {}
            None => return self.leaks.line(text, out) || is_noise(text),
        }
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        self.close(out);
    }
}

impl Sanitizer {
    fn begin(&mut self, heading: &Heading<'_>, number: u64, out: &mut Out<'_>) {
        let record = match heading.tool {
            "lsan" => {
                if heading.text.starts_with("detected memory leaks") {
                    self.leaks.begin(heading);
                } else {
                    out.note(heading.text);
                }
                return;
            }
            "tsan" => Some(tsan::heading(heading.text)),
            "msan" => Some(Record::new(
                "msan",
                Kind::UninitialisedUse,
                text::cut(heading.text, 100),
            )),
            "ubsan" => asan::heading("ubsan", heading.text),
            tool => asan::heading(tool, heading.text),
        };
        let Some(mut record) = record_of(record, heading) else {
            out.note(heading.text);
            return;
        };
        if record.tool == "msan" && !heading.text.starts_with("use-of-uninitialized-value") {
            record.set_kind(asan::kind(heading.text));
        }
        let role = match record.kind.as_str() {
            "double-free" | "invalid-free" | "mismatched-free" if record.tool != "tsan" => {
                Role::Free
            }
            _ => Role::Access,
        };
        let thread = asan::thread(heading.text);
        let is_tsan = record.tool == "tsan";
        let mut open = Open::new(record, number, heading.prefix);
        if !is_tsan {
            open.begin(role, thread);
        }
        self.open = Some(open);
    }

    fn summary(&mut self, text: &str, out: &mut Out<'_>) -> bool {
        let known = self.open.is_some() || self.leaks.is_open();
        if let Some(open) = &mut self.open
            && open.record.tool == "ubsan"
        {
            ubsan::summary(text, &mut open.record);
        }
        self.close(out);
        known
    }

    /// The leak that is open, if one is, is complete.
    fn next_leak(&mut self, out: &mut Out<'_>) {
        if let Some(open) = self.open.take() {
            self.leaks.push(open.finish(), out);
        }
    }

    fn close(&mut self, out: &mut Out<'_>) {
        if self.leaks.is_open() {
            self.next_leak(out);
            self.leaks.close(out);
        } else if let Some(open) = self.open.take() {
            let mut record = open.finish();
            if record.tool == "tsan" {
                tsan::settle(&mut record);
            }
            out.record(record);
        }
    }
}

/// Gives the record what its heading says of the process.
fn record_of(record: impl Into<Option<Record>>, heading: &Heading<'_>) -> Option<Record> {
    let mut record = record.into()?;
    record.pid = heading.pid;
    record.process = heading.process.map(str::to_owned);
    heading.text.clone_into(&mut record.message);
    Some(record)
}

/// Lines of a report that say nothing more.
fn is_noise(text: &str) -> bool {
    let text = text.trim_start();
    ["=>0x", "DEDUP_TOKEN:", "Shadow byte", "HINT:", "0x"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The first line of a report: `==exe==PID==ERROR: AddressSanitizer: TEXT`.
struct Heading<'a> {
    tool: &'static str,
    pid: Option<u64>,
    process: Option<&'a str>,
    text: &'a str,
    prefix: &'a str,
}

impl<'a> Heading<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let at = line.find("Sanitizer: ")?;
        let (before, text) = (&line[..at], &line[at + "Sanitizer: ".len()..]);
        let before = before.trim_end_matches(|c: char| c.is_ascii_alphanumeric());
        let tool = match &line[before.len()..at] {
            "Address" => "asan",
            "HWAddress" => "hwasan",
            "Leak" => "lsan",
            "Memory" => "msan",
            "Thread" => "tsan",
            "UndefinedBehavior" => "ubsan",
            _ => return None,
        };
        let marks = before
            .strip_suffix("ERROR: ")
            .or_else(|| before.strip_suffix("WARNING: "))?;
        let mut heading = Heading {
            tool,
            pid: None,
            process: None,
            text,
            prefix: "",
        };
        let Some(start) = marks.find("==") else {
            heading.prefix = marks;
            if tool == "tsan" {
                heading.pid = text::number_after(text, "(pid=");
            }
            return Some(heading);
        };
        heading.prefix = &marks[..start];
        let mut names = marks[start + 2..].trim_end_matches('=').rsplit("==");
        heading.pid = names.next().and_then(text::number);
        heading.process = names.next().filter(|name| !name.is_empty());
        Some(heading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings() {
        let heading = Heading::of(
            "==bakery==30774==ERROR: AddressSanitizer: heap-use-after-free on address 0x6",
        )
        .unwrap();
        assert_eq!(
            (heading.tool, heading.pid, heading.process),
            ("asan", Some(30774), Some("bakery"))
        );
        let heading =
            Heading::of("app_1 | ==7==WARNING: MemorySanitizer: use-of-uninitialized-value")
                .unwrap();
        assert_eq!(
            (heading.tool, heading.pid, heading.prefix),
            ("msan", Some(7), "app_1 | ")
        );
        let heading = Heading::of("WARNING: ThreadSanitizer: data race (pid=30849)").unwrap();
        assert_eq!((heading.tool, heading.pid), ("tsan", Some(30849)));
        assert!(Heading::of("SUMMARY: AddressSanitizer: double-free x").is_none());
        assert!(Heading::of("ThreadSanitizer: reported 3 warnings").is_none());
    }
}
