//! The walk from a thread's registers to its outermost frame.

use std::collections::VecDeque;
use std::sync::Arc;

use gimli::CfaRule;
use ground::target::{Address, Frame, FrameTrust, MemoryExt, Module, RegisterSet, Thread};

use super::cfi::{Machinery, NoCaller};

use super::fallback::{Guess, Guessed};
use super::tables::{Row, Tables};
use super::{
    KEPT_AT_LEAST, KEPT_AT_MOST, KEPT_INNER, KEPT_OF_ALL, KEPT_OF_OTHERS, KEPT_OUTER, MAX_FRAMES,
    MAX_FRAMES_OF_ALL, MAX_SIGNALS, Omitted, Stack, StackEnd, Unwinder,
};

/// The canonical frame address of a function in terms of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRule {
    /// The register, by its DWARF number.
    pub register: u16,
    /// What is added to its value.
    pub offset: i64,
    /// The function has code that exceptions lead to, which may lie elsewhere.
    pub has_landing_pads: bool,
}

/// How a frame was reached.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reached {
    /// It is the innermost, or a signal interrupted it: its pc is the instruction itself.
    Context { interrupted: bool },
    /// Its callee returns to its pc, which lies behind the call.
    Return,
}

/// A frame on the way, before it is written down.
struct Here {
    registers: RegisterSet,
    pc: u64,
    sp: u64,
    reached: Reached,
    trust: FrameTrust,
}

impl Here {
    fn lookup(&self) -> u64 {
        match self.reached {
            Reached::Context { .. } => self.pc,
            Reached::Return => self.pc.wrapping_sub(1),
        }
    }
}

impl Unwinder {
    pub(super) fn walk(&self, thread: &Thread, bounds: Bounds) -> Stack {
        let mut kept = Kept::new(bounds);
        let mut signals = 0;
        let mut nowhere = false;
        let mut without_file = false;
        let mut here = Here {
            registers: thread.registers,
            pc: thread.pc.get(),
            sp: thread.sp.get(),
            reached: Reached::Context { interrupted: false },
            trust: FrameTrust::Context,
        };
        let end = loop {
            let rules = self.rules(here.lookup());
            without_file |= rules.as_ref().is_some_and(|rules| !rules.tables.is_known());
            kept.push(frame_of(&here, rules.as_ref()));
            if kept.total >= bounds.walked || signals > MAX_SIGNALS {
                break StackEnd::TooLong;
            }
            match self.outwards(&here, rules.as_ref()) {
                Ok(next) => {
                    signals = signals.saturating_add(u32::from(next.reached != Reached::Return));
                    nowhere |= self.is_nowhere(&here, Some(&next));
                    here = next;
                }
                Err(end) => {
                    nowhere |= self.is_nowhere(&here, None);
                    break end;
                }
            }
        };
        let damaged = matches!(
            end,
            StackEnd::Complete | StackEnd::Lost | StackEnd::NotRising
        );
        kept.into_stack(match end {
            StackEnd::Lost | StackEnd::NotRising if without_file => StackEnd::NoFile,
            StackEnd::Complete if nowhere && without_file => StackEnd::NoFile,
            _ if nowhere && damaged => StackEnd::Overwritten,
            end => end,
        })
    }

    /// The registers of a frame's caller that the frame's function, or a signal that interrupted the caller, keeps elsewhere: each with the
    /// word that has it, `None` where that cannot be told. Nothing is answered where the caller was not found by rules.
    pub fn saved_registers(
        &self,
        thread: usize,
        frame: usize,
    ) -> Option<Vec<(u16, Option<Address>)>> {
        let stack = self.stack(thread)?;
        let next = frame.checked_add(1)?;
        let is_gap = stack.omitted.is_some_and(|omitted| omitted.before == next);
        let caller = stack.frames.get(next).filter(|_| !is_gap)?;
        let here = stack.frames.get(frame)?;
        if caller.trust != FrameTrust::Cfi {
            return None;
        }
        let rules = self.rules(here.lookup.get())?;
        let row = rules.row.as_ref()?;
        let machinery = Machinery {
            memory: self.memory.as_ref(),
            arch: self.arch,
            tables: rules.tables,
            bias: rules.module.bias,
        };
        // A signal's frame has an address of its own; what the kernel saved is told by expressions.
        let cfa = machinery.frame_address(row, &here.registers)?;
        Some(machinery.saved(row, &here.registers, cfa))
    }

