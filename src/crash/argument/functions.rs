//! Functions of the dead process by their addresses: their code, what they change, how they are left.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use ground::target::Address;
use iced_x86::{FlowControl, Instruction, InstructionInfoFactory};

use super::Entry;
use super::code::Function;
use super::entry::{Callee, Names};
use super::facts::{Effects, VOLATILE};
use postmortem::session::Session;

/// Functions that are followed, from one to the next.
pub(super) const MAX_DEPTH: usize = 4;
/// Jumps by which a function is left that are looked at.
const MAX_WAYS: usize = 16;
/// Parts of a function that lie apart.
const MAX_PARTS: usize = 4;

/// Functions of a session.
pub(super) struct Functions<'s> {
    session: &'s Session,
    /// Their names, and where calls lead.
    pub names: Names<'s>,
    /// What functions change, as far as was asked.
    changes: RefCell<HashMap<u64, Option<u16>>>,
}

impl<'s> Functions<'s> {
    pub fn new(session: &'s Session) -> Self {
        Self {
            session,
            names: Names { session },
            changes: RefCell::default(),
        }
    }

    /// The registers that a call changes; `None` if it never returns. A compiler keeps values in registers that a function of the
    /// same file does not change, though it may.
    pub fn changed(&self, call: &Instruction) -> Option<u16> {
        if !call.is_call_near() {
            return Some(VOLATILE);
        }
        self.changed_by(call.near_branch_target(), MAX_DEPTH)
    }

    fn changed_by(&self, function: u64, depth: usize) -> Option<u16> {
        if let Some(known) = self.changes.borrow().get(&function) {
            return *known;
        }
        // While it is looked at: a function that calls itself.
        self.changes.borrow_mut().insert(function, Some(VOLATILE));
        let found = self.look_for_changes(function, depth);
        self.changes.borrow_mut().insert(function, found);
        found
    }

    fn look_for_changes(&self, start: u64, depth: usize) -> Option<u16> {
        if self.names.is_endless(start) {
            return None;
        }
        let Some(depth) = depth.checked_sub(1) else {
            return Some(VOLATILE);
        };
        let range = self.range_at(start).filter(|range| range.start == start);
        let function = range.and_then(|range| Function::decode(self.session.memory(), &[range]));
        let Some(function) = function else {
            return Some(VOLATILE);
        };
        if function.is_endless() {
            return None;
        }
        let mut factory = InstructionInfoFactory::new();
        let mut changed = 0;
        for instruction in function.instructions() {
            let target = instruction.near_branch_target();
            changed |= match instruction.flow_control() {
                FlowControl::Call => self.changed_by(target, depth).unwrap_or(0),
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
                    if !function.contains(target) =>
                {
                    self.changed_by(target, depth).unwrap_or(0)
                }
                FlowControl::IndirectCall | FlowControl::IndirectBranch => VOLATILE,
                _ => Effects::of(instruction, &mut factory, None, 0).registers & VOLATILE,
            };
        }
        Some(changed)
    }

    /// The function at `start` if all it leaves for is the allocator: the functions on the way there.
    pub fn jumps(&self, start: u64, depth: usize) -> Option<(Vec<u64>, Entry)> {
        let function = self.function_at(start)?;
        let (_, callee) = self.way_out(&function)?;
        if let Some(entry) = callee.entry {
            return Some((vec![start], entry));
        }
        let (mut rest, entry) = self.jumps(callee.address, depth.checked_sub(1)?)?;
        rest.insert(0, start);
        Some((rest, entry))
    }

    /// The only jump by which a function is left: its index, and where it leads.
    pub fn way_out(&self, function: &Function) -> Option<(usize, Callee)> {
        let mut ways = (0..)
            .zip(function.instructions())
            .filter(|(index, instruction)| leaves(function, *index, instruction));
        let (index, jump) = ways.next().filter(|_| ways.next().is_none())?;
        Some((index, self.names.of_branch(jump)?))
    }

    /// The jumps by which a function is left for places that are known: their indexes, and where they lead.
    pub fn ways_out(&self, function: &Function) -> Vec<(usize, u64)> {
        (0..)
            .zip(function.instructions())
            .filter(|(index, instruction)| leaves(function, *index, instruction))
            .filter_map(|(index, jump)| {
                let callee = match jump.flow_control() {
                    FlowControl::ConditionalBranch => self.names.at(jump.near_branch_target()),
                    _ => self.names.of_branch(jump),
                };
                Some((index, callee?.address))
            })
            .take(MAX_WAYS)
            .collect()
    }

    /// The function that begins at an address.
    pub fn function_at(&self, start: u64) -> Option<Function> {
        let range = self.range_at(start).filter(|range| range.start == start)?;
        self.whole(vec![range])
    }

    /// The part of a function around an address that call-frame information covers.
    pub fn range_at(&self, at: u64) -> Option<Range<u64>> {
        let (start, end) = self.session.unwinder().function_at(Address::new(at))?;
        Some(start.get()..end.get())
    }

    /// Decodes a function, with the parts that it jumps to and that jump back into its middle.
    pub fn whole(&self, mut parts: Vec<Range<u64>>) -> Option<Function> {
        let memory = self.session.memory();
        let mut function = Function::decode(memory, &parts)?;
        while parts.len() < MAX_PARTS {
            let out = function.instructions().iter().filter(|instruction| {
                instruction.flow_control() == FlowControl::ConditionalBranch
                    || instruction.flow_control() == FlowControl::UnconditionalBranch
            });
            let another = out
                .map(|instruction| instruction.near_branch_target())
                .filter(|target| !function.contains(*target))
                .find_map(|target| {
                    let range = self.range_at(target)?;
                    let other = Function::decode(memory, std::slice::from_ref(&range))?;
                    let comes_back = parts.iter().any(|part| {
                        let inside = part.start.saturating_add(1)..part.end;
                        leaves_into(&other, &inside)
                    });
                    comes_back.then_some(range)
                });
            let Some(another) = another else { break };
            parts.push(another);
            function = Function::decode(memory, &parts)?;
        }
        Some(function)
    }
}

/// Whether the instruction at an index is a jump out of its function.
fn leaves(function: &Function, index: usize, instruction: &Instruction) -> bool {
    match instruction.flow_control() {
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
            !function.contains(instruction.near_branch_target())
        }
        FlowControl::IndirectBranch => function.leads_out(index),
        _ => false,
    }
}

/// Whether a function jumps to a place in a range.
pub(super) fn leaves_into(function: &Function, range: &Range<u64>) -> bool {
    function.instructions().iter().any(|instruction| {
        matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        ) && range.contains(&instruction.near_branch_target())
    })
}
