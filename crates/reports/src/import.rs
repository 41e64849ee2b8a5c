//! Logs of many tools, read as a stream of records. A format is told by its content: a file may hold reports of several processes
//! and tools, with the program's own output between them.

mod casr;
mod drmemory;
mod frames;
mod gperftools;
mod heapcheck;
mod json;
mod libmemleak;
pub(crate) mod lines;
mod memleak;
pub(crate) mod mtrace;
mod profile;
mod sanitizer;
mod symbolise;
mod valgrind;

use std::collections::BTreeMap;
use std::io::{self, BufRead};
use std::sync::Arc;

use crate::key::{Frames, Key};
use crate::record::{Frame, Record, Source};
use crate::text;
pub(crate) use heapcheck::OWNER;
use lines::{Lines, Piece};
pub use symbolise::{Code, Symboliser};

/// Most frames of a stack that are kept; a stack that recurses is not worth more.
pub const MAX_FRAMES: usize = 256;
/// Most stacks of a record that are kept.
const MAX_STACKS: usize = 24;
/// Longest name that is kept, in bytes.
const MAX_NAME: usize = 4096;
/// Most failures that are described; the rest is counted.
const MAX_FAILURES: usize = 20;

/// What is said of every record of an import.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Labels for `attributes`.
    pub attributes: BTreeMap<String, String>,
    /// Time of records that have none of their own.
    pub time: Option<serde_json::Value>,
    /// Frames that the user wants kept or dropped in keys.
    pub frames: Frames,
    /// Who names frames that the tool left without a name.
    pub symbols: Option<Arc<dyn Symboliser>>,
}

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records written.
    pub created: u64,
    /// Records by kind.
    pub kinds: BTreeMap<String, u64>,
    /// Records by tool.
    pub tools: BTreeMap<String, u64>,
    /// Frames that the tool left without a name and that have one now.
    pub symbolised: u64,
    /// Leaks whose bytes are counted by the record of the block that holds them.
    pub folded: u64,
    /// Records that could not be read.
    pub failures: u64,
    /// The first of them: file, line, reason.
    pub described: Vec<(String, u64, String)>,
    /// What a tool says that it left out.
    pub notes: Vec<String>,
    /// Files in which nothing was recognised.
    pub unrecognised: Vec<String>,
}

/// A line as the formats see it.
struct Line<'a> {
    /// The piece as text, without terminal escapes.
    pub text: &'a str,
    /// The bytes as they were.
    pub bytes: &'a [u8],
    /// Where it is.
    pub piece: Piece,
}

/// A format that is read line by line.
trait Format {
    /// Looks at a line; true if the line is this format's.
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool;
    /// The stream has ended: whatever is open is given out.
    fn end(&mut self, out: &mut Out<'_>);
    /// True while pieces of long lines are wanted, too.
    fn wants_pieces(&self) -> bool {
        false
    }
}

/// Takes what the formats find.
struct Out<'a> {
    file: &'a str,
    options: &'a Options,
    summary: &'a mut Summary,
    ready: Vec<Record>,
}

impl Out<'_> {
    /// A record is complete, but for what all records have in common.
    pub fn record(&mut self, mut record: Record) {
        if record.source.file.is_empty() {
            record.source.file = text::escaped(self.file);
        }
        for (name, value) in &self.options.attributes {
            record.attributes.insert(name.clone(), value.clone());
        }
        if record.time.is_none() {
            record.time.clone_from(&self.options.time);
        }
        if let Some(symbols) = &self.options.symbols {
            self.summary.symbolised += symbolise::name(&mut record, symbols.as_ref());
        }
        tidy(&mut record);
        if record.key.is_empty() || !self.options.frames.is_default() {
            Key::of(&record, &self.options.frames).apply(&mut record);
        }
        if record.id.is_empty() {
            record.set_id();
        }
        self.summary.created += 1;
        *self.summary.kinds.entry(record.kind.clone()).or_default() += 1;
        *self.summary.tools.entry(record.tool.clone()).or_default() += 1;
        self.ready.push(record);
    }

    /// A record could not be read.
    pub fn failure(&mut self, line: u64, why: &str) {
        self.summary.failures += 1;
        if self.summary.described.len() < MAX_FAILURES {
            let why = text::escaped(text::cut(why, 300));
            self.summary
                .described
                .push((self.file.to_owned(), line, why));
        }
    }

    /// Leaks were folded into others.
    pub fn folded(&mut self, count: u64) {
        self.summary.folded += count;
    }

    /// The tool says that it left something out.
    pub fn note(&mut self, note: &str) {
        if self.summary.notes.len() < MAX_FAILURES {
            self.summary.notes.push(text::escaped(text::cut(note, 300)));
        }
    }
}

