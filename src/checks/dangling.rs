//! Use after free that was read: the program died of a value that it had loaded out of a free block.
//!
//! ```text
//! pointer ──> free block ──> word ──> fault
//!    │            │           └─ the value at fault, by the code that loaded it (`crash::origin`)
//!    │            └─ listed free, by the heap's own lists
//!    └─ a register, a slot of the frame, an argument
//! ```
//!
//! That a register holds the address of a free block proves nothing: registers keep what they held. What counts is that the value
//! at fault *was read* there. Where the way of the value is lost, it may still tell itself: a word that the allocator writes into
//! free blocks only ([`lost`]). A block that was handed out again is never called free, whatever was left in it.

mod lost;
mod words;

pub use lost::never_written;

use ground::target::{Address, Target};
use heaps::allocators::Residue;
use heaps::anomaly::{
    Anomaly, AnomalyKind, BrokenWord, Expected, Field, HolderKind, Property, Value,
};

use super::finding::{Confidence, ExplainsCrash, Finding, FindingKind, Location, Severity};
use super::residue::{self, Freed, Read};
use super::{Subject, Verdict, explains, wording};
use crate::analysis::Analysis;
use crate::crash::Crash;
use crate::crash::origin::{Load, Origin, Role};

/// A read of a free block that led to the crash.
struct Use<'a> {
    /// The word that was read.
    freed: Freed<'a>,
    /// What it became, in the end.
    origin: Option<&'a Origin>,
    /// The load, where the code tells it.
    load: Option<&'a Load>,
    /// The pointer that led to the block.
    pointer: Address,
    confidence: Confidence,
}

/// A pointer that was given to `free`.
pub struct Given<'a> {
    /// The pointer.
    pub value: Address,
    /// The word in memory that it was loaded from, where that is known.
    pub loaded_from: Option<Address>,
    /// It leads to no block and no variable: nothing else tells what it is.
    pub is_lost: bool,
    /// How sure it is that the call was given this pointer.
    pub confidence: Confidence,
    /// What came of it, in words.
    pub deed: &'a str,
    /// Index of the frame that gave it.
    pub frame: usize,
}

/// Adds the use of a free block that the process died of, if it died of one.
pub fn explain(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash, verdict: &mut Verdict) {
    if let Some(found) = pure_virtual(target, analysis, crash) {
        let frame = words::frame(&found);
        let function = found.load.and_then(|load| load.function.clone());
        let is_alone = found.confidence == Confidence::Certain;
        let deed = words::pure_virtual(function.as_deref(), frame, is_alone);
        let mut told = finding(target, &found, &deed, frame);
        told.causes = words::causes(crash, &found, target);
        told.explains_crash = ExplainsCrash::Yes;
        add(verdict, told);
        return;
    }
    if !crash.is_by_memory || is_in_allocator(target, analysis, crash) {
        return;
    }
    let suspects = lost::suspects(target, crash);
    let origins = || crash.origins.iter().chain(&suspects);
    let found = origins()
        .find_map(|origin| read(target, analysis, origin))
        .or_else(|| origins().find_map(|origin| named(target, analysis, crash, origin)))
        .or_else(|| origins().find_map(|origin| lost::find(target, analysis, crash, origin)))
        .or_else(|| lost::jump(target, analysis, crash));
    let Some(found) = found else {
        return;
    };
    let deed = explains::deed(found.origin, found.load, crash);
    let mut told = finding(target, &found, &deed, words::frame(&found));
    told.causes = words::causes(crash, &found, target);
    // A word that the program left may have been read before the block was freed.
    if found.confidence == Confidence::Certain {
        told.explains_crash = ExplainsCrash::Yes;
    }
    add(verdict, told);
}

/// Adds a use. A block that was freed twice, or written to since, and is used: one error, and this is what came of it.
fn add(verdict: &mut Verdict, told: Finding) {
    let block = told.block.map(|view| view.block.address);
    let is_known = |known: &&mut Finding| {
        let view = known.block.as_ref();
        let is_life = matches!(
            known.kind,
            FindingKind::DoubleFree | FindingKind::CyclicFreeList | FindingKind::UseAfterFreeWrite
        );
        is_life
            && known.severity() == Severity::Critical
            && view.map(|view| view.block.address) == block
    };
    if let Some(known) = verdict.findings.iter_mut().find(is_known) {
        known.evidence.extend(told.evidence);
        if known.explains_crash != ExplainsCrash::Yes {
            known.explains_crash = told.explains_crash;
            known.causes = told.causes;
        }
        return;
    }
    verdict.findings.push(told);
}

/// Whether the instruction at fault is an allocator's own, or the work of one: what it met is told by its lists.
pub fn is_in_allocator(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash) -> bool {
    let frames = target.threads.frames(crash.thread);
    let first = crash
        .origins
        .first()
        .map_or(crash.frame, |origin| origin.frame);
    analysis.heaps.iter().any(|heap| {
        let module = Some(heap.identity.module);
        let mut own = (frames.iter().skip(first))
            .take_while(|frame| frame.module == module)
            .map(|frame| heap.heap.runs(frame));
        match own.next() {
            None | Some(Some(false)) => own.any(|runs| runs == Some(true)),
            Some(_) => true,
        }
    })
}

