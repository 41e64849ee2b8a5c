//! What registers held, going back through a function from a place where they are known.
//!
//! An instruction is undone: what it wrote is not known before it, unless it says so itself. `mov rbx, rdi` with rbx known gives
//! rdi; `add rbx, 8` gives rbx less 8; `mov [rsp+8], rdi` gives rdi if that word was not written since.

use ground::target::{Address, Frame};
use iced_x86::{
    Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register, UsedMemory,
};

use super::code::is_call;
use super::expression::{Expression, Stores, Words};
use ground::arch::x86_64::registers::BY_PROCESSOR;

/// Registers that a called function may change, a bit each by the processor's numbers: rax, rcx, rdx, rsi, rdi, r8 to r11.
pub(super) const VOLATILE: u16 = 0b1111_1100_0111;
/// The processor's number of the stack pointer.
pub(super) const RSP: u8 = 4;
/// Of the first argument.
pub(super) const RDI: u8 = 7;
/// Registers that hold the first arguments: rdi, rsi, rdx, rcx, r8, r9.
pub(super) const ARGUMENTS: [u8; 6] = [7, 6, 2, 1, 8, 9];

/// Where a value was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Origin {
    /// A register of a frame, by the processor's number.
    Register {
        /// The register.
        register: u8,
        /// Index of the frame.
        frame: usize,
    },
    /// A word of memory.
    Word(Address),
}

/// What a register held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Fact {
    /// The value.
    pub value: u64,
    /// Where it was found, it or what it was worked out from.
    pub origin: Origin,
}

impl Fact {
    fn of(value: u64, register: u8, frame: usize) -> Self {
        Self {
            value,
            origin: Origin::Register { register, frame },
        }
    }
}

/// The general registers as far as they are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facts([Option<Fact>; 16]);

/// An instruction cannot have been executed: it leaves another value than the one that is there.
pub(super) struct Impossible;

impl Facts {
    /// All registers of a frame, by its index: of the innermost, or of one that a signal interrupted.
    pub fn at_death(frame: &Frame, index: usize) -> Self {
        let mut facts = Self::default();
        for (register, dwarf) in (0..).zip(BY_PROCESSOR) {
            let value = frame.registers.get(dwarf);
            facts.set(
                register,
                value.map(|value| Fact::of(value, register, index)),
            );
        }
        facts
    }

    /// The registers that unwinding gives for the time of a frame's call: those that called functions give back.
    pub fn unwound(frame: &Frame, index: usize) -> Self {
        let mut facts = Self::at_death(frame, index);
        for register in (0..16).filter(|register| VOLATILE >> register & 1 == 1) {
            facts.set(register, None);
        }
        facts.set(RSP, Some(Fact::of(frame.sp.get(), RSP, index)));
        facts
    }

    /// What a register held.
    pub fn get(&self, register: u8) -> Option<Fact> {
        *self.0.get(usize::from(register))?
    }

    /// Says what a register held.
    pub fn set(&mut self, register: u8, fact: Option<Fact>) {
        if let Some(slot) = self.0.get_mut(usize::from(register)) {
            *slot = fact;
        }
    }

    fn value(&self, register: u8) -> Option<u64> {
        self.get(register).map(|fact| fact.value)
    }

    /// The facts before an instruction, from those behind it. `stores` is what was written behind it.
    pub fn undo(
        &self,
        instruction: &Instruction,
        effects: &Effects,
        stores: &Stores,
        words: &Words<'_>,
    ) -> Result<Facts, Impossible> {
        let mut before = self.clone();
        for register in 0..16 {
            if effects.writes(register) {
                before.set(register, None);
            }
        }
        for (register, fact) in self.told(instruction, effects, stores, words)? {
            before.set(register, Some(fact));
        }
        Ok(before)
    }

