//! The first screen: what died, whether its heap is damaged, which block, who did it, what to do.

use super::markup::Markup;
use crate::report::schema::{Command, Report};
use crate::report::text::answers;
use crate::report::text::coverage;
use crate::report::text::graph;
use crate::report::text::number::{bytes, short};
use crate::report::text::page::Role;

/// What a browser shows for the page.
pub fn title(report: &Report) -> String {
    let program = report.process.executable.as_deref().unwrap_or("a core");
    let what = match (report.findings.first(), &report.crash_info.signal) {
        _ if report.leaks.is_some() => "Leaks",
        _ if report.references.is_some() => "References",
        _ if report.usage.is_some() => "Usage",
        _ if report.command == Command::Maps => "Mappings",
        (Some(worst), _) => worst.kind.as_str(),
        (None, Some(signal)) => signal.as_str(),
        (None, None) => "Report",
    };
    format!("{what} in {program}")
}

/// The class of a role.
pub fn class(role: Role) -> &'static str {
    match role {
        Role::Critical => "critical",
        Role::Warning => "warning",
        Role::Good => "good",
        _ => "faint",
    }
}

/// The answers.
pub fn write(report: &Report, page: &mut Markup) {
    let core = &report.core;
    let size = short(core.size).unwrap_or_else(|| bytes(core.size));
    let from = format!(
        "{} {}: {} ({size})",
        report.tool.name, report.tool.version, core.path
    );
    page.leaf("p", &[("class", "faint")], &from);
    page.leaf("h1", &[], &title(report));
    // Another command looked for no damage, so it has nothing to say of it.
    let verdict = match (&report.leaks, report.command) {
        (Some(leaks), _) => Some(graph::lost(leaks)),
        (None, Command::Check) => Some(answers::heap(report)),
        (None, _) => None,
    };
    if let Some((role, heap)) = verdict {
        let class = format!("verdict {}", class(role));
        page.leaf("p", &[("class", &class)], &heap);
    }
    page.element("dl", &[], |page| {
        field("program", &answers::program(report), page);
        if let Some(command) = answers::command(report) {
            field("command", command, page);
        }
        field("crash", &answers::crash(report), page);
        if let Some(looked_at) = coverage::looked_at(report) {
            field("looked at", &looked_at, page);
        }
        let Some(worst) = report.findings.first() else {
            return;
        };
        let error = format!(
            "{}, {}: {}",
            worst.kind,
            answers::confidence(worst),
            worst.message
        );
        field("error", &error, page);
        if let Some(block) = &worst.block {
            field("block", &answers::block(block), page);
        }
        if let Some(done_by) = answers::done_by(worst) {
            field("done by", &done_by, page);
        }
        if let Some(held_by) = graph::held_by(worst) {
            field("held by", &held_by, page);
        }
        if let Some(step) = worst.next_steps.first() {
            field("do next", step, page);
        }
    });
    if !report.attributes.is_empty() {
        page.element("dl", &[], |page| {
            for (name, value) in &report.attributes {
                field(name, value, page);
            }
        });
    }
}

/// A name and what is said of it.
pub fn field(name: &str, value: &str, page: &mut Markup) {
    page.leaf("dt", &[], name);
    page.leaf("dd", &[], value);
}
