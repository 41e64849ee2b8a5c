//! How the process died.

use std::collections::BTreeMap;

use ground::target::{Address, MemoryExt, RegisterSet, TargetMemory};

use super::graph::Told;
use crate::analysis::Analysis;
use crate::analysis::strangers::SanitizerReport;
use crate::checks::explains::source::Source;
use crate::checks::finding::BlockView;
use crate::checks::values::{self, RegisterMeaning};
use crate::crash::argument::Call;
use crate::crash::own::{is_runtime, plain_name};
use crate::crash::{Access, Crash, FoundBy, Instruction};
use crate::report::schema::{
    self, AbortMessage, AdjustedAddress, AllocatorCall, Bytes, CalledFrom, CrashInfo,
    CrashingThread, Exception, Frame, HandledSignal, Hex, MemoryAccess, MemoryOperand,
    PureVirtualCall, Sender, Thread,
};
use crate::types::{self, Types};
use ground::arch::ArchInfo;
use postmortem::corefile::SignalInfo;
use postmortem::session::Session;

/// The signal and what led to it.
pub fn crash_info(session: &Session, crash: Option<&Crash>) -> CrashInfo {
    let signal = session.signal();
    let mut info = CrashInfo {
        signal: signal.filter(|signal| signal.signal != 0).map(name),
        code: signal.and_then(|signal| signal.code_name().map(str::to_owned)),
        address: signal.and_then(|signal| signal.fault_address.map(Into::into)),
        sender: signal
            .and_then(|signal| signal.sender)
            .map(|(pid, uid)| Sender { pid, uid }),
        ..CrashInfo::default()
    };
    let Some(crash) = crash else { return info };
    info.crashing_thread = Some(crash.thread);
    info.crashing_frame = Some(crash.frame);
    info.handled = crash.handled.map(|signal| HandledSignal {
        signal: name(signal),
        code: signal.code_name().map(str::to_owned),
        address: signal.fault_address.map(Into::into),
    });
    let decoded = crash.instruction.as_ref();
    info.instruction = decoded.map(|decoded| decoded.text.clone());
    info.memory_accesses = decoded.map(|decoded| accesses(decoded, session.target().memory));
    info.instruction_details = decoded.map(instruction);
    let first = crash.handled.as_ref().or(signal.as_ref());
    info.adjusted_address = first
        .filter(|first| first.is_fault())
        .and_then(|first| adjusted(first.fault_address, decoded?));
    info.abort_message = crash.last_words.as_ref().map(|words| AbortMessage {
        text: words.text.clone(),
        address: words.address.into(),
        found_by: match words.found_by {
            FoundBy::Symbols => "symbols",
            FoundBy::Structure => "structure",
            FoundBy::Stack => "stack",
        }
        .into(),
    });
    info.exception = crash.exception.as_ref().map(|exception| Exception {
        type_name: exception.type_name.clone(),
        address: exception.object.into(),
        message: exception.message.clone(),
    });
    info.pure_virtual_call = crash.pure_virtual.as_ref().map(|called| PureVirtualCall {
        frame: called.frame,
        function: called.function.clone(),
        object: called.object.map(Into::into),
    });
    info.call = crash.call.as_ref().map(call);
    info
}

/// What a sanitizer said is what the process died of: its first line stands where glibc's message would.
pub fn add_sanitizer(info: &mut CrashInfo, found: Option<&SanitizerReport>) {
    let Some((found, first)) = found.and_then(|found| Some((found, found.lines.first()?))) else {
        return;
    };
    let heading = first.trim_start_matches('=');
    let heading = heading.trim_start_matches(|digit: char| digit.is_ascii_digit());
    info.abort_message.get_or_insert_with(|| AbortMessage {
        text: heading.trim_start_matches('=').into(),
        address: found.address.into(),
        found_by: "structure".into(),
    });
    info.sanitizer_report = Some(schema::SanitizerReport {
        address: found.address.into(),
        lines: found.lines.clone(),
    });
}

/// What the address of a fault hides, by the memory that the instruction at fault works on.
fn adjusted(fault: Option<Address>, instruction: &Instruction) -> Option<AdjustedAddress> {
    /// Offsets in a structure are smaller; so is what Linux lets nobody map.
    const NULL_BYTES: u64 = 0x1_0000;
    let operand = instruction.operands.first()?;
    let address = operand.address?;
    match fault {
        // The processor raises a general protection fault, which has no address.
        None if instruction.explains_fault && !is_canonical(address.get()) => {
            Some(AdjustedAddress {
                kind: "non-canonical".into(),
                address: Some(address.into()),
                offset: None,
            })
        }
        Some(fault)
            if instruction.explains_fault
                && fault.get() < NULL_BYTES
                && operand
                    .registers
                    .iter()
                    .any(|register| register.value == Some(0)) =>
        {
            Some(AdjustedAddress {
                kind: "null-pointer".into(),
                address: None,
                offset: Some(fault.into()),
            })
        }
        _ => None,
    }
}

