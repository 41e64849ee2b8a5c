//! What a thread's innermost function can still read: registers that its code reads before it writes them, and words below the stack
//! pointer that it uses.
//!
//! ```text
//! the function's instructions ──> backwards over all ways on from the program counter ──> registers that are live there
//!                             └─> does any of them name a place below the stack pointer? ──> red zone
//! ```
//!
//! A register that a callee preserves belongs to callers, and counts as read. So does every register where the code cannot be followed: no
//! table of functions, a jump through a register, a jump to another function.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use ground::target::{Address, Frame, InstructionSet, MemoryExt};
use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess,
    OpKind, Register,
};

use postmortem::session::Session;

/// Bytes of a function that are decoded.
const MAX_BYTES: u64 = 64 << 10;
/// Functions whose answers are kept.
const MAX_KEPT: usize = 1 << 12;
/// Rounds over a function; each adds what one more step back leads to.
const MAX_ROUNDS: usize = 256;

/// Sixteen general registers by DWARF number, then sixteen vector registers.
type Mask = u32;

const ALL: Mask = Mask::MAX;
/// rbx, rbp, rsp, r12 to r15: preserved by callees (System V ABI for x86-64, 3.2.1).
const PRESERVED: Mask = 1 << 3 | 1 << 6 | 1 << 7 | 0xf << 12;
/// rdi, rsi, rdx, rcx, r8, r9, rax, r10, and xmm0 to xmm7: what a call may read.
const ARGUMENTS: Mask = 1 << 5 | 1 << 4 | 1 << 1 | 1 << 2 | 0b111 << 8 | 1 | 0xff << 16;
/// rax, rdx, xmm0, xmm1: what a function may return in.
const RESULTS: Mask = 1 | 1 << 1 | 0b11 << 16;

/// What the innermost function of a thread can still read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Innermost {
    live: Mask,
    /// It may use the words below the stack pointer.
    pub red_zone: bool,
}

impl Innermost {
    /// Nothing is known.
    const ANY: Self = Self {
        live: ALL,
        red_zone: true,
    };

    /// Whether the general register with this DWARF number is read before it is written.
    pub fn reads(&self, number: u16) -> bool {
        number >= 16 || self.live >> number & 1 == 1
    }

    /// The same of a part of a vector register, by its name: `xmm3[1]`.
    pub fn reads_vector(&self, name: &str) -> bool {
        let digits = name
            .strip_prefix("xmm")
            .or_else(|| name.strip_prefix("ymm"));
        let number = digits.and_then(|digits| digits.split('[').next()?.parse::<u32>().ok());
        number.is_none_or(|number| number >= 16 || self.live >> (16 + number) & 1 == 1)
    }
}

/// Looks at innermost functions; remembers those that it has seen, since threads mostly wait at the same places.
pub(super) struct Reader<'s> {
    session: &'s Session,
    kept: RefCell<BTreeMap<(Address, Address), (Mask, Zone)>>,
}

/// What a function does below its stack pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Zone {
    /// Nothing.
    Unused,
    /// It names places so many bytes from its frame pointer, at most.
    Frame(i64),
    /// It may do anything.
    Any,
}

impl<'s> Reader<'s> {
    pub fn new(session: &'s Session) -> Self {
        Self {
            session,
            kept: RefCell::default(),
        }
    }

    /// What the innermost function of the thread at this index can read.
    pub fn of(&self, thread: usize) -> Innermost {
        let threads = self.session.threads();
        if threads.instruction_set() != InstructionSet::X86_64 {
            return Innermost::ANY;
        }
        let frame = threads.frames(thread).first();
        let found = frame.and_then(|frame| Some((frame, self.at(frame)?)));
        let Some((frame, (live, zone))) = found else {
            return Innermost::ANY;
        };
        let red_zone = match zone {
            Zone::Unused => false,
            Zone::Any => true,
            Zone::Frame(lowest) => {
                let frame_pointer = frame.registers.get(6);
                frame_pointer.is_none_or(|rbp| {
                    let lowest = rbp.wrapping_add_signed(lowest);
                    lowest < frame.sp.get()
                })
            }
        };
        Innermost { live, red_zone }
    }

