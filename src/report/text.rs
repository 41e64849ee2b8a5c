//! The text view. The first screen answers what crashed, whether the heap is damaged, which block, who did it and who
//! still holds it; the rest is the proof.
//!
//! Lines fit the terminal's width, 120 columns where there is none. A terminal changes colour and width, nothing else.
//! Every string of the report passes [`escaped`](super::escape::escaped) on its way here, in [`page::Page`] or at the
//! place where it is put into a line.

mod answers;
mod coverage;
mod crash;
mod dump;
mod findings;
mod heap;
mod number;
mod page;
mod recursion;
mod stacks;

use super::schema::{Level, Report};
use page::{Page, Role};

/// How text is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct TextOptions {
    /// With colours.
    pub color: bool,
    /// Columns of the terminal; `None`: there is none.
    pub width: Option<usize>,
}

/// The report of a heap check.
pub fn report(report: &Report, options: TextOptions) -> String {
    let mut page = Page::new(options);
    answers::write(report, &mut page);
    findings::write(report, &mut page);
    stacks::write_crashing(report, &mut page);
    crash::write(report, &mut page);
    heap::write(report, &mut page);
    notices(report, &mut page);
    page.into_text()
}

/// The stacks of all threads, in the shape of a minidump's dump.
pub fn minidump(report: &Report, options: TextOptions) -> String {
    let mut page = Page::new(options);
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