/// Whether the bits above the 48th repeat it, as those of addresses on x86-64 do.
fn is_canonical(address: u64) -> bool {
    let high = address >> 47;
    high == 0 || high == u64::MAX >> 47
}

fn accesses(instruction: &Instruction, memory: &dyn TargetMemory) -> Vec<MemoryAccess> {
    let is_guard = |at: Address| {
        let region = memory.region_at(at);
        region.is_some_and(|region| !region.readable && !region.writable && !region.executable)
    };
    let known = instruction.operands.iter().filter_map(|operand| {
        let address = operand.address?;
        Some(MemoryAccess {
            address: address.into(),
            size: Some(operand.bytes).filter(|bytes| *bytes > 0),
            access_type: Some(operand.access)
                .filter(|access| *access != Access::Execute)
                .map(|access| access.name().into()),
            is_likely_guard_page: is_guard(address),
        })
    });
    known.collect()
}

/// Functions that name a crash.
const NAMED: usize = 3;

/// Puts in what only the threads as they are shown tell: who called, and the signature.
pub fn name_by_stack(info: &mut CrashInfo, threads: &[Thread]) {
    info.called_from = called_from(info, threads);
    info.crash_signature = signature(info, threads);
}

/// The innermost function of the user's own code, if another's is above it: `abort`, `malloc` and `std::vector` say little.
fn called_from(info: &CrashInfo, threads: &[Thread]) -> Option<CalledFrom> {
    let mut hidden = false;
    for frame in at_fault(info, threads)? {
        let module = frame.module.as_deref();
        for function in functions(frame) {
            if module.is_some() && !is_runtime(module, function) {
                return hidden.then(|| CalledFrom {
                    frame: frame.frame,
                    function: function.map(str::to_owned),
                });
            }
            hidden = true;
        }
    }
    None
}

/// Frames of the thread that crashed, from the one at fault on.
fn at_fault<'t>(info: &CrashInfo, threads: &'t [Thread]) -> Option<&'t [Frame]> {
    let thread = threads.get(info.crashing_thread?)?;
    let from = info.crashing_frame.unwrap_or(0);
    Some(thread.frames.get(from..).unwrap_or(&thread.frames))
}

/// The functions of a frame, the innermost inlined one first.
fn functions(frame: &Frame) -> impl Iterator<Item = Option<&str>> {
    let inlined = frame.inlines.iter();
    inlined
        .map(|inline| inline.function.as_deref())
        .chain(std::iter::once(frame.function.as_deref()))
}

/// The kind of crash and the innermost functions that are the program's own.
fn signature(info: &CrashInfo, threads: &[Thread]) -> Option<String> {
    let first = info.handled.as_ref().map(|handled| &handled.signal);
    let mut parts = vec![match &info.exception {
        Some(exception) => format!("uncaught {}", plain_name(&exception.type_name)),
        None => first.or(info.signal.as_ref())?.clone(),
    }];
    parts.extend(own_names(at_fault(info, threads)?).take(NAMED));
    Some(parts.join(" | "))
}

/// Names of the program's own functions, innermost first; a module's where its functions have none.
fn own_names(frames: &[Frame]) -> impl Iterator<Item = String> {
    frames.iter().flat_map(|frame| {
        let module = frame.module.as_deref();
        functions(frame)
            .filter(|function| !is_runtime(module, *function))
            .filter_map(|function| {
                let name = function.map(plain_name);
                name.or_else(|| module.map(str::to_owned))
            })
            .collect::<Vec<_>>()
    })
}

fn call(found: &Call) -> AllocatorCall {
    let argument = found.argument.as_ref();
    AllocatorCall {
        function: found.entry.name().into(),
        frame: found.caller,
        pointer: argument.map(|argument| argument.value.into()),
        source: argument.map(|argument| argument.source.name().into()),
        certain: argument.map(|argument| argument.certain),
        loaded_from: argument.and_then(|argument| argument.loaded_from.map(Into::into)),
    }
}

fn name(signal: SignalInfo) -> String {
    signal
        .name()
        .map_or_else(|| format!("signal {}", signal.signal), str::to_owned)
}

fn instruction(found: &Instruction) -> schema::Instruction {
    schema::Instruction {
        address: found.address.into(),
        bytes: Bytes(found.bytes.clone()),
        text: found.text.clone(),
        memory: found
            .operands
            .iter()
            .map(|operand| MemoryOperand {
                access: operand.access.name().into(),
                address: operand.address.map(Into::into),
                size: operand.bytes,
                expression: operand.expression.clone(),
                registers: operand
                    .registers
                    .iter()
                    .map(|register| (register.name.to_owned(), register.value.map(Hex)))
                    .collect(),
            })
            .collect(),
        explains_fault: found.explains_fault,
    }
}

/// What the operand at fault is called among the registers.
const OPERAND: &str = "operand";

