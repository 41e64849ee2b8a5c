//! Where the values came from that the crash is about: the loads by which the program got the pointer that it died of.
//!
//! ```text
//! mov rax,[rbp-8]      <- a slot of the frame, or a register that was kept, or an argument of the caller's
//! mov rax,[rax+8]      <- a load: the word at rax + 8
//! mov byte [rax],0x78  <- the fault: rax holds what that load gave
//! ```
//!
//! The code is decoded backwards from the instruction at fault. Whatever is found must agree with what registers and memory hold now:
//! a value that was computed in another way than the code says is no origin. Nothing here is a judgement on the heap.

mod accessor;
mod code;
mod memory;
mod tail;
mod trace;
mod value;

use ground::target::{Address, InstructionSet, MemoryExt};
use iced_x86::{FlowControl, OpKind, Register};

use super::instruction::Instruction as AtFault;
use postmortem::session::Session;
use trace::Trace;

/// A word that the program loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Where it stands; `None` if the pointer that led there is lost.
    pub at: Option<Address>,
    /// The pointer that led there; the word is `displacement` bytes behind it.
    pub base: Option<Address>,
    /// See `base`.
    pub displacement: i64,
    /// The register or slot that held the pointer, as the code names it.
    pub holder: String,
    /// Where that stands, if it is a slot in memory.
    pub held_at: Option<Address>,
    /// The word itself is a slot of its frame.
    pub is_slot: bool,
    /// Bytes that were loaded.
    pub bytes: u64,
    /// How often the word counts in the value: 1 for a pointer, the size of an element for an index, 0 if it only led to another load.
    pub factor: u64,
    /// The instruction that loaded it.
    pub instruction: Address,
    /// Index of its frame.
    pub frame: usize,
    /// The function of that frame, where its name is known.
    pub function: Option<String>,
    /// No other way leads from this load to the crash, and nothing was called on it: the word is as it was loaded.
    pub direct: bool,
}

/// What a value is to the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It makes the address that could not be accessed.
    Address,
    /// It was called or jumped to.
    Target,
}

/// A call that returned a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Where the function begins.
    pub entry: Address,
    /// Its name.
    pub name: Option<String>,
}

/// A value that the crash is about, and how the program got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// What it is to the crash.
    pub role: Role,
    /// The register that holds it; `None` for a word in memory.
    pub register: Option<&'static str>,
    /// It.
    pub value: u64,
    /// The loads that made it, the last one first.
    pub loads: Vec<Load>,
    /// It was made from what a call returned: the first argument of that call.
    pub given: Option<Address>,
    /// It is what a call returned, as it is: the function that was called, where that is known.
    pub returned: Option<Returned>,
    /// Another way leads to `returned`, on which the code itself sets the same value.
    pub or_constant: bool,
    /// What was added up to make it: pointers and numbers as large.
    pub parts: Vec<Address>,
    /// Index of the frame whose code used it.
    pub frame: usize,
    /// The function of that frame, where its name is known.
    pub function: Option<String>,
    /// The instruction that used it.
    pub instruction: Address,
}

/// The origins of the values that the fault in this frame of the thread is about; empty where the code does not tell.
pub(super) fn read(
    session: &Session,
    thread: usize,
    frame: usize,
    at_fault: Option<&AtFault>,
) -> Vec<Origin> {
    let arch = session.arch();
    if arch.instruction_set != InstructionSet::X86_64 {
        return Vec::new();
    }
    let frames = session.threads().frames(thread);
    let mut trace = Trace::new(session.target(), frames);
    let found = match at_fault {
        Some(_) => of_instruction(&mut trace, frame),
        None => of_call(&mut trace, frame),
    };
    let mut found = found.unwrap_or_default();
    for origin in &mut found {
        origin.function =
            name_at(session, origin.instruction).or_else(|| name_of(session, thread, origin.frame));
        name_loads(session, thread, &mut origin.loads);
        if let Some(returned) = &mut origin.returned {
            returned.name = name_at(session, returned.entry);
        }
    }
    found
}

/// The loads by which the caller of a frame got the function that it called; `None` where the code does not tell.
pub(super) fn of_call_into(session: &Session, thread: usize, frame: usize) -> Option<Vec<Load>> {
    if session.arch().instruction_set != InstructionSet::X86_64 {
        return None;
    }
    let mut trace = Trace::new(session.target(), session.threads().frames(thread));
    let (cursor, call) = trace.call_of(frame)?;
    let value = match call.op0_kind() {
        OpKind::Register => trace.register(&cursor, call.op0_register()),
        OpKind::Memory => trace.load(&cursor, &call),
        _ => return None,
    };
    let mut loads = value.loads;
    name_loads(session, thread, &mut loads);
    Some(loads)
}

