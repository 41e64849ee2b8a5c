//! The commands: one file each, with what it takes from the command line and the document that it makes.
//!
//! A new command is a file here, a variant of `cli::Subcommands`, and its part of [`schema`](crate::report::schema).

pub mod batch;
pub mod check;
pub mod import;
pub mod inspect;
pub mod leaks;
pub mod maps;
pub mod refs;
pub mod schema;
pub mod stacks;
pub mod triage;
pub mod usage;
pub mod view;

use std::fmt;

use crate::cli::{CoreArgs, OutputArgs, SearchArgs};
use crate::progress::Progress;
use crate::report::schema::{Document, Severity};
use postmortem::session::Session;

/// Why a command gives no document.
pub type Error = Box<dyn std::error::Error>;

/// What every command that reads a core takes.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// The core, and how it is opened.
    pub core: &'a CoreArgs,
    /// Where files are looked for.
    pub search: &'a SearchArgs,
    /// How the document is written.
    pub output: &'a OutputArgs,
}

/// A command that reads a core: its arguments, and the document that it makes of a session.
pub trait CoreCommand: fmt::Debug {
    /// What all such commands take.
    fn shared(&self) -> Shared<'_>;

    /// The core, and how it is opened.
    fn core(&self) -> &CoreArgs {
        self.shared().core
    }

    /// Where files are looked for.
    fn search(&self) -> &SearchArgs {
        self.shared().search
    }

    /// How the document is written.
    fn output(&self) -> &OutputArgs {
        self.shared().output
    }

    /// Whether addresses may stand behind the files.
    fn takes_addresses(&self) -> bool {
        false
    }

    /// The lowest severity of a finding that gives exit status 1; `None`: none does.
    fn fail_on(&self) -> Option<Severity> {
        None
    }

    /// Makes the document.
    ///
    /// # Errors
    /// If what was asked for cannot be had of this core.
    fn run(&self, session: &Session, progress: &dyn Progress) -> Result<Document, Error>;
}

/// A command that reads reports of many processes and writes as it goes.
pub trait ReportsCommand: fmt::Debug {
    /// Does the work; gives the exit status.
    ///
    /// # Errors
    /// If files cannot be read or written, or say what they must not.
    fn run(&self) -> Result<u8, Error>;
}
