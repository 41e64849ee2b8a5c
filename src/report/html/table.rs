//! Tables that are read on any screen, and sorted where a script may run.

use super::markup::Markup;
use crate::report::text::number::thousands;

/// A column: its heading, and whether its cells are numbers.
pub type Column = (&'static str, Kind);

/// What stands in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An address, a word.
    Word,
    /// A name, which may be long.
    Name,
    /// A number.
    Number,
}

/// A cell.
pub enum Cell<'c> {
    /// Text.
    Text(&'c str),
    /// A number, sorted as one.
    Number(u64),
    /// A number that is shown in another way.
    Shown(u64, String),
    /// Nothing.
    Empty,
}

/// Writes a table whose rows `write` gives.
pub fn write(
    caption: &str,
    sortable: bool,
    columns: &[Column],
    page: &mut Markup,
    rows: impl FnOnce(&mut Rows<'_>),
) {
    scroll(caption, page, |page| {
        let class = if sortable { "sortable" } else { "" };
        page.element("table", &[("class", class)], |page| {
            page.leaf("caption", &[], caption);
            page.element("thead", &[], |page| {
                page.element("tr", &[], |page| {
                    for (heading, kind) in columns {
                        page.leaf(
                            "th",
                            &[("scope", "col"), ("class", class_of(*kind))],
                            heading,
                        );
                    }
                });
            });
            page.element("tbody", &[], |page| rows(&mut Rows { columns, page }));
        });
    });
}

/// What is too wide for a screen and can be reached by keys.
pub fn scroll(label: &str, page: &mut Markup, body: impl FnOnce(&mut Markup)) {
    let attributes = [
        ("class", "scroll"),
        ("role", "region"),
        ("tabindex", "0"),
        ("aria-label", label),
    ];
    page.element("div", &attributes, body);
}

fn class_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Word => "word",
        Kind::Name => "name",
        Kind::Number => "number",
    }
}

/// The rows of a table.
pub struct Rows<'r> {
    columns: &'r [Column],
    page: &'r mut Markup,
}

impl Rows<'_> {
    /// Whether there is no room for another row.
    pub fn is_full(&self) -> bool {
        self.page.is_full()
    }

    /// A row.
    pub fn row(&mut self, cells: &[Cell<'_>]) {
        let columns = self.columns;
        self.page.element("tr", &[], |page| {
            for (cell, (_, kind)) in cells.iter().zip(columns) {
                let class = ("class", class_of(*kind));
                match cell {
                    Cell::Text(text) => page.leaf("td", &[class], text),
                    Cell::Number(number) => {
                        let value = ("data-value", &*number.to_string());
                        page.leaf("td", &[class, value], &thousands(*number));
                    }
                    Cell::Shown(number, shown) => {
                        page.leaf("td", &[class, ("data-value", &number.to_string())], shown);
                    }
                    Cell::Empty => page.leaf("td", &[class], ""),
                }
            }
        });
    }

    /// A row that is one remark.
    pub fn remark(&mut self, text: &str) {
        let columns = self.columns.len().to_string();
        self.page.element("tr", &[], |page| {
            page.leaf("td", &[("colspan", &columns), ("class", "faint")], text);
        });
    }
}