    fn at(&self, frame: &Frame) -> Option<(Mask, Zone)> {
        let (start, end) = frame.function?;
        let key = (start, frame.pc);
        if let Some(known) = self.kept.borrow().get(&key) {
            return Some(*known);
        }
        let found = self.look(start, end, frame.pc)?;
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MAX_KEPT {
            kept.insert(key, found);
        }
        Some(found)
    }

    fn look(&self, start: Address, end: Address, pc: Address) -> Option<(Mask, Zone)> {
        let bytes = end.offset_from(start).filter(|bytes| *bytes <= MAX_BYTES)?;
        let mut code = vec![0; usize::try_from(bytes).ok()?];
        self.session.memory().read_into(start, &mut code).ok()?;
        analyse(&code, start.get(), pc.get())
    }
}

/// What is live at `pc` in the code at `start`, and what it does below the stack pointer.
fn analyse(code: &[u8], start: u64, pc: u64) -> Option<(Mask, Zone)> {
    let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let instructions: Vec<Instruction> = decoder.into_iter().collect();
    let places: HashMap<u64, usize> = instructions
        .iter()
        .enumerate()
        .map(|(index, instruction)| (instruction.ip(), index))
        .collect();
    let first = *places.get(&pc)?;
    let mut factory = InstructionInfoFactory::new();
    let effects: Vec<Effect> = instructions
        .iter()
        .map(|instruction| Effect::of(instruction, &mut factory, &places))
        .collect();
    let mut live: Vec<Mask> = vec![0; instructions.len()];
    let mut is_settled = false;
    for _ in 0..MAX_ROUNDS {
        is_settled = true;
        for (index, effect) in effects.iter().enumerate().rev() {
            let next = match effect.falls_through {
                // Behind the last instruction nothing is known.
                true => live.get(index + 1).copied().unwrap_or(ALL),
                false => 0,
            };
            let jumped = effect.jumps_to.and_then(|to| live.get(to).copied());
            let behind = next | jumped.unwrap_or(0) | effect.leaves_with;
            let before = effect.reads | behind & !effect.writes;
            if let Some(known) = live.get_mut(index)
                && *known != before
            {
                *known = before;
                is_settled = false;
            }
        }
        if is_settled {
            break;
        }
    }
    let zone = instructions
        .iter()
        .fold(Zone::Unused, |zone, instruction| zone.with(instruction));
    let live = live.get(first).copied().filter(|_| is_settled)?;
    Some((live | PRESERVED, zone))
}

/// What an instruction reads and writes, and where it leads.
struct Effect {
    reads: Mask,
    writes: Mask,
    falls_through: bool,
    jumps_to: Option<usize>,
    /// What is read where it leaves the function.
    leaves_with: Mask,
}

impl Effect {
    fn of(
        instruction: &Instruction,
        factory: &mut InstructionInfoFactory,
        places: &HashMap<u64, usize>,
    ) -> Self {
        let (mut reads, mut writes) = (0, 0);
        for used in factory.info(instruction).used_registers() {
            let bit = bit_of(used.register());
            let (is_read, is_written) = match used.access() {
                OpAccess::Write => (false, is_whole(used.register())),
                OpAccess::None | OpAccess::NoMemAccess => (false, false),
                OpAccess::CondWrite => (false, false),
                _ => (true, false),
            };
            reads |= if is_read { bit } else { 0 };
            writes |= if is_written { bit } else { 0 };
        }
        let mut effect = Self {
            reads,
            writes,
            falls_through: true,
            jumps_to: None,
            leaves_with: 0,
        };
        match instruction.flow_control() {
            FlowControl::Next => {}
            FlowControl::ConditionalBranch => effect.jump(instruction, places),
            FlowControl::UnconditionalBranch => {
                effect.falls_through = false;
                effect.jump(instruction, places);
            }
            // A system call is a call, too. What it leaves may be kept where the caller knows the function.
            FlowControl::Call | FlowControl::IndirectCall => effect.reads |= ARGUMENTS,
            FlowControl::Return => {
                effect.falls_through = false;
                effect.leaves_with = RESULTS | PRESERVED;
            }
            // `ud2` and the like: nobody comes behind it.
            FlowControl::Exception if instruction.mnemonic() == Mnemonic::Ud2 => {
                effect.falls_through = false;
            }
            _ => {
                effect.falls_through = false;
                effect.leaves_with = ALL;
            }
        }
        effect
    }

