//! Damage to `extent_t` / `edata_t`: what is kept a second time, and where.
//!
//! | word | also kept |
//! |---|---|
//! | arena, pages, state | the page map's elements (state from 5.3 on), the counts of arenas and page caches |
//! | class, slab of an active one | the page map; of a free one the class is none |
//! | count of a slab's free regions | its marks |
//! | shard of a slab | there are only so many |
//! | `is_head`, `pai` (5.3) | the page map; an extent without a huge page is not the huge page allocator's |
//! | links | the words that lead back |
//! | serial numbers, `zeroed`, `dumpable`, what an inactive or a large one has in a slab's fields | nothing |

use heapcheck::checks::finding::FindingKind;

use super::ground::{ACTIVE, Extent, Ground};
use super::numbers::{ADDRESS, BITMAP, EXTENT, HEAP_LINK, Numbers, PAGE, SIZE};
use super::{Stray, unless};
use crate::plant::{Evidence, Plant};

/// `e_bits`: committed, pai (5.3), guarded (5.3).
const COMMITTED: u64 = 1 << 13;
const PAI: u64 = 1 << 14;
const GUARDED: u64 = 1 << 16;

impl Ground<'_> {
    /// A word of a descriptor.
    pub(super) fn stray_in_descriptor(&self, flip: bool, rng: &mut fastrand::Rng) -> Option<Plant> {
        let extent = *self.extents.get(rng.usize(..self.extents.len().max(1)))?;
        let list = self.numbers.list_link;
        let (offset, what) = *[
            (0, "e_bits"),
            (0, "e_bits"),
            (0, "e_bits"),
            (ADDRESS, "e_addr"),
            (ADDRESS, "e_addr"),
            (SIZE, "e_size_esn"),
            (SIZE, "e_size_esn"),
            (32, "e_sn (5.3), list link (5.2)"),
            (HEAP_LINK, "heap link, previous"),
            (HEAP_LINK + 8, "heap link, next"),
            (HEAP_LINK + 16, "heap link, left child"),
            (list, "list link, next"),
            (list + 8, "list link, previous"),
        ]
        .get(rng.usize(..13))?;
        let stray = self.stray(extent.at + offset, what, flip, rng)?;
        let evidence = match offset {
            0 => self.bits_changed(&extent, stray.old, stray.new),
            ADDRESS => self.address_changed(&extent, stray.old, stray.new),
            SIZE => unless(self.busy, (stray.old ^ stray.new) & !(PAGE - 1) != 0),
            _ => self.link_changed(&extent, offset, &stray),
        };
        let bits = (offset == 0).then_some((stray.old, stray.new));
        // The same words are marks in a slab.
        let marks = self.numbers.new && extent.slab && self.is_sound(&extent) && offset >= BITMAP;
        let marks = marks.then_some((stray.old, stray.new));
        let mut plant = stray.plant(evidence, self.places(&extent));
        if let Some((old, new)) = bits {
            self.or_freed_again(&extent, old, new, &mut plant);
        }
        if let Some((old, new)) = marks {
            or_turned_round(old, new, &mut plant);
        }
        plant.story += &format!(
            " of {:#x}: {} in state {}, class {}",
            extent.address,
            if extent.slab { "a slab" } else { "no slab" },
            extent.state,
            extent.class
        );
        Some(plant)
    }

    /// Addresses that are right for damage to an extent's descriptor.
    pub(super) fn places(&self, extent: &Extent) -> Vec<(u64, u64)> {
        vec![
            (extent.at, extent.at + EXTENT),
            (extent.start(), extent.end()),
        ]
    }

    /// Without statistics, a count that is too high by an even number is what frees to the slab again leave.
    fn or_freed_again(&self, extent: &Extent, old: u64, new: u64, plant: &mut Plant) {
        let free = self.numbers.free;
        let more = Numbers::field(new, free).checked_sub(Numbers::field(old, free));
        let only = (old ^ new) & !Numbers::mask(free) == 0;
        let counts = self
            .bin_of(extent)
            .is_some_and(|bin| self.keeps_statistics(bin.at));
        if only && !counts && more.is_some_and(|more| more % 2 == 0) {
            plant.truth.kinds.push(FindingKind::DoubleFree);
        }
    }

    fn is_sound(&self, extent: &Extent) -> bool {
        extent.state == ACTIVE && extent.class < self.classes.none()
    }

    fn bits_changed(&self, extent: &Extent, old: u64, new: u64) -> Evidence {
        let numbers = &self.numbers;
        let field = |bits| Numbers::field(new, bits);
        let impossible = !self.arenas.contains_key(&(new & 0xfff))
            || field(numbers.class) > self.classes.none()
            || numbers.new && field(numbers.state) > 5;
        let mut kept = 0xfff | Numbers::mask(numbers.state) | Numbers::mask(numbers.class);
        let mut at_times = COMMITTED;
        if self.is_sound(extent) {
            kept |= 1 << 12;
            if extent.slab {
                kept |= Numbers::mask(numbers.free) | Numbers::mask(numbers.shard);
            }
        }
        if let Some(head) = numbers.head {
            kept |= 1 << head | PAI;
            // What is above is never written.
            at_times |= GUARDED | !0 << (head + 1);
        }
        let changed = old ^ new;
        // Of a slab's count and shard, its bin's lock decides.
        let slabs = Numbers::mask(numbers.free) | Numbers::mask(numbers.shard);
        let locked = match self.bin_of(extent) {
            Some(bin) if changed & kept & !slabs == 0 => self.is_at_work(extent, bin.locked),
            _ => self.busy,
        };
        if changed & kept != 0 {
            unless(locked && !impossible, true)
        } else if changed & at_times != 0 {
            Evidence::Open
        } else {
            Evidence::Absent
        }
    }

    /// Whether a slab's own words may be in the making: its bin's lock is held, or it is in no bin and somebody is
    /// inside the allocator.
    fn is_at_work(&self, extent: &Extent, locked: bool) -> bool {
        let linked = self
            .bin_of(extent)
            .is_some_and(|bin| bin.current == extent.at || bin.heaped.contains(&extent.at));
        locked || !linked && self.busy
    }

    fn address_changed(&self, extent: &Extent, old: u64, new: u64) -> Evidence {
        /// Large blocks begin at a random multiple of this in their first page.
        const STEP: u64 = 64;
        let known = self.extent_at(new).is_some();
        if (old ^ new) & !(PAGE - 1) != 0 {
            unless(self.busy && known, true)
        } else if !self.is_sound(extent) || extent.slab || !new.is_multiple_of(STEP) {
            unless(self.busy, true)
        } else {
            unless(self.busy, self.cached.contains_key(&old))
        }
    }

    fn link_changed(&self, extent: &Extent, offset: u64, stray: &Stray) -> Evidence {
        let numbers = &self.numbers;
        let own = stray.new == 0 || self.is_own(stray.new) && stray.new.is_multiple_of(64);
        let list = numbers.list_link;
        if (HEAP_LINK..HEAP_LINK + 24).contains(&offset) {
            let bin = self
                .bin_of(extent)
                .filter(|bin| self.is_sound(extent) && bin.heaped.contains(&extent.at));
            let (member, locked) = match bin {
                Some(bin) => (true, bin.locked),
                None => (
                    self.heaped.contains(&extent.at),
                    self.is_page_cache_locked(extent),
                ),
            };
            // Nothing leads to a root: what is before it is not kept.
            if offset == HEAP_LINK && stray.old == 0 {
                return Evidence::Open;
            }
            // In arenas that the program made, the same words link full slabs and large blocks.
            return match member {
                true => unless(locked && own, true),
                false if extent.state == ACTIVE && self.lists_all(extent) => Evidence::Open,
                false => Evidence::Absent,
            };
        }
        if offset == list || offset == list + 8 {
            let listed = extent.state != ACTIVE && extent.state < 4;
            if numbers.new && extent.slab && self.is_sound(extent) {
                let group = (offset - BITMAP) / 8;
                return self.marks_changed(extent, group, stray.old, stray.new);
            }
            if !listed && !numbers.new && self.lists_all(extent) {
                return Evidence::Open;
            }
            return unless(self.is_page_cache_locked(extent) && own, listed);
        }
        // Serial number; before 5.3 the list's link again.
        match numbers.new {
            true => Evidence::Absent,
            false => self.link_changed(extent, list + 8, stray),
        }
    }

    fn is_page_cache_locked(&self, extent: &Extent) -> bool {
        let arena = self.arenas.get(&extent.arena);
        let cache = self
            .numbers
            .page_caches
            .get(extent.state.wrapping_sub(1) as usize);
        arena
            .zip(cache)
            .is_none_or(|(arena, cache)| self.is_locked(arena + cache))
    }

    /// Whether an extent's arena lists its full slabs and large blocks: those that the program made, and the one for
    /// very large blocks do.
    fn lists_all(&self, extent: &Extent) -> bool {
        let large = self
            .arenas
            .get(&extent.arena)
            .map(|arena| arena + self.numbers.large);
        let full = self.bin_of(extent).map(|bin| bin.at + self.numbers.full);
        [large, full]
            .into_iter()
            .flatten()
            .any(|head| self.word(head) != Some(0))
    }

    /// A word of a slab's marks.
    pub(super) fn stray_in_bitmap(&self, flip: bool, rng: &mut fastrand::Rng) -> Option<Plant> {
        let extent = (0..200)
            .filter_map(|_| self.extents.get(rng.usize(..self.extents.len().max(1))))
            .find(|extent| extent.slab && self.is_sound(extent))?;
        let words = self.regions(extent).div_ceil(64);
        let group = if rng.u8(..8) == 0 {
            rng.u64(..8)
        } else {
            rng.u64(..words)
        };
        let stray = self.stray(extent.at + BITMAP + group * 8, "marks", flip, rng)?;
        let (old, new) = (stray.old, stray.new);
        let evidence = self.marks_changed(extent, group, old, new);
        let mut plant = stray.plant(evidence, self.places(extent));
        or_turned_round(old, new, &mut plant);
        plant.story += &format!(
            ", word {group} of {words} of the slab {:#x}",
            extent.address
        );
        Some(plant)
    }

    fn marks_changed(&self, extent: &Extent, group: u64, old: u64, new: u64) -> Evidence {
        let at = extent.at + BITMAP + group * 8;
        let words = self.regions(extent).div_ceil(64);
        if group >= words {
            return Evidence::Absent;
        }
        let left = self.regions(extent) - group * 64;
        let beyond = if left < 64 { !0 << left } else { 0 };
        let before = self.ones(extent, |at| self.word(at).unwrap_or(0));
        let after = self.ones(extent, |here| {
            if here == at {
                new
            } else {
                self.word(here).unwrap_or(0)
            }
        });
        let locked = self
            .bin_of(extent)
            .is_none_or(|bin| self.is_at_work(extent, bin.locked));
        if before != after {
            unless(locked, true)
        } else if (old ^ new) & !beyond != 0 {
            // As many are free as before, but others.
            Evidence::Open
        } else {
            unless(locked, (old ^ new) & beyond != 0)
        }
    }
}

/// Marks of which an even number less is set: frees of blocks that were free turn them round, too.
fn or_turned_round(old: u64, new: u64, plant: &mut Plant) {
    let fewer = old.count_ones().checked_sub(new.count_ones());
    if fewer.is_some_and(|fewer| fewer > 0 && fewer % 2 == 0) {
        plant.truth.kinds.push(FindingKind::DoubleFree);
    }
}
