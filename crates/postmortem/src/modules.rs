//! The modules of the dead process: what was mapped where, and which files here are those files.
//!
//! A file is used only if its build ID is the one that the core's memory holds. Where the core holds none, a file that the
//! user named (the binary, or one under `--sysroot`) is used and marked unverified. An ID that differs is never used.

mod backing;
mod discover;
mod file;
mod image;
mod imports;
mod link_map;
mod mapped;
mod search;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tls;

use std::path::PathBuf;

pub use file::{ModuleFile, ProgramHeader};
pub use imports::Import;
pub use search::{DebugFile, SearchPaths};

use ground::target::{Address, Module, ModuleId, ModuleSegment, TargetMemory};

use self::discover::Found;
use self::image::{Head, Image};
use self::search::{ImageSearch, Wanted};
use crate::corefile::{AddressSpace, Backing, CoreFile};

/// A file that was there for a module but is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The module.
    pub module: ModuleId,
    /// The file.
    pub path: PathBuf,
    /// Why: a sentence about the file, without its subject's name (`its build ID is another one`).
    pub why: String,
    /// Its build ID, where that is why; else `None`.
    pub build_id: Option<Vec<u8>>,
}

/// The modules, and the files found for them.
#[derive(Debug, Default)]
pub struct ModuleSet {
    modules: Vec<Module>,
    files: Vec<Option<ModuleFile>>,
    heads: Vec<Head>,
    backing: Vec<Backing>,
    refused: Vec<Refused>,
    diagnostics: Vec<String>,
}

impl ModuleSet {
    /// Finds the modules in the core, and their files.
    ///
    /// `memory` is what the core itself holds; give it [`backing`](Self::backing) afterwards.
    pub fn discover(core: &CoreFile, memory: &AddressSpace, search: &SearchPaths) -> Self {
        let binary = search
            .binary
            .as_ref()
            .and_then(|path| Image::open(path, core.arch()));
        let mut set = Self::default();
        // The program, for a core that does not hold its headers.
        let program = |path: &str| {
            let wanted = Wanted {
                path,
                build_id: None,
                head: None,
                dynamic: None,
                is_executable: true,
            };
            let found = search
                .find_image(wanted, binary.as_ref(), core.arch())
                .found;
            found.map(|(image, _)| image)
        };
        for found in discover::discover(core, memory, &program) {
            set.add(found, core, memory, search, binary.as_ref());
        }
        if let Some(binary) = binary {
            set.refuse_unused(binary);
        }
        set
    }

