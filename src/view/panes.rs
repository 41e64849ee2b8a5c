//! What stands in each pane: rows made of the model, a file for each pane.

mod address;
mod crash;
mod finding;
mod findings;
mod frame;
mod frames;
mod heap;
pub mod help;
mod holders;
mod leaks;
mod table;
mod threads;
mod usage;

use std::ops::Range;

use super::jobs::Direction;
use super::model::{Model, Pane, Slot, View};
use crate::report::text::parts::{Line, Role};

pub use holders::Node;
pub use usage::Kind as UsageKind;

/// Values below this are sizes and offsets, and lead nowhere.
const SMALL: u64 = 1 << 12;

/// A row of a pane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Its text, escaped.
    pub runs: Line,
    /// The addresses in it.
    pub links: Vec<Link>,
    /// What it stands for.
    pub act: Act,
}

/// An address in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its columns.
    pub columns: Range<usize>,
    /// Where it leads.
    pub address: u64,
}

/// What a row stands for, beside its addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    #[default]
    None,
    /// A thread, by its index.
    Thread(usize),
    /// A frame of the chosen thread.
    Frame(usize),
    /// A finding.
    Finding(usize),
    /// A block in the tree of holders.
    Node(Node),
}

/// What a pane shows.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Stands still above the rows.
    pub head: Option<Row>,
    /// Its rows.
    pub rows: Vec<Row>,
    /// Said in the pane's frame, behind its name.
    pub note: String,
}

impl Row {
    /// A row, with the addresses in it.
    pub fn new(runs: Line) -> Self {
        let text: String = runs.iter().map(|(_, text)| text.as_str()).collect();
        Self {
            links: links(&text),
            runs,
            act: Act::None,
        }
    }

    /// A row of one piece; the text is escaped already.
    pub fn of(role: Role, text: impl Into<String>) -> Self {
        Self::new(vec![(role, text.into())])
    }

    /// The same row that stands for something.
    pub fn with(self, act: Act) -> Self {
        Self { act, ..self }
    }

    /// Its text.
    pub fn text(&self) -> String {
        self.runs.iter().map(|(_, text)| text.as_str()).collect()
    }
}

impl Content {
    /// Lines as rows.
    pub fn of(lines: Vec<Line>) -> Self {
        Self {
            rows: lines.into_iter().map(Row::new).collect(),
            ..Self::default()
        }
    }

    /// One sentence instead of rows, in as many rows as it needs.
    pub fn sentence(role: Role, text: &str, width: usize) -> Self {
        let mut rows: Vec<String> = vec![String::new()];
        for word in text.split(' ') {
            let Some(row) = rows.last_mut() else { break };
            let columns = row.chars().count() + 1 + word.chars().count();
            if !row.is_empty() && columns > width {
                rows.push(word.to_owned());
                continue;
            }
            if !row.is_empty() {
                row.push(' ');
            }
            row.push_str(word);
        }
        Self {
            rows: rows.into_iter().map(|row| Row::of(role, row)).collect(),
            ..Self::default()
        }
    }
}

/// What a pane shows in so many columns.
pub fn content(model: &Model, pane: Pane, width: usize) -> Content {
    match pane {
        Pane::Threads => threads::content(model, width),
        Pane::Frames => frames::content(model, width),
        Pane::Frame => frame::content(model, width),
        Pane::Findings => findings::content(model, width),
        Pane::Heap => heap::content(model, width),
        Pane::Main => match model.place.view {
            View::Crash => crash::content(model, width),
            View::Finding => finding::content(model, width),
            View::Address => address::content(model, width),
            View::Holders => holders::content(model, width),
            View::Leaks => leaks::content(model, width),
            View::Usage => usage::content(model, width),
        },
    }
}

/// The blocks whose next step a view shows and does not have yet.
pub fn steps_wanted(model: &Model) -> Vec<(u64, Direction)> {
    holders::wanted(model)
}

/// Columns of a view's table; 0 if it has none.
pub fn columns(view: View, kind: UsageKind) -> usize {
    match view {
        View::Leaks => leaks::COLUMNS.len(),
        View::Usage => usage::columns(kind).len(),
        _ => 0,
    }
}

/// What stands where something is not there yet, or could not be had.
fn missing<T>(slot: &Slot<T>, model: &Model, width: usize) -> Content {
    match slot {
        Slot::Failed(message) => Content::sentence(Role::Warning, message, width),
        _ => Content::sentence(Role::Faint, &model.waiting(), width),
    }
}

/// The addresses in a text: hexadecimal numbers that are no offsets.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("0x") {
        let (before, after) = (text.get(..at), text.get(at + 2..));
        let (Some(before), Some(after)) = (before, after) else {
            continue;
        };
        let joined = |letter: char| letter.is_alphanumeric() || matches!(letter, '+' | '-' | '_');
        if before.chars().next_back().is_some_and(joined) && !before.ends_with("-") {
            continue;
        }
        // `sp-0x38` is an offset, `0x1000-0x2000` a range.
        if let Some(range) = before.strip_suffix('-')
            && !range
                .chars()
                .next_back()
                .is_some_and(|it| it.is_ascii_hexdigit())
        {
            continue;
        }
        let length = after.bytes().take_while(u8::is_ascii_hexdigit).count();
        let digits = after.get(..length).unwrap_or("");
        let Ok(address) = u64::from_str_radix(digits, 16) else {
            continue;
        };
        if address < SMALL {
            continue;
        }
        let start = before.chars().count();
        found.push(Link {
            columns: start..start + 2 + length,
            address,
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lead_somewhere_and_offsets_do_not() {
        let of = |text: &str| {
            let found = links(text).into_iter();
            found
                .map(|link| (link.columns, link.address))
                .collect::<Vec<_>>()
        };
        assert_eq!(of("block 0x55d2374ca000, 48"), [(6..20, 0x55d2_374c_a000)]);
        assert_eq!(of("main+0x18 sp-0x38000 0x10"), []);
        assert_eq!(of("0x1000-0x2000"), [(0..6, 0x1000), (7..13, 0x2000)]);
        assert_eq!(of("日本 0x1234;"), [(3..9, 0x1234)]);
        assert_eq!(of("0x 0xzz 0x11112222333344445 a0x1234"), []);
    }

    #[test]
    fn a_sentence_is_cut_at_blanks() {
        let rows = |text, width| {
            let content = Content::sentence(Role::Plain, text, width);
            content.rows.iter().map(Row::text).collect::<Vec<_>>()
        };
        assert_eq!(rows("one two three", 7), ["one two", "three"]);
        assert_eq!(rows("", 7), [""]);
    }
}
