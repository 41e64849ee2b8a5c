//! Two debug files that stop other readers of lines, which is why heapcheck has its own: addr2line 0.27.1 overflows the stack on 300,000
//! inlined calls one in the other, which nothing can catch, and takes 3.8 GB for 60,000 files of one unit. Here both are read on a
//! small stack and in little memory.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use ground::target::Address;
use postmortem::debuginfo::{SourceFrame, SourceFrames};

use crate::Case;
use crate::common::fixture;

/// Bytes of the stack on which the files are read.
const STACK: usize = 256 << 10;
/// KiB that reading may take beyond what the process had.
const MOST_KIB: u64 = 128 << 10;
const INLINED: usize = 300_000;
const FILES: usize = 60_000;
/// The line of each inlined call.
const LINE_OF_CALL: u8 = 7;

/// One at a time: the memory of the whole process is looked at.
static ALONE: Mutex<()> = Mutex::new(());

// DWARF 4, section 7.5: tags, attributes and forms.
const TAG_COMPILE_UNIT: u8 = 0x11;
const TAG_SUBPROGRAM: u8 = 0x2e;
const TAG_INLINED: u8 = 0x1d;
const AT_NAME: u8 = 0x03;
const AT_STMT_LIST: u8 = 0x10;
const AT_LOW_PC: u8 = 0x11;
const AT_HIGH_PC: u8 = 0x12;
const AT_ABSTRACT_ORIGIN: u8 = 0x31;
const AT_CALL_FILE: u8 = 0x58;
const AT_CALL_LINE: u8 = 0x59;
const FORM_ADDR: u8 = 0x01;
const FORM_DATA8: u8 = 0x07;
const FORM_STRING: u8 = 0x08;
const FORM_DATA1: u8 = 0x0b;
const FORM_REF4: u8 = 0x13;
const FORM_SEC_OFFSET: u8 = 0x17;

/// The number of each abbreviation.
const UNIT: u8 = 1;
const FUNCTION: u8 = 2;
const CALL: u8 = 3;
const ABSTRACT: u8 = 4;

fn abbreviations() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |code: u8, tag: u8, has_children: u8, attributes: &[(u8, u8)]| {
        bytes.extend([code, tag, has_children]);
        for (attribute, form) in attributes {
            bytes.extend([*attribute, *form]);
        }
        bytes.extend([0, 0]);
    };
    let range = [(AT_LOW_PC, FORM_ADDR), (AT_HIGH_PC, FORM_DATA8)];
    add(
        UNIT,
        TAG_COMPILE_UNIT,
        1,
        &[range[0], range[1], (AT_STMT_LIST, FORM_SEC_OFFSET)],
    );
    add(
        FUNCTION,
        TAG_SUBPROGRAM,
        1,
        &[(AT_NAME, FORM_STRING), range[0], range[1]],
    );
    let call = [
        (AT_ABSTRACT_ORIGIN, FORM_REF4),
        range[0],
        range[1],
        (AT_CALL_FILE, FORM_DATA1),
        (AT_CALL_LINE, FORM_DATA1),
    ];
    add(CALL, TAG_INLINED, 1, &call);
    add(ABSTRACT, TAG_SUBPROGRAM, 0, &[(AT_NAME, FORM_STRING)]);
    bytes.push(0);
    bytes
}

/// A unit with a function of `bytes` bytes at `start`, and in it so many inlined calls, one in the other.
fn unit(start: u64, bytes: u64, inlined: usize) -> Vec<u8> {
    let mut body = vec![4, 0, 0, 0, 0, 0, 8]; // version 4, abbreviations at 0, addresses of 8 bytes
    let range = |body: &mut Vec<u8>| {
        body.extend(start.to_le_bytes());
        body.extend(bytes.to_le_bytes());
    };
    body.push(UNIT);
    range(&mut body);
    body.extend(0u32.to_le_bytes());
    let origin = u32::try_from(4 + body.len()).unwrap();
    body.push(ABSTRACT);
    body.extend(b"inlined\0");
    body.push(FUNCTION);
    body.extend(b"outermost\0");
    range(&mut body);
    for _ in 0..inlined {
        body.push(CALL);
        body.extend(origin.to_le_bytes());
        range(&mut body);
        body.extend([1, LINE_OF_CALL]);
    }
    body.resize(body.len() + inlined + 2, 0); // the ends of all lists of children
    let mut unit = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    unit.extend(body);
    unit
}

/// A line program (DWARF 4, section 6.2) with so many files, each in a directory of its own, and one row.
fn lines(start: u64, bytes: u64, files: usize) -> Vec<u8> {
    // minimum_instruction_length, maximum_operations, default_is_stmt, line_base, line_range, opcode_base, operands
    let mut header = vec![1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];
    let long = "directory-".repeat(8);
    for file in 0..files {
        let mut path = String::new();
        write!(path, "/{long}{file}\0").unwrap();
        header.extend(path.as_bytes());
    }
    header.push(0);
    for file in 0..files {
        header.extend(format!("file-{file}.c\0").as_bytes());
        uleb(&mut header, file + 1);
        header.extend([0, 0]);
    }
    header.push(0);
    let mut body = vec![4, 0];
    body.extend(u32::try_from(header.len()).unwrap().to_le_bytes());
    body.extend(header);
    body.extend([0, 9, 2]); // DW_LNE_set_address
    body.extend(start.to_le_bytes());
    body.push(1); // DW_LNS_copy
    body.push(2); // DW_LNS_advance_pc
    uleb(&mut body, usize::try_from(bytes).unwrap());
    body.extend([0, 1, 1]); // DW_LNE_end_sequence
    let mut lines = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    lines.extend(body);
    lines
}

