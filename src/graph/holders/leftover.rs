//! Words of a frame that its function never reads: what functions that have returned left in the gaps of a frame that was laid over theirs.
//!
//! ```text
//! each instruction of the function ──> where its stack pointer is there (call-frame information) ──> the words that it reads
//! ```
//!
//! Nothing is said of a function that takes the address of something in its frame, that jumps out of what is known of it, or that has code for
//! exceptions: then any word may be read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use ground::arch::x86_64::registers::{RBP, RSP};
use ground::target::{Address, FrameTrust, InstructionSet, MemoryExt};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register, UsedMemory,
};

use postmortem::session::Session;

/// Bytes of a function that is looked at: the rules are asked for at each of its instructions.
const MAX_BYTES: u64 = 8 << 10;
/// Functions whose answers are kept.
const MAX_KEPT: usize = 1 << 10;
/// Bytes of a word.
const WORD: i64 = 8;

/// What a function reads of its frame, relative to the canonical frame address; `None` if that cannot be told.
type Reads = Option<Arc<Vec<Range<i64>>>>;

/// Functions that were looked at.
#[derive(Default)]
pub struct Leftovers {
    kept: Mutex<BTreeMap<Address, Reads>>,
}

impl Leftovers {
    /// Whether the word at `at`, in the frame with this index, is certainly one that its function does not read.
    pub fn is_leftover(&self, session: &Session, thread: usize, frame: usize, at: Address) -> bool {
        self.look(session, thread, frame, at).unwrap_or(false)
    }

    fn look(&self, session: &Session, thread: usize, index: usize, at: Address) -> Option<bool> {
        if session.threads().instruction_set() != InstructionSet::X86_64 {
            return None;
        }
        let frame = session.threads().frames(thread).get(index)?;
        if !matches!(frame.trust, FrameTrust::Context | FrameTrust::Cfi) || at < frame.sp {
            return None;
        }
        let cfa = session.unwinder().frame_address(thread, index)?;
        let (start, end) = frame.function?;
        let reads = {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.get(&start) {
                Some(known) => known.clone(),
                None => {
                    let reads = read(session, start, end).map(Arc::new);
                    if kept.len() < MAX_KEPT {
                        kept.insert(start, reads.clone());
                    }
                    reads
                }
            }
        }?;
        let distance = i128::from(at.get()) - i128::from(cfa.get());
        let first = i64::try_from(distance).ok().filter(|first| *first < 0)?;
        let word = first..first.checked_add(WORD)?;
        let mut overlapping = reads
            .iter()
            .filter(|read| read.start < word.end && word.start < read.end);
        Some(overlapping.next().is_none())
    }
}

fn read(session: &Session, start: Address, end: Address) -> Option<Vec<Range<i64>>> {
    let bytes = end.offset_from(start).filter(|bytes| *bytes <= MAX_BYTES)?;
    let mut code = vec![0; usize::try_from(bytes).ok()?];
    session.memory().read_into(start, &mut code).ok()?;
    let mut factory = InstructionInfoFactory::new();
    let mut found = Vec::new();
    let decoder = Decoder::with_ip(64, &code, start.get(), DecoderOptions::NONE);
    for instruction in decoder {
        if instruction.is_invalid() {
            return None;
        }
        let here = Address::new(instruction.ip());
        let rule = session.unwinder().frame_rule(here)?;
        if rule.has_landing_pads || takes_address(&instruction) {
            return None;
        }
        let is_jump = matches!(
            instruction.flow_control(),
            FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch
        );
        let target = Address::new(instruction.near_branch_target());
        let leaves = is_jump && !(start..end).contains(&target);
        // A jump to another function with nothing of this one's on the stack is a call.
        if leaves && (rule.register, rule.offset) != (RSP, WORD) {
            return None;
        }
        for used in factory.info(&instruction).used_memory() {
            let is_read = !matches!(
                used.access(),
                OpAccess::None | OpAccess::NoMemAccess | OpAccess::Write
            );
            if !is_read {
                continue;
            }
            let Some(number) = of_frame(used, rule.register) else {
                continue;
            };
            if used.index() != Register::None {
                return None;
            }
            // The frame address is the register's value and the rule's offset.
            let own = match number == rule.register {
                true => rule.offset,
                false => return None,
            };
            let first = used.displacement().cast_signed().checked_sub(own)?;
            let bytes = i64::try_from(used.memory_size().size()).ok()?;
            if bytes == 0 {
                return None; // a state of the processor's, whose size depends on it
            }
            found.push(first..first.checked_add(bytes)?);
        }
    }
    Some(found)
}

/// The stack or frame pointer that a place is relative to; `None` if it is relative to none. Where the frame address depends on the stack pointer,
/// the frame pointer is a register like others.
fn of_frame(used: &UsedMemory, rule: u16) -> Option<u16> {
    match used.base() {
        Register::RSP => Some(RSP),
        Register::RBP if rule == RBP => Some(RBP),
        _ => None,
    }
}

/// Whether an instruction makes an address in the frame that others may read from.
fn takes_address(instruction: &Instruction) -> bool {
    let to = instruction.op0_register();
    match instruction.mnemonic() {
        Mnemonic::Lea => {
            matches!(instruction.memory_base(), Register::RSP | Register::RBP)
                && to != Register::RSP
        }
        Mnemonic::Mov | Mnemonic::Add | Mnemonic::Xchg => {
            let is_copy = instruction.op_count() > 1
                && instruction.op1_kind() == OpKind::Register
                && instruction.op1_register() == Register::RSP;
            is_copy && to != Register::RBP
        }
        Mnemonic::Push => instruction.op0_register() == Register::RSP,
        _ => false,
    }
}
