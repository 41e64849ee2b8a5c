//! The command line: arguments to an [`Invocation`]. Validates, does nothing.
//!
//! Four spellings of the main job, because people and debuggers' front ends use all of them:
//!
//! ```text
//! heapcheck [OPTIONS] CORE [BINARY]        which is which is told by their ELF type
//! heapcheck [OPTIONS] BINARY -c CORE       coredumpctl debug --debugger=heapcheck
//! heapcheck check [OPTIONS] CORE [BINARY]  also for a core file that is called `schema`
//! heapcheck --minidump CORE [BINARY]       the same as `heapcheck stacks CORE [BINARY]`
//! ```
//!
//! What a command takes is written beside the command (`commands/*.rs`); what several take are the parts here: [`CoreArgs`],
//! [`SearchArgs`], [`HeapArgs`], [`OutputArgs`].

mod core;
mod events;
mod heap;
pub mod help;
mod output;
mod search;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{FromArgMatches as _, Parser, Subcommand};

pub use self::core::{CoreArgs, Operand};
pub use self::events::EventsArgs;
pub use self::heap::{FailOn, HeapArgs};
pub use self::output::{ColorChoice, OutputArgs};
pub use self::search::{FilesArgs, SearchArgs};
use crate::commands::{
    CoreCommand, ReportsCommand, batch, check, import, inspect, leaks, maps, refs, schema, stacks,
    triage, usage, view,
};
use crate::report::Format;

#[derive(Debug, Parser)]
#[command(
    name = "heapcheck",
    version = env!("HEAPCHECK_VERSION"),
    about = "Finds heap corruption in core files: what is damaged, which block, who did it",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    check: check::Args,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Check the heap: the main job by its long name
    Check(Box<check::Args>),
    /// Print the stacks of all threads
    Stacks(Box<stacks::Args>),
    /// Find what nobody points at any more
    Leaks(Box<leaks::Args>),
    /// Find who points at an address
    Refs(Box<refs::Args>),
    /// Say what an address is, and what each word around it means
    Inspect(Box<inspect::Args>),
    /// Find where the memory is, and who holds it
    Usage(Box<usage::Args>),
    /// List every mapping and what it is
    Maps(Box<maps::Args>),
    /// Walk in a core on the terminal
    View(Box<view::Args>),
    /// Check many cores, each in a process of its own: NDJSON, a line for each
    Batch(Box<batch::Args>),
    /// Read logs of sanitizers, valgrind and others: NDJSON, one error a line
    Import(Box<import::Args>),
    /// Group many reports by bug, compare them, decide about them
    Triage(Box<triage::Args>),
    /// Print the JSON schema of the report
    Schema(schema::Args),
}

/// What to do.
#[derive(Debug)]
pub enum Invocation {
    /// Read a core and say something of it.
    Read(Box<dyn CoreCommand>),
    /// Show a core on the terminal.
    View(Box<view::Args>),
    /// Read reports of many processes.
    Reports(Box<dyn ReportsCommand>),
    /// Print a JSON schema.
    Schema(schema::Args),
    /// Print this: help, or the version.
    Print(String),
}

impl Subcommands {
    fn invocation(self) -> Invocation {
        match self {
            Self::Check(check) => Invocation::Read(check.command()),
            Self::Stacks(stacks) => Invocation::Read(stacks),
            Self::Leaks(leaks) => Invocation::Read(leaks),
            Self::Refs(refs) => Invocation::Read(refs),
            Self::Inspect(inspect) => Invocation::Read(inspect),
            Self::Usage(usage) => Invocation::Read(usage),
            Self::Maps(maps) => Invocation::Read(maps),
            Self::View(view) => Invocation::View(view),
            Self::Batch(batch) => Invocation::Reports(batch),
            Self::Import(import) => Invocation::Reports(import),
            Self::Triage(triage) => Invocation::Reports(triage),
            Self::Schema(schema) => Invocation::Schema(schema),
        }
    }
}

/// A command line that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// One line.
    message: String,
    /// A format that has documents for errors was asked for, as far as that can be told.
    pub format: Option<&'static dyn Format>,
}

/// Parses a command line, program name first.
///
/// # Errors
/// If it cannot be followed.
pub fn parse(arguments: Vec<OsString>) -> Result<Invocation, UsageError> {
    let format = format_of_errors(&arguments);
    let wrong = |message| UsageError { message, format };
    let matches = help::command().try_get_matches_from(arguments);
    let arguments = match matches.and_then(|it| Arguments::from_arg_matches(&it)) {
        Ok(arguments) => arguments,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return Ok(Invocation::Print(error.render().to_string()));
        }
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            let line = one_line(&error.render().to_string());
            return Err(wrong(match line.contains("CORE]") {
                true => NO_CORE.into(),
                false => line,
            }));
        }
        Err(error) => return Err(wrong(one_line(&error.render().to_string()))),
    };
    let invocation = match arguments.command {
        Some(command) => command.invocation(),
        None => Invocation::Read(arguments.check.command()),
    };
    if let Invocation::Read(command) = &invocation {
        let core = command.core().validate(command.takes_addresses());
        core.and_then(|()| command.output().validate())
            .map_err(wrong)?;
    }
    if let Invocation::View(view) = &invocation {
        view.core().validate(false).map_err(wrong)?;
    }
    Ok(invocation)
}

/// A number of bytes, perhaps with a unit.
///
/// # Errors
/// If it is none.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("not a number of bytes, or one with K, M, G or T".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a number of bytes, or one with K, M, G or T")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".into())
}

/// What is said where no core was named.
const NO_CORE: &str =
    "no core file was named: heapcheck CORE [BINARY]; heapcheck --help has examples";

/// A usage error's first paragraph without the word `error`, on one line.
fn one_line(rendered: &str) -> String {
    let paragraph: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = paragraph.join(" ").replace(" tip: ", "; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The format that a command line asks for, which may be wrong, if errors are written in it: then this one is, too.
fn format_of_errors(arguments: &[OsString]) -> Option<&'static dyn Format> {
    let before_files = arguments.iter().take_while(|argument| *argument != "--");
    let mut value_is_next = false;
    let mut names = before_files.filter_map(|argument| {
        let text = argument.to_str();
        let is_value = std::mem::replace(&mut value_is_next, argument == "--format");
        match is_value {
            true => text,
            false => text?.strip_prefix("--format="),
        }
    });
    names.find_map(|name| output::named(name).filter(|format| format.writes_errors()))
}
