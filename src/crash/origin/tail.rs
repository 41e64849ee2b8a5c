//! A function that ends in a jump through memory: its frame is gone, and the caller's call leads to the function and not to where the jump
//! went. The jump changes no register, so that those of the crash are those that it had.
//!
//! ```text
//! call complete          <- the caller, whose return address is on the stack
//! complete: mov rax,[rdi] ... jmp [rax+8]       <- rax, rdi as at the crash
//! ```

use ground::target::{Address, MemoryExt, RegisterSet};
use iced_x86::{FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::code::{self, Function};
use super::trace::Trace;
use super::{Load, Origin, Role};
use crate::crash::instruction::dwarf;

/// Bytes of the function that are looked at.
const MAX_BYTES: u64 = 1024;
/// Places that jumps lead to.
const MAX_FUNCTIONS: usize = 8;
/// Loads that are followed back.
const MAX_LOADS: usize = 4;

/// The jump by which the function that begins at `start`, or one that it ends in, went to the frame's place, if it is the only one that
/// can have.
pub fn of_jump(trace: &Trace<'_>, frame: usize, start: Address) -> Option<Origin> {
    let at = trace.frame(frame)?;
    let memory = trace.target.memory;
    let mut starts = vec![start];
    let mut found: Option<(Instruction, Vec<Load>)> = None;
    let mut next = 0;
    while let Some(start) = starts.get(next).copied() {
        next += 1;
        let Some(function) = Function::read(memory, start, start.checked_add(MAX_BYTES)?) else {
            continue;
        };
        for index in jumps(&function) {
            let jump = function.get(index)?;
            if jump.flow_control() == FlowControl::UnconditionalBranch {
                let target = Address::new(jump.near_branch_target());
                if starts.len() < MAX_FUNCTIONS && !starts.contains(&target) {
                    starts.push(target);
                }
                continue;
            }
            let led = leads_to(trace, &function, index, &at.registers, at.pc.get(), frame);
            if let Some(loads) = led {
                // Code that two of them lead to is met twice.
                if found
                    .as_ref()
                    .is_some_and(|(known, _)| known.ip() != jump.ip())
                {
                    return None;
                }
                found = Some((*jump, loads));
            }
        }
    }
    let (jump, loads) = found?;
    let register = (jump.op0_kind() == OpKind::Register).then(|| jump.op0_register());
    Some(Origin {
        role: Role::Target,
        register: register.and_then(code::name),
        value: at.pc.get(),
        loads,
        given: None,
        returned: None,
        or_constant: false,
        parts: Vec::new(),
        frame: frame.saturating_add(1),
        function: None,
        instruction: Address::new(jump.ip()),
    })
}

/// Indices of the jumps out of a function, as far as its code goes: to what ends it and nothing jumps over.
fn jumps(function: &Function) -> impl Iterator<Item = usize> + '_ {
    let mut furthest = 0;
    let mut is_over = false;
    let all = (0..).map_while(|index| Some((index, function.get(index)?)));
    all.take_while(move |(_, instruction)| {
        if is_over {
            return false;
        }
        let flow = instruction.flow_control();
        if flow == FlowControl::ConditionalBranch {
            furthest = furthest.max(instruction.near_branch_target());
        }
        let ends = matches!(
            flow,
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
        );
        is_over = ends && furthest <= instruction.ip();
        true
    })
    .filter(|(_, instruction)| {
        matches!(
            instruction.flow_control(),
            FlowControl::IndirectBranch | FlowControl::UnconditionalBranch
        )
    })
    .map(|(index, _)| index)
}

/// The loads that gave the jump's target, the last one first, if memory and registers agree that it is `target`.
fn leads_to(
    trace: &Trace<'_>,
    function: &Function,
    jump: usize,
    registers: &RegisterSet,
    target: u64,
    frame: usize,
) -> Option<Vec<Load>> {
    let instruction = function.get(jump)?;
    let mut loads = Vec::new();
    let mut wanted = match instruction.op0_kind() {
        OpKind::Memory => {
            let load = load(trace, instruction, registers, target, frame)?;
            let base = instruction.memory_base();
            loads.push(load);
            base
        }
        OpKind::Register => {
            let register = instruction.op0_register();
            (registers.get(dwarf(register)?)? == target).then_some(register)?
        }
        _ => return None,
    };
    // What set the register, in a straight line before the jump, from memory that still has its value.
    let mut index = jump;
    while loads.len() < MAX_LOADS {
        let value = registers.get(dwarf(wanted)?)?;
        let number = dwarf(wanted)?;
        let setter = (0..index).rev().take_while(|before| {
            function
                .get(*before)
                .is_some_and(|it| it.flow_control() == FlowControl::Next)
        });
        let mut setter = setter.filter(|before| function.changes(*before) & (1 << number) != 0);
        let Some(before) = setter.next() else {
            break;
        };
        let Some(set) = function.get(before).filter(|set| {
            set.mnemonic() == Mnemonic::Mov
                && set.op0_kind() == OpKind::Register
                && set.op0_register() == wanted
                && set.op1_kind() == OpKind::Memory
                && set.memory_base() != wanted
        }) else {
            break;
        };
        let Some(found) = load(trace, set, registers, value, frame) else {
            break;
        };
        loads.push(found);
        wanted = set.memory_base();
        index = before;
    }
    (!loads.is_empty()).then_some(loads)
}

/// The load of an instruction whose memory has one register, if the word is `value`.
fn load(
    trace: &Trace<'_>,
    instruction: &Instruction,
    registers: &RegisterSet,
    value: u64,
    frame: usize,
) -> Option<Load> {
    let base = instruction.memory_base();
    let is_plain = instruction.memory_index() == Register::None
        && base != Register::None
        && base != Register::RIP
        && instruction.segment_prefix() == Register::None;
    let pointer = registers.get(dwarf(base).filter(|_| is_plain)?)?;
    let displacement = instruction.memory_displacement64().cast_signed();
    let at = Address::new(pointer.wrapping_add_signed(displacement));
    (trace.target.memory.read_u64(at).ok()? == value).then(|| Load {
        at: Some(at),
        base: Some(Address::new(pointer)),
        displacement,
        holder: code::name(base).unwrap_or("a register").to_owned(),
        held_at: None,
        is_slot: false,
        bytes: 8,
        factor: 1,
        instruction: Address::new(instruction.ip()),
        frame,
        function: None,
        direct: true,
    })
}
