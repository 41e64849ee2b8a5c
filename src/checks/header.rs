//! The header between two blocks was written over: nearly always by the block before it, which ends
//! where the header begins.
//!
//! How far that block wrote is read from the bytes: text that runs on from its end, a value that is
//! repeated, a NUL in the lowest byte; else as much of the header as has changed. A header of which the lowest bytes
//! are as they were was not reached from there, and one that the data behind it goes on from was reached from behind.

mod in_front;
mod other;

use ground::target::{Address, MemoryExt};
use heaps::anomaly::AnomalyKind;
use heaps::map::{Block, BlockState};

use other::Other;

use super::finding::{Confidence, Culprit, Evidence, Finding, FindingKind, Found};
use super::link_damage::{describe_tail, overwriter_of, written_prefix};
use super::{Check, Subject, fingerprint, wording};

/// See the module.
pub struct Header;

/// Bytes behind a block that are looked at.
const MAX_RUN: usize = 1 << 16;

/// Bytes that free writes at the start of a block: both links of a bin, or a tcache's link and key.
const LINKS: usize = 16;
/// Blocks of which a bin has two more links.
const LARGE: usize = 1000;

/// What the bytes around a damaged header show.
struct Scene {
    /// Bytes of the header that were written, from its start.
    written: usize,
    /// Bytes past the end of the block before, at least.
    run: usize,
    /// They go on what that block ends with.
    runs_on: bool,
    /// What they go on with begins with that block, or fills more of it than lies behind its end: the write began there.
    begins_in_front: bool,
    /// How else they came there, if not from that block.
    other: Option<Other>,
    tail: [u8; 16],
    word: [u8; 8],
}

impl Check for Header {
    fn kinds(&self) -> &'static [FindingKind] {
        &[
            FindingKind::HeapOverrun,
            FindingKind::HeapUnderrun,
            FindingKind::CorruptMetadata,
        ]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let (block, at, what, expected, found, before, candidates) = match &subject.anomaly.kind {
            AnomalyKind::Header {
                block,
                at,
                what,
                expected,
                found,
                before,
            } => (block, at, what, expected, found, before, None),
            AnomalyKind::RestSize {
                block,
                at,
                what,
                expected,
                found,
                before,
                candidates,
            } => (
                block,
                at,
                what,
                &Some(*expected),
                found,
                &Some(*before),
                Some((*expected, candidates)),
            ),
            _ => return None,
        };
        let scene = Scene::look(subject, *at, *expected, *found, *before);
        let what = wording::field(*what);
        let what_is = format!("the {what} in front of {} is {found:#x}", block.address);
        let said = subject.anomaly.transient.is_none();
        // That the last block's text goes on in the size is chance where a smaller write explains it.
        let is_last = |candidates: &Vec<Block>| candidates.first() == before.as_ref();
        if let Some((expected, candidates)) =
            candidates.filter(|(_, known)| said && !(scene.runs_on && is_last(known)))
        {
            let rest = Rest {
                block: *block,
                expected,
                found: *found,
                candidates,
            };
            return Some(rest.finding(subject, *at, what));
        }
        let culprit = before.filter(|_| said && scene.other.is_none());
        let (kind, message) = match (culprit, scene.other.filter(|_| said)) {
            (Some(culprit), _) if scene.is_open() => (
                FindingKind::HeapOverrun,
                format!(
                    "the block {} of {} bytes was written past its end, or the one behind it in front of its start, by 8 bytes at least: {what_is}",
                    culprit.address, culprit.bytes,
                ),
            ),
            (Some(culprit), _) => (
                FindingKind::HeapOverrun,
                format!(
                    "the block {} of {} bytes was written past its end{}, by {} byte{} at least: {what_is}",
                    culprit.address,
                    culprit.bytes,
                    match scene.begins_in_front {
                        true => "",
                        false => ", or the one behind it in front of its start",
                    },
                    scene.run,
                    if scene.run == 1 { "" } else { "s" },
                ),
            ),
            (None, Some(other)) => (other.kind(), format!("{}: {what_is}", other.words(block))),
            _ => (FindingKind::CorruptMetadata, what_is),
        };
        let mut finding = wording::finding(subject, kind, block.address, Some(*block), message);
        let is_sure = scene.runs_on && scene.begins_in_front && !is_whole(*expected, *found);
        if !is_sure {
            finding.confidence = finding.confidence.min(Confidence::Likely);
        }
        finding.evidence = vec![Evidence {
            at: *at,
            bytes: 8,
            what: what.to_owned(),
            expected: expected.map_or("a size that leads to a chunk".to_owned(), |word| {
                format!("{word:#x}")
            }),
            found: Found::word(*found),
        }];
        finding.overwriter = overwriter_of(subject.target, scene.bytes(), scene.word);
        if let Some(culprit) = culprit {
            scene.blame(subject, culprit, *at, &mut finding);
        }
        finding.next_steps = match scene.other {
            Some(other) if said => other.steps(block),
            _ => steps(before.as_ref()),
        };
        if culprit.is_some() && scene.is_open() {
            finding.next_steps.push(format!(
                "if that block's code is innocent, look for a write in front of {}: these bytes do not go on what stands before them",
                block.address
            ));
        }
        Some(finding)
    }
}

