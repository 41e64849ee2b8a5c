//! Where the memory is: who holds it and what it is, as pictures and tables; every mapping.

use super::first::field;
use super::markup::Markup;
use super::table::{self, Cell, Kind};
use super::treemap::{self, Tile};
use crate::report::schema::{MemoryKind, Owner, PythonObjects, Report, Suspect, TypeUse, Usage};
use crate::report::text::number::{bytes, percent, short, thousands};
use crate::report::text::{graph, maps, usage};

/// What `usage` says.
pub fn write(report: &Report, page: &mut Markup) {
    let (Some(found), Some(memory)) = (&report.usage, &report.memory) else {
        return;
    };
    if let Some(line) = maps::in_a_line(report) {
        page.leaf("p", &[], &line);
    }
    page.leaf("p", &[], &usage::given_back(found.reclaimable));
    let in_use = report.allocators.iter().fold(0u64, |sum, allocator| {
        sum.saturating_add(allocator.statistics.in_use.bytes)
    });
    if let (Some(all), Some(suspects)) = (&found.owners, &found.suspects) {
        owners(all, suspects, in_use, page);
        if found.owners_dropped > 0 {
            let more = thousands(found.owners_dropped);
            page.leaf("p", &[], &format!("{more} more owners were left out."));
        }
    }
    if let Some(rows) = &found.types {
        types(rows, in_use, page);
    }
    if let Some(rows) = &found.python {
        python(rows, page);
    }
    sizes(found, report, in_use, page);
    largest(found, page);
    page.leaf("h3", &[], "Memory by kind");
    kinds(&memory.by_kind, page);
    figures(found, page);
}

/// What `maps` says.
pub fn mappings(report: &Report, page: &mut Markup) {
    if let Some(memory) = report.memory.as_ref().filter(|_| report.usage.is_none()) {
        kinds(&memory.by_kind, page);
    }
    let columns = [
        ("start", Kind::Word),
        ("end", Kind::Word),
        ("may", Kind::Word),
        ("bytes", Kind::Number),
        ("in the core", Kind::Number),
        ("kind", Kind::Word),
        ("whose", Kind::Name),
    ];
    table::write("Every mapping", true, &columns, page, |rows| {
        for mapping in report.mappings.iter().flatten() {
            if rows.is_full() {
                return;
            }
            rows.row(&[
                Cell::Shown(mapping.start.0, mapping.start.to_string()),
                Cell::Shown(mapping.end.0, mapping.end.to_string()),
                Cell::Text(mapping.permissions.as_deref().unwrap_or("???")),
                Cell::Number(mapping.bytes),
                Cell::Number(mapping.bytes_in_core),
                Cell::Text(&mapping.kind),
                Cell::Text(mapping.name.as_deref().unwrap_or("")),
            ]);
        }
    });
}

/// The columns of sums that have a share of a whole.
fn shares(name: &'static str) -> [table::Column; 5] {
    [
        ("blocks", Kind::Number),
        ("bytes", Kind::Number),
        ("about", Kind::Number),
        ("share", Kind::Number),
        (name, Kind::Name),
    ]
}

fn share<'t>(blocks: u64, sum: u64, all: u64, name: &'t str) -> [Cell<'t>; 5] {
    [
        Cell::Number(blocks),
        Cell::Number(sum),
        Cell::Shown(sum, short(sum).unwrap_or_default()),
        Cell::Shown(sum, percent(sum, all)),
        Cell::Text(name),
    ]
}

fn owners(all: &[Owner], suspects: &[Suspect], in_use: u64, page: &mut Markup) {
    page.leaf("h3", &[], "Who holds it");
    let parts = |index: usize| {
        let suspect = suspects.iter().find(|it| it.owner == index);
        let made_of = suspect.into_iter().flat_map(|it| &it.made_of);
        made_of.map(|part| Tile {
            name: match &part.type_of {
                Some(known) => known.name.clone(),
                None => format!("blocks of {}", bytes(part.block_bytes)),
            },
            bytes: part.bytes,
            ..Tile::default()
        })
    };
    let tiles = all.iter().enumerate().map(|(index, owner)| Tile {
        name: usage::named(owner),
        bytes: owner.bytes,
        is_lost: owner.kind == "nobody",
        parts: parts(index).collect(),
    });
    treemap::draw("Who holds it", tiles.collect(), page);
    table::write("Who holds it", true, &shares("owner"), page, |rows| {
        for owner in all {
            if rows.is_full() {
                return;
            }
            let mut name = usage::named(owner);
            if owner.mapping_bytes > 0 {
                name = format!("{name}, and {} of mappings", bytes(owner.mapping_bytes));
            }
            rows.row(&share(owner.blocks, owner.bytes, in_use, &name));
        }
    });
    for suspect in suspects {
        if page.is_full() {
            return;
        }
        let Some(owner) = all.get(suspect.owner) else {
            continue;
        };
        page.element("article", &[], |page| {
            let share = percent(suspect.bytes, in_use);
            let title = format!("{}: {}", share.trim_start(), usage::named(owner));
            page.leaf("h4", &[], &title);
            page.leaf("p", &[], &usage::sentence(suspect, owner));
            page.element("dl", &[], |page| {
                for part in &suspect.made_of {
                    field("made of", &usage::made_of(part), page);
                }
                for step in &suspect.path {
                    field("path", &graph::row(step), page);
                }
            });
        });
    }
}

