//! Whose code it is that a frame is in.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Register};

use super::arm64;
use super::{Code, Presences};
use ground::target::{Address, Cursor, Frame, FrameTrust, InstructionSet, MemoryExt, Module};

impl Presences<'_> {
    pub(super) fn is_linker_code(&self, at: Address) -> bool {
        self.linkers.iter().any(|linker| linker.has_code_at(at))
    }

    /// Whether a frame is the dynamic linker's while it looks up a function that the allocator calls. Where that is the last thing
    /// that a function does, no frame of the allocator's is left: only its `link_map`, which the linker was called with.
    pub(super) fn is_bound_for(&self, frame: &Frame, outer: Option<&Frame>) -> bool {
        /// Bytes of the linker's frames, which keep all vector registers, at most.
        const MOST: u64 = 16 << 10;
        /// `link_map.l_ld` (glibc, x86-64): where the module's dynamic section is.
        const DYNAMIC: u64 = 16;
        if !self.is_linker_code(frame.pc) {
            return false;
        }
        let start = frame.sp.get() & !7;
        let outer =
            outer.filter(|outer| matches!(outer.trust, FrameTrust::Context | FrameTrust::Cfi));
        // The table of calls pushes the link map and a number on top of the return address.
        let words = match outer.map(|outer| outer.sp.get()) {
            Some(end) => end.saturating_sub(24)..end.saturating_sub(16),
            None => start..start.saturating_add(MOST),
        };
        let mut cursor = Cursor::new(self.target.memory);
        words.step_by(8).any(|at| {
            let map = cursor.read_u64(Address::new(at)).map(Address::new);
            let map = map.ok().filter(|map| map.is_aligned(8));
            let section = map.and_then(|map| map.checked_add(DYNAMIC));
            section.is_some_and(|at| {
                let dynamic = self.target.memory.read_pointer(at);
                dynamic.is_ok_and(|dynamic| self.module.range.contains(&dynamic))
            })
        })
    }

    /// Whether code is the program's and cannot be the allocator's.
    pub(super) fn is_program_code(&self, at: Address) -> bool {
        let mut modules = self.target.modules.iter();
        !self.module.is_executable
            && modules.any(|module| module.is_executable && module.has_code_at(at))
    }

    /// Whether a frame runs the allocator's code; `None` if that cannot be told.
    pub fn is_allocator_code(&self, frame: &Frame) -> Option<bool> {
        if !self.module.has_code_at(frame.lookup) && !self.module.has_code_at(frame.pc) {
            return Some(false);
        }
        match &self.code {
            Code::Module => Some(true),
            Code::Between(range) => {
                Some(range.contains(&frame.lookup) || range.contains(&frame.pc))
            }
            Code::Touching(state) => {
                let (start, end) = frame.function?;
                self.refers_to(start, end, state)
            }
        }
    }

    /// Whether the function has an operand at a fixed address within one of the ranges. `None` if
    /// its code is not to be had or not to be decoded.
    fn refers_to(&self, start: Address, end: Address, state: &[Range<Address>]) -> Option<bool> {
        let is_own = |at: Address| state.iter().any(|range| range.contains(&at));
        let bytes = end.offset_from(start)?.min(Self::MAX_FUNCTION);
        let mut code = vec![0; usize::try_from(bytes).ok()?];
        self.target.memory.read_into(start, &mut code).ok()?;
        if self.target.threads.instruction_set() == InstructionSet::Aarch64 {
            return Some(arm64::operands(&code, start).any(is_own));
        }
        let decoder = Decoder::with_ip(64, &code, start.get(), DecoderOptions::NONE);
        Some(decoder.into_iter().any(|instruction| {
            let at = if instruction.is_ip_rel_memory_operand() {
                instruction.ip_rel_memory_address()
            } else if instruction.memory_base() == Register::None {
                instruction.memory_displacement64()
            } else {
                return false;
            };
            is_own(Address::new(at))
        }))
    }

    /// Whether an address lies in code of any module.
    pub(super) fn is_code(&self, at: Address) -> bool {
        let mut modules = self.target.modules.iter();
        modules.any(|module| module.has_code_at(at))
    }
}

/// Whether a module is the dynamic linker.
pub(super) fn is_linker(module: &Module) -> bool {
    module.name.starts_with("ld-") || module.name.starts_with("ld.")
}