/// Bounds and escapes every text of a record.
fn tidy(record: &mut Record) {
    fn name(text: &mut String) {
        if text.len() > MAX_NAME {
            text.truncate(text::cut(text, MAX_NAME).len());
        }
        if text.chars().any(text::is_unsafe) {
            *text = text::escaped(text);
        }
    }
    for text in [
        &mut record.tool,
        &mut record.kind,
        &mut record.tool_kind,
        &mut record.message,
    ] {
        name(text);
    }
    record.process.as_mut().map(name);
    record.subject.as_mut().map(name);
    record.stacks.truncate(MAX_STACKS);
    for stack in &mut record.stacks {
        stack.frames.truncate(MAX_FRAMES);
        stack.thread.as_mut().map(name);
        for frame in &mut stack.frames {
            frame.path = None; // it is not written
            let Frame {
                function,
                file,
                module,
                build_id,
                ..
            } = frame;
            for text in [function, file, module, build_id] {
                text.as_mut().map(name);
            }
        }
    }
}

/// Makes a format's reader.
type Make = fn() -> Box<dyn Format>;

/// All formats, by name.
const FORMATS: [(&str, Make); 10] = [
    ("json", || Box::new(json::Json::default())),
    ("valgrind-xml", || Box::new(valgrind::xml::Xml::default())),
    ("sanitizer", || Box::new(sanitizer::Sanitizer::default())),
    (
        "valgrind-text",
        || Box::new(valgrind::text::Text::default()),
    ),
    ("drmemory", || Box::new(drmemory::DrMemory::default())),
    ("profile", || Box::new(profile::Profile::default())),
    ("gperftools", || Box::new(gperftools::Checker::default())),
    ("mtrace", || Box::new(mtrace::Mtrace::default())),
    ("memleak", || Box::new(memleak::Memleak::default())),
    ("libmemleak", || Box::new(libmemleak::Libmemleak::default())),
];

/// The names of all formats.
pub fn formats() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|(name, _)| *name)
}

/// Reads one stream and gives each record to `sink`.
///
/// # Errors
/// What reading the stream or the sink gives. A log that cannot be understood is no error: it is counted in `summary`.
pub fn import(
    reader: impl BufRead,
    file: &str,
    options: &Options,
    summary: &mut Summary,
    sink: &mut dyn FnMut(Record) -> io::Result<()>,
) -> io::Result<()> {
    let formats = FORMATS.iter().map(|(_, make)| make()).collect();
    read(formats, reader, file, options, summary, sink)
}

/// The same by the reader of one format, whatever the content looks like: for whoever tests that reader. `None`: no format has this name.
///
/// # Errors
/// As `import`.
pub fn import_by(
    format: &str,
    reader: impl BufRead,
    sink: &mut dyn FnMut(Record) -> io::Result<()>,
) -> Option<io::Result<()>> {
    let (_, make) = FORMATS.iter().find(|(name, _)| *name == format)?;
    let (options, mut summary) = (Options::default(), Summary::default());
    Some(read(
        vec![make()],
        reader,
        "log",
        &options,
        &mut summary,
        sink,
    ))
}

fn read(
    mut formats: Vec<Box<dyn Format>>,
    reader: impl BufRead,
    file: &str,
    options: &Options,
    summary: &mut Summary,
    sink: &mut dyn FnMut(Record) -> io::Result<()>,
) -> io::Result<()> {
    let mut out = Out {
        file,
        options,
        summary,
        ready: Vec::new(),
    };
    let mut owner = 0;
    let mut recognised = false;
    let mut lines = Lines::new(reader);
    let mut buffer = Vec::new();
    let mut plain = Vec::new();
    while let Some(piece) = lines.next(&mut buffer)? {
        if !piece.first && !formats.iter().any(|format| format.wants_pieces()) {
            continue;
        }
        plain.clear();
        plain.extend_from_slice(&buffer);
        text::strip_escapes(&mut plain);
        let text = String::from_utf8_lossy(&plain);
        let line = Line {
            text: &text,
            bytes: &buffer,
            piece,
        };
        let taken = formats[owner].line(&line, &mut out).then_some(owner);
        let taken = taken.or_else(|| {
            (0..formats.len()).find(|&at| at != owner && formats[at].line(&line, &mut out))
        });
        if let Some(at) = taken {
            owner = at;
            recognised = true;
        }
        for record in out.ready.drain(..) {
            sink(record)?;
        }
    }
    for format in &mut formats {
        format.end(&mut out);
    }
    let last = std::mem::take(&mut out.ready);
    if !recognised && last.is_empty() {
        summary.unrecognised.push(file.to_owned());
    }
    last.into_iter().try_for_each(sink)
}

impl Source {
    /// A line of the file that is being read.
    pub(crate) fn at(line: u64) -> Self {
        Self {
            file: String::new(),
            line,
        }
    }
}
