//! Functions, lines and inlined calls, as addr2line tells them.
//!
//! Where a line table has several rows at one address, addr2line takes one, and gdb and we the last that begins a statement. Which row that is is
//! read here from the table itself ([`Statements`]), so that every place has one right answer.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use addr2line::Context;
use gimli::{DwarfSections, EndianSlice, LittleEndian, SectionId};
use ground::target::{Address, Module};
use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};
use postmortem::debuginfo::demangle::demangle;
use postmortem::session::Session;

use crate::cases;
use crate::common::in_parallel;
use crate::common::stacks::{key, short_file};

/// Addresses asked for in each function, its first and its last byte among them.
const PER_FUNCTION: u64 = 8;
/// Functions of one file; of larger ones (libc has 7,000) every so many.
const MOST_FUNCTIONS: usize = 3000;

/// A function, and its file's last two parts with the line.
type Row = (Option<String>, Option<(String, u32)>);

/// A difference that is known.
struct Known {
    /// What the file's path holds.
    file: &'static str,
    /// addr2line's row and ours, told by a word of either.
    word: &'static str,
    /// Who is right, and why.
    #[allow(dead_code, reason = "for the reader")]
    why: &'static str,
}

const KNOWN: &[Known] = &[];

type File<'d> = ElfFile64<'d, object::LittleEndian>;

fn sections<'d>(file: &File<'d>) -> DwarfSections<Cow<'d, [u8]>> {
    DwarfSections::load(|id: SectionId| -> Result<_, object::Error> {
        let section = file.section_by_name(id.name());
        let data = section.map(|section| section.uncompressed_data());
        Ok(data.transpose()?.unwrap_or_default())
    })
    .unwrap()
}

/// A file's last two parts, and the line.
type Place = (String, u32);

/// The rows of a file's line tables by address, of each only those that begin statements; `None` where code ends.
struct Statements(BTreeMap<u64, Option<Vec<Place>>>);

impl Statements {
    fn read(dwarf: &gimli::Dwarf<EndianSlice<'_, LittleEndian>>) -> Self {
        let mut all = BTreeMap::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next().unwrap() {
            let unit = dwarf.unit(header).unwrap();
            let Some(program) = unit.line_program.clone() else {
                continue;
            };
            let directory = unit
                .comp_dir
                .map_or("".into(), |name| name.to_string_lossy());
            let mut rows = program.rows();
            let mut run = Vec::new();
            while let Some((header, row)) = rows.next_row().unwrap() {
                let path = row.file(header).map(|file| {
                    let text = |value| dwarf.attr_string(&unit, value).unwrap().to_string_lossy();
                    let folder = file.directory(header).map_or("".into(), text);
                    let name = text(file.path_name());
                    match (file.directory_index(), folder.starts_with('/')) {
                        (0, _) => format!("{directory}/{name}"),
                        (_, true) => format!("{folder}/{name}"),
                        (_, false) => format!("{directory}/{folder}/{name}"),
                    }
                });
                let place = path.zip(row.line()).map(|(path, line)| {
                    let path = match path.rsplit_once("//") {
                        Some((_, absolute)) => format!("/{absolute}"),
                        None => path,
                    };
                    (short_file(&path), u32::try_from(line.get()).unwrap())
                });
                run.push((row.address(), row.end_sequence(), row.is_stmt(), place));
                if row.end_sequence() {
                    let run = std::mem::take(&mut run);
                    if run[0].0 != 0 {
                        Self::add(&mut all, run);
                    }
                }
            }
        }
        Self(all)
    }

    fn add(
        all: &mut BTreeMap<u64, Option<Vec<Place>>>,
        run: Vec<(u64, bool, bool, Option<Place>)>,
    ) {
        for (address, is_end, is_statement, place) in run {
            if is_end {
                all.entry(address).or_insert(None);
                continue;
            }
            let places = all.entry(address).or_default().get_or_insert_default();
            places.extend(place.filter(|_| is_statement));
        }
    }

    /// The place that debuggers choose for an address; `None` if no row there begins a statement.
    fn at(&self, at: u64) -> Option<&Place> {
        let (_, places) = self.0.range(..=at).next_back()?;
        places.as_ref()?.last()
    }
}

/// What addr2line says of an address.
fn theirs(context: &Context<EndianSlice<'_, LittleEndian>>, at: u64) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut frames = context.find_frames(at).skip_all_loads().unwrap();
    while let Some(frame) = frames.next().unwrap() {
        let name = frame.function.as_ref();
        let name = name.and_then(|name| name.raw_name().ok());
        let place = frame.location.and_then(|location| {
            let line = location.line.filter(|line| *line > 0)?;
            Some((short_file(location.file?), line))
        });
        rows.push((name.map(|name| key(&demangle(&name))), place));
    }
    rows
}

