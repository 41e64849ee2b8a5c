//! Dr. Memory's `results.txt`, or its copy on standard error (`~~Dr.M~~ `). Sentences by its documentation and source (`report.c`).

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Access, Frame, Record, Role, Source, Stack};
use crate::text;

/// Reads Dr. Memory's reports.
#[derive(Default)]
pub(super) struct DrMemory {
    open: Option<Record>,
    /// True while frames belong to the last stack.
    taking: bool,
    pid: Option<u64>,
    process: Option<String>,
}

impl Format for DrMemory {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.strip_prefix("~~Dr.M~~ ").unwrap_or(line.text);
        let text = thread_prefix(text);
        if let Some(rest) = text.strip_prefix("Dr. Memory results for pid ") {
            self.end(out);
            let (pid, name) = rest.split_once(':').unwrap_or((rest, ""));
            self.pid = text::number(pid);
            self.process = Some(text::base_name(name.trim().trim_matches('"')).to_owned())
                .filter(|name| !name.is_empty());
        }
        if let Some(record) = heading(text, line.piece.number) {
            self.end(out);
            self.open = Some(Record {
                pid: self.pid,
                process: self.process.clone(),
                ..record
            });
            self.taking = true;
            return true;
        }
        let Some(record) = &mut self.open else {
            return text.starts_with("Dr. Memory ");
        };
        let trimmed = text.trim();
        if trimmed.is_empty() {
            self.end(out);
            return true;
        }
        // A note may have frames, which begin as it does.
        if let Some(rest) = trimmed
            .strip_prefix("Note: ")
            .unwrap_or(trimmed)
            .strip_prefix('#')
            && let Some((number, rest)) = text::leading_number(rest.trim_start())
        {
            if let Some(stack) = record.stacks.last_mut()
                && self.taking
                && (number > 0 || stack.frames.is_empty())
                && stack.frames.len() < MAX_FRAMES
            {
                stack.frames.push(frame(rest.trim()));
            }
            return true;
        }
        if let Some(note) = trimmed.strip_prefix("Note: ") {
            self.taking = false;
            let role = match note {
                n if n.contains("allocated here") || n.contains("was allocated") => {
                    Some(Role::Allocation)
                }
                n if n.contains("freed here")
                    || n.contains("overlaps memory") && n.contains("freed") =>
                {
                    Some(Role::Free)
                }
                _ => None,
            };
            if let Some(role) = role {
                record.stacks.push(Stack {
                    role,
                    thread: None,
                    frames: Vec::new(),
                });
                self.taking = true;
            }
            if record.is(Kind::HeapOverrun)
                && (note.contains("prev higher malloc")
                    || note.contains("refers to") && note.contains("before"))
            {
                record.message.push_str("; ");
                record.message.push_str(text::cut(note, 200));
            }
            return true;
        }
        // A file on a line of its own: `    [file:line]` or `    file:line`.
        if trimmed.starts_with('[')
            && let Some(frame) = record
                .stacks
                .last_mut()
                .and_then(|stack| stack.frames.last_mut())
            && frame.file.is_none()
        {
            frames::set_location(frame, trimmed.trim_matches(['[', ']']));
            return true;
        }
        false
    }

    fn end(&mut self, out: &mut Out<'_>) {
        if let Some(mut record) = self.open.take() {
            record.stacks.retain(|stack| !stack.frames.is_empty());
            if record.is(Kind::HeapOverrun) && record.stack(Role::Free).is_some() {
                record.set_kind(Kind::UseAfterFree);
            }
            out.record(record);
        }
    }
}

/// Takes `:::7:::` off the front: a thread's number on standard error.
fn thread_prefix(text: &str) -> &str {
    let rest = text.trim_start_matches(['~', ':']);
    match rest.split_once("~~ ").or_else(|| rest.split_once("::: ")) {
        Some((thread, rest))
            if text.len() > rest.len()
                && !thread.is_empty()
                && thread.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            rest
        }
        _ => text,
    }
}

