//! Absent is a third answer: what an allocator's words say of memory that the core does not hold is neither in order nor damaged.

use crate::allocators::{Heap, Limit};
use crate::anomaly::{Anomaly, AnomalyKind, BrokenWord, Stray};
use crate::map::{HeapMap, Owner, Shape};
use ground::target::{Address, Fault, MemoryExt, Target, TargetMemory};

/// Low bits that an allocator may keep beside a pointer: those of a page, or of a descriptor's alignment.
const FLAG_BITS: u64 = 0xfff;
const LOW_BITS: u64 = 0x7f;
/// Bits of a program's address on the machines that are known.
const ADDRESS_BITS: u32 = 48;
/// Bytes of the links that an allocator leaves in a block.
const MAX_LINKS: u64 = 16;
/// glibc's links are mixed with their own address, shifted by a page.
const PROTECTION_SHIFT: u32 = 12;

/// Takes out of the anomalies what rests on absent memory, and says what that was.
///
/// A word that leads there, or into memory of which nobody can tell what it is because of that, proves nothing; and where there is
/// one, counts and sums lack what lies there.
pub fn set_apart(
    heap: &dyn Heap,
    map: &HeapMap,
    memory: &dyn TargetMemory,
    anomalies: &mut Vec<Anomaly>,
    limits: &mut Vec<Limit>,
) {
    let mut places: Vec<Address> = Vec::new();
    let unknown = |at: Address| heap.is_unknown(at).then_some(at);
    let absent = |kind: &AnomalyKind| {
        leads_to(map, memory, kind)
            .or_else(|| places_of(memory, kind).into_iter().find_map(unknown))
    };
    anomalies.retain(|anomaly| match absent(&anomaly.kind) {
        Some(place) => {
            places.push(place);
            false
        }
        None => true,
    });
    let first = places.iter().min().copied();
    if first.is_none() && !heap.is_partial() {
        return;
    }
    let before = anomalies.len();
    anomalies.retain(|anomaly| !is_sum(anomaly));
    let sums = match before.saturating_sub(anomalies.len()) {
        0 => String::new(),
        dropped => format!(", and {dropped} of its counts cannot be compared"),
    };
    let Some(first) = first else {
        return; // the heap says what is not there
    };
    limits.push(Limit {
        what: format!("what the allocator has at {first}"),
        why: format!(
            "{} of its words lead into memory that is not in the core{sums}",
            places.len()
        ),
        incomplete: true,
    });
}

/// Takes the counts out of the anomalies if a thread's stack is not in the core: what it was doing with the heap is not known.
pub fn stacks(target: Target<'_>, anomalies: &mut Vec<Anomaly>, limits: &mut Vec<Limit>) {
    let mut threads = target.threads.list().iter();
    let Some(thread) = threads.find(|thread| absent(target.memory, thread.sp.get()).is_some())
    else {
        return;
    };
    let before = anomalies.len();
    anomalies.retain(|anomaly| !anomaly.is_count());
    if anomalies.len() < before {
        limits.push(Limit {
            what: format!("{} counts of the allocator", before.saturating_sub(anomalies.len())),
            why: format!(
                "the stack of thread {} is not in the core: it may have been in the middle of a change",
                thread.tid
            ),
            incomplete: true,
        });
    }
}

/// Blocks in use that lie in memory that is not in the core. The kernel leaves out a whole mapping that nobody ever touched, blocks that were
/// handed out in it included: only where a part of the mapping is there, or should be, heap was lost for sure.
pub fn blocks(memory: &dyn TargetMemory, map: &HeapMap) -> Option<Limit> {
    let extents = map.extents();
    let mut lost = 0u64;
    let mut first = None;
    let mut is_lost = false;
    for region in memory.regions() {
        if !region.writable || region.present_bytes >= region.bytes() {
            continue;
        }
        let absent = region.range.start.saturating_add(region.present_bytes);
        let from = extents.partition_point(|extent| extent.end() <= absent);
        let inside = extents.iter().skip(from);
        for extent in inside.take_while(|extent| extent.start < region.range.end) {
            let is_cut = matches!(extent.shape, Shape::Slab { .. } | Shape::Chunks { .. });
            let at = extent.start.max(absent);
            if is_cut && extent.owner == Owner::InUse && memory.window(at).is_err() {
                lost = lost.saturating_add(extent.bytes);
                is_lost |= region.dumped_bytes > 0;
                first = first.or(Some(extent.start));
            }
        }
    }
    first.map(|first| Limit {
        what: format!("{lost} bytes of blocks, the first at {first}"),
        why: "the memory is not in the core: what the blocks and the lists through them hold is not known"
            .into(),
        incomplete: is_lost,
    })
}

