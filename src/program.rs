//! The frame around every command: files that are not written over, signals, threads, progress, errors, the exit status.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::cli::{self, Invocation};
use crate::commands::{CoreCommand, Error, schema, view};
use crate::progress::{Progress, Silent};
use crate::report::schema::{Document, ErrorDocument};
use crate::report::{Format, Screen, json, status, text};
use crate::terminal::{self, TerminalProgress};
use crate::{interrupt, output, unforeseen};
use postmortem::session::{Session, SessionOptions};

/// Where a document goes, and how it is written.
#[derive(Clone, Copy)]
struct Destination<'d> {
    format: &'static dyn Format,
    /// `None`: standard output.
    path: Option<&'d Path>,
}

/// Follows a command line, program name first; gives the exit status.
pub fn run(arguments: Vec<OsString>) -> u8 {
    let printed = Destination {
        format: &text::Text,
        path: None,
    };
    match cli::parse(arguments) {
        Ok(Invocation::Read(command)) => read(command.as_ref()),
        Ok(Invocation::View(args)) => attempt(printed, || view::run(&args)),
        Ok(Invocation::Reports(command)) => attempt(printed, || command.run()),
        Ok(Invocation::Schema(args)) => attempt(printed, || {
            let bytes = json::Json.render(&schema::run(&args)?, Screen::default())?;
            output::write(None, &bytes)?;
            Ok(status::CLEAN)
        }),
        Ok(Invocation::Print(text)) => attempt(printed, || {
            output::write(None, text.as_bytes())?;
            Ok(status::CLEAN)
        }),
        Err(error) => {
            let format = error.format.unwrap_or(printed.format);
            not_analysed(&error, Destination { format, ..printed })
        }
    }
}

/// Runs a command that reads a core.
fn read(command: &dyn CoreCommand) -> u8 {
    let (format, path) = (command.output().format(), command.output().path());
    if let Some(path) = path
        && let Err(refused) = output::may_write(path, &command.core().files())
    {
        // The file is left alone, so the document goes to standard output.
        return not_analysed(&refused, Destination { format, path: None });
    }
    let destination = Destination { format, path };
    attempt(destination, || {
        interrupt::watch(destination.error(interrupt::FILE_LOST).map(|it| (it, path)));
        if let Some(jobs) = command.core().jobs() {
            rayon::ThreadPoolBuilder::new()
                .num_threads(jobs)
                .build_global()?;
        }
        let document = {
            let shown = TerminalProgress::start();
            let progress = shown.as_ref().map_or(&Silent as &dyn Progress, |it| it);
            make(command, progress)?
        };
        let status = status::of(&document, command.fail_on());
        let screen = Screen {
            color: terminal::wants_color(command.output().color(), path.is_none()),
            width: terminal::width(path.is_none()),
        };
        output::write(path, &format.render(&document, screen)?).map_err(|error| {
            let name = path.map_or("standard output".into(), |path| path.display().to_string());
            format!("the report cannot be written to {name}: {error}")
        })?;
        Ok(status)
    })
}

/// Opens the core and makes the command's document.
fn make(command: &dyn CoreCommand, progress: &dyn Progress) -> Result<Document, Error> {
    progress.phase("opening the core", None);
    let (core, search) = (command.core(), command.search());
    let session = Session::open(&SessionOptions {
        files: core.files(),
        search: search.paths(),
        limit: search.limit(),
        jobs: core.jobs(),
        open: core.open_options(),
    })
    .map_err(|error| match slip(&core.files()) {
        Some(slip) => format!("{error}; {slip}").into(),
        None => Error::from(error),
    })?;
    command.run(&session, progress)
}

/// What is said where the first file may have been meant as a command: it is not there, and has that name, or nearly.
fn slip(files: &[PathBuf]) -> Option<String> {
    let first = files.first().filter(|first| !first.exists())?;
    let name = first.to_str()?;
    if cli::help::of(name).is_some_and(|help| !help.command.is_empty()) {
        return Some(format!("the command `{name}` stands before its options"));
    }
    let meant = cli::help::meant(name)?;
    Some(format!("did you mean the command `{meant}`?"))
}

/// Does `work`, which gives the exit status. An error, and a panic that nobody foresaw, is said and gives status 2.
fn attempt(destination: Destination<'_>, work: impl FnOnce() -> Result<u8, Error>) -> u8 {
    let result = unforeseen::caught(work).unwrap_or_else(|panicked| Err(panicked.into()));
    result.unwrap_or_else(|error| not_analysed(error.as_ref(), destination))
}

/// Says why nothing was analysed: one line on standard error, and a document where the format has one for errors.
fn not_analysed(error: &dyn std::error::Error, destination: Destination<'_>) -> u8 {
    let message = error.to_string();
    let line = text::error_line(&message);
    // A closed standard error is no reason to fail otherwise.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    if let Some(bytes) = destination.error(&message)
        && output::write(destination.path, &bytes).is_err()
    {
        let _ = output::write(None, &bytes);
    }
    status::NOT_ANALYSED
}

impl Destination<'_> {
    /// The ERROR document, where the format has one.
    fn error(self, message: &str) -> Option<Vec<u8>> {
        let document = Document::Error(ErrorDocument::new(message));
        let format = Some(self.format).filter(|format| format.writes_errors())?;
        format.render(&document, Screen::default()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_gives_the_error_document_and_status_2() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        let destination = Destination {
            format: &json::Json,
            path: Some(&path),
        };
        let status = attempt(destination, || panic!("no such case"));
        assert_eq!(status, 2);
        let document = std::fs::read_to_string(&path).unwrap();
        for part in ["\"status\": \"ERROR\"", "panicked", "no such case"] {
            assert!(document.contains(part), "{document}");
        }

        std::fs::remove_file(&path).unwrap();
        let text = Destination {
            format: &text::Text,
            ..destination
        };
        assert_eq!(attempt(text, || panic!("no such case")), 2);
        assert!(!path.exists(), "text has no document for errors");
        assert_eq!(attempt(destination, || Ok(7)), 7);
        assert!(!path.exists());
    }
}
