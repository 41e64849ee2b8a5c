//! What the registers of a crash hold: a free block, a word that the allocator wrote, text, a place just past a block's end.
//!
//! Facts for a reader, no judgement: a register keeps what it held long ago.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, RegionKind, Target};
use heaps::allocators::Residue;
use heaps::map::{Block, BlockState};

use super::finding::BlockView;
use super::residue::{self, Read};
use crate::analysis::Analysis;
use crate::crash::Crash;

/// Values that are no addresses: the page that is never mapped, and small negative numbers.
const SMALL: u64 = 4096;
/// Offsets in a structure are smaller; so is what Linux lets nobody map.
const MAX_NULL: u64 = 1 << 16;
/// Characters that make a value text.
const MIN_TEXT: usize = 6;
/// Free blocks whose words are compared with the other values.
const MAX_COMPARED: usize = 16;

/// What kind of thing a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// An address in a free block.
    FreeBlock,
    /// An address in a block in use.
    Block,
    /// The address just past a block's end.
    PastEnd,
    /// A word that the allocator writes into free blocks.
    AllocatorWord,
    /// Characters.
    Text,
    /// An address on the crashing thread's stack.
    Stack,
    /// An address of a module's code.
    Code,
    /// An address of a module's data.
    Static,
    /// An address in other memory.
    Mapped,
    /// Null, with an offset: what an address at fault below the first page that can be mapped was made of.
    Null,
    /// A byte over and over, with which memory is filled.
    Filling,
    /// A small number.
    Number,
    /// An address of no memory.
    Unmapped,
}

impl What {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            What::FreeBlock => "free-block",
            What::Block => "block",
            What::PastEnd => "past-end",
            What::AllocatorWord => "allocator-word",
            What::Text => "text",
            What::Stack => "stack",
            What::Code => "code",
            What::Static => "static",
            What::Mapped => "mapped",
            What::Null => "null",
            What::Filling => "filling",
            What::Number => "number",
            What::Unmapped => "unmapped",
        }
    }
}

/// A register, or the operand at fault, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterMeaning {
    /// Its DWARF number; `None` for the address that the instruction at fault works on.
    pub register: Option<u16>,
    /// Its value.
    pub value: u64,
    /// What that is.
    pub what: What,
    /// The same in words.
    pub meaning: String,
    /// The block that it leads to, or behind.
    pub block: Option<BlockView>,
}

/// What the registers of the frame at fault hold, each that is known.
pub fn of_registers(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
) -> Vec<RegisterMeaning> {
    let frames = target.threads.frames(crash.thread);
    let Some(frame) = frames.get(crash.frame) else {
        return Vec::new();
    };
    let words = words_of_free_blocks(target, analysis, frame.registers.iter());
    let meaning = |(register, value)| {
        let (what, meaning, block) = describe(target, analysis, &words, frame.sp, value);
        RegisterMeaning {
            register: Some(register),
            value,
            what,
            meaning,
            block,
        }
    };
    let mut meanings: Vec<RegisterMeaning> = frame.registers.iter().map(meaning).collect();
    meanings.extend(operand(target, analysis, crash, &words, frame.sp));
    meanings
}

/// The address that the instruction at fault works on, where it explains the fault.
fn operand(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    crash: &Crash,
    words: &BTreeMap<u64, String>,
    sp: Address,
) -> Option<RegisterMeaning> {
    let instruction = crash.instruction.as_ref()?;
    let operand = instruction.operands.first()?;
    let value = operand
        .address
        .filter(|_| instruction.explains_fault)?
        .get();
    let mut registers = operand.registers.iter();
    let is_null = value < MAX_NULL && registers.any(|register| register.value == Some(0));
    let (what, meaning, block) = match is_null {
        true if value == 0 => (What::Null, "null".to_owned(), None),
        true => (What::Null, format!("null + {value:#x}"), None),
        false => describe(target, analysis, words, sp, value),
    };
    Some(RegisterMeaning {
        register: None,
        value,
        what,
        meaning,
        block,
    })
}

/// The words that allocators keep in the free blocks that registers name, and what they are.
fn words_of_free_blocks(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    registers: impl Iterator<Item = (u16, u64)>,
) -> BTreeMap<u64, String> {
    let mut words = BTreeMap::new();
    let pointers = registers.filter(|(_, value)| {
        let found = analysis
            .heaps
            .iter()
            .find_map(|heap| Some((heap, heap.map.block_at(Address::new(*value))?)));
        found.is_some_and(|(heap, (block, _))| heap.map.state(block.id) != BlockState::InUse)
    });
    for (_, pointer) in pointers.take(MAX_COMPARED) {
        for at in [pointer, pointer.saturating_add(8)].map(Address::new) {
            if let Read::Free(freed) = residue::at(target, analysis, at, 8, None)
                && let Some(what) = freed.residue.filter(|what| what.tells())
            {
                let meaning = residue::meaning(what, freed.word);
                let of = format!("{meaning}, the word at {at} in a free block");
                words.entry(freed.word).or_insert(of);
            }
        }
    }
    words
}

