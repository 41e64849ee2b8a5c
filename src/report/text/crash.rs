//! The crash: the instruction at fault, last words, registers.

use std::collections::BTreeMap;

use crate::report::escape::escaped;
use crate::report::schema::{AllocatorCall, Hex, MemoryOperand, RegisterMeaning, Report};

use super::answers;
use super::page::{Page, Role};

/// Most registers in a row, and their columns.
const PER_ROW: usize = 4;
const REGISTER_COLUMNS: usize = 24;
/// Columns in front of them.
const BEFORE: usize = 15;
const INDENT: usize = 2;

/// What is known of the crash beyond its stack.
pub fn write(report: &Report, page: &mut Page) {
    let crash = &report.crash_info;
    let Some(thread) = &report.crashing_thread else {
        return;
    };
    page.heading("CRASH");
    if let Some(message) = &crash.abort_message {
        let text = format!("\"{}\"", message.text);
        page.field(INDENT, "last words", Role::Plain, &text);
    }
    if let Some(report) = &crash.sanitizer_report {
        for (number, line) in report.lines.iter().enumerate() {
            let label = if number == 0 { "sanitizer" } else { "" };
            page.field(INDENT, label, Role::Plain, &escaped(line));
        }
    }
    if let Some(exception) = &crash.exception {
        let says = exception.message.as_ref();
        let says = says.map_or_else(String::new, |says| format!(", which says \"{says}\""));
        let text = format!(
            "{} at {}{says}; nobody caught it",
            exception.type_name, exception.address
        );
        page.field(INDENT, "exception", Role::Plain, &text);
    }
    if let Some(call) = &crash.call {
        page.field(INDENT, "died in", Role::Plain, &self::call(call));
    }
    if let Some(instruction) = &crash.instruction_details {
        let text = format!("{} at {}", instruction.text, instruction.address);
        page.field(INDENT, "instruction", Role::Plain, &text);
        // If none of them explains the fault, any of them may be the reason.
        let shown = if instruction.explains_fault { 1 } else { 2 };
        for operand in instruction.memory.iter().take(shown) {
            page.field(INDENT, "", Role::Plain, &memory(operand));
        }
    }
    let frame = crash.crashing_frame.unwrap_or(0);
    if let Some(at) = jumped_nowhere(report, frame) {
        let text = format!("none: {at} is no code; a call, jump or return went there");
        page.field(INDENT, "instruction", Role::Plain, &text);
    }
    match &thread.frame_registers {
        Some(of_frame) => {
            registers(&format!("of [{frame:>3}]"), of_frame, page);
            registers("at death", &thread.registers, page);
        }
        None => registers("registers", &thread.registers, page),
    }
    // Who was told to die has nothing in its registers that matters.
    let signal = crash.handled.as_ref().map(|handled| &handled.signal);
    let signal = signal.or(crash.signal.as_ref());
    let is_fault = signal.is_some_and(|signal| ["SIGSEGV", "SIGBUS"].contains(&signal.as_str()));
    let telling = crash.values.iter().filter(|found| is_telling(found));
    for found in telling.filter(|_| is_fault) {
        let known = found
            .block
            .as_ref()
            .and_then(|block| block.type_of.as_ref());
        let known = known.map_or_else(String::new, |known| {
            format!(", {}", answers::type_of(known))
        });
        let text = format!("{}{known}", found.meaning);
        page.field(INDENT, &found.register, Role::Plain, &text);
    }
}

/// Whether what a register holds says something of the heap's part in the crash.
fn is_telling(found: &RegisterMeaning) -> bool {
    [
        "free-block",
        "past-end",
        "allocator-word",
        "filling",
        "text",
    ]
    .contains(&found.what.as_str())
}

/// `free(0x10), called from [  5]`.
pub fn call(call: &AllocatorCall) -> String {
    let pointer = match (call.pointer, call.certain) {
        (Some(pointer), Some(true)) => pointer.to_string(),
        (Some(pointer), _) => format!("probably {pointer}"),
        (None, _) => "a pointer that is not known".into(),
    };
    let from = call.loaded_from.map_or_else(String::new, |at| {
        format!("; the pointer was loaded from {at}")
    });
    format!(
        "{}({pointer}), called from [{:>3}]{from}",
        call.function, call.frame
    )
}

/// The program counter of the frame at fault, if it is in no code at all.
fn jumped_nowhere(report: &Report, frame: usize) -> Option<Hex> {
    let crash = &report.crash_info;
    let signal = crash.handled.as_ref().map(|handled| &handled.signal);
    let signal = signal.or(crash.signal.as_ref())?;
    let fault = matches!(signal.as_str(), "SIGSEGV" | "SIGBUS" | "SIGILL");
    let thread = report.threads.get(crash.crashing_thread?)?;
    let frame = thread.frames.get(frame)?;
    (fault && crash.instruction.is_none() && frame.module.is_none()).then_some(frame.offset)
}

/// `writes 8 bytes at 0x10: rax + 0x10, rax = 0x0`.
pub fn memory(operand: &MemoryOperand) -> String {
    let does = match operand.access.as_str() {
        "read" => "reads",
        "write" => "writes",
        "execute" => "goes on",
        _ => "reads and writes",
    };
    let bytes = match (operand.access.as_str(), operand.size) {
        ("execute", _) | (_, 0) => String::new(),
        (_, 1) => " 1 byte".into(),
        (_, bytes) => format!(" {bytes} bytes"),
    };
    let address = operand.address.map_or_else(
        || "an unknown address".into(),
        |address| address.to_string(),
    );
    let mut text = format!("{does}{bytes} at {address}: {}", operand.expression);
    for (name, value) in &operand.registers {
        let value = value.map_or_else(|| "unknown".into(), |value| value.to_string());
        text = format!("{text}, {name} = {value}");
    }
    text
}

/// Registers in the order that people look for them in: r8 before r10.
pub fn in_order(registers: &BTreeMap<String, Hex>) -> Vec<(&String, &Hex)> {
    let mut order: Vec<_> = registers.iter().collect();
    order.sort_by_key(|(name, _)| {
        let number = name.trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
        (number.parse::<u32>().ok(), name.as_str())
    });
    order
}

fn registers(label: &str, registers: &BTreeMap<String, Hex>, page: &mut Page) {
    let order = in_order(registers);
    let room = page.width().saturating_sub(BEFORE);
    let per_row = (room / REGISTER_COLUMNS).clamp(1, PER_ROW);
    for (row, registers) in order.chunks(per_row).enumerate() {
        let columns: Vec<String> = registers
            .iter()
            .map(|(name, value)| format!("{:<4}{:<20}", escaped(name), value.to_string()))
            .collect();
        let label = if row == 0 { label } else { "" };
        page.labelled(INDENT, label, Role::Plain, columns.join("").trim_end());
    }
}
