//! A function's code: its instructions in order, and where each can be come to from.

use std::collections::HashMap;
use std::ops::Range;

use ground::target::{Address, MemoryExt, TargetMemory};
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};

/// Bytes of a function that are decoded.
const MAX_BYTES: u64 = 64 << 10;
/// Entries of a table of jumps.
const MAX_CASES: u64 = 1024;
/// Instructions before a jump in which its table is named.
const TABLE_NAMED_WITHIN: usize = 16;

/// A function, or the parts of one that the compiler laid apart.
pub(super) struct Function {
    /// Its first byte.
    pub start: u64,
    parts: Vec<Range<u64>>,
    instructions: Vec<Instruction>,
    places: HashMap<u64, usize>,
    sources: HashMap<usize, Vec<usize>>,
}

impl Function {
    /// Decodes the parts, that with the entry first.
    pub fn decode(memory: &dyn TargetMemory, parts: &[Range<u64>]) -> Option<Self> {
        let mut instructions = Vec::new();
        for part in parts {
            let bytes = part.end.checked_sub(part.start)?;
            if bytes == 0 || bytes > MAX_BYTES {
                return None;
            }
            let mut code = vec![0; usize::try_from(bytes).ok()?];
            memory.read_into(Address::new(part.start), &mut code).ok()?;
            let decoder = Decoder::with_ip(64, &code, part.start, DecoderOptions::NONE);
            instructions.extend(decoder);
        }
        let mut function = Self {
            start: parts.first()?.start,
            parts: parts.to_vec(),
            places: (0..)
                .zip(&instructions)
                .map(|(index, instruction): (usize, &Instruction)| (instruction.ip(), index))
                .collect(),
            instructions,
            sources: HashMap::new(),
        };
        for index in 0..function.instructions.len() {
            for target in function.targets(memory, index) {
                if let Some(place) = function.places.get(&target) {
                    let sources = function.sources.entry(*place).or_default();
                    if !sources.contains(&index) {
                        sources.push(index);
                    }
                }
            }
        }
        Some(function)
    }

    /// Where a jump goes, inside or outside of the function.
    fn targets(&self, memory: &dyn TargetMemory, index: usize) -> Vec<u64> {
        let Some(instruction) = self.instructions.get(index) else {
            return Vec::new();
        };
        match instruction.flow_control() {
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => {
                vec![instruction.near_branch_target()]
            }
            FlowControl::IndirectBranch => self.cases(memory, index).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// The targets of a jump through a table of distances from the table, or of addresses.
    fn cases(&self, memory: &dyn TargetMemory, index: usize) -> Option<Vec<u64>> {
        let jump = self.instructions.get(index)?;
        let by_address = jump.op0_kind() == OpKind::Memory
            && jump.memory_base() == Register::None
            && jump.memory_index() != Register::None;
        let table = match jump.op0_kind() {
            OpKind::Memory if by_address => jump.memory_displacement64(),
            OpKind::Register => {
                let first = index.saturating_sub(TABLE_NAMED_WITHIN);
                let before = self.instructions.get(first..index)?;
                let named = before.iter().rev().find(|instruction| {
                    instruction.mnemonic() == Mnemonic::Lea
                        && instruction.is_ip_rel_memory_operand()
                })?;
                named.ip_rel_memory_address()
            }
            _ => return None,
        };
        let case = |number: u64| {
            let at =
                |bytes: u64| Some(Address::new(table.checked_add(number.checked_mul(bytes)?)?));
            let target = match by_address {
                true => memory.read_u64(at(8)?).ok()?,
                false => {
                    let distance = memory.read_u32(at(4)?).ok()?.cast_signed();
                    table.checked_add_signed(distance.into())?
                }
            };
            self.places.contains_key(&target).then_some(target)
        };
        Some((0..MAX_CASES).map_while(case).collect())
    }

    /// Whether an address is in it.
    pub fn contains(&self, at: u64) -> bool {
        self.parts.iter().any(|part| part.contains(&at))
    }

    /// The instruction at an index.
    pub fn get(&self, index: usize) -> Option<&Instruction> {
        self.instructions.get(index)
    }

    /// All of them.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Index of the instruction at an address.
    pub fn at(&self, at: u64) -> Option<usize> {
        self.places.get(&at).copied()
    }

    /// Index of the call that returns to an address.
    pub fn call_before(&self, back: u64) -> Option<usize> {
        let index = self
            .instructions
            .partition_point(|instruction| instruction.ip() < back);
        // Parts need not be in order of addresses.
        let found = |index: &usize| {
            self.instructions
                .get(*index)
                .is_some_and(|instruction| instruction.next_ip() == back && is_call(instruction))
        };
        index.checked_sub(1).filter(&found).or_else(|| {
            self.instructions
                .iter()
                .position(|instruction| instruction.next_ip() == back && is_call(instruction))
        })
    }

    /// Jumps that lead to an instruction.
    pub fn jumps_to(&self, index: usize) -> &[usize] {
        self.sources.get(&index).map_or(&[], Vec::as_slice)
    }

    /// Whether a jump leads out, as far as is known: no place inside is one that it leads to.
    pub fn leads_out(&self, index: usize) -> bool {
        !self
            .sources
            .values()
            .any(|sources| sources.contains(&index))
    }

    /// Whether an instruction only fills the room before an aligned one.
    pub fn is_filling(&self, index: usize) -> bool {
        self.get(index).is_some_and(|instruction| {
            instruction.is_invalid()
                || matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
                || instruction.code() == Code::Xchg_rm16_r16
                || instruction.code() == Code::Nopw
        })
    }

    /// Whether no instruction returns or leaves for another function.
    pub fn is_endless(&self) -> bool {
        !self
            .instructions
            .iter()
            .enumerate()
            .any(|(index, instruction)| match instruction.flow_control() {
                FlowControl::Return => true,
                FlowControl::IndirectBranch => self.leads_out(index),
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                    !self.contains(instruction.near_branch_target())
                }
                _ => false,
            })
    }

    /// The instruction before, if control goes on from it.
    pub fn falls_from(&self, index: usize) -> Option<usize> {
        let before = index.checked_sub(1)?;
        let (one, next) = (self.get(before)?, self.get(index)?);
        let goes_on = matches!(
            one.flow_control(),
            FlowControl::Next
                | FlowControl::Call
                | FlowControl::IndirectCall
                | FlowControl::ConditionalBranch
        ) && !one.is_invalid();
        (goes_on && one.next_ip() == next.ip()).then_some(before)
    }
}

/// Whether an instruction calls.
pub(super) fn is_call(instruction: &Instruction) -> bool {
    matches!(
        instruction.flow_control(),
        FlowControl::Call | FlowControl::IndirectCall
    )
}
