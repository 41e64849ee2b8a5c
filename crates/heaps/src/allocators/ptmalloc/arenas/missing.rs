//! A region of the main arena's that was not found by its chunks: a header in it was written over, or the word that
//! names its top chunk. What the arena took from the system says how long it is.

use super::{ALIGNMENT, Address, Arena, FLAGS, Oddity, Reader, Region, aligned};
use crate::allocators::ptmalloc::layout::{HEADER, IS_MMAPPED, MIN_CHUNK, PREV_INUSE};
use crate::anomaly::{BrokenWord, Expected, Field, Property, Reason};
use ground::target::{MemoryExt, RegionKind};

/// Headers that looking for a missing region may cost.
const MAX_PROBES: u64 = 1 << 24;
/// Bytes behind a damaged header that are searched for the next one.
pub(super) const MAX_SEARCH: u64 = 1 << 20;

impl Reader<'_, '_> {
    /// Finds the one region that is missing by what the arena took from the system, or the end of top's.
    pub(super) fn complete_scattered(&mut self, main: &Arena) {
        let Some(missing) = self.missing_bytes(main) else {
            return;
        };
        if missing == 0 {
            self.check_top(main);
            return;
        }
        let own = |region: &&mut Region| region.arena == 0 && region.has_top;
        let newest = self.out.regions.iter_mut().find(own);
        let Some(newest) = newest.filter(|_| main.top_size.is_none()) else {
            self.out.is_incomplete |= self.find_missing(main, missing).is_none();
            return;
        };
        // What was found of it ends where its top chunk begins.
        let start = self.target.memory.abi().page_of(newest.start);
        let end = start.saturating_add(missing);
        if main.top < end
            && end
                .checked_sub(1)
                .is_some_and(|last| self.target.memory.region_at(last).is_some())
        {
            newest.end = end;
            if let Some(slot) = self.out.ends.first_mut() {
                *slot = Some(end);
            }
        }
    }

    /// Bytes that the main arena took from the system and that lie in no region which is known from end to end.
    fn missing_bytes(&self, main: &Arena) -> Option<u64> {
        let base = self.recorded_base();
        let abi = self.target.memory.abi();
        let known = self
            .out
            .regions
            .iter()
            .filter(|region| region.arena == 0 && (!region.has_top || main.top_size.is_some()));
        let mut bytes = 0u64;
        for region in known {
            let start = match base {
                Some(base) if aligned(base) == region.start => base.get(),
                _ => abi.page_of(region.start).get(),
            };
            let end = abi.page_from(region.end).get();
            bytes = bytes.checked_add(end.checked_sub(start)?)?;
        }
        main.system_mem.checked_sub(bytes)
    }

    /// All memory of the arena is known, and what is to be its top chunk lies elsewhere.
    fn check_top(&mut self, main: &Arena) {
        let mut own = self.out.regions.iter().filter(|region| region.arena == 0);
        if own.any(|region| (region.start..region.end).contains(&main.top)) {
            return;
        }
        self.out.oddities.push(Oddity {
            word: BrokenWord {
                of: main.at,
                at: main.at.saturating_add(self.located.arena.top),
                what: Field::MallocStateTop,
                expected: Expected::Is(Property::LastChunkOfAPiece),
                found: main.top.into(),
            },
            arena: 0,
            passing: false,
        });
    }

    /// A region of as many bytes as are missing, although a header in it was written over, or the word that names its
    /// top chunk.
    fn find_missing(&mut self, main: &Arena, missing: u64) -> Option<()> {
        let mut budget = MAX_PROBES;
        if self.extend(missing, &mut budget) {
            return Some(());
        }
        let mut found: Option<(Region, Address)> = None;
        for start in self.starts_of(missing) {
            let Some(end) = start.checked_add(missing) else {
                continue;
            };
            let Some((last, is_top)) = self.last_of(start, end, &mut budget) else {
                continue;
            };
            let another = last != main.top && main.top_size.is_some();
            if found.is_some() || is_top && another {
                return None;
            }
            let region = Region {
                start,
                end,
                arena: 0,
                has_top: is_top,
            };
            found = Some((region, last));
        }
        let (region, last) = found.filter(|_| budget > 0)?;
        self.out.regions.push(region);
        if !region.has_top || last == main.top {
            return Some(());
        }
        self.out.oddities.push(Oddity {
            word: BrokenWord {
                of: main.at,
                at: main.at.saturating_add(self.located.arena.top),
                what: Field::MallocStateTop,
                expected: Expected::Exactly(last.into(), Reason::LastChunkOfNewestMemory),
                found: main.top.into(),
            },
            arena: 0,
            passing: false,
        });
        if let Some(row) = self.out.rows.first_mut() {
            row.top = last;
            row.top_size = region.end.offset_from(last);
        }
        Some(())
    }

    /// Gives what is missing to a region of which only the end was found, behind a damaged header: chunks lead there.
    fn extend(&mut self, missing: u64, budget: &mut u64) -> bool {
        let own = (0..self.out.regions.len()).filter(|index| {
            let region = self.out.regions.get(*index);
            region.is_some_and(|region| region.arena == 0)
        });
        let abi = self.target.memory.abi();
        let starts = own.filter_map(|index| {
            let region = self.out.regions.get(index)?;
            let start = abi.page_of(region.start).checked_sub(missing)?;
            let is_free = region.start > start && self.is_nobodys(start, region.start);
            (is_free && self.joins(start, region.start, budget)).then_some((index, start))
        });
        let starts: Vec<(usize, Address)> = starts.collect();
        let &[(index, start)] = starts.as_slice() else {
            return false;
        };
        if let Some(region) = self.out.regions.get_mut(index) {
            region.start = start;
        }
        true
    }

