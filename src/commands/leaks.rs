//! `leaks CORE [BINARY]`: what does nobody point at any more.

use super::{CoreCommand, Error};
use crate::analysis;
use crate::cli::{self, CoreArgs, FailOn, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::{leaks, roots};
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::{Document, Severity};
use postmortem::session::Session;

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
    output: OutputArgs,
}

impl CoreCommand for Args {
    fn core(&self) -> &CoreArgs {
        &self.core
    }

    fn search(&self) -> &SearchArgs {
        &self.search
    }

    fn output(&self) -> &OutputArgs {
        &self.output
    }

    fn fail_on(&self) -> Option<Severity> {
        self.fail_on.severity()
    }

    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error> {
        run(session, self, progress)
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
    let ground = roots::ground(session, &analysis);
    let found = leaks::find(&ground, args.blocks);
    progress.phase("writing the report", None);
    let options = args.output.report_options();
    let mut report = compose::graph::leaks(&ground, &found, args.blocks, &options);
    let lost = found.definite.bytes.saturating_add(found.indirect.bytes);
    report.is_found = found.definite.blocks > 0 && lost >= args.at_least;
    Ok(Document::Report(Box::new(report)))
}
