//! The command line: arguments to [`Options`]. Validates, does nothing.
//!
//! Three spellings of the main job, because people and debuggers' front ends use all three:
//!
//! ```text
//! heapcheck [OPTIONS] CORE [BINARY]        which is which is told by their ELF type
//! heapcheck [OPTIONS] BINARY -c CORE       coredumpctl debug --debugger=heapcheck
//! heapcheck check [OPTIONS] CORE [BINARY]  also for a core file that is called `schema`
//! ```

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use heaps::target::{LocateLimit, LocatedBy};

use crate::modules::SearchPaths;
use crate::report::schema::Severity;

#[derive(Debug, Parser)]
#[command(
    name = "heapcheck",
    version,
    about = "Finds heap corruption in core files: what is damaged, which block, who did it",
    after_help = "Exit status: 0 nothing found, 1 a finding at or above --fail-on, 2 not analysed, \
                  3 nothing found but not wholly analysed",
    override_usage = "heapcheck [OPTIONS] <CORE> [BINARY]\n       heapcheck [OPTIONS] <BINARY> -c <CORE>\n       \
                      heapcheck <COMMAND>",
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    check: CheckArguments,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Check the heap: the main job by its long name
    Check(Box<CheckArguments>),
    /// Print the JSON schema of the report
    Schema,
}

#[derive(Args, Debug)]
struct CheckArguments {
    /// The core file (plain or compressed, `-`: standard input) and the program that died, in either order
    #[arg(value_name = "CORE] [BINARY", num_args = 1..=2, required_unless_present = "core")]
    files: Vec<PathBuf>,

    /// The core file, as debuggers take it: `heapcheck BINARY -c CORE`
    #[arg(short, long, value_name = "CORE")]
    core: Option<PathBuf>,

    /// Print the stacks of all threads instead of checking the heap
    #[arg(long)]
    minidump: bool,

    /// Root of a file system like the dead process's; replaces the paths in the core (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    sysroot: Vec<PathBuf>,

    /// Where separate debug files are, instead of /usr/lib/debug (repeatable)
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    debug_dir: Vec<PathBuf>,

    /// Look for files nowhere but where this command line says
    #[arg(long, help_heading = "Files")]
    no_default_paths: bool,

    /// The best way in which an allocator may be found: `symbols` forbids debug info, `structure` symbols too
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "debug-info",
        help_heading = "Analysis"
    )]
    locate: Locate,

    /// Where a packed core, or one from a pipe, is unpacked [default: $TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    tmpdir: Option<PathBuf>,

    /// Unpack at most this much of a core (K, M, G, T: binary multiples) [default: until the folder's file system is almost full]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Files")]
    max_unpacked: Option<u64>,

    /// Take this allocator instead of detecting it
    #[arg(long, value_name = "NAME", help_heading = "Analysis")]
    allocator: Option<String>,

    /// Use so many threads [default: as many as the machine has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Analysis")]
    threads: Option<u16>,

    /// The lowest severity that gives exit status 1
    #[arg(
        long,
        value_name = "SEVERITY",
        value_enum,
        default_value = "critical",
        help_heading = "Analysis"
    )]
    fail_on: FailOn,

    /// How to write the report
    #[arg(
        long,
        value_enum,
        default_value = "text",
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    format: Format,

    /// Where to write the report [default: standard output]
    #[arg(long, short, value_name = "FILE", help_heading = "Output")]
    output: Option<PathBuf>,

    /// Colour the text
    #[arg(
        long,
        value_enum,
        default_value = "auto",
        value_name = "WHEN",
        help_heading = "Output"
    )]
    color: ColorChoice,

    /// Show up to N bytes of the blocks concerned: they may hold secrets
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Output")]
    include_bytes: u32,

    /// Make a report that may leave the house: no arguments, no text from memory, no folders
    #[arg(long, conflicts_with = "include_bytes", help_heading = "Output")]
    redact: bool,

    /// An attribute for the report, to index it by: version, commit, host (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = attribute, help_heading = "Output")]
    kv: Vec<(String, String)>,
}

