//! Does an error explain the crash? The way back from the fault to a word that the error wrote over, or to what it was instead.
//!
//! ```text
//! operand <- register <- load from a word <- the word is damaged, or lies in the run of bytes that did the damage     yes
//! operand <- register <- load of null from a word that no error is near                                               no
//! a signal that another process sent                                                                                  no
//! a way that is lost, an abort of the program's own, a heap that misled it long ago                                   unknown
//! ```
//!
//! `yes` needs proof: a wrong one sends somebody after the wrong bug. Errors that are the crash itself (a refused call, a read of freed
//! memory) say so where they are found.

mod elsewhere;
pub mod run;
pub mod source;
mod through;

use ground::target::{Address, MemoryExt, Target};
use heaps::map::BlockState;

pub use elsewhere::by_another;

use super::dangling::is_in_allocator;
use super::finding::{
    Cause, CauseKind, Evidence, ExplainsCrash, Finding, FindingKind, OverwriterClass, Severity,
};
use crate::analysis::Analysis;
use crate::crash::origin::{Load, Origin, Role};
use crate::crash::{Access, Crash, Operand};

/// Values below this are no pointers: null, and offsets from it.
const MAX_NULL: u64 = 1 << 16;
/// Bytes of one write that are looked at.
const MAX_RUN: u64 = 1 << 16;

/// Says of errors that wrote over a word of which the process died that they explain it.
pub fn by_damage(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    findings: &mut [Finding],
) {
    let open = findings.iter_mut().filter(|finding| {
        finding.explains_crash == ExplainsCrash::Unknown && finding.severity() != Severity::Note
    });
    for finding in open {
        if let Some(causes) = died_of(target, analysis, crash, finding) {
            finding.explains_crash = ExplainsCrash::Yes;
            finding.causes = causes;
            through::name(target, analysis, finding);
        }
    }
}

/// The way from the fault to a word that the error wrote over.
fn died_of(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    finding: &Finding,
) -> Option<Vec<Cause>> {
    let writes = matches!(
        finding.kind,
        FindingKind::HeapOverrun
            | FindingKind::HeapUnderrun
            | FindingKind::UseAfterFreeWrite
            | FindingKind::CorruptMetadata
            | FindingKind::CyclicFreeList
            | FindingKind::DoubleFree
            | FindingKind::InvalidFreeEntry
            | FindingKind::AllocatorMismatch
            | FindingKind::MisalignedFreeEntry
    );
    if !crash.is_by_memory || !writes {
        return None;
    }
    let by_loads = crash.origins.iter().find_map(|origin| {
        (0..origin.loads.len()).find_map(|index| {
            let load = origin.loads.get(index)?;
            let at = load.at?;
            // A small number may stand there by chance; a way that is not the only one then proves nothing.
            let is_sure = load.direct || origin.value >= MAX_NULL;
            let damage = damaged_word(target, analysis, finding, at, load.bytes)?;
            if !is_sure || load.is_slot {
                return None;
            }
            let mut causes = way(crash, origin, index);
            causes.push(damage);
            causes.extend(writer(finding));
            Some(causes)
        })
    });
    by_loads.or_else(|| followed(target, analysis, crash, finding))
}

/// An allocator that died of the link that it was following: the damaged word itself, or what stands where it leads. The loop that
/// follows links has no way back to the one before.
fn followed(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    finding: &Finding,
) -> Option<Vec<Cause>> {
    let origin = crash.origins.first()?;
    if origin.value < MAX_NULL || !is_in_allocator(target, analysis, crash) {
        return None;
    }
    let read = |at: Address| target.memory.read_u64(at).ok();
    damaged(analysis, finding).find_map(|word| {
        let held = read(word.at).filter(|_| word.bytes == 8)?;
        let behind = read(Address::new(held));
        if held != origin.value && behind != Some(origin.value) {
            return None;
        }
        let mut causes: Vec<Cause> = operand(crash).into_iter().collect();
        causes.push(register(origin));
        if held != origin.value {
            causes.push(Cause {
                kind: CauseKind::Load,
                at: Some(Address::new(held)),
                text: format!("that is the word at {held:#x}, to which the damaged one leads"),
            });
        }
        causes.push(overwritten(word));
        causes.extend(writer(finding));
        Some(causes)
    })
}