/// The object of which a virtual function without a body was called, if its block is free: its destructor has run.
fn pure_virtual<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &'a Crash,
) -> Option<Use<'a>> {
    let called = crash.pure_virtual.as_ref()?;
    let object = called.object?;
    let Read::Free(freed) = residue::at(target, analysis, object, 8, None) else {
        return None;
    };
    Some(Use {
        freed,
        origin: None,
        load: called.loads.get(1),
        pointer: object,
        // Another thread may have been destroying it, and have freed it since.
        confidence: match target.threads.list().len() {
            1 => Confidence::Certain,
            _ => Confidence::Likely,
        },
    })
}

/// The first load of a free block on the way of a value, as the program came by it.
fn read<'a>(target: Target<'_>, analysis: &'a Analysis<'a>, origin: &'a Origin) -> Option<Use<'a>> {
    (0..origin.loads.len()).rev().find_map(|index| {
        let load = origin.loads.get(index)?;
        let Read::Free(freed) = residue::at(target, analysis, load.at?, load.bytes, None) else {
            return None;
        };
        let direct = origin.loads.get(..=index)?.iter().all(|load| load.direct);
        let tells = freed.residue.is_some_and(Residue::tells);
        let confidence = match (tells, direct) {
            (true, _) => Confidence::Certain,
            (false, true) => Confidence::Likely,
            // The word may have been read before the block was freed.
            (false, false) => return None,
        };
        // An index may lead from one block into another one.
        let leads_there = |pointer: &Address| {
            let found = freed.heap.map.block_at(*pointer);
            found.is_some_and(|(block, _)| block.id == freed.block.id)
        };
        Some(Use {
            freed,
            origin: Some(origin),
            load: Some(load),
            pointer: load.base.filter(leads_there).unwrap_or(freed.at),
            confidence,
        })
    })
}

/// A register that names a free block, and that an index led away from: the address at fault was made from it.
fn named<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &Crash,
    origin: &'a Origin,
) -> Option<Use<'a>> {
    let operand = crash.instruction.as_ref()?.operands.first()?;
    let is_part = |name: &str| {
        operand
            .registers
            .iter()
            .any(|register| register.name == name)
    };
    let is_indexed = operand.registers.len() == 2
        && origin.role == Role::Address
        && origin.register.is_some_and(is_part);
    let pointer = Address::new(origin.value);
    let Read::Free(freed) = residue::at(target, analysis, pointer, 8, None) else {
        return None;
    };
    (is_indexed && freed.standing.is_some()).then_some(Use {
        freed,
        origin: Some(origin),
        load: None,
        pointer,
        confidence: Confidence::Likely,
    })
}

/// The use of a free block whose word was given to `free`: the pointer, the word that it was loaded from, the frame that gave it
/// and what came of it. Without that word, the value itself must name one free block that holds it, and nothing else may be there.
pub fn given(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    given: &Given<'_>,
) -> Option<Finding> {
    let origin = Origin {
        role: Role::Address,
        register: None,
        value: given.value.get(),
        loads: Vec::new(),
        given: None,
        returned: None,
        or_constant: false,
        parts: Vec::new(),
        frame: crash.frame,
        function: None,
        instruction: Address::default(),
    };
    let decoded = given
        .loaded_from
        .and_then(|from| residue::decode(target, analysis, given.value.get(), from));
    // A variable of the frame was set from elsewhere.
    let (freed, confidence) = match decoded {
        Some(freed) => (freed, given.confidence),
        None if given.is_lost => (
            lost::find(target, analysis, crash, &origin)?.freed,
            Confidence::Likely,
        ),
        None => return None,
    };
    // The call itself may have written the word, into the block that it was to free.
    if freed
        .heap
        .map
        .block_at(given.value)
        .is_some_and(|(block, _)| block.id == freed.block.id)
    {
        return None;
    }
    let found = Use {
        freed,
        origin: None,
        load: None,
        pointer: freed.block.address,
        confidence,
    };
    Some(finding(target, &found, given.deed, given.frame))
}

/// The finding of a use: what the frame did with the word.
fn finding(target: Target<'_>, found: &Use<'_>, deed: &str, frame: usize) -> Finding {
    let freed = found.freed;
    let anomaly = Anomaly::new(AnomalyKind::Metadata {
        word: BrokenWord {
            of: freed.block.address,
            at: freed.at,
            what: Field::WordOfFreeBlock,
            expected: Expected::Is(Property::Unread),
            found: Value::Word(freed.word),
        },
        counts_only: false,
    });
    let subject = Subject {
        target,
        heaps: std::slice::from_ref(freed.heap),
        index: freed.index,
        heap: freed.heap,
        anomaly: &anomaly,
    };
    let message = words::message(found, deed);
    // What was merged into something larger is told by the pointer that the program has.
    let is_whole = freed
        .standing
        .is_some_and(|standing| standing.list.holder != HolderKind::Bin);
    let at = match is_whole {
        true => freed.block.address,
        false => found.pointer,
    };
    let kind = FindingKind::DanglingReference;
    let mut finding = wording::finding(subject, kind, at, Some(freed.block), message);
    finding.confidence = found.confidence;
    finding.evidence = vec![words::evidence(found)];
    finding.evidence.extend(words::holder(found, target));
    finding.locations = freed
        .standing
        .map(|standing| Location {
            list: standing.list,
            position: standing.position,
        })
        .into_iter()
        .collect();
    finding.next_steps = words::next_steps(found, frame);
    wording::values_first(target, &mut finding.evidence);
    finding
}
