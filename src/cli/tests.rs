use std::path::{Path, PathBuf};

use ground::target::{LocateLimit, LocatedBy};

use super::*;
use crate::report::schema::Severity;

fn parsed(line: &str) -> Result<Invocation, UsageError> {
    parse(
        std::iter::once("heapcheck")
            .chain(line.split_whitespace())
            .map(OsString::from)
            .collect(),
    )
}

fn command_of(line: &str) -> Box<dyn CoreCommand> {
    match parsed(line) {
        Ok(Invocation::Read(command)) => command,
        other => panic!("{line}: {other:?}"),
    }
}

/// `stacks` has no threshold; `check` has one unless it is taken away.
fn is_stacks(command: &dyn CoreCommand) -> bool {
    command.fail_on().is_none()
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
        ("stacks core binary", &["core", "binary"]),
        ("stacks binary -c core", &["core", "binary"]),
        ("./schema", &["./schema"]),
        ("core ./0x10", &["core", "./0x10"]),
        ("--format json schema", &["schema"]),
        ("-- schema check", &["schema", "check"]),
    ] {
        let command = command_of(line);
        let expected: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        assert_eq!(command.core().files(), expected, "{line}");
        assert_eq!(
            is_stacks(command.as_ref()),
            line.contains("--minidump") || line.starts_with("stacks"),
            "{line}"
        );
    }
    assert!(matches!(parsed("schema"), Ok(Invocation::Schema(_))));
    assert!(matches!(parsed("schema stacks"), Ok(Invocation::Schema(_))));
}

#[test]
fn options_arrive() {
    let command = command_of(
        "core --sysroot a --sysroot b --debug-dir d --no-default-paths --locate symbols --allocator tcmalloc \
         --threads 3 --fail-on never --format json --output out --color always --include-bytes 64 --kv a=b --kv c=d=e --tmpdir t \
         --max-unpacked 3G",
    );
    let (core, search, output) = (command.core(), command.search(), command.output());
    let paths = search.paths();
    assert_eq!(paths.sysroots, [PathBuf::from("a"), PathBuf::from("b")]);
    assert_eq!(paths.debug_dirs, [PathBuf::from("d")]);
    assert!(!paths.defaults);
    assert_eq!(search.limit(), LocateLimit(LocatedBy::Symbols));
    assert_eq!(core.jobs(), Some(3));
    assert_eq!(command.fail_on(), None);
    assert_eq!(output.format().name(), "json");
    assert_eq!(output.path(), Some(Path::new("out")));
    assert_eq!(output.color(), ColorChoice::Always);
    assert_eq!(core.open_options().temporary_dir, PathBuf::from("t"));
    assert_eq!(core.open_options().max_unpacked_bytes, Some(3 << 30));
    let report = output.report_options();
    assert_eq!(report.include_bytes, 64);
    let attributes: Vec<_> = report.attributes.into_iter().collect();
    assert_eq!(
        attributes,
        [("a".into(), "b".into()), ("c".into(), "d=e".into())]
    );

    let command = command_of("core");
    assert!(command.search().paths().defaults);
    assert_eq!(command.search().limit(), LocateLimit(LocatedBy::DebugInfo));
    assert_eq!(command.fail_on(), Some(Severity::Critical));
    assert_eq!(command.core().jobs(), None);
    assert_eq!(command.output().format().name(), "text");
}

/// A command that takes addresses, as those that ask about single blocks do.
#[derive(Debug, Parser)]
#[command(mut_arg("operands", |operands| operands.num_args(1..).value_name("CORE] [BINARY] [ADDRESS")))]
struct WithAddresses {
    #[command(flatten)]
    core: CoreArgs,
}

#[test]
fn what_begins_with_0x_is_an_address() {
    for (line, files, addresses) in [
        ("core 0x10", &["core"][..], &[0x10][..]),
        (
            "0xffffffffffffffff core 0xA binary",
            &["core", "binary"],
            &[u64::MAX, 10],
        ),
        ("binary -c 0x1 0x2", &["0x1", "binary"], &[2]),
        ("./0x1 0x2", &["./0x1"], &[2]),
    ] {
        let words = std::iter::once("refs").chain(line.split(' '));
        let core = WithAddresses::try_parse_from(words).expect(line).core;
        let expected: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
        assert_eq!(core.files(), expected, "{line}");
        assert_eq!(core.addresses(), addresses, "{line}");
        assert!(
            core.validate(true).is_ok() && core.validate(false).is_err(),
            "{line}"
        );
    }
    let help = WithAddresses::try_parse_from(["refs", "--help"])
        .unwrap_err()
        .to_string();
    assert!(help.contains("[CORE] [BINARY] [ADDRESS]"), "{help}");
    assert!(WithAddresses::try_parse_from(["refs", "core", "0x10000000000000000"]).is_err());
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
        "core 0x10",
        "0x10",
        "core 0xno",
        "core 0x",
        "stacks",
        "stacks core --allocator tcmalloc",
        "check",
    ] {
        let error = error_of(line);
        let message = error.to_string();
        assert!(
            !message.is_empty() && !message.contains('\n'),
            "{line}: {message}"
        );
        assert!(!message.starts_with("error"), "{line}: {message}");
        assert!(error.format.is_none());
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
        assert_eq!(error_of(line).format.is_some(), json, "{line}");
    }
}
