//! Who points where, and what nobody points at, for people.

use crate::report::escape::escaped;
use crate::report::schema::{
    Block, Finding, Frame, LeakGroup, Leaks, Reference, References, Report, Since, Sum,
};

use super::answers::{self, block};
use super::number::{bytes, count};
use super::page::{Page, Role};
use super::{events, findings, trees};

/// Indentation of fields.
const INDENT: usize = 4;
/// Groups that are shown of each class; JSON has all.
const MAX_GROUPS: usize = 25;
/// Holders that fit into a line.
const MAX_IN_LINE: usize = 2;

/// What `refs` says.
pub fn references(report: &Report, page: &mut Page) {
    answers::title(report, page);
    for found in report.references.iter().flatten() {
        write_references(found, page);
    }
}

fn write_references(found: &References, page: &mut Page) {
    let what = match (found.count, found.history_count) {
        (0, _) => "nobody points there".into(),
        (words, _) => format!("{} there", verb(words)),
    };
    page.heading(&format!("REFERENCES TO {}: {what}", found.to));
    if let Some(found) = &found.block {
        page.field(INDENT, "block", Role::Plain, &block(found));
    }
    let (history, holders): (Vec<&Reference>, Vec<&Reference>) =
        found.from.iter().partition(|row| row.kind == "history");
    list("held by", &holders, found.count, page);
    list("history", &history, found.history_count, page);
    if found.path_cut {
        page.field(
            INDENT,
            "path",
            Role::Faint,
            "the search for a way from a root was given up",
        );
    }
    for (number, step) in found.path.iter().enumerate() {
        let label = if number == 0 { "path" } else { "" };
        page.field(INDENT, label, Role::Plain, &row(step));
    }
    if let Some(expression) = &found.expression {
        page.field(INDENT, "that is", Role::Plain, expression);
    }
    if let Some(tree) = &found.tree {
        trees::upward(tree, page);
    }
    if let Some(tree) = &found.down {
        trees::downward(tree, page);
    }
}

fn verb(words: u64) -> String {
    match words {
        1 => "1 word points".into(),
        more => format!("{} point", count(more, "word")),
    }
}

pub(super) fn list(label: &str, rows: &[&Reference], all: u64, page: &mut Page) {
    for (number, found) in rows.iter().enumerate() {
        let label = if number == 0 { label } else { "" };
        page.field(INDENT, label, Role::Plain, &row(found));
    }
    let more = all.saturating_sub(rows.len() as u64);
    if more > 0 && !rows.is_empty() {
        page.field(
            INDENT,
            "",
            Role::Faint,
            &format!("and {}", count(more, "more word")),
        );
    }
}

/// A reference in a line.
pub fn row(found: &Reference) -> String {
    let mut text = place(found);
    if let Some(address) = found.address {
        text = format!("{text}, at {address}");
    }
    if found.points_at_offset > 0 {
        text = format!(
            "{text}, points {} into it",
            count(found.points_at_offset, "byte")
        );
        if let Some(member) = &found.points_at_member {
            text = format!("{text}, at its {member}");
        }
    }
    let is_said = found
        .note
        .as_deref()
        .is_some_and(|note| note.starts_with("left over"));
    if found.strength == "weak" && found.kind != "history" && !is_said {
        text = format!("{text} (weak: may be no pointer)");
    }
    text
}

/// A variable of a frame, in words.
fn local(found: &Reference) -> Option<String> {
    let name = found.variable.as_deref()?;
    let name = match found.variable_offset {
        None | Some(0) => name.to_owned(),
        Some(offset) => format!("{name}+{offset:#x}"),
    };
    let function = found
        .function
        .as_deref()
        .map_or(String::new(), |function| format!(" {function}"));
    let frame = found.frame.map_or(String::new(), |frame| {
        format!(" of frame {frame}{function}")
    });
    let note = found
        .note
        .as_deref()
        .map_or(String::new(), |note| format!(" ({note})"));
    Some(format!("variable {name}{frame}{note}"))
}

