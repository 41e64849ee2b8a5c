//! The notes of a core: threads, process, signal, auxiliary vector, file mappings.
//!
//! The kernel writes, in this order (fs/binfmt_elf.c, `fill_note_info`): `PRSTATUS` of the thread that died, `PRPSINFO`,
//! `SIGINFO`, `AUXV`, `FILE`, that thread's other register sets, and then `PRSTATUS` and register sets of every other
//! thread. gdb's gcore begins with the selected thread and gives each thread a `SIGINFO` of its own. qemu's guest cores have
//! no `SIGINFO` and no `FILE`. Every note is optional here.

mod records;

use std::collections::HashSet;
use std::ops::Range;

use ground::target::{Address, RegisterSet, Thread};
use object::elf::{
    self, NT_AUXV, NT_FILE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO, NT_X86_XSTATE,
    NoteType,
};

use self::records::Records;
use super::headers::{Headers, NoteSegment};
use super::process::{MappedFile, Process, SignalInfo, forked};
use ground::arch::{ArchInfo, SystemCall, ThreadPointer};

/// Most threads that are read: Linux has no more in a process on most machines (`vm.max_map_count`: two mappings each).
const MAX_THREADS: usize = 1 << 16;
/// Most bytes of notes that are read: what so many threads have.
const MAX_NOTE_BYTES: u64 = 1 << 30;

/// What the notes say.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The thread that died first, the others as they stand in the core.
    pub threads: Vec<Thread>,
    /// Where in the core each thread's `NT_FPREGSET` is; parallel to `threads`.
    pub fp_registers: Vec<Option<Range<usize>>>,
    /// Where each thread's extended state is (`NT_X86_XSTATE`); parallel to `threads`.
    pub extended: Vec<Option<Range<usize>>>,
    /// The bits of a pointer to code that are address, where a note says.
    pub code_mask: Option<u64>,
    pub process: Process,
    pub signal: Option<SignalInfo>,
    pub auxv: Vec<(u64, u64)>,
    /// Sorted by address, without overlap.
    pub files: Vec<MappedFile>,
    /// Bytes of a page as `NT_FILE` counts them.
    pub file_page_bytes: Option<u64>,
    /// `NT_SIGINFO` of each thread that has one, by its index.
    signals: Vec<(usize, SignalInfo)>,
    /// Status notes that are too short to be a thread's.
    short_threads: usize,
    /// Status notes beyond [`MAX_THREADS`].
    further_threads: usize,
    /// Notes were lost: threads, files and signals may be missing.
    pub is_damaged: bool,
    pub diagnostics: Vec<String>,
}

/// A word in a note, by its offset in bytes.
#[derive(Clone, Copy)]
struct Words<'d> {
    bytes: &'d [u8],
    little_endian: bool,
}

impl<'d> Words<'d> {
    fn field<const N: usize>(self, at: usize) -> Option<&'d [u8; N]> {
        self.bytes.get(at..)?.first_chunk::<N>()
    }

    fn u16(self, at: u16) -> Option<u16> {
        let bytes = *self.field(at.into())?;
        Some(match self.little_endian {
            true => u16::from_le_bytes(bytes),
            false => u16::from_be_bytes(bytes),
        })
    }

    fn u32(self, at: u16) -> Option<u32> {
        let bytes = *self.field(at.into())?;
        Some(match self.little_endian {
            true => u32::from_le_bytes(bytes),
            false => u32::from_be_bytes(bytes),
        })
    }

    fn i32(self, at: u16) -> Option<i32> {
        self.u32(at).map(u32::cast_signed)
    }

    fn u64(self, at: usize) -> Option<u64> {
        let bytes = *self.field(at)?;
        Some(match self.little_endian {
            true => u64::from_le_bytes(bytes),
            false => u64::from_be_bytes(bytes),
        })
    }

    /// A text of at most `limit` bytes that ends at the first NUL.
    fn text(self, at: u16, limit: usize) -> Option<String> {
        let bytes = self.bytes.get(usize::from(at)..)?;
        let bytes = bytes.get(..limit).unwrap_or(bytes);
        let text = bytes.split(|byte| *byte == 0).next()?;
        let text = String::from_utf8_lossy(text).trim_end().to_owned();
        (!text.is_empty()).then_some(text)
    }
}

