//! `--xml=yes`: fragments between `<error>` and `</error>` are read by events, so that what stands between them, a missing end or a
//! second document costs nothing.

use std::collections::HashMap;

use quick_xml::Reader;
use quick_xml::events::Event;

use super::Told;
use crate::import::{Format, Line, Out, frames};
use crate::record::{Frame, Record};
use crate::text as scan;

/// Longest `<error>` that is read, in bytes.
const MAX_FRAGMENT: usize = 4 << 20;
/// Most errors of one document that wait for their counts.
const MAX_WAITING: usize = 4096;

/// Elements that are read whole.
const WANTED: [&str; 7] = [
    "error",
    "errorcounts",
    "pid",
    "args",
    "protocoltool",
    "fatal_signal",
    "announcethread",
];

/// Reads valgrind's XML.
#[derive(Default)]
pub(in crate::import) struct Xml {
    inside: bool,
    /// The element that is being gathered, and its text so far.
    element: Option<&'static str>,
    fragment: Vec<u8>,
    began: u64,
    too_long: bool,
    pid: Option<u64>,
    process: Option<String>,
    tool: String,
    /// Records that wait for their counts, by valgrind's number.
    waiting: Vec<(String, Record)>,
    counts: HashMap<String, u64>,
}

impl Format for Xml {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.trim_start();
        if self.element.is_none() {
            if line.piece.first
                && (text.starts_with("<?xml") || text.starts_with("<valgrindoutput>"))
            {
                if text.starts_with("<?xml") || !self.inside {
                    self.close(out);
                }
                self.inside = text.starts_with("<valgrindoutput>") || text.contains("<?xml");
                return true;
            }
            if text.starts_with("<valgrindoutput>") {
                self.inside = true;
                return true;
            }
            if !self.inside {
                return false;
            }
            if text.starts_with("</valgrindoutput>") {
                self.close(out);
                return true;
            }
            let Some(element) = WANTED.iter().find(|name| {
                text.strip_prefix('<').is_some_and(|rest| {
                    rest.starts_with(*name) && rest[name.len()..].starts_with('>')
                })
            }) else {
                return text.starts_with('<') || text.is_empty();
            };
            self.element = Some(element);
            self.began = line.piece.number;
            self.fragment.clear();
            self.too_long = false;
        } else if text.starts_with("<?xml")
            || (text.starts_with("<error>") && self.element == Some("error"))
        {
            out.failure(self.began, "an element of valgrind's XML does not end");
            self.element = None;
            return self.line(line, out);
        }
        if self.fragment.len() + line.bytes.len() < MAX_FRAGMENT {
            self.fragment.extend_from_slice(line.bytes);
            if line.piece.last {
                self.fragment.push(b'\n');
            }
        } else {
            self.too_long = true;
        }
        if let Some(element) = self.element
            && ends(line.text, element)
        {
            self.element = None;
            self.take(element, out);
        }
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        if self.element == Some("error") {
            out.failure(self.began, "the log ends in the middle of an error");
        }
        self.element = None;
        self.close(out);
    }

    fn wants_pieces(&self) -> bool {
        self.inside
    }
}

fn ends(text: &str, element: &str) -> bool {
    text.trim_end()
        .strip_suffix('>')
        .and_then(|text| text.strip_suffix(element))
        .is_some_and(|text| text.ends_with("</"))
}

