//! One step outwards by call-frame information: the caller's registers from the callee's and the rules of its row.
//!
//! All registers are recovered that the rules give. Those without a rule keep their value if the ABI makes a callee preserve
//! them, and become unknown otherwise: what a debugger shows for them is the callee's leftover.

use gimli::{
    CfaRule, EvaluationResult, Expression, Location, RegisterRule, UnwindExpression, Value,
};
use ground::target::{Address, Fault, MemoryExt, RegisterSet, TargetMemory};

use super::tables::{Row, Tables};
use ground::arch::ArchInfo;

/// Operations of one expression; real ones have fewer than 20.
const MAX_OPERATIONS: u32 = 100;

/// Why a row leads to no caller.
#[derive(Clone, Copy, Debug)]
pub(super) enum NoCaller {
    /// The rules say that nobody called this function.
    Outermost,
    /// The return address, or what the frame's address depends on, could not be read.
    Unreadable(Fault),
    /// The rules make no sense here.
    Nonsense,
}

/// What one evaluation may read.
pub(super) struct Machinery<'a> {
    pub memory: &'a dyn TargetMemory,
    pub arch: &'a ArchInfo,
    pub tables: &'a Tables,
    /// Run-time address minus link address.
    pub bias: u64,
}

impl Machinery<'_> {
    /// The caller of the frame with these registers, whose function has these rules. Program counter and stack pointer
    /// are among the registers.
    pub fn step(&self, row: &Row, registers: &RegisterSet) -> Result<RegisterSet, NoCaller> {
        let cfa = self.cfa(row, registers)?;

        let mut caller = RegisterSet::empty();
        for &number in self.arch.callee_saved {
            if let Some(value) = registers.get(number) {
                caller.set(number, value);
            }
        }
        caller.set(self.arch.sp, cfa);
        let mut pc = self
            .arch
            .link
            .and_then(|link| registers.get(link))
            .ok_or(NoCaller::Nonsense);
        for (number, rule) in &row.rules {
            let held = self.arch.register_name(*number).is_some();
            if !held && *number != row.return_column {
                continue; // vector registers
            }
            let value = self.apply(row, rule, *number, registers, cfa);
            if *number == row.return_column {
                if matches!(rule, RegisterRule::Undefined) {
                    return Err(NoCaller::Outermost);
                }
                pc = value.and_then(|value| value.ok_or(NoCaller::Nonsense));
                if self.arch.link != Some(*number) {
                    continue;
                }
            }
            match value {
                Ok(Some(value)) => caller.set(*number, value),
                Ok(None) | Err(_) => caller.forget(*number),
            }
        }
        caller.set(self.arch.pc, pc?);
        Ok(caller)
    }

    /// The canonical frame address of the frame with these registers.
    pub fn frame_address(&self, row: &Row, registers: &RegisterSet) -> Option<u64> {
        self.cfa(row, registers).ok()
    }

    fn cfa(&self, row: &Row, registers: &RegisterSet) -> Result<u64, NoCaller> {
        match &row.cfa {
            CfaRule::RegisterAndOffset { register, offset } => Ok(registers
                .get(register.0)
                .ok_or(NoCaller::Nonsense)?
                .wrapping_add_signed(*offset)),
            CfaRule::Expression(expression) => self.evaluate(row, expression, registers, None),
        }
    }

    /// The registers of the caller that the function keeps elsewhere, each with the word that has it; `None` where that cannot be told.
    /// `cfa`: the frame's address.
    pub fn saved(
        &self,
        row: &Row,
        registers: &RegisterSet,
        cfa: u64,
    ) -> Vec<(u16, Option<Address>)> {
        let mut found = Vec::new();
        for (number, rule) in &row.rules {
            let is_held = self.arch.register_name(*number).is_some();
            if !is_held || *number == self.arch.pc || *number == self.arch.sp {
                continue;
            }
            let at = match rule {
                RegisterRule::SameValue => continue,
                RegisterRule::Offset(offset) => Some(cfa.wrapping_add_signed(*offset)),
                RegisterRule::Expression(expression) => {
                    self.evaluate(row, expression, registers, Some(cfa)).ok()
                }
                _ => None,
            };
            found.push((*number, at.map(Address::new)));
        }
        found
    }

    fn apply(
        &self,
        row: &Row,
        rule: &RegisterRule<usize>,
        number: u16,
        registers: &RegisterSet,
        cfa: u64,
    ) -> Result<Option<u64>, NoCaller> {
        Ok(match rule {
            RegisterRule::Undefined | RegisterRule::Architectural => None,
            RegisterRule::SameValue => registers.get(number),
            RegisterRule::Offset(offset) => Some(self.word(cfa.wrapping_add_signed(*offset))?),
            RegisterRule::ValOffset(offset) => Some(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(other) => registers.get(other.0),
            RegisterRule::Expression(expression) => {
                let at = self.evaluate(row, expression, registers, Some(cfa))?;
                Some(self.word(at)?)
            }
            RegisterRule::ValExpression(expression) => {
                Some(self.evaluate(row, expression, registers, Some(cfa))?)
            }
            RegisterRule::Constant(value) => Some(*value),
        })
    }

    fn word(&self, at: u64) -> Result<u64, NoCaller> {
        let word = self.memory.read_pointer(Address::new(at));
        word.map(Address::get).map_err(NoCaller::Unreadable)
    }

    /// The value of an expression, with the frame's address on the stack for a register's rule.
    fn evaluate(
        &self,
        row: &Row,
        expression: &UnwindExpression<usize>,
        registers: &RegisterSet,
        cfa: Option<u64>,
    ) -> Result<u64, NoCaller> {
        self.tables
            .expression(row, expression, |expression| {
                self.run(row, expression, registers, cfa)
            })
            .ok_or(NoCaller::Nonsense)?
    }

    fn run(
        &self,
        row: &Row,
        expression: Expression<gimli::EndianSlice<'_, gimli::LittleEndian>>,
        registers: &RegisterSet,
        cfa: Option<u64>,
    ) -> Result<u64, NoCaller> {
        let mut evaluation = expression.evaluation(row.encoding);
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(cfa) = cfa {
            evaluation.set_initial_value(cfa);
        }
        let mut state = evaluation.evaluate()?;
        // Each turn is one operation of the expression, so the limit above ends it.
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let value = self.bytes(address, size)?;
                    evaluation.resume_with_memory(Value::Generic(value))?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = registers.get(register.0).ok_or(NoCaller::Nonsense)?;
                    evaluation.resume_with_register(Value::Generic(value))?
                }
                EvaluationResult::RequiresRelocatedAddress(link) => {
                    evaluation.resume_with_relocated_address(link.wrapping_add(self.bias))?
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    evaluation.resume_with_call_frame_cfa(cfa.ok_or(NoCaller::Nonsense)?)?
                }
                _ => return Err(NoCaller::Nonsense),
            };
        }
        if let Some(value) = evaluation.value_result() {
            return Ok(value.to_u64(u64::MAX)?);
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Ok(address),
                Location::Register { register } => {
                    registers.get(register.0).ok_or(NoCaller::Nonsense)
                }
                _ => Err(NoCaller::Nonsense),
            },
            _ => Err(NoCaller::Nonsense),
        }
    }

    /// `size` bytes (1 to 8) at `at` as a number.
    fn bytes(&self, at: u64, size: u8) -> Result<u64, NoCaller> {
        let mut word = [0u8; 8];
        let part = word
            .get_mut(..usize::from(size))
            .ok_or(NoCaller::Nonsense)?;
        self.memory
            .read_into(Address::new(at), part)
            .map_err(NoCaller::Unreadable)?;
        if !self.memory.abi().little_endian {
            part.reverse();
        }
        Ok(u64::from_le_bytes(word))
    }
}

impl From<gimli::Error> for NoCaller {
    fn from(_: gimli::Error) -> Self {
        NoCaller::Nonsense
    }
}
