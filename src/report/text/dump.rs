//! Hex dumps: rows of sixteen bytes with the word in question in brackets.
//!
//! ```text
//! 0x55e0c2f0a030 [30 a0 f0 c2 e0 55 00 00] 00 00 00 00 00 00 00 00  |0....U..........|
//! ```
//!
//! The brackets are there without colour too: a report is pasted into mails.

use super::page::{Page, Role};

const ROW_BYTES: usize = 16;

/// Rows of bytes that stand at `start`, with `mark` (first and end address) in brackets. The first row is filled up from
/// the left, so that columns are the low digit of the address.
pub fn rows(start: u64, bytes: &[u8], mark: (u64, u64), page: &Page) -> Vec<String> {
    let lead = usize::try_from(start % ROW_BYTES as u64).unwrap_or(0);
    let cells: Vec<Option<u8>> = std::iter::repeat_n(None, lead)
        .chain(bytes.iter().copied().map(Some))
        .collect();
    let first = start.saturating_sub(lead as u64);
    cells
        .chunks(ROW_BYTES)
        .zip((0u64..).map(|row| first.saturating_add(row * ROW_BYTES as u64)))
        .map(|(cells, address)| row(address, cells, mark, page))
        .collect()
}

fn row(address: u64, cells: &[Option<u8>], mark: (u64, u64), page: &Page) -> String {
    let marked = |column: usize| (mark.0..mark.1).contains(&address.saturating_add(column as u64));
    let mut hex = String::new();
    let mut text = String::new();
    for column in 0..=ROW_BYTES {
        // Between two cells: a closing bracket, blanks, an opening one.
        let closes = column > 0 && marked(column - 1) && (column == ROW_BYTES || !marked(column));
        let opens = column < ROW_BYTES && marked(column) && (column == 0 || !marked(column - 1));
        let middle = column == ROW_BYTES / 2;
        hex.push_str(match (closes, opens, middle) {
            (true, _, true) => "] ",
            (true, _, false) => "]",
            (false, true, true) => " [",
            (false, true, false) => "[",
            (false, false, true) => "  ",
            (false, false, false) => " ",
        });
        if column == ROW_BYTES {
            break;
        }
        let role = if marked(column) {
            Role::Critical
        } else {
            Role::Plain
        };
        match cells.get(column).copied().flatten() {
            Some(byte) => {
                hex.push_str(&page.paint(role, &format!("{byte:02x}")));
                let shown = if byte.is_ascii_graphic() || byte == b' ' {
                    char::from(byte)
                } else {
                    '.'
                };
                text.push_str(&page.paint(role, &shown.to_string()));
            }
            None => {
                hex.push_str("  ");
                text.push(' ');
            }
        }
    }
    format!("{address:#x} {hex} |{text}|")
}

#[cfg(test)]
mod tests {
    use super::super::Screen;
    use super::*;

    fn check(start: u64, bytes: &[u8], mark: (u64, u64), expected: &[&str]) {
        assert_eq!(
            rows(start, bytes, mark, &Page::new(Screen::default())),
            expected
        );
    }

    #[test]
    fn the_word_stands_in_brackets_and_columns_are_addresses() {
        let bytes: Vec<u8> = (0x3c..0x5c).collect();
        check(
            0x1000,
            &bytes,
            (0x1010, 0x1018),
            &[
                "0x1000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  |<=>?@ABCDEFGHIJK|",
                "0x1010 [4c 4d 4e 4f 50 51 52 53] 54 55 56 57 58 59 5a 5b  |LMNOPQRSTUVWXYZ[|",
            ],
        );
        check(
            0x1000,
            &bytes,
            (0x1008, 0x1018),
            &[
                "0x1000  3c 3d 3e 3f 40 41 42 43 [44 45 46 47 48 49 4a 4b] |<=>?@ABCDEFGHIJK|",
                "0x1010 [4c 4d 4e 4f 50 51 52 53] 54 55 56 57 58 59 5a 5b  |LMNOPQRSTUVWXYZ[|",
            ],
        );
        check(
            0x1008,
            &[0, b'A', 0xff],
            (0x1009, 0x100a),
            &["0x1000                           00[41]ff                 |        .A.     |"],
        );
    }
}
