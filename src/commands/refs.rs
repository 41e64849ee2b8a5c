//! `refs CORE [BINARY] ADDRESS...`: who points there, and by which way from a root.

use ground::target::Address;

use super::{CoreCommand, Error, Shared};
use crate::analysis;
use crate::cli::{CoreArgs, HeapArgs, OutputArgs, SearchArgs};
use crate::graph::propagation::Limits;
use crate::graph::{holders, roots};
use crate::progress::Progress;
use crate::report::compose;
use crate::report::schema::Document;
use heaps::graph::trees::Extent;
use postmortem::session::Session;

/// Addresses whose way from a root is looked for: each costs passes of its own.
const MAX_PATHS: usize = 16;
/// Steps of a tree.
const MAX_DEPTH: usize = 64;
/// Words of one block in a tree.
const MAX_WIDTH: usize = 64;

/// What `refs` takes.
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

    /// Name at most so many words of each address
    #[arg(long, value_name = "N", default_value_t = holders::MAX_SHOWN, help_heading = "Analysis")]
    most: usize,

    /// Walk the holders of the holders upward, to the roots
    #[arg(long, help_heading = "Analysis")]
    tree: bool,

    /// Walk downward: what hangs on the block, with its bytes
    #[arg(long, help_heading = "Analysis")]
    down: bool,

    /// Steps that a tree goes
    #[arg(long, value_name = "N", default_value_t = 6, help_heading = "Analysis")]
    depth: usize,

    /// Words that a tree shows of one block
    #[arg(long, value_name = "N", default_value_t = 8, help_heading = "Analysis")]
    width: usize,

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

/// Looks for everything that points at the addresses.
///
/// # Errors
/// If the allocator that was asked for cannot be had, or no address was given.
pub fn run(session: &Session, args: &Args, progress: &dyn Progress) -> Result<Document, Error> {
    let addresses: Vec<Address> = args
        .core
        .addresses()
        .into_iter()
        .map(Address::new)
        .collect();
    if addresses.is_empty() {
        return Err("no ADDRESS was given: refs CORE [BINARY] 0x...".into());
    }
    let only = args.heap.allocator.as_deref();
    let analysis = analysis::analyse(session.target(), only, progress)?;
    progress.phase("looking for references", None);
    let ground = roots::ground(session, &analysis);
    ground.follow_types(Limits::HELD);
    let most = args.most.clamp(1, 1 << 20);
    let mut found = ground.references(&addresses, most, MAX_PATHS);
    let extent = Extent {
        depth: args.depth.clamp(1, MAX_DEPTH),
        width: args.width.clamp(1, MAX_WIDTH),
    };
    for references in found.iter_mut().take(MAX_PATHS) {
        if args.tree {
            references.tree = Some(ground.holders_of_holders(references.to, extent));
        }
        if args.down {
            references.down = ground.what_hangs_on(references.to, extent);
        }
    }
    progress.phase("writing the report", None);
    let report = compose::graph::references(&ground, &found, &args.output.report_options());
    Ok(Document::Report(Box::new(report)))
}
