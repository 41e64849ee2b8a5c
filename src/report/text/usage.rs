//! Where the memory is, and who holds it: the few that hold most first.

use crate::report::escape::escaped;
use crate::report::schema::{
    AllocatorFigures, BlockSize, MadeOf, Owner, PythonObjects, Reclaimable, Report, Suspect,
    TypeUse, Usage,
};

use super::number::{bytes, count, percent, short, thousands};
use super::page::{Page, Role};
use super::{answers, graph, maps};

/// Indentation below a suspect's number.
const INDENT: usize = 4;
/// Rows of a table that are shown.
const MAX_ROWS: usize = 20;

/// What `usage` says.
pub fn usage(report: &Report, page: &mut Page) {
    answers::title(report, page);
    let (Some(usage), Some(memory)) = (&report.usage, &report.memory) else {
        return;
    };
    if let Some(line) = maps::in_a_line(report) {
        page.field(2, "memory", Role::Plain, &line);
    }
    page.field(2, "free", Role::Plain, &given_back(usage.reclaimable));
    let in_use = report.allocators.iter().fold(0u64, |sum, allocator| {
        sum.saturating_add(allocator.statistics.in_use.bytes)
    });
    if let (Some(suspects), Some(owners)) = (&usage.suspects, &usage.owners) {
        write_suspects(suspects, owners, in_use, page);
        write_unheld(owners, in_use, page);
        write_owners(owners, usage.owners_dropped, in_use, page);
    }
    if let Some(types) = &usage.types {
        write_types(types, in_use, page);
    }
    if let Some(objects) = &usage.python {
        write_python(objects, page);
    }
    maps::write_kinds(&memory.by_kind, page);
    for allocator in &usage.allocators {
        write_figures(allocator, page);
    }
    write_sizes(usage, report, in_use, page);
    write_largest(usage, page);
}

/// What of the free memory could be given back.
pub fn given_back(found: Reclaimable) -> String {
    let size = |number: u64| short(number).unwrap_or_else(|| count(number, "byte"));
    format!(
        "trimming would give back {}; {} are in pages that blocks in use share, {} in caches; {} cost nothing",
        size(found.trim),
        size(found.fragmented),
        size(found.cached),
        size(found.untouched),
    )
}

fn write_suspects(suspects: &[Suspect], owners: &[Owner], in_use: u64, page: &mut Page) {
    if suspects.is_empty() {
        page.heading("SUSPECTS: nobody holds more than a tenth of what is in use");
        return;
    }
    page.heading(&format!(
        "SUSPECTS: {} more than a tenth of what is in use{}",
        match suspects.len() {
            1 => "one holds".to_owned(),
            more => format!("{more} hold"),
        },
        if suspects.len() > 1 { " each" } else { "" },
    ));
    for (number, found) in (1..).zip(suspects) {
        let Some(owner) = owners.get(found.owner) else {
            continue;
        };
        page.gap();
        let title = format!("{}: {}", percent(found.bytes, in_use), named(owner));
        page.line(&format!(
            "[{number}] {}",
            page.paint(Role::Strong, &escaped(&title))
        ));
        page.sentence(INDENT, Role::Plain, &sentence(found, owner));
        for (number, made) in found.made_of.iter().enumerate() {
            let label = if number == 0 { "made of" } else { "" };
            page.field(INDENT, label, Role::Plain, &made_of(made));
        }
        for (number, step) in found.path.iter().enumerate() {
            let label = if number == 0 { "path" } else { "" };
            page.field(INDENT, label, Role::Plain, &graph::row(step));
        }
    }
}

/// More than a tenth that nobody holds is worth a look by another command.
fn write_unheld(owners: &[Owner], in_use: u64, page: &mut Page) {
    let unheld = owners.iter().find(|owner| owner.kind == "nobody");
    if let Some(owner) = unheld.filter(|owner| owner.bytes.saturating_mul(10) > in_use) {
        page.gap();
        let text = format!(
            "{} of what is in use, {} in {}, are held by nobody for certain: heapcheck leaks says what that is",
            percent(owner.bytes, in_use),
            bytes(owner.bytes),
            count(owner.blocks, "block"),
        );
        page.sentence(2, Role::Warning, &text);
    }
}

