//! Logs of one run, read to be joined with that run's core: who allocated a block, who freed it.
//!
//! A trace (glibc's mtrace, libmtrace) has every call: what is live at its end, and the last calls of the addresses that somebody asks about.
//! Samples (heap profiles, memleak) have stacks with sums; addresses of blocks only where memleak was told to print them.
//!
//! Memory goes by live blocks, sites and the addresses that are asked about, not by the length of the log.

mod samples;
mod trace;

use std::io::{self, BufRead};
use std::ops::Range;

pub use samples::{Sample, Samples, samples};
pub use trace::{History, Live, Site, Trace, goes_on, is_trace_text};

use crate::import::lines::Lines;

/// Addresses whose whole history is wanted: ranges that do not overlap, sorted.
#[derive(Clone, Debug, Default)]
pub struct Wanted(Vec<Range<u64>>);

impl Wanted {
    /// Of ranges in any order.
    pub fn new(ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut ranges: Vec<Range<u64>> = ranges.into_iter().collect();
        ranges.retain(|range| !range.is_empty());
        ranges.sort_by_key(|range| range.start);
        let mut joined: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            match joined.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => joined.push(range),
            }
        }
        Self(joined)
    }

    /// Whether an address is one of them.
    pub fn has(&self, address: u64) -> bool {
        let after = self.0.partition_point(|range| range.start <= address);
        after
            .checked_sub(1)
            .and_then(|at| self.0.get(at))
            .is_some_and(|range| address < range.end)
    }
}

/// Reads a trace; one without events if the stream is none. A last line without an end is not read: it was cut.
///
/// # Errors
/// What reading the stream gives.
pub fn trace(mut reader: impl BufRead, wanted: &Wanted) -> io::Result<Trace> {
    let mut trace = Trace::default();
    let mut lines = Lines::new(&mut reader);
    let mut buffer = Vec::new();
    while let Some(piece) = lines.next(&mut buffer)? {
        if piece.first && piece.last && lines.is_whole() {
            trace.line(&String::from_utf8_lossy(&buffer), wanted);
        }
        trace.is_cut = !lines.is_whole();
    }
    trace.end(wanted);
    Ok(trace)
}
