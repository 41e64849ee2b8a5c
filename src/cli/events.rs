//! A log of the run that the core is of.

use std::path::{Path, PathBuf};

use clap::Args;

/// The log.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// Join a log of the same run, for who allocated and freed: mtrace, libmtrace, memleak, heap profiles of gperftools and jemalloc
    #[arg(long, value_name = "LOG", help_heading = "Analysis")]
    events: Option<PathBuf>,
}

impl EventsArgs {
    /// The log.
    pub fn path(&self) -> Option<&Path> {
        self.events.as_deref()
    }
}
