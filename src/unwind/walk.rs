//! The walk from a thread's registers to its outermost frame.

use std::collections::VecDeque;
use std::sync::Arc;

use heaps::target::{Address, Frame, FrameTrust, MemoryExt, Module, RegisterSet, Thread};

use super::cfi::{Machinery, NoCaller};
use super::fallback::{Guess, Guessed};
use super::machine::{self, Machine};
use super::tables::{Row, Tables};
use super::{KEPT_INNER, KEPT_OUTER, MAX_FRAMES, MAX_SIGNALS, Omitted, Stack, StackEnd, Unwinder};

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
    pub(super) fn walk(&self, thread: &Thread) -> Stack {
        let mut kept = Kept::default();
        let mut signals = 0;
        let mut nowhere = false;
        let mut here = Here {
            registers: thread.registers,
            pc: thread.pc.get(),
            sp: thread.sp.get(),
            reached: Reached::Context { interrupted: false },
            trust: FrameTrust::Context,
        };
        let end = loop {
            let rules = self.rules(here.lookup());
            kept.push(frame_of(&here, rules.as_ref()));
            nowhere |=
                here.reached == Reached::Return && !self.is_code(Address::new(here.lookup()));
            if kept.total >= MAX_FRAMES || signals > MAX_SIGNALS {
                break StackEnd::TooLong;
            }
            match self.outwards(&here, rules.as_ref()) {
                Ok(next) => {
                    let signal = next.reached != Reached::Return;
                    signals += u32::from(signal);
                    here = next;
                }
                Err(end) => break end,
            }
        };
        let damaged = matches!(
            end,
            StackEnd::Complete | StackEnd::Lost | StackEnd::NotRising
        );
        kept.into_stack(match nowhere && damaged {
            true => StackEnd::Overwritten,
            false => end,
        })
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
        let machine = machine::of(self.arch);
        let row = rules.and_then(|rules| Some((rules, rules.row.as_deref()?)));
        let by_signal = row.is_some_and(|(_, row)| row.signal);
        if !by_signal
            && here.reached == Reached::Return
            && let Some(machine) = machine
            && let Some(next) = self.saved_by_kernel(here, machine, row.map(|(_, row)| row), rules)
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
                    self.strip(machine, &mut registers);
                    match self.accept(here, registers, FrameTrust::Cfi, by_signal) {
                        Ok(next) => return Ok(next),
                        Err(StackEnd::Complete) => return Err(StackEnd::Complete),
                        Err(why) => end = why,
                    }
                }
                Err(NoCaller::Unreadable(fault)) => end = StackEnd::Unreadable(fault),
                Err(NoCaller::Nonsense) => {}
            }
        } else if here.reached == Reached::Return && here.registers.get(self.arch.fp) == Some(0) {
            // The ABI's mark of the outermost frame, set by start-up code that has no rules.
            return Err(StackEnd::Complete);
        }

        let machine = machine.ok_or(end)?;
        let guessed = self.guess(here, machine, row.is_some()).ok_or(end)?;
        self.accept(here, guessed.registers, guessed.trust, false)
            .map_err(|_| end)
    }

    /// A guess; where rules were there but led nowhere, only what the stack itself shows.
    fn guess(&self, here: &Here, machine: &Machine, had_rules: bool) -> Option<Guessed> {
        let guess = Guess {
            memory: self.memory.as_ref(),
            arch: self.arch,
            machine,
            is_code: &|at| self.is_code(at),
            has_rules: &|at| {
                self.rules(at.get())
                    .is_some_and(|rules| rules.row.is_some())
            },
        };
        match here.reached {
            Reached::Context { .. } if !had_rules => guess.caller_of_context(&here.registers),
            _ => guess.caller(&here.registers),
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

    /// Removes pointer authentication from a return address.
    fn strip(&self, machine: Option<&'static Machine>, registers: &mut RegisterSet) {
        let mask = machine.map_or(u64::MAX, |machine| machine.code_mask);
        if let Some(pc) = registers.get(self.arch.pc).filter(|pc| pc & !mask != 0) {
            registers.set(self.arch.pc, pc & mask);
        }
    }

    /// If this frame is the signal trampoline by its code: the registers that the kernel saved. Needed where the
    /// trampoline has no rules, as in musl, or its file is not there.
    fn saved_by_kernel(
        &self,
        here: &Here,
        machine: &Machine,
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
        for (offset, byte) in (0..).zip(machine.trampoline) {
            if self.memory.read_u8(at.checked_add(offset)?).ok()? != *byte {
                return None;
            }
        }
        let saved = here.sp.checked_add(machine.saved_registers)?;
        let mut registers = RegisterSet::empty();
        for (word, number) in (0u64..).zip(machine.saved_order) {
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

/// The frames kept of a stack: the innermost, and a ring of the outermost.
#[derive(Default)]
struct Kept {
    inner: Vec<Frame>,
    outer: VecDeque<Frame>,
    total: u64,
}

impl Kept {
    fn push(&mut self, frame: Frame) {
        self.total += 1;
        if self.inner.len() < KEPT_INNER {
            self.inner.push(frame);
            return;
        }
        if self.outer.len() >= KEPT_OUTER {
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
