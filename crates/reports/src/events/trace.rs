//! Every call of a run: mtrace, libmtrace.

use std::collections::{BTreeMap, HashMap};

use super::Wanted;
use crate::import::mtrace::{caller, event_of, split_event};
use crate::import::{MAX_FRAMES, mtrace::Event};
use crate::record::Frame;
use crate::text;

/// Most blocks that are live at once.
const MAX_LIVE: usize = 32 << 20;
/// Most callers.
const MAX_SITES: usize = 1 << 20;
/// Most addresses with a history.
const MAX_HISTORIES: usize = 1 << 16;
/// Addresses that are kept of those that were freed.
const MAX_FREED: usize = 1024;

/// A place that allocates or frees.
#[derive(Clone, Debug, Default)]
pub struct Site {
    /// The caller, or its stack, innermost first.
    pub frames: Vec<Frame>,
    /// Calls from there.
    pub calls: u64,
}

/// A block that was not freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    /// Bytes that were asked for.
    pub bytes: u64,
    /// Index of the site.
    pub site: u32,
    /// It was handed out again before the log said that it was freed: that line is still to come, as libc writes it when the free is done.
    pub is_early: bool,
}

/// The last calls of an address: sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Its last allocation.
    pub allocated: Option<Live>,
    /// The first free behind that.
    pub freed: Option<u32>,
    /// The last free, if there are two without an allocation between them.
    pub freed_again: Option<u32>,
    /// The last such pair whatever came then: the allocation before it, both frees.
    pub twice: Option<(Option<Live>, u32, u32)>,
}

/// What a trace tells.
#[derive(Debug, Default)]
pub struct Trace {
    /// Calls.
    pub events: u64,
    /// Who called.
    pub sites: Vec<Site>,
    /// What was not freed, by address.
    pub live: HashMap<u64, Live>,
    /// What happened at the addresses that were asked about.
    pub histories: BTreeMap<u64, History>,
    /// Some of the addresses that were freed.
    pub freed: Vec<u64>,
    /// Blocks, sites or histories beyond the bounds.
    pub dropped: u64,
    /// Its last line has no end: what came then is lost.
    pub is_cut: bool,
    open: bool,
    names: HashMap<String, u32>,
    /// An allocation whose stack may come on the next lines.
    pending: Option<(u64, u64, String)>,
    stack: Option<Vec<String>>,
}

impl Trace {
    /// Where an index leads.
    pub fn site(&self, site: u32) -> Option<&Site> {
        self.sites.get(usize::try_from(site).ok()?)
    }

    pub(super) fn line(&mut self, text: &str, wanted: &Wanted) {
        let text = text.trim();
        if let Some(stack) = &mut self.stack {
            if text.starts_with("**]") {
                self.commit(wanted);
            } else if stack.len() < MAX_FRAMES {
                stack.push(text::cut(text, 1024).to_owned());
            }
            return;
        }
        if self.pending.is_some() && text.starts_with("**[") {
            self.stack = Some(Vec::new());
            return;
        }
        self.commit(wanted);
        if text == "= Start" {
            self.open = true;
            return;
        }
        let (place, event) = match text.strip_prefix("@ ") {
            Some(rest) => match split_event(rest) {
                Some(parts) => parts,
                None => return,
            },
            None if self.open => ("", text),
            None => return,
        };
        match event_of(event) {
            Some(Event::Allocation { address, bytes }) => {
                self.open = true;
                self.pending = Some((address, bytes, text::cut(place, 1024).to_owned()));
            }
            Some(Event::Free { address }) => {
                self.open = true;
                self.free(address, place, wanted);
            }
            Some(Event::Failure) | None => {}
        }
    }

    pub(super) fn end(&mut self, wanted: &Wanted) {
        self.commit(wanted);
        self.names = HashMap::new();
    }

