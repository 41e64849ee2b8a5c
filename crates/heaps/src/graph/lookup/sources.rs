//! Whose words the words of a run of memory are.

use std::ops::{Range, RangeInclusive};

use super::rows::Row;
use super::{Lookup, Node};
use ground::target::Address;

/// Bytes without anything in use that are worth passing over.
const GAP: u64 = 64 << 10;

/// The blocks of a part of one row, as the sources of the words there. Words are asked for by rising address.
pub struct Sources<'l, 'm> {
    lookup: &'l Lookup<'m>,
    row: &'l Row,
    index: u32,
    slots: RangeInclusive<u32>,
    /// The block that was found last, and the bit that it has if it is a source.
    block: Range<u64>,
    bit: Option<u64>,
}

impl<'m> Lookup<'m> {
    /// The parts of rows that a range of bits covers and that have something in use. Where nothing is for
    /// long, another part begins: what was freed is not read.
    pub fn sources(&self, bits: Range<u64>) -> impl Iterator<Item = Sources<'_, 'm>> {
        let after = self.rows.partition_point(|row| row.first_bit <= bits.start);
        let mut index = after.saturating_sub(1);
        let mut next = self.first_live(bits.start);
        std::iter::from_fn(move || {
            let first = next.filter(|first| *first < bits.end)?;
            while self
                .rows
                .get(index.saturating_add(1))
                .is_some_and(|row| row.first_bit <= first)
            {
                index = index.saturating_add(1);
            }
            let row = self.rows.get(index)?;
            let behind = self.rows.get(index.saturating_add(1));
            let end = behind.map_or(self.bits, |row| row.first_bit).min(bits.end);
            let last = self.last_of_run(first, end, row.slots_of(GAP));
            next = self.live.first_after(last);
            let slot = |bit: u64| u32::try_from(bit.saturating_sub(row.first_bit));
            Some(Sources {
                lookup: self,
                row,
                index: u32::try_from(index).ok()?,
                slots: slot(first).ok()?..=slot(last).ok()?,
                block: 0..0,
                bit: None,
            })
        })
    }

    /// The last bit before `end` of what is in use from `first` on, no two further apart than `gap`.
    fn last_of_run(&self, first: u64, end: u64, gap: u64) -> u64 {
        let mut last = first;
        loop {
            let far = last.saturating_add(gap).min(end.saturating_sub(1));
            match self.live.last_at_or_before(far) {
                Some(next) if next > last => last = next,
                _ => return last,
            }
        }
    }
}

impl Sources<'_, '_> {
    /// Memory that holds the words of all of them, and maybe others.
    pub fn memory(&self) -> Range<Address> {
        let extent = |slot: u32| self.lookup.extent_in(self.row, slot);
        match (extent(*self.slots.start()), extent(*self.slots.end())) {
            (Some((start, _)), Some((last, bytes))) => start..last.saturating_add(bytes),
            _ => Address::new(0)..Address::new(0),
        }
    }

    /// Whether something in the row is silent.
    pub fn is_cut(&self) -> bool {
        self.row.is_cut
    }

    /// All that are in use, with their bits, first bytes and sizes.
    pub fn each(&self, mut visit: impl FnMut(u64, Node, Address, u64)) {
        let bit = |slot: u32| self.row.first_bit.saturating_add(slot.into());
        let bits = bit(*self.slots.start())..bit(*self.slots.end()).saturating_add(1);
        self.lookup.each_live_of(self.index, bits, |bit, live| {
            if let Some((node, at, bytes)) = live {
                visit(bit, node, at, bytes);
            }
        });
    }

    /// The bit of the block in use that has all of the word of 8 bytes at `at`, and its first byte.
    #[inline]
    pub fn at(&mut self, at: u64) -> Option<(u64, u64)> {
        if !self.block.contains(&at) {
            self.go_to(at);
        }
        let is_whole = self.block.end.saturating_sub(at) >= 8;
        self.bit
            .filter(|_| is_whole)
            .map(|bit| (bit, self.block.start))
    }

    /// Goes to the block that holds `at`; to nothing but this byte where there is none.
    #[inline]
    fn go_to(&mut self, at: u64) {
        self.bit = None;
        self.block = at..at.saturating_add(1);
        let (lookup, row) = (self.lookup, self.row);
        let slot = lookup.slot(row, at.saturating_sub(row.start));
        let Some(slot) = slot.filter(|slot| self.slots.contains(slot)) else {
            return;
        };
        let Some((start, bytes)) = lookup.source_in(row, slot) else {
            return;
        };
        let block = start.get()..start.get().saturating_add(bytes);
        if !block.contains(&at) {
            return;
        }
        self.block = block;
        let bit = row.first_bit.saturating_add(slot.into());
        self.bit = lookup.is_live_bit(bit).then_some(bit);
    }
}
