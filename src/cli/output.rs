//! How a document is written, and what it may show.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};

use crate::report::compose::ReportOptions;
use crate::report::{FORMATS, Format};

/// The format, the place and the contents of what is written.
#[derive(Args, Clone, Debug)]
pub struct OutputArgs {
    /// How to write the report
    #[arg(long, value_parser = format(), default_value = "text", value_name = "FORMAT", help_heading = "Output")]
    format: &'static dyn Format,

    /// Where to write the report [default: standard output]
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,

    /// Colour the text
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Output"
    )]
    color: ColorChoice,

    /// Show up to N bytes of the blocks concerned: they may hold secrets
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    include_bytes: u32,

    /// Make a report that may leave the house: no arguments, no text from memory, no folders
    #[arg(long, conflicts_with = "include_bytes", help_heading = "Output")]
    redact: bool,

    /// An attribute for the report, to index it by: version, commit, host (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute, help_heading = "Output")]
    kv: Vec<(String, String)>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl OutputArgs {
    /// How to write.
    pub fn format(&self) -> &'static dyn Format {
        self.format
    }

    /// Where to write; `None`: to standard output.
    pub fn path(&self) -> Option<&Path> {
        self.output.as_deref()
    }

    /// When to colour.
    pub fn color(&self) -> ColorChoice {
        self.color
    }

    /// What a report may show.
    pub fn report_options(&self) -> ReportOptions {
        ReportOptions {
            attributes: self.kv.iter().cloned().collect(),
            include_bytes: usize::try_from(self.include_bytes).unwrap_or(usize::MAX),
            redact: self.redact,
            draw_heaps: self.format.draws_heaps(),
        }
    }

    /// What clap cannot find wrong.
    pub(super) fn validate(&self) -> Result<(), String> {
        let mut attributes = BTreeMap::new();
        match self
            .kv
            .iter()
            .find(|(name, value)| attributes.insert(name, value).is_some())
        {
            Some((name, _)) => Err(format!("--kv {name}: given twice")),
            None => Ok(()),
        }
    }
}

fn format() -> impl TypedValueParser<Value = &'static dyn Format> {
    let names = FORMATS
        .iter()
        .map(|format| PossibleValue::new(format.name()).help(format.about()));
    PossibleValuesParser::new(names).try_map(|name| named(&name).ok_or("no such format"))
}

/// The format of this name.
pub(super) fn named(name: &str) -> Option<&'static dyn Format> {
    let mut formats = FORMATS.iter().copied();
    formats.find(|format| format.name() == name)
}

/// `name=value` of `--kv`.
fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".into()),
    }
}
