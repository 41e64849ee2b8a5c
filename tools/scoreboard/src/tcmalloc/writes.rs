//! Writes of a program that went wrong.

use heapcheck::checks::finding::FindingKind;

use super::Sort;
use super::ground::{ChangedLink, Ground};
use crate::plant::{Evidence, Plant, Truth};
use crate::words::{self, text};

/// A plant made of writes to blocks.
pub fn plant(ground: &Ground<'_>, sort: Sort, rng: &mut fastrand::Rng) -> Option<Plant> {
    match sort {
        Sort::OverrunNul | Sort::OverrunByte | Sort::OverrunText => overrun(ground, sort, rng),
        Sort::WriteAfterFree => write_after_free(ground, rng),
        Sort::Underrun => underrun(ground, rng),
        Sort::FlippedBit => flipped_bit(ground, rng),
        Sort::StrayInHeap => stray(ground, rng),
        _ => None,
    }
}

/// Eight bytes as programs store them, with their name.
pub fn word(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> (&'static str, u64) {
    words::word(ground.target, rng, |rng| {
        ground.some_used(rng).map_or(0, |block| block.address.get())
    })
}

/// What is true of writes: nothing to be seen if no link changed.
fn truth(
    ground: &Ground<'_>,
    writes: &[(u64, Vec<u8>)],
    kind: FindingKind,
) -> Option<(Truth, Vec<ChangedLink>)> {
    let changed = ground.changed_links(writes)?;
    if changed.is_empty() {
        return Some((Truth::silence(), changed));
    }
    let mut truth = Truth::at(kind, 0);
    truth.addresses = changed
        .iter()
        .map(|link| (link.block, link.block + 1))
        .collect();
    if let [only] = changed.as_slice() {
        truth.lost = Some(ground.lost_behind(only));
    }
    Some((truth, changed))
}

/// A write of the first one or two bytes of a link behind a block in use is what that block's
/// overrun would have left, bit for bit: either kind is right then. Nobody has a pointer to a block that was never handed out,
/// so that an overrun is the better answer there.
fn or_overrun(ground: &Ground<'_>, truth: &mut Truth, changed: &[ChangedLink]) {
    if let [link] = changed
        && (link.old ^ link.new <= 0xffff && ground.user_before(link.block).is_some()
            || ground.is_fresh(link))
    {
        truth.kinds.push(FindingKind::HeapOverrun);
    }
}

fn overrun(ground: &Ground<'_>, sort: Sort, rng: &mut fastrand::Rng) -> Option<Plant> {
    let behind_free = |rng: &mut fastrand::Rng| {
        (0..400).find_map(|_| ground.user_before(ground.some_entry(rng)?))
    };
    let culprit = if rng.u8(..100) < 85 {
        behind_free(rng)?
    } else {
        ground.some_used(rng)?
    };
    let end = culprit.address.get() + culprit.bytes;
    let fills = sort == Sort::OverrunText || rng.u8(..100) < 60;
    let mut writes = Vec::new();
    if fills && sort != Sort::OverrunByte {
        let length = culprit.bytes.min(64);
        writes.push((end - length, text(length as usize, rng)));
    }
    let past = match sort {
        Sort::OverrunNul => vec![0],
        Sort::OverrunByte => vec![rng.u8(1..)],
        _ => {
            let length = rng.usize(1..=24);
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
        "{} bytes past the end of {:#x} ({} bytes): {:?}",
        past.len(),
        culprit.address,
        culprit.bytes,
        String::from_utf8_lossy(&past)
    );
    writes.push((end, past));
    let (mut truth, _) = truth(ground, &writes, FindingKind::HeapOverrun)?;
    if truth.evidence == Evidence::Present {
        truth.culprit = Some(culprit.address.get());
    }
    Some(Plant {
        story,
        writes,
        truth,
    })
}

fn write_after_free(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let block = ground.block_at(ground.some_entry(rng)?)?;
    let room = block.bytes;
    let offset = match rng.u8(..10) {
        0..7 => 0,
        7 | 8 => 4,
        _ => rng.u64(..room / 8) * 8,
    };
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
    let story = format!("{what} at offset {offset} of the free {:#x}", block.address);
    let writes = vec![(block.address.get() + offset, bytes)];
    let (mut truth, changed) = truth(ground, &writes, FindingKind::UseAfterFreeWrite)?;
    or_overrun(ground, &mut truth, &changed);
    Some(Plant {
        story,
        writes,
        truth,
    })
}

/// Bytes before a block lie at the end of the one before it: only blocks of 8 and 16 bytes have
/// their link so near. What they leave is what a write to that free block leaves.
fn underrun(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let block = (0..400)
        .filter_map(|_| ground.block_at(ground.some_entry(rng)?))
        .find(|block| block.bytes <= 16)
        .or_else(|| ground.some_used(rng))?;
    let end = block.address.get() + block.bytes;
    let length = rng.u64(1..=16.min(block.bytes));
    let (what, word) = word(ground, rng);
    let bytes = word.to_le_bytes().into_iter().cycle();
    let writes = vec![(end - length, bytes.take(length as usize).collect())];
    let story = format!("{length} bytes of {what} before {end:#x}");
    let (mut truth, changed) = truth(ground, &writes, FindingKind::UseAfterFreeWrite)?;
    or_overrun(ground, &mut truth, &changed);
    Some(Plant {
        story,
        writes,
        truth,
    })
}

/// A bit that flips by itself cannot be told from a store of that byte.
fn flipped_bit(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let block = ground.some_entry(rng)?;
    let bit = rng.u32(..48);
    let link = ground.word(block)? ^ 1 << bit;
    let writes = vec![(block, link.to_le_bytes().to_vec())];
    let (mut truth, changed) = truth(ground, &writes, FindingKind::UseAfterFreeWrite)?;
    or_overrun(ground, &mut truth, &changed);
    Some(Plant {
        story: format!("bit {bit} of the link in {block:#x}"),
        writes,
        truth,
    })
}

fn stray(ground: &Ground<'_>, rng: &mut fastrand::Rng) -> Option<Plant> {
    let at = if rng.u8(..100) < 50 {
        ground.some_entry(rng)?
    } else {
        let extent = ground.extents.get(rng.usize(..ground.extents.len()))?;
        extent.start.get() + rng.u64(..extent.bytes / 8) * 8
    };
    let (what, word) = word(ground, rng);
    let writes = vec![(at, word.to_le_bytes().to_vec())];
    let (mut truth, changed) = truth(ground, &writes, FindingKind::UseAfterFreeWrite)?;
    or_overrun(ground, &mut truth, &changed);
    Some(Plant {
        story: format!("{what} ({word:#x}) at {at:#x}"),
        writes,
        truth,
    })
}
