//! Who points where, and what nobody points at.

use ground::target::Address;
use heaps::allocators::Tally;

use super::threads::recorded_frames;
use super::{Context, ReportOptions};
use crate::checks::explains::source::Source;
use crate::checks::finding::Finding;
use crate::checks::fingerprint;
use crate::graph::holders::{Holder, HolderBlock, HolderTree, MAX_SHOWN, References};
use crate::graph::leaks::{Class, Group, Leaks};
use crate::graph::propagation::Limits;
use crate::graph::{Ground, roots};
use crate::report::schema::{
    self, Block, Command, Fingerprint, Hex, LeakGroup, LeakedBlock, Limit, LostMapping, Reference,
    Report, Sum, Tree, TreeRow,
};
use crate::types::{self, Type};

/// The report of `refs`.
pub fn references(ground: &Ground<'_>, found: &[References], options: &ReportOptions) -> Report {
    let mut report = base(ground, options, Command::Refs);
    report.references = Some(found.iter().map(of_address).collect());
    end(report, ground, options)
}

/// The report of `leaks`.
pub fn leaks(
    ground: &Ground<'_>,
    found: &Leaks,
    with_blocks: bool,
    options: &ReportOptions,
) -> Report {
    let mut report = base(ground, options, Command::Leaks);
    report.limits.extend(found.limits.iter().map(|limit| Limit {
        what: limit.what.clone(),
        why: limit.why.clone(),
        incomplete: limit.incomplete,
    }));
    let context = context(ground);
    report.leaks = Some(schema::Leaks {
        definite: sum(found.definite),
        indirect: sum(found.indirect),
        possible: sum(found.possible),
        reachable: sum(found.reachable),
        groups: (1..)
            .zip(&found.groups)
            .map(|(id, group)| leak_group(id, group, &context, ground))
            .collect(),
        groups_dropped: found.groups_dropped,
        mappings: found
            .mappings
            .iter()
            .map(|mapping| LostMapping {
                start: mapping.range.start.into(),
                end: mapping.range.end.into(),
                bytes: mapping
                    .range
                    .end
                    .offset_from(mapping.range.start)
                    .unwrap_or(0),
                class: mapping.class.name().into(),
            })
            .collect(),
        since: None,
        blocks: with_blocks.then(|| {
            let blocks = found.blocks.iter();
            blocks
                .map(|block| LeakedBlock {
                    address: block.address.into(),
                    size: block.bytes,
                    class: block.class.name().into(),
                    group: block.group.map(|group| group + 1),
                    allocated_at: None,
                })
                .collect()
        }),
    });
    end(report, ground, options)
}

pub(super) fn context<'c>(ground: &Ground<'c>) -> Context<'c> {
    super::context(ground.session)
}

/// What a report says of every core, and what the table of blocks lacks.
pub(super) fn base(ground: &Ground<'_>, options: &ReportOptions, command: Command) -> Report {
    let mut report = super::base(ground.session, ground.analysis, options, command);
    if ground.universe.lookup.dropped() > 0 {
        report.limits.push(Limit {
            what: format!(
                "{} runs of heap memory as targets of pointers",
                ground.universe.lookup.dropped()
            ),
            why: "another run claims the same memory".into(),
            incomplete: false,
        });
    }
    report
}

pub(super) fn end(report: Report, ground: &Ground<'_>, options: &ReportOptions) -> Report {
    super::end(report, ground.session, ground.analysis, options)
}

pub(super) fn sum(tally: Tally) -> Sum {
    Sum {
        blocks: tally.blocks,
        bytes: tally.bytes,
    }
}

fn of_address(found: &References) -> schema::References {
    schema::References {
        to: found.to.into(),
        block: found
            .block
            .map(|view| block(view, found.block_type.as_ref())),
        count: found.count,
        history_count: found.history_count,
        from: found.from.iter().map(reference).collect(),
        path: found.path.iter().map(reference).collect(),
        expression: expression(&found.path),
        path_cut: found.path_cut,
        tree: found.tree.as_ref().map(tree),
        down: found.down.as_ref().map(tree),
    }
}

