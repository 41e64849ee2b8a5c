//! What is known of blocks: a bit of each in every column.

use super::{BlockId, BlockState, HeapMap, Owner};

impl HeapMap {
    fn bit(&self, id: BlockId) -> Option<u64> {
        let extent = self.extent(id.extent)?;
        (id.slot < extent.blocks()).then(|| extent.first_bit.saturating_add(u64::from(id.slot)))
    }

    /// Notes that a list holds the block; says whether one did already.
    #[inline]
    pub fn mark_listed(&self, id: BlockId) -> bool {
        self.bit(id).is_none_or(|bit| self.listed.test_and_set(bit))
    }

    /// Notes that lists hold the blocks of up to 64 slots from `slot` on, one per bit of `mask`; says
    /// which of them one did already. Bits past the extent's end are ignored.
    #[inline]
    pub fn mark_listed_run(&self, row: u32, slot: u32, mask: u64) -> u64 {
        let Some(extent) = self.extent(row) else {
            return 0;
        };
        match extent.blocks().checked_sub(slot) {
            None | Some(0) => 0,
            Some(left) => {
                let mask = if left < 64 {
                    mask & (1u64 << left).saturating_sub(1)
                } else {
                    mask
                };
                self.listed
                    .set_run(extent.first_bit.saturating_add(u64::from(slot)), mask)
            }
        }
    }

    /// Whether a list holds the block.
    pub fn is_listed(&self, id: BlockId) -> bool {
        self.bit(id).is_some_and(|bit| self.listed.get(bit))
    }

    /// Notes that more than one edge enters the block.
    pub fn mark_disputed(&self, id: BlockId) {
        if let Some(bit) = self.bit(id) {
            self.disputed.test_and_set(bit);
        }
    }

    /// Whether more than one edge enters the block.
    pub fn is_disputed(&self, id: BlockId) -> bool {
        self.bit(id).is_some_and(|bit| self.disputed.get(bit))
    }

    /// Notes that the block is free although damage has cut it off from every list.
    pub fn mark_lost(&self, id: BlockId) {
        if let Some(bit) = self.bit(id) {
            self.lost.test_and_set(bit);
        }
    }

    /// Whether the block is known to be cut off.
    pub fn is_lost(&self, id: BlockId) -> bool {
        self.bit(id).is_some_and(|bit| self.lost.get(bit))
    }

    /// Forgets which blocks of an extent lists hold, for a second and more careful look.
    pub fn unlist(&self, row: u32) {
        if let Some(extent) = self.extent(row) {
            self.listed
                .clear_run(extent.first_bit, extent.blocks().into());
        }
    }

    /// Forgets that a list holds the block.
    pub fn unlist_block(&self, id: BlockId) {
        if let Some(bit) = self.bit(id) {
            self.listed.clear(bit);
        }
    }

    /// Blocks of an extent that lists hold.
    pub fn listed_in(&self, row: u32) -> u64 {
        self.extent(row).map_or(0, |extent| {
            self.listed.count(extent.first_bit, extent.blocks().into())
        })
    }

    /// Blocks of an extent that are known to be cut off.
    pub fn lost_in(&self, row: u32) -> u64 {
        self.extent(row).map_or(0, |extent| {
            self.lost.count(extent.first_bit, extent.blocks().into())
        })
    }

    /// Which of the 64 slots from `slot` on are blocks in use, a bit each; of chunks, those at which one begins.
    pub fn in_use_run(&self, row: u32, slot: u32) -> u64 {
        let Some(extent) = self
            .extent(row)
            .filter(|extent| extent.owner == Owner::InUse)
        else {
            return 0;
        };
        let first = extent.first_bit.saturating_add(u64::from(slot));
        let begins = match self.chunks(extent) {
            Some(chunks) => chunks.starts_run(slot),
            None => match extent.blocks().saturating_sub(slot) {
                left @ 0..64 => (1u64 << left).saturating_sub(1),
                _ => u64::MAX,
            },
        };
        begins & !(self.listed.run(first) | self.lost.run(first))
    }

    /// State of a block by all its witnesses.
    pub fn state(&self, id: BlockId) -> BlockState {
        if self
            .extent(id.extent)
            .is_none_or(|extent| extent.owner != Owner::InUse)
            || self.is_listed(id)
        {
            BlockState::Free
        } else if self.is_lost(id) {
            BlockState::Lost
        } else {
            BlockState::InUse
        }
    }
}
