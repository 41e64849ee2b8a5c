//! The first screen: what crashed, is the heap damaged, which block, who did it, who still holds it.

use crate::report::schema::{
    Allocator, Block, Confidence, Culprit, Finding, Frame, Hex, Report, Severity, Summary, Type,
};

use super::coverage;
use super::events;
use super::graph;
use super::maps;
use super::number::{bytes, count, short};
use super::page::{Page, Role};
use super::stacks;
use crate::report::escape::escaped;

/// Indentation of the answers.
const INDENT: usize = 2;

/// The name of the core, and of the program that died.
pub fn title(report: &Report, page: &mut Page) {
    let core = &report.core;
    let title = format!(
        "{} {}: {} ({})",
        report.tool.name,
        report.tool.version,
        escaped(&core.path),
        short(core.size).unwrap_or_else(|| bytes(core.size)),
    );
    let title = page.paint(Role::Strong, &title);
    page.line(&title);
    page.gap();
    page.field(INDENT, "program", Role::Plain, &program(report));
}

/// The answers.
pub fn write(report: &Report, page: &mut Page) {
    title(report, page);
    if let Some(arguments) = command(report) {
        page.field(INDENT, "command", Role::Plain, arguments);
    }
    page.field(INDENT, "crash", Role::Plain, &crash(report));
    if let Some(came_from) = came_from(report) {
        page.field(INDENT, "came from", Role::Plain, &came_from);
    }
    let (role, heap) = heap(report);
    page.field(INDENT, "heap", role, &heap);
    if let Some(looked_at) = coverage::looked_at(report) {
        page.field(INDENT, "looked at", Role::Warning, &looked_at);
    }
    if let Some(memory) = maps::in_a_line(report) {
        page.field(INDENT, "memory", Role::Plain, &memory);
    }
    events::log(report, page);
    let Some(worst) = report.findings.first() else {
        return;
    };
    page.field(
        INDENT,
        "error",
        Role::Plain,
        &format!("{}, {}: {}", worst.kind, confidence(worst), worst.message),
    );
    if worst.allocator.is_some() {
        let none = || "none: the address is in no block".into();
        let block = worst.block.as_ref().map_or_else(none, block);
        page.field(INDENT, "block", Role::Plain, &block);
    }
    if let Some(done_by) = done_by(worst) {
        page.field(INDENT, "done by", Role::Plain, &done_by);
    }
    if let Some(callers) = events::callers(worst) {
        page.field(INDENT, "callers", Role::Plain, &callers);
    }
    if let Some(held_by) = graph::held_by(worst) {
        page.field(INDENT, "held by", Role::Plain, &held_by);
    }
    if report.crash_info.signal.is_some()
        && let Some(explains) = explains(worst)
    {
        page.field(INDENT, "explains", Role::Plain, &explains);
    }
}

/// The program and its process id.
pub fn program(report: &Report) -> String {
    let executable = report.process.executable.as_deref().unwrap_or("unknown");
    // A symbolic link's name says what was run: `ls` of busybox. The kernel keeps 15 bytes of it.
    let called = report.process.name.as_deref();
    let name = match called.filter(|called| !executable.starts_with(called)) {
        Some(called) => format!("{executable}, called {called}"),
        None => executable.to_owned(),
    };
    match report.pid {
        Some(pid) => format!("{name}, pid {pid}"),
        None => name,
    }
}

/// The command line, if it says more than the program's name.
pub fn command(report: &Report) -> Option<&str> {
    let arguments = report.process.arguments.as_deref()?.trim();
    let name = report.process.executable.as_deref().unwrap_or("");
    (!arguments.is_empty() && arguments != name).then_some(arguments)
}

