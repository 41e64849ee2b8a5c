//! Errors that the process did not die of: what it died of is known, and nothing of them is near.

use ground::target::{Address, MemoryExt, Target};
use heaps::map::BlockState;

use super::{MAX_NULL, loaded, operand, register};
use crate::analysis::Analysis;
use crate::checks::dangling::is_in_allocator;
use crate::checks::finding::{Cause, CauseKind, Confidence, ExplainsCrash, Finding, FindingKind};
use crate::crash::origin::Role;
use crate::crash::{Crash, RegisterValue};

/// Bytes around a word of evidence in which nothing is called unrelated.
const NEAR: u64 = 64;

/// What the process died of, if it is known to have been nothing in the heap.
struct Other {
    causes: Vec<Cause>,
    /// The words that the program read on the way.
    read: Vec<Address>,
    /// It is another error, which may be what this one led to.
    is_error: bool,
}

/// Says of errors that the process died of something else, where that is shown.
pub fn by_another(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    findings: &mut [Finding],
) {
    let explains = |finding: &&Finding| finding.explains_crash == ExplainsCrash::Yes;
    let other = match findings.iter().find(explains) {
        Some(cause) => error(cause),
        None => sent(crash).or_else(|| null(target, analysis, crash)),
    };
    let Some(other) = other else { return };
    for finding in findings {
        // What is known of a read of freed memory is no null from elsewhere.
        let is_open = finding.explains_crash == ExplainsCrash::Unknown && finding.causes.is_empty();
        let is_possible = !other.is_error || is_one_write(finding);
        if is_open && is_possible && other.read.iter().all(|at| !is_near(finding, *at)) {
            finding.explains_crash = ExplainsCrash::No;
            finding.causes.clone_from(&other.causes);
        }
    }
}

/// Whether an error is one write and no more, whose bytes still stand where they went: no list was followed over it, and no block
/// was handed out because of it.
fn is_one_write(finding: &Finding) -> bool {
    let is_write = matches!(
        finding.kind,
        FindingKind::HeapOverrun | FindingKind::HeapUnderrun
    );
    is_write && finding.culprit.is_some() && finding.lost_blocks == 0
}

/// Another error, which is the whole story: memory was used after it was freed, or the allocator was given a pointer that is none.
fn error(cause: &Finding) -> Option<Other> {
    let is_whole = cause.confidence == Confidence::Certain
        && matches!(
            cause.kind,
            FindingKind::StackOverflow
                | FindingKind::DanglingReference
                | FindingKind::HeapOverrun
                | FindingKind::InvalidFreeEntry
                | FindingKind::AllocatorMismatch
                | FindingKind::MisalignedFreeEntry
                | FindingKind::DoubleFree
        );
    if !is_whole {
        return None;
    }
    let steps = cause.causes.iter().filter_map(|step| match step.kind {
        CauseKind::Operand | CauseKind::Register | CauseKind::Message => None,
        _ => step.at,
    });
    let mut read: Vec<Address> = steps.collect();
    let block = cause.block.map(|view| view.block);
    read.extend(cause.at);
    read.extend(block.map(|block| block.address));
    read.extend(block.and_then(|block| block.address.checked_add(block.bytes)));
    let place = cause.at.map_or_else(String::new, |at| format!(" of {at}"));
    Some(Other {
        causes: vec![Cause {
            kind: CauseKind::OtherError,
            at: cause.at,
            text: format!(
                "the process died of the {}{place}, and no word on the way there is near this error",
                cause.kind.code()
            ),
        }],
        read,
        is_error: true,
    })
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
        is_error: false,
    })
}

/// The process died of a null pointer whose way is known: every word that it came from, each in a block in use, a variable or the
/// code itself.
fn null(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash) -> Option<Other> {
    let is_null = crash.is_by_memory && (is_null_access(crash) || is_null_call(crash));
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
    Some(Other {
        causes,
        read,
        is_error: false,
    })
}

/// Whether the instruction at fault went through null, or a member of what is not there.
fn is_null_access(crash: &Crash) -> bool {
    let (Some(instruction), Some(fault)) = (&crash.instruction, crash.fault_address) else {
        return false;
    };
    let operand = instruction.operands.first();
    let is_small = |register: &RegisterValue| register.value.is_some_and(|value| value < MAX_NULL);
    instruction.explains_fault
        && fault.get() < MAX_NULL
        && operand.is_some_and(|operand| operand.registers.iter().all(is_small))
}

/// Whether null was called.
fn is_null_call(crash: &Crash) -> bool {
    let mut origins = crash.origins.iter();
    crash.instruction.is_none()
        && origins.all(|origin| origin.role == Role::Target && origin.value == 0)
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
