//! What an instruction makes of its operands: the value that it leaves in a register, in terms of what was before it.

use std::sync::Arc;

use iced_x86::{ConditionCode, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::expression::{Expression, Stores};
use super::facts::{RSP, immediate, number, operand_address};

const RAX: u8 = 0;
const RBP: u8 = 5;

/// The whole of `register` behind `instruction`, which writes it; `None` if that cannot be said.
pub(super) fn of(
    instruction: &Instruction,
    register: u8,
    stores: &Arc<Stores>,
    thread_pointer: Option<u64>,
) -> Option<Expression> {
    let itself = Expression::Register(register);
    match instruction.mnemonic() {
        Mnemonic::Push if register == RSP => return Some(itself.plus(8u64.wrapping_neg())),
        Mnemonic::Pop if register == RSP && number(instruction.op0_register()) != Some(RSP) => {
            return Some(itself.plus(8));
        }
        Mnemonic::Leave if register == RSP => return Some(Expression::Register(RBP).plus(8)),
        Mnemonic::Cdqe if register == RAX => return Some(Expression::Signed(Box::new(itself), 32)),
        _ => {}
    }
    // All others write their first operand.
    let to = instruction.op0_register();
    if instruction.op0_kind() != OpKind::Register || number(to) != Some(register) {
        return None;
    }
    let bits = match to.size() {
        8 => 64,
        4 => 32,
        _ => return None, // the rest of the register stays
    };
    let operand = |index| operand(instruction, index, stores, thread_pointer);
    let value = match instruction.mnemonic() {
        Mnemonic::Mov | Mnemonic::Movzx => operand(1)?,
        Mnemonic::Movsxd | Mnemonic::Movsx => {
            let from = operand_bits(instruction, 1)?;
            Expression::Signed(Box::new(operand(1)?), from)
        }
        Mnemonic::Lea => operand_address(instruction, thread_pointer)?,
        Mnemonic::Add => itself.sum(operand(1)?),
        Mnemonic::Sub if is_twice_the_same(instruction) => Expression::Number(0, None),
        Mnemonic::Sub => match immediate(instruction, 1) {
            Some(by) => itself.plus(by.wrapping_neg()),
            None => itself.sum(Expression::Product(Box::new(operand(1)?), u64::MAX)),
        },
        Mnemonic::Inc => itself.plus(1),
        Mnemonic::Dec => itself.plus(u64::MAX),
        Mnemonic::Neg => Expression::Product(Box::new(itself), u64::MAX),
        Mnemonic::Xor if is_twice_the_same(instruction) => Expression::Number(0, None),
        Mnemonic::And => Expression::Masked(Box::new(itself), immediate(instruction, 1)?),
        Mnemonic::Shl => {
            let by = u32::try_from(immediate(instruction, 1)?).ok()?;
            Expression::Product(Box::new(itself), 1u64.checked_shl(by & 63)?)
        }
        Mnemonic::Shr if bits == 64 => {
            let by = u32::try_from(immediate(instruction, 1)?).ok()?;
            Expression::Right(Box::new(itself), by & 63)
        }
        Mnemonic::Imul if instruction.op_count() == 3 => {
            Expression::Product(Box::new(operand(1)?), immediate(instruction, 2)?)
        }
        _ if is_conditional_move(instruction) => operand(1)?,
        _ => return None,
    };
    Some(value.low(bits))
}

/// Whether an instruction moves its second operand to the first one under a condition: both ways go on from it.
pub(super) fn is_conditional_move(instruction: &Instruction) -> bool {
    instruction.condition_code() != ConditionCode::None
        && instruction.flow_control() == FlowControl::Next
        && instruction.op_count() == 2
}

fn is_twice_the_same(instruction: &Instruction) -> bool {
    instruction.op1_kind() == OpKind::Register
        && instruction.op0_register() == instruction.op1_register()
}

/// Bits of an operand that is read.
fn operand_bits(instruction: &Instruction, index: u32) -> Option<u32> {
    match instruction.op_kind(index) {
        OpKind::Register => u32::try_from(instruction.op_register(index).size())
            .ok()?
            .checked_mul(8),
        OpKind::Memory => u32::try_from(instruction.memory_size().size())
            .ok()?
            .checked_mul(8),
        _ => None,
    }
}

/// The value of an operand.
pub(super) fn operand(
    instruction: &Instruction,
    index: u32,
    stores: &Arc<Stores>,
    thread_pointer: Option<u64>,
) -> Option<Expression> {
    match instruction.op_kind(index) {
        OpKind::Register => {
            let register = instruction.op_register(index);
            let is_high = matches!(
                register,
                Register::AH | Register::BH | Register::CH | Register::DH
            );
            let whole = Expression::Register(number(register).filter(|_| !is_high)?);
            Some(whole.low(operand_bits(instruction, index)?))
        }
        OpKind::Memory => {
            let bytes = operand_bits(instruction, index)? / 8;
            let at = operand_address(instruction, thread_pointer)?;
            (matches!(bytes, 1 | 2 | 4 | 8))
                .then(|| Expression::Load(Box::new(at), bytes.into(), Arc::clone(stores)))
        }
        _ => immediate(instruction, index).map(|value| Expression::Number(value, None)),
    }
}
