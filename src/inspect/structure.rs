//! Which structure of an allocator an address is in, and which blocks are beside it.

use ground::target::{Address, MemoryExt};
use heaps::allocators::{Detail, Family};
use heaps::map::Block;

use super::{Inspection, Neighbour, view};
use crate::analysis::HeapAnalysis;

/// Bytes of headers between blocks, at most.
const MAX_BETWEEN: u64 = 16;
/// Bytes behind a structure's start that are taken for its own.
const MAX_STRUCTURE: u64 = 1 << 16;
/// Facts of an allocator that are looked through.
const MAX_FACTS: usize = 1 << 16;

/// The blocks before and behind a block.
pub(super) fn neighbours(heap: &HeapAnalysis<'_>, block: Block) -> Vec<Neighbour> {
    let before = heap.map.block_before(block);
    let end = block.address.saturating_add(block.bytes);
    let behind = next(heap, end);
    both(heap, before, behind)
}

/// The blocks before and behind a place that is in none.
pub(super) fn beside(heap: &HeapAnalysis<'_>, at: Address) -> Vec<Neighbour> {
    let behind = next(heap, at);
    let before = match behind {
        Some(behind) => heap.map.block_before(behind),
        None => (1..=MAX_BETWEEN).find_map(|back| {
            let (block, _) = heap.map.block_at(at.checked_sub(back)?)?;
            Some(block)
        }),
    };
    both(heap, before, behind)
}

fn both(heap: &HeapAnalysis<'_>, before: Option<Block>, behind: Option<Block>) -> Vec<Neighbour> {
    let neighbour = |is_before| {
        move |block| Neighbour {
            is_before,
            block: view(heap, block, 0),
        }
    };
    let before = before.map(neighbour(true)).into_iter();
    before.chain(behind.map(neighbour(false))).collect()
}

/// The first block that begins at `at` or a header's length behind.
fn next(heap: &HeapAnalysis<'_>, at: Address) -> Option<Block> {
    (0..=MAX_BETWEEN).find_map(|gap| {
        let (block, offset) = heap.map.block_at(at.checked_add(gap)?)?;
        (offset == 0).then_some(block)
    })
}

/// The block whose header the word at `at` belongs to, where the allocator has headers, and what the header says.
pub(super) fn header(heap: &HeapAnalysis<'_>, at: Address) -> Option<Block> {
    if heap.identity.family != Family::Ptmalloc || heap.map.block_at(at).is_some() {
        return None;
    }
    let block = next(heap, at.checked_add(1)?)?;
    let distance = block.address.offset_from(at)?;
    (distance <= MAX_BETWEEN).then_some(block)
}

/// The structure that `at` is in, by the allocator's own facts and the names of variables.
pub(super) fn of(heap: &HeapAnalysis<'_>, at: Address, found: &Inspection) -> Option<String> {
    if let Some((name, offset)) = &found.symbol {
        return Some(super::plus(&(name.clone(), *offset)));
    }
    if let Some(block) = header(heap, at) {
        return Some(format!(
            "the header of the chunk of the block {}",
            block.address
        ));
    }
    let parts = heap.identity.located.iter();
    let mut known: Vec<(Address, String)> =
        parts.map(|part| (part.at, part.part.to_owned())).collect();
    collect(&heap.details, &mut known);
    let own: Vec<_> = heap.heap.own_memory();
    let here = own.iter().find(|range| range.contains(&at));
    let block = found.block.map(|view| view.block);
    let near = known.into_iter().filter(|(start, _)| {
        let distance = at.offset_from(*start);
        let in_one = here.is_some_and(|range| range.contains(start))
            || block.is_some_and(|block| {
                *start >= block.address && *start < block.address.saturating_add(block.bytes)
            });
        in_one && distance.is_some_and(|distance| distance < MAX_STRUCTURE)
    });
    let (start, name) = near.max_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)))?;
    let offset = at.offset_from(start)?;
    Some(super::plus(&(name, offset)))
}

/// Addresses among an allocator's facts, each by its path: `arenas[1].top`; a structure's own address by the path to the structure.
fn collect(details: &[(&'static str, Detail)], known: &mut Vec<(Address, String)>) {
    let named = |(name, detail): &'_ (&'static str, Detail)| ((*name).to_owned(), detail.clone());
    let mut open: Vec<(String, Detail)> = details.iter().map(named).collect();
    let mut looked = 0;
    while let Some((path, detail)) = open.pop() {
        looked += 1;
        if looked > MAX_FACTS {
            return;
        }
        match detail {
            Detail::Address(at) if !at.is_null() => {
                let name = path.strip_suffix(".address").unwrap_or(&path);
                known.push((at, name.to_owned()));
            }
            Detail::List(items) => {
                let items = items.into_iter().enumerate();
                open.extend(items.map(|(index, item)| (format!("{path}[{index}]"), item)));
            }
            Detail::Table(rows) => {
                open.extend(
                    rows.into_iter()
                        .map(|(name, item)| (format!("{path}.{name}"), item)),
                );
            }
            _ => {}
        }
    }
}

/// The size word of glibc's header in words: `0x31`, 48 bytes, the chunk before is in use.
pub(super) fn size_word(memory: &dyn ground::target::TargetMemory, at: Address) -> Option<String> {
    let word = memory.read_u64(at).ok()?;
    let mut said = format!("the chunk has {} bytes", word & !7);
    let before = match word & 1 {
        1 => "the one before is in use",
        _ => "the one before is free",
    };
    said = format!("{said}, {before}");
    if word & 2 != 0 {
        said.push_str(", with a mapping of its own");
    }
    if word & 4 != 0 {
        said.push_str(", of another arena than main's");
    }
    Some(said)
}