/// How it died, and where.
pub fn crash(report: &Report) -> String {
    let crash = &report.crash_info;
    let Some(signal) = &crash.signal else {
        return "none recorded: a snapshot of a live process, or the core lost its notes".into();
    };
    // What a handler ran for went wrong first.
    let (first, code, address) = match &crash.handled {
        Some(handled) => (&handled.signal, &handled.code, handled.address),
        None => (signal, &crash.code, crash.address),
    };
    let mut text = first.clone();
    if let Some(code) = code {
        text = format!("{text} ({code})");
    }
    if let Some(address) = address {
        text = format!("{text} at address {address}");
    }
    if let Some(adjusted) = &crash.adjusted_address {
        match (adjusted.address, adjusted.offset) {
            (Some(address), _) => {
                text = format!("{text} at address {address}, which is not canonical")
            }
            (_, Some(_)) => text.push_str(", through a null pointer"),
            _ => {}
        }
    }
    if let Some(sender) = crash.sender.filter(|sender| Some(sender.pid) != report.pid) {
        text = match sender.pid {
            0 => format!("{text}, sent by the kernel or from outside its pid namespace"),
            pid => format!("{text}, sent by process {pid} of user {}", sender.uid),
        };
    }
    if let Some(exception) = &crash.exception {
        text = format!("{text}, for an uncaught {}", exception.type_name);
    }
    if crash.pure_virtual_call.is_some() {
        text.push_str(", for a call of a virtual function without a body");
    }
    if let Some(message) = &crash.abort_message {
        text = format!("{text}, \"{}\"", message.text);
    }
    let at_fault = crash.crashing_frame.unwrap_or(0);
    let thread = crash
        .crashing_thread
        .and_then(|index| report.threads.get(index));
    if let Some(thread) = thread {
        let frames = thread.frames.get(at_fault..).unwrap_or(&thread.frames);
        if let Some(frame) = frames.first() {
            text = format!("{text}, in {}", place(frame));
            let caller = crash.called_from.as_ref();
            let own = caller.and_then(|caller| {
                let frame = frames.iter().find(|frame| frame.frame == caller.frame)?;
                Some((frame, caller.function.as_deref()))
            });
            if let Some((frame, function)) = own {
                text = format!("{text}, called from {}", named_place(frame, function));
            }
        }
        text = format!("{text}, thread {}", stacks::name(thread));
    }
    if crash.handled.is_some() {
        text = format!("{text}; its handler ended in {signal}");
    }
    text
}

/// Where the value came from that it died of, unless an error says so.
pub fn came_from(report: &Report) -> Option<String> {
    let found = report.crash_info.came_from.as_ref()?;
    let is_told = |finding: &Finding| finding.explains_crash == "yes";
    if report.findings.iter().any(is_told) {
        return None;
    }
    let value = match found.value {
        Hex(0) => "null".to_owned(),
        value => value.to_string(),
    };
    let known = found
        .block
        .as_ref()
        .and_then(|block| block.type_of.as_ref());
    let known = known.map_or_else(String::new, |known| format!(", {}", type_of(known)));
    let Some(at) = found.address else {
        return Some(format!("{value} is {}{known}", found.meaning));
    };
    let reader = match (&found.function, found.frame) {
        (Some(function), _) => function.clone(),
        (None, Some(frame)) => format!("frame {frame}"),
        (None, None) => "the program".to_owned(),
    };
    let member = found.member.as_ref();
    let member = member.map_or_else(String::new, |member| format!("{member} at "));
    Some(format!(
        "{value}, which {reader} loaded from {at}: {member}{}{known}",
        found.meaning
    ))
}

/// `deliver (chat-server)`, `chat-server+0x1196` or the bare address.
pub(super) fn place(frame: &Frame) -> String {
    let inlined = frame
        .inlines
        .first()
        .and_then(|inline| inline.function.as_ref());
    named_place(
        frame,
        inlined.or(frame.function.as_ref()).map(String::as_str),
    )
}

/// The same for one of the functions that are inlined into a frame.
fn named_place(frame: &Frame, function: Option<&str>) -> String {
    match (&frame.module, function) {
        (Some(module), Some(function)) => format!("{function} ({module})"),
        (Some(module), None) => format!("{module}{}", stacks::function(frame)),
        (None, _) => format!("{}, which is in no module", frame.offset),
    }
}

