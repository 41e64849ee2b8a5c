//! Stacks of every thread, held against gdb's: functions, inlined calls, files and lines; and what is said of each crash.
//!
//! `fixtures/stacks/<build>-<mode>` holds a core for each kind of stack (testdata/stacks, testdata/lib/stacks.sh). gdb runs
//! on this machine, with the same files; what it is known to say differently stands in [`KNOWN`], with who is right.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{fixtures_dir, heapcheck, in_parallel, root};
use serde_json::Value;

/// Rows compared per thread; testdata/stacks/gdb.py gives a few more.
const COMPARED: usize = 1900;

/// A frame or an inlined call.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Row {
    pc: String,
    function: String,
    /// The file's last two parts, and the line.
    place: Option<(String, u64)>,
}

type Stacks = BTreeMap<u64, Vec<Row>>;

/// A difference that is known.
struct Known {
    /// What the fixture's name holds.
    fixture: &'static str,
    /// gdb's function at the first frame that differs; "" for the end of its stack.
    gdb: &'static str,
    /// Ours.
    ours: &'static str,
    /// Who is right, and why.
    #[allow(dead_code, reason = "for the reader")]
    why: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        fixture: "-push",
        gdb: "?",
        ours: "main",
        why: "heapcheck: main calls assembler_push, which has no call-frame information; gdb takes a saved register for the \
              return address, 0, and ends",
    },
    Known {
        fixture: "stripped-push",
        gdb: "?",
        ours: "?",
        why: "heapcheck: as above; a_stripped_program_has_the_stack_of_its_twin",
    },
    Known {
        fixture: "stripped-frame",
        gdb: "?",
        ours: "?",
        why: "heapcheck: gdb cannot guess assembler_frame's prologue without a symbol; the twin with symbols agrees with us",
    },
    Known {
        fixture: "stripped-nocfi",
        gdb: "?",
        ours: "?",
        why: "heapcheck: likewise for without_cfi",
    },
    Known {
        fixture: "-smash",
        gdb: "?",
        ours: "__libc_start_call_main",
        why: "both guess, and heapcheck says so (trust scan, stack_end overwritten): gdb goes on through the overwriting bytes",
    },
];

fn cases() -> Vec<String> {
    let index = fixtures_dir().join("stacks/index");
    let index = std::fs::read_to_string(&index)
        .unwrap_or_else(|error| panic!("{}: {error}; run ./build-fixtures.sh", index.display()));
    index.lines().map(str::to_owned).collect()
}

fn directory(case: &str) -> PathBuf {
    fixtures_dir().join("stacks").join(case)
}

fn report(case: &str, arguments: &[&str]) -> (i32, Value) {
    let directory = directory(case);
    let mut all: Vec<std::ffi::OsString> = ["--minidump", "--format", "json"]
        .iter()
        .chain(arguments)
        .map(Into::into)
        .collect();
    all.push(directory.join("core").into());
    all.push(directory.join("binary").into());
    let outcome = heapcheck(all);
    let report = outcome
        .json()
        .unwrap_or_else(|error| panic!("{case}: {error}"));
    assert_eq!(report["status"], "OK", "{case}");
    (outcome.status, report)
}

/// What is compared of a function's name: demanglers and debug information differ in return types, arguments and the
/// spelling of closures, but not in the last part of the path.
fn key(name: &str) -> String {
    if name.starts_with('<') && name.ends_with('>') && !name.contains("::") {
        return name.to_owned();
    }
    let mut name = name.split(" [clone").next().unwrap_or(name).to_owned();
    if !name.ends_with("@plt") {
        name = name.split('@').next().unwrap_or("").to_owned();
    }
    for suffix in [".cold", ".part.", ".constprop.", ".isra."] {
        name = name.split(suffix).next().unwrap_or("").to_owned();
    }
    let mut short = String::new();
    let mut depth = 0u32;
    for letter in name.chars() {
        match letter {
            '<' | '(' => depth += 1,
            '>' | ')' => depth = depth.saturating_sub(1),
            letter if depth == 0 => short.push(letter),
            _ => {}
        }
    }
    let short = short
        .trim_end_matches(" const")
        .trim()
        .trim_end_matches("::");
    let last = short.rsplit("::").next().unwrap_or(short).trim();
    let last = last.rsplit(' ').next().unwrap_or(last);
    match last.find('{') {
        Some(0) => "{}".to_owned(),
        Some(at) => last[..at].to_owned(),
        None => last.to_owned(),
    }
}

fn short_file(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            ".." => {
                parts.pop();
            }
            "." | "" => {}
            part => parts.push(part),
        }
    }
    parts[parts.len().saturating_sub(2)..].join("/")
}

