//! How the process died.

use std::collections::BTreeMap;

use heaps::target::RegisterSet;

use crate::arch::ArchInfo;
use crate::corefile::SignalInfo;
use crate::crash::argument::Call;
use crate::crash::{Crash, FoundBy, Instruction};
use crate::report::schema::{
    self, AbortMessage, AllocatorCall, Bytes, CrashInfo, CrashingThread, Exception, HandledSignal,
    Hex, MemoryOperand,
};
use crate::session::Session;

/// The signal and what led to it.
pub fn crash_info(session: &Session, crash: Option<&Crash>) -> CrashInfo {
    let signal = session.signal();
    let mut info = CrashInfo {
        signal: signal.filter(|signal| signal.signal != 0).map(name),
        code: signal.and_then(|signal| signal.code_name().map(str::to_owned)),
        address: signal.and_then(|signal| signal.fault_address.map(Into::into)),
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
    info.instruction = crash.instruction.as_ref().map(instruction);
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
    info.call = crash.call.as_ref().map(call);
    info
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

/// Registers of the thread that crashed, and of its frame at fault.
pub fn crashing_thread(session: &Session, crash: &Crash) -> Option<CrashingThread> {
    let thread = session.threads().list().get(crash.thread)?;
    let frames = session.threads().frames(crash.thread);
    let at_fault = frames.get(crash.frame).filter(|_| crash.frame != 0);
    Some(CrashingThread {
        threads_index: crash.thread,
        registers: registers(&thread.registers, session.arch()),
        frame_registers: at_fault.map(|frame| registers(&frame.registers, session.arch())),
    })
}

fn registers(registers: &RegisterSet, arch: &ArchInfo) -> BTreeMap<String, Hex> {
    registers
        .iter()
        .filter_map(|(number, value)| Some((arch.register_name(number)?.to_owned(), Hex(value))))
        .collect()
}