    fn jump(&mut self, instruction: &Instruction, places: &HashMap<u64, usize>) {
        self.jumps_to = places.get(&instruction.near_branch_target()).copied();
        if self.jumps_to.is_none() {
            self.leaves_with = ALL;
        }
    }
}

impl Zone {
    fn with(self, instruction: &Instruction) -> Self {
        let places = (0..instruction.op_count())
            .filter(|operand| instruction.op_kind(*operand) == OpKind::Memory)
            .count();
        let displacement = instruction.memory_displacement64().cast_signed();
        let is_copied = instruction.mnemonic() == Mnemonic::Mov
            && instruction.op1_kind() == OpKind::Register
            && instruction.op1_register() == Register::RSP
            && instruction.op0_register() != Register::RBP;
        if is_copied {
            return Self::Any;
        }
        match (places, instruction.memory_base()) {
            (0, _) => self,
            (_, Register::RSP) if displacement < 0 => Self::Any,
            (_, Register::RBP) if displacement < 0 => match self {
                Self::Any => Self::Any,
                Self::Frame(lowest) => Self::Frame(lowest.min(displacement)),
                Self::Unused => Self::Frame(displacement),
            },
            _ => self,
        }
    }
}

/// The bit of the whole register that a register is a part of.
fn bit_of(register: Register) -> Mask {
    /// DWARF numbers by the processor's: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi.
    const BY_PROCESSOR: [u32; 8] = [0, 2, 1, 3, 7, 6, 4, 5];
    let full = register.full_register();
    let number = full.number();
    if register.is_gpr() {
        let dwarf = BY_PROCESSOR.get(number).copied();
        let dwarf = dwarf.or_else(|| u32::try_from(number).ok());
        return dwarf
            .filter(|dwarf| *dwarf < 16)
            .map_or(0, |dwarf| 1 << dwarf);
    }
    let is_vector = register.is_xmm() || register.is_ymm() || register.is_zmm();
    match u32::try_from(number) {
        Ok(number) if is_vector && number < 16 => 1 << (16 + number),
        _ => 0,
    }
}

/// Whether a write to it leaves nothing of the register: writes of 32 bits clear the rest of a general one.
fn is_whole(register: Register) -> bool {
    match register.is_gpr() {
        true => register.size() >= 4,
        false => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAX: Mask = 1;
    const RCX: Mask = 1 << 2;
    const RDI: Mask = 1 << 5;
    const RSI: Mask = 1 << 4;

    fn volatile(code: &[u8], pc: u64) -> Mask {
        let (live, _) = analyse(code, 0x1000, pc).unwrap();
        live & !PRESERVED
    }

    #[test]
    fn a_register_is_live_if_a_way_on_reads_it_before_it_is_written() {
        // mov rax, [rdi]; xor ecx, ecx; test rax, rax; je +3; mov rcx, rsi; ret
        let code = [
            0x48, 0x8b, 0x07, 0x31, 0xc9, 0x48, 0x85, 0xc0, 0x74, 0x03, 0x48, 0x89, 0xf1, 0xc3,
        ];
        assert_eq!(volatile(&code, 0x1000) & (RDI | RSI | RCX), RDI | RSI);
        assert_eq!(volatile(&code, 0x1003) & (RDI | RCX), 0, "read already");
        assert_eq!(volatile(&code, 0x1003) & RAX, RAX);
        assert_eq!(analyse(&code, 0x1000, 0x1001), None, "no instruction there");
        // jmp rax: anything may be read there.
        assert_eq!(volatile(&[0xff, 0xe0], 0x1000) | PRESERVED, ALL);
    }

    #[test]
    fn the_red_zone_is_used_by_who_names_it() {
        let zone = |code: &[u8]| analyse(code, 0x1000, 0x1000).unwrap().1;
        // mov rax, [rsp+8]; ret
        assert_eq!(zone(&[0x48, 0x8b, 0x44, 0x24, 0x08, 0xc3]), Zone::Unused);
        // mov [rsp-8], rax; ret
        assert_eq!(zone(&[0x48, 0x89, 0x44, 0x24, 0xf8, 0xc3]), Zone::Any);
        // mov [rbp-0x18], rdi; ret
        assert_eq!(zone(&[0x48, 0x89, 0x7d, 0xe8, 0xc3]), Zone::Frame(-0x18));
        // mov rcx, rsp; ret
        assert_eq!(zone(&[0x48, 0x89, 0xe1, 0xc3]), Zone::Any);
    }
}
