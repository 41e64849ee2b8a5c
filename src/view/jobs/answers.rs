//! The answers: what the commands compute, for one frame, one address, one step of a tree at a time.

use ground::target::{Address, MemoryExt};

use super::{Direction, FrameContents, FrameId, Job, Told, Value, options};
use crate::graph::Ground;
use crate::graph::holders::variables::Variables;
use crate::graph::leaks;
use crate::graph::propagation::Limits;
use crate::inspect;
use crate::report::compose;
use crate::report::compose::usage::Held;
use crate::report::schema::{Report, Tree};
use crate::usage::{blocks, mappings, owners, suspects};
use heaps::graph::trees::Extent;
use postmortem::debuginfo::{LocalPart, LocalPlace};
use postmortem::session::Session;

/// Words of an address that are decoded.
const WORDS: usize = 64;
/// Words of one block in a tree.
const WIDTH: usize = 64;
/// Variables and registers of a frame that are shown.
const MAX_VALUES: usize = 512;

/// Answers a question of the heaps.
pub(super) fn of(ground: &Ground<'_>, job: Job) -> Result<Told, String> {
    Ok(match job {
        Job::Frame(id) | Job::Meanings(id) => Told::Frame(
            job,
            frame(ground.session, &ground.variables, id, Some(ground)),
        ),
        Job::Address(at) => {
            let found = inspect::inspect(ground, &[Address::new(at)], WORDS);
            let found = found.first().ok_or("the address cannot be looked at")?;
            let found = compose::inspect::address_of(ground, found, &options());
            Told::Address(at, Box::new(found))
        }
        Job::Step(at, direction) => {
            Told::Step(at, direction, Box::new(step(ground, at, direction)?))
        }
        Job::Leaks => {
            let found = leaks::find(ground, leaks::Wanted::default());
            Told::Leaks(Box::new(compose::graph::leaks(
                ground,
                &found,
                false,
                &options(),
            )))
        }
        Job::Usage => Told::Usage(Box::new(usage(ground)?)),
        Job::Types => Told::Types(Box::new(types(ground))),
    })
}

fn step(ground: &Ground<'_>, at: u64, direction: Direction) -> Result<Tree, String> {
    let at = Address::new(at);
    let extent = Extent {
        depth: 1,
        width: WIDTH,
    };
    let found = match direction {
        Direction::Up => Some(ground.holders_of_holders(at, extent)),
        Direction::Down => ground.what_hangs_on(at, extent),
    };
    let found = found.ok_or("there is no block in use, so nothing hangs on it")?;
    Ok(compose::graph::tree(&found))
}

/// As `usage` does it, with every mapping as `maps` has it.
fn usage(ground: &Ground<'_>) -> Result<Report, String> {
    let (session, analysis) = (ground.session, ground.analysis);
    let found = mappings::all(session, analysis, &ground.lands);
    let counted = blocks::survey(session.target().memory, analysis);
    let words = owners::words(ground);
    let owners =
        owners::find(ground, &words).ok_or("there are more blocks than can be numbered")?;
    let suspects = suspects::find(ground, &owners, suspects::MAX_BLOCKS);
    let held = Held {
        ground,
        owners: &owners,
        suspects: &suspects,
    };
    let held = Some(&held);
    let mut report = compose::usage::usage(session, analysis, &found, &counted, held, &options());
    compose::usage::add_mappings(&mut report, &found);
    Ok(report)
}

/// As `usage --by type` does it.
fn types(ground: &Ground<'_>) -> Report {
    let (session, analysis) = (ground.session, ground.analysis);
    let found = mappings::all(session, analysis, &ground.lands);
    let counted = blocks::survey(session.target().memory, analysis);
    let mut report = compose::usage::usage(session, analysis, &found, &counted, None, &options());
    ground.follow_types(Limits::WHOLE);
    compose::usage::add_types(&mut report, ground);
    report
}

/// What is in a frame. `ground`: for what values mean.
pub(super) fn frame(
    session: &Session,
    variables: &Variables,
    id: FrameId,
    ground: Option<&Ground<'_>>,
) -> FrameContents {
    let threads = session.threads();
    let mut contents = FrameContents {
        id,
        is_explained: ground.is_some(),
        ..FrameContents::default()
    };
    let Some(frame) = threads.frames(id.thread).get(id.frame) else {
        return contents;
    };
    let explained = |at: Option<Address>, value: u64| {
        let ground = ground?;
        let said = match at {
            Some(at) => inspect::meaning_at(ground, at, value),
            None => inspect::meaning_of(ground, value),
        };
        Some(said)
    };
    let registers = frame.registers.iter().take(MAX_VALUES);
    contents.registers = registers
        .map(|(number, value)| Value {
            name: threads.register_name(number).to_owned(),
            place: None,
            value: Some(value),
            bytes: None,
            meaning: explained(None, value),
        })
        .collect();
    let locals = variables.of_frame(session, id.thread, id.frame);
    let parts = locals.iter().flat_map(|local| {
        let parts = local.parts.iter();
        parts.map(move |part| (local, part))
    });
    contents.variables = parts
        .take(MAX_VALUES)
        .map(|(local, part)| {
            let mut name = local.name.clone();
            if part.offset > 0 {
                name = format!("{name}+{:#x}", part.offset);
            }
            if let Some(function) = &local.inlined {
                name = format!("{name} of {function}");
            }
            let (at, place) = match part.at {
                LocalPlace::Register(number) => (None, threads.register_name(number).to_owned()),
                LocalPlace::Memory(at) => (Some(at), at.to_string()),
            };
            let value = value(session, part, &frame.registers);
            Value {
                name,
                place: Some(place),
                value,
                bytes: part.bytes,
                // What is shorter than a word is no pointer.
                meaning: value
                    .filter(|_| part.bytes.is_none_or(|bytes| bytes == 8))
                    .and_then(|value| explained(at, value)),
            }
        })
        .collect();
    contents
}

/// What a part of a variable holds, if that fits into a word.
fn value(
    session: &Session,
    part: &LocalPart,
    registers: &ground::target::RegisterSet,
) -> Option<u64> {
    let bytes = part.bytes.unwrap_or(8);
    let mask = match bytes {
        1..8 => (1u64 << (bytes * 8)) - 1,
        8 => u64::MAX,
        _ => return None,
    };
    match part.at {
        LocalPlace::Register(number) => registers.get(number).map(|value| value & mask),
        LocalPlace::Memory(at) => {
            let mut word = [0; 8];
            let wanted = word.get_mut(..usize::try_from(bytes).ok()?)?;
            session.target().memory.read_into(at, wanted).ok()?;
            Some(u64::from_le_bytes(word))
        }
    }
}
