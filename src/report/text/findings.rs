//! Findings, each with the words that prove it.

use crate::report::escape::escaped;
use crate::report::schema::{Bytes, Evidence, Finding, Frame, Hex, Location, Overwriter, Report};

use super::answers::{block, counts, culprit, facets, severity};
use super::dump;
use super::graph;
use super::number::count;
use super::page::{Page, Role};
use super::stacks::{module_columns, write_frame};

/// Indentation of a finding's fields.
const INDENT: usize = 4;
/// Indentation of what is told about a word of evidence.
const PROOF: usize = 8;
/// Words and places shown of each finding; JSON has all.
const MAX_SHOWN: usize = 8;
/// Frames shown of a recorded stack.
const MAX_FRAMES: usize = 31;

/// All findings.
pub fn write(report: &Report, page: &mut Page) {
    if report.findings.is_empty() {
        return;
    }
    page.heading(&format!("FINDINGS: {}", counts(report.summary)));
    for finding in &report.findings {
        page.gap();
        write_finding(finding, page);
    }
    if report.summary.dropped > 0 {
        page.gap();
        let more = format!(
            "and {} more, not shown",
            count(report.summary.dropped, "finding")
        );
        page.sentence(0, Role::Plain, &more);
    }
}

/// A finding with the words that prove it.
pub(super) fn write_finding(finding: &Finding, page: &mut Page) {
    let (role, word) = severity(finding.severity);
    let title = format!(
        "[{}] {}",
        finding.id,
        page.paint(role, &format!("{word} {}", escaped(&finding.kind)))
    );
    let facets = escaped(&self::facets(finding)).to_string();
    let line = format!("{title}  {}", page.paint(Role::Faint, &facets));
    page.line(&line);
    page.sentence(INDENT, Role::Strong, &finding.message);
    let mut field = |label, text: &str| page.field(INDENT, label, Role::Plain, text);
    let address = finding.address.map(|address| address.to_string());
    field("address", address.as_deref().unwrap_or("not known"));
    if let Some(found) = &finding.block {
        field("block", &block(found));
    }
    if let Some(found) = &finding.culprit {
        field("culprit", &culprit(found));
    }
    if let Some(held_by) = graph::held_by(finding) {
        field("held by", &held_by);
    }
    if let Some(found) = &finding.overwriter {
        field("written", &overwriter(found));
    }
    some(&finding.locations, |number, shown| {
        let label = if number == 0 { "listed in" } else { "" };
        match shown {
            Ok(found) => field(label, &location(found)),
            Err(more) => field(label, &format!("and {more} more")),
        }
    });
    if finding.collateral.lost_blocks > 0 {
        let lost = count(finding.collateral.lost_blocks, "free block");
        field("lost", &format!("{lost}, cut off from every list"));
    }
    some(&finding.evidence, |_, shown| match shown {
        Ok(evidence) => write_evidence(evidence, page),
        Err(more) => page.field(
            INDENT,
            "evidence",
            Role::Plain,
            &format!("{more} more words"),
        ),
    });
    for (label, bytes) in [
        (
            "block holds",
            finding.block.as_ref().map(|b| (b.address, &b.bytes)),
        ),
        (
            "culprit has",
            finding.culprit.as_ref().map(|c| (c.address, &c.bytes)),
        ),
    ] {
        if let Some((address, Some(bytes))) = bytes {
            write_contents(label, address, bytes, page);
        }
    }
    if let Some(stacks) = &finding.stacks {
        write_stack("allocated by", &stacks.allocation, page);
        write_stack("freed by", &stacks.deallocation, page);
    }
    for (label, frames) in [
        ("allocated at", &finding.allocated_at),
        ("freed at", &finding.freed_at),
        ("freed again", &finding.freed_again_at),
    ] {
        write_stack(label, frames.as_deref().unwrap_or_default(), page);
    }
    if let Some(culprit) = &finding.culprit {
        for (label, frames) in [
            ("culprit from", &culprit.allocated_at),
            ("freed at", &culprit.freed_at),
        ] {
            write_stack(label, frames.as_deref().unwrap_or_default(), page);
        }
    }
    for (number, repair) in finding.repairs.iter().enumerate() {
        let label = if number == 0 { "it was" } else { "" };
        let text = format!(
            "{} at {}: {}",
            repair.original, repair.address, repair.proof
        );
        page.field(INDENT, label, Role::Plain, &text);
    }
    write_causes(finding, page);
    for (number, step) in finding.next_steps.iter().enumerate() {
        let label = if number == 0 { "next steps" } else { "" };
        page.field(INDENT, label, Role::Plain, step);
    }
    let fingerprint = &finding.fingerprint;
    if !fingerprint.v2.is_empty() {
        let text = format!("{} ({})", fingerprint.v2, fingerprint.v2_text);
        page.field(INDENT, "fingerprint", Role::Faint, &text);
    }
}

