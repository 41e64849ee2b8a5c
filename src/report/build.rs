//! From what was found to a [`Report`]: the only place that knows both sides.

mod crash;
mod finding;
mod heap;
mod process;
mod threads;

use std::collections::BTreeMap;

use heaps::target::{Address, Module, ModuleId, Target};

use super::schema::{
    Allocator, BuildIdMismatch, Core, Diagnostic, Level, Limit, Report, SCHEMA_VERSION, Summary,
    SystemInfo, hex_digits,
};
use super::signals;
use crate::analysis::Analysis;
use crate::analysis::census::Census;
use crate::checks::Verdict;
use crate::checks::finding::{Finding, Severity};
use crate::crash::Crash;
use crate::debuginfo::DebugInfo;
use crate::session::Session;

/// What the command line asks of a report.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// `--kv name=value`.
    pub attributes: BTreeMap<String, String>,
    /// `--include-bytes`: most bytes of a block's contents to show.
    pub include_bytes: usize,
}

/// What the parts of a report are made from.
#[derive(Clone, Copy)]
struct Context<'c> {
    target: Target<'c>,
    names: &'c DebugInfo,
    include_bytes: usize,
}

impl Context<'_> {
    fn module(&self, id: ModuleId) -> Option<&Module> {
        self.target.modules.get(usize::try_from(id.0).ok()?)
    }

    fn module_at(&self, at: Address) -> Option<&Module> {
        let modules = self.target.modules;
        let after = modules.partition_point(|module| module.range.start <= at);
        modules
            .get(after.checked_sub(1)?)
            .filter(|module| at < module.range.end)
    }
}

/// The report of a heap check.
pub fn heap_report(
    session: &Session,
    analysis: &Analysis<'_>,
    verdict: &Verdict,
    crash: Option<&Crash>,
    options: &BuildOptions,
) -> Report {
    let context = Context {
        target: session.target(),
        names: session.debug_info(),
        include_bytes: options.include_bytes,
    };
    let mut report = stacks(session, &context, crash, options);
    report.allocators = allocators(session, analysis, &context);
    report.findings = (1..)
        .zip(&verdict.findings)
        .map(|(id, found)| finding::finding(id, found, &context))
        .collect();
    report.summary = summary(&verdict.findings, verdict.findings_dropped);
    report
        .limits
        .extend(analysis.limits.iter().map(|limit| Limit {
            what: limit.what.clone(),
            why: limit.why.clone(),
            incomplete: limit.incomplete,
        }));
    if analysis.heaps.is_empty() && !report.limits.iter().any(|limit| limit.incomplete) {
        report.limits.push(Limit {
            what: "the heap".into(),
            why: "no allocator was recognised".into(),
            incomplete: true,
        });
    }
    if verdict.findings_dropped > 0 {
        report.limits.push(Limit {
            what: format!("{} more findings", verdict.findings_dropped),
            why: "a number of each kind is kept, the others are only counted".into(),
            incomplete: false,
        });
    }
    finish(&mut report, session);
    report
}

fn allocators(session: &Session, analysis: &Analysis<'_>, context: &Context<'_>) -> Vec<Allocator> {
    let census = Census::take(session.memory(), session.modules());
    let holders: Vec<ModuleId> = analysis
        .heaps
        .iter()
        .map(|heap| heap.identity.module)
        .collect();
    let service = |id| {
        let others: Vec<ModuleId> = holders
            .iter()
            .copied()
            .filter(|other| *other != id)
            .collect();
        context
            .module(id)
            .map(|module| census.service(module, &others))
            .unwrap_or_default()
    };
    analysis
        .heaps
        .iter()
        .map(|heap| heap::allocator(heap, &service(heap.identity.module), context))
        .collect()
}

/// The report of `--minidump`: stacks only. The limits of the session that are about the heap do not count here: the
/// status tells whether a stack is incomplete.
pub fn stack_report(session: &Session, options: &BuildOptions) -> Report {
    let context = Context {
        target: session.target(),
        names: session.debug_info(),
        include_bytes: 0,
    };
    let crash = crate::crash::read(session);
    let mut report = stacks(session, &context, crash.as_ref(), options);
    for limit in &mut report.limits {
        limit.incomplete = false;
    }
    report.limits.push(Limit {
        what: "the heap".into(),
        why: "--minidump asks for stacks only".into(),
        incomplete: false,
    });
    report.limits.extend(threads::incomplete_stacks(session));
    finish(&mut report, session);
    report
}

/// What can be said only when everything else is: tags, and what was odd about the debug files that were asked.
fn finish(report: &mut Report, session: &Session) {
    report.classifiers = classifiers(report);
    let notes = session.debug_info().notes();
    report
        .diagnostics
        .extend(notes.into_iter().map(|message| Diagnostic {
            level: Level::Note,
            message,
        }));
}

/// Everything but the heap.
fn stacks(
    session: &Session,
    context: &Context<'_>,
    crash: Option<&Crash>,
    options: &BuildOptions,
) -> Report {
    let core = session.core_info();
    let refused = session.modules().refused();
    Report {
        schema_version: SCHEMA_VERSION,
        core: Core {
            path: core.path.display().to_string(),
            size: core.bytes,
            truncated: core.truncated,
            build_id_mismatches: refused
                .iter()
                .filter(|refused| refused.build_id.is_some())
                .map(|refused| {
                    let module = context.module(refused.module);
                    BuildIdMismatch {
                        module: module.map_or_else(String::new, |module| module.name.clone()),
                        path: refused.path.display().to_string(),
                        expected: module
                            .and_then(|module| module.build_id.as_deref())
                            .map(hex_digits),
                        found: refused.build_id.as_deref().map(hex_digits),
                    }
                })
                .collect(),
        },
        pid: session.process().pid,
        attributes: options.attributes.clone(),
        process: process::process(session),
        crash_info: crash::crash_info(session, crash),
        crashing_thread: crash
            .as_ref()
            .and_then(|crash| crash::crashing_thread(session, crash)),
        system_info: SystemInfo {
            os: "Linux".into(),
            cpu_arch: session.arch().name.into(),
        },
        modules: process::modules(session),
        threads: threads::threads(session, context),
        limits: session
            .limits()
            .iter()
            .map(|limit| Limit {
                what: limit.what.clone(),
                why: limit.why.clone(),
                incomplete: limit.incomplete,
            })
            .collect(),
        diagnostics: session
            .diagnostics()
            .iter()
            .cloned()
            .map(|message| Diagnostic {
                level: Level::Warning,
                message,
            })
            .collect(),
        ..Report::default()
    }
}

fn summary(findings: &[Finding], dropped: u64) -> Summary {
    let mut summary = Summary {
        dropped,
        ..Summary::default()
    };
    for finding in findings {
        match finding.severity() {
            Severity::Critical => summary.critical += 1,
            Severity::Warning => summary.warning += 1,
            Severity::Note => summary.note += 1,
        }
    }
    summary
}

/// Kinds of what is at least a warning, most severe first, then the signal.
fn classifiers(report: &Report) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    let kinds = report
        .findings
        .iter()
        .filter(|finding| finding.severity >= super::schema::Severity::Warning)
        .map(|finding| finding.kind.as_str());
    let signal = report.crash_info.signal.as_deref().and_then(signals::tag);
    for tag in kinds.chain(signal) {
        if !tags.iter().any(|known| known == tag) {
            tags.push(tag.to_owned());
        }
    }
    tags
}
