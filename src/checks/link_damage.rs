//! A free block's link was written over: by the block before it (`heap-overrun`), or through a
//! pointer to the freed block itself (`use-after-free-write`).
//!
//! Both leave the same thing, a wrong first word. What tells them apart:
//!
//! - an overrun writes a *prefix* of the word, and its bytes run on from the end of a block that is
//!   in use: text that continues, or the NUL that ends it;
//! - a write after free usually replaces the whole word or a member of it, and the bytes before it
//!   have nothing to do with it.
//!
//! Blocks with nothing between them leave both stories open more often than not ([`contest`]).

mod contest;
mod inner;
mod led_to;
mod passed_on;

use contest::{Story, Written};
use ground::target::{Address, MemoryExt, Target, TargetMemory};
use heaps::anomaly::{AnomalyKind, Edge, Repair, Stray};
use heaps::map::{Block, BlockState};

use super::finding::{
    Confidence, Culprit, Evidence, Finding, FindingKind, Found, Overwriter, OverwriterClass,
    Unrestored,
};
use super::{Check, Subject, finding, fingerprint, wording};
use crate::analysis::HeapAnalysis;

/// See the module.
pub struct LinkDamage;

impl Check for LinkDamage {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::HeapOverrun,
            FindingKind::UseAfterFreeWrite,
            FindingKind::MisalignedFreeEntry,
        ]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::BadEntry {
            edge,
            found,
            stray,
            leads_on,
            repair,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        if *leads_on {
            return None;
        }
        let from = edge.from?;
        let (block, _) = subject.heap.map.block_at(from)?;
        if *stray == Stray::NotLinkedYet || subject.anomaly.transient.is_some() {
            return Some(unlinked(subject, edge, *found, block));
        }
        let scene = Scene::look(subject, edge, block, *found, *repair);
        Some(scene.finding(subject, edge, *found, stray))
    }
}

/// A block that was published in a list before its link was written.
fn unlinked(subject: Subject<'_>, edge: &Edge, found: Address, block: Block) -> Finding {
    let message = format!(
        "the first block of the {} is not linked yet",
        wording::list(&edge.list)
    );
    let mut finding = wording::finding(
        subject,
        FindingKind::UseAfterFreeWrite,
        block.address,
        Some(block),
        message,
    );
    finding.evidence = vec![wording::edge_evidence(
        edge,
        "a free block, once free has gone on",
        found,
    )];
    finding.locations = vec![super::finding::Location {
        list: edge.list,
        position: edge.position.saturating_sub(1),
    }];
    finding.next_steps = vec!["nothing: this is no damage".to_owned()];
    finding
}

/// The bytes around a damaged link.
struct Scene {
    block: Block,
    before: Option<(Block, BlockState)>,
    /// Bytes of the word that were written, from its start: all 8 when that is not known.
    written: usize,
    word: [u8; 8],
    /// Last bytes of the block before.
    tail: [u8; 16],
    repair: Option<Repair>,
    /// What the stored word is combined with to be an address.
    mask: u64,
    story: Story,
}

impl Scene {
    fn look(
        subject: Subject<'_>,
        edge: &Edge,
        block: Block,
        found: Address,
        repair: Option<Repair>,
    ) -> Self {
        let memory = subject.target.memory;
        // Where a header stands between two blocks, nobody writes over the link and not over it.
        let adjoins =
            |before: &Block| before.address.checked_add(before.bytes) == Some(block.address);
        let before = subject
            .heap
            .map
            .block_before(block)
            .filter(adjoins)
            .map(|before| (before, subject.heap.map.state(before.id)));
        let mut tail = [0; 16];
        if let Some(at) = block.address.checked_sub(16) {
            let _ = memory.read_into(at, &mut tail); // absent bytes stay zero: no text, no evidence
        }
        // The word as it is stored, which may not be the address that it stands for.
        let raw = memory.read_u64(edge.word()).unwrap_or(found.get());
        let mask = raw ^ found.get();
        let word = raw.to_le_bytes();
        // Without the old value, what it must have looked like is still known: a block nearby.
        let old = repair.map_or(block.address, |repair| repair.value);
        let old = (old.get() ^ mask).to_le_bytes();
        let written = written_prefix(word, old);
        let mut scene = Self {
            block,
            before,
            written,
            word,
            tail,
            repair,
            mask,
            story: Story::Write,
        };
        if let Some(before) = before {
            let known = repair.filter(|repair| repair.unique);
            let facts = Written {
                bytes: written,
                starts_whole: known.is_some() && word.first() == old.first(),
                runs_on: scene.runs_on(),
                old: known.map(|repair| repair.value),
            };
            scene.story = contest::decide(&subject.heap.map, memory, before, block, &facts);
        }
        scene
    }