fn ours(report: &Value) -> Stacks {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let place =
        |value: &Value| Some((short_file(value["file"].as_str()?), value["line"].as_u64()?));
    let threads = report["threads"].as_array().unwrap().iter();
    threads
        .map(|thread| {
            let mut rows = Vec::new();
            for frame in thread["frames"].as_array().unwrap() {
                let pc = text(&frame["offset"]).unwrap();
                let inlines = frame["inlines"].as_array().unwrap();
                for call in inlines.iter().chain([frame]) {
                    rows.push(Row {
                        pc: pc.clone(),
                        function: text(&call["function"]).map_or("?".into(), |name| key(&name)),
                        place: place(call),
                    });
                }
            }
            rows.truncate(COMPARED);
            (thread["thread_id"].as_u64().unwrap(), rows)
        })
        .collect()
}

fn gdbs(directory: &Path) -> Stacks {
    let output = Command::new("gdb")
        .args([
            "-q",
            "-nx",
            "-batch",
            "-ex",
            "set debuginfod enabled off",
            "-ex",
        ])
        .arg(format!("file {}", directory.join("binary").display()))
        .arg("-ex")
        .arg(format!("core {}", directory.join("core").display()))
        .arg("-x")
        .arg(root().join("testdata/stacks/gdb.py"))
        .output()
        .expect("gdb runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut stacks = Stacks::new();
    let mut current = None;
    for line in text.lines() {
        if let Some(thread) = line.strip_prefix("T ") {
            current = thread.parse().ok();
            stacks.insert(current.unwrap(), Vec::new());
        } else if let Some(frame) = line.strip_prefix("F ")
            && let [pc, kind, function, file, line] = frame.split('\t').collect::<Vec<_>>()[..]
            && kind != "tailcall"
        {
            // gdb invents frames of functions that were left by a jump, from what call sites say: they have no frame.
            let rows = stacks.get_mut(&current.unwrap()).unwrap();
            rows.push(Row {
                pc: pc.into(),
                function: match kind {
                    "signal" => "<signal handler called>".into(),
                    _ => key(function),
                },
                place: (file != "?").then(|| (short_file(file), line.parse().unwrap())),
            });
        }
    }
    for rows in stacks.values_mut() {
        rows.truncate(COMPARED);
    }
    assert!(
        !stacks.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    stacks
}

/// How two stacks differ, if they do and it is not known.
fn difference(case: &str, gdb: &[Row], ours: &[Row]) -> Option<String> {
    for index in 0..gdb.len().max(ours.len()) {
        let (left, right) = (gdb.get(index), ours.get(index));
        let name = |row: Option<&Row>| row.map_or(String::new(), |row| row.function.clone());
        let same = match (left, right) {
            (Some(left), Some(right)) => {
                left.pc == right.pc
                    && left.function == right.function
                    && (left.place.is_none() || left.place == right.place)
            }
            _ => false,
        };
        if same {
            continue;
        }
        let known = KNOWN.iter().any(|known| {
            case.contains(known.fixture) && known.gdb == name(left) && known.ours == name(right)
        });
        return (!known).then(|| format!("frame {index}: gdb {left:?}, heapcheck {right:?}"));
    }
    None
}

#[test]
fn every_stack_is_the_one_that_gdb_shows() {
    let results = in_parallel(&cases(), |case| {
        let (_, report) = report(case, &[]);
        let (ours, gdb) = (ours(&report), gdbs(&directory(case)));
        let mut errors = Vec::new();
        let mut frames = 0;
        for (thread, gdb) in &gdb {
            frames += gdb.len();
            match ours.get(thread) {
                Some(ours) => errors.extend(
                    difference(case, gdb, ours)
                        .map(|what| format!("{case}, thread {thread}: {what}")),
                ),
                None => errors.push(format!("{case}: thread {thread} is missing")),
            }
        }
        (errors, gdb.len(), frames)
    });
    let threads: usize = results.iter().map(|result| result.1).sum();
    let frames: usize = results.iter().map(|result| result.2).sum();
    println!("{threads} threads with {frames} frames compared");
    let errors: Vec<_> = results.into_iter().flat_map(|result| result.0).collect();
    assert!(
        errors.is_empty(),
        "{} stacks differ:\n{}",
        errors.len(),
        errors.join("\n")
    );
    assert!(frames > 1000);
}

fn frames(report: &Value) -> &[Value] {
    report["threads"][0]["frames"].as_array().unwrap()
}

fn functions(report: &Value) -> Vec<&str> {
    let frames = frames(report).iter();
    frames
        .map(|frame| frame["function"].as_str().unwrap_or("?"))
        .collect()
}

/// The function of the frame at fault.
fn at_fault(report: &Value) -> &str {
    let frame = report["crash_info"]["crashing_frame"].as_u64().unwrap();
    functions(report)[usize::try_from(frame).unwrap()]
}

const BUILDS: [&str; 4] = ["cases-O0", "cases-O2", "debuglink", "stripped"];

#[test]
fn the_instruction_at_fault_is_told_with_its_address() {
    for build in BUILDS {
        for (mode, function, access, address) in [
            ("leaf", "assembler_leaf", "read", "0x10"),
            ("store", "store", "write", "0x10030"),
        ] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let instruction = &report["crash_info"]["instruction"];
            assert_eq!(instruction["explains_fault"], true, "{build} {mode}");
            let memory = &instruction["memory"][0];
            assert_eq!(memory["access"], access, "{build} {mode}");
            assert_eq!(memory["address"], address, "{build} {mode}");
            assert_eq!(report["crash_info"]["address"], address);
            if build != "stripped" {
                assert_eq!(key(at_fault(&report)), function, "{build}");
            }
        }
        for mode in ["overflow", "overflow-handled", "plt"] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            let instruction = &report["crash_info"]["instruction"];
            assert_eq!(instruction["explains_fault"], true, "{build} {mode}");
        }
        for (mode, pc) in [("null", "0x0"), ("wild", "0x1234567890")] {
            let (status, report) = report(&format!("{build}-{mode}"), &[]);
            assert_eq!(status, 0, "{build} {mode}");
            assert_eq!(report["crash_info"]["instruction"], Value::Null);
            assert_eq!(frames(&report)[0]["offset"], pc);
        }
    }
}

