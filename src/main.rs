//! The command line program: parse, run, write, exit status.

use std::process::ExitCode;

use heapcheck::cli::{self, Command, Format, Options};
use heapcheck::corefile::OpenOptions;
use heapcheck::interrupt;
use heapcheck::output;
use heapcheck::progress::{Progress, Silent};
use heapcheck::report::build::{self, BuildOptions};
use heapcheck::report::escape::Escaped;
use heapcheck::report::schema::{Document, ErrorDocument, Report};
use heapcheck::report::text::{self, TextOptions};
use heapcheck::report::{json, status};
use heapcheck::session::{Session, SessionOptions};
use heapcheck::terminal::{self, TerminalProgress};
use heapcheck::{analysis, checks, crash};

type Error = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let status = match cli::parse(std::env::args_os().collect()) {
        Ok(Command::Check(options)) => {
            let json = options.format == Format::Json;
            let path = options.output.as_deref();
            match path.map_or(Ok(()), |path| output::may_write(path, &options.files)) {
                Ok(()) => check(&options)
                    .unwrap_or_else(|error| not_analysed(error.as_ref(), json.then_some(path))),
                // The file is left alone, so the document goes to standard output.
                Err(refused) => not_analysed(&refused, json.then_some(None)),
            }
        }
        Ok(Command::Schema) => print(&format!("{:#}\n", json::schema())),
        Ok(Command::Print(text)) => print(&text),
        Err(error) => not_analysed(&error, error.json.then_some(None)),
    };
    ExitCode::from(status)
}

/// Analyses a core and writes the report.
fn check(options: &Options) -> Result<u8, Error> {
    let path = options.output.as_deref();
    interrupt::watch((options.format == Format::Json).then(|| {
        let document = Document::Error(ErrorDocument::new(interrupt::FILE_LOST));
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = json::write(&document, &mut bytes);
        (bytes, path)
    }));
    if let Some(jobs) = options.jobs {
        rayon::ThreadPoolBuilder::new()
            .num_threads(jobs)
            .build_global()?;
    }
    let report = {
        let shown = TerminalProgress::start();
        let progress = shown.as_ref().map_or(&Silent as &dyn Progress, |it| it);
        analyse(options, progress)?
    };
    let status = status::exit_status(&report, options.fail_on);
    output::write(path, &render(report, options)?).map_err(|error| {
        let name = path.map_or("standard output".into(), |path| path.display().to_string());
        format!("the report cannot be written to {name}: {error}")
    })?;
    Ok(status)
}

fn analyse(options: &Options, progress: &dyn Progress) -> Result<Report, Error> {
    let build_options = BuildOptions {
        attributes: options.attributes.clone(),
        include_bytes: options.include_bytes,
        redact: options.redact,
    };
    progress.phase("opening the core", None);
    let session = Session::open(&SessionOptions {
        files: options.files.clone(),
        search: options.search.clone(),
        limit: options.limit,
        jobs: options.jobs,
        open: OpenOptions {
            temporary_dir: options.temporary_dir.clone(),
            max_unpacked_bytes: options.max_unpacked,
        },
    })?;
    if options.minidump {
        progress.phase("unwinding stacks", None);
        return Ok(build::stack_report(&session, &build_options));
    }
    let mut analysis = analysis::analyse(session.target(), options.allocator.as_deref(), progress)?;
    analysis::strangers::survey(&session, &mut analysis, options.allocator.is_some());
    progress.phase("checking", None);
    let crash = crash::read(&session);
    let verdict = checks::run(session.target(), &analysis, crash.as_ref());
    progress.phase("writing the report", None);
    Ok(build::heap_report(
        &session,
        &analysis,
        &verdict,
        crash.as_ref(),
        &build_options,
    ))
}

fn render(report: Report, options: &Options) -> Result<Vec<u8>, Error> {
    match options.format {
        Format::Json => {
            let mut bytes = Vec::new();
            json::write(&Document::Report(Box::new(report)), &mut bytes)?;
            Ok(bytes)
        }
        Format::Text => {
            let text_options = TextOptions {
                color: terminal::wants_color(options.color, options.output.is_none()),
                width: terminal::width(options.output.is_none()),
            };
            let text = if options.minidump {
                text::minidump(&report, text_options)
            } else {
                text::report(&report, text_options)
            };
            Ok(text.into_bytes())
        }
    }
}

/// Says why nothing was analysed: one line on standard error, and a document where JSON was asked for.
fn not_analysed(error: &dyn std::error::Error, document: Option<Option<&std::path::Path>>) -> u8 {
    let message = error.to_string();
    // A closed standard error is no reason to fail otherwise.
    let _ = std::io::Write::write_fmt(
        &mut std::io::stderr(),
        format_args!("heapcheck: {}\n", Escaped(&message)),
    );
    if let Some(path) = document {
        let mut bytes = Vec::new();
        let document = Document::Error(ErrorDocument::new(message));
        if json::write(&document, &mut bytes).is_ok() && output::write(path, &bytes).is_err() {
            let _ = output::write(None, &bytes);
        }
    }
    status::NOT_ANALYSED
}

fn print(text: &str) -> u8 {
    match output::write(None, text.as_bytes()) {
        Ok(()) => status::CLEAN,
        Err(error) => not_analysed(&error, None),
    }
}
