//! How large the heaps of arenas are.

use super::Oddity;
use crate::allocators::ptmalloc::layout::HEAP_MAX;
use crate::allocators::ptmalloc::locate::Located;
use crate::anomaly::{BrokenWord, Expected, Field, Property, Value};
use ground::target::{Address, MemoryExt, Target};

/// Size and alignment of a heap, and `mp_.hp_pagesize` where it cannot be what decided about that.
///
/// Four huge pages, from 2.35 to 2.41, if they were asked for; an arena lies at the start of its first heap.
pub(super) fn read(target: Target<'_>, located: &Located) -> (u64, Option<Oddity>) {
    /// Sizes of huge pages of the machines that are known.
    const HUGE: std::ops::RangeInclusive<u64> = 1 << 16..=1 << 34;
    /// Bytes of `heap_info`, at most.
    const MAX_HEAP_INFO: u64 = 0x100;
    let word = |at: Address| target.memory.read_u64(at).ok();
    let setting = || {
        let (at, layout) = located.parameters?;
        // 2.42 went back to a constant.
        let uses_it = layout.releases.low == 35 && located.releases.low < 42;
        let at = at.checked_add(layout.huge_page.filter(|_| uses_it)?)?;
        Some((at, word(at).filter(|huge| *huge != 0)?))
    };
    let Some((at, huge)) = setting() else {
        return (HEAP_MAX, None);
    };
    let fits = |max: u64| {
        let next = word(located.main.saturating_add(located.arena.next))?;
        Some(next == located.main.get() || next & max.saturating_sub(1) < MAX_HEAP_INFO)
    };
    let is_size = huge.is_power_of_two() && HUGE.contains(&huge);
    if is_size && fits(huge.saturating_mul(4)) != Some(false) {
        return (huge.saturating_mul(4), None);
    }
    let oddity = Oddity {
        word: BrokenWord {
            of: at,
            at,
            what: Field::MpHpPagesize,
            expected: Expected::Is(Property::HugePages),
            found: Value::Word(huge),
        },
        arena: 0,
        passing: false,
    };
    // If the places do not tell either, nothing does.
    let is_certain = !is_size || fits(HEAP_MAX) == Some(true);
    (HEAP_MAX, is_certain.then_some(oddity))
}
