//! `import FILE…`: logs of many tools as NDJSON, one error a line; a summary on standard error.

mod symbols;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::ValueEnum;
use reports::import::{Options, Summary, Symboliser, import};
use reports::triage::{Gather, TriageFile, today};
use reports::{Profile, Record};

use super::{Error, ReportsCommand};
use crate::cli::FilesArgs;
use crate::output;
use crate::report::status;
use symbols::Symbols;

/// What `import` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Logs and reports of any tool, each told by its content (`-`: standard input)
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    #[command(flatten)]
    labels: Labels,

    #[command(flatten)]
    search: FilesArgs,

    /// How to write
    #[arg(
        long,
        value_enum,
        default_value = "ndjson",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    format: As,

    /// Where to write [default: standard output]
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,
}

/// Notes of the summary, at most.
const MAX_NOTES: usize = 100;

/// What is said of every record.
#[derive(clap::Args, Clone, Debug)]
pub struct Labels {
    /// An attribute of every record, to index it by: version, commit, host, test (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute, help_heading = "Input")]
    kv: Vec<(String, String)>,

    /// Time of records that have none: seconds since the epoch, or RFC 3339
    #[arg(long, value_name = "TIME", help_heading = "Input")]
    time: Option<String>,

    /// What people decided, and which functions and modules keys leave out
    #[arg(
        long,
        value_name = "FILE",
        default_value = "heapcheck.triage.toml",
        help_heading = "Input"
    )]
    pub triage_file: PathBuf,
}

impl Labels {
    /// The decisions.
    pub fn decisions(&self) -> io::Result<TriageFile> {
        TriageFile::open(&self.triage_file, &today())
    }

    /// How logs are imported.
    pub fn options(&self, decisions: &TriageFile) -> Options {
        let number = |text: &String| match text
            .parse::<f64>()
            .ok()
            .and_then(serde_json::Number::from_f64)
        {
            Some(number) => serde_json::Value::Number(number),
            None => serde_json::Value::String(text.clone()),
        };
        Options {
            attributes: self.kv.iter().cloned().collect(),
            time: self.time.as_ref().map(number),
            frames: decisions.frames.clone(),
            symbols: None,
        }
    }
}

/// Formats of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum As {
    /// One error a line
    Ndjson,
    /// SARIF 2.1.0, one result a group
    Sarif,
    /// A gzipped profile of bytes and blocks by stack
    Pprof,
}

impl ReportsCommand for Args {
    fn run(&self) -> Result<u8, Error> {
        let decisions = self.labels.decisions()?;
        let mut options = self.labels.options(&decisions);
        let mut summary = Summary::default();
        let mut unread = Vec::new();
        let mut sink = Sink::new(self, &decisions)?;
        for path in &self.files {
            let symbols = Arc::new(Symbols::new(self.search.paths(), written(path)));
            options.symbols = Some(Arc::clone(&symbols) as Arc<dyn Symboliser>);
            match open(path) {
                Ok(reader) => match import(reader, path, &options, &mut summary, &mut |record| {
                    sink.take(record)
                }) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        return Ok(status::CLEAN);
                    }
                    Err(error) => unread.push(format!("{path}: {error}")),
                    Ok(()) => {}
                },
                Err(error) => unread.push(format!("{path}: {error}")),
            }
            for note in symbols.notes() {
                if !summary.notes.contains(&note) && summary.notes.len() < MAX_NOTES {
                    summary.notes.push(note);
                }
            }
        }
        sink.finish(&decisions, self.output.as_deref())?;
        say(&summary, &unread);
        Ok(if unread.is_empty() {
            status::CLEAN
        } else {
            status::NOT_ANALYSED
        })
    }
}

/// When a log was last written to.
fn written(path: &str) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|it| it.modified()).ok()
}

/// Opens a file, or standard input.
fn open(path: &str) -> io::Result<BufReader<Box<dyn Read>>> {
    let reader: Box<dyn Read> = if path == "-" {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path)?)
    };
    Ok(BufReader::with_capacity(1 << 18, reader))
}

