//! `usage CORE [BINARY]`: where the memory is, and who holds it.

use clap::ValueEnum;

use super::{CoreCommand, Error, Shared};
use crate::analysis;
use crate::cli::{CoreArgs, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::propagation::Limits;
use crate::graph::roots;
use crate::progress::Progress;
use crate::report::compose;
use crate::report::compose::usage::Held;
use crate::report::schema::Document;
use crate::usage::{blocks, mappings, owners, suspects};
use postmortem::session::Session;

/// What `usage` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// `size`, `type`: do not look who holds what, which costs a pass over all pointers
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        default_value = "owner",
        help_heading = "Analysis"
    )]
    by: By,

    /// Tell what hangs on each block of an owner however many there are: a hundred bytes of memory for each
    #[arg(long, help_heading = "Analysis")]
    retained: bool,

    #[command(flatten)]
    output: OutputArgs,
}

/// By what the blocks are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// By size, allocator and kind of mapping
    Size,
    /// By variable, frame and thread
    Owner,
    /// By class: by virtual tables, and by debug information
    Type,
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

/// Counts everything.
///
/// # Errors
/// If the allocator that was asked for cannot be had, or there are more blocks than can be numbered.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let only = args.heap.allocator.as_deref();
    let mut analysis = analysis::analyse(session.target(), only, progress)?;
    analysis::strangers::survey(session, &mut analysis, only.is_some());
    progress.phase("counting", None);
    let lands = roots::lands(session, &analysis);
    let found = mappings::all(session, &analysis, &lands);
    let counted = blocks::survey(session.target().memory, &analysis);
    let options = args.output.report_options();
    if args.by != By::Owner {
        let mut report =
            compose::usage::usage(session, &analysis, &found, &counted, None, &options);
        if args.by == By::Type {
            progress.phase("following types", None);
            let ground = roots::ground(session, &analysis);
            ground.follow_types(Limits::WHOLE);
            compose::usage::add_types(&mut report, &ground);
        }
        return Ok(Document::Report(Box::new(report)));
    }
    progress.phase("following pointers", None);
    let ground = roots::ground(session, &analysis);
    ground.follow_types(Limits::HELD);
    let words = owners::words(&ground);
    let owners =
        owners::find(&ground, &words).ok_or("there are more blocks than can be numbered")?;
    let most = match args.retained {
        true => suspects::MAX_RETAINED,
        false => suspects::MAX_BLOCKS,
    };
    let suspects = suspects::find(&ground, &owners, most);
    progress.phase("writing the report", None);
    let held = Held {
        ground: &ground,
        owners: &owners,
        suspects: &suspects,
    };
    let report = compose::usage::usage(session, &analysis, &found, &counted, Some(&held), &options);
    Ok(Document::Report(Box::new(report)))
}