    fn bytes(&self) -> &[u8] {
        self.word
            .get(..self.written.clamp(1, 8))
            .unwrap_or(&self.word)
    }

    /// Whether the written bytes run on from the end of the block before.
    fn runs_on(&self) -> bool {
        let [.., last] = self.tail;
        let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let [first, ..] = self.word;
        // Text ends with one NUL, and leaves what is behind that.
        let length = self.word.iter().take_while(|byte| text(byte)).count();
        let ended = self.written == length + 1 && self.word.get(length) == Some(&0);
        let is_text = length >= 4 || length > 0 && (self.written <= length || ended);
        let ends_with_fill = self.tail.iter().skip(8).all(|byte| *byte == last);
        let fill = self.bytes().len() >= 4 && self.bytes().iter().all(|byte| *byte == first);
        let fill_begins = ends_with_fill && fill && first != last;
        let text_goes_on = is_text && self.tail.iter().skip(12).all(text) && !fill_begins;
        let text_ends = last != 0 && first == 0 && self.written == 1;
        let same_fill = self.written >= 4 && first == last && first != 0 && ends_with_fill;
        text_goes_on || text_ends || same_fill
    }

    /// One bit that no software explains: the old value is known for certain, exactly one bit
    /// differs, not in the byte at the block's edge (a NUL, a text's end, an increment or a flag
    /// would be there), the byte is neither zero nor text now, and the value names no block.
    fn flipped_bit(&self, stray: &Stray) -> Option<Overwriter> {
        let old = self.repair.filter(|repair| repair.unique)?.value.get() ^ self.mask;
        let now = u64::from_le_bytes(self.word);
        let bit = (old ^ now).trailing_zeros();
        let byte = *self.word.get(usize::try_from(bit / 8).ok()?)?;
        let named = matches!(
            stray,
            Stray::WrongEntry { .. } | Stray::OtherClass { offset: 0, .. }
        );
        let unexplained = (old ^ now).is_power_of_two()
            && bit >= 8
            && byte != 0
            && !byte.is_ascii_graphic()
            && !named;
        unexplained.then(|| Overwriter {
            class: OverwriterClass::BitFlip,
            text: Some(format!("bit {bit} of {old:#x}")),
        })
    }

    /// Whether the list may end where the link leads, inside of a block: it is one entry short at most, and null stands there. Then an
    /// inner pointer that ends in a zero byte would leave the same words.
    fn ends_there(&self, subject: Subject<'_>, found: Address, stray: &Stray) -> bool {
        let is_inside = matches!(stray, Stray::Misaligned { .. });
        let is_end = || subject.target.memory.read_u64(found) == Ok(0);
        is_inside
            && self.written == 1
            && found.get() & 0xff == 0
            && subject.anomaly.lost_blocks <= 1
            && is_end()
    }

    /// The link as it was, where only one block fits and no other story is open. A link is stored as it is, or combined with its own place.
    fn undone(&self, subject: Subject<'_>, edge: &Edge) -> Option<finding::Repair> {
        let repair = self.repair.filter(|repair| repair.unique)?;
        let own = edge.word().get() >> 12;
        // Blocks of a word each: the same write may have gone on into the next link.
        let is_whole = self.written == 8 && self.block.bytes <= 8;
        let is_plain = self.mask == 0 || self.mask == own;
        let is_it = is_plain
            && !is_whole
            && !led_to::by_another(subject, edge, self.block, self.mask != 0, repair.value);
        is_it.then(|| finding::Repair {
            at: edge.word(),
            found: u64::from_le_bytes(self.word),
            original: repair.value.get() ^ self.mask,
            proof: format!(
                "of all blocks that no list holds only {} leads on to the end of this list, with as many entries as it counts",
                repair.value
            ),
        })
    }