/// Whether an anomaly is that something is too many or too few: with a part of the heap absent it may lie there.
fn is_sum(anomaly: &Anomaly) -> bool {
    anomaly.is_count() || matches!(anomaly.kind, AnomalyKind::FreedAgain { .. })
}

/// The absent memory that the word leads to which an anomaly is about.
fn leads_to(map: &HeapMap, memory: &dyn TargetMemory, kind: &AnomalyKind) -> Option<Address> {
    match kind {
        AnomalyKind::BadEntry { edge, stray, .. } if is_known_apart(map, *stray) => {
            memory.read_u64(edge.word()).err().map(Fault::address)
        }
        AnomalyKind::BadEntry { edge, found, .. }
        | AnomalyKind::FollowedLink { edge, found, .. } => {
            absent(memory, found.get()).or_else(|| word_leads_to(memory, edge.word()))
        }
        AnomalyKind::Metadata {
            word: BrokenWord { at, .. },
            ..
        }
        | AnomalyKind::FreeWord { at, .. } => word_leads_to(memory, *at),
        // An old link that the allocator left in the block.
        AnomalyKind::Filling { at, bytes, .. } if *bytes <= MAX_LINKS => {
            word_leads_to(memory, Address::new(at.get() & !7))
        }
        _ => None,
    }
}

/// Where an anomaly is, and where its word leads.
fn places_of(memory: &dyn TargetMemory, kind: &AnomalyKind) -> Vec<Address> {
    match kind {
        AnomalyKind::BadEntry { edge, found, .. }
        | AnomalyKind::FollowedLink { edge, found, .. } => {
            // A link that is mixed with its address says nothing as it stands; what it stands for was found.
            [*found].into_iter().chain(edge.from).collect()
        }
        AnomalyKind::Metadata { word, .. } => {
            let at = word.at;
            let held = memory.read_u64(at).unwrap_or(0);
            let forms = forms_of(at, held).into_iter().map(Address::new);
            forms.chain([at]).collect()
        }
        AnomalyKind::Shared { block, .. } | AnomalyKind::ListedInUse { block, .. } => {
            vec![block.address]
        }
        AnomalyKind::FreeWord { at, .. }
        | AnomalyKind::Header { at, .. }
        | AnomalyKind::EndMark { at, .. }
        | AnomalyKind::Filling { at, .. }
        | AnomalyKind::RestSize { at, .. } => vec![*at],
        AnomalyKind::Length { .. }
        | AnomalyKind::FreedAgain { .. }
        | AnomalyKind::FatalFree { .. } => Vec::new(),
    }
}

/// Whether what an entry leads to is told by an allocator that describes blocks elsewhere than beside them: a word that leads into the
/// middle of a block, or into one of another class, does so whatever the block held.
fn is_known_apart(map: &HeapMap, stray: Stray) -> bool {
    let (Stray::Misaligned { block, .. }
    | Stray::OtherClass { block, .. }
    | Stray::FreeSpan { block, .. }) = stray
    else {
        return false;
    };
    let extent = map.extent(block.id.extent);
    extent.is_some_and(|extent| !matches!(extent.shape, Shape::Chunks { .. }))
}

/// The same of the word at `at`.
fn word_leads_to(memory: &dyn TargetMemory, at: Address) -> Option<Address> {
    let word = match memory.read_u64(at) {
        Ok(word) => word,
        Err(Fault::Unmapped(_)) => return None,
        Err(fault) => return Some(fault.address()),
    };
    forms_of(at, word)
        .into_iter()
        .find_map(|value| absent(memory, value))
}

/// What a word at `at` may stand for: each of the forms in which allocators keep pointers.
fn forms_of(at: Address, word: u64) -> [u64; 4] {
    let packed = word & ((1 << ADDRESS_BITS) - 1); // the bits above are the allocator's own
    let protected = word ^ (at.get() >> PROTECTION_SHIFT);
    [word, packed & !FLAG_BITS, packed & !LOW_BITS, protected]
}

/// The address `value`, if the process had memory there that the core does not hold.
fn absent(memory: &dyn TargetMemory, value: u64) -> Option<Address> {
    let at = Address::new(value);
    memory.is_absent(at).then_some(at)
}
