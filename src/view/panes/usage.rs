//! Where the memory is: who holds it, what it holds, by size, the largest blocks, by mapping.

use super::table::{Cell, Table};
use super::{Content, missing};
use crate::report::escape::escaped;
use crate::report::schema::{Report, Usage};
use crate::report::text::parts;
use crate::view::model::{Model, Slot};

/// Which table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Who holds how much.
    #[default]
    Owners,
    /// Blocks by what they hold: costs a pass of its own.
    Types,
    /// Blocks by size.
    Sizes,
    /// The largest blocks.
    Largest,
    /// Memory by what it is.
    Memory,
    /// Every mapping.
    Maps,
}

impl Kind {
    /// The one that comes after it.
    pub fn next(self) -> Self {
        match self {
            Kind::Owners => Kind::Types,
            Kind::Types => Kind::Sizes,
            Kind::Sizes => Kind::Largest,
            Kind::Largest => Kind::Memory,
            Kind::Memory => Kind::Maps,
            Kind::Maps => Kind::Owners,
        }
    }
}

pub(super) fn content(model: &Model, width: usize) -> Content {
    let slot = match model.usage_kind {
        Kind::Types => &model.types,
        _ => &model.usage,
    };
    let report = match slot {
        Slot::Here(report) => report,
        other => return missing(other, model, width),
    };
    let Some(usage) = &report.usage else {
        return Content::default();
    };
    let table = match model.usage_kind {
        Kind::Owners => owners(usage),
        Kind::Types => types(usage),
        Kind::Sizes => sizes(usage, report),
        Kind::Largest => largest(usage),
        Kind::Memory => memory(usage),
        Kind::Maps => maps(report),
    };
    let mut content = table.content(model);
    content.note = format!("{} (t: next table)", content.note);
    content
}

/// A table's columns.
pub(super) fn columns(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Owners => &["blocks", "bytes", "word", "owner"],
        Kind::Types => &["blocks", "bytes", "first", "known by", "type"],
        Kind::Sizes => &["size", "in use", "free", "lost", "bytes", "allocator"],
        Kind::Largest => &["block", "bytes", "owner"],
        Kind::Memory => &["kind", "mappings", "bytes", "in the core"],
        Kind::Maps => &["bytes", "in the core", "start", "may", "kind", "whose"],
    }
}

fn owners(usage: &Usage) -> Table {
    let owners = usage.owners.iter().flatten();
    let rows = owners.map(|owner| {
        // The holder's word is what can be gone to.
        let at = owner.holders.iter().find_map(|holder| holder.address);
        vec![
            Cell::Number(owner.blocks),
            Cell::Number(owner.bytes),
            Cell::Text(at.map_or(String::new(), |at| at.to_string())),
            Cell::Text(parts::owner(owner)),
        ]
    });
    Table {
        name: "owners",
        columns: columns(Kind::Owners),
        rows: rows.collect(),
    }
}

fn sizes(usage: &Usage, report: &Report) -> Table {
    let rows = usage.sizes.iter().map(|row| {
        let allocator = report.allocators.get(row.allocator);
        vec![
            Cell::Number(row.block_bytes),
            Cell::Number(row.in_use),
            Cell::Number(row.free),
            Cell::Number(row.lost),
            Cell::Number(row.bytes),
            Cell::Text(allocator.map_or(String::new(), |found| escaped(&found.name))),
        ]
    });
    Table {
        name: "sizes",
        columns: columns(Kind::Sizes),
        rows: rows.collect(),
    }
}

fn largest(usage: &Usage) -> Table {
    let rows = usage.largest.iter().map(|block| {
        let owners = usage.owners.as_ref();
        let owner = block.owner.and_then(|owner| owners?.get(owner));
        vec![
            Cell::Text(block.address.to_string()),
            Cell::Number(block.size),
            Cell::Text(owner.map_or(String::new(), parts::owner)),
        ]
    });
    Table {
        name: "largest blocks",
        columns: columns(Kind::Largest),
        rows: rows.collect(),
    }
}

fn memory(usage: &Usage) -> Table {
    let rows = usage.memory.iter().map(|kind| {
        let name = kind.name.as_deref().unwrap_or("");
        vec![
            Cell::Text(escaped(format!("{} {name}", kind.kind).trim_end())),
            Cell::Number(kind.mappings),
            Cell::Number(kind.bytes),
            Cell::Number(kind.bytes_in_core),
        ]
    });
    Table {
        name: "memory",
        columns: columns(Kind::Memory),
        rows: rows.collect(),
    }
}

fn types(usage: &Usage) -> Table {
    let blocks = usage.types.iter().flatten().map(|row| {
        let (known_by, name) = match &row.type_of {
            Some(known) => (escaped(&known.known_by), escaped(&known.name)),
            None => (String::new(), "nothing tells".into()),
        };
        vec![
            Cell::Number(row.blocks),
            Cell::Number(row.bytes),
            Cell::Text(row.example.to_string()),
            Cell::Text(known_by),
            Cell::Text(name),
        ]
    });
    let python = usage.python.iter().flatten().map(|row| {
        let name = row.name.as_deref().unwrap_or("nothing tells");
        vec![
            Cell::Number(row.blocks),
            Cell::Number(row.bytes),
            Cell::Text(row.example.to_string()),
            Cell::Text("Python's pools".into()),
            Cell::Text(escaped(name)),
        ]
    });
    Table {
        name: "types",
        columns: columns(Kind::Types),
        rows: blocks.chain(python).collect(),
    }
}

fn maps(report: &Report) -> Table {
    let rows = report.mappings.iter().flatten().map(|mapping| {
        vec![
            Cell::Number(mapping.bytes),
            Cell::Number(mapping.bytes_in_core),
            Cell::Text(mapping.start.to_string()),
            Cell::Text(mapping.permissions.clone().unwrap_or_default()),
            Cell::Text(escaped(&mapping.kind)),
            Cell::Text(escaped(mapping.name.as_deref().unwrap_or(""))),
        ]
    });
    Table {
        name: "mappings",
        columns: columns(Kind::Maps),
        rows: rows.collect(),
    }
}
