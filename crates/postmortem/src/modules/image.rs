//! The ELF header and program headers of a module, from the dead process's memory or from a file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ground::target::{Address, MemoryExt, TargetMemory};
use object::Endianness;
use object::elf::{
    ELFMAG, ET_DYN, ET_EXEC, FileHeader64, NT_GNU_BUILD_ID, PT_DYNAMIC, PT_INTERP, PT_LOAD,
    PT_NOTE, ProgramHeader64, SHF_ALLOC, SHF_EXECINSTR, SHT_NOBITS,
};
use object::pod::{from_bytes, slice_from_bytes};
use object::read::elf::{FileHeader, NoteIterator, SectionHeader};

use super::ProgramHeader;
use crate::corefile::{FileView, Mapping};
use ground::arch::ArchInfo;

/// Bytes of an ELF64 header and of one ELF64 program header.
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
/// Most program headers that a module may have; real ones have a dozen.
const MAX_PROGRAM_HEADERS: usize = 1024;
/// Most bytes of notes that are read for a build ID.
const MAX_NOTE_BYTES: u64 = 1 << 16;
/// Most bytes that a module may span; more is damage.
const MAX_SPAN_BYTES: u64 = 1 << 40;
/// Build IDs are 20 bytes (SHA-1), 16 (MD5, UUID) or 8 (fast linkers); a hostile one may be anything.
const MAX_BUILD_ID_BYTES: usize = 64;

const FLAG_EXECUTE: u32 = 1;
const FLAG_WRITE: u32 = 2;

impl ProgramHeader {
    /// Whether this is a `PT_LOAD` header.
    pub fn is_load(&self) -> bool {
        self.kind == PT_LOAD.0
    }

    /// Whether the segment is writable.
    pub fn is_writable(&self) -> bool {
        self.flags & FLAG_WRITE != 0
    }

    /// Whether the segment is executable.
    pub fn is_executable(&self) -> bool {
        self.flags & FLAG_EXECUTE != 0
    }

    fn from_elf(header: &ProgramHeader64<Endianness>) -> Self {
        let endian = Endianness::Little; // all architectures that are read
        Self {
            kind: header.p_type.get(endian).0,
            flags: header.p_flags.get(endian).0,
            offset: header.p_offset.get(endian),
            address: header.p_vaddr.get(endian),
            file_bytes: header.p_filesz.get(endian),
            memory_bytes: header.p_memsz.get(endian),
            align: header.p_align.get(endian),
        }
    }
}

/// What the ELF header of a module leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Program headers in their order.
    pub headers: Vec<ProgramHeader>,
    /// The file has a fixed address (`ET_EXEC`).
    pub is_fixed: bool,
}

impl Head {
    /// A head from bare program headers.
    pub fn new(headers: Vec<ProgramHeader>) -> Self {
        Self {
            headers,
            is_fixed: false,
        }
    }

    /// Reads it from memory at `base`, where the file's first byte is mapped. `None` if no usable one is there.
    pub fn from_memory(memory: &dyn TargetMemory, base: Address, arch: &ArchInfo) -> Option<Head> {
        let header: [u8; HEADER_BYTES] = memory.read_bytes(base).ok()?;
        let (at, count, is_fixed) = parse_header(&header, arch)?;
        let headers = program_headers_in_memory(memory, base.checked_add(at)?, count)?;
        Some(Head { headers, is_fixed }).filter(Head::is_plausible)
    }

    /// Reads it from a file's bytes.
    pub fn from_file(data: &[u8], arch: &ArchInfo) -> Option<Head> {
        let (at, count, is_fixed) = parse_header(data.first_chunk()?, arch)?;
        let bytes = data.get(usize::try_from(at).ok()?..)?;
        let (headers, _) = slice_from_bytes::<ProgramHeader64<Endianness>>(bytes, count).ok()?;
        let headers = headers.iter().map(ProgramHeader::from_elf).collect();
        Some(Head { headers, is_fixed }).filter(Head::is_plausible)
    }

    /// The `PT_LOAD` headers.
    pub fn loads(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.headers.iter().filter(|header| header.is_load())
    }

