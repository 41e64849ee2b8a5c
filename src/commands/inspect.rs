//! `inspect CORE [BINARY] ADDRESS...`: what is this address, and what does each word around it mean.

use ground::target::Address;

use super::{CoreCommand, Error, Shared};
use crate::cli::{CoreArgs, EventsArgs, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::propagation::Limits;
use crate::graph::roots;
use crate::inspect;
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::Document;
use crate::{analysis, events};
use postmortem::session::Session;

/// Words that are shown of one address at most.
const MAX_WORDS: usize = 1 << 12;

/// What `inspect` takes.
#[derive(clap::Args, Clone, Debug)]
#[command(mut_arg("operands", |arg| arg
    .value_name("CORE] [BINARY] [ADDRESS")
    .num_args(1..)
    .help("The core file, the program that died, and the addresses: whatever begins with 0x")))]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// Decode so many words around each address
    #[arg(
        long,
        value_name = "N",
        default_value_t = 18,
        help_heading = "Analysis"
    )]
    words: usize,

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

    fn takes_addresses(&self) -> bool {
        true
    }

    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error> {
        run(session, self, progress)
    }
}

/// Says what the addresses are.
///
/// # Errors
/// If the allocator that was asked for cannot be had, or no address was given.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let addresses = args.core.addresses();
    let addresses: Vec<Address> = addresses.into_iter().map(Address::new).collect();
    if addresses.is_empty() {
        return Err("no ADDRESS was given: inspect CORE [BINARY] 0x...".into());
    }
    let only = args.heap.allocator.as_deref();
    let analysis = analysis::analyse(session.target(), only, progress)?;
    progress.phase("looking for references", None);
    let ground = roots::ground(session, &analysis);
    ground.follow_types(Limits::HELD);
    let found = inspect::inspect(&ground, &addresses, args.words.min(MAX_WORDS));
    let options = args.output.report_options();
    let log = args.events.path().map(|path| {
        progress.phase("reading the log", None);
        let wanted = compose::events::wanted_by_inspections(&found);
        events::join(session, &analysis, path, wanted)
    });
    let log = log.transpose()?;
    progress.phase("writing the report", None);
    let mut report = compose::inspect::report(&ground, &found, &options);
    if let Some(log) = &log {
        compose::events::addresses(&mut report, session, log, &options);
    }
    Ok(Document::Report(Box::new(report)))
}
