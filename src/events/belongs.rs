//! Whether a log is of the run that the core is of.

use ground::target::{Address, MemoryExt};
use heaps::map::BlockState;
use reports::events::{Samples, Trace};

use super::places::{Placed, Places};
use crate::analysis::Analysis;
use postmortem::session::Session;

/// Records that a damaged heap may hide for each irregularity that was seen.
const FOR_DAMAGE: u64 = 2;
/// Irregularities that count so.
const MOST_DAMAGE: u64 = 4;
/// Lines that a buffer of mtrace holds: those that a log that was cut lost with the process.
const FOR_LOST_LINES: u64 = 20;

/// What came of the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Records of which the core can tell.
    pub compared: u64,
    /// Those that it denies.
    pub contradicting: u64,
}

/// What the core says of a block that a log has in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Yes,
    No(&'static str),
    Unknown,
}

/// Every block that the trace has in use must be in use in the core, with about that size; every caller must be code.
///
/// # Errors
/// If more than 1 record in 100 is denied: what, for one.
pub fn trace(
    analysis: &Analysis<'_>,
    session: &Session,
    found: &Trace,
    places: &Places<'_>,
) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let mut first: Option<(u64, u64, &str)> = None;
    for (&address, live) in &found.live {
        match said(analysis, session, Address::new(address), live.bytes) {
            Said::Yes => verdict.compared += 1,
            Said::No(why) => {
                verdict.compared += 1;
                verdict.contradicting += 1;
                let this = (address, live.bytes, why);
                first = Some(first.map_or(this, |first| first.min(this)));
            }
            Said::Unknown => {}
        }
    }
    let anomalies = analysis
        .heaps
        .iter()
        .map(|heap| heap.anomalies.len() as u64);
    let damage = anomalies.sum::<u64>().min(MOST_DAMAGE) * FOR_DAMAGE;
    let lost = if found.is_cut { FOR_LOST_LINES } else { 0 };
    // libc writes a line when the call is done: each other thread may have freed a block of which the log does not know yet.
    let in_flight = session.threads().list().len().saturating_sub(1) as u64;
    let allowed = (verdict.compared / 100).saturating_add(damage + lost + in_flight);
    // A log of another run is denied nearly everywhere, however short it is.
    let is_mostly_denied = verdict.contradicting > verdict.compared / 2;
    if let Some((address, bytes, why)) = first
        && (verdict.contradicting > allowed || is_mostly_denied)
    {
        return Err(format!(
            "{} of {} blocks that the log has in use are not so in the core: {address:#x} of {bytes} bytes, for one, {why}",
            verdict.contradicting, verdict.compared
        ));
    }
    callers(found, places)?;
    if found.live.is_empty() && !found.freed.is_empty() {
        let in_heap = |at: &u64| {
            let mut heaps = analysis.heaps.iter();
            heaps.any(|heap| heap.map.row_at(Address::new(*at)).is_some())
        };
        if !found.freed.iter().any(in_heap) {
            return Err(format!(
                "none of {} addresses that the log has freed is in a heap of the core",
                found.freed.len()
            ));
        }
    }
    Ok(verdict)
}

/// Calls by whether their callers can be in this process.
fn callers(found: &Trace, places: &Places<'_>) -> Result<(), String> {
    let (mut known, mut impossible, mut unknown) = (0u64, 0u64, 0u64);
    let mut first = None;
    for site in &found.sites {
        let placed = site.frames.iter().map(|frame| (frame, places.place(frame)));
        let mut sum = &mut unknown;
        for (frame, placed) in placed {
            match placed {
                Placed::Impossible => {
                    first = first.or(Some(frame));
                    sum = &mut impossible;
                    break;
                }
                Placed::At(_) => sum = &mut known,
                Placed::Unknown => {}
            }
        }
        *sum = sum.saturating_add(site.calls);
    }
    let of = |frame: &reports::Frame| {
        let module = frame.module.as_deref().unwrap_or("a module");
        let offset = frame.module_offset.as_ref().or(frame.address.as_ref());
        format!("{module} {}", offset.map_or("", String::as_str))
    };
    match first {
        Some(frame) if impossible > found.events / 100 => Err(format!(
            "{impossible} of {} calls come from where the core has no code: {}, for one",
            found.events,
            of(frame)
        )),
        _ if known == 0 && unknown > 0 => {
            let frames = found.sites.iter().flat_map(|site| &site.frames);
            let mut named = frames.filter_map(|frame| frame.module.as_deref());
            match named.next() {
                Some(module) => Err(format!(
                    "its callers are in {module}, which the core has not"
                )),
                None => Ok(()), // a log without callers is of use for nothing, but not false
            }
        }
        _ => Ok(()),
    }
}

