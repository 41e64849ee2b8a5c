//! The words around an address, each in words of people.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, SymbolTable};
use heaps::allocators::Family;
use heaps::graph::roots::RootKind;

use super::{Inspection, What as Place, plus, structure};
use crate::checks::residue::{self, Read};
use crate::checks::values::{self, What};
use crate::graph::Ground;
use crate::graph::holders::variables::Belonging;

/// Words before the address, where not the whole block is shown.
const BEFORE: u64 = 4;
/// Bytes of a word.
const WORD: u64 = 8;
/// Numbers that say nothing of anybody.
const SMALL: u64 = 1 << 16;

/// A word, and what it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where it is.
    pub at: Address,
    /// What it holds; `None` where the core does not.
    pub value: Option<u64>,
    /// What the place is: a variable, a header.
    pub name: Option<String>,
    /// What the value is.
    pub meaning: String,
    /// The value is contents of the program's that a report shows only if asked: text, a number that is nothing else.
    pub is_private: bool,
}

/// The words around an address: the whole block with its header where that is small, else some before and more behind.
pub(super) fn around(ground: &Ground<'_>, found: &Inspection, count: usize) -> Vec<Word> {
    let count = u64::try_from(count).unwrap_or(u64::MAX);
    if found.mapping.is_none() || count == 0 || found.what == Place::Code {
        return Vec::new();
    }
    let at = found.at.get() & !(WORD - 1);
    let header = |start: u64| match found.heap.and_then(|heap| ground.analysis.heaps.get(heap)) {
        Some(heap) if heap.identity.family == Family::Ptmalloc => start.saturating_sub(WORD),
        _ => start,
    };
    let window = count.saturating_mul(WORD);
    let start = match found.block {
        Some(view) if view.block.bytes.saturating_add(2 * WORD) <= window => {
            header(view.block.address.get())
        }
        Some(view) => at
            .saturating_sub(BEFORE * WORD)
            .max(header(view.block.address.get())),
        None => at.saturating_sub(BEFORE * WORD),
    };
    let floor = found
        .mapping
        .as_ref()
        .map_or(0, |mapping| mapping.range.start.get());
    let end = found
        .mapping
        .as_ref()
        .map_or(0, |mapping| mapping.range.end.get());
    let start = start.max(floor);
    let mut words = Vec::new();
    for index in 0..count {
        let at = start.saturating_add(index.saturating_mul(WORD));
        if at >= end {
            break;
        }
        words.push(word(ground, Address::new(at)));
    }
    words
}

fn word(ground: &Ground<'_>, at: Address) -> Word {
    let memory = ground.session.target().memory;
    let name = name(ground, at);
    let Ok(value) = memory.read_u64(at) else {
        return Word {
            at,
            value: None,
            name,
            meaning: "not in the core".into(),
            is_private: false,
        };
    };
    let (meaning, is_private) = meaning(ground, at, value);
    Word {
        at,
        value: Some(value),
        name,
        meaning,
        is_private,
    }
}

/// What the place of a word is called.
fn name(ground: &Ground<'_>, at: Address) -> Option<String> {
    let heaps = ground.analysis.heaps.iter();
    let mut within = heaps.filter(|heap| heap.map.place(at).is_some());
    if let Some(heap) = within.next() {
        let header = structure::header(heap, at);
        return header.map_or_else(
            || ground.member_at(at),
            |block| Some(format!("header of {}", block.address)),
        );
    }
    let root = ground.universe.root_at(at).map(|(_, root)| root)?;
    let owner = root.owner as usize;
    match root.kind {
        RootKind::Stack => {
            let slot = ground.slot(owner, at, root.range.start)?;
            let found = ground
                .variables
                .at_word(ground.session, owner, slot.frame, at)?;
            Some(match found {
                Belonging::Variable(found) => {
                    format!(
                        "{} of frame {}",
                        plus(&(found.name, found.offset)),
                        found.frame
                    )
                }
                Belonging::Saved { register, .. } => format!(
                    "{} of frame {}",
                    ground.session.threads().register_name(register),
                    slot.frame.saturating_add(1)
                ),
            })
        }
        RootKind::Global => {
            let module = ground.session.target().modules.get(owner)?;
            let found = ground.session.debug_info().variable_at(module.id, at)?;
            Some(ground.member_at(at).unwrap_or_else(|| plus(&found)))
        }
        RootKind::Tls => {
            let locals = &ground.thread_locals;
            let found = locals.variable(ground.session, ground.thread(owner)?, at)?;
            Some(plus(&found.symbol?))
        }
        RootKind::Mapping => None,
    }
}

