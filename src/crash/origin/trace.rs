//! Backwards through the code, over all ways that lead to an instruction, and from a function into its caller.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use ground::target::{Address, Frame, FrameTrust, MemoryExt, RegisterSet, Target};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::Load;
use super::code::{self, Function, STACK_POINTER};
use super::value::{MAX_LOADS, Value, sum};
use crate::crash::instruction::dwarf;
use ground::arch::x86_64::registers::{RAX, RIP};

/// Instructions that are gone back over in all.
const MAX_STEPS: usize = 100_000;
/// Definitions that are followed into one another.
pub(super) const MAX_DEPTH: usize = 24;
/// Definitions of one value that are tried.
pub(super) const MAX_SITES: usize = 8;
/// DWARF number below which registers are kept track of: the general ones.
const REGISTERS: u16 = RIP;

/// A place before an instruction, and what lies between it and where the frame stands.
#[derive(Clone, Debug)]
pub struct Cursor {
    pub(super) frame: usize,
    index: usize,
    /// Registers that were set in between.
    written: u32,
    /// What was added to each register in between, subtracted.
    shift: [i64; 16],
    /// Something was called in between.
    pub(super) called: bool,
    /// The way from here to the crash is the only one.
    pub(super) sure: bool,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) enum Wanted {
    Register(u16),
    /// A store of eight bytes to a slot of the frame.
    Slot(Address),
}

/// Where a value was made.
pub(super) enum Site {
    /// By the instruction at this cursor; the shift is that of the register behind it.
    Instruction(Cursor, i64),
    /// Before the function was entered.
    Entry(Cursor),
}

/// A walk.
pub struct Trace<'t> {
    pub(super) target: Target<'t>,
    pub(super) frames: &'t [Frame],
    functions: BTreeMap<usize, Option<Rc<Function>>>,
    /// The frame whose registers are all known, and these.
    innermost: Option<(usize, RegisterSet)>,
    steps: usize,
    pub(super) depth: usize,
}

impl<'t> Trace<'t> {
    /// A walk that has not begun.
    pub fn new(target: Target<'t>, frames: &'t [Frame]) -> Self {
        Self {
            target,
            frames,
            functions: BTreeMap::new(),
            innermost: None,
            steps: 0,
            depth: 0,
        }
    }

