//! The command line as a user meets it: usage, bad input, where output goes.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{heapcheck, heapcheck_with_input, root};
use tempfile::TempDir;

/// Status 2, one line on standard error that holds `words`, nothing on standard output; and with `--format json` one
/// document with the same message.
fn refused(arguments: &[&str], words: &[&str]) {
    let outcome = heapcheck(arguments);
    assert_eq!(outcome.status, 2, "{arguments:?}: {}", outcome.stderr);
    assert_eq!(outcome.text(), "", "{arguments:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    let message = outcome
        .stderr
        .strip_prefix("heapcheck: ")
        .unwrap_or_else(|| panic!("{}", outcome.stderr))
        .trim_end();
    for word in words {
        assert!(message.contains(word), "{arguments:?}: {message}");
    }

    let mut with_json = vec!["--format", "json"];
    with_json.extend(arguments);
    let outcome = heapcheck(&with_json);
    assert_eq!(outcome.status, 2, "{arguments:?}");
    let document = outcome.json().unwrap();
    assert_eq!(document["status"], "ERROR");
    assert_eq!(document["schema_version"], 1);
    assert_eq!(document["error"]["message"], message);
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// An ELF header, and the program headers that it promises.
struct Elf {
    class: u8,
    data: u8,
    kind: u16,
    machine: u16,
}

impl Elf {
    const CORE: Self = Self {
        class: 2,
        data: 1,
        kind: 4,
        machine: 62,
    };

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0x7f, b'E', b'L', b'F', self.class, self.data, 1];
        bytes.resize(16, 0);
        let half = |value: u16| match self.data {
            1 => value.to_le_bytes(),
            _ => value.to_be_bytes(),
        };
        let word = |value: u32| match self.data {
            1 => value.to_le_bytes(),
            _ => value.to_be_bytes(),
        };
        bytes.extend(half(self.kind));
        bytes.extend(half(self.machine));
        bytes.extend(word(1));
        let (header_bytes, entry_bytes) = if self.class == 2 { (64, 56) } else { (52, 32) };
        let address = |value: u32| {
            let mut address = word(value).to_vec();
            if self.class == 2 {
                address.splice(if self.data == 1 { 4..4 } else { 0..0 }, [0; 4]);
            }
            address
        };
        bytes.extend(address(0)); // e_entry
        bytes.extend(address(header_bytes)); // e_phoff
        bytes.extend(address(0)); // e_shoff
        bytes.extend(word(0));
        for value in [header_bytes as u16, entry_bytes, 3, 0, 0, 0] {
            bytes.extend(half(value));
        }
        assert_eq!(bytes.len(), header_bytes as usize);
        bytes.resize(bytes.len() + 3 * usize::from(entry_bytes), 0);
        bytes
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["check", "--help"],
        &["stacks", "--help"],
    ] {
        let outcome = heapcheck(arguments);
        assert_eq!(outcome.status, 0);
        assert!(outcome.text().contains("--debug-dir"), "{}", outcome.text());
        assert_eq!(outcome.stderr, "");
    }
    let outcome = heapcheck(["--version"]);
    assert_eq!(
        outcome.text(),
        concat!("heapcheck ", env!("HEAPCHECK_VERSION"), "\n")
    );
}

#[test]
fn the_help_is_as_it_was_looked_over() {
    insta::assert_snapshot!("help", heapcheck(["--help"]).text());
}

#[test]
fn a_wrong_command_line_is_refused_in_one_line() {
    refused(&[], &["CORE"]);
    refused(&["--nonsense", "core"], &["--nonsense"]);
    refused(&["core", "--locate", "guess"], &["guess", "structure"]);
    refused(&["core", "--kv", "novalue"], &["novalue"]);
    refused(&["a", "b", "-c", "core"], &["-c"]);
}

#[test]
fn what_is_no_core_is_refused_with_the_reason() {
    let files = Files::new();
    refused(&["/no/such/core"], &["/no/such/core", "no such file"]);
    refused(
        &["--threads", "1", "leaks", "core"],
        &["`leaks` stands before"],
    );
    refused(&["leeks"], &["leeks", "did you mean the command `leaks`?"]);
    refused(
        &["--formt", "json"],
        &["--formt' found; a similar argument", "'--format'"],
    );
    refused(&[&files.file("empty", b"")], &["empty"]);
    refused(
        &[&files.file("text", b"This is no core.\n")],
        &["not a core"],
    );
    refused(&[&files.file("short", b"\x7fELF")], &["short"]);
    refused(&[&files.file("zeros", &[0; 8192])], &["not a core"]);
    refused(&[files.0.path().to_str().unwrap()], &["not a file"]);
    refused(
        &[env!("CARGO_BIN_EXE_heapcheck")],
        &["not a core", "executable"],
    );
}