/// How to write a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For pipelines
    Json,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Locate {
    DebugInfo,
    Symbols,
    Structure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FailOn {
    Critical,
    Warning,
    Note,
    Never,
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Analyse a core.
    Check(Box<Options>),
    /// Print the JSON schema.
    Schema,
    /// Print this: help, or the version.
    Print(String),
}

/// How to analyse a core.
#[derive(Debug)]
pub struct Options {
    /// The core, and perhaps the binary, in either order.
    pub files: Vec<PathBuf>,
    /// Stacks only.
    pub minidump: bool,
    /// Where to look for files.
    pub search: SearchPaths,
    /// The best way of finding allocator state.
    pub limit: LocateLimit,
    /// The allocator to take.
    pub allocator: Option<String>,
    /// Threads to work with.
    pub jobs: Option<usize>,
    /// The lowest severity that gives exit status 1.
    pub fail_on: Option<Severity>,
    /// How to write the report.
    pub format: Format,
    /// Where to write it.
    pub output: Option<PathBuf>,
    /// When to colour.
    pub color: ColorChoice,
    /// Most bytes of a block's contents to show.
    pub include_bytes: usize,
    /// Where a core is unpacked.
    pub temporary_dir: PathBuf,
    /// Most bytes of a packed core that are unpacked.
    pub max_unpacked: Option<u64>,
    /// Leave out what may not leave the house.
    pub redact: bool,
    /// Attributes for the report.
    pub attributes: BTreeMap<String, String>,
}

/// A command line that cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// One line.
    message: String,
    /// JSON was asked for, as far as that can be told.
    pub json: bool,
}

/// Parses a command line, program name first.
///
/// # Errors
/// If it cannot be followed.
pub fn parse(arguments: Vec<OsString>) -> Result<Command, UsageError> {
    let json = asks_for_json(&arguments);
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            ) =>
        {
            return Ok(Command::Print(error.render().to_string()));
        }
        Err(error) => {
            let message = one_line(&error.render().to_string());
            return Err(UsageError { message, json });
        }
    };
    let check = match arguments.command {
        Some(Subcommands::Schema) => return Ok(Command::Schema),
        Some(Subcommands::Check(check)) => *check,
        None => arguments.check,
    };
    options(check)
        .map(|options| Command::Check(Box::new(options)))
        .map_err(|message| UsageError { message, json })
}

fn options(check: CheckArguments) -> Result<Options, String> {
    let mut files = check.files;
    if let Some(core) = check.core {
        if files.len() > 1 {
            return Err("-c names the core, so there can be one BINARY only".into());
        }
        files.insert(0, core);
    }
    let mut attributes = BTreeMap::new();
    for (name, value) in check.kv {
        if attributes.insert(name.clone(), value).is_some() {
            return Err(format!("--kv {name}: given twice"));
        }
    }
    Ok(Options {
        files,
        minidump: check.minidump,
        search: SearchPaths {
            sysroots: check.sysroot,
            debug_dirs: check.debug_dir,
            defaults: !check.no_default_paths,
            ..SearchPaths::default()
        },
        limit: LocateLimit(match check.locate {
            Locate::DebugInfo => LocatedBy::DebugInfo,
            Locate::Symbols => LocatedBy::Symbols,
            Locate::Structure => LocatedBy::Structure,
        }),
        allocator: check.allocator,
        jobs: check.threads.map(usize::from),
        fail_on: match check.fail_on {
            FailOn::Critical => Some(Severity::Critical),
            FailOn::Warning => Some(Severity::Warning),
            FailOn::Note => Some(Severity::Note),
            FailOn::Never => None,
        },
        format: check.format,
        output: check.output,
        color: check.color,
        include_bytes: usize::try_from(check.include_bytes).unwrap_or(usize::MAX),
        temporary_dir: check.tmpdir.unwrap_or_else(temporary_dir),
        max_unpacked: check.max_unpacked,
        redact: check.redact,
        attributes,
    })
}

/// `TMPDIR`, else a folder that is no memory: an unpacked core is large.
fn temporary_dir() -> PathBuf {
    std::env::var_os("TMPDIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// A number of bytes, perhaps with a unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match text.get(digits.len()..).unwrap_or_default() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err("not a number of bytes, or one with K, M, G or T".into()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "not a number of bytes, or one with K, M, G or T")?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".into())
}

/// `name=value` of `--kv`.
fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("not of the form NAME=VALUE".into()),
    }
}