    /// The first program header of this type.
    pub fn find(&self, kind: object::elf::ProgramType) -> Option<&ProgramHeader> {
        self.headers.iter().find(|header| header.kind == kind.0)
    }

    /// The link address of the file's first byte, whether it is loaded or only would be (wrapping).
    ///
    /// This, and never a section's address, gives the bias: prelink and separate debug files disagree about the latter.
    pub fn first_byte(&self) -> Option<u64> {
        let load = self.loads().min_by_key(|load| load.offset)?;
        Some(load.address.wrapping_sub(load.offset))
    }

    /// Link addresses from the lowest segment to the end of the highest.
    pub fn span(&self) -> Option<(u64, u64)> {
        let start = self.loads().map(|load| load.address).min()?;
        let end = self
            .loads()
            .map(|load| load.address.saturating_add(load.memory_bytes))
            .max()?;
        Some((start, end))
    }

    /// Whether there is something to load, of a size that can be.
    fn is_plausible(&self) -> bool {
        self.span().is_some_and(|(start, end)| {
            end.checked_sub(start)
                .is_some_and(|bytes| (1..=MAX_SPAN_BYTES).contains(&bytes))
        })
    }

    /// Whether two heads load the same things at the same places. Offsets in the file may differ: a debug file keeps them,
    /// but strip may move them.
    pub fn loads_like(&self, other: &Head) -> bool {
        let key = |load: &ProgramHeader| (load.address, load.memory_bytes, load.flags);
        self.loads().map(key).eq(other.loads().map(key))
    }

    /// Whether its dynamic section is at this link address.
    pub fn has_dynamic_at(&self, at: u64) -> bool {
        self.find(PT_DYNAMIC)
            .is_some_and(|header| header.address == at)
    }

    /// The build ID in the notes of a loaded module.
    pub fn build_id_in_memory(&self, memory: &dyn TargetMemory, bias: u64) -> Option<Vec<u8>> {
        self.notes().find_map(|note| {
            let bytes = usize::try_from(note.memory_bytes.min(MAX_NOTE_BYTES)).ok()?;
            let mut notes = vec![0; bytes];
            let at = Address::new(note.address.wrapping_add(bias));
            memory.read_into(at, &mut notes).ok()?;
            build_id_in_notes(&notes, note.align)
        })
    }

    /// The build ID in the notes of a file.
    fn build_id_in_file(&self, data: &[u8]) -> Option<Vec<u8>> {
        self.notes().find_map(|note| {
            let start = usize::try_from(note.offset).ok()?;
            let bytes = usize::try_from(note.file_bytes.min(MAX_NOTE_BYTES)).ok()?;
            build_id_in_notes(data.get(start..start.checked_add(bytes)?)?, note.align)
        })
    }

    fn notes(&self) -> impl Iterator<Item = &ProgramHeader> {
        self.headers
            .iter()
            .filter(|header| header.kind == PT_NOTE.0)
    }
}

/// `e_phoff`, `e_phnum` and whether the address is fixed, of an executable or shared object of this architecture.
fn parse_header(header: &[u8; HEADER_BYTES], arch: &ArchInfo) -> Option<(u64, usize, bool)> {
    let endian = Endianness::Little;
    let is_64_bit_little_endian = matches!(header, [_, _, _, _, 2, 1, ..]);
    let (header, _) = from_bytes::<FileHeader64<Endianness>>(header).ok()?;
    let kind = header.e_type.get(endian);
    let count = usize::from(header.e_phnum.get(endian));
    let is_usable = header.e_ident.magic == ELFMAG
        && is_64_bit_little_endian
        && header.e_machine.get(endian).0 == arch.elf_machine
        && (kind == ET_DYN || kind == ET_EXEC)
        && usize::from(header.e_phentsize.get(endian)) == PROGRAM_HEADER_BYTES
        && (1..=MAX_PROGRAM_HEADERS).contains(&count);
    is_usable.then_some((header.e_phoff.get(endian), count, kind == ET_EXEC))
}

