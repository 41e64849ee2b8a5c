//! LeakSanitizer: one report holds many leaks. Indirect leaks are folded into the direct ones.

use super::{Heading, Open};
use crate::import::Out;
use crate::kind::Kind;
use crate::record::{Record, Role};
use crate::text;

/// Most leaks of one report that are held until it ends; LeakSanitizer itself prints at most 5,000.
const MAX_HELD: usize = 10_000;

/// The leaks of one report.
#[derive(Default)]
pub(super) struct Leaks {
    open: Option<Report>,
}

struct Report {
    pid: Option<u64>,
    process: Option<String>,
    prefix: String,
    direct: Vec<Record>,
    indirect: Vec<Record>,
}

/// The record of `Direct leak of N byte(s) in M object(s) allocated from:`.
pub(super) fn leak(line: &str, out: &mut Out<'_>, number: u64) -> Option<Record> {
    let direct = line.starts_with("Direct leak of ");
    if !direct && !line.starts_with("Indirect leak of ") {
        return None;
    }
    let bytes = text::number_after(line, " leak of ");
    let blocks = text::number_after(line, " byte(s) in ");
    let (Some(bytes), Some(blocks)) = (bytes, blocks) else {
        out.failure(number, "a leak without bytes or objects");
        return None;
    };
    let mut record = Record::new(
        "lsan",
        Kind::MemoryLeak,
        if direct {
            "direct-leak"
        } else {
            "indirect-leak"
        },
    );
    record.message = text::cut(line.trim_end_matches(':'), 200).to_owned();
    if direct {
        record.bytes = Some(bytes);
        record.blocks = Some(blocks);
    } else {
        record.indirect_bytes = Some(bytes);
    }
    Some(record)
}

impl Leaks {
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub fn prefix(&self) -> &str {
        self.open.as_ref().map_or("", |report| &report.prefix)
    }

    pub fn begin(&mut self, heading: &Heading<'_>) {
        self.open = Some(Report {
            pid: heading.pid,
            process: heading.process.map(str::to_owned),
            prefix: heading.prefix.to_owned(),
            direct: Vec::new(),
            indirect: Vec::new(),
        });
    }

    /// A leak of the open report begins.
    pub fn leak(&self, mut record: Record, line: u64) -> Open {
        if let Some(report) = &self.open {
            record.pid = report.pid;
            record.process.clone_from(&report.process);
        }
        Open::new(record, line, self.prefix())
    }

    /// True of a line between leaks that is the report's.
    pub fn line(&self, text: &str, out: &mut Out<'_>) -> bool {
        if !self.is_open() {
            return false;
        }
        if text.starts_with("Omitting ") || text.starts_with("Too many leaks") {
            out.note(text);
        }
        text.starts_with("Objects leaked above:")
            || text.starts_with("0x")
            || text.starts_with("Omitting ")
    }

    /// A leak is complete.
    pub fn push(&mut self, record: Record, out: &mut Out<'_>) {
        let Some(report) = &mut self.open else {
            out.record(record);
            return;
        };
        let held = if record.bytes.is_some() {
            &mut report.direct
        } else {
            &mut report.indirect
        };
        if held.len() < MAX_HELD {
            held.push(record);
        } else {
            out.record(record);
        }
    }

    /// The report is complete: an indirect leak's bytes go to the direct leak whose stack is most like its own.
    pub fn close(&mut self, out: &mut Out<'_>) {
        let Some(Report {
            mut direct,
            indirect,
            ..
        }) = self.open.take()
        else {
            return;
        };
        // So many pairs are not worth an answer: the bytes then go to the first.
        let compare = direct.len().saturating_mul(indirect.len()) <= 4_000_000;
        for leak in indirect {
            let best = (0..if compare {
                direct.len()
            } else {
                direct.len().min(1)
            })
                .max_by_key(|&at| (common_callers(&direct[at], &leak), std::cmp::Reverse(at)));
            match best {
                Some(at) => {
                    let bytes = direct[at].indirect_bytes.unwrap_or(0);
                    direct[at].indirect_bytes =
                        Some(bytes.saturating_add(leak.indirect_bytes.unwrap_or(0)));
                    out.folded(1);
                }
                None => out.record(leak),
            }
        }
        for leak in direct {
            out.record(leak);
        }
    }
}

/// How many frames two allocations have in common, from the outermost in.
fn common_callers(a: &Record, b: &Record) -> usize {
    let (Some(a), Some(b)) = (a.stack(Role::Allocation), b.stack(Role::Allocation)) else {
        return 0;
    };
    let same = |pair: &(&crate::record::Frame, &crate::record::Frame)| {
        pair.0.function == pair.1.function
            && pair.0.file == pair.1.file
            && pair.0.module_offset == pair.1.module_offset
    };
    a.frames
        .iter()
        .rev()
        .zip(b.frames.iter().rev())
        .take_while(same)
        .count()
}
