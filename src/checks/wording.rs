//! Words and parts that all checks use.

mod fields;
mod values;

use ground::target::{Address, MemoryExt, Target};
use heaps::anomaly::{
    Anomaly, AnomalyKind, BrokenWord, Edge, Expected, Field, HolderKind, ListRef, Property,
    Transient, Value,
};
use heaps::map::Block;

use super::Subject;
use super::finding::{
    BlockView, Confidence, Evidence, ExplainsCrash, Finding, FindingKind, Found, Location,
    RecordedStacks,
};
use super::fingerprint;
use crate::analysis::HeapAnalysis;

pub use fields::field;
pub use values::{expected, found, proof, value};

/// A list in words: `thread cache of thread 12 (48 bytes)`.
pub fn list(list: &ListRef) -> String {
    let holder = match (list.holder, list.thread) {
        (HolderKind::ThreadCache | HolderKind::CacheArray, Some(tid)) => {
            format!("thread cache of thread {tid}")
        }
        (HolderKind::ThreadCache, None) => "thread cache of an unknown thread".to_owned(),
        (HolderKind::CacheArray, None) => format!("cache {} of no thread in the core", list.at),
        (HolderKind::Slab, _) => format!("slab {}", list.at),
        (HolderKind::TransferCache, _) => "transfer cache".to_owned(),
        (HolderKind::CentralList, _) => format!("central list, span {}", list.at),
        (HolderKind::SpanList, _) => "list of free spans".to_owned(),
        (HolderKind::Tcache, Some(tid)) => format!("tcache of thread {tid}"),
        (HolderKind::Tcache, None) => format!("tcache at {}", list.at),
        (HolderKind::Fastbin, _) => format!("fastbin of the arena {}", list.at),
        (HolderKind::Bin, _) => return bin(list),
    };
    format!("{holder} ({} bytes)", list.class_bytes)
}

fn bin(list: &ListRef) -> String {
    match (list.class, list.class_bytes) {
        (1, _) => format!("unsorted bin at {}", list.at),
        (_, 0) => format!("large bin {} at {}", list.class, list.at),
        (_, bytes) => format!("small bin at {} ({bytes} bytes)", list.at),
    }
}

/// What the word of an edge is: `head of the thread cache ...`, `next link of the block ...`.
pub fn edge(edge: &Edge) -> String {
    let list = list(&edge.list);
    match (edge.list.holder, edge.from) {
        (HolderKind::CacheArray, _) => format!("entry {} of the {list}", edge.position),
        (HolderKind::Slab, _) => format!("the mark of block {} in the {list}", edge.position),
        (_, None) => format!("head of the {list}"),
        (_, Some(from)) => format!("next link in {from}, {list}"),
    }
}

