//! musl's allocator by its structure, for programs into which it is linked.
//!
//! ```text
//! ctx ──> +0   secret                 meta_area ──> +0   check: the same secret
//!         +56  meta_area_head ──────────^                +8   next
//!                                                        +16  nslots (int)
//! ```
//!
//! (musl 1.2.1 and later, src/malloc/mallocng/meta.h; where pages have one size.)

use ground::scan::words_where;
use ground::target::{Address, MemoryExt, Module, TargetMemory};

const META_AREA_HEAD: u64 = 56;
const SLOTS: u64 = 16;
/// Slots of an area: they fill a page of 64 KiB at most.
const MAX_SLOTS: u32 = 64 << 10;

/// Whether mallocng is at work in the module.
pub fn is_in(memory: &dyn TargetMemory, module: &Module) -> bool {
    let may_be = |_, word: u64| word.is_multiple_of(4096);
    words_where(memory, module, may_be).any(|(at, word)| is_context(memory, at, word) == Some(true))
}

fn is_context(memory: &dyn TargetMemory, at: Address, area: u64) -> Option<bool> {
    let context = at.checked_sub(META_AREA_HEAD)?;
    let secret = memory.read_u64(context).ok()?;
    let area = Address::new(area);
    let check = memory.read_u64(area).ok()?;
    let slots = memory.read_u32(area.checked_add(SLOTS)?).ok()?;
    // A random word: no small number and no address.
    Some(secret == check && secret >> 48 != 0 && (1..=MAX_SLOTS).contains(&slots))
}
