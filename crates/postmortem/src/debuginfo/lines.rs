//! Source of a program counter: the function, those inlined into it there, and the line of each.
//!
//! ```text
//! link address ──> unit ranges ──> one unit ──┬─ functions ──> the inlined calls around the address
//!                                             └─ rows ───────> file and line
//! ```
//!
//! Unit ranges are read once per module, from `.debug_aranges` where compiler or assembler wrote them; functions and rows of
//! a unit when an address in it is first asked for; answers are kept by address, since threads mostly stop at the same
//! places. All of it is shared between threads.
//!
//! addr2line is not used, but as a second reader in `tests/readers`: its answers are ours for all functions there. Version 0.27.1
//! overflows the stack on 300,000 inlined calls one in the other, which nothing can catch, and takes 3.8 GB for 60,000 files of one unit, since it
//! lays out all their paths at once. Both files are tests there.

pub(super) mod functions;
pub(super) mod ranges;
mod rows;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use gimli::UnitType;
use rayon::prelude::*;

use super::dies::{Area, Dies, Place, Units, header_at, unit_at};
use super::dwarf::{Dwarf, Unit};
use functions::{Function, Inlined};
use ranges::Covering;
use rows::Rows;

/// Answers kept per module.
const MAX_KEPT: usize = 1 << 16;
/// Units tried for one address: some compilers give a unit one range that spans its neighbours.
const MAX_UNITS_TRIED: usize = 16;

/// A place in the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFrame {
    /// The function with its scopes, demangled.
    pub function: Option<String>,
    /// The file as it stands in the debug information: as the compiler was given it, often relative to `directory`.
    pub file: Option<String>,
    /// The directory in which the compiler ran.
    pub directory: Option<String>,
    /// The line, from 1.
    pub line: Option<u32>,
}

/// The functions at one address: the innermost inlined one first, last the one that has a frame.
#[derive(Clone, Debug, Default)]
pub struct SourceFrames {
    /// Innermost first; empty if nothing is known.
    pub frames: Vec<SourceFrame>,
    /// Link address where the function that has a frame begins.
    pub(super) start: Option<u64>,
}

/// The source places of one module.
pub(super) struct LineIndex {
    ranges: Covering<usize>,
    units: Vec<UnitLines>,
    kept: RwLock<HashMap<u64, Arc<SourceFrames>>>,
}

/// What is known of one unit so far.
struct UnitLines {
    start: Place,
    rows: OnceLock<Rows>,
    functions: OnceLock<Covering<Function>>,
}

impl LineIndex {
    /// Reads the address ranges of all units, in parallel. Of a unit that `.debug_aranges` lists, what it lists is believed to
    /// be all, as debuggers do: to look at the unit itself, all its abbreviations would have to be read.
    pub fn build(dwarf: &Dwarf<'_>, units: &Units) -> Self {
        let starts: Vec<Place> = units
            .starts()
            .filter(|start| start.area == Area::Info)
            .collect();
        let listed = ranges::listed(dwarf, &starts);
        let mut is_listed = vec![false; starts.len()];
        for (_, unit) in &listed {
            if let Some(is_listed) = is_listed.get_mut(*unit) {
                *is_listed = true;
            }
        }
        let unlisted: Vec<_> = starts
            .par_iter()
            .zip(is_listed)
            .map(|(&start, is_listed)| {
                let (_, header) = header_at(dwarf, start).filter(|_| !is_listed)?;
                let has_code = matches!(header.type_(), UnitType::Compilation);
                let unit = unit_at(dwarf, start).filter(|_| has_code)?;
                Some(ranges::of_unit(dwarf, &unit))
            })
            .collect();
        let unlisted = unlisted.into_iter().enumerate();
        let unlisted = unlisted.flat_map(|(unit, ranges)| {
            let ranges = ranges.unwrap_or_default().into_iter();
            ranges.map(move |range| (range, unit))
        });
        let ranges = listed.into_iter().chain(unlisted).collect();
        Self {
            ranges: Covering::new(ranges),
            units: starts
                .into_iter()
                .map(|start| UnitLines {
                    start,
                    rows: OnceLock::new(),
                    functions: OnceLock::new(),
                })
                .collect(),
            kept: RwLock::default(),
        }
    }

    /// The source at a link address.
    pub fn at(&self, dwarf: &Dwarf<'_>, units: &Units, at: u64) -> Arc<SourceFrames> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(frames) = kept.get(&at) {
            return Arc::clone(frames);
        }
        drop(kept);
        let dies = Dies::new(dwarf, units);
        let mut units = self.ranges.at(at).take(MAX_UNITS_TRIED);
        let found = units.find_map(|(_, unit)| self.units.get(*unit)?.source(&dies, at));
        let found = Arc::new(found.unwrap_or_default());
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < MAX_KEPT {
            kept.insert(at, Arc::clone(&found));
        }
        found
    }
}

impl LineIndex {
    /// The function with code at a link address: the start of its unit, and its entry there.
    pub fn function_at(&self, dies: &Dies<'_>, at: u64) -> Option<(Place, gimli::UnitOffset)> {
        let mut units = self.ranges.at(at).take(MAX_UNITS_TRIED);
        units.find_map(|(_, unit)| {
            let lines = self.units.get(*unit)?;
            let unit = dies.unit(lines.start)?;
            let functions = lines
                .functions
                .get_or_init(|| functions::read(dies.dwarf, &unit.unit));
            let (_, function) = functions.at(at).next()?;
            Some((lines.start, function.die))
        })
    }
}

impl UnitLines {
    fn source(&self, dies: &Dies<'_>, at: u64) -> Option<SourceFrames> {
        let unit = dies.unit(self.start)?;
        let unit = &unit.unit;
        let rows = self.rows.get_or_init(|| Rows::read(unit));
        let functions = self
            .functions
            .get_or_init(|| functions::read(dies.dwarf, unit));
        let row = rows.at(at);
        let function = functions.at(at).next();
        if row.is_none() && function.is_none() {
            return None;
        }
        let place = |file: Option<u64>, line: Option<u32>| SourceFrame {
            function: None,
            file: file.and_then(|file| rows::file_name(dies.dwarf, unit, file)),
            directory: directory(unit),
            line,
        };

        // Each call's place is where the function outside it stands; the row is where the innermost stands.
        let mut frames = Vec::new();
        let mut here = place(row.map(|row| row.file), row.and_then(|row| row.line));
        let inlined = function.map_or_else(Vec::new, |(_, function)| {
            functions::inlined_at(dies.dwarf, unit, function, at)
        });
        for Inlined { die, file, line } in inlined.iter().rev() {
            here.function = functions::name(dies, self.start, *die);
            frames.push(std::mem::replace(&mut here, place(*file, *line)));
        }
        here.function =
            function.and_then(|(_, function)| functions::name(dies, self.start, function.die));
        frames.push(here);
        Some(SourceFrames {
            frames,
            start: function.map(|(range, _)| range.start),
        })
    }
}

fn directory(unit: &Unit<'_>) -> Option<String> {
    let directory = unit.comp_dir?.slice();
    let directory = directory.get(..rows::MAX_PATH_BYTES).unwrap_or(directory);
    Some(String::from_utf8_lossy(directory).into_owned())
}
