//! Variables and parameters of a function, and where each stands at one address of its code.
//!
//! ```text
//! function ──> blocks and inlined calls around the address ──> their variables
//! variable ──> its place there (an expression, or the list of places that covers the address) ──> register or memory
//! ```
//!
//! A variable that has no place there, or whose value is computed, is left out: nothing holds it. Locations: DWARF 5, 2.6.

use gimli::{
    AttributeValue, EvaluationResult, Expression, Location, UnitOffset, Value, constants as dw,
};
use ground::target::{Address, MemoryExt, RegisterSet, TargetMemory};

use super::catalog;
use super::dies::{Entry, Place, PlacedUnit};
use super::dwarf::Bytes;
use super::lines::functions::{self, sibling};
use super::lines::ranges;
use super::types::{MAX_TYPE_DEPTH, Types};

/// Variables of one function that are told.
const MAX_LOCALS: usize = 4096;
/// Entries of one function that are looked at.
const MAX_ENTRIES: usize = 1 << 20;
/// Entries of one list of places that are looked at.
const MAX_PLACES: usize = 4096;
/// Operations of one expression; real ones have fewer than 20.
const MAX_OPERATIONS: u32 = 200;
/// Parts of one variable.
const MAX_PARTS: usize = 64;

/// A frame, as far as the places of its variables depend on it.
#[derive(Clone, Copy)]
pub struct FrameFacts<'a> {
    /// The address that its function is looked up by.
    pub lookup: Address,
    /// Its registers.
    pub registers: &'a RegisterSet,
    /// Its canonical frame address: the stack pointer of its caller.
    pub cfa: Option<Address>,
    /// The memory of the process.
    pub memory: &'a dyn TargetMemory,
}

/// Where a part of a variable stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalPlace {
    /// In the register with this DWARF number.
    Register(u16),
    /// In memory.
    Memory(Address),
}

/// A part of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalPart {
    /// Where it stands.
    pub at: LocalPlace,
    /// Bytes from the variable's start.
    pub offset: u64,
    /// Its bytes; `None` where the variable's size is not known.
    pub bytes: Option<u64>,
}

/// A variable or a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub name: String,
    /// The function that it belongs to, if that was inlined into the one that has the frame.
    pub inlined: Option<String>,
    /// Its parts, each with its place.
    pub parts: Vec<LocalPart>,
    /// The entry of its type, in its function's module.
    pub kind: Option<Place>,
    /// It is a parameter: it has its value from the function's first instruction on.
    pub is_parameter: bool,
    /// The line that declares it.
    pub line: Option<u64>,
}

/// The variables of the function at `entry` of the unit at `start` that have a place at the link address `at`, outer ones first.
pub(super) fn of_function(
    types: &Types<'_>,
    (start, entry): (Place, UnitOffset),
    at: u64,
    bias: u64,
    frame: &FrameFacts<'_>,
) -> Vec<Local> {
    let mut found = Vec::new();
    let Some(unit) = types.dies().unit(start) else {
        return found;
    };
    let mut reader = Reader {
        types,
        unit: &unit,
        at,
        bias,
        frame,
        frame_base: None,
    };
    // A damaged end of a function costs the variables there.
    let _ = reader.collect(entry, &mut found);
    found
}

struct Reader<'r, 'a> {
    types: &'r Types<'a>,
    unit: &'r PlacedUnit<'a>,
    at: u64,
    bias: u64,
    frame: &'r FrameFacts<'r>,
    frame_base: Option<u64>,
}

