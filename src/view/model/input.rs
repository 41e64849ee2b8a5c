//! What a person does, without the terminal's words for it.

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Key {
    Char(char),
    Ctrl(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Tab,
    BackTab,
    Escape,
    Backspace,
    /// Alt and the left arrow.
    Back,
    /// Alt and the right arrow.
    Forward,
}

/// What happens to the viewer from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// A key was pressed.
    Key(Key),
    /// The mouse's button was pressed at this column and row.
    Click(u16, u16),
    /// The wheel was turned at this column and row: so many rows down.
    Wheel(u16, u16, isize),
    /// The screen has so many columns and rows.
    Resize(u16, u16),
}

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// What for.
    pub kind: PromptKind,
    /// What stands there.
    pub text: String,
}

/// What is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptKind {
    /// Text to look for in the pane.
    Search,
    /// An address to go to.
    Address,
    /// Text that rows of a table must have.
    Filter,
}

impl PromptKind {
    /// What stands in front of the line.
    pub fn label(self) -> &'static str {
        match self {
            PromptKind::Search => "search: ",
            PromptKind::Address => "address: ",
            PromptKind::Filter => "only rows with: ",
        }
    }
}

/// The address in what was typed, with or without `0x`.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<u64, &'static str> {
    let text = text.trim().replace(['_', '`', ','], "");
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    match u64::from_str_radix(digits, 16) {
        Ok(at) if !digits.starts_with('+') => Ok(at),
        _ => Err("not an address: 1 to 16 hexadecimal digits, with or without 0x"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_hexadecimal() {
        assert_eq!(address("0x55d2"), Ok(0x55d2));
        assert_eq!(address(" 7f00_1000 "), Ok(0x7f00_1000));
        for wrong in ["", "0x", "main", "+12", "-1", "11111111111111111"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
