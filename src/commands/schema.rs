//! `schema [COMMAND [VERB]]`: the JSON schema of what heapcheck writes.

use clap::ValueEnum;
use clap::builder::PossibleValuesParser;

use crate::report::json;
use crate::report::schema::Document;

/// What `schema` takes.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The command whose document is meant [default: check]
    #[arg(value_name = "COMMAND", value_enum)]
    command: Option<Of>,

    /// The question of `triage` whose answer is meant [default: any]
    #[arg(value_name = "VERB", value_parser = PossibleValuesParser::new(reports::VERBS), requires = "command")]
    verb: Option<String>,
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
    /// A line: a report, with the core's id and exit status in front
    Batch,
    /// A line: one error
    Import,
    Triage,
}

/// Makes the schema.
///
/// # Errors
/// If a verb was named for another command than `triage`.
pub fn run(args: &Args) -> Result<Document, super::Error> {
    let verb = args.verb.as_deref();
    Ok(Document::Schema(match (args.command, verb) {
        (Some(Of::Triage), Some(verb)) => reports::schema(verb).ok_or("no such question")?,
        (Some(Of::Triage), None) => reports::any_schema(),
        (_, Some(_)) => return Err("a VERB stands behind `triage` only".into()),
        (Some(Of::Import), None) => reports::record_schema(),
        // All that is said of one core is one document with a part for each command.
        (
            None
            | Some(
                Of::Check
                | Of::Stacks
                | Of::Leaks
                | Of::Refs
                | Of::Inspect
                | Of::Maps
                | Of::Usage
                | Of::Batch,
            ),
            None,
        ) => json::schema(),
    }))
}