/// `count` program headers at `at` in memory. Not for counts that were not checked.
pub(super) fn program_headers_in_memory(
    memory: &dyn TargetMemory,
    at: Address,
    count: usize,
) -> Option<Vec<ProgramHeader>> {
    if count > MAX_PROGRAM_HEADERS {
        return None;
    }
    let mut bytes = vec![0; count.checked_mul(PROGRAM_HEADER_BYTES)?];
    memory.read_into(at, &mut bytes).ok()?;
    let (headers, _) = slice_from_bytes::<ProgramHeader64<Endianness>>(&bytes, count).ok()?;
    Some(headers.iter().map(ProgramHeader::from_elf).collect())
}

fn build_id_in_notes(notes: &[u8], align: u64) -> Option<Vec<u8>> {
    let endian = Endianness::Little;
    let align = if align == 8 { 8 } else { 4 };
    let notes = NoteIterator::<FileHeader64<Endianness>>::new(endian, align, notes).ok()?;
    let mut ids = notes.map_while(Result::ok).filter_map(|note| {
        let is_id = note.name() == b"GNU" && note.n_type(endian) == NT_GNU_BUILD_ID;
        let id = note.desc();
        let is_sane = !id.is_empty() && id.len() <= MAX_BUILD_ID_BYTES;
        (is_id && is_sane).then(|| id.to_vec())
    });
    ids.next()
}

/// An ELF file on this machine.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub path: PathBuf,
    pub mapping: Arc<Mapping>,
    pub head: Head,
    pub build_id: Option<Vec<u8>>,
    /// Link address of its entry point.
    pub entry: u64,
    /// A separate debug file: it has the headers of the image but not its contents.
    pub is_debug_only: bool,
}

impl Image {
    /// Opens an executable or shared object. `None` if there is none at `path`, or one of another architecture.
    pub fn open(path: &Path, arch: &ArchInfo) -> Option<Image> {
        let mapping = Mapping::open(path).ok()?;
        let head = Head::from_file(mapping.bytes(), arch)?;
        Some(Image {
            path: path.to_owned(),
            entry: entry(mapping.bytes())?,
            build_id: head
                .build_id_in_file(mapping.bytes())
                .or_else(|| build_id_in_sections(mapping.bytes())),
            is_debug_only: is_debug_only(mapping.bytes()),
            head,
            mapping: Arc::new(mapping),
        })
    }

    /// The path of the dynamic linker that it asks for.
    pub fn interpreter(&self) -> Option<String> {
        let header = self.head.find(PT_INTERP)?;
        let start = usize::try_from(header.offset).ok()?;
        let bytes = usize::try_from(header.file_bytes.min(MAX_NOTE_BYTES)).ok()?;
        let path = self.mapping.bytes().get(start..start.checked_add(bytes)?)?;
        let path = path.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(path).into_owned())
    }

    /// The whole file.
    pub fn view(&self) -> FileView {
        FileView::whole(Arc::clone(&self.mapping))
    }
}

/// `e_entry`.
fn entry(data: &[u8]) -> Option<u64> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    Some(header.e_entry(header.endian().ok()?))
}

/// The build ID in a file's note sections: separate debug files of some tools have no usable program headers.
pub(super) fn build_id_in_sections(data: &[u8]) -> Option<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, data).ok()?;
    sections.iter().find_map(|section| {
        let mut notes = section.notes(endian, data).ok()??;
        while let Ok(Some(note)) = notes.next() {
            let id = note.desc();
            if note.name() == b"GNU"
                && note.n_type(endian) == NT_GNU_BUILD_ID
                && (1..=MAX_BUILD_ID_BYTES).contains(&id.len())
            {
                return Some(id.to_vec());
            }
        }
        None
    })
}

/// Whether a file's code sections have no contents (`objcopy --only-keep-debug`).
fn is_debug_only(data: &[u8]) -> bool {
    let code_is_empty = || {
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let sections = header.sections(endian, data).ok()?;
        let code = sections.iter().filter(|section| {
            let flags = section.sh_flags(endian);
            flags.contains(SHF_ALLOC) && flags.contains(SHF_EXECINSTR)
        });
        let mut kinds = code.map(|section| section.sh_type(endian)).peekable();
        kinds.peek()?;
        Some(kinds.all(|kind| kind == SHT_NOBITS))
    };
    code_is_empty().unwrap_or(false)
}
