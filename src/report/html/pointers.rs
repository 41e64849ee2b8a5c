//! Who points where, and what nobody points at.

use reports::triage::{self as many, Stacks};

use super::first::field;
use super::markup::Markup;
use super::table::{self, Cell, Kind};
use super::threads::frames;
use crate::report::schema::{LeakGroup, Leaks, Report};
use crate::report::text::number::{bytes, count, thousands};
use crate::report::text::{answers, graph, stacks};

/// Groups shown in full; the table has all that there is room for.
const MAX_GROUPS: usize = 100;
/// Bytes that a picture may take.
const MAX_PICTURE: usize = 1 << 20;
/// Frames of a stack that are drawn, the innermost.
const MAX_DEPTH: usize = 64;

/// What `refs` says.
pub fn references(report: &Report, page: &mut Markup) {
    for found in report.references.iter().flatten() {
        if page.is_full() {
            return;
        }
        let words = count(found.count, "word");
        page.leaf("h3", &[], &format!("{words} that hold {}", found.to));
        if let Some(block) = &found.block {
            page.leaf("p", &[], &format!("block {}", answers::block(block)));
        }
        for (heading, rows) in [
            ("Held by, the strongest first", &found.from),
            ("The shortest way from a root", &found.path),
        ] {
            if rows.is_empty() {
                continue;
            }
            page.leaf("h4", &[], heading);
            page.element("ol", &[], |page| {
                for row in rows {
                    let history = if row.kind == "history" {
                        "history: "
                    } else {
                        ""
                    };
                    page.leaf("li", &[], &format!("{history}{}", graph::row(row)));
                }
            });
        }
    }
}

/// What `leaks` says.
pub fn leaks(report: &Report, page: &mut Markup) {
    let Some(found) = &report.leaks else { return };
    totals(found, page);
    picture(found, page);
    groups(found, page);
    for group in found.groups.iter().take(MAX_GROUPS) {
        if page.is_full() {
            return;
        }
        write_group(group, page);
    }
    mappings(found, page);
}

fn totals(found: &Leaks, page: &mut Markup) {
    let columns = [
        ("class", Kind::Word),
        ("blocks", Kind::Number),
        ("bytes", Kind::Number),
        ("what it means", Kind::Name),
    ];
    table::write("Blocks in use", false, &columns, page, |rows| {
        for (class, sum, meaning) in [
            ("definite", found.definite, "nothing points there"),
            ("indirect", found.indirect, "only lost blocks point there"),
            (
                "possible",
                found.possible,
                "what points there may be no pointer",
            ),
            ("reachable", found.reachable, "the program can reach it"),
        ] {
            rows.row(&[
                Cell::Text(class),
                Cell::Number(sum.blocks),
                Cell::Number(sum.bytes),
                Cell::Text(meaning),
            ]);
        }
    });
}

/// Where lost bytes were allocated, if the allocator recorded it.
fn picture(found: &Leaks, page: &mut Markup) {
    let mut drawn = Stacks::default();
    let mut any = false;
    for group in found
        .groups
        .iter()
        .filter(|group| group.class != "possible")
    {
        let Some(stack) = &group.stack else { continue };
        let names = stack.iter().take(MAX_DEPTH).map(|frame| {
            let name = stacks::function(frame);
            name.chars().take(120).collect::<String>()
        });
        let mut path: Vec<String> = names.collect();
        path.reverse();
        if !path.is_empty() {
            any = true;
            drawn.add_path(path, group.bytes.saturating_add(group.indirect_bytes));
        }
    }
    if !any {
        return;
    }
    page.leaf("h3", &[], "Where they were allocated");
    let svg = many::svg(&drawn, "lost, by the stack that allocated it", "bytes");
    if svg.len() > MAX_PICTURE {
        page.leaf("p", &[], "There are too many stacks for a picture.");
        return;
    }
    table::scroll(
        "Flame graph of lost bytes; the table below has the same",
        page,
        |page| {
            page.own(&svg);
        },
    );
}

fn groups(found: &Leaks, page: &mut Markup) {
    let columns = [
        ("group", Kind::Number),
        ("class", Kind::Word),
        ("blocks", Kind::Number),
        ("of bytes", Kind::Number),
        ("bytes", Kind::Number),
        ("bytes with it", Kind::Number),
        ("what", Kind::Name),
    ];
    if found.groups.is_empty() {
        return;
    }
    table::write(
        "Blocks that are lost in one way",
        true,
        &columns,
        page,
        |rows| {
            for group in &found.groups {
                if rows.is_full() {
                    return;
                }
                rows.row(&[
                    Cell::Number(group.id as u64),
                    Cell::Text(&group.class),
                    Cell::Number(group.blocks),
                    Cell::Number(group.block_bytes),
                    Cell::Number(group.bytes),
                    Cell::Number(group.indirect_bytes),
                    Cell::Text(
                        group
                            .type_of
                            .as_ref()
                            .map_or(&group.signature, |known| &known.name),
                    ),
                ]);
            }
        },
    );
    if found.groups_dropped > 0 {
        let more = count(found.groups_dropped, "more group");
        page.leaf("p", &[], &format!("{more} were left out."));
    }
}

fn write_group(group: &LeakGroup, page: &mut Markup) {
    page.element("article", &[], |page| {
        let size = bytes(group.block_bytes);
        let blocks = count(group.blocks, "block");
        let title = format!("[{}] {}: {blocks} of {size}", group.id, group.class);
        page.leaf("h3", &[], &title);
        page.leaf("p", &[], &group.message);
        page.element("dl", &[], |page| {
            if group.indirect_blocks > 0 {
                let blocks = count(group.indirect_blocks, "block");
                let text = format!("{blocks}, {}", bytes(group.indirect_bytes));
                field("lost with it", &text, page);
            }
            if !group.signature.is_empty() {
                field("first words", &group.signature, page);
            }
            let examples: Vec<String> = group.examples.iter().map(ToString::to_string).collect();
            field("examples", &examples.join(" "), page);
            if let Some(held) = &group.was_held_by {
                field("once in", &graph::row(held), page);
            }
        });
        if let Some(stack) = &group.stack {
            frames("Allocated by", stack.iter(), page);
        }
    });
}

fn mappings(found: &Leaks, page: &mut Markup) {
    if found.mappings.is_empty() {
        return;
    }
    page.leaf("h3", &[], "Mappings that nobody points at");
    page.element("ul", &[], |page| {
        for mapping in found.mappings.iter().take(MAX_GROUPS) {
            let text = format!(
                "{}-{}, {} bytes",
                mapping.start,
                mapping.end,
                thousands(mapping.bytes)
            );
            page.leaf("li", &[], &text);
        }
    });
}
