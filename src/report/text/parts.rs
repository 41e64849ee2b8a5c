//! Parts of the text for whoever shows them elsewhere than on a page, in the same words: the viewer.

use serde_json::Value;

use crate::report::Screen;
use crate::report::escape::escaped;
use crate::report::schema::{
    Allocator, Finding, Frame, InspectedAddress, Leaks, Owner, Reference, Report, Thread, TreeRow,
};

use super::page::{self, Page};
use super::{answers, crash, findings, graph, heap, inspect, notices, stacks, trees, usage};

pub use super::number::{bytes, count, percent, short, thousands};
pub use super::page::Role;

/// A line: runs of text, escaped, each with what it is.
pub type Line = Vec<(Role, String)>;

/// What a part says on a page of so many columns.
fn written(width: usize, write: impl FnOnce(&mut Page)) -> Vec<Line> {
    let mut page = Page::new(Screen {
        color: true,
        width: Some(width),
    });
    write(&mut page);
    let text = page.into_text();
    text.lines().map(page::runs).collect()
}

/// The first screen, the crash, and what was not checked: the report of `check` without findings and heaps.
pub fn first_screen(report: &Report, width: usize) -> Vec<Line> {
    written(width, |page| {
        answers::write(report, page);
        stacks::write_crashing(report, page);
        crash::write(report, page);
        notices(report, page);
    })
}

/// A finding with its proof.
pub fn finding(found: &Finding, width: usize) -> Vec<Line> {
    written(width, |page| findings::write_finding(found, page))
}

/// What an address is.
pub fn address(found: &InspectedAddress, width: usize) -> Vec<Line> {
    written(width, |page| inspect::write(found, page))
}

/// What each allocator holds.
pub fn heaps(report: &Report, width: usize) -> Vec<Line> {
    written(width, |page| heap::write(report, page))
}

/// Where an allocator's own structures are and how they were found, and its own facts; none where none were.
pub fn structures(found: &Allocator) -> Vec<Line> {
    let details = &found.details;
    if details.located.is_empty() {
        return Vec::new();
    }
    let title = format!("STRUCTURES OF {}", allocator(found));
    let mut lines: Vec<Line> = vec![Line::new(), vec![(Role::Strong, title)]];
    lines.extend(details.located.iter().map(|(name, place)| {
        let (name, by) = (escaped(name), escaped(&place.by));
        vec![
            (Role::Plain, format!("  {}  {name}", place.address)),
            (Role::Faint, format!("  by {by}")),
        ]
    }));
    lines.extend(details.more.iter().filter_map(|(name, value)| {
        let value = match value {
            Value::String(text) => escaped(text),
            Value::Number(number) => number.as_u64().map_or(number.to_string(), thousands),
            Value::Bool(is) => is.to_string(),
            _ => return None,
        };
        let name = escaped(&name.replace('_', " "));
        Some(vec![(Role::Plain, format!("  {name}: {value}"))])
    }));
    lines
}

/// A frame's lines, its module's name in as many columns as it needs.
pub fn frame(found: &Frame, width: usize) -> Vec<Line> {
    let columns = found.module.as_ref().map_or(1, |name| name.chars().count());
    written(width, |page| stacks::write_frame(0, columns, found, page))
}

/// The same in few columns: numbers and functions, without modules.
pub fn narrow_frame(found: &Frame) -> Vec<Line> {
    let line = |name: String, place: String, more: &str| {
        vec![
            (Role::Faint, format!("[{}] ", found.frame)),
            (Role::Plain, name),
            (Role::Faint, format!("{place}{more}")),
        ]
    };
    let inlines = found.inlines.iter().map(|inline| {
        let name = inline.function.as_deref().unwrap_or("?");
        let place = stacks::place(inline.file.as_deref(), inline.line);
        line(
            escaped(&stacks::short_name(name, None)),
            place,
            " [inlined]",
        )
    });
    let mut lines: Vec<Line> = inlines.collect();
    let name = match &found.function {
        Some(name) => escaped(&stacks::short_name(name, None)),
        None => format!(
            "{}{}",
            escaped(found.module.as_deref().unwrap_or("")),
            stacks::function(found)
        ),
    };
    let place = stacks::place(found.file.as_deref(), found.line);
    lines.push(line(name, place, ""));
    lines
}

/// What is lost, and what is not.
pub fn leaks(found: &Leaks, width: usize) -> Vec<Line> {
    written(width, |page| graph::totals(found, page))
}

/// A thread, and what it was doing where that says something.
pub fn thread(found: &Thread) -> String {
    format!("{}{}", stacks::name(found), stacks::in_system_call(found))
}

/// Why a stack is not whole, if it is not.
pub fn stack_end(found: &Thread) -> Option<&'static str> {
    stacks::end(found)
}

/// The program and its process id.
pub fn program(report: &Report) -> String {
    escaped(&answers::program(report))
}

/// Whether the heap is damaged.
pub fn verdict(report: &Report) -> (Role, String) {
    let (role, text) = answers::heap(report);
    (role, escaped(&text))
}

/// An allocator's name and release.
pub fn allocator(found: &Allocator) -> String {
    escaped(&answers::full_name(found))
}

/// The word for a finding's severity.
pub fn severity(found: &Finding) -> (Role, &'static str) {
    answers::severity(found.severity)
}

/// A word that points somewhere, and where it stands.
pub fn reference(found: &Reference) -> String {
    escaped(&graph::row(found))
}

/// Who holds a part of the heap.
pub fn owner(found: &Owner) -> String {
    escaped(&usage::named(found))
}

/// A holder in a tree.
pub fn holder(row: &TreeRow) -> String {
    escaped(&trees::holder(row))
}

/// What a word of a block points at, in a tree.
pub fn held(row: &TreeRow) -> String {
    escaped(&trees::held(row))
}