/// Where a word stands, in words.
pub(super) fn place(found: &Reference) -> String {
    let of_thread = found
        .thread_id
        .map_or(String::new(), |thread| format!(" of thread {thread}"));
    let variable = found
        .symbol
        .as_deref()
        .map(|name| match (found.symbol_offset, &found.member) {
            (_, Some(member)) => member.clone(),
            (None | Some(0), None) => name.to_owned(),
            (Some(offset), None) => format!("{name}+{offset:#x}"),
        });
    let module = found.module.as_deref();
    match found.kind.as_str() {
        "register" => {
            let register = found.register.as_deref().unwrap_or("?");
            match local(found) {
                Some(local) => format!("{local}{of_thread}, in register {register}"),
                None => {
                    let note = found.note.as_deref();
                    let note = note.map_or(String::new(), |note| format!(" ({note})"));
                    format!("register {register}{of_thread}{note}")
                }
            }
        }
        "stack" => match local(found) {
            Some(local) => format!("{local}{of_thread}"),
            None => {
                let frame = found
                    .frame
                    .map_or(String::new(), |frame| format!(", frame {frame}"));
                let function = found
                    .function
                    .as_deref()
                    .map_or(String::new(), |name| format!(" {name}"));
                let slot = found
                    .stack_offset
                    .map_or(String::new(), |offset| match offset {
                        0.. => format!(", sp+{offset:#x}"),
                        below => format!(", sp-{:#x}", below.unsigned_abs()),
                    });
                let note = found
                    .note
                    .as_deref()
                    .map_or(String::new(), |note| format!(" ({note})"));
                format!("stack{of_thread}{frame}{function}{slot}{note}")
            }
        },
        "tls" => match variable {
            Some(name) => format!("thread-local {name}{of_thread}"),
            None => match (module, found.module_offset) {
                (Some(module), Some(offset)) => {
                    format!("thread-local variables of {module}+{offset}{of_thread}")
                }
                _ => format!("thread-local memory{of_thread}"),
            },
        },
        "global" => match (variable, module, found.module_offset) {
            (Some(name), Some(module), _) => format!("variable {name} of {module}"),
            (_, Some(module), Some(offset)) => format!("variables of {module}+{offset}"),
            _ => "variables of a module".into(),
        },
        "heap" => match &found.block {
            Some(block) => in_block(block, found),
            None => "a block".into(),
        },
        _ => {
            let note = found.note.as_deref().unwrap_or("memory");
            match &found.block {
                Some(block) => format!("{note} ({})", in_block(block, found)),
                None => format!("{note}{of_thread}"),
            }
        }
    }
}

/// `peers at +0x10 in block 0x1000, 48 bytes, of type Session`.
fn in_block(block: &Block, found: &Reference) -> String {
    let member = found.member.as_deref();
    let member = member.map_or(String::new(), |member| format!("{member} at "));
    let text = format!(
        "{member}+{:#x} in block {}, {}",
        block.offset,
        block.address,
        bytes(block.size)
    );
    match &found.type_of {
        Some(known) => format!("{text}, {}", answers::type_of(known)),
        None => text,
    }
}

/// Who holds a finding's block, in a line for the first screen.
pub fn held_by(finding: &Finding) -> Option<String> {
    let block = finding.block.as_ref()?;
    Some(
        match held_by_rows(&finding.referenced_by, finding.referenced_by_count) {
            Some(text) => text,
            None if block.state == "in-use" => {
                "nobody: no word that is in use points at the block".into()
            }
            None => "nobody".into(),
        },
    )
}

/// The first of some holders, and how many more there are.
pub fn held_by_rows(rows: &[Reference], all: u64) -> Option<String> {
    let mut holders: Vec<&Reference> = rows.iter().filter(|row| row.kind != "history").collect();
    // A name says most, a register least.
    holders.sort_by_key(|row| match (&row.variable, &row.symbol) {
        (None, None) if row.kind == "register" => 2,
        (None, None) => 1,
        _ => 0,
    });
    let mut holders = holders.into_iter();
    let shown: Vec<String> = holders.by_ref().take(MAX_IN_LINE).map(place).collect();
    let more = all.saturating_sub(shown.len() as u64);
    match (shown.is_empty(), more) {
        (true, _) => None,
        (_, 0) => Some(shown.join("; ")),
        (_, more) => Some(format!("{}; and {} more", shown.join("; "), more)),
    }
}

/// What `leaks` says.
pub fn leaks(report: &Report, page: &mut Page) {
    answers::title(report, page);
    let Some(found) = &report.leaks else {
        return;
    };
    totals(found, page);
    if let Some(since) = &found.since {
        write_since(since, page);
    }
    events::log(report, page);
    if !found.mappings.is_empty() {
        let all = found
            .mappings
            .iter()
            .fold(0u64, |sum, mapping| sum.saturating_add(mapping.bytes));
        let text = format!(
            "{} of the program's own, {}: nobody points there",
            count(found.mappings.len() as u64, "mapping"),
            bytes(all)
        );
        page.field(2, "mappings", Role::Note, &text);
    }
    for (class, heading) in [
        ("definite", "DEFINITELY LOST"),
        ("indirect", "LOST, SHARED BY SEVERAL"),
        ("possible", "POSSIBLY LOST"),
    ] {
        write_class(found, class, heading, page);
    }
    write_mappings(found, page);
    if found.groups_dropped > 0 {
        page.gap();
        page.sentence(
            0,
            Role::Plain,
            &format!("{} are left out", count(found.groups_dropped, "more group")),
        );
    }
}

/// Sums of what is lost, may be, and is not.
pub(super) fn totals(found: &Leaks, page: &mut Page) {
    let (role, said) = lost(found);
    page.field(2, "lost", role, &said);
    if found.possible.blocks > 0 {
        page.field(
            2,
            "possibly",
            Role::Warning,
            &format!("{} more", sum(found.possible)),
        );
    }
    page.field(2, "reachable", Role::Plain, &sum(found.reachable));
}

