//! A write that ran through a whole block: the one that ends in front of the damage was written over itself, from the block before it.
//!
//! ```text
//! a block, in use | the next one, in use | a free block's link
//!      a text that  begins there and goes  on
//!                  └── loaded as a pointer: not what this block's own program wrote
//! ```

use ground::target::{MemoryExt, Target};
use heaps::map::BlockState;

use super::run;
use crate::analysis::Analysis;
use crate::checks::finding::{Cause, CauseKind, Finding, FindingKind};
use crate::checks::link_damage::culprit_in_front;

/// Bytes of the run that must stand in the block before.
const BEFORE: u64 = 8;
/// Bytes of one write that are looked at.
const MAX_RUN: u64 = 1 << 16;

/// Names the block before as the one that wrote, if the word that the process died of lies in the culprit and the run comes from there.
pub fn name(target: Target<'_>, analysis: &Analysis<'_>, finding: &mut Finding) -> Option<()> {
    let second = finding.culprit.as_ref()?.block;
    if finding.kind != FindingKind::HeapOverrun {
        return None;
    }
    // The last load is the word that was wrong; what is behind it in the way says so.
    let load = finding.causes.iter().rev();
    let mut loads = load.filter(|step| step.kind == CauseKind::Load);
    let at = loads.next()?.at?;
    let inside = at.offset_from(second.address)?;
    if inside >= second.bytes || inside > MAX_RUN {
        return None;
    }
    let heap = analysis
        .heaps
        .iter()
        .find(|heap| heap.map.block_at(second.address).is_some())?;
    let first = heap.map.block_before(second)?;
    let adjoins = first.address.checked_add(first.bytes) == Some(second.address);
    if !adjoins || heap.map.state(first.id) != BlockState::InUse || first.bytes < BEFORE {
        return None;
    }
    let from = second.address.checked_sub(BEFORE)?;
    let length = at.checked_add(8)?.offset_from(from)?;
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    target.memory.read_into(from, &mut bytes).ok()?;
    // One value may have filled both; text that goes on over the end of one block into a pointer of the next has not.
    if !run::is_text(&bytes) || run::is_one_value(&bytes) {
        return None;
    }
    finding.culprit = Some(culprit_in_front(target, heap, first, second));
    finding.message += &format!(
        "; the text begins in front of that block, in {} of {} bytes, which is the one that was written past its end",
        first.address, first.bytes
    );
    finding
        .causes
        .retain(|step| step.kind != CauseKind::WrittenBy);
    finding.causes.push(Cause {
        kind: CauseKind::WrittenBy,
        at: Some(first.address),
        text: format!(
            "the block {} of {} bytes ends in front of {}, in the same text: the bytes came from there",
            first.address, first.bytes, second.address
        ),
    });
    Some(())
}
