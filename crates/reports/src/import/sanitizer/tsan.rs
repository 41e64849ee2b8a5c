//! ThreadSanitizer: two accesses, a place, and how the threads came to be.

use super::Section;
use crate::kind::Kind;
use crate::record::{Access, Record, Role};
use crate::text;

/// The record of a heading's text, `data race (pid=7)`.
pub(super) fn heading(text: &str) -> Record {
    let word = text.split(" (pid=").next().unwrap_or(text).trim();
    let kind = match word {
        w if w.starts_with("data race") || w.starts_with("race on") => Kind::DataRace,
        w if w.starts_with("heap-use-after-free") => Kind::UseAfterFree,
        "double free" | "double-free" => Kind::DoubleFree,
        _ => Kind::Other,
    };
    Record::new("tsan", kind, text::cut(word, 100))
}

/// What a line inside a report means.
pub(super) fn section(line: &str, record: &mut Record) -> Option<Section> {
    let line = line.trim();
    let lower = line.to_ascii_lowercase();
    let thread = || thread(line);
    let previous = lower.starts_with("previous ");
    let access = lower
        .trim_start_matches("previous ")
        .trim_start_matches("atomic ");
    if access.starts_with("read of size ")
        || access.starts_with("write of size ")
        || access.starts_with("[failed to restore")
    {
        if !previous {
            record.access = Some(Access {
                kind: if access.starts_with("read") {
                    "read"
                } else {
                    "write"
                }
                .to_owned(),
                size: text::number_after(access, "of size "),
                address: text::first_address(access),
            });
        }
        return Some(Section::Stack(
            if previous {
                Role::OtherAccess
            } else {
                Role::Access
            },
            thread(),
        ));
    }
    if let Some(place) = line.strip_prefix("Location is ") {
        if let Some(name) = text::between(place, "global '", "'") {
            record.subject = Some(name.to_owned());
        }
        return Some(Section::Stack(Role::Allocation, thread()));
    }
    if (line.starts_with("Thread T") || line.starts_with("Mutex M")) && line.contains("created ") {
        return Some(Section::Stack(Role::Creation, thread()));
    }
    if line.starts_with("Mutex ")
        || line.starts_with("Cycle in lock order")
        || line.starts_with("Hint:")
    {
        return Some(Section::Stack(
            if line.contains("acquired") {
                Role::OtherAccess
            } else {
                Role::Unknown
            },
            thread(),
        ));
    }
    if line.starts_with("=====") {
        return Some(Section::Noted);
    }
    // Kinds without an access begin their stack without a heading, or after one of their own.
    if line.ends_with(':') && record.stacks.is_empty() {
        return Some(Section::Stack(Role::Access, thread()));
    }
    None
}

fn thread(line: &str) -> Option<String> {
    if line.contains("main thread") {
        return Some("main".to_owned());
    }
    super::asan::thread(line)
}

/// The report is complete: of a block that was freed, the earlier "access" is the `free`.
pub(super) fn settle(record: &mut Record) {
    if record.is(Kind::DoubleFree) {
        for stack in &mut record.stacks {
            if matches!(stack.role, Role::Access | Role::OtherAccess) {
                stack.role = Role::Free;
            }
        }
    }
    if record.is(Kind::UseAfterFree) {
        for stack in &mut record.stacks {
            if stack.role == Role::OtherAccess {
                stack.role = Role::Free;
            }
        }
    }
}