#[test]
fn a_foreign_core_is_refused_by_its_name() {
    let files = Files::new();
    let core_32 = Elf {
        class: 1,
        machine: 3,
        ..Elf::CORE
    };
    refused(&[&files.file("i386", &core_32.bytes())], &["32-bit"]);
    let big_endian = Elf {
        data: 2,
        machine: 22,
        ..Elf::CORE
    };
    refused(&[&files.file("s390", &big_endian.bytes())], &["390"]);
    let unknown = Elf {
        machine: 0x1234,
        ..Elf::CORE
    };
    refused(&[&files.file("unknown", &unknown.bytes())], &["machine"]);
}

#[test]
fn a_core_that_ends_in_its_headers_is_refused() {
    let files = Files::new();
    let whole = Elf::CORE.bytes();
    for bytes in [5, 16, 63] {
        let path = files.file("cut", &whole[..bytes]);
        refused(&[&path], &["cut", "ELF header"]);
    }
    for bytes in [64, 65, whole.len() - 1] {
        let path = files.file("cut", &whole[..bytes]);
        refused(&[&path], &["cut", "program headers"]);
    }
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let outcome = heapcheck(["/no/such\x1b[2J\ncore"]);
    assert_eq!(outcome.status, 2);
    assert_eq!(outcome.stderr.lines().count(), 1);
    assert!(
        outcome.stderr.contains("\\x1b[2J\\ncore"),
        "{}",
        outcome.stderr
    );
}

fn demo() -> [PathBuf; 2] {
    let directory = root().join("testdata/demo");
    [
        directory.join("double-free.core.zst"),
        directory.join("double-free"),
    ]
}

#[test]
fn an_allocator_that_is_not_known_is_refused_with_those_that_are() {
    let [core, binary] = demo();
    refused(
        &[
            "--allocator",
            "nomalloc",
            core.to_str().unwrap(),
            binary.to_str().unwrap(),
        ],
        &["nomalloc", "tcmalloc"],
    );
}

#[test]
fn the_three_spellings_of_the_main_job_are_one() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let expected = heapcheck([&core, &binary]);
    assert_eq!(expected.status, 1, "{}", expected.text());
    for arguments in [
        &[&*binary, "-c", &core][..],
        &["--core", &core, &binary],
        &[&binary, &core],
        &["check", &core, &binary],
        &["check", &binary, "-c", &core],
    ] {
        let outcome = heapcheck(arguments);
        assert_eq!(outcome.status, expected.status, "{arguments:?}");
        assert_eq!(outcome.text(), expected.text(), "{arguments:?}");
    }
}

#[test]
fn a_core_may_come_through_a_pipe() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let named = heapcheck([&core, &binary]);
    let piped = heapcheck_with_input(["-", &binary], fs::read(&core).unwrap());
    assert_eq!(piped.status, named.status, "{}", piped.stderr);
    let first_line_after = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(
        first_line_after(piped.text()),
        first_line_after(named.text())
    );
}

#[test]
fn the_report_goes_where_it_is_sent() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let files = Files::new();
    let path = files.0.path().join("report");
    let printed = heapcheck([&core, &binary]);
    let sent = heapcheck(["--output", path.to_str().unwrap(), &core, &binary]);
    assert_eq!(sent.status, printed.status);
    assert_eq!(sent.text(), "");
    assert_eq!(fs::read(&path).unwrap(), printed.stdout);

    // An error is a report too.
    let sent = heapcheck([
        "--format",
        "json",
        "-o",
        path.to_str().unwrap(),
        "/no/such/core",
    ]);
    assert_eq!((sent.status, sent.text()), (2, ""));
    let document: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!(document["status"], "ERROR");

    let unwritable = Path::new("/no/such/directory/report");
    let outcome = heapcheck(["-o", unwritable.to_str().unwrap(), &core, &binary]);
    assert_eq!(outcome.status, 2);
    assert!(
        outcome.stderr.contains("/no/such/directory"),
        "{}",
        outcome.stderr
    );
}