/// Whether the heap is damaged.
pub fn heap(report: &Report) -> (Role, String) {
    let summary = of_heaps(report);
    let incomplete = report.limits.iter().any(|limit| limit.incomplete);
    let mut names = String::new();
    let live = |allocator: &&Allocator| allocator.idle != Some(true);
    for allocator in report.allocators.iter().filter(live) {
        if !names.is_empty() {
            names.push_str(", ");
        }
        names.push_str(&full_name(allocator));
    }
    if summary.critical > 0 {
        // Of a heap that could not be read, the finding alone knows whose it is.
        let mut told = report.findings.iter();
        let place = match names.is_empty() {
            true => told.find_map(|finding| finding.allocator.clone()),
            false => Some(names),
        };
        let place = place.unwrap_or_else(|| "a heap that could not be read".into());
        let text = format!("DAMAGED: {} in {place}", counts(summary));
        (Role::Critical, text)
    } else if report.allocators.is_empty() {
        let strangers = coverage::strangers(report);
        let why = strangers.unwrap_or_else(|| "no heap could be read".into());
        (
            Role::Warning,
            format!("NOT ANALYSED: {why}, see NOT CHECKED"),
        )
    } else {
        let clean = summary.warning == 0 && summary.note == 0;
        let mut text = match (clean, incomplete) {
            (true, false) => format!("no damage found in {names}"),
            (true, true) => format!("no damage found in what was checked of {names}"),
            (false, _) => format!("no certain damage: {} in {names}", counts(summary)),
        };
        if incomplete {
            if let Some(strangers) = coverage::strangers(report) {
                text = format!("{strangers}; {text}");
            }
            text.push_str("; NOT WHOLLY ANALYSED, see NOT CHECKED");
        }
        let role = if incomplete || summary.warning > 0 {
            Role::Warning
        } else {
            Role::Good
        };
        (role, text)
    }
}

/// Findings about heaps: what a thread did to its stack is no damage of theirs.
fn of_heaps(report: &Report) -> Summary {
    let mut summary = report.summary;
    let others = report.findings.iter();
    for other in others.filter(|finding| finding.allocator.is_none()) {
        let counted = match other.severity {
            Severity::Critical => &mut summary.critical,
            Severity::Warning => &mut summary.warning,
            Severity::Note => &mut summary.note,
        };
        *counted = counted.saturating_sub(1);
    }
    summary
}

/// `1 critical finding, 2 warnings`.
pub fn counts(summary: Summary) -> String {
    let mut parts = Vec::new();
    if summary.critical > 0 {
        parts.push(count(summary.critical, "critical finding"));
    }
    if summary.warning > 0 {
        parts.push(count(summary.warning, "warning"));
    }
    if summary.note > 0 {
        parts.push(count(summary.note, "note"));
    }
    parts.join(", ")
}

/// `tcmalloc 2.10 (gperftools)`.
pub fn full_name(allocator: &Allocator) -> String {
    let mut name = allocator.name.clone();
    if let Some(version) = &allocator.version {
        name = format!("{name} {version}");
    }
    if let Some(variant) = &allocator.variant {
        name = format!("{name} ({variant})");
    }
    name
}

/// `certain`, or how sure.
pub fn confidence(finding: &Finding) -> &'static str {
    match finding.confidence {
        Confidence::Suspected => "suspected",
        Confidence::Likely => "likely",
        Confidence::Certain => "certain",
    }
}

/// `certain, CWE-122, tcmalloc`.
pub fn facets(finding: &Finding) -> String {
    let facets = format!("{}, CWE-{}", confidence(finding), finding.cwe);
    match &finding.allocator {
        Some(allocator) => format!("{facets}, {allocator}"),
        None => facets,
    }
}

