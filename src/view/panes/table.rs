//! Tables that can be sorted by any column and filtered.

use super::{Content, Row};
use crate::report::text::parts::{Role, thousands};
use crate::view::model::{Model, TableState};

/// Columns of text between two of a table.
const GAP: &str = "  ";

/// A cell.
pub(super) enum Cell {
    /// A number, to the right.
    Number(u64),
    /// Escaped text, to the left.
    Text(String),
}

impl Cell {
    fn text(&self) -> String {
        match self {
            Cell::Number(number) => thousands(*number),
            Cell::Text(text) => text.clone(),
        }
    }
}

/// A table; the last column has as much room as there is.
pub(super) struct Table {
    pub name: &'static str,
    pub columns: &'static [&'static str],
    pub rows: Vec<Vec<Cell>>,
}

impl Table {
    /// The rows that the filter lets through, in the order that was chosen.
    pub(super) fn content(self, model: &Model) -> Content {
        let state = model.table();
        let all = self.rows.len();
        let mut rows: Vec<Vec<Cell>> = self.rows;
        let wanted = state.filter.to_lowercase();
        if !wanted.is_empty() {
            rows.retain(|row| {
                let has = |cell: &Cell| cell.text().to_lowercase().contains(&wanted);
                row.iter().any(has)
            });
        }
        if let Some(column) = state.column {
            sort(&mut rows, column, state.is_reversed);
        }
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let name = self.columns.get(column).map_or(0, |name| name.len() + 1);
                let cells = rows.iter().filter_map(|row| row.get(column));
                let longest = cells.map(|cell| cell.text().chars().count()).max();
                longest.unwrap_or(0).max(name)
            })
            .collect();
        let line = |cells: Vec<(bool, String)>| {
            let cells = cells.into_iter().zip(&widths);
            let cells = cells.map(|((is_number, text), width)| match is_number {
                true => format!("{text:>width$}"),
                false => format!("{text:<width$}"),
            });
            let text = cells.collect::<Vec<_>>().join(GAP);
            text.trim_end().to_owned()
        };
        let is_number = |column: usize| {
            let first = rows.first().and_then(|row| row.get(column));
            matches!(first, Some(Cell::Number(_)))
        };
        let names = self.columns.iter().enumerate();
        let head = names.map(|(column, name)| {
            let mark = match state.column == Some(column) {
                true if state.is_reversed => "^",
                true => "v",
                false => "",
            };
            (is_number(column), format!("{name}{mark}"))
        });
        let head = Row::of(Role::Faint, line(head.collect()));
        let shown = rows.iter().map(|row| {
            let cells = row.iter();
            let cells = cells.map(|cell| (matches!(cell, Cell::Number(_)), cell.text()));
            Row::of(Role::Plain, line(cells.collect()))
        });
        Content {
            head: Some(head),
            rows: shown.collect(),
            note: note(self.name, rows.len(), all, state),
        }
    }
}

fn note(name: &str, shown: usize, all: usize, state: &TableState) -> String {
    match state.filter.as_str() {
        "" => format!("{name}: {all}"),
        filter => format!("{name}: {shown} of {all} with \"{filter}\""),
    }
}

/// Numbers fall and names rise, unless reversed.
fn sort(rows: &mut [Vec<Cell>], column: usize, is_reversed: bool) {
    rows.sort_by(|one, other| {
        let order = match (one.get(column), other.get(column)) {
            (Some(Cell::Number(one)), Some(Cell::Number(other))) => other.cmp(one),
            (Some(Cell::Text(one)), Some(Cell::Text(other))) => one.cmp(other),
            _ => std::cmp::Ordering::Equal,
        };
        if is_reversed { order.reverse() } else { order }
    });
}