/// `Error #3: UNADDRESSABLE ACCESS of freed memory: reading 0x1-0x2 1 byte(s) within 0x1-0x2`.
fn heading(text: &str, line: u64) -> Option<Record> {
    let rest = text.strip_prefix("Error #")?;
    let (_, rest) = text::leading_number(rest)?;
    let rest = rest.strip_prefix(':')?.trim();
    let rest = ["SUPPRESSED ", "POTENTIAL ", "REPORTED "]
        .iter()
        .fold(rest, |rest, word| rest.strip_prefix(word).unwrap_or(rest));
    let (word, kind) = [
        ("UNADDRESSABLE ACCESS of freed memory", Kind::UseAfterFree),
        ("UNADDRESSABLE ACCESS beyond heap bounds", Kind::HeapOverrun),
        (
            "UNADDRESSABLE ACCESS beyond top of stack",
            Kind::StackOverrun,
        ),
        ("UNADDRESSABLE ACCESS", Kind::Crash),
        ("UNINITIALIZED READ", Kind::UninitialisedUse),
        ("INVALID HEAP ARGUMENT", Kind::InvalidFree),
        ("REACHABLE LEAK", Kind::LiveMemory),
        ("POSSIBLE LEAK", Kind::MemoryLeak),
        ("LEAK", Kind::MemoryLeak),
        ("HANDLE LEAK", Kind::Other),
        ("GDI USAGE ERROR", Kind::Other),
        ("WARNING", Kind::Other),
    ]
    .into_iter()
    .find(|(word, _)| rest.starts_with(word))?;
    let mut record = Record::new("drmemory", kind, word);
    record.source = Source::at(line);
    text::cut(rest, 500).clone_into(&mut record.message);
    match kind {
        Kind::MemoryLeak | Kind::LiveMemory => {
            record.bytes =
                text::leading_number(rest[word.len()..].trim_start()).map(|(bytes, _)| bytes);
            record.blocks = Some(1);
            record.indirect_bytes = text::number_after(rest, " + ").filter(|&bytes| bytes > 0);
        }
        Kind::InvalidFree if rest.contains("mismatch") => record.set_kind(Kind::MismatchedFree),
        Kind::Other | Kind::InvalidFree => {}
        _ => {
            let kind = if rest.contains("writing") {
                "write"
            } else {
                "read"
            };
            record.access = Some(Access {
                kind: kind.to_owned(),
                size: size(rest),
                address: text::first_address(rest),
            });
        }
    }
    let role = match kind {
        Kind::MemoryLeak | Kind::LiveMemory => Role::Allocation,
        Kind::InvalidFree => Role::Free,
        _ => Role::Access,
    };
    record.stacks.push(Stack {
        role,
        thread: None,
        frames: Vec::new(),
    });
    Some(record)
}

/// The number before ` byte(s)`.
fn size(text: &str) -> Option<u64> {
    let (before, _) = text.split_once(" byte(s)")?;
    text::number(before.rsplit(' ').next()?)
}

/// `fn   [file:line]`, `fn(args) file:line`, `module!fn [file @ 3]`, `<module+0x12>`.
fn frame(text: &str) -> Frame {
    let mut frame = Frame::default();
    if let Some((path, offset)) = text
        .strip_prefix('<')
        .and_then(|text| text.split('>').next())
        .and_then(|text| text.rsplit_once("+0x"))
    {
        frame.module = Some(text::base_name(path).to_owned());
        frame.module_offset = text::address(offset);
        return frame;
    }
    let (function, place) = match text.rsplit_once(" [") {
        Some((function, place)) => (function.trim_end(), place.trim_end_matches(']')),
        None => text
            .rsplit_once("  ")
            .map_or((text, ""), |(function, place)| (function.trim_end(), place)),
    };
    let function = match function.split_once('!') {
        Some((module, function)) if !module.contains(' ') => {
            frame.module = Some(module.to_owned());
            function
        }
        _ => function,
    };
    // The address may stand behind the module, `+0x12`; a replacement's name is `replace_malloc`.
    frames::set_function(
        &mut frame,
        frames::without_offset(function.split("  ").next().unwrap_or(function)),
    );
    frames::set_location(&mut frame, &place.replace(" @ ", ":"));
    frame
}
