//! The allocator followed a damaged link: the head of a list is no block, and nobody wrote there. It was the link of a block that
//! has been handed out since.

mod kept;

use ground::target::{Address, Cursor, MemoryExt};
use heaps::anomaly::{AnomalyKind, Edge, Repair, Stray};
use heaps::map::{Block, BlockState, Shape};

use super::finding::{Confidence, Culprit, Evidence, Finding, FindingKind, Found};
use super::link_damage::{describe_tail, numbers_go_on, overwriter_of};
use super::place::Place;
use super::{Check, Subject, wording};

/// See the module.
pub struct FollowedLink;

impl Check for FollowedLink {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::UseAfterFreeWrite,
            FindingKind::HeapOverrun,
            FindingKind::InvalidFreeEntry,
        ]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::FollowedLink {
            edge,
            found,
            word,
            block,
            repair,
            stray,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        if let (Stray::OutsideHeap, None, None) = (stray, edge.from, block)
            && let place @ Place::Stack { .. } =
                Place::outside(subject.target, *found).of_earlier_call()
        {
            return freed_on_stack(subject, edge, *found, &place);
        }
        let ran_over = ran_over(subject, edge, *found).filter(|(culprit, behind)| match block {
            None => true,
            // What begins with the value is filled with it, and so is what is left behind it.
            Some(block) => block == culprit && holds(subject, *behind, found.get()),
        });
        let block = block.filter(|_| ran_over.is_none());
        let shown = block.zip(*word);
        let block = block.or(ran_over.map(|(_, behind)| behind));
        let kept = match block {
            None => kept::by_stack(subject, edge, *found, *word),
            Some(_) => None,
        };
        let block = block.or(kept.map(|(block, _)| block));
        let at = block.map_or(edge.word(), |block| block.address);
        let before = match ran_over {
            Some((culprit, _)) => Some(culprit_of(subject, culprit)),
            None => shown.and_then(|(block, word)| writer(subject, block, word)),
        };
        let (kind, message) = match (&before, &block) {
            (Some(culprit), Some(block)) => (
                FindingKind::HeapOverrun,
                overrun_message(edge, *found, culprit.block, *block),
            ),
            _ => (
                FindingKind::UseAfterFreeWrite,
                message(edge, *found, *word, block.filter(|_| kept.is_none())) + &kept_words(kept),
            ),
        };
        let mut finding = wording::finding(subject, kind, at, block, message);
        // Which block, and whether it was written to itself or overrun into, is not in the core.
        finding.confidence = finding.confidence.min(Confidence::Likely);
        let expected = match repair {
            Some(Repair { value, .. }) if !value.is_null() => {
                format!("{value}, the next free block")
            }
            _ => format!("null or a block of {} bytes", edge.list.class_bytes),
        };
        let stored = wording::stored(subject, edge, *found);
        finding.evidence = vec![wording::edge_evidence(edge, expected, stored)];
        if let Some((block, word)) = shown {
            finding.evidence.push(wording::word_evidence(
                block.address,
                "first word of the block that was handed out",
                "anything: it is in use",
                Found::word(word).and(", the link that was followed"),
            ));
        }
        if let Some(word) = word.filter(|word| *word != 0) {
            let bytes = word.to_le_bytes();
            finding.overwriter = overwriter_of(subject.target, &bytes, bytes);
        }
        if let (Some(culprit), None) = (&before, shown) {
            let inside = culprit.block.bytes.saturating_sub(8);
            let at = culprit.block.address.saturating_add(inside);
            finding.evidence.push(Evidence {
                at,
                bytes: 8,
                what: format!(
                    "last bytes of the block {}, the only one of its size that ends so",
                    culprit.block.address
                ),
                expected: "the end of its data".into(),
                found: Found::said(culprit.contents.clone().unwrap_or_default()),
            });
        }
        finding.locations = vec![wording::location(edge)];
        finding.next_steps = match &before {
            Some(culprit) => wording::overrun_steps(culprit.block.bytes),
            None => vec![
            format!(
                "find who keeps a pointer to an object of up to {} bytes after freeing it, and writes its first 8 bytes",
                edge.list.class_bytes
            ),
            "run the same input under AddressSanitizer: it stops at the write, with the stack of the free".to_owned(),
        ],
        };
        finding.culprit = before;
        Some(finding)
    }
}

