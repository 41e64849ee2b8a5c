//! A use of a free block in words.

use heaps::allocators::Residue;
use heaps::anomaly::{HolderKind, ListRef};
use heaps::target::{Address, MemoryExt, Target};

use super::Use;
use crate::checks::finding::Evidence;
use crate::checks::wording;
use crate::crash::origin::{Origin, Role};

/// What happened, in one sentence.
pub fn message(origin: &Origin, found: &Use<'_>) -> String {
    let what = place(found);
    let (at, offset) = (found.pointer, offset_in(found));
    let object = match at == found.block.address || offset.is_none() {
        true => String::new(),
        false => format!(" (the object at {at})"),
    };
    let word = match found.residue {
        Some(residue) => meaning(residue, found.word),
        None => format!("what was left there, {:#x}", found.word),
    };
    format!(
        "{what}{object} was used after it was freed: the {} at {} is {word}; {}",
        if found.bytes == 8 { "word" } else { "value" },
        position(found),
        deed(origin, found),
    )
}

/// The block and who holds it.
fn place(found: &Use<'_>) -> String {
    let block = found.block;
    let (address, bytes) = (block.address, block.bytes);
    match found.standing {
        Some(standing) => format!(
            "the block {address} of {bytes} bytes, {} of the {},",
            ordinal(&standing.list, standing.position),
            wording::list(&standing.list)
        ),
        None => format!(
            "the memory of {}, which is part of {bytes} free bytes at {address},",
            found.pointer
        ),
    }
}

fn ordinal(list: &ListRef, position: u64) -> String {
    match (list.holder, position) {
        (HolderKind::Slab, _) => format!("region {position}"),
        (_, 0) => "the first entry".to_owned(),
        _ => format!("entry {position}"),
    }
}

fn offset_in(found: &Use<'_>) -> Option<u64> {
    found.at.offset_from(found.block.address)
}

/// `0x55..+0x8`.
fn position(found: &Use<'_>) -> String {
    let base = match found.standing {
        Some(_) => found.block.address,
        None => found.pointer,
    };
    match found.at.offset_from(base) {
        Some(0) => base.to_string(),
        Some(offset) => format!("{base}+{offset:#x}"),
        None => found.at.to_string(),
    }
}

/// What a word of the allocator's is.
pub fn meaning(residue: Residue, word: u64) -> String {
    match residue {
        Residue::Key => format!("glibc's tcache key ({word:#x}), which stands in cached blocks only"),
        Residue::Cache => format!("the address of the thread's tcache ({word:#x}), which free wrote there"),
        Residue::Bin => format!("the address of a bin in glibc's arena ({word:#x}), which free wrote there"),
        Residue::Filling(byte) => format!("the byte {byte:#x} that freed memory is filled with"),
        Residue::Link { to, protected, back } => {
            let which = if back { "link back" } else { "link" };
            let how = match protected {
                true => format!("the free list's protected {which} ({word:#x}"),
                false => format!("the free list's {which} ({word:#x}"),
            };
            match (to, protected) {
                (Some(to), true) => format!("{how}: it stands for {to}, the next free block)"),
                (Some(_), false) => format!("{how}, another free block)"),
                (None, true) => format!("{how}: it stands for null, the list's end)"),
                (None, false) => format!("{how}, the list's end)"),
            }
        }
    }
}

/// What the program did with it.
fn deed(origin: &Origin, found: &Use<'_>) -> String {
    let does = match origin.role {
        Role::Target => "went on there",
        Role::Address => "used it as an address",
    };
    match found.load {
        Some(load) => {
            let who = load
                .function
                .clone()
                .unwrap_or_else(|| format!("frame {}", load.frame));
            // The word may have led to the value over others.
            let is_last = origin
                .loads
                .first()
                .is_some_and(|last| last.instruction == load.instruction && last.at == load.at);
            match is_last {
                true => format!("{who} loaded it through {} and {does}", load.holder),
                false => format!(
                    "{who} loaded it through {}, and what it led to ended in the crash",
                    load.holder
                ),
            }
        }
        None => format!("the crash is about that value: frame {} {does}", origin.frame),
    }
}

/// The word that was read.
pub fn evidence(found: &Use<'_>) -> Evidence {
    let bytes = u32::try_from(found.bytes.clamp(1, 8)).unwrap_or(8);
    Evidence {
        at: found.at,
        bytes,
        what: match found.residue {
            Some(_) => "allocator's word in a free block".into(),
            None => "contents of a free block".into(),
        },
        expected: "what the program keeps there: the block is free".into(),
        found: match found.residue {
            Some(residue) => format!("{:#x}: {}", found.word, meaning(residue, found.word)),
            None => format!("{:#x}", found.word),
        },
    }
}

/// The slot that held the pointer, if it was in memory.
pub fn holder(found: &Use<'_>, target: Target<'_>) -> Option<Evidence> {
    let load = found.load?;
    let at: Address = load.held_at?;
    let word = target.memory.read_u64(at).ok()?;
    Some(wording::word_evidence(
        at,
        "pointer to the free block",
        "a block in use",
        format!("{word:#x}"),
    ))
}

/// What a person can do.
pub fn next_steps(origin: &Origin, found: &Use<'_>) -> Vec<String> {
    let frame = found.load.map_or(origin.frame, |load| load.frame);
    let bytes = found.block.bytes;
    vec![
        format!(
            "look at frame {frame} of the crashing thread: the pointer {} outlived its object; find who frees it",
            found.pointer
        ),
        match found.standing {
            Some(_) => format!(
                "run the same input under AddressSanitizer or valgrind: it prints where the block of {bytes} bytes was freed"
            ),
            None => "run the same input under AddressSanitizer or valgrind: it prints where the object was freed".into(),
        },
    ]
}
