//! Memory that looks like a heap and that no walked heap claims.
//!
//! A reader must never take silence for health: a process may hold a second allocator that is not
//! known here. What is recognised is the commonest one, glibc's: chunks side by side, each with its
//! size in front.
//!
//! ```text
//! chunk ──> +0  size of the chunk before, or its data
//!           +8  size | A M P      multiple of 16; the next chunk begins `size` bytes on
//! ```
//!
//! (glibc 2.17 to 2.43, `malloc/malloc.c`, `struct malloc_chunk`.)

use std::ops::Range;

use crate::map::HeapMap;
use ground::target::{Address, Cursor, Region, RegionKind, Target};

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unclaimed {
    /// Runs of memory that look like a heap.
    pub ranges: Vec<Range<Address>>,
    /// Their bytes.
    pub bytes: u64,
    /// All writable anonymous memory in the core.
    pub anonymous_bytes: u64,
    /// What of it lies in heaps that were walked.
    pub walked_bytes: u64,
    /// What of it no heap, no module and no stack of a thread accounts for.
    pub nobodys_bytes: u64,
}

impl Unclaimed {
    /// Whether it is too much to call the process's memory wholly analysed: more than 1 %.
    pub fn is_significant(&self) -> bool {
        self.is_much(self.bytes)
    }

    /// Whether these bytes are more than 1 % of the anonymous memory.
    pub fn is_much(&self, bytes: u64) -> bool {
        bytes > self.anonymous_bytes / 100
    }
}

/// Chunks in a row that make a heap.
const MIN_CHUNKS: u32 = 8;

/// Looks through the anonymous memory that `heaps` leave.
pub fn find(target: Target<'_>, heaps: &[&HeapMap]) -> Unclaimed {
    let mut out = Unclaimed::default();
    for region in target.memory.regions() {
        if region.kind != RegionKind::Anonymous || !region.writable {
            continue;
        }
        let present = region.present_bytes;
        let walked = walked_bytes(heaps, region).min(present);
        out.anonymous_bytes = out.anonymous_bytes.saturating_add(present);
        out.walked_bytes = out.walked_bytes.saturating_add(walked);
        if present == 0 || is_stack(target, region) {
            continue;
        }
        let own = module_bytes(target, region);
        let nobodys = present.saturating_sub(walked).saturating_sub(own);
        out.nobodys_bytes = out.nobodys_bytes.saturating_add(nobodys);
        if walked > 0 {
            continue;
        }
        if let Some(range) = chunks(target, region) {
            out.bytes = out
                .bytes
                .saturating_add(range.end.get().saturating_sub(range.start.get()));
            out.ranges.push(range);
        }
    }
    out
}

fn is_stack(target: Target<'_>, region: &Region) -> bool {
    let threads = target.threads.list().iter().map(|thread| thread.sp);
    // The thread that crashed stands below its stack if that is used up, and its callers on it.
    let callers = target.threads.list().first();
    let callers = callers.map_or_else(Default::default, |_| target.threads.frames(0));
    let mut pointers = threads.chain(callers.iter().map(|frame| frame.sp));
    pointers.any(|sp| region.range.contains(&sp))
}

/// Bytes of the region that lie in extents of the heaps.
fn walked_bytes(heaps: &[&HeapMap], region: &Region) -> u64 {
    let bytes = heaps.iter().map(|map| {
        let extents = map.extents();
        let first = extents.partition_point(|extent| extent.end() <= region.range.start);
        let inside = extents.get(first..).unwrap_or_default().iter();
        inside
            .take_while(|extent| extent.start < region.range.end)
            .map(|extent| {
                let start = extent.start.max(region.range.start);
                let end = extent.end().min(region.range.end);
                end.offset_from(start).unwrap_or(0)
            })
            .fold(0, u64::saturating_add)
    });
    bytes.fold(0, u64::saturating_add)
}

/// Bytes of the region that are modules' variables.
fn module_bytes(target: Target<'_>, region: &Region) -> u64 {
    let modules = target.modules;
    let first = modules.partition_point(|module| module.range.start < region.range.start);
    // One module may begin before the region and reach into it.
    let from = modules.get(first.saturating_sub(1)..).unwrap_or_default();
    from.iter()
        .take_while(|module| module.range.start < region.range.end)
        .map(|module| {
            let start = module.range.start.max(region.range.start);
            let page = target.memory.abi().page_bytes.max(1);
            let end = module.range.end.get().checked_next_multiple_of(page);
            let end = Address::new(end.unwrap_or(u64::MAX)).min(region.range.end);
            end.offset_from(start).unwrap_or(0)
        })
        .fold(0, u64::saturating_add)
}

/// The run of chunks that begins at the start of the region, or behind the headers that glibc
/// puts in front of a secondary arena's heap.
fn chunks(target: Target<'_>, region: &Region) -> Option<Range<Address>> {
    const HEADERS: [u64; 4] = [0, 0x20, 0x30, 0x8c0];
    let mut cursor = Cursor::new(target.memory);
    HEADERS.into_iter().find_map(|header| {
        let start = region.range.start.checked_add(header)?;
        let mut at = start;
        let mut count = 0u32;
        while let Some(size) = at.checked_add(8).and_then(|at| cursor.read_u64(at).ok()) {
            let bytes = size & !15;
            // P is set wherever the chunk before is in use, so a run without it anywhere is none.
            let end = at.checked_add(bytes).filter(|end| *end <= region.range.end);
            let Some(end) = end.filter(|_| bytes >= 0x20 && size & 8 == 0) else {
                break;
            };
            at = end;
            count = count.saturating_add(1);
        }
        (count >= MIN_CHUNKS).then_some(start..at)
    })
}
