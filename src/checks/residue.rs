//! Words of free blocks: which block, who holds it, and what the allocator itself has written there.

use ground::target::{Address, MemoryExt, Target};
use heaps::allocators::{Residue, Standing};
use heaps::map::{Block, BlockState};

use crate::analysis::{Analysis, HeapAnalysis};

/// A word of a free block.
#[derive(Clone, Copy)]
pub struct Freed<'a> {
    /// Index of the heap in the analysis.
    pub index: usize,
    /// The heap.
    pub heap: &'a HeapAnalysis<'a>,
    /// The block.
    pub block: Block,
    /// The list that holds it, where one does.
    pub standing: Option<Standing>,
    /// The word.
    pub at: Address,
    /// Its bytes.
    pub bytes: u64,
    /// What they hold.
    pub word: u64,
    /// What it is, where the allocator wrote it.
    pub residue: Option<Residue>,
}

/// What stands at an address.
pub enum Read<'a> {
    /// A word of a free block.
    Free(Freed<'a>),
    /// A word of a block in use.
    InUse,
    /// It is no block's, or not in the core.
    Nothing,
}

/// What stands at an address. `wanted`: a free block's word is of interest only if it is this.
pub fn at<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    at: Address,
    bytes: u64,
    wanted: Option<u64>,
) -> Read<'a> {
    for (index, heap) in analysis.heaps.iter().enumerate() {
        let Some((block, offset)) = heap.map.block_at(at) else {
            continue;
        };
        if heap.map.state(block.id) == BlockState::InUse {
            return Read::InUse;
        }
        let word = value_at(target, at, bytes);
        let Some(word) = word.filter(|word| wanted.is_none_or(|wanted| wanted == *word)) else {
            return Read::Nothing;
        };
        let standing = heap.heap.standing(&heap.map, block);
        let list = standing.map(|standing| standing.list);
        let place = (offset, bytes);
        let residue = heap.heap.residue(&heap.map, block, place, word, list);
        return Read::Free(Freed {
            index,
            heap,
            block,
            standing,
            at,
            bytes,
            word,
            residue,
        });
    }
    Read::Nothing
}

/// A word of a block in use that the program never wrote.
#[derive(Clone, Copy)]
pub struct LeftOver<'a> {
    /// Index of the heap in the analysis.
    pub index: usize,
    /// The heap.
    pub heap: &'a HeapAnalysis<'a>,
    /// The block.
    pub block: Block,
    /// The word.
    pub at: Address,
    /// Its bytes.
    pub bytes: u64,
    /// What they hold.
    pub word: u64,
    /// What that is.
    pub residue: Residue,
}

/// The word at an address, if it lies in a block in use and is what the allocator left there.
pub fn left_over<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    at: Address,
    bytes: u64,
) -> Option<LeftOver<'a>> {
    let (index, heap, (block, offset)) = analysis
        .heaps
        .iter()
        .enumerate()
        .find_map(|(index, heap)| Some((index, heap, heap.map.block_at(at)?)))?;
    let is_used = heap.map.state(block.id) == BlockState::InUse && offset < block.bytes;
    let word = value_at(target, at, bytes).filter(|_| is_used)?;
    let place = (offset, bytes);
    let residue = heap.heap.left_over(&heap.map, block, place, word)?;
    Some(LeftOver {
        index,
        heap,
        block,
        at,
        bytes,
        word,
        residue,
    })
}

/// What a value is that was read at `loaded_from`: a word that an allocator wrote into a free block. For whoever has such a value in
/// hand, as the argument of a call.
pub fn decode<'a>(
    target: Target<'_>,
    analysis: &'a Analysis<'a>,
    value: u64,
    loaded_from: Address,
) -> Option<Freed<'a>> {
    match self::at(target, analysis, loaded_from, 8, Some(value)) {
        Read::Free(freed) => freed.residue.is_some_and(Residue::tells).then_some(freed),
        Read::InUse | Read::Nothing => None,
    }
}

/// The number at an address.
fn value_at(target: Target<'_>, at: Address, bytes: u64) -> Option<u64> {
    match bytes {
        8 => target.memory.read_u64(at).ok(),
        4 => target.memory.read_u32(at).ok().map(u64::from),
        2 => target.memory.read_u16(at).ok().map(u64::from),
        1 => target.memory.read_u8(at).ok().map(u64::from),
        _ => None,
    }
}

/// What a word of the allocator's is, in words.
pub fn meaning(residue: Residue, word: u64) -> String {
    match residue {
        Residue::Key => {
            format!("glibc's tcache key ({word:#x}), which stands in cached blocks only")
        }
        Residue::Cache => {
            format!("the address of the thread's tcache ({word:#x}), which free wrote there")
        }
        Residue::Bin => {
            format!("the address of a bin in glibc's arena ({word:#x}), which free wrote there")
        }
        Residue::Filling(0xa5) => "the byte 0xa5 that new memory is filled with".into(),
        Residue::Filling(byte) => format!("the byte {byte:#x} that freed memory is filled with"),
        Residue::Link {
            to,
            protected,
            back,
        } => {
            let which = if back { "link back" } else { "link" };
            let kind = if protected { "protected " } else { "" };
            let leads = match (to, protected) {
                (Some(to), true) => format!(": it stands for {to}, another free block"),
                (Some(_), false) => ", another free block".to_owned(),
                (None, true) => ": it stands for null, the list's end".to_owned(),
                (None, false) => ", the list's end".to_owned(),
            };
            format!("the free list's {kind}{which} ({word:#x}{leads})")
        }
    }
}
