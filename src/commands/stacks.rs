//! `stacks CORE [BINARY]`, also `--minidump`: where was every thread.

use super::{CoreCommand, Error, Shared};
use crate::cli::{CoreArgs, OutputArgs, SearchArgs};
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::Document;
use postmortem::session::Session;

/// What `stacks` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    core: CoreArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Args {
    /// From the parts that commands share.
    pub fn new(search: SearchArgs, core: CoreArgs, output: OutputArgs) -> Self {
        Self {
            search,
            core,
            output,
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

    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error> {
        Ok(run(session, self, progress))
    }
}

/// Unwinds all stacks.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Document {
    progress.phase("unwinding stacks", None);
    let report = compose::stacks(session, &args.output.report_options());
    Document::Report(Box::new(report))
}
