//! A pointer that was kept: the block whose link was followed has been handed out since, but a word of a stack in use still leads to one
//! of that size, in the page that the link was protected for.

use ground::target::{Address, Cursor, MemoryExt};
use heaps::anomaly::Edge;
use heaps::map::{Block, BlockState};

use crate::checks::Subject;

/// Bytes of a stack that are looked through.
const MAX_STACK: u64 = 256 << 10;

/// The only block that it can be, and the word that leads there. `word`: the link as it was stored, `found`: what it stands for.
pub(super) fn by_stack(
    subject: Subject<'_>,
    edge: &Edge,
    found: Address,
    word: Option<u64>,
) -> Option<(Block, Address)> {
    let target = subject.target;
    // glibc mixes a link with the number of the page that it stands in.
    let page = word? ^ found.get();
    let threads = target.threads.list();
    let thread = threads
        .iter()
        .position(|thread| Some(thread.tid) == edge.list.thread)?;
    if page == 0 || edge.from.is_some() {
        return None;
    }
    let from = target.threads.frames(thread).first()?.sp;
    let end = target.memory.region_at(from)?.range.end;
    let bytes = end.offset_from(from)?.min(MAX_STACK);
    let start = Address::new(from.get().checked_add(7)? & !7);
    let mut cursor = Cursor::new(target.memory);
    let mut only: Option<(Block, Address)> = None;
    for index in 0..bytes / 8 {
        let at = start.checked_add(index * 8)?;
        let Ok(leads_to) = cursor.read_u64(at) else {
            break;
        };
        if leads_to >> 12 != page {
            continue;
        }
        let Some((block, 0)) = subject.heap.map.block_at(Address::new(leads_to)) else {
            continue;
        };
        let is_it = block.bytes == edge.list.class_bytes
            && subject.heap.map.state(block.id) == BlockState::InUse;
        if is_it && only.is_none_or(|(other, _)| other.address == block.address) {
            only = only.or(Some((block, at)));
        } else if is_it {
            return None;
        }
    }
    only
}