/// Reads all notes of a core.
pub(super) fn parse(data: &[u8], headers: &Headers) -> Notes {
    let mut notes = Notes::default();
    let mut room = MAX_NOTE_BYTES;
    for segment in &headers.notes {
        let read = NoteSegment {
            bytes: segment.bytes.min(room),
            ..*segment
        };
        if read.bytes < segment.bytes {
            notes.is_damaged = true;
            notes.diagnostics.push(format!(
                "{} bytes of notes are beyond the {MAX_NOTE_BYTES} that are read",
                segment.bytes.saturating_sub(read.bytes)
            ));
        }
        notes.read_segment(data, &read, headers);
        room = room.saturating_sub(read.bytes);
    }
    notes.finish();
    notes
}

impl Notes {
    fn read_segment(&mut self, data: &[u8], segment: &NoteSegment, headers: &Headers) {
        let range = usize::try_from(segment.offset).ok().and_then(|start| {
            let bytes = usize::try_from(segment.bytes).ok()?;
            let end = start.checked_add(bytes)?.min(data.len());
            data.get(start..end).map(|bytes| (start, bytes))
        });
        let Some((start, bytes)) = range else {
            self.is_damaged = true;
            self.diagnostics
                .push("the notes of the core are cut off".to_owned());
            return;
        };
        // Core notes are aligned to 4 whatever `p_align` says (0 in older kernels, 1 from gdb); 8 is legal all the same.
        let align = if segment.align == 8 { 8 } else { 4 };
        let little_endian = headers.arch.little_endian;
        let mut records = Records::new(bytes, little_endian, align);
        for record in records.by_ref() {
            if record.name != elf::ELF_NOTE_CORE && record.name != elf::ELF_NOTE_LINUX {
                continue;
            }
            let Some(descriptor) = bytes.get(record.descriptor.clone()) else {
                continue;
            };
            let words = Words {
                bytes: descriptor,
                little_endian,
            };
            // Where the descriptor lies in the core.
            let at = start.checked_add(record.descriptor.start);
            self.read_note(NoteType(record.kind), words, at, headers.arch);
        }
        if records.damaged > 0 {
            self.is_damaged = true;
            self.diagnostics.push(format!(
                "the notes of the core are cut off or damaged at {} places; what stands behind was looked for",
                records.damaged
            ));
        }
    }

    fn read_note(
        &mut self,
        kind: NoteType,
        words: Words<'_>,
        at: Option<usize>,
        arch: &'static ArchInfo,
    ) {
        match kind {
            NT_PRSTATUS => self.read_thread(words, arch),
            NT_PRPSINFO => self.read_process(words, arch),
            NT_SIGINFO => {
                if let Some(signal) = signal_info(words) {
                    let thread = self.threads.len().saturating_sub(1);
                    self.signals.push((thread, signal));
                }
            }
            NT_AUXV => self.read_auxv(words),
            NT_FILE => self.read_files(words),
            NT_FPREGSET => {
                let range = at.and_then(|at| Some(at..at.checked_add(words.bytes.len())?));
                if let Some(last) = self.fp_registers.last_mut() {
                    *last = range;
                }
            }
            NT_X86_XSTATE if arch.elf_machine == object::elf::EM_X86_64.0 => {
                let range = at.and_then(|at| Some(at..at.checked_add(words.bytes.len())?));
                if let Some(last) = self.extended.last_mut() {
                    *last = range;
                }
            }
            NoteType(other) if arch.code_mask_note == Some(other) => {
                // A mask of pointers to data, a mask of pointers to code.
                self.code_mask = words.u64(8).map(|signature| !signature);
            }
            NoteType(other) => {
                if arch.thread_pointer == ThreadPointer::Note(other)
                    && let (Some(thread), Some(value)) = (self.threads.last_mut(), words.u64(0))
                {
                    thread.thread_pointer = Some(Address::new(value));
                }
            }
        }
    }

