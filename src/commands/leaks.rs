//! `leaks CORE [BINARY]`: what does nobody point at any more.

mod since;

use std::path::{Path, PathBuf};

use super::{CoreCommand, Error, Shared};
use crate::cli::{self, CoreArgs, EventsArgs, FailOn, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::{leaks, roots};
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::{Document, Severity, Sum};
use crate::{analysis, events};
use postmortem::session::{Session, SessionOptions};

/// What `leaks` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// List every block that is not reached for certain
    #[arg(long, help_heading = "Analysis")]
    blocks: bool,

    /// Say what of it was not lost yet in this core, or this JSON report of `leaks`
    #[arg(long, value_name = "CORE|REPORT", help_heading = "Analysis")]
    since: Option<PathBuf>,

    /// Exit with 1 only if so many bytes are lost (K, M, G, T: binary multiples)
    #[arg(long, value_name = "BYTES", value_parser = cli::size, default_value = "1", help_heading = "Analysis")]
    at_least: u64,

    /// `never`: exit with 0 whatever is lost
    #[arg(
        long,
        value_name = "SEVERITY",
        value_enum,
        default_value = "critical",
        help_heading = "Analysis"
    )]
    fail_on: FailOn,

    #[command(flatten)]
    events: EventsArgs,

    #[command(flatten)]
    output: OutputArgs,
}

impl CoreCommand for Args {
    fn shared(&self) -> Shared<'_> {
        let (core, search, output) = (&self.core, &self.search, &self.output);
        Shared {
            core,
            search,
            output,
        }
    }

    fn fail_on(&self) -> Option<Severity> {
        self.fail_on.severity()
    }

    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error> {
        run(session, self, progress)
    }
}

/// How another core of the program is opened.
fn session_options(args: &Args, core: &Path) -> SessionOptions {
    SessionOptions {
        files: vec![core.to_owned()],
        search: args.search.paths(),
        limit: args.search.limit(),
        jobs: args.core.jobs(),
        open: args.core.open_options(),
    }
}

/// Looks for what is lost.
///
/// # Errors
/// If the allocator that was asked for cannot be had.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let only = args.heap.allocator.as_deref();
    let mut analysis = analysis::analyse(session.target(), only, progress)?;
    analysis::strangers::survey(session, &mut analysis, only.is_some());
    progress.phase("following pointers", None);
    let mut ground = roots::ground(session, &analysis);
    if let Some(path) = args.events.path() {
        progress.phase("reading the log", None);
        ground.events = Some(events::join(session, &analysis, path, [])?);
    }
    let is_listed = args.blocks || args.since.is_some();
    let wanted = leaks::Wanted {
        blocks: is_listed,
        types: true,
    };
    let found = leaks::find(&ground, wanted);
    progress.phase("writing the report", None);
    let options = args.output.report_options();
    let mut report = compose::graph::leaks(&ground, &found, is_listed, &options);
    if let Some(log) = &ground.events {
        compose::events::leaks(&mut report, session, &found, log, &options);
    }
    let mut lost = Sum {
        blocks: found.definite.blocks,
        bytes: found.definite.bytes.saturating_add(found.indirect.bytes),
    };
    if let Some(path) = &args.since {
        let blocks = match args.blocks {
            true => report.leaks.as_ref().and_then(|leaks| leaks.blocks.clone()),
            false => report.leaks.as_mut().and_then(|leaks| leaks.blocks.take()),
        };
        let blocks = blocks.unwrap_or_default();
        since::compare(&mut report, &blocks, path, args, progress)?;
        let leaks = report.leaks.as_ref();
        let since = leaks.and_then(|leaks| leaks.since.as_ref());
        lost = since.map_or(lost, |since| since.lost);
    }
    report.is_found = lost.blocks > 0 && lost.bytes >= args.at_least;
    Ok(Document::Report(Box::new(report)))
}