impl<'a> Reader<'_, 'a> {
    fn collect(&mut self, function: UnitOffset, found: &mut Vec<Local>) -> Option<()> {
        let dies = self.types.dies();
        let unit = &self.unit.unit;
        let mut entries = unit.entries_raw(Some(function)).ok()?;
        let mut entry = Entry::null();
        if !entries.read_entry(&mut entry).ok()? || !entry.has_children() {
            return None;
        }
        self.frame_base = self.frame_base(&entry);
        // `inside`: the depth whose entries are looked at; it rises where one covers the address, and falls behind that one.
        let (mut base, mut inside) = (0isize, 1isize);
        let mut calls: Vec<(isize, Option<String>)> = Vec::new();
        for _ in 0..MAX_ENTRIES {
            if entries.is_empty() || found.len() >= MAX_LOCALS {
                break;
            }
            let depth = base.checked_add(entries.next_depth())?;
            let is_entry = entries.read_entry(&mut entry).ok()?;
            if depth < inside {
                inside = depth;
                calls.retain(|(call, _)| *call < depth);
            }
            if inside < 1 {
                break; // behind the function
            }
            if !is_entry || depth > inside {
                continue;
            }
            let tag = entry.tag();
            let is_block = tag == dw::DW_TAG_inlined_subroutine || tag == dw::DW_TAG_lexical_block;
            if is_block && self.covers(&entry) && entry.has_children() {
                if tag == dw::DW_TAG_inlined_subroutine {
                    let name = functions::name(dies, self.unit.start, entry.offset());
                    calls.push((depth, name));
                }
                inside = depth.checked_add(1)?;
                continue;
            }
            if tag == dw::DW_TAG_variable || tag == dw::DW_TAG_formal_parameter {
                let inlined = calls.last().and_then(|(_, name)| name.clone());
                found.extend(self.local(&entry, inlined));
            }
            if entry.has_children()
                && let Some(next) = sibling(&entry, &entries)
            {
                entries = unit.entries_raw(Some(next)).ok()?;
                base = depth;
            }
        }
        Some(())
    }

    fn covers(&self, entry: &Entry<'a>) -> bool {
        let ranges = ranges::of_entry(self.types.dies().dwarf, &self.unit.unit, entry);
        ranges.iter().any(|range| range.contains(&self.at))
    }

    fn local(&self, entry: &Entry<'a>, inlined: Option<String>) -> Option<Local> {
        let expression = self.expression(entry.attr_value(dw::DW_AT_location)?)?;
        let dies = self.types.dies();
        let (name, kind) = catalog::named(dies, self.unit, entry);
        let name = name?;
        let size = || kind.and_then(|kind| self.types.facts(kind, MAX_TYPE_DEPTH).size);
        let parts = self.parts(expression, size)?;
        Some(Local {
            name,
            inlined,
            parts,
            kind,
            is_parameter: entry.tag() == dw::DW_TAG_formal_parameter,
            line: catalog::declared_at(dies, self.unit, entry),
        })
    }

    /// The expression that holds at the address.
    fn expression(&self, value: AttributeValue<Bytes<'a>>) -> Option<Expression<Bytes<'a>>> {
        if let AttributeValue::Exprloc(expression) = value {
            return Some(expression);
        }
        let dwarf = self.types.dies().dwarf;
        let mut list = dwarf.attr_locations(&self.unit.unit, value).ok()??;
        for _ in 0..MAX_PLACES {
            let entry = list.next().ok()??;
            if (entry.range.begin..entry.range.end).contains(&self.at) {
                return Some(entry.data);
            }
        }
        None
    }

    fn frame_base(&self, function: &Entry<'a>) -> Option<u64> {
        let expression = self.expression(function.attr_value(dw::DW_AT_frame_base)?)?;
        let parts = self.run(expression)?;
        match parts.as_slice() {
            [(Location::Address { address }, _)] => Some(*address),
            [(Location::Register { register }, _)] => self.frame.registers.get(register.0),
            _ => None,
        }
    }

    /// The parts of a variable that stand in registers and memory. `size`: of the whole.
    fn parts(
        &self,
        expression: Expression<Bytes<'a>>,
        size: impl FnOnce() -> Option<u64>,
    ) -> Option<Vec<LocalPart>> {
        let pieces = self.run(expression)?;
        let whole = match pieces.as_slice() {
            [(_, None)] => size(),
            _ => None,
        };
        let mut offset = 0u64;
        let mut parts = Vec::new();
        for (location, bits) in pieces.into_iter().take(MAX_PARTS) {
            let bytes = bits.map(|bits| bits / 8).or(whole);
            let at = match location {
                Location::Register { register } => Some(LocalPlace::Register(register.0)),
                Location::Address { address } => Some(LocalPlace::Memory(Address::new(address))),
                _ => None,
            };
            parts.extend(at.map(|at| LocalPart { at, offset, bytes }));
            offset = offset.saturating_add(bytes.unwrap_or(0));
        }
        (!parts.is_empty()).then_some(parts)
    }

    /// Works an expression out: the places that it gives, each with its size in bits where it is one of several.
    fn run(
        &self,
        expression: Expression<Bytes<'a>>,
    ) -> Option<Vec<(Location<Bytes<'a>>, Option<u64>)>> {
        let mut evaluation = expression.evaluation(self.unit.unit.encoding());
        evaluation.set_max_iterations(MAX_OPERATIONS);
        let mut state = evaluation.evaluate().ok()?;
        // Each turn is one operation of the expression, so the limit above ends it.
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size, .. } => {
                    let value = Value::Generic(self.word(address, size)?);
                    evaluation.resume_with_memory(value).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = self.frame.registers.get(register.0)?;
                    evaluation
                        .resume_with_register(Value::Generic(value))
                        .ok()?
                }
                EvaluationResult::RequiresFrameBase => {
                    evaluation.resume_with_frame_base(self.frame_base?).ok()?
                }
                EvaluationResult::RequiresCallFrameCfa => evaluation
                    .resume_with_call_frame_cfa(self.frame.cfa?.get())
                    .ok()?,
                EvaluationResult::RequiresRelocatedAddress(link) => evaluation
                    .resume_with_relocated_address(link.wrapping_add(self.bias))
                    .ok()?,
                EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                    let dwarf = self.types.dies().dwarf;
                    let link = dwarf.address(&self.unit.unit, index).ok()?;
                    let bias = if relocate { self.bias } else { 0 };
                    evaluation
                        .resume_with_indexed_address(link.wrapping_add(bias))
                        .ok()?
                }
                // A value that is kept nowhere, or one of another thread, unit or time.
                _ => return None,
            };
        }
        let pieces = evaluation.as_result().iter();
        Some(
            pieces
                .map(|piece| (piece.location, piece.size_in_bits))
                .collect(),
        )
    }

    /// `bytes` bytes (1 to 8) as a number.
    fn word(&self, at: u64, bytes: u8) -> Option<u64> {
        let at = Address::new(at);
        let memory = self.frame.memory;
        match bytes {
            8 => memory.read_u64(at).ok(),
            4 => memory.read_u32(at).ok().map(u64::from),
            2 => memory.read_u16(at).ok().map(u64::from),
            1 => memory.read_u8(at).ok().map(u64::from),
            _ => None,
        }
    }
}
