//! `batch LIST…`: a command over many cores, a worker process for each, so that a poison core costs itself. NDJSON, a line for each
//! core as it is done, errors too; what a file of such lines has already is left out, so that a run can go on where it stopped.

mod cores;
mod worker;

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;

use super::{Error, ReportsCommand};
use crate::cli::size;
use crate::report::status;
use worker::Worker;

/// What `batch` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Cores, folders of cores, or `-`: a list on standard input, one a line
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<PathBuf>,

    /// The command for each core
    #[arg(long, value_enum, default_value = "check", value_name = "COMMAND")]
    run: Run,

    /// Work on so many cores at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: u16,

    /// End a worker after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    timeout: u64,

    /// Memory of a worker, the mapped core not counted (K, M, G, T)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory: Option<u64>,

    /// Leave out cores that this file of earlier lines has (it may be the output)
    #[arg(long, value_name = "FILE")]
    skip_known: Option<PathBuf>,

    /// Append the lines to this file [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Options of the command, for every core
    #[arg(last = true, value_name = "OPTIONS")]
    options: Vec<String>,
}

/// Commands that a core can be given to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Run {
    Check,
    Leaks,
    Stacks,
    Usage,
}

impl Run {
    fn name(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Leaks => "leaks",
            Self::Stacks => "stacks",
            Self::Usage => "usage",
        }
    }
}

/// How many cores came to what.
#[derive(Default)]
struct Tally {
    clean: u64,
    found: u64,
    failed: u64,
    skipped: u64,
}

impl ReportsCommand for Args {
    fn run(&self) -> Result<u8, Error> {
        let known = match &self.skip_known {
            Some(path) => known(path)?,
            None => BTreeSet::new(),
        };
        let cores = cores::list(&self.lists)?;
        let worker = Worker {
            program: std::env::current_exe()?,
            command: self.run.name(),
            options: self.options.clone(),
            timeout: Duration::from_secs(self.timeout),
            memory: self.memory,
        };
        let out: Mutex<Box<dyn Write + Send>> = Mutex::new(match &self.output {
            Some(path) => Box::new(appended(path)?),
            None => Box::new(io::stdout()),
        });
        let seen = Mutex::new(known);
        let tally = Mutex::new(Tally::default());
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let lost = Mutex::new(None::<io::Error>);
        std::thread::scope(|scope| {
            for _ in 0..usize::from(self.jobs).min(cores.len()) {
                scope.spawn(|| {
                    while !stopped.load(Ordering::Relaxed) {
                        let Some(core) = cores.get(next.fetch_add(1, Ordering::Relaxed)) else {
                            return;
                        };
                        let (line, outcome) = one(&worker, core, &seen);
                        let mut tally = tally
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        match outcome {
                            Some(status::CLEAN) => tally.clean += 1,
                            Some(status::FOUND) => tally.found += 1,
                            Some(_) => tally.failed += 1,
                            None => tally.skipped += 1,
                        }
                        drop(tally);
                        let Some(line) = line else {
                            continue;
                        };
                        let mut out = out
                            .lock()
                            .unwrap_or_else(std::sync::PoisonError::into_inner);
                        if let Err(error) = out.write_all(&line).and_then(|()| out.flush()) {
                            *lost
                                .lock()
                                .unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                            stopped.store(true, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let tally = tally
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        eprintln!(
            "{} cores: {} clean, {} with findings, {} failed or incomplete, {} known",
            cores.len(),
            tally.clean,
            tally.found,
            tally.failed,
            tally.skipped
        );
        match lost
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
        {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
            _ => {}
        }
        Ok(match (tally.found, tally.failed) {
            (1.., _) => status::FOUND,
            (0, 1..) => status::INCOMPLETE,
            (0, 0) => status::CLEAN,
        })
    }
}

/// One core: its line, and the exit status; none of both if it is known.
fn one(
    worker: &Worker,
    core: &Path,
    seen: &Mutex<BTreeSet<String>>,
) -> (Option<Vec<u8>>, Option<u8>) {
    match cores::id(core) {
        Ok(id) => {
            if !seen
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .insert(id.clone())
            {
                return (None, None);
            }
            let (line, status) = worker.run(core, &id);
            (Some(line), Some(status))
        }
        Err(error) => (
            Some(worker::failed(core, None, &error.to_string())),
            Some(status::NOT_ANALYSED),
        ),
    }
}

/// A file to append lines to; a last line that was cut off is ended first.
fn appended(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .append(true)
        .open(path)?;
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != *b"\n" {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

/// The ids of a file of lines; a file that is not there has none.
fn known(path: &Path) -> io::Result<BTreeSet<String>> {
    let mut known = BTreeSet::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
        Err(error) => return Err(error),
    };
    // The id stands at the beginning of a line that `batch` wrote; a last line without its end was cut off and is done again.
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(line.get(..200).unwrap_or(&line));
        if line.ends_with(b"\n")
            && let Some(id) = text
                .strip_prefix("{\"core_id\":\"")
                .and_then(|rest| rest.split('"').next())
        {
            known.insert(id.to_owned());
        }
        line.clear();
    }
    Ok(known)
}
