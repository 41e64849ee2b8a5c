//! gperftools' heap checker: `Leak of B bytes in N objects allocated from:` and addresses, with names where pprof was found.

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

/// Reads the heap checker's output.
#[derive(Default)]
pub(super) struct Checker {
    open: Option<Record>,
}

impl Format for Checker {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text;
        if let Some(rest) = text.strip_prefix("Leak of ") {
            self.end(out);
            let bytes = text::leading_number(rest).map(|(bytes, _)| bytes);
            let blocks = text::number_after(rest, " bytes in ");
            if !rest.contains(" objects allocated from") {
                return false;
            }
            let (Some(bytes), Some(blocks)) = (bytes, blocks) else {
                out.failure(line.piece.number, "a leak without bytes or objects");
                return true;
            };
            let mut record = Record::new("gperftools", Kind::MemoryLeak, "heap-check");
            text::cut(text.trim_end_matches(':'), 200).clone_into(&mut record.message);
            (record.bytes, record.blocks) = (Some(bytes), Some(blocks));
            record.source = Source::at(line.piece.number);
            record.stacks.push(Stack {
                role: Role::Allocation,
                thread: None,
                frames: Vec::new(),
            });
            self.open = Some(record);
            return true;
        }
        if text.starts_with("Leak check ") && text.contains(" detected leaks of ") {
            self.end(out);
            return true;
        }
        let Some(stack) = self
            .open
            .as_mut()
            .and_then(|record| record.stacks.last_mut())
        else {
            return false;
        };
        let Some(rest) = text.trim_start().strip_prefix("@ ") else {
            self.end(out);
            return text.is_empty();
        };
        let (address, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let mut frame = Frame {
            address: text::address(address),
            ..Frame::default()
        };
        let name = name.trim();
        // pprof's lines may have the place in front: `/src/a.c:13 f`.
        match name.split_once(' ') {
            Some((place, function)) if place.starts_with('/') => {
                frames::set_location(&mut frame, place);
                frames::set_function(&mut frame, function);
            }
            _ => frames::set_function(&mut frame, name),
        }
        if stack.frames.len() < MAX_FRAMES {
            stack.frames.push(frame);
        }
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        if let Some(record) = self.open.take() {
            out.record(record);
        }
    }
}
