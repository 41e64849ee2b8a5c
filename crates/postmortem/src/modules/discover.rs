//! What was mapped where, from four witnesses:
//!
//! 1. `NT_FILE`: mappings with their files. A module begins where offset 0 of a file is mapped and an ELF header is;
//! 2. the vDSO (`AT_SYSINFO_EHDR`), whose image is in the core;
//! 3. the executable's program headers (`AT_PHDR`): alone enough for a static one, and the way to
//! 4. the dynamic linker's list, for cores without `NT_FILE` (qemu's guests).
//!
//! Where none of them is in the core, ELF headers at the start of mappings must do; the one among them that the dynamic
//! linker told its list is the executable.
//!
//! One file may be loaded twice (`dlmopen`), so modules are told apart by where they begin. One file may also be mapped as
//! data (a profiler reading `libc.so.6`): a loaded one has a mapping that begins where its writable segment begins, because
//! its permissions differ; one mapped as data has not.

use std::ops::Range;

use ground::target::{Address, Fault, MemoryExt, TargetMemory};
use object::elf::{PT_DYNAMIC, PT_INTERP, PT_PHDR};

use super::image::{Head, Image, program_headers_in_memory};
use super::link_map::{self, LinkMap};
use crate::corefile::auxv::{AT_BASE, AT_ENTRY, AT_EXECFN, AT_PHDR, AT_PHNUM, AT_SYSINFO_EHDR};
use crate::corefile::{AddressSpace, CoreFile, MappedFile};

/// The name of the vDSO in the dynamic linker's list and in `ldd`.
pub(super) const VDSO_NAME: &str = "linux-vdso.so.1";
/// What the kernel appends to the path of a file that was removed or replaced.
const DELETED: &str = " (deleted)";
/// Most mappings of one file that are looked through for one module. An ELF file has a mapping per segment and permission.
const MAX_MAPPINGS: usize = 4096;

/// A module as the core tells it.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Path in the dead process, without ` (deleted)`. Empty if nothing tells it.
    pub path: String,
    /// Where the first byte of the file is mapped, or would be.
    pub base: u64,
    /// Program headers, if they are in the core.
    pub head: Option<Head>,
    /// Run-time minus link address, if something in the core tells it.
    pub bias: Option<u64>,
    /// Link address of its dynamic section, if only the dynamic linker's list tells of it.
    pub dynamic: Option<u64>,
    /// Addresses from the first to the last known byte.
    pub range: Range<u64>,
    pub is_executable: bool,
    pub is_vdso: bool,
}

impl Found {
    /// A module whose program headers are known.
    fn with_head(path: String, head: Head, bias: u64) -> Option<Found> {
        let (start, end) = head.span()?;
        let start = start.wrapping_add(bias);
        let end = end.wrapping_add(bias);
        (start < end).then(|| Found {
            path,
            base: head.first_byte().unwrap_or(0).wrapping_add(bias),
            head: Some(head),
            bias: Some(bias),
            dynamic: None,
            range: start..end,
            is_executable: false,
            is_vdso: false,
        })
    }
}

/// All modules that the core tells of, sorted by address. `program` finds the file of the executable by its path, for a core
/// that does not hold its headers.
pub(super) fn discover(
    core: &CoreFile,
    memory: &AddressSpace,
    program: &dyn Fn(&str) -> Option<Image>,
) -> Vec<Found> {
    let search = Discovery {
        core,
        memory,
        program,
        page_bytes: core.abi().page_bytes,
    };
    let mut found = search.mapped_files();
    if let Some(vdso) = search.vdso() {
        found.push(vdso);
    }
    search.executable(&mut found);
    search.linked(&mut found);
    if core.files().is_empty() {
        search.bare_headers(&mut found);
        // gcore writes its notes last: a core of it that is cut off has lost them all.
        if search.executable_by_dynamic_linker(&mut found) {
            search.linked(&mut found);
        }
        for module in &mut found {
            module.is_vdso |= module.path == VDSO_NAME;
        }
    }
    found.sort_by_key(|module| (module.range.start, module.range.end));
    found
}

struct Discovery<'c> {
    core: &'c CoreFile,
    memory: &'c AddressSpace,
    program: &'c dyn Fn(&str) -> Option<Image>,
    page_bytes: u64,
}

