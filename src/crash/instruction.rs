//! The instruction at fault: its text, the memory it works on, and the registers that made that address.

mod arm64;
mod x86;

use ground::target::{Address, InstructionSet, MemoryExt, RegisterSet, TargetMemory};

use ground::arch::ArchInfo;
pub(super) use x86::dwarf;

/// Most bytes of an instruction, of any machine.
const MAX_BYTES: usize = 15;

/// What an instruction does to memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads.
    Read,
    /// It writes.
    Write,
    /// It reads and writes.
    ReadWrite,
    /// It goes on there: the target of a call or jump.
    Execute,
}

impl Access {
    /// As the report has it.
    pub fn name(self) -> &'static str {
        match self {
            Access::Read => "read",
            Access::Write => "write",
            Access::ReadWrite => "read-write",
            Access::Execute => "execute",
        }
    }
}

/// A register and what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterValue {
    /// Its name.
    pub name: &'static str,
    /// Its value; `None` if the unwinder could not tell.
    pub value: Option<u64>,
}

/// Memory that an instruction works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// What is done to it.
    pub access: Access,
    /// Its first byte; `None` if a register that makes it is unknown.
    pub address: Option<Address>,
    /// Bytes; 0 if the instruction does not say.
    pub bytes: u64,
    /// How the address is made: `rax + rcx*8 + 0x10`.
    pub expression: String,
    /// The registers that make it.
    pub registers: Vec<RegisterValue>,
}

impl Operand {
    /// Whether a byte of it is at `at`.
    fn covers(&self, at: Address) -> bool {
        let offset = self.address.and_then(|address| at.offset_from(address));
        offset.is_some_and(|offset| offset < self.bytes.max(1))
    }
}

/// A decoded instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Where it stands.
    pub address: Address,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// In assembler, destination first.
    pub text: String,
    /// Its memory, what the fault is about first.
    pub operands: Vec<Operand>,
    /// Whether the first operand holds the address that the processor complained about.
    pub explains_fault: bool,
}

impl Instruction {
    /// Whether a processor can raise this trap of x86 at it, with this address; on one whose traps are not kept, a fault with
    /// this address.
    pub(super) fn can_raise(&self, trap: Option<u64>, address: Option<Address>) -> bool {
        let starts = |names: &[&str]| names.iter().any(|name| self.text.starts_with(name));
        let Some(trap) = trap.filter(|&trap| trap != 14) else {
            return address
                .is_some_and(|at| self.operands.iter().any(|operand| operand.covers(at)));
        };
        match trap {
            13 => !self.operands.is_empty() || starts(&["hlt", "in", "out", "cli", "sti"]),
            6 => starts(&["ud"]) || self.text.starts_with("(bad"),
            0 => starts(&["div", "idiv"]),
            3 => starts(&["int3", "int"]),
            _ => false,
        }
    }
}

/// Whether memory was not there for what an instruction does to it.
fn is_denied(memory: &dyn TargetMemory, operand: &Operand) -> bool {
    operand.address.is_some_and(|at| {
        memory
            .region_at(at)
            .is_none_or(|region| match operand.access {
                Access::Read => !region.readable,
                Access::Write | Access::ReadWrite => !region.writable,
                Access::Execute => !region.executable,
            })
    })
}

/// Decodes the instruction at the program counter. `fault`: the address that could not be accessed, which picks the operand
/// that is named first.
pub(super) fn at_fault(
    arch: &ArchInfo,
    memory: &dyn TargetMemory,
    registers: &RegisterSet,
    thread_pointer: Option<Address>,
    fault: Option<Address>,
) -> Option<Instruction> {
    let pc = Address::new(registers.get(arch.pc)?);
    if !memory.region_at(pc)?.executable {
        return None;
    }
    let mut code = Vec::with_capacity(MAX_BYTES);
    while code.len() < MAX_BYTES
        && let Some(at) = pc.checked_add(code.len() as u64)
        && let Ok(byte) = memory.read_u8(at)
    {
        code.push(byte);
    }
    let mut instruction = match arch.instruction_set {
        InstructionSet::X86_64 => x86::decode(arch, pc, &code, registers, thread_pointer, memory)?,
        InstructionSet::Aarch64 => arm64::decode(arch, pc, &code, registers)?,
    };
    let blamed = match fault {
        Some(fault) => instruction
            .operands
            .iter()
            .position(|operand| operand.covers(fault)),
        // A general protection fault, or a core that does not tell the address.
        None => (instruction.operands.iter()).position(|operand| is_denied(memory, operand)),
    };
    if let Some(blamed) = blamed
        && let Some(first) = instruction.operands.get_mut(..=blamed)
    {
        first.rotate_right(1);
        instruction.explains_fault = true;
    }
    Some(instruction)
}
