//! Fingerprint, recipe 1: the same bug in another core of the same program.
//!
//! A hash over the kind, the allocator, and who is to blame: the recorded allocation site, else the
//! block's size class and the static pointers that it holds (module and offset: virtual tables,
//! callbacks). No address, no thread, no list, nothing of the crash stack, nothing of the bytes
//! that were written.

use heaps::map::{Block, BlockState};
use heaps::target::{Address, MemoryExt, Target};
use sha2::{Digest, Sha256};

use super::Subject;
use super::finding::FindingKind;

/// Words of a block that are looked at.
const MAX_WORDS: u64 = 64;
/// Frames of a recorded stack that count.
const MAX_FRAMES: usize = 8;

/// The fingerprint as 16 hexadecimal digits.
pub fn v1(subject: Subject<'_>, kind: FindingKind, identity: Option<Block>) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    part("v1");
    part(kind.code());
    part(subject.heap.identity.name);
    match identity {
        None => part("no block"),
        Some(block) => match subject.heap.heap.recorded_stack(block.address) {
            Some(stack) => {
                for at in stack.iter().take(MAX_FRAMES) {
                    part(&place(subject.target, *at).unwrap_or_default());
                }
            }
            None => {
                part(&block.bytes.to_string());
                for pointer in static_pointers(subject, block) {
                    part(&pointer);
                }
            }
        },
    }
    hex(hash)
}

/// The same of an allocator that is not walked.
pub fn v1_without_block(allocator: &str, kind: FindingKind) -> String {
    let mut hash = Sha256::new();
    for part in ["v1", kind.code(), allocator, "no block"] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hex(hash)
}

fn hex(hash: Sha256) -> String {
    hash.finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Words of the block that point into a module, as module and offset. The first word of a free
/// block is the allocator's, not the program's.
fn static_pointers(subject: Subject<'_>, block: Block) -> Vec<String> {
    let first = u64::from(subject.heap.map.state(block.id) != BlockState::InUse);
    let mut out: Vec<String> = (first..(block.bytes / 8).min(MAX_WORDS))
        .filter_map(|index| {
            let word = subject
                .target
                .memory
                .read_pointer(block.address.checked_add(index * 8)?)
                .ok()?;
            place(subject.target, word)
        })
        .collect();
    out.dedup();
    out
}

/// `module+offset` of an address in a module.
fn place(target: Target<'_>, at: Address) -> Option<String> {
    let after = target
        .modules
        .partition_point(|module| module.range.start <= at);
    let module = target.modules.get(after.checked_sub(1)?)?;
    let inside = module
        .segments
        .iter()
        .any(|segment| segment.range.contains(&at));
    inside.then(|| {
        format!(
            "{}+{:#x}",
            module.name,
            at.get().wrapping_sub(module.range.start.get())
        )
    })
}
