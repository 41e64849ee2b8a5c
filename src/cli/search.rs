//! Where files are looked for, and what may be asked of them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use ground::target::{LocateLimit, LocatedBy};

use postmortem::modules::SearchPaths;

/// The places of modules' files and debug files, and the best way of finding something by them.
#[derive(Args, Clone, Debug)]
pub struct SearchArgs {
    #[command(flatten)]
    files: FilesArgs,

    /// The best way in which an allocator may be found: `symbols` forbids debug info, `structure` symbols too
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "debug-info",
        help_heading = "Analysis"
    )]
    locate: Locate,
}

/// The places of modules' files and debug files.
#[derive(Args, Clone, Debug)]
pub struct FilesArgs {
    /// Root of a file system like the dead process's; replaces the paths in the core (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    sysroot: Vec<PathBuf>,

    /// Where separate debug files are, instead of /usr/lib/debug (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    debug_dir: Vec<PathBuf>,

    /// Look for files nowhere but where this command line says
    #[arg(long, help_heading = "Files")]
    no_default_paths: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Locate {
    DebugInfo,
    Symbols,
    Structure,
}

impl FilesArgs {
    /// Where to look for files.
    pub fn paths(&self) -> SearchPaths {
        SearchPaths {
            sysroots: self.sysroot.clone(),
            debug_dirs: self.debug_dir.clone(),
            defaults: !self.no_default_paths,
            ..SearchPaths::default()
        }
    }
}

impl SearchArgs {
    /// Where to look for files.
    pub fn paths(&self) -> SearchPaths {
        self.files.paths()
    }

    /// The best way of finding allocator state.
    pub fn limit(&self) -> LocateLimit {
        LocateLimit(match self.locate {
            Locate::DebugInfo => LocatedBy::DebugInfo,
            Locate::Symbols => LocatedBy::Symbols,
            Locate::Structure => LocatedBy::Structure,
        })
    }
}
