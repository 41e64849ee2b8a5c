//! What addresses are.

use super::finding::contents;
use super::graph::{base, context, end, reference, type_of};
use super::threads::recorded_frames;
use super::{Context, ReportOptions};
use crate::checks::finding::BlockView;
use crate::graph::Ground;
use crate::inspect::{Inspection, What, Word};
use crate::report::schema::{
    Block, Command, Hex, InspectedAddress, InspectedMapping, InspectedWord, Location, Neighbour,
    Report,
};
use crate::types::Type;

/// The report of `inspect`.
pub fn report(ground: &Ground<'_>, found: &[Inspection], options: &ReportOptions) -> Report {
    let mut report = base(ground, options, Command::Inspect);
    let context = with_bytes(ground, options);
    let addresses = found.iter();
    report.addresses = Some(
        addresses
            .map(|found| address(found, ground, &context))
            .collect(),
    );
    end(report, ground, options)
}

/// One address of it.
pub fn address_of(
    ground: &Ground<'_>,
    found: &Inspection,
    options: &ReportOptions,
) -> InspectedAddress {
    address(found, ground, &with_bytes(ground, options))
}

fn with_bytes<'c>(ground: &Ground<'c>, options: &ReportOptions) -> Context<'c> {
    Context {
        include_bytes: options.include_bytes,
        ..context(ground)
    }
}

fn address(found: &Inspection, ground: &Ground<'_>, context: &Context<'_>) -> InspectedAddress {
    let heap = found.heap.and_then(|heap| ground.analysis.heaps.get(heap));
    let slot = found.slot.as_ref();
    let symbol = found.symbol.as_ref();
    let is_local = found.what == What::Tls;
    let variable = found.variable.as_ref().or(symbol.filter(|_| is_local));
    let function = symbol.filter(|_| found.what == What::Code);
    InspectedAddress {
        address: found.at.into(),
        what: found.what.name().into(),
        message: found.message.clone(),
        allocator: heap.map(|heap| heap.identity.name().into()),
        structure: found.structure.clone(),
        block: found
            .block
            .map(|view| block(view, found.references.block_type.as_ref(), context)),
        type_of: found.references.block_type.as_ref().map(type_of),
        member: ground.member_at(found.at),
        locations: found
            .standing
            .iter()
            .map(|standing| Location {
                holder: standing.list.holder.name().into(),
                thread_id: standing.list.thread,
                size_class: standing.list.class.into(),
                size_class_bytes: standing.list.class_bytes,
                position: standing.position,
                list_address: standing.list.at.into(),
            })
            .collect(),
        allocated_at: (!found.allocated_by.is_empty())
            .then(|| recorded_frames(&found.allocated_by, context)),
        freed_at: None,
        freed_again_at: None,
        neighbours: found
            .neighbours
            .iter()
            .map(|neighbour| Neighbour {
                side: if neighbour.is_before {
                    "before"
                } else {
                    "behind"
                }
                .into(),
                block: block(neighbour.block, None, context),
            })
            .collect(),
        thread_id: found.thread,
        frame: slot.map(|slot| slot.frame),
        function: slot
            .and_then(|slot| slot.function.clone())
            .or_else(|| function.map(|(name, _)| name.clone())),
        stack_offset: slot.and_then(|slot| slot.offset),
        variable: variable.map(|(name, _)| name.clone()),
        variable_offset: variable.map(|(_, offset)| *offset),
        symbol: symbol.map(|(name, _)| name.clone()),
        symbol_offset: symbol.map(|(_, offset)| *offset),
        module: found.module.as_ref().map(|(name, _)| name.clone()),
        module_offset: found.module.as_ref().map(|(_, offset)| Hex(*offset)),
        section: found.section.clone(),
        file: found.source.as_ref().map(|(file, _)| file.clone()),
        line: found.source.as_ref().and_then(|(_, line)| *line),
        mapping: found.mapping.as_ref().map(|mapping| InspectedMapping {
            start: mapping.range.start.into(),
            end: mapping.range.end.into(),
            permissions: mapping.permissions.clone(),
            file: mapping.file.clone(),
        }),
        words: found
            .words
            .iter()
            .map(|found| word(found, context))
            .collect(),
        referenced_by: found.references.from.iter().map(reference).collect(),
        referenced_by_count: found.references.count,
    }
}

fn block(view: BlockView, known: Option<&Type>, context: &Context<'_>) -> Block {
    let BlockView {
        block,
        state,
        offset,
    } = view;
    Block {
        address: block.address.into(),
        size: block.bytes,
        state: state.name().into(),
        offset,
        type_of: known.map(type_of),
        bytes: contents(
            context.target.memory,
            block.address,
            block.bytes,
            context.include_bytes,
        ),
    }
}

fn word(found: &Word, context: &Context<'_>) -> InspectedWord {
    let is_shown = !found.is_private || context.include_bytes > 0;
    InspectedWord {
        address: found.at.into(),
        value: found.value.filter(|_| is_shown).map(Hex),
        name: found.name.clone(),
        meaning: found.meaning.clone(),
    }
}