impl Xml {
    fn take(&mut self, element: &str, out: &mut Out<'_>) {
        let fragment = std::mem::take(&mut self.fragment);
        if self.too_long {
            out.failure(self.began, "an element of valgrind's XML is too long");
            return;
        }
        let Some(read) = read(&fragment) else {
            out.failure(self.began, "an element of valgrind's XML cannot be read");
            return;
        };
        match element {
            "pid" => self.pid = scan::number(&read.own),
            "protocoltool" => read.own.trim().clone_into(&mut self.tool),
            "args" => {
                self.process = read
                    .program
                    .as_deref()
                    .map(|path| scan::base_name(path).to_owned())
            }
            "errorcounts" => self.counts.extend(read.counts),
            "error" => self.error(read, out),
            "fatal_signal" => {
                let mut told = read.told;
                told.kind = "FatalSignal".to_owned();
                told.what = format!(
                    "Process terminating with signal {}",
                    read.signal.unwrap_or_default()
                );
                let known = self.waiting.last().is_some_and(|(_, last)| {
                    let at = |stack: Option<&Vec<Frame>>| {
                        stack
                            .and_then(|frames| frames.first())
                            .and_then(|frame| frame.address.clone())
                    };
                    at(told.stacks.first()) == at(last.stacks.first().map(|stack| &stack.frames))
                });
                if !known && !told.stacks.is_empty() {
                    self.error(
                        Read {
                            told,
                            unique: "signal".to_owned(),
                            ..Read::default()
                        },
                        out,
                    );
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, read: Read, out: &mut Out<'_>) {
        let mut told = read.told;
        told.line = self.began;
        if told.kind.is_empty() {
            out.failure(self.began, "an error without a kind");
            return;
        }
        let Some(mut record) = told.record() else {
            out.folded(1);
            return;
        };
        record.pid = self.pid;
        record.process.clone_from(&self.process);
        if !matches!(self.tool.as_str(), "" | "memcheck") {
            record.attributes.insert(
                "valgrind_tool".to_owned(),
                scan::cut(&self.tool, 40).to_owned(),
            );
        }
        if self.waiting.len() < MAX_WAITING {
            self.waiting.push((read.unique, record));
        } else {
            out.record(record);
        }
    }

    /// The document is complete, or another begins.
    fn close(&mut self, out: &mut Out<'_>) {
        for (unique, mut record) in std::mem::take(&mut self.waiting) {
            record.occurrences = self.counts.get(&unique).copied();
            out.record(record);
        }
        self.counts.clear();
        (self.pid, self.process, self.inside) = (None, None, false);
        self.tool.clear();
    }
}

/// What is in a fragment.
#[derive(Default)]
struct Read {
    told: Told,
    unique: String,
    /// Text directly in the fragment's element.
    own: String,
    /// `argv`'s `exe`.
    program: Option<String>,
    counts: Vec<(String, u64)>,
    signal: Option<String>,
}

/// Reads one fragment; none if it is not XML.
fn read(fragment: &[u8]) -> Option<Read> {
    let fragment = String::from_utf8_lossy(fragment);
    let mut reader = Reader::from_str(&fragment);
    let mut read = Read::default();
    let mut open: Vec<String> = Vec::new();
    let mut text = String::new();
    let mut frame = Frame::default();
    let (mut object, mut folder) = (None::<String>, None::<String>);
    let mut pair = (None::<u64>, String::new());
    loop {
        match reader.read_event().ok()? {
            Event::Eof => return open.is_empty().then_some(read),
            Event::Start(start) => {
                if open.len() > 16 {
                    return None;
                }
                match start.name().as_ref() {
                    "stack" if read.told.stacks.len() < 16 => read.told.stacks.push(Vec::new()),
                    "frame" => (frame, object, folder) = (Frame::default(), None, None),
                    _ => {}
                }
                open.push(start.name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(name) => text.push_str(&reference(&name)),
            Event::End(end) => {
                if open.pop()? != end.name().as_ref() {
                    return None;
                }
                let value = std::mem::take(&mut text);
                let parent = open.last().map_or("", String::as_str);
                let told = &mut read.told;
                match (parent, end.name().as_ref()) {
                    ("", _) => read.own = value,
                    ("error", "unique") => read.unique = value,
                    ("error", "tid") => told.thread = Some(value),
                    ("error", "kind") => told.kind = value,
                    ("error", "what") | ("xwhat", "text") if told.what.is_empty() => {
                        told.what = value
                    }
                    ("error", "what" | "auxwhat") | ("xauxwhat" | "xwhat", "text")
                        if told.notes.len() < 32 =>
                    {
                        told.notes.push((value, told.stacks.len()));
                    }
                    ("xwhat", "leakedbytes") => told.leaked_bytes = scan::number(&value),
                    ("xwhat", "leakedblocks") => told.leaked_blocks = scan::number(&value),
                    ("frame", "ip") => frame.address = scan::address(&value),
                    ("frame", "obj") => object = Some(value),
                    ("frame", "fn") => frames::set_function(&mut frame, &value),
                    ("frame", "dir") => folder = Some(value),
                    ("frame", "file") => frame.file = Some(value),
                    ("frame", "line") => frame.line = scan::number(&value),
                    ("stack", "frame") => {
                        if let Some(path) = object.take() {
                            Record::set_module(&mut frame, &path);
                        }
                        if let (Some(folder), Some(file)) = (folder.take(), frame.file.as_mut()) {
                            *file = format!("{folder}/{file}");
                        }
                        told.push(std::mem::take(&mut frame));
                    }
                    ("argv", "exe") => read.program = Some(value),
                    ("pair", "count") => pair.0 = scan::number(&value),
                    ("pair", "unique") => pair.1 = value,
                    ("errorcounts", "pair") if read.counts.len() < MAX_WAITING => {
                        if let (Some(count), unique) = std::mem::take(&mut pair) {
                            read.counts.push((unique, count));
                        }
                    }
                    (_, "signame") => read.signal = Some(value),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// The character that `&name;` stands for.
fn reference(name: &str) -> String {
    let code = name
        .strip_prefix("#x")
        .map(|digits| u32::from_str_radix(digits, 16))
        .or_else(|| name.strip_prefix('#').map(str::parse));
    match (name, code) {
        (_, Some(Ok(code))) => char::from_u32(code).unwrap_or('\u{fffd}').to_string(),
        ("lt", _) => "<".to_owned(),
        ("gt", _) => ">".to_owned(),
        ("amp", _) => "&".to_owned(),
        ("quot", _) => "\"".to_owned(),
        ("apos", _) => "'".to_owned(),
        _ => "\u{fffd}".to_owned(),
    }
}
