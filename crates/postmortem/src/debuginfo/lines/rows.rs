//! Line rows of one unit, and the names of its files.

use std::ops::Range;

use gimli::{AttributeValue, LineProgramHeader};

use crate::debuginfo::dwarf::{self, Bytes, Dwarf, Unit};

/// Rows of one unit.
const MAX_ROWS: usize = 16 << 20;
/// Longer paths are cut.
pub(super) const MAX_PATH_BYTES: usize = 4096;

/// One row: from its address to the next row's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    address: u64,
    /// Index of the file, as the unit's version counts.
    pub file: u64,
    pub line: Option<u32>,
    is_statement: bool,
    /// The address is the first behind a run of code.
    end: bool,
}

/// The rows of one unit, by address. Cost: 32 bytes a row.
#[derive(Default)]
pub(super) struct Rows {
    rows: Vec<Row>,
}

impl Rows {
    pub fn read(unit: &Unit<'_>) -> Self {
        let Some(program) = unit.line_program.clone() else {
            return Self::default();
        };
        // Rows come in runs of rising addresses; each run ends with a row of its own.
        let mut rows: Vec<Row> = Vec::new();
        let mut runs = Vec::new();
        let mut begin = 0;
        let mut program = program.rows();
        while let Ok(Some((_, row))) = program.next_row() {
            let end = row.end_sequence();
            rows.push(Row {
                address: row.address(),
                file: row.file_index(),
                line: row.line().and_then(|line| u32::try_from(line.get()).ok()),
                is_statement: row.is_stmt(),
                end,
            });
            if rows.len() >= MAX_ROWS {
                break;
            }
            if end {
                // What the linker dropped starts at 0.
                match rows.get(begin).is_some_and(|first| first.address != 0) {
                    true => runs.push(begin..rows.len()),
                    false => rows.truncate(begin),
                }
                begin = rows.len();
            }
        }
        Self::in_order(&rows, runs)
    }

    /// Puts runs in order: they hardly ever overlap, so that there is nothing to sort within them.
    fn in_order(rows: &[Row], mut runs: Vec<Range<usize>>) -> Self {
        let rows_of = |run: &Range<usize>| rows.get(run.clone()).unwrap_or(&[]);
        runs.sort_by_key(|run| rows_of(run).first().map(|first| first.address));
        let mut rows: Vec<Row> = Vec::with_capacity(rows.len());
        rows.extend(runs.iter().flat_map(rows_of));
        // Where one run ends at the address where another begins, the beginning comes last.
        let order = |row: &Row| (row.address, !row.end);
        if !rows.is_sorted_by_key(order) {
            rows.sort_by_key(order);
        }
        Self { rows }
    }

    /// The row that covers `at`; of several at one address the last that begins a statement, as debuggers choose.
    pub fn at(&self, at: u64) -> Option<Row> {
        let after = self.rows.partition_point(|row| row.address <= at);
        let below = self.rows.get(..after)?;
        let last = below.last().filter(|row| !row.end)?;
        let same = below.iter().rev();
        let mut same = same.take_while(|row| row.address == last.address && !row.end);
        same.find(|row| row.is_statement).or(Some(last)).copied()
    }
}

/// The name of the file with this index, as debuggers show it: with the directory that the line table gives it, without
/// the one in which the compiler ran.
pub(super) fn file_name(dwarf: &Dwarf<'_>, unit: &Unit<'_>, index: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(index)?;
    let name = text(dwarf, unit, file.path_name())?;
    let working = unit.comp_dir.map(|directory| directory.slice());
    let directory = directory(dwarf, unit, header, file.directory_index());
    let directory = directory.filter(|directory| Some(directory.as_bytes()) != working);
    // A directory that is itself relative says something (`./nptl`); an absolute one only where the package was built.
    let beside = working
        .filter(|working| !working.starts_with(b"/") && !working.is_empty())
        .map(|working| working.get(..MAX_PATH_BYTES).unwrap_or(working))
        .map(|working| String::from_utf8_lossy(working).into_owned());
    let relative = match directory.or(beside) {
        Some(directory) if !name.starts_with('/') => format!("{directory}/{name}"),
        _ => name,
    };
    // The unit's own file is shown as the compiler was given it.
    let main = unit.name.map(|name| String::from_utf8_lossy(name.slice()));
    let main = main.filter(|main| main.len() <= MAX_PATH_BYTES);
    let working = working.unwrap_or(b"");
    let working = working.get(..MAX_PATH_BYTES).unwrap_or(working);
    let working = String::from_utf8_lossy(working);
    let whole = |path: &str| match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{working}/{path}"),
    };
    match main {
        Some(main) if working.starts_with('/') && whole(&main) == whole(&relative) => {
            Some(main.into_owned())
        }
        _ => Some(relative),
    }
}

fn directory(
    dwarf: &Dwarf<'_>,
    unit: &Unit<'_>,
    header: &LineProgramHeader<Bytes<'_>>,
    index: u64,
) -> Option<String> {
    // Index 0 is the directory in which the compiler ran, in all versions.
    let value = header.directory(index).filter(|_| index != 0)?;
    text(dwarf, unit, value).filter(|directory| !directory.is_empty())
}

fn text<'a>(
    dwarf: &Dwarf<'a>,
    unit: &Unit<'a>,
    value: AttributeValue<Bytes<'a>>,
) -> Option<String> {
    let bytes = dwarf::name(dwarf, unit, value)?;
    let bytes = bytes.get(..MAX_PATH_BYTES).unwrap_or(bytes);
    Some(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_put_in_order_and_overlapping_ones_are_merged() {
        let row = |address, line, end| Row {
            address,
            file: 1,
            line: Some(line),
            is_statement: true,
            end,
        };
        let rows = [
            row(0x200, 1, false),
            row(0x210, 2, false),
            row(0x220, 0, true),
            row(0x100, 3, false),
            row(0x200, 0, true),
            row(0x208, 4, false),
            row(0x20c, 0, true),
        ];
        let line = |rows: &Rows, at| rows.at(at).and_then(|row| row.line);
        let apart = Rows::in_order(&rows, vec![0..3, 3..5]);
        let at = |at| line(&apart, at);
        assert_eq!(
            [
                at(0xff),
                at(0x100),
                at(0x1ff),
                at(0x200),
                at(0x21f),
                at(0x220)
            ],
            [None, Some(3), Some(3), Some(1), Some(2), None]
        );
        let overlapping = Rows::in_order(&rows, vec![0..3, 5..7]);
        assert_eq!(line(&overlapping, 0x209), Some(4));
        assert_eq!(line(&overlapping, 0x20d), None);
        assert_eq!(line(&overlapping, 0x210), Some(2));
    }
}
