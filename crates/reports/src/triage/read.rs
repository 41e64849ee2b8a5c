//! Records from files or standard input, one at a time. Lines that `import` wrote are read only as far as grouping needs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::import::{self, Options, Summary};
use crate::record::{Record, Stack, Strength};

/// Longest line that is read as one record, in bytes.
const MAX_LINE: u64 = 16 << 20;

/// A record as far as grouping needs it; the stacks are read when they are asked for.
#[derive(Deserialize)]
pub struct Item<'a> {
    /// Grouping key.
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    /// Its readable form.
    #[serde(borrow)]
    pub key_text: Cow<'a, str>,
    /// How much it rests on.
    #[serde(default)]
    pub key_strength: Strength,
    /// Kind of error.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// The tool.
    #[serde(borrow)]
    pub tool: Cow<'a, str>,
    /// The kind in the tool's own words.
    #[serde(borrow, default)]
    pub tool_kind: Cow<'a, str>,
    /// Hash of the content.
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    /// Process number.
    #[serde(default)]
    pub pid: Option<u64>,
    /// Program.
    #[serde(borrow, default)]
    pub process: Option<Cow<'a, str>>,
    /// Time as JSON.
    #[serde(borrow, default)]
    pub time: Option<&'a RawValue>,
    /// Direct bytes of a leak.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Blocks of a leak.
    #[serde(default)]
    pub blocks: Option<u64>,
    /// What the key has beside frames; of heapcheck's own reports, the fingerprint.
    #[serde(borrow, default)]
    pub subject: Option<Cow<'a, str>>,
    /// Where it was read.
    #[serde(borrow, default)]
    pub source: ItemSource<'a>,
    /// Labels.
    #[serde(borrow, default)]
    pub attributes: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Stacks, unread.
    #[serde(borrow, default)]
    stacks: Option<&'a RawValue>,
}

/// Where a record was read.
#[derive(Default, Deserialize)]
pub struct ItemSource<'a> {
    /// File.
    #[serde(borrow, default)]
    pub file: Cow<'a, str>,
    /// Line.
    #[serde(default)]
    pub line: u64,
}

impl Item<'_> {
    /// The stacks, read now.
    pub fn stacks(&self) -> Vec<Stack> {
        self.stacks
            .and_then(|text| serde_json::from_str(text.get()).ok())
            .unwrap_or_default()
    }

    /// The time as text: a number, or a string without its quotes.
    pub fn time_text(&self) -> Option<String> {
        let text = self.time?.get();
        (text != "null").then(|| text.trim_matches('"').to_owned())
    }
}

/// What to read, and how.
#[derive(Clone, Debug, Default)]
pub struct Input {
    /// Files; `-` is standard input.
    pub files: Vec<String>,
    /// For logs that are no records yet, and the user's rules for frames.
    pub options: Options,
}

/// Reads every record and gives it to `sink`.
///
/// # Errors
/// What opening or reading a file gives, or the sink.
pub fn each(
    input: &Input,
    summary: &mut Summary,
    sink: &mut dyn FnMut(&Item<'_>) -> io::Result<()>,
) -> io::Result<()> {
    for path in &input.files {
        let reader: Box<dyn Read> = if path == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path)?)
        };
        one(
            BufReader::with_capacity(1 << 20, reader),
            path,
            input,
            summary,
            sink,
        )?;
    }
    Ok(())
}

/// Reads every record whole.
///
/// # Errors
/// As [`each`].
pub fn each_record(
    input: &Input,
    summary: &mut Summary,
    sink: &mut dyn FnMut(Record) -> io::Result<()>,
) -> io::Result<()> {
    for path in &input.files {
        let reader: Box<dyn Read> = if path == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path)?)
        };
        import::import(
            BufReader::with_capacity(1 << 20, reader),
            path,
            &input.options,
            summary,
            sink,
        )?;
    }
    Ok(())
}

fn one(
    mut reader: impl BufRead,
    path: &str,
    input: &Input,
    summary: &mut Summary,
    sink: &mut dyn FnMut(&Item<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let mut line = Vec::new();
    // The user's own rules for frames ask for the whole record, since keys are made anew.
    while input.options.frames.is_default() {
        line.clear();
        (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(());
        }
        let start = line.get(..80).unwrap_or(&line);
        if start.first() != Some(&b'{') || !start.windows(8).any(|part| part == b"\"record\"") {
            break;
        }
        match serde_json::from_slice::<Item<'_>>(&line) {
            Ok(item) if !item.key.is_empty() => {
                summary.created += 1;
                sink(&item)?;
            }
            _ => break, // read with care: it may be another kind of record, or broken
        }
    }
    let rest = io::Cursor::new(line).chain(reader);
    import::import(rest, path, &input.options, summary, &mut |record| {
        let text = serde_json::to_string(&record)?;
        sink(&serde_json::from_str(&text)?)
    })
}