/// The word for a severity and its colour.
pub fn severity(severity: Severity) -> (Role, &'static str) {
    match severity {
        Severity::Critical => (Role::Critical, "CRITICAL"),
        Severity::Warning => (Role::Warning, "WARNING"),
        Severity::Note => (Role::Note, "NOTE"),
    }
}

/// A block in words.
pub fn block(block: &Block) -> String {
    let mut text = format!("{}, {}, {}", block.address, bytes(block.size), block.state);
    if let Some(known) = &block.type_of {
        text = format!("{text}, {}", type_of(known));
    }
    match block.offset {
        0 => text,
        offset => format!("{text}; the address is {} into it", count(offset, "byte")),
    }
}

/// A type in words: `of type Session`, `was of type Shape or a class derived from it`.
pub fn type_of(known: &Type) -> String {
    let was = if known.was { "was " } else { "" };
    let derived = match known.is_base {
        true => " or a class derived from it",
        false => "",
    };
    let of_container = ["buffer of ", "characters of ", "node of ", "table of "];
    let is_part = of_container.iter().any(|part| known.name.starts_with(part));
    let of = if is_part { "a " } else { "of type " };
    match &known.conflict {
        Some(conflict) => format!("{was}{of}{}{derived} (but {conflict})", known.name),
        None => format!("{was}{of}{}{derived}", known.name),
    }
}

/// A culprit in words.
pub fn culprit(culprit: &Culprit) -> String {
    let mut text = format!(
        "{}, {}, {}",
        culprit.address,
        bytes(culprit.size),
        culprit.state
    );
    if let Some(known) = &culprit.type_of {
        text = format!("{text}, {}", type_of(known));
    }
    if let Some(contents) = &culprit.contents {
        text = format!("{text}; it holds {contents}");
    }
    text
}

/// Whether the error is what the process died of, in a line; nothing where no way leads back from there.
pub fn explains(finding: &Finding) -> Option<String> {
    let telling = |kinds: &[&str]| {
        let mut steps = finding.causes.iter().rev();
        let step = steps.find(|step| kinds.contains(&step.kind.as_str()));
        step.map_or_else(String::new, |step| format!(": {}", step.text))
    };
    let has = |kind: &str| finding.causes.iter().any(|step| step.kind == kind);
    Some(match finding.explains_crash.as_str() {
        "yes" => format!(
            "the crash{}",
            telling(&[
                "overwritten",
                "freed",
                "never-written",
                "call",
                "message",
                "operand"
            ])
        ),
        "no" if has("signal") => format!("not the crash{}", telling(&["signal"])),
        "no" if has("other-error") => format!("not the crash{}", telling(&["other-error"])),
        "no" => format!(
            "not the crash, which is of a null pointer{}",
            telling(&["load"])
        ),
        _ if finding.causes.is_empty() => return None,
        _ => format!("perhaps the crash{}", telling(&["freed"])),
    })
}

/// Who did it, if the core tells anything of that.
pub fn done_by(finding: &Finding) -> Option<String> {
    if let Some(found) = &finding.culprit {
        let likely = match finding.confidence {
            Confidence::Certain => "",
            _ => "probably ",
        };
        return Some(format!(
            "{likely}a write past the end of block {}",
            culprit(found)
        ));
    }
    let recorded = finding.stacks.as_ref().and_then(|stacks| {
        stacks
            .deallocation
            .first()
            .map(|_| "the recorded deallocation stack below")
            .or_else(|| {
                stacks
                    .allocation
                    .first()
                    .map(|_| "unknown; where the block was allocated is below")
            })
    });
    if let Some(recorded) = recorded {
        return Some(recorded.into());
    }
    let mut holders: Vec<u32> = finding
        .locations
        .iter()
        .filter_map(|location| location.thread_id)
        .collect();
    holders.dedup();
    match holders.as_slice() {
        [first, second] => Some(format!(
            "unknown, but the block is in the caches of two threads, {first} and {second}: look at what they free"
        )),
        _ => None, // the allocator records nobody
    }
}
