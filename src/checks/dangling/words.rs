//! A use of a free block in words.

use ground::target::{MemoryExt, Target};
use heaps::anomaly::{HolderKind, ListRef};

use super::Use;
use crate::checks::finding::{Cause, CauseKind, Evidence, Found};
use crate::checks::{explains, residue, wording};
use crate::crash::Crash;

/// What happened, in one sentence.
pub fn message(found: &Use<'_>, deed: &str) -> String {
    let (freed, pointer) = (found.freed, found.pointer);
    let is_array = found.load.is_none() && freed.at.get() == found.value();
    let place = place(found);
    if is_array {
        return format!("{place} was used after it was freed: {deed}");
    }
    let base = match freed.standing {
        Some(_) => freed.block.address,
        None => pointer,
    };
    let at = match freed.at.offset_from(base) {
        Some(0) => base.to_string(),
        Some(offset) => format!("{base}+{offset:#x}"),
        None => freed.at.to_string(),
    };
    let word = match freed.residue {
        Some(what) => residue::meaning(what, freed.word),
        None => format!("{:#x}, as the program left it", freed.word),
    };
    let noun = if freed.bytes == 8 { "word" } else { "value" };
    format!("{place} was used after it was freed: the {noun} at {at} is {word}; {deed}")
}

/// The block and who holds it.
fn place(found: &Use<'_>) -> String {
    let (address, bytes) = (found.freed.block.address, found.freed.block.bytes);
    match found.freed.standing {
        Some(standing) => format!(
            "the block {address} of {bytes} bytes, {} of the {},",
            ordinal(&standing.list, standing.position),
            wording::list(&standing.list)
        ),
        None => format!(
            "the memory at {}, part of {bytes} free bytes at {address},",
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

impl Use<'_> {
    /// The value that the crash is about.
    fn value(&self) -> u64 {
        self.origin.map_or(self.freed.word, |origin| origin.value)
    }
}

/// Index of the frame that read the block.
pub fn frame(found: &Use<'_>) -> usize {
    let origin = found.origin.map_or(0, |origin| origin.frame);
    found.load.map_or(origin, |load| load.frame)
}

/// What was done with the object whose class leaves the function to others.
pub fn pure_virtual(function: Option<&str>, frame: usize, is_alone: bool) -> String {
    let frame = format!("frame {frame} of the crashing thread");
    let caller = function.unwrap_or(&frame);
    let or = match is_alone {
        true => "",
        false => ", or ran in another thread, which freed it afterwards",
    };
    format!(
        "that is a table of virtual functions, and {caller} called one of them that has no body: the destructor of the object had run{or}"
    )
}

/// The word that was read.
pub fn evidence(found: &Use<'_>) -> Evidence {
    let freed = found.freed;
    Evidence {
        at: freed.at,
        bytes: u32::try_from(freed.bytes.clamp(1, 8)).unwrap_or(8),
        what: match freed.residue {
            Some(_) => "the allocator's word in the free block".into(),
            None => "what the free block still holds".into(),
        },
        expected: "nobody reads it".into(),
        found: match freed.residue {
            Some(what) => {
                let meaning = residue::meaning(what, freed.word);
                Found::word(freed.word).and(&format!(": {meaning}"))
            }
            None => Found::word(freed.word),
        },
    }
}

/// The slot that held the pointer, if it was in memory.
pub fn holder(found: &Use<'_>, target: Target<'_>) -> Option<Evidence> {
    let at = found.load?.held_at?;
    let word = target.memory.read_u64(at).ok()?;
    Some(wording::word_evidence(
        at,
        "pointer to the free block",
        "a block in use",
        Found::word(word),
    ))
}

/// The way from the fault back to the free block.
pub fn causes(crash: &Crash, found: &Use<'_>, target: Target<'_>) -> Vec<Cause> {
    let freed = found.freed;
    let mut causes = match (found.origin, &crash.pure_virtual) {
        (Some(origin), _) => {
            let last = found
                .load
                .and_then(|load| origin.loads.iter().position(|other| other == load));
            explains::way(crash, origin, last.unwrap_or(0))
        }
        (None, Some(called)) => explains::loads(&called.loads),
        (None, None) => Vec::new(),
    };
    let word = match freed.residue {
        Some(what) => residue::meaning(what, freed.word),
        None => format!("{:#x}, as the program left it", freed.word),
    };
    causes.push(Cause {
        kind: CauseKind::Freed,
        at: Some(freed.at),
        text: format!(
            "the word at {} lies in {} which is free; it is {word}",
            freed.at,
            place(found)
        ),
    });
    let holder = found.load.and_then(|load| load.held_at);
    causes.extend(
        holder
            .filter(|at| target.memory.read_u64(*at).is_ok())
            .map(|at| Cause {
                kind: CauseKind::HeldBy,
                at: Some(at),
                text: format!("the word at {at} still points there"),
            }),
    );
    causes
}

/// What a person can do.
pub fn next_steps(found: &Use<'_>, frame: usize) -> Vec<String> {
    let pointer = found.pointer;
    vec![
        format!(
            "look at frame {frame} of the crashing thread: its pointer to {pointer} outlived the object; find who frees it"
        ),
        "run the same input under AddressSanitizer or valgrind: they print where the block was freed".to_owned(),
    ]
}
