//! The code of a function, decoded, and what its instructions do to registers.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, TargetMemory};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpAccess, OpKind, Register,
};

use crate::crash::instruction::dwarf;
use ground::arch::X86_64;
use ground::arch::x86_64::registers;
pub use ground::arch::x86_64::registers::RSP as STACK_POINTER;

/// Most bytes of a function that are decoded.
const MAX_FUNCTION: u64 = 1 << 16;
/// Registers that a call may change (System V), a bit each by their DWARF numbers.
const VOLATILE: u32 = {
    let mut bits = 0;
    let mut left: &[u16] = &registers::VOLATILE;
    while let [number, rest @ ..] = left {
        bits |= 1 << *number;
        left = rest;
    }
    bits
};

/// A function.
pub struct Function {
    /// Its first byte.
    pub start: Address,
    instructions: Vec<Instruction>,
    /// What each changes: a bit for each register, by DWARF number.
    changes: Vec<u32>,
    /// Jumps inside it, by the index of where they lead.
    sources: BTreeMap<usize, Vec<usize>>,
}

impl Function {
    /// Decodes from `start` to `end`, or as far as is bounded.
    pub fn read(memory: &dyn TargetMemory, start: Address, end: Address) -> Option<Self> {
        let bytes = end.offset_from(start)?.min(MAX_FUNCTION);
        let mut code = vec![0; usize::try_from(bytes).ok()?];
        memory.read_into(start, &mut code).ok()?;
        let decoder = Decoder::with_ip(64, &code, start.get(), DecoderOptions::NONE);
        let instructions: Vec<Instruction> = decoder.into_iter().collect();
        let mut factory = InstructionInfoFactory::new();
        let changes = instructions
            .iter()
            .map(|instruction| changes(&mut factory, instruction))
            .collect();
        let mut sources: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, instruction) in instructions.iter().enumerate() {
            let is_branch = matches!(
                instruction.flow_control(),
                FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
            );
            if is_branch
                && let Ok(target) = instructions
                    .binary_search_by_key(&instruction.near_branch_target(), Instruction::ip)
            {
                sources.entry(target).or_default().push(index);
            }
        }
        Some(Self {
            start,
            instructions,
            changes,
            sources,
        })
    }

    /// The instruction at this index.
    pub fn get(&self, index: usize) -> Option<&Instruction> {
        self.instructions.get(index)
    }

    /// The registers that the instruction at this index changes.
    pub fn changes(&self, index: usize) -> u32 {
        self.changes.get(index).copied().unwrap_or(u32::MAX)
    }

    /// Index of the instruction that begins at `at`.
    pub fn index_of(&self, at: Address) -> Option<usize> {
        self.instructions
            .binary_search_by_key(&at.get(), Instruction::ip)
            .ok()
    }

    /// Index of the instruction that ends at `end`.
    pub fn ending_at(&self, end: Address) -> Option<usize> {
        let after = self
            .instructions
            .partition_point(|instruction| instruction.ip() < end.get());
        let index = after.checked_sub(1)?;
        (self.instructions.get(index)?.next_ip() == end.get()).then_some(index)
    }

    /// The instructions after which the one at `index` may come: the one before it, and jumps to it.
    pub fn before(&self, index: usize) -> impl Iterator<Item = usize> + '_ {
        let above = index.checked_sub(1).filter(|&above| {
            self.instructions.get(above).is_some_and(|instruction| {
                !matches!(
                    instruction.flow_control(),
                    FlowControl::UnconditionalBranch
                        | FlowControl::IndirectBranch
                        | FlowControl::Return
                        | FlowControl::Exception
                )
            })
        });
        let jumps = self.sources.get(&index).into_iter().flatten().copied();
        above.into_iter().chain(jumps)
    }
}

/// The registers that an instruction changes.
fn changes(factory: &mut InstructionInfoFactory, instruction: &Instruction) -> u32 {
    let mut mask = 0;
    for used in factory.info(instruction).used_registers() {
        let writes = matches!(
            used.access(),
            OpAccess::Write | OpAccess::CondWrite | OpAccess::ReadWrite | OpAccess::ReadCondWrite
        );
        if writes && let Some(number) = dwarf(used.register()) {
            mask |= 1 << number;
        }
    }
    if is_call(instruction) {
        mask = VOLATILE;
    }
    mask
}

/// Whether it calls: what comes back is in rax, the stack pointer is as it was.
pub fn is_call(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    ) || instruction.code() == Code::Syscall
}

/// Whether a call leaves this register alone.
pub fn is_kept(number: u16) -> bool {
    VOLATILE >> number & 1 == 0
}

/// Whether it sets a register to a number of its own.
pub fn sets_number(instruction: Instruction) -> bool {
    let is_zero = instruction.mnemonic() == Mnemonic::Xor
        && instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register();
    is_zero || instruction.mnemonic() == Mnemonic::Mov && instruction.try_immediate(1).is_ok()
}

/// What an instruction adds to a register, if it does nothing else to it.
pub fn step(instruction: &Instruction, number: u16) -> Option<i64> {
    let stack = number == STACK_POINTER;
    match instruction.mnemonic() {
        Mnemonic::Push if stack => return Some(-8),
        Mnemonic::Pop if stack && dwarf(instruction.op0_register()) != Some(number) => {
            return Some(8);
        }
        _ => {}
    }
    let register = instruction.op0_register();
    if instruction.op0_kind() != OpKind::Register
        || dwarf(register) != Some(number)
        || register.size() != 8
    {
        return None;
    }
    let constant = || {
        instruction
            .try_immediate(1)
            .ok()
            .map(|value| value.cast_signed())
    };
    match instruction.mnemonic() {
        Mnemonic::Add => constant(),
        Mnemonic::Sub => constant().map(i64::wrapping_neg),
        Mnemonic::Inc => Some(1),
        Mnemonic::Dec => Some(-1),
        Mnemonic::Lea
            if instruction.memory_base() == register
                && instruction.memory_index() == Register::None =>
        {
            Some(instruction.memory_displacement64().cast_signed())
        }
        _ => None,
    }
}

/// Whether a register of one byte is the lowest of its whole one.
pub fn is_low(register: Register) -> bool {
    !matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

/// The lower 32 bits, with their sign.
pub fn signed(value: u64) -> u64 {
    ((value << 32).cast_signed() >> 32).cast_unsigned()
}

/// The general registers that make the addresses of an instruction's memory.
pub fn memory_registers(instruction: &Instruction) -> Vec<Register> {
    let mut factory = InstructionInfoFactory::new();
    let mut registers: Vec<Register> = factory
        .info(instruction)
        .used_memory()
        .iter()
        .filter(|memory| !matches!(memory.access(), OpAccess::NoMemAccess))
        .flat_map(|memory| [memory.base(), memory.index()])
        .filter(|register| register.is_gpr64() && *register != Register::RSP)
        .collect();
    registers.dedup();
    registers
}

/// The name of a register in reports.
pub fn name(register: Register) -> Option<&'static str> {
    X86_64.register_name(dwarf(register)?)
}
