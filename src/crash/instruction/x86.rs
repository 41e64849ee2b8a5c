//! x86-64, decoded by iced.

use ground::target::{Address, MemoryExt, RegisterSet, TargetMemory};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, MemorySize, OpAccess, OpKind,
    Register, SpecializedFormatter, SpecializedFormatterTraitOptions, UsedMemory,
};

use super::{Access, Instruction, Operand, RegisterValue};
use ground::arch::ArchInfo;
use ground::arch::x86_64::registers::{BY_PROCESSOR, RIP};

/// Lower-case names, `0x` numbers, blanks after commas.
struct Style;

impl SpecializedFormatterTraitOptions for Style {
    const ENABLE_DB_DW_DD_DQ: bool = false;

    fn space_after_operand_separator(_options: &iced_x86::FastFormatterOptions) -> bool {
        true
    }

    fn use_hex_prefix(_options: &iced_x86::FastFormatterOptions) -> bool {
        true
    }

    fn uppercase_hex(_options: &iced_x86::FastFormatterOptions) -> bool {
        false
    }
}

pub(super) fn decode(
    arch: &ArchInfo,
    pc: Address,
    code: &[u8],
    registers: &RegisterSet,
    thread_pointer: Option<Address>,
    memory: &dyn TargetMemory,
) -> Option<Instruction> {
    let mut decoder = Decoder::with_ip(64, code, pc.get(), DecoderOptions::NONE);
    let decoded = decoder.decode();
    if decoded.is_invalid() {
        let bytes = code.get(..2).unwrap_or(code).to_vec();
        return (!bytes.is_empty()).then(|| Instruction {
            address: pc,
            bytes,
            text: "(bad instruction)".into(),
            operands: Vec::new(),
            explains_fault: false,
        });
    }
    let mut text = String::new();
    SpecializedFormatter::<Style>::new().format(&decoded, &mut text);

    let value = |register: Register| -> Option<u64> {
        match register {
            Register::FS => thread_pointer.map(Address::get),
            Register::GS => None,
            Register::CS | Register::DS | Register::ES | Register::SS => Some(0),
            register => {
                let full = registers.get(dwarf(register)?)?;
                Some(match register.size() {
                    4 => full & 0xffff_ffff,
                    _ => full,
                })
            }
        }
    };
    let mut factory = InstructionInfoFactory::new();
    let info = factory.info(&decoded);
    let mut operands: Vec<Operand> = info
        .used_memory()
        .iter()
        .filter_map(|memory| operand(arch, memory, &value))
        .collect();
    if matches!(
        decoded.flow_control(),
        FlowControl::IndirectBranch | FlowControl::IndirectCall
    ) && decoded.op0_kind() == OpKind::Register
    {
        let register = decoded.op0_register();
        operands.insert(
            0,
            Operand {
                access: Access::Execute,
                address: value(register).map(Address::new),
                bytes: 1,
                expression: name(register),
                registers: vec![register_value(arch, register, value(register))?],
            },
        );
    }
    if matches!(
        decoded.flow_control(),
        FlowControl::IndirectBranch | FlowControl::IndirectCall | FlowControl::Return
    ) && let Some(from) = operands
        .iter()
        .find(|operand| operand.access == Access::Read)
        && let Some(target) = from.address.and_then(|at| memory.read_pointer(at).ok())
    {
        let target = Operand {
            access: Access::Execute,
            address: Some(target),
            bytes: 1,
            expression: format!("[{}]", from.expression),
            registers: from.registers.clone(),
        };
        operands.push(target);
    }
    let length = decoded.len();
    Some(Instruction {
        address: pc,
        bytes: code.get(..length)?.to_vec(),
        text,
        operands,
        explains_fault: false,
    })
}

fn operand(
    arch: &ArchInfo,
    memory: &UsedMemory,
    value: &impl Fn(Register) -> Option<u64>,
) -> Option<Operand> {
    let access = match memory.access() {
        OpAccess::Read | OpAccess::CondRead => Access::Read,
        OpAccess::Write | OpAccess::CondWrite => Access::Write,
        OpAccess::ReadWrite | OpAccess::ReadCondWrite => Access::ReadWrite,
        _ => return None, // lea, prefetch, nop
    };
    let mut expression = String::new();
    let mut made_by = Vec::new();
    for register in [memory.segment(), memory.base(), memory.index()] {
        let flat =
            register.is_segment_register() && !matches!(register, Register::FS | Register::GS);
        if register == Register::None || flat {
            continue;
        }
        if !expression.is_empty() {
            expression.push_str(" + ");
        }
        expression.push_str(&name(register));
        if register.is_segment_register() {
            expression.push_str(" base");
        }
        if register == memory.index() && memory.scale() > 1 {
            expression.push_str(&format!("*{}", memory.scale()));
        }
        if !register.is_segment_register() {
            made_by.extend(register_value(arch, register, value(register)));
        }
    }
    let displacement = memory.displacement();
    if expression.is_empty() {
        expression = format!("{displacement:#x}");
    } else if displacement != 0 {
        let signed = displacement.cast_signed();
        let sign = if signed < 0 { '-' } else { '+' };
        expression.push_str(&format!(" {sign} {:#x}", signed.unsigned_abs()));
    }
    made_by.dedup();
    Some(Operand {
        access,
        address: memory
            .virtual_address(0, |register, _, _| value(register))
            .map(Address::new),
        bytes: match memory.memory_size() {
            MemorySize::Unknown => 0,
            size => u64::try_from(size.size()).unwrap_or(0),
        },
        expression,
        registers: made_by,
    })
}

fn register_value(
    arch: &ArchInfo,
    register: Register,
    value: Option<u64>,
) -> Option<RegisterValue> {
    Some(RegisterValue {
        name: arch.register_name(dwarf(register)?)?,
        value,
    })
}

fn name(register: Register) -> String {
    format!("{register:?}").to_ascii_lowercase()
}

/// The DWARF number of a general register.
pub(in crate::crash) fn dwarf(register: Register) -> Option<u16> {
    if register == Register::RIP || register == Register::EIP {
        return Some(RIP);
    }
    if !register.is_gpr() {
        return None;
    }
    BY_PROCESSOR.get(register.full_register().number()).copied()
}