/// Every address of a profile must be code, of the module and at the place that the profile says.
///
/// # Errors
/// If more than 1 stack in 100 is denied: what, for one.
pub fn samples(
    analysis: &Analysis<'_>,
    session: &Session,
    found: &Samples,
    places: &Places<'_>,
) -> Result<Verdict, String> {
    let mut verdict = Verdict::default();
    let mut first = None;
    for sample in &found.samples {
        let placed: Vec<Placed> = sample
            .stack
            .frames
            .iter()
            .map(|frame| places.place(frame))
            .collect();
        if placed.contains(&Placed::Impossible) {
            verdict.contradicting += 1;
            let frame = placed.iter().position(|it| *it == Placed::Impossible);
            first = first.or(frame.and_then(|at| sample.stack.frames.get(at)));
        }
        let is_told = placed.iter().any(|it| *it != Placed::Unknown);
        verdict.compared += u64::from(is_told);
    }
    if let Some(frame) = first
        && verdict.contradicting > verdict.compared / 100
    {
        return Err(format!(
            "{} of {} stacks of the log have addresses that are no code of the core: {} in {}, for one",
            verdict.contradicting,
            verdict.compared,
            frame.address.as_deref().unwrap_or("?"),
            frame.module.as_deref().unwrap_or("no module"),
        ));
    }
    if verdict.compared == 0 && found.samples.iter().any(|it| !it.stack.frames.is_empty()) {
        return Err("none of its addresses is in a module of the core".into());
    }
    let elsewhere = |(address, bytes): &&(u64, u64)| {
        let said = said(analysis, session, Address::new(*address), *bytes);
        matches!(said, Said::No(why) if why == NO_HEAP || why == NO_MEMORY)
    };
    let denied = found.blocks.iter().filter(elsewhere).count();
    if denied > found.blocks.len() / 100 {
        return Err(format!(
            "{denied} of {} blocks of the log are in no heap of the core",
            found.blocks.len()
        ));
    }
    Ok(verdict)
}

const NO_HEAP: &str = "is in no heap";
const NO_MEMORY: &str = "is no memory";

fn said(analysis: &Analysis<'_>, session: &Session, at: Address, bytes: u64) -> Said {
    for heap in &analysis.heaps {
        if let Some((block, offset)) = heap.map.block_at(at) {
            return match heap.map.state(block.id) {
                _ if offset != 0 => Said::No("is inside a block"),
                BlockState::InUse if !fits(bytes, block.bytes) => Said::No("is of another size"),
                BlockState::InUse => Said::Yes,
                _ => Said::No("is free"),
            };
        }
        if heap.map.row_at(at).is_some() {
            return Said::No("is no block");
        }
    }
    let memory = session.target().memory;
    match memory.region_at(at) {
        None => Said::No(NO_MEMORY),
        // What no heap claims may be a heap that could not be read.
        Some(_) if analysis.heaps.is_empty() || !analysis.limits.is_empty() => Said::Unknown,
        Some(_) => Said::No(NO_HEAP),
    }
}

/// Whether a block of so many usable bytes may have been asked for with so many: no allocator gives twice as much, but for small and for
/// mapped blocks.
fn fits(asked: u64, usable: u64) -> bool {
    const SMALL: u64 = 64;
    const PAGES: u64 = 128 << 10;
    asked <= usable
        && (usable <= asked.saturating_mul(2)
            || usable <= asked.saturating_add(SMALL)
            || asked >= PAGES && usable <= asked.saturating_add(PAGES))
}

/// Whether an allocator would have given a block of this size for that: a class of it, not of the next smaller one.
pub fn fits_closely(asked: u64, usable: u64) -> bool {
    const GRANULE: u64 = 16;
    const SMALLEST: u64 = 24;
    let Some(rest) = usable.checked_sub(asked) else {
        return false;
    };
    asked > 0 && (rest < GRANULE || usable <= SMALLEST || rest < usable / 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_an_allocator_may_give() {
        for (asked, usable) in [
            (0, 24),
            (25, 40),
            (33, 56),
            (1000, 1000),
            (1000, 1024),
            (200_000, 204_784),
        ] {
            assert!(fits(asked, usable), "{asked} {usable}");
        }
        for (asked, usable) in [(41, 40), (100, 300), (1, 1000)] {
            assert!(!fits(asked, usable), "{asked} {usable}");
        }
        assert!(fits_closely(25, 40) && fits_closely(1, 24) && fits_closely(1025, 1280));
        assert!(!fits_closely(24, 40) && !fits_closely(41, 40) && !fits_closely(1000, 1280));
    }
}