fn types(all: &[TypeUse], in_use: u64, page: &mut Markup) {
    let name = |row: &TypeUse| match &row.type_of {
        Some(known) => format!("{}, by {}", known.name, known.known_by),
        None => "none that is told".to_owned(),
    };
    page.leaf("h3", &[], "What it is");
    let tiles = all.iter().map(|row| Tile {
        name: match &row.type_of {
            Some(known) => known.name.clone(),
            None => name(row),
        },
        bytes: row.bytes,
        ..Tile::default()
    });
    treemap::draw("What it is", tiles.collect(), page);
    table::write("What it is", true, &shares("type"), page, |rows| {
        for row in all {
            if rows.is_full() {
                return;
            }
            rows.row(&share(row.blocks, row.bytes, in_use, &name(row)));
        }
    });
}

fn python(all: &[PythonObjects], page: &mut Markup) {
    page.leaf("h3", &[], "Objects in Python's own pools");
    let sum = all.iter();
    let sum = sum.fold(0u64, |sum, row| sum.saturating_add(row.bytes));
    let name = |row: &PythonObjects| {
        let name = row.name.as_deref();
        name.unwrap_or("none that is told").to_owned()
    };
    let tiles = all.iter().map(|row| Tile {
        name: name(row),
        bytes: row.bytes,
        ..Tile::default()
    });
    treemap::draw("Objects of Python", tiles.collect(), page);
    table::write("Objects of Python", true, &shares("type"), page, |rows| {
        for row in all {
            if rows.is_full() {
                return;
            }
            rows.row(&share(row.blocks, row.bytes, sum, &name(row)));
        }
    });
}

fn sizes(found: &Usage, report: &Report, in_use: u64, page: &mut Markup) {
    if found.sizes.is_empty() {
        return;
    }
    let allocator = |index: usize| {
        let found = report.allocators.get(index);
        found.map_or("", |found| found.name.as_str())
    };
    page.leaf("h3", &[], "Blocks in use by size");
    let size = |least: u64, largest: u64| match largest > least {
        true => format!("from {}", thousands(least)),
        false => thousands(least),
    };
    let tiles = found.sizes.iter().map(|row| Tile {
        name: format!("{} bytes", size(row.block_bytes, row.largest)),
        bytes: row.bytes,
        ..Tile::default()
    });
    treemap::draw("Blocks in use by size", tiles.collect(), page);
    let columns = [
        ("block bytes", Kind::Number),
        ("in use", Kind::Number),
        ("free", Kind::Number),
        ("bytes in use", Kind::Number),
        ("share", Kind::Number),
        ("allocator", Kind::Name),
    ];
    table::write("Blocks by size", true, &columns, page, |rows| {
        for row in &found.sizes {
            if rows.is_full() {
                return;
            }
            rows.row(&[
                Cell::Shown(row.block_bytes, size(row.block_bytes, row.largest)),
                Cell::Number(row.in_use),
                Cell::Number(row.free),
                Cell::Number(row.bytes),
                Cell::Shown(row.bytes, percent(row.bytes, in_use)),
                Cell::Text(allocator(row.allocator)),
            ]);
        }
    });
}

fn largest(found: &Usage, page: &mut Markup) {
    if found.largest.is_empty() {
        return;
    }
    let columns = [
        ("block", Kind::Word),
        ("bytes", Kind::Number),
        ("held by", Kind::Name),
    ];
    table::write("The largest blocks", true, &columns, page, |rows| {
        for block in &found.largest {
            if rows.is_full() {
                return;
            }
            let owners = found.owners.as_ref();
            let owner = block.owner.and_then(|owner| owners?.get(owner));
            rows.row(&[
                Cell::Shown(block.address.0, block.address.to_string()),
                Cell::Number(block.size),
                Cell::Text(&owner.map_or(String::new(), usage::named)),
            ]);
        }
    });
}

fn kinds(all: &[MemoryKind], page: &mut Markup) {
    let in_core = all.iter();
    let in_core = in_core.fold(0u64, |sum, kind| sum.saturating_add(kind.bytes_in_core));
    let tiles = all.iter().map(|kind| Tile {
        name: maps::of_kind(kind),
        bytes: kind.bytes_in_core,
        ..Tile::default()
    });
    treemap::draw("What the core holds, by kind", tiles.collect(), page);
    let columns = [
        ("kind", Kind::Name),
        ("mappings", Kind::Number),
        ("bytes", Kind::Number),
        ("in the core", Kind::Number),
        ("share", Kind::Number),
    ];
    table::write("Memory by kind", true, &columns, page, |rows| {
        for kind in all {
            rows.row(&[
                Cell::Text(&maps::of_kind(kind)),
                Cell::Number(kind.mappings),
                Cell::Number(kind.bytes),
                Cell::Number(kind.bytes_in_core),
                Cell::Shown(kind.bytes_in_core, percent(kind.bytes_in_core, in_core)),
            ]);
        }
    });
}

/// What the allocators would have said themselves.
fn figures(found: &Usage, page: &mut Markup) {
    for allocator in &found.allocators {
        if page.is_full() {
            return;
        }
        let caption = format!("What {} would say itself", allocator.name);
        let columns = [("figure", Kind::Name), ("value", Kind::Number)];
        table::write(&caption, false, &columns, page, |rows| {
            for (name, value) in &allocator.figures.0 {
                rows.row(&[
                    Cell::Text(name),
                    value.map_or(Cell::Text("unknown"), Cell::Number),
                ]);
            }
        });
    }
}