    fn finding(&self, subject: Subject<'_>, edge: &Edge, found: Address, stray: &Stray) -> Finding {
        if let (Story::Inner(distance), Some((before, _))) = (self.story, self.before) {
            return self.inner(subject, edge, found, (before, distance));
        }
        let overrun = self.story.is_overrun();
        let kind = if overrun {
            FindingKind::HeapOverrun
        } else {
            FindingKind::UseAfterFreeWrite
        };
        let block = self.block;
        let mut message = match self.before.filter(|_| overrun) {
            Some((culprit, _)) => format!(
                "the block {} of {} bytes was written past its end: {} of the next block's link {} overwritten",
                culprit.address,
                culprit.bytes,
                if self.written == 1 {
                    "1 byte".to_owned()
                } else {
                    format!("{} bytes", self.written)
                },
                if self.written == 1 { "is" } else { "are" },
            ),
            None => format!(
                "the free block {} of {} bytes was written to after it was freed",
                block.address, block.bytes
            ),
        };
        if let Some((before, _)) = self.before.filter(|_| self.story.is_open()) {
            message += &match (overrun, self.story) {
                (_, Story::OverrunOrInner(distance)) => format!(
                    ", or {} was freed, {distance} bytes into that block, and was filled when it had been handed out as one of its own",
                    before.address.saturating_add(distance)
                ),
                (true, _) => format!(", or {} was written to after it was freed", block.address),
                (false, _) => format!(
                    "{}, or the block {} before it was written past its end",
                    match self.written {
                        8 => ", or was freed twice",
                        _ => "",
                    },
                    before.address
                ),
            };
        }
        let ends_there = self.ends_there(subject, found, stray);
        if ends_there {
            message += &format!(", or {found} was freed, which is inside of a block");
        }
        let other = (!self.story.is_open() && !overrun)
            .then(|| passed_on::told(subject, edge, found, block, (self.written, self.repair)))
            .flatten();
        message += other.as_deref().unwrap_or_default();
        let mut finding = wording::finding(subject, kind, block.address, Some(block), message);
        let is_open = self.story.is_open() || ends_there || other.is_some();
        finding.confidence = match self.repair {
            Some(Repair { unique: true, .. }) if !is_open => Confidence::Certain,
            _ => Confidence::Likely,
        };
        let expected = match self.repair {
            Some(Repair { value, .. }) if value.is_null() => "null, the end of the list".to_owned(),
            Some(Repair {
                value,
                unique: true,
            }) => format!("{value}, the only block that fits"),
            Some(Repair {
                value,
                unique: false,
            }) => format!("perhaps {value}"),
            None => format!("null or a block of {} bytes", block.bytes),
        };
        let found_words = wording::stored(subject, edge, found).and(&stray_words(stray));
        finding.evidence = vec![wording::edge_evidence(edge, expected, found_words)];
        finding.repairs = match is_open {
            true => Vec::new(),
            false => self.undone(subject, edge).into_iter().collect(),
        };
        finding.unrestored = match self.repair {
            _ if !finding.repairs.is_empty() => None,
            Some(_) => Some(Unrestored::Ambiguous),
            None => Some(Unrestored::NothingFits),
        };
        if overrun && let Some((culprit, state)) = self.before {
            finding.evidence.push(Evidence {
                at: Address::new(block.address.get().saturating_sub(8)),
                bytes: 8,
                what: format!("last bytes of the block {}", culprit.address),
                expected: "the end of its data".into(),
                found: Found::said(describe_tail(
                    self.tail.last_chunk::<8>().unwrap_or(&[0; 8]),
                )),
            });
            finding.culprit = Some(Culprit {
                block: culprit,
                state,
                contents: Some(describe_tail(&self.tail)),
            });
            finding.fingerprint = fingerprint::v1(subject, kind, Some(culprit));
            finding.stacks = wording::recorded(subject, culprit).or(finding.stacks);
        }
        finding.locations = vec![super::finding::Location {
            list: edge.list,
            position: edge.position.saturating_sub(1),
        }];
        finding.overwriter = match self.flipped_bit(stray) {
            Some(flip) => {
                finding.confidence = finding.confidence.min(Confidence::Suspected);
                Some(flip)
            }
            None => overwriter_of(subject.target, self.bytes(), self.word),
        };
        finding.next_steps = if overrun {
            wording::overrun_steps(block.bytes)
        } else {
            vec![
                format!("find who keeps a pointer to an object of up to {} bytes after freeing it", block.bytes),
                "run the same input under AddressSanitizer: it stops at the write, with the stack of the free".to_owned(),
            ]
        };
        finding
    }
}

fn stray_words(stray: &Stray) -> String {
    match stray {
        Stray::Misaligned { block, offset } => {
            format!(", {offset} bytes into the block {}", block.address)
        }
        Stray::OtherClass { block, .. } => format!(", in a block of {} bytes", block.bytes),
        Stray::FreeSpan { .. } => ", in a free span".to_owned(),
        Stray::NotABlock => ", no block".to_owned(),
        Stray::OutsideHeap => ", outside the heap".to_owned(),
        Stray::Unmapped => ", not mapped".to_owned(),
        Stray::WrongEntry { .. } => ", a block that does not belong there".to_owned(),
        Stray::NotLinkedYet => ", not linked yet".to_owned(),
        Stray::EarlyEnd => ", before the list's recorded end".to_owned(),
        Stray::Unreadable(fault) => format!(", whose link cannot be read: {fault}"),
    }
}

/// Whether a block holds numbers of which `word` would be the next one behind its end.
pub fn numbers_go_on(memory: &dyn TargetMemory, before: Block, word: u64) -> bool {
    contest::numbers_go_on(memory, before, word)
}