/// A suspect in a sentence.
pub fn sentence(found: &Suspect, owner: &Owner) -> String {
    let mut text = format!(
        "{} {} in {}",
        named(owner),
        match owner.holders.len() {
            1 => format!("holds {}", bytes(found.bytes)),
            _ => format!("hold {}", bytes(found.bytes)),
        },
        count(found.blocks, "block")
    );
    match &found.gathers_at {
        Some(block) => {
            text = format!(
                "{text}; it gathers at the {} {} of {}, on which {} in {} hang",
                if block.state == "mapping" {
                    "mapping"
                } else {
                    "block"
                },
                block.address,
                bytes(block.size),
                bytes(found.gathered.bytes),
                count(found.gathered.blocks, "block"),
            );
        }
        None if found.path_cut => {
            text.push_str("; too many to tell where it gathers without --retained");
        }
        None if !found.made_of.is_empty() => {
            text.push_str("; no one block has most of it");
        }
        None => {}
    }
    text
}

/// What gathers there.
pub fn made_of(found: &MadeOf) -> String {
    let text = format!(
        "{} of {}, {}",
        count(found.blocks, "block"),
        count(found.block_bytes, "byte"),
        bytes(found.bytes),
    );
    match &found.type_of {
        Some(known) => format!("{text}; {} is {}", found.example, answers::type_of(known)),
        None => format!(
            "{text}; the first words of {}: {}",
            found.example, found.signature
        ),
    }
}

/// An owner in words.
pub fn named(owner: &Owner) -> String {
    let holders: Vec<String> = owner
        .holders
        .iter()
        .map(|holder| match (holder.kind.as_str(), holder.thread_id) {
            ("register", Some(thread)) => format!("registers of thread {thread}"),
            _ => graph::place(holder),
        })
        .collect();
    match (owner.kind.as_str(), holders.as_slice()) {
        ("nobody", _) => "nobody for certain: see `heapcheck leaks`".into(),
        ("variables", _) => "several variables together".into(),
        ("threads", _) => "several threads together".into(),
        ("pair", [one, two]) => format!("{one} and {two} together"),
        (_, [one, ..]) => one.clone(),
        (kind, []) => kind.to_owned(),
    }
}

