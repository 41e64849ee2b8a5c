//! The map of a heap: a cell for each piece of its memory, by address, filled from below by what lies in it.

use super::heap::rect;
use super::markup::Markup;
use super::table::scroll;
use crate::report::schema::{Allocator, HeapMap, HeapPiece, Report};
use crate::report::text::number::{count, percent, short, thousands};

/// Cells of a row.
const COLUMNS: u64 = 64;
/// A cell, and what it takes with its margin.
const CELL: (u64, u64) = (13, 22);
const STEP: (u64, u64) = (15, 24);

/// The map of one heap, if the document has it.
pub fn write(allocator: &Allocator, report: &Report, page: &mut Markup) {
    let Some(map) = &allocator.map else { return };
    if map.pieces.is_empty() {
        return;
    }
    page.leaf("h4", &[], "Map");
    page.leaf("p", &[], &said(map));
    page.element("ul", &[("class", "key")], |page| {
        for (class, name) in [
            ("used", "in use"),
            ("free", "free"),
            ("lost", "lost"),
            ("meta", "the allocator's own"),
            ("spot", "a finding"),
        ] {
            page.element("li", &[], |page| {
                let attributes = [("viewBox", "0 0 12 12"), ("aria-hidden", "true")];
                page.element("svg", &attributes, |page| {
                    rect(class, (1, 1), (10, 10), page);
                });
                page.text(&format!(" {name}"));
            });
        }
    });
    let spots = spots(allocator, map, report);
    scroll("Map of the heap", page, |page| draw(map, &spots, page));
}

/// What the map shows, in words.
fn said(map: &HeapMap) -> String {
    let size = short(map.piece_bytes).unwrap_or_else(|| thousands(map.piece_bytes));
    let (mut held, mut free, mut whole, mut whole_bytes, mut largest) = (0u64, 0u64, 0u64, 0u64, 0);
    for piece in &map.pieces {
        held = held.saturating_add(all(piece));
        free = free.saturating_add(piece.free);
        if piece.free == all(piece) {
            whole += 1;
            whole_bytes = whole_bytes.saturating_add(piece.free);
        }
        largest = largest.max(piece.largest_free);
    }
    let cells = count(map.pieces.len() as u64, "cell");
    let mut text = format!(
        "{cells} of {size}, by address, left to right; gaps between mappings are left out. {} of it is free",
        percent(free, held)
    );
    if free > 0 {
        text = format!(
            "{text}, {} of that in {} wholly free; the largest free block has {} bytes",
            percent(whole_bytes, free),
            match whole {
                1 => "1 cell that is".to_owned(),
                cells => format!("{} that are", count(cells, "cell")),
            },
            thousands(largest)
        );
    }
    text.push('.');
    text
}

fn all(piece: &HeapPiece) -> u64 {
    let parts = [piece.in_use, piece.free, piece.lost, piece.metadata];
    parts.into_iter().fold(0, u64::saturating_add)
}

/// Cells in which a finding's block or address lies, and the findings' numbers.
fn spots(allocator: &Allocator, map: &HeapMap, report: &Report) -> Vec<(usize, usize)> {
    let own = report.findings.iter();
    let own = own.filter(|finding| finding.allocator.as_ref() == Some(&allocator.name));
    let mut spots = Vec::new();
    for finding in own {
        let block = finding.block.as_ref().map(|block| block.address);
        let Some(at) = block.or(finding.address) else {
            continue;
        };
        let after = map.pieces.partition_point(|piece| piece.start <= at);
        let Some(cell) = after.checked_sub(1) else {
            continue;
        };
        let piece = map.pieces.get(cell);
        let inside = piece.is_some_and(|piece| at.0 - piece.start.0 < map.piece_bytes);
        if inside && spots.iter().all(|(other, _)| *other != cell) {
            spots.push((cell, finding.id));
        }
    }
    spots
}

/// Where a cell is drawn.
fn place(cell: u64) -> (u64, u64) {
    (1 + cell % COLUMNS * STEP.0, 1 + cell / COLUMNS * STEP.1)
}

fn draw(map: &HeapMap, spots: &[(usize, usize)], page: &mut Markup) {
    let cells = map.pieces.len() as u64;
    let width = (COLUMNS.min(cells) * STEP.0 + 2).to_string();
    let height = (cells.div_ceil(COLUMNS) * STEP.1 + 2).to_string();
    let view = format!("0 0 {width} {height}");
    let attributes = [
        ("viewBox", &*view),
        ("width", &*width),
        ("height", &*height),
        ("role", "img"),
        ("aria-label", "Map of the heap; what it shows is said above"),
    ];
    page.element("svg", &attributes, |page| {
        for (cell, piece) in (0u64..).zip(&map.pieces) {
            if page.is_full() {
                return;
            }
            page.element("g", &[], |page| {
                page.leaf("title", &[], &tip(piece));
                draw_cell(piece, map.piece_bytes, place(cell), page);
            });
        }
        for (cell, id) in spots {
            let at = place(*cell as u64);
            let anchor = format!("#finding-{id}");
            let name = format!("Finding {id}");
            page.element("a", &[("href", &anchor), ("aria-label", &name)], |page| {
                rect("spot", at, CELL, page);
            });
        }
    });
}

fn tip(piece: &HeapPiece) -> String {
    let mut text = piece.start.to_string();
    for (name, bytes) in [
        ("in use", piece.in_use),
        ("free", piece.free),
        ("lost", piece.lost),
        ("own", piece.metadata),
    ] {
        if bytes > 0 {
            let bytes = short(bytes).unwrap_or_else(|| bytes.to_string());
            text = format!("{text}, {name} {bytes}");
        }
    }
    text
}

fn draw_cell(piece: &HeapPiece, bytes: u64, at: (u64, u64), page: &mut Markup) {
    rect("cell", at, CELL, page);
    let mut bottom = at.1 + CELL.1;
    for (class, part) in [
        ("meta", piece.metadata),
        ("used", piece.in_use),
        ("lost", piece.lost),
        ("free", piece.free),
    ] {
        let high = u128::from(part) * u128::from(CELL.1) / u128::from(bytes.max(1));
        let high = u64::try_from(high).unwrap_or(CELL.1);
        let high = high.max(u64::from(part > 0)).min(bottom - at.1);
        bottom -= high;
        rect(class, (at.0, bottom), (CELL.0, high), page);
    }
}
