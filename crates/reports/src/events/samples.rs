//! Stacks with sums: heap profiles, memleak, gperftools' heap checker.

use std::io::{self, BufRead};

use crate::import::{self, Options, Summary};
use crate::record::{Record, Role, Stack};
use crate::text;

/// Most stacks that are kept.
const MAX_SAMPLES: usize = 200_000;
/// Most addresses of blocks that are kept.
const MAX_BLOCKS: usize = 1 << 20;

/// A stack and what is in use of it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where the blocks were allocated.
    pub stack: Stack,
    /// Bytes that were asked for, scaled where the profile is a sample.
    pub bytes: u64,
    /// Blocks.
    pub blocks: u64,
}

/// What a profile tells.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// The tool that wrote it.
    pub tool: String,
    /// Its stacks.
    pub samples: Vec<Sample>,
    /// Blocks with an address: the address, the bytes asked for.
    pub blocks: Vec<(u64, u64)>,
    /// What is beyond the bounds.
    pub dropped: u64,
}

/// Reads all stacks with sums that `import` would find; of several profiles in one file the last counts.
///
/// # Errors
/// What reading the stream gives.
pub fn samples(reader: impl BufRead, file: &str) -> io::Result<Samples> {
    let mut found = Samples::default();
    let mut blocks = Vec::new();
    let mut time = None;
    let watched = Watched {
        reader,
        line: Vec::new(),
        blocks: &mut blocks,
    };
    import::import(
        watched,
        file,
        &Options::default(),
        &mut Summary::default(),
        &mut |record: Record| {
            if !matches!(
                record.tool.as_str(),
                "tcmalloc" | "jemalloc" | "memleak" | "gperftools"
            ) {
                return Ok(());
            }
            if record.time != time {
                time.clone_from(&record.time); // memleak prints all again every few seconds
                found.samples.clear();
            }
            let (bytes, count) = (record.bytes.unwrap_or(0), record.blocks.unwrap_or(0));
            found.tool.clone_from(&record.tool);
            let stacks = record.stacks.into_iter();
            let mut stacks = stacks.filter(|stack| stack.role == Role::Allocation);
            match stacks.next() {
                Some(stack) if found.samples.len() < MAX_SAMPLES => found.samples.push(Sample {
                    stack,
                    bytes,
                    blocks: count,
                }),
                Some(_) => found.dropped += 1,
                None => {}
            }
            Ok(())
        },
    )?;
    found.dropped += u64::from(blocks.len() >= MAX_BLOCKS);
    found.blocks = blocks;
    Ok(found)
}

/// A stream whose lines `addr = 560cdc84a080 size = 29` are noted as they pass; a new heading begins anew.
struct Watched<'b, R> {
    reader: R,
    line: Vec<u8>,
    blocks: &'b mut Vec<(u64, u64)>,
}

impl<R> Watched<'_, R> {
    fn watch(&mut self, bytes: &[u8]) {
        const MOST: usize = 128;
        for &byte in bytes {
            if byte == b'\n' {
                let line = String::from_utf8_lossy(&self.line);
                let line = line.trim();
                if line.contains(" stacks with outstanding allocations") {
                    self.blocks.clear();
                } else if let Some((address, size)) = line
                    .strip_prefix("addr = ")
                    .and_then(|rest| rest.split_once(" size = "))
                    && let (Some(address), Some(size)) =
                        (text::hexadecimal_value(address), text::number(size))
                    && self.blocks.len() < MAX_BLOCKS
                {
                    self.blocks.push((address, size));
                }
                self.line.clear();
            } else if self.line.len() < MOST {
                self.line.push(byte);
            }
        }
    }
}

impl<R: BufRead> io::Read for Watched<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(into.len());
        into[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Watched<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        let bytes = match self.reader.fill_buf() {
            Ok(available) => available.get(..count).unwrap_or(available).to_vec(),
            Err(_) => Vec::new(),
        };
        self.watch(&bytes);
        self.reader.consume(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memleak_prints_blocks_and_stacks_and_the_last_time_counts() {
        let once = "[12:00:00] Top 10 stacks with outstanding allocations:\n\
            \taddr = 560cdc84a080 size = 29\n\t29 bytes in 1 allocations from stack\n\
            \t\t0x000055d0c0de1234\tmake+0x12 [a]\n";
        let log = format!("{once}{}", once.replace("12:00:00", "12:00:05"));
        let found = samples(log.as_bytes(), "log").unwrap();
        assert_eq!(found.blocks, [(0x560c_dc84_a080, 29)]);
        assert_eq!((found.samples.len(), found.samples[0].bytes), (1, 29));
        let address = found.samples[0].stack.frames[0].address.as_deref();
        assert_eq!(address, Some("0x55d0c0de1234"));
    }
}
