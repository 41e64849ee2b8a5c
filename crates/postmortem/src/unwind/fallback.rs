//! One step outwards without call-frame information: by a call's return address on top of the stack, by the frame pointer, by
//! scanning the stack. Each is a guess, held to what can be checked, and marked in the frame's trust.

use std::ops::Range;
use std::sync::Arc;

use gimli::{CfaRule, RegisterRule};
use ground::target::{Address, FrameTrust, MemoryExt, RegisterSet, TargetMemory};

use super::tables::Row;
use ground::arch::{ArchInfo, Call};

/// Words looked at by a scan: 16 KiB of stack.
const MAX_SCANNED_WORDS: u64 = 2048;
/// A frame that the frame pointer spans is at most this long.
const MAX_FRAME_BYTES: u64 = 8 << 20;
/// Places tried for the start of a caller's frame: 8 KiB of stack.
const MAX_SETTLED_STEPS: u64 = 512;
/// A function without call-frame information is taken to be at most this long.
const MAX_FUNCTION_BYTES: u64 = 64 << 10;

/// What guesses are held to.
pub(super) struct Guess<'a> {
    pub memory: &'a dyn TargetMemory,
    pub arch: &'a ArchInfo,
    /// The bits of an address of code.
    pub code_mask: u64,
    /// Whether an address lies in an executable mapping.
    pub is_code: &'a dyn Fn(Address) -> bool,
    /// Where the function can begin that holds an address: one place if symbols tell, else the code without rules before it.
    pub starts_at: &'a dyn Fn(Address) -> Option<Range<u64>>,
    /// The rules at an address, if some function with call-frame information covers it.
    pub rules_at: &'a dyn Fn(Address) -> Option<Arc<Row>>,
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
    pub fn caller_of_context(&self, registers: &RegisterSet, pc: Address) -> Option<Guessed> {
        self.top_of_stack(registers)
            .or_else(|| self.caller(registers, pc))
    }

    /// The caller of a frame whose code is looked up at `lookup`.
    pub fn caller(&self, registers: &RegisterSet, lookup: Address) -> Option<Guessed> {
        let by_pair = self.frame_pointer(registers);
        // A function that keeps no frame pointer leaves its caller's: that pair belongs to a call of another function.
        let another = by_pair.as_ref().and_then(|guessed| {
            let target = self.target_of(guessed.registers.get(self.arch.pc)?)?;
            (self.starts_at)(lookup).filter(|starts| !starts.contains(&target))
        });
        let called = another.and_then(|starts| {
            let above = registers.get(self.arch.fp)?;
            self.scan(registers, above, |back| {
                let target = self.target_of(back);
                target.is_some_and(|target| starts.contains(&target))
            })
        });
        called.or(by_pair).or_else(|| {
            self.scan(registers, u64::MAX, |back| {
                !matches!(self.evidence(back), None | Some(Evidence::Unreadable))
            })
        })
    }

    /// What the call before a return address calls, if that is a fixed place.
    fn target_of(&self, back: u64) -> Option<u64> {
        match self.evidence(back)? {
            Evidence::Call(Call::Direct(distance)) => back.checked_add_signed(distance),
            _ => None,
        }
    }

    /// The function has not touched the stack: a call through a bad pointer, or a leaf of hand-written code.
    fn top_of_stack(&self, registers: &RegisterSet) -> Option<Guessed> {
        let pc = registers.get(self.arch.pc)?;
        let nowhere = !(self.is_code)(Address::new(pc));
        let sp = registers.get(self.arch.sp)?;
        let (back, sp) = match self.arch.link {
            None => (self.word(sp)?, sp.checked_add(8)?),
            Some(link) => (registers.get(link)?, sp),
        };
        let back = back & self.code_mask;
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
        let back = self.word(fp.checked_add(8)?)? & self.code_mask;
        self.evidence(back)?;
        if saved != 0 && !(saved > fp && self.same_region(fp, saved)) {
            return None;
        }
        let mut caller = RegisterSet::empty();
        caller.set(self.arch.pc, back);
        caller.set(self.arch.fp, saved);
        let sp = self.settled(fp.checked_add(16)?, back, Some(saved));
        caller.set(self.arch.sp, sp);
        Some(Guessed {
            registers: caller,
            trust: FrameTrust::FramePointer,
        })
    }

    /// The nearest word on the stack, below `end`, that is a return address as wanted.
    fn scan(
        &self,
        registers: &RegisterSet,
        end: u64,
        wanted: impl Fn(u64) -> bool,
    ) -> Option<Guessed> {
        let sp = registers.get(self.arch.sp)?.checked_next_multiple_of(8)?;
        let mut is_on_stack = false;
        for word in 0..MAX_SCANNED_WORDS {
            let slot = sp.checked_add(word.checked_mul(8)?)?;
            if slot >= end {
                break;
            }
            let back = match self.word(slot) {
                Some(back) => back & self.code_mask,
                // A stack that has ended begins above.
                None if !is_on_stack => continue,
                None => return None,
            };
            is_on_stack = true;
            if !wanted(back) {
                continue;
            }
            let mut caller = RegisterSet::empty();
            caller.set(self.arch.pc, back);
            let fp = self.frame_pointer_near(registers, slot);
            if let Some(fp) = fp {
                caller.set(self.arch.fp, fp);
            }
            let sp = self.settled(slot.checked_add(8)?, back, fp);
            caller.set(self.arch.sp, sp);
            return Some(Guessed {
                registers: caller,
                trust: FrameTrust::Scan,
            });
        }
        None
    }

    /// The caller's stack pointer, which is `low` or above. Where calls leave the return address in a register, what a
    /// function saves of it is anywhere in its frame, so that the caller's frame begins somewhere above: where the caller's
    /// rules find its own saved pair at its frame pointer, else where they find a return address.
    fn settled(&self, low: u64, back: u64, fp: Option<u64>) -> u64 {
        let settle = || {
            let link = self.arch.link?;
            let row = (self.rules_at)(Address::new(back.checked_sub(1)?))?;
            let CfaRule::RegisterAndOffset { register, offset } = row.cfa else {
                return None;
            };
            if register.0 != self.arch.sp {
                return None; // the stack pointer makes no difference
            }
            let saved = |number: u16| {
                row.rules.iter().find_map(|(found, rule)| match rule {
                    RegisterRule::Offset(at) if *found == number => Some(*at),
                    _ => None,
                })
            };
            // From the stack pointer to where the return address is saved.
            let from_sp = saved(link)?.checked_add(offset)?;
            let is_return = |at: u64| {
                let back = self.word(at)? & self.code_mask;
                let evidence = self.evidence(back)?;
                (!matches!(evidence, Evidence::Unreadable)).then_some(())
            };
            let align = self.arch.calls.stack_align;
            let by_pair = fp.zip(saved(self.arch.fp)).and_then(|(fp, at)| {
                let sp = fp.checked_add_signed(at.checked_add(offset)?.checked_neg()?)?;
                is_return(sp.checked_add_signed(from_sp)?)?;
                (sp >= low && sp <= fp && sp.is_multiple_of(align)).then_some(sp)
            });
            by_pair.or_else(|| {
                let first = low.checked_next_multiple_of(align)?;
                (0..MAX_SETTLED_STEPS).find_map(|step| {
                    let sp = first.checked_add(step.checked_mul(align)?)?;
                    is_return(sp.checked_add_signed(from_sp)?).map(|()| sp)
                })
            })
        };
        settle().unwrap_or(low)
    }

    /// The caller's frame pointer, if its return address is at `slot`: still in the register, or pushed just below. Held to
    /// what it must point at, a frame with a return address: any register may hold some pointer to the stack.
    fn frame_pointer_near(&self, registers: &RegisterSet, slot: u64) -> Option<u64> {
        let fits = |fp: &u64| {
            let back = fp.checked_add(8).and_then(|above| self.word(above));
            *fp > slot
                && fp.saturating_sub(slot) <= MAX_FRAME_BYTES
                && fp.is_multiple_of(8)
                && self.same_region(slot, *fp)
                && back.is_some_and(|back| self.evidence(back & self.code_mask).is_some())
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
        let code = code.get_mut(..self.arch.calls.bytes)?;
        let start = back.checked_sub(self.arch.calls.bytes as u64)?;
        match self.memory.read_into(start, code) {
            Ok(()) => (self.arch.calls.before)(code).map(Evidence::Call),
            Err(_) if (self.rules_at)(before).is_some() => Some(Evidence::Function),
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