#[test]
fn colour_is_for_terminals_and_those_who_ask() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let colored = |when: &str| {
        heapcheck(["--color", when, &core, &binary])
            .text()
            .contains('\x1b')
    };
    assert!(!colored("auto"));
    assert!(!colored("never"));
    assert!(colored("always"));
}

#[test]
fn the_threshold_and_attributes_come_from_the_command_line() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let outcome = heapcheck([
        "--format",
        "json",
        "--fail-on",
        "never",
        "--kv",
        "version=1.2",
        "--kv",
        "host=a=b",
        &core,
        &binary,
    ]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let report = outcome.json().unwrap();
    assert_eq!(report["attributes"]["version"], "1.2");
    assert_eq!(report["attributes"]["host"], "a=b");
}

#[test]
fn stacks_have_a_name_of_their_own() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    for format in ["text", "json"] {
        let expected = heapcheck(["--minidump", "--format", format, &core, &binary]);
        assert_eq!(expected.status, 0, "{}", expected.stderr);
        for arguments in [
            &["stacks", "--format", format, &core, &binary][..],
            &["stacks", &binary, "-c", &core, "--format", format],
            &["check", "--minidump", "--format", format, &core, &binary],
        ] {
            let outcome = heapcheck(arguments);
            assert_eq!(outcome.status, 0, "{arguments:?}: {}", outcome.stderr);
            assert_eq!(outcome.text(), expected.text(), "{arguments:?}");
        }
    }
}

#[test]
fn each_command_has_its_schema() {
    let whole = heapcheck(["schema"]);
    assert_eq!(whole.status, 0);
    for command in ["check", "stacks"] {
        assert_eq!(heapcheck(["schema", command]).text(), whole.text());
    }
    let outcome = heapcheck(["schema", "nonsense"]);
    assert_eq!(outcome.status, 2);
    assert!(outcome.stderr.contains("nonsense"), "{}", outcome.stderr);
}

#[test]
fn an_address_is_no_file() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    refused(&[&core, &binary, "0x10"], &["0x10"]);
    refused(&[&core, "0x10"], &["ADDRESS", "./0x10"]);
    refused(&["0xcore"], &["ADDRESS", "./0x"]);
    refused(&["./0xcore"], &["./0xcore", "no such file"]);
}

#[test]
fn stacks_alone_are_a_report_too() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    let outcome = heapcheck(["--minidump", &core, &binary]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    assert!(outcome.text().starts_with("PID: "), "{}", outcome.text());
    assert!(outcome.text().contains("\nThread "), "{}", outcome.text());
    let outcome = heapcheck(["--minidump", "--format", "json", "--core", &core, &binary]);
    let report = outcome.json().unwrap();
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
    assert!(report["threads"][0]["frame_count"].as_u64().unwrap() > 0);
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let [core, binary] = demo();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_heapcheck"))
        .args([&core, &binary])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn evidence_is_never_overwritten_by_a_report() {
    let [core, binary] = demo();
    let files = Files::new();
    let copy = files.0.path().join("core.zst");
    fs::copy(&core, &copy).unwrap();
    let elf = files.file("core", &Elf::CORE.bytes());
    let [copy, core, binary] = [copy, core, binary].map(|path| path.to_str().unwrap().to_owned());
    let before = fs::read(&copy).unwrap();
    // `-o core ./prog`, a slip for `-c`; the core that is read; any core or program.
    refused(&["-o", &elf, &binary], &[&elf, "not overwritten", "-c"]);
    refused(&["-o", &copy, &copy, &binary], &["to be analysed"]);
    refused(&["-o", &copy, &core, &binary], &["packed"]);
    assert_eq!(fs::read(&copy).unwrap(), before);
    assert_eq!(fs::read(&elf).unwrap(), Elf::CORE.bytes());
    // A report of yesterday is overwritten.
    let report = files.file("report", b"old");
    assert_eq!(heapcheck(["-o", &report, &core, &binary]).status, 1);
    assert!(fs::read(&report).unwrap().len() > 3);
    assert_eq!(fs::read_dir(files.0.path()).unwrap().count(), 3);
}

#[test]
fn a_core_that_shrinks_while_it_is_read_is_an_error_and_no_signal() {
    let fixture = common::fixture("2.10", "healthy-threads-01");
    for _ in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let core = directory.path().join("core");
        fs::copy(&fixture.core, &core).unwrap();
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_heapcheck"))
            .args(["--format", "json", "--threads", "1"])
            .args([&core, &fixture.binary])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let maps = format!("/proc/{}/maps", child.id());
        let is_mapped = || {
            let maps = fs::read_to_string(&maps).unwrap_or_default();
            maps.contains(core.to_str().unwrap())
        };
        while !is_mapped() && child.try_wait().unwrap().is_none() {}
        let file = fs::OpenOptions::new().write(true).open(&core).unwrap();
        file.set_len(4096).unwrap();
        let output = child.wait_with_output().unwrap();
        let status = output.status.code().expect("no signal ends it");
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if document["status"] == "ERROR" {
            assert_eq!(status, 2);
            let message = document["error"]["message"].as_str().unwrap();
            assert!(message.contains("became shorter"), "{message}");
            let line = String::from_utf8(output.stderr).unwrap();
            assert_eq!(line, format!("heapcheck: {message}\n"));
            return;
        }
    }
    panic!("the core was never cut in time");
}