/// A word of eight bytes as evidence.
pub fn word_evidence(
    at: Address,
    what: &str,
    expected: impl Into<String>,
    found: impl Into<Found>,
) -> Evidence {
    Evidence {
        at,
        bytes: 8,
        what: what.to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}

/// A word that is not as it should be, as evidence.
pub fn broken_evidence(word: &BrokenWord) -> Evidence {
    word_evidence(
        word.at,
        field(word.what),
        expected(&word.expected),
        found(&word.found),
    )
}

/// The word of an edge as evidence.
pub fn edge_evidence(of: &Edge, expected: impl Into<String>, found: impl Into<Found>) -> Evidence {
    word_evidence(of.word(), &edge(of), expected, found)
}

/// The block that an edge names: some lists name the header in front of it.
pub fn entry(of: &Edge, found: Address) -> Address {
    found.saturating_add(of.list.holder.lead())
}

/// What the word of an edge holds: as it is read, and as it stands there where that is another value.
pub fn stored(subject: Subject<'_>, of: &Edge, found: Address) -> Found {
    match subject.target.memory.read_u64(of.word()) {
        Ok(raw) if raw != found.get() => Found::word(raw).and(&format!(": it stands for {found}")),
        _ => found.into(),
    }
}

/// Puts the value of a word before what it means, where the words do not begin with it: a reader compares it with a dump.
pub fn values_first(target: Target<'_>, evidence: &mut [Evidence]) {
    for piece in evidence {
        let mut bytes = [0; 8];
        let kept = usize::try_from(piece.bytes).ok();
        let Some(read) = kept.and_then(|kept| bytes.get_mut(..kept)) else {
            continue;
        };
        if read.is_empty() || target.memory.read_into(piece.at, read).is_err() {
            continue;
        }
        let word = u64::from_le_bytes(bytes);
        if piece.found.value() != Some(word) {
            piece.found = Found::word(word).and(&format!(": {}", piece.found));
        }
    }
}

/// Where an edge's target stands.
pub fn location(edge: &Edge) -> Location {
    Location {
        list: edge.list,
        position: edge.position,
    }
}

/// A block as a finding shows it.
fn view(subject: Subject<'_>, block: Block, at: Address) -> BlockView {
    BlockView {
        block,
        state: subject.heap.map.state(block.id),
        offset: at.offset_from(block.address).unwrap_or(0),
    }
}

/// The stack that the allocator recorded when it handed the block out.
pub fn recorded(subject: Subject<'_>, block: Block) -> Option<RecordedStacks> {
    let allocation = subject.heap.heap.recorded_stack(block.address)?;
    Some(RecordedStacks {
        allocation,
        deallocation: Vec::new(),
    })
}

/// A finding about a word of a block in use, of which no allocator knows anything: `at` is the word, `heap` with its index that of the block.
pub fn of_word_in_use(
    target: Target<'_>,
    (index, heap): (usize, &HeapAnalysis<'_>),
    kind: FindingKind,
    (block, at): (Block, Address),
    message: String,
) -> Finding {
    let anomaly = Anomaly::new(AnomalyKind::Metadata {
        word: BrokenWord {
            of: block.address,
            at,
            what: Field::WordOfBlockInUse,
            expected: Expected::Is(Property::WrittenByTheProgram),
            found: Value::Word(target.memory.read_u64(at).unwrap_or(0)),
        },
        counts_only: false,
    });
    let subject = Subject {
        target,
        heaps: std::slice::from_ref(heap),
        index,
        heap,
        anomaly: &anomaly,
    };
    finding(subject, kind, block.address, Some(block), message)
}

/// A finding about `at`, which is or lies in `block`, with the parts that every check fills in the same way.
pub fn finding(
    subject: Subject<'_>,
    kind: FindingKind,
    at: Address,
    block: Option<Block>,
    message: String,
) -> Finding {
    let transient = subject.anomaly.transient.as_ref();
    Finding {
        kind,
        confidence: if transient.is_some() {
            Confidence::Suspected
        } else {
            Confidence::Certain
        },
        transient: transient.is_some(),
        heap: Some(subject.index),
        allocator: Some(subject.heap.identity.name()),
        at: Some(at),
        block: block.map(|block| view(subject, block, at)),
        message: match transient {
            Some(Transient { proof, .. }) => {
                format!(
                    "{message}; the allocator was at work: {}",
                    self::proof(proof)
                )
            }
            None => message,
        },
        alike: 0,
        evidence: Vec::new(),
        locations: Vec::new(),
        lost_blocks: subject.anomaly.lost_blocks,
        culprit: None,
        overwriter: None,
        stacks: block.and_then(|block| recorded(subject, block)),
        explains_crash: ExplainsCrash::Unknown,
        causes: Vec::new(),
        repairs: Vec::new(),
        unrestored: None,
        next_steps: Vec::new(),
        fingerprint: fingerprint::v1(subject, kind, block),
    }
}

/// A finding about an allocator that is not walked, or about no heap at all.
pub fn without_heap(
    allocator: Option<&'static str>,
    kind: FindingKind,
    message: String,
) -> Finding {
    Finding {
        kind,
        confidence: Confidence::Likely,
        transient: false,
        heap: None,
        allocator,
        at: None,
        block: None,
        message,
        evidence: Vec::new(),
        locations: Vec::new(),
        lost_blocks: 0,
        alike: 0,
        culprit: None,
        overwriter: None,
        stacks: None,
        explains_crash: ExplainsCrash::Unknown,
        causes: Vec::new(),
        repairs: Vec::new(),
        unrestored: None,
        next_steps: Vec::new(),
        fingerprint: fingerprint::v1_without_block(allocator.unwrap_or(""), kind),
    }
}

/// What to do about a block of `bytes` that was written past its end.
pub fn overrun_steps(bytes: u64) -> Vec<String> {
    vec![
        format!(
            "find who allocates objects of up to {bytes} bytes and fills them with text or arrays"
        ),
        "run the same input under AddressSanitizer: it stops at the first byte written past the end"
            .to_owned(),
    ]
}