/// A head that is an address on a stack: the allocator stored it there as it stores what is freed. What stands in it by now is
/// no link, since functions have used the stack since.
fn freed_on_stack(
    subject: Subject<'_>,
    edge: &Edge,
    found: Address,
    place: &Place,
) -> Option<Finding> {
    let (is, next) = place.words(subject.target)?;
    let message = format!(
        "free was called with {found}, {is}; or the first word of a free block of {} bytes was overwritten by that address, and malloc \
         has handed the block out since",
        edge.list.class_bytes
    );
    let mut finding =
        wording::finding(subject, FindingKind::InvalidFreeEntry, found, None, message);
    finding.confidence = finding.confidence.min(Confidence::Likely);
    let expected = format!("null or a block of {} bytes", edge.list.class_bytes);
    let stored = wording::stored(subject, edge, found);
    finding.evidence = vec![wording::edge_evidence(edge, expected, stored)];
    finding.locations = vec![wording::location(edge)];
    finding.next_steps = vec![
        next.to_owned(),
        "look for a sized delete (-fsized-deallocation), which checks nothing, of an object that is a variable".to_owned(),
    ];
    Some(finding)
}

/// The block whose end the link that was followed goes on from, and the one behind it, where that link stood: text, or one value
/// that fills both, or numbers of which it is the next. `None` if several blocks of that size end so.
fn ran_over(subject: Subject<'_>, edge: &Edge, found: Address) -> Option<(Block, Block)> {
    /// Blocks that are looked at for one list, and for all of a heap.
    const MAX_BLOCKS: u64 = 1 << 22;
    const MAX_BLOCKS_IN_ALL: u64 = 1 << 25;
    let word = found.get().to_le_bytes();
    let is_fill_of = |bytes: &[u8; 8]| bytes.windows(2).all(|pair| pair.first() == pair.last());
    let is_text = |bytes: &[u8]| describe_tail(bytes) == "text";
    let fills = is_fill_of(&word) && !found.is_null();
    let text = word.iter().position(|byte| *byte == 0).unwrap_or(8);
    // Behind the NUL that ends it stands what the link had there: the zeros that addresses begin with.
    let was_link = (text.max(6)..8).all(|at| word.get(at) == Some(&0));
    let reads = !fills && text >= 4 && is_text(word.get(..text)?) && was_link;
    if edge.from.is_some() || found.is_null() {
        return None;
    }
    let map = &subject.heap.map;
    let mut cursor = Cursor::new(subject.target.memory);
    let anomalies = subject.heap.anomalies.len() as u64;
    let mut left = MAX_BLOCKS.min(MAX_BLOCKS_IN_ALL / anomalies.max(1));
    let mut only: Option<(Block, Block)> = None;
    for (row, extent) in (0u32..).zip(map.extents()) {
        if extent.class != edge.list.class || !matches!(extent.shape, Shape::Slab { .. }) {
            continue;
        }
        left = left.checked_sub(extent.blocks().into())?;
        for slot in 1..extent.blocks() {
            let Some(behind) = extent.block(row, slot) else {
                continue;
            };
            let tail = behind.address.checked_sub(8)?;
            let Ok(tail) = cursor.read_u64(tail).map(u64::to_le_bytes) else {
                continue;
            };
            let before = extent.block(row, slot - 1)?;
            let goes_on = match (fills, reads) {
                (true, _) => tail == word,
                (_, true) => is_text(&tail) && is_varied(tail),
                _ => {
                    is_near(tail, found)
                        && numbers_go_on(subject.target.memory, before, found.get())
                }
            };
            if !goes_on || map.state(behind.id) != BlockState::InUse {
                continue;
            }
            let is_used = map.state(before.id) == BlockState::InUse;
            // Text that ran over a whole block ends that one, too.
            let is_same_run = only.is_some_and(|(_, ended)| reads && ended == before);
            if is_used && !is_same_run && only.replace((before, behind)).is_some() {
                return None;
            }
        }
    }
    only
}

