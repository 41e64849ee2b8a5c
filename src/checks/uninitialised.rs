//! A word that was read before anything was written there: the program died of what the allocator had left in a block in use.
//!
//! ```text
//! block in use ──> word ──> fault
//!                   └─ a protected link, an arena's address, a filling: what no program writes
//! ```
//!
//! A block that was freed and handed out again looks the same to whoever kept the old pointer, so that this is never certain. Where the
//! lists are not all in the core, the block may well be free: then it is no more than suspected.

use ground::target::{MemoryExt, Target, Thread};
use heaps::anomaly::{Anomaly, AnomalyKind, BrokenWord, Expected, Field, Property, Value};

use super::dangling::{is_in_allocator, never_written};
use super::finding::{
    Cause, CauseKind, Confidence, Evidence, ExplainsCrash, Finding, FindingKind, Found,
};
use super::residue::{self, LeftOver};
use super::{Subject, Verdict, explains, wording};
use crate::analysis::Analysis;
use crate::crash::Crash;
use crate::crash::origin::{Load, Origin};

/// Adds the read that the process died of, if it died of one and no other error explains it.
pub fn explain(target: Target<'_>, analysis: &Analysis<'_>, crash: &Crash, verdict: &mut Verdict) {
    let is_explained = |finding: &Finding| {
        finding.explains_crash == ExplainsCrash::Yes || !finding.causes.is_empty()
    };
    if !crash.is_by_memory
        || verdict.findings.iter().any(is_explained)
        || is_in_allocator(target, analysis, crash)
    {
        return;
    }
    let found = crash.origins.iter().find_map(|origin| {
        let loads = origin.loads.iter().enumerate();
        let mut read = loads.filter_map(|(index, load)| {
            let found = residue::left_over(target, analysis, load.at?, load.bytes)?;
            Some((origin, index, load, found))
        });
        read.next()
    });
    let found = match found {
        Some((origin, index, load, found)) => Some((origin, index, Some(load), found)),
        None => lost(target, analysis, crash, verdict),
    };
    let Some((origin, index, load, found)) = found else {
        return;
    };
    // What is wrong with the block is told already.
    let is_told = verdict.findings.iter().any(|finding| {
        (finding.block).is_some_and(|view| view.block.address == found.block.address)
    });
    if is_told {
        return;
    }
    let is_known = knows_all_lists(target, analysis, found);
    let mut finding = finding(target, is_known, crash, origin, load, found);
    finding.causes = explains::way(crash, origin, index);
    finding.causes.push(Cause {
        kind: CauseKind::NeverWritten,
        at: Some(found.at),
        text: format!(
            "the word at {} lies in the block {} of {} bytes, which is in use; it is {}",
            found.at,
            found.block.address,
            found.block.bytes,
            residue::meaning(found.residue, found.word)
        ),
    });
    verdict.findings.push(finding);
}

/// The block whose word the value can only have been, where the way is lost.
fn lost<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    crash: &'a Crash,
    verdict: &Verdict,
) -> Option<(&'a Origin, usize, Option<&'a Load>, LeftOver<'a>)> {
    let mut kinds = verdict.findings.iter().map(|finding| finding.kind);
    if kinds.any(|kind| kind == FindingKind::DanglingReference) {
        return None;
    }
    let mut origins = crash.origins.iter();
    origins.find_map(|origin| {
        let way = origin.loads.first().and_then(|load| load.at);
        let is_lost = way.is_none_or(|at| {
            matches!(
                residue::at(target, analysis, at, 8, None),
                residue::Read::Nothing
            )
        });
        let found = never_written(target, analysis, origin.value);
        Some((origin, origin.loads.len(), None, found.filter(|_| is_lost)?))
    })
}

/// Whether all lists that could hold the block are in the core: without them nobody knows that it is in use.
fn knows_all_lists(target: Target<'_>, analysis: &Analysis<'_>, found: LeftOver<'_>) -> bool {
    // A thread's caches are found by its own memory.
    let has_caches = |thread: &Thread| {
        let own = thread.thread_pointer;
        own.is_none_or(|at| !target.memory.is_absent(at))
    };
    !found.heap.heap.is_partial()
        && analysis.limits.iter().all(|limit| !limit.incomplete)
        && target.threads.list().iter().all(has_caches)
}

fn finding(
    target: Target<'_>,
    is_known: bool,
    crash: &Crash,
    origin: &Origin,
    load: Option<&Load>,
    found: LeftOver<'_>,
) -> Finding {
    let anomaly = Anomaly::new(AnomalyKind::Metadata {
        word: BrokenWord {
            of: found.block.address,
            at: found.at,
            what: Field::WordOfBlockInUse,
            expected: Expected::Is(Property::WrittenByTheProgram),
            found: Value::Word(found.word),
        },
        counts_only: false,
    });
    let subject = Subject {
        target,
        heaps: std::slice::from_ref(found.heap),
        index: found.index,
        heap: found.heap,
        anomaly: &anomaly,
    };
    let start = found.block.address;
    let place = match found.at.offset_from(start) {
        None | Some(0) => start.to_string(),
        Some(offset) => format!("{start}+{offset:#x}"),
    };
    let meaning = residue::meaning(found.residue, found.word);
    let other = match is_known {
        true => {
            "or through a pointer that is older than the block, which was freed and handed out again"
        }
        false => "or it is free, and the list that holds it is not in the core",
    };
    let message = format!(
        "the block {start} of {} bytes, which is in use, was read before anything was written there, {other}: the word at {place} still is {meaning}; {}",
        found.block.bytes,
        explains::deed(Some(origin), load, crash)
    );
    let kind = FindingKind::UninitialisedUse;
    let mut finding = wording::finding(subject, kind, start, Some(found.block), message);
    finding.confidence = match is_known {
        true => Confidence::Likely,
        false => Confidence::Suspected,
    };
    if is_known && load.is_some() {
        finding.explains_crash = ExplainsCrash::Yes;
    }
    finding.evidence = vec![Evidence {
        at: found.at,
        bytes: u32::try_from(found.bytes.clamp(1, 8)).unwrap_or(8),
        what: "the allocator's word in the block in use".into(),
        expected: "what the program wrote".into(),
        found: Found::word(found.word).and(&format!(": {meaning}")),
    }];
    finding.next_steps = vec![
        format!(
            "find who allocates the object at {start}, and which of its fields are not set; calloc or a constructor sets all of them"
        ),
        "if that code sets them all, the pointer of frame {} is older than the block: it was freed and handed out again"
            .replace("{}", &load.map_or(origin.frame, |load| load.frame).to_string()),
        "run the same input under valgrind (--track-origins=yes) or MemorySanitizer: they name the allocation".into(),
    ];
    wording::values_first(target, &mut finding.evidence);
    finding
}
