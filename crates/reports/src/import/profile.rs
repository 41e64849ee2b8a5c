//! Heap profiles of gperftools (`heap profile: …`) and jemalloc (`heap_v2/…`): addresses of sites, then the map that names them.

use super::{Format, Line, MAX_FRAMES, Out};
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Source, Stack};
use crate::text;

/// Most sites of one profile.
const MAX_SITES: usize = 200_000;
/// Most mappings of one profile.
const MAX_MAPPINGS: usize = 65_536;
/// Most addresses of one site.
const MAX_DEPTH: usize = 128;

/// Reads heap profiles.
#[derive(Default)]
pub(super) struct Profile {
    open: Option<Open>,
}

struct Open {
    tool: &'static str,
    /// Mean bytes between samples; 0 where every allocation counts.
    period: u64,
    mapped: bool,
    sites: Vec<Site>,
    /// jemalloc's addresses of the site whose figures come next.
    pending: Option<(u64, Vec<u64>)>,
    mappings: Vec<Mapping>,
}

struct Site {
    line: u64,
    blocks: u64,
    bytes: u64,
    addresses: Vec<u64>,
}

struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    path: String,
}

impl Format for Profile {
    fn line(&mut self, line: &Line<'_>, out: &mut Out<'_>) -> bool {
        let text = line.text.trim_end();
        if let Some((tool, period)) = heading(text) {
            self.end(out);
            self.open = Some(Open {
                tool,
                period,
                mapped: false,
                sites: Vec::new(),
                pending: None,
                mappings: Vec::new(),
            });
            return true;
        }
        let Some(open) = &mut self.open else {
            return false;
        };
        if text.trim() == "MAPPED_LIBRARIES:" {
            open.mapped = true;
            return true;
        }
        if open.mapped {
            return open.mapping(text) || text.is_empty();
        }
        if open.tool == "jemalloc" {
            return open.jemalloc(text, line.piece.number, out);
        }
        let Some((figures, addresses)) = text.split_once(" @") else {
            return text.is_empty();
        };
        let Some((blocks, bytes)) = figures.split_once('[').and_then(|(live, _)| pair(live)) else {
            return false;
        };
        open.site(
            line.piece.number,
            blocks,
            bytes,
            read_addresses(addresses),
            out,
        );
        true
    }

    fn end(&mut self, out: &mut Out<'_>) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        open.mappings.sort_by_key(|mapping| mapping.start);
        let bases = bases(&open.mappings);
        for site in std::mem::take(&mut open.sites) {
            out.record(open.record(&site, &bases));
        }
    }
}

/// The tool and sampling period of a profile's first line.
fn heading(text: &str) -> Option<(&'static str, u64)> {
    if let Some(period) = text.strip_prefix("heap_v2/") {
        return Some(("jemalloc", text::number(period)?));
    }
    let rest = text.strip_prefix("heap profile:")?;
    let (_, kind) = rest.rsplit_once('@')?;
    let period = kind
        .trim()
        .strip_prefix("heap_v2/")
        .and_then(text::number)
        .unwrap_or(0);
    Some(("tcmalloc", period))
}

/// `8: 800` as blocks and bytes.
fn pair(text: &str) -> Option<(u64, u64)> {
    let (blocks, bytes) = text.split_once(':')?;
    Some((text::number(blocks)?, text::number(bytes)?))
}

fn read_addresses(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .take(MAX_DEPTH)
        .map_while(text::hexadecimal_value)
        .collect()
}

/// The lowest address of each module, by its path.
fn bases(mappings: &[Mapping]) -> std::collections::BTreeMap<&str, u64> {
    let mut bases = std::collections::BTreeMap::new();
    for mapping in mappings {
        if let Some(base) = mapping.start.checked_sub(mapping.offset) {
            bases.entry(mapping.path.as_str()).or_insert(base);
        }
    }
    bases
}

