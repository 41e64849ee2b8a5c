//! What our readers say of files, held against second readers: addr2line for functions, lines and inlined calls, goblin for headers, notes and
//! dynamic symbols. What is known to differ is listed beside each comparison, with who is right.
//!
//! Without the feature `fixtures` the files are those of `tests/cores`; with it, one core of each release and the programs for stacks.

#[path = "../common/mod.rs"]
mod common;
mod crafted;
mod sources;
mod tables;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::way::Way;
use common::{Files, Fixture, fixtures, fixtures_dir, small};
use ground::target::{LocateLimit, LocatedBy};
use postmortem::corefile::OpenOptions;
use postmortem::modules::SearchPaths;
use postmortem::session::{Session, SessionOptions};

/// A core with its program, and where the other files are.
struct Case {
    name: String,
    core: PathBuf,
    binary: PathBuf,
    search: SearchPaths,
}

impl Case {
    fn of(fixture: &Fixture) -> Self {
        let mut search = SearchPaths::default();
        if let Files::Below(root) = &fixture.files {
            search.defaults = false;
            search.sysroots.push(root.clone());
        }
        let debug = Way::DebugInfo.debug_root(fixture);
        search
            .debug_dirs
            .extend(debug.map(|debug| fixtures_dir().join(debug)));
        Self {
            name: format!("{}/{}", fixture.release, fixture.name),
            core: fixture.core.clone(),
            binary: fixture.binary.clone(),
            search,
        }
    }

    /// One of the programs whose stacks are compared, in the repository or built.
    fn of_stacks(name: &str) -> Self {
        let (folder, files) = match cfg!(feature = "fixtures") {
            true => (fixtures_dir(), Files::Here),
            false => {
                let folder = small::directory();
                (folder.to_owned(), Files::Below(folder.join("root")))
            }
        };
        let folder = folder.join("stacks").join(name);
        Self::of(&Fixture {
            release: "stacks".to_owned(),
            name: name.to_owned(),
            core: folder.join("core"),
            binary: folder.join("binary"),
            files,
            truth: Vec::new(),
        })
    }

    fn open(&self) -> Session {
        Session::open(&SessionOptions {
            files: vec![self.core.clone(), self.binary.clone()],
            search: self.search.clone(),
            limit: LocateLimit(LocatedBy::DebugInfo),
            jobs: None,
            open: OpenOptions::default(),
        })
        .unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// A core of each release that comes with files, and some for stacks.
fn cases() -> Vec<Case> {
    let mut seen = BTreeSet::new();
    let with_files = fixtures().into_iter();
    let with_files = with_files.filter(|one| one.files != Files::None && !one.is("OTHER"));
    let mut cases: Vec<Case> = with_files
        .filter(|one| seen.insert(one.release.clone()))
        .map(|one| Case::of(&one))
        .collect();
    let stacks: &[&str] = match cfg!(feature = "fixtures") {
        true => &[
            "cases-O0-free",
            "cases-O2-free",
            "debuglink-free",
            "deep-O0-lambda",
            "deep-O2-lambda",
            "rust-O0-closures",
            "rust-O2-closures",
            "arm64-deep-O2-lambda",
        ],
        false => &["cases-O2-free", "deep-O2-lambda", "arm64-static-O2-store"],
    };
    cases.extend(stacks.iter().map(|name| Case::of_stacks(name)));
    cases
}