    /// Where the frame of the function at `at` is relative to a register, before the instruction there; `None` where the rules say it
    /// otherwise.
    pub fn frame_rule(&self, at: Address) -> Option<FrameRule> {
        let rules = self.rules(at.get())?;
        let row = rules.row.as_ref()?;
        match row.cfa {
            CfaRule::RegisterAndOffset { register, offset } => Some(FrameRule {
                register: register.0,
                offset,
                has_landing_pads: row.landing_pads,
            }),
            CfaRule::Expression(_) => None,
        }
    }

    /// The canonical frame address of a frame: what its variables lie relative to.
    pub fn frame_address(&self, thread: usize, frame: usize) -> Option<Address> {
        let here = self.stack(thread)?.frames.get(frame)?;
        let rules = self.rules(here.lookup.get())?;
        let machinery = Machinery {
            memory: self.memory.as_ref(),
            arch: self.arch,
            tables: rules.tables,
            bias: rules.module.bias,
        };
        let cfa = machinery.frame_address(rules.row.as_ref()?, &here.registers)?;
        Some(Address::new(cfa))
    }

    /// Whether a return went to a place without code: to this frame, whose caller is `next`.
    fn is_nowhere(&self, here: &Here, next: Option<&Here>) -> bool {
        if self.is_code(Address::new(here.lookup())) {
            return false;
        }
        match here.reached {
            // A handler returns to the trampoline's first byte, with nothing before it.
            Reached::Return => next.is_none_or(|next| next.reached == Reached::Return),
            // A call of a bad address leaves its return address where every call does.
            Reached::Context { .. } => next.is_some_and(|next| {
                let popped = if self.arch.link.is_some() { 0 } else { 8 };
                next.trust != FrameTrust::Context && next.sp != here.sp.wrapping_add(popped)
            }),
        }
    }