impl Open {
    fn jemalloc(&mut self, text: &str, number: u64, out: &mut Out<'_>) -> bool {
        if let Some(addresses) = text.strip_prefix('@') {
            self.pending = Some((number, read_addresses(addresses)));
            return true;
        }
        let text = text.trim_start();
        if let Some(figures) = text.strip_prefix("t*:") {
            if let Some((line, addresses)) = self.pending.take()
                && let Some((blocks, bytes)) = figures.split('[').next().and_then(pair)
            {
                self.site(line, blocks, bytes, addresses, out);
            }
            return true;
        }
        text.is_empty() || text.starts_with('t')
    }

    fn site(&mut self, line: u64, blocks: u64, bytes: u64, addresses: Vec<u64>, out: &mut Out<'_>) {
        if blocks == 0 && bytes == 0 {
            return; // nothing is left of what was allocated here
        }
        if self.sites.len() >= MAX_SITES {
            out.failure(line, "too many sites in one profile");
            return;
        }
        let (blocks, bytes) = unsampled(blocks, bytes, self.period);
        self.sites.push(Site {
            line,
            blocks,
            bytes,
            addresses,
        });
    }

    /// `start-end rwxp offset dev inode path`.
    fn mapping(&mut self, text: &str) -> bool {
        let mut words = text.split_whitespace();
        let range = words.next().and_then(|range| range.split_once('-'));
        let Some((start, end)) = range.and_then(|(start, end)| {
            Some((
                text::hexadecimal_value(start)?,
                text::hexadecimal_value(end)?,
            ))
        }) else {
            return false;
        };
        let offset = words.nth(1).and_then(text::hexadecimal_value);
        let path = text
            .find('/')
            .or_else(|| text.rfind('['))
            .map(|at| &text[at..]);
        if let (Some(offset), Some(path)) = (offset, path)
            && self.mappings.len() < MAX_MAPPINGS
        {
            self.mappings.push(Mapping {
                start,
                end,
                offset,
                path: text::cut(path, 1024).to_owned(),
            });
        }
        true
    }

    fn record(&self, site: &Site, bases: &std::collections::BTreeMap<&str, u64>) -> Record {
        let frames = site.addresses.iter().take(MAX_FRAMES).map(|&address| {
            let mut frame = Frame {
                address: Some(text::address_of(address)),
                ..Frame::default()
            };
            // A return address may lie just behind its function: the call is before it.
            let call = address.saturating_sub(1);
            let at = self
                .mappings
                .partition_point(|mapping| mapping.start <= call);
            if let Some(mapping) = at
                .checked_sub(1)
                .and_then(|at| self.mappings.get(at))
                .filter(|mapping| call < mapping.end)
            {
                Record::set_module(&mut frame, &mapping.path);
                frame.module_offset = bases
                    .get(mapping.path.as_str())
                    .and_then(|base| address.checked_sub(*base))
                    .map(text::address_of);
            }
            frame
        });
        let mut record = Record::new(self.tool, Kind::LiveMemory, "heap-profile");
        record.message = format!("{} bytes in {} blocks in use", site.bytes, site.blocks);
        (record.bytes, record.blocks) = (Some(site.bytes), Some(site.blocks));
        record.source = Source::at(site.line);
        record.stacks.push(Stack {
            role: Role::Allocation,
            thread: None,
            frames: frames.collect(),
        });
        record
    }
}

/// What samples of a mean size stand for: a block is sampled with probability 1 − e^(−size/period).
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
fn unsampled(blocks: u64, bytes: u64, period: u64) -> (u64, u64) {
    if period <= 1 || blocks == 0 {
        return (blocks, bytes);
    }
    let share = 1.0 - (-(bytes as f64 / blocks as f64) / period as f64).exp();
    if share <= 0.0 {
        return (blocks, bytes);
    }
    (
        (blocks as f64 / share).round() as u64,
        (bytes as f64 / share).round() as u64,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_scaled() {
        assert_eq!(unsampled(4, 448, 1), (4, 448));
        let (blocks, bytes) = unsampled(1, 100, 524_288);
        assert!((5200..5300).contains(&blocks) && (520_000..530_000).contains(&bytes));
        assert_eq!(
            heading("heap profile:   8:  800 [  8:  800] @ heap_v2/524288"),
            Some(("tcmalloc", 524_288))
        );
        assert_eq!(
            heading("heap profile:   8:  800 [  8:  800] @ heapprofile"),
            Some(("tcmalloc", 0))
        );
    }
}
