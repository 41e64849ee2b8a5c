//! The ways in which each core is read, because each has to give the same answers:
//!
//! | way | files | best way of finding permitted |
//! |---|---|---|
//! | `debug-info` | binary, libraries, debug files | debug info |
//! | `symbols` | binary, libraries, debug files for their symbols | symbols |
//! | `structure` | binary, libraries | structure |
//! | `bare` | none | structure |

use std::ffi::OsString;

use super::{Files, Fixture, Outcome, fixtures_dir, heapcheck};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    DebugInfo,
    Symbols,
    Structure,
    Bare,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::DebugInfo, Way::Symbols, Way::Structure, Way::Bare];

    pub fn name(self) -> &'static str {
        match self {
            Way::DebugInfo => "debug-info",
            Way::Symbols => "symbols",
            Way::Structure => "structure",
            Way::Bare => "bare",
        }
    }

    /// The ways in which a fixture can be read: those in the repository come without debug files, so that two are left.
    pub fn all_of(fixture: &Fixture) -> &'static [Way] {
        match fixture.files {
            Files::Here => &Self::ALL,
            Files::Below(_) => &[Way::DebugInfo, Way::Bare],
            Files::None => &[Way::Bare],
        }
    }

    /// This way, or without files if there are none.
    pub fn or_bare(self, fixture: &Fixture) -> Way {
        match Self::all_of(fixture).contains(&self) {
            true => self,
            false => Way::Bare,
        }
    }

    /// Where a fixture's debug files lie, below all fixtures; in the structural way glibc's are left out: its stripped file
    /// has to do.
    pub fn debug_root(self, fixture: &Fixture) -> Option<String> {
        if fixture.files != Files::Here {
            return None;
        }
        match fixture.release.as_str() {
            "2.10-debugfile" | "2.10-dwz" => Some("debugroot".to_owned()),
            "2.10-debuglink" => Some("debuglinkroot".to_owned()),
            "glibc-2.36" if self != Way::Structure => Some("/usr/lib/debug".to_owned()),
            release if fixture.allocator() == "ptmalloc" && self != Way::Structure => {
                Some(format!("libraries/{release}/root/usr/lib/debug"))
            }
            _ => None,
        }
    }

    /// The arguments for a fixture, files included.
    pub fn arguments(self, fixture: &Fixture) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if self == Way::Bare || fixture.files == Files::None {
            arguments.extend(["--no-default-paths", "--locate", "structure"].map(Into::into));
            arguments.push(fixture.core.clone().into());
            return arguments;
        }
        arguments.extend(["--locate", self.name()].map(Into::into));
        if let Files::Below(root) = &fixture.files {
            arguments.extend(["--no-default-paths", "--sysroot"].map(Into::into));
            arguments.push(root.into());
        }
        if let Some(debug_root) = self.debug_root(fixture) {
            arguments.push("--debug-dir".into());
            arguments.push(fixtures_dir().join(debug_root).into());
        }
        arguments.push(fixture.core.clone().into());
        arguments.push(fixture.binary.clone().into());
        arguments
    }
}

pub fn run(way: Way, fixture: &Fixture) -> Outcome {
    let mut arguments = vec!["--format".into(), "json".into()];
    arguments.extend(way.arguments(fixture));
    heapcheck(arguments)
}
