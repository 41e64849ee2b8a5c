//! Frames that a tool left without a name, by the files of their modules.

use std::fmt;

use super::MAX_FRAMES;
use crate::record::{Frame, Record};
use crate::text;

/// A place in the code of a module, as a log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code<'c> {
    /// The module's path when the log was written.
    pub path: &'c str,
    /// Its build ID in hexadecimal, where the log has it.
    pub build_id: Option<&'c str>,
    /// Bytes from the module's first byte, or a link address of a module with a fixed one.
    pub offset: Option<u64>,
    /// The address at run time, which helps where modules are loaded at known places.
    pub address: Option<u64>,
    /// The place is behind a call.
    pub is_return: bool,
    /// The tool that wrote it.
    pub tool: &'c str,
}

/// Knows the files of modules.
pub trait Symboliser: fmt::Debug + Send + Sync {
    /// The functions at a place, innermost inlined one first, each with file and line where they are known; empty if nothing is known.
    fn functions(&self, code: Code<'_>) -> Vec<Frame>;
}

/// Names what it can; says how many frames that were.
pub(super) fn name(record: &mut Record, symbols: &dyn Symboliser) -> u64 {
    let mut named = 0;
    // What samplers and tracers print are return addresses; sanitizers and valgrind print the call.
    let is_return = matches!(
        record.tool.as_str(),
        "tcmalloc" | "jemalloc" | "gperftools" | "memleak" | "mtrace" | "libmemleak"
    );
    for stack in &mut record.stacks {
        if stack.frames.iter().all(is_complete) {
            continue;
        }
        let mut frames = Vec::with_capacity(stack.frames.len());
        for frame in stack.frames.drain(..) {
            let found = match &frame.path {
                Some(path) if !is_complete(&frame) => symbols.functions(Code {
                    path,
                    build_id: frame.build_id.as_deref(),
                    offset: number(&frame.module_offset),
                    address: number(&frame.address),
                    is_return,
                    tool: &record.tool,
                }),
                _ => Vec::new(),
            };
            if found.is_empty() {
                frames.push(frame);
                continue;
            }
            named += 1;
            if frame.function.is_some() {
                // The tool's name stays; the line is that of the function itself.
                let own = found.last().cloned().unwrap_or_default();
                frames.push(Frame {
                    file: own.file,
                    line: own.line,
                    ..frame
                });
                continue;
            }
            for function in found {
                frames.push(Frame {
                    function: function.function,
                    file: function.file,
                    line: function.line,
                    ..frame.clone()
                });
            }
        }
        frames.truncate(MAX_FRAMES);
        stack.frames = frames;
    }
    named
}

fn is_complete(frame: &Frame) -> bool {
    frame.path.is_none() || (frame.function.is_some() && frame.file.is_some())
}

fn number(text: &Option<String>) -> Option<u64> {
    text.as_deref().and_then(text::hexadecimal_value)
}