/// A tree as the report shows it.
pub fn tree(found: &HolderTree) -> Tree {
    let sum = |(blocks, bytes)| Sum { blocks, bytes };
    let rows = found.rows.iter();
    Tree {
        rows: rows
            .map(|row| TreeRow {
                depth: row.branch.depth,
                from: reference(&row.holder),
                to: row.to.map(|view| block(view, row.to_type.as_ref())),
                repeated: row.branch.repeated,
                more: row.branch.more,
                held: row.branch.held,
                reached: sum(row.branch.reached),
            })
            .collect(),
        more: found.more,
        reached: sum(found.reached),
        cut: found.cut,
    }
}

/// A type as the report shows it.
pub(super) fn type_of(found: &Type) -> schema::Type {
    schema::Type {
        name: found.name.clone(),
        known_by: found.known_by.name().into(),
        module: Some(found.module.clone()),
        size: found.size,
        was: found.was,
        is_base: found.is_base,
        conflict: found.conflict.clone(),
    }
}

pub(super) fn block(found: HolderBlock, known: Option<&Type>) -> Block {
    Block {
        address: found.address.into(),
        size: found.bytes,
        state: found.state.name().into(),
        offset: found.offset,
        type_of: known.map(type_of),
        bytes: None,
    }
}

/// A way from a variable to a block as the source would write it.
fn expression(path: &[Holder]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let whole = |named: &Option<(String, u64)>| {
        let (name, offset) = named.as_ref()?;
        (*offset == 0).then(|| name.clone())
    };
    let variable = first.member.clone();
    let mut text = variable
        .or_else(|| whole(&first.variable))
        .or_else(|| whole(&first.symbol))?;
    for step in rest {
        let member = step.member.as_deref()?;
        let holds = &step.block_type.as_ref()?.name;
        let is_node = holds.starts_with("node of ");
        text.push_str(match (is_node, member.starts_with('[')) {
            (true, _) => "[...].",
            (false, true) => "",
            (false, false) => "->",
        });
        text.push_str(member);
    }
    Some(text)
}

/// A holder as the report shows it.
pub(super) fn reference(holder: &Holder) -> Reference {
    let is_local = holder.kind == crate::graph::holders::HolderKind::Tls;
    let symbol = holder.symbol.as_ref();
    let variable = holder.variable.as_ref().or(symbol.filter(|_| is_local));
    Reference {
        kind: holder.kind.name().into(),
        strength: holder.strength.name().into(),
        address: holder.address.map(Into::into),
        thread_id: holder.thread,
        frame: holder.slot.as_ref().map(|slot| slot.frame),
        function: holder.slot.as_ref().and_then(|slot| slot.function.clone()),
        stack_offset: holder.slot.as_ref().and_then(|slot| slot.offset),
        register: holder.register.clone(),
        variable: variable.map(|(name, _)| name.clone()),
        variable_offset: variable.map(|(_, offset)| *offset),
        symbol: symbol.map(|(name, _)| name.clone()),
        symbol_offset: symbol.map(|(_, offset)| *offset),
        module: holder.module.as_ref().map(|(name, _)| name.clone()),
        module_offset: holder.module.as_ref().map(|(_, offset)| Hex(*offset)),
        block: holder
            .block
            .map(|view| block(view, holder.block_type.as_ref())),
        type_of: holder.block_type.as_ref().map(type_of),
        member: holder.member.clone(),
        note: holder.note.clone(),
        points_at_offset: holder.points_at,
        points_at_member: holder.points_at_member.clone(),
    }
}

fn leak_group(id: usize, group: &Group, context: &Context<'_>, ground: &Ground<'_>) -> LeakGroup {
    let heap = ground.analysis.heaps.get(group.heap);
    let allocator = heap.map_or("", |heap| heap.identity.name());
    let frames = (!group.stack.is_empty()).then(|| recorded_frames(&group.stack, context));
    LeakGroup {
        id,
        class: group.class.name().into(),
        blocks: group.own.blocks,
        bytes: group.own.bytes,
        indirect_blocks: group.held.blocks,
        indirect_bytes: group.held.bytes,
        new: None,
        block_bytes: group.block_bytes,
        allocator: allocator.into(),
        type_of: group.block_type.as_ref().map(type_of),
        signature: group.signature.clone(),
        encoding: group.encoding.map(Into::into),
        was_held_by: group.was_held_by.as_ref().map(reference),
        examples: group.examples.iter().map(|at| (*at).into()).collect(),
        message: message(group),
        fingerprint: identity(group, context.program, allocator, frames.as_deref()),
        stack: frames,
        allocated_at: None,
        allocation_candidates: Vec::new(),
    }
}

