//! `--redact`: a report that can leave the house. What the process worked on goes, what is wrong with its heap stays.
//!
//! Gone are arguments, text from memory, hex dumps, words that are no addresses, and the folders of files; a word that proves a
//! finding becomes its class.

use serde_json::Value;

use super::schema::{Frame, Hex, InspectedAddress, Report, Thread};

/// Tells what a word is, if it is text, a pointer, a small number: in a few words that hold nothing of it.
pub type Classify<'c> = &'c dyn Fn(u64) -> String;

/// The class of a word that is text.
pub const TEXT: &str = "text";

/// Beginnings of what glibc's malloc says; other last words may hold anything.
const SAYINGS: &[&str] = &[
    "free()",
    "malloc",
    "realloc()",
    "double free",
    "corrupted",
    "munmap_chunk()",
    "mremap_chunk()",
    "tcache",
    "invalid",
    "break adjusted",
    "unaligned",
    "memalign",
    "calloc",
    "chunk_",
    "largebin",
    "unsorted",
    "*** stack smashing detected ***",
];

/// Takes out of a report what may not leave the house.
pub fn redact(report: &mut Report, classify: Classify<'_>) {
    report.core.path = file_name(&report.core.path);
    for mismatch in &mut report.core.build_id_mismatches {
        mismatch.path = file_name(&mismatch.path);
    }
    report.process.arguments = None;
    for module in &mut report.modules {
        module.path = file_name(&module.path);
    }
    crash(report, classify);
    report.threads.iter_mut().for_each(thread);
    for allocator in &mut report.allocators {
        allocator.details.more.values_mut().for_each(value);
    }
    for finding in &mut report.findings {
        finding.message = sentence(&finding.message, classify);
        if let Some(block) = &mut finding.block {
            block.bytes = None;
        }
        for evidence in &mut finding.evidence {
            evidence.dump = None;
            evidence.found = found(&evidence.found, classify);
            evidence.expected = sentence(&evidence.expected, classify);
        }
        if let Some(culprit) = &mut finding.culprit {
            culprit.bytes = None;
            culprit.contents = None;
        }
        if let Some(overwriter) = &mut finding.overwriter {
            overwriter.text = None;
        }
        if let Some(stacks) = &mut finding.stacks {
            frames(&mut stacks.allocation);
            frames(&mut stacks.deallocation);
        }
        // What was written is text as a rule, and what was there before an address.
        finding.repairs.clear();
        for cause in &mut finding.causes {
            cause.text = sentence(&cause.text, classify);
        }
        for step in &mut finding.next_steps {
            *step = sentence(step, classify);
        }
    }
    for address in report.addresses.iter_mut().flatten() {
        inspected(address, classify);
    }
    if let Some(leaks) = &mut report.leaks
        && let Some(since) = &mut leaks.since
    {
        since.source = file_name(&since.source);
    }
    for mapping in report.mappings.iter_mut().flatten() {
        mapping.name = mapping.name.take().map(|name| file_name(&name));
    }
    for limit in &mut report.limits {
        limit.what = sentence(&limit.what, classify);
        limit.why = sentence(&limit.why, classify);
    }
    for diagnostic in &mut report.diagnostics {
        diagnostic.message = sentence(&diagnostic.message, classify);
    }
}

fn inspected(address: &mut InspectedAddress, classify: Classify<'_>) {
    let neighbours = address.neighbours.iter_mut();
    let blocks = neighbours.map(|neighbour| &mut neighbour.block);
    for block in address.block.iter_mut().chain(blocks) {
        block.bytes = None;
    }
    address.message = sentence(&address.message, classify);
    address.file = address.file.as_deref().map(file_name);
    if let Some(mapping) = &mut address.mapping {
        mapping.file = mapping.file.as_deref().map(file_name);
    }
    for word in &mut address.words {
        // What is no address may be anybody's secret, a small number, too.
        if word.value.is_some_and(|value| !is_pointer(value, classify)) {
            word.meaning = word.value.map_or(String::new(), |value| classify(value.0));
            word.value = None;
        }
        if word.meaning.starts_with(TEXT) {
            word.meaning = TEXT.into();
        }
        word.meaning = sentence(&word.meaning, classify);
    }
}

