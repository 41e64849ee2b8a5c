//! Who else leads to what a damaged link is said to have led to.

use ground::scan;
use ground::target::Address;
use heaps::anomaly::Edge;
use heaps::map::Block;

use crate::checks::Subject;

/// Bytes in which blocks are looked for that lead to the same one: for one link, and for all of a heap.
const MAX_SEARCHED: u64 = 1 << 28;
const MAX_SEARCHED_IN_ALL: u64 = 1 << 31;

/// Whether another block of the class leads to what the link is said to have led to: that one may have come before it, and the
/// damage may be in what led here.
pub fn by_another(
    subject: Subject<'_>,
    edge: &Edge,
    from: Block,
    is_masked: bool,
    value: Address,
) -> bool {
    if value.is_null() {
        return false;
    }
    let map = &subject.heap.map;
    let stored = |at: Address| match is_masked {
        true => value.get() ^ (at.get() >> 12),
        false => value.get(),
    };
    let Some(class) = map.extent(from.id.extent).map(|extent| extent.class) else {
        return true;
    };
    let anomalies = subject.heap.anomalies.len() as u64;
    let mut left = MAX_SEARCHED.min(MAX_SEARCHED_IN_ALL / anomalies.max(1));
    let mut extents = map.extents().iter().filter(|extent| extent.class == class);
    extents.any(|extent| {
        let bytes = extent.bytes.min(left);
        left = left.saturating_sub(extent.bytes);
        let range = extent.start..extent.start.saturating_add(bytes);
        let memory = subject.target.memory;
        let mut words = scan::words_in(memory, range, |at, word| word == stored(at));
        let is_start = |(at, _): (Address, u64)| {
            let block = map.block_at(at);
            block.is_some_and(|(block, offset)| offset == 0 && block.bytes == from.bytes)
                && at != edge.word()
        };
        words.any(is_start)
    }) || left == 0
}
