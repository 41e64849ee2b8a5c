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

use ground::target::{Address, MemoryExt, Target};
use heaps::map::BlockState;

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
/// Bytes around a word of evidence in which nothing is called unrelated.
const NEAR: u64 = 64;

/// What the process died of, if it is known to have been nothing in the heap.
struct Other {
    causes: Vec<Cause>,
    /// The words that the program read on the way.
    read: Vec<Address>,
}

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
        }
    }
}

/// Says of errors that the process died of something else, where that is shown.
pub fn by_another(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    findings: &mut [Finding],
) {
    let explains = |finding: &Finding| finding.explains_crash == ExplainsCrash::Yes;
    if findings.iter().any(explains) {
        return; // whether the others led to it, nobody knows
    }
    let Some(other) = sent(crash).or_else(|| null(target, analysis, crash)) else {
        return;
    };
    for finding in findings {
        // What is known of a read of freed memory is no null from elsewhere.
        let is_unknown = finding.causes.is_empty();
        if is_unknown && other.read.iter().all(|at| !is_near(finding, *at)) {
            finding.explains_crash = ExplainsCrash::No;
            finding.causes.clone_from(&other.causes);
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
    let is_overrun = finding.kind == FindingKind::HeapOverrun && finding.culprit.is_some();
    let length = end.offset_from(first)?;
    if !is_overrun || at < first || length > MAX_RUN {
        return None;
    }
    let mut run = vec![0; usize::try_from(length).ok()?];
    target.memory.read_into(first, &mut run).ok()?;
    let is_one_write = match finding.overwriter.as_ref()?.class {
        OverwriterClass::Ascii => run.iter().all(|byte| matches!(byte, b' '..=b'~')),
        _ => is_one_value(&run),
    };
    is_one_write.then(|| Cause {
        kind: CauseKind::Overwritten,
        at: Some(at),
        text: format!(
            "the word at {at} lies in the same run of bytes, which begins {} before it",
            bytes_of(at, first)
        ),
    })
}

/// Whether bytes are one value of eight over and over, which is not zero.
fn is_one_value(run: &[u8]) -> bool {
    let (words, rest) = run.as_chunks::<8>();
    let Some(first) = words.first() else {
        return false;
    };
    *first != [0; 8] && words.iter().all(|word| word == first) && first.starts_with(rest)
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

/// The instruction at fault.
fn operand(crash: &Crash) -> Option<Cause> {
    let instruction = crash.instruction.as_ref()?;
    let does = instruction
        .operands
        .first()
        .map_or_else(String::new, |operand| format!(" {}", deed(operand)));
    Some(Cause {
        kind: CauseKind::Operand,
        at: Some(instruction.address),
        text: format!("{}{does}", instruction.text),
    })
}

fn deed(operand: &Operand) -> String {
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

/// The process was killed by another one.
fn sent(crash: &Crash) -> Option<Other> {
    (!crash.is_own).then(|| Other {
        causes: vec![Cause {
            kind: CauseKind::Signal,
            at: None,
            text:
                "another process, or the kernel, sent the signal: the process did not die of itself"
                    .into(),
        }],
        read: Vec::new(),
    })
}

/// The process died of a null pointer whose way is known: every word that it came from, each in a block in use, a variable or the
/// code itself.
fn null(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash) -> Option<Other> {
    let instruction = crash.instruction.as_ref()?;
    let operand = instruction.operands.first()?;
    let fault = crash.fault_address?;
    let is_null = crash.is_by_memory
        && instruction.explains_fault
        && fault.get() < MAX_NULL
        && operand
            .registers
            .iter()
            .all(|register| register.value.is_some_and(|value| value < MAX_NULL));
    // The allocator's own nulls are its lists' ends, and what led there.
    if !is_null || crash.origins.is_empty() || is_in_allocator(target, analysis, crash) {
        return None;
    }
    let mut causes: Vec<Cause> = self::operand(crash).into_iter().collect();
    let mut read = Vec::new();
    for origin in &crash.origins {
        // The null itself must be known to have been read somewhere, and not merely to have been passed on.
        let source = origin.loads.first()?;
        let mut way = origin.loads.iter();
        let is_known = way.all(|load| load.at.is_some_and(|at| is_settled(analysis, at)))
            && !source.is_slot
            && source.direct
            && source
                .at
                .is_some_and(|at| target.memory.read_u64(at).is_ok());
        if !is_known || origin.value >= MAX_NULL {
            return None;
        }
        causes.push(register(origin));
        causes.extend(origin.loads.iter().map(loaded));
        read.extend(origin.loads.iter().filter_map(|load| load.at));
    }
    Some(Other { causes, read })
}

/// Whether an address is the program's own memory still: no word of a free block.
fn is_settled(analysis: &Analysis<'_>, at: Address) -> bool {
    analysis.heaps.iter().all(|heap| {
        let block = heap.map.block_at(at);
        block.is_none_or(|(block, _)| heap.map.state(block.id) == BlockState::InUse)
    })
}

/// Whether a word may have been written by this error: it lies in its block, in the block that wrote, or beside a damaged word.
fn is_near(finding: &Finding, at: Address) -> bool {
    let within = |start: Address, bytes: u64| {
        let from = start.get().saturating_sub(NEAR);
        let end = start.get().saturating_add(bytes).saturating_add(NEAR);
        (from..end).contains(&at.get())
    };
    let block = finding.block.map(|view| view.block);
    let culprit = finding.culprit.as_ref().map(|culprit| culprit.block);
    let mut blocks = block.iter().chain(&culprit);
    blocks.any(|block| within(block.address, block.bytes))
        || finding.at.is_some_and(|place| within(place, 8))
        || (finding.evidence.iter()).any(|word| within(word.at, word.bytes.into()))
}
