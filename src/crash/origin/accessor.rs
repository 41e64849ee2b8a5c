//! What a small function returned, by going through its code again: accessors that were not inlined (`operator->`, `get()`, `back()`).
//!
//! ```text
//! caller: call operator->      rdi as it was traced
//! callee: push, mov, lea, call get, leave, ret      the words that it loads
//! ```
//!
//! What stores outside of its own frame, jumps on what is not known, or reads what is not in the core has no answer.
//! Memory is as it is now; whoever asks compares the result with what the caller got.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt};
use iced_x86::{
    ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

use super::trace::{Cursor, Trace};
use super::value::{MAX_LOADS, Value, sum};
use super::{Load, code, read_sized};
use crate::crash::instruction::dwarf;
use ground::arch::x86_64::registers::{RAX, RSP};

/// Instructions that are gone through.
const MAX_STEPS: usize = 400;
/// Calls inside of calls.
const MAX_CALLS: usize = 12;
/// Longest instruction.
const MAX_INSTRUCTION: usize = 15;
/// Where the stack of the function is taken to end: no address of any process.
const STACK_END: u64 = 1 << 62;
/// Bytes of that stack.
const STACK_BYTES: u64 = 1 << 12;
/// DWARF's number of the frame pointer.
const RBP: u16 = 6;

/// A function under way.
struct Run {
    registers: [Value; 16],
    /// What was stored on its stack, by address, with its bytes.
    stack: BTreeMap<u64, (u64, Value)>,
    /// What the last comparison found: whether both were the same, where both are known.
    same: Option<bool>,
    frame: usize,
}

impl Trace<'_> {
    /// What the function at `entry` returns to the call at the cursor.
    pub(super) fn returns(&mut self, cursor: &Cursor, entry: Address) -> Option<Value> {
        let mut run = Run {
            registers: std::array::from_fn(|_| Value::default()),
            stack: BTreeMap::new(),
            same: None,
            frame: cursor.frame,
        };
        for register in [Register::RDI, Register::RSI, Register::RDX] {
            let mut value = self.register(cursor, register);
            // What the caller knows of a value must not be mistaken for what the function does with it.
            value.returned = None;
            value.given = None;
            run.set(register, value)?;
        }
        run.put(RSP, Value::known(STACK_END));
        let mut back = Vec::new();
        let mut at = entry;
        for _ in 0..MAX_STEPS {
            let instruction = self.decoded(at)?;
            let mut next = Address::new(instruction.next_ip());
            match instruction.flow_control() {
                FlowControl::Next => run.step(self, &instruction)?,
                FlowControl::Call if back.len() < MAX_CALLS => {
                    back.push(next);
                    run.push(Value::known(next.get()))?;
                    next = self.target_of(&instruction)?;
                }
                FlowControl::UnconditionalBranch => {
                    next = Address::new(instruction.near_branch_target());
                }
                FlowControl::ConditionalBranch => {
                    let is_taken = match instruction.condition_code() {
                        ConditionCode::e => run.same?,
                        ConditionCode::ne => !run.same?,
                        _ => return None,
                    };
                    if is_taken {
                        next = Address::new(instruction.near_branch_target());
                    }
                }
                FlowControl::Return => {
                    let Some(caller) = back.pop() else {
                        let value = run.registers.get(usize::from(RAX))?.clone();
                        return value.number.is_some().then_some(value);
                    };
                    run.pop()?;
                    next = caller;
                }
                _ => return None,
            }
            at = next;
        }
        None
    }

    fn decoded(&self, at: Address) -> Option<Instruction> {
        let mut bytes = [0; MAX_INSTRUCTION];
        self.target.memory.read_into(at, &mut bytes).ok()?;
        let mut decoder = Decoder::with_ip(64, &bytes, at.get(), DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(instruction)
    }
}

impl Run {
    fn put(&mut self, number: u16, value: Value) {
        if let Some(slot) = self.registers.get_mut(usize::from(number)) {
            *slot = value;
        }
    }

    fn set(&mut self, register: Register, value: Value) -> Option<()> {
        let number = dwarf(register).filter(|number| *number < 16)?;
        self.put(
            number,
            match register.size() {
                8 => value,
                4 => value.map(|number| number & 0xffff_ffff),
                _ => Value::default(),
            },
        );
        Some(())
    }

    fn get(&self, register: Register) -> Value {
        let number = dwarf(register).filter(|number| *number < 16);
        let value = number.and_then(|number| self.registers.get(usize::from(number)));
        match (value, register.size()) {
            (Some(value), 8) => value.clone(),
            (Some(value), 4) => value.clone().map(|number| number & 0xffff_ffff),
            (Some(value), 1) if code::is_low(register) => value.clone().map(|number| number & 0xff),
            _ => Value::default(),
        }
    }

    fn push(&mut self, value: Value) -> Option<()> {
        let top = self.get(Register::RSP).number?.checked_sub(8)?;
        self.put(RSP, Value::known(top));
        self.store(top, 8, value)
    }

    fn pop(&mut self) -> Option<Value> {
        let top = self.get(Register::RSP).number?;
        self.put(RSP, Value::known(top.checked_add(8)?));
        self.stack.get(&top).map(|(_, value)| value.clone())
    }

    fn store(&mut self, at: u64, bytes: u64, value: Value) -> Option<()> {
        if !(STACK_END - STACK_BYTES..STACK_END).contains(&at) {
            return None;
        }
        self.stack.insert(at, (bytes, value));
        Some(())
    }

    fn address(&self, instruction: &Instruction) -> Value {
        if instruction.is_ip_rel_memory_operand() {
            return Value::known(instruction.ip_rel_memory_address());
        }
        if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
            return Value::default();
        }
        let displacement = Value::known(instruction.memory_displacement64());
        let mut value = match instruction.memory_base() {
            Register::None => displacement,
            base => sum(self.get(base), displacement, 1),
        };
        let index = instruction.memory_index();
        if index != Register::None {
            let scale = u64::from(instruction.memory_index_scale());
            value = sum(value, self.get(index), scale);
        }
        value
    }

    fn load(&self, trace: &Trace<'_>, instruction: &Instruction) -> Option<Value> {
        let bytes = u64::try_from(instruction.memory_size().size()).ok()?;
        let mut address = self.address(instruction);
        let at = address.number?;
        if let Some((stored, value)) = self.stack.get(&at) {
            return (bytes <= *stored).then(|| match bytes {
                8 => value.clone(),
                4 => value.clone().map(|number| number & 0xffff_ffff),
                _ => Value::default(),
            });
        }
        address.loads.iter_mut().for_each(|load| load.factor = 0);
        let displacement = instruction.memory_displacement64();
        let number = read_sized(trace.target.memory, Address::new(at), bytes)?;
        let base = Address::new(at.wrapping_sub(displacement));
        let mut loads = vec![Load {
            at: Some(Address::new(at)),
            base: Some(base),
            displacement: displacement.cast_signed(),
            holder: code::name(instruction.memory_base())
                .unwrap_or("a fixed address")
                .to_owned(),
            held_at: None,
            is_slot: false,
            function: None,
            bytes,
            factor: 1,
            instruction: Address::new(instruction.ip()),
            frame: self.frame,
            direct: false,
        }];
        loads.extend(address.loads);
        loads.truncate(MAX_LOADS);
        Some(Value {
            number: Some(number),
            loads,
            only: address.only,
            ..Value::default()
        })
    }

    /// What the second operand is.
    fn source(&self, trace: &Trace<'_>, instruction: &Instruction) -> Option<Value> {
        match instruction.op1_kind() {
            OpKind::Register => Some(self.get(instruction.op1_register())),
            OpKind::Memory => self.load(trace, instruction),
            _ => instruction.try_immediate(1).ok().map(Value::known),
        }
    }

    /// One instruction that does not jump; `None` where it is none of those that are known.
    fn step(&mut self, trace: &Trace<'_>, instruction: &Instruction) -> Option<()> {
        let register = instruction.op0_register();
        if matches!(
            instruction.mnemonic(),
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::Shl | Mnemonic::Xor
        ) {
            self.same = None;
        }
        match instruction.mnemonic() {
            Mnemonic::Endbr64 | Mnemonic::Nop => Some(()),
            Mnemonic::Push => {
                let value = match instruction.op0_kind() {
                    OpKind::Register => self.get(register),
                    _ => return None,
                };
                self.push(value)
            }
            Mnemonic::Pop => {
                let value = self.pop()?;
                self.set(register, value)
            }
            Mnemonic::Leave => {
                let frame = self.registers.get(usize::from(RBP))?.clone();
                self.put(RSP, frame);
                let value = self.pop()?;
                self.put(RBP, value);
                Some(())
            }
            Mnemonic::Mov if instruction.op0_kind() == OpKind::Memory => {
                let at = self.address(instruction).number?;
                let bytes = u64::try_from(instruction.memory_size().size()).ok()?;
                let value = match instruction.op1_kind() {
                    OpKind::Register => self.get(instruction.op1_register()),
                    _ => Value::known(instruction.try_immediate(1).ok()?),
                };
                self.store(at, bytes, value)
            }
            Mnemonic::Mov | Mnemonic::Movzx => {
                let value = self.source(trace, instruction)?;
                self.set(register, value)
            }
            Mnemonic::Movsxd => {
                let value = self.source(trace, instruction)?.map(code::signed);
                self.set(register, value)
            }
            Mnemonic::Cdqe => {
                let value = self.get(Register::EAX).map(code::signed);
                self.set(Register::RAX, value)
            }
            Mnemonic::Lea => {
                let value = self.address(instruction);
                self.set(register, value)
            }
            Mnemonic::Test if instruction.op0_kind() == OpKind::Register => {
                let is_self = instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == register;
                let number = self.get(register).number.filter(|_| is_self);
                self.same = number.map(|number| number == 0);
                Some(())
            }
            Mnemonic::Cmp => {
                let first = match instruction.op0_kind() {
                    OpKind::Register => self.get(register),
                    OpKind::Memory => self.load(trace, instruction)?,
                    _ => return None,
                };
                // Against zero the width does not matter.
                let other = instruction.try_immediate(1).ok()?;
                self.same = first
                    .number
                    .filter(|_| other == 0)
                    .map(|number| number == 0);
                Some(())
            }
            Mnemonic::Add if instruction.op0_kind() == OpKind::Register => {
                let value = sum(self.get(register), self.source(trace, instruction)?, 1);
                self.set(register, value)
            }
            Mnemonic::Sub if instruction.op0_kind() == OpKind::Register => {
                let by = instruction.try_immediate(1).ok()?;
                let value = self.get(register).map(|number| number.wrapping_sub(by));
                self.set(register, value)
            }
            Mnemonic::Shl if instruction.op0_kind() == OpKind::Register => {
                let bits = instruction
                    .try_immediate(1)
                    .ok()
                    .filter(|bits| *bits <= 32)?;
                let value = self.get(register).times(1 << bits);
                self.set(register, value)
            }
            // What it is for: turning a flag around.
            Mnemonic::Xor if matches!(instruction.try_immediate(1), Ok(1)) => {
                let value = self.get(register).map(|number| number ^ 1);
                self.same = value.number.map(|number| number == 0);
                self.set(register, value)
            }
            Mnemonic::Xor
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op1_kind() == OpKind::Register
                    && instruction.op1_register() == register =>
            {
                self.set(register, Value::known(0))
            }
            _ => None,
        }
    }
}
