//! What each allocator holds, as a table.

use crate::report::escape::escaped;
use crate::report::schema::{Allocator, Report, SizeClass};

use super::answers::full_name;
use super::number::{count, percent, short, thousands};
use super::page::{Page, Role};

/// Size classes shown: those that hold most.
const MAX_CLASSES: usize = 10;

/// All allocators.
pub fn write(report: &Report, page: &mut Page) {
    let several = report.allocators.len() > 1;
    for allocator in &report.allocators {
        if allocator.idle == Some(true) {
            write_idle(allocator, report, page);
            continue;
        }
        page.heading(&format!(
            "HEAP {}, located by {}",
            escaped(&full_name(allocator)),
            escaped(&allocator.located_by)
        ));
        if several && !allocator.serves.is_empty() {
            page.line(&format!("  serves {}", names(&allocator.serves)));
        }
        if let Some(never) = allocator.details.more.get("never_shows") {
            let text = format!("never shows {}", never.as_str().unwrap_or("all"));
            page.sentence(2, Role::Faint, &text);
        }
        write_totals(allocator, page);
        write_classes(&allocator.details.size_classes, page);
    }
}

/// Module names shown in a line.
const MAX_NAMES: usize = 8;

fn names(modules: &[String]) -> String {
    let mut text = String::new();
    for (index, name) in modules.iter().take(MAX_NAMES).enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        text.push_str(&escaped(name));
    }
    match modules.len().saturating_sub(MAX_NAMES) {
        0 => text,
        more => format!("{text} and {more} more modules"),
    }
}

/// One line for a heap that nobody uses.
fn write_idle(allocator: &Allocator, report: &Report, page: &mut Page) {
    let users: Vec<String> = report
        .allocators
        .iter()
        .filter(|other| other.idle != Some(true))
        .map(full_name)
        .collect();
    let blocks = match allocator.statistics.in_use.blocks {
        0 => String::new(),
        blocks => format!("; {} in use all the same", count(blocks, "block")),
    };
    page.heading(&format!(
        "HEAP {}: idle, all modules use {}{blocks}",
        escaped(&full_name(allocator)),
        escaped(&users.join(", "))
    ));
}

fn write_totals(allocator: &Allocator, page: &mut Page) {
    let statistics = &allocator.statistics;
    let coverage = &allocator.coverage;
    let held = [
        coverage.in_use,
        coverage.free,
        coverage.metadata,
        coverage.tails,
        coverage.unknown,
    ]
    .into_iter()
    .fold(0u64, u64::saturating_add);
    let head = format!(
        "  {:<12}{:>14}{:>20}{:>14}{:>10}",
        "", "blocks", "bytes", "", "share"
    );
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    let mut row = |label: &str, blocks: Option<u64>, bytes: u64, share: &str, role: Role| {
        let line = format!(
            "  {label:<12}{:>14}{:>20}{:>14}{share:>10}",
            blocks.map(thousands).unwrap_or_default(),
            thousands(bytes),
            short(bytes).unwrap_or_default(),
        );
        let line = page.paint(role, line.trim_end());
        page.line(&line);
    };
    let share = |bytes| percent(bytes, held);
    let tallies = [
        ("in use", statistics.in_use, Role::Plain),
        ("free", statistics.free, Role::Plain),
        ("lost", statistics.lost, Role::Warning),
    ];
    for (label, tally, role) in tallies {
        if label != "lost" || tally.blocks > 0 {
            let share = share(tally.bytes);
            row(label, Some(tally.blocks), tally.bytes, &share, role);
        }
    }
    let rest = [
        ("metadata", coverage.metadata, Role::Plain),
        ("tails", coverage.tails, Role::Plain),
        ("unknown", coverage.unknown, Role::Warning),
    ];
    for (label, bytes, role) in rest {
        if bytes > 0 {
            row(label, None, bytes, &share(bytes), role);
        }
    }
    row("mapped", None, statistics.mapped_bytes, "", Role::Plain);
}

fn write_classes(classes: &[SizeClass], page: &mut Page) {
    if classes.is_empty() {
        return;
    }
    let held = |class: &SizeClass| {
        class
            .in_use_bytes
            .saturating_add(class.free_bytes)
            .saturating_add(class.lost_bytes)
    };
    let size = |class: &SizeClass| match class.largest > class.size {
        true => format!("from {}", thousands(class.size)),
        false => thousands(class.size),
    };
    let mut largest: Vec<&SizeClass> = classes.iter().collect();
    largest.sort_by_key(|class| (std::cmp::Reverse(held(class)), class.size));
    largest.truncate(MAX_CLASSES);
    let lost = largest.iter().any(|class| class.lost > 0);
    let lost_cell = |text: String| {
        if lost {
            format!("{text:>12}")
        } else {
            String::new()
        }
    };
    let head = format!(
        "  {:<12}{:>14}{:>14}{}{:>20}",
        "block bytes",
        "in use",
        "free",
        lost_cell("lost".into()),
        "bytes held"
    );
    page.gap();
    let head = page.paint(Role::Faint, &head);
    page.line(&head);
    for class in largest {
        page.line(&format!(
            "  {:<12}{:>14}{:>14}{}{:>20}{:>14}",
            size(class),
            thousands(class.in_use),
            thousands(class.free),
            lost_cell(thousands(class.lost)),
            thousands(held(class)),
            short(held(class)).unwrap_or_default(),
        ));
    }
    if classes.len() > MAX_CLASSES {
        let more = classes.len() - MAX_CLASSES;
        page.line(&format!(
            "  and {more} that hold less (--format json has all)"
        ));
    }
}
