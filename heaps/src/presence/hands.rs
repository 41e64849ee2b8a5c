//! What a thread inside the allocator has in hand: whatever it is changing, it must have the address of.

use crate::target::{Address, Cursor, ModuleId};

use super::{Presence, Presences};

impl Presences<'_> {
    /// All words in the registers and on the stack of a thread, where it is inside the allocator. `None` where its frames are
    /// not known: it may hold anything.
    pub fn in_hand(&self, thread: usize) -> Option<Vec<u64>> {
        /// Below the stack pointer, where a function that calls no other keeps words (x86-64).
        const RED_ZONE: u64 = 128;
        /// More than a frame of an allocator's has.
        const MAX_FRAME: u64 = 16 << 10;
        if !matches!(self.of(thread), Presence::Inside { .. }) {
            return None;
        }
        let last = self.last_inside(thread)?;
        let frames = self.target.threads.frames(thread);
        frames.first()?.registers.iter().next()?;
        let mut words = Vec::new();
        let mut cursor = Cursor::new(self.target.memory);
        for (number, frame) in frames.iter().enumerate().take(last + 1) {
            words.extend(frame.registers.iter().map(|(_, value)| value));
            let caller = frames.get(number + 1).map(|caller| caller.sp);
            let bytes = caller
                .and_then(|caller| caller.offset_from(frame.sp))
                .map_or(MAX_FRAME, |bytes| bytes.min(MAX_FRAME));
            let start = Address::new(frame.sp.get().saturating_sub(RED_ZONE) & !7);
            let end = frame.sp.saturating_add(bytes);
            let places = (start.get()..end.get()).step_by(8).map(Address::new);
            words.extend(places.map_while(|at| cursor.read_u64(at).ok()));
        }
        Some(words)
    }

    /// The module that called the allocator, where the thread is inside it.
    pub fn caller(&self, thread: usize) -> Option<ModuleId> {
        let frames = self.target.threads.frames(thread);
        frames.get(self.last_inside(thread)? + 1)?.module
    }

    /// The outermost frame that is, or may be, the allocator's.
    fn last_inside(&self, thread: usize) -> Option<usize> {
        let frames = self.target.threads.frames(thread);
        frames
            .iter()
            .take(Self::MAX_FRAMES)
            .rposition(|frame| self.is_allocator_code(frame) != Some(false))
    }
}
