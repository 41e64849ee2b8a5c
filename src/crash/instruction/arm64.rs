//! aarch64, decoded by yaxpeax.
//!
//! An instruction works on one piece of memory at most; what it does there, and how many bytes, is in its mnemonic: `ldrb`,
//! `stp`, `ldaddalh`.

use ground::target::{Address, RegisterSet};
use yaxpeax_arch::{Arch, Decoder, U8Reader};
use yaxpeax_arm::armv8::a64::{
    ARMv8, Instruction as Decoded, Operand as Part, SIMDSizeCode, ShiftStyle, SizeCode,
};

use super::{Access, Instruction, Operand, RegisterValue};
use ground::arch::ArchInfo;

/// Bytes of an instruction.
const BYTES: usize = 4;
/// Bytes that `dc zva` clears. A processor may have another block; all common ones have this.
const CLEARED_BYTES: u64 = 64;
/// The number of the stack pointer where it is the base of an address.
const SP: u16 = 31;
/// What loads, with a number for each, and stores at once.
const EXCHANGES: [&str; 10] = [
    "ldadd", "ldclr", "ldeor", "ldset", "ldsmax", "ldsmin", "ldumax", "ldumin", "swp", "cas",
];

pub(super) fn decode(
    arch: &ArchInfo,
    pc: Address,
    code: &[u8],
    registers: &RegisterSet,
) -> Option<Instruction> {
    let bytes: [u8; BYTES] = *code.first_chunk()?;
    let plain = |text: String, operands: Vec<Operand>| Instruction {
        address: pc,
        bytes: bytes.to_vec(),
        text,
        operands,
        explains_fault: false,
    };
    let machine = Machine { arch, registers };
    if let Some(number) = cleared(bytes) {
        let operand = machine.at_register(Access::Write, number, CLEARED_BYTES);
        return Some(plain(format!("dc zva, x{number}"), vec![operand]));
    }
    let decoder = <ARMv8 as Arch>::Decoder::default();
    let Ok(decoded) = decoder.decode(&mut U8Reader::new(&bytes)) else {
        return Some(plain("(bad instruction)".into(), Vec::new()));
    };
    let text = decoded.to_string();
    let mnemonic = text.split(' ').next().unwrap_or_default();
    let operand = match (access(mnemonic), target(mnemonic, &decoded)) {
        (Some(access), _) => machine.memory(access, size(mnemonic, &decoded), pc, &decoded),
        (None, Some(number)) => Some(machine.at_register(Access::Execute, number, 1)),
        (None, None) => None,
    };
    let operands = operand.into_iter().collect();
    Some(plain(text, operands))
}

/// The register of `dc zva`, with which memory is cleared by whole cache lines.
fn cleared(bytes: [u8; BYTES]) -> Option<u16> {
    let word = u32::from_le_bytes(bytes);
    let number = u16::try_from(word & 31).ok()?;
    (word & !31 == 0xd50b_7420).then_some(number)
}

fn access(mnemonic: &str) -> Option<Access> {
    if EXCHANGES.iter().any(|start| mnemonic.starts_with(start)) {
        Some(Access::ReadWrite)
    } else if mnemonic.starts_with("ld") {
        Some(Access::Read)
    } else if mnemonic.starts_with("st") {
        Some(Access::Write)
    } else {
        None // the rest works on registers, and a prefetch never faults
    }
}

/// The register through which it goes on.
fn target(mnemonic: &str, decoded: &Decoded) -> Option<u16> {
    if !["br", "blr", "ret"]
        .iter()
        .any(|start| mnemonic.starts_with(start))
        || mnemonic == "brk"
    {
        return None;
    }
    match decoded.operands[0] {
        Part::Register(SizeCode::X, number) => Some(number),
        _ if mnemonic.starts_with("ret") => Some(30),
        _ => None,
    }
}

/// Bytes of memory that it works on; 0 if that is not known.
fn size(mnemonic: &str, decoded: &Decoded) -> u64 {
    let one = if mnemonic.ends_with("sw") {
        4
    } else if mnemonic.ends_with('b') && mnemonic != "ldrab" {
        1
    } else if mnemonic.ends_with('h') {
        2
    } else {
        // An exclusive store names first where its success is put.
        let skipped = ["stxr", "stxp", "stlxr", "stlxp"];
        let data = usize::from(skipped.contains(&mnemonic));
        decoded.operands.get(data).map_or(0, register_bytes)
    };
    let start = mnemonic.get(..4).unwrap_or(mnemonic);
    let pairs = ["ldp", "stp", "ldnp", "stnp", "ldxp", "stxp", "casp", "ldps"];
    let is_pair = pairs.contains(&start) || ["ldaxp", "stlxp"].contains(&mnemonic);
    if is_pair { one * 2 } else { one }
}

