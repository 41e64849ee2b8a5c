//! Sampled allocations: blocks with an extent of their own that remember who asked for them (`opt.prof`).
//!
//! ```text
//! extent +72 (5.3) requested bytes   +80 (5.0-5.2: +72) ──> prof_tctx_t ──> prof_gctx_t: stack {address, length}
//! ```
//!
//! (`prof_structs.h`: gctx at +96 of the first, stack at +0x68 of the second in 5.3; +56 and +0x48 before.) The words mean
//! something else where profiling is off, so both structures must be blocks of the heap, and every frame code.

use super::JemallocHeap;
use super::extents::{Row, State};
use ground::target::{Address, MemoryExt};

/// Frames that a release records at most.
const MAX_DEPTH: u32 = 256;

/// A recorded allocation.
pub struct Sample {
    /// Bytes that the program asked for, where that is recorded.
    pub requested: Option<u64>,
    /// Program counters, innermost first; the first ones lie in jemalloc itself.
    pub stack: Vec<Address>,
    /// Structures that belong to it: blocks of the allocator's own.
    pub own: [Address; 3],
}

impl JemallocHeap<'_> {
    /// All extents that remember who asked for them, with what they remember.
    pub(super) fn samples(&self) -> impl Iterator<Item = (&Row, Sample)> {
        let rows = self.located.extents.rows.iter();
        rows.filter_map(|row| Some((row, self.sample(row)?)))
    }

    /// What an extent remembers.
    pub(super) fn sample(&self, row: &Row) -> Option<Sample> {
        if row.slab || row.state != State::Active || !self.holds_blocks(row) {
            return None;
        }
        let memory = self.target.memory;
        let layout = &self.located.layout;
        let context = memory
            .read_pointer(row.at.checked_add(layout.extent.context)?)
            .ok()?;
        let (global, trace) = layout.stack;
        if !self.is_block(context) {
            return None;
        }
        let thread = memory.read_pointer(context).ok()?;
        let global = memory.read_pointer(context.checked_add(global)?).ok()?;
        if !self.is_block(global) {
            return None;
        }
        let frames = memory.read_pointer(global.checked_add(trace)?).ok()?;
        let depth = memory
            .read_u32(global.checked_add(trace.saturating_add(8))?)
            .ok()?;
        if depth == 0 || depth > MAX_DEPTH {
            return None;
        }
        let is_code = |pc: &Address| {
            self.target
                .modules
                .iter()
                .any(|module| module.has_code_at(*pc))
        };
        let stack = (0..u64::from(depth))
            .map(|index| {
                let pc = memory
                    .read_pointer(frames.checked_add(index.saturating_mul(8))?)
                    .ok()?;
                Some(pc).filter(is_code)
            })
            .collect::<Option<Vec<Address>>>()?;
        let requested = layout
            .extent
            .requested
            .and_then(|offset| memory.read_u64(row.at.checked_add(offset)?).ok())
            .filter(|bytes| *bytes <= self.usable(row));
        Some(Sample {
            requested,
            stack,
            own: [context, global, thread],
        })
    }

    /// Whether a block that is handed out begins at `at`, as slabs and extents have it.
    fn is_block(&self, at: Address) -> bool {
        !at.is_null() && self.block_start(at) == Some(at)
    }
}