    fn free(&mut self, address: u64, place: &str, wanted: &Wanted) {
        if address == 0 {
            return;
        }
        self.events += 1;
        let site = self.site_of(place, || vec![caller(place)]);
        // The line of a free that another thread was faster than: the block is somebody else's by now.
        let is_late = match self.live.get_mut(&address) {
            Some(live) => std::mem::take(&mut live.is_early),
            None => false,
        };
        if is_late {
            return;
        }
        self.live.remove(&address);
        if self.freed.len() < MAX_FREED {
            self.freed.push(address);
        }
        if let Some(history) = self.history(address, wanted) {
            match history.freed {
                None => history.freed = Some(site),
                Some(first) => {
                    let last = history.freed_again.replace(site).unwrap_or(first);
                    history.twice = Some((history.allocated, last, site));
                }
            }
        }
    }

    /// The allocation that waited for its stack is complete.
    fn commit(&mut self, wanted: &Wanted) {
        let Some((address, bytes, place)) = self.pending.take() else {
            return;
        };
        self.events += 1;
        let site = match self.stack.take().filter(|stack| !stack.is_empty()) {
            Some(stack) => self.site_of(&stack.join("\n"), || {
                stack.iter().map(|text| caller(text)).collect()
            }),
            None => self.site_of(&place, || vec![caller(&place)]),
        };
        let is_early = self.live.contains_key(&address);
        let live = Live {
            bytes,
            site,
            is_early,
        };
        if self.live.len() < MAX_LIVE || self.live.contains_key(&address) {
            self.live.insert(address, live);
        } else {
            self.dropped += 1;
        }
        if let Some(history) = self.history(address, wanted) {
            history.allocated = Some(live);
            (history.freed, history.freed_again) = (None, None);
        }
    }

    fn history(&mut self, address: u64, wanted: &Wanted) -> Option<&mut History> {
        if !wanted.has(address) {
            return None;
        }
        if self.histories.len() >= MAX_HISTORIES && !self.histories.contains_key(&address) {
            self.dropped += 1;
            return None;
        }
        Some(self.histories.entry(address).or_default())
    }

    fn site_of(&mut self, name: &str, frames: impl FnOnce() -> Vec<Frame>) -> u32 {
        let known = self.names.get(name).copied();
        let site = known.unwrap_or_else(|| {
            if self.sites.len() >= MAX_SITES {
                self.dropped += 1;
                return u32::MAX;
            }
            let site = u32::try_from(self.sites.len()).unwrap_or(u32::MAX);
            self.names.insert(name.to_owned(), site);
            self.sites.push(Site {
                frames: frames(),
                calls: 0,
            });
            site
        });
        if let Some(site) = self.sites.get_mut(site as usize) {
            site.calls += 1;
        }
        site
    }
}

/// Whether a text goes on where a log ends: what the log's last line lacks is a call's, or the log is empty or ends with a line. `end` is the
/// log's end from its last line end on.
pub fn goes_on(end: &[u8], text: &[u8]) -> bool {
    let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = [end, first].concat();
    let line = String::from_utf8_lossy(&line);
    let line = line.trim();
    let is_call = |rest| split_event(rest).is_some_and(|(_, event)| event_of(event).is_some());
    let is_one = line.matches("@ ").count() == 1;
    (is_one && line.strip_prefix("@ ").is_some_and(is_call))
        || line == "= Start"
        || line.starts_with("**")
}

/// Whether all whole lines of a text but the first, which may begin in the middle, are a trace's, and there are some.
pub fn is_trace_text(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    let mut lines: Vec<&str> = text.split('\n').skip(1).collect();
    lines.pop();
    let is_one = |line: &&str| {
        line.strip_prefix("@ ")
            .and_then(split_event)
            .is_some_and(|(_, event)| event_of(event).is_some())
    };
    let cut = text.split('\n').next().unwrap_or_default();
    // A single line that was begun and ended here.
    let single = lines.is_empty()
        && text.ends_with('\n')
        && [" + 0x", " - 0x", " < 0x", " > 0x", "] "]
            .iter()
            .any(|part| cut.contains(part));
    single || (!lines.is_empty() && lines.iter().all(is_one))
}

#[cfg(test)]
mod tests {
    use super::super::{Wanted, trace};
    use super::*;

