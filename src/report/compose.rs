//! From what was found to a [`Report`]: the only place that knows both sides.

mod crash;
pub mod events;
mod finding;
pub mod graph;
mod heap;
pub mod inspect;
mod process;
mod threads;
pub mod usage;

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, Module, ModuleId, Target};

use super::schema::{
    Allocator, BuildIdMismatch, Command, Core, Diagnostic, Level, Limit, Report, SCHEMA_VERSION,
    Summary, SystemInfo, UnsupportedAllocator, hex_digits,
};
use super::{redact, signals};
use crate::analysis::Analysis;
use crate::checks::finding::{Finding, Severity};
use crate::crash::Crash;
use crate::examination::Examination;
use crate::graph::roots;
use crate::usage::mappings;
use postmortem::debuginfo::DebugInfo;
use postmortem::session::Session;

/// What the command line asks of a report.
#[derive(Clone, Debug, Default)]
pub struct ReportOptions {
    /// `--kv name=value`.
    pub attributes: BTreeMap<String, String>,
    /// `--include-bytes`: most bytes of a block's contents to show.
    pub include_bytes: usize,
    /// `--redact`: leave out what may not leave the house.
    pub redact: bool,
    /// The format draws heaps ([`Format::draws_heaps`](super::Format::draws_heaps)).
    pub draw_heaps: bool,
}

/// What the parts of a report are made from.
#[derive(Clone, Copy)]
struct Context<'c> {
    target: Target<'c>,
    names: &'c DebugInfo,
    program: &'c str,
    crash: Option<&'c Crash>,
    include_bytes: usize,
    draw_heaps: bool,
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
pub fn check(session: &Session, examination: &Examination<'_>, options: &ReportOptions) -> Report {
    let Examination {
        analysis,
        crash,
        verdict,
    } = examination;
    let crash = crash.as_ref();
    let context = Context {
        target: session.target(),
        names: session.debug_info(),
        program: process::program(session),
        crash,
        include_bytes: options.include_bytes,
        draw_heaps: options.draw_heaps,
    };
    let mut report = process(session, &context, crash, options);
    if let Some(crash) = crash {
        report.crash_info.values = crash::values(session, analysis, crash);
    }
    report.allocators = allocators(analysis, &context);
    report.unsupported_allocators = strangers(analysis, &context);
    let lands = roots::lands(session, analysis);
    report.memory = Some(usage::memory(
        analysis,
        &mappings::all(session, analysis, &lands),
    ));
    crash::add_sanitizer(&mut report.crash_info, analysis.sanitizer_report.as_ref());
    let source = verdict.source.as_ref();
    let told = graph::of_findings(session, analysis, &verdict.findings, source);
    report.crash_info.came_from = crash::came_from(source, &told);
    report.findings = (1..)
        .zip(verdict.findings.iter().zip(&told.holders))
        .map(|(id, (found, holders))| finding::finding(id, found, holders, analysis, &context))
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
    if options.redact {
        redact::redact(&mut report, &|word| class(session, Some(analysis), word));
    }
    report
}

/// The functions at a place of a module, innermost inlined one first: name, file, line. Empty if nothing is known.
pub fn functions_at(
    names: &DebugInfo,
    module: ModuleId,
    lookup: Address,
) -> Vec<(Option<String>, Option<String>, Option<u32>)> {
    threads::functions_at(names, module, lookup)
}

/// Where names come from, for what has no crash.
fn context(session: &Session) -> Context<'_> {
    Context {
        target: session.target(),
        names: session.debug_info(),
        program: process::program(session),
        crash: None,
        include_bytes: 0,
        draw_heaps: false,
    }
}