fn write_since(since: &Since, page: &mut Page) {
    let role = match since.lost.blocks {
        0 => Role::Good,
        _ => Role::Critical,
    };
    let by = match since.matched_by.as_str() {
        "address" => "the same process: compared block by block",
        _ => "another process: compared by groups",
    };
    let more = match since.lost.blocks {
        0 => "nothing more is lost".into(),
        _ => format!("{} more lost", sum(since.lost)),
    };
    page.field(
        2,
        "since",
        role,
        &format!("{more} than in {} ({by})", since.source),
    );
    if since.possible.blocks > 0 {
        let text = format!("{} more possibly lost", sum(since.possible));
        page.field(2, "", Role::Warning, &text);
    }
    if since.gone.blocks > 0 {
        let text = format!(
            "{} of what was lost there are lost no more",
            sum(since.gone)
        );
        page.field(2, "", Role::Plain, &text);
    }
}

/// What is lost, in words.
pub fn lost(found: &Leaks) -> (Role, String) {
    let lost = Sum {
        blocks: found.definite.blocks.saturating_add(found.indirect.blocks),
        bytes: found.definite.bytes.saturating_add(found.indirect.bytes),
    };
    let text = match (lost.blocks, found.indirect.blocks) {
        (0, _) => return (Role::Good, "nothing is definitely lost".into()),
        (_, 0) => format!("{} definitely lost", sum(lost)),
        (_, held) => format!(
            "{} lost, {} of them hang on others",
            sum(lost),
            super::number::thousands(held)
        ),
    };
    (Role::Critical, text)
}

fn sum(sum: Sum) -> String {
    format!("{}, {}", count(sum.blocks, "block"), bytes(sum.bytes))
}

fn write_class(found: &Leaks, class: &str, heading: &str, page: &mut Page) {
    let groups: Vec<&LeakGroup> = found
        .groups
        .iter()
        .filter(|group| group.class == class)
        .filter(|group| group.new.is_none_or(|new| new.blocks > 0))
        .collect();
    if groups.is_empty() {
        return;
    }
    page.heading(&format!(
        "{heading}: {}",
        count(groups.len() as u64, "group")
    ));
    for group in groups.iter().take(MAX_GROUPS) {
        page.gap();
        write_group(group, page);
    }
    if groups.len() > MAX_GROUPS {
        page.gap();
        let more = (groups.len() - MAX_GROUPS) as u64;
        page.sentence(
            0,
            Role::Plain,
            &format!("and {}: --format json has them", count(more, "more group")),
        );
    }
}

fn write_group(group: &LeakGroup, page: &mut Page) {
    let own = match group.blocks {
        1 => format!("1 block of {}", bytes(group.block_bytes)),
        more => format!(
            "{} of {}, {}",
            count(more, "block"),
            count(group.block_bytes, "byte"),
            bytes(group.bytes)
        ),
    };
    let title = format!("[{}] {}", group.id, page.paint(Role::Strong, &own));
    let allocator = page.paint(Role::Faint, &escaped(&group.allocator).to_string());
    page.line(&format!("{title}  {allocator}"));
    page.sentence(INDENT, Role::Plain, &group.message);
    if let Some(new) = group.new {
        page.field(INDENT, "new", Role::Plain, &format!("{} of it", sum(new)));
    }
    if group.indirect_blocks > 0 {
        let held = Sum {
            blocks: group.indirect_blocks,
            bytes: group.indirect_bytes,
        };
        page.field(INDENT, "lost with it", Role::Plain, &sum(held));
    }
    if let Some(known) = &group.type_of {
        page.field(INDENT, "type", Role::Plain, &answers::type_of(known));
    } else if !group.signature.is_empty() {
        page.field(INDENT, "first words", Role::Plain, &group.signature);
    }
    let examples: Vec<String> = group.examples.iter().map(ToString::to_string).collect();
    page.field(INDENT, "examples", Role::Plain, &examples.join(" "));
    if let Some(held) = &group.was_held_by {
        page.field(INDENT, "once in", Role::Plain, &row(held));
    }
    findings::write_stack(
        "allocated by",
        group.stack.as_deref().unwrap_or_default(),
        page,
    );
    let log = group.allocated_at.as_deref().unwrap_or_default();
    let places = |frames: &[Frame]| frames.iter().map(|frame| frame.offset).collect::<Vec<_>>();
    if places(log) != places(group.stack.as_deref().unwrap_or_default()) {
        findings::write_stack("allocated at", log, page);
    }
    for frames in &group.allocation_candidates {
        findings::write_stack("perhaps at", frames, page);
    }
}

fn write_mappings(found: &Leaks, page: &mut Page) {
    if found.mappings.is_empty() {
        return;
    }
    page.heading("MAPPINGS THAT NOBODY POINTS AT");
    for mapping in found.mappings.iter().take(MAX_GROUPS) {
        page.field(
            INDENT,
            "",
            Role::Plain,
            &format!(
                "{}-{}, {}",
                mapping.start,
                mapping.end,
                bytes(mapping.bytes)
            ),
        );
    }
}
