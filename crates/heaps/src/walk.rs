//! Runs a heap's passes: carve, follow, describe, settle.

use crate::absent;
use crate::allocators::{Detail, GroupReport, Heap, Limit, Settled, Statistics};
use crate::anomaly::{Anomaly, AnomalyKind, BrokenWord, Expected, Field, Property, Unit, Value};
use crate::list::ListWalk;
use crate::map::{HeapMap, MapBuilder};
use ground::parallel;
use ground::target::{Address, MemoryExt, TargetMemory};

/// A heap, walked.
pub struct Walked {
    /// Its blocks.
    pub map: HeapMap,
    /// What is out of order: irregular lists first, by group, then bookkeeping.
    pub anomalies: Vec<Anomaly>,
    /// What it holds.
    pub statistics: Statistics,
    /// The allocator's own facts for the report.
    pub details: Vec<(&'static str, Detail)>,
    /// What was not analysed.
    pub limits: Vec<Limit>,
}

/// Lists that one worker follows at a time.
const BATCH: usize = 4096;

/// Walks a heap. The same core gives the same answer whatever the number of threads.
pub fn walk(heap: &dyn Heap, memory: &dyn TargetMemory) -> Walked {
    let mut builder = MapBuilder::new(heap.page_shift());
    heap.carve(&mut builder);
    let (map, overlaps, overlap_count) = builder.finish();

    let groups = parallel::for_each_index(heap.groups().into(), |group| {
        heap.free_lists(u16::try_from(group).unwrap_or(u16::MAX))
    });
    let batches: Vec<(usize, &[_])> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, lists)| lists.chunks(BATCH).map(move |batch| (group, batch)))
        .collect();
    let irregular = parallel::map(&batches, |(group, batch)| {
        let mut walk = ListWalk::new(&map, memory);
        heap.follow(batch, &mut walk);
        (*group, walk.irregular)
    });
    let mut suspicious = vec![false; groups.len()];
    for (group, irregular) in irregular {
        if let Some(mark) = suspicious.get_mut(group) {
            *mark |= irregular;
        }
    }
    let work: Vec<(&Vec<_>, bool)> = groups.iter().zip(suspicious).collect();
    let reports = parallel::map(&work, |(lists, irregular)| {
        if *irregular {
            heap.describe(lists, &map)
        } else {
            GroupReport::default()
        }
    });

    let Settled {
        anomalies: books,
        statistics,
        details,
        mut limits,
    } = heap.settle(&map, &reports);
    let mut anomalies = Vec::new();
    for report in reports {
        anomalies.extend(report.anomalies);
        limits.extend(report.limits);
    }
    anomalies.extend(books);
    set_holes_apart(&map, memory, &mut anomalies, &mut limits);
    absent::set_apart(heap, &map, memory, &mut anomalies, &mut limits);
    limits.extend(absent::blocks(memory, &map));
    let unexplained = anomalies.iter().all(|anomaly| anomaly.transient.is_some());
    if overlap_count > 0
        && unexplained
        && let Some(overlap) = overlaps.first()
    {
        // Extents that are being joined overlap for a moment.
        let passing = anomalies
            .iter()
            .find_map(|anomaly| anomaly.transient.clone());
        let mut anomaly = Anomaly::new(AnomalyKind::Metadata {
            word: BrokenWord {
                of: overlap.dropped.start,
                at: overlap.dropped.start,
                what: Field::OverlappingExtents,
                expected: Expected::Is(Property::OneOwner),
                found: Value::Amount(overlap_count, Unit::Overlaps),
            },
            counts_only: false,
        });
        anomaly.transient = passing;
        anomalies.push(anomaly);
    }
    Walked {
        map,
        anomalies,
        statistics,
        details,
        limits,
    }
}

/// Kernels leave pages that they cannot read out of a core, and readers see zeros. A word that is
/// zero in a page of nothing but zeros proves no damage: it is a limit, not an anomaly. A hole begins where a page does; zeros
/// that begin before it, inside a block, were written. A page that nobody touched yet reads the same: where a thread is at work on the
/// word, it is about to be written for the first time (the fault that gives the page is where such a thread mostly stands).
fn set_holes_apart(
    map: &HeapMap,
    memory: &dyn TargetMemory,
    anomalies: &mut Vec<Anomaly>,
    limits: &mut Vec<Limit>,
) {
    anomalies.retain(|anomaly| {
        let word = match &anomaly.kind {
            _ if anomaly.transient.is_some() => return true,
            AnomalyKind::BadEntry { edge, found, .. } if found.is_null() => edge.word(),
            AnomalyKind::Metadata { word, .. } => word.at,
            AnomalyKind::Header { at, .. } | AnomalyKind::FreeWord { at, .. } => *at,
            _ => return true,
        };
        if !is_hole(memory, word) || are_written(map, memory, word) {
            return true;
        }
        limits.push(Limit {
            what: format!("what depends on the page of {word}"),
            why: "the page holds nothing but zeros: the kernel may have left it out of the core"
                .into(),
            incomplete: true,
        });
        false
    });
}

/// Whether the zeros that fill the page of `at` begin in an earlier page, in the middle of a block in use that ends in or before
/// the page of `at`: memory that was cleared, further than the block goes. Zeros at the end of a page may be there by chance, if
/// they are few.
fn are_written(map: &HeapMap, memory: &dyn TargetMemory, at: Address) -> bool {
    /// Zeros before a page that are not there by chance.
    const ENOUGH: u64 = 64;
    /// Pages that one write is followed back over.
    const MAX_PAGES: u64 = 1 << 12;
    let page = memory.abi().page_bytes.clamp(512, 1 << 16);
    let mut start = Address::new(at.get().checked_div(page).unwrap_or(0).saturating_mul(page));
    let mut bytes = vec![0; usize::try_from(page).unwrap_or(512)];
    for _ in 0..MAX_PAGES {
        let Some(before) = start.checked_sub(page) else {
            return false;
        };
        if memory.read_into(before, &mut bytes).is_err() {
            return false;
        }
        let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count() as u64;
        if zeros < page {
            // The upper bytes of a header are zeros, too: a block begins behind it.
            let first = start.get().saturating_sub(zeros).saturating_add(15);
            let first = Address::new(first & !15);
            let block = map.block_at(first).map(|(block, _)| block);
            return zeros >= ENOUGH && block.is_some();
        }
        start = before;
    }
    false
}

fn is_hole(memory: &dyn TargetMemory, at: Address) -> bool {
    let page = memory.abi().page_bytes.clamp(512, 1 << 16);
    let start = Address::new(at.get().checked_div(page).unwrap_or(0).saturating_mul(page));
    let mut bytes = vec![0; usize::try_from(page).unwrap_or(512)];
    memory.read_into(start, &mut bytes).is_ok() && bytes.iter().all(|byte| *byte == 0)
}