#[test]
fn an_entry_of_the_linkage_table_has_a_name() {
    for build in BUILDS {
        let (_, report) = report(&format!("{build}-plt"), &[]);
        assert_eq!(functions(&report)[0], "getppid@plt", "{build}");
    }
}

#[test]
fn a_program_with_its_own_handler_shows_what_crashed() {
    for build in BUILDS {
        for (mode, function, code, address) in [
            ("handler", "assembler_leaf", Value::Null, "0x10"),
            ("handler-informed", "store", "SEGV_MAPERR".into(), "0x10030"),
        ] {
            let (status, report) = report(&format!("{build}-{mode}"), &[]);
            assert_eq!(status, 0);
            let crash = &report["crash_info"];
            assert_eq!(crash["type"], "SIGABRT", "{build} {mode}");
            assert_eq!(crash["handled"]["type"], "SIGSEGV", "{build} {mode}");
            assert_eq!(crash["handled"]["code"], code, "{build} {mode}");
            assert_eq!(crash["handled"]["address"], address, "{build} {mode}");
            assert_eq!(crash["instruction"]["memory"][0]["address"], address);
            assert!(report["crashing_thread"]["frame_registers"]["rip"].is_string());
            if build != "stripped" {
                assert_eq!(key(at_fault(&report)), function, "{build}");
            }
            assert!(functions(&report).contains(&"<signal handler called>"));
        }
    }
}

#[test]
fn last_words_are_found_with_and_without_symbols() {
    for build in BUILDS {
        for (mode, words) in [("free", "free(): invalid pointer"), ("assert", "a reason")] {
            let case = format!("{build}-{mode}");
            let with = report(&case, &[]).1;
            let without = report(&case, &["--no-default-paths", "--locate", "structure"]).1;
            for (report, found_by) in [(with, "symbols"), (without, "structure")] {
                let message = &report["crash_info"]["abort_message"];
                let text = message["text"].as_str().unwrap_or("");
                assert!(text.contains(words), "{case} {found_by}: {text}");
                assert_eq!(message["found_by"], found_by, "{case}");
            }
        }
    }
    // abort() alone says nothing.
    let (_, report) = report("cases-O2-deep", &[]);
    assert_eq!(report["crash_info"]["abort_message"], Value::Null);
}

#[test]
fn an_exception_that_nobody_caught_has_its_type() {
    for build in ["deep-O0", "deep-O2"] {
        for (mode, name) in [
            ("throw", "std::out_of_range"),
            ("throw-own", "deep::Refused"),
        ] {
            let (_, report) = report(&format!("{build}-{mode}"), &[]);
            assert_eq!(report["crash_info"]["exception"]["type"], name, "{build}");
        }
        let (_, report) = report(&format!("{build}-lambda"), &[]);
        assert_eq!(report["crash_info"]["exception"], Value::Null);
    }
}