#[test]
fn a_core_is_unpacked_where_the_command_line_says() {
    let [core, binary] = demo().map(|path| path.to_str().unwrap().to_owned());
    refused(
        &["--tmpdir", "/no/such/folder", &core, &binary],
        &["no room to unpack", "/no/such/folder"],
    );
    let files = Files::new();
    let folder = files.0.path().to_str().unwrap();
    assert_eq!(heapcheck(["--tmpdir", folder, &core, &binary]).status, 1);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
}

#[test]
fn a_redacted_report_can_leave_the_house() {
    let fixture = common::fixture("2.10", "overrun-text-O0");
    let paths = [&fixture.core, &fixture.binary].map(|path| path.to_str().unwrap().to_owned());
    let whole = heapcheck(["--format", "json", &paths[0], &paths[1]]);
    let redacted = heapcheck(["--redact", "--format", "json", &paths[0], &paths[1]]);
    assert_eq!(redacted.status, whole.status);
    let (whole, report) = (whole.json().unwrap(), redacted.json().unwrap());
    let text = report.to_string();
    for gone in [
        &whole["findings"][0]["overwriter"]["text"],
        &whole["process"]["arguments"],
        &whole["core"]["path"],
    ] {
        let gone = gone.as_str().unwrap();
        assert!(!text.contains(gone), "{gone}");
    }
    assert!(!text.contains("/usr/"), "{text}");
    assert_eq!(report["findings"][0]["kind"], whole["findings"][0]["kind"]);
    assert_eq!(report["findings"][0]["evidence"][0]["found"], "text");
}

#[test]
#[cfg_attr(
    not(feature = "fixtures"),
    ignore = "needs ./build-fixtures.sh, and --features fixtures"
)]
fn a_rebuild_keeps_the_fingerprint_and_another_bug_has_another() {
    // The program's name is another one in each fixture: what stands behind it must agree.
    let named = |release: &str, name: &str| -> String {
        let fixture = common::fixture(release, name);
        let report = heapcheck([
            "--format".as_ref(),
            "json".as_ref(),
            fixture.core.as_os_str(),
            fixture.binary.as_os_str(),
        ]);
        let report = report.json().unwrap();
        let fingerprint = &report["findings"][0]["fingerprint"];
        assert_eq!(fingerprint["v2"].as_str().unwrap().len(), 16);
        let text = fingerprint["v2_text"].as_str().unwrap();
        text.split_once(" | ").unwrap().1.to_owned()
    };
    let mut known = std::collections::BTreeSet::new();
    for (release, bug) in [
        ("2.10", "double-free"),
        ("2.10", "overrun-nul"),
        ("2.10", "misaligned-free"),
        ("jemalloc-5.3.0", "double-free"),
    ] {
        let unoptimised = named(release, &format!("{bug}-O0"));
        assert_eq!(unoptimised, named(release, &format!("{bug}-O2")));
        assert!(known.insert(unoptimised.clone()), "{unoptimised}");
    }
}
