//! The ELF header and the program headers of a core.

use std::path::Path;

use object::elf::{
    self, EM_AARCH64, ET_CORE, ET_DYN, ET_EXEC, ET_REL, FileHeader64, PN_XNUM, PT_INTERP, PT_LOAD,
    PT_NOTE, ProgramHeader64, SectionHeader64,
};
use object::pod::{from_bytes, slice_from_bytes};
use object::{Endianness, LittleEndian};

use super::CoreError;
use ground::arch::{ARCHITECTURES, ArchInfo};

/// Bytes of an ELF64 header and of one ELF64 program header.
const HEADER_BYTES: u64 = 64;
const PROGRAM_HEADER_BYTES: u64 = 56;

/// A `PT_LOAD` segment. Everything in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    /// First address.
    pub start: u64,
    /// Length in memory.
    pub memory_bytes: u64,
    /// Offset in the core.
    pub offset: u64,
    /// Length that the core promises; at most `memory_bytes`.
    pub file_bytes: u64,
    /// `p_flags`.
    pub flags: u32,
}

/// Most program headers that are read: the table may be a hole of a sparse file.
const MAX_HEADERS: u64 = 1 << 22;

/// A `PT_NOTE` segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoteSegment {
    pub offset: u64,
    pub bytes: u64,
    pub align: u64,
}

/// What the headers say.
#[derive(Debug)]
pub(super) struct Headers {
    pub arch: &'static ArchInfo,
    /// Sorted by address, without overlap.
    pub segments: Vec<Segment>,
    pub notes: Vec<NoteSegment>,
    /// The size that the file must have to hold all segments.
    pub expected_bytes: u64,
    pub diagnostics: Vec<String>,
}

/// The error for a file that begins with something else than the ELF magic.
pub(super) fn not_elf(path: &Path, start: &[u8]) -> CoreError {
    let path = path.to_owned();
    if start.is_empty() {
        return CoreError::Empty { path };
    }
    if start.len() < 4 && elf::ELFMAG.starts_with(start) {
        return CoreError::HeadersCut {
            path,
            part: "ELF header",
            bytes: start.len() as u64,
            needed: HEADER_BYTES,
        };
    }
    let sample = start.get(..512).unwrap_or(start);
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b | b' '..=b'~' | 0x80..);
    let what = match sample {
        [b'M', b'D', b'M', b'P', ..] => "a minidump",
        [b'B', b'Z', b'h', ..] => "packed with bzip2",
        _ if sample.iter().all(|byte| *byte == 0) => "zeros",
        _ if sample.iter().all(is_text) => "a text file",
        _ => "data",
    };
    CoreError::NotElf { path, what }
}

/// Reads the headers of a core.
pub(super) fn parse(data: &[u8], path: &Path) -> Result<Headers, CoreError> {
    if !data.starts_with(&elf::ELFMAG) {
        return Err(not_elf(path, data));
    }
    let cut = |part, needed| CoreError::HeadersCut {
        path: path.to_owned(),
        part,
        bytes: data.len() as u64,
        needed,
    };
    let arch = identify(data, path)?.ok_or_else(|| cut("ELF header", HEADER_BYTES))?;
    let endian = Endianness::Little;
    let (header, _) = from_bytes::<FileHeader64<Endianness>>(data)
        .map_err(|()| cut("ELF header", HEADER_BYTES))?;
    let entry_bytes = header.e_phentsize.get(endian);
    if u64::from(entry_bytes) != PROGRAM_HEADER_BYTES {
        return Err(CoreError::BadHeader {
            path: path.to_owned(),
            what: format!("program headers of {entry_bytes} bytes"),
        });
    }
    let mut diagnostics = Vec::new();
    let at = header.e_phoff.get(endian);
    let count = count_of_headers(data, header, endian, &mut diagnostics)
        .ok_or_else(|| cut("program headers", at.saturating_add(PROGRAM_HEADER_BYTES)))?;
    if count > MAX_HEADERS {
        diagnostics.push(format!(
            "of {count} program headers of the core the first {MAX_HEADERS} are read"
        ));
    }
    let count = count.min(MAX_HEADERS);
    if count == 0 {
        return Err(CoreError::BadHeader {
            path: path.to_owned(),
            what: "no program headers".to_owned(),
        });
    }
    let table = table(data, at, count).ok_or_else(|| {
        let bytes = PROGRAM_HEADER_BYTES.saturating_mul(count);
        cut("program headers", at.saturating_add(bytes))
    })?;
    let mut segments = Vec::new();
    let mut notes = Vec::new();
    for entry in table {
        match entry.p_type.get(endian) {
            PT_LOAD => segments.push(Segment {
                start: entry.p_vaddr.get(endian),
                memory_bytes: entry.p_memsz.get(endian),
                offset: entry.p_offset.get(endian),
                file_bytes: entry.p_filesz.get(endian),
                flags: entry.p_flags.get(endian).0,
            }),
            PT_NOTE => notes.push(NoteSegment {
                offset: entry.p_offset.get(endian),
                bytes: entry.p_filesz.get(endian),
                align: entry.p_align.get(endian),
            }),
            _ => {}
        }
    }
    sanitise(&mut segments, &mut diagnostics);
    let ends = segments
        .iter()
        .filter(|segment| segment.file_bytes > 0)
        .map(|segment| segment.offset.saturating_add(segment.file_bytes))
        .chain(
            notes
                .iter()
                .map(|note| note.offset.saturating_add(note.bytes)),
        );
    let expected_bytes = ends.max().unwrap_or(0);
    Ok(Headers {
        arch,
        segments,
        notes,
        expected_bytes,
        diagnostics,
    })
}