/// What the registers of the frame at fault and its operand hold.
pub fn values(
    session: &Session,
    analysis: &Analysis<'_>,
    crash: &Crash,
) -> Vec<schema::RegisterMeaning> {
    let types = Types::new(session);
    let block = |view| block(&types, view);
    let named = |found: RegisterMeaning| {
        let register = match found.register {
            Some(number) => session.arch().register_name(number)?,
            None => OPERAND,
        };
        Some(schema::RegisterMeaning {
            register: register.to_owned(),
            value: Hex(found.value),
            what: found.what.name().into(),
            meaning: found.meaning,
            block: found.block.map(block),
        })
    };
    values::of_registers(session.target(), analysis, crash)
        .into_iter()
        .filter_map(named)
        .collect()
}

/// A block and what it holds.
fn block(types: &Types<'_>, view: BlockView) -> schema::Block {
    let place = types::Place {
        address: view.block.address,
        bytes: view.block.bytes,
        state: view.state,
    };
    schema::Block {
        address: view.block.address.into(),
        size: view.block.bytes,
        state: view.state.name().into(),
        offset: view.offset,
        type_of: types.of_block(place).as_ref().map(super::graph::type_of),
        bytes: None,
    }
}

/// Where the value came from that the process died of.
pub(super) fn came_from(source: Option<&Source>, told: &Told) -> Option<schema::CameFrom> {
    let source = source?;
    Some(schema::CameFrom {
        value: Hex(source.value),
        address: source.at.map(Into::into),
        meaning: source.meaning.clone(),
        block: source.block.map(|view| schema::Block {
            address: view.block.address.into(),
            size: view.block.bytes,
            state: view.state.name().into(),
            offset: view.offset,
            type_of: told.source.as_ref().map(super::graph::type_of),
            bytes: None,
        }),
        member: told.member.clone(),
        function: source.function.clone(),
        frame: source.frame,
        steps: source.steps.iter().map(super::finding::cause).collect(),
    })
}

/// Registers of the thread that crashed, and of its frame at fault.
pub fn crashing_thread(
    session: &Session,
    crash: &Crash,
    threads: &[Thread],
) -> Option<CrashingThread> {
    let shown = threads.get(crash.thread)?;
    let thread = session.threads().list().get(crash.thread)?;
    let frames = session.threads().frames(crash.thread);
    let at_fault = frames.get(crash.frame).filter(|_| crash.frame != 0);
    Some(CrashingThread {
        threads_index: crash.thread,
        registers: registers(&thread.registers, session.arch()),
        thread_name: shown.thread_name.clone(),
        frame_count: shown.frame_count,
        frames: shown.frames.clone(),
        frame_registers: at_fault.map(|frame| registers(&frame.registers, session.arch())),
    })
}

fn registers(registers: &RegisterSet, arch: &ArchInfo) -> BTreeMap<String, Hex> {
    registers
        .iter()
        .filter_map(|(number, value)| Some((arch.register_name(number)?.to_owned(), Hex(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::{Operand, RegisterValue};

    fn at(address: u64, register: u64) -> Instruction {
        Instruction {
            address: Address::new(0x40_1000),
            bytes: vec![0x48, 0x8b, 0x00],
            text: "mov rax, [rax]".into(),
            operands: vec![Operand {
                access: Access::Read,
                address: Some(Address::new(address)),
                bytes: 8,
                expression: "rax".into(),
                registers: vec![RegisterValue {
                    name: "rax",
                    value: Some(register),
                }],
            }],
            explains_fault: true,
        }
    }

    #[test]
    fn an_address_that_the_processor_does_not_tell_comes_from_the_instruction() {
        let wild = 0x4141_4141_4141_4141;
        let found = adjusted(None, &at(wild, wild)).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.address),
            ("non-canonical", Some(Hex(wild)))
        );
        let fault = Some(Address::new(0x18));
        let found = adjusted(fault, &at(0x18, 0)).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.offset),
            ("null-pointer", Some(Hex(0x18)))
        );
        assert!(adjusted(fault, &at(0x18, 0x18)).is_none());
        assert!(adjusted(Some(Address::new(wild >> 20)), &at(wild >> 20, 1)).is_none());
        assert!(adjusted(None, &at(0x7fff_0000, 0)).is_none());
    }

    #[test]
    fn a_signature_names_the_programs_own_functions() {
        let frame = |module: &str, function: &str| Frame {
            module: Some(module.into()),
            function: Some(function.into()),
            ..Frame::default()
        };
        let info = CrashInfo {
            signal: Some("SIGABRT".into()),
            crashing_thread: Some(0),
            ..CrashInfo::default()
        };
        let thread = Thread {
            frames: vec![
                frame("libc.so.6", "abort"),
                frame("prog", "std::terminate()"),
                frame("prog", "parse(int)"),
                frame("libmine.so", "load.part.0"),
                frame("prog", "main"),
                frame("prog", "_start"),
            ],
            ..Thread::default()
        };
        let threads = [thread];
        let signature = |info: &CrashInfo| signature(info, &threads);
        assert_eq!(
            signature(&info).as_deref(),
            Some("SIGABRT | parse | load | main")
        );
        assert_eq!(signature(&CrashInfo::default()), None);
        let caller = called_from(&info, &threads).unwrap();
        assert_eq!(caller.function.as_deref(), Some("parse(int)"));
    }
}