/// What a report says of every core whose heaps were walked.
fn base(
    session: &Session,
    analysis: &Analysis<'_>,
    options: &ReportOptions,
    command: Command,
) -> Report {
    let crash = crate::crash::read(session);
    let context = context(session);
    let mut report = process(session, &context, crash.as_ref(), options);
    report.command = command;
    report.allocators = allocators(analysis, &context);
    report
        .limits
        .extend(analysis.limits.iter().map(|limit| Limit {
            what: limit.what.clone(),
            why: limit.why.clone(),
            incomplete: limit.incomplete,
        }));
    report
}

/// What is said last of such a report.
fn end(
    mut report: Report,
    session: &Session,
    analysis: &Analysis<'_>,
    options: &ReportOptions,
) -> Report {
    finish(&mut report, session);
    if options.redact {
        redact::redact(&mut report, &|word| class(session, Some(analysis), word));
    }
    report
}

/// What a word is, in a few words that hold nothing of it.
fn class(session: &Session, analysis: Option<&Analysis<'_>>, word: u64) -> String {
    let at = Address::new(word);
    let heaps = analysis.into_iter().flat_map(|analysis| &analysis.heaps);
    if let Some((block, _)) = heaps.into_iter().find_map(|heap| heap.map.block_at(at)) {
        return format!("pointer into block {}", block.address);
    }
    let modules = session.target().modules;
    if let Some(module) = modules.iter().find(|module| module.range.contains(&at)) {
        return format!("pointer into {}", module.name);
    }
    if session.target().memory.region_at(at).is_some() {
        return "pointer".into();
    }
    let bytes = word.to_le_bytes();
    let letters = bytes
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ');
    match word {
        0 => "zero".into(),
        1..=0xffff => "small number".into(),
        _ if letters.count() >= 4 => redact::TEXT.into(),
        _ => "number".into(),
    }
}

fn allocators(analysis: &Analysis<'_>, context: &Context<'_>) -> Vec<Allocator> {
    let census = &analysis.census;
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

fn strangers(analysis: &Analysis<'_>, context: &Context<'_>) -> Vec<UnsupportedAllocator> {
    let strangers = analysis.strangers.iter();
    strangers
        .map(|stranger| UnsupportedAllocator {
            name: stranger.name.map(str::to_owned),
            module: context
                .module(stranger.module)
                .map(|module| module.name.clone()),
            known_by: stranger.known_by.name().into(),
            serves_program: stranger.serves,
            message: stranger.message.clone(),
            incomplete: stranger.incomplete,
        })
        .collect()
}

/// The report of `stacks`, which is `--minidump`, too. The limits of the session that are about the heap do not count here: the
/// status tells whether a stack is incomplete.
pub fn stacks(session: &Session, options: &ReportOptions) -> Report {
    let crash = crate::crash::read(session);
    let context = Context {
        target: session.target(),
        names: session.debug_info(),
        program: process::program(session),
        crash: crash.as_ref(),
        include_bytes: 0,
        draw_heaps: false,
    };
    let mut report = process(session, &context, crash.as_ref(), options);
    report.command = Command::Stacks;
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
    if options.redact {
        redact::redact(&mut report, &|word| class(session, None, word));
    }
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
fn process(
    session: &Session,
    context: &Context<'_>,
    crash: Option<&Crash>,
    options: &ReportOptions,
) -> Report {
    let core = session.core_info();
    let refused = session.modules().refused();
    let threads = threads::threads(session, context);
    let mut crash_info = crash::crash_info(session, crash);
    crash::name_by_stack(&mut crash_info, &threads);
    Report {
        schema_version: SCHEMA_VERSION,
        core: Core {
            path: core.path.display().to_string(),
            size: core.bytes,
            truncated: core.truncated,
            time: core.written.map(|since| since.as_secs_f64()),
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
        crash_info,
        crashing_thread: crash
            .as_ref()
            .and_then(|crash| crash::crashing_thread(session, crash, &threads)),
        system_info: SystemInfo {
            os: "Linux".into(),
            cpu_arch: session.arch().name.into(),
        },
        modules: process::modules(session),
        threads,
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
