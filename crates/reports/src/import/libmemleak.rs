//! The two libraries of that name: `backtrace 50 …` with dumps of stacks, and totals by stack key.

use std::collections::BTreeMap;

use super::{Format, Line, MAX_FRAMES, Out, frames};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

/// Most stacks of one log.
const MAX_SITES: usize = 100_000;

/// Reads both libraries' reports.
#[derive(Default)]
pub(super) struct Libmemleak {
    process: Option<String>,
    sites: BTreeMap<String, Site>,
    /// The stack whose frames come next.
    current: Option<String>,
}

#[derive(Default)]
struct Site {
    line: u64,
    /// Bytes and blocks of each interval of time.
    intervals: BTreeMap<(u64, u64), (u64, u64)>,
    bytes: u64,
    blocks: u64,
    frames: Vec<Frame>,
}

impl Format for Libmemleak {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.trim();
        if let Some((process, rest)) = text.split_once(": Now: ")
            && rest.contains("Backtraces: ")
        {
            // Each report repeats what is outstanding: the last one counts.
            self.process = Some(text::cut(process, 200).to_owned());
            self.sites
                .values_mut()
                .for_each(|site| site.intervals.clear());
            return true;
        }
        if let Some(rest) = text.strip_prefix("backtrace ")
            && rest.contains(" allocations (")
        {
            return self.interval(rest, line.piece.number, out);
        }
        if let Some((_, number)) = text.split_once("> dump ") {
            self.current = text::number(number).map(|number| number.to_string());
            return self.current.is_some();
        }
        if text.starts_with("// Crosstalk") || text.starts_with("// Mem Address") {
            self.current = None;
            return true;
        }
        if let Some((key, rest)) = text.split_once(": ")
            && let Some((bytes, rest)) = text::leading_number(rest)
            && let Some(rest) = rest.strip_prefix(" bytes in ")
            && rest.trim_end().ends_with("allocations")
            && key.len() <= 16
            && key.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            if let Some(site) = self.site(key, line.piece.number) {
                (site.bytes, site.blocks) = (
                    bytes,
                    text::leading_number(rest).map_or(0, |(blocks, _)| blocks),
                );
                site.frames.clear();
            }
            self.current = Some(key.to_owned());
            return true;
        }
        let Some(current) = &self.current else {
            return false;
        };
        let Some(frame) = dumped(text).or_else(|| listed(text)) else {
            return false;
        };
        let current = current.clone();
        if let Some(site) = self.site(&current, line.piece.number)
            && site.frames.len() < MAX_FRAMES
        {
            site.frames.push(frame);
        }
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        for (key, site) in std::mem::take(&mut self.sites) {
            let (mut bytes, mut blocks) = (site.bytes, site.blocks);
            for (more, count) in site.intervals.values() {
                (bytes, blocks) = (bytes.saturating_add(*more), blocks.saturating_add(*count));
            }
            if blocks == 0 {
                continue;
            }
            let mut record = Record::new("libmemleak", Kind::MemoryLeak, "outstanding");
            record.message =
                format!("{bytes} bytes in {blocks} allocations outstanding, stack {key}");
            (record.bytes, record.blocks) = (Some(bytes), Some(blocks));
            record.process.clone_from(&self.process);
            record.source = Source::at(site.line);
            record.stacks.push(Stack {
                role: Role::Allocation,
                thread: None,
                frames: site.frames,
            });
            out.record(record);
        }
        *self = Self::default();
    }
}

impl Libmemleak {
    /// `50 (value_n: 104636.00); [ 178, 238>(  60): 25957 allocations (1375222 total,  1.9%), size 3311982; …`.
    fn interval(&mut self, rest: &str, line: u64, out: &mut Out<'_>) -> bool {
        let read = || {
            let (number, rest) = text::leading_number(rest)?;
            let (from, to) = text::between(rest, "[", ">")?.split_once(',')?;
            let (_, rest) = rest
                .split_once("): ")
                .filter(|(_, rest)| !rest.starts_with('['))?;
            let rest = rest.split_once("): ").map_or(rest, |(_, rest)| rest);
            let (blocks, _) = text::leading_number(rest.trim_start())?;
            Some((
                number.to_string(),
                (text::number(from)?, text::number(to)?),
                blocks,
                text::number_after(rest, "size ")?,
            ))
        };
        let Some((key, interval, blocks, bytes)) = read() else {
            out.failure(line, "a backtrace without interval, allocations or size");
            return true;
        };
        if let Some(site) = self.site(&key, line)
            && site.intervals.len() < 4096
        {
            site.intervals.insert(interval, (bytes, blocks));
        }
        true
    }

    fn site(&mut self, key: &str, line: u64) -> Option<&mut Site> {
        if self.sites.len() >= MAX_SITES && !self.sites.contains_key(key) {
            return None;
        }
        Some(self.sites.entry(key.to_owned()).or_insert_with(|| Site {
            line,
            ..Site::default()
        }))
    }
}

/// ` #0  00007f84b862d33b  in malloc at src/memleak.c:1008`.
fn dumped(text: &str) -> Option<Frame> {
    let (_, rest) = text::leading_number(text.strip_prefix('#')?)?;
    let (address, rest) = rest.trim_start().split_once(' ')?;
    let mut frame = Frame {
        address: Some(text::address(address)?),
        ..Frame::default()
    };
    let rest = rest.trim_start().strip_prefix("in ")?;
    let (function, place) = rest.rsplit_once(" at ").unwrap_or((rest, ""));
    frames::set_function(&mut frame, function);
    frames::set_location(&mut frame, place);
    Some(frame)
}

/// `[0x8048e3b] ?? (binaries/bin/x+0x323) in /src/x.cpp:68`.
fn listed(text: &str) -> Option<Frame> {
    let (address, rest) = text.strip_prefix("[0x")?.split_once(']')?;
    let mut frame = Frame {
        address: Some(text::address(address)?),
        ..Frame::default()
    };
    let (rest, place) = rest.rsplit_once(" in ").unwrap_or((rest, ""));
    frames::set_location(&mut frame, place);
    if frame.file.as_deref() == Some("crtstuff.c") {
        (frame.file, frame.line) = (None, None); // what is said of code without lines
    }
    let (function, module) = rest.rsplit_once(" (").unwrap_or((rest, ""));
    frames::set_function(&mut frame, function);
    let (path, offset) = module
        .trim_end_matches(')')
        .rsplit_once('+')
        .unwrap_or((module, ""));
    if !path.is_empty() && !path.ends_with('/') {
        Record::set_module(&mut frame, path);
        frame.module_offset = text::address(offset);
    }
    Some(frame)
}