    /// What the instruction itself tells of the registers before it.
    fn told(
        &self,
        instruction: &Instruction,
        effects: &Effects,
        stores: &Stores,
        words: &Words<'_>,
    ) -> Result<Vec<(u8, Fact)>, Impossible> {
        let mut told = Vec::new();
        let to = whole(instruction, 0);
        let from = whole(instruction, 1);
        let held = to.and_then(|to| self.get(to));
        let shifted = |fact: Fact, by: u64| Fact {
            value: fact.value.wrapping_sub(by),
            ..fact
        };
        match instruction.mnemonic() {
            Mnemonic::Mov | Mnemonic::Xor => {
                let Some(constant) = constant(instruction) else {
                    if instruction.mnemonic() == Mnemonic::Xor {
                        return Ok(told);
                    }
                    match (held, from) {
                        (Some(fact), Some(from)) if to != Some(from) => {
                            if self.value(from).is_some_and(|value| value != fact.value) {
                                return Err(Impossible);
                            }
                            told.push((from, fact));
                        }
                        _ => {}
                    }
                    // What was loaded stands there still, or nobody came this way.
                    if let Some(fact) = held
                        && let Some(at) = loaded_word(instruction, self, words)
                        && let Some(word) = self.word_at(at, stores, words, true)
                        && word.value != fact.value
                    {
                        return Err(Impossible);
                    }
                    if let Some(from) = from.filter(|_| instruction.op0_kind() == OpKind::Memory) {
                        let at = effects.stored.first().and_then(|(at, _)| at.as_ref());
                        let at = at.and_then(|at| at.work_out(self, words));
                        let word = at.and_then(|at| self.word_at(at.value, stores, words, false));
                        if let Some(word) = word {
                            if self.value(from).is_some_and(|value| value != word.value) {
                                return Err(Impossible);
                            }
                            told.push((from, word));
                        }
                    }
                    return Ok(told);
                };
                let register = number(instruction.op0_register());
                let held = register.and_then(|register| self.value(register));
                if held.is_some_and(|value| value != constant) {
                    return Err(Impossible);
                }
            }
            Mnemonic::Lea => {
                let base = number(instruction.memory_base());
                let plain = instruction.memory_index() == Register::None
                    && !instruction.is_ip_rel_memory_operand()
                    && instruction.memory_base().size() == 8;
                if let (Some(fact), Some(base), true) = (held, base, plain) {
                    told.push((base, shifted(fact, instruction.memory_displacement64())));
                }
                if let Some(fact) = held.filter(|_| instruction.is_ip_rel_memory_operand())
                    && fact.value != instruction.ip_rel_memory_address()
                {
                    return Err(Impossible);
                }
            }
            Mnemonic::Add | Mnemonic::Sub => {
                if let (Some(to), Some(fact)) = (to, held) {
                    let by = immediate(instruction, 1)
                        .or_else(|| self.value(from.filter(|from| *from != to)?));
                    let by = by.map(|by| match instruction.mnemonic() {
                        Mnemonic::Add => by,
                        _ => by.wrapping_neg(),
                    });
                    told.extend(by.map(|by| (to, shifted(fact, by))));
                }
            }
            Mnemonic::Inc => told.extend(to.zip(held.map(|fact| shifted(fact, 1)))),
            Mnemonic::Dec => {
                told.extend(to.zip(held.map(|fact| shifted(fact, 1u64.wrapping_neg()))));
            }
            Mnemonic::Push => {
                if let Some(top) = self.get(RSP) {
                    told.push((RSP, shifted(top, 8u64.wrapping_neg())));
                    let saved = self.word_at(top.value, stores, words, false);
                    told.extend(to.filter(|to| *to != RSP).zip(saved));
                }
            }
            Mnemonic::Pop => {
                if let Some(top) = self.get(RSP).filter(|_| to != Some(RSP)) {
                    told.push((RSP, shifted(top, 8)));
                }
            }
            _ => {}
        }
        Ok(told)
    }

    /// What was put into a word, if it is there still: a word of a live frame, or one that nothing can have met. The allocator's
    /// own code hands no word of its frame to others: what it loads from there after a call (`is_load`) was put there before.
    fn word_at(&self, at: u64, stores: &Stores, words: &Words<'_>, is_load: bool) -> Option<Fact> {
        let (met, all) = stores.met(at, 8, self);
        let is_live = words.is_live(at);
        let is_safe = is_live || all && !words.stack_only && !words.is_gone(at);
        let is_spilled = words.stack_only && is_live && (is_load || stores.loaded.contains(&at));
        if met || stores.called && !is_spilled || !is_safe {
            return None;
        }
        Some(Fact {
            value: words.read(at, 8)?,
            origin: Origin::Word(Address::new(at)),
        })
    }
}

/// The word from which an instruction loads a register whose value is known behind it.
pub(super) fn loaded_word(
    instruction: &Instruction,
    behind: &Facts,
    words: &Words<'_>,
) -> Option<u64> {
    let to = whole(instruction, 0)?;
    let is_load =
        instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Memory;
    let at = operand_address(instruction, None).filter(|at| is_load && !at.names(to))?;
    behind.get(to)?;
    at.work_out(behind, words).map(|at| at.value)
}

/// What an instruction writes.
pub(super) struct Effects {
    /// A bit each, by the processor's numbers.
    pub registers: u16,
    /// Memory: its address, if that can be said in registers, and bytes.
    pub stored: Vec<(Option<Expression>, u64)>,
    /// It calls a function.
    pub calls: bool,
}

