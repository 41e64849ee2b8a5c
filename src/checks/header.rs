//! The header between two blocks was written over: nearly always by the block before it, which ends
//! where the header begins.
//!
//! How far that block wrote is read from the bytes: text that runs on from its end, a value that is
//! repeated, a NUL in the lowest byte; else as much of the header as has changed.

use heaps::anomaly::AnomalyKind;
use heaps::map::Block;
use heaps::target::{Address, MemoryExt};

use super::finding::{Confidence, Culprit, Evidence, Finding, FindingKind};
use super::link_damage::{describe_tail, overwriter_of, written_prefix};
use super::{Check, Subject, fingerprint, wording};

/// See the module.
pub struct Header;

/// Bytes behind a block that are looked at.
const MAX_RUN: usize = 1 << 16;

/// What the bytes around a damaged header show.
struct Scene {
    /// Bytes of the header that were written, from its start.
    written: usize,
    /// Bytes past the end of the block before, at least.
    run: usize,
    /// They go on what that block ends with.
    runs_on: bool,
    tail: [u8; 16],
    word: [u8; 8],
}

impl Check for Header {
    fn kinds(&self) -> &'static [FindingKind] {
        &[FindingKind::HeapOverrun, FindingKind::CorruptMetadata]
    }

    fn run(&self, subject: Subject<'_>) -> Option<Finding> {
        let AnomalyKind::Header {
            block,
            at,
            what,
            expected,
            found,
            before,
        } = &subject.anomaly.kind
        else {
            return None;
        };
        let scene = Scene::look(subject, *at, *expected, *found);
        let what_is = format!("the {what} in front of {} is {found:#x}", block.address);
        let (kind, message) = match before {
            Some(culprit) if subject.anomaly.transient.is_none() => (
                FindingKind::HeapOverrun,
                format!(
                    "the block {} of {} bytes was written past its end, by {} byte{} at least: {what_is}",
                    culprit.address,
                    culprit.bytes,
                    scene.run,
                    if scene.run == 1 { "" } else { "s" },
                ),
            ),
            _ => (FindingKind::CorruptMetadata, what_is),
        };
        let mut finding = wording::finding(subject, kind, block.address, Some(*block), message);
        if !scene.runs_on {
            finding.confidence = finding.confidence.min(Confidence::Likely);
        }
        finding.evidence = vec![Evidence {
            at: *at,
            bytes: 8,
            what: (*what).to_owned(),
            expected: expected.map_or("a size that leads to a chunk".to_owned(), |word| {
                format!("{word:#x}")
            }),
            found: format!("{found:#x}"),
        }];
        finding.overwriter = overwriter_of(subject.target, scene.bytes(), scene.word);
        if let Some(culprit) = before.filter(|_| kind == FindingKind::HeapOverrun) {
            scene.blame(subject, culprit, *at, &mut finding);
        }
        finding.next_steps = steps(before.as_ref());
        Some(finding)
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
    fn look(subject: Subject<'_>, at: Address, expected: Option<u64>, found: u64) -> Self {
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
        let words = repeated_words(&tail, &behind);
        let text_run = behind.iter().take_while(|byte| text(byte)).count();
        let (run, runs_on) = if ends_in_text && text_run > 0 {
            // The NUL that ends a text belongs to it.
            let ended = behind.get(text_run) == Some(&0) && text_run < written.max(8);
            (text_run + usize::from(ended && text_run >= 8), true)
        } else if tail.iter().skip(8).all(|byte| *byte == last) && same >= 4 && last != 0 {
            (same, true)
        } else if words > 0 {
            (words * 8, true)
        } else {
            let nul = written == 1 && word.first() == Some(&0) && last != 0;
            (written, nul)
        };
        Self {
            written: written.max(1),
            run: run.max(written).max(1),
            runs_on,
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
            found: describe_tail(end),
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
