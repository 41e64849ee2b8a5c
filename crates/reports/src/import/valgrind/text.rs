//! The text that valgrind prints: each line begins with `==PID== `, blocks end at an empty one. Lines of several processes interleave.

use std::collections::BTreeMap;

use super::{Told, kind_of_text};
use crate::import::{Format, Line, Out, frames};
use crate::record::{Frame, Record};
use crate::text as scan;

/// Most processes that are followed at once.
const MAX_PROCESSES: usize = 1024;

/// Reads valgrind's text.
#[derive(Default)]
pub(in crate::import) struct Text {
    processes: BTreeMap<u64, Process>,
}

#[derive(Default)]
struct Process {
    name: Option<String>,
    open: Option<Told>,
    /// Address of the last error's innermost frame: the signal that it died of has the same.
    last: Option<String>,
    valgrind: bool,
}

impl Format for Text {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let Some((pid, text)) = split(line.text) else {
            return false;
        };
        if self.processes.len() >= MAX_PROCESSES && !self.processes.contains_key(&pid) {
            self.end(out);
        }
        let process = self.processes.entry(pid).or_default();
        let trimmed = text.trim();
        if trimmed.is_empty() {
            process.close(pid, out);
            return process.valgrind;
        }
        if let Some(command) = trimmed.strip_prefix("Command: ") {
            let program = command.split(' ').next().unwrap_or(command);
            process.name = Some(scan::base_name(program).to_owned());
        }
        let banner = [
            "Memcheck, ",
            "Helgrind, ",
            "DRD, ",
            "Using Valgrind",
            "Command: ",
        ];
        if banner.iter().any(|start| trimmed.starts_with(start)) {
            process.valgrind = true;
        }
        let is_first = trimmed.starts_with("at 0x");
        if let Some(frame) = frame(trimmed) {
            let Some(told) = &mut process.open else {
                return process.valgrind;
            };
            if is_first && told.stacks.len() < 16 {
                told.stacks.push(Vec::new());
            }
            told.push(frame);
            return true;
        }
        // A heading stands at the left edge; notes of an error are indented by one more.
        if !text.starts_with(' ')
            && let Some(kind) = kind_of_text(trimmed)
        {
            process.close(pid, out);
            process.valgrind = true;
            let told = Told {
                kind: kind.to_owned(),
                what: scan::cut(trimmed, 500).to_owned(),
                line: line.piece.number,
                ..Told::default()
            };
            process.open = Some(told);
            return true;
        }
        if let Some(told) = &mut process.open
            && told.notes.len() < 32
        {
            told.notes
                .push((scan::cut(trimmed, 500).to_owned(), told.stacks.len()));
        }
        process.valgrind
    }

    fn end(&mut self, out: &mut Out<'_>) {
        for (pid, mut process) in std::mem::take(&mut self.processes) {
            process.close(pid, out);
        }
    }
}

impl Process {
    fn close(&mut self, pid: u64, out: &mut Out<'_>) {
        let Some(told) = self.open.take() else {
            return;
        };
        let first = told
            .stacks
            .first()
            .and_then(|frames| frames.first())
            .and_then(|frame| frame.address.clone());
        if told.stacks.is_empty() {
            if told.kind != "FatalSignal" && told.kind != "FdBadClose" {
                out.failure(told.line, "an error without a stack");
            }
            return;
        }
        if told.kind == "FatalSignal" && first == self.last {
            return; // the invalid access before it has said the same
        }
        self.last = first;
        match told.record() {
            Some(mut record) => {
                record.pid = Some(pid);
                record.process.clone_from(&self.name);
                out.record(record);
            }
            None => out.folded(1),
        }
    }
}

/// `==PID== text`, `--PID-- text`; `--time-stamp=yes` puts a time before or behind the mark.
fn split(line: &str) -> Option<(u64, &str)> {
    let rest = line.strip_prefix("==")?;
    let (mark, text) = rest.split_once("==")?;
    let pid = mark.rsplit([' ', ':']).next().and_then(scan::number)?;
    // A sanitizer's mark has no space behind it.
    let text = if text.is_empty() {
        text
    } else {
        text.strip_prefix(' ')?
    };
    Some((pid, text))
}

/// `at 0x109225: taste (bakery.c:13)`, `by 0x48417B4: malloc (in /usr/lib/x.so)`.
fn frame(text: &str) -> Option<Frame> {
    let rest = text
        .strip_prefix("at 0x")
        .or_else(|| text.strip_prefix("by 0x"))?;
    let (address, rest) = rest.split_once(": ")?;
    let mut frame = Frame {
        address: Some(scan::address(address)?),
        ..Frame::default()
    };
    let (function, place) = match rest.rsplit_once(" (") {
        Some((function, place)) => (function, place.trim_end().trim_end_matches(')')),
        None => (rest, ""),
    };
    frames::set_function(&mut frame, function);
    match place.strip_prefix("in ") {
        Some(module) => Record::set_module(&mut frame, module),
        None => frames::set_location(&mut frame, place),
    }
    if frame.file.is_none() && frame.module.is_none() && frame.function.is_none() && rest != "???" {
        return None;
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_marks() {
        let told = frame("by 0x10: signals::Keeper::sleep(char*) (light.cpp:24)").unwrap();
        assert_eq!(
            told.function.as_deref(),
            Some("signals::Keeper::sleep(char*)")
        );
        assert_eq!(
            (told.file.as_deref(), told.line),
            (Some("light.cpp"), Some(24))
        );
        let told = frame("at 0x10: malloc (in /usr/lib/x.so)").unwrap();
        assert_eq!(
            (told.function.as_deref(), told.module.as_deref()),
            (Some("malloc"), Some("x.so"))
        );
        assert!(frame("at 0x10: ???").unwrap().function.is_none());
        assert_eq!(split("==12== a"), Some((12, "a")));
        assert_eq!(split("==00:00:00:01.5 12== a"), Some((12, "a")));
        assert_eq!(split("==12==ERROR: x"), None);
    }
}
