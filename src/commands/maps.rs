//! `maps CORE [BINARY]`: every mapping, what it is, how much of it is in the core.

use super::{CoreCommand, Error, Shared};
use crate::analysis;
use crate::cli::{CoreArgs, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::roots;
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::Document;
use crate::usage::mappings;
use postmortem::session::Session;

/// What `maps` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// Sums by kind only
    #[arg(long, help_heading = "Analysis")]
    summary: bool,

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

    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error> {
        run(session, self, progress)
    }
}

/// Lists the mappings.
///
/// # Errors
/// If the allocator that was asked for cannot be had.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let only = args.heap.allocator.as_deref();
    let analysis = analysis::analyse(session.target(), only, progress)?;
    progress.phase("sorting mappings", None);
    let lands = roots::lands(session, &analysis);
    let found = mappings::all(session, &analysis, &lands);
    progress.phase("writing the report", None);
    let options = args.output.report_options();
    let report = compose::usage::maps(session, &analysis, &found, args.summary, &options);
    Ok(Document::Report(Box::new(report)))
}