/// What we say.
fn ours(session: &Session, module: &Module, at: u64) -> Vec<Row> {
    let at = Address::new(at.wrapping_add(module.bias));
    let found = session.debug_info().source_at(module.id, at);
    let frames = found.frames.iter();
    frames
        .map(|frame| {
            let place = frame.file.as_ref().zip(frame.line).map(|(file, line)| {
                let directory = frame.directory.as_deref().unwrap_or("");
                (short_file(&format!("{directory}/{file}")), line)
            });
            (frame.function.as_deref().map(key), place)
        })
        .collect()
}

/// Addresses in all functions of a file: first and last bytes, and some between.
fn addresses(files: &[File<'_>]) -> Vec<u64> {
    let mut functions = BTreeSet::new();
    for file in files {
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            if symbol.kind() == SymbolKind::Text && symbol.is_definition() && symbol.size() > 0 {
                functions.insert((symbol.address(), symbol.size()));
            }
        }
    }
    let step = functions.len().div_ceil(MOST_FUNCTIONS).max(1);
    let mut addresses: Vec<u64> = functions
        .into_iter()
        .step_by(step)
        .flat_map(|(start, size)| {
            (0..PER_FUNCTION).map(move |part| start + (size - 1) * part / (PER_FUNCTION - 1))
        })
        .collect();
    addresses.dedup();
    addresses
}

/// How many addresses were compared, and what differs.
fn compare(session: &Session, module: &Module) -> (usize, Vec<String>) {
    let Some(image) = session.modules().file(module.id) else {
        return (0, Vec::new());
    };
    let debug = session.debug_info().debug_file(module.id);
    let parse = |bytes| File::parse(bytes).unwrap();
    let mut files = vec![parse(image.data())];
    files.extend(debug.as_ref().map(|debug| parse(debug.bytes())));
    let has = |file: &File<'_>, name| file.section_by_name(name).is_some();
    let Some(with_lines) = files.iter().find(|file| has(file, ".debug_info")) else {
        return (0, Vec::new());
    };
    // dwz's supplementary file would have to be given to addr2line, and units in other files are not read.
    if has(with_lines, ".gnu_debugaltlink") {
        return (0, Vec::new());
    }
    let sections = sections(with_lines);
    let dwarf = sections.borrow(|section| EndianSlice::new(section, LittleEndian));
    let statements = Statements::read(&dwarf);
    let context = Context::from_dwarf(dwarf).unwrap();
    let addresses = addresses(&files);
    let mut wrong = Vec::new();
    for &at in &addresses {
        let (mut theirs, ours) = (theirs(&context, at), ours(session, module, at));
        if let (Some(innermost), Some(place)) = (theirs.first_mut(), statements.at(at)) {
            innermost.1 = Some(place.clone());
        }
        let same = |pair: (&Row, &Row)| pair.0 == pair.1;
        if theirs.len() == ours.len() && theirs.iter().zip(&ours).all(same) {
            continue;
        }
        let line = format!(
            "{} {at:#x}: addr2line {theirs:?}, heapcheck {ours:?}",
            module.path
        );
        let known = |known: &Known| line.contains(known.file) && line.contains(known.word);
        if !KNOWN.iter().any(known) {
            wrong.push(line);
        }
    }
    (addresses.len(), wrong)
}

#[test]
fn functions_lines_and_inlined_calls_are_those_that_addr2line_tells() {
    let mut seen = BTreeSet::new();
    let sessions: Vec<Session> = cases().iter().map(crate::Case::open).collect();
    let modules: Vec<(&Session, &Module)> = sessions
        .iter()
        .flat_map(|session| {
            session
                .modules()
                .modules()
                .iter()
                .map(move |one| (session, one))
        })
        .filter(|(_, module)| seen.insert((module.build_id.clone(), module.path.clone())))
        .collect();
    let results = in_parallel(&modules, |(session, module)| compare(session, module));
    let compared: usize = results.iter().map(|(count, _)| count).sum();
    let with_lines = results.iter().filter(|(count, _)| *count > 0).count();
    println!("{compared} addresses in {with_lines} files");
    let wrong: Vec<String> = results.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} of {compared} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
    assert!(
        compared > 100 && with_lines > 3,
        "{compared} in {with_lines}"
    );
}
