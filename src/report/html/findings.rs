//! Findings, each with the words in memory that prove it.

use super::first::{class, field};
use super::markup::Markup;
use super::table::scroll;
use super::threads::frames;
use crate::report::Screen;
use crate::report::schema::{Bytes, Evidence, Finding, Hex, Report};
use crate::report::text::number::count;
use crate::report::text::page::Page;
use crate::report::text::{answers, dump, findings, graph};

/// All findings.
pub fn write(report: &Report, page: &mut Markup) {
    page.leaf("p", &[], &answers::counts(report.summary));
    for finding in &report.findings {
        if page.is_full() {
            return;
        }
        let anchor = format!("finding-{}", finding.id);
        page.element("article", &[("id", &anchor)], |page| {
            write_finding(finding, page);
        });
    }
    if report.summary.dropped > 0 {
        let more = count(report.summary.dropped, "finding");
        page.leaf(
            "p",
            &[],
            &format!("and {more} more, which were only counted"),
        );
    }
}

fn write_finding(finding: &Finding, page: &mut Markup) {
    let (role, word) = answers::severity(finding.severity);
    page.element("h3", &[], |page| {
        page.text(&format!("[{}] ", finding.id));
        page.leaf("span", &[("class", class(role))], word);
        page.text(&format!(" {}", finding.kind));
    });
    page.leaf("p", &[("class", "faint")], &answers::facets(finding));
    page.leaf("p", &[], &finding.message);
    page.element("dl", &[], |page| fields(finding, page));
    if !finding.causes.is_empty() {
        page.leaf(
            "h4",
            &[],
            match finding.explains_crash.as_str() {
                "yes" => "The program died of it: the way back from the crash",
                "no" => "The program died of something else: the way back from the crash",
                _ => "The way back from the crash, as far as it is known",
            },
        );
        page.element("ol", &[], |page| {
            for step in &finding.causes {
                page.leaf("li", &[], &step.text);
            }
        });
    }
    if !finding.evidence.is_empty() {
        page.leaf("h4", &[], "The words that prove it");
    }
    for evidence in &finding.evidence {
        write_evidence(evidence, page);
    }
    let block = finding.block.as_ref();
    let culprit = finding.culprit.as_ref();
    let block = block.and_then(|it| Some(("The block", it.address, it.bytes.as_ref()?)));
    let culprit = culprit.and_then(|it| Some(("The culprit", it.address, it.bytes.as_ref()?)));
    for (whose, address, bytes) in block.into_iter().chain(culprit) {
        contents(whose, address, bytes, page);
    }
    if let Some(stacks) = &finding.stacks {
        for (caption, stack) in [
            ("Allocated by", &stacks.allocation),
            ("Freed by", &stacks.deallocation),
        ] {
            if !stack.is_empty() {
                frames(caption, stack.iter(), page);
            }
        }
    }
    if !finding.next_steps.is_empty() {
        page.leaf("h4", &[], "What to do next");
        page.element("ol", &[], |page| {
            for step in &finding.next_steps {
                page.leaf("li", &[], step);
            }
        });
    }
    let fingerprint = &finding.fingerprint;
    if !fingerprint.v2.is_empty() {
        let text = format!("fingerprint {} ({})", fingerprint.v2, fingerprint.v2_text);
        page.leaf("p", &[("class", "faint")], &text);
    }
}

fn fields(finding: &Finding, page: &mut Markup) {
    let address = finding.address.map(|address| address.to_string());
    field("address", address.as_deref().unwrap_or("not known"), page);
    if let Some(found) = &finding.block {
        field("block", &answers::block(found), page);
    }
    if let Some(found) = &finding.culprit {
        field("culprit", &answers::culprit(found), page);
    }
    if let Some(found) = &finding.overwriter {
        field("written", &findings::overwriter(found), page);
    }
    let (history, holders): (Vec<_>, Vec<_>) = finding
        .referenced_by
        .iter()
        .partition(|row| row.kind == "history");
    list("held by", holders.into_iter().map(graph::row), page);
    list("history", history.into_iter().map(graph::row), page);
    let locations = finding.locations.iter();
    list("listed in", locations.map(findings::location), page);
    if finding.collateral.lost_blocks > 0 {
        let lost = count(finding.collateral.lost_blocks, "free block");
        field("lost", &format!("{lost}, cut off from every list"), page);
    }
}

/// A name and all that is said of it; nothing if that is nothing.
fn list(name: &str, values: impl Iterator<Item = String>, page: &mut Markup) {
    for (number, value) in values.enumerate() {
        if number == 0 {
            page.leaf("dt", &[], name);
        }
        page.leaf("dd", &[], &value);
    }
}

fn write_evidence(evidence: &Evidence, page: &mut Markup) {
    page.element("figure", &[], |page| {
        let what = format!("{}: {}", evidence.address, evidence.what);
        page.element("figcaption", &[], |page| {
            page.leaf("b", &[], &what);
            page.element("dl", &[], |page| {
                if !evidence.expected.is_empty() {
                    field("expected", &evidence.expected, page);
                }
                if !evidence.found.is_empty() {
                    page.leaf("dt", &[], "found");
                    page.leaf("dd", &[("class", "critical")], &evidence.found);
                }
                page.leaf("dt", &[], "in gdb");
                page.element("dd", &[], |page| {
                    page.leaf("code", &[], &findings::gdb_command(evidence));
                });
            });
        });
        if let Some(found) = &evidence.dump {
            let end = evidence.address.0.saturating_add(evidence.size.into());
            let mark = (evidence.address.0, end);
            hex(
                &format!("Memory at {}", found.address),
                found.address,
                &found.bytes,
                mark,
                page,
            );
        }
    });
}

fn contents(whose: &str, address: Hex, bytes: &Bytes, page: &mut Markup) {
    page.element("figure", &[], |page| {
        let held = count(bytes.0.len() as u64, "byte");
        let caption = format!("{whose} {address}, {held} from its start");
        page.leaf("figcaption", &[], &caption);
        hex(&caption, address, bytes, (0, 0), page);
    });
}

/// A dump with the word in question marked; the brackets of the text stay, for whoever copies it.
fn hex(label: &str, start: Hex, bytes: &Bytes, mark: (u64, u64), page: &mut Markup) {
    let rows = dump::rows(start.0, &bytes.0, mark, &Page::new(Screen::default()));
    scroll(label, page, |page| {
        page.element("pre", &[], |page| {
            for row in rows {
                let (digits, letters) = row.split_once('|').unwrap_or((&row, ""));
                let mut rest = digits;
                while let Some((before, marked)) = rest.split_once('[') {
                    page.text(before);
                    let (marked, after) = marked.split_once(']').unwrap_or((marked, ""));
                    page.leaf("mark", &[], &format!("[{marked}]"));
                    rest = after;
                }
                page.text(rest);
                page.text("|");
                page.text(letters);
                page.own("\n");
            }
        });
    });
}