fn uleb(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// An ELF file of these sections: name, type, contents.
fn elf(sections: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    const HEADER: usize = 64;
    let mut names = vec![0];
    let mut contents = Vec::new();
    let mut table = vec![0; 64]; // the null section
    let mut header = |name: usize, kind: u32, offset: usize, size: usize| {
        table.extend((name as u32).to_le_bytes());
        table.extend(kind.to_le_bytes());
        for value in [0, 0, offset as u64, size as u64] {
            table.extend(value.to_le_bytes());
        }
        table.extend([0; 8]); // link, info
        for value in [1u64, 0] {
            table.extend(value.to_le_bytes());
        }
    };
    for (name, kind, bytes) in sections {
        header(names.len(), *kind, HEADER + contents.len(), bytes.len());
        names.extend(name.as_bytes());
        names.push(0);
        contents.extend(bytes);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    let own_name = names.len();
    names.extend(b".shstrtab\0");
    header(own_name, 3, HEADER + contents.len(), names.len());
    contents.extend(&names);
    contents.resize(contents.len().next_multiple_of(8), 0);

    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    for half in [3u16, 62] {
        file.extend(half.to_le_bytes()); // ET_DYN, x86-64
    }
    file.extend(1u32.to_le_bytes());
    for address in [0, 0, (HEADER + contents.len()) as u64] {
        file.extend(address.to_le_bytes()); // e_entry, e_phoff, e_shoff
    }
    file.extend(0u32.to_le_bytes());
    let count = sections.len() as u16 + 2;
    for half in [64u16, 56, 0, 64, count, count - 1] {
        file.extend(half.to_le_bytes());
    }
    file.extend(contents);
    file.extend(table);
    file
}

fn build_id_note(id: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [4, id.len() as u32, 3] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"GNU\0");
    note.extend(id);
    note
}

/// A number of /proc/self/status, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let number = line.split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// What is said of an address of libc, which is stripped, with a debug file of so many inlined calls and files.
fn read(inlined: usize, files: usize) -> Arc<SourceFrames> {
    let _alone = ALONE.lock();
    let directory = tempfile::tempdir().unwrap();
    let mut case = Case::of(&fixture("glibc-2.36", "overrun-nul-O2"));
    case.search.debug_dirs = vec![directory.path().to_owned()];
    let (start, bytes, id) = {
        let session = case.open();
        let modules = session.modules().modules();
        let libc = modules.iter().find(|module| module.name == "libc.so.6");
        let libc = libc.expect("the core has libc");
        assert!(!session.debug_info().has_debug_info(libc.id));
        // Behind the headers: what begins at link address 0 counts as dropped by the linker.
        let start = libc.range.start.get().wrapping_sub(libc.bias) + 4096;
        let bytes = libc.range.end.get() - libc.range.start.get() - 4096;
        (start, bytes, libc.build_id.clone().unwrap())
    };
    let file = elf(&[
        (".note.gnu.build-id", 7, build_id_note(&id)),
        (".debug_abbrev", 1, abbreviations()),
        (".debug_info", 1, unit(start, bytes, inlined)),
        (".debug_line", 1, lines(start, bytes, files)),
    ]);
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = directory.path().join(".build-id").join(&hex[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{}.debug", &hex[2..])), &file).unwrap();
    let packed = file.len() as u64 >> 10;
    drop(file);

    let session = case.open();
    let reader = move || {
        std::fs::write("/proc/self/clear_refs", "5").unwrap(); // the peak starts anew
        let before = status("VmRSS:");
        let modules = session.modules().modules();
        let libc = modules.iter().find(|module| module.name == "libc.so.6");
        let libc = libc.unwrap();
        let at = Address::new(libc.range.start.get() + bytes / 2);
        let found = session.debug_info().source_at(libc.id, at);
        let taken = status("VmHWM:").saturating_sub(before);
        (found, taken)
    };
    let reader = std::thread::Builder::new().stack_size(STACK).spawn(reader);
    let (found, taken) = reader.unwrap().join().unwrap();
    println!("{inlined} inlined calls, {files} files, {packed} KiB of debug file: {taken} KiB");
    assert!(taken < MOST_KIB, "{taken} KiB");
    found
}

#[test]
fn inlined_calls_one_in_the_other_are_read_on_a_small_stack() {
    let found = read(INLINED, 1);
    let outermost = found.frames.last().unwrap();
    assert_eq!(outermost.function.as_deref(), Some("outermost"));
    let inlined = &found.frames[..found.frames.len() - 1];
    assert!(inlined.len() > 10, "{}", inlined.len());
    let named = |frame: &SourceFrame| frame.function.as_deref() == Some("inlined");
    assert!(inlined.iter().all(named));
}

#[test]
fn many_files_of_one_unit_take_no_more_than_their_names() {
    let found = read(0, FILES);
    let [frame] = &found.frames[..] else {
        panic!("{found:?}");
    };
    assert_eq!(frame.function.as_deref(), Some("outermost"));
    assert!(frame.file.as_ref().unwrap().ends_with("0/file-0.c"));
    assert_eq!(frame.line, Some(1));
}
