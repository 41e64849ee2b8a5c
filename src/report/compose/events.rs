//! What a log of the same run adds: who allocated and who freed.

use std::collections::HashMap;
use std::ops::Range;

use ground::target::Address;

use super::threads::recorded_frames;
use super::{Context, ReportOptions, context, redact};
use crate::checks::finding::Finding;
use crate::events::{Asked, Events};
use crate::graph::leaks::Leaks;
use crate::inspect::Inspection;
use crate::report::schema::{EventsLog, Frame, Hex, Limit, Report};
use postmortem::session::Session;

/// Candidates of a profile that are shown of each group.
const MAX_CANDIDATES: usize = 4;

/// Addresses whose history a check wants: of its blocks, their culprits, and what was freed.
pub fn wanted_by_findings(findings: &[Finding]) -> Vec<Range<Address>> {
    let of = |finding: &Finding| {
        let block = finding.block.map(|view| view.block);
        let culprit = finding.culprit.as_ref().map(|culprit| culprit.block);
        let blocks = block.into_iter().chain(culprit);
        let ranges: Vec<_> = blocks
            .map(|block| range(block.address, block.bytes))
            .chain(finding.at.map(|at| range(at, 1)))
            .collect();
        ranges
    };
    findings.iter().flat_map(of).collect()
}

/// Addresses whose history `inspect` wants.
pub fn wanted_by_inspections(found: &[Inspection]) -> Vec<Range<Address>> {
    let of = |found: &Inspection| {
        let block = found.block.map(|view| view.block);
        let block = block.map(|block| range(block.address, block.bytes));
        block.into_iter().chain([range(found.at, 1)])
    };
    found.iter().flat_map(of).collect()
}

fn range(start: Address, bytes: u64) -> Range<Address> {
    start..start.saturating_add(bytes.max(1))
}

/// Stacks as frames, each looked up once.
struct Shown<'c> {
    context: Context<'c>,
    redact: bool,
    known: HashMap<Vec<Address>, Vec<Frame>>,
}

impl<'c> Shown<'c> {
    fn new(session: &'c Session, options: &ReportOptions) -> Self {
        Self {
            context: context(session),
            redact: options.redact,
            known: HashMap::new(),
        }
    }

    fn frames(&mut self, stack: &[Address]) -> Option<Vec<Frame>> {
        if stack.is_empty() {
            return None;
        }
        if let Some(known) = self.known.get(stack) {
            return Some(known.clone());
        }
        let mut frames = recorded_frames(stack, &self.context);
        if self.redact {
            redact::frames(&mut frames);
        }
        self.known.insert(stack.to_vec(), frames.clone());
        Some(frames)
    }
}

/// Adds to the findings of a check who allocated and freed their blocks.
pub fn findings(report: &mut Report, session: &Session, events: &Events, options: &ReportOptions) {
    let mut shown = Shown::new(session, options);
    let dying = dying_free(report);
    for finding in &mut report.findings {
        let at = finding.address.map(|at| Address::new(at.0));
        let block = finding.block.as_ref();
        let block = block.map(|block| (Address::new(block.address.0), block.size));
        if let Some((block, bytes)) = block.or_else(|| at.map(|at| (at, 1))) {
            let calls = events.calls(Asked {
                block,
                bytes,
                at: at.unwrap_or(block),
                is_freed_twice: finding.kind == "double-free" || finding.kind == "cyclic-free-list",
            });
            finding.allocated_at = shown.frames(&calls.allocated);
            finding.freed_at = shown.frames(&calls.freed);
            finding.freed_again_at = shown.frames(&calls.freed_again);
        }
        // mtrace notes a free when it is done, so not the one that the process died in.
        let is_refused = finding.address.is_none() && finding.kind == "invalid-free-entry";
        let is_this = |at: &Option<Hex>| is_refused || (at.is_some() && *at == finding.address);
        let dying = dying.as_ref().filter(|(at, _)| is_this(at));
        if let Some((_, frames)) = dying {
            let is_again = finding.kind == "double-free" && finding.freed_at.is_some();
            let place = match is_again {
                true => &mut finding.freed_again_at,
                false => &mut finding.freed_at,
            };
            place.get_or_insert_with(|| frames.clone());
        }
        if let Some(culprit) = &mut finding.culprit {
            let block = Address::new(culprit.address.0);
            let calls = events.calls(Asked {
                block,
                bytes: culprit.size,
                at: block,
                is_freed_twice: false,
            });
            culprit.allocated_at = shown.frames(&calls.allocated);
            culprit.freed_at = shown.frames(&calls.freed);
        }
    }
    log(report, events, options);
}

