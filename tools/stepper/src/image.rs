//! A core file of the stepped process, kept true by writing what changes instead of all of it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use crate::process::{Process, Registers};

/// What an instruction's write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The memory holds what it held.
    Same,
    /// It holds something else.
    Other,
    /// It is in no known mapping.
    Nowhere,
}

/// A part of the process's memory and where its bytes stand in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Segment {
    start: u64,
    end: u64,
    /// Bytes of it in the file, from its start.
    kept: u64,
    offset: u64,
    flags: u32,
}

/// A mapping of a file, for the note.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MappedFile {
    start: u64,
    end: u64,
    page: u64,
    name: String,
}

/// The core file.
pub struct Image {
    path: PathBuf,
    file: File,
    segments: Vec<Segment>,
    files: Vec<MappedFile>,
    /// How often the mappings of files were others than before.
    generation: u64,
    /// Where each thread's registers stand in the file.
    statuses: Vec<(Pid, u64)>,
}

const PAGE: u64 = 4096;
/// `struct elf_prstatus` of x86-64: its size, and where pid and registers are.
const PRSTATUS_BYTES: usize = 336;
const PRSTATUS_PID: usize = 32;
const PRSTATUS_REGISTERS: u64 = 112;
const NT_PRSTATUS: u32 = 1;
const NT_AUXV: u32 = 6;
const NT_FILE: u32 = 0x4649_4c45;

impl Image {
    /// Writes a core file of a stopped process.
    ///
    /// # Errors
    /// If the process cannot be read or the file not be written.
    pub fn new(path: &Path, process: &Process) -> io::Result<Self> {
        let mut image = Self {
            path: path.to_owned(),
            file: File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)?,
            segments: Vec::new(),
            files: Vec::new(),
            generation: 0,
            statuses: Vec::new(),
        };
        image.rebuild(process)?;
        Ok(image)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number that changes with the mappings of files.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes it anew: mappings, threads, all memory.
    ///
    /// # Errors
    /// If the process cannot be read or the file not be written.
    pub fn rebuild(&mut self, process: &Process) -> io::Result<()> {
        let pid = process.pid();
        let (mut segments, files) = mappings(process)?;
        let mut notes = Vec::new();
        let mut statuses = Vec::new();
        for &thread in process.threads() {
            let at = note(&mut notes, NT_PRSTATUS, &status_of(thread));
            statuses.push((thread, at + PRSTATUS_REGISTERS));
        }
        note(
            &mut notes,
            NT_AUXV,
            &std::fs::read(format!("/proc/{pid}/auxv"))?,
        );
        note(&mut notes, NT_FILE, &file_note(&files));

        let headers = 64 + 56 * (segments.len() as u64 + 1);
        let mut offset = (headers + notes.len() as u64).next_multiple_of(PAGE);
        let mut head = elf_header(segments.len() as u16 + 1);
        program_header(&mut head, 4, 0, headers, 0, notes.len() as u64, 0);
        for segment in &mut segments {
            segment.offset = offset;
            offset += segment.kept;
            let bytes = segment.end - segment.start;
            program_header(
                &mut head,
                1,
                segment.flags,
                segment.offset,
                segment.start,
                segment.kept,
                bytes,
            );
        }
        head.extend_from_slice(&notes);
        self.file.set_len(offset)?;
        self.file.write_all_at(&head, 0)?;
        self.statuses = statuses
            .into_iter()
            .map(|(thread, at)| (thread, at + headers))
            .collect();
        let kept_of_files = |segments: &[Segment]| -> Vec<(u64, u64)> {
            let of_file = |segment: &&Segment| files.iter().any(|it| it.start == segment.start);
            let segments = segments.iter().filter(of_file);
            segments.map(|it| (it.start, it.kept)).collect()
        };
        if self.files != files || kept_of_files(&self.segments) != kept_of_files(&segments) {
            self.generation += 1;
        }
        self.segments = segments;
        self.files = files;
        let mut bytes = Vec::new();
        for segment in &self.segments {
            bytes.resize(segment.kept as usize, 0);
            if process.read(segment.start, &mut bytes).is_err() {
                bytes.fill(0);
            }
            self.file.write_all_at(&bytes, segment.offset)?;
        }
        self.refresh_registers(process)
    }

    /// Copies memory that may have changed.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn refresh(&mut self, process: &Process, range: &Range<u64>) -> io::Result<Written> {
        let Some(segment) = self.segment_at(range.start) else {
            return Ok(Written::Nowhere);
        };
        let end = range.end.min(segment.start + segment.kept);
        let mut bytes = vec![0; end.saturating_sub(range.start) as usize];
        if end != range.end || process.read(range.start, &mut bytes).is_err() {
            return Ok(Written::Nowhere);
        }
        let offset = segment.offset + (range.start - segment.start);
        let mut before = vec![0; bytes.len()];
        self.file.read_exact_at(&mut before, offset)?;
        if before == bytes {
            return Ok(Written::Same);
        }
        self.file.write_all_at(&bytes, offset)?;
        Ok(Written::Other)
    }

    /// Copies the registers of all threads.
    ///
    /// # Errors
    /// If a thread is not stopped or the file cannot be written.
    pub fn refresh_registers(&self, process: &Process) -> io::Result<()> {
        for &(thread, at) in &self.statuses {
            if process.threads().contains(&thread) {
                let bytes = register_bytes(&process.registers(thread)?);
                self.file.write_all_at(&bytes, at)?;
            }
        }
        Ok(())
    }

    /// Whether an address is on the stack of a thread with these registers, below what glibc keeps
    /// at the stack's upper end.
    pub fn is_stack(&self, at: u64, registers: &Registers) -> bool {
        /// Thread descriptor, thread-local variables of all libraries.
        const UPPER_END: u64 = 32 << 10;
        let Some(segment) = self.segment_at(registers.rsp) else {
            return false;
        };
        let own_descriptor = (segment.start..segment.end).contains(&registers.fs_base);
        let end = if own_descriptor {
            registers.fs_base.saturating_sub(UPPER_END)
        } else {
            segment.end
        };
        (segment.start..end).contains(&at)
    }

    fn segment_at(&self, at: u64) -> Option<&Segment> {
        let index = self.segments.partition_point(|segment| segment.start <= at);
        let segment = self.segments.get(index.checked_sub(1)?)?;
        (at < segment.start + segment.kept).then_some(segment)
    }
}

