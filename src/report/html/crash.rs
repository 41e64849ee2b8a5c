//! The instruction at fault, last words, registers and what they hold.

use super::first::field;
use super::markup::Markup;
use super::table::{self, Cell, Kind};
use crate::report::schema::Report;
use crate::report::text::crash;

/// What is known of the crash beyond its stack.
pub fn write(report: &Report, page: &mut Markup) {
    let info = &report.crash_info;
    page.element("dl", &[], |page| {
        if let Some(message) = &info.abort_message {
            field("last words", &format!("\"{}\"", message.text), page);
        }
        if let Some(exception) = &info.exception {
            let says = exception.message.as_ref();
            let says = says.map_or_else(String::new, |says| format!(", which says \"{says}\""));
            let text = format!("{} at {}{says}", exception.type_name, exception.address);
            field("exception", &text, page);
        }
        if let Some(call) = &info.call {
            field("died in", &crash::call(call), page);
        }
        if let Some(instruction) = &info.instruction_details {
            let text = format!("{} at {}", instruction.text, instruction.address);
            field("instruction", &text, page);
            for operand in &instruction.memory {
                page.leaf("dd", &[], &crash::memory(operand));
            }
        }
    });
    if let Some(found) = &info.sanitizer_report {
        page.leaf("h3", &[], "What a sanitizer said");
        table::scroll("What a sanitizer said", page, |page| {
            page.element("pre", &[], |page| {
                for line in &found.lines {
                    page.text(line);
                    page.own("\n");
                }
            });
        });
    }
    let Some(thread) = &report.crashing_thread else {
        return;
    };
    let registers = match &thread.frame_registers {
        Some(of_frame) => of_frame,
        None => &thread.registers,
    };
    let columns = [
        ("register", Kind::Word),
        ("value", Kind::Word),
        ("what it is", Kind::Name),
    ];
    table::write(
        "Registers of the frame at fault",
        false,
        &columns,
        page,
        |rows| {
            for (name, value) in crash::in_order(registers) {
                let found = info.values.iter().find(|found| found.register == *name);
                let meaning = found.map_or("", |found| found.meaning.as_str());
                let value = value.to_string();
                rows.row(&[Cell::Text(name), Cell::Text(&value), Cell::Text(meaning)]);
            }
        },
    );
}
