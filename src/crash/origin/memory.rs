//! Memory on the way of a value: words that were loaded, and slots of frames.

use ground::target::Address;
use iced_x86::{Instruction, Mnemonic, OpKind, Register};

use super::trace::{Cursor, MAX_DEPTH, MAX_SITES, Site, Trace, Wanted};
use super::value::{MAX_LOADS, Value, sum};
use super::{Load, code, read_sized};
use crate::crash::instruction::dwarf;

/// Bytes above the stack pointer that are taken for slots of the frame.
const MAX_FRAME: u64 = 1 << 16;

impl Trace<'_> {
    /// Whether an instruction stores to a slot of its frame.
    pub(super) fn stores_to(
        &self,
        cursor: &Cursor,
        instruction: &Instruction,
        slot: Address,
    ) -> bool {
        let base = instruction.memory_base();
        instruction.mnemonic() == Mnemonic::Mov
            && instruction.op0_kind() == OpKind::Memory
            && matches!(base, Register::RSP | Register::RBP)
            && instruction.memory_index() == Register::None
            && dwarf(base).is_some_and(|number| {
                let base = self.live(cursor, number);
                let at = base.map(|base| base.wrapping_add(instruction.memory_displacement64()));
                at == Some(slot.get())
            })
    }

    /// The value of the word that an instruction reads.
    pub fn load(&mut self, cursor: &Cursor, instruction: &Instruction) -> Value {
        let bytes = u64::try_from(instruction.memory_size().size()).unwrap_or(0);
        let base = instruction.memory_base();
        let displacement = instruction.memory_displacement64();
        let is_fixed = instruction.is_ip_rel_memory_operand() || base == Register::None;
        let mut address = self.address(cursor, instruction);
        // What made the address only led to the word.
        address.loads.iter_mut().for_each(|load| load.factor = 0);
        let first = match is_fixed {
            true => None,
            false => address
                .number
                .map(|at| Address::new(at.wrapping_sub(displacement))),
        };
        let at = address.number.map(Address::new);
        let load = Load {
            at,
            base: first,
            displacement: if is_fixed {
                0
            } else {
                displacement.cast_signed()
            },
            holder: holder(instruction, &address),
            held_at: address
                .loads
                .first()
                .filter(|load| load.is_slot)
                .and_then(|load| load.at),
            is_slot: false,
            function: None,
            bytes,
            factor: 1,
            instruction: Address::new(instruction.ip()),
            frame: cursor.frame,
            direct: address.only && cursor.sure && !cursor.called,
        };
        let number = at.and_then(|at| read_sized(self.target.memory, at, bytes));
        let slot = at.filter(|at| matches!(bytes, 4 | 8) && self.is_slot(cursor, base, *at));
        let stepped = slot.and_then(|_| self.stepped(cursor, instruction));
        let number = match stepped {
            Some(step) => number.map(|number| number.wrapping_add_signed(step.wrapping_neg())),
            None => number,
        };
        let mut loads = vec![load];
        let mut only = address.only;
        let mut kept = Value::default();
        match slot {
            Some(slot) => {
                loads.iter_mut().for_each(|load| load.is_slot = true);
                let stored = self.stored(cursor, slot, number);
                only &= stored.only;
                loads.extend(stored.loads.iter().cloned());
                kept = stored;
            }
            None => loads.extend(address.loads),
        }
        loads.truncate(MAX_LOADS);
        Value {
            number,
            loads,
            only,
            returned: kept.returned,
            or_constant: kept.or_constant,
            parts: kept.parts,
            ..Value::default()
        }
    }

    /// What was stored to a slot that holds `number`.
    fn stored(&mut self, cursor: &Cursor, slot: Address, number: Option<u64>) -> Value {
        if self.depth >= MAX_DEPTH {
            return Value::default();
        }
        self.depth += 1;
        let sites = self.sites(cursor, Wanted::Slot(slot));
        let count = sites.len();
        let mut found = Value {
            only: true,
            ..Value::default()
        };
        for site in sites.into_iter().take(MAX_SITES) {
            let Site::Instruction(at, _) = site else {
                continue;
            };
            let Some(store) = self.instruction(&at) else {
                continue;
            };
            let mut value = match store.op1_kind() {
                OpKind::Register => self.register(&at, store.op1_register()),
                _ => store
                    .try_immediate(1)
                    .map_or_else(|_| Value::default(), Value::known),
            };
            // What is on the stack now is what counts: a store of another value is not the last one.
            if value.number == number && number.is_some() {
                if count != 1 {
                    value.loads.iter_mut().for_each(|load| load.direct = false);
                }
                found.loads = value.loads;
                found.returned = value.returned;
                found.or_constant = value.or_constant;
                found.parts = value.parts;
                break;
            }
            // Nothing else tells what a call returned, if nobody else can have written there since.
            if count == 1 && value.number.is_none() && !self.is_lent(&at, &store) {
                found.returned = value.returned;
                found.or_constant = value.or_constant;
                found.parts = value.parts;
            }
            if found.loads.is_empty()
                && let Some(load) = value.loads.into_iter().next()
            {
                found.loads = vec![Load {
                    at: None,
                    base: None,
                    direct: false,
                    ..load
                }];
            }
        }
        self.depth -= 1;
        found
    }

    /// What the code behind a load from a slot adds to that slot at once, as `*at++` does.
    fn stepped(&mut self, cursor: &Cursor, load: &Instruction) -> Option<i64> {
        let function = self.function(cursor.frame)?;
        let index = function.index_of(Address::new(load.ip()))?;
        let add = function.get(index.checked_add(1)?)?;
        let store = function.get(index.checked_add(2)?)?;
        let is_step = add.mnemonic() == Mnemonic::Lea
            && load.op0_kind() == OpKind::Register
            && add.memory_base() == load.op0_register()
            && add.memory_index() == Register::None;
        let is_back = store.mnemonic() == Mnemonic::Mov
            && store.op0_kind() == OpKind::Memory
            && store.op1_kind() == OpKind::Register
            && store.op1_register() == add.op0_register()
            && store.memory_base() == load.memory_base()
            && store.memory_index() == Register::None
            && store.memory_displacement64() == load.memory_displacement64();
        (is_step && is_back).then(|| add.memory_displacement64().cast_signed())
    }

    /// Whether the address of the slot that is stored to, or of what it is part of, is taken in that function: others may write there.
    fn is_lent(&mut self, cursor: &Cursor, store: &Instruction) -> bool {
        /// Bytes of a variable of which the slot may be a member.
        const MAX_VARIABLE: i64 = 64;
        let Some(function) = self.function(cursor.frame) else {
            return true;
        };
        let place = store.memory_displacement64().cast_signed();
        (0..)
            .map_while(|index| function.get(index))
            .any(|instruction| {
                let start = instruction.memory_displacement64().cast_signed();
                instruction.mnemonic() == Mnemonic::Lea
                    && instruction.memory_base() == store.memory_base()
                    && (0..=MAX_VARIABLE).contains(&place.wrapping_sub(start))
            })
    }

    /// Whether a word that is addressed by the stack or frame pointer is a slot of the frame.
    fn is_slot(&self, cursor: &Cursor, base: Register, at: Address) -> bool {
        let Some(frame) = self.frames.get(cursor.frame) else {
            return false;
        };
        let below = frame.sp.get().saturating_sub(MAX_FRAME);
        matches!(base, Register::RSP | Register::RBP)
            && (below..frame.sp.get().saturating_add(MAX_FRAME)).contains(&at.get())
    }

    /// The address of an instruction's memory.
    pub(super) fn address(&mut self, cursor: &Cursor, instruction: &Instruction) -> Value {
        if instruction.is_ip_rel_memory_operand() {
            return Value::known(instruction.ip_rel_memory_address());
        }
        if matches!(instruction.memory_segment(), Register::FS | Register::GS) {
            return Value::default();
        }
        let displacement = Value::known(instruction.memory_displacement64());
        let plain = instruction.memory_displacement64() == 0;
        let (base, index) = (instruction.memory_base(), instruction.memory_index());
        let mut value = match base {
            Register::None => displacement,
            base if plain => self.register(cursor, base),
            base => sum(self.register(cursor, base), displacement, 1),
        };
        if index != Register::None {
            let index = self.register(cursor, index);
            value = sum(value, index, u64::from(instruction.memory_index_scale()));
        }
        value
    }
}

/// What held the pointer of a load.
fn holder(instruction: &Instruction, address: &Value) -> String {
    let slot = address
        .loads
        .first()
        .map(|load| load.holder.as_str())
        .filter(|holder| holder.starts_with('['));
    if let Some(slot) = slot {
        return slot.to_owned();
    }
    match code::name(instruction.memory_base()) {
        Some(name @ ("rsp" | "rbp")) => {
            let displacement = instruction.memory_displacement64().cast_signed();
            let sign = if displacement < 0 { '-' } else { '+' };
            format!("[{name}{sign}{:#x}]", displacement.unsigned_abs())
        }
        Some(name) => name.to_owned(),
        None => "a fixed address".to_owned(),
    }
}
