//! A thread that used up its stack: no error of the heap, and what the process died of.

use ground::target::{MemoryExt, Target};

use super::finding::{
    Cause, CauseKind, Confidence, Evidence, ExplainsCrash, Finding, FindingKind, Found,
};
use super::{Verdict, wording};
use crate::crash::Crash;
use crate::crash::exhausted::Exhausted;

/// Adds the finding, if the process died of that.
pub fn explain(target: Target<'_>, crash: &Crash, verdict: &mut Verdict) {
    let Some(found) = &crash.exhausted else {
        return;
    };
    let thread = target.threads.list().get(crash.thread);
    let tid = thread.map_or_else(String::new, |thread| format!(" of thread {}", thread.tid));
    let kind = FindingKind::StackOverflow;
    let mut finding = Finding {
        at: Some(found.fault),
        confidence: Confidence::Certain,
        ..wording::without_heap(None, kind, message(found, &tid))
    };
    finding.explains_crash = ExplainsCrash::Yes;
    let word = target.memory.read_u64(found.lowest).ok();
    finding.evidence = vec![Evidence {
        at: found.lowest,
        bytes: 8,
        what: "the lowest word of the stack".into(),
        expected: "room below it".into(),
        found: match word {
            Some(word) => Found::word(word).and(", and no memory below it"),
            None => Found::said("no memory below it"),
        },
    }];
    finding.causes = vec![Cause {
        kind: CauseKind::Operand,
        at: Some(found.fault),
        text: format!(
            "{} was to be accessed, which is below the stack's lowest word {}",
            found.fault, found.lowest
        ),
    }];
    finding.next_steps = next_steps(found);
    verdict.findings.push(finding);
}

fn message(found: &Exhausted, tid: &str) -> String {
    let used = format!(
        "the stack{tid} is used up: {} of it, down to {}",
        kib(found.bytes),
        found.lowest
    );
    let (name, bytes) = &found.last;
    let name = name.as_deref().unwrap_or("the innermost function");
    match found.repeated.as_slice() {
        [] => format!("{used}; the frame of {name} alone is {}", kib(*bytes)),
        [(only, count)] => format!("{used}; {only} stands there {count} times"),
        [(first, count), others @ ..] => {
            let others: Vec<&str> = others.iter().map(|(name, _)| name.as_str()).collect();
            format!(
                "{used}; {first} stands there {count} times, in turn with {}",
                others.join(", ")
            )
        }
    }
}

/// `8182 KiB`, `96 bytes`.
fn kib(bytes: u64) -> String {
    match bytes >> 10 {
        0..64 => format!("{bytes} bytes"),
        kib => format!("{kib} KiB"),
    }
}

fn next_steps(found: &Exhausted) -> Vec<String> {
    let mut steps = Vec::new();
    match found.entered_from {
        Some(frame) => steps.push(format!(
            "look at frame {frame} of the crashing thread, which entered the recursion, and at what was to end it"
        )),
        None if found.repeated.is_empty() => steps.push(
            "look for large arrays and alloca in the innermost frames: their place is the heap"
                .into(),
        ),
        None => steps.push("look at what was to end the recursion".into()),
    }
    steps.push(
        "run it with a larger stack (ulimit -s, pthread_attr_setstacksize): a recursion that ends passes, an endless one dies again"
            .into(),
    );
    steps
}