fn name_loads(session: &Session, thread: usize, loads: &mut [Load]) {
    for load in loads {
        load.function =
            name_at(session, load.instruction).or_else(|| name_of(session, thread, load.frame));
    }
}

/// The function that an instruction is in: its frame may be gone.
fn name_at(session: &Session, instruction: Address) -> Option<String> {
    let module = session.modules().module_at(instruction)?;
    let found = session.debug_info().function_at(module.id, instruction)?;
    Some(found.name)
}

/// The function of a frame.
fn name_of(session: &Session, thread: usize, frame: usize) -> Option<String> {
    let frame = session.threads().frames(thread).get(frame)?;
    let name = session
        .debug_info()
        .function_at(frame.module?, frame.lookup)?;
    Some(name.name)
}

/// The registers of the instruction's memory, and what it calls.
fn of_instruction(trace: &mut Trace<'_>, frame: usize) -> Option<Vec<Origin>> {
    let cursor = trace.at_fault(frame)?;
    let instruction = trace.instruction(&cursor)?;
    let at = Address::new(instruction.ip());
    let mut found = Vec::new();
    let mut add = |role, register: Option<Register>, value: value::Value| {
        if let Some(number) = value.number {
            found.push(Origin {
                role,
                register: register.and_then(code::name),
                value: number,
                loads: value.loads,
                given: value.given.map(Address::new),
                returned: value.returned.map(Returned::by),
                or_constant: value.or_constant,
                parts: parts(value.parts),
                frame,
                function: None,
                instruction: at,
            });
        }
    };
    let is_called = matches!(
        instruction.flow_control(),
        FlowControl::IndirectCall | FlowControl::IndirectBranch
    );
    if is_called && instruction.op0_kind() == OpKind::Register {
        let register = instruction.op0_register();
        let value = trace.register(&cursor, register);
        add(Role::Target, Some(register), value);
    }
    for register in code::memory_registers(&instruction) {
        let value = trace.register(&cursor, register);
        add(Role::Address, Some(register), value);
    }
    if is_called && instruction.op0_kind() == OpKind::Memory {
        let value = trace.load(&cursor, &instruction);
        add(Role::Target, None, value);
    }
    Some(found)
}

/// The call that went to where no code is: the frame has its caller's registers still.
fn of_call(trace: &mut Trace<'_>, frame: usize) -> Option<Vec<Origin>> {
    let target = trace.frame(frame)?.pc;
    let (cursor, instruction) = trace.call_to(frame)?;
    let (register, value) = match instruction.op0_kind() {
        OpKind::Register => {
            let register = instruction.op0_register();
            (Some(register), trace.register(&cursor, register))
        }
        OpKind::Memory => (None, trace.load(&cursor, &instruction)),
        OpKind::NearBranch64 => {
            let start = Address::new(instruction.near_branch_target());
            return tail::of_jump(trace, frame, start).map(|origin| vec![origin]);
        }
        _ => return None,
    };
    let agrees = value.number == Some(target.get());
    if let Some(other) = value.number.filter(|_| !agrees) {
        return tail::of_jump(trace, frame, Address::new(other)).map(|origin| vec![origin]);
    }
    agrees.then(|| {
        vec![Origin {
            role: Role::Target,
            register: register.and_then(code::name),
            value: target.get(),
            loads: value.loads,
            given: value.given.map(Address::new),
            returned: value.returned.map(Returned::by),
            or_constant: value.or_constant,
            parts: parts(value.parts),
            frame: frame.saturating_add(1),
            function: None,
            instruction: Address::new(instruction.ip()),
        }]
    })
}

fn parts(parts: [u64; 2]) -> Vec<Address> {
    let known = parts.into_iter().filter(|part| *part != 0);
    known.map(Address::new).collect()
}

impl Returned {
    fn by(entry: Address) -> Self {
        Self { entry, name: None }
    }
}

/// The value of memory as an instruction loads it: without sign, as wide as it is.
fn read_sized(memory: &dyn ground::target::TargetMemory, at: Address, bytes: u64) -> Option<u64> {
    match bytes {
        8 => memory.read_u64(at).ok(),
        4 => memory.read_u32(at).ok().map(u64::from),
        2 => memory.read_u16(at).ok().map(u64::from),
        1 => memory.read_u8(at).ok().map(u64::from),
        _ => None,
    }
}
