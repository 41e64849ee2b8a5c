//! What addresses are, for people.

use crate::report::escape::escaped;
use crate::report::schema::{InspectedAddress, InspectedWord, Location, Reference, Report};

use super::answers::{self, block};
use super::number::bytes;
use super::page::{Page, Role};
use super::{events, findings, graph};

/// Indentation of fields.
const INDENT: usize = 4;

/// What `inspect` says.
pub fn addresses(report: &Report, page: &mut Page) {
    answers::title(report, page);
    events::log(report, page);
    for found in report.addresses.iter().flatten() {
        write(found, page);
    }
}

/// What one address is.
pub(super) fn write(found: &InspectedAddress, page: &mut Page) {
    page.heading(&format!("{}: {}", found.address, escaped(&found.what)));
    page.sentence(INDENT, Role::Plain, &found.message);
    let mut field = |label: &str, text: &str| page.field(INDENT, label, Role::Plain, text);
    if let Some(found) = &found.block {
        field("block", &block(found));
    }
    if let Some(member) = &found.member {
        field("member", &escaped(member));
    }
    if let Some(structure) = &found.structure {
        field("structure", structure);
    }
    for (number, location) in found.locations.iter().enumerate() {
        let label = if number == 0 { "listed in" } else { "" };
        field(label, &list(location));
    }
    for neighbour in &found.neighbours {
        field(&neighbour.side, &block(&neighbour.block));
    }
    if let (Some(module), Some(offset)) = (&found.module, found.module_offset) {
        let section = found.section.as_deref();
        let section = section.map_or(String::new(), |section| format!(", section {section}"));
        field("module", &format!("{module}+{offset}{section}"));
    }
    if let Some(file) = &found.file {
        let line = found.line.map_or(String::new(), |line| format!(":{line}"));
        field("source", &format!("{file}{line}"));
    }
    if let Some(mapping) = &found.mapping {
        let size = mapping.end.0.saturating_sub(mapping.start.0);
        let file = mapping.file.as_deref();
        let file = file.map_or(String::new(), |file| format!(", {file}"));
        field(
            "mapping",
            &format!(
                "{}-{} {}, {}{file}",
                mapping.start,
                mapping.end,
                mapping.permissions,
                bytes(size)
            ),
        );
    }
    let (history, holders): (Vec<&Reference>, Vec<&Reference>) = found
        .referenced_by
        .iter()
        .partition(|row| row.kind == "history");
    if holders.is_empty() {
        page.field(INDENT, "held by", Role::Plain, "nobody");
    }
    graph::list("held by", &holders, found.referenced_by_count, page);
    graph::list("history", &history, history.len() as u64, page);
    for (label, frames) in [
        ("allocated by", &found.allocated_at),
        ("freed by", &found.freed_at),
        ("freed again", &found.freed_again_at),
    ] {
        findings::write_stack(label, frames.as_deref().unwrap_or_default(), page);
    }
    words(found, page);
}

fn list(found: &Location) -> String {
    let thread = found
        .thread_id
        .map_or(String::new(), |thread| format!(" of thread {thread}"));
    format!(
        "{}{thread} at {}, class {} ({} bytes), position {}",
        found.holder, found.list_address, found.size_class, found.size_class_bytes, found.position
    )
}

fn words(found: &InspectedAddress, page: &mut Page) {
    if found.words.is_empty() {
        return;
    }
    page.gap();
    let at = |word: &InspectedWord| {
        let inside = found.address.0.checked_sub(word.address.0);
        inside.is_some_and(|inside| inside < 8)
    };
    let names = found.words.iter().filter_map(|word| word.name.as_deref());
    let width = names
        .map(|name| name.chars().count())
        .max()
        .unwrap_or(0)
        .min(32);
    let is_plain =
        |word: &InspectedWord| word.meaning == "zero" && word.name.is_none() && !at(word);
    let mut words = found.words.iter().peekable();
    while let Some(word) = words.next() {
        if is_plain(word) {
            let mut more = 0u64;
            while words.next_if(|next| is_plain(next)).is_some() {
                more += 1;
            }
            if more > 0 {
                let name = if width == 0 { 0 } else { width + 1 };
                page.line(&format!(
                    "    {}{:name$}  {:<18}  zero, and {} more",
                    word.address, "", "0x0", more
                ));
                continue;
            }
        }
        let mark = if at(word) { ">" } else { " " };
        let value = match word.value {
            Some(value) => format!("{value}"),
            None => "-".into(),
        };
        let name = escaped(word.name.as_deref().unwrap_or("")).to_string();
        let name = match width {
            0 => String::new(),
            width => format!(" {name:<width$}"),
        };
        let role = if at(word) { Role::Strong } else { Role::Plain };
        let address = page.paint(role, &format!("{mark} {}", word.address));
        page.line(&format!(
            "  {address}{name}  {value:<18}  {}",
            escaped(&meaning(word))
        ));
    }
}

/// What a word is; text as it stands there, where its value may be shown.
fn meaning(word: &InspectedWord) -> String {
    let said = &word.meaning;
    match word.value {
        Some(value) if said.starts_with("text of ") => {
            let bytes = value.0.to_le_bytes();
            let text = String::from_utf8_lossy(&bytes);
            format!("{said}: \"{}\"", text.trim_end_matches('\0'))
        }
        _ => said.clone(),
    }
}