/// The step of a damaged word.
fn overwritten(word: &Evidence) -> Cause {
    Cause {
        kind: CauseKind::Overwritten,
        at: Some(word.at),
        text: format!(
            "the word at {} is the one that is wrong: {}, {}",
            word.at, word.what, word.found
        ),
    }
}

/// Words that the error wrote over. What lies in a block in use is its program's: where the bytes came from, not where they went.
fn damaged<'f>(
    analysis: &'f Analysis<'f>,
    finding: &'f Finding,
) -> impl Iterator<Item = &'f Evidence> {
    finding.evidence.iter().filter(|word| {
        let holder = analysis
            .heaps
            .iter()
            .find_map(|heap| Some((heap, heap.map.block_at(word.at)?)));
        let is_used = holder.is_some_and(|(heap, (block, offset))| {
            offset < block.bytes && heap.map.state(block.id) == BlockState::InUse
        });
        !is_used && !word.expected.is_empty()
    })
}

/// The step that says that a word was written over by this error.
fn damaged_word(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    finding: &Finding,
    at: Address,
    bytes: u64,
) -> Option<Cause> {
    let end = at.checked_add(bytes.max(1))?;
    let proof = damaged(analysis, finding).find(|word| {
        let word_end = word.at.saturating_add(word.bytes.into());
        word.at < end && at < word_end
    });
    if let Some(word) = proof {
        return Some(overwritten(word));
    }
    // What did the damage went on into the block.
    let first = damaged(analysis, finding).map(|word| word.at).min()?;
    let culprit = finding.culprit.as_ref().map(|culprit| culprit.block);
    let culprit = culprit.filter(|_| finding.kind == FindingKind::HeapOverrun)?;
    // Or came from there: it ran over the culprit's own last members.
    let is_behind = at >= first;
    let (from, to) = if is_behind { (first, end) } else { (at, first) };
    let length = to.offset_from(from)?;
    if length > MAX_RUN || !is_behind && at < culprit.address {
        return None;
    }
    let mut run = vec![0; usize::try_from(length).ok()?];
    target.memory.read_into(from, &mut run).ok()?;
    let class = finding.overwriter.as_ref().map(|written| written.class);
    let is_one_write = match class {
        Some(OverwriterClass::Ascii) => run::is_text(&run),
        // What the last elements before the end and those behind it are is counted up alike.
        _ => run::is_one_value(&run) || run::is_series(&run) || is_series_from(target, from, to),
    };
    is_one_write.then(|| Cause {
        kind: CauseKind::Overwritten,
        at: Some(at),
        text: match is_behind {
            true => format!(
                "the word at {at} lies in the same run of bytes, which begins {} before it",
                bytes_of(at, first)
            ),
            false => format!(
                "the word at {at} lies in the same run of bytes, which goes on past the end of the block {}",
                culprit.address
            ),
        },
    })
}

/// Whether the bytes up to `to`, with the two words before `from`, are numbers that are counted up: the last ones in the block and those
/// behind its end.
fn is_series_from(target: Target<'_>, from: Address, to: Address) -> bool {
    let read = || {
        let from = from.checked_sub(16)?;
        let mut bytes = vec![0; usize::try_from(to.offset_from(from)?).ok()?];
        target.memory.read_into(from, &mut bytes).ok()?;
        Some(bytes)
    };
    read().is_some_and(|bytes| run::is_series(&bytes))
}

/// `24 bytes`.
fn bytes_of(at: Address, first: Address) -> String {
    match at.offset_from(first).unwrap_or(0) {
        1 => "1 byte".into(),
        bytes => format!("{bytes} bytes"),
    }
}