/// Mappings as the kernel would dump them: what may have been written, and the first page of each
/// ELF file.
fn mappings(process: &Process) -> io::Result<(Vec<Segment>, Vec<MappedFile>)> {
    let text = std::fs::read_to_string(format!("/proc/{}/maps", process.pid()))?;
    let mut segments = Vec::new();
    let mut files = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let range = words.next().and_then(|range| range.split_once('-'));
        let hex = |text: &str| u64::from_str_radix(text, 16).ok();
        let (Some((start, end)), Some(mode)) = (range, words.next()) else {
            continue;
        };
        let offset = words.next().and_then(hex).unwrap_or(0);
        let name = words.nth(2).unwrap_or("");
        let (Some(start), Some(end)) = (hex(start), hex(end)) else {
            continue;
        };
        if matches!(name, "[vvar]" | "[vsyscall]" | "[vvar_vclock]") {
            continue;
        }
        let is_file = name.starts_with('/');
        let letters = [('r', 4), ('w', 2), ('x', 1)];
        let flags = letters.iter().filter(|(letter, _)| mode.contains(*letter));
        let flags: u32 = flags.map(|(_, flag)| flag).sum();
        let kept = match (mode.contains('r'), is_file && !mode.contains('w')) {
            (false, _) => 0,
            (true, false) => end - start,
            // Relocated data is read-only now and differs from the file.
            (true, true) if offset == 0 => PAGE,
            (true, true) if was_written(process, start) => end - start,
            (true, true) => 0,
        };
        segments.push(Segment {
            start,
            end,
            kept,
            offset: 0,
            flags,
        });
        if is_file {
            files.push(MappedFile {
                start,
                end,
                page: offset / PAGE,
                name: name.to_owned(),
            });
        }
    }
    Ok((segments, files))
}

/// Whether a private mapping of a file has pages of its own (`RELRO`), which a core holds.
fn was_written(process: &Process, start: u64) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{}/smaps", process.pid())) else {
        return false;
    };
    let head = format!("{start:x}-");
    text.lines()
        .skip_while(|line| !line.trim_start_matches('0').starts_with(&head))
        .find_map(|line| line.strip_prefix("Anonymous:"))
        .is_some_and(|amount| amount.trim() != "0 kB")
}

fn elf_header(program_headers: u16) -> Vec<u8> {
    let mut head = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    head.resize(16, 0);
    head.extend_from_slice(&4u16.to_le_bytes()); // ET_CORE
    head.extend_from_slice(&62u16.to_le_bytes()); // EM_X86_64
    head.extend_from_slice(&1u32.to_le_bytes());
    for word in [0u64, 64, 0] {
        head.extend_from_slice(&word.to_le_bytes());
    }
    head.extend_from_slice(&0u32.to_le_bytes());
    for half in [64, 56, program_headers, 0, 0, 0] {
        head.extend_from_slice(&half.to_le_bytes());
    }
    head
}

fn program_header(
    head: &mut Vec<u8>,
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    kept: u64,
    bytes: u64,
) {
    head.extend_from_slice(&kind.to_le_bytes());
    head.extend_from_slice(&flags.to_le_bytes());
    for word in [offset, address, 0, kept, bytes, 1] {
        head.extend_from_slice(&word.to_le_bytes());
    }
}

/// Appends a note; where its descriptor begins.
fn note(notes: &mut Vec<u8>, kind: u32, descriptor: &[u8]) -> u64 {
    notes.extend_from_slice(&5u32.to_le_bytes());
    notes.extend_from_slice(&(descriptor.len() as u32).to_le_bytes());
    notes.extend_from_slice(&kind.to_le_bytes());
    notes.extend_from_slice(b"CORE\0\0\0\0");
    let at = notes.len() as u64;
    notes.extend_from_slice(descriptor);
    notes.resize(notes.len().next_multiple_of(4), 0);
    at
}

fn status_of(thread: Pid) -> [u8; PRSTATUS_BYTES] {
    let mut status = [0; PRSTATUS_BYTES];
    status[PRSTATUS_PID..PRSTATUS_PID + 4].copy_from_slice(&thread.as_raw().to_le_bytes());
    status
}

fn register_bytes(registers: &Registers) -> Vec<u8> {
    let r = registers;
    let words = [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx,
        r.rsi, r.rdi, r.orig_rax, r.rip, r.cs, r.eflags, r.rsp, r.ss, r.fs_base, r.gs_base, r.ds,
        r.es, r.fs, r.gs,
    ];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn file_note(files: &[MappedFile]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in [files.len() as u64, PAGE] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for file in files {
        for word in [file.start, file.end, file.page] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    for file in files {
        bytes.extend_from_slice(file.name.as_bytes());
        bytes.push(0);
    }
    bytes
}
