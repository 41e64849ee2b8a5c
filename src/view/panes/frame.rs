//! Variables and registers of the chosen frame.

use super::{Content, Row};
use crate::report::escape::escaped;
use crate::report::text::parts::{Line, Role, count};
use crate::view::jobs::Value;
use crate::view::model::Model;

pub(super) fn content(model: &Model, _width: usize) -> Content {
    let Some(frame) = &model.frame else {
        return Content::default();
    };
    let names = frame.registers.iter().map(|value| value.name.len());
    let columns = names.max().unwrap_or(0);
    let mut rows = Vec::new();
    let variables = frame.variables.iter();
    rows.extend(variables.map(|value| Row::new(line(value, 0))));
    if frame.variables.is_empty() {
        let none = "no variable is known to have a place here";
        rows.push(Row::of(Role::Faint, none));
    }
    let registers = frame.registers.iter();
    rows.extend(registers.map(|value| Row::new(line(value, columns))));
    Content {
        note: format!("{} of {}", frame.id.frame, model.chosen_thread_id()),
        rows,
        head: None,
    }
}

fn line(value: &Value, columns: usize) -> Line {
    let name = escaped(&value.name);
    let mut runs = vec![(Role::Strong, format!("{name:<columns$}"))];
    let found = match (value.value, value.bytes) {
        (Some(found), _) => format!("{found:#x}"),
        (None, Some(bytes)) if bytes > 8 => count(bytes, "byte"),
        (None, _) => "not in the core".into(),
    };
    // Where it is says nothing of a register, and leads to it where a variable is in memory.
    let place = match value.place.as_deref() {
        Some(place) if place.starts_with("0x") => format!(" at {place}"),
        Some(place) => format!(" in {place}"),
        None => String::new(),
    };
    runs.push((Role::Plain, format!(" {found}")));
    if let Some(meaning) = &value.meaning {
        runs.push((Role::Plain, format!("  {}", escaped(meaning))));
    }
    runs.push((Role::Faint, place));
    runs
}
