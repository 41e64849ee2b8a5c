//! Where the memory is.

use super::graph::{block, reference, sum, type_of};
use super::{ReportOptions, base, end};
use crate::analysis::{Analysis, HeapAnalysis};
use crate::graph::Ground;
use crate::graph::leaks::signature;
use crate::graph::propagation::Propagated;
use crate::report::schema::{
    self, AllocatorFigures, BlockSize, Command, Figures, LargeBlock, Limit, Memory, MemoryKind,
    Report, TypeUse,
};
use crate::types::python::Objects;
use crate::usage::blocks::{Blocks, Size};
use crate::usage::mappings::{self, Mapping, Permissions};
use crate::usage::owners::{Owner, OwnerKind, Owners};
use crate::usage::suspects::{MadeOf, Place, Suspect};
use crate::usage::types::{self, TypeRow};
use heaps::graph::shares::Share;
use postmortem::session::Session;

/// Who holds what, where it was asked for.
pub struct Held<'h, 'g> {
    /// The graph.
    pub ground: &'h Ground<'g>,
    /// All owners.
    pub owners: &'h Owners<'g>,
    /// Those that hold most.
    pub suspects: &'h [Suspect],
}

/// The report of `usage`.
pub fn usage(
    session: &Session,
    analysis: &Analysis<'_>,
    found: &[Mapping],
    blocks: &Blocks,
    held: Option<&Held<'_, '_>>,
    options: &ReportOptions,
) -> Report {
    let mut report = base(session, analysis, options, Command::Usage);
    report.memory = Some(memory(analysis, found));
    report.limits.push(Limit {
        what: "how much of the memory was resident (RSS), swapped out, or shared with others"
            .into(),
        why: "that stands in no core".into(),
        incomplete: false,
    });
    let heap = |index: usize| analysis.heaps.get(index);
    let allocator = |index: usize| heap(index).map_or("", |heap| heap.identity.name());
    let suspects = held.map(|held| {
        let rows = held.suspects.iter();
        rows.filter_map(|found| suspect(found, held.owners))
            .collect()
    });
    report.usage = Some(schema::Usage {
        suspects,
        memory: by_kind(found),
        allocators: analysis
            .heaps
            .iter()
            .map(|heap| figures(heap, session))
            .collect(),
        sizes: blocks.sizes.iter().map(size).collect(),
        types: None,
        python: None,
        owners: held.map(|held| held.owners.list.iter().map(owner).collect()),
        owners_dropped: held.map_or(0, |held| held.owners.dropped),
        largest: blocks
            .largest
            .iter()
            .map(|large| LargeBlock {
                address: large.at.into(),
                size: large.bytes,
                allocator: allocator(large.heap).into(),
                signature: held.map(|held| signature::of(held.ground, large.at, large.bytes)),
                owner: held.and_then(|held| held.owners.of(held.ground, large.at)),
            })
            .collect(),
        reclaimable: schema::Reclaimable {
            trim: blocks.reclaimable.trim,
            fragmented: blocks.reclaimable.fragmented,
            cached: blocks.reclaimable.cached,
            untouched: blocks.reclaimable.untouched,
        },
        resident_bytes: None,
    });
    end(report, session, analysis, options)
}

/// Puts blocks by type, and objects of Python's, into the report of `usage`: what was followed before.
pub fn add_types(report: &mut Report, ground: &Ground<'_>) {
    let Some(usage) = &mut report.usage else {
        return;
    };
    usage.types = Some(types::find(ground).iter().map(type_use).collect());
    if let Some(python) = ground.python.get().and_then(Option::as_ref) {
        let memory = ground.session.target().memory;
        let objects = python.objects(memory, &ground.mappings);
        let rows: Vec<_> = objects.iter().map(python_objects).collect();
        usage.python = (!rows.is_empty()).then_some(rows);
    }
    if ground.typed().is_some_and(Propagated::is_cut) {
        report.limits.push(Limit {
            what: "types of some blocks".into(),
            why: "more values lead to more values than are followed".into(),
            incomplete: false,
        });
    }
}

fn type_use(row: &TypeRow) -> TypeUse {
    TypeUse {
        type_of: row.type_of.as_ref().map(type_of),
        blocks: row.blocks,
        bytes: row.bytes,
        largest: row.largest,
        example: row.example.into(),
    }
}

fn python_objects(row: &Objects) -> schema::PythonObjects {
    schema::PythonObjects {
        name: row.name.clone(),
        blocks: row.blocks,
        bytes: row.bytes,
        example: row.example.into(),
    }
}

fn figures(heap: &HeapAnalysis<'_>, session: &Session) -> AllocatorFigures {
    let module = session.modules().module(heap.identity.module);
    let figures = heap.statistics.figures.iter();
    AllocatorFigures {
        name: heap.identity.name().into(),
        module: module.map(|module| module.name.clone()),
        figures: Figures(
            figures
                .map(|figure| (figure.name.to_owned(), figure.value))
                .collect(),
        ),
    }
}