/// Refuses what is no core or no core that is read. `None` if the file ends before that can be told.
fn identify(data: &[u8], path: &Path) -> Result<Option<&'static ArchInfo>, CoreError> {
    let path = || path.to_owned();
    let (Some(class), Some(order), Some(abi), Some(kind), Some(machine)) = (
        data.get(4),
        data.get(5),
        data.get(7),
        data.get(16..18).and_then(|bytes| bytes.first_chunk::<2>()),
        data.get(18..20).and_then(|bytes| bytes.first_chunk::<2>()),
    ) else {
        return Ok(None);
    };
    let big = elf::DataEncoding(*order) == elf::ELFDATA2MSB;
    let number = |bytes: &[u8; 2]| {
        if big {
            u16::from_be_bytes(*bytes)
        } else {
            u16::from_le_bytes(*bytes)
        }
    };
    let (kind, machine) = (number(kind), number(machine));
    let kind = elf::FileType(kind);
    if kind != ET_CORE {
        let what = match kind {
            ET_EXEC => "an executable",
            ET_DYN if has_interpreter(data) => "an executable",
            ET_DYN => "a shared object",
            ET_REL => "an object file",
            _ => "another kind of ELF file",
        };
        return Err(CoreError::NotCore { path: path(), what });
    }
    match elf::FileClass(*class) {
        elf::ELFCLASS32 => return Err(CoreError::Class32 { path: path() }),
        elf::ELFCLASS64 => {}
        other => {
            return Err(CoreError::BadHeader {
                path: path(),
                what: format!("ELF class {}", other.0),
            });
        }
    }
    let foreign = |machine: String| CoreError::ForeignMachine {
        path: path(),
        machine,
        supported: ARCHITECTURES
            .iter()
            .map(|arch| arch.name)
            .collect::<Vec<_>>()
            .join(" or "),
    };
    if elf::OsAbi(*abi) == elf::ELFOSABI_FREEBSD {
        return Err(foreign("FreeBSD".to_owned()));
    }
    let arch = ArchInfo::of_elf(machine).filter(|arch| arch.little_endian != big);
    match arch {
        Some(arch) => Ok(Some(arch)),
        None => Err(foreign(machine_name(machine, big))),
    }
}

/// Whether an ELF64 little-endian file asks for a program interpreter: then it is an executable. For the error only.
fn has_interpreter(data: &[u8]) -> bool {
    let endian = Endianness::Little;
    let Ok((header, _)) = from_bytes::<FileHeader64<Endianness>>(data) else {
        return false;
    };
    let count = header.e_phnum.get(endian);
    table(data, header.e_phoff.get(endian), count.into()).is_some_and(|table| {
        table
            .iter()
            .any(|entry| entry.p_type.get(endian) == PT_INTERP)
    })
}

