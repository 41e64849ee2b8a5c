//! What nobody points at any more, in groups.

use super::table::{Cell, Table};
use super::{Content, missing};
use crate::report::escape::escaped;
use crate::report::schema::LeakGroup;
use crate::report::text::parts;
use crate::view::model::{Model, Slot};

/// The table's columns.
pub(super) const COLUMNS: &[&str] = &["class", "blocks", "bytes", "with it", "first", "what"];

pub(super) fn content(model: &Model, width: usize) -> Content {
    let report = match &model.leaks {
        Slot::Here(report) => report,
        other => return missing(other, model, width),
    };
    let Some(leaks) = &report.leaks else {
        return Content::default();
    };
    if leaks.groups.is_empty() {
        return Content::of(parts::leaks(leaks, width));
    }
    let table = Table {
        name: "groups",
        columns: COLUMNS,
        rows: leaks.groups.iter().map(row).collect(),
    };
    table.content(model)
}

fn row(group: &LeakGroup) -> Vec<Cell> {
    let first = group.examples.first();
    let what = match (&group.type_of, &group.stack) {
        (Some(known), _) => known.name.clone(),
        (None, Some(frames)) => {
            let names = frames.iter().filter_map(|frame| frame.function.as_deref());
            let names: Vec<&str> = names.take(3).collect();
            format!("allocated by {}", names.join(" < "))
        }
        (None, None) => group.signature.clone(),
    };
    vec![
        Cell::Text(escaped(&group.class)),
        Cell::Number(group.blocks),
        Cell::Number(group.bytes),
        Cell::Number(group.indirect_bytes),
        Cell::Text(first.map_or(String::new(), ToString::to_string)),
        Cell::Text(escaped(&what)),
    ]
}