/// One value, and the block that it leads to, or behind. `words`: values that are known to be an allocator's; `sp`: a place of the stack that is
/// called so.
pub fn describe(
    target: Target<'_>,
    analysis: &Analysis<'_>,
    words: &BTreeMap<u64, String>,
    sp: Address,
    value: u64,
) -> (What, String, Option<BlockView>) {
    let at = Address::new(value);
    let signature = || {
        let mut heaps = analysis.heaps.iter();
        heaps.find_map(|heap| heap.heap.signature(value))
    };
    if !(SMALL..=u64::MAX - SMALL).contains(&value) {
        return (What::Number, value.cast_signed().to_string(), None);
    }
    if let Some((what, meaning, view)) = in_heap(analysis, at) {
        let link = words.get(&value).filter(|_| what == What::FreeBlock);
        let meaning = link.map_or_else(|| meaning.clone(), |link| format!("{meaning}; {link}"));
        return (what, meaning, Some(view));
    }
    if let Some(meaning) = words.get(&value) {
        return (What::AllocatorWord, meaning.clone(), None);
    }
    if let Some(what @ (Residue::Key | Residue::Cache)) = signature() {
        return (What::AllocatorWord, residue::meaning(what, value), None);
    }
    if let Some(meaning) = filling(value) {
        return (What::Filling, meaning, None);
    }
    if let Some(text) = text(value) {
        return (What::Text, format!("\"{text}\""), None);
    }
    let module = (target.modules.iter()).find(|module| module.range.contains(&at));
    if let Some(module) = module {
        let (what, part) = match module.has_code_at(at) {
            true => (What::Code, "code"),
            false => (What::Static, "data"),
        };
        return (what, format!("{part} of {}", module.name), None);
    }
    let region = target.memory.region_at(at);
    let is_stack = region.is_some_and(|region| region.range.contains(&sp));
    match region {
        Some(_) if is_stack => (What::Stack, "the stack".to_owned(), None),
        Some(region) if region.kind == RegionKind::File => {
            (What::Mapped, "a mapped file".to_owned(), None)
        }
        Some(_) => (What::Mapped, "other memory".to_owned(), None),
        None => (What::Unmapped, "no memory".to_owned(), None),
    }
}

/// What an address is to the heap.
fn in_heap(analysis: &Analysis<'_>, at: Address) -> Option<(What, String, BlockView)> {
    for heap in &analysis.heaps {
        let map = &heap.map;
        let place = |at: Address| map.block_at(at);
        let view = |block: Block| BlockView {
            block,
            state: map.state(block.id),
            offset: at.offset_from(block.address).unwrap_or(0),
        };
        let behind = |block: Block| {
            let meaning = format!(
                "just past the end of the block {} of {} bytes",
                block.address, block.bytes
            );
            (What::PastEnd, meaning, view(block))
        };
        if let Some((block, offset)) = place(at) {
            if offset >= block.bytes {
                return Some(behind(block));
            }
            let is_free = map.state(block.id) != BlockState::InUse;
            let (what, state) = match is_free {
                true => (What::FreeBlock, "the free block"),
                false => (What::Block, "the block"),
            };
            let place = match offset {
                0 => block.address.to_string(),
                _ => format!("{}+{offset:#x}", block.address),
            };
            let meaning = format!("{state} {place} of {} bytes", block.bytes);
            return Some((what, meaning, view(block)));
        }
        let last = at.checked_sub(1).and_then(place);
        if let Some((block, offset)) = last
            && offset < block.bytes
        {
            return Some(behind(block));
        }
    }
    None
}

/// Bytes with which allocators, compilers and tools fill memory, and who does.
const FILLINGS: &[(u8, &str)] = &[
    (0x5a, "with which jemalloc fills freed memory"),
    (0xa5, "with which jemalloc fills new memory"),
    (
        0xcd,
        "with which gperftools' debug allocator fills freed memory",
    ),
    (
        0xab,
        "with which gperftools' debug allocator fills new memory",
    ),
    (0xaa, "with which clang fills variables that nobody set"),
    (0xfe, "with which gcc fills variables that nobody set"),
    (0xdf, "with which debugging allocators fill freed memory"),
    (0xe5, "with which debugging allocators fill freed memory"),
    (0xbe, "with which AddressSanitizer fills new memory"),
];

/// A byte that stands in all eight places.
fn filling(value: u64) -> Option<String> {
    let [first, ..] = value.to_le_bytes();
    let is_one = value == u64::from_le_bytes([first; 8]);
    let (byte, who) = FILLINGS.iter().find(|(byte, _)| *byte == first && is_one)?;
    Some(format!("the byte {byte:#x} over and over, {who}"))
}

/// The characters that a value consists of.
fn text(value: u64) -> Option<String> {
    let bytes = value.to_le_bytes();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(8);
    let text = bytes.get(..end)?;
    let rest = bytes.get(end..)?;
    let is_text = end >= MIN_TEXT
        && text.iter().all(|byte| matches!(byte, b' '..=b'~'))
        && rest.iter().all(|byte| *byte == 0);
    is_text.then(|| text.iter().map(|byte| char::from(*byte)).collect())
}