/// The size of the memory that is not cut into blocks yet, off by a number that lasts.
struct Rest<'a> {
    block: Block,
    expected: u64,
    found: u64,
    candidates: &'a [Block],
}

impl Rest<'_> {
    fn finding(&self, subject: Subject<'_>, at: Address, what: &str) -> Finding {
        let block = self.block;
        let off = self.found.abs_diff(self.expected);
        let side = if self.found > self.expected {
            "beyond"
        } else {
            "short of"
        };
        let named: Vec<String> = self
            .candidates
            .iter()
            .map(|block| format!("{} of {} bytes", block.address, block.bytes))
            .collect();
        let message = format!(
            "a block that stood in front of the unused rest of the heap was written past its end: the {what} in front of {} is {:#x}, \
             {off:#x} {side} where the heap ends; whatever is cut off keeps that difference, so it need not be the last block; candidates: {}",
            block.address,
            self.found,
            named.join(", ")
        );
        let kind = FindingKind::HeapOverrun;
        let mut finding = wording::finding(subject, kind, block.address, Some(block), message);
        finding.confidence = finding.confidence.min(Confidence::Likely);
        finding.evidence = vec![wording::word_evidence(
            at,
            what,
            format!("{:#x}", self.expected),
            Found::word(self.found),
        )];
        finding.next_steps = vec![
            "look at writes past the end of blocks that were the newest ones of the heap for a time: one byte or a few".to_owned(),
            "run the same input under AddressSanitizer: it stops at the first byte written past the end".to_owned(),
        ];
        finding
    }
}

fn steps(culprit: Option<&Block>) -> Vec<String> {
    match culprit {
        Some(culprit) => vec![
            format!(
                "find who allocates {} bytes or a little less and fills them with text or arrays",
                culprit.bytes
            ),
            "run the same input under AddressSanitizer: it stops at the first byte written past the end"
                .to_owned(),
        ],
        None => vec!["set a hardware watchpoint on this word in a run that reproduces the crash".to_owned()],
    }
}

impl Scene {
    /// Whether the whole word may have been written over from either side.
    fn is_open(&self) -> bool {
        // The upper bytes of a size are zero, and so are those of most words that are written over it.
        !self.runs_on && (self.written > 4 || self.word == [0; 8])
    }

    fn look(
        subject: Subject<'_>,
        at: Address,
        expected: Option<u64>,
        found: u64,
        before: Option<Block>,
    ) -> Self {
        let memory = subject.target.memory;
        let word = found.to_le_bytes();
        let mut tail = [0; 16];
        if let Some(start) = at.checked_sub(16) {
            let _ = memory.read_into(start, &mut tail); // absent bytes stay zero: no text, no evidence
        }
        let written = expected.map_or(8, |expected| written_prefix(word, expected.to_le_bytes()));
        let behind = bytes_from(subject, at);
        let text = |byte: &u8| byte.is_ascii_graphic() || *byte == b' ';
        let [.., last] = tail;
        let ends_in_text = tail.iter().skip(12).all(text);
        let same = behind.iter().take_while(|byte| **byte == last).count();
        // A size that stands before itself, as behind a free chunk, is no data unless more than its flags were written.
        let words = Some(repeated_words(&tail, &behind))
            .filter(|words| *words > 1 || written >= 4)
            .unwrap_or(0);
        let text_run = behind.iter().take_while(|byte| text(byte)).count();
        let is_filled = tail.iter().skip(8).all(|byte| *byte == last) && same >= 4 && last != 0;
        let front = bytes_before(subject, at, before);
        // Letters that were in the header before say nothing: all that was written is text, but for the NUL that ends it.
        let begins = in_front::text(&tail, &behind, text_run);
        let through = in_front::value(&tail, &behind);
        let goes_on_in_text =
            ends_in_text && text_run > 0 && text_run + 1 >= written && !begins && through.is_none();
        let (run, runs_on, back) = if goes_on_in_text {
            // The NUL that ends a text belongs to it.
            let ended = behind.get(text_run) == Some(&0) && text_run < written.max(8);
            let back = front.iter().rev().take_while(|byte| text(byte)).count();
            (text_run + usize::from(ended && text_run >= 8), true, back)
        } else if is_filled {
            let back = front.iter().rev().take_while(|byte| **byte == last).count();
            (same, true, back)
        } else if words > 0 {
            (words * 8, true, repeated_words_back(&tail, &front) * 8)
        } else {
            let nul = written == 1 && word.first() == Some(&0) && last != 0;
            (written, nul, front.len())
        };
        let begins_in_front = back >= written_from(subject, front.len(), before)
            || back >= run
            || is_behind_prefix(back, front.len());
        // Of one value, most lies behind: whoever fills an object begins where that begins.
        let is_one_value = is_filled || words > 0;
        let other = match (runs_on, expected) {
            (false, Some(_)) if let Some(bytes) = through => Some(Other::Through(bytes)),
            (true, _) if is_one_value && !begins_in_front => Some(Other::Through(back)),
            (false, Some(_)) if begins => Some(Other::GoesOn),
            (false, Some(expected)) => Other::of(word, expected.to_le_bytes(), &behind)
                .or_else(|| in_front::element(&front, &behind).map(Other::Element)),
            _ => None,
        };
        Self {
            written: written.max(1),
            run: run.max(written).max(1),
            runs_on,
            begins_in_front,
            other,
            tail,
            word,
        }
    }

