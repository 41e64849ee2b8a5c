//! Headers, notes, modules and dynamic symbols, as goblin reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use goblin::elf::sym::STT_GNU_IFUNC;
use ground::target::{Address, MemoryExt as _, Module};
use postmortem::corefile::{CoreFile, Mapping};
use postmortem::debuginfo::FileBytes;
use postmortem::debuginfo::symbols::SymbolIndex;
use postmortem::session::Session;

use crate::common::in_parallel;
use crate::{Case, cases};

/// Types of notes (elf.h).
const NT_PRSTATUS: u32 = 1;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;
/// Bytes from the start of a thread's status to its number (`elf_prstatus.pr_pid` of 64-bit Linux).
const PR_PID: usize = 32;

fn words(bytes: &[u8]) -> Vec<u64> {
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

/// What two readers say of one thing, where they differ.
fn differ<T: PartialEq + std::fmt::Debug>(what: String, goblin: T, ours: T) -> Option<String> {
    (goblin != ours).then(|| format!("{what}: goblin {goblin:x?}, heapcheck {ours:x?}"))
}

/// Segments and notes of the core.
fn core_differences(case: &Case) -> Vec<String> {
    let bytes = std::fs::read(&case.core).unwrap();
    let elf = Elf::parse(&bytes).unwrap();
    let core = CoreFile::open(&case.core).unwrap();
    let session = case.open();
    let place = |what: &str| format!("{}: {what}", case.name);
    let mut wrong = Vec::new();

    for load in elf
        .program_headers
        .iter()
        .filter(|one| one.p_type == PT_LOAD)
    {
        let length = load.p_filesz.min(64);
        for at in [0, load.p_filesz - length] {
            let from = usize::try_from(load.p_offset + at).unwrap();
            let goblin = &bytes[from..from + length as usize];
            let mut ours = vec![0; length as usize];
            let read = session
                .memory()
                .read_into(Address::new(load.p_vaddr + at), &mut ours);
            if read.is_err() || goblin != ours {
                wrong.push(place(&format!("the bytes at {:#x}", load.p_vaddr + at)));
            }
        }
    }

    let mut tids = BTreeSet::new();
    let mut auxiliary = Vec::new();
    let mut files = Vec::new();
    for note in elf.iter_note_headers(&bytes).unwrap() {
        let note = note.unwrap();
        match (note.name, note.n_type) {
            ("CORE", NT_PRSTATUS) => {
                let tid = note.desc[PR_PID..PR_PID + 4].try_into().unwrap();
                tids.insert(u32::from_le_bytes(tid));
            }
            ("CORE", NT_AUXV) => auxiliary = words(note.desc),
            ("CORE", NT_FILE) => {
                let numbers = words(note.desc);
                let (count, page) = (numbers[0] as usize, numbers[1]);
                let names = &note.desc[16 + 24 * count..];
                let names = names.split(|byte| *byte == 0);
                for (file, name) in numbers[2..2 + 3 * count].chunks_exact(3).zip(names) {
                    let name = String::from_utf8_lossy(name).into_owned();
                    files.push((file[0], file[1], file[2] * page, name));
                }
            }
            _ => {}
        }
    }
    let ours = core.threads().iter().map(|thread| thread.tid).collect();
    wrong.extend(differ(place("threads"), tids, ours));
    let pairs = auxiliary.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let pairs: Vec<_> = pairs.take_while(|(tag, _)| *tag != 0).collect();
    wrong.extend(differ(place("auxv"), pairs, core.auxiliary().to_vec()));
    let ours = core.files().iter();
    let ours = ours.map(|file| {
        let (start, end) = (file.start.get(), file.end.get());
        (start, end, file.file_offset, file.path.clone())
    });
    wrong.extend(differ(place("mapped files"), files, ours.collect()));
    wrong
}

/// Program headers, dynamic symbols and imports of a module's file, and whether what it needs is there.
fn module_differences(session: &Session, module: &Module) -> (usize, Vec<String>) {
    let Some(file) = session.modules().file(module.id) else {
        return (0, Vec::new());
    };
    let elf = Elf::parse(file.data()).unwrap();
    let place = |what: &str| format!("{}: {what}", module.path);
    let mut wrong = Vec::new();

    let headers = elf.program_headers.iter().map(|one| {
        let numbers = [
            one.p_offset,
            one.p_vaddr,
            one.p_filesz,
            one.p_memsz,
            one.p_align,
        ];
        (one.p_type, one.p_flags, numbers)
    });
    let ours = session.modules().program_headers(module.id).iter();
    let ours = ours.map(|one| {
        let numbers = [
            one.offset,
            one.address,
            one.file_bytes,
            one.memory_bytes,
            one.align,
        ];
        (one.kind, one.flags, numbers)
    });
    wrong.extend(differ(
        place("program headers"),
        headers.collect::<Vec<_>>(),
        ours.collect(),
    ));

    // Versions give a name several symbols: ours has to be one of them.
    let mut by_name: BTreeMap<&str, BTreeSet<(u64, u64)>> = BTreeMap::new();
    let mut names_at: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for symbol in elf.dynsyms.iter() {
        let name = elf.dynstrtab.get_at(symbol.st_name).unwrap_or("");
        // A function that the loader chooses (IFUNC) is one by its name.
        let is_function = symbol.is_function() || symbol.st_type() == STT_GNU_IFUNC;
        if is_function && symbol.st_shndx != 0 && symbol.st_size > 0 {
            let place = (symbol.st_value, symbol.st_size);
            by_name.entry(name).or_default().insert(place);
            names_at.entry(symbol.st_value).or_default().insert(name);
        }
    }
    let bytes: Arc<[u8]> = file.data().into();
    let index = SymbolIndex::read(&[FileBytes::Memory(bytes)]);
    for (name, places) in &by_name {
        let ours = index.find(name).map(|symbol| (symbol.start, symbol.size));
        if !ours.is_some_and(|ours| places.contains(&ours)) {
            wrong.push(format!(
                "{}: goblin {places:x?}, heapcheck {ours:x?}",
                place(name)
            ));
        }
    }
    if !index.has_symtab() {
        for (at, names) in &names_at {
            let ours = index.function_at(*at).map(|(_, name)| name);
            if !ours.is_some_and(|ours| names.contains(ours)) {
                let what = format!("the function at {at:#x}");
                wrong.push(format!(
                    "{}: goblin {names:?}, heapcheck {ours:?}",
                    place(&what)
                ));
            }
        }
    }

    let wanted = ["malloc", "free", "calloc", "realloc", "abort", "memcpy"];
    let relocations = elf.dynrelas.iter().chain(elf.pltrelocs.iter());
    let slots: BTreeSet<(String, u64)> = relocations
        .filter_map(|relocation| {
            let symbol = elf.dynsyms.get(relocation.r_sym)?;
            let name = elf.dynstrtab.get_at(symbol.st_name)?;
            let slot = relocation.r_offset.wrapping_add(module.bias);
            wanted.contains(&name).then(|| (name.to_owned(), slot))
        })
        .collect();
    if let Some(ours) = session
        .modules()
        .imports(session.memory(), module.id, &wanted)
    {
        let ours = ours.into_iter();
        let ours = ours
            .map(|import| (import.name, import.slot.get()))
            .collect();
        wrong.extend(differ(place("imports"), slots, ours));
    }
    (by_name.len() + 1, wrong)
}

/// The names that a module's file answers to: its SONAME, else the file's name.
fn sonames(session: &Session) -> BTreeSet<String> {
    let modules = session.modules().modules().iter();
    let names = modules.flat_map(|module| {
        let file = session.modules().file(module.id);
        let elf = file.and_then(|file| Elf::parse(file.data()).ok());
        let soname = elf.and_then(|elf| elf.soname.map(str::to_owned));
        [Some(module.name.clone()), soname]
    });
    names.flatten().collect()
}

/// Every library that a file needs is a module of the process.
fn missing(case: &Case, session: &Session) -> Vec<String> {
    let there = sonames(session);
    let mut wrong = Vec::new();
    for module in session.modules().modules() {
        let Some(file) = session.modules().file(module.id) else {
            continue;
        };
        for needed in Elf::parse(file.data()).unwrap().libraries {
            // A library without its file here has no SONAME that could be read, but its name begins so.
            let stem = needed.split(".so").next().unwrap_or(needed);
            if !there.contains(needed) && !there.iter().any(|name| name.starts_with(stem)) {
                let name = &module.name;
                wrong.push(format!("{}: {name} needs {needed}, not found", case.name));
            }
        }
    }
    wrong
}

#[test]
fn headers_notes_and_symbols_are_those_that_goblin_reads() {
    let cases = cases();
    let results = in_parallel(&cases, |case| {
        // qemu's cores list no files, and are of modules that lie elsewhere.
        let mut wrong = core_differences(case);
        let session = case.open();
        wrong.extend(missing(case, &session));
        let mut compared = 0;
        for module in session.modules().modules() {
            let (count, differences) = module_differences(&session, module);
            compared += count;
            wrong.extend(differences);
        }
        (compared, wrong)
    });
    let compared: usize = results.iter().map(|(count, _)| count).sum();
    println!("{} cores, {compared} symbols and tables", cases.len());
    let wrong: Vec<String> = results.into_iter().flat_map(|(_, wrong)| wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
    assert!(compared > 1000, "{compared}");
}

/// A debug file's own symbols are read through a mapping like any other.
#[test]
fn a_file_that_is_mapped_has_the_symbols_of_its_bytes() {
    let case = Case::of_stacks("cases-O2-free");
    let mapped = FileBytes::Mapped(Arc::new(Mapping::open(&case.binary).unwrap()));
    let bytes: Arc<[u8]> = std::fs::read(&case.binary).unwrap().into();
    let elf = Elf::parse(&bytes).unwrap();
    let functions = elf.syms.iter();
    let functions = functions.filter(|symbol| symbol.is_function() && symbol.st_size > 0);
    let index = SymbolIndex::read(&[mapped]);
    let mut count = 0;
    for symbol in functions {
        let name = elf.strtab.get_at(symbol.st_name).unwrap();
        let ours = index.find(name).map(|ours| (ours.start, ours.size));
        assert_eq!(ours, Some((symbol.st_value, symbol.st_size)), "{name}");
        count += 1;
    }
    assert!(count > 10, "{count}");
}
