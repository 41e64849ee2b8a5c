//! Cores of the repository, unpacked and opened, for the benchmarks.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ground::target::{LocateLimit, LocatedBy};
use postmortem::corefile::OpenOptions;
use postmortem::modules::SearchPaths;
use postmortem::session::{Session, SessionError, SessionOptions};

/// A core of `tests/cores` with its program.
pub struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    /// Unpacks `tests/cores/<name>`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn new(name: &str) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../tests/cores")
            .join(name);
        for file in ["core", "binary"] {
            let mut bytes = Vec::new();
            let packed = File::open(packed.join(file).with_extension("xz"))?;
            lzma_rust2::XzReader::new(packed, false).read_to_end(&mut bytes)?;
            fs::write(folder.path().join(file), bytes)?;
        }
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the core, looking for no other files.
    ///
    /// # Errors
    /// If it is unusable.
    pub fn open(&self) -> Result<Session, SessionError> {
        Session::open(&SessionOptions {
            files: vec![self.path("core"), self.path("binary")],
            search: SearchPaths {
                defaults: false,
                ..SearchPaths::default()
            },
            limit: LocateLimit(LocatedBy::DebugInfo),
            jobs: Some(1),
            open: OpenOptions::default(),
        })
    }
}
