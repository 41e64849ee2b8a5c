//! What is mapped, and the memory by kind.

use crate::report::escape::escaped;
use crate::report::schema::{Mapping, MemoryKind, Report};

use super::answers;
use super::number::{bytes, count, percent, short, thousands};
use super::page::{Page, Role};

/// What `maps` says.
pub fn maps(report: &Report, page: &mut Page) {
    answers::title(report, page);
    let Some(memory) = &report.memory else {
        return;
    };
    if let Some(line) = in_a_line(report) {
        page.field(2, "memory", Role::Plain, &line);
    }
    write_kinds(&memory.by_kind, page);
    let Some(mappings) = &report.mappings else {
        return;
    };
    page.heading("MAPPINGS");
    let head = format!(
        "  {:<29}  {:<4}{:>18}{:>18}  {:<11}{}",
        "addresses", "", "bytes", "in the core", "kind", "name"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    for mapping in mappings {
        write_mapping(mapping, page);
    }
    total(&memory.by_kind, mappings, page);
}

fn write_mapping(mapping: &Mapping, page: &mut Page) {
    let in_core = match mapping.bytes_in_core {
        0 => "-".to_owned(),
        bytes => thousands(bytes),
    };
    let addresses = format!("{:x}-{:x}", mapping.start.0, mapping.end.0);
    page.line(&format!(
        "  {addresses:<29}  {:<4}{:>18}{in_core:>18}  {:<11}{}",
        mapping.permissions.as_deref().unwrap_or("???"),
        thousands(mapping.bytes),
        escaped(&mapping.kind),
        escaped(mapping.name.as_deref().unwrap_or("")),
    ));
}

/// What all rows add up to.
fn total(kinds: &[MemoryKind], mappings: &[Mapping], page: &mut Page) {
    let (all, in_core) = sums(kinds);
    let untold = mappings
        .iter()
        .filter(|mapping| mapping.permissions.is_none())
        .fold(0u64, |sum, mapping| sum.saturating_add(mapping.bytes));
    let mut text = format!(
        "total {} in {}: the core's segments, of which it holds {}",
        bytes(all.saturating_sub(untold)),
        count(mappings.len() as u64, "row"),
        bytes(in_core)
    );
    if untold > 0 {
        text = format!(
            "{text}; and {} that the core only names as a file's",
            bytes(untold)
        );
    }
    page.gap();
    page.sentence(2, Role::Plain, &text);
}

fn sums(kinds: &[MemoryKind]) -> (u64, u64) {
    kinds.iter().fold((0u64, 0u64), |(all, in_core), kind| {
        (
            all.saturating_add(kind.bytes),
            in_core.saturating_add(kind.bytes_in_core),
        )
    })
}

/// All memory by kind as a table.
pub fn write_kinds(kinds: &[MemoryKind], page: &mut Page) {
    page.heading("MEMORY BY KIND");
    let head = format!(
        "  {:<24}{:>10}{:>20}{:>20}{:>14}{:>10}",
        "", "rows", "bytes", "in the core", "", "share"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    let (all, in_core) = sums(kinds);
    let mut row = |name: &str, mappings: u64, size: u64, present: u64| {
        page.line(&format!(
            "  {:<24}{:>10}{:>20}{:>20}{:>14}{:>10}",
            escaped(name),
            thousands(mappings),
            thousands(size),
            thousands(present),
            short(present).unwrap_or_default(),
            percent(present, in_core),
        ));
    };
    let mut rows = 0u64;
    for kind in kinds {
        rows = rows.saturating_add(kind.mappings);
        row(
            &of_kind(kind),
            kind.mappings,
            kind.bytes,
            kind.bytes_in_core,
        );
    }
    row("all", rows, all, in_core);
}

/// A kind and whose it is.
pub fn of_kind(kind: &MemoryKind) -> String {
    match &kind.name {
        Some(name) => format!("{} ({name})", kind.kind),
        None => kind.kind.clone(),
    }
}

/// Most kinds in a line.
const MAX_KINDS: usize = 4;

/// What the core holds, by kind, in a line: the largest first; what of the heaps is in use, and what share of the writable memory they are.
pub fn in_a_line(report: &Report) -> Option<String> {
    let memory = report.memory.as_ref()?;
    let (_, in_core) = sums(&memory.by_kind);
    let size = |number: u64| short(number).unwrap_or_else(|| count(number, "byte"));
    let in_use = report.allocators.iter().fold(0u64, |sum, allocator| {
        sum.saturating_add(allocator.statistics.in_use.bytes)
    });
    // Of each kind one part, whoever has it.
    let mut parts: Vec<(&str, u64)> = Vec::new();
    for kind in &memory.by_kind {
        match parts.iter_mut().find(|(name, _)| *name == kind.kind) {
            Some((_, bytes)) => *bytes = bytes.saturating_add(kind.bytes_in_core),
            None => parts.push((&kind.kind, kind.bytes_in_core)),
        }
    }
    parts.retain(|(_, bytes)| *bytes > 0);
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let rest = parts.iter().skip(MAX_KINDS).map(|(_, bytes)| *bytes);
    let rest = rest.fold(0u64, u64::saturating_add);
    parts.truncate(MAX_KINDS);
    let mut shown: Vec<String> = parts
        .iter()
        .map(|(name, bytes)| match *name {
            "heap" => format!("heap {}, of it {} in use", size(*bytes), size(in_use)),
            _ => format!("{name} {}", size(*bytes)),
        })
        .collect();
    if rest > 0 {
        shown.push(format!("other {}", size(rest)));
    }
    let mut text = format!("{} in the core: {}", size(in_core), shown.join("; "));
    let share = percent(memory.walked_bytes, memory.writable_bytes);
    if memory.walked_bytes > 0 && !share.is_empty() {
        text = format!("{text}; the heaps are {share} of the writable memory");
    }
    Some(text)
}
