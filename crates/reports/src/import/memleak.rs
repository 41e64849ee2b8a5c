//! memleak of bcc and of libbpf-tools: stacks with what they have outstanding, or (`-t`) every call.

use std::collections::{BTreeMap, HashMap};

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

/// Most blocks of `-t` that are followed at once.
const MAX_BLOCKS: usize = 4 << 20;

/// Reads memleak's output.
#[derive(Default)]
pub(super) struct Memleak {
    open: Option<Record>,
    /// Frames of the open stack that are no code.
    dropped: u64,
    time: Option<String>,
    /// Calls by process: name, number, then address to size.
    traced: BTreeMap<(String, u64), Traced>,
    blocks: usize,
}

#[derive(Default)]
struct Traced {
    line: u64,
    live: HashMap<u64, u64>,
}

impl Format for Memleak {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.trim();
        if let Some(stack) = heading(text, line.piece.number) {
            self.close(out);
            self.open = Some(stack);
            return true;
        }
        if text.starts_with('[') && text.contains(" stacks with outstanding allocations") {
            self.close(out);
            self.time = text::between(text, "[", "]").map(|time| text::cut(time, 40).to_owned());
            return true;
        }
        if text.starts_with("addr = ") && text.contains(" size = ") {
            return true;
        }
        if text.starts_with("(b'") || text.starts_with("('") {
            return self.call(text, line.piece.number);
        }
        let Some(record) = &mut self.open else {
            return text.starts_with("Attaching to ") && text.contains("kernel allocators")
                || text.starts_with("Attaching to pid ");
        };
        if text.is_empty() {
            return true;
        }
        match frame(text) {
            Some(Some(frame)) => {
                if let Some(stack) = record.stacks.last_mut()
                    && stack.frames.len() < MAX_FRAMES
                {
                    stack.frames.push(frame);
                }
            }
            Some(None) => self.dropped += 1,
            None => return false,
        }
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        self.close(out);
        for ((name, pid), traced) in std::mem::take(&mut self.traced) {
            if traced.live.is_empty() {
                continue;
            }
            let mut record = Record::new("memleak", Kind::MemoryLeak, "outstanding");
            let bytes = traced
                .live
                .values()
                .fold(0_u64, |sum, &size| sum.saturating_add(size));
            record.bytes = Some(bytes);
            record.blocks = u64::try_from(traced.live.len()).ok();
            record.message = format!(
                "{bytes} bytes in {} blocks outstanding when the trace ended",
                traced.live.len()
            );
            (record.process, record.pid) = (Some(name), Some(pid));
            record.source = Source::at(traced.line);
            out.record(record);
        }
        *self = Self::default();
    }
}

impl Memleak {
    fn close(&mut self, out: &mut Out<'_>) {
        let dropped = std::mem::take(&mut self.dropped);
        let Some(mut record) = self.open.take() else {
            return;
        };
        if dropped > 0 {
            record.message = format!(
                "{}; {dropped} frames are no code and were left out",
                record.message
            );
        }
        record.time = self.time.clone().map(serde_json::Value::String);
        out.record(record);
    }

    /// `(b'top', 11748, 8, b'...11', 3393.638438, b'alloc exited, size = 7, result = 56140ebca620')`.
    fn call(&mut self, text: &str, line: u64) -> bool {
        let mut parts = text.trim_start_matches('(').splitn(6, ", ");
        let (Some(name), Some(pid)) = (parts.next(), parts.next().and_then(text::number)) else {
            return false;
        };
        let Some(what) = parts.nth(3) else {
            return false;
        };
        let name = name.trim_start_matches('b').trim_matches('\'');
        let address = |marker: &str| {
            what.split_once(marker)
                .and_then(|(_, rest)| text::hexadecimal_value(rest.split([',', '\'']).next()?))
        };
        if !["alloc entered", "alloc exited", "free entered"]
            .iter()
            .any(|call| what.contains(call))
        {
            return false;
        }
        if self.traced.len() >= 4096 && !self.traced.contains_key(&(name.to_owned(), pid)) {
            return true;
        }
        let traced = self
            .traced
            .entry((name.to_owned(), pid))
            .or_insert_with(|| Traced {
                line,
                ..Traced::default()
            });
        if what.contains("alloc exited") {
            if let (Some(address), Some(size)) =
                (address("result = "), text::number_after(what, "size = "))
                && self.blocks < MAX_BLOCKS
            {
                self.blocks += usize::from(traced.live.insert(address, size).is_none());
            }
        } else if what.contains("free entered")
            && let Some(address) = address("address = ")
        {
            self.blocks -= usize::from(traced.live.remove(&address).is_some());
        }
        true
    }
}

