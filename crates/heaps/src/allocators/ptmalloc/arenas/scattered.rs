//! A main arena without `brk`: its regions lie anywhere, and nothing names them.
//!
//! Each is looked for by its chunks, which lead to top or to the fenceposts that closed it. What that does not find is
//! in [`missing`](super::missing).

use super::missing::MAX_SEARCH;
use super::{ALIGNMENT, Address, Arena, FLAGS, Oddity, Reader, Region, aligned};
use crate::allocators::ptmalloc::layout::{ArenaLayout, HEADER, MIN_CHUNK, NONCONTIGUOUS};
use crate::anomaly::{BrokenWord, Expected, Field, Property, Value};
use ground::target::RegionKind;

impl Reader<'_, '_> {
    /// Whether the main arena's memory is in one piece. Where its flag says so and that memory is not there, the flag was
    /// lost.
    pub(super) fn is_contiguous(&self, main: &Arena) -> bool {
        if u64::from(main.flags) & NONCONTIGUOUS != 0 {
            return false;
        }
        let (Some(base), Some(_)) = (self.recorded_base(), main.top_size) else {
            return true;
        };
        let starts_chunk = self
            .word(aligned(base).saturating_add(8))
            .is_some_and(|header| header & !FLAGS >= MIN_CHUNK && header & 0xe == 0);
        let end = base.saturating_add(main.system_mem);
        !starts_chunk
            || (base..=end).contains(&main.top)
            || self.reaches(base, end)
            || self.reaches(base, main.top)
    }

    /// Says that the mark of memory in several pieces is lost.
    pub(super) fn note_lost_flag(&mut self, main: &Arena) {
        // What was written over the other flags says it, too.
        if u64::from(main.flags) & NONCONTIGUOUS == 0 && main.flags & !7 == 0 {
            self.out.oddities.push(Oddity {
                word: BrokenWord {
                    of: main.at,
                    at: main.at.saturating_add(ArenaLayout::FLAGS),
                    what: Field::MallocStateFlags,
                    expected: Expected::Is(Property::InSeveralPieces),
                    found: Value::Word(main.flags.into()),
                },
                arena: 0,
                passing: false,
            });
        }
    }

    /// Whether memory goes on without a hole from one place to another.
    pub(super) fn reaches(&self, from: Address, to: Address) -> bool {
        let areas = self.target.memory.regions();
        let first = areas.partition_point(|area| area.range.end <= from);
        let mut at = from;
        for area in areas.get(first..).unwrap_or_default() {
            if area.range.start > at || at >= to {
                break;
            }
            at = area.range.end;
        }
        from <= to && at >= to
    }

    /// A main arena without `brk`: any page of anonymous memory from which chunks lead to top or to
    /// a fencepost.
    pub(super) fn find_scattered(&mut self, main: &Arena) {
        /// Places that are no pages which are tried.
        const MAX_PLACES: u64 = 1 << 20;
        let heaps: Vec<Region> = self.out.regions.clone();
        let base = self.recorded_base().map(aligned);
        let max = self.out.heap_max;
        let taken = |at: Address| {
            heaps
                .iter()
                .any(|heap| at.get() >= heap.start.get() & !max.saturating_sub(1) && at < heap.end)
        };
        for area in self.target.memory.regions() {
            if area.kind != RegionKind::Anonymous || !area.writable || area.present_bytes == 0 {
                continue;
            }
            let end = area.range.start.saturating_add(area.present_bytes);
            // What grew in place before need not begin a page: others took memory from `brk`, too.
            let old = base.filter(|base| area.range.contains(base));
            let mut probes = MAX_PLACES;
            let mut at = area.range.start;
            while at < end {
                let stop = if taken(at) {
                    None
                } else {
                    self.chunks_end(at, end, main)
                };
                if let Some((stop, has_top)) = stop {
                    self.out.regions.push(Region {
                        start: at,
                        end: stop,
                        arena: 0,
                        has_top,
                    });
                }
                let next = stop.map_or(at.saturating_add(ALIGNMENT), |(stop, _)| stop);
                let page = self.target.memory.abi().page_from(next);
                // At the end of the address space a page ends where it began.
                at = match old {
                    Some(old) if next <= old => page.min(old).max(next),
                    Some(_) if probes > 0 => {
                        probes = probes.saturating_sub(1);
                        next
                    }
                    _ => page.max(next),
                };
            }
        }
    }

    /// Where the chain of sane chunks from `at` ends: in top, or in a fencepost.
    fn chunks_end(&self, at: Address, limit: Address, main: &Arena) -> Option<(Address, bool)> {
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut word = |at: Address| cursor.read_u64(at).ok();
        if word(at)? != 0 || word(at.checked_add(8)?)? & FLAGS != 1 {
            return None;
        }
        /// Headers in a row that must be possible for one that is not to be stepped over.
        const FOOTING: u32 = 16;
        let mut at = at;
        let mut passed = 0;
        while at < limit {
            if at == main.top && main.top_size.is_some() {
                let end = at.checked_add(main.top_size.unwrap_or(16))?;
                return Some((end.min(limit), true));
            }
            let header = word(at.checked_add(8)?)?;
            let size = header & !FLAGS;
            if size == 16 {
                let after = word(at.checked_add(24)?)? & !FLAGS;
                return (after == 16 || after == 0).then_some((at.checked_add(32)?, false));
            }
            if size < 32 || header & 0xe != 0 || at.checked_add(size)? > limit {
                if at == main.top {
                    return Some((at.checked_add(16)?, true)); // its size was written over
                }
                if passed < FOOTING {
                    return None;
                }
                // Written over: the walk over the chunks says so, once this is known to be memory of theirs.
                at = self.footing(at, limit, FOOTING)?;
                passed = 0;
                continue;
            }
            at = at.checked_add(size)?;
            passed = passed.saturating_add(1);
        }
        None
    }

    /// The first place behind a damaged header from which possible ones follow each other.
    fn footing(&self, from: Address, limit: Address, enough: u32) -> Option<Address> {
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut place = from.checked_add(32)?;
        while place < limit && place.offset_from(from)? < MAX_SEARCH {
            let mut at = place;
            let leads = (0..enough).all(|step| {
                let header = cursor.read_u64(at.saturating_add(8)).unwrap_or(0);
                let second = cursor.read_u64(at.saturating_add(HEADER + 8));
                // At the fenceposts it is known as well.
                if header & !FLAGS == HEADER && step > 0 {
                    return second
                        .is_ok_and(|second| second & !FLAGS == HEADER || second & !FLAGS == 0);
                }
                at = at.saturating_add(header & !FLAGS);
                header & !FLAGS >= 32 && header & 0xe == 0 && at < limit
            });
            if leads {
                return Some(place);
            }
            place = place.saturating_add(ALIGNMENT);
        }
        None
    }
}