fn size(found: &Size) -> BlockSize {
    let range = found.row.range();
    BlockSize {
        allocator: found.heap,
        block_bytes: found.row.block_bytes,
        largest: range.largest,
        in_use: found.row.in_use,
        free: found.row.free,
        lost: found.row.lost,
        bytes: range.in_use,
        free_bytes: range.free,
        lost_bytes: range.lost,
    }
}

fn owner(found: &Owner) -> schema::Owner {
    let kind = match (found.kind, found.holders.first()) {
        (OwnerKind::One, Some(holder)) => holder.kind.name(),
        (OwnerKind::One | OwnerKind::Variables, _) => "variables",
        (OwnerKind::Pair, _) => "pair",
        (OwnerKind::Threads, _) => "threads",
        (OwnerKind::Nobody, _) => "nobody",
    };
    schema::Owner {
        kind: kind.into(),
        holders: found.holders.iter().map(holder).collect(),
        blocks: found.blocks.blocks,
        bytes: found.blocks.bytes,
        mapping_bytes: found.mappings.bytes,
    }
}

/// A variable or a frame: the place of one word in it says nothing.
fn holder(found: &crate::graph::holders::Holder) -> schema::Reference {
    schema::Reference {
        stack_offset: None,
        points_at_offset: 0,
        points_at_member: None,
        ..reference(found)
    }
}

fn suspect(found: &Suspect, owners: &Owners<'_>) -> Option<schema::Suspect> {
    let owner = owners.list.get(found.owner)?;
    let gathering = found.gathering.as_ref();
    Some(schema::Suspect {
        owner: found.owner,
        blocks: owner.blocks.blocks,
        bytes: owner.blocks.bytes,
        gathers_at: gathering.and_then(|gathering| gathering.block.map(place)),
        gathered: sum(gathering.map_or(owner.blocks, |gathering| gathering.held)),
        path: gathering.map_or_else(Vec::new, |gathering| {
            gathering.path.iter().map(reference).collect()
        }),
        path_cut: gathering.is_none_or(|gathering| gathering.path_cut)
            && !matches!(owner.share, Share::Several(_)),
        made_of: gathering.map_or_else(Vec::new, |gathering| {
            gathering.made_of.iter().map(made_of).collect()
        }),
    })
}

fn place(found: Place) -> schema::Block {
    match found {
        Place::Block(found) => block(found, None),
        Place::Mapping(start, bytes) => schema::Block {
            address: start.into(),
            size: bytes,
            state: "mapping".into(),
            type_of: None,
            offset: 0,
            bytes: None,
        },
    }
}

fn made_of(found: &MadeOf) -> schema::MadeOf {
    schema::MadeOf {
        block_bytes: found.block_bytes,
        blocks: found.blocks.blocks,
        bytes: found.blocks.bytes,
        example: found.example.into(),
        signature: found.signature.clone(),
        type_of: found.type_of.as_ref().map(type_of),
    }
}

/// The report of `maps`. `summary`: sums by kind are enough.
pub fn maps(
    session: &Session,
    analysis: &Analysis<'_>,
    found: &[Mapping],
    summary: bool,
    options: &ReportOptions,
) -> Report {
    let mut report = base(session, analysis, options, Command::Maps);
    report.memory = Some(memory(analysis, found));
    if !summary {
        add_mappings(&mut report, found);
    }
    end(report, session, analysis, options)
}

/// Puts every mapping into a report.
pub fn add_mappings(report: &mut Report, found: &[Mapping]) {
    report.mappings = Some(found.iter().map(mapping).collect());
}

/// The writable memory, and all memory by kind.
pub(super) fn memory(analysis: &Analysis<'_>, found: &[Mapping]) -> Memory {
    Memory {
        writable_bytes: analysis.memory.anonymous_bytes,
        walked_bytes: analysis.memory.walked_bytes,
        unclaimed_bytes: analysis.memory.nobodys_bytes,
        by_kind: by_kind(found),
    }
}

fn by_kind(found: &[Mapping]) -> Vec<MemoryKind> {
    let sums = mappings::sums(found).into_iter();
    sums.map(|sum| MemoryKind {
        kind: sum.kind.name().into(),
        name: sum.allocator.map(Into::into),
        mappings: sum.mappings,
        bytes: sum.bytes,
        bytes_in_core: sum.present_bytes,
    })
    .collect()
}

fn mapping(found: &Mapping) -> schema::Mapping {
    schema::Mapping {
        start: found.range.start.into(),
        end: found.range.end.into(),
        kind: found.kind.name().into(),
        name: found.name.clone(),
        allocator: found.allocator.map(Into::into),
        thread_id: found.thread,
        permissions: found.permissions.map(permissions),
        bytes: found.bytes(),
        bytes_in_core: found.present_bytes,
    }
}

fn permissions(Permissions(read, write, execute): Permissions) -> String {
    let letters = [(read, 'r'), (write, 'w'), (execute, 'x')];
    letters
        .into_iter()
        .map(|(may, letter)| if may { letter } else { '-' })
        .collect()
}
