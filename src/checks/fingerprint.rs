//! Fingerprints: the same bug in another core of the same program.
//!
//! Recipe 1 is a hash over the kind, the allocator, and who is to blame: the recorded allocation site, else the
//! block's size class and the static pointers that it holds (module and offset: virtual tables,
//! callbacks). No address, no thread, no list, nothing of the crash stack, nothing of the bytes
//! that were written. A rebuild moves the offsets, so that it changes the value; recipe 2 ([`v2`]) goes by names.

use ground::target::{Address, InstructionSet, MemoryExt, ModuleId, Target};
use heaps::map::{Block, BlockState, HeapMap};
use sha2::{Digest, Sha256};

use super::Subject;
use super::finding::{Finding, FindingKind};
use crate::crash::Crash;
use crate::crash::own::{is_runtime, plain_name};
use postmortem::debuginfo::DebugInfo;

/// Words of a block that are looked at.
const MAX_WORDS: u64 = 64;
/// Frames of a recorded stack that count.
const MAX_FRAMES: usize = 8;
/// Functions of a recorded stack that name it.
const MAX_SITES: usize = 3;
/// Symbols that name a block.
const MAX_SYMBOLS: usize = 8;

/// The fingerprint as 16 hexadecimal digits.
pub fn v1(subject: Subject<'_>, kind: FindingKind, identity: Option<Block>) -> String {
    let mut hash = Sha256::new();
    let mut part = |text: &str| {
        hash.update(text.as_bytes());
        hash.update([0]);
    };
    part("v1");
    part(kind.code());
    part(subject.heap.identity.name());
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
    digits(hash)
}

/// The same of an allocator that is not walked.
pub fn v1_without_block(allocator: &str, kind: FindingKind) -> String {
    of_parts(&["v1", kind.code(), allocator, "no block"])
}

/// A hash over some names.
pub fn of_parts(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    digits(hash)
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

/// What names are taken from.
#[derive(Clone, Copy)]
pub struct Names<'n> {
    /// The process.
    pub target: Target<'n>,
    /// Names of functions and variables.
    pub debug: &'n DebugInfo,
    /// File name of the executable.
    pub program: &'n str,
    /// How it died.
    pub crash: Option<&'n Crash>,
}

/// A fingerprint of recipe 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByNames {
    /// 16 hexadecimal digits.
    pub hash: String,
    /// What is hashed, readable: `chat-server | heap-overrun | ptmalloc | sessions`.
    pub text: String,
}

/// Recipe 2: the program, the kind, the allocator, and who is to blame by *names*, which rebuilds keep: where the refused call of
/// `free` was made, else where the culprit (or the block, if there is none) was allocated, else the variables and functions that
/// its words point to, else its size.
pub fn v2(names: Names<'_>, map: Option<&HeapMap>, finding: &Finding) -> ByNames {
    let mut parts = vec![
        names.program.to_owned(),
        finding.kind.code().to_owned(),
        finding.allocator.unwrap_or("no heap").to_owned(),
    ];
    parts.extend(identity(names, map, finding));
    let mut hash = Sha256::new();
    hash.update("v2");
    for part in &parts {
        hash.update([0]);
        hash.update(part);
    }
    ByNames {
        hash: digits(hash),
        text: parts.join(" | "),
    }
}

fn identity(names: Names<'_>, map: Option<&HeapMap>, finding: &Finding) -> Vec<String> {
    if let Some(site) = refused_site(names, finding) {
        return vec![format!("freed by {site}")];
    }
    let allocation = finding.stacks.as_ref().map(|stacks| &stacks.allocation);
    let allocated = allocation.into_iter().flatten().filter_map(|at| {
        let lookup = at.checked_sub(1)?;
        own_name(names, module_at(names.target, lookup)?, lookup)
    });
    let allocated: Vec<String> = allocated.take(MAX_SITES).collect();
    if !allocated.is_empty() {
        return allocated;
    }
    let culprit = finding.culprit.as_ref().map(|culprit| culprit.block);
    let Some(block) = culprit.or(finding.block.map(|view| view.block)) else {
        return vec!["no block".into()];
    };
    let symbols = map.map_or_else(Vec::new, |map| symbols_in(names, map, block));
    if symbols.is_empty() {
        vec![format!("{} bytes", block.bytes)]
    } else {
        symbols
    }
}

