//! glibc's mtrace, libmtrace (with stacks), and what the `mtrace` script prints. What is allocated and not freed at the end is a
//! leak of its caller; two frees of one block without an allocation between them are a double free.

use std::collections::HashMap;

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

/// Most blocks that are followed at once.
const MAX_BLOCKS: usize = 4 << 20;
/// Most callers.
const MAX_SITES: usize = 100_000;

/// Reads logs of allocations.
#[derive(Default)]
pub(super) struct Mtrace {
    open: bool,
    /// The script's list of what was not freed.
    listing: bool,
    sites: Vec<Site>,
    names: HashMap<String, usize>,
    live: HashMap<u64, (usize, u64)>,
    freed: HashMap<u64, usize>,
    /// An allocation whose stack may come on the next lines, and its stack so far.
    pending: Option<(u64, u64, String)>,
    stack: Option<Vec<String>>,
}

struct Site {
    frames: Vec<Frame>,
    line: u64,
    blocks: u64,
    bytes: u64,
}

impl Format for Mtrace {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.trim();
        let number = line.piece.number;
        if let Some(stack) = &mut self.stack {
            if text.starts_with("**]") {
                self.commit(number);
                self.stack = None;
            } else if stack.len() < MAX_FRAMES {
                stack.push(text::cut(text, 1024).to_owned());
            }
            return true;
        }
        if self.pending.is_some() && text.starts_with("**[") {
            self.stack = Some(Vec::new());
            return true;
        }
        self.commit(number);
        match text {
            "= Start" => {
                self.end(out);
                self.open = true;
                return true;
            }
            "= End" => return self.open,
            "Memory not freed:" => {
                self.end(out);
                self.listing = true;
                return true;
            }
            _ => {}
        }
        if self.listing {
            return self.listed(text, number);
        }
        let (place, event) = match text.strip_prefix("@ ") {
            Some(rest) => match split_event(rest) {
                Some(parts) => parts,
                None => return false,
            },
            None if self.open => ("", text),
            None => return false,
        };
        let known = self.event(place, event, number, out);
        self.open |= known;
        known
    }

    fn end(&mut self, out: &mut Out<'_>) {
        self.commit(0);
        for (site, size) in self.live.values() {
            if let Some(site) = self.sites.get_mut(*site) {
                site.blocks += 1;
                site.bytes = site.bytes.saturating_add(*size);
            }
        }
        for site in std::mem::take(&mut self.sites) {
            if site.blocks > 0 {
                let mut record = Record::new("mtrace", Kind::MemoryLeak, "not-freed");
                record.message = format!(
                    "{} bytes in {} blocks were not freed",
                    site.bytes, site.blocks
                );
                (record.bytes, record.blocks) = (Some(site.bytes), Some(site.blocks));
                record.source = Source::at(site.line);
                record.stacks.push(Stack {
                    role: Role::Allocation,
                    thread: None,
                    frames: site.frames,
                });
                out.record(record);
            }
        }
        *self = Self::default();
    }
}

impl Mtrace {
    fn event(&mut self, place: &str, event: &str, line: u64, out: &mut Out<'_>) -> bool {
        match event_of(event) {
            Some(Event::Allocation { address, bytes }) => {
                self.pending = Some((address, bytes, text::cut(place, 1024).to_owned()))
            }
            Some(Event::Free { address }) => self.free(address, place, line, out),
            Some(Event::Failure) => {}
            None => return false,
        }
        true
    }

    fn free(&mut self, address: u64, place: &str, line: u64, out: &mut Out<'_>) {
        let site = self.site(place, || vec![caller(place)], line);
        if self.live.remove(&address).is_some() {
            if self.freed.len() < MAX_BLOCKS {
                self.freed.insert(address, site);
            }
            return;
        }
        // A block that was allocated before the log began is no error; one that the log saw freed is.
        let Some(first) = self
            .freed
            .get(&address)
            .and_then(|&first| self.sites.get(first))
        else {
            return;
        };
        let mut record = Record::new("mtrace", Kind::DoubleFree, "double-free");
        record.message = format!("{} was freed twice", text::address_of(address));
        record.source = Source::at(line);
        record.stacks.push(Stack {
            role: Role::Free,
            thread: None,
            frames: vec![caller(place)],
        });
        record.stacks.push(Stack {
            role: Role::Free,
            thread: None,
            frames: first.frames.clone(),
        });
        out.record(record);
    }

    /// The allocation that waited for its stack is complete.
    fn commit(&mut self, line: u64) {
        let Some((address, size, place)) = self.pending.take() else {
            return;
        };
        let site = match self.stack.take().filter(|stack| !stack.is_empty()) {
            Some(stack) => self.site(
                &stack.join("\n"),
                || stack.iter().map(|text| caller(text)).collect(),
                line,
            ),
            None => self.site(&place, || vec![caller(&place)], line),
        };
        self.freed.remove(&address);
        if self.live.len() < MAX_BLOCKS {
            self.live.insert(address, (site, size));
        }
    }

    fn site(&mut self, name: &str, frames: impl FnOnce() -> Vec<Frame>, line: u64) -> usize {
        if let Some(&site) = self.names.get(name) {
            return site;
        }
        let site = self.sites.len();
        if site >= MAX_SITES {
            return site - 1;
        }
        self.names.insert(name.to_owned(), site);
        self.sites.push(Site {
            frames: frames(),
            line,
            blocks: 0,
            bytes: 0,
        });
        site
    }

