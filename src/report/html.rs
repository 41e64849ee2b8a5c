//! The page to send: one file that opens without a network, is read without a script, and shows nothing that the document
//! does not hold.
//!
//! A policy in the page itself allows its own style and its own script, by their hashes, and nothing else: whatever a core
//! holds, the page fetches nothing and runs nothing. Lists end before the page grows beyond what can be sent (5 MB). Words are those
//! of the text view.

mod crash;
mod findings;
mod first;
mod heap;
mod map;
mod markup;
mod pointers;
mod table;
mod threads;
mod treemap;
mod usage;

use std::io;

use sha2::{Digest as _, Sha256};

use super::schema::{Command, Document, Level, Report};
use super::text::Text;
use super::{Format, Screen};
use markup::Markup;

const STYLE: &str = include_str!("html/page.css");
/// Makes tables sortable. No `<` and no `&` in it: the page is XML, too.
const SCRIPT: &str = include_str!("html/page.js");

/// Documents as a page.
pub struct Html;

impl Format for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn about(&self) -> &'static str {
        "A page to send: one file, nothing fetched"
    }

    fn writes_errors(&self) -> bool {
        false
    }

    fn draws_heaps(&self) -> bool {
        true
    }

    fn render(&self, document: &Document, _: Screen) -> io::Result<Vec<u8>> {
        let mut page = Markup::default();
        page.own("<!DOCTYPE html>\n");
        page.element("html", &[("lang", "en")], |page| {
            head(document, page);
            page.element("body", &[], |page| match document {
                Document::Report(report) => body(report, &text_view(document), page),
                Document::Error(error) => page.leaf("p", &[], &error.error.message),
                Document::Schema(schema) => page.leaf("pre", &[], &format!("{schema:#}")),
            });
        });
        Ok(page.into_text().into_bytes())
    }
}

fn head(document: &Document, page: &mut Markup) {
    let title = match document {
        Document::Report(report) => first::title(report),
        _ => "heapcheck".to_owned(),
    };
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; base-uri 'none'; form-action 'none'",
        source_of(STYLE),
        source_of(SCRIPT)
    );
    page.element("head", &[], |page| {
        page.empty("meta", &[("charset", "utf-8")]);
        page.empty(
            "meta",
            &[
                ("http-equiv", "Content-Security-Policy"),
                ("content", &policy),
            ],
        );
        let viewport = "width=device-width, initial-scale=1";
        page.empty("meta", &[("name", "viewport"), ("content", viewport)]);
        page.empty("meta", &[("name", "referrer"), ("content", "no-referrer")]);
        page.leaf("title", &[], &title);
        page.element("style", &[], |page| page.own(STYLE));
    });
}

/// A section of the page: its anchor, its heading, what writes it.
type Section = (&'static str, &'static str, fn(&Report, &mut Markup));

/// All sections, in the order in which they are read, and whether a report has them.
fn sections(report: &Report) -> Vec<Section> {
    let live = report.allocators.iter().any(|it| it.idle != Some(true));
    let all: [(bool, Section); 10] = [
        (
            !report.findings.is_empty(),
            ("findings", "Findings", findings::write),
        ),
        (report.leaks.is_some(), ("leaks", "Leaks", pointers::leaks)),
        (
            report.references.is_some(),
            ("references", "References", pointers::references),
        ),
        (report.usage.is_some(), ("usage", "Usage", usage::write)),
        (
            report.mappings.is_some(),
            ("mappings", "Mappings", usage::mappings),
        ),
        (
            report.crashing_thread.is_some(),
            ("crash", "Crash", crash::write),
        ),
        (
            !report.threads.is_empty(),
            ("threads", "Threads", threads::write),
        ),
        (live, ("heap", "Heap", heap::write)),
        (
            !report.limits.is_empty() || !report.diagnostics.is_empty(),
            ("not-checked", "Not checked", notices),
        ),
        (
            !report.modules.is_empty(),
            ("modules", "Modules", threads::modules),
        ),
    ];
    let present = all.into_iter().filter(|(present, _)| *present);
    present.map(|(_, section)| section).collect()
}

/// What the text says for a command that has no section of its own here; else nothing.
fn text_view(document: &Document) -> String {
    let command = match document {
        Document::Report(report) => report.command,
        _ => return String::new(),
    };
    if [
        Command::Check,
        Command::Stacks,
        Command::Refs,
        Command::Leaks,
        Command::Usage,
        Command::Maps,
    ]
    .contains(&command)
    {
        return String::new();
    }
    let bytes = Text.render(document, Screen::default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// `answer`: what the text says, where that is all that there is.
fn body(report: &Report, answer: &str, page: &mut Markup) {
    let sections = sections(report);
    page.leaf(
        "a",
        &[("class", "skip"), ("href", "#main")],
        "Skip to the report",
    );
    page.element("header", &[], |page| first::write(report, page));
    page.element("nav", &[("aria-label", "Sections")], |page| {
        page.element("ul", &[], |page| {
            for (anchor, heading, _) in &sections {
                page.element("li", &[], |page| {
                    page.leaf("a", &[("href", &format!("#{anchor}"))], heading);
                });
            }
        });
    });
    page.element("main", &[("id", "main")], |page| {
        if !answer.is_empty() {
            table::scroll("The answer", page, |page| {
                page.element("pre", &[], |page| {
                    for line in answer.lines() {
                        if page.is_full() {
                            return;
                        }
                        page.text(line);
                        page.own("\n");
                    }
                });
            });
        }
        for (anchor, heading, write) in sections {
            let label = format!("{anchor}-heading");
            page.element(
                "section",
                &[("id", anchor), ("aria-labelledby", &label)],
                |page| {
                    page.leaf("h2", &[("id", &label)], heading);
                    write(report, page);
                },
            );
        }
    });
    page.element("footer", &[], |page| footer(report, page));
    page.element("script", &[], |page| page.own(SCRIPT));
}

/// What was not checked, and what was odd.
fn notices(report: &Report, page: &mut Markup) {
    page.element("ul", &[], |page| {
        for limit in &report.limits {
            let role = if limit.incomplete { "warning" } else { "" };
            let text = format!("{}: {}", limit.what, limit.why);
            page.leaf("li", &[("class", role)], &text);
        }
        for diagnostic in &report.diagnostics {
            let role = match diagnostic.level {
                Level::Warning => "warning",
                Level::Note => "",
            };
            page.leaf("li", &[("class", role)], &diagnostic.message);
        }
    });
}

fn footer(report: &Report, page: &mut Markup) {
    if page.is_full() {
        page.leaf(
            "p",
            &[],
            "Lists were cut, so that this page stays one that can be sent: --format json has everything.",
        );
    }
    let tool = &report.tool;
    let text = format!(
        "Written by {} {} from a core of {} bytes. What a program kept in its memory is shown only where it proves a finding, \
         or where it was asked for.",
        tool.name, tool.version, report.core.size
    );
    page.leaf("p", &[], &text);
}

/// How a policy names a style or a script.
fn source_of(text: &str) -> String {
    format!("sha256-{}", base64(&Sha256::digest(text)))
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| chunk.get(place).copied().map_or(0, u32::from);
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4usize {
            let index = (bits >> (18 - 6 * place)) & 63;
            let letter = LETTERS.get(index as usize).copied().unwrap_or(b'=');
            text.push(if place > chunk.len() {
                '='
            } else {
                char::from(letter)
            });
        }
    }
    text
}

#[cfg(test)]
mod tests;