/// One sentence about a group.
fn message(group: &Group) -> String {
    let one = group.own.blocks == 1;
    let encoded = group.encoding.map(|form| {
        format!("only words that hold a pointer in another form name the blocks: {form}")
    });
    let what = match (group.class, group.is_shared) {
        (Class::Definite, _) if one => "nothing points at the block any more",
        (Class::Definite, _) => "nothing points at the blocks any more",
        (Class::Indirect, _) => "only lost blocks point there, several of them at each",
        (Class::Possible, _) => match &encoded {
            Some(encoded) => encoded,
            None => "nothing points there that is certainly a pointer",
        },
    };
    match group.held.blocks {
        0 => what.into(),
        1 => format!("{what}; one more block is lost with it"),
        more => format!(
            "{what}; {more} more blocks are lost with {}",
            if one { "it" } else { "them" }
        ),
    }
}

/// Of names only: program, class, allocator, size and what the first words are, or where the block was allocated.
fn identity(
    group: &Group,
    program: &str,
    allocator: &str,
    frames: Option<&[schema::Frame]>,
) -> Fingerprint {
    let site = match frames {
        Some(frames) => {
            let names = frames.iter().filter_map(|frame| frame.function.as_deref());
            names.take(3).collect::<Vec<_>>().join(" < ")
        }
        None => {
            // Offsets in modules differ from build to build.
            let words = group.signature.split(' ');
            let names = words.map(|word| word.split_once("+0x").map_or(word, |(module, _)| module));
            match &group.block_type {
                Some(known) => known.name.clone(),
                None => format!(
                    "{} {}",
                    group.block_bytes,
                    names.collect::<Vec<_>>().join(" ")
                ),
            }
        }
    };
    let text = format!("{program} | memory-leak | {allocator} | {site}");
    Fingerprint {
        v1: fingerprint::of_parts(&[
            "memory-leak",
            allocator,
            &group.block_bytes.to_string(),
            group
                .block_type
                .as_ref()
                .map_or(&group.signature, |known| &known.name),
        ]),
        v2: fingerprint::of_parts(&[&text]),
        v2_text: text,
    }
}

/// What the report says of blocks beyond its findings.
#[derive(Default)]
pub(super) struct Told {
    /// Who points at the blocks of all findings, and at their culprits.
    pub holders: Vec<(References, References)>,
    /// What the block holds that the value at fault came from.
    pub source: Option<Type>,
    /// The member of it that was read.
    pub member: Option<String>,
}

/// Asks for all of it: one pass over memory for the findings, and none where there is none.
pub(super) fn of_findings(
    session: &postmortem::session::Session,
    analysis: &crate::analysis::Analysis<'_>,
    findings: &[Finding],
    source: Option<&Source>,
) -> Told {
    let source_block = source.and_then(|source| source.block);
    let blocks = |finding: &Finding| {
        let block = finding.block.map(|view| view.block.address);
        let culprit = finding
            .culprit
            .as_ref()
            .map(|culprit| culprit.block.address);
        [block, culprit]
    };
    let addresses: Vec<Address> = findings.iter().flat_map(blocks).flatten().collect();
    if addresses.is_empty() && source_block.is_none() {
        return Told {
            holders: findings.iter().map(|_| Default::default()).collect(),
            ..Told::default()
        };
    }
    let ground = roots::ground(session, analysis);
    ground.follow_types(Limits::ASIDE);
    let mut found = match addresses.is_empty() {
        true => Vec::new(),
        false => ground.references(&addresses, MAX_SHOWN, 0),
    }
    .into_iter();
    let rows = findings.iter().map(|finding| {
        let [block, culprit] =
            blocks(finding).map(|at| at.and_then(|_| found.next()).unwrap_or_default());
        (block, culprit)
    });
    Told {
        holders: rows.collect(),
        source: source_block.and_then(|view| {
            ground.type_of_block(types::Place {
                address: view.block.address,
                bytes: view.block.bytes,
                state: view.state,
            })
        }),
        member: source
            .filter(|source| source.block.is_some())
            .and_then(|source| ground.member_at(source.at?)),
    }
}