    /// Whether a range that is not empty lies in no region that was found.
    fn is_nobodys(&self, start: Address, end: Address) -> bool {
        let mut regions = self.out.regions.iter();
        start < end && regions.all(|region| region.end <= start || end <= region.start)
    }

    /// Whether chunks lead from one place to another over one damaged header.
    fn joins(&self, start: Address, end: Address, budget: &mut u64) -> bool {
        let starts = self.word(start) == Some(0) && self.reaches(start, end);
        let Some(damaged) = self.follow(start, end, budget).filter(|_| starts) else {
            return false;
        };
        let from = damaged.saturating_add(MIN_CHUNK);
        let until = from.saturating_add(MAX_SEARCH).min(end);
        let mut places = (from.get()..until.get()).step_by(16).map(Address::new);
        damaged == end || places.any(|place| self.follow(place, end, budget) == Some(end))
    }

    /// Where chunks from a place lead: to `end`, or to the first header that cannot be one.
    fn follow(&self, from: Address, end: Address, budget: &mut u64) -> Option<Address> {
        let mut cursor = ground::target::Cursor::new(self.target.memory);
        let mut at = from;
        while at < end {
            *budget = budget.checked_sub(1)?;
            let header = cursor.read_u64(at.checked_add(8)?).ok()?;
            let (size, room) = (header & !FLAGS, end.offset_from(at)?);
            let sane = size >= MIN_CHUNK && size.is_multiple_of(ALIGNMENT) && size <= room;
            if !sane || header & IS_MMAPPED != 0 {
                break;
            }
            at = at.saturating_add(size);
        }
        Some(at)
    }

    /// Places where chunks may begin that no region has: pages of anonymous memory with room for so many bytes.
    fn starts_of(&self, bytes: u64) -> Vec<Address> {
        let max = self.out.heap_max;
        let abi = self.target.memory.abi();
        let mut taken: Vec<(Address, Address)> = self
            .out
            .regions
            .iter()
            .map(|region| {
                let unit = if region.arena == 0 {
                    abi.page_bytes
                } else {
                    max
                };
                let start = Address::new(region.start.get() & !unit.saturating_sub(1));
                (start, abi.page_from(region.end))
            })
            .collect();
        taken.sort_unstable();
        let mut starts = Vec::new();
        for area in self.target.memory.regions() {
            let threads = self.target.threads.list();
            let is_stack = threads.iter().any(|thread| area.range.contains(&thread.sp));
            if area.kind != RegionKind::Anonymous
                || !area.writable
                || area.present_bytes < bytes
                || is_stack
            {
                continue;
            }
            let end = area.range.start.saturating_add(area.present_bytes);
            let mut at = area.range.start;
            while at.checked_add(bytes).is_some_and(|behind| behind <= end) {
                let after = taken.partition_point(|(_, end)| *end <= at);
                match taken
                    .get(after)
                    .filter(|(start, _)| *start < at.saturating_add(bytes))
                {
                    Some((_, end)) => at = *end,
                    None => {
                        starts.push(at);
                        at = at.saturating_add(abi.page_bytes);
                    }
                }
            }
        }
        starts
    }

    /// The last chunk of a range that is full of chunks, and whether it is a top chunk rather than closed by fenceposts. A
    /// header that cannot be one is stepped over once.
    fn last_of(&self, start: Address, end: Address, budget: &mut u64) -> Option<(Address, bool)> {
        let mut at = start;
        let mut damaged = false;
        let first = self.word(start.checked_add(8)?)?;
        if self.word(start)? != 0 || first == 0 {
            return None;
        }
        let mut passed = 0usize;
        while at < end {
            *budget = budget.checked_sub(1)?;
            let header = self.word(at.checked_add(8)?)?;
            let (size, room) = (header & !FLAGS, end.offset_from(at)?);
            if size == HEADER && room == 2 * HEADER {
                return (passed > 0).then_some((at, false));
            }
            if size == room && header & FLAGS == PREV_INUSE {
                return (passed > 0).then_some((at, true));
            }
            let sane = size >= MIN_CHUNK && size.is_multiple_of(ALIGNMENT) && size < room;
            if sane && header & IS_MMAPPED == 0 {
                at = at.saturating_add(size);
                passed = passed.saturating_add(1);
                continue;
            }
            if std::mem::replace(&mut damaged, true) {
                return None;
            }
            let from = at.checked_add(MIN_CHUNK)?;
            let until = from.saturating_add(MAX_SEARCH).min(end);
            at = (from.get()..until.get())
                .step_by(16)
                .map(Address::new)
                .find(|place| self.leads_to(*place, end, budget))?;
        }
        None
    }

    /// Whether chunks lead from a place to the end of a region: its fenceposts or a top chunk.
    fn leads_to(&self, place: Address, end: Address, budget: &mut u64) -> bool {
        let posts = end.checked_sub(2 * HEADER);
        let at = self.follow(place, end, budget);
        at.is_some() && (at == posts || at == Some(end))
    }
}