    fn bytes(&self) -> &[u8] {
        self.word.get(..self.written).unwrap_or(&self.word)
    }

    fn blame(&self, subject: Subject<'_>, culprit: Block, at: Address, finding: &mut Finding) {
        let end = self.tail.last_chunk::<8>().unwrap_or(&[0; 8]);
        finding.evidence.push(Evidence {
            at: Address::new(at.get().saturating_sub(8)),
            bytes: 8,
            what: format!("last bytes of the block {}", culprit.address),
            expected: "the end of its data".into(),
            found: Found::said(describe_tail(end)),
        });
        finding.culprit = Some(Culprit {
            block: culprit,
            state: subject.heap.map.state(culprit.id),
            contents: Some(describe_tail(&self.tail)),
        });
        finding.fingerprint = fingerprint::v1(subject, finding.kind, Some(culprit));
        finding.stacks = wording::recorded(subject, culprit).or(finding.stacks.take());
    }
}

/// Whether a header that is said to be wrong has all marks of one that is right, and a letter for its lowest byte by chance: then
/// what its size leads to may be what was written over.
fn is_whole(expected: Option<u64>, found: u64) -> bool {
    const FLAGS: u64 = 0xf;
    expected.is_some_and(|expected| (found ^ expected) & FLAGS == 0) && found & !FLAGS >= 0x20
}

/// Whole words behind the end of a block that repeat its last one, which says something.
fn repeated_words(tail: &[u8; 16], behind: &[u8]) -> usize {
    let Some(last) = tail.last_chunk::<8>() else {
        return 0;
    };
    if last.iter().all(|byte| *byte == 0) {
        return 0;
    }
    let (words, _) = behind.as_chunks::<8>();
    words.iter().take_while(|word| *word == last).count()
}

/// The same before that end.
fn repeated_words_back(tail: &[u8; 16], front: &[u8]) -> usize {
    let Some(last) = tail.last_chunk::<8>() else {
        return 0;
    };
    let (_, words) = front.as_rchunks::<8>();
    words.iter().rev().take_while(|word| *word == last).count()
}

/// Bytes of a block's `front` that still can show what the program wrote: free put its links over the first ones.
fn written_from(subject: Subject<'_>, front: usize, before: Option<Block>) -> usize {
    let is_free = |block: &Block| subject.heap.map.state(block.id) != BlockState::InUse;
    match before.filter(is_free) {
        Some(block) if block.bytes == front as u64 => shown(front),
        _ => front,
    }
}

/// Whether `back` bytes at the end of a block of `bytes` are all of it but a short beginning: the length and the kind that a
/// message begins with, or the first members of an object.
fn is_behind_prefix(back: usize, bytes: usize) -> bool {
    const PREFIX: usize = 16;
    let prefix = bytes.saturating_sub(back);
    prefix <= PREFIX && prefix.saturating_mul(4) <= bytes
}

/// Bytes that the links of a free block leave as they were.
fn shown(bytes: usize) -> usize {
    let links = if bytes < LARGE { LINKS } else { 2 * LINKS };
    bytes.saturating_sub(links)
}

/// The last bytes of the block that ends at `at`, as far as they are in the core.
fn bytes_before(subject: Subject<'_>, at: Address, before: Option<Block>) -> Vec<u8> {
    let Some(before) = before.filter(|before| before.address < at) else {
        return Vec::new();
    };
    let most = at.get().saturating_sub(MAX_RUN as u64);
    let start = before.address.max(Address::new(most));
    let bytes = at.offset_from(start).unwrap_or(0);
    let mut front = vec![0; usize::try_from(bytes).unwrap_or(0)];
    match subject.target.memory.read_into(start, &mut front) {
        Ok(()) => front,
        Err(_) => Vec::new(),
    }
}

fn bytes_from(subject: Subject<'_>, at: Address) -> Vec<u8> {
    let Ok(window) = subject.target.memory.window(at) else {
        return Vec::new();
    };
    window
        .bytes
        .get(..MAX_RUN.min(window.bytes.len()))
        .unwrap_or_default()
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::{is_behind_prefix, shown};

    #[test]
    fn a_message_begins_with_its_head() {
        assert!(is_behind_prefix(67, 72)); // memcpy(request + 5, host, length)
        assert!(is_behind_prefix(72, 72));
        assert!(!is_behind_prefix(40, 72)); // memset(block - 40, ...)
        assert!(!is_behind_prefix(16, 24));
    }

    #[test]
    fn links_hide_what_a_freed_block_began_with() {
        assert_eq!(shown(56), 40);
        assert_eq!(shown(1032), 1000);
        assert_eq!(shown(8), 0);
    }
}