    fn sites(trace: &Trace, sites: &[u32]) -> Vec<String> {
        let name = |site: &u32| trace.site(*site)?.frames.first()?.module_offset.clone();
        sites.iter().filter_map(name).collect()
    }

    #[test]
    fn both_frees_and_the_allocation_before_them() {
        let log = "= Start\n\
            @ ./a:[0x10] + 0x1000 0x20\n@ ./a:[0x11] + 0x2000 0x20\n\
            @ ./a:[0x12] - 0x1000\n@ ./a:[0x13] - 0x2000\n@ ./a:[0x14] - 0x1000\n\
            @ ./a:[0x15] + 0x1000 0x18\n@ ./a:[0x16] < 0x1000\n@ ./a:[0x16] > 0x1040 0x80\n@ ./a:[0x17] - 0x104";
        let found = trace(
            log.as_bytes(),
            &Wanted::new(std::iter::once(0x1000..0x1020)),
        )
        .unwrap();
        assert_eq!(found.events, 8, "the line that was cut is none");
        assert_eq!(found.live.len(), 1);
        let history = found.histories[&0x1000];
        assert_eq!(found.histories.len(), 1);
        let (allocated, first, second) = history.twice.unwrap();
        let pair = [allocated.unwrap().site, first, second];
        assert_eq!(sites(&found, &pair), ["0x10", "0x12", "0x14"]);
        let last = [history.allocated.unwrap().site, history.freed.unwrap()];
        assert_eq!(sites(&found, &last), ["0x15", "0x16"]);
        assert_eq!(history.freed_again, None);
    }

    #[test]
    fn stacks_of_libmtrace_and_lines_that_come_late() {
        let log = "= Start\n@ /usr/lib/x.so:[0x10] + 0x1000 0x20\n**[ Stack: 2\n/usr/lib/x.so(make+0x3)[0x7f0000001003]\n./a(main+0x9)[0x55000009]\n**] Stack\n\
            @ ./a:[0x11] + 0x2000 0x20\n@ ./a:[0x12] + 0x2000 0x30\n@ ./a:[0x13] - 0x2000\n";
        let found = trace(log.as_bytes(), &Wanted::default()).unwrap();
        let live = found.live[&0x1000];
        let frames = &found.site(live.site).unwrap().frames;
        let names: Vec<&str> = frames
            .iter()
            .filter_map(|frame| frame.function.as_deref())
            .collect();
        assert_eq!(names, ["make", "main"]);
        // The free of another thread was noted after the block was handed out again.
        assert_eq!(found.live[&0x2000].bytes, 0x30);
    }

    #[test]
    fn a_text_goes_on_where_the_log_ends() {
        assert!(goes_on(b"@ ./a:[0x1", b"1] + 0x55 0x20\n@ ./a"));
        assert!(goes_on(b"", b"= Start\n@ ./a:[0x12] - 0x55\n"));
        assert!(!goes_on(b"@ ./a:[0x12] - 0x5", b"@ ./a:[0x12] - 0x55\n"));
        assert!(!goes_on(b"int main() {", b"1] + 0x55 0x20\n"));
        assert!(!goes_on(b"", b"1] + 0x55 0x20\n"));
    }

    #[test]
    fn what_is_not_yet_written_is_told_from_other_text() {
        assert!(is_trace_text(
            b"0x11b3] + 0x55 0x20\n@ ./a:[0x12] - 0x55\n@ ./a:[0x"
        ));
        assert!(is_trace_text(b"./a:[0x12] - 0x55\n"));
        assert!(!is_trace_text(b"hello\nworld\n"));
        assert!(!is_trace_text(b"hello"));
        assert!(!is_trace_text(b""));
    }

    #[test]
    fn ranges_that_touch_are_one() {
        let wanted = Wanted::new(vec![5..7, 1..3, 2..4, 9..9]);
        let has: Vec<u64> = (0..10).filter(|at| wanted.has(*at)).collect();
        assert_eq!(has, [1, 2, 3, 5, 6]);
    }
}
