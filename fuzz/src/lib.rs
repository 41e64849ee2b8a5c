//! What the targets share: cores of `tests/cores`, changed as the fuzzer says, and read whole.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ground::target::Address;
use heapcheck::cli::{self, Invocation};
use heapcheck::progress::Silent;
use heapcheck::report::Screen;
use postmortem::debuginfo::FileBytes;
use postmortem::debuginfo::dwarf::DwarfFile;
use postmortem::debuginfo::image::ElfImage;
use postmortem::debuginfo::symbols::SymbolIndex;
use postmortem::session::{Session, SessionOptions};

/// Bytes of a file or core that hold its headers and notes.
pub const HEAD_BYTES: usize = 16 << 10;

/// A core in the repository, unpacked where it can be changed.
pub struct Case {
    folder: tempfile::TempDir,
    core: File,
    bytes: Vec<u8>,
    binary_bytes: Vec<u8>,
    /// Offsets of the pages of the core in which anything stands.
    used: Vec<usize>,
}

/// Unpacks a file of `tests/cores`.
fn unpacked(path: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cores");
    let file = File::open(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut bytes = Vec::new();
    lzma_rust2::XzReader::new(file, false)
        .read_to_end(&mut bytes)
        .expect("the repository's own file unpacks");
    bytes
}

impl Case {
    /// The core `tests/cores/<name>` with its program.
    pub fn new(name: &str) -> Self {
        const PAGE: usize = 4096;
        let memory = Path::new("/dev/shm");
        let folder = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        }
        .expect("there is a place for a core");
        let bytes = unpacked(&format!("{name}/core.xz"));
        let binary_bytes = unpacked(&format!("{name}/binary.xz"));
        fs::write(folder.path().join("core"), &bytes).expect("there is room");
        fs::write(folder.path().join("binary"), &binary_bytes).expect("there is room");
        let core = File::options().write(true).open(folder.path().join("core"));
        let is_used = |page: &usize| bytes[*page..].iter().take(PAGE).any(|byte| *byte != 0);
        Self {
            core: core.expect("it was written"),
            used: (HEAD_BYTES..bytes.len())
                .step_by(PAGE)
                .filter(is_used)
                .collect(),
            folder,
            bytes,
            binary_bytes,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes `head` over the start of the core, reads it, and puts the core right again.
    pub fn with_head(&self, head: &[u8]) {
        let head = &head[..head.len().min(HEAD_BYTES)];
        self.core.write_all_at(head, 0).expect("it is written");
        read(&self.path("core"), None, None, true);
        let whole = &self.bytes[..head.len()];
        self.core.write_all_at(whole, 0).expect("it is written");
    }

    /// Writes words over words in which something stands, as `plan` says; reads the core, and puts it right again.
    ///
    /// A step of the plan is 16 bytes: which page, which word of it, how it changes, and a value.
    pub fn with_words(&self, plan: &[u8]) {
        const STEP: usize = 16;
        const MOST: usize = 64;
        let word = |at: usize| {
            let word = self.bytes[at..at + 8].try_into().expect("eight bytes");
            u64::from_le_bytes(word)
        };
        let mut changed = Vec::new();
        for step in plan.chunks_exact(STEP).take(MOST) {
            let number = |at: usize| usize::from(u16::from_le_bytes([step[at], step[at + 1]]));
            let at = self.used[number(0) % self.used.len()] + number(2) % 512 * 8;
            let value = u64::from_le_bytes(step[8..].try_into().expect("eight bytes"));
            if at + 8 > self.bytes.len() {
                continue;
            }
            let new = match step[4] % 5 {
                0 => value,
                1 => word(at).wrapping_add(value & 0xff).wrapping_sub(0x80),
                2 => word(at) ^ 1 << (value & 63),
                3 => {
                    word(self.used[number(6) % self.used.len()] + (value as usize & 511) * 8 % 4088)
                }
                _ => value & 0xffff,
            };
            self.core
                .write_all_at(&new.to_le_bytes(), at as u64)
                .expect("it is written");
            changed.push(at);
        }
        read(&self.path("core"), Some(&self.path("binary")), None, false);
        for at in changed {
            let old = &self.bytes[at..at + 8];
            self.core
                .write_all_at(old, at as u64)
                .expect("it is written");
        }
    }

    /// Changes bytes of the program's file as `plan` says (an offset of 3 bytes and a value each) and unwinds with it.
    pub fn with_binary(&self, plan: &[u8]) {
        let mut bytes = self.binary_bytes.clone();
        for step in plan.chunks_exact(4) {
            let at = usize::from(step[0]) | usize::from(step[1]) << 8 | usize::from(step[2]) << 16;
            let at = at % bytes.len();
            bytes[at] = step[3];
        }
        fs::write(self.path("changed"), &bytes).expect("there is room");
        read(&self.path("core"), Some(&self.path("changed")), None, true);
    }

    /// Gives the program a debug file of these sections and asks for sources all over it.
    pub fn with_debug_file(&self, file: &[u8]) {
        let id = build_id(&self.binary_bytes).expect("the program has a build ID");
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let folder = self.path("debug").join(".build-id").join(&hex[..2]);
        fs::create_dir_all(&folder).expect("there is room");
        fs::write(folder.join(format!("{}.debug", &hex[2..])), file).expect("there is room");
        let stripped = self.path("stripped");
        if !stripped.exists() {
            fs::write(&stripped, without_debug_info(&self.binary_bytes)).expect("there is room");
        }
        let debug = self.path("debug");
        read(&self.path("core"), Some(&stripped), Some(&debug), true);
    }

    /// The program's build ID as a note, for a debug file that is to be its.
    pub fn build_id_note(&self) -> Vec<u8> {
        let id = build_id(&self.binary_bytes).expect("the program has a build ID");
        let mut note = Vec::new();
        for word in [4, id.len() as u32, 3] {
            note.extend(word.to_le_bytes());
        }
        note.extend(b"GNU\0");
        note.extend(id);
        note
    }
}

/// The description of the first GNU build ID note.
fn build_id(file: &[u8]) -> Option<Vec<u8>> {
    let head = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\0";
    let at = file.windows(head.len()).position(|part| part == head)? + head.len();
    Some(file.get(at..at + 20)?.to_vec())
}

/// The file with its debug sections renamed, so that a separate file is looked for.
fn without_debug_info(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let name = b".debug_";
    for at in 0..file.len() - name.len() {
        if file[at..].starts_with(name) {
            file[at + 1] = b'x';
        }
    }
    file
}

/// Sections of the fuzzer's bytes: a length of two bytes before each.
pub fn parts<const N: usize>(mut data: &[u8]) -> [&[u8]; N] {
    [(); N].map(|()| {
        let Some((length, rest)) = data.split_first_chunk::<2>() else {
            return &[][..];
        };
        let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
        let (part, rest) = rest.split_at(length);
        data = rest;
        part
    })
}

/// An ELF file of 64-bit x86 with these sections: name, type, contents.
pub fn elf(sections: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut names = vec![0];
    let mut contents = Vec::new();
    let mut table = vec![0; 64];
    let mut add = |contents: &mut Vec<u8>, name: usize, kind: u32, bytes: &[u8]| {
        table.extend((name as u32).to_le_bytes());
        table.extend(kind.to_le_bytes());
        for value in [
            0,
            0,
            64 + contents.len() as u64,
            bytes.len() as u64,
            0,
            1,
            0,
        ] {
            table.extend(value.to_le_bytes());
        }
        contents.extend(bytes);
    };
    for (name, kind, bytes) in sections {
        add(&mut contents, names.len(), *kind, bytes);
        names.extend(name.as_bytes());
        names.push(0);
    }
    let own = names.len();
    names.extend(b".shstrtab\0");
    add(&mut contents, own, 3, &names);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\x01\0\0\0".to_vec();
    for address in [0, 0, 64 + contents.len() as u64] {
        file.extend(address.to_le_bytes());
    }
    file.extend([0; 4]);
    let count = sections.len() as u16 + 2;
    for half in [64, 56, 0, 64, count, count - 1] {
        file.extend(half.to_le_bytes());
    }
    file.extend(contents);
    file.extend(table);
    file
}

/// The readers of one file: headers, symbols, sections of debug information.
pub fn read_file(bytes: &[u8]) {
    let file = FileBytes::Memory(Arc::from(bytes));
    let _ = ElfImage::parse(bytes).map(|image| image.load_ranges());
    let index = SymbolIndex::read(std::slice::from_ref(&file));
    for at in [0, 0x1000, 0x4000, u64::MAX] {
        let _ = index.function_at(at);
        let _ = index.object_at(at);
    }
    let _ = index.find("malloc");
    let _ = DwarfFile::load(&file);
}

/// Reads a core to its report, as the program does: the stacks alone, or everything.
fn read(core: &Path, binary: Option<&Path>, debug: Option<&Path>, only_stacks: bool) {
    let command = if only_stacks { "stacks" } else { "check" };
    let options = [
        "heapcheck",
        command,
        "--no-default-paths",
        "--format",
        "json",
    ];
    let mut arguments: Vec<OsString> = options.map(Into::into).to_vec();
    if let Some(debug) = debug {
        arguments.extend(["--debug-dir".into(), debug.into()]);
    }
    arguments.extend([Some(core), binary].into_iter().flatten().map(Into::into));
    let Ok(Invocation::Read(command)) = cli::parse(arguments) else {
        panic!("the command line is as it was");
    };
    let Ok(session) = Session::open(&SessionOptions {
        files: command.core().files(),
        search: command.search().paths(),
        limit: command.search().limit(),
        jobs: Some(1),
        open: command.core().open_options(),
    }) else {
        return;
    };
    for module in session.modules().modules() {
        let (start, end) = (module.range.start.get(), module.range.end.get());
        for part in 0..8 {
            let at = start.wrapping_add(end.wrapping_sub(start) / 8 * part);
            let _ = session.debug_info().source_at(module.id, Address::new(at));
            let _ = session
                .debug_info()
                .function_at(module.id, Address::new(at));
        }
    }
    let format = command.output().format();
    if let Ok(document) = command.run(&session, &Silent) {
        let _ = format.render(&document, Screen::default());
    }
}

/// One case for all of a target's inputs.
pub type Shared = Mutex<Option<Case>>;

/// Lends a target its case, unpacked at its first input.
pub fn with(shared: &Shared, name: &str, work: impl FnOnce(&Case)) {
    let mut shared = shared
        .lock()
        .expect("an input that panics ends the process");
    work(shared.get_or_insert_with(|| Case::new(name)));
}
