//! What is in use, in the order of addresses.

use std::ops::Range;

use super::rows::{Kind, Row};
use super::{Lookup, Node};
use crate::map::GRANULE;
use ground::target::Address;

/// Granules of the smallest chunk that has a block.
const MIN_GRANULES: u64 = 2;

impl Lookup<'_> {
    /// Every live node of a row, with its address and size.
    pub fn each_live(&self, row: u32, mut visit: impl FnMut(Node, Address, u64)) {
        let Some(found) = self.rows.get(row as usize).filter(|row| row.may_live) else {
            return;
        };
        let after = self.rows.get((row as usize).saturating_add(1));
        let end = after.map_or(self.bits, |after| after.first_bit);
        self.each_live_of(row, found.first_bit..end, |_, live| {
            if let Some((node, at, bytes)) = live {
                visit(node, at, bytes);
            }
        });
    }

    /// Every live bit of a range, with its node, address and size if it is one that can be a source.
    pub fn each_live_bit(
        &self,
        bits: Range<u64>,
        mut visit: impl FnMut(u64, Option<(Node, Address, u64)>),
    ) {
        let after = self.rows.partition_point(|row| row.first_bit <= bits.start);
        let mut first = bits.start;
        for index in after.saturating_sub(1)..self.rows.len() {
            let next = self.rows.get(index.saturating_add(1));
            let end = next.map_or(self.bits, |next| next.first_bit).min(bits.end);
            if let Ok(row) = u32::try_from(index) {
                self.each_live_of(row, first..end, &mut visit);
            }
            first = end;
            if first >= bits.end {
                return;
            }
        }
    }

    /// The first bit from `bit` on of what is in use.
    #[inline]
    pub(super) fn first_live(&self, bit: u64) -> Option<u64> {
        match self.live.get(bit) {
            true => Some(bit),
            false => self.live.first_after(bit),
        }
    }

    /// The same of bits of one row.
    #[inline]
    pub(super) fn each_live_of(
        &self,
        row: u32,
        bits: Range<u64>,
        mut visit: impl FnMut(u64, Option<(Node, Address, u64)>),
    ) {
        let Some(found) = self.rows.get(row as usize) else {
            return;
        };
        let mut next = self.first_live(bits.start);
        while let Some(bit) = next.filter(|bit| *bit < bits.end) {
            next = self.live.first_after(bit);
            let slot = u32::try_from(bit.saturating_sub(found.first_bit)).unwrap_or(u32::MAX);
            let node = Node { row, slot };
            let extent = self.source_in(found, slot);
            visit(bit, extent.map(|(at, bytes)| (node, at, bytes)));
        }
    }

    /// Ranges of bits, together all of them, of about `bytes` bytes of memory each.
    pub fn pieces(&self, bytes: u64) -> Vec<Range<u64>> {
        let mut pieces = Vec::new();
        let (mut first, mut inside) = (0, 0u64);
        for (index, row) in self.rows.iter().enumerate() {
            let next = self.rows.get(index.saturating_add(1));
            let end = next.map_or(self.bits, |next| next.first_bit);
            inside = inside.saturating_add(row.bytes);
            if inside < bytes && next.is_some() {
                continue;
            }
            // Of a long row the bits lie evenly.
            let parts = inside.div_ceil(bytes.max(1)).max(1);
            let step = end.saturating_sub(first).div_ceil(parts).max(1);
            while first < end {
                let last = first.saturating_add(step).min(end);
                pieces.push(first..last);
                first = last;
            }
            inside = 0;
        }
        pieces
    }

    /// Where the block at this slot begins, and its size, if it is one that can be a source: no chunk that is
    /// smaller than any with a block.
    #[inline]
    pub(super) fn source_in(&self, row: &Row, slot: u32) -> Option<(Address, u64)> {
        let (at, bytes) = self.extent_in(row, slot)?;
        let least = match row.kind {
            Kind::Chunks { table } => {
                let layout = self.tables.get(table as usize)?.chunks.layout();
                (MIN_GRANULES
                    .saturating_mul(GRANULE)
                    .saturating_add(layout.spill))
                .saturating_sub(layout.lead)
            }
            _ => 0,
        };
        (bytes >= least).then_some((at, bytes))
    }
}