impl Discovery<'_> {
    fn page_start(&self, at: u64) -> u64 {
        at & !self.page_bytes.wrapping_sub(1)
    }

    /// The ELF header at `base`, with the bias that follows.
    fn head_at(&self, base: Address) -> Option<(Head, u64)> {
        let head = Head::from_memory(self.memory, base, self.core.arch())?;
        let bias = base.get().wrapping_sub(head.first_byte()?);
        Some((head, bias))
    }

    /// Modules by `NT_FILE`.
    fn mapped_files(&self) -> Vec<Found> {
        let files = self.core.files();
        let mut claimed = vec![false; files.len()];
        let mut found = Vec::new();
        for (index, file) in files.iter().enumerate() {
            let is_claimed = claimed.get(index).copied().unwrap_or(true);
            if is_claimed || file.file_offset != 0 {
                continue;
            }
            let module = match self.head_at(file.start) {
                Some((head, bias)) => Found::with_head(clean(&file.path), head, bias)
                    .filter(|module| self.is_loaded(module, files, &file.path)),
                None => self.without_head(index),
            };
            let Some(module) = module else { continue };
            let claims = claimed
                .iter_mut()
                .zip(files)
                .skip(files.partition_point(|other| other.end.get() <= module.range.start))
                .take_while(|(_, other)| other.start.get() < module.range.end)
                .take(MAX_MAPPINGS);
            for (claim, other) in claims {
                *claim |= other.path == file.path;
            }
            found.push(module);
        }
        found
    }

    /// Whether a file is loaded and not just mapped as data: each writable segment has a mapping that begins with it.
    fn is_loaded(&self, module: &Found, files: &[MappedFile], path: &str) -> bool {
        let (Some(head), Some(bias)) = (&module.head, module.bias) else {
            return false;
        };
        head.loads()
            .filter(|load| load.is_writable() && load.file_bytes > 0)
            .all(|load| {
                let start = self.page_start(load.address.wrapping_add(bias));
                files
                    .binary_search_by_key(&start, |file| file.start.get())
                    .ok()
                    .and_then(|index| files.get(index))
                    .is_some_and(|file| file.path == path)
            })
    }

    /// A file whose first page is not in the core. It counts as a module if a mapping of it holds code, or, where the core
    /// does not tell permissions, if it has several mappings.
    fn without_head(&self, first: usize) -> Option<Found> {
        let files = self.core.files().get(first..)?;
        let start = files.first()?;
        let is_blank = self.memory.read_u32(start.start) == Ok(0);
        let is_absent = matches!(
            self.memory.window(start.start),
            Err(Fault::NotDumped(_) | Fault::Truncated(_))
        );
        if !is_absent && !is_blank {
            return None; // it is there, and no ELF header
        }
        let mut offset = 0;
        let group: Vec<&MappedFile> = files
            .iter()
            .take(MAX_MAPPINGS)
            .take_while(|file| file.start == start.start || file.file_offset > 0)
            .filter(|file| file.path == start.path)
            .take_while(|file| {
                let continues = file.file_offset >= offset;
                offset = file.file_offset;
                continues
            })
            .collect();
        let has_code = group.iter().any(|file| {
            self.memory
                .region_at(file.start)
                .is_some_and(|region| region.executable)
        });
        if !has_code && (group.len() < 2 || is_blank) {
            return None;
        }
        Some(Found {
            path: clean(&start.path),
            base: start.start.get(),
            head: None,
            bias: None,
            dynamic: None,
            range: start.start.get()..group.last()?.end.get(),
            is_executable: false,
            is_vdso: false,
        })
    }

    fn vdso(&self) -> Option<Found> {
        let base = Address::new(self.core.auxv(AT_SYSINFO_EHDR)?);
        let (head, bias) = self.head_at(base)?;
        let mut module = Found::with_head(VDSO_NAME.to_owned(), head, bias)?;
        module.is_vdso = true;
        Some(module)
    }

    /// Marks the executable, adding it if nothing else told of it.
    fn executable(&self, found: &mut Vec<Found>) {
        let headers_at = self.core.auxv(AT_PHDR).filter(|at| *at != 0);
        let entry = self.core.auxv(AT_ENTRY).filter(|at| *at != 0);
        let known = found.iter_mut().find(|module| {
            let holds = |at: Option<u64>| at.is_some_and(|at| module.range.contains(&at));
            !module.is_vdso && (holds(headers_at) || holds(entry))
        });
        if let Some(module) = known {
            module.is_executable = true;
            return;
        }
        let module = headers_at.and_then(|at| {
            let in_core = self.by_program_headers(at);
            in_core.or_else(|| self.by_file(at))
        });
        let Some(mut module) = module else { return };
        module.is_executable = true;
        found.push(module);
    }

    /// Without an auxiliary vector, the executable is the module to which the dynamic linker gave its list.
    fn executable_by_dynamic_linker(&self, found: &mut [Found]) -> bool {
        if found.iter().any(|module| module.is_executable) {
            return false;
        }
        let executable = found.iter_mut().find(|module| {
            module
                .head
                .as_ref()
                .zip(module.bias)
                .is_some_and(|(head, bias)| {
                    head.find(PT_INTERP).is_some()
                        && link_map::list_address(self.memory, head, bias).is_some()
                })
        });
        if let Some(module) = executable {
            module.is_executable = true;
            return true;
        }
        false
    }

    /// The executable from its program headers alone.
    fn by_program_headers(&self, at: u64) -> Option<Found> {
        let count = usize::try_from(self.core.auxv(AT_PHNUM)?).ok()?;
        let headers = program_headers_in_memory(self.memory, Address::new(at), count)?;
        let head = Head::new(headers);
        // A static executable has no PT_PHDR; its headers follow its ELF header as everyone's do.
        let link = match head.find(PT_PHDR) {
            Some(header) => header.address,
            None => head.first_byte()?.wrapping_add(64),
        };
        Found::with_head(self.executable_path(), head, at.wrapping_sub(link))
    }

    fn executable_path(&self) -> String {
        let in_memory = self.core.auxv(AT_EXECFN);
        in_memory
            .and_then(|at| link_map::text(self.memory, Address::new(at)))
            .filter(|name| !name.is_empty())
            .or_else(|| self.core.process().name.clone())
            .unwrap_or_default()
    }

    /// The executable by its file, where its program headers were left out of the core (qemu's guests leave out all code).
    /// The file must agree with what the kernel told of it: how many headers, and where it starts from them.
    fn by_file(&self, at: u64) -> Option<Found> {
        let absent = self.memory.window(Address::new(at)).err()?;
        if !matches!(absent, Fault::NotDumped(_) | Fault::Truncated(_)) {
            return None;
        }
        let path = self.executable_path();
        let image = (self.program)(&path)?;
        let link = match image.head.find(PT_PHDR) {
            Some(header) => header.address,
            None => image.head.first_byte()?.wrapping_add(64),
        };
        let bias = at.wrapping_sub(link);
        let count = self.core.auxv(AT_PHNUM)?;
        let entry = self.core.auxv(AT_ENTRY)?;
        let agrees = image.head.headers.len() as u64 == count
            && image.entry.wrapping_add(bias) == entry
            && (bias == 0 || !image.head.is_fixed);
        agrees.then(|| Found::with_head(path, image.head, bias))?
    }

    /// Modules by the dynamic linker's list: new ones, and the bias of those whose headers are not in the core.
    fn linked(&self, found: &mut Vec<Found>) {
        let Some((head, bias)) = found
            .iter()
            .find(|module| module.is_executable)
            .and_then(|module| module.head.clone().zip(module.bias))
        else {
            return;
        };
        for mut entry in link_map::read(self.memory, &head, bias) {
            // The dynamic linker's own name is in the program's code, which may not be in the core.
            if entry.name.is_empty() && self.core.auxv(AT_BASE) == Some(entry.bias) {
                let image = (self.program)(&self.executable_path());
                let name = image.and_then(|image| image.interpreter());
                entry.name = name.unwrap_or_default();
            }
            let at = entry.dynamic.get();
            let known = found.iter_mut().find(|module| module.range.contains(&at));
            match known {
                Some(module) => {
                    if module.bias.is_none() {
                        module.bias = Some(entry.bias);
                    }
                    if module.path.is_empty() {
                        module.path.clone_from(&entry.name);
                    }
                }
                None => found.extend(self.linked_module(entry)),
            }
        }
    }

    /// A module that only the dynamic linker's list tells of.
    fn linked_module(&self, entry: LinkMap) -> Option<Found> {
        // Its ELF header is at the start of one of the mappings before its dynamic section.
        const MAX_MAPPINGS_BACK: usize = 64;
        let regions = self.memory.regions();
        let after = regions.partition_point(|region| region.range.start <= entry.dynamic);
        let before = regions.get(..after)?.iter().rev().take(MAX_MAPPINGS_BACK);
        for region in before {
            let Some((head, bias)) = self.head_at(region.range.start) else {
                continue;
            };
            let dynamic = head.find(PT_DYNAMIC).map(|header| header.address);
            let fits = bias == entry.bias
                && dynamic.is_some_and(|link| link.wrapping_add(bias) == entry.dynamic.get());
            if fits {
                return Found::with_head(clean(&entry.name), head, bias);
            }
        }
        // Its headers are not in the core. What the list says of it must do, if that can be.
        const MAX_SPAN_BYTES: u64 = 1 << 32;
        let end = entry.dynamic.get().checked_add(1)?;
        let base = entry.bias;
        let is_plausible = end
            .checked_sub(base)
            .is_some_and(|bytes| bytes <= MAX_SPAN_BYTES)
            && !entry.name.is_empty()
            && self.memory.region_at(entry.dynamic).is_some();
        is_plausible.then(|| Found {
            path: clean(&entry.name),
            base,
            head: None,
            bias: Some(entry.bias),
            dynamic: entry.dynamic.get().checked_sub(entry.bias),
            range: base..end,
            is_executable: false,
            is_vdso: false,
        })
    }

    /// The last resort: ELF headers at the start of mappings.
    fn bare_headers(&self, found: &mut Vec<Found>) {
        let mut known: Vec<Range<u64>> = found.iter().map(|module| module.range.clone()).collect();
        known.sort_by_key(|range| range.start);
        let mut known = known.into_iter().peekable();
        let mut end = 0; // of the modules before the region
        for region in self.memory.regions() {
            let at = region.range.start;
            while let Some(range) = known.next_if(|range| range.start <= at.get()) {
                end = end.max(range.end);
            }
            if at.get() < end || region.writable {
                continue;
            }
            let module = self
                .head_at(at)
                .and_then(|(head, bias)| Found::with_head(String::new(), head, bias));
            if let Some(module) = module {
                end = end.max(module.range.end);
                found.push(module);
            }
        }
    }
}

/// A path as the kernel writes it, without the mark of a removed file.
fn clean(path: &str) -> String {
    path.strip_suffix(DELETED).unwrap_or(path).to_owned()
}
