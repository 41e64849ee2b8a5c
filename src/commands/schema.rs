//! `schema [COMMAND]`: the JSON schema of what heapcheck writes.

use clap::ValueEnum;

use crate::report::json;
use crate::report::schema::Document;

/// What `schema` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The command whose document is meant [default: check]
    #[arg(value_name = "COMMAND", value_enum)]
    command: Option<Of>,
}

/// Commands that have a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Of {
    Check,
    Stacks,
    Leaks,
    Refs,
    Inspect,
    Maps,
    Usage,
}

/// Makes the schema.
pub fn run(args: &Args) -> Document {
    Document::Schema(match args.command {
        // All that is said of one core is one document with a part for each command.
        None
        | Some(
            Of::Check | Of::Stacks | Of::Leaks | Of::Refs | Of::Inspect | Of::Maps | Of::Usage,
        ) => json::schema(),
    })
}
