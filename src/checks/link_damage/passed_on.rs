//! What else leaves a wrong link in a free block, where nobody but its own user can have written it: the block was freed twice and has a
//! user again, or the link is what was left of another one.

use ground::target::{Address, MemoryExt};
use heaps::allocators::Residue;
use heaps::anomaly::{Edge, HolderKind, Repair};
use heaps::map::Block;

use super::describe_tail;
use crate::checks::Subject;

/// The other story that fits, as the rest of a sentence. `written`: bytes of the link, and what it held before.
pub(super) fn told(
    subject: Subject<'_>,
    edge: &Edge,
    found: Address,
    block: Block,
    (bytes, repair): (usize, Option<Repair>),
) -> Option<String> {
    if found.is_null() {
        // A chain that is fetched when a cache is empty ends with a null, whatever the cache counts.
        let behind = block.address.checked_add(block.bytes);
        let is_next = repair.is_some_and(|repair| Some(repair.value) == behind);
        let is_cache = edge.list.holder == HolderKind::ThreadCache;
        return (is_cache && !is_next).then(|| {
            ", or one that stood before it in the list and has been handed out since, whose link malloc followed".to_owned()
        });
    }
    let is_cached = match edge.list.holder {
        HolderKind::ThreadCache => bytes == 8,
        // What free wrote beside the link is whole, and nothing like the word was the link.
        HolderKind::Tcache => {
            repair.is_none() && !is_text(subject, edge) && !is_filled(subject, edge, block)
        }
        _ => false,
    };
    if is_cached {
        return Some(
            ", or that word was the head of the list when it was freed: the damaged link of a block that has been handed out".to_owned(),
        );
    }
    (bytes == 8 && is_filled(subject, edge, block))
        .then(|| ", or was freed twice and is in use again".to_owned())
}

/// Whether the link reads as text.
fn is_text(subject: Subject<'_>, edge: &Edge) -> bool {
    let word = subject.target.memory.read_bytes::<8>(edge.word());
    word.is_ok_and(|word| describe_tail(&word) == "text")
}

/// Whether the word behind the link was written, too, which whoever hands a block out clears or leaves to the program.
fn is_filled(subject: Subject<'_>, edge: &Edge, block: Block) -> bool {
    let memory = subject.target.memory;
    let word = |offset: u64| {
        let at = block.address.checked_add(offset)?;
        memory.read_u64(at).ok()
    };
    let (Some(first), Some(second)) = (word(0), word(8)) else {
        return false;
    };
    let heap = subject.heap;
    let residue = heap
        .heap
        .residue(&heap.map, block, (8, 8), second, Some(edge.list));
    match edge.list.holder {
        HolderKind::Tcache | HolderKind::Bin => !residue.is_some_and(Residue::tells),
        // Nothing but the link is the allocator's there.
        _ => second != 0 && first == second && block.bytes > 8,
    }
}