    fn read_thread(&mut self, words: Words<'_>, arch: &'static ArchInfo) {
        let layout = &arch.prstatus;
        let word = |index: u16| {
            let bytes = usize::from(index).checked_mul(8)?;
            words.u64(bytes.checked_add(layout.registers.into())?)
        };
        let is_whole = arch
            .registers
            .iter()
            .all(|register| word(register.word).is_some());
        let Some(tid) = words.u32(layout.tid).filter(|_| is_whole) else {
            self.short_threads = self.short_threads.saturating_add(1);
            return;
        };
        if self.threads.len() >= MAX_THREADS {
            self.further_threads = self.further_threads.saturating_add(1);
            return;
        }
        let mut registers = RegisterSet::empty();
        for register in arch.registers {
            if let Some(value) = word(register.word) {
                registers.set(register.dwarf, value);
            }
        }
        let thread_pointer = match arch.thread_pointer {
            ThreadPointer::Word(index) => word(index).map(Address::new),
            ThreadPointer::Note(_) => None, // its note follows
        };
        // -1 outside of any.
        let system_call = match arch.system_call {
            SystemCall::Word(index) => word(index),
            _ => None,
        }
        .filter(|number| *number != u64::MAX);
        // gdb fills neither.
        let is_of_the_kernel = words.u32(layout.group).is_some_and(|group| group != 0);
        let blocked_signals = words
            .u64(layout.blocked_signals.into())
            .filter(|_| is_of_the_kernel);
        self.threads.push(Thread {
            tid,
            name: None,
            pc: Address::new(registers.get(arch.pc).unwrap_or(0)),
            sp: Address::new(registers.get(arch.sp).unwrap_or(0)),
            thread_pointer,
            registers,
            signal: words.u16(layout.signal).map_or(0, i32::from),
            system_call,
            blocked_signals,
        });
        self.fp_registers.push(None);
        self.extended.push(None);
    }

    fn read_process(&mut self, words: Words<'_>, arch: &'static ArchInfo) {
        let layout = &arch.prpsinfo;
        self.process = Process {
            pid: words.u32(layout.pid),
            parent_pid: words.u32(layout.ppid),
            forked: words.u64(layout.flags.into()).and_then(forked),
            uid: words.u32(layout.uid),
            gid: words.u32(layout.gid),
            name: words.text(layout.name, 16),
            arguments: words.text(layout.arguments, 80),
        };
    }

    fn read_auxv(&mut self, words: Words<'_>) {
        let entries = (0..words.bytes.len())
            .step_by(16)
            .map_while(|at| Some((words.u64(at)?, words.u64(at.checked_add(8)?)?)))
            .take_while(|(tag, _)| *tag != 0); // AT_NULL
        self.auxv = entries.collect();
    }

