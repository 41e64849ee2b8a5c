//! What each allocator holds: a bar, totals, size classes, the map.

use super::map;
use super::markup::Markup;
use super::table::{self, Cell, Kind};
use crate::report::schema::{Allocator, Report};
use crate::report::text::answers::full_name;
use crate::report::text::number::{percent, short, thousands};

/// Units of a bar's width.
const WIDTH: u64 = 1000;

/// All allocators; one that nobody uses is a line.
pub fn write(report: &Report, page: &mut Markup) {
    for allocator in &report.allocators {
        let name = full_name(allocator);
        if allocator.idle == Some(true) {
            page.leaf("p", &[], &format!("{name} is idle: no module uses it."));
            continue;
        }
        page.leaf("h3", &[], &name);
        let found = format!("located by {}", allocator.located_by);
        page.leaf("p", &[("class", "faint")], &found);
        bar(allocator, page);
        totals(allocator, page);
        map::write(allocator, report, page);
        classes(allocator, page);
    }
}

/// Where the bytes are: label, class of its colour, blocks, bytes.
fn parts(allocator: &Allocator) -> [(&'static str, &'static str, Option<u64>, u64); 6] {
    let (statistics, coverage) = (&allocator.statistics, &allocator.coverage);
    let (in_use, free, lost) = (statistics.in_use, statistics.free, statistics.lost);
    [
        ("in use", "used", Some(in_use.blocks), in_use.bytes),
        ("free", "free", Some(free.blocks), free.bytes),
        ("lost", "lost", Some(lost.blocks), lost.bytes),
        ("metadata", "meta", None, coverage.metadata),
        ("tails", "tail", None, coverage.tails),
        ("unknown", "lost", None, coverage.unknown),
    ]
}

fn bar(allocator: &Allocator, page: &mut Markup) {
    let parts = parts(allocator);
    let bytes = parts.iter().map(|part| part.3);
    let all = bytes.fold(0u64, u64::saturating_add);
    if all == 0 {
        return;
    }
    let said: Vec<String> = parts
        .iter()
        .filter(|part| part.3 > 0)
        .map(|part| format!("{} {}", part.0, percent(part.3, all)))
        .collect();
    let view = format!("0 0 {WIDTH} 24");
    let attributes = [
        ("viewBox", &*view),
        ("width", "1000"),
        ("height", "24"),
        ("role", "img"),
        ("aria-label", &said.join(", ")),
        ("preserveAspectRatio", "none"),
    ];
    page.element("svg", &attributes, |page| {
        let mut at = 0;
        for (_, class, _, bytes) in parts {
            let wide = u128::from(bytes) * u128::from(WIDTH) / u128::from(all.max(1));
            let wide = u64::try_from(wide)
                .unwrap_or(WIDTH)
                .max(u64::from(bytes > 0));
            rect(class, (at, 0), (wide, 24), page);
            at = at.saturating_add(wide);
        }
    });
}

/// A rectangle; nothing if it has no width or no height.
pub fn rect(class: &str, at: (u64, u64), size: (u64, u64), page: &mut Markup) {
    if size.0 == 0 || size.1 == 0 {
        return;
    }
    let [x, y, width, height] = [at.0, at.1, size.0, size.1].map(|number| number.to_string());
    let attributes = [
        ("class", class),
        ("x", &*x),
        ("y", &*y),
        ("width", &*width),
        ("height", &*height),
    ];
    page.empty("rect", &attributes);
}

fn readable(bytes: u64) -> String {
    short(bytes).unwrap_or_else(|| thousands(bytes))
}

fn totals(allocator: &Allocator, page: &mut Markup) {
    let columns = [
        ("state", Kind::Word),
        ("blocks", Kind::Number),
        ("bytes", Kind::Number),
        ("about", Kind::Number),
        ("share", Kind::Number),
    ];
    let parts = parts(allocator);
    let held = parts
        .iter()
        .fold(0u64, |sum, part| sum.saturating_add(part.3));
    table::write("Where the bytes are", false, &columns, page, |rows| {
        for (label, _, blocks, bytes) in parts.into_iter().filter(|part| part.3 > 0) {
            rows.row(&[
                Cell::Text(label),
                blocks.map_or(Cell::Empty, Cell::Number),
                Cell::Number(bytes),
                Cell::Shown(bytes, readable(bytes)),
                Cell::Shown(bytes, percent(bytes, held)),
            ]);
        }
        let mapped = allocator.statistics.mapped_bytes;
        rows.row(&[
            Cell::Text("mapped"),
            Cell::Empty,
            Cell::Number(mapped),
            Cell::Shown(mapped, readable(mapped)),
            Cell::Empty,
        ]);
    });
}

fn classes(allocator: &Allocator, page: &mut Markup) {
    let classes = &allocator.details.size_classes;
    if classes.is_empty() {
        return;
    }
    let columns = [
        ("block bytes", Kind::Number),
        ("in use", Kind::Number),
        ("free", Kind::Number),
        ("lost", Kind::Number),
        ("bytes in use", Kind::Number),
        ("bytes free", Kind::Number),
    ];
    table::write("Blocks by size", true, &columns, page, |rows| {
        for class in classes {
            if rows.is_full() {
                return;
            }
            let size = match class.largest > class.size {
                true => format!("{} to {}", thousands(class.size), thousands(class.largest)),
                false => thousands(class.size),
            };
            rows.row(&[
                Cell::Shown(class.size, size),
                Cell::Number(class.in_use),
                Cell::Number(class.free),
                Cell::Number(class.lost),
                Cell::Number(class.in_use_bytes),
                Cell::Number(class.free_bytes),
            ]);
        }
    });
}
