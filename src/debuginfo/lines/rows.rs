//! Line rows of one unit, and the names of its files.

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
        let mut rows = Vec::new();
        let Some(program) = unit.line_program.clone() else {
            return Self::default();
        };
        // Rows come in runs of rising addresses; each run ends with a row of its own.
        let mut run: Vec<Row> = Vec::new();
        let mut program = program.rows();
        while let Ok(Some((_, row))) = program.next_row() {
            let new = Row {
                address: row.address(),
                file: row.file_index(),
                line: row.line().and_then(|line| u32::try_from(line.get()).ok()),
                is_statement: row.is_stmt(),
                end: row.end_sequence(),
            };
            run.push(new);
            if rows.len().saturating_add(run.len()) >= MAX_ROWS {
                break;
            }
            if new.end {
                // What the linker dropped starts at 0.
                if run.first().is_some_and(|first| first.address != 0) {
                    rows.append(&mut run);
                }
                run.clear();
            }
        }
        // Where one run ends at the address where another begins, the beginning comes last.
        rows.sort_by_key(|row| (row.address, !row.end));
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