/// Where records go.
enum Sink {
    Lines(BufWriter<Box<dyn Write>>, Option<tempfile::NamedTempFile>),
    Groups(Box<(Gather, BTreeSet<String>, BTreeMap<String, Record>)>),
    Profile(Profile),
}

impl Sink {
    fn new(args: &Args, decisions: &TriageFile) -> io::Result<Self> {
        Ok(match args.format {
            As::Sarif => Self::Groups(Box::new((
                Gather::new(decisions),
                BTreeSet::new(),
                BTreeMap::new(),
            ))),
            As::Pprof => Self::Profile(Profile::default()),
            As::Ndjson => match &args.output {
                None => Self::Lines(BufWriter::new(Box::new(io::stdout().lock())), None),
                Some(path) => {
                    output::may_write(
                        path,
                        &args.files.iter().map(PathBuf::from).collect::<Vec<_>>(),
                    )
                    .map_err(io::Error::other)?;
                    let folder = path
                        .parent()
                        .filter(|folder| !folder.as_os_str().is_empty())
                        .unwrap_or(Path::new("."));
                    let file = tempfile::NamedTempFile::new_in(folder)?;
                    Self::Lines(BufWriter::new(Box::new(file.reopen()?)), Some(file))
                }
            },
        })
    }

    fn take(&mut self, record: Record) -> io::Result<()> {
        match self {
            Self::Lines(out, _) => {
                serde_json::to_writer(&mut *out, &record)?;
                out.write_all(b"\n")
            }
            Self::Profile(profile) => {
                profile.add(&record);
                Ok(())
            }
            Self::Groups(groups) => {
                let text = serde_json::to_string(&record)?;
                groups.0.add(&serde_json::from_str(&text)?);
                // The first record of a key is the group's example.
                if groups.1.insert(record.key.clone()) {
                    groups.2.insert(record.id.clone(), record);
                }
                Ok(())
            }
        }
    }

    fn finish(self, decisions: &TriageFile, path: Option<&Path>) -> Result<(), Error> {
        match self {
            Self::Lines(mut out, file) => {
                out.flush()?;
                if let (Some(file), Some(path)) = (file, path) {
                    file.persist(path)?;
                }
            }
            Self::Profile(profile) => {
                let mut bytes = Vec::new();
                reports::pprof(profile, &mut bytes)?;
                output::write(path, &bytes)?;
            }
            Self::Groups(groups) => {
                let (gather, _, records) = *groups;
                let found = gather.finish(0, decisions).groups;
                let examples = found
                    .iter()
                    .filter_map(|group| {
                        Some((group.key.clone(), records.get(&group.example)?.clone()))
                    })
                    .collect();
                let document = reports::sarif(&found, &examples, env!("CARGO_PKG_VERSION"));
                output::write(path, serde_json::to_string_pretty(&document)?.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The summary, on standard error.
fn say(summary: &Summary, unread: &[String]) {
    let mut text = format!("created: {}\n", summary.created);
    for (kind, count) in &summary.kinds {
        let _ = writeln!(text, "  {kind}: {count}"); // a String takes all
    }
    if summary.symbolised > 0 {
        let _ = writeln!(
            text,
            "frames named by files at hand: {}",
            summary.symbolised
        );
    }
    if summary.folded > 0 {
        let _ = writeln!(
            text,
            "folded into the leak that holds them: {}",
            summary.folded
        );
    }
    let _ = writeln!(text, "failures: {}", summary.failures);
    for (file, line, why) in &summary.described {
        let _ = writeln!(text, "  {file}:{line}: {why}");
    }
    for note in &summary.notes {
        let _ = writeln!(text, "note: {note}");
    }
    for file in &summary.unrecognised {
        let _ = writeln!(text, "no report of a known tool: {file}");
    }
    for file in unread {
        let _ = writeln!(text, "not read: {file}");
    }
    let _ = io::stderr().write_all(text.as_bytes()); // a closed standard error is no reason to fail
}

/// `name=value`.
fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not NAME=VALUE".to_owned()),
    }
}
