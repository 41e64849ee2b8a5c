//! `check CORE [BINARY]`: is the heap damaged, what, who did it, who still points there, does it explain the crash.

use super::{CoreCommand, Error, Shared, stacks};
use crate::analysis::strangers;
use crate::cli::{CoreArgs, EventsArgs, FailOn, HeapArgs, OutputArgs, SearchArgs};
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::{Document, Severity};
use crate::{events, examination};
use postmortem::session::Session;

/// What `check` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// Print the stacks of all threads instead of checking the heap
    #[arg(long)]
    minidump: bool,

    /// The lowest severity that gives exit status 1
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

impl Args {
    /// `check`, or `stacks` where `--minidump` asks for it.
    pub fn command(self) -> Box<dyn CoreCommand> {
        if self.minidump {
            Box::new(stacks::Args::new(self.search, self.core, self.output))
        } else {
            Box::new(self)
        }
    }
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

/// Checks the heap.
///
/// # Errors
/// If the allocator that was asked for cannot be had.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let only = args.heap.allocator.as_deref();
    let mut examination = examination::examine(session, session.target(), only, progress)?;
    examination::ask_types(session, &mut examination);
    strangers::survey(session, &mut examination.analysis, only.is_some());
    let options = args.output.report_options();
    let log = args.events.path().map(|path| {
        progress.phase("reading the log", None);
        let wanted = compose::events::wanted_by_findings(&examination.verdict.findings);
        events::join(session, &examination.analysis, path, wanted)
    });
    let log = log.transpose()?;
    progress.phase("writing the report", None);
    let mut report = compose::check(session, &examination, &options);
    if let Some(log) = &log {
        compose::events::findings(&mut report, session, log, &options);
    }
    Ok(Document::Report(Box::new(report)))
}