impl Effects {
    /// Of an instruction; `changed` are the registers that it changes if it is a call.
    pub fn of(
        instruction: &Instruction,
        factory: &mut InstructionInfoFactory,
        thread_pointer: Option<u64>,
        changed: u16,
    ) -> Self {
        let calls = is_call(instruction);
        let mut registers = 0u16;
        let mut stored = Vec::new();
        if calls {
            return Self {
                registers: changed,
                stored,
                calls,
            };
        }
        let info = factory.info(instruction);
        for used in info.used_registers() {
            if is_written(used.access())
                && let Some(register) = number(used.register())
            {
                registers |= 1 << register;
            }
        }
        if instruction.mnemonic() == Mnemonic::Syscall {
            registers |= 1;
        }
        for memory in info.used_memory() {
            if is_written(memory.access()) {
                let at = used_address(memory, thread_pointer);
                let at = match instruction.mnemonic() {
                    // The memory is that behind the stack pointer as it is then.
                    Mnemonic::Push => Some(Expression::Register(RSP)),
                    _ => at,
                };
                let bytes = memory.memory_size().size() as u64;
                let at = at.filter(|_| bytes > 0 && !instruction.is_string_instruction());
                stored.push((at, bytes));
            }
        }
        Self {
            registers,
            stored,
            calls,
        }
    }

    /// Whether it writes a register, whole or in part.
    pub fn writes(&self, register: u8) -> bool {
        self.registers >> register & 1 == 1
    }
}

fn is_written(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
    )
}

/// The processor's number of a general register, of any size.
pub(super) fn number(register: Register) -> Option<u8> {
    if !register.is_gpr() {
        return None;
    }
    u8::try_from(register.full_register().number()).ok()
}

/// The number of an operand that is a register of 64 bits.
fn whole(instruction: &Instruction, operand: u32) -> Option<u8> {
    let is_register =
        operand < instruction.op_count() && instruction.op_kind(operand) == OpKind::Register;
    let register = instruction.op_register(operand);
    (is_register && register.size() == 8)
        .then(|| number(register))
        .flatten()
}

/// The value of an operand in the code, as 64 bits.
pub(super) fn immediate(instruction: &Instruction, operand: u32) -> Option<u64> {
    (operand < instruction.op_count())
        .then(|| instruction.try_immediate(operand).ok())
        .flatten()
}

/// What a register is set to, whatever was before: `mov eax, 5`, `xor eax, eax`.
fn constant(instruction: &Instruction) -> Option<u64> {
    if instruction.op0_kind() != OpKind::Register || instruction.op0_register().size() < 4 {
        return None;
    }
    let narrow = instruction.op0_register().size() == 4;
    match instruction.mnemonic() {
        Mnemonic::Mov => {
            let value = immediate(instruction, 1)?;
            Some(if narrow { value & 0xffff_ffff } else { value })
        }
        Mnemonic::Xor => {
            let same = instruction.op1_kind() == OpKind::Register
                && instruction.op0_register() == instruction.op1_register();
            same.then_some(0)
        }
        _ => None,
    }
}

/// An address in terms of the registers before the instruction.
fn used_address(memory: &UsedMemory, thread_pointer: Option<u64>) -> Option<Expression> {
    address(
        memory.segment(),
        memory.base(),
        memory.index(),
        memory.scale().into(),
        memory.displacement(),
        thread_pointer,
    )
}

/// The memory operand of an instruction.
pub(super) fn operand_address(
    instruction: &Instruction,
    thread_pointer: Option<u64>,
) -> Option<Expression> {
    if instruction.is_ip_rel_memory_operand() {
        return Some(Expression::Number(
            instruction.ip_rel_memory_address(),
            None,
        ));
    }
    address(
        instruction.memory_segment(),
        instruction.memory_base(),
        instruction.memory_index(),
        instruction.memory_index_scale().into(),
        instruction.memory_displacement64(),
        thread_pointer,
    )
}

fn address(
    segment: Register,
    base: Register,
    index: Register,
    scale: u64,
    displacement: u64,
    thread_pointer: Option<u64>,
) -> Option<Expression> {
    let start = match segment {
        Register::FS => thread_pointer?,
        Register::GS => return None,
        _ => 0,
    };
    let mut whole = Expression::Number(start.wrapping_add(displacement), None);
    match base {
        Register::None => {}
        Register::RIP => {} // iced has added it already
        base if base.size() == 8 => {
            let base = Expression::Register(number(base)?);
            whole = base.plus(start.wrapping_add(displacement));
        }
        _ => return None,
    }
    match index {
        Register::None => Some(whole),
        index if index.size() == 8 => {
            let index = Expression::Register(number(index)?);
            Some(whole.sum(match scale {
                1 => index,
                scale => Expression::Product(Box::new(index), scale),
            }))
        }
        _ => None,
    }
}