    /// A frame.
    pub fn frame(&self, index: usize) -> Option<&'t Frame> {
        self.frames.get(index)
    }

    /// Begins at the instruction at which a frame stands.
    pub fn at_fault(&mut self, frame: usize) -> Option<Cursor> {
        let at = self.frame(frame)?;
        self.innermost = Some((frame, at.registers));
        let index = self.function(frame)?.index_of(at.pc)?;
        Some(Cursor::new(frame, index))
    }

    /// Begins at the call by which a frame came to where no code is.
    pub fn call_to(&mut self, frame: usize) -> Option<(Cursor, Instruction)> {
        let at = self.frame(frame)?;
        let outer = frame.checked_add(1)?;
        let caller = self.frame(outer)?;
        let back = self.target.memory.read_pointer(at.sp).ok()?;
        if back != caller.pc || !matches!(caller.trust, FrameTrust::Cfi | FrameTrust::Scan) {
            return None;
        }
        let mut registers = at.registers;
        registers.set(STACK_POINTER, at.sp.get().checked_add(8)?);
        self.innermost = Some((outer, registers));
        let function = self.function(outer)?;
        let index = function.ending_at(caller.pc)?;
        let call = *function.get(index)?;
        code::is_call(&call).then(|| (Cursor::new(outer, index), call))
    }

    /// Begins at the call in its caller that entered a frame; what a call may change is lost there.
    pub fn call_of(&mut self, frame: usize) -> Option<(Cursor, Instruction)> {
        let outer = frame.checked_add(1)?;
        let caller = self.frame(outer)?;
        if caller.interrupted || caller.trust != FrameTrust::Cfi {
            return None;
        }
        let back = caller.pc;
        let function = self.function(outer)?;
        let index = function.ending_at(back)?;
        let call = *function.get(index)?;
        code::is_call(&call).then(|| (Cursor::new(outer, index), call))
    }

    /// The instruction at a cursor.
    pub fn instruction(&mut self, cursor: &Cursor) -> Option<Instruction> {
        self.function(cursor.frame)?.get(cursor.index).copied()
    }

    pub(super) fn function(&mut self, frame: usize) -> Option<Rc<Function>> {
        let (memory, at) = (self.target.memory, self.frames.get(frame)?);
        let read = || {
            let (start, end) = at.function?;
            Function::read(memory, start, end).map(Rc::new)
        };
        self.functions.entry(frame).or_insert_with(read).clone()
    }

    /// The value of a register before the instruction at the cursor.
    pub fn register(&mut self, cursor: &Cursor, register: Register) -> Value {
        let Some(number) = dwarf(register).filter(|number| *number < REGISTERS) else {
            return Value::default();
        };
        let value = self.wide(cursor, number);
        match register.size() {
            8 => value,
            4 => value.map(|number| number & 0xffff_ffff),
            2 => value.map(|number| number & 0xffff),
            1 if code::is_low(register) => value.map(|number| number & 0xff),
            _ => Value::default(),
        }
    }

    fn wide(&mut self, cursor: &Cursor, number: u16) -> Value {
        let live = self.live(cursor, number);
        let mut best = Value {
            number: live,
            only: live.is_some(),
            ..Value::default()
        };
        if self.depth >= MAX_DEPTH || number == STACK_POINTER {
            return best;
        }
        self.depth += 1;
        let sites = self.sites(cursor, Wanted::Register(number));
        let only = sites.len() == 1;
        let here = cursor.shift_of(number);
        let (mut call, mut is_constant) = (None, false);
        for site in sites.into_iter().take(MAX_SITES) {
            let sets_number = match &site {
                Site::Instruction(at, _) => self.instruction(at).is_some_and(code::sets_number),
                Site::Entry(_) => false,
            };
            let mut value = match site {
                Site::Instruction(at, behind) => {
                    let steps = here.wrapping_sub(behind);
                    self.defined(&at, number)
                        .map(|value| value.wrapping_add_signed(steps))
                }
                Site::Entry(at) => self.before_entry(&at, number),
            };
            is_constant |= !only && sets_number && value.number == live;
            call = call.or(value.returned.filter(|_| value.number.is_none()));
            if !only {
                value.only = false;
                value.loads.iter_mut().for_each(|load| load.direct = false);
            }
            // The code itself has set it, unless another way leads from a call.
            if is_constant {
                best.number = live;
                best.only = only;
                continue;
            }
            let agrees = value.number.is_some() && (live.is_none() || live == value.number);
            if agrees {
                best = value;
                break;
            }
            best.given = best.given.or(value.given);
            if only && value.number.is_none() {
                best.returned = value.returned;
                best.parts = value.parts;
            }
            // The load is the right one, perhaps, but the pointer that it used is lost.
            if best.loads.is_empty()
                && let Some(load) = value.loads.into_iter().next()
            {
                best.loads = vec![Load {
                    at: None,
                    base: None,
                    direct: false,
                    ..load
                }];
            }
        }
        if is_constant && best.loads.is_empty() && best.returned.is_none() {
            (best.returned, best.or_constant) = (call, call.is_some());
        }
        self.depth -= 1;
        best
    }

    /// What the register holds by what the frame has in it, if nothing set it in between.
    pub(super) fn live(&self, cursor: &Cursor, number: u16) -> Option<u64> {
        if cursor.written >> number & 1 == 1 {
            return None;
        }
        let value = match &self.innermost {
            Some((frame, registers)) if *frame == cursor.frame => registers.get(number),
            _ if code::is_kept(number) => self.frames.get(cursor.frame)?.registers.get(number),
            _ => None,
        };
        value.map(|value| value.wrapping_add_signed(cursor.shift_of(number)))
    }

    /// Where the value was made that is found at the cursor, on each way that leads there.
    pub(super) fn sites(&mut self, cursor: &Cursor, wanted: Wanted) -> Vec<Site> {
        let Some(function) = self.function(cursor.frame) else {
            return Vec::new();
        };
        let mut sites = Vec::new();
        let mut seen = BTreeSet::new();
        let mut waiting = VecDeque::from([cursor.clone()]);
        while let Some(at) = waiting.pop_front() {
            if at.index == 0 {
                sites.push(Site::Entry(at.clone()));
            }
            for index in function.before(at.index) {
                self.steps += 1;
                if self.steps > MAX_STEPS {
                    return Vec::new();
                }
                let Some(instruction) = function.get(index) else {
                    continue;
                };
                let before = at.over(index, instruction, function.changes(index));
                let made = match wanted {
                    Wanted::Register(number) => {
                        function.changes(index) >> number & 1 == 1
                            && code::step(instruction, number).is_none()
                    }
                    Wanted::Slot(slot) => self.stores_to(&before, instruction, slot),
                };
                if made {
                    let behind = match wanted {
                        Wanted::Register(number) => at.shift_of(number),
                        Wanted::Slot(_) => 0,
                    };
                    sites.push(Site::Instruction(before, behind));
                } else if seen.insert(index) {
                    waiting.push_back(before);
                }
            }
        }
        sites
    }

    /// The value that the instruction at the cursor gives a register.
    fn defined(&mut self, cursor: &Cursor, number: u16) -> Value {
        let Some(instruction) = self.instruction(cursor) else {
            return Value::default();
        };
        let register = instruction.op0_register();
        if code::is_call(&instruction) && number == RAX {
            let returned = self.target_of(&instruction);
            let again = returned.and_then(|entry| self.returns(cursor, entry));
            return Value {
                given: self.register(cursor, Register::RDI).number,
                returned,
                ..again.unwrap_or_default()
            };
        }
        if instruction.mnemonic() == Mnemonic::Cdqe && number == RAX {
            return self.register(cursor, Register::EAX).map(code::signed);
        }
        if code::is_call(&instruction)
            || instruction.op0_kind() != OpKind::Register
            || dwarf(register) != Some(number)
        {
            return Value::default();
        }
        let narrow = |value: Value| match register.size() {
            8 => value,
            4 => value.map(|number| number & 0xffff_ffff),
            _ => Value::default(),
        };
        let source = instruction.op1_kind();
        let immediate = instruction.try_immediate(1).ok();
        let value = match (instruction.mnemonic(), source) {
            (Mnemonic::Mov, OpKind::Register) => self.register(cursor, instruction.op1_register()),
            (Mnemonic::Mov | Mnemonic::Movzx, OpKind::Memory) => self.load(cursor, &instruction),
            (Mnemonic::Movsxd | Mnemonic::Movsx, OpKind::Memory) => {
                let bits = 64 - 8 * instruction.memory_size().size().min(8);
                self.load(cursor, &instruction)
                    .map(|value| ((value << bits).cast_signed() >> bits).cast_unsigned())
            }
            (Mnemonic::Movsxd, OpKind::Register) => self
                .register(cursor, instruction.op1_register())
                .map(code::signed),
            (Mnemonic::Movzx, OpKind::Register) => {
                self.register(cursor, instruction.op1_register())
            }
            (Mnemonic::Shl, _) => match immediate {
                Some(bits @ 0..=32) => self.register(cursor, register).times(1 << bits),
                _ => Value::default(),
            },
            (Mnemonic::Imul, _) => self.product(cursor, &instruction),
            (Mnemonic::Mov, _) => immediate.map_or_else(Value::default, Value::known),
            (Mnemonic::Lea, _) => self.address(cursor, &instruction),
            (Mnemonic::Xor | Mnemonic::Sub, OpKind::Register)
                if instruction.op1_register() == register =>
            {
                Value::known(0)
            }
            (Mnemonic::And, kind) if kind != OpKind::Register && kind != OpKind::Memory => {
                match immediate {
                    Some(mask) => self.register(cursor, register).map(|value| value & mask),
                    None => Value::default(),
                }
            }
            (Mnemonic::Add, OpKind::Register | OpKind::Memory) => {
                let first = self.register(cursor, register);
                let second = match source {
                    OpKind::Memory => self.load(cursor, &instruction),
                    _ => self.register(cursor, instruction.op1_register()),
                };
                sum(first, second, 1)
            }
            _ => Value::default(),
        };
        narrow(value)
    }

    /// What a multiplication gives: one of the two is a number, or known as one, and the other counts so often.
    fn product(&mut self, cursor: &Cursor, instruction: &Instruction) -> Value {
        let mut operand = |index: u32| match instruction.try_op_kind(index) {
            Ok(OpKind::Register) => self.register(cursor, instruction.op_register(index)),
            Ok(OpKind::Memory) => self.load(cursor, instruction),
            Ok(_) => instruction
                .try_immediate(index)
                .map_or_else(|_| Value::default(), Value::known),
            Err(_) => Value::default(),
        };
        let (first, second) = match instruction.op_count() {
            2 => (operand(0), operand(1)),
            3 => (operand(1), operand(2)),
            _ => return Value::default(),
        };
        let Some((a, b)) = first.number.zip(second.number) else {
            return Value::default();
        };
        let number = a.wrapping_mul(b);
        let only = first.only && second.only;
        let mut value = first.times(b);
        value.loads.extend(second.times(a).loads);
        value.loads.truncate(MAX_LOADS);
        Value {
            number: Some(number),
            only,
            ..value
        }
    }

    /// The value of a register when a function was entered: its caller's.
    fn before_entry(&mut self, cursor: &Cursor, number: u16) -> Value {
        match self.call_into(cursor) {
            Some(outer) => self.wide(&outer, number),
            None => Value::default(),
        }
    }

    /// The call that entered the function of a cursor.
    fn call_into(&mut self, cursor: &Cursor) -> Option<Cursor> {
        let frame = cursor.frame.checked_add(1)?;
        let outer = self.frames.get(frame)?;
        if outer.interrupted || outer.trust != FrameTrust::Cfi {
            return None;
        }
        let entered = self.function(cursor.frame)?.start;
        let function = self.function(frame)?;
        let index = function.ending_at(outer.pc)?;
        let call = function.get(index)?;
        code::is_call(call).then_some(())?;
        let leads_there = self.target_of(call) == Some(entered);
        Some(Cursor {
            called: cursor.called,
            sure: cursor.sure && leads_there,
            ..Cursor::new(frame, index)
        })
    }

    /// Where a call of a fixed place ends: behind the linkage table, if it goes there.
    pub(super) fn target_of(&self, call: &Instruction) -> Option<Address> {
        const STUB_BYTES: u64 = 16;
        if call.flow_control() != FlowControl::Call {
            return None;
        }
        let target = Address::new(call.near_branch_target());
        let stub = Function::read(self.target.memory, target, target.checked_add(STUB_BYTES)?)?;
        let jump = (0..3).find_map(|index| {
            let found = stub.get(index)?;
            let is_jump = found.flow_control() == FlowControl::IndirectBranch
                && found.is_ip_rel_memory_operand();
            is_jump.then_some(found.ip_rel_memory_address())
        });
        match jump {
            Some(slot) => (self.target.memory).read_pointer(Address::new(slot)).ok(),
            None => Some(target),
        }
    }
}

impl Cursor {
    fn new(frame: usize, index: usize) -> Self {
        Self {
            frame,
            index,
            written: 0,
            shift: [0; 16],
            called: false,
            sure: true,
        }
    }

    fn shift_of(&self, number: u16) -> i64 {
        self.shift.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// The place before an instruction that leads here.
    fn over(&self, index: usize, instruction: &Instruction, changes: u32) -> Self {
        let mut before = self.clone();
        before.index = index;
        before.called |= code::is_call(instruction);
        for number in (0..REGISTERS).filter(|number| changes >> number & 1 == 1) {
            match code::step(instruction, number) {
                Some(step) => {
                    if let Some(shift) = before.shift.get_mut(usize::from(number)) {
                        *shift = shift.wrapping_sub(step);
                    }
                }
                None => before.written |= 1 << number,
            }
        }
        before
    }
}
