//! One block, two holders of types that cannot be one: the late sign of a double free, or of a pool that handed a block out twice.
//!
//! Looked for where a process died of a word of a block in use and nothing else explains it: the word is a pointer by the type of one
//! holder, and no pointer; a number by that of another one, of which all of the block can be. A pointer that is left over from before
//! the block was freed looks the same, so that this is never certain, and suspected where the other holder is a local variable.

use ground::target::{Address, MemoryExt, Target};
use heaps::map::BlockState;

use super::finding::{
    Cause, CauseKind, Confidence, Evidence, ExplainsCrash, Finding, FindingKind, Found,
};
use super::{Verdict, wording};
use crate::analysis::Analysis;
use crate::graph::propagation::disagreement::{Disagreement, Holder, Watch};

/// The word to ask types about: that of which the process died, in a block in use that no finding is about.
pub fn wanted(verdict: &Verdict) -> Option<Watch> {
    let source = verdict.source.as_ref()?;
    let at = source.at?;
    let view = source
        .block
        .filter(|view| view.state == BlockState::InUse)?;
    let is_told = verdict.findings.iter().any(|finding| {
        // A write to the block while it was free may be what the second holder did.
        let is_late = finding.kind == FindingKind::UseAfterFreeWrite
            && finding.confidence < Confidence::Certain;
        let is_about = finding.block.map(|told| told.block.address) == Some(view.block.address);
        finding.explains_crash == ExplainsCrash::Yes || is_about && !is_late
    });
    let offset = at.offset_from(view.block.address)?;
    (!is_told && offset % 8 == 0).then_some(Watch {
        block: view.block.address,
        bytes: view.block.bytes,
        offset,
    })
}

/// Adds what the types say of it.
pub fn explain(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    verdict: &mut Verdict,
    watch: Watch,
    found: &Disagreement,
) -> Option<()> {
    let steps = verdict.source.as_ref()?.steps.clone();
    let mut told = finding(target, analysis, watch, found)?;
    told.causes = steps;
    told.causes.push(Cause {
        kind: CauseKind::HeldBy,
        at: watch.block.checked_add(watch.offset),
        text: format!(
            "the word at {}+{:#x} is a pointer to {}, and a number to {}",
            watch.block,
            watch.offset,
            said(&found.pointer),
            said(&found.number)
        ),
    });
    verdict.findings.push(told);
    verdict.sort();
    Some(())
}

/// `a Handler by the pointer at 0x..`.
fn said(holder: &Holder) -> String {
    match holder.at {
        Some(at) => format!("the pointer at {at}, which leads to {}", holder.name),
        None => format!("who holds it as {}", holder.name),
    }
}

fn finding(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    watch: Watch,
    found: &Disagreement,
) -> Option<Finding> {
    let at = watch.block.checked_add(watch.offset)?;
    let mut heaps = analysis.heaps.iter().enumerate();
    let (index, heap, block) = heaps.find_map(|(index, heap)| {
        let (block, _) = heap.map.block_at(watch.block)?;
        Some((index, heap, block))
    })?;
    let word = target.memory.read_u64(at).ok()?;
    let message = format!(
        "the block {} of {} bytes has two holders of types that cannot be one: it is {} and {}; the process died of its word at +{:#x}, which is a pointer of the first and a number of the second: the block was freed twice, or freed and handed out again while the first still used it (or the first never wrote that word, and the second is a pointer from before)",
        block.address, block.bytes, found.pointer.name, found.number.name, watch.offset
    );
    let kind = FindingKind::AliasedBlock;
    let mut finding = wording::of_word_in_use(target, (index, heap), kind, (block, at), message);
    finding.confidence = match found.number.lasts {
        true => Confidence::Likely,
        false => Confidence::Suspected,
    };
    let holder = |at: Address, name: &str| Evidence {
        at,
        bytes: 8,
        what: format!("a pointer to the block, as {name}"),
        expected: "the only type of the block".into(),
        found: Found::word(watch.block.get()),
    };
    finding.evidence = vec![Evidence {
        at,
        bytes: 8,
        what: "the word that was used as a pointer".into(),
        expected: format!("a pointer, as {} has there", found.pointer.name),
        found: Found::told(
            word,
            format!("{word:#x}, a number as {} has", found.number.name),
        ),
    }];
    let holders = [&found.pointer, &found.number];
    finding.evidence.extend(
        holders
            .into_iter()
            .filter_map(|one| Some(holder(one.at?, &one.name))),
    );
    finding.next_steps = vec![
        format!(
            "find who frees a {} while it is used, or frees it twice",
            found.pointer.name
        ),
        "run the same input under AddressSanitizer: it stops at the first use after the first free"
            .into(),
    ];
    wording::values_first(target, &mut finding.evidence);
    Some(finding)
}
