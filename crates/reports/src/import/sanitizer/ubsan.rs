//! UndefinedBehaviorSanitizer: `file:line:column: runtime error: TEXT`, with or without a stack.

use crate::import::frames;
use crate::kind::Kind;
use crate::record::{Frame, Record, Role, Stack};
use crate::text;

/// The record of a line that holds `: runtime error: `.
pub(super) fn heading(line: &str) -> Option<Record> {
    let (place, text) = line.split_once(": runtime error: ")?;
    let place = place.rsplit("| ").next().unwrap_or(place); // a container's name before it
    let mut record = Record::new("ubsan", Kind::UndefinedBehaviour, &class(text));
    record.cwe = cwe(&record.tool_kind).or(record.cwe);
    record.message = text::cut(text, 500).to_owned();
    record.subject = Some(record.tool_kind.clone());
    let mut frame = Frame::default();
    frames::set_location(&mut frame, place.trim());
    frame.line?;
    // The place stands in for the stack until one comes.
    record.stacks.push(Stack {
        role: Role::Origin,
        thread: None,
        frames: vec![frame],
    });
    Some(record)
}

/// `SUMMARY: UndefinedBehaviorSanitizer: KIND file:line:column in FUNCTION` has the function where no stack was printed.
pub(super) fn summary(line: &str, record: &mut Record) {
    if record.stack(Role::Access).is_some() {
        return;
    }
    let Some((_, function)) = line.rsplit_once(" in ") else {
        return;
    };
    if let Some(frame) = record
        .stacks
        .first_mut()
        .and_then(|stack| stack.frames.first_mut())
    {
        frames::set_function(frame, function);
    }
}

/// The class of a text: without numbers, names of types and addresses.
pub(super) fn class(text: &str) -> String {
    let text = text.split(": ").next().unwrap_or(text);
    let mut words = Vec::new();
    let mut quoted = false;
    for word in text.split_whitespace() {
        let begins = word.starts_with(['\'', '"', '‘']);
        let ends = word
            .trim_end_matches([',', '.', ':', ';'])
            .ends_with(['\'', '"', '’']);
        let inside = quoted || begins;
        quoted = inside && !(ends && (quoted || word.chars().count() > 1));
        let plain = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        if inside || plain.is_empty() || plain.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        words.push(plain.to_ascii_lowercase());
        if words.len() == 10 {
            break;
        }
    }
    words.join("-")
}

fn cwe(class: &str) -> Option<u32> {
    Some(match class {
        c if c.contains("integer-overflow") || c.starts_with("negation") => 190,
        c if c.contains("division-by-zero") => 369,
        c if c.contains("null-pointer") => 476,
        c if c.starts_with("index") => 129,
        c if c.contains("shift") => 1335,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_no_numbers_or_types() {
        assert_eq!(
            class("signed integer overflow: 1000000000 * 3 cannot be represented in type 'int'"),
            "signed-integer-overflow"
        );
        assert_eq!(
            class("shift exponent 40 is too large for 32-bit type 'int'"),
            "shift-exponent-is-too-large-for-type"
        );
        assert_eq!(
            class("index 5 out of bounds for type 'unsigned int [4]'"),
            "index-out-of-bounds-for-type"
        );
        assert_eq!(
            class("load of value 7, which is not a valid value for type 'bool'"),
            "load-of-value-which-is-not-a-valid-value-for"
        );
        assert_eq!(
            class("member access within null pointer of type 'struct a::b<c, d>'"),
            "member-access-within-null-pointer-of-type"
        );
    }
}
