//! Statistics of the heaps, and where the allocators' own structures are.

use super::{Content, Row};
use crate::report::schema::Allocator;
use crate::report::text::parts::{self, Role};
use crate::view::model::Model;

pub(super) fn content(model: &Model, width: usize) -> Content {
    let Some(report) = model.checked() else {
        return Content::sentence(Role::Faint, &model.waiting(), width);
    };
    let mut content = Content::default();
    content.rows.extend(report.allocators.iter().map(in_a_line));
    content
        .rows
        .extend(parts::heaps(report, width).into_iter().map(Row::new));
    for allocator in &report.allocators {
        let lines = parts::structures(allocator);
        content.rows.extend(lines.into_iter().map(Row::new));
    }
    if content.rows.is_empty() {
        let (role, text) = parts::verdict(report);
        return Content::sentence(role, &text, width);
    }
    content
}

/// What must be seen where there is one line.
fn in_a_line(allocator: &Allocator) -> Row {
    let statistics = &allocator.statistics;
    let of = |blocks: u64, bytes: u64| {
        let size = parts::short(bytes).unwrap_or_else(|| parts::count(bytes, "byte"));
        format!("{size} in {}", parts::count(blocks, "block"))
    };
    let mut runs = vec![
        (Role::Strong, parts::allocator(allocator)),
        (
            Role::Plain,
            format!(
                ": in use {}; free {}",
                of(statistics.in_use.blocks, statistics.in_use.bytes),
                of(statistics.free.blocks, statistics.free.bytes)
            ),
        ),
    ];
    if statistics.lost.blocks > 0 {
        let lost = of(statistics.lost.blocks, statistics.lost.bytes);
        runs.push((Role::Warning, format!("; lost {lost}")));
    }
    if allocator.idle == Some(true) {
        runs.push((Role::Faint, "; idle".into()));
    }
    Row::new(runs)
}