    /// The module at an address, and the rules there.
    fn rules(&self, lookup: u64) -> Option<Rules<'_>> {
        let (module, tables) = self.module_at(Address::new(lookup))?;
        let row = tables.row(lookup.wrapping_sub(module.bias));
        Some(Rules {
            module,
            tables,
            row,
        })
    }

    fn outwards(&self, here: &Here, rules: Option<&Rules<'_>>) -> Result<Here, StackEnd> {
        let row = rules.and_then(|rules| Some((rules, rules.row.as_deref()?)));
        let by_signal = row.is_some_and(|(_, row)| row.signal);
        if !by_signal
            && here.reached == Reached::Return
            && let Some(next) = self.saved_by_kernel(here, row.map(|(_, row)| row), rules)
        {
            return Ok(next);
        }

        let mut end = StackEnd::Lost;
        if let Some((rules, row)) = row {
            let machinery = Machinery {
                memory: self.memory.as_ref(),
                arch: self.arch,
                tables: rules.tables,
                bias: rules.module.bias,
            };
            match machinery.step(row, &here.registers) {
                Err(NoCaller::Outermost) => return Err(StackEnd::Complete),
                Ok(mut registers) => {
                    self.strip(&mut registers);
                    match self.accept(here, registers, FrameTrust::Cfi, by_signal) {
                        Ok(next) => return Ok(next),
                        Err(StackEnd::Complete) => return Err(StackEnd::Complete),
                        Err(why) => end = why,
                    }
                }
                Err(NoCaller::Unreadable(fault)) => end = StackEnd::Unreadable(fault),
                Err(NoCaller::Nonsense) => {}
            }
        } else if here.reached == Reached::Return
            && here.registers.get(self.arch.fp) == Some(0)
            && (here.trust == FrameTrust::FramePointer
                || rules.is_some_and(|rules| rules.tables.is_known()))
        {
            // The ABI's mark of the outermost frame, set by start-up code that has no rules. Where nothing is known of the code, as
            // its file is missing, the register may hold a zero of the program's.
            return Err(StackEnd::Complete);
        }

        let guessed = self.guess(here, row.is_some()).ok_or(end)?;
        self.accept(here, guessed.registers, guessed.trust, false)
            .map_err(|_| end)
    }

    /// A guess; where rules were there but led nowhere, only what the stack itself shows.
    fn guess(&self, here: &Here, had_rules: bool) -> Option<Guessed> {
        let guess = Guess {
            memory: self.memory.as_ref(),
            arch: self.arch,
            code_mask: self.code_mask,
            is_code: &|at| self.is_code(at),
            starts_at: &|at| {
                let (module, tables) = self.module_at(at)?;
                let debug = self.debug.as_ref();
                let named = debug.and_then(|debug| debug.function_at(module.id, at));
                if let Some(start) = named.map(|function| function.start.get()) {
                    return Some(start..start.checked_add(1)?);
                }
                let bare = tables.last_end(at.get().wrapping_sub(module.bias))?;
                Some(bare.wrapping_add(module.bias)..at.get())
            },
            rules_at: &|at| self.rules(at.get())?.row,
        };
        match here.reached {
            Reached::Context { .. } if !had_rules => {
                guess.caller_of_context(&here.registers, Address::new(here.pc))
            }
            _ => guess.caller(&here.registers, Address::new(here.lookup())),
        }
    }

    fn is_code(&self, at: Address) -> bool {
        let region = self.memory.region_at(at);
        region.is_some_and(|region| region.executable)
    }

    /// Takes a caller's registers as the next frame, if they can be.
    fn accept(
        &self,
        here: &Here,
        registers: RegisterSet,
        trust: FrameTrust,
        by_signal: bool,
    ) -> Result<Here, StackEnd> {
        let pc = registers.get(self.arch.pc).ok_or(StackEnd::Lost)?;
        let sp = registers.get(self.arch.sp).ok_or(StackEnd::Lost)?;
        if pc == 0 && !by_signal {
            return Err(StackEnd::Complete);
        }
        // Without a return address on the stack a leaf function may need none of it.
        let leaf = self.arch.link.is_some() && sp == here.sp && pc != here.pc;
        if sp <= here.sp && !by_signal && !leaf {
            return Err(StackEnd::NotRising);
        }
        Ok(Here {
            registers,
            pc,
            sp,
            reached: if by_signal {
                Reached::Context { interrupted: true }
            } else {
                Reached::Return
            },
            trust,
        })
    }

    /// Removes the signature of an authenticated return address; one that is no address even so was overwritten.
    fn strip(&self, registers: &mut RegisterSet) {
        if let Some(pc) = registers.get(self.arch.pc)
            && let bare = pc & self.code_mask
            && bare != pc
            && self.is_code(Address::new(bare))
        {
            registers.set(self.arch.pc, bare);
        }
    }

    /// If this frame is the signal trampoline by its code: the registers that the kernel saved. Needed where the
    /// trampoline has no rules, as in musl, or its file is not there.
    fn saved_by_kernel(
        &self,
        here: &Here,
        row: Option<&Row>,
        rules: Option<&Rules<'_>>,
    ) -> Option<Here> {
        // A handler returns to the trampoline's first byte; rules found for the byte before end there.
        if let (Some(row), Some(rules)) = (row, rules)
            && row.function.end != here.pc.wrapping_sub(rules.module.bias)
        {
            return None;
        }
        let at = Address::new(here.pc);
        let layout = &self.arch.signal_frame;
        for (offset, byte) in (0..).zip(layout.trampoline) {
            if self.memory.read_u8(at.checked_add(offset)?).ok()? != *byte {
                return None;
            }
        }
        let saved = here.sp.checked_add(layout.registers)?;
        let mut registers = RegisterSet::empty();
        for (word, number) in (0u64..).zip(layout.order) {
            let slot = saved.checked_add(word.checked_mul(8)?)?;
            registers.set(*number, self.memory.read_u64(Address::new(slot)).ok()?);
        }
        self.accept(here, registers, FrameTrust::Context, true).ok()
    }
}

