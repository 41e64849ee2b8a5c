//! Where files are looked for.
//!
//! ```text
//!                     images                        debug files
//! --sysroot DIR       DIR/path, DIR/name            DIR/usr/lib/debug
//! --debug-dir DIR                                   DIR
//! neither             path                          /usr/lib/debug, beside the image
//! --no-default-paths  nothing                       nothing
//! BINARY              any module with its build ID
//! ```
//!
//! Each option replaces the default of its own column.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::corefile::Mapping;

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

impl SearchPaths {
    /// The separate debug file of an image: by its build ID, else by the name and checksum in its `.gnu_debuglink`.
    ///
    /// `image` is where the image was found here. The file's build ID is the image's, where both have one, or its
    /// checksum is the link's.
    pub fn find_debug(
        &self,
        _build_id: Option<&[u8]>,
        _debuglink: Option<(&[u8], u32)>,
        _image: &Path,
    ) -> Option<DebugFile> {
        None
    }

    /// The supplementary file that dwz made (`.gnu_debugaltlink`: a name and a build ID), for a debug file at `debug_file`.
    pub fn find_supplementary(
        &self,
        _name: &[u8],
        _build_id: &[u8],
        _debug_file: &Path,
    ) -> Option<DebugFile> {
        None
    }
}
