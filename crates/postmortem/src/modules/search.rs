//! Where files are looked for.
//!
//! ```text
//!                     images                        debug files
//! --sysroot DIR       DIR/path, DIR/name            DIR/usr/lib/debug, beside the image if it is under DIR;
//!                                                   by build ID also /usr/lib/debug
//! --debug-dir DIR     DIR/.build-id                 DIR
//! neither             path                          /usr/lib/debug, beside the image
//! --no-default-paths  nothing                       nothing
//! BINARY              any module with its build ID  itself
//! ```
//!
//! Each option replaces the default of its own column. Paths come from the core and are hostile: only regular files are
//! opened, and under a sysroot neither `..` nor a symbolic link leads out of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::image::{Head, Image, build_id_in_sections};
use crate::corefile::Mapping;
use ground::arch::ArchInfo;

/// The usual directory of debug files, from the root.
const DEBUG: &str = "usr/lib/debug";

/// Most symbolic links that are followed for one path (the kernel's own limit).
const MAX_LINKS: usize = 40;

/// Where files are looked for. The default is the paths as they stand in the core and `/usr/lib/debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPaths {
    /// `--sysroot`: roots of file systems like the dead process's.
    pub sysroots: Vec<PathBuf>,
    /// `--debug-dir`: directories like `/usr/lib/debug`.
    pub debug_dirs: Vec<PathBuf>,
    /// Whether the default places are searched where no directory was given (`--no-default-paths` clears it).
    pub defaults: bool,
    /// The binary that the user named.
    pub binary: Option<PathBuf>,
}

impl Default for SearchPaths {
    fn default() -> Self {
        Self {
            sysroots: Vec::new(),
            debug_dirs: Vec::new(),
            defaults: true,
            binary: None,
        }
    }
}

/// A separate debug file.
#[derive(Clone, Debug)]
pub struct DebugFile {
    /// Where it was found.
    pub path: PathBuf,
    /// The file.
    pub mapping: Arc<Mapping>,
}

/// What is known of a module whose image is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'w> {
    /// Path in the dead process.
    pub path: &'w str,
    /// Build ID in the core.
    pub build_id: Option<&'w [u8]>,
    /// Program headers in the core.
    pub head: Option<&'w Head>,
    /// Link address of its dynamic section, as the dynamic linker in the core tells it.
    pub dynamic: Option<u64>,
    /// The main executable: what the user means by `BINARY` if there is no build ID to go by.
    pub is_executable: bool,
}

/// The outcome of a search for an image.
#[derive(Debug, Default)]
pub(super) struct ImageSearch {
    /// The image, and whether its build ID was compared.
    pub found: Option<(Image, bool)>,
    /// Files that were there but are not used: path, build ID where that is why, why.
    pub refused: Vec<(PathBuf, Option<Vec<u8>>, String)>,
}

impl SearchPaths {
    /// The image of a module; `binary` is the opened file that the user named.
    pub(super) fn find_image(
        &self,
        wanted: Wanted<'_>,
        binary: Option<&Image>,
        arch: &ArchInfo,
    ) -> ImageSearch {
        let mut search = ImageSearch::default();
        // The binary that the user named may belong to any module; that it is not this one needs no mention.
        if let Some(binary) = binary {
            let is_it = match wanted.build_id {
                Some(id) => binary.build_id.as_deref() == Some(id),
                None => wanted.is_executable,
            };
            if is_it && search.consider(binary.clone(), wanted, true) {
                return search;
            }
        }
        for root in &self.sysroots {
            let in_root = [
                inside(root, Path::new(wanted.path)),
                Path::new(wanted.path)
                    .file_name()
                    .and_then(|name| inside(root, Path::new(name))),
            ];
            for path in in_root.into_iter().flatten() {
                if let Some(image) = Image::open(&path, arch)
                    && search.consider(image, wanted, true)
                {
                    return search;
                }
            }
        }
        let Some(id) = wanted.build_id else {
            return search;
        };
        if self.sysroots.is_empty() && self.defaults && Path::new(wanted.path).is_absolute() {
            let image = Image::open(Path::new(wanted.path), arch);
            if image.is_some_and(|image| search.consider(image, wanted, false)) {
                return search;
            }
        }
        for path in self.by_build_id(id, "") {
            let image = Image::open(&path, arch);
            if image.is_some_and(|image| search.consider(image, wanted, false)) {
                return search;
            }
        }
        search
    }