/// What a value is, and whether it is contents that may be somebody's secret.
pub(super) fn meaning(ground: &Ground<'_>, at: Address, value: u64) -> (String, bool) {
    let target = ground.session.target();
    let analysis = ground.analysis;
    if let Read::Free(freed) = residue::at(target, analysis, at, WORD, None)
        && let Some(what) = freed.residue
    {
        return (residue::meaning(what, value), false);
    }
    let header = analysis.heaps.iter().find_map(|heap| {
        heap.map.place(at)?;
        structure::header(heap, at)
    });
    if header.is_some_and(|block| block.address.offset_from(at) == Some(WORD))
        && let Some(said) = structure::size_word(target.memory, at)
    {
        return (said, false);
    }
    if value == 0 {
        return ("zero".into(), false);
    }
    if let Some(said) = return_address(ground, at, value) {
        return (said, false);
    }
    let sp = target.threads.list().first().map(|thread| thread.sp);
    let (what, said, _) = values::describe(
        target,
        analysis,
        &BTreeMap::new(),
        sp.unwrap_or_default(),
        value,
    );
    match what {
        What::Code | What::Static => return (in_module(ground, value).unwrap_or(said), false),
        What::FreeBlock
        | What::Block
        | What::PastEnd
        | What::AllocatorWord
        | What::Filling
        | What::Null
        | What::Number => {
            return (said, false);
        }
        What::Stack | What::Mapped => {
            return (on_stack(ground, value).unwrap_or(said), false);
        }
        What::Text | What::Unmapped => {}
    }
    if let Some(said) = protected(ground, at, value) {
        return (said, false);
    }
    if let Some(length) = text_length(value) {
        return (format!("text of {length} characters"), true);
    }
    if value < SMALL {
        return (value.to_string(), false);
    }
    let (low, high) = (value & u64::from(u32::MAX), value >> 32);
    if low < SMALL && high < SMALL {
        return (
            format!("the numbers {low} and {high}, of four bytes each"),
            false,
        );
    }
    ("a number".into(), true)
}

/// Characters of a word that is text: all eight, or four and more with zeros behind them.
pub(super) fn text_length(value: u64) -> Option<usize> {
    const LEAST: usize = 4;
    let bytes = value.to_le_bytes();
    let is_character = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    let length = bytes.iter().take_while(|byte| is_character(byte)).count();
    let is_text = length >= LEAST && bytes.iter().skip(length).all(|byte| *byte == 0);
    is_text.then_some(length)
}

/// Where the function that is called by a frame returns to.
fn return_address(ground: &Ground<'_>, at: Address, value: u64) -> Option<String> {
    let (_, root) = ground.universe.root_at(at)?;
    if root.kind != RootKind::Stack {
        return None;
    }
    let frames = ground.session.threads().frames(root.owner as usize);
    let behind = at.checked_add(WORD)?;
    let index = frames
        .iter()
        .position(|frame| frame.sp == behind && frame.pc.get() == value)?;
    let frame = frames.get(index)?;
    let function = ground.function(frame);
    let function = function.map_or(String::new(), |name| format!(" {name}"));
    Some(format!("the return address into frame {index}{function}"))
}

/// A function, a variable or a constant of a module.
fn in_module(ground: &Ground<'_>, value: u64) -> Option<String> {
    let at = Address::new(value);
    let module = ground.session.modules().module_at(at)?;
    let named = match module.has_code_at(at) {
        true => super::function(ground, module.id, at),
        false => ground.session.debug_info().variable_at(module.id, at),
    };
    Some(format!("{} of {}", plus(&named?), module.name))
}

/// A place on a stack or in thread-local storage.
fn on_stack(ground: &Ground<'_>, value: u64) -> Option<String> {
    let at = Address::new(value);
    let (_, root) = ground.universe.root_at(at)?;
    let owner = root.owner as usize;
    let tid = ground.thread(owner)?.tid;
    match root.kind {
        RootKind::Stack => {
            let slot = ground.slot(owner, at, root.range.start);
            let frame = slot.map_or(String::new(), |slot| {
                let function = slot.function.unwrap_or_default();
                format!(", frame {} {function}", slot.frame)
            });
            Some(format!("the stack of thread {tid}{}", frame.trim_end()))
        }
        RootKind::Tls => Some(format!("thread-local storage of thread {tid}")),
        _ => None,
    }
}

/// A link of glibc's that was left in a block that is in use: mixed with its own address (malloc.c, `PROTECT_PTR`).
fn protected(ground: &Ground<'_>, at: Address, value: u64) -> Option<String> {
    const PAGE: u32 = 12;
    let heaps = ground.analysis.heaps.iter();
    let mut own = heaps
        .filter(|heap| heap.identity.family == Family::Ptmalloc && heap.map.block_at(at).is_some());
    let heap = own.next()?;
    let to = Address::new(value ^ (at.get() >> PAGE));
    let left = "glibc's protected link";
    if to.is_null() {
        // Below 4 GiB a page's number is any small number.
        return (at.get() >= 1 << 32)
            .then(|| format!("{left} to null, left from when the block was free"));
    }
    let (block, offset) = heap.map.block_at(to)?;
    (offset == 0).then(|| {
        format!(
            "{left} to the block {}, left from when the block was free",
            block.address
        )
    })
}
