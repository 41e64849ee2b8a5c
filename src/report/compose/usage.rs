//! Where the memory is.

use super::{ReportOptions, base, end};
use crate::analysis::Analysis;
use crate::report::schema::{self, Command, Memory, MemoryKind, Report};
use crate::usage::mappings::{self, Mapping, Permissions};
use postmortem::session::Session;

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
    report.mappings = (!summary).then(|| found.iter().map(mapping).collect());
    end(report, session, analysis, options)
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
