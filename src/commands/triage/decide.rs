//! Decisions: they change the triage file, which is reviewed like code.

use std::path::PathBuf;

use reports::import::Summary;
use reports::triage::{self, Input, Rule, State, TriageFile, today};

use super::super::Error;
use crate::output;
use crate::report::status;

/// The file that is changed, and records to take the readable form of a key from.
#[derive(clap::Args, Clone, Debug)]
struct Target {
    /// The file of decisions
    #[arg(long, value_name = "FILE", default_value = "heapcheck.triage.toml")]
    triage_file: PathBuf,

    /// Records in which the key is: its readable form is written beside it
    #[arg(long, value_name = "FILE")]
    from: Vec<String>,
}

/// `mute KEY --reason …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Mute {
    /// The group's key
    key: String,
    /// Why; a mute without a reason counts for nothing
    #[arg(long)]
    reason: String,
    /// Last day, YYYY-MM-DD
    #[arg(long, value_name = "DATE")]
    until: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// `merge KEY INTO`.
#[derive(clap::Args, Clone, Debug)]
pub struct Merge {
    /// The group's key
    key: String,
    /// The key of the group that it is part of
    into: String,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// `split KEY`.
#[derive(clap::Args, Clone, Debug)]
pub struct Split {
    /// The group's key
    key: String,
    /// Functions by which the records are told apart
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    frames: u8,
    #[command(flatten)]
    target: Target,
}

/// `ticket KEY ADDRESS`.
#[derive(clap::Args, Clone, Debug)]
pub struct Ticket {
    /// The group's key
    key: String,
    /// The ticket's number or address
    ticket: String,
    #[command(flatten)]
    target: Target,
}

impl Mute {
    /// Writes the decision.
    pub fn run(&self) -> Result<u8, Error> {
        let rule = Rule {
            key: self.key.clone(),
            state: State::Muted,
            reason: Some(self.reason.clone()),
            until: self.until.clone(),
            ..Rule::default()
        };
        self.target.decide(rule)
    }
}

impl Merge {
    /// Writes the decision.
    pub fn run(&self) -> Result<u8, Error> {
        if self.key == self.into {
            return Err("a group cannot be part of itself".into());
        }
        let rule = Rule {
            key: self.key.clone(),
            state: State::Merged,
            into: Some(self.into.clone()),
            reason: self.reason.clone(),
            ..Rule::default()
        };
        self.target.decide(rule)
    }
}

impl Split {
    /// Writes the decision.
    pub fn run(&self) -> Result<u8, Error> {
        let rule = Rule {
            key: self.key.clone(),
            state: State::Split,
            frames: usize::from(self.frames),
            ..Rule::default()
        };
        self.target.decide(rule)
    }
}

impl Ticket {
    /// Writes the decision.
    pub fn run(&self) -> Result<u8, Error> {
        let rule = Rule {
            key: self.key.clone(),
            state: State::Ticket,
            into: Some(self.ticket.clone()),
            ..Rule::default()
        };
        self.target.decide(rule)
    }
}

impl Target {
    fn decide(&self, mut rule: Rule) -> Result<u8, Error> {
        let mut file = TriageFile::open(&self.triage_file, &today())?;
        let input = Input {
            files: self.from.clone(),
            ..Input::default()
        };
        triage::each(&input, &mut Summary::default(), &mut |item| {
            if item.key == rule.key && rule.text.is_empty() {
                rule.text = item.key_text.to_string();
            }
            Ok(())
        })?;
        file.set(rule);
        // What was written must be readable: a wrong date is refused here, not in the next build.
        TriageFile::parse(&file.text(), &today())?;
        output::write(Some(&self.triage_file), file.text().as_bytes())?;
        Ok(status::CLEAN)
    }
}