#[test]
fn a_stripped_program_has_the_stack_of_its_twin() {
    for case in cases() {
        // Which instruction of a runaway recursion first touches what is not there is a matter of chance.
        let Some(mode) = case
            .strip_prefix("stripped-")
            .filter(|mode| !mode.starts_with("overflow"))
        else {
            continue;
        };
        let places = |case: &str| -> Vec<String> {
            let (_, report) = report(case, &[]);
            let own = frames(&report).iter();
            own.filter(|frame| frame["module"] == "binary")
                .map(|frame| frame["module_offset"].as_str().unwrap().to_owned())
                .collect()
        };
        let (one, other) = (places(&case), places(&format!("cases-O2-{mode}")));
        let differ = one.iter().zip(&other).position(|(one, other)| one != other);
        assert_eq!(
            differ, None,
            "{mode}: first frame of the program that differs"
        );
        assert_eq!(one.len(), other.len(), "{mode}");
    }
}

fn minidump(case: &str) -> String {
    let directory = directory(case);
    let outcome = heapcheck([
        "--minidump".into(),
        directory.join("core"),
        directory.join("binary"),
    ]);
    outcome.text().to_owned()
}

#[test]
fn recursion_is_a_line_in_text_and_bounded_in_json() {
    for build in BUILDS {
        for (mode, told) in [
            ("deep", "... the frame above 4,0"),
            ("mutual", "... the 2 frames above 2,0"),
            ("overflow", "... the frame above 4,0"),
        ] {
            let case = format!("{build}-{mode}");
            let text = minidump(&case);
            assert!(text.lines().count() < 40, "{case}: {text}");
            assert!(text.contains(told), "{case}: {text}");
            assert!(text.contains("frames that are not kept"), "{case}: {text}");
            let (status, report) = report(&case, &[]);
            assert_eq!(status, 0, "{case}");
            let thread = &report["threads"][0];
            assert_eq!(thread["stack_end"], "complete", "{case}");
            let frames = thread["frames"].as_array().unwrap();
            assert!(frames.len() < 5000, "{case}: {}", frames.len());
            if mode == "deep" {
                // abort() and what it calls, 20,001 calls, main and what called it
                let last = frames.last().unwrap()["frame"].as_u64().unwrap();
                assert!((20_001 + 4..20_001 + 12).contains(&last), "{case}: {last}");
            }
        }
    }
}

#[test]
fn an_overwritten_stack_is_incomplete_and_says_so() {
    for build in BUILDS {
        let case = format!("{build}-smash");
        let (status, report) = report(&case, &[]);
        assert_eq!(status, 3, "{case}");
        assert_eq!(report["threads"][0]["stack_end"], "overwritten", "{case}");
        let jump = &report["crash_info"]["instruction"]["memory"][0];
        assert_eq!(jump["access"], "execute", "{case}");
        assert_eq!(jump["address"], "0x4141414141414141", "{case}");
        assert!(
            minidump(&case).contains("(the stack is overwritten"),
            "{case}"
        );
    }
}

#[test]
fn threads_with_one_stack_are_one_group_in_text_and_all_in_json() {
    for build in BUILDS {
        let case = format!("{build}-threads-1000");
        let (status, report) = report(&case, &[]);
        assert_eq!(status, 0, "{case}");
        assert_eq!(report["threads"].as_array().unwrap().len(), 1001, "{case}");
        let threads = report["threads"].as_array().unwrap();
        assert_eq!(threads[0]["state"], "in tgkill", "{case}");
        for call in ["in pause", "in clock_nanosleep", "in futex", "in read"] {
            let waiting = threads.iter().filter(|thread| thread["state"] == call);
            assert!(waiting.count() >= 190, "{case}: {call}");
        }
        let text = minidump(&case);
        let (first, _) = text.split_once("threads:").unwrap();
        assert!(first.contains("(crashed)"), "{case}: {text}");
        let groups = text.lines().filter(|line| line.contains(" threads: "));
        let count: u64 = groups
            .map(|line| line.split(' ').next().unwrap().replace(',', ""))
            .map(|count| count.parse::<u64>().unwrap())
            .sum();
        assert!(count >= 990, "{case}: {count} threads in groups");
        assert!(text.lines().count() < 200, "{case}: {text}");
    }
}

#[test]
fn frames_in_the_kernels_own_library_are_unwound() {
    let (_, report) = report("cases-O2-vdso", &[]);
    let threads = report["threads"].as_array().unwrap();
    let inside = threads.iter().filter(|thread| {
        let frames = thread["frames"].as_array().unwrap();
        let vdso = |frame: &Value| {
            frame["module"]
                .as_str()
                .is_some_and(|name| name.contains("vdso"))
        };
        frames.iter().any(vdso) && thread["stack_end"] == "complete"
    });
    assert!(inside.count() > 0);
}
