//! glibc's own verdict: what it printed before it aborted, tied to the finding that explains it.
//!
//! Two kinds of words. Some were said when a call was *refused*: the pointer was bad, the heap is in order, and nothing but the
//! message tells of the error; the finding is made from it, and the pointer is looked for in the registers of glibc's frames.
//! The others were said when glibc *met* damage that the walk has met, too: there the message is one more piece of evidence.

mod pointer;
mod sayings;

use heaps::allocators::HeapIdentity;
use heaps::anomaly::{Anomaly, AnomalyKind};
use heaps::target::{Address, Target};

use self::pointer::Wanted;
use self::sayings::{Refusal, Saying};
use super::finding::{Confidence, Evidence, Finding, FindingKind, Severity};
use super::{Subject, Verdict, wording};
use crate::analysis::{Analysis, HeapAnalysis};
use crate::crash::LastWords;

/// Most bytes of the message that are shown as evidence.
const MAX_DUMP_BYTES: u32 = 32;

/// Adds what glibc said to the verdict: as evidence of the finding that explains it, else as a finding of its own.
pub fn explain(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    said: &LastWords,
    verdict: &mut Verdict,
) {
    let Some(saying) = sayings::of(&said.text) else {
        return;
    };
    let Some(index) = heap_of(target, analysis) else {
        return;
    };
    if let Some(finding) = explaining(&mut verdict.findings, index, saying) {
        finding.evidence.push(evidence(said));
        return;
    }
    let Some(heap) = analysis.heaps.get(index) else {
        return;
    };
    let anomaly = Anomaly {
        kind: AnomalyKind::Metadata {
            of: said.address,
            at: said.address,
            what: "__abort_msg",
            expected: "null".into(),
            found: said.text.clone(),
            counts_only: false,
        },
        transient: None,
        lost_blocks: 0,
        related: Vec::new(),
    };
    let subject = Subject {
        target,
        index,
        heap,
        anomaly: &anomaly,
    };
    verdict.findings.push(from_words(subject, saying, said));
    verdict
        .findings
        .sort_by_key(|finding| std::cmp::Reverse((finding.severity(), finding.confidence)));
}

/// glibc's heap that the crashing thread was in; the only one, as a rule.
fn heap_of(target: Target<'_>, analysis: &Analysis<'_>) -> Option<usize> {
    let frames = target.threads.frames(0);
    let is_glibc = |identity: &HeapIdentity| identity.name == "ptmalloc";
    let is_on_stack = |heap: &HeapAnalysis<'_>| {
        let module = Some(heap.identity.module);
        frames.iter().any(|frame| frame.module == module)
    };
    analysis
        .heaps
        .iter()
        .position(|heap| is_glibc(&heap.identity) && is_on_stack(heap))
}

/// The finding that explains the words: one of a kind that makes glibc say them, or the only one there is.
fn explaining<'f>(
    findings: &'f mut [Finding],
    heap: usize,
    saying: &Saying,
) -> Option<&'f mut Finding> {
    let is_candidate =
        |finding: &Finding| finding.heap == heap && finding.severity() != Severity::Note;
    let place = findings
        .iter()
        .position(|finding| is_candidate(finding) && saying.causes.contains(&finding.kind));
    let place = place.or_else(|| {
        let is_met = saying.refusal.is_none();
        findings
            .iter()
            .position(|finding| is_met && is_candidate(finding))
    });
    findings.get_mut(place?)
}

fn evidence(said: &LastWords) -> Evidence {
    let bytes = u32::try_from(said.text.len()).unwrap_or(MAX_DUMP_BYTES);
    Evidence {
        at: said.address,
        bytes: bytes.clamp(1, MAX_DUMP_BYTES),
        what: "glibc's last message".into(),
        expected: "none".into(),
        found: said.text.clone(),
    }
}

/// A finding that rests on the words alone.
fn from_words(subject: Subject<'_>, saying: &Saying, said: &LastWords) -> Finding {
    let wanted = saying.refusal.map(|refusal| Wanted {
        refusal,
        written: sayings::pointer_in(&said.text),
    });
    let pointer = wanted.and_then(|wanted| pointer::find(subject, wanted));
    let inside = pointer.and_then(|at| subject.heap.map.block_at(at));
    let kind = match (saying.refusal, inside) {
        (Some(Refusal::Cached | Refusal::Free | Refusal::Top), _) => FindingKind::DoubleFree,
        (Some(Refusal::Misaligned | Refusal::BadSize | Refusal::NotMapped), Some((_, offset)))
            if offset != 0 =>
        {
            FindingKind::MisalignedFreeEntry
        }
        (Some(_), _) => FindingKind::InvalidFreeEntry,
        (None, _) => FindingKind::CorruptMetadata,
    };
    let message = message(saying, pointer, &said.text);
    let at = pointer.unwrap_or(said.address);
    let block = inside.map(|(block, _)| block);
    let mut finding = wording::finding(subject, kind, at, block, message);
    finding.confidence = match (saying.refusal, pointer) {
        (Some(Refusal::Cached | Refusal::Free), Some(_))
            if pointer::known_caller(subject).is_some() =>
        {
            Confidence::Certain
        }
        _ => Confidence::Likely,
    };
    finding.evidence = vec![evidence(said)];
    finding.next_steps = next_steps(subject, pointer);
    finding
}

fn message(saying: &Saying, pointer: Option<Address>, text: &str) -> String {
    let what = match saying.refusal {
        Some(Refusal::Cached | Refusal::Free) => "a block was freed that is free already",
        Some(Refusal::Top) => "a block was freed that is part of the unused rest of the heap",
        Some(Refusal::Misaligned) => "a pointer was freed that is no block's: it is not aligned",
        Some(Refusal::BadSize) => {
            "a pointer was freed that is no block's: what stands before it is no size"
        }
        Some(Refusal::NotMapped) => {
            "a pointer was freed that is no block's: what stands before it says that it has a mapping of its own"
        }
        None => "glibc met damage that does not show any more",
    };
    match (saying.refusal, pointer) {
        (None, _) => format!("{what}: \"{text}\""),
        (Some(_), Some(at)) => format!("{what}: {at}; glibc refused it and aborted, \"{text}\""),
        (Some(_), None) => format!(
            "{what}; glibc refused it and aborted, \"{text}\"; which pointer, its frames do not tell"
        ),
    }
}

fn next_steps(subject: Subject<'_>, pointer: Option<Address>) -> Vec<String> {
    let caller = pointer::caller(subject);
    let mut steps = vec![match caller {
        Some(frame) => format!(
            "look at frame {frame} of the crashing thread: that call is at fault, or one before it with the same pointer"
        ),
        None => "look at the crashing thread: the caller of free is at fault".to_owned(),
    }];
    if pointer.is_none() {
        steps.push(
            "run with LD_PRELOAD=libc_malloc_debug.so.0 GLIBC_TUNABLES=glibc.malloc.check=3 (before glibc 2.34 without the \
             preload), or under valgrind, to see the pointer"
                .into(),
        );
    }
    steps
}
