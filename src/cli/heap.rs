//! Which heap is read, and what of a finding makes the exit status.

use clap::{Args, ValueEnum};

use crate::report::schema::Severity;

/// The heap that is read.
#[derive(Args, Clone, Debug)]
pub struct HeapArgs {
    /// Take this allocator instead of detecting it
    #[arg(long, value_name = "NAME", help_heading = "Analysis")]
    pub allocator: Option<String>,
}

/// The lowest severity that gives exit status 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum FailOn {
    Critical,
    Warning,
    Note,
    Never,
}

impl FailOn {
    /// The threshold; `None`: nothing reaches it.
    pub fn severity(self) -> Option<Severity> {
        match self {
            Self::Critical => Some(Severity::Critical),
            Self::Warning => Some(Severity::Warning),
            Self::Note => Some(Severity::Note),
            Self::Never => None,
        }
    }
}