/// The way back from the crash, if it is known.
fn write_causes(finding: &Finding, page: &mut Page) {
    let label = match finding.explains_crash.as_str() {
        "yes" => "died of it",
        "no" => "died of",
        _ => "perhaps",
    };
    some(&finding.causes, |number, shown| {
        let label = if number == 0 { label } else { "" };
        let arrow = if number == 0 { "" } else { "<- " };
        match shown {
            Ok(step) => page.field(INDENT, label, Role::Plain, &format!("{arrow}{}", step.text)),
            Err(more) => page.field(
                INDENT,
                label,
                Role::Plain,
                &format!("and {more} more steps"),
            ),
        }
    });
}

/// What was written, in words.
pub fn overwriter(found: &Overwriter) -> String {
    let is_text = ["ascii", "utf16"].contains(&found.class.as_str());
    match &found.text {
        Some(text) if is_text && !text.starts_with('"') => format!("{} \"{text}\"", found.class),
        Some(text) => format!("{}: {text}", found.class),
        None => found.class.clone(),
    }
}

/// The first few of a list, then the number of the others.
fn some<T>(list: &[T], mut show: impl FnMut(usize, Result<&T, usize>)) {
    for (number, item) in list.iter().take(MAX_SHOWN).enumerate() {
        show(number, Ok(item));
    }
    if list.len() > MAX_SHOWN {
        show(MAX_SHOWN, Err(list.len() - MAX_SHOWN));
    }
}

/// A place in a free list, in words.
pub fn location(location: &Location) -> String {
    let thread = match location.thread_id {
        Some(thread) => format!(" of thread {thread}"),
        None => String::new(),
    };
    let class = match location.size_class_bytes {
        0 => String::new(),
        bytes => format!(", class {} ({})", location.size_class, count(bytes, "byte")),
    };
    format!(
        "{}{thread} at {}{class}, position {}",
        location.holder, location.list_address, location.position
    )
}

fn write_evidence(evidence: &Evidence, page: &mut Page) {
    let what = format!("{}: {}", evidence.address, evidence.what);
    page.field(INDENT, "evidence", Role::Plain, &what);
    if !evidence.expected.is_empty() {
        page.field(PROOF, "expected", Role::Plain, &evidence.expected);
    }
    if !evidence.found.is_empty() {
        page.field(PROOF, "found", Role::Critical, &evidence.found);
    }
    page.labelled(PROOF, "in gdb", Role::Plain, &gdb_command(evidence));
    if let Some(found) = &evidence.dump {
        let end = evidence.address.0.saturating_add(evidence.size.into());
        let mark = (evidence.address.0, end);
        for row in dump::rows(found.address.0, &found.bytes.0, mark, page) {
            let line = format!("{}{row}", " ".repeat(PROOF));
            page.line(&line);
        }
    }
}

/// The command that shows the word, and the one after it.
pub fn gdb_command(evidence: &Evidence) -> String {
    let (unit, letter) = match evidence.size {
        1 => (1, 'b'),
        2 => (2, 'h'),
        4 => (4, 'w'),
        _ => (8, 'g'),
    };
    let units = evidence.size.div_ceil(unit).max(2);
    format!("x/{units}{letter}x {}", evidence.address)
}

fn write_contents(label: &str, address: Hex, bytes: &Bytes, page: &mut Page) {
    let held = count(bytes.0.len() as u64, "byte");
    page.field(
        INDENT,
        label,
        Role::Plain,
        &format!("{held} from its start:"),
    );
    for row in dump::rows(address.0, &bytes.0, (0, 0), page) {
        let line = format!("{}{row}", " ".repeat(PROOF));
        page.line(&line);
    }
}

/// A stack below its label.
pub fn write_stack(label: &str, frames: &[Frame], page: &mut Page) {
    if frames.is_empty() {
        return;
    }
    page.field(INDENT, label, Role::Plain, "");
    let module = module_columns(frames);
    for frame in frames.iter().take(MAX_FRAMES) {
        write_frame(PROOF, module, frame, page);
    }
}