    /// Directories like `/usr/lib/debug`.
    fn debug_roots(&self) -> Vec<PathBuf> {
        if !self.debug_dirs.is_empty() {
            self.debug_dirs.clone()
        } else if !self.sysroots.is_empty() {
            self.sysroots.iter().map(|root| root.join(DEBUG)).collect()
        } else if self.defaults {
            vec![Path::new("/").join(DEBUG)]
        } else {
            Vec::new()
        }
    }

    /// The place of a build ID under each of them. Beside a sysroot, the host's own counts too: a build ID matches or does
    /// not, whoever's file it is.
    fn by_build_id(&self, id: &[u8], suffix: &str) -> Vec<PathBuf> {
        let mut places: Vec<PathBuf> = Vec::new();
        for dir in self.debug_roots() {
            let Some(path) = build_id_path(id, suffix) else {
                continue;
            };
            places.extend(self.under(&dir, &path));
        }
        if !self.sysroots.is_empty() && self.debug_dirs.is_empty() && self.defaults {
            let path = build_id_path(id, suffix);
            places.extend(path.map(|path| Path::new("/").join(DEBUG).join(path)));
        }
        places
    }

    /// A path under a directory of debug files. No symbolic link leads out of a sysroot; a directory that was named, or the
    /// host's, may have any.
    fn under(&self, dir: &Path, path: &Path) -> Option<PathBuf> {
        match self.sysroots.iter().find(|root| dir.starts_with(root)) {
            Some(root) => inside(root, &dir.strip_prefix(root).ok()?.join(path)),
            None => Some(dir.join(path)),
        }
    }

    /// The separate debug file of an image: by its build ID, else by the name and checksum in its `.gnu_debuglink`.
    ///
    /// `image` is where the image was found here. A file is used only if its build ID is `build_id`, or, where one of the
    /// two is missing, if its checksum is the link's.
    pub fn find_debug(
        &self,
        build_id: Option<&[u8]>,
        debuglink: Option<(&[u8], u32)>,
        image: &Path,
    ) -> Option<DebugFile> {
        let dirs = self.debug_roots();
        if let Some(id) = build_id {
            let by_id = self.by_build_id(id, ".debug");
            let binary = self.binary.iter().cloned();
            for path in binary.chain(by_id) {
                if path != image
                    && let Some(file) = DebugFile::open(path)
                    && build_id_in_sections(file.mapping.bytes()).as_deref() == Some(id)
                {
                    return Some(file);
                }
            }
        }
        let (name, checksum) = debuglink?;
        let name = Path::new(OsStr::from_bytes(name));
        // A plain file name: a link that names another directory is none of ours.
        if name.file_name() != Some(name.as_os_str()) {
            return None;
        }
        let folder = image.parent()?;
        let mut places = Vec::new();
        if self.searches_beside(image) {
            places.push(folder.join(name));
            places.push(folder.join(".debug").join(name));
        }
        for dir in &dirs {
            // gdb's rule: the image's directory repeated under the debug directory.
            if let Some(place) = inside(dir, &self.outside_of_sysroot(folder).join(name)) {
                places.push(place);
            }
            places.extend(self.under(dir, name));
        }
        places
            .into_iter()
            .filter(|path| path != image)
            .filter_map(DebugFile::open)
            .find(|file| file.fits(build_id, checksum))
    }

    /// Whether the directory of an image counts as a place to look.
    fn searches_beside(&self, image: &Path) -> bool {
        (self.defaults && self.debug_dirs.is_empty() && self.sysroots.is_empty())
            || self.sysroots.iter().any(|root| image.starts_with(root))
    }

    /// A path on this machine as the dead process would have called it.
    fn outside_of_sysroot(&self, path: &Path) -> PathBuf {
        self.sysroots
            .iter()
            .find_map(|root| path.strip_prefix(root).ok())
            .unwrap_or(path)
            .to_owned()
    }