fn machine_name(machine: u16, big: bool) -> String {
    let name = match elf::Machine(machine) {
        elf::EM_386 => "i386",
        elf::EM_X86_64 => "amd64",
        elf::EM_ARM => "arm",
        EM_AARCH64 => "aarch64",
        elf::EM_PPC64 => "ppc64",
        elf::EM_S390 => "s390x",
        elf::EM_RISCV => "riscv64",
        elf::EM_MIPS => "mips64",
        elf::EM_LOONGARCH => "loongarch64",
        elf::EM_SPARCV9 => "sparc64",
        _ => return format!("machine {machine}"),
    };
    let order = if big { " (big-endian)" } else { "" };
    format!("{name}{order}")
}

/// The program headers, borrowed.
fn table(data: &[u8], at: u64, count: u64) -> Option<&[ProgramHeader64<Endianness>]> {
    let bytes = data.get(usize::try_from(at).ok()?..)?;
    let (table, _) = slice_from_bytes(bytes, usize::try_from(count).ok()?).ok()?;
    Some(table)
}

/// How many program headers there are.
///
/// With 65,535 and more, the number is in section header 0, which the kernel writes as the very last thing: a core that is
/// cut off has lost it. But the kernel writes the notes right behind the program headers, and the first program header says
/// where the notes are.
fn count_of_headers(
    data: &[u8],
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    diagnostics: &mut Vec<String>,
) -> Option<u64> {
    let short = header.e_phnum.get(endian);
    if short != PN_XNUM {
        return Some(short.into());
    }
    let at = header.e_phoff.get(endian);
    let fits = |count: u64| {
        let end = count.checked_mul(PROGRAM_HEADER_BYTES)?.checked_add(at)?;
        (end <= data.len() as u64).then_some(count)
    };
    let section = usize::try_from(header.e_shoff.get(endian))
        .ok()
        .filter(|at| *at != 0)
        .and_then(|at| data.get(at..))
        .and_then(|bytes| from_bytes::<SectionHeader64<Endianness>>(bytes).ok());
    if let Some(count) = section
        .map(|(section, _)| section.sh_info.get(endian).into())
        .filter(|count| *count >= u64::from(PN_XNUM))
        .and_then(fits)
    {
        return Some(count);
    }
    let first = table(data, at, 1)?.first()?;
    let notes = first.p_offset.get(endian);
    let bytes = notes.checked_sub(at)?;
    if first.p_type.get(endian) != PT_NOTE || !bytes.is_multiple_of(PROGRAM_HEADER_BYTES) {
        return None;
    }
    let count = bytes / PROGRAM_HEADER_BYTES;
    diagnostics.push(format!(
        "the number of segments ({count}) is cut off; it was taken from the place of the notes"
    ));
    Some(count)
}

/// Sorts segments, drops empty ones, and cuts what cannot be: a damaged length must not hide the segments after it.
fn sanitise(segments: &mut Vec<Segment>, diagnostics: &mut Vec<String>) {
    segments.retain(|segment| segment.memory_bytes > 0);
    segments.sort_by_key(|segment| segment.start);
    let mut damaged = 0u64;
    let mut next = u64::MAX;
    for segment in segments.iter_mut().rev() {
        let room = next.saturating_sub(segment.start);
        if segment.memory_bytes > room {
            segment.memory_bytes = room;
            damaged = damaged.saturating_add(1);
        }
        if segment.file_bytes > segment.memory_bytes {
            segment.file_bytes = segment.memory_bytes;
            damaged = damaged.saturating_add(1);
        }
        next = segment.start;
    }
    segments.retain(|segment| segment.memory_bytes > 0);
    if damaged > 0 {
        diagnostics.push(format!(
            "{damaged} program headers of the core contradict each other; lengths were cut to what is possible"
        ));
    }
}

const _: () = {
    // The layouts that the numbers above stand for.
    assert!(size_of::<FileHeader64<LittleEndian>>() as u64 == HEADER_BYTES);
    assert!(size_of::<ProgramHeader64<LittleEndian>>() as u64 == PROGRAM_HEADER_BYTES);
};
