//! The report: one value made from an analysis, and its views.
//!
//! ```text
//! Session + Examination ──compose──> Document ──┬── text    for people
//!                                    (schema)   ├── json    for pipelines
//!                                               ├── ndjson  the same in lines
//!                                               ├── html    a page to send
//!                                               └── sarif   errors and leaks for code scanning
//! ```
//!
//! [`schema`] is a contract of its own (`docs/report.md`), converted by hand from the internal types, so that those may
//! change freely. A [`Format`] sees a [`schema::Document`], nothing else. Strings of the core come into a report as they are;
//! each renderer writes them through [`escape`].

pub mod compose;
pub mod escape;
pub mod html;
pub mod json;
pub mod ndjson;
pub mod redact;
#[cfg(test)]
pub(crate) mod sample;
pub mod sarif;
pub mod schema;
mod signals;
pub mod status;
pub mod text;

use std::{fmt, io};

use schema::Document;

/// What a terminal decides of a text. Without one: no colours, no width.
#[derive(Clone, Copy, Debug, Default)]
pub struct Screen {
    /// With colours.
    pub color: bool,
    /// Columns of the terminal; `None`: there is none.
    pub width: Option<usize>,
}

/// A way of writing documents: a room beside this file, and a line in [`FORMATS`].
pub trait Format: Sync {
    /// The name for `--format`.
    fn name(&self) -> &'static str;

    /// For whom it is, in the help.
    fn about(&self) -> &'static str;

    /// Whether an ERROR document is written to where the report would be, beside the line on standard error.
    fn writes_errors(&self) -> bool;

    /// Whether it draws a heap's memory, so that a document should have its pieces.
    fn draws_heaps(&self) -> bool {
        false
    }

    /// Writes a document.
    ///
    /// # Errors
    /// If the format cannot hold what is in it.
    fn render(&self, document: &Document, screen: Screen) -> io::Result<Vec<u8>>;
}

/// All formats.
pub static FORMATS: &[&dyn Format] = &[
    &text::Text,
    &json::Json,
    &ndjson::Ndjson,
    &html::Html,
    &sarif::Sarif,
];

impl fmt::Debug for dyn Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
