//! The fourth witness: a log of the same run (`--events`), joined with the core. A trace has the caller of every allocation and free; a
//! profile has stacks with sums.
//!
//! ```text
//! LOG + what the process had not written yet ──> reports::events ──belongs──> callers of blocks, as run-time addresses
//! ```
//!
//! A log of another run says false things of every block, so it is refused.

mod belongs;
mod places;
mod unwritten;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use ground::target::Address;
use reports::events::{History, Live, Samples, Trace, Wanted, samples, trace};

use crate::analysis::Analysis;
use postmortem::session::{Limit, Session};

/// Why a log is not joined.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// It cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The log.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It has no calls and no stacks.
    #[error(
        "{}: no log of allocations: mtrace, libmtrace, memleak, and heap profiles of gperftools and jemalloc can be joined with a core",
        path.display()
    )]
    Unknown {
        /// The log.
        path: PathBuf,
    },
    /// It is of another run.
    #[error("{}: the log and the core do not belong together: {why}", path.display())]
    Foreign {
        /// The log.
        path: PathBuf,
        /// What contradicts.
        why: String,
    },
}

/// A log that belongs to the core.
#[derive(Debug)]
pub struct Events {
    /// The log as it was named.
    pub source: String,
    /// The tool that wrote it.
    pub tool: String,
    /// Calls, or stacks.
    pub records: u64,
    /// Records that could be compared with the core.
    pub compared: u64,
    /// Of these, those that the core denies.
    pub contradicting: u64,
    /// Bytes of the log that the process had not written yet: they come from the core.
    pub unwritten: u64,
    /// What was not read or cannot be told.
    pub limits: Vec<Limit>,
    log: Log,
    /// Run-time addresses of each site or sample, innermost first.
    stacks: Vec<Vec<Address>>,
}

#[derive(Debug)]
enum Log {
    Trace(Trace),
    Samples(Samples),
}

/// Who called for a block: stacks, innermost first; empty where the log does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// The allocation.
    pub allocated: Vec<Address>,
    /// The free behind it.
    pub freed: Vec<Address>,
    /// A second free, with no allocation between.
    pub freed_again: Vec<Address>,
}

/// The block that is asked about.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The pointer that the program knows.
    pub block: Address,
    /// Its usable bytes.
    pub bytes: u64,
    /// The address of interest, mostly the block's.
    pub at: Address,
    /// The block was freed twice, perhaps before it was handed out again.
    pub is_freed_twice: bool,
}

/// Reads a log and holds it against the core. `wanted`: addresses whose last calls are asked for.
///
/// # Errors
/// If it cannot be read, is no such log, or is of another run.
pub fn join(
    session: &Session,
    analysis: &Analysis<'_>,
    path: &Path,
    wanted: impl IntoIterator<Item = Range<Address>>,
) -> Result<Events, EventsError> {
    let wanted = wanted.into_iter();
    let wanted = Wanted::new(wanted.map(|at| at.start.get()..at.end.get()));
    let unreadable = |source| EventsError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let (log, unwritten) = read(session, path, &wanted).map_err(unreadable)?;
    let foreign = |why| EventsError::Foreign {
        path: path.to_owned(),
        why,
    };
    let places = places::Places::new(session);
    let (tool, records, verdict, stacks, dropped) = match &log {
        Log::Trace(found) if found.events > 0 => {
            let stacks = found.sites.iter().map(|site| places.stack(&site.frames));
            (
                "mtrace".to_owned(),
                found.events,
                belongs::trace(analysis, session, found, &places).map_err(foreign)?,
                stacks.collect::<Vec<_>>(),
                found.dropped,
            )
        }
        Log::Samples(found) if !found.samples.is_empty() => {
            let stacks = found.samples.iter();
            let stacks = stacks.map(|sample| places.stack(&sample.stack.frames));
            (
                found.tool.clone(),
                found.samples.len() as u64,
                belongs::samples(analysis, session, found, &places).map_err(foreign)?,
                stacks.collect(),
                found.dropped,
            )
        }
        _ => {
            return Err(EventsError::Unknown {
                path: path.to_owned(),
            });
        }
    };
    let mut limits = Vec::new();
    if dropped > 0 {
        limits.push(Limit {
            what: format!("{dropped} records of {}", path.display()),
            why: "there are more blocks or sites than are kept".into(),
            incomplete: false,
        });
    }
    Ok(Events {
        source: path.display().to_string(),
        tool,
        records,
        compared: verdict.compared,
        contradicting: verdict.contradicting,
        unwritten,
        limits,
        log,
        stacks,
    })
}