fn crash(report: &mut Report, classify: Classify<'_>) {
    let is_text = |at: Hex| classify(at.0) == TEXT;
    let info = &mut report.crash_info;
    info.address = info.address.filter(|at| !is_text(*at));
    if let Some(adjusted) = &mut info.adjusted_address {
        adjusted.address = adjusted.address.filter(|at| !is_text(*at));
    }
    if let Some(handled) = &mut info.handled {
        handled.address = handled.address.filter(|at| !is_text(*at));
    }
    if let Some(accesses) = &mut info.memory_accesses {
        accesses.retain(|access| !is_text(access.address));
    }
    if let Some(details) = &mut info.instruction_details {
        for operand in &mut details.memory {
            operand.address = operand.address.filter(|at| !is_text(*at));
            for value in operand.registers.values_mut() {
                *value = value.filter(|word| is_pointer(*word, classify));
            }
        }
    }
    if let Some(message) = &mut info.abort_message
        && !SAYINGS
            .iter()
            .any(|saying| message.text.starts_with(saying))
    {
        message.text = TEXT.into();
    }
    // A sanitizer's report has arguments and paths in it; what a register holds says its class.
    info.sanitizer_report = None;
    info.values
        .retain(|value| is_pointer(value.value, classify));
    let came_from = info.came_from.take();
    info.came_from = came_from.filter(|it| it.value == Hex(0) || is_pointer(it.value, classify));
    if let Some(found) = &mut info.came_from {
        for step in &mut found.steps {
            step.text = sentence(&step.text, classify);
        }
    }
    for value in &mut info.values {
        value.meaning = sentence(&value.meaning, classify);
        if let Some(block) = &mut value.block {
            block.bytes = None;
        }
    }
    if let Some(exception) = &mut info.exception {
        exception.message = None;
    }
    if let Some(crashing) = &mut report.crashing_thread {
        crashing
            .registers
            .retain(|_, word| is_pointer(*word, classify));
        if let Some(registers) = &mut crashing.frame_registers {
            registers.retain(|_, word| is_pointer(*word, classify));
        }
        frames(&mut crashing.frames);
    }
}

fn is_pointer(word: Hex, classify: Classify<'_>) -> bool {
    classify(word.0).starts_with("pointer")
}

fn thread(thread: &mut Thread) {
    frames(&mut thread.frames);
}

/// Frames without the folders of their files.
pub fn frames(frames: &mut [Frame]) {
    for frame in frames {
        frame.file = frame.file.as_deref().map(file_name);
        for inline in &mut frame.inlines {
            inline.file = inline.file.as_deref().map(file_name);
        }
    }
}

/// Files in an allocator's own facts: frames that it recorded.
fn value(node: &mut Value) {
    match node {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == "file" => *text = file_name(text),
                    other => value(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(value),
        _ => {}
    }
}

/// A path without its folders.
pub fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// What a word of evidence holds: its class, if the sentence begins with the word.
fn found(text: &str, classify: Classify<'_>) -> String {
    let first = text.split([' ', ',', ';']).next().unwrap_or("");
    match word(first) {
        Some(word) => classify(word),
        None => sentence(text, classify),
    }
}

/// A sentence without quotations, words of text and folders.
fn sentence(text: &str, classify: Classify<'_>) -> String {
    let mut unquoted = String::new();
    let mut parts = text.split('"');
    unquoted.push_str(parts.next().unwrap_or(""));
    while parts.next().is_some() {
        unquoted.push_str(TEXT);
        unquoted.push_str(parts.next().unwrap_or(""));
    }
    let mut out = String::new();
    for (number, token) in unquoted.split(' ').enumerate() {
        if number > 0 {
            out.push(' ');
        }
        let core = token.trim_end_matches([',', ';', ':', '.', ')']);
        let tail = token.get(core.len()..).unwrap_or("");
        match word(core) {
            Some(word) if classify(word) == TEXT => out.push_str(TEXT),
            _ if core.contains('/') => out.push_str(&file_name(core)),
            _ => out.push_str(core),
        }
        out.push_str(tail);
    }
    out
}

fn word(token: &str) -> Option<u64> {
    u64::from_str_radix(token.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    fn class(word: u64) -> String {
        let text = word.to_le_bytes().iter().all(u8::is_ascii_graphic);
        if text { TEXT.into() } else { "pointer".into() }
    }

    #[test]
    fn sentences_keep_what_is_wrong_and_lose_what_it_was_about() {
        for (text, expected) in [
            ("0x1080, the block after it", "0x1080, the block after it"),
            ("it holds \"secret\" and \"more\"", "it holds text and text"),
            ("an open \"quotation", "an open text"),
            ("freed 0x4141414141414141; twice", "freed text; twice"),
            ("/home/me/core.1: is cut", "core.1: is cut"),
        ] {
            assert_eq!(sentence(text, &class), expected);
        }
        assert_eq!(
            found("0x4141414141414141, the text \"AAAAAAAA\"", &class),
            TEXT
        );
        assert_eq!(found("itself", &class), "itself");
    }

    #[test]
    fn a_redacted_report_has_no_text_and_no_folders() {
        let mut report = sample::overrun();
        redact(&mut report, &class);
        let json = serde_json::to_string(&report).unwrap();
        for gone in ["--port", "stage", "src/", "20737461676520690"] {
            assert!(!json.contains(gone), "{gone}: {json}");
        }
        for kept in ["heap-overrun", "SLL_SetNext", "linked_list.h"] {
            assert!(json.contains(kept), "{kept}: {json}");
        }
    }
}