/// `N bytes in M allocations from stack`.
fn heading(text: &str, line: u64) -> Option<Record> {
    let (bytes, rest) = text::leading_number(text)?;
    let rest = rest.strip_prefix(" bytes in ")?;
    let (blocks, rest) = text::leading_number(rest)?;
    if !rest.starts_with(" allocations from stack") {
        return None;
    }
    let mut record = Record::new("memleak", Kind::MemoryLeak, "outstanding");
    record.message = format!("{bytes} bytes in {blocks} allocations outstanding");
    (record.bytes, record.blocks) = (Some(bytes), Some(blocks));
    record.source = Source::at(line);
    record.stacks.push(Stack {
        role: Role::Allocation,
        thread: None,
        frames: Vec::new(),
    });
    Some(record)
}

/// A frame: `Some(None)` is one that is no code address, `None` no frame at all.
fn frame(text: &str) -> Option<Option<Frame>> {
    let mut frame = Frame::default();
    // libbpf-tools: `0 [<00007fc75f6a33ef>] symbol+0x1f [file:line]`.
    let (address, rest) = if let Some((index, rest)) = text.split_once(" [<") {
        text::number(index)?;
        let (address, rest) = rest.split_once(">]")?;
        (text::hexadecimal_value(address)?, rest.trim())
    } else if text.starts_with("0x") {
        let (address, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        (text::hexadecimal_value(address)?, rest.trim())
    } else if text.contains("+0x") && text.ends_with(']') {
        (0, text) // older versions print no address
    } else {
        return None;
    };
    let (symbol, place) = match rest.rsplit_once(" [") {
        Some((symbol, place)) => (symbol.trim(), place.trim_end_matches(']')),
        None => (rest, ""),
    };
    let known = !matches!(symbol, "" | "[unknown]" | "<null sym>");
    if !known && (place.is_empty() || place == "unknown") && is_no_code(address) {
        return Some(None);
    }
    if address != 0 {
        frame.address = Some(text::address_of(address));
    }
    if known {
        frames::set_function(&mut frame, frames::without_offset(symbol));
    }
    if place
        .rsplit_once(':')
        .is_some_and(|(_, line)| text::number(line).is_some())
    {
        frames::set_location(&mut frame, place);
    } else if !place.is_empty() && place != "unknown" {
        frame.module = Some(text::base_name(place).to_owned());
    }
    Some(Some(frame))
}

/// True of a "return address" that is outside user space or whose bytes are text: a frame pointer was used that is none.
fn is_no_code(address: u64) -> bool {
    let bytes = address.to_le_bytes();
    let used = bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last + 1);
    let printable = bytes[..used]
        .iter()
        .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
        .count();
    let in_kernel = address >= 0xffff_8000_0000_0000;
    used < 3 || printable + 1 >= used || (address >= 1 << 47 && !in_kernel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_both_tools() {
        let told = frame("0x00007fc75f6a33ef      __strdup+0x1f [libc.so.6]")
            .unwrap()
            .unwrap();
        assert_eq!(
            (told.function.as_deref(), told.module.as_deref()),
            (Some("__strdup"), Some("libc.so.6"))
        );
        assert_eq!(frame("0x622d36313a383475      [unknown]"), Some(None));
        assert_eq!(frame("0x0000746174732f00      [unknown]"), Some(None));
        let told = frame("3 [<0000561b02f0a1c4>] main+0x2b [/src/app.c:12]")
            .unwrap()
            .unwrap();
        assert_eq!(
            (told.function.as_deref(), told.line),
            (Some("main"), Some(12))
        );
        let told = frame("0 [<0000561b02f0a1c4>] <null sym>").unwrap().unwrap();
        assert_eq!(told.address.as_deref(), Some("0x561b02f0a1c4"));
        assert_eq!(frame("hello"), None);
    }
}
