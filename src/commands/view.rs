//! `view CORE [BINARY]`: a core on a terminal, to walk in.

use super::Error;
use crate::cli::{ColorChoice, CoreArgs, HeapArgs, SearchArgs};
use crate::report::status;
use crate::view::jobs::opening;
use crate::view::{End, Viewer, terminal};
use crate::{interrupt, terminal as screen};

/// What `view` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(flatten)]
    search: SearchArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    core: CoreArgs,

    /// Colour the screen
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Output"
    )]
    color: ColorChoice,
}

impl Args {
    /// The core, and how it is opened.
    pub fn core(&self) -> &CoreArgs {
        &self.core
    }
}

/// Shows the core until the viewer is left; gives the exit status.
///
/// # Errors
/// If there is no terminal, or the core cannot be read.
pub fn run(args: &Args) -> Result<u8, Error> {
    if !terminal::is_there() {
        return Err(
            "view needs a terminal for both input and output; check, inspect and --format html do without one".into(),
        );
    }
    interrupt::watch(None);
    if let Some(jobs) = args.core.jobs() {
        rayon::ThreadPoolBuilder::new()
            .num_threads(jobs)
            .build_global()?;
    }
    let opening = opening(&args.core, &args.search, args.heap.allocator.clone());
    let look = terminal::look(screen::wants_color(args.color, true));
    let viewer = Viewer::start(opening, terminal::size()?)?;
    match viewer.show(look)? {
        End::Quit => Ok(status::CLEAN),
        End::Failed(message) => Err(message.into()),
    }
}