    /// `0x000055924ecac4a0     0x64  at /src/app/bakery.c:11`.
    fn listed(&mut self, text: &str, line: u64) -> bool {
        let mut words = text.splitn(2, char::is_whitespace);
        let address = words
            .next()
            .filter(|word| word.starts_with("0x"))
            .and_then(text::hexadecimal_value);
        let Some((size, place)) = words.next().and_then(|rest| rest.split_once(" at ")) else {
            return text.is_empty() || text.starts_with('-') || text.starts_with("Address");
        };
        let (Some(address), Some(size)) = (address, text::hexadecimal_value(size)) else {
            return false;
        };
        let site = self.site(place.trim(), || vec![located(place.trim())], line);
        if self.live.len() < MAX_BLOCKS {
            self.live.insert(address, (site, size));
        }
        true
    }
}

/// A call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A block was handed out; of `realloc` the new one.
    Allocation { address: u64, bytes: u64 },
    /// A block was taken back; of `realloc` the old one.
    Free { address: u64 },
    /// `realloc` that failed.
    Failure,
}

/// `+ ptr size`, `- ptr`, `< ptr`, `> ptr size`, `! ptr size`.
pub(crate) fn event_of(text: &str) -> Option<Event> {
    let mut words = text.split_whitespace();
    let sign = words.next()?;
    let address = words.next().and_then(crate::text::hexadecimal_value)?;
    let bytes = words.next().and_then(crate::text::hexadecimal_value);
    match (sign, bytes) {
        ("+" | ">", Some(bytes)) => Some(Event::Allocation { address, bytes }),
        ("-" | "<", None) => Some(Event::Free { address }),
        ("!", _) => Some(Event::Failure),
        _ => None,
    }
}

/// Splits `LOCATION + 0x1 0x2` before the sign.
pub(crate) fn split_event(text: &str) -> Option<(&str, &str)> {
    let at = [" + 0x", " - 0x", " < 0x", " > 0x", " ! 0x", " - (nil)"]
        .iter()
        .filter_map(|sign| text.rfind(sign))
        .max()?;
    Some((&text[..at], &text[at + 1..]))
}

/// `./bakery:(main+0x1f)[0x11c1]`, `[0x40022251] operator new(unsigned int) (/usr/lib/x.so+0x3)`.
pub(crate) fn caller(text: &str) -> Frame {
    let mut frame = Frame::default();
    let (before, after) = match text
        .rsplit_once('[')
        .filter(|(_, rest)| rest.starts_with("0x"))
    {
        Some((before, rest)) => {
            let (address, after) = rest.split_once(']').unwrap_or((rest, ""));
            frame.address = text::address(address);
            (before, after.trim())
        }
        None => (text, ""),
    };
    let before = before.trim_end_matches(':');
    let (path, symbol) = match before.rsplit_once('(') {
        Some((path, symbol)) => (path, symbol.trim_end_matches(')')),
        None => (before, ""),
    };
    let path = path.trim_end_matches(':');
    if !path.is_empty() && !path.ends_with('/') {
        Record::set_module(&mut frame, path);
    }
    let (name, module) = match after.rsplit_once(" (") {
        Some((name, module)) => (name, module.trim_end_matches(')')),
        None => (after, ""),
    };
    if frame.module.is_none() && !module.is_empty() && !module.ends_with('/') {
        let (path, offset) = module.split_once('+').unwrap_or((module, ""));
        Record::set_module(&mut frame, path);
        frame.module_offset = text::address(offset).filter(|_| !offset.is_empty());
    }
    // The only dynamic symbol of many programs stands for all of their functions.
    if name != "__gxx_personality_v0" {
        frames::set_function(
            &mut frame,
            if symbol.is_empty() {
                name
            } else {
                frames::without_offset(symbol)
            },
        );
    }
    if frame.module.is_some()
        && frame.module_offset.is_none()
        && frame
            .address
            .as_deref()
            .and_then(text::hexadecimal_value)
            .is_some_and(|address| address < 1 << 32)
    {
        frame.module_offset = frame.address.take(); // relative to the module since glibc 2.36
    }
    frame
}

/// A place as the script prints it: `file:line` or an address.
fn located(place: &str) -> Frame {
    let mut frame = Frame::default();
    if place.starts_with("0x") {
        frame.address = text::address(place);
    } else {
        frames::set_location(&mut frame, place);
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let frame = caller("./bakery:[0x11c1]");
        assert_eq!(
            (frame.module.as_deref(), frame.module_offset.as_deref()),
            (Some("bakery"), Some("0x11c1"))
        );
        let frame = caller("./bakery:(main+0x1f)[0x11c1]");
        assert_eq!(frame.function.as_deref(), Some("main"));
        let frame = caller("[0x400ff727] operator new(unsigned int) (/usr/lib/");
        assert_eq!(
            frame.function.as_deref(),
            Some("operator new(unsigned int)")
        );
        assert_eq!(
            split_event("./a:[0x1] + 0x5 0x6"),
            Some(("./a:[0x1]", "+ 0x5 0x6"))
        );
    }
}
