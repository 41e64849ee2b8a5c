//! One step outwards without call-frame information: by a call's return address on top of the stack, by the frame pointer, by
//! scanning the stack. Each is a guess, held to what can be checked, and marked in the frame's trust.

use heaps::target::{Address, FrameTrust, MemoryExt, RegisterSet, TargetMemory};

use super::machine::{Call, Machine};
use crate::arch::ArchInfo;

/// Words looked at by a scan: 16 KiB of stack.
const MAX_SCANNED_WORDS: u64 = 2048;
/// A frame that the frame pointer spans is at most this long.
const MAX_FRAME_BYTES: u64 = 8 << 20;
/// A function without call-frame information is taken to be at most this long.
const MAX_FUNCTION_BYTES: u64 = 64 << 10;

/// What guesses are held to.
pub(super) struct Guess<'a> {
    pub memory: &'a dyn TargetMemory,
    pub arch: &'a ArchInfo,
    pub machine: &'a Machine,
    /// Whether an address lies in an executable mapping.
    pub is_code: &'a dyn Fn(Address) -> bool,
    /// Whether some function with call-frame information covers an address.
    pub has_rules: &'a dyn Fn(Address) -> bool,
}

/// A caller by guess.
pub(super) struct Guessed {
    pub registers: RegisterSet,
    pub trust: FrameTrust,
}

/// What speaks for a return address.
enum Evidence {
    /// A call stands before it.
    Call(Call),
    /// The code cannot be read, but a function with rules covers it.
    Function,
    /// Nothing but that code is there: enough for a chain of frame pointers, not for a scan.
    Unreadable,
}

impl Guess<'_> {
    /// The caller of a frame whose pc was not reached by a return: the innermost, or one that a signal interrupted.
    pub fn caller_of_context(&self, registers: &RegisterSet) -> Option<Guessed> {
        self.top_of_stack(registers)
            .or_else(|| self.caller(registers))
    }

    /// The caller of any frame.
    pub fn caller(&self, registers: &RegisterSet) -> Option<Guessed> {
        self.frame_pointer(registers)
            .or_else(|| self.scan(registers))
    }

    /// The function has not touched the stack: a call through a bad pointer, or a leaf of hand-written code.
    fn top_of_stack(&self, registers: &RegisterSet) -> Option<Guessed> {
        let pc = registers.get(self.arch.pc)?;
        let nowhere = !(self.is_code)(Address::new(pc));
        let sp = registers.get(self.arch.sp)?;
        let (back, sp) = if self.machine.return_on_stack {
            (self.word(sp)?, sp.checked_add(8)?)
        } else {
            (registers.get(self.arch.link?)?, sp)
        };
        let back = back & self.machine.code_mask;
        let called_here = match self.evidence(back)? {
            _ if nowhere => true,
            Evidence::Call(Call::Direct(distance)) => back
                .checked_add_signed(distance)
                .and_then(|target| pc.checked_sub(target))
                .is_some_and(|inside| inside < MAX_FUNCTION_BYTES),
            _ => false,
        };
        if !called_here {
            return None;
        }
        let mut caller = self.preserved(registers);
        caller.set(self.arch.pc, back);
        caller.set(self.arch.sp, sp);
        Some(Guessed {
            registers: caller,
            trust: FrameTrust::Scan,
        })
    }

    /// `fp` points at the saved frame pointer, with the return address above it.
    fn frame_pointer(&self, registers: &RegisterSet) -> Option<Guessed> {
        let sp = registers.get(self.arch.sp)?;
        let fp = registers.get(self.arch.fp)?;
        let length = fp.checked_sub(sp)?;
        if length > MAX_FRAME_BYTES || !fp.is_multiple_of(8) || !self.same_region(sp, fp) {
            return None;
        }
        let saved = self.word(fp)?;
        let back = self.word(fp.checked_add(8)?)? & self.machine.code_mask;
        self.evidence(back)?;
        if saved != 0 && !(saved > fp && self.same_region(fp, saved)) {
            return None;
        }
        let mut caller = RegisterSet::empty();
        caller.set(self.arch.pc, back);
        caller.set(self.arch.sp, fp.checked_add(16)?);
        caller.set(self.arch.fp, saved);
        Some(Guessed {
            registers: caller,
            trust: FrameTrust::FramePointer,
        })
    }

    /// The nearest word on the stack that is a return address.
    fn scan(&self, registers: &RegisterSet) -> Option<Guessed> {
        let sp = registers.get(self.arch.sp)?.checked_next_multiple_of(8)?;
        for word in 0..MAX_SCANNED_WORDS {
            let slot = sp.checked_add(word.checked_mul(8)?)?;
            let back = self.word(slot)? & self.machine.code_mask;
            if matches!(self.evidence(back), None | Some(Evidence::Unreadable)) {
                continue;
            }
            let mut caller = RegisterSet::empty();
            caller.set(self.arch.pc, back);
            caller.set(self.arch.sp, slot.checked_add(8)?);
            if let Some(fp) = self.frame_pointer_near(registers, slot) {
                caller.set(self.arch.fp, fp);
            }
            return Some(Guessed {
                registers: caller,
                trust: FrameTrust::Scan,
            });
        }
        None
    }

    /// The caller's frame pointer, if its return address is at `slot`: still in the register, or pushed just below. Held to
    /// what it must point at, a frame with a return address: any register may hold some pointer to the stack.
    fn frame_pointer_near(&self, registers: &RegisterSet, slot: u64) -> Option<u64> {
        let fits = |fp: &u64| {
            let back = fp.checked_add(8).and_then(|above| self.word(above));
            *fp > slot
                && fp - slot <= MAX_FRAME_BYTES
                && fp.is_multiple_of(8)
                && self.same_region(slot, *fp)
                && back.is_some_and(|back| self.evidence(back & self.machine.code_mask).is_some())
        };
        let pushed = slot.checked_sub(8).and_then(|below| self.word(below));
        registers
            .get(self.arch.fp)
            .filter(fits)
            .or_else(|| pushed.filter(fits))
    }

    /// What speaks for `back` being a return address; `None` if something speaks against it.
    fn evidence(&self, back: u64) -> Option<Evidence> {
        let back = Address::new(back);
        let before = back.checked_sub(1)?;
        if !(self.is_code)(before) {
            return None;
        }
        let mut code = [0u8; 8];
        let code = code.get_mut(..self.machine.call_bytes)?;
        let start = back.checked_sub(self.machine.call_bytes as u64)?;
        match self.memory.read_into(start, code) {
            Ok(()) => (self.machine.call_before)(code).map(Evidence::Call),
            Err(_) if (self.has_rules)(before) => Some(Evidence::Function),
            Err(_) => Some(Evidence::Unreadable),
        }
    }

    /// What the ABI makes a callee preserve.
    fn preserved(&self, registers: &RegisterSet) -> RegisterSet {
        let mut kept = RegisterSet::empty();
        for &number in self.arch.callee_saved {
            if let Some(value) = registers.get(number) {
                kept.set(number, value);
            }
        }
        kept
    }

    fn same_region(&self, one: u64, other: u64) -> bool {
        let region = self.memory.region_at(Address::new(one));
        region.is_some_and(|region| region.range.contains(&Address::new(other)))
    }

    fn word(&self, at: u64) -> Option<u64> {
        let word = self.memory.read_pointer(Address::new(at));
        word.ok().map(Address::get)
    }
}
