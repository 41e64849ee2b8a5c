//! Trees of references, for people.

use crate::report::schema::{Sum, Tree, TreeRow};

use super::graph::place;
use super::number::{bytes, count};
use super::page::{Page, Role};

/// Indentation of a tree, and of each step in it.
const INDENT: usize = 4;
const STEP: usize = 2;

/// Who holds a block, and who holds those.
pub fn upward(tree: &Tree, page: &mut Page) {
    page.gap();
    page.sentence(INDENT, Role::Strong, "who holds it, and who holds those:");
    write(tree, page, holder);
}

/// A holder, and where it stands.
pub(super) fn holder(row: &TreeRow) -> String {
    let known = match (row.repeated, row.held) {
        (true, _) => ": stands in this tree already",
        (_, Some(0)) => ": nobody holds that block",
        _ => "",
    };
    format!("{}{}{known}", place(&row.from), at(row))
}

/// What hangs on a block.
pub fn downward(tree: &Tree, page: &mut Page) {
    page.gap();
    let reached = tree.reached;
    let said = match reached.blocks {
        0 => "nothing hangs on it".into(),
        _ => format!("what hangs on it: {}", sum(reached)),
    };
    page.sentence(INDENT, Role::Strong, &said);
    write(tree, page, held);
}

/// What a word of a block points at.
pub(super) fn held(row: &TreeRow) -> String {
    let offset = row.from.block.as_ref().map_or(0, |block| block.offset);
    let inside = match row.from.points_at_offset {
        0 => String::new(),
        offset => format!(", points {} into it", count(offset, "byte")),
    };
    let Some(to) = &row.to else {
        return format!("+{offset:#x}: a mapping of the program's own{inside}");
    };
    let hang = match (row.repeated, row.reached.blocks) {
        (true, _) => ": stands in this tree already".into(),
        (_, 0 | 1) => String::new(),
        _ => format!(", with what hangs on it {}", sum(row.reached)),
    };
    format!(
        "+{offset:#x}: block {}, {}{inside}{hang}",
        to.address,
        bytes(to.size)
    )
}

fn at(row: &TreeRow) -> String {
    let address = row.from.address;
    address.map_or(String::new(), |address| format!(", at {address}"))
}

fn sum(sum: Sum) -> String {
    format!("{}, {}", count(sum.blocks, "block"), bytes(sum.bytes))
}

fn write(tree: &Tree, page: &mut Page, line: impl Fn(&TreeRow) -> String) {
    // What a row leaves out is said behind what belongs to it.
    let mut open: Vec<(usize, u64)> = Vec::new();
    let more = |page: &mut Page, depth: usize, more: u64| {
        if more > 0 {
            let text = format!("and {}", count(more, "more word"));
            page.sentence(INDENT + depth * STEP, Role::Faint, &text);
        }
    };
    for row in &tree.rows {
        while let Some((depth, left)) = open.pop_if(|(depth, _)| *depth >= row.depth) {
            more(page, depth + 1, left);
        }
        page.sentence(INDENT + row.depth * STEP, Role::Plain, &line(row));
        open.push((row.depth, row.more));
    }
    while let Some((depth, left)) = open.pop() {
        more(page, depth + 1, left);
    }
    more(page, 1, tree.more);
    if tree.cut {
        page.sentence(
            INDENT + STEP,
            Role::Faint,
            "not looked further: --depth moves that bound",
        );
    }
}