/// The block that wrote past its end.
pub fn writer(finding: &Finding) -> Option<Cause> {
    let block = finding.culprit.as_ref()?.block;
    Some(Cause {
        kind: CauseKind::WrittenBy,
        at: Some(block.address),
        text: format!(
            "the block {} of {} bytes ends in front of it: the bytes came from there",
            block.address, block.bytes
        ),
    })
}

/// The steps from the fault back to one of the loads of an origin.
pub fn way(crash: &Crash, origin: &Origin, last: usize) -> Vec<Cause> {
    let mut causes: Vec<Cause> = operand(crash).into_iter().collect();
    causes.push(register(origin));
    causes.extend(origin.loads.iter().take(last.saturating_add(1)).map(loaded));
    causes
}

/// What the program did with the word of a load, or with the value itself.
pub fn deed(origin: Option<&Origin>, load: Option<&Load>, crash: &Crash) -> String {
    let Some(origin) = origin else {
        return "a jump through it went nowhere".to_owned();
    };
    let instruction = crash.instruction.as_ref();
    let operand = instruction.and_then(|instruction| instruction.operands.first());
    let access = operand.map(|operand| operand.access);
    let does = match (origin.role, access) {
        (Role::Target, _) => "called it",
        (Role::Address, Some(Access::Write)) => "wrote through it",
        (Role::Address, Some(Access::Read)) => "read through it",
        (Role::Address, _) => "went through it",
    };
    let name = |function: &Option<String>, frame: usize| {
        let name = function.clone();
        name.unwrap_or_else(|| format!("frame {frame} of the crashing thread"))
    };
    let user = name(&origin.function, origin.frame);
    let Some(load) = load else {
        return format!("{user} {does}");
    };
    let reader = name(&load.function, load.frame);
    let held = &load.holder;
    // The word may have led to the value over others.
    let is_last = origin.loads.first() == Some(load);
    let is_same = load.frame == origin.frame && load.function == origin.function;
    match (is_last, is_same) {
        (true, true) => format!("{reader} loaded it through {held} and {does}"),
        (true, false) => format!("{reader} loaded it through {held}, and {user} {does}"),
        (false, _) => {
            format!("{reader} loaded it through {held}, and {user} died of what it led to")
        }
    }
}

/// Loads as steps.
pub fn loads(loads: &[Load]) -> Vec<Cause> {
    loads.iter().map(loaded).collect()
}

/// The instruction at fault.
fn operand(crash: &Crash) -> Option<Cause> {
    let instruction = crash.instruction.as_ref()?;
    let does = instruction
        .operands
        .first()
        .map_or_else(String::new, |operand| format!(" {}", accessed(operand)));
    Some(Cause {
        kind: CauseKind::Operand,
        at: Some(instruction.address),
        text: format!("{}{does}", instruction.text),
    })
}

fn accessed(operand: &Operand) -> String {
    let does = match operand.access {
        Access::Read => "reads",
        Access::Write => "writes",
        Access::ReadWrite => "reads and writes",
        Access::Execute => "goes on",
    };
    match operand.address {
        Some(at) => format!("{does} at {at}"),
        None => format!("{does} at an address that is not known"),
    }
}

fn register(origin: &Origin) -> Cause {
    let what = match origin.role {
        Role::Address => "which made that address",
        Role::Target => "which was called",
    };
    let holder = origin.register.unwrap_or("the word");
    Cause {
        kind: CauseKind::Register,
        at: Some(origin.instruction),
        text: format!("{holder} was {:#x}, {what}", origin.value),
    }
}

fn loaded(load: &Load) -> Cause {
    let function = load.function.clone();
    let function = function.unwrap_or_else(|| format!("frame {}", load.frame));
    let from = load
        .at
        .map_or_else(|| "a word that is not known".into(), |at| at.to_string());
    Cause {
        kind: CauseKind::Load,
        at: load.at,
        text: format!("{function} loaded it from {from}, through {}", load.holder),
    }
}