/// The block `first` as the one that wrote past its end, into `second`.
pub fn culprit_in_front(
    target: Target<'_>,
    heap: &HeapAnalysis<'_>,
    first: Block,
    second: Block,
) -> Culprit {
    let mut tail = [0; 16];
    if let Some(from) = second.address.checked_sub(16) {
        let _ = target.memory.read_into(from, &mut tail);
    }
    Culprit {
        block: first,
        state: heap.map.state(first.id),
        contents: Some(describe_tail(&tail)),
    }
}

/// What the last bytes of a block are, in a word.
pub fn describe_tail(tail: &[u8]) -> String {
    let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
    if tail.iter().all(text) {
        "text".to_owned()
    } else if tail.iter().all(|byte| *byte == 0) {
        "zeros".to_owned()
    } else {
        "data".to_owned()
    }
}

/// Bytes from the start of a word up to the last one that differs.
pub fn written_prefix(word: [u8; 8], old: [u8; 8]) -> usize {
    word.iter()
        .zip(old)
        .rposition(|(new, old)| *new != old)
        .map_or(8, |last| last + 1)
}

/// What written bytes look like.
///
/// `bytes`: those that differ from what the word held, from its start. `whole`: the word as it is.
pub fn overwriter_of(target: Target<'_>, bytes: &[u8], whole: [u8; 8]) -> Option<Overwriter> {
    let mut padded = [0u8; 8];
    for (to, from) in padded.iter_mut().zip(bytes) {
        *to = *from;
    }
    let word = u64::from_le_bytes(padded);
    let say = |class, text: Option<String>| Some(Overwriter { class, text });
    if word == 0 {
        return say(
            OverwriterClass::Zero,
            Some(format!(
                "{} zero byte{}",
                bytes.len(),
                if bytes.len() == 1 { "" } else { "s" }
            )),
        );
    }
    // A pointer shares its upper bytes with the pointer that it replaced. Its other bytes may be
    // letters by chance; that letters lead into mapped memory by chance is rarer.
    let pointer = u64::from_le_bytes(whole);
    if (bytes.len() >= 4 || bytes.len() == 3 && pointer.is_multiple_of(8))
        && target.memory.region_at(Address::new(pointer)).is_some()
    {
        return say(
            OverwriterClass::Pointer,
            Some(pointer_words(target, pointer)),
        );
    }
    // Text, up to its end or a NUL.
    let text: Vec<u8> = bytes
        .iter()
        .copied()
        .take_while(|byte| *byte != 0)
        .collect();
    let printable = |bytes: &[u8]| {
        bytes
            .iter()
            .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    };
    let ends = bytes
        .get(text.len()..)
        .unwrap_or_default()
        .iter()
        .all(|byte| *byte == 0);
    if text.len() >= 2 && printable(&text) && ends {
        return say(OverwriterClass::Ascii, String::from_utf8(text).ok());
    }
    let (pairs, odd) = bytes.as_chunks::<2>();
    if pairs.len() >= 2 && odd.is_empty() {
        let wide: Vec<u8> = pairs
            .iter()
            .map(|[low, _]| *low)
            .take_while(|low| *low != 0)
            .collect();
        if wide.len() >= 2 && pairs.iter().all(|[_, high]| *high == 0) && printable(&wide) {
            return say(OverwriterClass::Utf16, String::from_utf8(wide).ok());
        }
    }
    let signed = word.cast_signed();
    if word <= 0xffff || (-0xffff..0).contains(&signed) {
        return say(OverwriterClass::SmallInteger, Some(signed.to_string()));
    }
    if bytes.len() == 8 {
        let value = f64::from_le_bytes(padded);
        if value.is_finite() && (1e-6..1e15).contains(&value.abs()) {
            return say(OverwriterClass::Float, Some(value.to_string()));
        }
        let [low, high] = [padded.first_chunk::<4>(), padded.last_chunk::<4>()]
            .map(|half| half.map_or(0.0, |half| f32::from_le_bytes(*half)));
        let everyday = |value: f32| value.is_finite() && (1e-4..1e9).contains(&value.abs());
        if everyday(high) && (everyday(low) || low == 0.0) {
            return say(OverwriterClass::Float, Some(format!("{low}, {high}")));
        }
    }
    if word <= u64::from(u32::MAX) {
        return say(OverwriterClass::SmallInteger, Some(word.to_string()));
    }
    None
}

fn pointer_words(target: Target<'_>, word: u64) -> String {
    let at = Address::new(word);
    let module = target.modules.iter().find(|module| {
        module
            .segments
            .iter()
            .any(|segment| segment.range.contains(&at))
    });
    match module {
        Some(module) => format!(
            "{at}, in {}+{:#x}",
            module.name,
            word.wrapping_sub(module.range.start.get())
        ),
        None => at.to_string(),
    }
}
