//! One pass over a run of memory: every aligned word that can point at something.
//!
//! The test of the range has no branch: candidates of 4 KiB are gathered first and looked at afterwards.

use std::ops::Range;

use ground::parallel;
use ground::target::{Address, TargetMemory};

/// Which values can point at something.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    lowest: u64,
    span: u64,
}

impl Filter {
    /// Values from `lowest` on, `span` of them.
    pub fn new((lowest, span): (u64, u64)) -> Self {
        Self { lowest, span }
    }

    /// All values but zero.
    pub fn not_zero() -> Self {
        Self::new((1, u64::MAX))
    }

    /// Whether a value passes.
    #[inline]
    pub fn admits(self, value: u64) -> bool {
        value.wrapping_sub(self.lowest) < self.span
    }
}

/// Words that are tested at a time.
const PIECE: usize = 512;

/// Calls `visit` with each aligned word of `range` that passes, with its place, by rising address. What the core does not hold is passed over.
pub fn each(
    memory: &dyn TargetMemory,
    range: &Range<Address>,
    filter: Filter,
    mut visit: impl FnMut(Address, u64),
) {
    let little = memory.abi().little_endian;
    let mut at = align_up(range.start);
    while at < range.end {
        let bytes = match memory.window(at) {
            Ok(window) if window.bytes.len() >= 8 => window.bytes,
            Ok(_) => {
                at = align_up(at.saturating_add(1)); // a word across two pieces of the core
                continue;
            }
            Err(_) => {
                at = behind(memory, at, range.end);
                continue;
            }
        };
        let left = range.end.offset_from(at).unwrap_or(0) / 8;
        let (words, _) = bytes.as_chunks::<8>();
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let words = words.get(..most).unwrap_or(words);
        if words.is_empty() {
            return;
        }
        let mut place = at;
        for piece in words.chunks(PIECE) {
            parallel::passed((piece.len() as u64).saturating_mul(8));
            each_of(piece, little, filter, |index, value| {
                visit(place.saturating_add(index.saturating_mul(8)), value);
            });
            place = place.saturating_add((piece.len() as u64).saturating_mul(8));
        }
        at = place;
    }
}

/// Words of a short run of bytes.
#[inline]
fn each_of(words: &[[u8; 8]], little: bool, filter: Filter, mut visit: impl FnMut(u64, u64)) {
    let mut found = [0u16; PIECE];
    let mut count = 0usize;
    let load = |bytes: &[u8; 8]| match little {
        true => u64::from_le_bytes(*bytes),
        false => u64::from_be_bytes(*bytes),
    };
    for (index, bytes) in (0u16..).zip(words) {
        if let Some(slot) = found.get_mut(count) {
            *slot = index;
        }
        count = count.saturating_add(usize::from(filter.admits(load(bytes))));
    }
    for index in found.get(..count).unwrap_or_default() {
        if let Some(bytes) = words.get(usize::from(*index)) {
            visit(u64::from(*index), load(bytes));
        }
    }
}

/// Calls `visit` with the word at every byte of `range` that passes: for code that was made at run time.
pub fn each_at_any_byte(
    memory: &dyn TargetMemory,
    range: &Range<Address>,
    filter: Filter,
    mut visit: impl FnMut(Address, u64),
) {
    let little = memory.abi().little_endian;
    let mut at = range.start;
    while at < range.end {
        let bytes = match memory.window(at) {
            Ok(window) => window.bytes,
            Err(_) => {
                at = behind(memory, at, range.end);
                continue;
            }
        };
        let left = usize::try_from(range.end.offset_from(at).unwrap_or(0)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..left).unwrap_or(bytes);
        for (index, word) in (0u64..).zip(bytes.windows(8)) {
            let mut copy = [0; 8];
            copy.copy_from_slice(word);
            let value = if little {
                u64::from_le_bytes(copy)
            } else {
                u64::from_be_bytes(copy)
            };
            if filter.admits(value) {
                visit(at.saturating_add(index), value);
            }
        }
        at = at.saturating_add(bytes.len().max(1) as u64);
    }
}

/// Where to go on behind an absent byte.
fn behind(memory: &dyn TargetMemory, at: Address, end: Address) -> Address {
    let next = memory.behind_absent(at);
    next.map_or(end, align_up).max(at.saturating_add(8))
}

fn align_up(at: Address) -> Address {
    Address::new(at.get().saturating_add(7) & !7)
}
