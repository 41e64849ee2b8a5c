//! What an address is, by every witness: the heap's block or the allocator's own structure, the thread's stack and variable, the module's
//! symbol, the mapping; what stands around it, and who points there.
//!
//! ```text
//! address ──┬── place    what it is            words ── each word around it, decoded
//!           └── near     the blocks beside it  references ── who points there         (graph)
//! ```

mod place;
mod structure;
mod words;

use std::ops::Range;

use ground::target::{Address, ModuleId};
use heaps::allocators::Standing;
use heaps::map::Block;

use crate::analysis::HeapAnalysis;
use crate::checks::finding::BlockView;
use crate::graph::Ground;
use crate::graph::holders::{FrameSlot, MAX_SHOWN, References};
use place::Look;
pub use words::Word;

/// Below this a word is a number.
const SMALL: u64 = 1 << 16;

/// What an address is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum What {
    /// In a block of a heap.
    HeapBlock,
    /// In an allocator's own memory.
    Allocator,
    /// On a thread's stack.
    Stack,
    /// In thread-local storage, or what libc keeps of a thread.
    Tls,
    /// Among the variables and constants of a module.
    Global,
    /// Instructions.
    Code,
    /// In another mapping.
    Mapping,
    /// Mapped, and not in the core.
    NotDumped,
    /// No memory.
    #[default]
    Unmapped,
    /// No memory, and made of characters.
    Text,
}

impl What {
    /// The name in the report.
    pub fn name(self) -> &'static str {
        match self {
            What::HeapBlock => "heap-block",
            What::Allocator => "allocator",
            What::Stack => "stack",
            What::Tls => "tls",
            What::Global => "global",
            What::Code => "code",
            What::Mapping => "mapping",
            What::NotDumped => "not-dumped",
            What::Unmapped => "unmapped",
            What::Text => "text",
        }
    }
}

/// A block beside an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// It lies before; else behind.
    pub is_before: bool,
    /// The block; its offset is 0.
    pub block: BlockView,
}

/// A variable, a function: its name, and the bytes from its start.
pub type Named = (String, u64);

/// Everything that is known of an address.
#[derive(Clone, Debug, Default)]
pub struct Inspection {
    /// The address.
    pub at: Address,
    /// What it is.
    pub what: What,
    /// The same in a sentence.
    pub message: String,
    /// Index of the heap that it belongs to.
    pub heap: Option<usize>,
    /// The block that holds it.
    pub block: Option<BlockView>,
    /// The list that holds that block.
    pub standing: Option<Standing>,
    /// Where that block was allocated, if the allocator recorded it: innermost first.
    pub allocated_by: Vec<Address>,
    /// The blocks before and behind.
    pub neighbours: Vec<Neighbour>,
    /// The allocator's structure that it is in.
    pub structure: Option<String>,
    /// The thread whose stack or storage it is in.
    pub thread: Option<u32>,
    /// The frame that it lies in.
    pub slot: Option<FrameSlot>,
    /// The variable of that frame.
    pub variable: Option<Named>,
    /// The variable of a module or a thread; the function, for code.
    pub symbol: Option<Named>,
    /// The module, and the bytes from its start.
    pub module: Option<Named>,
    /// The section of the module's file.
    pub section: Option<String>,
    /// The source of an instruction: file and line.
    pub source: Option<(String, Option<u32>)>,
    /// The mapping that it lies in.
    pub mapping: Option<Mapped>,
    /// The words around it.
    pub words: Vec<Word>,
    /// Who points there.
    pub references: References,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Its addresses.
    pub range: Range<Address>,
    /// As `rw-`.
    pub permissions: String,
    /// The file that is mapped there.
    pub file: Option<String>,
}

/// What each of these addresses is; `words` of each are decoded. Who points there costs one pass for all.
pub fn inspect(ground: &Ground<'_>, addresses: &[Address], words: usize) -> Vec<Inspection> {
    let references = ground.references(addresses, MAX_SHOWN, 0);
    let looks = addresses.iter().zip(references);
    looks
        .map(|(at, references)| {
            let mut found = Inspection {
                at: *at,
                references,
                ..Inspection::default()
            };
            let look = Look { ground, at: *at };
            look.place(&mut found);
            if found.what == What::Unmapped && at.get() < SMALL {
                // Words that hold a small number point nowhere.
                found.references = References::default();
            }
            found.words = words::around(ground, &found, words);
            found
        })
        .collect()
}

/// What the word `value` at `at` is.
pub fn meaning_at(ground: &Ground<'_>, at: Address, value: u64) -> String {
    words::meaning(ground, at, value).0
}

/// What a value that stands in no memory is.
pub fn meaning_of(ground: &Ground<'_>, value: u64) -> String {
    words::meaning(ground, Address::new(0), value).0
}

/// A block as reports show it.
fn view(heap: &HeapAnalysis<'_>, block: Block, offset: u64) -> BlockView {
    BlockView {
        block,
        state: heap.map.state(block.id),
        offset,
    }
}

/// The function at an address, and the bytes from its start.
fn function(ground: &Ground<'_>, module: ModuleId, at: Address) -> Option<Named> {
    let found = ground.session.debug_info().function_at(module, at)?;
    Some((found.name, at.offset_from(found.start)?))
}

/// `name+0x10`.
fn plus((name, offset): &Named) -> String {
    match offset {
        0 => name.clone(),
        offset => format!("{name}+{offset:#x}"),
    }
}