/// Rules at an address, and where they come from.
struct Rules<'a> {
    module: &'a Module,
    tables: &'a Tables,
    row: Option<Arc<Row>>,
}

fn frame_of(here: &Here, rules: Option<&Rules<'_>>) -> Frame {
    let function = rules.and_then(|rules| {
        let function = &rules.row.as_ref()?.function;
        let at = |link: u64| Address::new(link.wrapping_add(rules.module.bias));
        Some((at(function.start), at(function.end)))
    });
    Frame {
        pc: Address::new(here.pc),
        lookup: Address::new(here.lookup()),
        sp: Address::new(here.sp),
        module: rules.map(|rules| rules.module.id),
        trust: here.trust,
        interrupted: here.reached == Reached::Context { interrupted: true },
        function,
        registers: here.registers,
    }
}

/// How much of a stack is walked and kept, in frames.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    walked: u64,
    inner: usize,
    outer: usize,
}

impl Bounds {
    /// Those of the thread at `index` of `count`. All threads together have a bound, whatever order they are walked in; the first one,
    /// which died, is read as if it were alone.
    pub(super) fn of(index: usize, count: usize) -> Self {
        if index == 0 {
            return Self {
                walked: MAX_FRAMES,
                inner: KEPT_INNER,
                outer: KEPT_OUTER,
            };
        }
        let others = count.max(1);
        let walked = MAX_FRAMES_OF_ALL.checked_div(others as u64).unwrap_or(0);
        let share = KEPT_OF_ALL.checked_div(others).unwrap_or(0);
        let room = KEPT_AT_MOST.checked_div(others).unwrap_or(0);
        let inner = share.clamp(KEPT_AT_LEAST.min(room), KEPT_OF_OTHERS);
        Self {
            walked: walked.clamp(KEPT_INNER as u64, MAX_FRAMES),
            inner,
            outer: inner / 4,
        }
    }
}

/// The frames kept of a stack: the innermost, and a ring of the outermost.
struct Kept {
    bounds: Bounds,
    inner: Vec<Frame>,
    outer: VecDeque<Frame>,
    total: u64,
}

impl Kept {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            inner: Vec::new(),
            outer: VecDeque::new(),
            total: 0,
        }
    }

    fn push(&mut self, frame: Frame) {
        self.total = self.total.saturating_add(1);
        if self.inner.len() < self.bounds.inner {
            self.inner.push(frame);
            return;
        }
        if self.outer.len() >= self.bounds.outer {
            self.outer.pop_front();
        }
        self.outer.push_back(frame);
    }

    fn into_stack(self, end: StackEnd) -> Stack {
        let mut frames = self.inner;
        let before = frames.len();
        frames.extend(self.outer);
        frames.shrink_to_fit();
        let count = self.total.saturating_sub(frames.len() as u64);
        Stack {
            frames,
            omitted: (count > 0).then_some(Omitted { before, count }),
            end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, KEPT_AT_LEAST, KEPT_AT_MOST, KEPT_OF_OTHERS};

    #[test]
    fn frames_of_all_threads_have_a_bound() {
        for threads in [1, 100, 1_000, 10_000, 65_536] {
            let Bounds { inner, outer, .. } = Bounds::of(1, threads);
            assert!(
                threads * inner <= KEPT_AT_MOST && inner >= 8,
                "{threads}: {inner}"
            );
            assert!(outer <= inner && inner <= KEPT_OF_OTHERS);
        }
        assert_eq!(Bounds::of(1, 8_000).inner, KEPT_AT_LEAST);
    }
}