/// The program's function that made the call which the allocator refused, if the finding is about that call.
fn refused_site(names: Names<'_>, finding: &Finding) -> Option<String> {
    let crash = names.crash?;
    let of_a_call = matches!(
        finding.kind,
        FindingKind::DoubleFree
            | FindingKind::InvalidFreeEntry
            | FindingKind::MisalignedFreeEntry
            | FindingKind::AllocatorMismatch
    );
    let is_said = crash.last_words.as_ref().is_some_and(|words| {
        (finding.evidence.iter()).any(|evidence| evidence.at == words.address)
    });
    let argument = crash.call.as_ref().and_then(|call| call.argument.as_ref());
    let is_called = argument.is_some_and(|argument| Some(argument.value) == finding.at);
    if !of_a_call || finding.culprit.is_some() || !(is_said || is_called) {
        return None;
    }
    let caller = crash.call.as_ref().map_or(crash.frame, |call| call.caller);
    let frames = names.target.threads.frames(crash.thread);
    let mut callers = frames.iter().skip(caller).take(MAX_FRAMES);
    callers.find_map(|frame| {
        let module = frame.module?;
        let here = own_name(names, module, frame.lookup)?;
        let called = Some(frame.pc).filter(|pc| *pc != frame.lookup);
        Some(
            called
                .and_then(|resume| left_by_tail_call(names, module, resume))
                .unwrap_or(here),
        )
    })
}

/// The function of the program that the caller called and that has no frame any more: an optimised `release(p) { free(p); }`
/// ends in a jump to `free`. `resume`: the return address, in front of which the call stands (x86-64's direct one).
fn left_by_tail_call(names: Names<'_>, module: ModuleId, resume: Address) -> Option<String> {
    const CALL: u8 = 0xe8;
    const CALL_BYTES: u64 = 5;
    let memory = names.target.memory;
    let call = resume.checked_sub(CALL_BYTES)?;
    if names.target.threads.instruction_set() != InstructionSet::X86_64
        || memory.read_u8(call).ok()? != CALL
    {
        return None;
    }
    let distance = memory.read_u32(call.checked_add(1)?).ok()?.cast_signed();
    let callee = Address::new(resume.get().wrapping_add_signed(distance.into()));
    (module_at(names.target, callee)? == module).then_some(())?;
    own_name(names, module, callee)
}

/// The innermost function at an address that is the program's own.
fn own_name(names: Names<'_>, module: ModuleId, lookup: Address) -> Option<String> {
    let found = names.target.modules.get(usize::try_from(module.0).ok()?)?;
    let source = names.debug.source_at(module, lookup);
    let inlined = source
        .frames
        .iter()
        .filter_map(|frame| frame.function.clone());
    let symbol = || {
        let symbol = names.debug.function_at(module, lookup);
        symbol.map(|symbol| symbol.name)
    };
    let mut all = inlined.chain(std::iter::once_with(symbol).flatten());
    let own = all.find(|function| !is_runtime(Some(&found.name), Some(function)))?;
    Some(plain_name(&own))
}

/// Names of the program's variables and functions to which words of the block point. The first word of a free block is the
/// allocator's, not the program's.
fn symbols_in(names: Names<'_>, map: &HeapMap, block: Block) -> Vec<String> {
    let first = u64::from(map.state(block.id) != BlockState::InUse);
    let words = (first..(block.bytes / 8).min(MAX_WORDS)).filter_map(|index| {
        let word = names
            .target
            .memory
            .read_pointer(block.address.checked_add(index * 8)?)
            .ok()?;
        let module = module_at(names.target, word)?;
        let found = names.target.modules.get(usize::try_from(module.0).ok()?)?;
        if is_runtime(Some(&found.name), None) {
            return None;
        }
        let object = names.debug.object_at(module, word);
        let function = || {
            let function = names.debug.function_at(module, word);
            function.map(|function| function.name)
        };
        let name = object.or_else(function)?;
        (!is_runtime(None, Some(&name))).then(|| plain_name(&name))
    });
    let mut symbols: Vec<String> = words.collect();
    symbols.sort();
    symbols.dedup();
    symbols.truncate(MAX_SYMBOLS);
    symbols
}

fn module_at(target: Target<'_>, at: Address) -> Option<ModuleId> {
    let after = target
        .modules
        .partition_point(|module| module.range.start <= at);
    let module = target.modules.get(after.checked_sub(1)?)?;
    (at < module.range.end).then_some(module.id)
}

/// The first half of the hash, in hexadecimal.
fn digits(hash: Sha256) -> String {
    let digest = hash.finalize();
    let half = digest.iter().take(8);
    half.map(|byte| format!("{byte:02x}")).collect()
}