fn register_bytes(part: &Part) -> u64 {
    match *part {
        Part::Register(SizeCode::W, _) | Part::RegisterOrSP(SizeCode::W, _) => 4,
        Part::Register(SizeCode::X, _) | Part::RegisterOrSP(SizeCode::X, _) => 8,
        Part::RegisterPair(SizeCode::W, _) => 4,
        Part::RegisterPair(SizeCode::X, _) => 8,
        Part::SIMDRegister(size, _) => width(size),
        Part::SIMDRegisterGroup(size, _, _, count) => width(size) * u64::from(count),
        Part::SIMDRegisterGroupLane(_, size, count, _) => width(size) * u64::from(count),
        _ => 0,
    }
}

fn width(size: SIMDSizeCode) -> u64 {
    match size {
        SIMDSizeCode::B => 1,
        SIMDSizeCode::H => 2,
        SIMDSizeCode::S => 4,
        SIMDSizeCode::D => 8,
        SIMDSizeCode::Q => 16,
    }
}

/// An address that the processor sees: it ignores the highest byte of a pointer to data.
fn untagged(address: u64) -> Address {
    const TAG: u64 = 0xff << 56;
    const UPPER_HALF: u64 = 1 << 55;
    Address::new(if address & UPPER_HALF == 0 {
        address & !TAG
    } else {
        address
    })
}

/// The registers of a frame.
struct Machine<'a> {
    arch: &'a ArchInfo,
    registers: &'a RegisterSet,
}

impl Machine<'_> {
    fn at_register(&self, access: Access, number: u16, bytes: u64) -> Operand {
        let register = self.value(number);
        Operand {
            access,
            address: self.registers.get(number).map(untagged),
            bytes,
            expression: register.as_ref().map_or("", |found| found.name).to_owned(),
            registers: register.into_iter().collect(),
        }
    }

    /// The operand in memory, if there is one.
    fn memory(
        &self,
        access: Access,
        bytes: u64,
        pc: Address,
        decoded: &Decoded,
    ) -> Option<Operand> {
        let operand =
            |address: Option<u64>, expression: String, registers: Vec<RegisterValue>| Operand {
                access,
                address: address.map(untagged),
                bytes,
                expression,
                registers,
            };
        decoded.operands.iter().find_map(|part| {
            Some(match *part {
                Part::RegPreIndex(base, offset, _) => {
                    let base = self.value(base)?;
                    let sign = if offset < 0 { '-' } else { '+' };
                    let expression = match offset {
                        0 => base.name.to_owned(),
                        _ => format!("{} {sign} {:#x}", base.name, offset.unsigned_abs()),
                    };
                    let address = base.value.map(|at| at.wrapping_add_signed(offset.into()));
                    operand(address, expression, vec![base])
                }
                Part::RegPostIndex(base, _) | Part::RegPostIndexReg(base, _) => {
                    let base = self.value(base)?;
                    operand(base.value, base.name.to_owned(), vec![base])
                }
                Part::RegRegOffset(base, index, size, style, amount) => {
                    let base = self.value(base)?;
                    let index = self.index(index)?;
                    let (name, value) = extended(&index, size, style);
                    let factor = 1u64.checked_shl(amount.into()).unwrap_or(0);
                    let scaled = value.map(|value| value.wrapping_mul(factor));
                    let expression = match factor {
                        1 => format!("{} + {name}", base.name),
                        _ => format!("{} + {name}*{factor}", base.name),
                    };
                    let address = base.value.zip(scaled);
                    let address = address.map(|(base, offset)| base.wrapping_add(offset));
                    operand(address, expression, vec![base, index])
                }
                Part::PCOffset(distance) => {
                    let address = pc.get().wrapping_add_signed(distance);
                    operand(Some(address), format!("{address:#x}"), Vec::new())
                }
                _ => return None,
            })
        })
    }

    /// As [`value`](Self::value), but 31 is the register that is always zero.
    fn index(&self, number: u16) -> Option<RegisterValue> {
        let zero = RegisterValue {
            name: "xzr",
            value: Some(0),
        };
        if number == SP {
            Some(zero)
        } else {
            self.value(number)
        }
    }

    fn value(&self, number: u16) -> Option<RegisterValue> {
        let number = if number == SP { self.arch.sp } else { number };
        Some(RegisterValue {
            name: self.arch.register_name(number)?,
            value: self.registers.get(number),
        })
    }
}

/// An index as it is added: its lower half may be widened, with its sign or without.
fn extended(index: &RegisterValue, size: SizeCode, style: ShiftStyle) -> (String, Option<u64>) {
    if size == SizeCode::X {
        return (index.name.to_owned(), index.value);
    }
    let half = index.name.replacen('x', "w", 1);
    let low = index.value.map(|value| value & 0xffff_ffff);
    match style {
        ShiftStyle::SXTW => {
            let signed = |low: u64| u32::try_from(low).map(|low| i64::from(low.cast_signed()));
            let value = low.and_then(|low| signed(low).ok());
            (format!("sxtw({half})"), value.map(i64::cast_unsigned))
        }
        _ => (half, low),
    }
}
