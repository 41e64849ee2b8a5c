//! What a bad value tells of where it came from: the block whose word malloc followed, the object that a pointer was loaded from.

use ground::target::{Address, MemoryExt};
use heaps::map::{Block, BlockState};

use super::{HEADER_BYTES, Place, Pointer, Scene};
use crate::checks::dangling::{self, Given};
use crate::checks::finding::{Confidence, Finding, FindingKind, Found};
use crate::checks::link_damage::overwriter_of;
use crate::checks::wording;

/// Words of a free block in which allocators keep links.
const LINK_WORDS: u64 = 4;

/// What the word that the pointer was loaded from lies in, if that is a block that is free.
pub fn residue(scene: Scene<'_>, pointer: &Pointer) -> Option<String> {
    let from = pointer.loaded_from?;
    let (block, offset, state) = scene.analysis.heaps.iter().find_map(|heap| {
        let (block, offset) = heap.map.block_at(from)?;
        Some((block, offset, heap.map.state(block.id)))
    })?;
    (state != BlockState::InUse).then(|| {
        format!(
            "it was read from {from}, {offset} bytes into the block {} of {} bytes, which is free: the object there was used after \
             it was freed",
            block.address, block.bytes
        )
    })
}

/// The use of a free block that the pointer was read from, or can only have been read from.
pub fn dangling(scene: Scene<'_>, pointer: &Pointer, deed: &str) -> Option<Finding> {
    let given = Given {
        value: pointer.value,
        loaded_from: pointer.loaded_from,
        is_lost: matches!(pointer.place, Place::NonCanonical | Place::Unmapped),
        confidence: match pointer.is_certain {
            true => Confidence::Certain,
            false => Confidence::Likely,
        },
        deed,
        frame: scene.death.caller.unwrap_or(scene.crash.frame),
    };
    dangling::given(scene.target, scene.analysis, scene.crash, &given)
}

/// The block whose link the allocator had followed when it died of a fault: a register has the block, and the word in it is the
/// value that made the address at fault.
pub fn damaged(scene: Scene<'_>) -> Option<Finding> {
    let heap = scene.analysis.heaps.get(scene.death.heap?)?;
    let frames = scene.target.threads.frames(scene.crash.thread);
    let registers = &frames.get(scene.crash.frame)?.registers;
    let operand = scene.crash.instruction.as_ref()?.operands.first()?;
    let values = operand
        .registers
        .iter()
        .filter_map(|register| register.value);
    let (value, block, word) = values.filter(|value| *value != 0).find_map(|value| {
        let starts = registers
            .iter()
            .flat_map(|(_, start)| [Some(start), start.checked_add(HEADER_BYTES)]);
        starts
            .flatten()
            .filter_map(|start| heap.map.block_at(Address::new(start)))
            .filter(|(block, offset)| *offset == 0 && heap.map.state(block.id) != BlockState::InUse)
            .find_map(|(block, _)| Some((value, block, word_with(scene, block, value)?)))
    })?;
    let state = heap.map.state(block.id);
    let kind = FindingKind::UseAfterFreeWrite;
    let message = format!(
        "the block {} of {} bytes was written over while it was free: {} followed {value:#x}, which stands at {word}, and died of it",
        block.address,
        block.bytes,
        scene.death.allocator.name()
    );
    let place = Place::Block {
        heap: scene.death.heap?,
        block,
        state,
        offset: 0,
    };
    let mut finding = scene.finding(kind, Some(block.address), Some(&place), message);
    finding.evidence = vec![wording::word_evidence(
        word,
        "link of the block",
        "a free block",
        Found::word(value),
    )];
    finding.overwriter = overwriter_of(scene.target, &value.to_le_bytes(), value.to_le_bytes());
    finding.next_steps = vec![format!(
        "find who keeps a pointer to an object of up to {} bytes after freeing it, or writes past the end of the one before it",
        block.bytes
    )];
    Some(finding)
}

/// The word among a block's links that holds `value`, as it is or as glibc protects links.
fn word_with(scene: Scene<'_>, block: Block, value: u64) -> Option<Address> {
    (0..LINK_WORDS).find_map(|index| {
        let at = block.address.checked_add(index.checked_mul(8)?)?;
        let found = scene.target.memory.read_u64(at).ok()?;
        (found == value || found ^ (at.get() >> 12) == value).then_some(at)
    })
}