/// The free that the process died in: its pointer, if it is known, and who called.
fn dying_free(report: &Report) -> Option<(Option<Hex>, Vec<Frame>)> {
    let call = report.crash_info.call.as_ref()?;
    let frees = [
        "free",
        "cfree",
        "realloc",
        "reallocarray",
        "operator delete",
    ];
    let is_free = frees.iter().any(|name| call.function.starts_with(name));
    let thread = report.threads.get(report.crash_info.crashing_thread?)?;
    let frames = thread.frames.get(call.frame..)?;
    is_free.then(|| (call.pointer, frames.to_vec()))
}

/// Adds to groups and blocks that leak who allocated them.
pub fn leaks(
    report: &mut Report,
    session: &Session,
    found: &Leaks,
    events: &Events,
    options: &ReportOptions,
) {
    let mut shown = Shown::new(session, options);
    let Some(leaks) = &mut report.leaks else {
        return;
    };
    for (group, found) in leaks.groups.iter_mut().zip(&found.groups) {
        if let Some(site) = found.site {
            group.allocated_at = shown.frames(events.stack(site));
            continue;
        }
        let stacks = events.of_size(group.block_bytes, group.blocks);
        match stacks.as_slice() {
            [one] => group.allocated_at = shown.frames(one),
            several => {
                let several = several.iter().take(MAX_CANDIDATES);
                group.allocation_candidates =
                    several.filter_map(|stack| shown.frames(stack)).collect();
            }
        }
    }
    for block in leaks.blocks.iter_mut().flatten() {
        let site = events.allocation(Address::new(block.address.0));
        block.allocated_at = site.and_then(|site| shown.frames(events.stack(site)));
    }
    log(report, events, options);
}

/// Adds to addresses who allocated and freed the blocks there.
pub fn addresses(report: &mut Report, session: &Session, events: &Events, options: &ReportOptions) {
    let mut shown = Shown::new(session, options);
    for found in report.addresses.iter_mut().flatten() {
        let block = found.block.as_ref();
        let (block, bytes) =
            block.map_or((found.address.0, 1), |block| (block.address.0, block.size));
        let calls = events.calls(Asked {
            block: Address::new(block),
            bytes,
            at: Address::new(found.address.0),
            is_freed_twice: false,
        });
        found.allocated_at = shown.frames(&calls.allocated).or(found.allocated_at.take());
        found.freed_at = shown.frames(&calls.freed);
        found.freed_again_at = shown.frames(&calls.freed_again);
    }
    log(report, events, options);
}

fn log(report: &mut Report, events: &Events, options: &ReportOptions) {
    report.events = Some(EventsLog {
        file: match options.redact {
            true => redact::file_name(&events.source),
            false => events.source.clone(),
        },
        tool: events.tool.clone(),
        records: events.records,
        compared: events.compared,
        contradicting: events.contradicting,
        unwritten_bytes: events.unwritten,
        complete: events.is_trace(),
    });
    let limits = events.limits.iter().map(|limit| Limit {
        what: limit.what.clone(),
        why: limit.why.clone(),
        incomplete: limit.incomplete,
    });
    report.limits.extend(limits);
}
