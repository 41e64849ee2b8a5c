//! The text view. The first screen answers what crashed, whether the heap is damaged, which block, who did it and who
//! still holds it; the rest is the proof.
//!
//! Lines fit the terminal's width, 120 columns where there is none. A terminal changes colour and width, nothing else.
//! Every string of the report passes [`escaped`](super::escape::escaped) on its way here, in `page::Page` or at the
//! place where it is put into a line.

pub(super) mod answers;
pub(super) mod coverage;
pub(super) mod crash;
pub(super) mod dump;
mod events;
pub(super) mod findings;
pub(super) mod graph;
mod heap;
mod inspect;
pub(super) mod maps;
pub(super) mod number;
pub(super) mod page;
pub mod parts;
pub(super) mod recursion;
pub(super) mod stacks;
mod trees;
pub(super) mod usage;

use std::io;

use super::escape::Escaped;
use super::schema::{Command, Document, Level, Report};
use super::{Format, Screen};
use page::{Page, Role};

/// Documents for people.
pub struct Text;

impl Format for Text {
    fn name(&self) -> &'static str {
        "text"
    }

    fn about(&self) -> &'static str {
        "For people"
    }

    fn writes_errors(&self) -> bool {
        false
    }

    fn render(&self, document: &Document, screen: Screen) -> io::Result<Vec<u8>> {
        let text = match document {
            Document::Report(report) => match report.command {
                Command::Check => check(report, screen),
                Command::Stacks => minidump(report, screen),
                Command::Refs => graph_page(report, screen, graph::references),
                Command::Leaks => graph_page(report, screen, graph::leaks),
                Command::Inspect => graph_page(report, screen, inspect::addresses),
                Command::Maps => graph_page(report, screen, maps::maps),
                Command::Usage => graph_page(report, screen, usage::usage),
            },
            Document::Error(error) => error_line(&error.error.message),
            Document::Schema(schema) => format!("{schema:#}\n"),
        };
        Ok(text.into_bytes())
    }
}

/// The line on standard error for what could not be done.
pub fn error_line(message: &str) -> String {
    format!("heapcheck: {}\n", Escaped(message))
}

/// The report of a heap check.
fn check(report: &Report, screen: Screen) -> String {
    let mut page = Page::new(screen);
    answers::write(report, &mut page);
    findings::write(report, &mut page);
    stacks::write_crashing(report, &mut page);
    crash::write(report, &mut page);
    heap::write(report, &mut page);
    notices(report, &mut page);
    page.into_text()
}

/// What a command says, and what was not looked at.
fn graph_page(report: &Report, screen: Screen, write: fn(&Report, &mut Page)) -> String {
    let mut page = Page::new(screen);
    write(report, &mut page);
    notices(report, &mut page);
    page.into_text()
}

/// The stacks of all threads, in the shape of a minidump's dump.
fn minidump(report: &Report, screen: Screen) -> String {
    let mut page = Page::new(screen);
    stacks::write_all(report, &mut page);
    page.into_text()
}

/// What was not checked, and what was odd.
fn notices(report: &Report, page: &mut Page) {
    if !report.limits.is_empty() {
        page.heading("NOT CHECKED");
        for limit in &report.limits {
            let role = if limit.incomplete {
                Role::Warning
            } else {
                Role::Plain
            };
            let text = format!("{}: {}", limit.what, limit.why);
            page.item(role, &text);
        }
    }
    for (level, heading) in [(Level::Warning, "WARNINGS"), (Level::Note, "NOTES")] {
        let mut of_level = report
            .diagnostics
            .iter()
            .filter(|diagnostic| diagnostic.level == level)
            .peekable();
        if of_level.peek().is_some() {
            page.heading(heading);
        }
        for diagnostic in of_level {
            page.item(Role::Plain, &diagnostic.message);
        }
    }
}

#[cfg(test)]
mod tests;
