//! The one place where strings become safe to print.
//!
//! A core is hostile input: a thread name may hold a terminal's escape sequence, a path a right-to-left override that
//! makes `exe.nimda` read as `admin.exe`. Whatever a terminal would act upon instead of showing it, or would not show at
//! all, is written as `\x1b` or `\u{202e}`; everything else stays as it is. A backslash stays single: paths and C++ names
//! must be copied from a report, and an escape that was in the text already harms nobody.

use std::fmt::{self, Write as _};

/// Shows a string with everything escaped that a terminal would act upon.
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\n' => f.write_str("\\n")?,
                '\t' => f.write_str("\\t")?,
                '\r' => f.write_str("\\r")?,
                _ if !is_active(character) => f.write_char(character)?,
                _ if character.is_ascii() => write!(f, "\\x{:02x}", u32::from(character))?,
                _ => write!(f, "\\u{{{:x}}}", u32::from(character))?,
            }
        }
        Ok(())
    }
}

/// [`Escaped`] as a string.
pub fn escaped(text: &str) -> String {
    Escaped(text).to_string()
}

/// Whether a terminal acts upon the character, or shows nothing for it: controls, line and paragraph separators,
/// bidirectional and other invisible formatting, tags.
pub fn is_active(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_upon_is_spelled_out() {
        for (text, expected) in [
            ("main", "main"),
            ("операция 日本", "операция 日本"),
            ("a\x1b[31mred", "a\\x1b[31mred"),
            ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
            ("\u{9b}2J", "\\u{9b}2J"), // one-byte CSI
            ("\x7f", "\\x7f"),
            ("exe.\u{202e}nimda", "exe.\\u{202e}nimda"),
            ("zero\u{200b}width", "zero\\u{200b}width"),
            (
                "std::vector<int>::operator[]",
                "std::vector<int>::operator[]",
            ),
            ("C:\\x", "C:\\x"),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }
}
