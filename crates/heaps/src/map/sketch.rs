//! A heap in a few hundred pieces, by address: for a picture.

use super::{Block, BlockState, Extent, HeapMap, Owner, Shape};
use ground::target::Address;

/// Bytes of the smallest piece, as a power of two: a page.
const LEAST_SHIFT: u32 = 12;

/// A piece of a heap's memory: so many bytes of each state lie in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// First byte, a multiple of the piece's size.
    pub start: u64,
    /// Bytes of blocks in use, with what lies between them.
    pub in_use: u64,
    /// Bytes of free blocks.
    pub free: u64,
    /// Bytes of blocks that damage cut off.
    pub lost: u64,
    /// Bytes of the allocator's own, and ends too short for a block.
    pub metadata: u64,
    /// Bytes of the largest free block that begins in it.
    pub largest_free: u64,
}

/// A heap in pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch {
    /// Bytes of a piece.
    pub piece_bytes: u64,
    /// The pieces that hold any of the heap, by address.
    pub pieces: Vec<Piece>,
}

/// What a run of bytes is.
#[derive(Clone, Copy)]
enum What {
    Block(BlockState),
    Own,
}

struct Drawing {
    shift: u32,
    pieces: Vec<Piece>,
}

impl Drawing {
    /// The piece that begins at `start`; runs come by address.
    fn piece(&mut self, start: u64) -> Option<&mut Piece> {
        if self.pieces.last().is_none_or(|last| last.start < start) {
            self.pieces.push(Piece {
                start,
                ..Piece::default()
            });
        }
        self.pieces.last_mut()
    }

    /// Takes a run; whole pieces in its middle cost one step each.
    fn run(&mut self, start: Address, bytes: u64, what: What) {
        let (mut at, end) = (start.get(), start.saturating_add(bytes).get());
        let mut begins = true;
        while at < end {
            let first = at >> self.shift << self.shift;
            let next = first.saturating_add(1 << self.shift).min(end);
            let Some(piece) = self.piece(first) else {
                return;
            };
            let share = next.saturating_sub(at);
            let sum = match what {
                What::Block(BlockState::InUse) => &mut piece.in_use,
                What::Block(BlockState::Free) => &mut piece.free,
                What::Block(BlockState::Lost) => &mut piece.lost,
                What::Own => &mut piece.metadata,
            };
            *sum = sum.saturating_add(share);
            if begins && matches!(what, What::Block(BlockState::Free)) {
                piece.largest_free = piece.largest_free.max(bytes);
            }
            (at, begins) = (next, false);
        }
    }
}

impl HeapMap {
    /// The heap in at most `most` pieces of one size, which is as small as that allows. Memory that was given back to the
    /// system is in none.
    pub fn sketch(&self, most: usize) -> Sketch {
        let held = |extent: &&Extent| extent.owner != Owner::Returned && extent.bytes > 0;
        let extents: Vec<&Extent> = self.extents().iter().filter(held).collect();
        let shift = (LEAST_SHIFT..=63).find(|shift| pieces_within(&extents, *shift, most));
        let mut drawing = Drawing {
            shift: shift.unwrap_or(63),
            pieces: Vec::new(),
        };
        for (row, extent) in (0u32..).zip(self.extents()) {
            if held(&extent) {
                self.draw(row, extent, &mut drawing);
            }
        }
        Sketch {
            piece_bytes: 1 << drawing.shift,
            pieces: drawing.pieces,
        }
    }

    fn draw(&self, row: u32, extent: &Extent, drawing: &mut Drawing) {
        match extent.shape {
            Shape::Metadata => drawing.run(extent.start, extent.bytes, What::Own),
            Shape::Single | Shape::Slab { .. } => {
                for slot in 0..extent.blocks() {
                    if let Some(block) = extent.block(row, slot) {
                        self.draw_block(block, block.address, block.bytes, drawing);
                    }
                }
                let blocks = extent.block_bytes().saturating_mul(extent.blocks().into());
                let tail = extent.bytes.saturating_sub(blocks);
                drawing.run(extent.start.saturating_add(blocks), tail, What::Own);
            }
            Shape::Chunks { .. } => self.draw_chunks(row, extent, drawing),
        }
    }

    fn draw_chunks(&self, row: u32, extent: &Extent, drawing: &mut Drawing) {
        let Some(chunks) = self.chunks(extent) else {
            return;
        };
        let lead = chunks.layout().lead;
        let first = if chunks.is_start(0) {
            Some(0)
        } else {
            chunks.after(0)
        };
        let mut at = first;
        while let Some(slot) = at {
            let next = chunks.after(slot);
            if let Some(block) = self.block(super::BlockId { extent: row, slot }) {
                let start = Address::new(block.address.get().saturating_sub(lead));
                let end = next.map_or(extent.end(), |next| {
                    let after = chunks.block_address(extent.start, next);
                    Address::new(after.get().saturating_sub(lead))
                });
                let bytes = end.get().saturating_sub(start.get());
                self.draw_block(block, start, bytes, drawing);
            }
            at = next;
        }
    }

    fn draw_block(&self, block: Block, start: Address, bytes: u64, drawing: &mut Drawing) {
        drawing.run(start, bytes, What::Block(self.state(block.id)));
    }
}

/// Whether extents, sorted by address, touch at most `most` pieces of `1 << shift` bytes.
fn pieces_within(extents: &[&Extent], shift: u32, most: usize) -> bool {
    let (mut count, mut next) = (0u64, 0u64);
    for extent in extents {
        let first = (extent.start.get() >> shift).max(next);
        let last = extent.end().get().saturating_sub(1) >> shift;
        count = count.saturating_add(last.saturating_add(1).saturating_sub(first));
        next = next.max(last.saturating_add(1));
        if count > most as u64 {
            return false;
        }
    }
    true
}