/// Whether text is no remains of what a block was filled with.
fn is_varied(text: [u8; 8]) -> bool {
    let is_same = |bytes: &[u8]| bytes.iter().all(|byte| Some(byte) == bytes.first());
    !text.windows(4).any(is_same)
}

/// Whether a link may be the number behind those that a block ends with, at a first glance.
fn is_near(tail: [u8; 8], found: Address) -> bool {
    let last = u64::from_le_bytes(tail);
    let [low, high, next] = [last, last >> 32, found.get()].map(|word| word & 0xffff_ffff);
    let steps = |one: u64, two: u64| two.wrapping_sub(one) & 0xffff_ffff;
    last != 0
        && (steps(low, high) == steps(high, next)
            || found.get().abs_diff(last) <= u64::from(u32::MAX))
}

/// Whether a block holds a word anywhere.
fn holds(subject: Subject<'_>, block: Block, word: u64) -> bool {
    const MOST: u64 = 512;
    let mut cursor = Cursor::new(subject.target.memory);
    (0..block.bytes.min(MOST) / 8).any(|index| {
        let at = block.address.checked_add(8 * index);
        at.is_some_and(|at| cursor.read_u64(at) == Ok(word))
    })
}

fn culprit_of(subject: Subject<'_>, block: Block) -> Culprit {
    let tail = block.address.saturating_add(block.bytes.saturating_sub(8));
    let tail = subject.target.memory.read_bytes::<8>(tail);
    Culprit {
        block,
        state: subject.heap.map.state(block.id),
        contents: tail.ok().map(|tail| describe_tail(&tail)),
    }
}

/// The block in front, if text goes on from it over the link of the one that was handed out.
fn writer(subject: Subject<'_>, block: Block, word: u64) -> Option<Culprit> {
    let map = &subject.heap.map;
    let before = map.block_before(block)?;
    let at = block.address.checked_sub(8)?;
    let tail = subject.target.memory.read_bytes::<8>(at).ok()?;
    let state = map.state(before.id);
    let adjoins = before.address.checked_add(before.bytes) == Some(block.address);
    let is_text =
        describe_tail(&tail) == "text" && describe_tail(word.to_le_bytes().get(..2)?) == "text";
    (adjoins && is_text && state == BlockState::InUse).then(|| culprit_of(subject, before))
}

fn overrun_message(edge: &Edge, found: Address, before: Block, block: Block) -> String {
    format!(
        "the block {} of {} bytes was written past its end, over the link of {}, which malloc has handed out since and whose link it \
         followed, or that one was written to while it was free: the head of the {} at {} is {found}",
        before.address,
        before.bytes,
        block.address,
        wording::list(&edge.list),
        edge.word()
    )
}

/// The rest of a sentence about the block that a pointer which was kept leads to.
fn kept_words(kept: Option<(Block, Address)>) -> String {
    kept.map_or_else(String::new, |(block, at)| {
        format!(
            "; perhaps the block {}: the word at {at} of that thread's stack leads there, and to no other block of that size in that page",
            block.address
        )
    })
}

fn message(edge: &Edge, found: Address, word: Option<u64>, block: Option<Block>) -> String {
    let bytes = edge.list.class_bytes;
    let head = format!(
        "the head of the {} at {} is {found}",
        wording::list(&edge.list),
        edge.word()
    );
    let decoded = match word {
        Some(word) if word != found.get() => format!(" (stored in the block as {word:#x})"),
        _ => String::new(),
    };
    match block {
        Some(block) => format!(
            "the block {} of {bytes} bytes was written to while a list held it (after it was freed, or it was freed twice), or the one \
             before it past its end; malloc has handed it out since and followed its link: {head}{decoded}",
            block.address
        ),
        None if word == Some(0) => format!(
            "malloc followed a damaged link: {head}, which is how a list ends in the page {:#x}: it handed out memory there, to which \
             the link of a block of {bytes} bytes led that was written to after it was freed (or a block was freed that was none)",
            found.get().saturating_mul(1 << 12)
        ),
        None => format!(
            "a free block of {bytes} bytes was written to (after it was freed, or it was freed twice), or the one before it past its end; \
             malloc has handed it out since and followed its link: {head}{decoded}, while the words around it are whole"
        ),
    }
}