/// The log, and how many bytes of it came from the core.
fn read(session: &Session, path: &Path, wanted: &Wanted) -> io::Result<(Log, u64)> {
    let open = || File::open(path).map(|file| BufReader::with_capacity(1 << 18, file));
    let (written, rest) = unwritten::find(session, &mut open()?)?;
    let reader: Box<dyn BufRead> = match written {
        Some(bytes) => Box::new(open()?.take(bytes)),
        None => Box::new(open()?.chain(rest.as_slice())),
    };
    let found = trace(reader, wanted)?;
    if found.events > 0 {
        return Ok((Log::Trace(found), rest.len() as u64));
    }
    let mut file = open()?;
    file.seek(SeekFrom::Start(0))?;
    let found = samples(file, &path.display().to_string())?;
    Ok((Log::Samples(found), 0))
}

impl Events {
    /// Whether every call is in the log; else it has stacks with sums.
    pub fn is_trace(&self) -> bool {
        matches!(self.log, Log::Trace(_))
    }

    /// Who allocated the block in use at this address: a number for the site. [`stack`](Self::stack) has its addresses.
    pub fn allocation(&self, block: Address) -> Option<u32> {
        match &self.log {
            Log::Trace(found) => Some(found.live.get(&block.get())?.site),
            Log::Samples(_) => None,
        }
    }

    /// The addresses of a site.
    pub fn stack(&self, site: u32) -> &[Address] {
        let found = self.stacks.get(site as usize);
        found.map_or(&[], Vec::as_slice)
    }

    /// The last calls for a block that was among those wanted.
    pub fn calls(&self, asked: Asked) -> Calls {
        let Log::Trace(found) = &self.log else {
            return Calls::default();
        };
        let stack =
            |site: Option<u32>| site.map_or_else(Vec::new, |site| self.stack(site).to_vec());
        let of = |at: Address| found.histories.get(&at.get()).copied();
        let own = of(asked.block).or_else(|| inside(found, asked));
        let at = of(asked.at).filter(|_| asked.at != asked.block);
        if asked.is_freed_twice
            && let Some(history) = at.or(own).filter(|it| it.freed_again.is_none())
            && let Some((allocated, freed, again)) = history.twice
        {
            return Calls {
                allocated: stack(allocated.map(|live: Live| live.site)),
                freed: stack(Some(freed)),
                freed_again: stack(Some(again)),
            };
        }
        let own = own.unwrap_or_default();
        let frees = at.filter(|at| at.freed.is_some()).unwrap_or(own);
        Calls {
            allocated: stack(own.allocated.or(frees.allocated).map(|live| live.site)),
            freed: stack(frees.freed),
            freed_again: stack(frees.freed_again),
        }
    }

    /// The stacks of a profile whose mean block fits blocks of this usable size, of which there are so many: the only one, or those that
    /// may be meant.
    pub fn of_size(&self, bytes: u64, blocks: u64) -> Vec<&[Address]> {
        let Log::Samples(found) = &self.log else {
            return Vec::new();
        };
        let fits = found
            .samples
            .iter()
            .zip(&self.stacks)
            .filter(|(sample, _)| {
                sample.blocks >= blocks
                    && sample.bytes % sample.blocks.max(1) == 0
                    && belongs::fits_closely(sample.bytes / sample.blocks.max(1), bytes)
            });
        let distinct: BTreeSet<&[Address]> = fits
            .map(|(_, stack)| stack.as_slice())
            .filter(|stack| !stack.is_empty())
            .collect();
        distinct.into_iter().collect()
    }
}

/// The one allocation that began inside a block and held the address: the allocator merged its chunk with others since.
fn inside(found: &Trace, asked: Asked) -> Option<History> {
    let end = asked.block.get().saturating_add(asked.bytes);
    let at = asked.at.get();
    let holds = |(start, history): &(&u64, &History)| {
        let bytes = history.allocated.map_or(1, |live| live.bytes.max(1));
        (**start..start.saturating_add(bytes)).contains(&at)
    };
    let mut all = found.histories.range(asked.block.get()..end).filter(holds);
    let (_, first) = all.next()?;
    all.next().is_none().then_some(*first)
}
