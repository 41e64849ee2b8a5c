//! Writes of a program that went wrong.

use heapcheck::checks::finding::FindingKind;

use super::ground::{Chunk, Ground, Kind, State};
use super::layout::LARGE;
use super::truth::{Meaning, Writes};
use crate::plant::{Evidence, Plant};
use crate::words::{self, text};

/// Eight bytes as programs store them, with their name.
pub fn word(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> (&'static str, u64) {
    words::word(ground.target, rng, |rng| {
        ground.some_used(rng).map_or(0, |chunk| chunk.block())
    })
}

/// A plant of writes whose truth is that of the words that they change.
fn plant(
    ground: &Ground<'_>,
    story: String,
    writes: Writes,
    kinds: &[FindingKind],
    culprit: Option<Chunk>,
) -> Option<Plant> {
    let changes = ground.changes(&writes)?;
    let mut truth = ground.truth(&changes, kinds);
    if truth.evidence != Evidence::Absent {
        truth.culprit = culprit.map(|chunk| chunk.block());
    }
    Some(Plant {
        story,
        writes,
        truth,
    })
}

/// What is written past the end of a block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// One NUL.
    Nul,
    /// One other byte.
    Byte,
    /// Text.
    Text,
}

/// A block in use before a free one, the top chunk, or anything.
fn some_culprit(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Chunk> {
    let wanted = rng.u8(..100);
    let fits = |chunk: &Chunk| match ground.index_of(chunk.end()) {
        Some(next) if wanted < 40 => matches!(ground.chunks[next].state, State::Listed(..)),
        Some(_) => wanted < 96,
        None => wanted >= 96,
    };
    (0..200)
        .filter_map(|_| ground.some_used(rng))
        .find(fits)
        .or_else(|| ground.some_used(rng))
}

/// Bytes past the end of a block.
pub fn overrun(ground: &Ground<'_>, past: Past, rng: &mut fastrand::Rng) -> Option<Plant> {
    let culprit = some_culprit(ground, rng)?;
    let end = culprit.block_end();
    let fills = past == Past::Text || past == Past::Nul && rng.u8(..100) < 60;
    let mut writes = Vec::new();
    if fills {
        let length = (culprit.size - 8).min(64);
        writes.push((end - length, text(length as usize, rng)));
    }
    let bytes = match past {
        Past::Nul => vec![0],
        Past::Byte => vec![rng.u8(1..)],
        Past::Text => {
            let most = if rng.u8(..100) < 20 { 160 } else { 24 };
            let length = rng.usize(1..=most);
            let mut bytes = text(length, rng);
            if rng.u8(..100) < 80
                && let Some(last) = bytes.last_mut()
            {
                *last = 0;
            }
            bytes
        }
    };
    let story = format!(
        "{} bytes past the end of {:#x} ({:#x}): {:?}",
        bytes.len(),
        culprit.block(),
        culprit.size,
        String::from_utf8_lossy(&bytes)
    );
    writes.push((end, bytes));
    plant(
        ground,
        story,
        writes,
        &[FindingKind::HeapOverrun],
        Some(culprit),
    )
}

fn some_free(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<(Kind, Chunk)> {
    let kind = [Kind::Cache, Kind::Fast, Kind::Bin][rng.usize(..3)];
    let (_, list) = ground
        .some_list(kind, rng)
        .or_else(|| ground.some_list(Kind::Bin, rng))
        .or_else(|| ground.some_list(Kind::Cache, rng))?;
    let at = list.entries[rng.usize(..list.entries.len())];
    Some((list.kind, ground.chunks[ground.index_of(at)?]))
}

/// A write through a pointer to a block that was freed.
pub fn after_free(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let (kind, chunk) = some_free(ground, rng)?;
    let room = chunk.size - 8;
    let offset = match rng.u8(..10) {
        0..4 => 0,
        4 | 5 => 8,
        6 => 16,
        7 => 24,
        8 => rng.u64(..room / 8) * 8,
        _ => rng.u64(..room / 4) * 4,
    };
    let offset = offset.min(room - 8);
    let (what, mut bytes) = match rng.u8(..6) {
        0 => ("an int", rng.u32(..2000).to_le_bytes().to_vec()),
        1 => {
            let length = rng.usize(4..=16);
            ("text", text(length, rng))
        }
        2 => ("zeros", vec![0; rng.usize(1..=4) * 4]),
        _ => {
            let (what, word) = word(ground, rng);
            (what, word.to_le_bytes().to_vec())
        }
    };
    bytes.truncate((room - offset) as usize);
    let story = format!(
        "{} bytes of {what} at offset {offset} of {:#x} ({:#x}), free in a {kind:?}",
        bytes.len(),
        chunk.block(),
        chunk.size
    );
    let writes = vec![(chunk.block() + offset, bytes)];
    let foot = ground.changes(&writes)?;
    // Its last word is also what stands in front of the next block.
    let only_foot = foot
        .iter()
        .all(|change| matches!(change.meaning, Meaning::Foot(_)));
    let kinds = [FindingKind::UseAfterFreeWrite, FindingKind::HeapOverrun];
    plant(
        ground,
        story,
        writes,
        if only_foot { &kinds } else { &kinds[..1] },
        None,
    )
}

/// Bytes before a block: over its own size.
pub fn before(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let chunk = ground.some_used(rng)?;
    let length = rng.u64(1..=16);
    let (what, word) = word(ground, rng);
    let bytes = word.to_le_bytes().into_iter().cycle().take(length as usize);
    let story = format!("{length} bytes of {what} before {:#x}", chunk.block());
    let writes = vec![(chunk.block() - length, bytes.collect())];
    let kinds = [
        FindingKind::HeapUnderrun,
        FindingKind::HeapOverrun,
        FindingKind::CorruptMetadata,
        FindingKind::UseAfterFreeWrite,
    ];
    let size = ground.changes(&writes)?;
    let reaches_size = size
        .iter()
        .any(|change| matches!(change.meaning, Meaning::Size(_)));
    let kinds = if reaches_size { &kinds[..3] } else { &kinds };
    plant(ground, story, writes, kinds, None)
}

/// A word that means something: a size, or a link or key of a free chunk.
fn some_word(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<u64> {
    if rng.bool() {
        let chunk = ground.chunks.get(rng.usize(..ground.chunks.len()))?;
        return Some(chunk.at + 8);
    }
    let (kind, chunk) = some_free(ground, rng)?;
    let words = match kind {
        Kind::Fast => 1,
        Kind::Cache => 2,
        Kind::Bin if chunk.size >= LARGE => 4,
        Kind::Bin => 2,
    };
    Some(chunk.block() + rng.u64(..words) * 8)
}

/// One bit of such a word.
pub fn flipped_bit(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let at = some_word(ground, rng)?;
    let bit = rng.u32(..48);
    let new = ground.word(at)? ^ 1 << bit;
    let story = format!("bit {bit} of {:?} at {at:#x}", ground.meaning(at));
    let writes = vec![(at, new.to_le_bytes().to_vec())];
    plant(ground, story, writes, &[], None)
}

/// Eight bytes anywhere in the memory of chunks.
pub fn stray(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let at = if rng.bool() {
        some_word(ground, rng)?
    } else {
        let (start, end) = *ground.runs.get(rng.usize(..ground.runs.len().max(1)))?;
        start + 8 + rng.u64(..(end - start) / 8 - 1) * 8
    };
    let (what, word) = word(ground, rng);
    let story = format!(
        "{what} ({word:#x}) over {:?} at {at:#x}",
        ground.meaning(at)
    );
    let writes = vec![(at, word.to_le_bytes().to_vec())];
    plant(ground, story, writes, &[], None)
}