/// A usage error's first paragraph without the word `error`, on one line.
fn one_line(rendered: &str) -> String {
    let paragraph: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    let line = paragraph.join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// Whether a command line that may be wrong asks for JSON: then the error is a document too.
fn asks_for_json(arguments: &[OsString]) -> bool {
    let before_files = arguments.iter().take_while(|argument| *argument != "--");
    let mut value_is_next = false;
    before_files.fold(false, |json, argument| {
        let is_value = std::mem::replace(&mut value_is_next, argument == "--format");
        json || is_value && argument == OsStr::new("json") || argument == "--format=json"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, UsageError> {
        parse(
            std::iter::once("heapcheck")
                .chain(line.split_whitespace())
                .map(OsString::from)
                .collect(),
        )
    }

    fn options_of(line: &str) -> Options {
        match parsed(line) {
            Ok(Command::Check(options)) => *options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error_of(line: &str) -> UsageError {
        parsed(line).expect_err(line)
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_spellings_of_the_main_job_name_the_core_first() {
        for (line, files) in [
            ("core", &["core"][..]),
            ("core binary", &["core", "binary"]),
            ("-", &["-"]),
            ("- binary", &["-", "binary"]),
            ("binary -c core", &["core", "binary"]),
            ("-c core binary", &["core", "binary"]),
            ("--core core", &["core"]),
            ("--minidump --core core binary", &["core", "binary"]),
            ("check core binary", &["core", "binary"]),
            ("check schema", &["schema"]),
            ("check check", &["check"]),
            ("./schema", &["./schema"]),
            ("--format json schema", &["schema"]),
            ("-- schema check", &["schema", "check"]),
        ] {
            let options = options_of(line);
            let expected: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            assert_eq!(options.files, expected, "{line}");
            assert_eq!(options.minidump, line.contains("--minidump"), "{line}");
        }
        assert!(matches!(parsed("schema"), Ok(Command::Schema)));
    }

    #[test]
    fn options_arrive() {
        let options = options_of(
            "core --sysroot a --sysroot b --debug-dir d --no-default-paths --locate symbols --allocator tcmalloc \
             --threads 3 --fail-on never --format json --output out --color always --include-bytes 64 --kv a=b --kv c=d=e --tmpdir t \
             --max-unpacked 3G",
        );
        assert_eq!(
            options.search.sysroots,
            [PathBuf::from("a"), PathBuf::from("b")]
        );
        assert_eq!(options.search.debug_dirs, [PathBuf::from("d")]);
        assert!(!options.search.defaults);
        assert_eq!(options.limit, LocateLimit(LocatedBy::Symbols));
        assert_eq!(options.allocator.as_deref(), Some("tcmalloc"));
        assert_eq!(options.jobs, Some(3));
        assert_eq!(options.fail_on, None);
        assert_eq!(options.format, Format::Json);
        assert_eq!(options.output, Some(PathBuf::from("out")));
        assert_eq!(options.color, ColorChoice::Always);
        assert_eq!(options.include_bytes, 64);
        assert_eq!(options.temporary_dir, PathBuf::from("t"));
        assert_eq!(options.max_unpacked, Some(3 << 30));
        let attributes: Vec<_> = options.attributes.into_iter().collect();
        assert_eq!(
            attributes,
            [("a".into(), "b".into()), ("c".into(), "d=e".into())]
        );

        let options = options_of("core");
        assert!(options.search.defaults);
        assert_eq!(options.limit, LocateLimit(LocatedBy::DebugInfo));
        assert_eq!(options.fail_on, Some(Severity::Critical));
        assert_eq!(options.jobs, None);
        assert_eq!(options.format, Format::Text);
    }

    #[test]
    fn a_wrong_command_line_is_one_line_of_error() {
        for line in [
            "",
            "--no-such-option core",
            "core binary third",
            "a b -c core",
            "core --locate guess",
            "core --fail-on maybe",
            "core --kv novalue",
            "core --kv =x",
            "core --kv a=1 --kv a=2",
            "core --threads 0",
            "core --include-bytes -1",
            "core --redact --include-bytes 8",
            "core --format xml",
            "core --max-unpacked 3X",
            "core --max-unpacked 99999999T",
            "core --max-unpacked G",
            "schema core",
            "check",
        ] {
            let error = error_of(line);
            let message = error.to_string();
            assert!(
                !message.is_empty() && !message.contains('\n'),
                "{line}: {message}"
            );
            assert!(!message.starts_with("error"), "{line}: {message}");
            assert!(!error.json);
        }
    }

    #[test]
    fn json_is_understood_even_in_a_wrong_command_line() {
        for (line, json) in [
            ("--format json", true),
            ("--format=json --nonsense core", true),
            ("--nonsense --format json", true),
            ("--format text --kv x", false),
            ("--nonsense -- --format json", false),
            ("--nonsense json", false),
        ] {
            assert_eq!(error_of(line).json, json, "{line}");
        }
    }
}