    /// `NT_FILE` (fs/binfmt_elf.c, `fill_files_note`): count, page size, then start, end and offset in pages of each mapping,
    /// then their paths, each with a NUL.
    fn read_files(&mut self, words: Words<'_>) {
        let (Some(count), Some(page_bytes)) = (words.u64(0), words.u64(8)) else {
            return;
        };
        self.file_page_bytes = Some(page_bytes);
        let names_at = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(24)?.checked_add(16));
        let Some(names) = names_at.and_then(|at| words.bytes.get(at..)) else {
            self.diagnostics
                .push("the list of mapped files in the core is damaged; it is left out".to_owned());
            return;
        };
        let entries = (16..).step_by(24).map_while(|at: usize| {
            let start = words.u64(at)?;
            let end = words.u64(at.checked_add(8)?)?;
            let pages = words.u64(at.checked_add(16)?)?;
            Some((start, end, pages))
        });
        let files = entries
            .zip(names.split(|byte| *byte == 0))
            .take(usize::try_from(count).unwrap_or(0))
            .filter_map(|((start, end, pages), path)| {
                Some(MappedFile {
                    start: Address::new(start),
                    end: Address::new(end),
                    file_offset: pages.checked_mul(page_bytes)?,
                    path: String::from_utf8_lossy(path).into_owned(),
                })
            });
        self.files.extend(files);
    }

    /// One thread has one status: of two with one id, or with one thread pointer, the first counts.
    fn join_threads(&mut self) {
        let (mut ids, mut pointers) = (HashSet::new(), HashSet::new());
        let is_kept: Vec<bool> = self
            .threads
            .iter()
            .map(|thread| {
                let pointer = thread.thread_pointer.filter(|at| !at.is_null());
                let is_known = ids.contains(&thread.tid)
                    || pointer.is_some_and(|pointer| pointers.contains(&pointer));
                if !is_known {
                    ids.insert(thread.tid);
                    pointers.extend(pointer);
                }
                !is_known
            })
            .collect();
        let dropped = is_kept.iter().filter(|is_kept| !**is_kept).count();
        if dropped > 0 {
            let mut places = Vec::with_capacity(is_kept.len());
            let mut next = 0usize;
            for is_kept in &is_kept {
                places.push(is_kept.then_some(next));
                next = next.saturating_add(usize::from(*is_kept));
            }
            let mut kept = is_kept.iter();
            self.threads.retain(|_| kept.next() == Some(&true));
            let mut kept = is_kept.iter();
            self.fp_registers.retain(|_| kept.next() == Some(&true));
            let mut kept = is_kept.iter();
            self.extended.retain(|_| kept.next() == Some(&true));
            self.signals.retain_mut(|(thread, _)| {
                let place = places.get(*thread).copied().flatten();
                *thread = place.unwrap_or(0);
                place.is_some()
            });
        }
        for (count, what) in [
            (dropped, "name a thread that another one has named"),
            (self.short_threads, "are too short to be a thread's"),
            (
                self.further_threads,
                "are beyond the 65,536 threads that are read",
            ),
        ] {
            if count > 0 {
                self.is_damaged = true;
                self.diagnostics
                    .push(format!("{count} status notes {what}; they are left out"));
            }
        }
    }

    /// What only all notes together tell.
    fn finish(&mut self) {
        self.join_threads();
        self.files.sort_by_key(|file| file.start);
        let mut next = Address::new(u64::MAX);
        for file in self.files.iter_mut().rev() {
            file.end = file.end.min(next);
            next = file.start;
        }
        self.files
            .retain(|file| file.start < file.end && !file.path.is_empty());

        // The kernel puts the dying thread first and writes one SIGINFO. gdb writes one for every thread, and the thread
        // that the user looked at comes first: there the one with a signal of a crash is it.
        let crashed = self
            .signals
            .iter()
            .find(|(_, signal)| signal.is_crash())
            .or(self.signals.first())
            .copied();
        self.signal = crashed.map(|(_, signal)| signal);
        let was_alive = self.signal.is_some_and(|signal| signal.is_stop());
        if let Some((index, _)) = crashed
            && index > 0
            && index < self.threads.len()
        {
            if let Some(first) = self.threads.get_mut(..=index) {
                first.rotate_right(1);
            }
            for registers in [&mut self.fp_registers, &mut self.extended] {
                if let Some(first) = registers.get_mut(..=index) {
                    first.rotate_right(1);
                }
            }
        }
        if was_alive {
            self.signal = None;
        } else if self.signal.is_none() {
            let signal = self.threads.first().map_or(0, |thread| thread.signal);
            self.signal = (signal != 0).then_some(SignalInfo {
                signal,
                code: None,
                fault_address: None,
                sender: None,
            });
        }
        // The kernel writes the name of the thread group's leader, and of no other thread.
        let leader = self.process.pid;
        for thread in &mut self.threads {
            if Some(thread.tid) == leader {
                thread.name.clone_from(&self.process.name);
            }
        }
    }
}

impl SignalInfo {
    /// Reads a `siginfo_t`, as the kernel writes it into notes and onto the stack of a handler.
    pub fn parse(bytes: &[u8], little_endian: bool) -> Option<Self> {
        signal_info(Words {
            bytes,
            little_endian,
        })
    }
}

/// `siginfo_t` of 64-bit Linux: number +0, errno +4, code +8; then, by kind, the fault's address +16, or the sender's
/// process +16 and user +20.
fn signal_info(words: Words<'_>) -> Option<SignalInfo> {
    let signal = words.i32(0)?;
    let code = words.i32(8)?;
    let mut info = SignalInfo {
        signal,
        code: Some(code),
        fault_address: None,
        sender: None,
    };
    if info.has_address() {
        info.fault_address = words.u64(16).map(Address::new);
    } else if info.has_sender() {
        info.sender = words.u32(16).zip(words.u32(20));
    }
    Some(info)
}
