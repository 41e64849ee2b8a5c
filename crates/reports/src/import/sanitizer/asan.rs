//! AddressSanitizer's words, old and new.

use super::Section;
use crate::kind::Kind;
use crate::record::{Access, Record, Role};
use crate::text;

/// The record of a heading's text; none if the sanitizer speaks of itself.
pub(super) fn heading(tool: &str, text: &str) -> Option<Record> {
    if text.starts_with("nested bug")
        || text.starts_with("failed to")
        || text.starts_with("CHECK failed")
    {
        return None;
    }
    let word = word(text);
    let mut record = Record::new(tool, kind(text), word);
    if record.is(Kind::Crash) || text.contains(" on ") {
        let at = text.find(" on ").unwrap_or(0);
        let address = text::first_address(&text[at..]);
        if address.is_some() {
            record.access = Some(Access {
                kind: String::new(),
                size: None,
                address,
            });
        }
    }
    Some(record)
}

/// The tool's name of the kind.
fn word(text: &str) -> &str {
    let text = text.strip_prefix("attempting ").unwrap_or(text);
    if text.starts_with("free on address which was not malloc") {
        return "bad-free";
    }
    let end = text.find([' ', ':']).unwrap_or(text.len());
    &text[..end]
}

/// The kind of error that a heading's text names.
pub(super) fn kind(text: &str) -> Kind {
    match word(text) {
        "heap-use-after-free" | "use-after-free" => Kind::UseAfterFree,
        "heap-buffer-overflow" => Kind::HeapOverrun,
        "double-free" => Kind::DoubleFree,
        "bad-free" | "invalid-free" => Kind::InvalidFree,
        "alloc-dealloc-mismatch" | "new-delete-type-mismatch" => Kind::MismatchedFree,
        "stack-buffer-overflow" | "stack-buffer-underflow" | "dynamic-stack-buffer-overflow" => {
            Kind::StackOverrun
        }
        "stack-use-after-return" | "stack-use-after-scope" => Kind::Other,
        "global-buffer-overflow" => Kind::GlobalOverrun,
        "stack-overflow" => Kind::StackOverflow,
        "use-of-uninitialized-value" => Kind::UninitialisedUse,
        "SEGV" | "BUS" | "FPE" | "ILL" | "ABRT" | "TRAP" | "unknown-crash" => Kind::Crash,
        _ => Kind::Other,
    }
}

/// `T0` of `… thread T0 …`.
pub(super) fn thread(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("thread ")?;
    let name = rest.split([' ', ':', ')']).next()?;
    (name.starts_with('T') && name.len() < 12).then(|| name.to_owned())
}

/// What a line inside a report of AddressSanitizer or MemorySanitizer means.
pub(super) fn section(line: &str, record: &mut Record) -> Option<Section> {
    let line = line.trim_start();
    let stack = |role| Some(Section::Stack(role, thread(line)));
    for (word, kind) in [
        ("READ of size ", "read"),
        ("WRITE of size ", "write"),
        ("ACCESS of size ", "access"),
    ] {
        if let Some(rest) = line.strip_prefix(word) {
            let size = text::leading_number(rest).map(|(size, _)| size);
            let address = text::first_address(rest);
            record.access = Some(Access {
                kind: kind.to_owned(),
                size,
                address,
            });
            return stack(Role::Access);
        }
    }
    if line.starts_with("freed by thread") || line.starts_with("freed here") {
        return stack(Role::Free);
    }
    if line.starts_with("previously allocated by")
        || line.starts_with("allocated by thread")
        || line.starts_with("allocated here")
    {
        return stack(Role::Allocation);
    }
    if line.starts_with("Uninitialized value was ")
        || line.starts_with("Memory was marked as uninitialized")
    {
        return stack(Role::Origin);
    }
    if line.starts_with("Thread T") && line.contains("created by") {
        return stack(Role::Creation);
    }
    if line.starts_with("Address 0x") && line.contains("is located in stack of") {
        return stack(Role::Origin);
    }
    if line.starts_with("0x") && line.contains(" is located ") {
        place(line, record);
        return Some(Section::Noted);
    }
    if line.starts_with("The signal is caused by a ") {
        let kind = if line.contains("WRITE") {
            "write"
        } else if line.contains("READ") {
            "read"
        } else {
            return Some(Section::Noted);
        };
        record.access.get_or_insert_default().kind = kind.to_owned();
        return Some(Section::Noted);
    }
    None
}

/// `0x… is located N bytes to the left of 40-byte region [a,b)`; new: `before`, `after`.
fn place(line: &str, record: &mut Record) {
    let before = line.contains(" to the left of ") || line.contains(" bytes before ");
    if before && line.contains("-byte region") && record.is(Kind::HeapOverrun) {
        record.set_kind(Kind::HeapUnderrun);
    }
    if record.message.len() < 1000 {
        record.message.push_str("; ");
        record.message.push_str(text::cut(line, 500));
    }
}