    fn add(
        &mut self,
        found: Found,
        core: &CoreFile,
        memory: &AddressSpace,
        search: &SearchPaths,
        binary: Option<&Image>,
    ) {
        let Ok(number) = u32::try_from(self.modules.len()) else {
            return;
        };
        let id = ModuleId(number);
        let build_id = found
            .head
            .as_ref()
            .zip(found.bias)
            .and_then(|(head, bias)| head.build_id_in_memory(memory, bias));
        let found_file = if found.is_vdso {
            let range = Address::new(found.range.start)..Address::new(found.range.end);
            let view = memory.core_view(memory.whole_pages(range));
            view.map(|view| {
                (
                    ModuleFile::new(PathBuf::from(&found.path), true, view),
                    None,
                )
            })
        } else {
            let wanted = Wanted {
                path: &found.path,
                build_id: build_id.as_deref(),
                head: found.head.as_ref(),
                dynamic: found.dynamic,
                is_executable: found.is_executable,
            };
            self.image(id, search.find_image(wanted, binary, core.arch()))
        };
        let (file, file_head) = found_file.unzip();
        let file_head = file_head.flatten();
        let link_base = file_head.as_ref().and_then(Head::first_byte);
        let bias = found.bias.unwrap_or_else(|| {
            let is_fixed = file_head.as_ref().is_some_and(|head| head.is_fixed);
            match link_base {
                _ if is_fixed => 0,
                Some(link) => found.base.wrapping_sub(link),
                None => found.base,
            }
        });
        if let (Some(file), Some(head)) = (&file, &file_head) {
            let page_bytes = core.abi().page_bytes;
            let mut backing = backing::of_module(head, bias, file.view(), core.files(), page_bytes);
            self.backing.append(&mut backing);
        }
        let head = found.head.or(file_head).unwrap_or_default();
        let segments = match head.headers.is_empty() {
            true => mapped::segments(&found.path, &found.range, core.files(), memory),
            false => segments(&head, bias),
        };
        let range = match (segments.first(), segments.last()) {
            (Some(first), Some(last)) => first.range.start..last.range.end,
            _ => Address::new(found.range.start)..Address::new(found.range.end),
        };
        let file_name = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or_default();
            (!name.is_empty()).then(|| name.to_owned())
        };
        let name = file_name(&found.path)
            .or_else(|| file_name(&file.as_ref()?.path.to_string_lossy()))
            .unwrap_or_else(|| format!("module@{}", range.start));
        self.modules.push(Module {
            id,
            name,
            path: found.path,
            range,
            bias,
            segments,
            build_id,
            is_executable: found.is_executable,
        });
        self.files.push(file);
        self.heads.push(head);
    }

    /// Notes what a search refused, and makes a module's file of what it found.
    fn image(&mut self, id: ModuleId, search: ImageSearch) -> Option<(ModuleFile, Option<Head>)> {
        let refused = search.refused.into_iter();
        self.refused
            .extend(refused.map(|(path, build_id, why)| Refused {
                module: id,
                path,
                why,
                build_id,
            }));
        let (image, verified) = search.found?;
        let view = image.view();
        Some((
            ModuleFile::new(image.path, verified, view),
            Some(image.head),
        ))
    }

    /// Notes a binary that the user named and that is no module's file.
    fn refuse_unused(&mut self, binary: Image) {
        let is_mentioned = self.refused.iter().any(|file| file.path == binary.path);
        let is_used = self
            .files
            .iter()
            .flatten()
            .any(|file| file.path == binary.path);
        // A debug file given as the binary serves debug information; only its contents are not used.
        if is_mentioned || is_used {
            return;
        }
        let path = binary.path.display();
        let Some(executable) = self.executable() else {
            self.diagnostics.push(format!(
                "{path} is not used: the core tells of no module that has its build ID"
            ));
            return;
        };
        self.refused.push(Refused {
            module: executable.id,
            why: "it is not the program that crashed; its build ID is another one".to_owned(),
            path: binary.path,
            build_id: binary.build_id,
        });
    }

    /// A module that is in no core: its file by path and build ID, at its link addresses. Without a build ID a file that the user named, or
    /// whose root was named, is taken, and one at the path itself if `is_trusted` says of the file that it may be.
    ///
    /// `None` if no file is there and nothing to find debug information by.
    pub fn alone(
        path: &str,
        build_id: Option<&[u8]>,
        search: &SearchPaths,
        is_trusted: &dyn Fn(&std::path::Path) -> bool,
    ) -> Option<Self> {
        let mut set = Self::default();
        let id = ModuleId(0);
        for arch in ground::arch::ARCHITECTURES {
            let wanted = Wanted {
                path,
                build_id,
                head: None,
                dynamic: None,
                is_executable: false,
            };
            let mut found = search.find_image(wanted, None, arch);
            let here = std::path::Path::new(path);
            if found.found.is_none()
                && build_id.is_none()
                && search.defaults
                && search.sysroots.is_empty()
                && is_trusted(here)
            {
                let image = Image::open(here, arch).filter(|image| !image.is_debug_only);
                found.found = image.map(|image| (image, false));
            }
            let Some((file, head)) = set.image(id, found) else {
                continue;
            };
            let head = head.unwrap_or_default();
            let segments = segments(&head, 0);
            let (first, last) = (segments.first()?, segments.last()?);
            set.modules.push(Module {
                id,
                name: path.rsplit('/').next().unwrap_or(path).to_owned(),
                path: path.to_owned(),
                range: first.range.start..last.range.end,
                bias: 0,
                build_id: build_id.map(<[u8]>::to_vec),
                is_executable: head.is_fixed,
                segments,
            });
            set.files.push(Some(file));
            set.heads.push(head);
            return Some(set);
        }
        // The image may be gone and its debug file there.
        set.modules.push(Module {
            id,
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            path: path.to_owned(),
            range: Address::new(0)..Address::new(u64::MAX),
            bias: 0,
            segments: Vec::new(),
            build_id: Some(build_id?.to_vec()),
            is_executable: false,
        });
        set.files.push(None);
        set.heads.push(Head::default());
        Some(set)
    }

    /// The modules, sorted by address; a module's id is its index.
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The module with this id.
    pub fn module(&self, id: ModuleId) -> Option<&Module> {
        self.modules.get(usize::try_from(id.0).ok()?)
    }

    /// The module that `at` lies in.
    pub fn module_at(&self, at: Address) -> Option<&Module> {
        let after = self
            .modules
            .partition_point(|module| module.range.start <= at);
        self.modules
            .get(after.checked_sub(1)?)
            .filter(|module| at < module.range.end)
    }

    /// The main executable.
    pub fn executable(&self) -> Option<&Module> {
        self.modules.iter().find(|module| module.is_executable)
    }

    /// The file of a module, if one was found. For the vDSO it is the image in the core.
    pub fn file(&self, id: ModuleId) -> Option<&ModuleFile> {
        self.files.get(usize::try_from(id.0).ok()?)?.as_ref()
    }

    /// Program headers of a module, at link addresses; from the core's memory, else from its file.
    pub fn program_headers(&self, id: ModuleId) -> &[ProgramHeader] {
        usize::try_from(id.0)
            .ok()
            .and_then(|index| self.heads.get(index))
            .map_or(&[], |head| head.headers.as_slice())
    }

    /// The words that the dynamic linker fills with the addresses of the functions called `names`, for this module. `None` if
    /// it has no dynamic section or its tables are not there.
    pub fn imports(
        &self,
        memory: &dyn TargetMemory,
        id: ModuleId,
        names: &[&str],
    ) -> Option<Vec<Import>> {
        let importer = imports::Importer {
            headers: self.program_headers(id),
            bias: self.module(id)?.bias,
        };
        imports::read(memory, importer, names)
    }

    /// Files that were found but not used, in order of modules.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// Modules whose file could not be checked by a build ID.
    pub fn unverified(&self) -> impl Iterator<Item = (&Module, &ModuleFile)> {
        self.modules
            .iter()
            .zip(&self.files)
            .filter_map(|(module, file)| Some((module, file.as_ref()?)))
            .filter(|(_, file)| !file.verified)
    }

    /// What else was odd, one sentence each.
    pub fn diagnostics(&self) -> &[String] {
        &self.diagnostics
    }

    /// What the files hold of the process's memory, for [`AddressSpace::add_backing`].
    pub fn backing(&self) -> &[Backing] {
        &self.backing
    }
}

/// The segments of a module at run time, sorted.
fn segments(head: &Head, bias: u64) -> Vec<ModuleSegment> {
    let mut segments: Vec<ModuleSegment> = head
        .loads()
        .filter_map(|load| {
            let start = Address::new(load.address.wrapping_add(bias));
            Some(ModuleSegment {
                range: start..start.checked_add(load.memory_bytes)?,
                writable: load.is_writable(),
                executable: load.is_executable(),
            })
        })
        .collect();
    segments.sort_by_key(|segment| segment.range.start);
    segments
}
