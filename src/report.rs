//! The report: one value made from an analysis, and its views.
//!
//! ```text
//! Session + Analysis + Verdict ──build──> Report ──┬── text    for people
//!                                         (schema) └── json    for pipelines
//! ```
//!
//! [`schema`] is a contract of its own (`docs/report.md`), converted by hand from the internal types, so that those may
//! change freely. A renderer sees [`schema::Report`], nothing else. Strings of the core come into a report as they are;
//! each renderer writes them through [`escape`].

pub mod build;
pub mod escape;
pub mod json;
pub mod redact;
#[cfg(test)]
pub(crate) mod sample;
pub mod schema;
mod signals;
pub mod status;
pub mod text;
