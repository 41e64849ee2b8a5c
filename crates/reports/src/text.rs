//! Small scanners over bounded lines.

/// The part between two markers, the first of each.
pub(crate) fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(part, _)| part)
}

/// The decimal number that the text begins with (commas between digits are skipped), and the rest.
pub(crate) fn leading_number(text: &str) -> Option<(u64, &str)> {
    let mut value: u64 = 0;
    let mut end = 0;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'0'..=b'9' => value = value.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?,
            b',' if at > 0 && text.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit) => {}
            _ => break,
        }
        end = at + 1;
    }
    (end > 0).then(|| (value, &text[end..]))
}

/// The decimal number that the text is.
pub(crate) fn number(text: &str) -> Option<u64> {
    leading_number(text.trim()).and_then(|(value, rest)| rest.is_empty().then_some(value))
}

/// The decimal number after a marker.
pub(crate) fn number_after(text: &str, marker: &str) -> Option<u64> {
    let (_, rest) = text.split_once(marker)?;
    leading_number(rest.trim_start()).map(|(value, _)| value)
}

/// The hexadecimal number that the text is, with or without `0x`.
pub(crate) fn hexadecimal_value(text: &str) -> Option<u64> {
    let digits = text
        .trim()
        .trim_start_matches("0x")
        .trim_start_matches("0X");
    let digits = if digits.is_empty() && text.contains('0') {
        "0"
    } else {
        digits
    };
    (digits.len() <= 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

/// An address in the form of the contract: lower case, `0x`, unpadded.
pub(crate) fn address(text: &str) -> Option<String> {
    hexadecimal_value(text).map(address_of)
}

/// A number in the form of the contract's addresses.
pub(crate) fn address_of(value: u64) -> String {
    format!("0x{value:x}")
}

/// The first word that begins with `0x`, as an address.
pub(crate) fn first_address(text: &str) -> Option<String> {
    let at = text.find("0x")?;
    let digits = text[at + 2..]
        .bytes()
        .take_while(u8::is_ascii_hexdigit)
        .count();
    address(&text[at..at + 2 + digits])
}

/// The name without its folders.
pub(crate) fn base_name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

/// The text, cut at a character's edge to at most `limit` bytes.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let mut end = limit;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// True of a character that may change how the text around it is shown.
pub(crate) fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{061c}')
        || matches!(
            character,
            '\u{2028}' | '\u{2029}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// The text with control and bidirectional characters written as `\u{…}`.
pub(crate) fn escaped(text: &str) -> String {
    if !text.chars().any(is_unsafe) {
        return text.to_owned();
    }
    text.chars()
        .map(|character| match character {
            c if is_unsafe(c) => c.escape_unicode().to_string(),
            c => c.to_string(),
        })
        .collect()
}

/// The text without terminal escapes (`ESC [ … letter`, `ESC ] … BEL`), in place.
pub(crate) fn strip_escapes(line: &mut Vec<u8>) {
    if !line.contains(&0x1b) {
        return;
    }
    let mut kept = 0;
    let mut at = 0;
    while at < line.len() {
        if line[at] != 0x1b {
            line[kept] = line[at];
            kept += 1;
            at += 1;
            continue;
        }
        at += 1;
        match line.get(at) {
            Some(b'[') => {
                at += 1;
                while line
                    .get(at)
                    .is_some_and(|byte| !(0x40..0x7f).contains(byte))
                {
                    at += 1;
                }
                at += 1;
            }
            Some(b']') => {
                while line.get(at).is_some_and(|byte| *byte != 7) {
                    at += 1;
                }
                at += 1;
            }
            Some(_) => at += 1,
            None => {}
        }
    }
    line.truncate(kept);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses() {
        assert_eq!(
            leading_number("1,514,697 bytes"),
            Some((1_514_697, " bytes"))
        );
        assert_eq!(leading_number("12, 3"), Some((12, ", 3")));
        assert_eq!(leading_number("99999999999999999999"), None);
        assert_eq!(address("0x000012AB").as_deref(), Some("0x12ab"));
        assert_eq!(address("0x0").as_deref(), Some("0x0"));
        assert_eq!(address("0xxyz"), None);
        assert_eq!(first_address("at 0x10: f").as_deref(), Some("0x10"));
    }

    #[test]
    fn escapes() {
        let mut line = b"\x1b[1m\x1b[31m==7==ERROR\x1b[0m \x1b]0;title\x07x\x1b[".to_vec();
        strip_escapes(&mut line);
        assert_eq!(line, b"==7==ERROR x");
        assert_eq!(escaped("a\u{202e}b\n"), "a\\u{202e}b\\u{a}");
        assert_eq!(cut("aé", 2), "a");
    }
}
