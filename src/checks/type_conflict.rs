//! Two units that define one type's name in two ways: what the one allocates is too small for what the other writes.
//!
//! ```text
//! block, a Session of 40 bytes | the next block
//!                       pointer of a Session of 48 bytes: its last member is the word of which the process died
//! ```
//!
//! Looked for where a process died of a word and nothing else explains it: the word lies behind the end of a block, and within the larger
//! definition by which something points at that block.

use ground::target::{Address, MemoryExt, Target};
use heaps::map::{Block, BlockState};

use super::finding::{Cause, CauseKind, Confidence, Evidence, FindingKind, Found};
use super::{Verdict, wording};
use crate::analysis::Analysis;
use crate::types::Type;

/// Bytes behind the end of a block in which the larger definition's members are looked for.
const MAX_BEHIND: u64 = 4096;

/// The block that ends in front of a word, if that one is in use.
pub fn in_front(analysis: &Analysis<'_>, at: Address) -> Option<Block> {
    let (heap, (block, offset)) = analysis
        .heaps
        .iter()
        .find_map(|heap| Some((heap, heap.map.block_at(at)?)))?;
    let before = heap.map.block_before(block)?;
    let is_used = heap.map.state(before.id) == BlockState::InUse;
    (is_used && offset < MAX_BEHIND).then_some(before)
}

/// Adds the two definitions, if the word at `at` is a member of the larger one.
pub fn explain(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    verdict: &mut Verdict,
    (block, at): (Block, Address),
    (small, larger): (Type, u64),
) -> Option<()> {
    let offset = at.offset_from(block.address)?;
    let end = offset.checked_add(8)?;
    if offset < block.bytes || end > larger.checked_next_multiple_of(8)? {
        return None;
    }
    let mut heaps = analysis.heaps.iter().enumerate();
    let (index, heap) = heaps.find(|(_, heap)| heap.map.block_at(block.address).is_some())?;
    let word = target.memory.read_u64(at).ok()?;
    let bytes = small.size?;
    let name = &small.name;
    let message = format!(
        "the block {} of {} bytes is a {name} of {bytes} bytes, and a pointer to it is of a {name} of {larger} bytes: two units define that name in two ways, and the block is too small for the larger one; the process died of the word at +{offset:#x}, behind the block's end, where that one's last members are",
        block.address, block.bytes
    );
    let kind = FindingKind::TypeConflict;
    let mut finding = wording::of_word_in_use(target, (index, heap), kind, (block, at), message);
    finding.confidence = Confidence::Likely;
    finding.evidence = vec![Evidence {
        at,
        bytes: 8,
        what: format!("word behind the end of the block {}", block.address),
        expected: format!("a word of the next block: the {name} in front of it has {bytes} bytes"),
        found: Found::word(word),
    }];
    finding.causes = verdict.source.as_ref()?.steps.clone();
    finding.causes.push(Cause {
        kind: CauseKind::HeldBy,
        at: Some(block.address),
        text: format!(
            "a pointer to {} is of a {name} of {larger} bytes",
            block.address
        ),
    });
    finding.next_steps = vec![
        format!(
            "look for two definitions of {name}: a header of another version, a macro that changes it, options like -fpack-struct"
        ),
        "build with -flto -Wodr: the linker names both definitions".into(),
    ];
    verdict.findings.push(finding);
    verdict.sort();
    Some(())
}