    /// The supplementary file that dwz made (`.gnu_debugaltlink`: a name and a build ID), for a debug file at `debug_file`.
    ///
    /// The name is a path, absolute or relative to the debug file. Only a file with that build ID is used.
    pub fn find_supplementary(
        &self,
        name: &[u8],
        build_id: &[u8],
        debug_file: &Path,
    ) -> Option<DebugFile> {
        let dirs = self.debug_roots();
        let name = Path::new(OsStr::from_bytes(name));
        let by_id = self.by_build_id(build_id, ".debug");
        let by_name = dirs.iter().filter_map(|dir| {
            let usual = name.strip_prefix("/usr/lib/debug").unwrap_or(name);
            inside(dir, usual).or_else(|| inside(&dir.join(".dwz"), Path::new(name.file_name()?)))
        });
        // The debug file itself was permitted, so is what it names beside itself.
        let beside = debug_file
            .parent()
            .filter(|_| name.is_relative())
            .map(|folder| folder.join(name));
        let absolute = (self.defaults && name.is_absolute()).then(|| name.to_owned());
        by_id
            .into_iter()
            .chain(beside)
            .chain(by_name)
            .chain(absolute)
            .filter_map(DebugFile::open)
            .find(|file| build_id_in_sections(file.mapping.bytes()).as_deref() == Some(build_id))
    }
}

impl ImageSearch {
    /// Takes the image if it is the wanted one. `named` means that the user named it or its root.
    fn consider(&mut self, image: Image, wanted: Wanted<'_>, named: bool) -> bool {
        let is_other_id = wanted.build_id.is_some() && wanted.build_id != image.build_id.as_deref();
        let why = if is_other_id && image.build_id.is_some() {
            "its build ID is another one"
        } else if is_other_id {
            "it has no build ID, but the module in the core has one"
        } else if wanted.build_id.is_none() && !named {
            "the core holds no build ID to compare"
        } else if image.is_debug_only {
            "it holds debug information only"
        } else if wanted
            .head
            .is_some_and(|head| !head.loads_like(&image.head))
        {
            "its segments are others than in the core"
        } else if wanted
            .dynamic
            .is_some_and(|at| !image.head.has_dynamic_at(at))
        {
            "its dynamic section is elsewhere than in the core"
        } else {
            self.found = Some((image, wanted.build_id.is_some()));
            return true;
        };
        let build_id = image.build_id.filter(|_| is_other_id);
        self.refused.push((image.path, build_id, why.to_owned()));
        false
    }
}

impl DebugFile {
    fn open(path: PathBuf) -> Option<DebugFile> {
        let mapping = Arc::new(Mapping::open(&path).ok()?);
        mapping
            .bytes()
            .starts_with(&object::elf::ELFMAG)
            .then_some(DebugFile { path, mapping })
    }

    fn fits(&self, build_id: Option<&[u8]>, checksum: u32) -> bool {
        match (build_id, build_id_in_sections(self.mapping.bytes())) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => crc32fast::hash(self.mapping.bytes()) == checksum,
        }
    }
}

/// `.build-id/ab/cdef...` with a suffix.
fn build_id_path(id: &[u8], suffix: &str) -> Option<PathBuf> {
    let (first, rest) = id.split_first()?;
    let mut name: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
    name.push_str(suffix);
    Some(
        Path::new(".build-id")
            .join(format!("{first:02x}"))
            .join(name),
    )
}

/// `path` under `root`, as if `root` were `/`: `..` does not lead out of it, and neither do symbolic links, whether absolute
/// or relative. `None` if nothing is there.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut todo: Vec<PathBuf> = Vec::new();
    let push = |todo: &mut Vec<PathBuf>, path: &Path| {
        let parts = path.components().rev().filter_map(|part| match part {
            Component::Normal(name) => Some(PathBuf::from(name)),
            Component::ParentDir => Some(PathBuf::from("..")),
            _ => None,
        });
        todo.extend(parts);
    };
    push(&mut todo, path);
    let mut below = PathBuf::new(); // relative to root, without links
    let mut links = 0usize;
    while let Some(part) = todo.pop() {
        if part == Path::new("..") {
            below.pop();
            continue;
        }
        let next = root.join(&below).join(&part);
        if !next.symlink_metadata().ok()?.is_symlink() {
            below.push(part);
            continue;
        }
        links = links.saturating_add(1);
        if links > MAX_LINKS {
            return None;
        }
        let target = next.read_link().ok()?;
        if target.is_absolute() {
            below = PathBuf::new();
        }
        push(&mut todo, &target);
    }
    Some(root.join(below))
}