fn write_owners(owners: &[Owner], dropped: u64, in_use: u64, page: &mut Page) {
    page.heading("HELD BY");
    let head = format!(
        "  {:>14}{:>20}{:>14}{:>10}  {}",
        "blocks", "bytes", "", "share", "owner"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    for owner in owners.iter().take(MAX_ROWS) {
        let mut name = named(owner);
        if owner.mapping_bytes > 0 {
            name = format!("{name}, and {} of mappings", bytes(owner.mapping_bytes));
        }
        page.line(&format!(
            "  {:>14}{:>20}{:>14}{:>10}  {}",
            thousands(owner.blocks),
            thousands(owner.bytes),
            short(owner.bytes).unwrap_or_default(),
            percent(owner.bytes, in_use),
            escaped(&name),
        ));
    }
    let more = (owners.len().saturating_sub(MAX_ROWS) as u64).saturating_add(dropped);
    if more > 0 {
        page.line(&format!("  and {}", count(more, "more owner")));
    }
}

fn write_figures(allocator: &AllocatorFigures, page: &mut Page) {
    let module = allocator.module.as_deref().unwrap_or("");
    page.heading(&format!(
        "WHAT {} OF {} WOULD SAY ITSELF",
        escaped(&allocator.name),
        escaped(module)
    ));
    for (name, value) in &allocator.figures.0 {
        let value = value.map_or_else(|| "unknown".to_owned(), thousands);
        page.line(&format!("  {:<40}{value:>20}", escaped(name)));
    }
}

fn write_types(types: &[TypeUse], in_use: u64, page: &mut Page) {
    let told = types.iter().filter(|row| row.type_of.is_some());
    let told: u64 = told.fold(0, |sum, row| sum.saturating_add(row.bytes));
    page.heading(&format!(
        "BLOCKS BY TYPE: {} of the bytes in use are told",
        percent(told, in_use).trim_start()
    ));
    let head = format!(
        "  {:>14}{:>20}{:>14}{:>10}  {}",
        "blocks", "bytes", "", "share", "type"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    for row in types.iter().take(MAX_ROWS) {
        let name = row.type_of.as_ref().map_or_else(
            || "none that is told".to_owned(),
            |known| format!("{}, by {}", known.name, known.known_by),
        );
        page.line(&format!(
            "  {:>14}{:>20}{:>14}{:>10}  {}",
            thousands(row.blocks),
            thousands(row.bytes),
            short(row.bytes).unwrap_or_default(),
            percent(row.bytes, in_use),
            escaped(&name),
        ));
    }
    if types.len() > MAX_ROWS {
        let more = (types.len() - MAX_ROWS) as u64;
        page.line(&format!(
            "  and {}: --format json has them",
            count(more, "more type")
        ));
    }
}

fn write_python(objects: &[PythonObjects], page: &mut Page) {
    let all = objects.iter();
    let all: u64 = all.fold(0, |sum, row| sum.saturating_add(row.bytes));
    page.heading(&format!("OBJECTS IN PYTHON'S OWN POOLS: {}", bytes(all)));
    for row in objects.iter().take(MAX_ROWS) {
        page.line(&format!(
            "  {:>14}{:>20}{:>14}{:>10}  {}",
            thousands(row.blocks),
            thousands(row.bytes),
            short(row.bytes).unwrap_or_default(),
            percent(row.bytes, all),
            escaped(row.name.as_deref().unwrap_or("none that is told")),
        ));
    }
    if objects.len() > MAX_ROWS {
        let more = (objects.len() - MAX_ROWS) as u64;
        page.line(&format!(
            "  and {}: --format json has them",
            count(more, "more type")
        ));
    }
}

fn write_sizes(usage: &Usage, report: &Report, in_use: u64, page: &mut Page) {
    let mut rows: Vec<&BlockSize> = usage.sizes.iter().collect();
    if rows.is_empty() {
        return;
    }
    rows.sort_by_key(|row| (std::cmp::Reverse(row.bytes), row.allocator, row.block_bytes));
    page.heading(&format!(
        "BLOCKS BY SIZE: {}",
        count(rows.len() as u64, "size")
    ));
    let head = format!(
        "  {:>16}{:>14}{:>14}{:>20}{:>14}{:>10}  {}",
        "block bytes", "in use", "free", "bytes in use", "", "share", "allocator"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    for row in rows.iter().take(MAX_ROWS) {
        let name = report
            .allocators
            .get(row.allocator)
            .map_or("", |allocator| &allocator.name);
        let size = match row.largest > row.block_bytes {
            true => format!("from {}", thousands(row.block_bytes)),
            false => thousands(row.block_bytes),
        };
        page.line(&format!(
            "  {size:>16}{:>14}{:>14}{:>20}{:>14}{:>10}  {}",
            thousands(row.in_use),
            thousands(row.free),
            thousands(row.bytes),
            short(row.bytes).unwrap_or_default(),
            percent(row.bytes, in_use),
            escaped(name),
        ));
    }
    if rows.len() > MAX_ROWS {
        let more = (rows.len() - MAX_ROWS) as u64;
        page.line(&format!(
            "  and {}: --format json has them",
            count(more, "more size")
        ));
    }
}

fn write_largest(usage: &Usage, page: &mut Page) {
    /// Blocks that are shown.
    const MAX_BLOCKS: usize = 10;
    if usage.largest.is_empty() {
        return;
    }
    page.heading("LARGEST BLOCKS");
    for block in usage.largest.iter().take(MAX_BLOCKS) {
        let owner = block
            .owner
            .and_then(|owner| usage.owners.as_ref()?.get(owner));
        let held = owner.map_or(String::new(), named);
        page.line(&format!(
            "  {:<18}{:>18}{:>14}  {}",
            block.address.to_string(),
            thousands(block.size),
            short(block.size).unwrap_or_default(),
            escaped(&held),
        ));
    }
}
